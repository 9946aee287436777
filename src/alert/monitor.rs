//! Watches one role on one node, and reports its events: the outcomes of this node's own runs, its status, and what
//! every node of the role sees in the journal. A run without a daemon uses the same code.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::{Mutex, MutexGuard};

use super::conditions::{ConditionChecker, JournalSummary};
use crate::alert::dispatcher::AlertDispatcher;
use crate::alert::event::{AlertEvent, AlertKind, AlertNotification, COMMAND, FailureCause};
use crate::alert::ledger::{AlertLedger, ReporterStatus};
use crate::alert::ping::HealthcheckPing;
use crate::config::RoleSettings;
use crate::env::Env;
use crate::ids::{NodeId, RoleName, Term};
use crate::job::error::{BackupError, GuardError};
use crate::job::health::RunningBackup;
use crate::job::local_state::run_failure::RunFailure;
use crate::job::node::context::NodeContext;
use crate::job::node::run_failure_file::RunFailureFile;
use crate::job::report::audited::AuditFinding;
use crate::job::report::run_summary::RunStep;
use crate::job::report::{NoCommitReason, PathProblem, PathProblemKind, RoleReport, RunOutcome, RunReason};
use crate::journal::view::JournalView;
use crate::repo::entry::TreePath;
use crate::role::controller::RoleStatus;
use crate::role::election::{StandbyReason, UnknownReason};
use crate::role::slot::SlotSchedule;

/// How often a long-running node audits its journals.
const AUDIT_INTERVAL: Duration = Duration::from_hours(6);

/// How long after its start a long-running node audits its journals for the first time.
const AUDIT_FIRST: Duration = Duration::from_mins(10);

/// How many of the paths that could not be read an alert names. The run's own report has more.
const UNREAD_NAMED_MAX: usize = 5;

/// Watches a role and reports its events.
#[derive(Debug)]
pub struct AlertMonitor {
    dispatcher: Arc<AlertDispatcher>,
    env: Env,
    role: RoleName,
    node: NodeId,
    label: String,
    plan: Option<SlotSchedule>,
    allow_empty: bool,
    /// How the last run failed, kept for `status`.
    kept: RunFailureFile,
    lock_state: Mutex<MonitorState>,
}

/// A run of this node that is under way.
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
    /// Another node had the role before this run.
    was_elsewhere: bool,
    /// A process that lives holds the lease.
    is_holder_alive: bool,
    /// This node is active, or its status cannot be told.
    is_active: bool,
    /// The reason, in words, why this node is not active.
    inactive_reason: Option<String>,
    audit_at: Duration,
}

impl AlertMonitor {
    /// A monitor of `role` on the node of `node_context`.
    pub fn new(
        dispatcher: Arc<AlertDispatcher>,
        node_context: &NodeContext,
        role: &RoleSettings,
        plan: Option<SlotSchedule>,
    ) -> Self {
        let (role, allow_empty) = (role.name.clone(), role.allow_empty);
        let (env, node, kept) =
            (node_context.env.clone(), &node_context.node, RunFailureFile::of_node(node_context, &role));
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
            dispatcher,
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

    /// Whether no channel is configured.
    pub fn has_no_channels(&self) -> bool {
        self.dispatcher.has_no_channels()
    }

    /// Handles a read of the journal.
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

    /// Handles a failed read of the journal. As far as this node knows, what was not committed at the last read still
    /// is not.
    pub fn journal_unreadable(&self) {
        let seen = self.seen();
        let watcher = seen.summary.reporter_status(self.node, seen.is_holder_alive);
        let missed = |checker: ConditionChecker<'_>| checker.missed_slots(&seen.summary);
        if let Some(event) = missed(self.checker(&seen)) {
            self.raise(event, watcher);
        }
    }

    /// Handles a change of this node's status for the role; `why` gives it in words.
    pub fn status_changed(&self, status: &RoleStatus, why: String) {
        let mut seen = self.seen();
        seen.inactive_reason =
            Some(why).filter(|_| !matches!(status, RoleStatus::Active { .. } | RoleStatus::Paused(_)));
        seen.is_holder_alive = matches!(status, RoleStatus::Standby(StandbyReason::LeaseTaken(Some(_))));
        seen.is_active = matches!(status, RoleStatus::Active { .. } | RoleStatus::Unknown(_));
        match status {
            RoleStatus::Conflict(holder) => {
                let event = self.checker(&seen).event(AlertKind::Conflict);
                self.raise(AlertEvent { detail: Some(holder.label.clone()), ..event }, ReporterStatus::Holder);
            }
            RoleStatus::Cloned => self.raise(self.checker(&seen).event(AlertKind::Clone), ReporterStatus::Holder),
            RoleStatus::Unknown(UnknownReason::Clock { offset }) => {
                self.raise(self.clock_off(&seen, *offset), ReporterStatus::Holder);
            }
            // The conflict or the clone may still be there.
            RoleStatus::Unknown(_) => {}
            _ => self.resolve(&[AlertKind::Conflict, AlertKind::Clone, AlertKind::ClockOff]),
        }
    }

    /// Handles the begin of a run. The node that runs reports what was missed until now.
    pub fn run_begins(&self, view: &JournalView, slot: Option<Timestamp>) {
        let now = self.env.clock.now();
        let mut seen = self.seen();
        seen.summary = JournalSummary::of(view, now);
        seen.running = Some(ActiveRun { slot, since: now });
        seen.was_elsewhere = seen.summary.is_elsewhere(self.node);
        self.dispatcher.ping(&self.role, &HealthcheckPing::Start);
        self.evaluate(&seen, ReporterStatus::Holder);
    }

    /// Handles the end of a run, or a run that never began.
    pub fn run_ended(&self, report: &RoleReport) {
        self.note_end(report, None);
    }

    fn note_end(&self, report: &RoleReport, cause: Option<FailureCause>) {
        let (reason, detail) = (report.no_commit_reason(), self.reason_text(report));
        let mut seen = self.seen();
        let running = seen.running.take();
        // The reason why a run without a daemon did nothing is kept: the alert for missed slots reports it.
        if matches!(
            reason,
            Some(NoCommitReason::Standby(..) | NoCommitReason::Unknown(..) | NoCommitReason::LeaseUnknown { .. })
        ) {
            seen.inactive_reason.clone_from(&detail);
        }
        let event = |kind| AlertEvent {
            slot: report.slot.or(running.and_then(|running| running.slot)),
            term: report.term,
            after: seen.summary.committed(),
            cause,
            detail: detail.clone(),
            ..self.checker(&seen).event(kind)
        };
        let why = || detail.clone().unwrap_or_default();
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
                self.dispatcher.dispatch(|ledger, now| self.settle(ledger, open, ReporterStatus::Holder, now));
                match incomplete.and_then(|event| event.detail) {
                    // A run that lacks a source still ends with the exit code of success.
                    None => self.ping_end(report, None),
                    // A ping after a command follows the command's exit code, which is not 0 here.
                    Some(unread) => self.ping_end(report, Some(format!("incomplete: {unread}"))),
                }
            }
            RunOutcome::Failed | RunOutcome::Fenced => {
                let kind = if report.outcome == RunOutcome::Failed { AlertKind::Failed } else { AlertKind::Fenced };
                self.remember_failure(report, RunStep::Run, &seen, running);
                self.raise(event(kind), ReporterStatus::Holder);
                self.ping_end(report, Some(why()));
            }
            RunOutcome::Unknown if reason == Some(&NoCommitReason::Cloned) => {
                self.raise(event(AlertKind::Clone), ReporterStatus::Holder);
            }
            RunOutcome::Unknown if let Some(NoCommitReason::ClockOff { offset }) = reason => {
                self.raise(self.clock_off(&seen, *offset), ReporterStatus::Holder);
            }
            RunOutcome::Unknown if running.is_some() => {
                self.remember_failure(report, RunStep::Run, &seen, running);
                self.ping_end(report, Some(why()));
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
                // A run that looked for a slot has a correct clock.
                Some(NoCommitReason::SlotCommitted { .. } | NoCommitReason::NothingDue) => {
                    self.resolve(&[AlertKind::Conflict, AlertKind::ClockOff]);
                }
                _ => self.resolve(&[AlertKind::Conflict]),
            },
        }
    }

    /// Pings that a run is over; `failure` is why it is not a success.
    fn ping_end(&self, report: &RoleReport, failure: Option<String>) {
        if !self.dispatcher.has_pings() {
            return;
        }
        let report = self.dispatcher.formatter().format_report(report);
        let ping = match failure {
            None => HealthcheckPing::Success(report),
            Some(reason) => HealthcheckPing::Fail { reason, report },
        };
        self.dispatcher.ping(&self.role, &ping);
    }

    /// Handles the end of a guarded command for a slot, which the journal has recorded. `error`: how it failed, if it
    /// did.
    pub fn command_ended(&self, slot: Option<Timestamp>, term: Option<Term>, error: Option<String>) {
        let Some(error) = error else {
            self.seen().running = None;
            self.committed(slot);
            self.dispatcher.ping(&self.role, &HealthcheckPing::Success(String::new()));
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
        self.dispatcher.ping(&self.role, &HealthcheckPing::Fail { reason: error, report: String::new() });
    }

    /// Handles a commit, for a slot or not: it ends what it is meant to end. The failure of a command is ended only by
    /// a slot's commit.
    fn committed(&self, slot: Option<Timestamp>) {
        self.kept.clear();
        self.resolve(&[AlertKind::Fenced, AlertKind::Conflict, AlertKind::Clone]);
        self.dispatcher.dispatch(|ledger, now| {
            let still = ledger.marks(&self.role, AlertKind::Failed, |event| event.mark == COMMAND && slot.is_none());
            ledger.resolve(&self.role, AlertKind::Failed, &still, &self.label, now)
        });
        if slot.is_some() {
            self.resolve(&[AlertKind::Missed, AlertKind::ClockOff]);
        }
    }

    /// Handles an error between this node and its role, in the lease or a takeover. There is no alert: it is tried
    /// again at once, and a slot that is missed meanwhile is reported.
    pub fn takeover_failed(&self, report: &RoleReport) {
        let seen = self.seen();
        self.remember_failure(report, RunStep::Takeover, &seen, None);
    }

    /// Handles a failed read of the journal that has a cause on this node. Returns whether it keeps the node from its
    /// role; a standby has none to be kept from.
    pub(crate) fn note_read_failure(&self, error: &GuardError) -> bool {
        let seen = self.seen();
        if seen.is_active {
            let report = RoleReport::nothing(self.role.clone(), RunOutcome::Failed);
            let report = RoleReport { reason: Some(RunReason::Text(error.to_string())), ..report };
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

    /// Handles an answer for the lease, whichever it is.
    pub fn lease_answered(&self) {
        self.kept.clear_doubt();
    }

    /// Handles that this node took the role.
    pub fn role_taken(&self) {
        self.kept.clear_takeover();
    }

    /// The reason of a report, as text.
    fn reason_text(&self, report: &RoleReport) -> Option<String> {
        report.reason.as_ref().map(|reason| self.dispatcher.reason_text(&self.role, reason))
    }

    /// Stores how the last run failed, for `status`.
    fn remember_failure(&self, report: &RoleReport, step: RunStep, seen: &MonitorState, running: Option<ActiveRun>) {
        let (outcome, time, after) = (report.outcome, self.env.clock.now(), seen.summary.committed());
        let slot = report.slot.or(running.and_then(|running| running.slot));
        let error = self.reason_text(report).unwrap_or_default();
        self.kept.add(RunFailure { outcome, step, time, slot, error, failures: 0, after });
    }

    /// Handles an error of a run.
    pub fn run_failed(&self, error: &GuardError, report: &RoleReport) {
        if error.is_run_failure() {
            let stalled = matches!(error, GuardError::Backup(BackupError::Stalled(_)));
            self.note_end(report, stalled.then_some(FailureCause::Stalled));
        } else {
            self.seen().running = None;
        }
    }

    /// Whether an audit is due. If so, it counts as begun.
    pub fn audit_is_due(&self) -> bool {
        let now = self.env.clock.boottime();
        let mut seen = self.seen();
        let due = !self.has_no_channels() && now >= seen.audit_at;
        if due {
            seen.audit_at = now + AUDIT_INTERVAL;
        }
        due
    }

    /// The role's schedule.
    pub fn plan(&self) -> Option<&SlotSchedule> {
        self.plan.as_ref()
    }

    /// Handles the findings of an audit of the last days.
    pub fn audit_ended(&self, findings: &[AuditFinding]) {
        let seen = self.seen();
        let watcher = seen.summary.reporter_status(self.node, seen.is_holder_alive);
        let anomalies = self.checker(&seen).anomalies(findings, &seen.summary);
        self.dispatcher
            .dispatch(|ledger, now| self.settle(ledger, vec![(AlertKind::Anomaly, anomalies)], watcher, now));
    }

    /// Handles a comparison of configs: the nodes in `apart` are configured differently, all others agree.
    pub(crate) fn configs_compared(&self, apart: &[String]) {
        let seen = self.seen();
        let watcher = seen.summary.reporter_status(self.node, seen.is_holder_alive);
        let event = |name: &String| AlertEvent {
            mark: name.clone(),
            detail: Some(name.clone()),
            ..self.checker(&seen).event(AlertKind::Drift)
        };
        let events = apart.iter().map(event).collect();
        self.dispatcher.dispatch(|ledger, now| self.settle(ledger, vec![(AlertKind::Drift, events)], watcher, now));
    }

    fn evaluate(&self, seen: &MonitorState, watcher: ReporterStatus) {
        let checker = self.checker(seen);
        let kinds = checker.conditions(&seen.summary);
        // As with all anomalies, only an audit ends them.
        for event in checker.future_dates(&seen.summary).into_iter().chain(checker.schedule_missing(&seen.summary)) {
            self.raise(event, watcher);
        }
        self.dispatcher.dispatch(|ledger, now| {
            let mut notices = self.settle(ledger, kinds, watcher, now);
            // Whichever node made the commit.
            for kind in [AlertKind::Failed, AlertKind::Fenced] {
                let still = ledger.marks(&self.role, kind, |event| !seen.summary.ends_failure(event, now));
                notices.extend(ledger.resolve(&self.role, kind, &still, &self.label, now));
            }
            notices
        });
    }

    /// Notes all conditions of these kinds: new ones are reported, and those that are no longer true are over.
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

    /// The event that this node's clock is off by `offset`.
    fn clock_off(&self, seen: &MonitorState, offset: SignedDuration) -> AlertEvent {
        AlertEvent { count: Some(offset.unsigned_abs().as_secs()), ..self.checker(seen).event(AlertKind::ClockOff) }
    }

    fn raise(&self, event: AlertEvent, watcher: ReporterStatus) {
        self.dispatcher.dispatch(|ledger, now| ledger.raise(event, watcher, now).into_iter().collect());
    }

    fn resolve(&self, kinds: &[AlertKind]) {
        self.dispatcher.dispatch(|ledger, now| {
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
        // Each change is one step, so a poisoned lock holds a valid state.
        self.lock_state.lock()
    }
}

/// The text about the first paths that a run could not read.
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

/// The text about the first of these sources.
fn source_names_text(empty: &[TreePath]) -> String {
    let mut named: Vec<String> = empty.iter().take(UNREAD_NAMED_MAX).map(TreePath::display).collect();
    named.extend((empty.len() > UNREAD_NAMED_MAX).then(|| "…".to_owned()));
    named.join(", ")
}
