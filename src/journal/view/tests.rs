mod story;

use std::collections::VecDeque;

use super::*;
use crate::ids::{ChunkId, InstanceId, NodeId, ScheduleId, SourceMark};
use crate::journal::body::{
    AmendBody, BeginBody, ChangeCounts, CloneBody, EndBody, PauseBody, RunCost, SnapshotBody, TakeoverBody,
};
use crate::journal::record::{self, RecordError};
use crate::journal::state::{CommandEnd, PAST_SLOTS_KEPT};
use crate::repo::crypto::Cipher;
use crate::repo::crypto::tests::keys;

fn node(n: u8) -> WriterNode {
    WriterNode { id: NodeId([n; 16]), name: format!("node{n}") }
}

/// The record that continues `view`.
pub(crate) fn next(view: &JournalView, by: u8, body: RecordBody) -> Record {
    let takeover = match body {
        RecordBody::Takeover(_) => None,
        _ => view.state.holder.as_ref().map(|h| h.takeover),
    };
    let term = Term(view.term().0 + u64::from(takeover.is_none()));
    let checkpoint = record::is_checkpoint(view.next_seq(), &view.state);
    Record {
        role: view.role.clone(),
        repo: view.repo,
        seq: view.next_seq(),
        term,
        takeover,
        node: node(by),
        instance: InstanceId([by; 8]),
        time: Timestamp::UNIX_EPOCH,
        store_time: None,
        slot: None,
        last_slot: view.state.last_slot,
        schedule: None,
        prev: view.head.as_ref().map(|h| h.digest),
        body,
        state: checkpoint.then(|| view.state.clone()),
        generation: view.generation(),
    }
}

pub(crate) fn takeover() -> RecordBody {
    RecordBody::Takeover(TakeoverBody::new(TakeoverReason::Moved))
}

pub(crate) fn snapshot(n: u8) -> RecordBody {
    RecordBody::Snapshot(SnapshotBody {
        root: ChunkId([n; 32]),
        indexes: vec![IndexId([n; 16])],
        entries: 3,
        files: 2,
        bytes: 10,
        changes: ChangeCounts::default(),
        changed_set: ChunkId([0; 32]),
        cost: RunCost::default(),
        empty: None,
    })
}

fn push(view: &mut JournalView, record: &Record) -> Result<(), FoldError> {
    let object = record.encode(&keys(Cipher::None));
    let record = Record::decode(&object, Some(&keys(Cipher::None))).unwrap();
    view.apply(&record, record::digest(&object))
}

fn add(view: &mut JournalView, by: u8, body: RecordBody) {
    let record = next(view, by, body);
    push(view, &record).unwrap();
}

pub(crate) fn empty() -> JournalView {
    JournalView::empty("app".parse().unwrap(), RepoId([7; 16]))
}

#[test]
fn a_stale_writer_is_refused_by_everybody_who_reads() {
    let mut view = empty();
    add(&mut view, 1, takeover());
    let before = view.clone();
    add(&mut view, 2, takeover());
    // The old writer's record, even if it takes the right number, chain and term.
    let mut stale = next(&view, 1, snapshot(1));
    stale.takeover = before.state.holder.as_ref().map(|h| h.takeover);
    assert_eq!(push(&mut view, &stale), Err(FoldError::Fence));
    stale.term = Term(1);
    assert_eq!(push(&mut view, &stale), Err(FoldError::Term { found: Term(1), before: Term(2) }));
    assert_eq!(push(&mut view, &next(&before, 1, snapshot(1))), Err(FoldError::Number { found: Seq(2) }));
    let mut jump = next(&view, 1, takeover());
    jump.term = Term(9);
    assert!(matches!(push(&mut view, &jump), Err(FoldError::Term { .. })));
    add(&mut view, 2, snapshot(1));
    assert_eq!(view.state.snapshots.len(), 1);
}

#[test]
fn a_command_runs_until_its_own_end_or_a_takeover() {
    let mut view = empty();
    add(&mut view, 1, takeover());
    let begin = |view: &JournalView, instance| {
        let record = next(view, 1, RecordBody::Begin(BeginBody {}));
        Record { slot: Some(slot(5)), instance: InstanceId([instance; 8]), store_time: Some(slot(6)), ..record }
    };
    let end = |view: &JournalView, instance| {
        let body = RecordBody::End(EndBody { exit: 1, duration_ms: 1, ..EndBody::default() });
        Record { slot: Some(slot(5)), instance: InstanceId([instance; 8]), ..next(view, 1, body) }
    };
    let record = begin(&view, 1);
    push(&mut view, &record).unwrap();
    let running = RunningCommand { node: node(1), instance: InstanceId([1; 8]), time: slot(6), slot: Some(slot(5)) };
    assert_eq!(view.running, Some(running.clone()));
    add(&mut view, 1, snapshot(1));
    let record = end(&view, 2);
    push(&mut view, &record).unwrap();
    assert_eq!(view.running, Some(running), "what another process ended is another command");
    let memory = serde_json::to_value(&view).unwrap();
    assert_eq!(serde_json::from_value::<JournalView>(memory.clone()).unwrap(), view);
    let mut older = memory;
    older.as_object_mut().unwrap().remove("running").unwrap();
    assert_eq!(serde_json::from_value::<JournalView>(older).unwrap(), JournalView { running: None, ..view.clone() });
    let record = end(&view, 1);
    push(&mut view, &record).unwrap();
    assert_eq!(view.running, None);
    for instance in [1, 2] {
        let record = begin(&view, instance);
        push(&mut view, &record).unwrap();
        assert_eq!(view.running.as_ref().unwrap().instance, InstanceId([instance; 8]), "the newest");
    }
    add(&mut view, 2, takeover());
    assert_eq!(view.running, None, "it could not record its end any more");
}

#[test]
fn how_the_last_command_for_a_slot_ended_outlives_takeovers_and_is_in_every_state() {
    let mut view = empty();
    add(&mut view, 1, takeover());
    let fail = |view: &JournalView, at: Option<Timestamp>| {
        let body = RecordBody::End(EndBody { exit: 3, signal: Some(9), duration_ms: 1, ..EndBody::default() });
        Record { slot: at, store_time: Some(slot(9)), ..next(view, 1, body) }
    };
    let record = fail(&view, None);
    push(&mut view, &record).unwrap();
    let last = |view: &JournalView| view.state.holder.as_ref().unwrap().command.clone();
    assert_eq!(last(&view), None, "a command for no slot owes nothing");
    let record = fail(&view, Some(slot(5)));
    push(&mut view, &record).unwrap();
    let end = EndBody { exit: 3, signal: Some(9), duration_ms: 1, ..EndBody::default() };
    let failed = CommandEnd { seq: Seq(3), node: node(1), time: slot(9), slot: slot(5), end };
    assert_eq!(last(&view), Some(failed.clone()));
    add(&mut view, 2, takeover());
    add(&mut view, 2, snapshot(1));
    assert_eq!(last(&view), Some(failed.clone()));
    while !view.next_seq().0.is_multiple_of(8) {
        add(&mut view, 2, snapshot(1));
    }
    let checkpoint = next(&view, 2, snapshot(2));
    let mut from = JournalView::before_checkpoint(&checkpoint).unwrap();
    push(&mut from, &checkpoint).unwrap();
    assert_eq!(last(&from), Some(failed), "a reader that begins here knows it as well");
    // A version that does not know it reads past it, and writes a state without it: everybody goes on from that.
    let mut older = checkpoint;
    older.state.as_mut().unwrap().holder.as_mut().unwrap().command = None;
    let mut from = JournalView::before_checkpoint(&older).unwrap();
    push(&mut from, &older).unwrap();
    push(&mut view, &older).unwrap();
    assert_eq!((last(&view), &view.state), (None, &from.state));
    let record = end_of(&view, 60);
    push(&mut view, &record).unwrap();
    assert!(last(&view).unwrap().end.is_success());
}

#[test]
fn what_a_state_of_an_older_version_does_not_say_of_sources_is_not_known_to_anybody() {
    let mut view = empty();
    add(&mut view, 1, takeover());
    let marked = |n: u8, empty: Option<Vec<SourceMark>>| match snapshot(n) {
        RecordBody::Snapshot(body) => RecordBody::Snapshot(SnapshotBody { empty, ..body }),
        other => other,
    };
    for (n, empty) in [(1, None), (2, Some(Vec::new())), (3, Some(vec![SourceMark([3; 8])]))] {
        add(&mut view, 1, marked(n, empty));
    }
    let known =
        |view: &JournalView| view.state.snapshots.iter().map(|s| s.empty.as_ref().map(Vec::len)).collect::<Vec<_>>();
    assert_eq!(known(&view), [None, Some(0), Some(1)], "an old record, one without an empty source, one with one");
    let mut older = next(&view, 1, takeover());
    let mut state = view.state.clone();
    state.snapshots.iter_mut().for_each(|snapshot| snapshot.empty = None);
    older.state = Some(state);
    let mut from = JournalView::before_checkpoint(&older).unwrap();
    push(&mut from, &older).unwrap();
    push(&mut view, &older).unwrap();
    assert_eq!((known(&view), &view.state), (vec![None; 3], &from.state));
    let mut wrong = next(&view, 1, takeover());
    wrong.state = Some(view.state.clone());
    wrong.state.as_mut().unwrap().snapshots[0].empty = Some(Vec::new());
    assert_eq!(push(&mut view, &wrong), Err(FoldError::Checkpoint), "what is said is checked");
}

#[test]
fn a_clone_says_so_of_itself_and_everybody_remembers() {
    let mut view = empty();
    add(&mut view, 1, takeover());
    let mut clone = next(&view, 2, RecordBody::Clone(CloneBody { other: InstanceId([9; 8]) }));
    (clone.term, clone.takeover) = (Term(1), None);
    push(&mut view, &clone).unwrap();
    assert_eq!(view.state.clones, BTreeSet::from([NodeId([2; 16])]));
    assert_eq!(view.state.holder.as_ref().unwrap().node, node(1), "it changes nothing else");
    assert_eq!(view.authors[&NodeId([2; 16])].last().unwrap().seq, Seq(2));
}

#[test]
fn a_checkpoint_stands_for_all_before_it() {
    let mut view = empty();
    let mut at_64 = None;
    add(&mut view, 1, takeover());
    while view.next_seq().0 <= 70 {
        let record = next(&view, 1, snapshot(view.next_seq().0 as u8));
        if record.seq.0 == 64 {
            at_64 = Some((record.clone(), view.clone()));
        }
        push(&mut view, &record).unwrap();
    }
    let (record, before) = at_64.unwrap();
    let from = JournalView::before_checkpoint(&record).unwrap();
    assert_eq!(from.state, before.state);
    assert_eq!(from.next_seq(), before.next_seq());
    let mut lying = before.clone();
    let mut forged = record;
    forged.state.as_mut().unwrap().snapshots.pop();
    assert_eq!(push(&mut lying, &forged), Err(FoldError::Checkpoint));
}

#[test]
fn an_unknown_kind_is_read_past_and_stops_appends() {
    let mut view = empty();
    add(&mut view, 1, takeover());
    let point = RecordBody::Unknown { kind: "point".to_owned(), body: serde_json::json!({"id": 1}) };
    add(&mut view, 1, point);
    assert!(!view.is_understood());
    add(&mut view, 1, snapshot(3));
    assert_eq!(view.state.snapshots.len(), 1);
}

#[test]
fn a_kind_of_a_later_version_needs_no_permit_and_still_takes_no_term_back() {
    let mut view = empty();
    add(&mut view, 1, takeover());
    add(&mut view, 2, takeover());
    for (term, sound) in [(1, false), (2, true), (3, true)] {
        let mut point = next(&view, 1, RecordBody::Unknown { kind: "point".to_owned(), body: serde_json::Value::Null });
        (point.term, point.takeover) = (Term(term), None);
        let wrong = FoldError::Term { found: Term(term), before: Term(2) };
        assert_eq!(push(&mut view.clone(), &point), if sound { Ok(()) } else { Err(wrong) });
    }
}

#[test]
fn what_operators_do_says_nothing_of_who_writes_where() {
    let mut view = empty();
    add(&mut view, 1, takeover());
    let authors = view.authors.clone();
    assert_eq!(authors.keys().collect::<Vec<_>>(), [&NodeId([1; 16])]);
    let pause = RecordBody::Pause(PauseBody { until: None, why: None });
    for body in [pause, RecordBody::Resume] {
        let mut record = next(&view, 2, body);
        (record.term, record.takeover) = (view.term(), None);
        push(&mut view, &record).unwrap();
    }
    for why in [TakeoverReason::Operator, TakeoverReason::Adopt] {
        add(&mut view, 2, RecordBody::Takeover(TakeoverBody::new(why)));
    }
    assert_eq!(view.authors, authors);
}

#[test]
fn the_slots_of_what_is_forgotten_are_remembered_up_to_a_number() {
    let mut view = empty();
    add(&mut view, 1, takeover());
    let all = PAST_SLOTS_KEPT as i64 + 6;
    for n in 0..all {
        let mut record = next(&view, 1, snapshot(n as u8));
        record.slot = Some(slot(n));
        push(&mut view, &record).unwrap();
    }
    let ids: Vec<Digest> = view.state.snapshots.iter().map(|snapshot| snapshot.id).collect();
    // As many as are kept, and then more.
    for (forgotten, first) in [(&ids[..PAST_SLOTS_KEPT], 0), (&ids[PAST_SLOTS_KEPT..ids.len() - 1], 5)] {
        let (forgotten, indexes) = (forgotten.to_vec(), view.state.indexes.clone());
        add(&mut view, 1, RecordBody::Prune(PruneBody { forgotten, indexes, packs: Vec::new(), strays: Vec::new() }));
        assert_eq!(view.state.past_slots.len(), PAST_SLOTS_KEPT);
        assert_eq!(view.state.past_slots.first(), Some(&slot(first)), "the oldest go first");
    }
    assert_eq!(view.state.snapshots.len(), 1);
}

fn slot(n: i64) -> Timestamp {
    Timestamp::from_second(n * 60).unwrap()
}

fn end_of(view: &JournalView, n: i64) -> Record {
    let body = RecordBody::End(EndBody { exit: 0, duration_ms: 1, ..EndBody::default() });
    Record { slot: Some(slot(n)), schedule: Some(ScheduleId([1; 8])), ..next(view, 1, body) }
}

#[test]
fn a_clock_that_was_ahead_takes_no_slot_from_those_that_are_right() {
    let (mut view, year) = (empty(), 365 * 24 * 60);
    add(&mut view, 1, takeover());
    for n in [60, year, 120] {
        let record = end_of(&view, n);
        push(&mut view, &record).unwrap();
        let commits = view.commits();
        assert!(commits.contains(slot(60)) && commits.is_closed(slot(60), slot(200)), "after {n}");
        assert!(!commits.is_closed(slot(180), slot(200)), "after {n}");
        assert_eq!(view.state.last_slot, Some(slot(n)), "the last by the order of the records");
    }
    assert_eq!(view.commits().newest(slot(200)), Some(slot(120)));
    let before = next(&view, 1, takeover()).last_slot;
    assert_eq!(before, Some(slot(120)), "nothing has kept the year");
    for n in 0..COMMAND_SLOTS_KEPT as i64 {
        let record = end_of(&view, 121 + n);
        push(&mut view, &record).unwrap();
    }
    assert_eq!(view.state.command_slots.len(), COMMAND_SLOTS_KEPT);
    assert!(!view.commits().contains(slot(year)), "the oldest record goes first, not the oldest slot");
}

#[test]
fn when_a_slot_was_committed_last_is_told_while_what_was_made_for_it_is_there() {
    let mut view = empty();
    add(&mut view, 1, takeover());
    add(&mut view, 1, snapshot(1));
    assert_eq!(view.state.last_scheduled(), None, "by hand");
    let mut record = next(&view, 1, snapshot(2));
    (record.slot, record.time) = (Some(slot(60)), slot(61));
    push(&mut view, &record).unwrap();
    add(&mut view, 1, snapshot(3));
    assert_eq!(view.state.last_scheduled(), Some(slot(61)));
    let by_command = end_of(&view, 120);
    push(&mut view, &by_command).unwrap();
    assert_eq!(view.state.last_scheduled(), Some(slot(120)));
}

#[test]
fn a_slot_that_has_dropped_out_of_what_is_remembered_is_closed() {
    let mut view = empty();
    add(&mut view, 1, takeover());
    for n in 0..=COMMAND_SLOTS_KEPT as i64 {
        let record = end_of(&view, n);
        push(&mut view, &record).unwrap();
        if n < 10 {
            assert!(!view.commits().is_closed(slot(-1), slot(-1)), "all are remembered");
        }
    }
    let commits = view.commits();
    assert!(!commits.contains(slot(0)) && commits.is_closed(slot(0), slot(0)), "by a clock that is a little behind");
    assert!(!commits.is_closed(slot(-60), slot(-60)), "by one that is far behind nothing is known");
}

#[test]
fn a_state_of_an_older_version_is_gone_on_from_by_all_alike() {
    let mut view = empty();
    add(&mut view, 1, takeover());
    let record = end_of(&view, 60);
    push(&mut view, &record).unwrap();
    // An older version wrote the checkpoint.
    let mut old = next(&view, 1, snapshot(1));
    old.state = Some(JournalState { command_slots: VecDeque::new(), schedule: None, ..view.state.clone() });
    let mut from = JournalView::before_checkpoint(&old).unwrap();
    push(&mut from, &old).unwrap();
    push(&mut view, &old).unwrap();
    assert_eq!(view.state, from.state);
    assert!(view.commits().contains(slot(60)), "the last slot is known all the same");
    for view in [&mut view, &mut from] {
        let record = end_of(view, 120);
        push(view, &record).unwrap();
    }
    let mut new = next(&view, 1, snapshot(1));
    new.state = Some(view.state.clone());
    push(&mut from.clone(), &new).unwrap();
    new.state.as_mut().unwrap().command_slots.push_front(slot(7));
    assert_eq!(push(&mut view, &new), Err(FoldError::Checkpoint), "what is written is checked");
}

fn amend(view: &mut JournalView, at: Timestamp) {
    let mut record = next(view, 2, RecordBody::Amend(AmendBody {}));
    (record.term, record.takeover, record.time) = (view.term(), None, at);
    push(view, &record).unwrap();
}

#[test]
fn an_amended_slot_stays_committed_and_its_snapshot_lies_between_its_neighbours() {
    let (mut view, year) = (empty(), 365 * 24 * 60);
    view.created = Some(slot(year));
    add(&mut view, 1, takeover());
    for (n, at) in [(1, 60), (2, year), (3, 120), (4, year + 60)] {
        let mut record = next(&view, 1, snapshot(n));
        (record.slot, record.time) = (Some(slot(at)), slot(at));
        push(&mut view, &record).unwrap();
    }
    amend(&mut view, slot(500));
    let times: Vec<Timestamp> = view.state.snapshots.iter().map(|snapshot| snapshot.time).collect();
    assert_eq!(times, [60, 120, 120, 500].map(slot), "none seems older or newer than what follows it");
    let commits = view.commits();
    assert_eq!((commits.newest(slot(3 * year)), commits.created()), (Some(slot(120)), Some(slot(500))));
    assert!(commits.contains(slot(year)) && commits.contains(slot(year + 60)), "what is committed stays so");
    assert!(!commits.is_closed(slot(year - 60), slot(3 * year)) && commits.is_closed(slot(90), slot(500)));

    // By a clock that was years behind: no slot is free, none is committed twice.
    let mut behind = empty();
    add(&mut behind, 1, takeover());
    let record = Record { time: slot(year), ..end_of(&behind, year) };
    push(&mut behind, &record).unwrap();
    amend(&mut behind, slot(10));
    let commits = behind.commits();
    assert!(commits.is_closed(slot(year), slot(year + 30)) && !commits.is_closed(slot(year + 60), slot(year + 60)));
}

#[test]
fn what_an_older_version_made_of_an_amend_and_a_pause_is_gone_on_from() {
    let (mut view, year) = (empty(), 365 * 24 * 60);
    add(&mut view, 1, takeover());
    for (n, at) in [(1, year), (2, 120)] {
        let record = Record { time: slot(at), slot: Some(slot(at)), ..next(&view, 1, snapshot(n)) };
        push(&mut view, &record).unwrap();
    }
    amend(&mut view, slot(500));
    let pause = RecordBody::Pause(PauseBody { until: None, why: None });
    let mut record = next(&view, 2, pause);
    (record.term, record.takeover, record.time) = (view.term(), None, slot(year));
    record.store_time = Some(slot(510));
    push(&mut view, &record).unwrap();
    assert_eq!(view.state.paused.as_ref().unwrap().time, slot(510), "by the store's clock");
    let mut old = JournalState { amended: None, amended_slots: VecDeque::new(), ..view.state.clone() };
    old.snapshots[0].time = slot(500);
    old.paused.as_mut().unwrap().time = slot(year);
    let mut checkpoint = next(&view, 1, snapshot(3));
    checkpoint.state = Some(old.clone());
    push(&mut view.clone(), &checkpoint).unwrap();
    old.snapshots[0].slot = Some(slot(7));
    checkpoint.state = Some(old);
    assert_eq!(push(&mut view, &checkpoint), Err(FoldError::Checkpoint), "what else it says is checked");
}

#[test]
fn a_role_stays_handed_over_while_no_other_node_takes_it() {
    let mut view = empty();
    add(&mut view, 1, takeover());
    let because = |view: &JournalView, by, why, minute| {
        let record = next(view, by, RecordBody::Takeover(TakeoverBody::new(why)));
        Record { time: slot(minute + 600), store_time: Some(slot(minute)), ..record }
    };
    let given = |view: &JournalView| view.state.holder.as_ref().unwrap().handed_over;
    for (by, why, minute, handed_over) in [
        (2, TakeoverReason::Operator, 10, Some(10)),
        (2, TakeoverReason::Restart, 12, Some(10)),
        (2, TakeoverReason::Restart, 14, Some(10)),
        (1, TakeoverReason::Moved, 30, None),
        (2, TakeoverReason::Moved, 31, None),
        (1, TakeoverReason::Operator, 40, Some(40)),
    ] {
        let record = because(&view, by, why, minute);
        push(&mut view, &record).unwrap();
        assert_eq!(given(&view), handed_over.map(slot), "{why:?} at {minute}");
    }
    // An older version keeps nothing of it, in its own state and of others'.
    let older = |state: &JournalState| {
        let mut json = serde_json::to_value(state).unwrap();
        let holder = json["holder"].as_object_mut().unwrap();
        holder.remove("handed_over").unwrap();
        holder.remove("store_time").unwrap();
        serde_json::from_value::<JournalState>(json).unwrap()
    };
    let mut checkpoint = next(&view, 1, snapshot(1));
    checkpoint.state = Some(older(&view.state));
    let mut after = view.clone();
    push(&mut after, &checkpoint).unwrap();
    assert_eq!(given(&after), None, "a reader that begins at its checkpoint knows no more");
    checkpoint.state = Some(view.state.clone());
    let mut begun = JournalView { state: older(&view.state), ..view.clone() };
    push(&mut begun, &checkpoint).unwrap();
    assert_eq!(given(&begun), Some(slot(40)), "a newer checkpoint tells it");
    amend(&mut view, slot(30));
    assert_eq!(given(&view), Some(slot(30)));
}

#[test]
fn a_pause_that_another_clock_ended_is_not_one_with_the_next() {
    let mut view = empty();
    add(&mut view, 1, takeover());
    let mut act = |minute: i64, body: RecordBody| {
        let mut record = next(&view, 2, body);
        (record.term, record.takeover, record.time) = (view.term(), None, slot(minute));
        push(&mut view, &record).unwrap();
        view.past_pause.as_ref().map(|past| (past.time, past.until.unwrap()))
    };
    let pause = || RecordBody::Pause(PauseBody { until: None, why: None });
    act(10, pause());
    assert_eq!(act(9_000, RecordBody::Resume), Some((slot(10), slot(9_000))));
    act(500, pause());
    assert_eq!(act(510, RecordBody::Resume), Some((slot(500), slot(510))));
}

#[test]
fn the_newest_pause_that_is_over_is_remembered_whole() {
    let mut view = empty();
    add(&mut view, 1, takeover());
    let mut act = |second: i64, body: RecordBody| {
        let mut record = next(&view, 2, body);
        (record.term, record.takeover, record.time) = (view.term(), None, Timestamp::from_second(second).unwrap());
        push(&mut view, &record).unwrap();
        let past = view.past_pause.as_ref().map(|past| (past.time.as_second(), past.until.unwrap().as_second()));
        (view.state.paused.is_some(), past)
    };
    let pause = |until: Option<i64>| {
        RecordBody::Pause(PauseBody { until: until.map(|until| Timestamp::from_second(until).unwrap()), why: None })
    };
    assert_eq!(act(10, pause(None)), (true, None));
    assert_eq!(act(20, pause(Some(30))), (true, Some((10, 20))), "it is said again, with an end");
    assert_eq!(
        act(40, RecordBody::Resume),
        (false, Some((10, 30))),
        "it was over before, and nothing lay between them"
    );
    assert_eq!(act(50, pause(None)), (true, Some((10, 30))));
    assert_eq!(act(60, RecordBody::Resume), (false, Some((50, 60))));
}

#[test]
fn a_record_of_a_later_format_is_told_from_a_damaged_one() {
    let object = next(&empty(), 1, takeover()).encode(&keys(Cipher::None));
    let later = String::from_utf8(object).unwrap().replacen("\"v\":1", "\"v\":2", 1);
    assert_eq!(Record::decode(later.as_bytes(), None), Err(RecordError::Newer(2)));
}

#[test]
fn a_number_without_a_successor_is_no_record() {
    let mut view = empty();
    let mut record = next(&view, 1, takeover());
    for (seq, sound) in [(0, false), (1, true), (Seq::MAX.0, true), (Seq::MAX.0 + 1, false), (u64::MAX, false)] {
        record.seq = Seq(seq);
        assert_eq!(Record::decode(&record.encode(&keys(Cipher::None)), None).is_ok(), sound, "{seq}");
    }
    record.seq = Seq::MAX;
    (record.prev, record.state) = (Some(Digest([1; 32])), Some(JournalState::default()));
    let first = Record { seq: Seq::FIRST, ..record.clone() };
    assert_eq!(JournalView::before_checkpoint(&first), None, "there is nothing before it");
    view = JournalView::before_checkpoint(&record).unwrap();
    assert_eq!(view.apply(&record, Digest([2; 32])), Ok(()));
    assert_eq!(view.next_seq(), Seq(Seq::MAX.0 + 1));
}

#[test]
fn a_record_is_json_that_anybody_can_read() {
    let mut view = empty();
    add(&mut view, 1, takeover());
    let object = next(&view, 1, snapshot(3)).encode(&keys(Cipher::None));
    let text = String::from_utf8(object).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 2);
    assert_eq!((&lines[0]["kind"], &lines[0]["seq"], &lines[0]["v"]), (&"snapshot".into(), &2.into(), &1.into()));
    assert!(lines[1]["mac"].is_string());
    for at in 0..text.len() {
        let mut flipped = text.clone().into_bytes();
        flipped[at] ^= 1;
        assert!(Record::decode(&flipped, Some(&keys(Cipher::None))).is_err(), "byte {at}");
    }
}
