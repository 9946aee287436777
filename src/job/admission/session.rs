//! A run under a permit: the takeover that it begins with, the records that it appends, and what this node saves of it.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;

use crate::ids::{Digest, Seq};
use crate::job::admission::author_check::{note_append_intent, remember_view};
use crate::job::admission::role_journal::RoleJournal;
use crate::job::error::BackupError;
use crate::job::local_state::saved_state::{IndexComparison, OwnTakeover, SavedState};
use crate::job::local_state::{LocalLock, LocalState};
use crate::job::node::context::NodeContext;
use crate::job::repository::disk_reserve;
use crate::job::repository::loss_notes::{self, LossNotes, UnhealedLosses};
use crate::job::repository::open::Repository;
use crate::journal::body::{RecordBody, TakeoverReason};
use crate::journal::error::{AppendError, JournalError};
use crate::journal::permit::Permit;
use crate::journal::reader::Journal;
use crate::journal::repair_history::RepairHistory;
use crate::journal::state::{JournalState, RoleHolder};
use crate::journal::view::JournalView;
use crate::repo::entry::TreePath;
use crate::repo::format::JournalLocation;
use crate::repo::loss::PackLosses;
use crate::repo::object_keys;
use crate::repo::reader::IndexCache;
use crate::role::candidacy::Candidacy;
use crate::store::{StoreError, proof};

/// Number of attempts to append, each one after the first because an operator's record was appended in between.
const COMMIT_ATTEMPTS: u32 = 16;

/// How long a commit waits for a lease service that cannot be reached. After that the run ends; the next run finds what
/// it uploaded.
const COMMIT_PATIENCE: Duration = Duration::from_mins(15);

/// Interval at which a waiting commit checks its permit.
const PERMIT_POLL: Duration = Duration::from_millis(100);

/// A role taken over, and with it the lock that keeps out other runs of this host.
pub(crate) struct RoleSession<'a> {
    node_context: &'a NodeContext,
    repository: &'a Repository,
    journal: Journal,
    local: LocalState,
    lock: Option<LocalLock>,
    memory: SavedState,
    permit: Permit,
    view: JournalView,
    takeover: bool,
    started: Duration,
    /// Sequence number of the record that is being appended; 0: none is.
    appending: AtomicU64,
}

impl<'a> RoleJournal<'a> {
    /// Continues under this node's own takeover if that is still the newest and of this boot; otherwise takes the role
    /// over.
    pub(crate) async fn take_over(self, candidacy: &Candidacy) -> Result<RoleSession<'a>, BackupError> {
        let Self { node_context, repository, journal, local, mut lock, mut memory, view, started } = self;
        if repository.format.journal == JournalLocation::Bucket {
            let probe = object_keys::probe(repository.role());
            proof::check(repository.store.as_ref(), &probe, &node_context.env).await?;
        }
        let boot = node_context.env.clock.boot_id().map(Digest);
        let own = memory.own.filter(|own| Some(own.boot) == boot);
        let resumed = own.and_then(|own| journal.resume(&view, candidacy, own.takeover));
        let (permit, view, takeover) = if let Some(permit) = resumed {
            (permit, view, false)
        } else {
            if lock.is_none() {
                // There is no takeover to work under, so this process appends and saves its own.
                lock = Some(local.lock()?);
                memory = local.load(node_context.node.id);
            }
            let why = match &view.state.holder {
                _ if candidacy.stands_in() => TakeoverReason::Fallback,
                None => TakeoverReason::First,
                Some(h) if h.node.id == node_context.node.id => TakeoverReason::Restart,
                Some(_) => TakeoverReason::Moved,
            };
            note_append_intent(node_context, &local, &view).await?;
            let (permit, view) = journal.take_over(&view, candidacy, why).await?;
            (permit, view, true)
        };
        memory.own = boot.map(|boot| OwnTakeover { boot, takeover: permit.takeover(), term: permit.term() });
        remember_view(node_context, &local, &mut memory, &view);
        let appending = AtomicU64::new(0);
        let session = RoleSession {
            node_context,
            repository,
            journal,
            local,
            lock,
            memory,
            permit,
            view,
            takeover,
            started,
            appending,
        };
        if session.lock.is_some() {
            session.remember(&session.memory)?;
        }
        if takeover {
            disk_reserve::ensure_reserve(repository.store.as_ref(), repository.role(), &node_context.env).await;
        }
        Ok(session)
    }
}

impl<'a> RoleSession<'a> {
    /// The node that works for the role.
    pub(crate) fn node_context(&self) -> &'a NodeContext {
        self.node_context
    }

    /// The role's repository.
    pub(crate) fn repository(&self) -> &'a Repository {
        self.repository
    }

    /// The permit that this session appends under.
    pub(crate) fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Whether this session began with a takeover.
    pub(crate) fn is_takeover(&self) -> bool {
        self.takeover
    }

    /// Time since the journal was opened.
    pub(crate) fn elapsed(&self) -> Duration {
        self.node_context.env.clock.boottime().saturating_sub(self.started)
    }

    /// The journal that this session rests on: up to its takeover, or its last [`RoleSession::append`].
    pub(crate) fn view(&self) -> &JournalView {
        &self.view
    }

    /// State of that journal.
    pub(crate) fn state(&self) -> &JournalState {
        &self.view.state
    }

    /// What this node has saved about the role.
    pub(crate) fn saved_state(&self) -> &SavedState {
        &self.memory
    }

    /// This node's copies of index objects.
    pub(crate) fn index_cache(&self) -> IndexCache {
        self.local.index_cache()
    }

    /// Path of this node's tree cache.
    pub(crate) fn tree_cache(&self) -> PathBuf {
        self.local.tree_cache()
    }

    /// Sequence number of the record that is being appended.
    pub(crate) fn appending_seq(&self) -> Option<Seq> {
        Some(Seq(self.appending.load(Ordering::Relaxed))).filter(|seq| seq.0 > 0)
    }

    /// Appends a record of this session.
    pub(crate) async fn append(&mut self, body: RecordBody, slot: Option<Timestamp>) -> Result<(), BackupError> {
        self.view = self.append_record(&body, slot).await?;
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

    /// The digest of a record of the journal, if there is one with this number.
    pub(crate) async fn record_digest(&self, seq: Seq) -> Result<Option<Digest>, JournalError> {
        Ok(self.journal.read_record(seq).await?.map(|(_, digest)| digest))
    }

    /// The repairs of the journal that this session rests on.
    pub(crate) async fn repairs(&self) -> Result<RepairHistory, StoreError> {
        self.journal.repairs(&self.view).await
    }

    /// A check for prunes during this session.
    pub(crate) fn prune_check(&self) -> PruneCheck {
        PruneCheck { journal: self.journal.clone(), view: self.view.clone() }
    }

    /// Saves that the store may contain objects that no record names, until a commit is saved.
    pub(crate) fn remember_upload(&self) -> Result<(), BackupError> {
        self.remember(&SavedState { clean: None, ..self.memory.clone() })
    }

    /// Saves that the snapshot is committed, with the journal that ends with it.
    pub(crate) fn remember_commit(
        &self,
        view: &JournalView,
        snapshot: Digest,
        compared: Option<IndexComparison>,
        mounts: Vec<TreePath>,
    ) -> Result<(), BackupError> {
        let mut memory = SavedState { clean: Some(snapshot), compared, mounts, ..self.memory.clone() };
        remember_view(self.node_context, &self.local, &mut memory, view);
        self.remember(&memory)
    }

    /// The noted losses of the repository.
    pub(crate) async fn noted_losses(&self) -> LossNotes {
        loss_notes::read_notes(self.repository.store.as_ref(), &self.repository.keys, Some(&self.local)).await
    }

    /// Notes lost packs, so that the next backup uploads their content again.
    pub(crate) async fn note_losses(&self, met: &PackLosses) {
        let NodeContext { env, node, .. } = self.node_context;
        loss_notes::note_losses(self.repository, Some(&self.local), env, &node.name, met).await;
    }

    /// Notes what a backup could not heal of the noted losses.
    pub(crate) async fn record_unhealed(&self, noted_losses: &LossNotes, remains: Option<UnhealedLosses>) {
        let NodeContext { env, node, .. } = self.node_context;
        loss_notes::record_unhealed(self.repository, &self.local, env, &node.name, noted_losses, remains).await;
    }

    fn remember(&self, memory: &SavedState) -> Result<(), BackupError> {
        self.local.save(memory).map_err(|error| BackupError::State { path: self.local.saved_state_file(), error })
    }

    /// Appends the record, and returns the journal that ends with it; the session stays at the journal before it.
    /// Records that others append in the meantime without taking over are examined, and then the append is retried.
    pub(crate) async fn append_record(
        &self,
        body: &RecordBody,
        slot: Option<Timestamp>,
    ) -> Result<JournalView, BackupError> {
        let mut view = self.view.clone();
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

/// Checks for prunes after the journal that a session rests on.
pub(crate) struct PruneCheck {
    journal: Journal,
    view: JournalView,
}

impl PruneCheck {
    /// Fails with [`BackupError::Pruned`] if the journal no longer vouches for everything that the session rests on.
    pub(crate) async fn check(&self) -> Result<(), BackupError> {
        let now = self.journal.refresh(self.view.clone()).await?;
        if is_pruned(&self.view.state, &now.state) { Err(BackupError::Pruned) } else { Ok(()) }
    }
}

/// Whether the journal no longer vouches for everything that it did before.
fn is_pruned(was: &JournalState, is: &JournalState) -> bool {
    let all_named = was.indexes.iter().all(|id| is.indexes.contains(id));
    was.pruned != is.pruned || was.condemned != is.condemned || !all_named
}
