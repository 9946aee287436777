//! `prune`: forgets snapshots by the role's retention policy, and frees the space that is no longer referenced.
//!
//! Prune is the only command that deletes data, so every step is in the journal first. The order is fixed: read all
//! manifests of the kept snapshots; write what is moved out of wasteful packs; write an index without what is removed;
//! append the record that forgets snapshots and condemns packs, by compare-and-set on the head that all of this was
//! decided on; wait for the grace period, since other readers may still use the packs; delete; append a record of the
//! deletion. A condemned object stays condemned: no run refers to it, even if the run finds it in the store. A crash at
//! any point leaves garbage for the next prune, or a deletion that the next prune finishes. Prune takes no lock.

pub mod error;
mod plan;
mod repack;
pub mod retention;
mod sweep;
#[cfg(test)]
mod tests;
mod usage;

use std::collections::HashSet;
use std::sync::Arc;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use self::plan::PackAction;
use self::usage::{OrphanObjects, RepositoryUsage};
use crate::config::{RetentionPolicy, RoleSettings, Settings};
use crate::ids::{Digest, PackId};
use crate::job::admission::guard::{self, Admission, AdmittedRun, Precheck, RoleGuard};
use crate::job::admission::role_journal::RoleJournal;
use crate::job::admission::session::RoleSession;
use crate::job::backup::index_objects::{indexes_len, put_indexes};
use crate::job::backup::run;
use crate::job::error::BackupError;
use crate::job::node::context::NodeContext;
use crate::job::node::progress::JobPhase;
use crate::job::node::watchdog::{WatchedRun, run_watched};
use crate::job::prune::error::PruneError;
use crate::job::prune::usage::PACKS_MAX;
use crate::job::report::pruned::{KeepReason as Why, PruneReport, RetentionRule, RetentionVerdict, SweepCounts};
use crate::job::report::{NoCommitReason, RoleReport};
use crate::job::repository::disk_reserve;
use crate::job::repository::open::Repository;
use crate::journal::body::{PruneBody, RecordBody};
use crate::journal::state::Snapshot;
use crate::journal::view::JournalView;
use crate::repo::loss::PackLosses;
use crate::repo::pack::PackTable;
use crate::repo::reader::RepositoryReadError;
use crate::role::candidacy::Candidacy;
use crate::role::clock_tolerance;
use crate::role::election::{self, RetakeReason};
use crate::role::lease::keep_alive::LostTo;
use crate::store::{Store, StoreError, StoreErrorKind, Versioning};

/// Age by the store's time at which an object that no record names is condemned: a first upload may take days.
const STRAY_AGE: SignedDuration = SignedDuration::from_hours(24 * 7);

/// From this number on, index objects are merged even if nothing else is to be done, because every reader fetches all
/// of them.
const INDEXES_MAX: usize = 32;

/// What a prune would do, and the data that the decision is based on.
pub struct PrunePlan {
    report: PruneReport,
    forgotten: Vec<Digest>,
    usage: RepositoryUsage,
    actions: Vec<(PackId, PackAction)>,
    orphans: OrphanObjects,
    /// There are so many index objects that they are merged.
    too_many_indexes: bool,
}

impl PrunePlan {
    /// Decides without changing anything. `view` is the journal, `now` this node's clock.
    ///
    /// # Errors
    /// The manifest of a kept snapshot, or content that it needs, cannot be read.
    pub async fn make(
        repository: &Repository,
        view: &JournalView,
        role: &RoleSettings,
        zone: &TimeZone,
        now: Timestamp,
    ) -> Result<Self, PruneError> {
        let Some(keep) = &role.keep else { return Err(PruneError::KeepsAll(role.name.clone())) };
        let snapshots = &view.state.snapshots;
        let verdicts = retain(keep, snapshots, store_time(repository, now), zone);
        let kept: Vec<&Snapshot> = snapshots.iter().zip(&verdicts).filter(|(_, v)| v.kept).map(|(s, _)| s).collect();
        let survey = RepositoryUsage::scan(repository, &view.state, &kept).await?;
        let strays = survey.orphans(store_time(repository, now), STRAY_AGE);
        let uses = survey.packs();
        let fates = plan::decide(&uses, role.max_unused, PACKS_MAX.saturating_sub(strays.packs.len()));
        let with = |fate| uses.iter().zip(&fates).filter(move |(_, (_, f))| *f == fate).map(|(pack, _)| *pack);
        let (dropped, repacked) = (with(PackAction::Drop), with(PackAction::Repack));
        let report = PruneReport {
            role: role.name.clone(),
            packs_condemned: (dropped.clone().count() + repacked.clone().count() + strays.packs.len()) as u64,
            packs_repacked: repacked.clone().count() as u64,
            bytes_freed: dropped.map(|pack| pack.stored).sum::<u64>()
                + repacked.map(|pack| pack.unused()).sum::<u64>()
                + strays.bytes,
            bytes_unused: with(PackAction::Keep).map(|pack| pack.unused()).sum(),
            packs_lost: survey.lost().packs(),
            swept: SweepCounts::default(),
            is_versioned: matches!(repository.store.versioning().await, Versioning::Kept { .. }),
            snapshots: verdicts,
        };
        let gone = snapshots.iter().zip(&report.snapshots).filter(|(_, verdict)| !verdict.kept);
        let forgotten = gone.map(|(snapshot, _)| snapshot.id).collect();
        let untidy = view.state.indexes.len() > INDEXES_MAX;
        Ok(Self { report, forgotten, usage: survey, actions: fates, orphans: strays, too_many_indexes: untidy })
    }

    /// The report of the plan.
    pub fn report(self) -> PruneReport {
        self.report
    }

    fn is_idle(&self) -> bool {
        self.forgotten.is_empty()
            && self.report.packs_condemned == 0
            && self.orphans.indexes.is_empty()
            && !self.too_many_indexes
    }
}

/// Prunes as the node that holds the role.
///
/// # Errors
/// Needed content is never deleted, whatever the error. [`PruneError::MayNotDelete`]: everything but the deletion was
/// done.
pub(crate) async fn prune(
    session: &mut RoleSession<'_>,
    role: &RoleSettings,
    zone: &TimeZone,
) -> Result<PruneReport, PruneError> {
    let (node_context, repository) = (session.node_context(), session.repository());
    node_context.progress.enter(JobPhase::Prune);
    if role.keep.is_none() && !session.state().condemned.is_empty() {
        // The role keeps everything from now on; what was condemned before is still unreferenced, and is deleted.
        let report = PruneReport::idle(role.name.clone(), &session.state().snapshots);
        return Ok(PruneReport { swept: sweep_due(session, role).await?, ..report });
    }
    let made = PrunePlan::make(repository, session.view(), role, zone, node_context.env.clock.now()).await;
    let plan = match made {
        Ok(plan) => {
            session.note_losses(&plan.usage.lost()).await;
            plan
        }
        Err(error) => return Err(note_losses_of(session, error).await),
    };
    if !plan.is_idle() {
        let moved = match repack::repack(session, &plan.usage, &plan.actions).await {
            Ok(moved) => moved,
            Err(error) => return Err(note_losses_of(session, error).await),
        };
        let gone: Vec<PackId> =
            plan.actions.iter().filter(|(_, fate)| *fate != PackAction::Keep).map(|(id, _)| *id).collect();
        let dropped: HashSet<PackId> = gone.iter().copied().collect();
        let stays = plan.usage.tables.iter().filter(|table| !dropped.contains(&table.id)).cloned();
        #[cfg(feature = "planted")]
        let moved = if crate::planted::is(crate::planted::PlantedBug::MovedIsForgotten) { Vec::new() } else { moved };
        let tables: Vec<PackTable> = stays.chain(moved).collect();
        let body = PruneBody {
            forgotten: plan.forgotten.clone(),
            indexes: put_indexes(node_context, repository, &tables)
                .await
                .map_err(|error| no_room(repository, &tables, error))?,
            packs: gone.into_iter().chain(plan.orphans.packs.iter().copied()).collect(),
            strays: plan.orphans.indexes.clone(),
        };
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::PlantedBug::DeletesBeforeRecord) {
            let role = repository.role();
            let keys: Vec<String> = body
                .packs
                .iter()
                .map(|id| crate::repo::object_keys::pack(role, *id))
                .take(crate::store::DELETE_BATCH_MAX)
                .collect();
            repository.store.delete(&keys).await?;
        }
        session.append(RecordBody::Prune(body), None).await?;
        session.index_cache().retain_only(&session.state().indexes);
    }
    Ok(PruneReport { swept: sweep_due(session, role).await?, ..plan.report })
}

/// Notes the lost packs that the error names, so that the next backup uploads their content again.
async fn note_losses_of(session: &RoleSession<'_>, error: PruneError) -> PruneError {
    if let PruneError::Damaged { error, .. } | PruneError::Read(error) = &error {
        session.note_losses(&PackLosses::from_error(error, session.repository().role())).await;
    }
    error
}

/// Room for the takeover, the record and rounding by the file system.
const RECORDS_BYTES: u64 = 512 << 10;

/// Maps an error of writing the index of `tables`; if the store is full, the result names the room that the prune
/// needs.
fn no_room(repository: &Repository, tables: &[PackTable], error: BackupError) -> PruneError {
    match error {
        BackupError::Store(error) if error.kind == StoreErrorKind::NoSpace => {
            PruneError::NoRoom { needed: indexes_len(repository, tables) + RECORDS_BYTES, error }
        }
        error => error.into(),
    }
}

/// Deletes what was condemned at least a grace period ago.
async fn sweep_due(session: &mut RoleSession<'_>, role: &RoleSettings) -> Result<SweepCounts, PruneError> {
    let now = store_time(session.repository(), session.node_context().env.clock.now());
    match sweep::sweep(session, now, role.prune_grace).await {
        Err(PruneError::Store(error)) if error.kind == StoreErrorKind::Denied => Err(PruneError::MayNotDelete(error)),
        swept => swept,
    }
}

/// Outcome of a requested prune.
#[derive(Debug)]
pub enum PruneOutcome {
    /// The prune is complete.
    Done(PruneReport),
    /// This node does not work for the role now, with the reason.
    Refused(Box<RoleReport>),
}

/// Prunes `role` if this node is active for it.
///
/// # Errors
/// The errors of `prune`, and those of the admission to the role.
pub async fn run(
    node_context: &NodeContext,
    settings: &Settings,
    role: &RoleSettings,
    connect: impl AsyncFnOnce() -> Result<Arc<dyn Store>, StoreError>,
) -> Result<PruneOutcome, PruneError> {
    let node_context = &NodeContext { cancel: node_context.cancel.child_token(), ..node_context.clone() };
    let work = admit_and_prune(node_context, settings, role, connect);
    result_or_stall(run_watched(node_context, run::stall_limit(role, settings), &|_| {}, work).await)
}

/// The result of a watched prune; a prune that completed counts even if a stall was reported.
pub(crate) fn result_or_stall<T>(watched: WatchedRun<Result<T, PruneError>>) -> Result<T, PruneError> {
    match (watched.done, watched.stall) {
        (Some(Ok(done)), _) => Ok(done),
        (_, Some(stall)) => Err(BackupError::Stalled(stall).into()),
        (Some(Err(error)), None) => Err(error),
        (None, None) => unreachable!("only a run that stalled is not waited for"),
    }
}

async fn admit_and_prune(
    node_context: &NodeContext,
    settings: &Settings,
    role: &RoleSettings,
    connect: impl AsyncFnOnce() -> Result<Arc<dyn Store>, StoreError>,
) -> Result<PruneOutcome, PruneError> {
    let approach = match guard::precheck(node_context, settings, role, connect, false).await? {
        Ok(approach) => approach,
        Err(refused) => return Ok(PruneOutcome::Refused(refused)),
    };
    let Precheck { repository, plan, assessment, .. } = approach;
    repository.store.measure_clock_offset().await;
    // This holds also without a schedule: the clock decides which grace periods are over.
    if let Some(offset) = repository.store.clock_offset().filter(|offset| election::is_clock_off(*offset)) {
        let reason = NoCommitReason::ClockOff { offset };
        return Ok(PruneOutcome::Refused(Box::new(RoleReport::without_commit(role.name.clone(), reason))));
    }
    // A prune does not move the role: if another node holds it, this prune is refused.
    if let Some(refused) = guard::held_elsewhere(node_context, role, &repository).await? {
        return Ok(PruneOutcome::Refused(refused));
    }
    // The lease is written to the store too, so room is made first.
    let is_tight = disk_reserve::release_if_full(repository.store.as_ref(), &role.name, &node_context.env).await?;
    let guard = RoleGuard {
        node_context,
        role,
        repository: &repository,
        plan,
        scheduled: false,
        retake_reason: Some(RetakeReason::None),
    };
    let admission = Box::pin(guard.admit(assessment)).await;
    if is_tight && !matches!(admission, Ok(Admission::Active(_))) {
        disk_reserve::ensure_reserve(repository.store.as_ref(), &role.name, &node_context.env).await;
    }
    match admission? {
        Admission::Refused(refused) => Ok(PruneOutcome::Refused(refused)),
        Admission::Active(admitted) => {
            let AdmittedRun { opening, candidacy, keep_alive, .. } = *admitted;
            let lost = guard::lease_lost(keep_alive.as_ref());
            let done =
                Box::pin(prune_with_room(is_tight, node_context, role, &settings.timezone, opening, &candidacy, lost))
                    .await;
            guard::release(keep_alive).await;
            done.map(PruneOutcome::Done)
        }
    }
}

/// Prunes as the elected node, until the prune is done or the lease is `lost`.
///
/// # Errors
/// The errors of [`prune`], or another run of this node is going on: the two runs must not decide on each other's
/// changes.
pub(crate) async fn prune_admitted(
    node_context: &NodeContext,
    role: &RoleSettings,
    zone: &TimeZone,
    opening: RoleJournal<'_>,
    candidacy: &Candidacy,
    lost: impl Future<Output = LostTo>,
) -> Result<PruneReport, PruneError> {
    let is_tight = disk_reserve::release_if_full(opening.store(), &role.name, &node_context.env).await?;
    Box::pin(prune_with_room(is_tight, node_context, role, zone, opening, candidacy, lost)).await
}

/// Prunes; `is_tight` says that the store has little room.
async fn prune_with_room(
    is_tight: bool,
    node_context: &NodeContext,
    role: &RoleSettings,
    zone: &TimeZone,
    opening: RoleJournal<'_>,
    candidacy: &Candidacy,
    lost: impl Future<Output = LostTo>,
) -> Result<PruneReport, PruneError> {
    let repository = opening.repository();
    // Repacking needs room first, so a full store is pruned without it.
    let frugal = RoleSettings { max_unused: 100, ..role.clone() };
    let work = async {
        let opening = Box::pin(opening.with_lock()).await?;
        let mut session = Box::pin(Box::pin(opening.take_over(candidacy)).await?);
        let mut work = Box::pin(prune(&mut session, if is_tight { &frugal } else { role }, zone));
        tokio::select! {
            biased;
            done = &mut work => done,
            _ = lost => {
                node_context.cancel.cancel();
                work.await
            }
        }
    };
    let done = work.await;
    disk_reserve::ensure_reserve(repository.store.as_ref(), &role.name, &node_context.env).await;
    done
}

/// Times of the snapshots in the journal's order, for retention. Clock differences within the tolerance do not change
/// that order. The store's time is in whole seconds, so two consecutive runs may otherwise be dated in reverse.
fn settled_times(snapshots: &[Snapshot]) -> Vec<Timestamp> {
    let mut before: Option<Timestamp> = None;
    let settle = |snapshot: &Snapshot| {
        let is_apart = |before: &Timestamp| {
            *before > snapshot.time && !clock_tolerance::is_clock_off(before.duration_since(snapshot.time))
        };
        let time = before.filter(is_apart).unwrap_or(snapshot.time);
        before = Some(time);
        time
    };
    snapshots.iter().map(settle).collect()
}

/// For each snapshot, in the journal's order, why it is kept or that it is removed. The newest snapshot is always kept,
/// whatever the clocks said: the next run continues from it.
fn retain(keep: &RetentionPolicy, snapshots: &[Snapshot], now: Timestamp, zone: &TimeZone) -> Vec<RetentionVerdict> {
    let settled = settled_times(snapshots);
    let mut order: Vec<usize> = (0..snapshots.len()).collect();
    order.sort_by_key(|n| settled[*n]);
    let times: Vec<Timestamp> = order.iter().map(|n| settled[*n]).collect();
    let mut reasons = vec![Vec::new(); snapshots.len()];
    for (n, found) in order.into_iter().zip(retention::decide(keep, &times, now, zone)) {
        reasons[n] = found;
    }
    let complete: Vec<bool> = snapshots.iter().map(|snapshot| snapshot.changes.unreadable == 0).collect();
    if let Some(n) = retention::newest_complete(&complete) {
        reasons[n].push(Why { rule: RetentionRule::Complete, oldest: false });
    }
    let verdict = |(n, (snapshot, reasons)): (usize, (&Snapshot, Vec<Why>))| RetentionVerdict {
        snapshot: snapshot.id,
        time: snapshot.time,
        node: snapshot.node.name.clone(),
        kept: !reasons.is_empty() || n + 1 == snapshots.len(),
        reasons,
    };
    snapshots.iter().zip(reasons).enumerate().map(verdict).collect()
}

/// The store's time if its clock offset is known, else this node's.
fn store_time(repository: &Repository, now: Timestamp) -> Timestamp {
    repository.store.clock_offset().and_then(|offset| now.checked_add(offset).ok()).unwrap_or(now)
}
