//! Examples with their expected results, and random histories against a model that goes minute by minute.

use std::time::Duration;

use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::config::{KeySource, RoleSettings, Schedule};
use crate::ids::{ChunkId, Digest, NodeId, RepoId, Seq, Term};
use crate::journal::body::{ChangeCounts, RunCost, WriterNode};
use crate::journal::state::{JournalPause, Snapshot};

/// Every hour, to be started within half an hour.
fn hourly() -> SlotSchedule {
    let role = RoleSettings {
        schedule: Some(Schedule::Every(Duration::from_hours(1))),
        missed_after: Duration::from_mins(30),
        ..RoleSettings::new("app".parse().unwrap(), KeySource::None, Vec::new())
    };
    SlotSchedule::new(&role, &TimeZone::UTC).unwrap().unwrap()
}

fn at(minute: i64) -> Timestamp {
    Timestamp::from_second(minute * 60).unwrap()
}

fn paused(minute: i64, until: Option<i64>) -> JournalPause {
    let node = WriterNode { id: NodeId([1; 16]), name: "east".to_owned() };
    JournalPause { node, time: at(minute), until: until.map(at), why: None }
}

impl SlotLedger {
    /// Commits the slot that starts at minute `slot`, with a run from minute `began` to `time`.
    fn with(mut self, slot: i64, began: i64, time: i64) -> Self {
        let (seq, node) = (Seq(1), "east".to_owned());
        self.commit(at(slot), CommitInfo { seq, node, term: Term(1), began: at(began), time: at(time) });
        self
    }

    /// Adds a guarded command for that slot that fails.
    fn tried(mut self, slot: i64, began: i64) -> Self {
        let instance = InstanceId([began as u8; 8]);
        let attempt = SlotAttempt { node: "west".to_owned(), term: Term(1), began: at(began), end: None };
        self.begin(at(slot), instance, attempt);
        assert_eq!(self.end(at(slot), instance, AttemptEnd { exit: 1, stopped: false }), Some(at(began)));
        self
    }

    /// The summary at minute `now`, in short.
    fn told(&self, plan: &SlotSchedule, since: i64, now: i64) -> String {
        let SlotSummary { counts: c, findings, notes, .. } = self.judge(plan, at(since), at(now));
        assert_eq!(c.expected, c.committed + c.missed + c.paused + c.open, "{c:?}");
        let hour = |at: &Timestamp| at.as_second() / 3600;
        let finding = |finding: &AuditFinding| match finding {
            AuditFinding::Missed { first, last, count, attempts } => {
                format!("missed {}-{} {count} tried {}", hour(first), hour(last), attempts.len())
            }
            AuditFinding::Late { slot, .. } => format!("late {}", hour(slot)),
            other => panic!("{other:?}"),
        };
        let note = |note: &AuditNote| {
            let AuditNote::Paused { first, last, count, .. } = note else { panic!("{note:?}") };
            format!("paused {}-{} {count}", hour(first), hour(last))
        };
        let unplanned = (c.unplanned > 0).then(|| format!("unplanned {}", c.unplanned));
        let all = [format!("{}/{}", c.committed, c.expected)].into_iter();
        let all = all.chain(findings.iter().map(finding)).chain(notes.iter().map(note)).chain(unplanned);
        all.collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn a_slot_has_a_commit_or_is_missed() {
    let plan = hourly();
    let three = SlotLedger::default().with(60, 61, 62).with(120, 121, 122).with(180, 181, 182);
    assert_eq!(three.told(&plan, 0, 200), "3/3", "before the first one nothing was expected");
    assert_eq!(three.told(&plan, 120, 200), "2/2");
    assert_eq!(three.told(&plan, 0, 270), "3/4", "the fourth has half an hour");
    assert_eq!(three.told(&plan, 0, 271), "3/4 missed 4-4 1 tried 0");
    let gap = three.with(480, 481, 482).with(600, 601, 602);
    assert_eq!(gap.told(&plan, 0, 602), "5/10 missed 4-7 4 tried 0 missed 9-9 1 tried 0");
    assert_eq!(SlotLedger::default().told(&plan, 0, 602), "0/0", "it is unknown whether there should have been one");
}

#[test]
fn who_tried_is_named() {
    let plan = hourly();
    let ledger = SlotLedger::default().with(60, 61, 62).tried(120, 121).tried(120, 130);
    assert_eq!(ledger.told(&plan, 0, 179), "1/2", "it has been begun, so it has time until the next");
    assert_eq!(ledger.told(&plan, 0, 180), "1/3 missed 2-2 1 tried 2");
    assert_eq!(ledger.with(120, 150, 160).told(&plan, 0, 180), "2/3");
    assert_eq!(
        SlotLedger::default().tried(60, 61).told(&plan, 0, 120),
        "0/2 missed 1-1 1 tried 1",
        "it was a slot all the same"
    );
}

#[test]
fn a_backup_that_is_under_way_has_time_until_the_next_slot() {
    let plan = hourly();
    let mut ledger = SlotLedger::default().with(60, 61, 62);
    ledger.under_way(&RunningBackup { node: "west".to_owned(), slot: at(120), since: at(121) }, Term(3));
    assert_eq!(ledger.told(&plan, 0, 179), "1/2");
    assert_eq!(ledger.told(&plan, 0, 180), "1/3 missed 2-2 1 tried 1", "no claim is made that there was no run");
}

#[test]
fn late_is_begun_late_or_ended_after_the_next_has_started() {
    let plan = hourly();
    let told = |began, time| SlotLedger::default().with(60, began, time).told(&plan, 0, 100);
    assert_eq!(told(61, 119), "1/1", "a long run is no late one");
    assert_eq!((told(90, 95), told(91, 95), told(61, 120)), ("1/1".into(), "1/1 late 1".into(), "1/1 late 1".into()));
}

#[test]
fn a_pause_explains_what_lies_wholly_in_it() {
    let plan = hourly();
    let mut ledger = SlotLedger::default().with(60, 61, 62).with(480, 485, 486).with(540, 600, 601);
    ledger.pauses.begin(&paused(110, None));
    assert_eq!(ledger.told(&plan, 0, 490), "2/8 paused 2-7 6");
    ledger.pauses.end(at(320));
    assert_eq!(
        ledger.told(&plan, 0, 490),
        "2/8 missed 5-7 3 tried 0 paused 2-4 3",
        "from 320 on there were ten minutes left"
    );
    assert_eq!(ledger.told(&plan, 0, 601), "3/10 missed 5-7 3 tried 0 late 9 paused 2-4 3");
    ledger.pauses.begin(&paused(535, Some(600)));
    assert_eq!(
        ledger.told(&plan, 0, 601),
        "3/10 missed 5-7 3 tried 0 paused 2-4 3",
        "it was caught up after the pause"
    );
}

#[test]
fn a_schedule_that_was_another_one_is_not_held_against_it() {
    // Half past the hour until the fifth hour, then on the hour.
    let plan = hourly();
    let mut ledger = SlotLedger::default().with(390, 391, 392).with(420, 421, 422);
    for slot in [90, 150, 210, 270, 330] {
        ledger = ledger.with(slot, slot + 1, slot + 2);
    }
    assert_eq!(ledger.told(&plan, 0, 425), "1/1 unplanned 6");
    assert_eq!(ledger.told(&plan, 400, 511), "1/2 missed 8-8 1 tried 0");
    let changed = SlotLedger::default().with(60, 61, 62).with(90, 91, 92);
    assert_eq!(changed.told(&plan, 0, 200), "1/3 missed 2-2 1 tried 0 unplanned 1", "after the newest, today's counts");
}

#[test]
fn a_doubled_slot_is_told() {
    let ledger = SlotLedger::default().with(60, 61, 62).with(120, 121, 122).with(60, 125, 126);
    let [AuditFinding::Duplicate { slot, commits }] = &ledger.duplicates(at(126))[..] else { panic!("{ledger:?}") };
    assert_eq!((*slot, commits.len()), (at(60), 2));
    assert_eq!(ledger.duplicates(at(127)), [], "long ago");
    // Committed by a guarded command before the checkpoint, and again after it.
    let state = JournalState { last_slot: Some(at(60)), ..JournalState::default() };
    assert_eq!(SlotLedger::of_state(&state, None).with(60, 61, 62).duplicates(at(0)).len(), 1);
    assert_eq!(SlotLedger::of_state(&state, None).duplicates(at(0)), []);
}

/// A timely snapshot for the slot at this minute.
fn snapshot(slot: i64) -> Snapshot {
    Snapshot {
        id: Digest([slot as u8; 32]),
        seq: Seq(slot as u64),
        term: Term(1),
        node: WriterNode { id: NodeId([1; 16]), name: "east".to_owned() },
        time: at(slot + 2),
        slot: Some(at(slot)),
        root: ChunkId([1; 32]),
        entries: 1,
        files: 1,
        bytes: 1,
        changes: ChangeCounts::default(),
        cost: RunCost { duration_ms: 60_000, ..RunCost::default() },
        empty: None,
    }
}

fn view(state: JournalState) -> JournalView {
    JournalView { state, ..JournalView::empty("app".parse().unwrap(), RepoId([1; 16])) }
}

#[test]
fn nothing_is_missed_or_late_that_was_due_before_the_role_existed() {
    let plan = hourly();
    let made = |minute| SlotLedger { created: Some(at(minute)), ..SlotLedger::default() };
    assert_eq!(made(245).told(&plan, 0, 300), "0/1", "of the slots since then only the last, and it has time");
    assert_eq!(
        made(245).told(&plan, 0, 451),
        "0/3 missed 5-7 3 tried 0",
        "a role that never committed one has missed them"
    );
    let first = SlotLedger { created: Some(at(285)), ..SlotLedger::default().with(240, 286, 287) };
    assert_eq!(first.told(&plan, 0, 290), "1/1", "it is run late, and no node is to blame");
    assert_eq!(first.with(300, 340, 350).told(&plan, 0, 355), "2/2 late 5");
}

#[test]
fn what_another_schedule_let_pass_is_not_missed() {
    let (plan, weekly) = (hourly(), ScheduleId([9; 8]));
    let mut changed = SlotLedger::default().with(60, 61, 62);
    changed.scheduled(at(60), Some(weekly));
    assert_eq!(
        changed.told(&plan, 0, 600),
        "1/10 missed 2-9 8 tried 0",
        "when it became hourly was not seen: it counts from the last commit"
    );
    let seen = plan.clone().with_first_seen(Some(at(430)));
    assert_eq!(changed.told(&seen, 0, 600), "1/4 missed 8-9 2 tried 0");
    changed = changed.with(600, 601, 602);
    changed.scheduled(at(600), Some(plan.id()));
    assert_eq!(changed.told(&plan, 0, 800), "2/5 missed 11-12 2 tried 0", "since its first commit it is");
    let mut same = SlotLedger::default().with(60, 61, 62);
    same.scheduled(at(60), Some(plan.id()));
    assert_eq!(same.told(&plan, 0, 200), "1/3 missed 2-2 1 tried 0");
}

#[test]
fn a_commit_from_beyond_the_present_hides_nothing() {
    let plan = hourly();
    let poisoned = SlotLedger::default().with(60, 61, 62).with(1_000_030, 125, 126);
    assert_eq!(poisoned.told(&plan, 0, 200), "1/3 missed 2-2 1 tried 0");
}

#[test]
fn the_newest_slots_are_told_of_a_command_as_well() {
    let plan = hourly();
    let slots = (1..20).filter(|hour| *hour != 15).map(|hour| at(hour * 60));
    let state =
        JournalState { last_slot: Some(at(19 * 60)), command_slots: slots.collect(), ..JournalState::default() };
    let counts = SlotCounts { expected: 10, committed: 8, missed: 1, open: 1, ..SlotCounts::default() };
    assert_eq!(recent(&plan, &view(state), &[], at(20 * 60 + 10)).unwrap().counts, counts);
    let never = JournalView { created: Some(at(11 * 60 + 1)), ..view(JournalState::default()) };
    let counts = SlotCounts { expected: 9, missed: 8, open: 1, ..SlotCounts::default() };
    assert_eq!(recent(&plan, &never, &[], at(20 * 60 + 10)).unwrap().counts, counts);
}

#[test]
fn what_a_state_tells_of_the_newest_slots() {
    let plan = hourly();
    assert_eq!(recent(&plan, &view(JournalState::default()), &[], at(600)), None);
    let by_command = JournalState { last_slot: Some(at(600)), ..JournalState::default() };
    assert_eq!(recent(&plan, &view(by_command), &[], at(601)), None, "who else committed one is not in the state");
    let snapshots: Vec<Snapshot> = (1..20).filter(|hour| *hour != 15).map(|hour| snapshot(hour * 60)).collect();
    let state = JournalState { last_slot: Some(at(19 * 60)), snapshots, ..JournalState::default() };
    let slots = recent(&plan, &view(state), &[], at(20 * 60 + 10)).unwrap();
    let counts = SlotCounts { expected: 10, committed: 8, missed: 1, open: 1, ..SlotCounts::default() };
    assert_eq!(slots, RecentSlots { since: at(11 * 60), counts });
    let young = JournalState { last_slot: Some(at(60)), snapshots: vec![snapshot(60)], ..JournalState::default() };
    assert_eq!(
        recent(&plan, &view(young.clone()), &[], at(130)).unwrap().counts.expected,
        2,
        "not what was before the first"
    );
    let paused = JournalState { paused: Some(paused(70, None)), ..young };
    assert_eq!(recent(&plan, &view(paused), &[], at(511)).unwrap().counts.paused, 7);
}

/// What happens for a slot, in minutes from its start.
#[derive(Debug, Clone)]
enum Act {
    Nothing,
    /// The run's begin, and its duration until the commit.
    Commit(i64, i64),
    Fails(i64),
    FailsThenCommit(i64, i64),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => Just(Act::Nothing),
        3 => (0..70i64, 0..70i64).prop_map(|(began, took)| Act::Commit(began, took)),
        1 => (0..50i64).prop_map(Act::Fails),
        1 => (0..50i64, 0..50i64).prop_map(|(began, took)| Act::FailsThenCommit(began, took)),
    ]
}

/// What has happened for the slot at this minute.
struct Happened {
    slot: i64,
    /// Begin and commit.
    commits: Vec<(i64, i64)>,
    /// The begins of failed runs.
    fails: Vec<i64>,
}

/// The state of a slot in the model.
#[derive(Debug, PartialEq, Eq)]
enum ModelSlotState {
    Committed { late: bool },
    Missed,
    Paused,
    Open,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Pauses are (gap before it, length, whether it is resumed instead of limited), one after the other.
    #[test]
    fn the_counts_are_those_of_a_model_that_looks_at_each_minute(
        acts in prop::collection::vec(act(), 1..14),
        gaps in prop::collection::vec((0..200i64, 1..200i64, any::<bool>()), 0..4),
        since in 0..400i64,
        now in 0..900i64,
    ) {
        let mut ledger = SlotLedger::default();
        let mut is_paused = vec![false; 4000];
        let mut clock = 0;
        for (gap, length, resumed) in gaps {
            clock += gap;
            if clock > now {
                break;
            }
            ledger.pauses.begin(&paused(clock, (!resumed).then_some(clock + length)));
            is_paused[clock as usize..(clock + length) as usize].fill(true);
            clock += length;
            // Nothing happens after `now`.
            if resumed && clock <= now {
                ledger.pauses.end(at(clock));
            }
        }
        // Nothing happens after `now`.
        let mut happened: Vec<Happened> = Vec::new();
        for (n, act) in (0..).zip(&acts) {
            let slot = n * 60;
            let (commits, fails) = match *act {
                Act::Nothing => (vec![], vec![]),
                Act::Commit(began, took) => (vec![(slot + began, slot + began + took)], vec![]),
                Act::Fails(began) => (vec![], vec![slot + began]),
                Act::FailsThenCommit(began, took) => (vec![(slot + began + 1, slot + began + 1 + took)], vec![slot + began]),
            };
            let commits: Vec<_> = commits.into_iter().filter(|(_, time)| *time <= now).collect();
            let fails: Vec<_> = fails.into_iter().filter(|began| *began <= now).collect();
            for (began, time) in &commits {
                ledger = ledger.with(slot, *began, *time);
            }
            for began in &fails {
                ledger = ledger.tried(slot, *began);
            }
            happened.push(Happened { slot, commits, fails });
        }
        let first = happened.iter().find(|h| !h.commits.is_empty() || !h.fails.is_empty()).map(|h| h.slot);
        let mut states = Vec::new();
        for slot in (0..=now).step_by(60).filter(|slot| *slot >= since && first.is_some_and(|first| *slot >= first)) {
            let (commits, fails) = happened.iter().find(|h| h.slot == slot).map(|h| (h.commits.clone(), h.fails.clone())).unwrap_or_default();
            let all_paused = (slot..=slot + 30).all(|minute| is_paused[minute as usize]);
            states.push(match commits.first() {
                Some((began, time)) => ModelSlotState::Committed { late: !all_paused && (*began > slot + 30 || *time >= slot + 60) },
                None if now >= slot + 60 || fails.is_empty() && now > slot + 30 => {
                    if all_paused { ModelSlotState::Paused } else { ModelSlotState::Missed }
                }
                None => ModelSlotState::Open,
            });
        }
        let count = |what: &dyn Fn(&ModelSlotState) -> bool| states.iter().filter(|s| what(s)).count() as u64;
        let model = SlotCounts {
            expected: states.len() as u64,
            committed: count(&|s| matches!(s, ModelSlotState::Committed { .. })),
            missed: count(&|s| *s == ModelSlotState::Missed),
            late: count(&|s| *s == ModelSlotState::Committed { late: true }),
            paused: count(&|s| *s == ModelSlotState::Paused),
            open: count(&|s| *s == ModelSlotState::Open),
            unplanned: 0,
        };
        let verdict = ledger.judge(&hourly(), at(since), at(now));
        prop_assert_eq!(verdict.counts, model);
        // The findings give the same counts.
        let sum = |what: &dyn Fn(&AuditFinding) -> u64| verdict.findings.iter().map(what).sum::<u64>();
        prop_assert_eq!(sum(&|f| if let AuditFinding::Missed { count, .. } = f { *count } else { 0 }), model.missed);
        prop_assert_eq!(sum(&|f| u64::from(matches!(f, AuditFinding::Late { .. }))), model.late);
        let paused = verdict.notes.iter().map(|n| if let AuditNote::Paused { count, .. } = n { *count } else { 0 }).sum::<u64>();
        prop_assert_eq!(paused, model.paused);
    }
}
