//! The committed slots of a role, as its journal shows them. Pure.
//!
//! The invariant that lives here: a slot is committed because a record commits *it*, never because a record commits a
//! later one. A later commit closes older slots only once its own slot has come by this node's clock: their time is
//! over then, since the next slot has come. A commit for a slot in the future was written by a clock that is ahead, by
//! seconds or by years, and closes its own slot alone. A commit that an operator amended still closes its own slot, but
//! never counts as the newest one.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::clock_tolerance;
use crate::ids::ScheduleId;

/// The schedule of the last committed slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleInForce {
    /// The schedule's ID.
    pub id: ScheduleId,
    /// The first slot that was committed by this schedule; `None` if no record names another schedule before it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub since: Option<Timestamp>,
}

impl ScheduleInForce {
    /// The schedule in force after `slot` was committed by schedule `id`. Earlier versions did not record the ID.
    pub fn after(before: Option<Self>, id: Option<ScheduleId>, slot: Timestamp) -> Option<Self> {
        let Some(id) = id.filter(|id| before.is_none_or(|before| before.id != *id)) else { return before };
        Some(Self { id, since: before.map(|_| slot) })
    }
}

/// The committed slots, and what is known about when slots are owed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SlotCommits {
    /// Ascending, without duplicates. Shared, because every view of a journal passes it on.
    slots: Arc<[Timestamp]>,
    /// The slots of amended commits, ascending, without duplicates.
    amended: Arc<[Timestamp]>,
    created: Option<Timestamp>,
    schedule: Option<ScheduleInForce>,
    /// The date of the newest snapshot, whether or not it was for a slot.
    last_snapshot: Option<Timestamp>,
    /// Commits for slots before this one may be forgotten; `None` if all are remembered.
    oldest: Option<Timestamp>,
}

/// The slots ascending, without duplicates.
fn sorted(slots: impl IntoIterator<Item = Timestamp>) -> Arc<[Timestamp]> {
    let mut slots: Vec<Timestamp> = slots.into_iter().collect();
    slots.sort_unstable();
    slots.dedup();
    slots.into()
}

impl SlotCommits {
    /// These slots of a repository that was made at `created`; `None` if that is not known.
    pub fn new(slots: impl IntoIterator<Item = Timestamp>, created: Option<Timestamp>) -> Self {
        Self {
            slots: sorted(slots),
            amended: Arc::default(),
            created,
            schedule: None,
            last_snapshot: None,
            oldest: None,
        }
    }

    /// The same commits, with the schedule in force and the date of the newest snapshot.
    pub fn with_schedule(self, schedule: Option<ScheduleInForce>, last_snapshot: Option<Timestamp>) -> Self {
        Self { schedule, last_snapshot, ..self }
    }

    /// The same commits, with the slots of commits that an operator amended.
    pub fn with_amended(self, slots: impl IntoIterator<Item = Timestamp>) -> Self {
        Self { amended: sorted(slots), ..self }
    }

    /// The same commits, where those for slots before `oldest` may be forgotten.
    pub fn with_oldest(self, oldest: Option<Timestamp>) -> Self {
        Self { oldest, ..self }
    }

    /// The schedule of the last committed slot, if records name it.
    pub fn schedule(&self) -> Option<ScheduleInForce> {
        self.schedule
    }

    /// Whether no slot was ever committed, by a backup or by a command of `exec`.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty() && self.amended.is_empty()
    }

    /// Whether the role was backed up, but never for a slot: it had no schedule then.
    pub fn is_unscheduled(&self) -> bool {
        self.is_empty() && self.last_snapshot.is_some()
    }

    /// The date of the newest snapshot, whether or not it was for a slot.
    pub fn last_snapshot(&self) -> Option<Timestamp> {
        self.last_snapshot
    }

    /// When the repository was made. The role owes no slot from before.
    pub fn created(&self) -> Option<Timestamp> {
        self.created
    }

    /// The newest committed slot that has come.
    pub fn newest(&self, now: Timestamp) -> Option<Timestamp> {
        #[cfg(feature = "planted")]
        let now = match () {
            () if crate::planted::is(crate::planted::PlantedBug::LaterSlotCommits) => Timestamp::MAX,
            () if crate::planted::is(crate::planted::PlantedBug::NearSlotCommits) => {
                clock_tolerance::future_horizon(now)
            }
            () => now,
        };
        self.slots[..self.slots.partition_point(|slot| *slot <= now)].last().copied()
    }

    /// Whether a record commits exactly this slot.
    pub fn contains(&self, slot: Timestamp) -> bool {
        self.slots.binary_search(&slot).is_ok() || self.amended.binary_search(&slot).is_ok()
    }

    /// Whether no run may commit `slot` any more: it is committed, a later slot that has come is committed, or its
    /// commit may be forgotten.
    pub fn is_closed(&self, slot: Timestamp, now: Timestamp) -> bool {
        let is_forgotten = |oldest: Timestamp| slot < oldest && !clock_tolerance::is_in_future(oldest, now);
        self.contains(slot)
            || self.newest(now).is_some_and(|newest| newest >= slot)
            || self.oldest.is_some_and(is_forgotten)
    }

    /// The committed slots that lie in the future.
    pub fn in_future(&self, now: Timestamp) -> &[Timestamp] {
        let horizon = clock_tolerance::future_horizon(now);
        &self.slots[self.slots.partition_point(|slot| *slot <= horizon)..]
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;

    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute)
    }

    fn commits(minutes: &[i64]) -> SlotCommits {
        SlotCommits::new(minutes.iter().copied().map(at), None)
    }

    #[test]
    fn a_commit_from_beyond_the_present_closes_itself_alone() {
        let year = 365 * 24 * 60;
        let commits = commits(&[60, year, 120]);
        let now = at(200);
        assert_eq!(commits.newest(now), Some(at(120)));
        assert_eq!(commits.in_future(now), [at(year)]);
        for (slot, closed) in [(60, true), (90, true), (120, true), (180, false), (year, true), (year - 60, false)] {
            assert_eq!(commits.is_closed(at(slot), now), closed, "{slot}");
        }
        assert!(commits.is_closed(at(180), at(year)), "when its time has come it is as any other");
        assert_eq!(
            (commits.newest(at(0)), commits.in_future(at(115)).len()),
            (None, 1),
            "five minutes are the present"
        );
    }

    #[test]
    fn a_clock_that_is_ahead_by_less_than_is_told_closes_no_slot_but_its_own() {
        let commits = commits(&[60, 64]);
        for now in 60..64 {
            let closed: Vec<i64> = (58..70).filter(|slot| commits.is_closed(at(*slot), at(now))).collect();
            assert_eq!(closed, [58, 59, 60, 64], "at {now}");
            assert_eq!((commits.newest(at(now)), commits.in_future(at(now)).len()), (Some(at(60)), 0), "at {now}");
        }
        assert!(commits.is_closed(at(61), at(64)), "the next slot has come, so no node runs this one any more");
    }

    #[test]
    fn a_slot_whose_commit_may_be_forgotten_is_closed() {
        let commits = commits(&[60, 61]).with_oldest(Some(at(60)));
        assert!(commits.is_closed(at(59), at(59)) && !commits.is_closed(at(62), at(59)));
        assert!(!commits.is_closed(at(20), at(20)), "what lies beyond the present says nothing of it");
    }

    #[test]
    fn an_amended_commit_closes_its_own_slot_and_no_other() {
        let commits = commits(&[60]).with_amended([at(180), at(120)]);
        let now = at(500);
        assert_eq!((commits.newest(now), commits.in_future(at(0)).len()), (Some(at(60)), 1));
        for (slot, closed) in [(60, true), (90, false), (120, true), (150, false), (180, true), (240, false)] {
            assert_eq!(commits.is_closed(at(slot), now), closed, "{slot}");
        }
    }

    #[test]
    fn a_schedule_is_in_force_since_the_first_slot_that_another_one_did_not_commit() {
        let (old, new) = (ScheduleId([1; 8]), ScheduleId([2; 8]));
        let first = ScheduleInForce::after(None, Some(old), at(60));
        assert_eq!(first, Some(ScheduleInForce { id: old, since: None }));
        assert_eq!(ScheduleInForce::after(first, Some(old), at(120)), first);
        assert_eq!(ScheduleInForce::after(first, None, at(120)), first, "by a version that does not say");
        let second = ScheduleInForce::after(first, Some(new), at(180));
        assert_eq!(second, Some(ScheduleInForce { id: new, since: Some(at(180)) }));
        assert_eq!(ScheduleInForce::after(None, None, at(60)), None);
    }

    proptest! {
        /// The answers equal those of plain sets.
        #[test]
        fn it_is_what_the_set_says(minutes in prop::collection::vec(-500..500i64, 0..20), now in -600..600i64, slot in -500..500i64) {
            let commits = commits(&minutes);
            let newest = minutes.iter().filter(|minute| **minute <= now).max();
            prop_assert_eq!(commits.newest(at(now)), newest.copied().map(at));
            prop_assert_eq!(commits.contains(at(slot)), minutes.contains(&slot));
            let closed = minutes.contains(&slot) || newest.is_some_and(|newest| *newest >= slot);
            prop_assert_eq!(commits.is_closed(at(slot), at(now)), closed);
            prop_assert_eq!(commits.in_future(at(now)).iter().all(|at| clock_tolerance::is_in_future(*at, Timestamp::UNIX_EPOCH + SignedDuration::from_mins(now))), true);
        }
    }
}
