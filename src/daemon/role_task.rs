//! One role's task: it passes events to the role's controller, and has its decisions carried out.
//!
//! Everything that takes time runs beside the loop and comes back as an event. So a store or a probe that hangs does
//! not keep the controller from deciding anything else.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::DaemonObserver;
use super::clients::{RoleClients, RoleCommand, RunRequest};
use super::concurrency::ConcurrencyLimits;
use super::outages::{OutageCause, RoleStep, UnansweredAsks};
use super::protocol::{DaemonResponse, FailureExit, RunReply};
use super::role_actions::{AdmissionBasis, RoleActions, TurnOutcome};
use super::store_connector::StoreConnector;
use crate::alert::dispatcher::AlertDispatcher;
use crate::alert::monitor::AlertMonitor;
use crate::config::{LeaseKind, RoleSettings, Settings};
use crate::env::Env;
use crate::ids::NodeId;
use crate::job::admission::guard;
use crate::job::backup::hooks::HookRunner;
use crate::job::backup::request::BackupRequest;
use crate::job::error::{BackupError, GuardError};
use crate::job::node::context::NodeContext;
use crate::job::prune::error::PruneError;
use crate::job::report::whoami::RoleState;
use crate::job::report::{NoCommitReason, RoleReport, RunOutcome, RunReason};
use crate::job::repository::known_repository;
use crate::job::whoami::daemon_answer::DaemonRoleStatus;
use crate::role::candidacy::Deadline;
use crate::role::controller::{
    JournalUpdate, LeaseUpdate, RoleController, RoleEffect, RoleEvent, RoleParams, RoleStatus, YieldReason,
};
use crate::role::election::{RetakeReason, StandbyReason, UnknownReason};
use crate::role::lease::keep_alive::{self, LeaseKeepAlive, RenewalFailure};
use crate::role::lease::{LeaseReply, LeaseService};
use crate::role::probe::ProbeResult;
use crate::role::slot::Slot;

/// Capacity of the event queue: the loop takes events at once.
const EVENTS_MAX: usize = 64;

/// Interval at which the task checks whether the blocked rest of a stalled run still exists.
const BLOCKED_POLL: Duration = Duration::from_secs(1);

/// Parameters of a role's task.
pub(super) struct RoleTask {
    pub(super) node_context: NodeContext,
    pub(super) settings: Arc<Settings>,
    pub(super) role: RoleSettings,
    pub(super) stores: Arc<StoreConnector>,
    pub(super) limits: Arc<ConcurrencyLimits>,
    pub(super) observer: Arc<dyn DaemonObserver>,
    pub(super) dispatcher: Arc<AlertDispatcher>,
    pub(super) observe: bool,
    pub(super) prune_interval: Duration,
}

/// The result of an action beside the loop.
enum TaskCompletion {
    Event(RoleEvent),
    /// A run that yields the role to another node, and the journal after it.
    Yielded(YieldReason, JournalUpdate),
    /// The answer to a lease request, or why it cannot be requested.
    LeaseAnswered(Result<(Box<dyn LeaseService>, LeaseReply), Box<GuardError>>),
}

/// State of the loop.
struct RoleLoop {
    work: RoleActions,
    observer: Arc<dyn DaemonObserver>,
    controller: RoleController,
    lease: Option<Box<dyn LeaseService>>,
    unanswered_asks: UnansweredAsks,
    /// The last renewal of the held lease had no answer.
    is_doubted: bool,
    hints: Option<Arc<Notify>>,
    keep_alive: Option<LeaseKeepAlive>,
    /// Cancels the run in progress.
    running: Option<CancellationToken>,
    clients: RoleClients,
    ttl: Duration,
    completions: mpsc::Sender<TaskCompletion>,
    status: watch::Sender<Option<RoleStatus>>,
}

impl RoleTask {
    /// Works for the role until `stop` is true and everything has ended.
    pub(super) async fn run(
        self,
        mut stop: watch::Receiver<bool>,
        mut commands: mpsc::Receiver<RoleCommand>,
        status: watch::Sender<Option<RoleStatus>>,
        turns: watch::Sender<u64>,
    ) {
        let Self { node_context, settings, role, stores, limits, observer, dispatcher, observe, prune_interval } = self;
        let plan = match known_repository::slot_plan(&settings, &role, &node_context.env, &node_context.state_dir) {
            Ok(plan) => plan,
            Err(error) => {
                let why = error.to_string();
                observer.work_failed(&role.name, &GuardError::Schedule { role: role.name.clone(), why });
                None
            }
        };
        let monitor = Arc::new(AlertMonitor::new(dispatcher, &node_context, &role, plan.clone()));
        let ttl = lease_ttl(&role, &settings);
        let (ask_interval, retry_interval) =
            (keep_alive::poll_interval(ttl, role.lease == LeaseKind::Etcd), keep_alive::retry_pause(ttl));
        let (node, label) = (node_context.node.id, node_context.node.name.clone());
        let roles = settings.roles.len();
        let terms = RoleParams { role: role.clone(), node, label, plan, roles, ask_interval, retry_interval, observe };
        let controller = RoleController::new(terms);
        let (back, mut events) = mpsc::channel(EVENTS_MAX);
        let repository = Arc::default();
        let (role, ending) = (Arc::new(role), CancellationToken::new());
        let pruned = Arc::default();
        let verified = Arc::default();
        let work = RoleActions {
            node_context,
            settings,
            role,
            stores,
            limits,
            ending,
            monitor,
            observe,
            prune_interval,
            prune_tried_at: pruned,
            head_verified_at: verified,
            heartbeat: Arc::default(),
            repository,
            journal_lock: Arc::default(),
        };
        let mut this = RoleLoop {
            work,
            observer,
            controller,
            lease: None,
            unanswered_asks: UnansweredAsks::default(),
            is_doubted: false,
            hints: None,
            keep_alive: None,
            running: None,
            clients: RoleClients::default(),
            ttl,
            completions: back,
            status,
        };
        if !observe {
            let work = this.work.clone();
            this.env().spawn(async move { HookRunner::new(&work.node_context, &work.role).recover().await });
        }
        let senses = Arc::clone(&this.work.node_context.inputs.probes);
        let mut addresses = senses.hints(this.work.role.eligible.as_ref());
        let mut returns = this.work.stores.recoveries();
        let mut event = RoleEvent::Tick;
        loop {
            turns.send_modify(|turns| *turns += 1);
            if matches!(event, RoleEvent::Stop) {
                this.work.ending.cancel();
            }
            if this.handle_event(event) {
                // If a lease was released, the hook ran before that.
                if !observe {
                    this.work.run_lost_hook().await;
                }
                return;
            }
            let now = this.work.node_context.env.clock.moment();
            // Run requests are served one after the other, and borrowers are counted when they come and go.
            if let Some(news) =
                this.clients.next_event(&this.work.role.name, now.boot, this.controller.is_run_requested())
            {
                event = news;
                continue;
            }
            let wake = this.controller.next_wake(now).min(this.clients.patience().unwrap_or(Duration::MAX));
            let wait = wake.saturating_sub(now.boot);
            let env = this.env().clone();
            event = tokio::select! {
                biased;
                back = events.recv() => match back {
                    Some(back) => this.on_completion(back),
                    // The loop itself has a sender, so the channel is never closed.
                    None => return,
                },
                Some(command) = commands.recv() => this.on_command(command),
                () = env.sleep(wait) => RoleEvent::Tick,
                () = keep_alive::wait_for_hint(this.hints.as_ref()) => RoleEvent::LeaseHint,
                () = addresses.changed() => RoleEvent::ProbesChanged,
                Ok(()) = returns.changed() => RoleEvent::StoreAnswered,
                to = guard::lease_lost(this.keep_alive.as_ref()) => {
                    this.keep_alive = None;
                    RoleEvent::LeaseLost(to)
                }
                Ok(_) = stop.wait_for(|stop| *stop), if !this.controller.is_stopping() => RoleEvent::Stop,
            };
        }
    }
}

impl RoleLoop {
    fn env(&self) -> &Env {
        &self.work.node_context.env
    }

    /// Performs the effects of an event. Returns whether the task has ended.
    fn handle_event(&mut self, event: RoleEvent) -> bool {
        let now = self.work.node_context.env.clock.moment();
        for effect in self.controller.on_event(now, event) {
            match effect {
                RoleEffect::Probe => {
                    self.spawn_action(
                        |work| async move { TaskCompletion::Event(RoleEvent::Assessed(work.assess().await)) },
                    );
                }
                RoleEffect::AskLease => self.ask_lease(),
                RoleEffect::ReleaseLease => self.release_lease(),
                RoleEffect::ReadJournal => {
                    let beat = matches!(self.controller.status(), Some(RoleStatus::Conflict(_)));
                    self.spawn_action(move |work| async move {
                        let read = work
                            .node_context
                            .env
                            .timeout(work.role.stall_timeout, Box::pin(work.read_journal(beat)))
                            .await;
                        TaskCompletion::Event(RoleEvent::JournalUpdated(read.unwrap_or_else(|| work.read_timed_out())))
                    });
                }
                RoleEffect::TakeOver { reason: retake_reason } => self.take_over(retake_reason),
                RoleEffect::BackUp(slot) => self.back_up(None, Some(slot)),
                RoleEffect::BackUpNow => {
                    let wanted = self.clients.next_run();
                    self.back_up(wanted, None);
                }
                RoleEffect::RefuseRuns => self.refuse_runs(),
                // Borrowers must end within the time that their last grant leaves them.
                RoleEffect::EndBorrowers => self.clients.end_borrowers(now.boot + self.ttl),
                RoleEffect::Cancel => self.running.iter().for_each(CancellationToken::cancel),
                RoleEffect::WouldBackUp(slot) => self.observer.would_run(&self.work.role.name, slot),
                RoleEffect::ReportStatus => self.publish_status(),
                RoleEffect::End => return true,
            }
        }
        self.check_keep_alive();
        false
    }

    fn on_completion(&mut self, back: TaskCompletion) -> RoleEvent {
        let (lease, reply) = match back {
            TaskCompletion::Event(event) => {
                if let RoleEvent::JournalUpdated(_) = event {
                    self.running = None;
                }
                return event;
            }
            TaskCompletion::Yielded(why, journal) => {
                self.running = None;
                // A run was in progress, so this event does not end the loop.
                self.handle_event(RoleEvent::Yielded(why));
                return RoleEvent::JournalUpdated(journal);
            }
            TaskCompletion::LeaseAnswered(Err(error)) => {
                self.on_lease_error(&error);
                return RoleEvent::LeaseUpdated(LeaseUpdate::Unreachable);
            }
            TaskCompletion::LeaseAnswered(Ok(asked)) => asked,
        };
        let answer = match reply {
            LeaseReply::Held(grant) => {
                self.lease_answered();
                let keep_alive = LeaseKeepAlive::start(lease, grant, self.env());
                let deadline = keep_alive.deadline().clone();
                self.keep_alive = Some(keep_alive);
                return RoleEvent::LeaseUpdated(LeaseUpdate::Held(deadline));
            }
            LeaseReply::Taken { by, .. } => LeaseUpdate::Taken(by),
            LeaseReply::Free => LeaseUpdate::Free,
            LeaseReply::Unknown { why } => {
                self.on_renewal_failure(RenewalFailure { why, is_refusal: lease.is_refused() });
                LeaseUpdate::Unreachable
            }
        };
        if !matches!(answer, LeaseUpdate::Unreachable) {
            self.lease_answered();
        }
        self.hints = self.lease.insert(lease).change_hints();
        RoleEvent::LeaseUpdated(answer)
    }

    /// A lease request had no answer. A single lost answer is not reported; a store that does not answer repeatedly is.
    fn on_renewal_failure(&mut self, doubt: RenewalFailure) {
        self.log_lease_outage(&doubt);
        let RenewalFailure { why, .. } = doubt;
        if self.unanswered_asks.note_no_answer(&why, self.work.node_context.env.clock.boottime()) {
            let reason = NoCommitReason::LeaseUnknown { lease: self.work.role.lease, why };
            self.work.monitor.takeover_failed(&RoleReport::without_commit(self.work.role.name.clone(), reason));
        }
    }

    /// Logs that the service that keeps the lease does not answer, or refuses. All roles with a lease there meet the
    /// same.
    fn log_lease_outage(&self, RenewalFailure { why, is_refusal }: &RenewalFailure) {
        let cause = match self.work.role.lease {
            LeaseKind::Etcd => OutageCause::Etcd,
            LeaseKind::Bucket | LeaseKind::None if *is_refusal => OutageCause::Refusal,
            LeaseKind::Bucket | LeaseKind::None => OutageCause::Store,
        };
        if self.work.stores.outages().note_failure(&cause, why) {
            let store = &self.work.settings.store;
            let endpoint = store.endpoint.as_ref().map(|endpoint| format!(" at {endpoint}")).unwrap_or_default();
            // Errors of a store name the store already.
            let place = match cause {
                OutageCause::Store | OutageCause::Refusal if !why.contains("://") => {
                    format!("{}{endpoint}: ", store.url)
                }
                _ => String::new(),
            };
            tracing::warn!("the lease cannot be asked for: {place}{why}");
        }
    }

    /// The lease cannot be requested. The attempt is repeated as often as a lease is requested, and reported as rarely
    /// as an unanswered lease.
    fn on_lease_error(&mut self, error: &GuardError) {
        let (role, why) = (&self.work.role.name, error.to_string());
        if self.work.stores.outages().note_error(&OutageCause::of(role, RoleStep::Lease, error), error) {
            self.observer.work_failed(role, error);
        }
        if self.unanswered_asks.note_failure(&why, self.work.node_context.env.clock.boottime()) {
            self.work.monitor.takeover_failed(&self.observer.report_failure(role, error).0);
        }
    }

    fn lease_answered(&mut self) {
        self.is_doubted = false;
        self.etcd_answered();
        self.work.stores.outages().note_answer(&OutageCause::Role(self.work.role.name.clone(), RoleStep::Lease));
        if self.unanswered_asks.note_answer() {
            self.work.monitor.lease_answered();
        }
    }

    /// Notes an answer of etcd. Answers of a store are noted by [`StoreConnector`].
    fn etcd_answered(&self) {
        if self.work.role.lease == LeaseKind::Etcd {
            self.work.stores.outages().note_answer(&OutageCause::Etcd);
        }
    }

    /// Checks the renewals of the held lease. A late renewal is not reported while the lease lasts.
    fn check_keep_alive(&mut self) {
        let is_lost = matches!(self.controller.status(), Some(RoleStatus::Unknown(UnknownReason::Lease(_))));
        let Some(keep_alive) = self.keep_alive.as_mut().filter(|_| is_lost || self.is_doubted) else { return };
        match keep_alive.doubt() {
            Some(Some(doubt)) if is_lost => {
                self.is_doubted = true;
                self.log_lease_outage(&doubt);
            }
            Some(None) if self.is_doubted => {
                self.is_doubted = false;
                self.etcd_answered();
            }
            _ => {}
        }
    }

    /// Runs an action beside the loop; its result comes back as an event.
    fn spawn_action<F>(&self, what: impl FnOnce(RoleActions) -> F)
    where
        F: Future<Output = TaskCompletion> + Send + 'static,
    {
        let (task, back) = (what(self.work.clone()), self.completions.clone());
        self.env().spawn(async move {
            let came = task.await;
            // The receiver is gone when the loop has ended, and then no action is open.
            let _ = back.send(came).await;
        });
    }

    fn ask_lease(&mut self) {
        let lease = self.lease.take();
        self.spawn_action(move |work| async move {
            let opened = match lease {
                Some(lease) => Ok(lease),
                None => work.lease().await,
            };
            match opened {
                Ok(mut lease) => {
                    let reply = work.ask_lease(lease.as_mut()).await;
                    TaskCompletion::LeaseAnswered(Ok((lease, reply)))
                }
                Err(error) => TaskCompletion::LeaseAnswered(Err(Box::new(error))),
            }
        });
    }

    fn release_lease(&mut self) {
        let keep_alive = self.keep_alive.take();
        self.spawn_action(move |work| async move {
            work.run_lost_hook().await;
            guard::release(keep_alive).await;
            TaskCompletion::Event(RoleEvent::Released)
        });
    }

    fn take_over(&mut self, retake_reason: RetakeReason) {
        let (basis, observer) = (self.admission_basis(), Arc::clone(&self.observer));
        self.spawn_action(move |work| async move {
            let taken = Box::pin(work.take_over(&basis, retake_reason));
            let journal =
                match work.node_context.env.timeout(work.role.stall_timeout + work.role.hooks.timeout, taken).await {
                    None => work.read_timed_out(),
                    Some(Ok(journal)) => {
                        if journal.term.is_some() {
                            work.stores
                                .outages()
                                .note_answer(&OutageCause::Role(work.role.name.clone(), RoleStep::Takeover));
                            work.monitor.role_taken();
                        }
                        journal
                    }
                    Some(Err(error)) => {
                        let cause = OutageCause::of(&work.role.name, RoleStep::Takeover, &error);
                        if work.stores.outages().note_error(&cause, &error) {
                            observer.work_failed(&work.role.name, &error);
                        }
                        work.monitor.takeover_failed(&observer.report_failure(&work.role.name, &error).0);
                        let result = Err(error);
                        let journal = work.read_after_run(&result).await;
                        if is_stalled(&result) {
                            return TaskCompletion::Yielded(YieldReason::Stalled { blocked: false }, journal);
                        }
                        journal
                    }
                };
            TaskCompletion::Event(RoleEvent::JournalUpdated(journal))
        });
    }

    /// Runs a backup for the due slot, or for a client's request.
    fn back_up(&mut self, wanted: Option<RunRequest>, slot: Option<Slot>) {
        let (basis, observer, keep_alive) =
            (self.admission_basis(), Arc::clone(&self.observer), self.keep_alive.as_ref());
        let (lost, lost_later) = (guard::lease_lost(keep_alive), guard::lease_lost(keep_alive));
        let cancel = wanted.as_ref().map_or_else(CancellationToken::new, |wanted| wanted.cancel.child_token());
        let progress = wanted.as_ref().map(|wanted| Arc::clone(&wanted.progress)).unwrap_or_default();
        self.running = Some(cancel.clone());
        let back = self.completions.clone();
        // At the time of a slot this node has the role already, so nothing justifies taking it back. A requested run is
        // a person's decision.
        let (request, retake_reason) = match &wanted {
            Some(wanted) => (wanted.request, wanted.request.retake_reason()),
            None => (BackupRequest { scheduled: true, ..BackupRequest::default() }, Some(RetakeReason::None)),
        };
        self.spawn_action(move |work| async move {
            let node_context = NodeContext { cancel, progress, ..work.node_context.clone() };
            let work = RoleActions { node_context, ..work };
            let waited = work.acquire_turn(slot.map(|slot| slot.starts)).await;
            let (result, turn) = match waited {
                TurnOutcome::Turn(turn) => {
                    (work.back_up(&basis, request, retake_reason, lost, &turn).await, Some(turn))
                }
                TurnOutcome::Interrupted => (Err(BackupError::Interrupted.into()), None),
                TurnOutcome::Crowded => {
                    return TaskCompletion::Yielded(YieldReason::Crowded, work.read_journal(false).await);
                }
            };
            let role = &work.role.name;
            let mut stalled = is_stalled(&result);
            let ended = match &result {
                Ok(report) => {
                    if report.snapshot.is_some() {
                        work.stores.outages().note_answer(&OutageCause::Runs(role.clone()));
                    }
                    observer.run_ended(report);
                    work.monitor.run_ended(report);
                    run_reply(observer.as_ref(), report.clone(), None)
                }
                Err(error) => {
                    let (report, exit) = observer.report_failure(role, error);
                    let is_interrupted = matches!(error, GuardError::Backup(BackupError::Interrupted));
                    if !is_interrupted && work.stores.outages().note_error(&OutageCause::Runs(role.clone()), error) {
                        observer.work_failed(role, error);
                    }
                    work.monitor.run_failed(error, &report);
                    run_reply(observer.as_ref(), report, Some(exit))
                }
            };
            if let Some(wanted) = wanted {
                // The client may have disconnected.
                let _ = wanted.reply.send(ended);
            }
            let is_time = match &result {
                Ok(report) => report.snapshot.is_some(),
                // Until there is space no run will succeed.
                Err(error) => error.is_no_space(),
            };
            if let Some(turn) = turn
                && request.scheduled
                && is_time
            {
                // A failed prune does not change the result of the run.
                match Box::pin(work.prune(&basis, lost_later, &turn)).await {
                    Ok(Some(report)) => observer.prune_ended(&report),
                    Ok(None) | Err(PruneError::Session(BackupError::Interrupted)) => {}
                    Err(error) => {
                        stalled |= matches!(error, PruneError::Session(BackupError::Stalled(_)));
                        observer.prune_failed(role, &error);
                    }
                }
            }
            let after =
                work.node_context.env.timeout(work.role.stall_timeout, Box::pin(work.read_after_run(&result))).await;
            let journal = after.unwrap_or_else(|| work.read_timed_out());
            if !stalled {
                return TaskCompletion::Event(RoleEvent::JournalUpdated(journal));
            }
            let blocked = work.node_context.progress.is_uninterruptible();
            if blocked {
                // Until then a further run would be blocked as well.
                work.node_context.env.spawn(wait_unblocked(work.node_context.clone(), back));
            }
            TaskCompletion::Yielded(YieldReason::Stalled { blocked }, journal)
        });
    }

    /// Handles a command from another process of this node.
    fn on_command(&mut self, command: RoleCommand) -> RoleEvent {
        match command {
            RoleCommand::BackUp(wanted) => {
                self.clients.queue_run(wanted);
                RoleEvent::RunRequested
            }
            RoleCommand::BorrowLease { tell } => {
                self.clients.add_borrower(tell);
                RoleEvent::Tick
            }
            RoleCommand::Lease { reply } => {
                let _ = reply.send(self.lend_lease());
                RoleEvent::Tick
            }
            RoleCommand::Status { reply } => {
                // The client may have disconnected.
                let _ = reply.send(self.word());
                RoleEvent::Tick
            }
            RoleCommand::BorrowerLeft => RoleEvent::Tick,
            RoleCommand::ReadJournal => RoleEvent::JournalHint,
        }
    }

    /// The state of the lease, for a borrower.
    fn lend_lease(&self) -> DaemonResponse {
        let grant = self.keep_alive.as_ref().and_then(|keep_alive| keep_alive.deadline().grant());
        match (grant, self.controller.status()) {
            (Some(grant), _) if self.controller.lends_lease() => DaemonResponse::Held(grant),
            (_, Some(RoleStatus::Standby(StandbyReason::LeaseTaken(by)))) => DaemonResponse::Taken(by.clone()),
            _ => DaemonResponse::Unknown { why: self.refusal_text() },
        }
    }

    /// The last results of the probes.
    fn evidence(&self) -> &[ProbeResult] {
        self.controller.assessment().map(|assessment| assessment.results.as_slice()).unwrap_or_default()
    }

    /// Why this node has its current status, in text.
    fn refusal_text(&self) -> String {
        self.observer.reason_text(&self.work.role.name, &self.refusal())
    }

    /// Why this node does not work for the role in its current status.
    fn refusal(&self) -> RunReason {
        RunReason::Refused { status: self.controller.status().cloned(), evidence: self.evidence().to_vec() }
    }

    /// This node's status, for a client that asks.
    fn word(&self) -> DaemonRoleStatus {
        let status = self.controller.status();
        let state = status.map(|status| match status {
            RoleStatus::Active { .. } => RoleState::Active,
            RoleStatus::Candidate | RoleStatus::Standby(_) | RoleStatus::Away(_) => RoleState::Standby,
            RoleStatus::Unknown(_) => RoleState::Unknown,
            RoleStatus::Conflict(_) | RoleStatus::Cloned => RoleState::Conflict,
            RoleStatus::Paused(_) => RoleState::Paused,
        });
        let why = self.refusal_text();
        DaemonRoleStatus {
            state,
            why,
            failure: self.work.monitor.last_failure(),
            under_way: self.work.monitor.under_way(),
        }
    }

    fn refuse_runs(&mut self) {
        let Some(wanted) = self.clients.next_run() else { return };
        let role = &self.work.role.name;
        let outcome = match self.controller.status() {
            Some(RoleStatus::Unknown(_)) | None => RunOutcome::Unknown,
            Some(RoleStatus::Paused(_)) => RunOutcome::Skipped,
            Some(_) => RunOutcome::Standby,
        };
        let report = RoleReport { reason: Some(self.refusal()), ..RoleReport::nothing(role.clone(), outcome) };
        let _ = wanted.reply.send(run_reply(self.observer.as_ref(), report, None));
    }

    fn admission_basis(&self) -> AdmissionBasis {
        let deadline: Option<Deadline> = self.keep_alive.as_ref().map(|keep_alive| keep_alive.deadline().clone());
        AdmissionBasis { assessment: self.controller.assessment().cloned(), deadline }
    }

    fn publish_status(&self) {
        if let Some(status) = self.controller.status() {
            self.observer.status_changed(&self.work.role.name, status, self.evidence());
            self.work.monitor.status_changed(status, self.refusal_text());
            // If a lease is released, the hook runs before that.
            let keeps = self.keep_alive.is_some() && !matches!(status, RoleStatus::Conflict(_));
            if !self.work.observe && !keeps && is_elsewhere(status, self.work.node_context.node.id) {
                let work = self.work.clone();
                self.env().spawn(async move { work.run_lost_hook().await });
            }
            self.status.send_replace(Some(status.clone()));
        }
    }
}

/// The answer to a request for a run.
fn run_reply(observer: &dyn DaemonObserver, report: RoleReport, exit: Option<FailureExit>) -> RunReply {
    let text = report.reason.as_ref().map(|reason| observer.reason_text(&report.role, reason));
    RunReply::new(report, exit, text)
}

fn is_stalled(result: &Result<RoleReport, GuardError>) -> bool {
    matches!(result, Err(GuardError::Backup(BackupError::Stalled(_))))
}

/// Reports when no part of a run is blocked in the kernel any more.
async fn wait_unblocked(node_context: NodeContext, back: mpsc::Sender<TaskCompletion>) {
    while node_context.progress.is_uninterruptible() {
        node_context.env.sleep(BLOCKED_POLL).await;
    }
    // The loop may have ended.
    let _ = back.send(TaskCompletion::Event(RoleEvent::Unblocked)).await;
}

/// Whether the role belongs to another node.
fn is_elsewhere(status: &RoleStatus, node: NodeId) -> bool {
    match status {
        RoleStatus::Standby(reason) => reason.is_elsewhere(node),
        RoleStatus::Conflict(_) | RoleStatus::Cloned => true,
        _ => false,
    }
}

/// The TTL of the role's lease.
fn lease_ttl(role: &RoleSettings, settings: &Settings) -> Duration {
    match (&settings.etcd, role.lease) {
        (Some(etcd), LeaseKind::Etcd) => etcd.lease_ttl,
        _ => role.bucket_lease_ttl,
    }
}
