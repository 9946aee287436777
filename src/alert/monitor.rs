//! Watches one role on one node, and has told what there is to tell: what its own runs came to, how it stands, and what every node
//! of the role sees in the journal. A run without a daemon uses the same.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::conditions::{ConditionChecker, JournalSummary};
use crate::alert::dispatcher::{AlertDispatcher, HealthcheckPing};
use crate::alert::event::{AlertEvent, AlertKind, AlertNotification, COMMAND, FailureCause};
use crate::alert::ledger::{AlertLedger, ReporterStatus};
use crate::config::RoleSettings;
use crate::env::Env;
use crate::ids::{NodeId, RoleName, Term};
use crate::job::admission::guard::{GuardError, NoCommitReason};
use crate::job::backup::BackupError;
use crate::job::health::RunningBackup;
use crate::job::node::context::NodeContext;
use crate::job::node::local_state::LockError;
use crate::job::node::run_failure::{RunFailure, RunFailureFile};
use crate::job::report::audited::AuditFinding;
use crate::job::report::whoami::RunStep;
use crate::job::report::{PathProblem, PathProblemKind, RoleReport, RunOutcome};
use crate::journal::log::AppendError;
use crate::journal::state::JournalView;
use crate::repo::entry::TreePath;
use crate::role::controller::RoleStatus;
use crate::role::election::{StandbyReason, UnknownReason};
use crate::role::slot::SlotSchedule;

/// How often a long-running node audits its journals; first so long after its start.
const AUDIT_INTERVAL: Duration = Duration::from_hours(6);

/// The same for the first time.
const AUDIT_FIRST: Duration = Duration::from_mins(10);

/// So many of the paths that could not be read are named in an alert. The run's own report has more.
const UNREAD_NAMED_MAX: usize = 5;

/// Whom a role's events are reported to.
#[derive(Debug)]
pub struct AlertMonitor {
    teller: Arc<AlertDispatcher>,
    env: Env,
    role: RoleName,
    node: NodeId,
    label: String,
    plan: Option<SlotSchedule>,
    allow_empty: bool,
    /// How the last run failed, for whoever asks.
    kept: RunFailureFile,
    lock_state: Mutex<MonitorState>,
}

/// A run of this node.
#[derive(Debug, Clone, Copy)]
struct ActiveRun {
    slot: Option<Timestamp>,
    since: Timestamp,
}

#[derive(Debug)]
struct MonitorState {
    summary: JournalSummary,
    /// The run that is under way.
    running: Option<ActiveRun>,
    /// Before it another node had the role.
    was_elsewhere: bool,
    /// The lease is in the hands of a process that lives.
    is_holder_alive: bool,
    /// This node is active, or would be if it could tell.
    is_active: bool,
    /// Why it is not active, in words.
    inactive_reason: Option<String>,
    audit_at: Duration,
}

impl AlertMonitor {
    /// Watches `role` as the node of `runner`.
    pub fn new(
        teller: Arc<AlertDispatcher>,
        runner: &NodeContext,
        role: &RoleSettings,
        plan: Option<SlotSchedule>,
    ) -> Self {
        let (role, allow_empty) = (role.name.clone(), role.allow_empty);
        let (env, node, kept) = (runner.env.clone(), &runner.node, RunFailureFile::of_node(runner, &role));
        let seen = MonitorState {
            summary: JournalSummary::default(),
            running: None,
            was_elsewhere: false,
            is_holder_alive: false,
            is_active: false,
            inactive_reason: None,
            audit_at: env.clock.boottime() + AUDIT_FIRST,
        };
        Self {
            teller,
            env,
            role,
            node: node.id,
            label: node.name.clone(),
            plan,
            allow_empty,
            kept,
            lock_state: Mutex::new(seen),
        }
    }

    /// Whether nobody is told anything.
    pub fn has_no_channels(&self) -> bool {
        self.teller.has_no_channels()
    }

    /// The journal was read.
    pub fn journal_read(&self, view: &JournalView) {
        if self.has_no_channels() {
            return;
        }
        let now = self.env.clock.now();
        let mut seen = self.seen();
        seen.summary = JournalSummary::of(view, now);
        let watcher = seen.summary.reporter_status(self.node, seen.is_holder_alive);
        self.evaluate(&seen, watcher);
    }

    /// The journal cannot be read. What was not committed when it could is not committed as far as anybody here knows.
    pub fn journal_unreadable(&self) {
        let seen = self.seen();
        let watcher = seen.summary.reporter_status(self.node, seen.is_holder_alive);
        let missed = |sight: ConditionChecker<'_>| sight.missed_slots(&seen.summary);
        if let Some(event) = missed(self.checker(&seen)) {
            self.raise(event, watcher);
        }
    }

    /// How this node stands for the role, and `why` in words.
    pub fn status_changed(&self, stand: &RoleStatus, why: String) {
        let mut seen = self.seen();
        seen.inactive_reason =
            Some(why).filter(|_| !matches!(stand, RoleStatus::Active { .. } | RoleStatus::Paused(_)));
        seen.is_holder_alive = matches!(stand, RoleStatus::Standby(StandbyReason::LeaseTaken(Some(_))));
        seen.is_active = matches!(stand, RoleStatus::Active { .. } | RoleStatus::Unknown(_));
        match stand {
            RoleStatus::Conflict(holder) => {
                let event = self.checker(&seen).event(AlertKind::Conflict);
                self.raise(AlertEvent { detail: Some(holder.label.clone()), ..event }, ReporterStatus::Holder);
            }
            RoleStatus::Cloned => self.raise(self.checker(&seen).event(AlertKind::Clone), ReporterStatus::Holder),
            RoleStatus::Unknown(UnknownReason::Clock { offset }) => {
                self.raise(self.clock_off(&seen, *offset), ReporterStatus::Holder);
            }
            // It may well go on.
            RoleStatus::Unknown(_) => {}
            _ => self.resolve(&[AlertKind::Conflict, AlertKind::Clone, AlertKind::ClockOff]),
        }
    }

    /// A run begins. What was missed until now is told by whoever does it.
    pub fn run_begins(&self, view: &JournalView, slot: Option<Timestamp>) {
        let now = self.env.clock.now();
        let mut seen = self.seen();
        seen.summary = JournalSummary::of(view, now);
        seen.running = Some(ActiveRun { slot, since: now });
        seen.was_elsewhere = seen.summary.is_elsewhere(self.node);
        self.teller.ping(&self.role, &HealthcheckPing::Start);
        self.evaluate(&seen, ReporterStatus::Holder);
    }

    /// A run ended, or never began; the report has its reason in words.
    pub fn run_ended(&self, report: &RoleReport, reason: Option<&NoCommitReason>) {
        self.note_end(report, reason, None);
    }

    fn note_end(&self, report: &RoleReport, reason: Option<&NoCommitReason>, cause: Option<FailureCause>) {
        let mut seen = self.seen();
        let running = seen.running.take();
        // Why a run without a daemon was none: what it sees of missed slots is told next.
        if matches!(
            reason,
            Some(NoCommitReason::Standby(..) | NoCommitReason::Unknown(..) | NoCommitReason::LeaseUnknown { .. })
        ) {
            seen.inactive_reason.clone_from(&report.reason);
        }
        let event = |kind| AlertEvent {
            slot: report.slot.or(running.and_then(|running| running.slot)),
            term: report.term,
            after: seen.summary.committed(),
            cause,
            detail: report.reason.clone(),
            ..self.checker(&seen).event(kind)
        };
        let why = || report.reason.clone().unwrap_or_default();
        match report.outcome {
            RunOutcome::Committed | RunOutcome::Unchanged => {
                if let (true, true, Some(term)) = (report.takeover, seen.was_elsewhere, report.term) {
                    self.raise(self.checker(&seen).took_over(term), ReporterStatus::Holder);
                }
                self.committed(report.slot);
                match self.checker(&seen).lost_content(report.loss.as_ref()) {
                    None => self.resolve(&[AlertKind::Lost]),
                    Some(event) => self.raise(event, ReporterStatus::Holder),
                }
                let lacks = self.checker(&seen).empty_sources(report.empty_sources.len() as u64);
                let lacks =
                    lacks.map(|event| AlertEvent { detail: Some(source_names_text(&report.empty_sources)), ..event });
                let incomplete = self.checker(&seen).incomplete(report.files.unreadable);
                let incomplete = incomplete.map(|event| AlertEvent { detail: Some(unreadable_text(report)), ..event });
                let open = vec![(AlertKind::Incomplete, incomplete.clone().into_iter().chain(lacks).collect())];
                self.teller.dispatch(|ledger, now| self.settle(ledger, open, ReporterStatus::Holder, now));
                match incomplete.and_then(|event| event.detail) {
                    // One without a source is what its exit code says: done.
                    None => self.teller.ping(&self.role, &HealthcheckPing::Success),
                    Some(unread) => {
                        // Who pings after a command goes by its exit code, and that is not 0 here.
                        self.teller.ping(&self.role, &HealthcheckPing::Fail(format!("incomplete: {unread}")));
                    }
                }
            }
            RunOutcome::Failed | RunOutcome::Fenced => {
                let kind = if report.outcome == RunOutcome::Failed { AlertKind::Failed } else { AlertKind::Fenced };
                self.remember_failure(report, RunStep::Run, &seen, running);
                self.raise(event(kind), ReporterStatus::Holder);
                self.teller.ping(&self.role, &HealthcheckPing::Fail(why()));
            }
            RunOutcome::Unknown if reason == Some(&NoCommitReason::Cloned) => {
                self.raise(event(AlertKind::Clone), ReporterStatus::Holder)
            }
            RunOutcome::Unknown if let Some(NoCommitReason::ClockOff { offset }) = reason => {
                self.raise(self.clock_off(&seen, *offset), ReporterStatus::Holder);
            }
            RunOutcome::Unknown if running.is_some() => {
                self.remember_failure(report, RunStep::Run, &seen, running);
                self.teller.ping(&self.role, &HealthcheckPing::Fail(why()));
            }
            RunOutcome::Unknown if let Some(NoCommitReason::LeaseUnknown { .. }) = reason => {
                self.remember_failure(report, RunStep::Takeover, &seen, None);
            }
            RunOutcome::Unknown => {}
            RunOutcome::Standby | RunOutcome::Skipped => match reason {
                Some(NoCommitReason::Conflict { holder }) => {
                    self.raise(
                        AlertEvent { detail: Some(holder.clone()), ..event(AlertKind::Conflict) },
                        ReporterStatus::Holder,
                    );
                }
                Some(NoCommitReason::Standby(StandbyReason::LeaseTaken(Some(_)), _)) => {
                    seen.is_holder_alive = true;
                    self.resolve(&[AlertKind::Conflict]);
                }
                // Whoever looked for a slot knows what time it is.
                Some(NoCommitReason::SlotCommitted { .. } | NoCommitReason::NothingDue) => {
                    self.resolve(&[AlertKind::Conflict, AlertKind::ClockOff]);
                }
                _ => self.resolve(&[AlertKind::Conflict]),
            },
        }
    }

    /// A guarded command for a slot ended, and the journal has it. `error`: how, if not well.
    pub fn command_ended(&self, slot: Option<Timestamp>, term: Option<Term>, error: Option<String>) {
        let Some(error) = error else {
            self.seen().running = None;
            self.committed(slot);
            self.teller.ping(&self.role, &HealthcheckPing::Success);
            return;
        };
        let mut seen = self.seen();
        seen.running = None;
        let (mark, after) = (COMMAND.to_owned(), seen.summary.committed());
        let event = self.checker(&seen).event(AlertKind::Failed);
        self.raise(
            AlertEvent { slot, term, mark, after, detail: Some(error.clone()), ..event },
            ReporterStatus::Holder,
        );
        self.teller.ping(&self.role, &HealthcheckPing::Fail(error));
    }

    /// Something was committed, for a slot or not: what it was to end is over. That a command failed a slot's commit alone ends.
    fn committed(&self, slot: Option<Timestamp>) {
        self.kept.clear();
        self.resolve(&[AlertKind::Fenced, AlertKind::Conflict, AlertKind::Clone]);
        self.teller.dispatch(|ledger, now| {
            let still = ledger.marks(&self.role, AlertKind::Failed, |event| event.mark == COMMAND && slot.is_none());
            ledger.resolve(&self.role, AlertKind::Failed, &still, &self.label, now)
        });
        if slot.is_some() {
            self.resolve(&[AlertKind::Missed, AlertKind::ClockOff]);
        }
    }

    /// What stands between this node and its role: a lease or a takeover came to an error. No alert: it is tried again at once, and
    /// a slot that passes meanwhile is told.
    pub fn takeover_failed(&self, report: &RoleReport) {
        let seen = self.seen();
        self.remember_failure(report, RunStep::Takeover, &seen, None);
    }

    /// The journal cannot be followed for this error of the node's own. True: that keeps it from its role; whoever stands by has none.
    pub(crate) fn note_read_failure(&self, error: &GuardError) -> bool {
        let seen = self.seen();
        if seen.is_active {
            let report = RoleReport::nothing(self.role.clone(), RunOutcome::Failed);
            let report = RoleReport { reason: Some(error.to_string()), ..report };
            self.remember_failure(&report, RunStep::Takeover, &seen, None);
        }
        seen.is_active
    }

    /// How the last run failed, as far as this process knows.
    pub(crate) fn last_failure(&self) -> Option<RunFailure> {
        self.kept.load()
    }

    /// The run for a slot that is under way.
    pub(crate) fn under_way(&self) -> Option<RunningBackup> {
        let ActiveRun { slot, since } = self.seen().running?;
        Some(RunningBackup { node: self.label.clone(), slot: slot?, since })
    }

    /// The lease is answered again, whatever the answer.
    pub fn lease_answered(&self) {
        self.kept.clear_doubt();
    }

    /// This node has the role.
    pub fn role_taken(&self) {
        self.kept.clear_takeover();
    }

    /// How the last run failed is remembered for whoever asks.
    fn remember_failure(&self, report: &RoleReport, step: RunStep, seen: &MonitorState, running: Option<ActiveRun>) {
        let (outcome, time, after) = (report.outcome, self.env.clock.now(), seen.summary.committed());
        let slot = report.slot.or(running.and_then(|running| running.slot));
        let error = report.reason.clone().unwrap_or_default();
        self.kept.add(RunFailure { outcome, step, time, slot, error, failures: 0, after });
    }

    /// A run came to an error, which this report tells. Says whether it failed by that.
    pub fn run_failed(&self, error: &GuardError, report: &RoleReport) -> bool {
        let failed = is_run_failure(error);
        if failed {
            let stalled = matches!(error, GuardError::Backup(BackupError::Stalled(_)));
            self.note_end(report, None, stalled.then_some(FailureCause::Stalled));
        } else {
            self.seen().running = None;
        }
        failed
    }

    /// Whether it is time for an audit; it is begun then.
    pub fn audit_is_due(&self) -> bool {
        let now = self.env.clock.boottime();
        let mut seen = self.seen();
        let due = !self.has_no_channels() && now >= seen.audit_at;
        if due {
            seen.audit_at = now + AUDIT_INTERVAL;
        }
        due
    }

    /// The schedule.
    pub fn plan(&self) -> Option<&SlotSchedule> {
        self.plan.as_ref()
    }

    /// An audit of the last days found this.
    pub fn audit_ended(&self, findings: &[AuditFinding]) {
        let seen = self.seen();
        let watcher = seen.summary.reporter_status(self.node, seen.is_holder_alive);
        let anomalies = self.checker(&seen).anomalies(findings, &seen.summary);
        self.teller.dispatch(|ledger, now| self.settle(ledger, vec![(AlertKind::Anomaly, anomalies)], watcher, now));
    }

    /// These other nodes are not set up like this one; all others are.
    pub(crate) fn configs_compared(&self, apart: &[String]) {
        let seen = self.seen();
        let watcher = seen.summary.reporter_status(self.node, seen.is_holder_alive);
        let event = |name: &String| AlertEvent {
            mark: name.clone(),
            detail: Some(name.clone()),
            ..self.checker(&seen).event(AlertKind::Drift)
        };
        let events = apart.iter().map(event).collect();
        self.teller.dispatch(|ledger, now| self.settle(ledger, vec![(AlertKind::Drift, events)], watcher, now));
    }

    fn evaluate(&self, seen: &MonitorState, watcher: ReporterStatus) {
        let sight = self.checker(seen);
        let kinds = sight.conditions(&seen.summary);
        // That it is over an audit says, as of all anomalies.
        for event in sight.future_dates(&seen.summary).into_iter().chain(sight.schedule_missing(&seen.summary)) {
            self.raise(event, watcher);
        }
        self.teller.dispatch(|ledger, now| {
            let mut notices = self.settle(ledger, kinds, watcher, now);
            // Whoever did it.
            for kind in [AlertKind::Failed, AlertKind::Fenced] {
                let still = ledger.marks(&self.role, kind, |event| !seen.summary.ends_failure(event, now));
                notices.extend(ledger.resolve(&self.role, kind, &still, &self.label, now));
            }
            notices
        });
    }

    /// Notes all that is so of these kinds: what is new is told, and what is no more is over.
    fn settle(
        &self,
        ledger: &mut AlertLedger,
        kinds: Vec<(AlertKind, Vec<AlertEvent>)>,
        watcher: ReporterStatus,
        now: Timestamp,
    ) -> Vec<AlertNotification> {
        let mut notices = Vec::new();
        for (kind, events) in kinds {
            let marks: Vec<String> = events.iter().map(|event| event.mark.clone()).collect();
            notices.extend(ledger.resolve(&self.role, kind, &marks, &self.label, now));
            notices.extend(events.into_iter().filter_map(|event| ledger.raise(event, watcher, now)));
        }
        notices
    }

    /// By how many seconds it is off.
    fn clock_off(&self, seen: &MonitorState, offset: SignedDuration) -> AlertEvent {
        AlertEvent { count: Some(offset.unsigned_abs().as_secs()), ..self.checker(seen).event(AlertKind::ClockOff) }
    }

    fn raise(&self, event: AlertEvent, watcher: ReporterStatus) {
        self.teller.dispatch(|ledger, now| ledger.raise(event, watcher, now).into_iter().collect());
    }

    fn resolve(&self, kinds: &[AlertKind]) {
        self.teller.dispatch(|ledger, now| {
            kinds.iter().flat_map(|kind| ledger.resolve(&self.role, *kind, &[], &self.label, now)).collect()
        });
    }

    fn checker(&self, seen: &MonitorState) -> ConditionChecker<'_> {
        ConditionChecker {
            role: &self.role,
            node: self.node,
            label: &self.label,
            plan: self.plan.as_ref(),
            now: self.env.clock.now(),
            running: seen.running.and_then(|running| running.slot),
            failure: self.kept.load().map(|failure| failure.error),
            idle: seen.inactive_reason.clone(),
            allow_empty: self.allow_empty,
        }
    }

    fn seen(&self) -> MutexGuard<'_, MonitorState> {
        // Each change is one step.
        self.lock_state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first paths that a run could not read, for those who are told.
fn unreadable_text(report: &RoleReport) -> String {
    let unreadable = |problem: &PathProblem| match &problem.kind {
        PathProblemKind::Unreadable(why) => Some(format!("{}: {why}", problem.path.display())),
        _ => None,
    };
    let mut named: Vec<String> = report.problems.iter().filter_map(unreadable).take(UNREAD_NAMED_MAX + 1).collect();
    if named.len() > UNREAD_NAMED_MAX {
        named.truncate(UNREAD_NAMED_MAX);
        named.push("…".to_owned());
    }
    named.join("; ")
}

/// The first of these sources, for those who are told.
fn source_names_text(empty: &[TreePath]) -> String {
    let mut named: Vec<String> = empty.iter().take(UNREAD_NAMED_MAX).map(TreePath::display).collect();
    named.extend((empty.len() > UNREAD_NAMED_MAX).then(|| "…".to_owned()));
    named.join(", ")
}

/// Whether a run that ended like this failed. One that somebody ended did not, nor one that met another at work: that one goes on,
/// or is tried again at once.
fn is_run_failure(error: &GuardError) -> bool {
    !matches!(
        error,
        GuardError::NoSchedule { .. }
            | GuardError::Backup(
                BackupError::Interrupted
                    | BackupError::Lock(LockError::Busy { .. })
                    | BackupError::Append(AppendError::Moved(_))
            )
    )
}
