//! The actions that a role's controller asks for: the probes, the lease, the journal, a run.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::concurrency::{ConcurrencyLimits, LENT_AFTER, RunTurn};
use super::outages::{OutageCause, RoleStep};
use super::store_connector::StoreConnector;
use crate::alert::monitor::AlertMonitor;
use crate::config::{LeaseKind, RoleSettings, Settings, StoreUrl};
use crate::job::admission::guard::{self, Admission, AdmittedRun, RoleGuard};
use crate::job::admission::lease::{self, LeaseDuration};
use crate::job::admission::role_journal::RoleJournal;
use crate::job::backup::hooks::{self, HookRunner};
use crate::job::backup::request::{BackupOptions, BackupRequest};
use crate::job::backup::run;
use crate::job::error::{BackupError, GuardError};
use crate::job::local_state::saved_state::ANNOUNCEMENT_INTERVAL;
use crate::job::local_state::{LocalState, LockError};
use crate::job::node::context::NodeContext;
use crate::job::node::stall::StallState;
use crate::job::node::{heartbeat, presence, watchdog};
use crate::job::prune::error::PruneError;
use crate::job::report::RoleReport;
use crate::job::report::pruned::PruneReport;
use crate::job::report::whoami::PeerPresence;
use crate::job::repository::known_repository::RepositoryLocation;
use crate::job::repository::open::Repository;
use crate::job::{self, prune};
use crate::outage::no_answer_text;
use crate::repo::format::JournalLocation;
use crate::role::candidacy::Deadline;
use crate::role::controller::JournalUpdate;
use crate::role::election::{self, LeaseView, RetakeReason};
use crate::role::lease::keep_alive::LostTo;
use crate::role::lease::{LeaseReply, LeaseService};
use crate::role::probe::ProbeAssessment;
use crate::store::Store;
use crate::store::counting::{CountingStore, StoreCounters};

/// How far back a long-running node audits: a week of nights shows what one night does not.
const AUDIT_SINCE: SignedDuration = SignedDuration::from_hours(24 * 7);

/// Interval between prunes. A little less than a day, so that a daily slot finds the prune due.
pub(super) const PRUNE_INTERVAL: Duration = Duration::from_hours(23);

/// Interval at which a read verifies that the store still has the newest known record, in a store where requests cost
/// money. An append verifies it every time.
const VERIFY_INTERVAL: Duration = Duration::from_mins(10);

/// Everything that the work for one role needs. Clones share the same state.
#[derive(Debug, Clone)]
pub(super) struct RoleActions {
    pub(super) node_context: NodeContext,
    pub(super) settings: Arc<Settings>,
    pub(super) role: Arc<RoleSettings>,
    pub(super) stores: Arc<StoreConnector>,
    pub(super) limits: Arc<ConcurrencyLimits>,
    /// Set when this node is to stop working for the role.
    pub(super) ending: CancellationToken,
    /// Receives the role's events.
    pub(super) monitor: Arc<AlertMonitor>,
    /// Observe mode: writes nothing, not even this node's own state.
    pub(super) observe: bool,
    /// Interval between prunes.
    pub(super) prune_interval: Duration,
    /// Boot time of the last attempt to prune.
    pub(super) prune_tried_at: Arc<Mutex<Option<Duration>>>,
    /// Boot time at which the newest known record was last verified in the store.
    pub(super) head_verified_at: Arc<Mutex<Option<Duration>>>,
    /// The holder's last heartbeat.
    pub(super) heartbeat: Arc<heartbeat::LastHeartbeat>,
    /// Opened once; dropped after an error.
    pub(super) repository: Arc<tokio::sync::Mutex<Option<Repository>>>,
    /// Held while the journal is read, and while a run or a takeover begins: each takes the lock of this node's runs,
    /// and would block the other. A read takes long while the store does not answer.
    pub(super) journal_lock: Arc<tokio::sync::Mutex<()>>,
}

/// Result of waiting for a turn to run.
#[derive(Debug)]
pub(super) enum TurnOutcome {
    Turn(RunTurn),
    /// The run was cancelled.
    Interrupted,
    /// Other runs take too long.
    Crowded,
}

/// Lends the place of a run that has been silent for some time.
fn lend_while_silent(turn: &RunTurn, pace: StallState) {
    turn.set_lent(matches!(pace, StallState::Silent(silent) if silent >= LENT_AFTER));
}

/// What the admission rests on.
#[derive(Debug, Clone, Default)]
pub(super) struct AdmissionBasis {
    pub(super) assessment: Option<ProbeAssessment>,
    /// The deadline of the lease, if it is held.
    pub(super) deadline: Option<Deadline>,
}

impl RoleActions {
    pub(super) async fn assess(&self) -> Option<ProbeAssessment> {
        guard::run_probes(&self.node_context, &self.role, None).await
    }

    async fn repository(&self) -> Result<Repository, GuardError> {
        let mut opened = self.repository.lock().await;
        if let Some(repository) = &*opened {
            return Ok(repository.clone());
        }
        let store = self.stores.store().await?;
        let place = RepositoryLocation::new(&self.settings.store, &self.role.name);
        // Observe mode remembers nothing.
        let place = Some(&place).filter(|_| !self.observe);
        let repository = guard::open(&self.node_context, &self.role, store, place).await?;
        *opened = Some(repository.clone());
        Ok(repository)
    }

    /// The role's lease, to be requested.
    pub(super) async fn lease(&self) -> Result<Box<dyn LeaseService>, GuardError> {
        lease::role_lease(&self.node_context, &self.role, &self.repository().await?, LeaseDuration::Daemon).await
    }

    /// Requests the lease; in observe mode it is only inspected.
    pub(super) async fn ask_lease(&self, lease: &mut dyn LeaseService) -> LeaseReply {
        if self.observe { lease.inspect().await } else { lease.acquire_or_renew().await }
    }

    /// Reads the journal on, and keeps what a first run after a takeover needs. With `beat` it also reads the holder's
    /// heartbeat.
    pub(super) async fn read_journal(&self, beat: bool) -> JournalUpdate {
        let _turn = self.limits.reads.acquire().await;
        match Box::pin(self.try_read(beat)).await {
            Ok(journal) => {
                self.stores.outages().note_answer(&OutageCause::Role(self.role.name.clone(), RoleStep::Journal));
                if self.is_journal_in_etcd().await {
                    self.stores.outages().note_answer(&OutageCause::Etcd);
                }
                journal
            }
            Err(error) => {
                let clock_offset = self.clock_offset().await;
                if matches!(&error, GuardError::Backup(error) if error.is_rotated()) {
                    // The key file may open the new key's slot.
                    *self.repository.lock().await = None;
                }
                if error.is_local_state() && self.monitor.note_read_failure(&error) {
                    self.node_context.env.spawn(self.clone().report_read_failure());
                }
                self.read_failed(&error, clock_offset)
            }
        }
    }

    async fn try_read(&self, beat: bool) -> Result<JournalUpdate, GuardError> {
        let repository = self.repository().await?;
        if self.observe {
            // A run beside the daemon must not be blocked.
            let (history, _) = RoleJournal::peek(&self.node_context, &repository).await?;
            let clock_offset = repository.store.clock_offset();
            return Ok(JournalUpdate {
                history: Some(history),
                term: None,
                failed: false,
                heartbeat: None,
                clock_offset,
            });
        }
        let verify = self.is_verify_due();
        let entered = self.journal_lock.lock().await;
        let (history, view) = match RoleJournal::open_polling(&self.node_context, &repository, verify).await {
            Ok(mut opening) => {
                if opening.announce(self.role.lease).await? {
                    self.node_context.env.spawn(self.clone().compare_configs(repository.clone()));
                }
                opening.remember().await?
            }
            // Another process of this node works on the repository, and will save what it finds.
            Err(BackupError::Lock(LockError::Busy { .. })) => {
                RoleJournal::peek(&self.node_context, &repository).await?
            }
            Err(error) => return Err(error.into()),
        };
        drop(entered);
        if verify {
            let now = self.node_context.env.clock.boottime();
            *self.head_verified_at.lock() = Some(now);
        }
        let beat = if beat {
            Some(
                heartbeat::current_heartbeat(
                    &repository,
                    &self.role,
                    &self.heartbeat,
                    self.node_context.env.clock.now(),
                )
                .await?,
            )
        } else {
            None
        };
        let clock_offset = repository.store.clock_offset();
        if !clock_offset.is_some_and(election::is_clock_off) {
            self.monitor.journal_read(&view);
        }
        if self.monitor.audit_is_due() {
            self.node_context.env.spawn(self.clone().audit(repository));
        }
        Ok(JournalUpdate { history: Some(history), term: None, failed: false, heartbeat: beat, clock_offset })
    }

    /// Whether the next read of the journal includes the known head. In a directory this is free, and detects a disk
    /// that is no longer mounted.
    fn is_verify_due(&self) -> bool {
        let now = self.node_context.env.clock.boottime();
        let last = *self.head_verified_at.lock();
        let paid = matches!(self.settings.store.url, StoreUrl::S3 { .. });
        !paid || last.is_none_or(|at| now.saturating_sub(at) >= VERIFY_INTERVAL)
    }

    /// Compares the configs and versions of the other nodes with this node's.
    async fn compare_configs(self, repository: Repository) {
        let (node, now) = (self.node_context.node.id, self.node_context.env.clock.now());
        match presence::read_live_peers(&repository, node, now).await {
            Ok(told) => {
                let fresh =
                    told.peers.into_iter().filter(|peer| now.duration_since(peer.seen) < ANNOUNCEMENT_INTERVAL * 2);
                let differs = |peer: &PeerPresence| {
                    presence::config_drift(&peer.node, &self.node_context.config_hash).is_some()
                        || presence::lease_drift(peer, self.role.lease).is_some()
                };
                let apart = fresh.filter(differs);
                let apart: Vec<String> = apart.map(|peer| peer.node.name).collect();
                self.monitor.configs_compared(&apart);
            }
            Err(error) => {
                tracing::debug!("role {}: the status of the other nodes cannot be read: {error}", self.role.name);
            }
        }
    }

    /// Audits the last days of the journal for problems that a single read does not show.
    async fn audit(self, repository: Repository) {
        let now = self.node_context.env.clock.now();
        let since = now.checked_sub(AUDIT_SINCE).unwrap_or(Timestamp::MIN);
        let memory = |repo| LocalState::peek(&self.node_context.env, &self.node_context.state_dir, repo).last_view();
        let (store, role) = (Arc::clone(&repository.store), &self.role);
        match job::audit::audit(store, role, self.monitor.plan(), (since, now), &memory).await {
            Ok(audit) => self.monitor.audit_ended(&audit.findings),
            Err(error) => tracing::warn!("role {}: the audit failed: {error}", role.name),
        }
    }

    /// Publishes to the other nodes a failure that cannot be saved here.
    async fn report_read_failure(self) {
        match self.repository().await {
            Ok(repository) => presence::announce_failure(&self.node_context, &repository, self.role.lease).await,
            Err(error) => tracing::debug!("the failure cannot be published to the other nodes: {error}"),
        }
    }

    fn read_failed(&self, error: &GuardError, clock_offset: Option<SignedDuration>) -> JournalUpdate {
        // With a wrong clock it is unknown which slots are missed.
        if !clock_offset.is_some_and(election::is_clock_off) {
            self.monitor.journal_unreadable();
        }
        let cause = OutageCause::of(&self.role.name, RoleStep::Journal, error);
        let is_own = matches!(cause, OutageCause::Role(..));
        if self.stores.outages().note_error(&cause, error) {
            // If all roles meet the failure, the role that met it first is no information.
            if is_own {
                tracing::warn!("role {}: {error}", self.role.name);
            } else {
                tracing::warn!("{error}");
            }
        }
        JournalUpdate { history: None, term: None, failed: true, heartbeat: None, clock_offset }
    }

    async fn is_journal_in_etcd(&self) -> bool {
        let repository = self.repository.lock().await;
        repository.as_ref().is_some_and(|repository| repository.format.journal != JournalLocation::Bucket)
    }

    /// The clock offset of the store's last answer.
    async fn clock_offset(&self) -> Option<SignedDuration> {
        self.repository.lock().await.as_ref().and_then(|repository| repository.store.clock_offset())
    }

    /// Appends a takeover, or continues under this node's own.
    pub(super) async fn take_over(
        &self,
        basis: &AdmissionBasis,
        retake_reason: RetakeReason,
    ) -> Result<JournalUpdate, GuardError> {
        let turn = self.limits.takeovers.acquire().await;
        let repository = self.repository().await?;
        let node_context = &self.node_context;
        let plan = guard::slot_plan(&self.node_context, &self.role, &self.settings, false)?;
        let (role, retake_reason) = (self.role.as_ref(), Some(retake_reason));
        let guard = RoleGuard { node_context, role, repository: &repository, plan, scheduled: false, retake_reason };
        let view = self.lease_view(basis);
        let term = match self.admit(&guard, basis, view).await? {
            Admission::Active(admitted) => {
                let AdmittedRun { opening, candidacy, .. } = *admitted;
                let permit = Box::pin(opening.take_over(&candidacy)).await?.permit().clone();
                // The limit on takeovers protects the store; a hook concerns only this node.
                drop(turn);
                // A hook that hangs would keep the role from every node.
                let node_context = &NodeContext {
                    cancel: node_context.cancel.child_token(),
                    progress: Arc::default(),
                    ..node_context.clone()
                };
                let hook = HookRunner::new(node_context, &self.role).on_takeover(
                    permit.term(),
                    permit.deadline(),
                    &self.ending,
                );
                if let Some(stall) =
                    watchdog::run_watched(node_context, self.role.stall_timeout, &|_| {}, hook).await.stall
                {
                    return Err(BackupError::Stalled(stall).into());
                }
                Some(permit.term())
            }
            Admission::Refused(_) => None,
        };
        Ok(JournalUpdate { term, ..Box::pin(self.try_read(false)).await? })
    }

    async fn admit<'a>(
        &self,
        guard: &RoleGuard<'a>,
        basis: &AdmissionBasis,
        view: LeaseView<'_>,
    ) -> Result<Admission<'a>, GuardError> {
        let _entered = tokio::select! {
            biased;
            entered = self.journal_lock.lock() => entered,
            () = self.node_context.cancel.cancelled() => return Err(BackupError::Interrupted.into()),
        };
        Box::pin(guard.admit_under(basis.assessment.as_ref(), view)).await
    }

    /// Waits for a turn for a run that was due at `due`. A requested run waits as long as its client does. A slot is
    /// yielded to another node when it has waited for longer than allowed.
    pub(super) async fn acquire_turn(&self, due: Option<Timestamp>) -> TurnOutcome {
        let turn = self.limits.runs.acquire(due.unwrap_or(Timestamp::MIN));
        let patience = async {
            match due {
                Some(_) => self.node_context.env.sleep(self.role.missed_after).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            turn = turn => TurnOutcome::Turn(turn),
            () = self.node_context.cancel.cancelled() => TurnOutcome::Interrupted,
            () = patience => TurnOutcome::Crowded,
        }
    }

    /// The role's repository, with its requests counted.
    async fn counted_repository(&self) -> Result<(Repository, Arc<StoreCounters>), GuardError> {
        let repository = self.repository().await?;
        let (counting, counters) = CountingStore::with_response_counter(
            Arc::clone(&repository.store),
            guard::store_answers(&self.node_context),
        );
        let store: Arc<dyn Store> = Arc::new(counting);
        self.node_context.progress.set_store(&store);
        Ok((Repository { store, ..repository }, counters))
    }

    /// Runs one backup, for the due slot or on request.
    pub(super) async fn back_up(
        &self,
        basis: &AdmissionBasis,
        request: BackupRequest,
        retake_reason: Option<RetakeReason>,
        lost: impl Future<Output = LostTo>,
        turn: &RunTurn,
    ) -> Result<RoleReport, GuardError> {
        let limit = run::stall_limit(&self.role, &self.settings);
        let work = self.run(basis, request, retake_reason, lost);
        run::run_result(
            watchdog::run_watched(&self.node_context, limit, &|pace| lend_while_silent(turn, pace), work).await,
        )
    }

    async fn run(
        &self,
        basis: &AdmissionBasis,
        request: BackupRequest,
        retake_reason: Option<RetakeReason>,
        lost: impl Future<Output = LostTo>,
    ) -> Result<RoleReport, GuardError> {
        let node_context = &self.node_context;
        let started = node_context.env.clock.boottime();
        let plan = guard::slot_plan(&self.node_context, &self.role, &self.settings, request.scheduled)?;
        let (repository, counters) = self.counted_repository().await?;
        let (role, scheduled) = (self.role.as_ref(), request.scheduled);
        let guard = RoleGuard { node_context, role, repository: &repository, plan, scheduled, retake_reason };
        let view = self.lease_view(basis);
        let report = match self.admit(&guard, basis, view).await? {
            Admission::Refused(refused) => *refused,
            Admission::Active(admitted) => {
                let AdmittedRun { opening, candidacy, slot, .. } = *admitted;
                self.monitor.run_begins(opening.view(), slot.map(|slot| slot.at));
                let own_places = run::own_paths(node_context, &self.settings);
                let ask = BackupOptions { slot: slot.map(|slot| slot.at), rehash: request.rehash, own_places };
                Box::pin(guard.back_up(opening, &candidacy, &ask, lost)).await?
            }
        };
        let duration = node_context.env.clock.boottime().saturating_sub(started);
        Ok(run::with_measurements(report, duration, &counters.snapshot(), &node_context.env))
    }

    /// Prunes if a prune is due, after a run for a slot. `None`: none is due, or this node is not active.
    pub(super) async fn prune(
        &self,
        basis: &AdmissionBasis,
        lost: impl Future<Output = LostTo>,
        turn: &RunTurn,
    ) -> Result<Option<PruneReport>, PruneError> {
        let now = self.node_context.env.clock.boottime();
        let tried = *self.prune_tried_at.lock();
        if self.role.keep.is_none() || tried.is_some_and(|at| now.saturating_sub(at) < self.prune_interval) {
            return Ok(None);
        }
        *self.prune_tried_at.lock() = Some(now);
        let limit = run::stall_limit(&self.role, &self.settings);
        let work = self.prune_now(basis, lost);
        prune::result_or_stall(
            watchdog::run_watched(&self.node_context, limit, &|pace| lend_while_silent(turn, pace), work).await,
        )
    }

    async fn prune_now(
        &self,
        basis: &AdmissionBasis,
        lost: impl Future<Output = LostTo>,
    ) -> Result<Option<PruneReport>, PruneError> {
        let ((repository, _), plan) = (
            self.counted_repository().await?,
            guard::slot_plan(&self.node_context, &self.role, &self.settings, false)?,
        );
        let (node_context, role, retake_reason) = (&self.node_context, self.role.as_ref(), Some(RetakeReason::None));
        let guard = RoleGuard { node_context, role, repository: &repository, plan, scheduled: false, retake_reason };
        let view = self.lease_view(basis);
        let Admission::Active(admitted) = Box::pin(guard.admit_under(basis.assessment.as_ref(), view)).await? else {
            return Ok(None);
        };
        let AdmittedRun { opening, candidacy, .. } = *admitted;
        let pruned = opening.view().state.pruned;
        if pruned.is_some_and(|at| node_context.env.clock.now().duration_since(at).unsigned_abs() < self.prune_interval)
        {
            return Ok(None);
        }
        prune::prune_admitted(node_context, role, &self.settings.timezone, opening, &candidacy, lost).await.map(Some)
    }

    /// Reads the journal after a run with this result.
    pub(super) async fn read_after_run(&self, result: &Result<RoleReport, GuardError>) -> JournalUpdate {
        if !matches!(result, Ok(_) | Err(GuardError::Backup(BackupError::Interrupted))) {
            // The repository may be the cause of the error, so it is opened again.
            *self.repository.lock().await = None;
        }
        let term = result.as_ref().ok().and_then(|report| report.term);
        JournalUpdate { term, failed: result.is_err(), ..self.read_journal(false).await }
    }

    /// Runs the hook `on_lost`: this node no longer works for the role, or gives it up.
    pub(super) async fn run_lost_hook(&self) {
        let limit = if self.ending.is_cancelled() { hooks::ENDING_MAX } else { self.role.hooks.timeout };
        HookRunner::new(&self.node_context, &self.role).on_lost(limit).await;
    }

    /// The update when work on the journal did not end in time.
    pub(super) fn read_timed_out(&self) -> JournalUpdate {
        let why = no_answer_text(self.role.stall_timeout, self.stores.last_failure().as_deref());
        if self.stores.outages().note_failure(&OutageCause::Store, &why) {
            tracing::error!("the store: {why}");
        }
        self.monitor.journal_unreadable();
        JournalUpdate { history: None, term: None, failed: true, heartbeat: None, clock_offset: None }
    }

    fn lease_view<'a>(&self, basis: &'a AdmissionBasis) -> LeaseView<'a> {
        match &basis.deadline {
            Some(deadline) if !deadline.passed(self.node_context.env.clock.moment()) => LeaseView::Held(deadline),
            _ if self.role.lease == LeaseKind::None => LeaseView::Unasked,
            _ => LeaseView::Unreachable,
        }
    }
}
