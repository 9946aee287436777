//! Watches one role on one node, and has told what there is to tell: what its own runs came to, how it stands, and what every node
//! of the role sees in the journal. A run without a daemon uses the same.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::tidings::{Glimpse, Sight};
use crate::config::RoleSettings;
use crate::env::Env;
use crate::ids::{NodeId, RoleName, Term};
use crate::job::backup::BackupError;
use crate::job::guard::{GuardError, Reason};
use crate::job::health::UnderWay;
use crate::job::last_run::{Failure, Kept};
use crate::job::local::LockError;
use crate::job::report::audited::Finding;
use crate::job::report::whoami::Step;
use crate::job::report::{Outcome, Problem, ProblemKind, RoleReport};
use crate::job::runner::Runner;
use crate::journal::log::AppendError;
use crate::journal::state::View;
use crate::notice::event::{COMMAND, Cause, Event, Kind, Notice};
use crate::notice::ledger::{Ledger, Watcher};
use crate::notice::teller::{Ping, Teller};
use crate::repo::entry::TreePath;
use crate::role::duty::Stand;
use crate::role::election::{StandbyReason, UnknownReason};
use crate::role::slot::Plan;

/// How often a long-running node audits its journals; first so long after its start.
const AUDIT_INTERVAL: Duration = Duration::from_hours(6);

/// The same for the first time.
const AUDIT_FIRST: Duration = Duration::from_mins(10);

/// So many of the paths that could not be read are named in an alert. The run's own report has more.
const UNREAD_NAMED_MAX: usize = 5;

/// Whom a role's events are reported to.
#[derive(Debug)]
pub struct Watch {
    teller: Arc<Teller>,
    env: Env,
    role: RoleName,
    node: NodeId,
    label: String,
    plan: Option<Plan>,
    allow_empty: bool,
    /// How the last run failed, for whoever asks.
    kept: Kept,
    seen: Mutex<Seen>,
}

/// A run of this node.
#[derive(Debug, Clone, Copy)]
struct Running {
    slot: Option<Timestamp>,
    since: Timestamp,
}

#[derive(Debug)]
struct Seen {
    glimpse: Glimpse,
    /// The run that is under way.
    running: Option<Running>,
    /// Before it another node had the role.
    moved: bool,
    /// The lease is in the hands of a process that lives.
    vouched: bool,
    /// This node is active, or would be if it could tell.
    works: bool,
    /// Why it is not active, in words.
    idle: Option<String>,
    audit_at: Duration,
}

impl Watch {
    /// Watches `role` as the node of `runner`.
    pub fn new(teller: Arc<Teller>, runner: &Runner, role: &RoleSettings, plan: Option<Plan>) -> Self {
        let (role, allow_empty) = (role.name.clone(), role.allow_empty);
        let (env, node, kept) = (runner.env.clone(), &runner.node, Kept::of(runner, &role));
        let seen = Seen {
            glimpse: Glimpse::default(),
            running: None,
            moved: false,
            vouched: false,
            works: false,
            idle: None,
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
            seen: Mutex::new(seen),
        }
    }

    /// Whether nobody is told anything.
    pub fn is_silent(&self) -> bool {
        self.teller.is_silent()
    }

    /// The journal was read.
    pub fn saw(&self, view: &View) {
        if self.is_silent() {
            return;
        }
        let now = self.env.clock.now();
        let mut seen = self.seen();
        seen.glimpse = Glimpse::of(view, now);
        let watcher = seen.glimpse.watcher(self.node, seen.vouched);
        self.judge(&seen, watcher);
    }

    /// The journal cannot be read. What was not committed when it could is not committed as far as anybody here knows.
    pub fn blind(&self) {
        let seen = self.seen();
        let watcher = seen.glimpse.watcher(self.node, seen.vouched);
        let missed = |sight: Sight<'_>| sight.missed(&seen.glimpse);
        if let Some(event) = missed(self.sight(&seen)) {
            self.raise(event, watcher);
        }
    }

    /// How this node stands for the role, and `why` in words.
    pub fn stands(&self, stand: &Stand, why: String) {
        let mut seen = self.seen();
        seen.idle = Some(why).filter(|_| !matches!(stand, Stand::Active { .. } | Stand::Paused(_)));
        seen.vouched = matches!(stand, Stand::Standby(StandbyReason::LeaseTaken(Some(_))));
        seen.works = matches!(stand, Stand::Active { .. } | Stand::Unknown(_));
        match stand {
            Stand::Conflict(holder) => {
                let event = self.sight(&seen).event(Kind::Conflict);
                self.raise(Event { detail: Some(holder.label.clone()), ..event }, Watcher::Holder);
            }
            Stand::Cloned => self.raise(self.sight(&seen).event(Kind::Clone), Watcher::Holder),
            Stand::Unknown(UnknownReason::Clock { offset }) => {
                self.raise(self.clock_off(&seen, *offset), Watcher::Holder);
            }
            // It may well go on.
            Stand::Unknown(_) => {}
            _ => self.over(&[Kind::Conflict, Kind::Clone, Kind::ClockOff]),
        }
    }

    /// A run begins. What was missed until now is told by whoever does it.
    pub fn begins(&self, view: &View, slot: Option<Timestamp>) {
        let now = self.env.clock.now();
        let mut seen = self.seen();
        seen.glimpse = Glimpse::of(view, now);
        seen.running = Some(Running { slot, since: now });
        seen.moved = seen.glimpse.is_elsewhere(self.node);
        self.teller.ping(&self.role, &Ping::Start);
        self.judge(&seen, Watcher::Holder);
    }

    /// A run ended, or never began; the report has its reason in words.
    pub fn ended(&self, report: &RoleReport, reason: Option<&Reason>) {
        self.note_end(report, reason, None);
    }

    fn note_end(&self, report: &RoleReport, reason: Option<&Reason>, cause: Option<Cause>) {
        let mut seen = self.seen();
        let running = seen.running.take();
        // Why a run without a daemon was none: what it sees of missed slots is told next.
        if matches!(reason, Some(Reason::Standby(..) | Reason::Unknown(..) | Reason::LeaseUnanswered { .. })) {
            seen.idle.clone_from(&report.reason);
        }
        let event = |kind| Event {
            slot: report.slot.or(running.and_then(|running| running.slot)),
            term: report.term,
            after: seen.glimpse.committed(),
            cause,
            detail: report.reason.clone(),
            ..self.sight(&seen).event(kind)
        };
        let why = || report.reason.clone().unwrap_or_default();
        match report.outcome {
            Outcome::Committed | Outcome::Unchanged => {
                if let (true, true, Some(term)) = (report.takeover, seen.moved, report.term) {
                    self.raise(self.sight(&seen).took_over(term), Watcher::Holder);
                }
                self.committed(report.slot);
                match self.sight(&seen).lost(report.loss.as_ref()) {
                    None => self.over(&[Kind::Lost]),
                    Some(event) => self.raise(event, Watcher::Holder),
                }
                let lacks = self.sight(&seen).empty(report.empty_sources.len() as u64);
                let lacks = lacks.map(|event| Event { detail: Some(named(&report.empty_sources)), ..event });
                let incomplete = self.sight(&seen).incomplete(report.files.unreadable);
                let incomplete = incomplete.map(|event| Event { detail: Some(unread(report)), ..event });
                let open = vec![(Kind::Incomplete, incomplete.clone().into_iter().chain(lacks).collect())];
                self.teller.tell(|ledger, now| self.settle(ledger, open, Watcher::Holder, now));
                match incomplete.and_then(|event| event.detail) {
                    // One without a source is what its exit code says: done.
                    None => self.teller.ping(&self.role, &Ping::Success),
                    Some(unread) => {
                        // Who pings after a command goes by its exit code, and that is not 0 here.
                        self.teller.ping(&self.role, &Ping::Fail(format!("incomplete: {unread}")));
                    }
                }
            }
            Outcome::Failed | Outcome::Fenced => {
                let kind = if report.outcome == Outcome::Failed { Kind::Failed } else { Kind::Fenced };
                self.keep(report, Step::Run, &seen, running);
                self.raise(event(kind), Watcher::Holder);
                self.teller.ping(&self.role, &Ping::Fail(why()));
            }
            Outcome::Unknown if reason == Some(&Reason::Cloned) => self.raise(event(Kind::Clone), Watcher::Holder),
            Outcome::Unknown if let Some(Reason::ClockOff { offset }) = reason => {
                self.raise(self.clock_off(&seen, *offset), Watcher::Holder);
            }
            Outcome::Unknown if running.is_some() => {
                self.keep(report, Step::Run, &seen, running);
                self.teller.ping(&self.role, &Ping::Fail(why()));
            }
            Outcome::Unknown if let Some(Reason::LeaseUnanswered { .. }) = reason => {
                self.keep(report, Step::Takeover, &seen, None);
            }
            Outcome::Unknown => {}
            Outcome::Standby | Outcome::Skipped => match reason {
                Some(Reason::Conflict { holder }) => {
                    self.raise(Event { detail: Some(holder.clone()), ..event(Kind::Conflict) }, Watcher::Holder);
                }
                Some(Reason::Standby(StandbyReason::LeaseTaken(Some(_)), _)) => {
                    seen.vouched = true;
                    self.over(&[Kind::Conflict]);
                }
                // Whoever looked for a slot knows what time it is.
                Some(Reason::SlotCommitted { .. } | Reason::NothingDue) => {
                    self.over(&[Kind::Conflict, Kind::ClockOff]);
                }
                _ => self.over(&[Kind::Conflict]),
            },
        }
    }

    /// A guarded command for a slot ended, and the journal has it. `error`: how, if not well.
    pub fn command_ended(&self, slot: Option<Timestamp>, term: Option<Term>, error: Option<String>) {
        let Some(error) = error else {
            self.seen().running = None;
            self.committed(slot);
            self.teller.ping(&self.role, &Ping::Success);
            return;
        };
        let mut seen = self.seen();
        seen.running = None;
        let (mark, after) = (COMMAND.to_owned(), seen.glimpse.committed());
        let event = self.sight(&seen).event(Kind::Failed);
        self.raise(Event { slot, term, mark, after, detail: Some(error.clone()), ..event }, Watcher::Holder);
        self.teller.ping(&self.role, &Ping::Fail(error));
    }

    /// Something was committed, for a slot or not: what it was to end is over. That a command failed a slot's commit alone ends.
    fn committed(&self, slot: Option<Timestamp>) {
        self.kept.clear();
        self.over(&[Kind::Fenced, Kind::Conflict, Kind::Clone]);
        self.teller.tell(|ledger, now| {
            let still = ledger.marks(&self.role, Kind::Failed, |event| event.mark == COMMAND && slot.is_none());
            ledger.settle(&self.role, Kind::Failed, &still, &self.label, now)
        });
        if slot.is_some() {
            self.over(&[Kind::Missed, Kind::ClockOff]);
        }
    }

    /// What stands between this node and its role: a lease or a takeover came to an error. No alert: it is tried again at once, and
    /// a slot that passes meanwhile is told.
    pub fn kept_from_role(&self, report: &RoleReport) {
        let seen = self.seen();
        self.keep(report, Step::Takeover, &seen, None);
    }

    /// The journal cannot be followed for this error of the node's own. True: that keeps it from its role; whoever stands by has none.
    pub(super) fn fails_by(&self, error: &GuardError) -> bool {
        let seen = self.seen();
        if seen.works {
            let report = RoleReport::nothing(self.role.clone(), Outcome::Failed);
            let report = RoleReport { reason: Some(error.to_string()), ..report };
            self.keep(&report, Step::Takeover, &seen, None);
        }
        seen.works
    }

    /// How the last run failed, as far as this process knows.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.kept.load()
    }

    /// The run for a slot that is under way.
    pub(super) fn under_way(&self) -> Option<UnderWay> {
        let Running { slot, since } = self.seen().running?;
        Some(UnderWay { node: self.label.clone(), slot: slot?, since })
    }

    /// The lease is answered again, whatever the answer.
    pub fn lease_answered(&self) {
        self.kept.clear_doubt();
    }

    /// This node has the role.
    pub fn took_role(&self) {
        self.kept.clear_takeover();
    }

    /// How the last run failed is remembered for whoever asks.
    fn keep(&self, report: &RoleReport, step: Step, seen: &Seen, running: Option<Running>) {
        let (outcome, time, after) = (report.outcome, self.env.clock.now(), seen.glimpse.committed());
        let slot = report.slot.or(running.and_then(|running| running.slot));
        let error = report.reason.clone().unwrap_or_default();
        self.kept.add(Failure { outcome, step, time, slot, error, failures: 0, after });
    }

    /// A run came to an error, which this report tells. Says whether it failed by that.
    pub fn failed(&self, error: &GuardError, report: &RoleReport) -> bool {
        let failed = is_failure(error);
        if failed {
            let stalled = matches!(error, GuardError::Backup(BackupError::Stalled(_)));
            self.note_end(report, None, stalled.then_some(Cause::Stalled));
        } else {
            self.seen().running = None;
        }
        failed
    }

    /// Whether it is time for an audit; it is begun then.
    pub fn audit_is_due(&self) -> bool {
        let now = self.env.clock.boottime();
        let mut seen = self.seen();
        let due = !self.is_silent() && now >= seen.audit_at;
        if due {
            seen.audit_at = now + AUDIT_INTERVAL;
        }
        due
    }

    /// The schedule.
    pub fn plan(&self) -> Option<&Plan> {
        self.plan.as_ref()
    }

    /// An audit of the last days found this.
    pub fn audited(&self, findings: &[Finding]) {
        let seen = self.seen();
        let watcher = seen.glimpse.watcher(self.node, seen.vouched);
        let anomalies = self.sight(&seen).anomalies(findings, &seen.glimpse);
        self.teller.tell(|ledger, now| self.settle(ledger, vec![(Kind::Anomaly, anomalies)], watcher, now));
    }

    /// These other nodes are not set up like this one; all others are.
    pub(super) fn compared(&self, apart: &[String]) {
        let seen = self.seen();
        let watcher = seen.glimpse.watcher(self.node, seen.vouched);
        let event = |name: &String| Event {
            mark: name.clone(),
            detail: Some(name.clone()),
            ..self.sight(&seen).event(Kind::Drift)
        };
        let events = apart.iter().map(event).collect();
        self.teller.tell(|ledger, now| self.settle(ledger, vec![(Kind::Drift, events)], watcher, now));
    }

    fn judge(&self, seen: &Seen, watcher: Watcher) {
        let sight = self.sight(seen);
        let kinds = sight.see(&seen.glimpse);
        // That it is over an audit says, as of all anomalies.
        for event in sight.future(&seen.glimpse).into_iter().chain(sight.schedule_missing(&seen.glimpse)) {
            self.raise(event, watcher);
        }
        self.teller.tell(|ledger, now| {
            let mut notices = self.settle(ledger, kinds, watcher, now);
            // Whoever did it.
            for kind in [Kind::Failed, Kind::Fenced] {
                let still = ledger.marks(&self.role, kind, |event| !seen.glimpse.ends(event, now));
                notices.extend(ledger.settle(&self.role, kind, &still, &self.label, now));
            }
            notices
        });
    }

    /// Notes all that is so of these kinds: what is new is told, and what is no more is over.
    fn settle(
        &self,
        ledger: &mut Ledger,
        kinds: Vec<(Kind, Vec<Event>)>,
        watcher: Watcher,
        now: Timestamp,
    ) -> Vec<Notice> {
        let mut notices = Vec::new();
        for (kind, events) in kinds {
            let marks: Vec<String> = events.iter().map(|event| event.mark.clone()).collect();
            notices.extend(ledger.settle(&self.role, kind, &marks, &self.label, now));
            notices.extend(events.into_iter().filter_map(|event| ledger.raise(event, watcher, now)));
        }
        notices
    }

    /// By how many seconds it is off.
    fn clock_off(&self, seen: &Seen, offset: SignedDuration) -> Event {
        Event { count: Some(offset.unsigned_abs().as_secs()), ..self.sight(seen).event(Kind::ClockOff) }
    }

    fn raise(&self, event: Event, watcher: Watcher) {
        self.teller.tell(|ledger, now| ledger.raise(event, watcher, now).into_iter().collect());
    }

    fn over(&self, kinds: &[Kind]) {
        self.teller.tell(|ledger, now| {
            kinds.iter().flat_map(|kind| ledger.settle(&self.role, *kind, &[], &self.label, now)).collect()
        });
    }

    fn sight(&self, seen: &Seen) -> Sight<'_> {
        Sight {
            role: &self.role,
            node: self.node,
            label: &self.label,
            plan: self.plan.as_ref(),
            now: self.env.clock.now(),
            running: seen.running.and_then(|running| running.slot),
            failure: self.kept.load().map(|failure| failure.error),
            idle: seen.idle.clone(),
            allow_empty: self.allow_empty,
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // Each change is one step.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The first paths that a run could not read, for those who are told.
fn unread(report: &RoleReport) -> String {
    let unreadable = |problem: &Problem| match &problem.kind {
        ProblemKind::Unreadable(why) => Some(format!("{}: {why}", problem.path.display())),
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
fn named(empty: &[TreePath]) -> String {
    let mut named: Vec<String> = empty.iter().take(UNREAD_NAMED_MAX).map(TreePath::display).collect();
    named.extend((empty.len() > UNREAD_NAMED_MAX).then(|| "…".to_owned()));
    named.join(", ")
}

/// Whether a run that ended like this failed. One that somebody ended did not, nor one that met another at work: that one goes on,
/// or is tried again at once.
fn is_failure(error: &GuardError) -> bool {
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
