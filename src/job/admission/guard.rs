//! One guarded run: back up if this node is active for the role, else end quietly.
//!
//! The probes run first, so that a standby needs no store. The journal comes next: a scheduled run looks up its slot
//! before it appends anything. Only then may a takeover happen.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::config::{LeaseKind, RoleSettings, Settings};
use crate::job::admission::lease::{self, LeaseDuration};
use crate::job::admission::role_journal::RoleJournal;
use crate::job::error::{BackupError, GuardError};
use crate::job::local_state::{LocalState, LockError};
use crate::job::node::context::NodeContext;
use crate::job::node::progress::JobPhase;
use crate::job::node::{presence, stall};
use crate::job::report::{NoCommitReason, RoleReport};
use crate::job::repository::known_repository::{self, RepositoryLocation};
use crate::job::repository::open::Repository;
use crate::journal::view::JournalView;
use crate::repo::object_keys;
use crate::role::candidacy::Candidacy;
use crate::role::election::{
    self, ElectionInputs, ElectionOutcome, ElectionState, Eligibility, LeaseView, RetakeReason, StandbyReason,
    UnknownReason,
};
use crate::role::lease::keep_alive::{self, LeaseKeepAlive, LostTo};
use crate::role::lease::{LeaseHolder, LeaseReply};
use crate::role::probe::{self, ProbeAssessment};
use crate::role::slot::{Slot, SlotSchedule};
use crate::store::counting::{CountingStore, ResponseCounter, StoreCounters};
use crate::store::{Store, StoreError};

/// Number of requests for a lease in the bucket whose outcome is unknown. The lease sends each write once, so without a
/// retry one lost answer would cost the run.
const LEASE_ATTEMPTS: u32 = 3;

/// Counts the store's answers as progress of the run.
pub(crate) fn store_answers(node_context: &NodeContext) -> ResponseCounter {
    ResponseCounter { count: Arc::clone(&node_context.progress.steps), is_progress: |key| !object_keys::is_live(key) }
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

/// Runs the checks that come before the journal; `Err` is the report if they end the run. The store is connected to
/// last: a refusal that follows from settings and probes needs none.
pub(crate) async fn precheck(
    node_context: &NodeContext,
    settings: &Settings,
    role: &RoleSettings,
    connect: impl AsyncFnOnce() -> Result<Arc<dyn Store>, StoreError>,
    scheduled: bool,
) -> Result<Result<Precheck, Box<RoleReport>>, GuardError> {
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
    /// This node is not active; the report has the reason.
    Refused(Box<RoleReport>),
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
                return Ok(Admission::Refused(without_commit(self.role, NoCommitReason::AlreadyRunning { pid })));
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
            return Ok(Admission::Refused(without_commit(self.role, reason)));
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
        let reason = match state {
            ElectionState::Active { candidacy, .. } => {
                return Admission::Active(Box::new(AdmittedRun { opening, candidacy, slot, keep_alive: None }));
            }
            ElectionState::Standby(why) => NoCommitReason::Standby(why, evidence),
            ElectionState::Candidate => NoCommitReason::Standby(StandbyReason::LeaseTaken(None), evidence),
            ElectionState::Unknown(UnknownReason::Clock { offset }) => NoCommitReason::ClockOff { offset },
            ElectionState::Unknown(why) => NoCommitReason::Unknown(why, evidence),
            ElectionState::Conflict { holder } => NoCommitReason::Conflict { holder: holder.label },
            ElectionState::Paused(pause) => NoCommitReason::Paused(pause),
            ElectionState::Cloned => NoCommitReason::Cloned,
        };
        Admission::Refused(without_commit(self.role, reason))
    }

    /// The slot to run; `Err` holds the report if there is none.
    fn slot(&self, view: &JournalView) -> Result<Option<Slot>, Box<RoleReport>> {
        let Some(plan) = self.plan.as_ref().filter(|_| self.scheduled) else { return Ok(None) };
        if let Some(offset) = self.repository.store.clock_offset().filter(|offset| election::is_clock_off(*offset)) {
            return Err(without_commit(self.role, NoCommitReason::ClockOff { offset }));
        }
        let (now, commits) = (self.node_context.env.clock.now(), view.commits());
        match (plan.pending(&commits, now), plan.due(now)) {
            (Some(slot), _) => Ok(Some(slot)),
            (None, Some(due)) => {
                let report = without_commit(self.role, NoCommitReason::SlotCommitted { slot: due.at });
                Err(Box::new(RoleReport { slot: Some(due.at), ..*report }))
            }
            (None, None) => Err(without_commit(self.role, NoCommitReason::NothingDue)),
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
        let mut lease = lease::role_lease(self.node_context, self.role, self.repository, LeaseDuration::Run).await?;
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
pub(crate) async fn until_cancelled<T>(
    node_context: &NodeContext,
    work: impl Future<Output = Result<T, GuardError>>,
) -> Result<T, GuardError> {
    tokio::select! {
        biased;
        result = work => result,
        () = node_context.cancel.cancelled() => Err(BackupError::Interrupted.into()),
    }
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

/// The report of a run that is not admitted.
fn without_commit(role: &RoleSettings, reason: NoCommitReason) -> Box<RoleReport> {
    Box::new(RoleReport::without_commit(role.name.clone(), reason))
}

/// The report if settings and probes rule out that this node is a candidate.
pub(crate) fn ineligible(
    node_context: &NodeContext,
    role: &RoleSettings,
    assessment: Option<&ProbeAssessment>,
) -> Option<Box<RoleReport>> {
    let evidence = || assessment.map(|a| a.results.clone()).unwrap_or_default();
    match election::eligibility(role, &node_context.node.name, assessment) {
        Eligibility::Yes | Eligibility::Fallback => None,
        Eligibility::No(why) => Some(without_commit(role, NoCommitReason::Standby(why, evidence()))),
        Eligibility::Unknown(why) => Some(without_commit(role, NoCommitReason::Unknown(why, evidence()))),
    }
}

/// The report if another node had the role last, for work that is no reason to move it; `None`: this node had it, or
/// no node did.
pub(crate) async fn held_elsewhere(
    node_context: &NodeContext,
    role: &RoleSettings,
    repository: &Repository,
) -> Result<Option<Box<RoleReport>>, BackupError> {
    let (history, _) = RoleJournal::peek(node_context, repository).await?;
    let holder = history.holder.filter(|holder| holder.node != node_context.node.id);
    Ok(holder.map(|holder| without_commit(role, NoCommitReason::HeldBy { holder: holder.label })))
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

/// Called when it is certain that a run begins, with the journal as it was before and the run's slot.
pub type BeginCallback<'a> = &'a (dyn Fn(&JournalView, Option<Timestamp>) + Sync);
