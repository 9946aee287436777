//! What a journal dates beyond the present, and which clock is to blame for it. Pure.
//!
//! Such a record was written by a node whose clock was ahead, or is read by one whose clock is behind. It is an anomaly and is said to
//! be one; it closes no slot but its own, counts for no retention, and keeps no run from starting.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use crate::ids::{NodeId, Seq};
use crate::journal::record::NodeRef;
use crate::journal::state::{State, View};
use crate::role::present::{self, is_beyond};

/// What is dated beyond the present.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FutureDates {
    /// How many records, slots of which no record is known any more, and the making of the repository.
    pub count: u64,
    /// The latest date of them.
    pub latest: Timestamp,
    /// The node that wrote that one, where it is known.
    pub node: Option<NodeRef>,
    /// Which clock is to blame.
    pub clock: WrongClock,
}

/// Which clock is, or was, wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WrongClock {
    /// The writer's, when it wrote: the store's clock agrees with this node's, or another node has written later with a date of the present.
    Writer,
    /// This node's, now: the store's clock says so.
    Reader,
    /// This node's, most likely: nothing that was recorded is dated by it, or several nodes agree against it.
    LikelyReader,
    /// One of the two; nothing tells which.
    Unclear,
}

/// One dated thing of a state.
struct Dated<'a> {
    seq: Seq,
    node: &'a NodeRef,
    latest: Timestamp,
}

/// Looks at what `view` dates, as node `reader` at `now`, whose store's clock is `clock_offset` ahead of its own, where that is known.
pub fn future_dates(
    view: &View,
    reader: NodeId,
    now: Timestamp,
    clock_offset: Option<SignedDuration>,
) -> Option<FutureDates> {
    let dated: Vec<Dated<'_>> = dated(view).collect();
    let records: BTreeMap<Seq, &Dated<'_>> =
        dated.iter().filter(|dated| is_beyond(dated.latest, now)).map(|dated| (dated.seq, dated)).collect();
    let lone = lone_slots(&view.state, now);
    let newest = records.values().max_by_key(|dated| dated.latest);
    let made = view.born().filter(|made| is_beyond(*made, now));
    let latest = newest.map(|dated| dated.latest).max(lone.last().copied()).max(made)?;
    let node = newest.filter(|dated| dated.latest == latest).map(|dated| dated.node.clone());
    let after = records.keys().next_back().copied();
    let vouched = |dated: &Dated<'_>| {
        dated.node.id != reader && after.is_some_and(|after| dated.seq > after) && !is_beyond(dated.latest, now)
    };
    let is_vouched = dated.iter().any(vouched);
    let nodes: BTreeSet<NodeId> = records.values().map(|dated| dated.node.id).collect();
    // A clock that is alone against all that was ever recorded, or against two others, is the odd one. A store on a disk of this node
    // agrees with it whatever it says.
    let is_against_all = (!records.is_empty() || !lone.is_empty())
        && dated.iter().all(|dated| is_beyond(dated.latest, now))
        && view.born().is_none_or(|made| is_beyond(made, now));
    let clock = match clock_offset {
        Some(offset) if present::is_off(offset) => WrongClock::Reader,
        _ if is_against_all || nodes.len() > 1 && !is_vouched => WrongClock::LikelyReader,
        Some(_) => WrongClock::Writer,
        None if is_vouched => WrongClock::Writer,
        None => WrongClock::Unclear,
    };
    Some(FutureDates { count: (records.len() + lone.len() + usize::from(made.is_some())) as u64, latest, node, clock })
}

/// What `view` still knows that is dated beyond `now`: the latest instant that each names, and the node where a record tells it. A slot of
/// which no record is known any more has none.
pub fn dates_beyond(view: &View, now: Timestamp) -> Vec<(Timestamp, Option<NodeRef>)> {
    let records: BTreeMap<Seq, Dated<'_>> =
        dated(view).filter(|dated| is_beyond(dated.latest, now)).map(|dated| (dated.seq, dated)).collect();
    let of_records = records.into_values().map(|dated| (dated.latest, Some(dated.node.clone())));
    of_records.chain(lone_slots(&view.state, now).into_iter().map(|slot| (slot, None))).collect()
}

/// Whether a record that `view` still knows is dated in the present or before.
pub fn is_anything_dated_by(view: &View, now: Timestamp) -> bool {
    dated(view).any(|dated| !is_beyond(dated.latest, now))
}

/// Every record that a view still knows with a date.
fn dated(view: &View) -> impl Iterator<Item = Dated<'_>> {
    let snapshots = view.state.snapshots.iter().map(|snapshot| Dated {
        seq: snapshot.seq,
        node: &snapshot.node,
        latest: snapshot.slot.map_or(snapshot.time, |slot| slot.max(snapshot.time)),
    });
    let holder = view.state.holder.iter().map(|h| Dated { seq: h.seq, node: &h.node, latest: h.time });
    let head = view.head.iter().map(|head| Dated { seq: head.seq, node: &head.node, latest: head.time });
    // The newest last: of a snapshot that is the head its slot counts.
    head.chain(holder).chain(snapshots)
}

/// Committed slots beyond the present that no live snapshot has, ascending.
fn lone_slots(state: &State, now: Timestamp) -> Vec<Timestamp> {
    let live = |slot: &Timestamp| state.snapshots.iter().any(|snapshot| snapshot.slot == Some(*slot));
    let mut slots: Vec<Timestamp> = state.slots().filter(|slot| is_beyond(*slot, now) && !live(slot)).collect();
    slots.sort_unstable();
    slots.dedup();
    slots
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Digest;
    use crate::journal::record::{Body, EndBody};
    use crate::journal::state::tests::{empty, next, takeover};

    fn at(minute: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
    }

    const YEAR: i64 = 365 * 24 * 60;
    const EAST: NodeId = NodeId([1; 16]);
    const WEST: NodeId = NodeId([2; 16]);

    /// A journal of these records: by whom, when, and the slot of a command's good end, else it is a takeover.
    fn journal(records: &[(u8, i64, Option<i64>)]) -> View {
        let mut view = empty();
        for (by, time, slot) in records {
            let end = Body::End(EndBody { exit: 0, duration_ms: 1, ..EndBody::default() });
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
        let of = |view: &View, reader, offset| {
            let found = future_dates(view, reader, at(100), offset).unwrap();
            (found.count, found.latest, found.node.map(|node| node.id), found.clock)
        };
        assert_eq!(of(&poisoned, WEST, None), (2, at(YEAR), Some(EAST), WrongClock::Unclear));
        assert_eq!(of(&poisoned, WEST, none).3, WrongClock::Writer, "the store agrees with the reader");
        let behind = Some(SignedDuration::from_hours(9000));
        assert_eq!(of(&poisoned, WEST, behind).3, WrongClock::Reader);

        // The record is gone from the view, its slot is not.
        let later = journal(&[(1, 10, None), (1, YEAR, Some(YEAR - 1)), (1, 90, Some(80))]);
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

    #[test]
    fn a_clock_that_is_alone_against_the_history_is_the_odd_one() {
        let clock = |view: &View, offset| future_dates(view, EAST, at(100), offset).unwrap().clock;
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

        let made = View { created: Some(at(YEAR)), ..journal(&[]) };
        let found = future_dates(&made, EAST, at(100), None).unwrap();
        assert_eq!((found.count, found.latest, found.clock), (1, at(YEAR), WrongClock::Unclear), "it may be amended");
    }
}
