//! `backup`: one session of one role, from the journal's head to the record that commits it.
//!
//! The order is fixed, and no step may be left out: read the head; take the role over (or continue under this node's
//! own takeover); find out what the store has; put packs, then index objects, then the record, by compare-and-swap on
//! the head. A failure before the record leaves garbage for a prune, never an incomplete snapshot.

pub(in crate::job) mod dedup_index;
mod dump;
pub(crate) mod empty_check;
pub(crate) mod empty_sources;
mod entry_decision;
mod entry_stream;
pub(in crate::job) mod error;
mod finish_stage;
pub mod hooks;
mod indexes;
pub(in crate::job) mod inline_content;
mod inventory;
pub(in crate::job) mod lost_content;
pub(crate) mod mounts;
pub(crate) mod orphans;
mod packer;
pub(in crate::job) mod pipeline;
pub mod request;
mod shared;
pub(in crate::job) mod tree;
pub mod tree_cache;
mod unreadable;
mod walk_stage;
mod worker;

use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::{LeaseKind, RoleSettings};
use crate::env::Env;
use crate::ids::{Digest, InstanceId, NodeId, ScheduleId};
use crate::job::admission::session::RoleSession;
pub use crate::job::backup::dump::DumpError;
pub use crate::job::backup::error::BackupError;
use crate::job::backup::hooks::HookRunner;
pub use crate::job::backup::inline_content::InlineContent;
pub(crate) use crate::job::backup::shared::PipelineContext;
use crate::job::node::authors::boot::{self, BootEvidence};
use crate::job::node::context::NodeContext;
use crate::job::node::disk_reserve;
use crate::job::node::local_state::{LocalLock, LocalState, LockError, OwnTakeover, SavedState};
use crate::job::node::presence::{self, LastAnnouncement};
use crate::job::report::{ByteCounts, FileCounts, LossReport};
use crate::job::repository::open::Repository;
use crate::journal::error::JournalError;
use crate::journal::log::{Journal, UnfencedAction};
use crate::journal::record::{CloneBody, TakeoverReason};
use crate::journal::state::{JournalView, RoleHolder, Snapshot};
use crate::repo::entry::TreePath;
use crate::repo::format::JournalLocation;
use crate::repo::object_keys;
use crate::repo::reader::load_index;
use crate::role::clone_detection::{self, CloneEvidence, CloneSuspicion};
use crate::role::election::{ElectionHistory, RolePause, TakeoverInfo};
use crate::role::permit::Candidacy;
use crate::store::{Store, proof};
use crate::tree::problem::PathProblem;

/// Number of attempts to get a lock that another process of this host holds for a moment, and the pause between them.
const HOLD_TRIES: u32 = 30;
const HOLD_PAUSE: Duration = Duration::from_millis(100);

/// The same if a run may hold the lock. Every other holder, such as a daemon that rewrites its saved state, holds it
/// for some milliseconds.
const RUN_TRIES: u32 = 10;
const RUN_PAUSE: Duration = Duration::from_millis(20);

/// Options of a run beyond the role's settings.
#[derive(Debug, Clone, Default)]
pub struct BackupOptions {
    /// Slot of the run.
    pub slot: Option<Timestamp>,
    /// Read every file, whatever the tree cache says.
    pub rehash: bool,
    /// Paths that are never part of a backup: a store inside a source would grow with each run.
    pub own_places: Vec<PathBuf>,
}

/// A committed backup.
#[derive(Debug)]
pub struct CommittedBackup {
    /// Its snapshot.
    pub snapshot: Snapshot,
    /// The snapshot before.
    pub previous: Option<Snapshot>,
    /// Whether this run appended a takeover.
    pub takeover: bool,
    /// Counts of files by kind of change.
    pub files: FileCounts,
    /// Counts of bytes; `uploaded` counts packs and index objects.
    pub bytes: ByteCounts,
    /// Problems with single paths, the first ones.
    pub problems: Vec<PathProblem>,
    /// Number of all problems.
    pub problem_count: u64,
    /// Sources in which no file was found.
    pub empty_sources: Vec<TreePath>,
    /// What the store had lost; `None`: nothing, or it was not compared.
    pub loss: Option<LossReport>,
}

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
    node_context: &'a NodeContext,
    repository: &'a Repository,
    journal: Journal,
    local: LocalState,
    lock: Option<LocalLock>,
    memory: SavedState,
    view: JournalView,
    started: Duration,
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

    /// Backs the role up, as the node that won the election.
    pub async fn back_up(
        self,
        role: &RoleSettings,
        candidacy: &Candidacy,
        ask: &BackupOptions,
    ) -> Result<CommittedBackup, BackupError> {
        let node_context = self.node_context;
        let session = self.take_over(candidacy).await?;
        let hooks = HookRunner::new(node_context, role);
        let (term, deadline) = (session.permit().term(), session.permit().deadline());
        hooks.on_takeover(term, deadline, &node_context.cancel).await;
        let Some(around) = hooks.open(term, ask.slot).await? else {
            return session.back_up_or_abandon(role, ask).await;
        };
        let result = match around.run_before(deadline).await {
            Ok(()) => session.back_up_or_abandon(role, ask).await,
            Err(error) => Err(error),
        };
        around.run_after(&result).await;
        result
    }

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
        let holder = view.state.holder.clone();
        // A node that stood in as fallback and is eligible now has the role for another reason, which the other nodes
        // must see.
        let inherited = holder.as_ref().filter(|h| {
            own.is_some_and(|own| own.takeover == h.takeover)
                && (h.why == TakeoverReason::Fallback) == candidacy.stands_in()
        });
        let (permit, view, takeover) = if let Some(holder) = inherited {
            (candidacy.permit(holder.term, holder.takeover), view, false)
        } else {
            if lock.is_none() {
                // There is no takeover to work under, so this process appends and saves its own.
                lock = Some(local.lock()?);
                memory = local.load(node_context.node.id);
            }
            let why = match &holder {
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

/// Notes that this process is about to append to `view`. A process that cannot be noted must not append: it would be
/// taken for a clone.
pub(crate) async fn note_append_intent(
    node_context: &NodeContext,
    local: &LocalState,
    view: &JournalView,
) -> Result<(), BackupError> {
    let noted = boot::note_author(local, node_context.instance, view.next_seq()).await;
    noted.map_err(|error| BackupError::State { path: local.saved_state_file(), error })
}

/// Adds the journal up to `view` to the saved state, after judging its authors. Only with the lock held.
pub(crate) fn remember_view(
    node_context: &NodeContext,
    local: &LocalState,
    memory: &mut SavedState,
    view: &JournalView,
) {
    check_authors(node_context, local, memory, view);
    memory.view = Some(view.clone());
}

/// Judges the processes that wrote with this node's ID since the last judgement. Without earlier notes the judging
/// begins here.
fn check_authors(node_context: &NodeContext, local: &LocalState, memory: &mut SavedState, view: &JournalView) {
    // Read after the journal: the author of each record in it was noted before.
    let (notes, noted) = (local.authors(), local.authors().read());
    let head = view.head.as_ref().map(|head| head.seq);
    let is_whole = noted.mark.is_some() && noted.mark == memory.notes;
    #[cfg(feature = "planted")]
    let is_whole = is_whole || crate::planted::is(crate::planted::PlantedBug::OldRecordsAreJudged);
    if let Some(judged) = memory.settled().filter(|_| is_whole) {
        let own: Vec<InstanceId> = noted.instances().chain([node_context.instance]).collect();
        let boot_evidence = BootEvidence::collect(local, node_context.instance);
        let evidence = CloneEvidence {
            authors: view.authors.get(&node_context.node.id).map_or(&[], Vec::as_slice),
            own: &own,
            boot: &boot_evidence.own,
            mark: boot_evidence.mark.as_ref().ok().copied(),
            head: head.unwrap_or(judged),
            judged,
            before: memory.sighting,
            now: node_context.env.clock.now(),
        };
        match clone_detection::detect_clone(evidence) {
            CloneSuspicion::None | CloneSuspicion::Known => {}
            CloneSuspicion::SetBack(seq) => tracing::warn!(
                "record {seq} of the journal is by a process of this machine that its state directory does not know: the state \
                 directory was set back to an earlier state"
            ),
            CloneSuspicion::First(sighting) => {
                let undecided = boot_evidence.mark.err().map(|why| {
                    format!(
                        "; the two cannot be told apart, because the notes of this boot's writers are not complete: \
                         {why}"
                    )
                });
                tracing::warn!(
                    "record {} of the journal has this node's ID, and no process of this node wrote it: either this \
                     machine was set back to an earlier state, or it was cloned with its state directory{}",
                    sighting.seq,
                    undecided.unwrap_or_default()
                );
                memory.sighting = Some(sighting);
            }
            CloneSuspicion::Clone(other) => memory.twin = Some(other),
        }
    }
    if !is_whole {
        // Without a mark nothing is judged: a disk that takes no notes gives no evidence.
        memory.notes =
            notes.renew().inspect_err(|error| tracing::debug!("the notes of this boot's writers: {error}")).ok();
    }
    memory.judged = memory.judged.max(head);
}

/// The facts that the election needs from a journal, and from what this node saved about itself.
pub fn election_history(view: &JournalView, memory: &SavedState, node: NodeId) -> ElectionHistory {
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
