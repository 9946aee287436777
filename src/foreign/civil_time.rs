//! Pure. Civil dates and times as seconds since 1970, without a time zone: what a key says, and what a listing says.

use jiff::civil::{Date, DateTime, Time};

/// One day, in seconds.
pub(super) const DAY: i64 = 86_400;

/// One hour, in seconds.
pub(super) const HOUR: i64 = 3_600;

/// The first day after which keys are believed to name a time.
const YEAR_MIN: i16 = 1990;

/// The last such year.
const YEAR_MAX: i16 = 2099;

/// A date as seconds since 1970, if there is such a day and a backup may be that old.
pub(super) fn seconds_of_date(year: i64, month: i64, day: i64) -> Option<i64> {
    let year = i16::try_from(year).ok().filter(|year| (YEAR_MIN..=YEAR_MAX).contains(year))?;
    let date = Date::new(year, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()?;
    Some(seconds(date.to_datetime(Time::midnight())))
}

/// A civil time as seconds since 1970.
pub(super) fn seconds(at: DateTime) -> i64 {
    at.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0)).as_secs()
}

/// Seconds since 1970 as a civil time. What no calendar has becomes its last day.
pub(super) fn civil(seconds: i64) -> DateTime {
    let epoch = DateTime::constant(1970, 1, 1, 0, 0, 0, 0);
    epoch.saturating_add(jiff::SignedDuration::from_secs(seconds))
}

/// The number of a day since 1970.
pub(super) fn day_number(seconds: i64) -> i64 {
    seconds.div_euclid(DAY)
}

/// The weekday of a day's number, Monday being 0.
pub(super) fn weekday_of(day: i64) -> i64 {
    // 1970-01-01 was a Thursday.
    (day + 3).rem_euclid(7)
}

/// The first day of the month of a time.
pub(super) fn month_start(at: i64) -> i64 {
    seconds(civil(at).date().first_of_month().to_datetime(Time::midnight()))
}

/// The Monday with which an ISO week begins.
pub(super) fn week_start(year: i64, week: i64) -> Option<i64> {
    if !(1..=53).contains(&week) {
        return None;
    }
    // The week with 4 January is the first.
    let day = day_number(seconds_of_date(year, 1, 4)?);
    Some((day - weekday_of(day) + 7 * (week - 1)) * DAY)
}
