//! The lease in etcd: a key for the role, attached to the one etcd lease that this process keeps alive.
//!
//! The invariants that live here: this process holds a role only if a linearizable read saw its key on its own living
//! lease, under a keep-alive that was answered by the same leader or a later one; the grant is dated from the send of
//! that keep-alive; and nothing is ever deleted or replaced by name alone. What etcd is known to do to clients that
//! trust it more:
//!
//! - a campaign returns although one's own lease has died: here the lease's death is an answer of the claim, or of the
//!   next keep-alive, and the claim starts anew;
//! - a retried delete removes the key of the next holder: deletes name the revision that created the key;
//! - a delete without an answer arrives late, when its own process has asked for the role again: a key that was given
//!   up is certainly deleted before there is a grant, and the grant is for a new key, which that delete does not name;
//! - a retried put makes a key after it was given up: claims name the revision of the process's registration, and
//!   giving up after doubt changes it;
//! - a keep-alive of a dead lease answers TTL 0, or nothing: that is no grant;
//! - a deposed leader answers keep-alives for a while: its raft term is older than that of the read;
//! - a new leader restarts all TTLs: a dead holder's key goes late, never early;
//! - serializable reads are stale: none is ever made.
//!
//! A key in etcd is attached to a lease that its process keeps alive, so a process that finds a key need not watch it
//! for its TTL.

mod lease_key;
mod lease_key_watch;
mod registration;
mod session;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::Notify;

pub use self::registration::ProcessRegistration;
pub use self::session::{EtcdMemberStatus, EtcdSession};

use self::lease_key::{EtcdLeaseStep, etcd_lease_step};
use self::lease_key_watch::LeaseKeyWatch;
use self::session::{ClaimOutcome, lease_key_state};
use super::{LeaseReply, LeaseService};
use crate::etcd::EtcdError;
use crate::ids::RepoId;

/// How often a claim starts anew when its preconditions change meanwhile.
const ROUNDS: usize = 4;

/// The key of one role in etcd.
#[derive(Debug)]
pub struct EtcdLease {
    session: EtcdSession,
    key: String,
    /// The revision that created this process's key.
    created: Option<i64>,
    /// The registration's revision in a claim that may still be on its way.
    doubt: Option<i64>,
    /// Another process's key was there. A claim is written to etcd's log even if it fails, so a process that waits
    /// reads first.
    taken: bool,
    hints: Option<LeaseKeyWatch>,
}

impl EtcdLease {
    /// The lease of the role with this repository.
    pub fn new(session: EtcdSession, repository: RepoId) -> Self {
        let key = session.key(repository);
        Self { session, key, created: None, doubt: None, taken: false, hints: None }
    }

    async fn try_ask(&mut self) -> Result<LeaseReply, EtcdError> {
        let me = self.session.me().instance;
        let mut term = 0;
        for _ in 0..ROUNDS {
            let vouched = self.session.prove_session(term).await?;
            let (found, read_in) = if self.created.is_some() || std::mem::take(&mut self.taken) {
                let (kv, read_in) = self.session.get(&self.key).await?;
                (kv.as_ref().map(lease_key_state), read_in)
            } else {
                // Until etcd has answered the first and only attempt, the claim may be on its way.
                let doubt = self.doubt.replace(vouched.registration_rev);
                let (claimed, tries) = self.session.claim(&self.key, vouched).await?;
                if tries == 1 {
                    self.doubt = doubt;
                }
                match claimed {
                    ClaimOutcome::Done { created, term: read_in } => {
                        self.created = Some(created);
                        if vouched.term < read_in {
                            term = read_in;
                            continue;
                        }
                        return Ok(LeaseReply::Held(vouched.grant));
                    }
                    ClaimOutcome::Not { found: None, registration_rev, .. } => {
                        // Another role of this process changed the registration, or an operator removed it.
                        if registration_rev != vouched.registration_rev {
                            self.session.register_again(vouched.registration_rev).await?;
                        }
                        continue;
                    }
                    ClaimOutcome::Not { found, term: read_in, .. } => (found, read_in),
                    ClaimOutcome::LeaseGone => {
                        self.session.forget_lease(vouched.lease).await;
                        continue;
                    }
                }
            };
            match etcd_lease_step(me, vouched.lease, found.as_ref(), self.session.given_up(&self.key)) {
                EtcdLeaseStep::Claim => self.created = None,
                EtcdLeaseStep::Delete { created } => {
                    self.session.delete(&self.key, created).await?;
                    self.created = None;
                }
                EtcdLeaseStep::Keep { created } => {
                    self.created = Some(created);
                    if vouched.term >= read_in {
                        return Ok(LeaseReply::Held(vouched.grant));
                    }
                    // The member that answered the keep-alive was no longer the leader, or is no longer.
                    term = read_in;
                }
                EtcdLeaseStep::Adopt { created, from } => {
                    // Even without an answer the key is ours, and will be given up by this revision, whatever lease it
                    // is attached to.
                    self.created = Some(created);
                    self.session.adopt(&self.key, created, from, vouched).await?;
                }
                EtcdLeaseStep::Leave { by } => {
                    (self.created, self.taken) = (None, true);
                    return Ok(LeaseReply::Taken { by, alive: true });
                }
            }
        }
        Err(EtcdError::Unsettled("what it says changes with every answer"))
    }

    async fn try_look(&self) -> Result<LeaseReply, EtcdError> {
        let (kv, _) = self.session.get(&self.key).await?;
        Ok(match kv.as_ref().map(lease_key_state) {
            None => LeaseReply::Free,
            Some(found) => LeaseReply::Taken { by: found.claim.map(|claim| claim.holder()), alive: true },
        })
    }

    async fn try_release(&mut self) -> Result<(), EtcdError> {
        // The state is forgotten only when the request is answered: a release that failed may be repeated.
        if let Some(registration_rev) = self.doubt {
            // First no earlier claim may take effect any more; then the key is read.
            self.session.register_again(registration_rev).await?;
            let (kv, _) = self.session.get(&self.key).await?;
            let mine = kv.as_ref().map(lease_key_state).filter(|found| {
                found.claim.as_ref().is_some_and(|claim| claim.holder().instance == self.session.me().instance)
            });
            (self.created, self.doubt) = (mine.map(|found| found.created), None);
        }
        if let Some(created) = self.created {
            self.session.delete(&self.key, created).await?;
            self.created = None;
        }
        Ok(())
    }
}

#[async_trait]
impl LeaseService for EtcdLease {
    async fn acquire_or_renew(&mut self) -> LeaseReply {
        self.try_ask().await.unwrap_or_else(|e| LeaseReply::Unknown { why: e.to_string() })
    }

    async fn inspect(&mut self) -> LeaseReply {
        self.try_look().await.unwrap_or_else(|e| LeaseReply::Unknown { why: e.to_string() })
    }

    async fn release(&mut self) {
        if let Err(error) = self.try_release().await {
            tracing::warn!("the lease was not released, and ends with this process: {error}");
        }
    }

    fn change_hints(&mut self) -> Option<Arc<Notify>> {
        let hints = self.hints.get_or_insert_with(|| LeaseKeyWatch::start(self.session.clone(), self.key.clone()));
        Some(hints.notify())
    }
}
