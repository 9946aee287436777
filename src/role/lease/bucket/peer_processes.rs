//! What this process sees of the process objects of other processes: one read of each, however many roles wait for it.
//!
//! The invariants that live here: a role that was judged free was so after the version of its lease that names the
//! process was read; and the object of a process that has been silent for its whole length is ended before any of its
//! roles is taken, so that the process's own renewal fails.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::lease_record::LeaseRequester;
use super::process_record::{PeerStatus, ProcessKey, ProcessRecord, parse, peer_status};
use super::watched_version::{FoundObject, WatchedVersion, find, observe_version};
use crate::env::Env;
use crate::ids::RoleName;
use crate::role::lease::keep_alive;
use crate::store::{ObjectVersion, ReplaceOutcome, Store, StoreError};

/// The other processes that roles of this process wait for, and a hint for those roles.
#[derive(Debug, Default)]
pub(super) struct PeerProcesses {
    known: Mutex<BTreeMap<ProcessKey, Weak<PeerProcess>>>,
    waiting: Mutex<Vec<Weak<Notify>>>,
}

/// Another process.
#[derive(Debug)]
pub(super) struct PeerProcess {
    key: ProcessKey,
    observation: tokio::sync::Mutex<PeerObservation>,
}

#[derive(Debug, Default)]
struct PeerObservation {
    /// The boot time at which the last read began.
    looked: Option<Duration>,
    found: Option<FoundObject<ObjectVersion, ProcessRecord>>,
    watched: Option<WatchedVersion<ObjectVersion>>,
}

/// A question about another process.
#[derive(Debug)]
pub(super) struct PeerQuery<'a> {
    pub(super) env: &'a Env,
    pub(super) store: &'a dyn Store,
    pub(super) requester: &'a LeaseRequester,
    pub(super) role: &'a RoleName,
    /// The boot time at which the version of the role's lease that names the process was there.
    pub(super) named: Duration,
    /// Whether the object of a silent process is ended; otherwise nothing is written.
    pub(super) ends: bool,
}

/// The answer to a question about another process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PeerAnswer {
    Has {
        alive: bool,
    },
    HasNot,
    /// It cannot be told whether the end of the object was written.
    Doubt,
}

impl PeerProcesses {
    /// The process with this key.
    pub(super) fn peer(&self, key: &ProcessKey) -> Arc<PeerProcess> {
        let mut known = self.known.lock();
        if let Some(peer) = known.get(key).and_then(Weak::upgrade) {
            return peer;
        }
        known.retain(|_, peer| peer.strong_count() > 0);
        let peer = Arc::new(PeerProcess { key: key.clone(), observation: tokio::sync::Mutex::default() });
        known.insert(key.clone(), Arc::downgrade(&peer));
        peer
    }

    /// Is notified when a process is seen to have given a role up, or to have ended.
    pub(super) fn hints(&self) -> Arc<Notify> {
        let notify = Arc::new(Notify::new());
        let mut waiting = self.waiting.lock();
        waiting.retain(|waiting| waiting.strong_count() > 0);
        waiting.push(Arc::downgrade(&notify));
        notify
    }

    fn wake(&self) {
        let waiting = self.waiting.lock();
        waiting.iter().filter_map(Weak::upgrade).for_each(|notify| notify.notify_one());
    }
}

impl PeerProcess {
    pub(super) fn key(&self) -> &ProcessKey {
        &self.key
    }

    /// Whether the process has the role. An earlier read counts, if it was made after that of the role's lease.
    pub(super) async fn ask(&self, peers: &PeerProcesses, question: &PeerQuery<'_>) -> Result<PeerAnswer, StoreError> {
        let PeerQuery { env, store, requester, role, named, ends } = *question;
        let (key, lately) = (self.key.to_string(), keep_alive::retry_pause(requester.ttl) * 19 / 20);
        let mut observation = self.observation.lock().await;
        for _ in 0..2 {
            let now = env.clock.boottime();
            let is_fresh = |looked: Duration| looked > named && now.saturating_sub(looked) < lately;
            if !observation.looked.is_some_and(is_fresh) && observation.look(env, store, &key).await? {
                peers.wake();
            }
            let looked = observation.looked.unwrap_or_default();
            tracing::trace!(key, %role, ?named, ?now, ?looked, found = ?observation.found, "a process object is seen");
            match peer_status(
                role,
                &requester.me,
                requester.ttl,
                observation.found.as_ref(),
                observation.watched.as_ref(),
                looked,
            ) {
                PeerStatus::Has { alive } => return Ok(PeerAnswer::Has { alive }),
                PeerStatus::HasNot => return Ok(PeerAnswer::HasNot),
                PeerStatus::Silent(..) if !ends => return Ok(PeerAnswer::Has { alive: false }),
                PeerStatus::Silent(version, end) => {
                    #[cfg(feature = "planted")]
                    if crate::planted::is(crate::planted::PlantedBug::TakenWithoutEnd) {
                        return Ok(PeerAnswer::HasNot);
                    }
                    tracing::debug!(key, "a process was silent for the whole length of its lease: its object is ended");
                    let body = Bytes::from(serde_json::to_vec(&end).expect("plain data becomes JSON"));
                    observation.looked = None;
                    if let ReplaceOutcome::Replaced(version) = store.replace(&key, body, &version).await? {
                        observation.found = Some(FoundObject { version, content: Some(end) });
                        observation.watched = None;
                        observation.looked = Some(now);
                        peers.wake();
                        return Ok(PeerAnswer::HasNot);
                    }
                    // The process may live after all, or another process was the first to end it.
                }
            }
        }
        Ok(PeerAnswer::Doubt)
    }
}

impl PeerObservation {
    /// Reads the object. Returns whether a role is no longer listed.
    async fn look(&mut self, env: &Env, store: &dyn Store, key: &str) -> Result<bool, StoreError> {
        let asked = env.clock.boottime();
        let found = find(store, key, parse).await?;
        self.watched = observe_version(self.watched.take(), found.as_ref(), env.clock.boottime());
        let process_record = |found: &Option<FoundObject<ObjectVersion, ProcessRecord>>| {
            found.as_ref().and_then(|found| found.content.clone())
        };
        let (before, after) = (process_record(&self.found), process_record(&found));
        let gone = before.is_some_and(|before| {
            let left = after.filter(|after| !after.ended).map(|after| after.roles).unwrap_or_default();
            !before.roles.is_subset(&left)
        });
        (self.looked, self.found) = (Some(asked), found);
        Ok(gone)
    }
}
