//! What a journal dates after the present, and which clock caused that. Pure.
//!
//! Such a record was written by a node whose clock was ahead, or is read by one whose clock is behind. It is reported
//! as an anomaly. It closes no slot but its own, counts for no retention, and keeps no run from starting.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::clock_doubt::ClockDoubt;
use crate::ids::{NodeId, Seq};
use crate::journal::body::WriterNode;
use crate::journal::state::JournalState;
use crate::journal::view::JournalView;
use crate::role::clock_tolerance::{self, is_in_future};

/// What is dated after the present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FutureDates {
    /// Number of records, of slots without a known record, and of the creation of the repository.
    pub count: u64,
    /// The latest of these dates.
    pub latest: Timestamp,
    /// The node that wrote the latest one, if it is known.
    pub node: Option<WriterNode>,
    /// The clock that caused it.
    pub clock: WrongClock,
}

/// The clock that is, or was, wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrongClock {
    /// The writer's, when it wrote: the store's clock agrees with this node's, or another node wrote later with a date
    /// of the present.
    Writer,
    /// This node's, now: the store's clock shows it.
    Reader,
    /// This node's, most likely: every recorded date is after it, or several nodes agree against it.
    LikelyReader,
    /// One of the two; it is unknown which.
    Unclear,
}

/// One dated thing of a view.
#[derive(Debug, Clone, Copy)]
struct DatedItem<'a> {
    /// The record, if it is known.
    seq: Option<Seq>,
    node: Option<&'a WriterNode>,
    latest: Timestamp,
}

/// What a view dates after the present.
struct FutureItems<'a> {
    /// Records, each with the latest date that it names.
    records: BTreeMap<Seq, DatedItem<'a>>,
    /// Acts without a known record.
    acts: Vec<DatedItem<'a>>,
    /// Slots without a known record.
    slots: Vec<Timestamp>,
}

impl<'a> FutureItems<'a> {
    fn of(view: &JournalView, dated: &[DatedItem<'a>], now: Timestamp) -> Self {
        let (mut records, mut acts) = (BTreeMap::<Seq, DatedItem<'a>>::new(), Vec::<DatedItem<'a>>::new());
        let beyond = || dated.iter().filter(|dated| is_in_future(dated.latest, now));
        for (seq, dated) in beyond().filter_map(|dated| Some((dated.seq?, dated))) {
            let known = records.entry(seq).or_insert(*dated);
            if known.latest < dated.latest {
                *known = *dated;
            }
        }
        let slots = slots_without_record(&view.state, now);
        for act in beyond().filter(|dated| dated.seq.is_none()) {
            let same = |known: &DatedItem<'_>| known.latest == act.latest;
            if !(records.values().any(same) || acts.iter().any(same) || slots.contains(&act.latest)) {
                acts.push(*act);
            }
        }
        Self { records, acts, slots }
    }

    fn dates(&self) -> impl Iterator<Item = DatedItem<'a>> {
        let slots = self.slots.iter().map(|slot| DatedItem { seq: None, node: None, latest: *slot });
        self.records.values().chain(&self.acts).copied().chain(slots)
    }
}

/// Finds what `view` dates after `now`. `reader` is this node; `clock_offset` is how far its store's clock is ahead of
/// its own, if that is known.
pub fn future_dates(
    view: &JournalView,
    reader: NodeId,
    now: Timestamp,
    clock_offset: Option<SignedDuration>,
) -> Option<FutureDates> {
    let dated = dated_items(view);
    let beyond = FutureItems::of(view, &dated, now);
    let made = view.created_at().filter(|made| is_in_future(*made, now));
    // Of equal dates the one that names its node.
    let newest = beyond.dates().max_by_key(|dated| (dated.latest, dated.node.is_some()));
    let latest = newest.map(|dated| dated.latest).max(made)?;
    let node = newest.filter(|dated| dated.latest == latest).and_then(|dated| dated.node).cloned();
    let after = beyond.records.keys().next_back().copied();
    let vouched = |dated: &DatedItem<'_>| {
        dated.node.is_some_and(|node| node.id != reader)
            && after.is_some_and(|after| dated.seq > Some(after))
            && !is_in_future(dated.latest, now)
    };
    let is_vouched = dated.iter().any(vouched);
    let nodes: BTreeSet<NodeId> = beyond.dates().filter_map(|dated| dated.node).map(|node| node.id).collect();
    // A clock that disagrees with every recorded date, or with two other nodes, is the wrong one. A store on a disk of
    // this node always agrees with it, so that agreement proves nothing.
    let is_against_all = beyond.dates().next().is_some()
        && dated.iter().all(|dated| is_in_future(dated.latest, now))
        && view.created_at().is_none_or(|made| is_in_future(made, now));
    let clock = match clock_offset {
        Some(offset) if clock_tolerance::is_clock_off(offset) => WrongClock::Reader,
        _ if is_against_all || nodes.len() > 1 && !is_vouched => WrongClock::LikelyReader,
        Some(_) => WrongClock::Writer,
        None if is_vouched => WrongClock::Writer,
        None => WrongClock::Unclear,
    };
    let count = beyond.dates().count() as u64 + u64::from(made.is_some());
    Some(FutureDates { count, latest, node, clock })
}

/// The reason to doubt the clock of node `me`, at `now`, before it dates a record after `view`. `clock_offset` is how
/// far the store's clock is ahead of it, if that is known. `None`: no reason.
pub fn clock_doubt(
    view: &JournalView,
    me: NodeId,
    now: Timestamp,
    clock_offset: Option<SignedDuration>,
) -> Option<ClockDoubt> {
    if let Some(offset) = clock_offset.filter(|offset| clock_tolerance::is_clock_off(*offset)) {
        return Some(ClockDoubt::Store { offset });
    }
    let found = future_dates(view, me, now, clock_offset)?;
    (found.clock == WrongClock::LikelyReader).then(|| ClockDoubt::Journal {
        latest: found.latest,
        ahead: found.latest.duration_since(now),
        node: found.node.map(|node| node.name),
    })
}

/// What `view` dates after `now`: the latest date of each item, and the node if it is known.
pub fn dates_beyond(view: &JournalView, now: Timestamp) -> Vec<(Timestamp, Option<WriterNode>)> {
    let beyond = FutureItems::of(view, &dated_items(view), now);
    beyond.dates().map(|dated| (dated.latest, dated.node.cloned())).collect()
}

/// Whether `view` has a date in the present or before.
pub fn is_anything_dated_by(view: &JournalView, now: Timestamp) -> bool {
    dated_items(view).iter().any(|dated| !is_in_future(dated.latest, now))
}

/// Everything in a view that has a date, except slots without a known record. Fields without a date are listed too, so
/// that a new field is not forgotten here.
fn dated_items(view: &JournalView) -> Vec<DatedItem<'_>> {
    // A pause that is over covers nothing if it was ended after the present; its records are among the `dates`.
    let JournalView {
        role: _,
        repo: _,
        head,
        state,
        unknown_kinds: _,
        authors: _,
        created: _,
        past_pause: _,
        running,
        dates,
    } = view;
    let JournalState {
        holder,
        last_slot: _,
        snapshots,
        indexes: _,
        paused,
        clones: _,
        cluster: _,
        condemned,
        pruned,
        past_slots: _,
        command_slots: _,
        schedule,
        repaired: _,
        amended,
        amended_slots: _,
        rotated: _,
        unknown: _,
    } = state;
    let act = |latest| DatedItem { seq: None, node: None, latest };
    let record = |seq: &Seq, node, latest| DatedItem { seq: Some(*seq), node: Some(node), latest };
    let mut all: Vec<DatedItem<'_>> = Vec::new();
    // For a view that an older version made.
    all.extend(head.iter().filter(|_| dates.is_empty()).map(|head| record(&head.seq, &head.node, head.time)));
    all.extend(dates.iter().map(|date| record(&date.seq, &date.node, date.latest)));
    if let Some(h) = holder {
        all.push(record(&h.seq, &h.node, h.store_time.unwrap_or(h.time)));
        all.extend(h.command.iter().map(|end| record(&end.seq, &end.node, end.time)));
        all.extend(h.handed_over.map(|latest| DatedItem { node: Some(&h.node), ..act(latest) }));
    }
    all.extend(snapshots.iter().map(|snapshot| {
        record(&snapshot.seq, &snapshot.node, snapshot.slot.map_or(snapshot.time, |slot| slot.max(snapshot.time)))
    }));
    all.extend(paused.iter().map(|paused| DatedItem { node: Some(&paused.node), ..act(paused.time) }));
    all.extend(running.iter().map(|running| DatedItem { node: Some(&running.node), ..act(running.time) }));
    all.extend(condemned.iter().map(|condemned| DatedItem { seq: Some(condemned.seq), ..act(condemned.time) }));
    let since = schedule.as_ref().and_then(|schedule| schedule.since);
    all.extend([*pruned, *amended, since].into_iter().flatten().map(act));
    all
}

/// Committed slots after the present that no live snapshot has, ascending.
fn slots_without_record(state: &JournalState, now: Timestamp) -> Vec<Timestamp> {
    let live = |slot: &Timestamp| state.snapshots.iter().any(|snapshot| snapshot.slot == Some(*slot));
    let mut slots: Vec<Timestamp> = state.slots().filter(|slot| is_in_future(*slot, now) && !live(slot)).collect();
    slots.sort_unstable();
    slots.dedup();
    slots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Digest, PackId};
    use crate::journal::body::{AmendBody, BeginBody, EndBody, PauseBody, PruneBody, RecordBody};
    use crate::journal::record_date::{DATES_KEPT, RecordDate};
    use crate::journal::view::tests::{empty, next, takeover};

    fn at(minute: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
    }

    const YEAR: i64 = 365 * 24 * 60;
    const EAST: NodeId = NodeId([1; 16]);
    const WEST: NodeId = NodeId([2; 16]);

    /// A journal of these records: writer, time, and the slot of a command's successful end; without a slot the record
    /// is a takeover.
    fn journal(records: &[(u8, i64, Option<i64>)]) -> JournalView {
        let mut view = empty();
        for (by, time, slot) in records {
            let end = RecordBody::End(EndBody { exit: 0, duration_ms: 1, ..EndBody::default() });
            let mut record = next(&view, *by, if slot.is_some() { end } else { takeover() });
            (record.time, record.slot) = (at(*time), slot.map(at));
            let digest = Digest([record.seq.0 as u8; 32]);
            view.apply(&record, digest).unwrap();
        }
        view
    }

    #[test]
    fn a_clock_that_was_ahead_is_told_from_one_that_is_behind() {
        let none = Some(SignedDuration::ZERO);
        let sound = journal(&[(1, 10, None), (1, 70, Some(60))]);
        assert_eq!(future_dates(&sound, EAST, at(100), None), None);
        assert_eq!(future_dates(&sound, EAST, at(66), None), None, "five minutes are the present");

        let poisoned = journal(&[(1, 10, None), (1, YEAR, Some(YEAR - 1))]);
        let of = |view: &JournalView, reader, offset| {
            let found = future_dates(view, reader, at(100), offset).unwrap();
            (found.count, found.latest, found.node.map(|node| node.id), found.clock)
        };
        assert_eq!(of(&poisoned, WEST, None), (2, at(YEAR), Some(EAST), WrongClock::Unclear));
        assert_eq!(of(&poisoned, WEST, none).3, WrongClock::Writer, "the store agrees with the reader");
        let behind = Some(SignedDuration::from_hours(9000));
        assert_eq!(of(&poisoned, WEST, behind).3, WrongClock::Reader);

        // The record is known while the records are read one by one; after a checkpoint only its slot is known.
        let mut later = journal(&[(1, 10, None), (1, YEAR, Some(YEAR - 1)), (1, 90, Some(80))]);
        assert_eq!(of(&later, WEST, None), (2, at(YEAR), Some(EAST), WrongClock::Writer));
        later.dates.remove(0);
        assert_eq!(
            of(&later, WEST, None),
            (1, at(YEAR - 1), None, WrongClock::Unclear),
            "which record had it is not known"
        );
        assert_eq!(dates_beyond(&later, at(100)), [(at(YEAR - 1), None)]);
        let by_east: Vec<_> =
            dates_beyond(&poisoned, at(100)).into_iter().map(|(at, by)| (at, by.map(|n| n.id))).collect();
        assert_eq!(by_east, [(at(YEAR), Some(EAST)), (at(YEAR - 1), None)]);
        let taken = journal(&[(1, 10, None), (1, YEAR, None), (2, 90, Some(80))]);
        assert_eq!(of(&taken, NodeId([3; 16]), None), (1, at(YEAR), Some(EAST), WrongClock::Writer), "two agree");
        assert_eq!(of(&taken, WEST, None).3, WrongClock::Unclear, "it agrees with itself alone");
    }

    /// `body` by node `by` at that minute, after what `view` has.
    fn then(view: &mut JournalView, by: u8, time: i64, body: RecordBody) {
        let permitted = !body.is_by_operator();
        let mut record = next(view, by, body);
        record.time = at(time);
        if !permitted && !matches!(record.body, RecordBody::Takeover(_)) {
            record.takeover = None;
        }
        let digest = Digest([record.seq.0 as u8; 32]);
        view.apply(&record, digest).unwrap();
    }

    #[test]
    fn whatever_is_dated_beyond_the_present_is_told_and_amended() {
        let pause = || RecordBody::Pause(PauseBody { until: None, why: None });
        let prune = || RecordBody::Prune(PruneBody { packs: vec![PackId([1; 16])], ..PruneBody::default() });
        let end =
            || RecordBody::End(EndBody { exit: 1, stopped: false, duration_ms: 1, signal: None, timed_out: false });
        let acts: [fn() -> RecordBody; 6] =
            [takeover, pause, || RecordBody::Resume, prune, || RecordBody::Begin(BeginBody {}), end];
        for act in acts {
            let mut view = journal(&[(1, 10, None)]);
            then(&mut view, 1, YEAR, act());
            let kind = view.head.clone().unwrap().seq;
            // The record after it has a right date, and replaces it if it is a takeover.
            for later in 0..2 {
                let found = future_dates(&view, WEST, at(100), None).unwrap_or_else(|| panic!("{act:?}", act = act()));
                assert_eq!(
                    (found.count, found.latest, found.node.map(|n| n.id)),
                    (1, at(YEAR), Some(EAST)),
                    "{kind:?} {later}"
                );
                if later == 0 {
                    then(&mut view, 2, 90, takeover());
                }
            }
            let memory = serde_json::to_value(&view).unwrap();
            assert_eq!(serde_json::from_value::<JournalView>(memory).unwrap(), view);
            then(&mut view, 2, 95, RecordBody::Amend(AmendBody {}));
            assert_eq!(future_dates(&view, WEST, at(100), None), None, "{:?}", act());
        }
    }

    #[test]
    fn what_only_the_state_of_a_checkpoint_tells_is_told_too() {
        let pause = RecordBody::Pause(PauseBody { until: None, why: None });
        let prune = RecordBody::Prune(PruneBody { packs: vec![PackId([1; 16])], ..PruneBody::default() });
        for (act, by) in [(takeover(), Some(EAST)), (pause, Some(EAST)), (prune, None)] {
            let mut view = journal(&[(1, 10, None)]);
            then(&mut view, 1, YEAR, act);
            view.dates =
                vec![RecordDate { seq: Seq(3), latest: at(90), node: view.state.holder.clone().unwrap().node }];
            let found = future_dates(&view, WEST, at(100), None).unwrap();
            assert_eq!((found.count, found.latest, found.node.map(|node| node.id)), (1, at(YEAR), by));
        }
    }

    #[test]
    fn the_dates_that_are_kept_are_few_and_hold_the_latest() {
        let mut view = journal(&[(1, YEAR, None)]);
        for n in 0..100 {
            then(&mut view, 1, 1000 - n, takeover());
        }
        assert_eq!((view.dates.len(), view.dates[0].latest, view.dates[15].latest), (DATES_KEPT, at(YEAR), at(901)));
        then(&mut view, 1, YEAR, takeover());
        assert_eq!(view.dates.len(), 1);
    }

    #[test]
    fn a_clock_that_dates_records_is_doubted_by_the_stores_and_by_the_whole_history() {
        let of = |view: &JournalView, now, offset: Option<i64>| {
            let offset = offset.map(SignedDuration::from_secs);
            clock_doubt(view, EAST, at(now), offset).map(|doubt| doubt.to_string())
        };
        let store = |way: &str| Some(format!("this node's clock is 3h {way} the store's, and dates what is recorded"));
        assert_eq!(of(&journal(&[]), 100, Some(-3 * 3600)), store("ahead of"));
        assert_eq!(of(&journal(&[(2, 10, None)]), 100, Some(3 * 3600)), store("behind"));
        assert_eq!(of(&journal(&[(2, 10, None)]), 100, Some(300)), None);
        assert_eq!(of(&journal(&[(2, 10, None)]), 100, None), None, "nothing speaks against it");
        let behind = of(&journal(&[(2, 690, None), (2, 700, None)]), 100, Some(0)).unwrap();
        assert!(behind.ends_with("by node2 that are up to 10h ahead of it (1970-01-01T11:40:00Z)"), "{behind}");
        let ahead = JournalView { created: Some(at(5)), ..journal(&[(2, 10, None), (2, 700, None)]) };
        assert_eq!(of(&ahead, 100, Some(0)), None, "another clock was ahead");
    }

    #[test]
    fn a_clock_that_is_alone_against_the_history_is_the_odd_one() {
        let clock = |view: &JournalView, offset| future_dates(view, EAST, at(100), offset).unwrap().clock;
        let same = Some(SignedDuration::ZERO);
        let mut all = journal(&[(1, YEAR, None), (1, YEAR + 60, Some(YEAR + 59))]);
        for offset in [None, same] {
            assert_eq!(clock(&all, offset), WrongClock::LikelyReader, "a local disk has the same clock");
        }
        all.created = Some(at(YEAR - 10));
        assert_eq!(clock(&all, same), WrongClock::LikelyReader);
        assert_eq!(future_dates(&all, EAST, at(100), None).unwrap().count, 4, "and when it was made");
        all.created = Some(at(50));
        assert_eq!(clock(&all, same), WrongClock::Writer, "when it was made this clock has passed");

        let two = journal(&[(1, 10, None), (1, YEAR, None), (2, YEAR + 60, Some(YEAR + 59))]);
        assert_eq!(clock(&two, same), WrongClock::LikelyReader, "two nodes agree against it");

        let made = JournalView { created: Some(at(YEAR)), ..journal(&[]) };
        let found = future_dates(&made, EAST, at(100), None).unwrap();
        assert_eq!((found.count, found.latest, found.clock), (1, at(YEAR), WrongClock::Unclear), "it may be amended");
    }
}
