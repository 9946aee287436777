//! A run under a permit: the tree is gathered, then the index objects are put, then the record that commits it all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use crate::job::admission::author_check::{note_append_intent, remember_view};
use crate::job::error::BackupError;
use crate::job::local_state::saved_state::SavedState;
use crate::job::local_state::{LocalLock, LocalState};
use crate::job::node::context::NodeContext;
use crate::job::repository::open::Repository;
use crate::journal::body::RecordBody;
use crate::journal::error::{AppendError, JournalError};
use crate::journal::permit::Permit;
use crate::journal::reader::Journal;
use crate::journal::state::{JournalState, RoleHolder};
use crate::journal::view::JournalView;

/// Number of attempts to append, each one after the first because an operator's record was appended in between.
const COMMIT_ATTEMPTS: u32 = 16;

/// How long a commit waits for a lease service that cannot be reached. After that the run ends; the next run finds what
/// it uploaded.
const COMMIT_PATIENCE: Duration = Duration::from_mins(15);

/// Interval at which a waiting commit checks its permit.
const PERMIT_POLL: Duration = Duration::from_millis(100);

/// A role taken over, and with it the lock that keeps out other runs of this host.
pub(crate) struct RoleSession<'a> {
    pub(crate) node_context: &'a NodeContext,
    pub(crate) repository: &'a Repository,
    pub(crate) journal: Journal,
    pub(crate) local: LocalState,
    pub(crate) lock: Option<LocalLock>,
    pub(crate) memory: SavedState,
    pub(crate) permit: Permit,
    pub(crate) view: JournalView,
    pub(crate) takeover: bool,
    pub(crate) started: Duration,
    /// Sequence number of the record that is being appended; 0: none is.
    pub(crate) appending: AtomicU64,
}

impl RoleSession<'_> {
    /// The permit that this session appends under.
    pub(crate) fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Appends a record of this session.
    pub(crate) async fn append(&mut self, body: RecordBody, slot: Option<Timestamp>) -> Result<(), BackupError> {
        self.view = self.append_to(self.view.clone(), &body, slot).await?;
        if self.lock.is_none() {
            // Without the lock another run may be saving its own state.
            return Ok(());
        }
        remember_view(self.node_context, &self.local, &mut self.memory, &self.view);
        self.remember(&self.memory)
    }

    /// Lets other runs of this host open the repository while this session does something that does not touch it.
    pub(crate) fn unlock(&mut self) {
        self.lock = None;
    }

    /// The node that took the role over in the meantime, if one did.
    pub(crate) async fn superseded_by(&self) -> Result<Option<RoleHolder>, JournalError> {
        let now = self.journal.read(Some(&self.view)).await?;
        Ok(now.state.holder.filter(|holder| holder.takeover != self.permit.takeover()))
    }

    pub(crate) fn remember(&self, memory: &SavedState) -> Result<(), BackupError> {
        self.local.save(memory).map_err(|error| BackupError::State { path: self.local.saved_state_file(), error })
    }

    /// Appends the record. Records that others append in the meantime without taking over are examined, and then the
    /// append is retried.
    pub(crate) async fn append_to(
        &self,
        mut view: JournalView,
        body: &RecordBody,
        slot: Option<Timestamp>,
    ) -> Result<JournalView, BackupError> {
        for _ in 0..COMMIT_ATTEMPTS {
            self.await_permit().await?;
            note_append_intent(self.node_context, &self.local, &view).await?;
            self.appending.store(view.head.as_ref().map_or(0, |head| head.seq.0) + 1, Ordering::Relaxed);
            let appended = self.journal.append(&self.permit, &view, body.clone(), slot).await;
            self.appending.store(0, Ordering::Relaxed);
            match appended {
                #[cfg(feature = "planted")]
                Err(AppendError::Moved(now))
                    if crate::planted::is(crate::planted::PlantedBug::CommitWithoutCompare) =>
                {
                    view = *now;
                }
                Err(AppendError::Moved(now)) => {
                    // The journal must still vouch for everything that this run refers to. A command refers to nothing.
                    if !matches!(body, RecordBody::Begin(_) | RecordBody::End(_))
                        && is_pruned(&self.view.state, &now.state)
                    {
                        return Err(BackupError::Pruned);
                    }
                    // The prune decided what to keep from exactly the snapshots that it saw.
                    if matches!(body, RecordBody::Prune(_)) && now.state.snapshots != self.view.state.snapshots {
                        return Err(AppendError::Moved(now).into());
                    }
                    // Another process under the same permit, on a copy of this node's state, ran the same slot.
                    let present = self.node_context.env.clock.now();
                    if slot.is_some_and(|slot| now.commits().is_closed(slot, present)) {
                        return Err(AppendError::Moved(now).into());
                    }
                    view = *now;
                }
                // The lease may still be renewed.
                Err(AppendError::Expired) if !self.permit.deadline().is_ended() => {}
                result => return Ok(result?),
            }
        }
        Err(AppendError::Moved(Box::new(view)).into())
    }

    /// Waits while it is unknown which process has the lease, but not for ever, and not for a lease that is lost.
    async fn await_permit(&self) -> Result<(), BackupError> {
        let clock = &self.node_context.env.clock;
        let (deadline, started) = (self.permit.deadline(), clock.boottime());
        while deadline.passed(clock.moment()) {
            if self.node_context.cancel.is_cancelled() {
                return Err(BackupError::Interrupted);
            }
            let waited = clock.boottime().saturating_sub(started);
            if deadline.is_ended() || waited >= COMMIT_PATIENCE {
                return Err(AppendError::Expired.into());
            }
            // The run waits on purpose and for a bounded time, so the wait counts as progress.
            self.node_context.progress.step();
            self.node_context.env.sleep(PERMIT_POLL).await;
        }
        Ok(())
    }
}

/// Whether the journal no longer vouches for everything that it did before.
pub(in crate::job) fn is_pruned(was: &JournalState, is: &JournalState) -> bool {
    let all_named = was.indexes.iter().all(|id| is.indexes.contains(id));
    was.pruned != is.pruned || was.condemned != is.condemned || !all_named
}
