//! Decides which snapshots a role keeps, and why. Pure.
//!
//! The rules are those of restic's `forget`: each rule looks at the snapshots from the newest to the oldest and keeps
//! the newest snapshot of each hour, day, week, month or year until it has kept its configured number; periods without
//! a snapshot do not count. A rule that has some left when it reaches the oldest snapshot keeps that one as well. A
//! snapshot is kept if one rule keeps it. The newest complete snapshot is always kept: an incomplete snapshot never
//! takes its place.
//!
//! `within` counts back from the newest snapshot, not from now: a role without new backups loses nothing by waiting.
//!
//! A snapshot that is dated in the future was dated by a wrong clock. It is kept and counts for no rule: if it counted
//! as the newest, `within` would forget all snapshots with a right date.

use std::time::Duration;

use jiff::civil::{Date, DateTime, ISOWeekDate};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::config::RetentionPolicy;
use crate::job::report::pruned::{KeepReason, RetentionRule};
use crate::role::clock_tolerance;

/// For snapshots with these times, oldest first: the reasons to keep each of them. No reason means that it is removed.
pub fn decide(keep: &RetentionPolicy, times: &[Timestamp], now: Timestamp, zone: &TimeZone) -> Vec<Vec<KeepReason>> {
    let present = times.partition_point(|time| !clock_tolerance::is_in_future(*time, now));
    let mut reasons = by_rules(keep, &times[..present], zone);
    reasons.resize(times.len(), vec![KeepReason { rule: RetentionRule::Future, oldest: false }]);
    reasons
}

fn by_rules(keep: &RetentionPolicy, times: &[Timestamp], zone: &TimeZone) -> Vec<Vec<KeepReason>> {
    let mut reasons = vec![Vec::new(); times.len()];
    if let (Some(within), Some(newest)) = (keep.within, times.iter().max()) {
        let from = oldest_within(*newest, within);
        for (reasons, time) in reasons.iter_mut().zip(times) {
            if *time > from {
                reasons.push(KeepReason { rule: RetentionRule::Within, oldest: false });
            }
        }
    }
    for (rule, count) in counts(keep) {
        let (mut left, mut last) = (count, None);
        for (n, time) in times.iter().enumerate().rev() {
            if left == 0 {
                break;
            }
            let period = period(rule, n, zone.to_datetime(*time));
            let repeated = last == Some(period);
            if repeated && n > 0 {
                continue;
            }
            reasons[n].push(KeepReason { rule, oldest: repeated });
            (last, left) = (Some(period), left - 1);
        }
    }
    reasons
}

/// Position of the snapshot that [`RetentionRule::Complete`] keeps; `complete` says for each snapshot, oldest first,
/// whether it is complete. `None` if the newest snapshot is complete, because the other rules suffice then, or if no
/// snapshot is complete.
pub fn newest_complete(complete: &[bool]) -> Option<usize> {
    complete.iter().rposition(|complete| *complete).filter(|n| n + 1 < complete.len())
}

fn counts(keep: &RetentionPolicy) -> [(RetentionRule, u32); 6] {
    [
        (RetentionRule::Last, keep.last),
        (RetentionRule::Hourly, keep.hourly),
        (RetentionRule::Daily, keep.daily),
        (RetentionRule::Weekly, keep.weekly),
        (RetentionRule::Monthly, keep.monthly),
        (RetentionRule::Yearly, keep.yearly),
    ]
}

fn oldest_within(newest: Timestamp, within: Duration) -> Timestamp {
    let within = SignedDuration::try_from(within).unwrap_or(SignedDuration::MAX);
    newest.saturating_sub(within).unwrap_or(Timestamp::MIN)
}

/// Identifies the period of a snapshot: the first instant of its hour, day, week, month or year, on the civil calendar.
fn period(rule: RetentionRule, number: usize, time: DateTime) -> (Date, usize) {
    let day = time.date();
    match rule {
        // Each snapshot is a period of its own.
        RetentionRule::Last | RetentionRule::Within | RetentionRule::Future | RetentionRule::Complete => (day, number),
        RetentionRule::Hourly => (day, usize::try_from(time.hour()).unwrap_or_default()),
        RetentionRule::Daily => (day, 0),
        RetentionRule::Weekly => (day.iso_week_date().first_of_week().map_or(day, ISOWeekDate::date), 0),
        RetentionRule::Monthly => (day.first_of_month(), 0),
        RetentionRule::Yearly => (day.first_of_year(), 0),
    }
}

#[cfg(test)]
mod tests;
