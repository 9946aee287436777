//! The object of this process: one for all roles that it holds, renewed for all of them at once.
//!
//! The invariants that live here: a role is listed before its lease names the object, and until nothing is granted on
//! it any more; a grant is dated from the moment at which the write that lists the role was sent; and a process that
//! finds its object ended, gone or another's has lost all roles at once, and begins another object under another name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;

use super::peer_processes::PeerProcesses;
use super::process_record::{ProcessKey, ProcessRecord, parse};
use super::watched_version::HasInstance as _;
use crate::env::Env;
use crate::ids::RoleName;
use crate::outage::no_answer_text;
use crate::role::candidacy::LeaseGrant;
use crate::role::lease::LeaseHolder;
use crate::role::lease::keep_alive::RENEW_PART;
use crate::store::{ObjectVersion, PutOutcome, ReplaceOutcome, SizeLimit, Store, StoreError};

/// Number of attempts to write when the object was found in another version than expected.
const TRIES: usize = 3;

/// The objects of this process, one for each length of a lease, and what it sees of those of other processes. Copies
/// share the same state.
#[derive(Debug, Clone, Default)]
pub struct ProcessObjects(Arc<SharedProcessObjects>);

#[derive(Debug, Default)]
struct SharedProcessObjects {
    own: Mutex<BTreeMap<Duration, Arc<ProcessObject>>>,
    peers: Arc<PeerProcesses>,
}

impl ProcessObjects {
    /// The object for roles whose lease has this length.
    pub(super) fn for_ttl(&self, env: &Env, me: &LeaseHolder, ttl: Duration) -> Arc<ProcessObject> {
        let mut own = self.0.own.lock();
        Arc::clone(own.entry(ttl).or_insert_with(|| Arc::new(ProcessObject::new(env.clone(), me.clone(), ttl))))
    }

    pub(super) fn peers(&self) -> &Arc<PeerProcesses> {
        &self.0.peers
    }
}

/// The answer to a request for a role's place in the object.
#[derive(Debug)]
pub(super) enum RoleListing {
    /// The role is listed.
    Yes { grant: LeaseGrant, key: ProcessKey, serial: u64 },
    /// Whether the role is listed cannot be told.
    Unknown { why: String },
}

/// The outcome of a write.
enum ObjectWriteOutcome {
    Yes,
    Unknown(String),
    /// The object is no longer this process's.
    Lost,
}

/// The object of this process, and the roles that are to be in it.
#[derive(Debug)]
pub(super) struct ProcessObject {
    env: Env,
    me: LeaseHolder,
    ttl: Duration,
    state: tokio::sync::Mutex<ProcessObjectState>,
}

#[derive(Debug)]
struct ProcessObjectState {
    /// The number of the present object, or else of the last one.
    number: u64,
    own: Option<CurrentObject>,
    wanted: BTreeMap<RoleName, ListedRole>,
    serial: u64,
}

/// The present object.
#[derive(Debug)]
struct CurrentObject {
    store: Arc<dyn Store>,
    key: ProcessKey,
    /// A write was sent, so the object may exist.
    sent: bool,
    /// The object was seen.
    seen: bool,
    /// The object's content; `None` if it has to be read.
    last: Option<(ProcessRecord, ObjectVersion)>,
    /// The grant of the last write, if that write is known to be done and no other can come after it.
    granted: Option<LeaseGrant>,
}

/// A role that is to be listed.
#[derive(Debug)]
struct ListedRole {
    /// A number that no other listing has: a role that lost its listing and got another one notices.
    serial: u64,
    /// The boot time until which something may be granted on the listing.
    until: Duration,
}

impl ProcessObjectState {
    fn forget_object(&mut self) {
        self.own = None;
        self.wanted.clear();
    }

    fn roles(&mut self, now: Duration) -> BTreeSet<RoleName> {
        self.wanted.retain(|_, wanted| now < wanted.until);
        self.wanted.keys().cloned().collect()
    }
}

impl ProcessObject {
    fn new(env: Env, me: LeaseHolder, ttl: Duration) -> Self {
        // The number is random: an object that the same process made before a reload of the config has another one.
        let number = u64::from(u32::from_be_bytes(env.random_bytes()));
        let state = ProcessObjectState { number, own: None, wanted: BTreeMap::new(), serial: 0 };
        Self { env, me, ttl, state: tokio::sync::Mutex::new(state) }
    }

    /// Lists `role`, in an object that is created in `store` if there is none. Nothing was granted on an earlier
    /// listing.
    pub(super) async fn list(&self, store: &Arc<dyn Store>, role: &RoleName) -> Result<RoleListing, StoreError> {
        let mut state = self.state.lock().await;
        for _ in 0..TRIES {
            if !state.wanted.contains_key(role) {
                state.serial += 1;
                let wanted = ListedRole { serial: state.serial, until: Duration::ZERO };
                state.wanted.insert(role.clone(), wanted);
            }
            if state.own.is_none() {
                state.number += 1;
                let key = ProcessKey { role: role.clone(), instance: self.me.instance, number: state.number };
                let store = Arc::clone(store);
                state.own = Some(CurrentObject { store, key, sent: false, seen: false, last: None, granted: None });
            }
            if let Some(listed) = self.serve(&mut state, role).await? {
                return Ok(listed);
            }
        }
        Ok(RoleListing::Unknown { why: CHANGES.to_owned() })
    }

    /// Keeps `role` listed, if it has been since this serial number; otherwise `None`.
    pub(super) async fn renew(&self, role: &RoleName, serial: u64) -> Result<Option<RoleListing>, StoreError> {
        let mut state = self.state.lock().await;
        if state.wanted.get(role).is_none_or(|wanted| wanted.serial != serial) {
            return Ok(None);
        }
        self.serve(&mut state, role).await
    }

    /// Removes `role` from the list, if it has been there since this serial number. Work that was granted on it has
    /// ended.
    pub(super) async fn unlist(&self, role: &RoleName, serial: u64) {
        let mut guard = self.state.lock().await;
        let state = &mut *guard;
        if state.wanted.get(role).is_none_or(|wanted| wanted.serial != serial) {
            return;
        }
        state.wanted.remove(role);
        let last = state.wanted.is_empty();
        let written = self.write(state, last).await;
        let is_done = matches!(written, Ok(ObjectWriteOutcome::Yes));
        if !is_done {
            tracing::debug!("the role was not removed from the process object; its lease expires");
        }
        if !last {
            return;
        }
        // Whatever the outcome below, nothing is written to the object any more.
        let own = state.own.take();
        state.forget_object();
        if let Some(own) = own.filter(|_| is_done) {
            // The object has ended, so it is not needed any more. Without the permission to delete it stays.
            let deleted = own.store.delete(&[own.key.to_string()]).await;
            let is_deleted = deleted.is_ok();
            tracing::debug!(key = %own.key, is_deleted, "the process object has ended");
        }
    }

    /// The grant for a role that is wanted; `None` if all roles are lost.
    async fn serve(&self, state: &mut ProcessObjectState, role: &RoleName) -> Result<Option<RoleListing>, StoreError> {
        // A role that no longer asks is dropped from the list some time later, like a lease that is not renewed.
        if let Some(wanted) = state.wanted.get_mut(role) {
            wanted.until = wanted.until.max(self.env.clock.boottime() + self.ttl);
        }
        if !self.is_fresh(state, role) {
            match self.write(state, false).await? {
                ObjectWriteOutcome::Yes => {}
                ObjectWriteOutcome::Unknown(why) => return Ok(Some(RoleListing::Unknown { why })),
                ObjectWriteOutcome::Lost => {
                    tracing::warn!("the process object of this process has ended: all its leases are lost");
                    state.forget_object();
                    return Ok(None);
                }
            }
        }
        let (Some(own), Some(wanted)) = (&state.own, state.wanted.get_mut(role)) else { return Ok(None) };
        let Some(grant) = own.granted else { return Ok(None) };
        wanted.until = wanted.until.max(grant.asked.boot + grant.ttl);
        Ok(Some(RoleListing::Yes { grant, key: own.key.clone(), serial: wanted.serial }))
    }

    /// Whether the role is listed, and no renewal is due yet.
    fn is_fresh(&self, state: &ProcessObjectState, role: &RoleName) -> bool {
        let now = self.env.clock.moment();
        state.own.as_ref().is_some_and(|own| {
            own.last.as_ref().is_some_and(|(process_record, _)| process_record.roles.contains(role))
                && own.granted.is_some_and(|grant| {
                    !grant.passed(now) && now.boot.saturating_sub(grant.asked.boot) < self.ttl / RENEW_PART
                })
        })
    }

    /// Writes the object anew with all wanted roles, or ends it. The write takes at most so long that two more attempts
    /// fit into the lease.
    async fn write(&self, state: &mut ProcessObjectState, end: bool) -> Result<ObjectWriteOutcome, StoreError> {
        let limit = self.ttl / RENEW_PART;
        if let Some(written) = self.env.timeout(limit, self.try_write(state, end)).await {
            return written;
        }
        let trouble = state.own.as_ref().and_then(|own| own.store.last_attempt_error());
        Ok(ObjectWriteOutcome::Unknown(no_answer_text(limit, trouble.as_deref())))
    }

    async fn try_write(&self, state: &mut ProcessObjectState, end: bool) -> Result<ObjectWriteOutcome, StoreError> {
        let roles = state.roles(self.env.clock.boottime());
        let Some(own) = &mut state.own else { return Ok(ObjectWriteOutcome::Lost) };
        let (store, key) = (Arc::clone(&own.store), own.key.to_string());
        for _ in 0..TRIES {
            // A write with this content may arrive at any time from now on.
            let asked = self.env.clock.moment();
            if own.sent && own.last.is_none() && !self.look(own).await? {
                return Ok(ObjectWriteOutcome::Lost);
            }
            // Nothing is granted until the outcome of this write is known. A write that may still arrive may list other
            // roles, until a later write has taken its place.
            own.granted = None;
            let (before, expected) = match own.last.take() {
                Some((process_record, version)) => (process_record, Some(version)),
                None if end => return Ok(ObjectWriteOutcome::Lost),
                None => (ProcessRecord::new(&self.me, self.ttl), None),
            };
            let next = if end { before.ended_record() } else { before.with_roles(roles.clone()) };
            let body = Bytes::from(serde_json::to_vec(&next).expect("plain data becomes JSON"));
            own.sent = true;
            let doubt = match &expected {
                None => match store.put_if_absent(&key, body).await? {
                    PutOutcome::Created | PutOutcome::Exists => None,
                    PutOutcome::Unknown { why } => Some(why),
                },
                Some(expected) => match store.replace(&key, body, expected).await? {
                    ReplaceOutcome::Replaced(version) => {
                        own.seen = true;
                        own.last = Some((next.clone(), version));
                        None
                    }
                    ReplaceOutcome::Changed => None,
                    ReplaceOutcome::Unknown { why } => Some(why),
                },
            };
            if own.last.is_none() && !self.look(own).await? {
                return Ok(ObjectWriteOutcome::Lost);
            }
            tracing::trace!(key, count = next.count, roles = ?next.roles, ?doubt, last = ?own.last, "the process object is written");
            if own.last.as_ref().is_some_and(|(there, _)| *there == next) {
                own.granted = Some(LeaseGrant { asked, ttl: self.ttl });
                return Ok(ObjectWriteOutcome::Yes);
            }
            // The write was not answered and has had no effect yet; or an earlier write of this process arrived late.
            let is_unchanged = own.last.as_ref().map(|(_, version)| version) == expected.as_ref();
            if let Some(why) = doubt.filter(|_| is_unchanged) {
                return Ok(ObjectWriteOutcome::Unknown(why));
            }
        }
        Ok(ObjectWriteOutcome::Unknown(CHANGES.to_owned()))
    }

    /// Reads the object. `false`: it is no longer this process's.
    async fn look(&self, own: &mut CurrentObject) -> Result<bool, StoreError> {
        match own.store.get_versioned(&own.key.to_string(), SizeLimit::LIVE).await {
            Ok((bytes, version)) => {
                own.seen = true;
                let mine = parse(&bytes)
                    .filter(|process_record| process_record.instance() == self.me.instance && !process_record.ended);
                own.last = mine.map(|process_record| (process_record, version));
                Ok(own.last.is_some())
            }
            // As far as is known the object was never there: it may still be created.
            Err(e) if e.is_not_found() => Ok(!own.seen),
            // Other programs put it there: no write of this process makes such an object.
            Err(e) if e.is_not_an_object() => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// The reason for a write that no process is seen to have won.
const CHANGES: &str = "the process object changed while it was written";
