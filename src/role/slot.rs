//! Slots: the scheduled instants of a role, in UTC. Every node computes the same ones from the same config, so that
//! "this slot is committed" means the same everywhere.
//!
//! A cron line is meant in a named zone. It is stepped through on the civil calendar, where every day has 24 hours, and
//! only then brought to UTC: a civil time that a transition skips becomes the instant as much later as the clocks
//! jumped, a civil time that happens twice is its first instant, and two civil times on one instant are one slot.
//! croner's own handling of transitions is not used: it depends on how the line is written (a line with `*` runs
//! through both passes of a repeated hour, one with numbers does not), and stepping backwards has to find exactly what
//! stepping forwards found.
//!
//! Pure.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::clock_tolerance;
use super::slot_commits::SlotCommits;
use crate::config::value::{self, ValueError};
use crate::config::{RoleSettings, Schedule};
use crate::ids::{RoleName, ScheduleId};

/// The most slots that one answer lists. A role that missed more is reported with "and more".
pub const MISSED_MAX: usize = 1000;

/// One scheduled instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// The instant that the schedule names. It is the slot's identity, and what the journal records.
    pub at: Timestamp,
    /// When this role starts on the slot: `at` plus the role's own jitter.
    pub starts: Timestamp,
}

/// A role's schedule in a zone, with the methods that find its slots.
///
/// ```
/// use jiff::{Timestamp, tz::TimeZone};
/// use runner::config::{KeySource, RoleSettings, Schedule};
/// use runner::role::slot::SlotSchedule;
///
/// let mut role = RoleSettings::new("app".parse()?, KeySource::None, vec!["/srv/app".into()]);
/// role.schedule = Some(Schedule::Cron("30 2 * * *".to_owned()));
/// let schedule = SlotSchedule::new(&role, &TimeZone::UTC)?.ok_or("it has a schedule")?;
/// let now: Timestamp = "2026-03-29T12:00:00Z".parse()?;
/// let due = schedule.due(now).ok_or("a slot is due")?;
/// assert_eq!(due.at, "2026-03-29T02:30:00Z".parse()?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
pub struct SlotSchedule {
    rule: ScheduleRule,
    zone: TimeZone,
    offset: SignedDuration,
    missed_after: SignedDuration,
    id: ScheduleId,
    /// When this node first saw this schedule, if it remembers.
    seen_at: Option<Timestamp>,
}

#[derive(Debug, Clone)]
enum ScheduleRule {
    Cron(Box<croner::Cron>),
    /// The interval in seconds.
    Every(i64),
}

/// The status of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotStatus {
    /// The slot is committed, or a later slot that has come is.
    Committed,
    /// A run for the slot may still begin.
    Open {
        /// The end of that time.
        until: Timestamp,
    },
    /// No run began on the slot in time.
    NotStarted,
    /// A run began, but the next slot came before a commit.
    NotFinished,
}

/// The slots since the last committed one that can no longer be committed in time.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MissedSlots {
    /// Ascending, at most [`MISSED_MAX`].
    pub slots: Vec<Slot>,
    /// There are more missed slots than the list shows.
    pub more: bool,
}

/// How far around a transition the offsets of a zone are compared. The largest real jump is a day (Samoa left out
/// 2011-12-30).
const AROUND: SignedDuration = SignedDuration::from_hours(48);

impl SlotSchedule {
    /// The role's schedule; `None` for a role that is only backed up by hand.
    ///
    /// # Errors
    /// The cron line does not parse. The config's check has refused such a line already.
    pub fn new(role: &RoleSettings, zone: &TimeZone) -> Result<Option<Self>, ValueError> {
        let Some(schedule) = &role.schedule else { return Ok(None) };
        let rule = match schedule {
            Schedule::Cron(line) => ScheduleRule::Cron(Box::new(value::cron(line)?)),
            // At least one second: with zero every instant would be a slot.
            Schedule::Every(every) => ScheduleRule::Every(i64::try_from(every.as_secs()).unwrap_or(i64::MAX).max(1)),
        };
        Ok(Some(Self {
            rule,
            zone: zone.clone(),
            offset: signed_duration(jitter_offset(&role.name, role.jitter)),
            missed_after: signed_duration(role.missed_after),
            id: schedule_id(schedule, zone),
            seen_at: None,
        }))
    }

    /// The same schedule, first seen by this node at `at`. The date must not move while the schedule stays: if it
    /// moves, every slot before it is excused.
    pub fn with_first_seen(self, at: Option<Timestamp>) -> Self {
        Self { seen_at: at, ..self }
    }

    /// The ID of this schedule. Slots that were committed by another schedule do not tell which slots this one is owed.
    pub fn id(&self) -> ScheduleId {
        self.id
    }

    /// The latest slot that has started; `None` only at the ends of the calendar.
    pub fn due(&self, now: Timestamp) -> Option<Slot> {
        self.latest(now.checked_sub(self.offset).ok()?).and_then(|at| self.slot(at))
    }

    /// The earliest slot that has not started yet.
    pub fn next(&self, now: Timestamp) -> Option<Slot> {
        self.earliest(now.checked_sub(self.offset).ok()?).and_then(|at| self.slot(at))
    }

    /// The slot after `slot`.
    pub fn following(&self, slot: Slot) -> Option<Slot> {
        self.earliest(slot.at).and_then(|at| self.slot(at))
    }

    /// The slot before `slot`.
    pub fn preceding(&self, slot: Slot) -> Option<Slot> {
        let before = slot.at.checked_sub(SignedDuration::from_nanos(1)).ok()?;
        self.latest(before).and_then(|at| self.slot(at))
    }

    /// The slot at exactly this instant, if the schedule has one there.
    pub fn slot_at(&self, at: Timestamp) -> Option<Slot> {
        self.latest(at).filter(|found| *found == at).and_then(|at| self.slot(at))
    }

    /// The earliest slot at this instant or after it, started or not.
    pub fn slot_at_or_after(&self, at: Timestamp) -> Option<Slot> {
        self.slot_at(at).or_else(|| self.earliest(at).and_then(|at| self.slot(at)))
    }

    /// The due slot, unless it is closed: what a scheduled run would do now.
    pub fn pending(&self, commits: &SlotCommits, now: Timestamp) -> Option<Slot> {
        self.due(now).filter(|slot| !self.is_closed(*slot, commits, now))
    }

    /// The newest committed slot that has started.
    fn newest(&self, commits: &SlotCommits, now: Timestamp) -> Option<Timestamp> {
        commits.newest(now.checked_sub(self.offset).ok()?)
    }

    /// Whether no run may commit the slot any more.
    fn is_closed(&self, slot: Slot, commits: &SlotCommits, now: Timestamp) -> bool {
        commits.is_closed(slot.at, now.checked_sub(self.offset).unwrap_or(Timestamp::MIN))
    }

    /// The first slot that is owed and not closed, once it has started. If the instant since which slots are owed is
    /// not known, a role that never committed a slot waits for the due one.
    pub fn first_waiting(&self, commits: &SlotCommits, now: Timestamp) -> Option<Slot> {
        match self.first_owed(commits, now) {
            Some(slot) => Some(slot).filter(|slot| slot.starts <= now),
            None => self.due(now),
        }
    }

    /// The first slot that can be missed: after the newest committed one, and not before the role existed. `None` if
    /// the instant since which slots are owed is not known.
    fn first_owed(&self, commits: &SlotCommits, now: Timestamp) -> Option<Slot> {
        let after = self.newest(commits, now).and_then(|at| self.earliest(at)).and_then(|at| self.slot(at));
        after.max(self.owed_after(commits, now).and_then(|at| self.next(at)))
    }

    /// The instant after which slots of this schedule are owed, if it is known. Slots before the role existed, or
    /// before it had this schedule, are not owed.
    pub fn owed_after(&self, commits: &SlotCommits, now: Timestamp) -> Option<Timestamp> {
        // A date in the future says nothing.
        let sound = |at: Option<Timestamp>| at.filter(|at| !clock_tolerance::is_in_future(*at, now));
        let (seen_at, newest) = (sound(self.seen_at), self.newest(commits, now));
        let changed = match (commits.schedule(), newest) {
            (Some(last), _) if last.id == self.id => None,
            // The schedule was changed since the last commit; only a node that saw it before knows when.
            (Some(_), _) => seen_at.max(newest),
            (None, Some(at)) if self.slot_at(at).is_none() => seen_at.max(newest),
            (None, None) if commits.is_unscheduled() => seen_at.or(sound(commits.last_snapshot())),
            (None, _) => None,
        };
        let created = sound(commits.created());
        let lost = commits.created().is_some() && created.is_none() && newest.is_none() && changed.is_none();
        if lost {
            // The role exists, but its date of origin is wrong. At least the slot whose time is over is owed.
            return seen_at.or_else(|| self.before_last_expired(now));
        }
        created.max(changed)
    }

    /// The instant before the start of the newest slot whose time is certainly over.
    fn before_last_expired(&self, now: Timestamp) -> Option<Timestamp> {
        let over = self.preceding(self.due(now)?)?;
        over.starts.checked_sub(SignedDuration::from_nanos(1)).ok()
    }

    /// The status of `slot`. `started`: a run for it is under way.
    pub fn slot_status(&self, slot: Slot, commits: &SlotCommits, started: bool, now: Timestamp) -> SlotStatus {
        if self.is_closed(slot, commits, now) {
            return SlotStatus::Committed;
        }
        let next = self.end(slot);
        let start_by = self.start_before(slot, next);
        if now >= next {
            return if started { SlotStatus::NotFinished } else { SlotStatus::NotStarted };
        }
        match (started, now > start_by) {
            (false, true) => SlotStatus::NotStarted,
            (false, false) => SlotStatus::Open { until: start_by },
            (true, _) => SlotStatus::Open { until: next },
        }
    }

    /// The latest instant at which a run for this slot may begin.
    pub fn start_by(&self, slot: Slot) -> Timestamp {
        self.start_before(slot, self.end(slot))
    }

    /// When the next slot starts.
    fn end(&self, slot: Slot) -> Timestamp {
        self.following(slot).map_or(Timestamp::MAX, |next| next.starts)
    }

    fn start_before(&self, slot: Slot, next: Timestamp) -> Timestamp {
        slot.starts.saturating_add(self.missed_after).map_or(Timestamp::MAX, |at| at.min(next))
    }

    /// Everything missed since the newest committed slot that has come, or since the role exists: a role that never
    /// committed a slot has missed all slots since then. If that is not known either, nothing counts as missed.
    /// `running`: the slots for which a run is under way.
    pub fn missed(&self, commits: &SlotCommits, running: &[Timestamp], now: Timestamp) -> MissedSlots {
        self.missed_except(commits, running, now, |_| None)
    }

    /// The missed slots without the excused ones. `excuse` returns, for a slot, the instant until which every slot is
    /// excused. Excused slots are left out before the list is cut.
    pub fn missed_except(
        &self,
        commits: &SlotCommits,
        running: &[Timestamp],
        now: Timestamp,
        excuse: impl Fn(Slot) -> Option<Timestamp>,
    ) -> MissedSlots {
        let mut missed = MissedSlots::default();
        let mut slot = self.first_owed(commits, now);
        while let Some(this) = slot.filter(|slot| slot.starts <= now) {
            if let Some(until) = excuse(this) {
                // A slot is excused if the slot after it starts before `until`.
                let last = self.due(until.min(now)).and_then(|last| self.preceding(last));
                slot = last.filter(|last| last.at > this.at).or_else(|| self.following(this));
                continue;
            }
            let standing = self.slot_status(this, commits, running.contains(&this.at), now);
            if matches!(standing, SlotStatus::NotStarted | SlotStatus::NotFinished) {
                if missed.slots.len() == MISSED_MAX {
                    missed.more = true;
                    break;
                }
                missed.slots.push(this);
            }
            slot = self.following(this);
        }
        missed
    }

    fn slot(&self, at: Timestamp) -> Option<Slot> {
        Some(Slot { at, starts: at.checked_add(self.offset).ok()? })
    }

    /// The latest slot instant that is not after `now`.
    fn latest(&self, now: Timestamp) -> Option<Timestamp> {
        let cron = match &self.rule {
            ScheduleRule::Every(every) => {
                return Timestamp::from_second(epoch_second(now).div_euclid(*every) * every).ok();
            }
            ScheduleRule::Cron(cron) => cron,
        };
        // Near a transition the order of civil times is not the order of instants; they differ by as much as the clocks
        // jump. So the search begins that much later, and continues that much further after the first match.
        let start = self.civil(now).checked_add(self.jump(now)).ok()?;
        let mut civil = cron.find_previous_occurrence(&start, true).ok()?;
        let mut best: Option<(Timestamp, DateTime)> = None;
        loop {
            let at = self.instant(civil)?;
            if at <= now {
                let floor = match best {
                    Some((_, floor)) => floor,
                    None => civil.checked_sub(self.jump(at)).ok()?,
                };
                best = Some((best.map_or(at, |(best, _)| best.max(at)), floor));
            }
            let Ok(before) = cron.find_previous_occurrence(&civil, false) else { break };
            if best.is_some_and(|(_, floor)| before < floor) {
                break;
            }
            civil = before;
        }
        best.map(|(at, _)| at)
    }

    /// The earliest slot instant that is after `now`. The mirror image of [`SlotSchedule::latest`].
    fn earliest(&self, now: Timestamp) -> Option<Timestamp> {
        let cron = match &self.rule {
            ScheduleRule::Every(every) => {
                return Timestamp::from_second((epoch_second(now).div_euclid(*every) + 1).checked_mul(*every)?).ok();
            }
            ScheduleRule::Cron(cron) => cron,
        };
        let start = self.civil(now).checked_sub(self.jump(now)).ok()?;
        let mut civil = cron.find_next_occurrence(&start, true).ok()?;
        let mut best: Option<(Timestamp, DateTime)> = None;
        loop {
            let at = self.instant(civil)?;
            if at > now {
                let ceiling = match best {
                    Some((_, ceiling)) => ceiling,
                    None => civil.checked_add(self.jump(at)).ok()?,
                };
                best = Some((best.map_or(at, |(best, _)| best.min(at)), ceiling));
            }
            let Ok(after) = cron.find_next_occurrence(&civil, false) else { break };
            if best.is_some_and(|(_, ceiling)| after > ceiling) {
                break;
            }
            civil = after;
        }
        best.map(|(at, _)| at)
    }

    fn civil(&self, at: Timestamp) -> DateTime {
        self.zone.to_datetime(at)
    }

    /// The instant of a civil time. A skipped time moves on by the jump; of a repeated time the first instant counts
    /// (RFC 5545 reads local times the same way).
    fn instant(&self, civil: DateTime) -> Option<Timestamp> {
        self.zone.to_ambiguous_timestamp(civil).compatible().ok()
    }

    /// How far the clocks jump around `at`: zero on nearly all days.
    fn jump(&self, at: Timestamp) -> SignedDuration {
        let from = at.saturating_sub(AROUND).unwrap_or(Timestamp::MIN);
        let to = at.saturating_add(AROUND).unwrap_or(Timestamp::MAX);
        let first = self.zone.to_offset(from).seconds();
        let (mut low, mut high) = (first, first);
        for transition in self.zone.following(from).take_while(|t| t.timestamp() <= to) {
            low = low.min(transition.offset().seconds());
            high = high.max(transition.offset().seconds());
        }
        SignedDuration::from_secs(i64::from(high) - i64::from(low))
    }
}

/// The role's own jitter: the same on every node, always less than `jitter`, in whole seconds.
pub fn jitter_offset(role: &RoleName, jitter: Duration) -> Duration {
    let hash = blake3::derive_key("runner 2026 slot jitter of a role", role.as_str().as_bytes());
    let word = u64::from_le_bytes(hash[..8].try_into().expect("8 of 32 bytes"));
    // The high half of the product spreads evenly over 0..jitter, without a remainder's bias.
    Duration::from_secs(((u128::from(word) * u128::from(jitter.as_secs())) >> 64) as u64)
}

/// The ID of a schedule: a hash of everything that its slots follow from.
fn schedule_id(schedule: &Schedule, zone: &TimeZone) -> ScheduleId {
    let text = match schedule {
        // The zone's name is that of the config, which is an IANA name.
        Schedule::Cron(line) => format!("cron {line} in {}", zone.iana_name().unwrap_or("UTC")),
        Schedule::Every(every) => format!("every {} s", every.as_secs()),
    };
    let hash = blake3::derive_key("runner 2026 schedule of a role", text.as_bytes());
    ScheduleId(hash[..8].try_into().expect("8 of 32 bytes"))
}

/// The whole second that `at` is in. Before 1970 [`Timestamp::as_second`] gives the second after it.
fn epoch_second(at: Timestamp) -> i64 {
    at.as_second() - i64::from(at.subsec_nanosecond() < 0)
}

fn signed_duration(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    mod model;

    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::role::slot_commits::ScheduleInForce;

    fn plan_of(rule: ScheduleRule, zone: &str) -> SlotSchedule {
        SlotSchedule {
            rule,
            zone: TimeZone::get(zone).unwrap(),
            offset: SignedDuration::ZERO,
            missed_after: SignedDuration::from_mins(30),
            id: ScheduleId([1; 8]),
            seen_at: None,
        }
    }

    fn cron(line: &str, zone: &str) -> SlotSchedule {
        plan_of(ScheduleRule::Cron(Box::new(value::cron(line).unwrap())), zone)
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn commits<const N: usize>(slots: [&str; N]) -> SlotCommits {
        SlotCommits::new(slots.map(at), None)
    }

    /// `count` slots from `from` on, each found as the next of the previous one.
    fn walk(plan: &SlotSchedule, from: &str, count: usize) -> Vec<String> {
        let mut slots = Vec::new();
        let mut now = at(from);
        for _ in 0..count {
            now = plan.next(now).unwrap().at;
            slots.push(now.to_string());
        }
        slots
    }

    #[test]
    fn a_skipped_time_runs_once_as_much_later() {
        // Berlin, 2026-03-29: 02:00 CET becomes 03:00 CEST.
        assert_eq!(
            walk(&cron("30 2 * * *", "Europe/Berlin"), "2026-03-27T12:00:00Z", 3),
            ["2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]
        );
        // Hourly: 02:30 moves onto 03:30, and that is one slot, not two.
        assert_eq!(
            walk(&cron("30 * * * *", "Europe/Berlin"), "2026-03-29T00:00:00Z", 3),
            ["2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z", "2026-03-29T02:30:00Z"]
        );
    }

    #[test]
    fn a_repeated_time_runs_once() {
        // Berlin, 2026-10-25: 03:00 CEST becomes 02:00 CET.
        assert_eq!(
            walk(&cron("30 2 * * *", "Europe/Berlin"), "2026-10-23T12:00:00Z", 3),
            ["2026-10-24T00:30:00Z", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]
        );
        assert_eq!(
            walk(&cron("0 * * * *", "Europe/Berlin"), "2026-10-24T23:30:00Z", 3),
            ["2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z", "2026-10-25T03:00:00Z"],
            "each civil hour once: `every` gives even distances"
        );
    }

    #[test]
    fn half_hours_and_whole_days_are_skipped_too() {
        // Lord Howe, 2026-10-04: 02:00 +10:30 becomes 02:30 +11. The moved 02:20 comes after the plain 02:35.
        assert_eq!(
            walk(&cron("20,35 2 * * *", "Australia/Lord_Howe"), "2026-10-03T00:00:00Z", 4),
            ["2026-10-03T15:35:00Z", "2026-10-03T15:50:00Z", "2026-10-04T15:20:00Z", "2026-10-04T15:35:00Z"]
        );
        // Samoa left out 2011-12-30. The two days' slots fall onto one instant.
        assert_eq!(
            walk(&cron("0 1 * * *", "Pacific/Apia"), "2011-12-29T00:00:00Z", 3),
            ["2011-12-29T11:00:00Z", "2011-12-30T11:00:00Z", "2011-12-31T11:00:00Z"]
        );
    }

    #[test]
    fn every_counts_from_the_epoch() {
        let plan = plan_of(ScheduleRule::Every(3600), "Europe/Berlin");
        assert_eq!(plan.due(at("2026-10-25T01:59:59.9Z")).unwrap().at, at("2026-10-25T01:00:00Z"));
        assert_eq!(plan.next(at("2026-10-25T01:00:00Z")).unwrap().at, at("2026-10-25T02:00:00Z"));
        assert_eq!(plan.due(at("1969-12-31T23:30:00Z")).unwrap().at, at("1969-12-31T23:00:00Z"));
        assert_eq!(plan.due(at("1969-12-31T22:59:59.9Z")).unwrap().at, at("1969-12-31T22:00:00Z"));
        assert_eq!(plan.next(at("1969-12-31T22:59:59.9Z")).unwrap().at, at("1969-12-31T23:00:00Z"));
        let plan = plan_of(ScheduleRule::Every(5400), "UTC");
        assert_eq!(plan.due(at("1970-01-01T04:00:00Z")).unwrap().at, at("1970-01-01T03:00:00Z"));
    }

    #[test]
    fn a_slot_is_due_until_the_next_one_starts() {
        let mut plan = cron("0 1 * * *", "UTC");
        plan.offset = SignedDuration::from_mins(4);
        let slot = plan.due(at("2026-11-20T01:04:00Z")).unwrap();
        assert_eq!(slot, Slot { at: at("2026-11-20T01:00:00Z"), starts: at("2026-11-20T01:04:00Z") });
        assert_eq!(plan.due(at("2026-11-20T01:03:59Z")).unwrap().at, at("2026-11-19T01:00:00Z"));
        assert_eq!(plan.next(at("2026-11-20T01:03:59Z")), Some(slot));
        assert_eq!(plan.due(at("2026-11-21T01:03:59Z")), Some(slot));

        let now = at("2026-11-20T09:00:00Z");
        assert_eq!(plan.pending(&commits([]), now), Some(slot));
        assert_eq!(plan.pending(&commits(["2026-11-19T01:00:00Z"]), now), Some(slot));
        assert_eq!(plan.pending(&commits(["2026-11-20T01:00:00Z"]), now), None);
        let ahead = commits(["2026-11-20T09:04:00Z"]);
        assert_eq!(plan.pending(&ahead, now), Some(slot), "a later one, by a clock that was a little ahead");
        assert_eq!(plan.pending(&ahead, at("2026-11-20T09:08:00Z")), None, "it has come");
        let poisoned = commits(["2026-11-19T01:00:00Z", "2028-11-21T01:00:00Z"]);
        assert_eq!(plan.pending(&poisoned, now), Some(slot), "a clock that was years ahead stops no schedule");
        assert_eq!(plan.pending(&poisoned, at("2028-11-21T09:00:00Z")), None, "that slot is committed all the same");
    }

    #[test]
    fn a_commit_by_a_clock_that_is_a_little_ahead_hides_no_slot_before_it() {
        let mut plan = plan_of(ScheduleRule::Every(60), "UTC");
        for jitter in [0, 20] {
            plan.offset = SignedDuration::from_secs(jitter);
            let commits = commits(["2026-11-20T11:59:00Z", "2026-11-20T12:04:00Z"]);
            let after = |seconds| at("2026-11-20T12:00:00Z") + SignedDuration::from_secs(jitter + seconds);
            for minute in 0..4 {
                let slot = plan.due(after(60 * minute)).unwrap();
                assert_eq!(plan.pending(&commits, after(60 * minute)), Some(slot), "minute {minute}");
                assert_eq!(plan.first_waiting(&commits, after(60 * minute)), plan.due(after(0)));
                let missed = plan.missed(&commits, &[], after(60 * minute)).slots;
                assert_eq!(missed.len() as i64, minute, "those before it are over: {missed:?}");
            }
            let due = plan.due(after(240)).map(|slot| slot.at);
            assert_eq!((due, plan.pending(&commits, after(240))), (Some(at("2026-11-20T12:04:00Z")), None));
        }
    }

    #[test]
    fn a_slot_must_start_in_time_and_end_before_the_next() {
        let plan = cron("0 1 * * *", "UTC");
        let slot = plan.due(at("2026-11-20T01:00:00Z")).unwrap();
        let before = commits(["2026-11-19T01:00:00Z", "2028-11-19T01:00:00Z"]);
        let standing = |started, now| plan.slot_status(slot, &before, started, at(now));
        assert_eq!(standing(false, "2026-11-20T01:30:00Z"), SlotStatus::Open { until: at("2026-11-20T01:30:00Z") });
        assert_eq!(standing(false, "2026-11-20T01:30:01Z"), SlotStatus::NotStarted);
        assert_eq!(standing(true, "2026-11-20T23:00:00Z"), SlotStatus::Open { until: at("2026-11-21T01:00:00Z") });
        assert_eq!(standing(true, "2026-11-21T01:00:00Z"), SlotStatus::NotFinished);
        assert_eq!(
            plan.slot_status(slot, &commits(["2026-11-20T01:00:00Z"]), false, at("2026-11-21T01:00:00Z")),
            SlotStatus::Committed
        );
    }

    #[test]
    fn missed_slots_are_listed_and_the_list_is_bounded() {
        let plan = cron("0 1 * * *", "UTC");
        let committed = commits(["2026-11-17T01:00:00Z"]);
        let missed = |running: Option<_>, now| plan.missed(&committed, running.as_slice(), at(now));
        assert_eq!(missed(None, "2026-11-18T01:10:00Z"), MissedSlots::default());
        let days: Vec<Timestamp> = missed(None, "2026-11-20T01:10:00Z").slots.iter().map(|s| s.at).collect();
        assert_eq!(days, [at("2026-11-18T01:00:00Z"), at("2026-11-19T01:00:00Z")], "today's has until 01:30");
        assert_eq!(missed(None, "2026-11-20T02:00:00Z").slots.len(), 3);
        assert_eq!(missed(Some(at("2026-11-20T01:00:00Z")), "2026-11-20T02:00:00Z").slots.len(), 2);
        assert_eq!(plan.missed(&commits([]), &[], at("2026-11-20T02:00:00Z")), MissedSlots::default());
        let all = missed(None, "2046-11-20T02:00:00Z");
        assert_eq!((all.slots.len(), all.more), (MISSED_MAX, true));
    }

    #[test]
    fn no_slot_is_owed_from_before_the_role_existed() {
        let plan = cron("0 1 * * *", "UTC");
        let made =
            |slots: &[&str]| SlotCommits::new(slots.iter().map(|slot| at(slot)), Some(at("2026-11-18T14:00:00Z")));
        let missed = |slots: &[&str], now| plan.missed(&made(slots), &[], at(now)).slots.len();
        assert_eq!(missed(&[], "2026-11-18T23:00:00Z"), 0, "the first day owes nothing");
        assert_eq!(missed(&[], "2026-11-19T01:30:00Z"), 0, "there is still time");
        assert_eq!(missed(&[], "2026-11-19T01:31:00Z"), 1, "a role that never committed one has missed it");
        assert_eq!(
            missed(&["2026-11-18T01:00:00Z"], "2026-11-19T01:31:00Z"),
            1,
            "the slot of that morning was run late"
        );
        assert_eq!(missed(&["2026-11-19T01:00:00Z"], "2026-11-20T01:31:00Z"), 1);
        assert_eq!(
            missed(&["2028-11-19T01:00:00Z"], "2026-11-20T01:31:00Z"),
            2,
            "a wrong clock's commit makes nothing good"
        );
        assert_eq!(plan.first_waiting(&made(&[]), at("2026-11-18T23:00:00Z")), None);
        assert_eq!(plan.first_waiting(&made(&[]), at("2026-11-20T23:00:00Z")).unwrap().at, at("2026-11-19T01:00:00Z"));
        let wrong = SlotCommits::new([], Some(at("2028-11-18T14:00:00Z")));
        let days = |plan: &SlotSchedule, now| -> Vec<Timestamp> {
            plan.missed(&wrong, &[], at(now)).slots.iter().map(|slot| slot.at).collect()
        };
        assert_eq!(
            days(&plan, "2026-11-20T01:10:00Z"),
            [at("2026-11-19T01:00:00Z")],
            "a wrong date of origin excuses nothing whose time is over"
        );
        assert_eq!(days(&plan, "2026-11-20T02:00:00Z").len(), 2);
        let seen = plan.clone().with_first_seen(Some(at("2026-11-10T14:00:00Z")));
        assert_eq!(days(&seen, "2026-11-20T02:00:00Z").len(), 10, "since this node saw it first");
        assert_eq!(days(&seen.with_first_seen(Some(at("2028-11-10T14:00:00Z"))), "2026-11-20T02:00:00Z").len(), 2);
    }

    #[test]
    fn a_schedule_owes_nothing_from_before_it_was_in_force() {
        let minutely = cron("* * * * *", "UTC").with_first_seen(Some(at("2026-11-20T12:00:30Z")));
        let weekly = ScheduleInForce { id: ScheduleId([9; 8]), since: None };
        let last = at("2026-11-15T01:00:00Z");
        let commits = |schedule| SlotCommits::new([last], None).with_schedule(schedule, Some(last));
        let missed = |plan: &SlotSchedule, schedule, now| plan.missed(&commits(schedule), &[], at(now)).slots.len();
        assert_eq!(missed(&minutely, Some(weekly), "2026-11-20T12:00:59Z"), 0, "not those of the week before");
        assert_eq!(missed(&minutely, Some(weekly), "2026-11-20T12:10:30Z"), 9, "those since then");
        for seen_at in [None, Some(at("2028-01-01T00:00:00Z"))] {
            let unknown = minutely.clone().with_first_seen(seen_at);
            assert_eq!(missed(&unknown, Some(weekly), "2026-11-15T01:10:30Z"), 9, "no date: since the last commit");
        }
        let same = ScheduleInForce { id: minutely.id, ..weekly };
        assert_eq!(
            missed(&minutely, Some(same), "2026-11-15T01:10:30Z"),
            9,
            "a config that is written anew excuses nothing"
        );
        assert_eq!(missed(&minutely, None, "2026-11-15T01:10:30Z"), 9, "records of an older version do not say");

        // The role was backed up by hand for a year, then scheduled.
        let made = SlotCommits::new([], Some(at("2025-11-20T12:00:00Z")));
        let count = |commits: &SlotCommits| minutely.missed(commits, &[], at("2026-11-20T12:10:30Z")).slots.len();
        let by_hand = made.clone().with_schedule(None, Some(at("2026-11-20T12:06:30Z")));
        assert_eq!(count(&by_hand), 9, "since it was seen first, whatever was done by hand after that");
        let unseen = minutely.clone().with_first_seen(None);
        assert_eq!(unseen.missed(&by_hand, &[], at("2026-11-20T12:10:30Z")).slots.len(), 3, "since the last by hand");
        assert_eq!(count(&made), MISSED_MAX, "nothing was ever backed up");
    }

    #[test]
    fn what_is_excused_is_left_out_before_the_list_is_cut() {
        let plan = cron("0 * * * *", "UTC");
        let committed = commits(["2026-01-01T00:00:00Z"]);
        let missed = |until: &'static str, now| {
            let excuse = move |slot: Slot| (slot.starts + SignedDuration::from_mins(30) < at(until)).then(|| at(until));
            plan.missed_except(&committed, &[], at(now), excuse).slots
        };
        let after = missed("2026-03-01T12:10:00Z", "2026-03-01T15:45:00Z");
        let hours: Vec<Timestamp> = after.iter().map(|slot| slot.at).collect();
        assert_eq!(hours, ["12", "13", "14", "15"].map(|hour| at(&format!("2026-03-01T{hour}:00:00Z"))));
        assert_eq!(missed("9999-01-01T00:00:00Z", "2026-03-01T15:45:00Z"), [], "one that goes on");
    }

    #[test]
    fn a_schedule_is_told_by_what_its_slots_follow_from() {
        let zone = |name| TimeZone::get(name).unwrap();
        let cron = |line: &str| Schedule::Cron(line.to_owned());
        let ids: BTreeSet<ScheduleId> = [
            schedule_id(&cron("0 1 * * *"), &zone("UTC")),
            schedule_id(&cron("0 1 * * *"), &zone("Europe/Berlin")),
            schedule_id(&cron("0 2 * * *"), &zone("UTC")),
            schedule_id(&Schedule::Every(Duration::from_hours(24)), &zone("UTC")),
        ]
        .into();
        assert_eq!(ids.len(), 4);
        let every = Schedule::Every(Duration::from_hours(1));
        assert_eq!(
            schedule_id(&every, &zone("UTC")),
            schedule_id(&every, &zone("Europe/Berlin")),
            "it counts from the epoch"
        );
    }

    #[test]
    fn the_jitter_is_the_roles_own_and_stays() {
        let offset = |name: &str, secs| jitter_offset(&name.parse().unwrap(), Duration::from_secs(secs)).as_secs();
        // The values are pinned: a change would move every role's start on an upgrade, and on some of the nodes first.
        assert_eq!([offset("app", 300), offset("orders-db", 300), offset("app", 3600)], [173, 292, 2085]);
        assert_eq!([offset("app", 0), offset("app", 1)], [0, 0]);
        let spread: BTreeSet<u64> = (0..200).map(|i| offset(&format!("role{i}"), 300)).collect();
        assert!(spread.len() > 100 && spread.iter().all(|o| *o < 300));
    }

    const ZONES: [&str; 8] = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "America/Sao_Paulo",
        "Africa/Casablanca",
        "Asia/Kathmandu",
    ];

    fn line() -> impl Strategy<Value = String> {
        let minute = prop_oneof![
            (0..60u8).prop_map(|m| m.to_string()),
            prop::sample::select(vec!["*/7", "*/15", "*/40", "0,59", "20,35,50"]).prop_map(str::to_owned),
        ];
        let hour = prop_oneof![
            3 => (0..4u8).prop_map(|h| h.to_string()),
            1 => Just("*".to_owned()),
            1 => Just("*/2".to_owned()),
            1 => Just("1-3".to_owned()),
            1 => Just("22,23,0".to_owned()),
        ];
        let day = prop::sample::select(vec!["* * *", "* * *", "* * SUN", "28-31 * *", "1 * *"]);
        (minute, hour, day).prop_map(|(minute, hour, day)| format!("{minute} {hour} {day}"))
    }

    /// A moment near a transition of the zone, or anywhere in its year.
    fn moment(zone: &TimeZone, year: i64, which: usize, minutes: i64) -> Timestamp {
        let from = at("2009-01-01T00:00:00Z") + SignedDuration::from_hours(24 * 365 * year);
        let around = zone.following(from).nth(which).map_or(from, |t| t.timestamp());
        around + SignedDuration::from_mins(minutes)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// The slots equal the definition: the set of the instants of all matching civil minutes.
        #[test]
        fn slots_are_the_matching_civil_minutes(
            line in line(), zone in prop::sample::select(ZONES.to_vec()), year in 0..20i64, which in 0..3usize, minutes in -1500..1500i64,
        ) {
            let plan = cron(&line, zone);
            let ScheduleRule::Cron(cron) = &plan.rule else { unreachable!() };
            let now = moment(&plan.zone, year, which, minutes);
            let mut expected = BTreeSet::new();
            let mut civil = plan.civil(now).date().to_datetime(jiff::civil::Time::midnight()) - SignedDuration::from_hours(96);
            for _ in 0..(8 * 24 * 60) {
                if cron.is_time_matching(&civil).unwrap() {
                    expected.insert(plan.instant(civil).unwrap());
                }
                civil += SignedDuration::from_mins(1);
            }
            let (due, next) = (plan.due(now).unwrap().at, plan.next(now).unwrap().at);
            prop_assert!(due <= now && now < next);
            let window = now - SignedDuration::from_hours(48)..now + SignedDuration::from_hours(48);
            match expected.range(..=now).next_back() {
                Some(last) => prop_assert_eq!(due, *last),
                None => prop_assert!(due < window.start),
            }
            match expected.range(now + SignedDuration::from_nanos(1)..).next() {
                Some(first) => prop_assert_eq!(next, *first),
                None => prop_assert!(next > window.end),
            }
        }

        /// Stepping forwards and backwards agree, without a gap or a repetition.
        #[test]
        fn due_and_next_are_neighbours(
            line in line(), zone in prop::sample::select(ZONES.to_vec()), year in 0..20i64, which in 0..3usize, minutes in -1500..1500i64,
        ) {
            let plan = cron(&line, zone);
            let mut now = moment(&plan.zone, year, which, minutes);
            for _ in 0..20 {
                let next = plan.next(now).unwrap();
                prop_assert!(next.at > now);
                prop_assert_eq!(plan.due(next.at), Some(next));
                let before = plan.due(next.at - SignedDuration::from_nanos(1)).unwrap();
                prop_assert!(before.at < next.at);
                prop_assert_eq!(plan.following(before), Some(next));
                prop_assert_eq!(plan.preceding(next), Some(before));
                prop_assert_eq!((plan.slot_at(next.at), plan.slot_at_or_after(next.at)), (Some(next), Some(next)));
                let between = before.at + SignedDuration::from_nanos(1);
                prop_assert_eq!((plan.slot_at(between), plan.slot_at_or_after(between)), (None, Some(next)));
                now = next.at;
            }
        }

        /// A daily line has one slot for each civil day, across every transition.
        #[test]
        fn a_daily_line_has_one_slot_a_day(
            minute in 0..60u8, hour in 0..24u8, zone in prop::sample::select(vec!["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]), year in 0..20i64,
        ) {
            let plan = cron(&format!("{minute} {hour} * * *"), zone);
            let start = moment(&plan.zone, year, 0, -3 * 24 * 60);
            let mut slot = plan.due(start).unwrap();
            for _ in 0..370 {
                let next = plan.following(slot).unwrap();
                let (day, next_day) = (plan.civil(slot.at).date(), plan.civil(next.at).date());
                prop_assert_eq!(day.tomorrow().unwrap(), next_day);
                slot = next;
            }
        }
    }
}
