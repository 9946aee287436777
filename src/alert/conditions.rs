//! The alert conditions of a role, from its journal and from the findings of an audit. Pure: it returns what is true
//! now, kind by kind; the ledger knows what was reported.

use jiff::{SignedDuration, Timestamp};

use crate::alert::event::{AlertEvent, AlertKind, COMMAND, FailureCause};
use crate::alert::ledger::ReporterStatus;
use crate::ids::{NodeId, RoleName, Term};
use crate::job::audit;
use crate::job::health::RoleHistory;
use crate::job::report::LossReport;
use crate::job::report::audited::AuditFinding;
use crate::journal::body::TakeoverReason;
use crate::journal::future_dates::{FutureDates, future_dates};
use crate::journal::view::JournalView;
use crate::role::slot::SlotSchedule;

/// A takeover that is older than this is not reported, even if the ledger has forgotten that it was.
const NEWS: SignedDuration = SignedDuration::from_hours(24);

/// How far back slots are checked for a second commit.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(24 * 7);

/// What alerts need to know of a journal.
#[derive(Debug, Clone, Default)]
pub(super) struct JournalSummary {
    holder: Option<(NodeId, Term, Timestamp, TakeoverReason)>,
    /// The number of the holder's newest record, if the state has it.
    holder_newest: u64,
    /// `None`: the journal was never read.
    past: Option<RoleHistory>,
    duplicates: Vec<(Timestamp, u64)>,
    /// Number of entries that the newest snapshot could not read.
    unreadable: u64,
    /// Number of sources and dumps of which the newest snapshot has nothing.
    empty: u64,
    future: Option<FutureDates>,
}

impl JournalSummary {
    pub(super) fn of(view: &JournalView, now: Timestamp) -> Self {
        let state = &view.state;
        let by_holder = |id: NodeId| {
            let head = view.head.as_ref().filter(|head| head.node.id == id).map(|head| head.seq.0);
            let snapshot = state.snapshots.iter().rev().find(|snapshot| snapshot.node.id == id).map(|s| s.seq.0);
            head.max(snapshot)
        };
        let sign = state.holder.as_ref().map_or(0, |h| h.seq.0.max(by_holder(h.node.id).unwrap_or_default()));
        let since = now.checked_sub(LOOK_BACK).unwrap_or(Timestamp::MIN);
        let duplicate = |finding| match finding {
            AuditFinding::Duplicate { slot, commits } => Some((slot, commits.len() as u64)),
            _ => None,
        };
        Self {
            holder: state.holder.as_ref().map(|h| (h.node.id, h.term, h.time, h.why)),
            holder_newest: sign,
            past: Some(RoleHistory::of(view)),
            duplicates: audit::duplicates(state, since).into_iter().filter_map(duplicate).collect(),
            unreadable: state.snapshots.last().map_or(0, |snapshot| snapshot.changes.unreadable),
            empty: state.snapshots.last().and_then(|s| s.empty.as_ref()).map_or(0, |empty| empty.len() as u64),
            // Which clock is wrong does not matter here.
            future: future_dates(view, NodeId([0; NodeId::LEN]), now, None),
        }
    }

    /// The status of `node` for the role. `vouched`: the node sees that the holder's process lives. A holder that has
    /// begun a command is not vouched for.
    pub(super) fn reporter_status(&self, node: NodeId, vouched: bool) -> ReporterStatus {
        match self.holder {
            Some((holder, ..)) if holder == node => ReporterStatus::Holder,
            _ => ReporterStatus::Standby {
                holder_newest: self.holder_newest,
                is_holder_alive: vouched && !self.runs_command(),
            },
        }
    }

    /// Whether the holder has begun a command whose end is not in the journal.
    fn runs_command(&self) -> bool {
        let running = self.past.as_ref().and_then(|past| past.running.as_ref());
        self.holder.zip(running).is_some_and(|((holder, ..), running)| running.node.id == holder)
    }

    /// The number of the newest commit's record; 0 if there is none. `None`: the journal was never read.
    pub(super) fn committed(&self) -> Option<u64> {
        self.past.as_ref().map(|past| past.committed().map_or(0, |(seq, _)| seq))
    }

    /// Whether this failure is over: by a commit after it, or, for a command, by one for its slot or a later one.
    pub(super) fn ends_failure(&self, failure: &AlertEvent, now: Timestamp) -> bool {
        if failure.mark == COMMAND {
            return self.past.as_ref().is_some_and(|past| past.failed_command(now).is_none());
        }
        match (failure.after, self.committed()) {
            (Some(after), Some(committed)) => committed > after,
            _ => self.past.as_ref().and_then(RoleHistory::committed).is_some_and(|(_, time)| time > failure.time),
        }
    }

    /// Whether another node has the role.
    pub(super) fn is_elsewhere(&self, node: NodeId) -> bool {
        self.holder.is_some_and(|(holder, ..)| holder != node)
    }
}

/// The node that checks, and the time of the check.
#[derive(Debug, Clone)]
pub(super) struct ConditionChecker<'a> {
    pub(super) role: &'a RoleName,
    pub(super) node: NodeId,
    pub(super) label: &'a str,
    pub(super) plan: Option<&'a SlotSchedule>,
    pub(super) now: Timestamp,
    /// The slot of this node's run that is under way.
    pub(super) running: Option<Timestamp>,
    /// How this node's last run failed.
    pub(super) failure: Option<String>,
    /// The reason, in words, why this node is not active.
    pub(super) idle: Option<String>,
    /// An empty source is allowed.
    pub(super) allow_empty: bool,
}

impl ConditionChecker<'_> {
    pub(super) fn event(&self, kind: AlertKind) -> AlertEvent {
        AlertEvent::new(kind, self.role.clone(), self.label.to_owned(), self.now)
    }

    /// The conditions that are true, for each kind that can be decided now.
    pub(super) fn conditions(&self, summary: &JournalSummary) -> Vec<(AlertKind, Vec<AlertEvent>)> {
        let mut seen = vec![
            (AlertKind::Duplicate, self.duplicates(summary)),
            (AlertKind::Takeover, self.takeover(summary).into_iter().collect()),
            (AlertKind::PausedTooLong, self.paused_too_long(summary).into_iter().collect()),
            (
                AlertKind::Incomplete,
                self.incomplete(summary.unreadable).into_iter().chain(self.empty_sources(summary.empty)).collect(),
            ),
        ];
        seen.push((AlertKind::Missed, self.missed_slots(summary).into_iter().collect()));
        seen
    }

    /// All slots missed since the last committed one are one event, however many there are.
    pub(super) fn missed_slots(&self, summary: &JournalSummary) -> Option<AlertEvent> {
        let missed = summary.past.as_ref()?.missed(self.plan?, self.running, self.now);
        let (slot, count) = (Some(missed.first()?.at), Some(missed.len() as u64));
        let cause = self.idle.as_ref().filter(|_| self.failure.is_none()).map(|_| FailureCause::NotActive);
        let detail = self.failure.clone().or_else(|| self.idle.clone());
        Some(AlertEvent { slot, count, cause, detail, ..self.event(AlertKind::Missed) })
    }

    fn duplicates(&self, summary: &JournalSummary) -> Vec<AlertEvent> {
        let duplicate = |(slot, count): &(Timestamp, u64)| AlertEvent {
            slot: Some(*slot),
            count: Some(*count),
            mark: slot.to_string(),
            ..self.event(AlertKind::Duplicate)
        };
        summary.duplicates.iter().map(duplicate).collect()
    }

    /// A takeover is reported by the node that took the role.
    fn takeover(&self, summary: &JournalSummary) -> Option<AlertEvent> {
        let (holder, term, time, why) = summary.holder?;
        let moved = matches!(why, TakeoverReason::Moved | TakeoverReason::Operator | TakeoverReason::Fallback);
        (holder == self.node && moved && self.now.duration_since(time) < NEWS).then(|| self.took_over(term))
    }

    pub(super) fn took_over(&self, term: Term) -> AlertEvent {
        AlertEvent { term: Some(term), mark: term.to_string(), ..self.event(AlertKind::Takeover) }
    }

    pub(super) fn incomplete(&self, unreadable: u64) -> Option<AlertEvent> {
        (unreadable > 0).then(|| AlertEvent { count: Some(unreadable), ..self.event(AlertKind::Incomplete) })
    }

    /// The newest snapshot has nothing of `count` sources, which may be a mistake.
    pub(super) fn empty_sources(&self, count: u64) -> Option<AlertEvent> {
        let told = count > 0 && !self.allow_empty;
        let (mark, cause) = ("empty_source".to_owned(), Some(FailureCause::EmptySource));
        told.then(|| AlertEvent { count: Some(count), mark, cause, ..self.event(AlertKind::Incomplete) })
    }

    /// Content that a run could not store again.
    pub(super) fn lost_content(&self, loss: Option<&LossReport>) -> Option<AlertEvent> {
        let files = loss.map(|loss| loss.missing_files.unwrap_or(1)).filter(|files| *files > 0)?;
        Some(AlertEvent { count: Some(files), ..self.event(AlertKind::Lost) })
    }

    fn paused_too_long(&self, summary: &JournalSummary) -> Option<AlertEvent> {
        let (paused, too_long) = summary.past.as_ref()?.pause(self.now)?;
        too_long.then(|| AlertEvent {
            detail: paused.why.clone(),
            time: paused.time,
            ..self.event(AlertKind::PausedTooLong)
        })
    }

    /// Records that are dated in the future, as far as the state shows them.
    pub(super) fn future_dates(&self, summary: &JournalSummary) -> Option<AlertEvent> {
        let future = summary.future.as_ref()?;
        let detail = future.node.as_ref().map(|node| node.name.clone());
        Some(AlertEvent {
            mark: "future".to_owned(),
            count: Some(future.count),
            detail,
            ..self.event(AlertKind::Anomaly)
        })
    }

    /// The role no longer has a schedule.
    pub(super) fn schedule_missing(&self, summary: &JournalSummary) -> Option<AlertEvent> {
        summary.past.as_ref()?.schedule_missing(self.plan)?;
        Some(AlertEvent { mark: "schedule_missing".to_owned(), ..self.event(AlertKind::Anomaly) })
    }

    /// The findings of an audit, and what is seen in the state.
    pub(super) fn anomalies(&self, findings: &[AuditFinding], summary: &JournalSummary) -> Vec<AlertEvent> {
        let anomaly = |finding: &AuditFinding| {
            let (mark, count, detail) = match finding {
                AuditFinding::SameChanges(streak) => ("same_changes", streak.runs, None),
                AuditFinding::EverythingChanged(streak) => ("everything_changed", streak.runs, None),
                AuditFinding::Flapping { count, .. } => ("flapping", *count, None),
                AuditFinding::Future { count, nodes, .. } => ("future", *count, Some(nodes.join(", "))),
                AuditFinding::Backdated { count, nodes, .. } => ("backdated", *count, Some(nodes.join(", "))),
                AuditFinding::ScheduleMissing { .. } => ("schedule_missing", 1, None),
                AuditFinding::Hole { record } => ("hole", 1, Some(record.clone())),
                AuditFinding::Broken { record, .. } => ("broken", 1, Some(record.clone())),
                AuditFinding::Failed(_)
                | AuditFinding::StateUnwritable { .. }
                | AuditFinding::Missed { .. }
                | AuditFinding::Late { .. }
                | AuditFinding::Duplicate { .. }
                | AuditFinding::Incomplete(_)
                | AuditFinding::EmptySources { .. }
                | AuditFinding::PausedTooLong { .. } => return None,
            };
            Some(AlertEvent { mark: mark.to_owned(), count: Some(count), detail, ..self.event(AlertKind::Anomaly) })
        };
        let mut events: Vec<AlertEvent> = Vec::new();
        for event in
            findings.iter().filter_map(anomaly).chain(self.future_dates(summary)).chain(self.schedule_missing(summary))
        {
            // Of several findings of one kind the first is reported.
            if events.iter().all(|other| other.mark != event.mark) {
                events.push(event);
            }
        }
        events
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{KeySource, RoleSettings, Schedule};
    use crate::ids::{RepoId, Seq};
    use crate::journal::body::{EndBody, WriterNode};
    use crate::journal::state::{CommandEnd, JournalPause};
    use crate::role::slot_commits::SlotCommits;

    const ME: NodeId = NodeId([1; 16]);

    fn at(minutes: i64) -> Timestamp {
        Timestamp::from_second(minutes * 60).unwrap()
    }

    fn plan() -> SlotSchedule {
        let mut role = RoleSettings::new("app".parse().unwrap(), KeySource::None, Vec::new());
        role.schedule = Some(Schedule::Every(Duration::from_hours(1)));
        SlotSchedule::new(&role, &jiff::tz::TimeZone::UTC).unwrap().unwrap()
    }

    fn seen(summary: &JournalSummary, now: i64, change: impl FnOnce(&mut ConditionChecker<'_>)) -> Vec<String> {
        let (role, plan) = ("app".parse().unwrap(), plan());
        let mut checker = ConditionChecker {
            role: &role,
            node: ME,
            label: "east",
            plan: Some(&plan),
            now: at(now),
            running: None,
            failure: None,
            idle: None,
            allow_empty: false,
        };
        change(&mut checker);
        let events = checker.conditions(summary).into_iter().flat_map(|(_, events)| events);
        events.map(|e| format!("{} {}", e.kind.name(), e.count.unwrap_or_default())).collect()
    }

    /// A journal whose last slot was committed in this minute.
    fn committed(minute: i64, change: impl FnOnce(&mut RoleHistory)) -> JournalSummary {
        let mut past = RoleHistory { commits: SlotCommits::new([at(minute)], Some(at(0))), ..RoleHistory::default() };
        change(&mut past);
        JournalSummary { past: Some(past), ..JournalSummary::default() }
    }

    fn paused(minute: i64, until: Option<i64>) -> JournalPause {
        let node = WriterNode { id: ME, name: "east".to_owned() };
        JournalPause { node, time: at(minute), until: until.map(at), why: None }
    }

    #[test]
    fn slots_are_missed_unless_they_run_or_were_paused() {
        let summary = committed(60, |_| ());
        assert_eq!(seen(&summary, 150, |_| ()), [""; 0], "there is still time");
        assert_eq!(seen(&summary, 151, |_| ()), ["missed 1"]);
        assert_eq!(seen(&summary, 151, |checker| checker.running = Some(at(120))), [""; 0]);
        assert_eq!(seen(&summary, 400, |_| ()), ["missed 5"], "one event");
        let excused = committed(60, |past| past.pauses.begin(&paused(100, Some(350))));
        assert_eq!(seen(&excused, 400, |_| ()), ["missed 1"], "the slot of 06:00");
        assert_eq!(seen(&summary, 400, |checker| checker.plan = None), [""; 0]);
        assert_eq!(seen(&JournalSummary::default(), 400, |_| ()), [""; 0], "the journal was never read");
        let never = committed(0, |past| past.commits = SlotCommits::new([], Some(at(200))));
        assert_eq!(seen(&never, 271, |_| ()), ["missed 1"], "a role that never had a slot, since it was made");
    }

    #[test]
    fn missed_slots_are_told_with_what_failed_else_with_why_nothing_was_tried() {
        let summary = committed(60, |_| ());
        let role = "app".parse().unwrap();
        let plan = plan();
        let told = |failure: Option<&str>, idle: Option<&str>| {
            let checker = ConditionChecker {
                role: &role,
                node: ME,
                label: "east",
                plan: Some(&plan),
                now: at(200),
                running: None,
                failure: failure.map(str::to_owned),
                idle: idle.map(str::to_owned),
                allow_empty: false,
            };
            let event = checker.missed_slots(&summary).unwrap();
            (event.cause, event.detail)
        };
        let words = |words: &str| Some(words.to_owned());
        assert_eq!(told(None, None), (None, None));
        assert_eq!(told(None, Some("standby")), (Some(FailureCause::NotActive), words("standby")));
        assert_eq!(told(Some("disk"), Some("standby")), (None, words("disk")));
    }

    #[test]
    fn an_incomplete_snapshot_is_told_until_one_is_complete() {
        let summary = |unreadable| JournalSummary { unreadable, ..JournalSummary::default() };
        assert_eq!(seen(&summary(3), 10, |_| ()), ["incomplete 3"]);
        assert_eq!(seen(&summary(0), 10, |_| ()), [""; 0]);
        let empty = |unreadable| JournalSummary { empty: 2, unreadable, ..JournalSummary::default() };
        assert_eq!(seen(&empty(3), 10, |_| ()), ["incomplete 3", "incomplete 2"]);
        assert_eq!(seen(&empty(0), 10, |checker| checker.allow_empty = true), [""; 0]);
    }

    #[test]
    fn a_pause_excuses_and_one_without_an_end_is_told_after_a_day() {
        let pausing = |until| {
            committed(60, |past| {
                past.paused = Some(paused(100, until));
                past.pauses.begin(&paused(100, until));
            })
        };
        assert_eq!(seen(&pausing(None), 400, |_| ()), [""; 0]);
        assert_eq!(seen(&pausing(None), 100 + 24 * 60, |_| ()), ["paused_too_long 0"]);
        assert_eq!(seen(&pausing(Some(5000)), 4000, |_| ()), [""; 0], "the pause has an end");
        assert_eq!(seen(&pausing(None), 94, |_| ()), ["paused_too_long 0"], "its age is unknown");
    }

    #[test]
    fn the_node_that_took_the_role_tells_it_while_it_is_news() {
        let holder =
            |node, why| JournalSummary { holder: Some((node, Term(3), at(10), why)), ..JournalSummary::default() };
        assert_eq!(seen(&holder(ME, TakeoverReason::Moved), 11, |_| ()), ["takeover 0"]);
        assert_eq!(seen(&holder(ME, TakeoverReason::Restart), 11, |_| ()), [""; 0], "it had it before");
        assert_eq!(seen(&holder(NodeId([2; 16]), TakeoverReason::Moved), 11, |_| ()), [""; 0]);
        assert_eq!(seen(&holder(ME, TakeoverReason::Moved), 10 + 24 * 60, |_| ()), [""; 0]);
    }

    #[test]
    fn the_holder_is_distinguished_from_standbys() {
        let mut view = JournalView::empty("app".parse().unwrap(), RepoId([1; 16]));
        assert_eq!(
            JournalSummary::of(&view, at(0)).reporter_status(ME, true),
            ReporterStatus::Standby { holder_newest: 0, is_holder_alive: true },
            "the role has no holder"
        );
        view.state.last_slot = Some(at(60));
        assert_eq!(JournalSummary::of(&view, at(0)).future.map(|future| future.latest), Some(at(60)));
        assert_eq!(JournalSummary::of(&view, at(55)).future, None);
        let failure = |after| AlertEvent {
            after,
            ..AlertEvent::new(AlertKind::Failed, view.role.clone(), "east".to_owned(), at(5))
        };
        let summary = committed(60, |past| past.snapshot = Some((7, at(9))));
        assert!(summary.ends_failure(&failure(None), at(9)) && summary.ends_failure(&failure(Some(6)), at(9)));
        assert!(!summary.ends_failure(&failure(Some(7)), at(9)), "the store's clock is ahead: it was there before");
        assert!(!JournalSummary::of(&view, at(0)).is_elsewhere(ME));
        let command = |slot, exit| {
            let end = EndBody { exit, ..EndBody::default() };
            let node = WriterNode { id: ME, name: "east".to_owned() };
            CommandEnd { seq: Seq(8), node, time: at(61), slot: at(slot), end }
        };
        let event = AlertEvent { mark: COMMAND.to_owned(), ..failure(Some(6)) };
        let ends = |slot, exit| {
            let summary = committed(60, |past| {
                (past.command, past.snapshot) = (Some(command(slot, exit)), Some((7, at(9))));
            });
            summary.ends_failure(&event, at(130))
        };
        assert!(!ends(120, 3), "a snapshot for no slot is no end of it");
        assert!(ends(60, 3) && ends(120, 0), "its slot is committed, or the next command was good");
    }
}
