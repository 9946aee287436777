//! Compares with an independent model, and with results worked out by hand and with restic 0.18.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The kept times, newest first, as `day hour` with their reasons.
fn kept(keep: &RetentionPolicy, times: &[Timestamp], zone: &TimeZone) -> Vec<String> {
    let reasons = decide(keep, times, Timestamp::MAX, zone);
    let line = |(time, reasons): (&Timestamp, &Vec<KeepReason>)| {
        let names: Vec<String> = reasons
            .iter()
            .map(|r| format!("{}{:?}", if r.oldest { "oldest " } else { "" }, r.rule).to_lowercase())
            .collect();
        format!("{}: {}", zone.to_datetime(*time).strftime("%Y-%m-%d %H:%M"), names.join(", "))
    };
    times.iter().zip(&reasons).rev().filter(|(_, reasons)| !reasons.is_empty()).map(line).collect()
}

/// Every six hours, starting on 2026-01-01.
fn six_hourly(count: i64) -> Vec<Timestamp> {
    (0..count).map(|n| at("2026-01-01T00:00:00Z") + SignedDuration::from_hours(6 * n)).collect()
}

#[test]
fn a_usual_policy() {
    let keep = RetentionPolicy { last: 2, daily: 3, weekly: 2, monthly: 2, ..RetentionPolicy::default() };
    assert_eq!(
        kept(&keep, &six_hourly(200), &TimeZone::UTC),
        [
            "2026-02-19 18:00: last, daily, weekly, monthly",
            "2026-02-19 12:00: last",
            "2026-02-18 18:00: daily",
            "2026-02-17 18:00: daily",
            "2026-02-15 18:00: weekly",
            "2026-01-31 18:00: monthly",
        ]
    );
}

#[test]
fn a_rule_that_has_some_left_keeps_the_oldest() {
    let keep = RetentionPolicy { yearly: 3, daily: 1, ..RetentionPolicy::default() };
    assert_eq!(
        kept(&keep, &six_hourly(8), &TimeZone::UTC),
        ["2026-01-02 18:00: daily, yearly", "2026-01-01 00:00: oldest yearly"]
    );
    assert_eq!(kept(&keep, &six_hourly(1), &TimeZone::UTC), ["2026-01-01 00:00: daily, yearly"]);
    assert_eq!(kept(&keep, &[], &TimeZone::UTC), [""; 0]);
}

#[test]
fn within_counts_from_the_newest() {
    let keep = RetentionPolicy { within: Some(Duration::from_hours(12)), ..RetentionPolicy::default() };
    assert_eq!(
        kept(&keep, &six_hourly(9), &TimeZone::UTC),
        ["2026-01-03 00:00: within", "2026-01-02 18:00: within"],
        "as long ago as that is not within it"
    );
}

#[test]
fn days_are_those_of_the_zone_and_weeks_begin_on_monday() {
    let berlin = TimeZone::get("Europe/Berlin").unwrap();
    let times = [at("2026-01-04T22:30:00Z"), at("2026-01-04T23:30:00Z"), at("2026-01-05T22:30:00Z")];
    let days = RetentionPolicy { daily: 9, ..RetentionPolicy::default() };
    assert_eq!(kept(&days, &times, &berlin).len(), 2, "23:30 UTC is the next day there");
    assert_eq!(kept(&days, &times, &TimeZone::UTC).len(), 2 + 1, "the oldest one as well");
    let weeks = RetentionPolicy { weekly: 9, ..RetentionPolicy::default() };
    assert_eq!(
        kept(&weeks, &times, &berlin),
        ["2026-01-05 23:30: weekly", "2026-01-04 23:30: weekly"],
        "the 5th is a Monday"
    );
    // The hour that is repeated in autumn counts as one hour.
    let repeated = [at("2026-10-25T00:10:00Z"), at("2026-10-25T00:40:00Z"), at("2026-10-25T01:10:00Z")];
    let hours = RetentionPolicy { hourly: 1, ..RetentionPolicy::default() };
    assert_eq!(kept(&hours, &repeated, &berlin), ["2026-10-25 02:10: hourly"]);
    // A week may begin in the year before.
    let new_year = [at("2025-12-29T12:00:00Z"), at("2026-01-01T12:00:00Z")];
    assert_eq!(kept(&RetentionPolicy { weekly: 1, ..weeks }, &new_year, &TimeZone::UTC).len(), 1);
}

#[test]
fn what_is_dated_beyond_the_present_stays_and_counts_for_nothing() {
    let mut times = six_hourly(9);
    let now = *times.last().unwrap();
    times.extend([now + SignedDuration::from_mins(4), now + SignedDuration::from_hours(24 * 730)]);
    let whole =
        RetentionPolicy { within: Some(Duration::from_hours(12)), last: 1, yearly: 1, ..RetentionPolicy::default() };
    let names = |reasons: &[KeepReason]| reasons.iter().map(|r| format!("{:?}", r.rule)).collect::<Vec<_>>().join(",");
    let told: Vec<String> = decide(&whole, &times, now, &TimeZone::UTC).iter().map(|reasons| names(reasons)).collect();
    assert_eq!(told[..7], [""; 7]);
    assert_eq!(told[7..], ["Within", "Within", "Within,Last,Yearly", "Future"]);
    let later = now + SignedDuration::from_hours(24 * 731);
    assert_eq!(names(&decide(&whole, &times, later, &TimeZone::UTC)[10]), "Within,Last,Yearly", "its time has come");
}

#[test]
fn an_incomplete_snapshot_takes_no_complete_ones_place() {
    for (complete, kept) in [
        (&[true, false][..], Some(0)),
        (&[true, true, false, false], Some(1)),
        (&[false, true], None),
        (&[true], None),
        (&[false, false], None),
        (&[], None),
    ] {
        assert_eq!(newest_complete(complete), kept, "{complete:?}");
    }
}

/// The same rules in another form: of all periods that have a snapshot take the newest ones, and of each the newest
/// snapshot.
fn model(keep: &RetentionPolicy, times: &[Timestamp]) -> BTreeSet<usize> {
    let text =
        |format: &'static str| move |time: Timestamp| TimeZone::UTC.to_datetime(time).strftime(format).to_string();
    type Name = Box<dyn Fn(Timestamp) -> String>;
    let rules: [(u32, Name); 5] = [
        (keep.hourly, Box::new(text("%Y-%m-%d %H"))),
        (keep.daily, Box::new(text("%Y-%m-%d"))),
        (keep.weekly, Box::new(text("%G-%V"))),
        (keep.monthly, Box::new(text("%Y-%m"))),
        (keep.yearly, Box::new(text("%Y"))),
    ];
    let mut kept: BTreeSet<usize> = (times.len().saturating_sub(keep.last as usize)..times.len()).collect();
    for (count, name) in rules {
        let periods: BTreeSet<String> = times.iter().map(|time| name(*time)).collect();
        for period in periods.iter().rev().take(count as usize) {
            kept.extend(times.iter().rposition(|time| name(*time) == *period));
        }
        if periods.len() < count as usize && !times.is_empty() {
            kept.insert(0);
        }
    }
    if let (Some(within), Some(newest)) = (keep.within, times.last()) {
        kept.extend((0..times.len()).filter(|n| newest.duration_since(times[*n]).unsigned_abs() < within));
    }
    kept
}

fn policy() -> impl Strategy<Value = RetentionPolicy> {
    let within = prop::option::of((1u64..400).prop_map(Duration::from_hours));
    (0u32..6, 0u32..6, 0u32..6, 0u32..6, 0u32..6, 0u32..4, within).prop_map(
        |(last, hourly, daily, weekly, monthly, yearly, within)| RetentionPolicy {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within,
        },
    )
}

proptest! {
    #[test]
    fn it_is_what_the_model_says(keep in policy(), mut gaps in prop::collection::vec(1i64..20_000, 0..60)) {
        // Gaps in minutes, up to two weeks.
        let mut time = at("2025-11-20T00:00:00Z");
        let times: Vec<Timestamp> = gaps.drain(..).map(|gap| { time += SignedDuration::from_mins(gap); time }).collect();
        let kept: BTreeSet<usize> =
            decide(&keep, &times, time, &TimeZone::UTC).iter().enumerate().filter(|(_, r)| !r.is_empty()).map(|(n, _)| n).collect();
        prop_assert_eq!(&kept, &model(&keep, &times));
        if keep != RetentionPolicy::default() && !times.is_empty() {
            prop_assert!(kept.contains(&(times.len() - 1)), "the newest is always kept");
        }
        // Snapshots dated in the future change nothing for the others.
        let with_future: Vec<Timestamp> = times.iter().copied().chain((1..4).map(|n| time + SignedDuration::from_hours(n))).collect();
        let decided = decide(&keep, &with_future, time, &TimeZone::UTC);
        prop_assert_eq!(&decided[..times.len()], &decide(&keep, &times, time, &TimeZone::UTC)[..]);
        prop_assert!(decided[times.len()..].iter().all(|reasons| reasons.iter().any(|r| r.rule == RetentionRule::Future)));
    }
}
