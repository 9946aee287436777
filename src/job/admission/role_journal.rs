//! A role's current journal on this node, before any decision.

use std::time::Duration;

use crate::config::LeaseKind;
use crate::env::Env;
use crate::ids::{NodeId, ScheduleId};
use crate::job::admission::author_check::{check_authors, note_append_intent, remember_view};
use crate::job::error::BackupError;
use crate::job::local_state::saved_state::{LastAnnouncement, SavedState};
use crate::job::local_state::{LocalLock, LocalState, LockError};
use crate::job::node::context::NodeContext;
use crate::job::node::presence;
use crate::job::repository::open::Repository;
use crate::journal::append::UnfencedAction;
use crate::journal::body::{CloneBody, TakeoverReason};
use crate::journal::error::JournalError;
use crate::journal::reader::Journal;
use crate::journal::state::RoleHolder;
use crate::journal::view::JournalView;
use crate::repo::reader::load_index;
use crate::role::election::{ElectionHistory, RolePause, TakeoverInfo};
use crate::store::Store;

/// Number of attempts to get a lock that another process of this host holds for a moment, and the pause between them.
const HOLD_TRIES: u32 = 30;

const HOLD_PAUSE: Duration = Duration::from_millis(100);

/// The same if a run may hold the lock. Every other holder, such as a daemon that rewrites its saved state, holds it
/// for some milliseconds.
const RUN_TRIES: u32 = 10;

const RUN_PAUSE: Duration = Duration::from_millis(20);

/// How a journal is read.
#[derive(Debug, Clone, Copy)]
enum JournalReadMode {
    /// From what this node knew, which must still be there, to the head.
    Whole,
    /// Only if something follows what this node knew; with `verify` that must still be there.
    Next { verify: bool },
}

/// A role's current journal, before any decision. It holds the lock that keeps out other runs of this host.
#[derive(Debug)]
pub struct RoleJournal<'a> {
    pub(super) node_context: &'a NodeContext,
    pub(super) repository: &'a Repository,
    pub(super) journal: Journal,
    pub(super) local: LocalState,
    pub(super) lock: Option<LocalLock>,
    pub(super) memory: SavedState,
    pub(super) view: JournalView,
    pub(super) started: Duration,
}

/// The lock of this host's runs, retried while another process has it.
async fn lock_with_retry(local: &LocalState, env: &Env, tries: u32, pause: Duration) -> Result<LocalLock, LockError> {
    let mut tries = tries;
    loop {
        match local.lock() {
            Err(LockError::Busy { .. }) if tries > 0 => tries -= 1,
            lock => return lock,
        }
        env.sleep(pause).await;
    }
}

impl<'a> RoleJournal<'a> {
    /// Takes the lock and reads the journal on from what this node knew.
    pub async fn open(node_context: &'a NodeContext, repository: &'a Repository) -> Result<Self, BackupError> {
        let local = Self::local(node_context, repository)?;
        let lock = lock_with_retry(&local, &node_context.env, RUN_TRIES, RUN_PAUSE).await?;
        Self::read(node_context, repository, local, Some(lock), JournalReadMode::Whole).await
    }

    /// The same for a process that polls for news: only with `verify` is the known head requested again. A later append
    /// detects a difference anyway.
    pub async fn open_polling(
        node_context: &'a NodeContext,
        repository: &'a Repository,
        verify: bool,
    ) -> Result<Self, BackupError> {
        let local = Self::local(node_context, repository)?;
        let lock = local.lock()?;
        Self::read(node_context, repository, local, Some(lock), JournalReadMode::Next { verify }).await
    }

    /// The same without the lock, for a process that works under the takeover of another process of this host: that one
    /// may be backing up, and neither must block the other.
    pub async fn open_unlocked(node_context: &'a NodeContext, repository: &'a Repository) -> Result<Self, BackupError> {
        let local = Self::local(node_context, repository)?;
        Self::read(node_context, repository, local, None, JournalReadMode::Whole).await
    }

    fn local(node_context: &NodeContext, repository: &Repository) -> Result<LocalState, BackupError> {
        let local = LocalState::open(&node_context.env, &node_context.state_dir, repository.keys.repo())?;
        Ok(local.with_process_memory(&node_context.memory))
    }

    async fn read(
        node_context: &'a NodeContext,
        repository: &'a Repository,
        local: LocalState,
        lock: Option<LocalLock>,
        reading: JournalReadMode,
    ) -> Result<Self, BackupError> {
        let started = node_context.env.clock.boottime();
        let memory = local.load(node_context.node.id);
        if let Some(slot) = repository.slot.filter(|_| lock.is_some())
            && let Err(error) = local.remember_slot(slot)
        {
            // The remembered slot only saves a request.
            tracing::warn!("the key slot cannot be saved: {error}");
        }
        if lock.is_some()
            && let Err(error) = repository.save_unlock_objects(&local)
        {
            // Without them a repair has one source less.
            tracing::warn!("the copies of `format` and of the key slot cannot be saved: {error}");
        }
        // The due slot and the dates of records rest on the clock offset.
        repository.store.measure_clock_offset().await;
        let journal_access = node_context.leases.journal_access();
        let journal =
            journal_access.journal(repository, &node_context.env, &node_context.node, node_context.instance)?;
        let read = match reading {
            JournalReadMode::Whole => journal.read(memory.view.as_ref()).await,
            JournalReadMode::Next { verify } => journal.poll(memory.view.as_ref(), verify).await,
        };
        if let Err(JournalError::Rotated { .. }) = &read
            && let Err(error) = local.forget_slot()
        {
            tracing::warn!("the saved key slot of an old repository key cannot be removed: {error}");
        }
        let view = read?;
        let mut opening = Self { node_context, repository, journal, local, lock, memory, view, started };
        // Without the lock the check is left to the process that has it.
        if opening.lock.is_some() {
            opening.detect_clone().await?;
        }
        Ok(opening)
    }

    /// Checks whether a record with this node's ID was written by none of its processes. A single one may come from a
    /// machine that was set back. A record that cannot be this machine's past comes from another machine with its
    /// identity, and is reported in the journal for both to see.
    async fn detect_clone(&mut self) -> Result<(), BackupError> {
        let (node_context, memory) = (self.node_context, &mut self.memory);
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::PlantedBug::OldRecordsAreJudged) {
            let noted = self.local.authors().note_look(node_context.instance).await;
            noted.map_err(|error| BackupError::State { path: self.local.saved_state_file(), error })?;
        }
        if let Some(head) = memory.settled() {
            self.local.authors().trim(head);
        }
        let before = (memory.sighting, memory.notes);
        check_authors(node_context, &self.local, memory, &self.view);
        if before != (memory.sighting, memory.notes) {
            let path = self.local.saved_state_file();
            self.local.save(memory).map_err(|error| BackupError::State { path, error })?;
        }
        let Some(other) = memory.twin.take().filter(|_| !self.view.state.clones.contains(&node_context.node.id)) else {
            return Ok(());
        };
        note_append_intent(node_context, &self.local, &self.view).await?;
        self.view = self.journal.append_unfenced(&self.view, UnfencedAction::Clone(CloneBody { other })).await?;
        Ok(())
    }

    /// The current journal, for a caller that waits for no lock and saves nothing.
    pub async fn peek(
        node_context: &NodeContext,
        repository: &Repository,
    ) -> Result<(ElectionHistory, JournalView), BackupError> {
        let keys = repository.keys.clone();
        let local = LocalState::peek(&node_context.env, &node_context.state_dir, keys.repo())
            .with_process_memory(&node_context.memory);
        let memory = local.load(node_context.node.id);
        let (store, env) = (repository.store.clone(), node_context.env.clone());
        let journal = Journal::new(store, keys, env, node_context.node.clone(), node_context.instance);
        let journal = journal.created(repository.format.created);
        let view = journal.read(memory.view.as_ref()).await?;
        Ok((election_history(&view, &memory, node_context.node.id), view))
    }

    /// Takes the lock of this host's runs, even if this process works under the lease of another one. That one takes
    /// the lock for a moment whenever it reads the journal.
    pub(crate) async fn with_lock(mut self) -> Result<Self, BackupError> {
        if self.lock.is_none() {
            self.lock = Some(lock_with_retry(&self.local, &self.node_context.env, HOLD_TRIES, HOLD_PAUSE).await?);
            self.memory = self.local.load(self.node_context.node.id);
            self.refresh().await?;
        }
        Ok(self)
    }

    /// Publishes this node's presence if it is due, with the kind of `lease` by which it excludes others. Returns
    /// whether it was published.
    pub(crate) async fn announce(&mut self, lease: LeaseKind) -> Result<bool, BackupError> {
        if self.lock.is_none() {
            return Ok(false);
        }
        let Self { node_context, repository, local, memory, .. } = self;
        let before = memory.announced.clone();
        // Before this process writes the object, it saves that it may have.
        let intend = |announced: &LastAnnouncement| {
            memory.announced = Some(announced.clone());
            local.save(memory)
        };
        let Some(announced) = presence::announce(node_context, repository, lease, before.as_ref(), intend).await else {
            return Ok(false);
        };
        memory.announced = Some(announced);
        local.save(memory).map_err(|error| BackupError::State { path: local.saved_state_file(), error })?;
        Ok(true)
    }

    /// Sets the schedule that the slots of the following records belong to.
    pub(crate) fn with_schedule(mut self, schedule: Option<ScheduleId>) -> Self {
        self.journal = self.journal.with_schedule(schedule);
        self
    }

    /// Reads the records that were appended since.
    pub async fn refresh(&mut self) -> Result<(), BackupError> {
        self.view = self.journal.refresh(self.view.clone()).await?;
        Ok(())
    }

    /// The node that reads it.
    pub(crate) fn node_context(&self) -> &'a NodeContext {
        self.node_context
    }

    /// The repository that the journal belongs to.
    pub(crate) fn repository(&self) -> &'a Repository {
        self.repository
    }

    /// The store of the repository.
    pub(crate) fn store(&self) -> &'a dyn Store {
        self.repository.store.as_ref()
    }

    /// State of the journal at its head.
    pub fn view(&self) -> &JournalView {
        &self.view
    }

    /// The facts that the election needs from the journal.
    pub fn history(&self) -> ElectionHistory {
        election_history(&self.view, &self.memory, self.node_context.node.id)
    }

    /// Saves what was read, and fetches the index of the newest snapshot. A standby does this, so that its first run
    /// after a takeover can start at once.
    pub async fn remember(self) -> Result<(ElectionHistory, JournalView), BackupError> {
        let Self { local, mut memory, view, repository, node_context, .. } = self;
        if memory.view.as_ref() == Some(&view) {
            return Ok((election_history(&view, &memory, node_context.node.id), view));
        }
        let (store, keys) = (repository.store.as_ref(), &repository.keys);
        let index_cache = local.index_cache();
        load_index(store, keys, &view.state.indexes, Some(&index_cache)).await?;
        index_cache.retain_only(&view.state.indexes);
        remember_view(node_context, &local, &mut memory, &view);
        local.save(&memory).map_err(|error| BackupError::State { path: local.saved_state_file(), error })?;
        Ok((election_history(&view, &memory, node_context.node.id), view))
    }
}

/// The facts that the election needs from a journal, and from what this node saved about itself.
pub(crate) fn election_history(view: &JournalView, memory: &SavedState, node: NodeId) -> ElectionHistory {
    let holding = |h: &RoleHolder| TakeoverInfo {
        node: h.node.id,
        label: h.node.name.clone(),
        term: h.term,
        since: h.time,
        handed_over: h.handed_over,
        stood_in: h.why == TakeoverReason::Fallback,
    };
    let paused = view.state.paused.as_ref().map(|p| RolePause {
        by: p.node.name.clone(),
        since: p.time,
        until: p.until,
        why: p.why.clone(),
    });
    ElectionHistory {
        holder: view.state.holder.as_ref().map(holding),
        own_term: memory.own.map(|own| own.term),
        commits: view.commits(),
        paused,
        cloned: view.state.clones.contains(&node),
    }
}
