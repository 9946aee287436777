//! The lease in the bucket, written by compare-and-swap: a small object for the role (the lease record), and for a
//! long-running process one more for the process itself (the process object).
//!
//! A one-shot run holds a role by the role's object alone, which it renews. A daemon renews one process object for all
//! its roles; each role's object names it, and changes when the role moves.
//!
//! The invariants that live here: no clock of another host is ever compared with ours, so a foreign lease is over only
//! when its object has not changed for its whole length *while this process watched*; the role's object is replaced in
//! exactly the version that was judged, whichever process lists the role; and a release increments the counter instead
//! of resetting it, so that no content comes twice and an old version is never taken for the present one.
//!
//! The protocol is that of client-go's leader election (`resourceVersion` there, the ETag here), without its
//! timestamps. The pure functions `bucket_lease_step` and `peer_status` decide what to do; [`BucketLease`] does it.

mod lease_record;
mod peer_processes;
mod process_object;
mod process_record;
#[cfg(test)]
mod tests;
mod watched_version;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::Notify;

use self::lease_record::{
    BucketLeaseStep, FoundLease, LeaseRecord, LeaseRequester, bucket_lease_step, is_rewrite_due, parse,
};
use self::peer_processes::{PeerAnswer, PeerProcess, PeerProcesses, PeerQuery};
pub use self::process_object::ProcessObjects;
use self::process_object::{ProcessObject, RoleListing};
use self::process_record::ProcessKey;
use self::watched_version::{WatchedVersion, observe_version};
use super::{LeaseHolder, LeaseReply, LeaseService};
use crate::env::Env;
use crate::ids::RoleName;
use crate::role::candidacy::LeaseGrant;
use crate::store::{ObjectVersion, PutOutcome, ReplaceOutcome, SizeLimit, Store, StoreError, StoreErrorKind};

/// A role's object that names another process is read again after this time: a process of a version without process
/// objects may have changed it.
const REREAD_AFTER: Duration = Duration::from_hours(1);

/// One role's lease object.
#[derive(Debug)]
pub struct BucketLease {
    store: Arc<dyn Store>,
    key: String,
    role: RoleName,
    env: Env,
    requester: LeaseRequester,
    /// The process object that this process renews; `None` if it renews the role's own object.
    process: Option<Arc<ProcessObject>>,
    peers: Arc<PeerProcesses>,
    hints: Arc<Notify>,
    watched: Option<WatchedVersion<ObjectVersion>>,
    /// The role's object that names another process, and the boot time when it was read. It is not read again while
    /// that process has the role.
    named: Option<(FoundLease<ObjectVersion>, Duration)>,
    peer: Option<Arc<PeerProcess>>,
    held: Option<WrittenLease>,
    /// The serial number under which this process's object lists the role, as far as this lease knows.
    listed: Option<u64>,
    /// The store refused the last request.
    is_refused: bool,
}

/// What this process last wrote into the role's object.
#[derive(Debug)]
struct WrittenLease {
    record: LeaseRecord,
    version: ObjectVersion,
    /// The boot time at which the write was sent.
    written: Duration,
    /// The last grant.
    grant: LeaseGrant,
}

/// What to do after a read.
enum LeaseDecision {
    /// Write over this version, or create the object, with this count.
    Write(Option<ObjectVersion>, u64),
    Reply(LeaseReply),
}

impl BucketLease {
    /// The lease object `key` of `role`, requested by `me` for `ttl` at a time; with `processes`, by the object of this
    /// process.
    pub fn new(
        store: Arc<dyn Store>,
        (role, key): (RoleName, String),
        env: Env,
        me: LeaseHolder,
        ttl: Duration,
        processes: Option<&ProcessObjects>,
    ) -> Self {
        let process = processes.map(|processes| processes.for_ttl(&env, &me, ttl));
        let peers = processes.map_or_else(Arc::default, |processes| Arc::clone(processes.peers()));
        let hints = peers.hints();
        let requester = LeaseRequester { me, ttl };
        Self {
            store,
            key,
            role,
            env,
            requester,
            process,
            peers,
            hints,
            watched: None,
            named: None,
            peer: None,
            held: None,
            listed: None,
            is_refused: false,
        }
    }

    /// The content of the role's object. If it named another process when it was last read, that content is returned
    /// again.
    async fn find(&mut self) -> Result<(Option<FoundLease<ObjectVersion>>, Duration), StoreError> {
        let asked = self.env.clock.boottime();
        if let Some((found, seen)) = &self.named
            && asked.saturating_sub(*seen) < REREAD_AFTER
        {
            return Ok((Some(found.clone()), asked));
        }
        let found = watched_version::find(self.store.as_ref(), &self.key, parse).await?;
        let seen = self.env.clock.boottime();
        self.watched = observe_version(self.watched.take(), found.as_ref(), seen);
        let names =
            |found: &FoundLease<ObjectVersion>| found.content.as_ref().is_some_and(|there| there.process.is_some());
        self.named = found.clone().filter(names).map(|found| (found, seen));
        Ok((found, asked))
    }

    /// Whether the process with this key has the role.
    async fn ask_for(&mut self, key: &ProcessKey, ends: bool) -> Result<PeerAnswer, StoreError> {
        let peer = match self.peer.take() {
            Some(peer) if peer.key() == key => peer,
            _ => self.peers.peer(key),
        };
        let Self { env, requester, role, .. } = &*self;
        // The boot time at which this version of the role's object was first seen.
        let named = self.watched.as_ref().map_or(Duration::MAX, |watched| watched.since);
        let store = self.store.as_ref();
        let answer = peer.ask(&self.peers, &PeerQuery { env, store, requester, role, named, ends }).await;
        self.peer = Some(peer);
        answer.map_err(|error| match error.kind {
            StoreErrorKind::Denied => {
                let needs = "the lease names this process object: this node needs the right to read and write";
                let detail = format!("{needs} {}/live/processes/; {}", key.role, error.detail);
                StoreError { detail, ..error }
            }
            _ => error,
        })
    }

    async fn decide(&mut self) -> Result<LeaseDecision, StoreError> {
        loop {
            let was_known = self.named.is_some();
            let (found, asked) = self.find().await?;
            let (key, version, count) =
                match bucket_lease_step(&self.requester, found.as_ref(), self.watched.as_ref(), asked) {
                    BucketLeaseStep::Create(count) => return Ok(LeaseDecision::Write(None, count)),
                    BucketLeaseStep::Replace(version, count) => return Ok(LeaseDecision::Write(Some(version), count)),
                    BucketLeaseStep::Leave { by, alive } => {
                        return Ok(LeaseDecision::Reply(LeaseReply::Taken { by, alive }));
                    }
                    BucketLeaseStep::AskFor(key, version, count) => (key, version, count),
                };
            match self.ask_for(&key, true).await? {
                PeerAnswer::Has { alive } => {
                    let by = found.and_then(|found| found.content).as_ref().map(LeaseRecord::holder);
                    return Ok(LeaseDecision::Reply(LeaseReply::Taken { by, alive }));
                }
                PeerAnswer::Doubt => return Ok(LeaseDecision::Reply(LeaseReply::Unknown { why: CHANGES.to_owned() })),
                // The holder writes that it gives the role up after its process object; what was read before may be an
                // older version.
                PeerAnswer::HasNot if was_known => self.named = None,
                PeerAnswer::HasNot => return Ok(LeaseDecision::Write(Some(version), count)),
            }
        }
    }

    /// Writes the record `record` over `expected`, or creates the object, under `grant`, or under what this write
    /// grants. `None` if the object is not the expected one.
    async fn write(
        &mut self,
        expected: Option<ObjectVersion>,
        record: LeaseRecord,
        grant: Option<LeaseGrant>,
    ) -> Result<Option<LeaseReply>, StoreError> {
        self.named = None;
        let asked = self.env.clock.moment();
        let grant = grant.unwrap_or(LeaseGrant { asked, ttl: record.ttl() });
        let body = Bytes::from(serde_json::to_vec(&record).expect("plain data becomes JSON"));
        let (version, doubt) = match &expected {
            None => match self.store.put_if_absent(&self.key, body.clone()).await? {
                // The store does not tell the version, so it is looked up; so is the outcome of a write that was not
                // answered.
                PutOutcome::Created => (None, None),
                PutOutcome::Unknown { why } => (None, Some(why)),
                PutOutcome::Exists => return Ok(None),
            },
            Some(expected) => match self.store.replace(&self.key, body.clone(), expected).await? {
                ReplaceOutcome::Replaced(version) => (Some(version), None),
                ReplaceOutcome::Changed => return Ok(None),
                ReplaceOutcome::Unknown { why } => (None, Some(why)),
            },
        };
        let version = match version {
            Some(version) => version,
            None => match self.store.get_versioned(&self.key, SizeLimit::LIVE).await {
                Ok((there, version)) if there == body => version,
                // The write was not answered, and has had no effect yet.
                Ok((_, version)) if Some(&version) == expected.as_ref() => {
                    return Ok(Some(LeaseReply::Unknown { why: doubt.unwrap_or_else(|| CHANGES.to_owned()) }));
                }
                Ok(_) => return Ok(None),
                Err(e) if e.is_not_found() => {
                    let why = doubt.unwrap_or_else(|| "the lease object is gone".to_owned());
                    return Ok(Some(LeaseReply::Unknown { why }));
                }
                Err(e) => return Err(e),
            },
        };
        tracing::trace!(key = self.key, ?record, ?expected, ?grant, "the lease is held");
        self.held = Some(WrittenLease { record, version, written: asked.boot, grant });
        Ok(Some(LeaseReply::Held(grant)))
    }

    /// Renews what is held; `None` if it may not be held any more.
    async fn renew_held(&mut self, held: WrittenLease) -> Result<Option<LeaseReply>, StoreError> {
        let Some(process) = self.process.clone() else {
            return self.write(Some(held.version), held.record.renewed(), None).await;
        };
        // An earlier release was cut short.
        let Some(listed) = self.listed else { return Ok(None) };
        // After a gap, a process of a version without process objects may have taken the role.
        let gap = held.grant.passed(self.env.clock.moment());
        #[cfg(feature = "planted")]
        let gap = gap && !crate::planted::is(crate::planted::PlantedBug::TakenWithoutEnd);
        if gap {
            return Ok(None);
        }
        let grant = match process.renew(&self.role, listed).await {
            Ok(Some(RoleListing::Yes { grant, .. })) => grant,
            Ok(None) => return Ok(None),
            Ok(Some(RoleListing::Unknown { why })) => {
                self.held = Some(held);
                return Ok(Some(LeaseReply::Unknown { why }));
            }
            Err(error) => {
                self.held = Some(held);
                return Err(error);
            }
        };
        if is_rewrite_due(held.written, self.env.clock.boottime(), self.requester.ttl) {
            return self.write(Some(held.version), held.record.renewed(), Some(grant)).await;
        }
        self.held = Some(WrittenLease { grant, ..held });
        Ok(Some(LeaseReply::Held(grant)))
    }

    /// Takes a lease that is free or dead; `None` if another process wrote at the same time, or an earlier request of
    /// this process arrived late.
    async fn write_new(
        &mut self,
        expected: Option<ObjectVersion>,
        count: u64,
    ) -> Result<Option<LeaseReply>, StoreError> {
        let Some(process) = self.process.clone() else {
            return self.write(expected, self.requester.lease_record(count, None), None).await;
        };
        match process.list(&self.store, &self.role).await? {
            RoleListing::Unknown { why } => Ok(Some(LeaseReply::Unknown { why })),
            RoleListing::Yes { grant, key, serial } => {
                self.listed = Some(serial);
                self.write(expected, self.requester.lease_record(count, Some(key)), Some(grant)).await
            }
        }
    }

    async fn unlist(&mut self) {
        if let (Some(process), Some(listed)) = (&self.process, self.listed.take()) {
            process.unlist(&self.role, listed).await;
        }
    }

    async fn try_ask(&mut self) -> Result<LeaseReply, StoreError> {
        if let Some(held) = self.held.take() {
            // The object is this process's own now, whatever process it named before.
            self.named = None;
            if let Some(reply) = self.renew_held(held).await? {
                return Ok(reply);
            }
        }
        let (expected, count) = match self.decide().await? {
            LeaseDecision::Write(expected, count) => (expected, count),
            LeaseDecision::Reply(reply) => return Ok(self.note_taken_reply(reply).await),
        };
        if let Some(reply) = self.write_new(expected, count).await? {
            return Ok(reply);
        }
        // The object decides. Only another process's record is a reason to say that another process has the lease.
        match self.decide().await? {
            LeaseDecision::Reply(reply) => Ok(self.note_taken_reply(reply).await),
            LeaseDecision::Write(..) => Ok(LeaseReply::Unknown { why: CHANGES.to_owned() }),
        }
    }

    /// Removes the role from this process's object, since another process has the lease.
    async fn note_taken_reply(&mut self, reply: LeaseReply) -> LeaseReply {
        if let LeaseReply::Taken { .. } = reply {
            self.unlist().await;
        }
        reply
    }

    async fn try_look(&mut self) -> Result<LeaseReply, StoreError> {
        loop {
            let was_known = self.named.is_some();
            let Some(FoundLease { content: record, .. }) = self.find().await?.0 else { return Ok(LeaseReply::Free) };
            let by = record.as_ref().map(LeaseRecord::holder);
            match record {
                Some(record) if record.released => return Ok(LeaseReply::Free),
                Some(LeaseRecord { process: Some(key), .. }) => match self.ask_for(&key, false).await? {
                    PeerAnswer::Has { alive } => return Ok(LeaseReply::Taken { by, alive }),
                    PeerAnswer::HasNot if was_known => self.named = None,
                    PeerAnswer::HasNot => return Ok(LeaseReply::Free),
                    PeerAnswer::Doubt => return Ok(LeaseReply::Unknown { why: CHANGES.to_owned() }),
                },
                _ => {
                    let alive = self.watched.as_ref().is_some_and(|watched| watched.renewed);
                    return Ok(LeaseReply::Taken { by, alive });
                }
            }
        }
    }
}

/// The reason for a request that no process is seen to have won.
const CHANGES: &str = "the lease object changed while it was asked for";

#[async_trait]
impl LeaseService for BucketLease {
    async fn acquire_or_renew(&mut self) -> LeaseReply {
        let asked = self.try_ask().await;
        self.is_refused = asked.as_ref().is_err_and(|error| error.kind.is_refusal());
        asked.unwrap_or_else(|e| LeaseReply::Unknown { why: e.to_string() })
    }

    async fn inspect(&mut self) -> LeaseReply {
        self.try_look().await.unwrap_or_else(|e| LeaseReply::Unknown { why: e.to_string() })
    }

    async fn release(&mut self) {
        let held = self.held.take();
        self.unlist().await;
        self.named = None;
        let held = match held {
            // The last request was cut short; it may have succeeded.
            None => match self.find().await {
                Ok((Some(FoundLease { version, content: Some(record) }), _)) => Some((record, version)),
                _ => None,
            },
            Some(held) => Some((held.record, held.version)),
        };
        self.named = None;
        let held = held.filter(|(record, _)| record.instance == self.requester.me.instance && !record.released);
        let Some((record, version)) = held else { return };
        let body = Bytes::from(serde_json::to_vec(&record.released_record()).expect("plain data becomes JSON"));
        // If this fails the lease expires by itself, only later.
        match self.store.replace(&self.key, body, &version).await {
            Ok(ReplaceOutcome::Replaced(_)) => tracing::debug!(key = self.key, "the lease is released"),
            Ok(_) => tracing::debug!(key = self.key, "the lease was not released; it expires"),
            Err(error) => tracing::debug!(key = self.key, "the lease was not released; it expires: {error}"),
        }
    }

    fn last_failure(&self) -> Option<String> {
        self.store.last_attempt_error()
    }

    fn is_refused(&self) -> bool {
        self.is_refused
    }

    fn change_hints(&mut self) -> Option<Arc<Notify>> {
        Some(Arc::clone(&self.hints))
    }
}
