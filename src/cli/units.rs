//! Quantities as people read them. Pure.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};

use crate::repo::entry::UnixNanos;

/// `118,000`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 file`, `2 files`: the count with its noun.
pub fn counted(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// `312 B`, `4.2 MiB`: binary units, one decimal below 100.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if n < 1024 {
        return format!("{n} B");
    }
    let mut value = n as f64 / 1024.0;
    let mut unit = 0;
    // 1023.95 would be printed as "1024": move on before that.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if value < 99.95 { format!("{value:.1} {}", UNITS[unit]) } else { format!("{value:.0} {}", UNITS[unit]) }
}

/// `under 1 ms`, `0.4 s`, `42 s`, `3 min 20 s`, `1 h 05 min`, `2 d 03 h`.
pub fn duration(d: Duration) -> String {
    let seconds = d.as_secs();
    match seconds {
        0 if d.as_millis() < 1 => "under 1 ms".to_owned(),
        0 if d.as_millis() < 100 => format!("{} ms", d.as_millis()),
        0..10 => format!("{:.1} s", d.as_secs_f64()),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        3600..86400 => format!("{} h {:02} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {:02} h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// `2026-11-20 01:00:00 +01:00`: local time with its offset, so that it is unambiguous.
pub fn time(t: Timestamp, zone: &TimeZone) -> String {
    t.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S %:z").to_string()
}

/// `2026-11-20 01:00 +01:00`, for tables and slots, which fall on whole minutes.
pub fn minute(t: Timestamp, zone: &TimeZone) -> String {
    t.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M %:z").to_string()
}

/// A file's time like [`minute`]; outside the calendar's years, the seconds since 1970.
pub fn file_time(t: UnixNanos, zone: &TimeZone) -> String {
    match Timestamp::from_nanosecond(t.0) {
        Ok(t) => minute(t, zone),
        Err(_) => format!("@{}", t.seconds_and_nanos().0),
    }
}

/// `just now`, `5 min ago`, `in 2 h`: how far `t` is from `now`, in its largest unit.
pub fn relative(t: Timestamp, now: Timestamp) -> String {
    let apart = now.duration_since(t);
    // Future times are rounded: a pause for 2 h that began a moment ago lasts 2 h, not 119 min.
    let half = |unit: u64| if apart.is_negative() { unit / 2 } else { 0 };
    let seconds = (apart.unsigned_abs() + Duration::from_millis(if apart.is_negative() { 500 } else { 0 })).as_secs();
    let span = match seconds {
        0 if apart.is_negative() => return "now".to_owned(),
        0 => return "just now".to_owned(),
        n if n < 60 => format!("{n} s"),
        n if n + half(60) < 7200 => format!("{} min", (n + half(60)) / 60),
        n if n + half(3600) < 172_800 => format!("{} h", (n + half(3600)) / 3600),
        n => format!("{} d", (n + half(86400)) / 86400),
    };
    if apart.is_negative() { format!("in {span}") } else { format!("{span} ago") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_grouped_by_three() {
        assert_eq!([0, 999, 1000, 118_000, 1_234_567].map(count), ["0", "999", "1,000", "118,000", "1,234,567"]);
        assert_eq!((counted(1, "file", "files"), counted(0, "file", "files")), ("1 file".into(), "0 files".into()));
    }

    #[test]
    fn bytes_change_their_unit_before_four_digits() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (4_404_019, "4.2 MiB"),
            (102_348, "99.9 KiB"),
            (102_400, "100 KiB"),
            (1_048_575, "1.0 MiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (n, text) in cases {
            assert_eq!(bytes(n), text, "{n}");
        }
    }

    #[test]
    fn durations_have_two_units_at_most() {
        let cases = [
            (0, "under 1 ms"),
            (42, "42 ms"),
            (420, "0.4 s"),
            (2_300, "2.3 s"),
            (59_900, "59 s"),
            (200_000, "3 min 20 s"),
            (3_900_000, "1 h 05 min"),
            (184_000_000, "2 d 03 h"),
        ];
        for (ms, text) in cases {
            assert_eq!(duration(Duration::from_millis(ms)), text, "{ms}");
        }
    }

    #[test]
    fn times_show_their_zone_also_across_a_change_of_it() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let summer: Timestamp = "2026-07-01T00:30:00Z".parse().unwrap();
        let winter: Timestamp = "2026-11-20T00:30:00Z".parse().unwrap();
        assert_eq!(minute(summer, &zone), "2026-07-01 02:30 +02:00");
        assert_eq!(time(winter, &zone), "2026-11-20 01:30:00 +01:00");
        assert_eq!(
            file_time(UnixNanos(i128::MAX / 4), &zone),
            format!("@{}", UnixNanos(i128::MAX / 4).seconds_and_nanos().0)
        );
    }

    #[test]
    fn the_distance_to_now_points_both_ways() {
        let now: Timestamp = "2026-11-20T01:00:00Z".parse().unwrap();
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        assert_eq!(relative(at("2026-11-20T00:55:00Z"), now), "5 min ago");
        assert_eq!(relative(at("2026-11-20T03:29:00Z"), now), "in 2 h");
        assert_eq!(relative(at("2026-11-20T02:59:59.9Z"), now), "in 2 h");
        assert_eq!(relative(at("2026-11-20T01:00:10Z"), now), "in 10 s");
        assert_eq!(relative(at("2026-11-19T23:01:00Z"), now), "119 min ago");
        assert_eq!(relative(at("2026-11-10T01:00:00Z"), now), "10 d ago");
    }
}
