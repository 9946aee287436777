//! One guarded run: back up if this node is active for the role, else end quietly.
//!
//! The probes run first, so that a standby needs no store. The journal comes next: a scheduled run looks up its slot
//! before it appends anything. Only then may a takeover happen.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::config::{LeaseKind, RoleSettings, Settings, StoreUrl};
use crate::env::Env;
use crate::job::admission::error::GuardError;
use crate::job::backup::request::BackupRequest;
use crate::job::backup::{BackupError, BackupOptions, CommittedBackup, RoleJournal};
use crate::job::node::context::NodeContext;
use crate::job::node::heartbeat::{self, Heartbeat};
use crate::job::node::known_repository::{self, RepositoryLocation};
use crate::job::node::local_state::{LocalState, LockError};
use crate::job::node::progress::JobPhase;
use crate::job::node::watchdog::{WatchedRun, run_watched};
use crate::job::node::{leases, presence, stall};
use crate::job::report::{ByteCounts, RoleReport, RunOutcome};
use crate::job::repository::open::Repository;
use crate::journal::log::AppendError;
use crate::journal::state::JournalView;
use crate::repo::object_keys;
use crate::repo::pack::PACK_TARGET_BYTES;
use crate::role::election::{
    self, ElectionInputs, ElectionOutcome, ElectionState, Eligibility, LeaseView, RetakeReason, RolePause,
    StandbyReason, UnknownReason,
};
use crate::role::lease::keep_alive::{self, LeaseKeepAlive, LostTo};
use crate::role::lease::{LeaseHolder, LeaseReply};
use crate::role::permit::Candidacy;
use crate::role::probe::{self, ProbeAssessment};
use crate::role::slot::{Slot, SlotSchedule};
use crate::store::counting::{CountingStore, RequestCounts, ResponseCounter, StoreCounters};
use crate::store::{Store, StoreError};

/// Maximum number of decisions of one run. Each one after the first follows a record that another process appended
/// before this run could.
const DECISIONS_MAX: u32 = 4;

/// Number of requests for a lease in the bucket whose outcome is unknown. The lease sends each write once, so without a
/// retry one lost answer would cost the run.
const LEASE_ATTEMPTS: u32 = 3;

/// Why a run ended without a commit although it did not fail. `cli` renders it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoCommitReason {
    /// This node stands by.
    Standby(StandbyReason, Vec<probe::ProbeResult>),
    /// It is unknown whether this node is active.
    Unknown(UnknownReason, Vec<probe::ProbeResult>),
    /// It is unknown whether this node is active, because no request for its lease was answered.
    LeaseUnknown {
        /// Where the lease is.
        lease: LeaseKind,
        /// Result of the last attempt.
        why: String,
    },
    /// Another node took the role, and this run has no reason to take it back.
    Conflict {
        /// Label of the other node.
        holder: String,
    },
    /// The slot that is due is committed already.
    SlotCommitted {
        /// The due slot.
        slot: Timestamp,
    },
    /// No slot has been due yet.
    NothingDue,
    /// The command of an earlier call is still running on this node.
    CommandRunning {
        /// The process that started it.
        pid: Option<String>,
    },
    /// Another process of this node is working for the role: a run for the slot is in progress.
    AlreadyRunning {
        /// The process that works for the role.
        pid: Option<String>,
    },
    /// Another node had the role last, and this kind of work is no reason to take the role over.
    HeldBy {
        /// Label of the other node.
        holder: String,
    },
    /// Two machines use this node's ID.
    Cloned,
    /// A person paused the role.
    Paused(RolePause),
    /// Another process got the lease during this run, and has not appended a record yet.
    LeaseLost(Option<LeaseHolder>),
    /// This node's clock and the store's are too far apart.
    ClockOff {
        /// Store time minus this node's time.
        offset: SignedDuration,
    },
}

/// Called when it is certain that a run begins, with the journal as it was before and the run's slot.
pub type BeginCallback<'a> = &'a (dyn Fn(&JournalView, Option<Timestamp>) + Sync);

/// A report, and the reason if there was no commit.
pub type GuardOutcome = (RoleReport, Option<NoCommitReason>);

/// Backs up `role` if this node is active for it. The store is connected to only if the probes do not rule this node
/// out, so a standby whose disk is not mounted stands by like any other.
pub async fn backup(
    node_context: &NodeContext,
    settings: &Settings,
    role: &RoleSettings,
    connect: impl AsyncFnOnce() -> Result<Arc<dyn Store>, StoreError>,
    request: BackupRequest,
    begins: BeginCallback<'_>,
) -> Result<GuardOutcome, GuardError> {
    // The child token is set by an interrupt of the operator, by the loss of the lease, and by a stall.
    let node_context = &NodeContext { cancel: node_context.cancel.child(), ..node_context.clone() };
    let work = back_up(node_context, settings, role, connect, request, begins);
    run_result(run_watched(node_context, stall_limit(role, settings), &|_| {}, work).await)
}

/// Counts the store's answers as progress of the run.
pub(crate) fn store_answers(node_context: &NodeContext) -> ResponseCounter {
    ResponseCounter { count: Arc::clone(&node_context.progress.steps), is_progress: |key| !object_keys::is_live(key) }
}

/// How long a run of this role may go without progress.
pub(crate) fn stall_limit(role: &RoleSettings, settings: &Settings) -> Duration {
    stall::stall_limit(role.stall_timeout, settings.store.limit_upload, PACK_TARGET_BYTES)
}

/// The result of a watched run. A run that completed keeps its result even if it was reported as stalled, and so does
/// an error that settles what became of the record.
pub(crate) fn run_result<T>(watched: WatchedRun<Result<T, GuardError>>) -> Result<T, GuardError> {
    let knows = |error: &GuardError| {
        let GuardError::Backup(BackupError::Append(error)) = error else { return false };
        matches!(error, AppendError::Unknown { .. } | AppendError::Fenced(_))
    };
    match (watched.done, watched.stall) {
        (Some(Ok(done)), _) => Ok(done),
        (Some(Err(error)), stall) if stall.is_none() || knows(&error) => Err(error),
        (_, Some(stall)) => Err(BackupError::Stalled(stall).into()),
        (_, None) => unreachable!("only a run that stalled is not waited for"),
    }
}

async fn back_up(
    node_context: &NodeContext,
    settings: &Settings,
    role: &RoleSettings,
    connect: impl AsyncFnOnce() -> Result<Arc<dyn Store>, StoreError>,
    request: BackupRequest,
    begins: BeginCallback<'_>,
) -> Result<GuardOutcome, GuardError> {
    let started = node_context.env.clock.boottime();
    let ended_early = |(report, reason): GuardOutcome| {
        let duration = node_context.env.clock.boottime().saturating_sub(started);
        Ok((RoleReport { duration, ..report }, reason))
    };
    let approach = match precheck(node_context, settings, role, connect, request.scheduled).await? {
        Ok(approach) => approach,
        Err(refused) => return ended_early(refused),
    };
    let Precheck { repository, plan, mut assessment, counters } = approach;
    let scheduled = request.scheduled;
    let stays = request.retake_reason();
    // Without probes only the journal says which node has the role, as for a command.
    if stays.is_some()
        && role.eligible.is_none()
        && let Some(refused) = held_elsewhere(node_context, role, &repository).await?
    {
        return ended_early(refused);
    }
    let guard = RoleGuard { node_context, role, repository: &repository, plan, scheduled, retake_reason: stays };
    let mut decisions = 0;
    let (report, reason) = loop {
        let admitted = match Box::pin(guard.admit(assessment)).await? {
            Admission::Refused(refused) => break *refused,
            Admission::Active(admitted) => admitted,
        };
        let AdmittedRun { opening, candidacy, slot, keep_alive } = *admitted;
        let slot = slot.map(|slot| slot.at);
        let holder = opening.view().state.holder.as_ref().filter(|holder| holder.node.id != node_context.node.id);
        if let Some(holder) = holder
            && slot.is_none()
            && role.eligible.is_none()
            && decisions == 0
        {
            tracing::warn!(
                "role {}: node {} had the role last, and this run takes it over. hint: --require-active leaves the \
                 role there",
                role.name,
                holder.node.name
            );
        }
        begins(opening.view(), slot);
        let ask = BackupOptions { slot, rehash: request.rehash, own_places: own_paths(node_context, settings) };
        let done = Box::pin(guard.back_up(opening, &candidacy, &ask, lease_lost(keep_alive.as_ref()))).await;
        release(keep_alive).await;
        decisions += 1;
        match done {
            // Another process wrote first, without a takeover: the slot may be committed by now, or the role paused.
            Err(GuardError::Backup(BackupError::Append(AppendError::Moved(_)))) if decisions < DECISIONS_MAX => {
                assessment =
                    until_cancelled(node_context, async { Ok(run_probes(node_context, role, slot).await) }).await?;
            }
            done => break done?,
        }
    };
    let duration = node_context.env.clock.boottime().saturating_sub(started);
    Ok((with_measurements(report, duration, &counters.snapshot(), &node_context.env), reason))
}

/// A role's opened repository, and what is known before its journal is read.
pub(crate) struct Precheck {
    pub(crate) repository: Repository,
    /// The role's schedule, if it has one.
    pub(crate) plan: Option<SlotSchedule>,
    pub(crate) assessment: Option<ProbeAssessment>,
    /// Counts the requests to the store.
    pub(crate) counters: Arc<StoreCounters>,
}

/// Runs the checks that come before the journal; `Err` is the outcome if they end the run. The store is connected to
/// last: a refusal that follows from settings and probes needs none.
pub(crate) async fn precheck(
    node_context: &NodeContext,
    settings: &Settings,
    role: &RoleSettings,
    connect: impl AsyncFnOnce() -> Result<Arc<dyn Store>, StoreError>,
    scheduled: bool,
) -> Result<Result<Precheck, GuardOutcome>, GuardError> {
    let plan = slot_plan(node_context, role, settings, scheduled)?;
    let due =
        plan.as_ref().filter(|_| scheduled).and_then(|plan| plan.due(node_context.env.clock.now())).map(|slot| slot.at);
    let assessment = until_cancelled(node_context, async { Ok(run_probes(node_context, role, due).await) }).await?;
    if let Some(refused) = ineligible(node_context, role, assessment.as_ref()) {
        return Ok(Err(refused));
    }
    let connected = until_cancelled(node_context, async { Ok(connect().await?) }).await?;
    let (counting, counters) = CountingStore::with_response_counter(connected, store_answers(node_context));
    let store: Arc<dyn Store> = Arc::new(counting);
    node_context.progress.set_store(&store);
    let place = RepositoryLocation::new(&settings.store, &role.name);
    let repository = until_cancelled(node_context, open(node_context, role, store, Some(&place))).await?;
    Ok(Ok(Precheck { repository, plan, assessment, counters }))
}

/// Reads the role's journal without working for the role.
///
/// # Errors
/// The repository or its journal cannot be read.
pub async fn read_view(
    node_context: &NodeContext,
    role: &RoleSettings,
    connect: impl AsyncFnOnce() -> Result<Arc<dyn Store>, StoreError>,
) -> Result<JournalView, GuardError> {
    let repository = open(node_context, role, connect().await?, None).await?;
    Ok(RoleJournal::peek(node_context, &repository).await?.1)
}

/// Publishes this node's presence once more after a failed run, so that the other nodes see the failure.
///
/// # Errors
/// The store or the journal cannot be read or written.
pub async fn announce(
    node_context: &NodeContext,
    role: &RoleSettings,
    connect: impl AsyncFnOnce() -> Result<Arc<dyn Store>, StoreError>,
) -> Result<(), GuardError> {
    let repository = open(node_context, role, connect().await?, None).await?;
    match RoleJournal::open(node_context, &repository).await {
        Ok(mut opening) => drop(opening.announce(role.lease).await?),
        Err(error) => {
            let error = GuardError::from(error);
            if error.is_local_state() {
                presence::announce_failure(node_context, &repository, role.lease).await;
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Opens a role's repository, first with the key slot that this node used last. `place` is where the repository is
/// remembered.
pub(crate) async fn open(
    node_context: &NodeContext,
    role: &RoleSettings,
    store: Arc<dyn Store>,
    place: Option<&RepositoryLocation>,
) -> Result<Repository, GuardError> {
    let (env, state_dir) = (&node_context.env, node_context.state_dir.as_path());
    let slot = LocalState::last_key_slot_of(env, Some(state_dir));
    let opened = Repository::open_by(store, &role.name, &role.key, slot).await;
    let Some(place) = place else { return Ok(opened?) };
    let repository = opened.map_err(|error| place.refine_error(env, Some(state_dir), error))?;
    place.remember(env, state_dir, &repository)?;
    Ok(repository)
}

/// Completes a report with the run's duration, its requests, and the doubt about the clock that dated its records.
pub fn with_measurements(report: RoleReport, duration: Duration, counts: &RequestCounts, env: &Env) -> RoleReport {
    let wrote = report.snapshot.is_some() || report.takeover;
    let clock_doubt = env.clock_doubts.of(&report.role).filter(|_| wrote);
    let uploaded = if report.snapshot.is_some() { counts.bytes_up } else { report.bytes.uploaded };
    let bytes = ByteCounts { uploaded, ..report.bytes };
    RoleReport { duration, requests: counts.requests(), bytes, clock_doubt, ..report }
}

/// Permission to work, with everything that was opened on the way to it.
#[derive(Debug)]
pub struct AdmittedRun<'a> {
    /// The journal, and with it the lock that keeps out other runs of this host.
    pub opening: RoleJournal<'a>,
    /// The election's proof that this node may take the role over.
    pub candidacy: Candidacy,
    /// The slot to run.
    pub slot: Option<Slot>,
    /// Renews the lease, if the role has one.
    pub keep_alive: Option<LeaseKeepAlive>,
}

/// Result of the guard.
#[derive(Debug)]
pub enum Admission<'a> {
    /// This node is active.
    Active(Box<AdmittedRun<'a>>),
    /// This node is not active; the report and the reason.
    Refused(Box<GuardOutcome>),
}

/// The guard of one role, with its repository open.
#[derive(Debug)]
pub struct RoleGuard<'a> {
    /// The node that asks. Its `cancel` is also set when the lease is lost.
    pub node_context: &'a NodeContext,
    /// The role to be admitted to.
    pub role: &'a RoleSettings,
    /// The role's repository.
    pub repository: &'a Repository,
    /// The role's schedule, if it has one.
    pub plan: Option<SlotSchedule>,
    /// The run catches up with the schedule; otherwise it was started by hand.
    pub scheduled: bool,
    /// The reason that would justify taking the role back; `None`: the due slot, or the start by hand.
    pub retake_reason: Option<RetakeReason>,
}

impl<'a> RoleGuard<'a> {
    /// Decides whether this node may work for the role now, and gets the lease if it takes one.
    pub async fn admit(&self, mut assessment: Option<ProbeAssessment>) -> Result<Admission<'a>, GuardError> {
        let opened = until_cancelled(self.node_context, async {
            Ok(if self.node_context.leases.are_borrowed() {
                Box::pin(RoleJournal::open_unlocked(self.node_context, self.repository)).await?
            } else {
                Box::pin(RoleJournal::open(self.node_context, self.repository)).await?
            })
        })
        .await;
        let mut opening = match opened {
            // The next call checks whether the slot has been committed by then.
            Err(GuardError::Backup(BackupError::Lock(LockError::Busy { pid }))) if self.scheduled => {
                let report = report_without_commit(self.role, RunOutcome::Skipped);
                return Ok(Admission::Refused(Box::new((report, Some(NoCommitReason::AlreadyRunning { pid })))));
            }
            opened => opened?.with_schedule(self.plan.as_ref().map(SlotSchedule::id)),
        };
        until_cancelled(self.node_context, async { Ok(opening.announce(self.role.lease).await?) }).await?;
        let slot = match self.slot(opening.view()) {
            Ok(slot) => slot,
            Err(done) => return Ok(Admission::Refused(done)),
        };
        let verdict = self.decide(&opening, slot, assessment.as_ref(), LeaseView::Unasked);
        let ElectionState::Candidate = verdict.state else { return Ok(self.conclude(opening, slot, verdict)) };
        if let Some(wait) = self.takeover_wait(&opening, slot) {
            // The node that had the role last goes first: a role that moves without need costs a full read of its
            // sources.
            let waited = until_cancelled(self.node_context, async {
                let until = self.node_context.env.clock.boottime() + wait;
                while let Some(left) =
                    until.checked_sub(self.node_context.env.clock.boottime()).filter(|left| !left.is_zero())
                {
                    // The run waits on purpose, so the wait counts as progress.
                    self.node_context.progress.step();
                    self.node_context.env.sleep(left.min(stall::check_interval(self.role.stall_timeout))).await;
                }
                Ok(())
            });
            self.node_context.progress.during(JobPhase::Turn, Box::pin(waited)).await?;
            let due = slot.map(|slot| slot.at);
            assessment =
                until_cancelled(self.node_context, async { Ok(run_probes(self.node_context, self.role, due).await) })
                    .await?;
        }
        let asked = until_cancelled(
            self.node_context,
            self.node_context.progress.during(JobPhase::Lease, Box::pin(self.acquire())),
        )
        .await?;
        match self.admit_with(opening, assessment.as_ref(), &asked).await {
            Ok(Admission::Active(admitted)) => {
                Ok(Admission::Active(Box::new(AdmittedRun { keep_alive: asked.ok(), ..*admitted })))
            }
            refused => {
                release(asked.ok()).await;
                refused
            }
        }
    }

    /// Decides again with the result of the lease request, and with what was committed while this node waited.
    async fn admit_with(
        &self,
        mut opening: RoleJournal<'a>,
        assessment: Option<&ProbeAssessment>,
        asked: &Result<LeaseKeepAlive, LeaseRefusal>,
    ) -> Result<Admission<'a>, GuardError> {
        until_cancelled(self.node_context, async { Ok(opening.refresh().await?) }).await?;
        let slot = match self.slot(opening.view()) {
            Ok(slot) => slot,
            Err(done) => return Ok(Admission::Refused(done)),
        };
        let lease = match asked {
            Ok(keep_alive) => LeaseView::Held(keep_alive.deadline()),
            Err(LeaseRefusal::Taken(by)) => LeaseView::Taken(by.as_ref()),
            Err(LeaseRefusal::Unreachable(_)) => LeaseView::Unreachable,
        };
        let verdict = self.decide(&opening, slot, assessment, lease);
        if let (ElectionState::Unknown(UnknownReason::Lease(lease)), Err(LeaseRefusal::Unreachable(why))) =
            (&verdict.state, asked)
        {
            let reason = NoCommitReason::LeaseUnknown { lease: *lease, why: why.clone() };
            return Ok(Admission::Refused(Box::new((
                report_without_commit(self.role, RunOutcome::Unknown),
                Some(reason),
            ))));
        }
        Ok(self.conclude(opening, slot, verdict))
    }

    /// The same for a process that holds the role's lease permanently and passes its state as `lease`.
    pub async fn admit_under(
        &self,
        assessment: Option<&ProbeAssessment>,
        lease: LeaseView<'_>,
    ) -> Result<Admission<'a>, GuardError> {
        let opening = until_cancelled(self.node_context, async {
            Ok(Box::pin(RoleJournal::open(self.node_context, self.repository)).await?)
        })
        .await?;
        let opening = opening.with_schedule(self.plan.as_ref().map(SlotSchedule::id));
        let slot = match self.slot(opening.view()) {
            Ok(slot) => slot,
            Err(done) => return Ok(Admission::Refused(done)),
        };
        let verdict = self.decide(&opening, slot, assessment, lease);
        Ok(self.conclude(opening, slot, verdict))
    }

    /// Turns the election's outcome into an admission.
    fn conclude(&self, opening: RoleJournal<'a>, slot: Option<Slot>, verdict: ElectionOutcome) -> Admission<'a> {
        let ElectionOutcome { state, results: evidence } = verdict;
        let (outcome, reason) = match state {
            ElectionState::Active { candidacy, .. } => {
                return Admission::Active(Box::new(AdmittedRun { opening, candidacy, slot, keep_alive: None }));
            }
            ElectionState::Standby(why) => (RunOutcome::Standby, NoCommitReason::Standby(why, evidence)),
            ElectionState::Candidate => {
                (RunOutcome::Standby, NoCommitReason::Standby(StandbyReason::LeaseTaken(None), evidence))
            }
            ElectionState::Unknown(UnknownReason::Clock { offset }) => {
                (RunOutcome::Unknown, NoCommitReason::ClockOff { offset })
            }
            ElectionState::Unknown(why) => (RunOutcome::Unknown, NoCommitReason::Unknown(why, evidence)),
            ElectionState::Conflict { holder } => {
                (RunOutcome::Standby, NoCommitReason::Conflict { holder: holder.label })
            }
            ElectionState::Paused(pause) => (RunOutcome::Skipped, NoCommitReason::Paused(pause)),
            ElectionState::Cloned => (RunOutcome::Unknown, NoCommitReason::Cloned),
        };
        Admission::Refused(Box::new((report_without_commit(self.role, outcome), Some(reason))))
    }

    /// The slot to run; `Err` holds the outcome if there is none.
    fn slot(&self, view: &JournalView) -> Result<Option<Slot>, Box<GuardOutcome>> {
        let Some(plan) = self.plan.as_ref().filter(|_| self.scheduled) else { return Ok(None) };
        let done = |report, reason| Err(Box::new((report, Some(reason))));
        if let Some(offset) = self.repository.store.clock_offset().filter(|offset| election::is_clock_off(*offset)) {
            return done(report_without_commit(self.role, RunOutcome::Unknown), NoCommitReason::ClockOff { offset });
        }
        let (now, commits) = (self.node_context.env.clock.now(), view.commits());
        match (plan.pending(&commits, now), plan.due(now)) {
            (Some(slot), _) => Ok(Some(slot)),
            (None, Some(due)) => {
                let report = RoleReport { slot: Some(due.at), ..report_without_commit(self.role, RunOutcome::Skipped) };
                done(report, NoCommitReason::SlotCommitted { slot: due.at })
            }
            (None, None) => done(report_without_commit(self.role, RunOutcome::Skipped), NoCommitReason::NothingDue),
        }
    }

    fn decide(
        &self,
        opening: &RoleJournal<'_>,
        slot: Option<Slot>,
        assessment: Option<&ProbeAssessment>,
        lease: LeaseView<'_>,
    ) -> ElectionOutcome {
        election::decide(ElectionInputs {
            role: self.role,
            node: self.node_context.node.id,
            label: &self.node_context.node.name,
            now: self.node_context.env.clock.now(),
            clock_offset: self.repository.store.clock_offset(),
            assessment,
            lease,
            history: Some(&opening.history()),
            plan: self.plan.as_ref(),
            retake_reason: self
                .retake_reason
                .unwrap_or(slot.map_or(RetakeReason::ByHand, |slot| RetakeReason::DueSlot(slot.at))),
        })
    }

    /// How long this node waits before it runs the slot, so that the node that had the role last can run it first.
    fn takeover_wait(&self, opening: &RoleJournal<'_>, slot: Option<Slot>) -> Option<Duration> {
        let holder =
            opening.view().state.holder.as_ref().filter(|holder| holder.node.id != self.node_context.node.id)?;
        let until = slot?.starts.saturating_add(self.role.takeover_delay).ok()?;
        let wait = Duration::try_from(until.duration_since(self.node_context.env.clock.now())).ok()?;
        tracing::info!("leaving the slot to node {} for {}", holder.node.name, humantime::format_duration(wait));
        Some(wait)
    }

    /// Requests the role's lease.
    async fn acquire(&self) -> Result<Result<LeaseKeepAlive, LeaseRefusal>, GuardError> {
        let mut lease =
            leases::role_lease(self.node_context, self.role, self.repository, leases::LeaseDuration::Run).await?;
        // Only a lease in the bucket is watched: the lease of a dead holder runs out after a TTL that may have begun a
        // moment ago. Etcd knows at once which sessions are alive.
        let ttl = self.role.bucket_lease_ttl;
        let patience = ttl + keep_alive::retry_pause(ttl) * 2;
        let mut left = if self.role.lease == LeaseKind::Bucket { LEASE_ATTEMPTS } else { 1 };
        loop {
            left -= 1;
            return Ok(match keep_alive::acquire(lease.as_mut(), ttl, patience, &self.node_context.env).await {
                LeaseReply::Held(grant) => Ok(LeaseKeepAlive::start(lease, grant, &self.node_context.env)),
                LeaseReply::Taken { by, .. } => Err(LeaseRefusal::Taken(by)),
                LeaseReply::Unknown { why } if left > 0 => {
                    tracing::debug!(why, "the lease is asked for again");
                    self.node_context.env.sleep(keep_alive::retry_pause(ttl)).await;
                    continue;
                }
                LeaseReply::Unknown { why } => Err(LeaseRefusal::Unreachable(why)),
                // No holder was seen, and this process does not hold it either.
                LeaseReply::Free => Err(LeaseRefusal::Unreachable("it is free, and was not given".to_owned())),
            });
        }
    }

    /// Backs up until it is done, or until `lost` reports that another process has the lease.
    pub async fn back_up(
        &self,
        opening: RoleJournal<'a>,
        candidacy: &Candidacy,
        ask: &BackupOptions,
        lost: impl Future<Output = LostTo>,
    ) -> Result<GuardOutcome, GuardError> {
        let start_by = self.plan.as_ref().and_then(|plan| Some(plan.start_by(plan.slot_at(ask.slot?)?)));
        let cause = heartbeat::HeartbeatSlot { slot: ask.slot, start_by };
        let _beat = Heartbeat::start(self.node_context, self.role, self.repository, cause);
        let mut work = Box::pin(opening.back_up(self.role, candidacy, ask));
        let (result, lost_to) = tokio::select! {
            biased;
            result = &mut work => (result, None),
            to = lost => {
                self.node_context.cancel.cancel();
                ((&mut work).await, Some(to))
            }
        };
        drop(work);
        match (result, lost_to) {
            (Ok(done), _) => Ok((report_of_commit(self.role, done, ask.slot), None)),
            (Err(BackupError::Interrupted | BackupError::Append(AppendError::Expired)), Some(to)) => {
                // The new holder of the lease may not have appended anything yet; the journal tells whether this run is
                // fenced.
                let opening = RoleJournal::open(self.node_context, self.repository).await?;
                match opening.view().state.holder.clone().filter(|holder| holder.node.id != self.node_context.node.id) {
                    Some(holder) => Err(BackupError::Append(AppendError::Fenced(Box::new(holder))).into()),
                    None => {
                        Ok((report_without_commit(self.role, RunOutcome::Unknown), Some(NoCommitReason::LeaseLost(to))))
                    }
                }
            }
            (Err(error), _) => Err(error.into()),
        }
    }
}

/// Resolves when another process has the lease; never if there is no lease.
pub fn lease_lost(keep_alive: Option<&LeaseKeepAlive>) -> impl Future<Output = LostTo> + Send + use<> {
    let lost = keep_alive.map(LeaseKeepAlive::lost);
    async move {
        match lost {
            Some(lost) => lost.await,
            None => std::future::pending().await,
        }
    }
}

/// Why a lease was not granted.
enum LeaseRefusal {
    Taken(Option<LeaseHolder>),
    Unreachable(String),
}

/// Releases the lease after the work under it has ended.
pub async fn release(keep_alive: Option<LeaseKeepAlive>) {
    if let Some(keep_alive) = keep_alive {
        keep_alive.release().await;
    }
}

/// Runs work that has not changed anything yet, and ends it when `cancel` is set.
async fn until_cancelled<T>(
    node_context: &NodeContext,
    work: impl Future<Output = Result<T, GuardError>>,
) -> Result<T, GuardError> {
    tokio::select! {
        biased;
        result = work => result,
        () = node_context.cancel.cancelled() => Err(BackupError::Interrupted.into()),
    }
}

/// Paths of this node's own data: a store in a directory, and the state directory. Both may lie inside a source.
pub fn own_paths(node_context: &NodeContext, settings: &Settings) -> Vec<PathBuf> {
    let store = match &settings.store.url {
        StoreUrl::Dir(path) => Some(path.clone()),
        StoreUrl::S3 { .. } => None,
    };
    store.into_iter().chain([node_context.state_dir.clone()]).filter(|path| path.is_absolute()).collect()
}

/// Runs the probes of `role`; `None` if the role has none.
pub async fn run_probes(
    node_context: &NodeContext,
    role: &RoleSettings,
    slot: Option<Timestamp>,
) -> Option<ProbeAssessment> {
    let fallback = role.fallback.as_ref().map(|fallback| &fallback.probe);
    let (context, senses) = (node_context.probe_context(role, None, slot), node_context.inputs.probes.as_ref());
    Some(probe::assess(role.eligible.as_ref()?, fallback, &context, senses, &node_context.env).await)
}

/// The outcome if settings and probes rule out that this node is a candidate.
pub(crate) fn ineligible(
    node_context: &NodeContext,
    role: &RoleSettings,
    assessment: Option<&ProbeAssessment>,
) -> Option<GuardOutcome> {
    let evidence = || assessment.map(|a| a.results.clone()).unwrap_or_default();
    match election::eligibility(role, &node_context.node.name, assessment) {
        Eligibility::Yes | Eligibility::Fallback => None,
        Eligibility::No(why) => {
            Some((report_without_commit(role, RunOutcome::Standby), Some(NoCommitReason::Standby(why, evidence()))))
        }
        Eligibility::Unknown(why) => {
            Some((report_without_commit(role, RunOutcome::Unknown), Some(NoCommitReason::Unknown(why, evidence()))))
        }
    }
}

/// The outcome if another node had the role last, for work that is no reason to move it; `None`: this node had it, or
/// no node did.
pub(crate) async fn held_elsewhere(
    node_context: &NodeContext,
    role: &RoleSettings,
    repository: &Repository,
) -> Result<Option<GuardOutcome>, BackupError> {
    let (history, _) = RoleJournal::peek(node_context, repository).await?;
    let holder = history.holder.filter(|holder| holder.node != node_context.node.id);
    Ok(holder.map(|holder| {
        (report_without_commit(role, RunOutcome::Standby), Some(NoCommitReason::HeldBy { holder: holder.label }))
    }))
}

/// The role's schedule. A scheduled run without a schedule is an error.
pub(crate) fn slot_plan(
    node_context: &NodeContext,
    role: &RoleSettings,
    settings: &Settings,
    scheduled: bool,
) -> Result<Option<SlotSchedule>, GuardError> {
    let plan = known_repository::slot_plan(settings, role, &node_context.env, &node_context.state_dir)
        .map_err(|e| GuardError::Schedule { role: role.name.clone(), why: e.to_string() })?;
    match plan {
        None if scheduled => Err(GuardError::NoSchedule { role: role.name.clone() }),
        plan => Ok(plan),
    }
}

/// The report of a run that committed nothing.
fn report_without_commit(role: &RoleSettings, outcome: RunOutcome) -> RoleReport {
    RoleReport::nothing(role.name.clone(), outcome)
}

fn report_of_commit(role: &RoleSettings, done: CommittedBackup, slot: Option<Timestamp>) -> RoleReport {
    let unchanged = done.previous.as_ref().is_some_and(|p| p.root == done.snapshot.root);
    RoleReport {
        outcome: if unchanged { RunOutcome::Unchanged } else { RunOutcome::Committed },
        snapshot: Some(done.snapshot.id),
        previous: done.previous.map(|p| p.time),
        term: Some(done.snapshot.term),
        slot,
        takeover: done.takeover,
        files: done.files,
        bytes: done.bytes,
        problems: done.problems,
        problem_count: done.problem_count,
        empty_sources: done.empty_sources,
        loss: done.loss,
        ..RoleReport::nothing(role.name.clone(), RunOutcome::Committed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Seq;
    use crate::job::node::stall::RunStall;

    #[test]
    fn what_is_known_of_a_commit_is_not_hidden_by_a_stall() {
        let stall = || Some(RunStall { silent: Duration::from_mins(15), last: None, store_error: None });
        let settled = |done| run_result(WatchedRun { done, stall: stall() }).map_err(|error| error.to_string());
        assert_eq!(settled(Some(Ok(7))), Ok(7), "it is committed");
        let unknown = AppendError::Unknown { seq: Seq(3), why: "no answer".to_owned() };
        let text = unknown.to_string();
        assert_eq!(settled(Some(Err(BackupError::Append(unknown).into()))), Err(text));
        let stalled = Err("made no progress for 15m: it waited for the store".to_owned());
        assert_eq!(settled(Some(Err(BackupError::Interrupted.into()))), stalled);
        assert_eq!(settled(None), stalled);
    }
}
