//! Parsers for single values as people write them: durations, sizes, cron lines, absolute paths.
//!
//! The error of each parser says what to write instead, because its caller only knows the location.
//!
//! Pure.

use std::ops::RangeInclusive;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// A value that is not valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}")]
pub struct ValueError {
    /// The problem.
    pub what: String,
    /// What to write instead.
    pub hint: String,
}

pub(super) fn refuse<T>(what: impl Into<String>, hint: impl Into<String>) -> Result<T, ValueError> {
    Err(ValueError { what: what.into(), hint: hint.into() })
}

/// What the texts that [`duration`] reads look like; it refuses some of them.
pub(super) const DURATION_PATTERN: &str = r"^\s*[0-9][0-9\s.]*[A-Za-zµ]+(\s*[0-9][0-9\s.]*[A-Za-zµ]+)*\s*$";

/// What the texts that [`size`] reads look like; it refuses some of them.
pub(super) const SIZE_PATTERN: &str = r"^\s*[0-9.]+\s*([KMGTkmgt][Ii]?)?[Bb]?\s*$";

/// The name of an environment variable.
pub(super) const VARIABLE_PATTERN: &str = "^[A-Za-z_][A-Za-z0-9_]*$";

/// The name of a header of HTTP: RFC 9110 allows some more characters, which no header has.
pub(super) const HEADER_PATTERN: &str = "^[A-Za-z0-9_-]+$";

/// The statuses of an HTTP answer. A 1xx status only announces another one.
pub(super) const STATUSES: RangeInclusive<u16> = 200..=599;

/// `2h`, `30s`, `1h30m`: a number with a unit, or several.
pub fn duration(text: &str) -> Result<Duration, ValueError> {
    const HINT: &str = r#"write it like "30s", "5m", "1h30m" or "2d""#;
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return refuse(format!("{text:?} has no unit"), HINT);
    }
    humantime::parse_duration(text).or_else(|_| refuse(format!("{text:?} is not a duration"), HINT))
}

/// A duration in the form that [`duration`] reads.
pub fn format_duration(value: Duration) -> String {
    humantime::format_duration(value).to_string().replace(' ', "")
}

/// The units of [`size`], largest first; the binary ones come first because they are what [`format_size`] writes.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1000),
    ("B", 1),
];

/// `20MiB`, `1.5 GB` or plain bytes. KiB is 1024, kB is 1000; case does not matter.
pub fn size(text: &str) -> Result<u64, ValueError> {
    const HINT: &str = r#"write it like "20MiB" (1024 based), "20MB" (1000 based) or in bytes"#;
    let trimmed = text.trim();
    let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
    let (number, unit) = (&trimmed[..end], trimmed[end..].trim_start());
    let factor = match unit {
        "" => Some(1),
        unit => SIZE_UNITS.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit)).map(|(_, factor)| *factor),
    };
    let Some(factor) = factor else { return refuse(format!("{text:?} is not a size"), HINT) };
    // Integers are exact; a fraction need only be as exact as a float.
    let bytes = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor),
        Err(_) => number
            .parse::<f64>()
            .ok()
            .map(|n| n * factor as f64)
            .filter(|n| n.is_finite() && *n < 2f64.powi(63))
            .map(|n| n as u64),
    };
    bytes.map_or_else(|| refuse(format!("{text:?} is not a size"), HINT), Ok)
}

/// A size in the form that [`size`] reads, without loss.
pub fn format_size(bytes: u64) -> String {
    match SIZE_UNITS.iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => format!("{bytes}B"),
    }
}

/// The names of a cron line's fields, and their allowed values.
const CRON_FIELDS: [(&str, &str); 5] = [
    ("minute", "0 to 59"),
    ("hour", "0 to 23"),
    ("day of the month", "1 to 31, or L for the last"),
    ("month", "1 to 12, or JAN to DEC"),
    ("weekday", "0 to 7, or SUN to SAT"),
];

/// Checks a cron line: exactly five fields (minute, hour, day of month, month, day of week), and at least one matching
/// time.
pub fn cron(line: &str) -> Result<croner::Cron, ValueError> {
    use croner::parser::{CronParser, Seconds, Year};
    const HINT: &str = r#"write minute, hour, day, month, weekday: "0 1 * * *" is every day at 01:00"#;
    let fields = line.split_whitespace().count();
    if fields != 5 {
        return refuse(format!("a cron line has five fields, {line:?} has {fields}"), HINT);
    }
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    let Ok(cron) = parser.parse(line) else {
        // The library's error does not say which field is wrong, so each field is tried by itself.
        let alone = |at: usize, field: &str| {
            let mut fields = ["*"; 5];
            fields[at] = field;
            fields.join(" ")
        };
        let odd = line.split_whitespace().enumerate().find(|(at, field)| parser.parse(&alone(*at, field)).is_err());
        let why = odd.map(|(at, field)| format!(": {field:?} is no {} ({})", CRON_FIELDS[at].0, CRON_FIELDS[at].1));
        return refuse(format!("{line:?} is not a cron line{}", why.unwrap_or_default()), HINT);
    };
    // The start does not matter: a time that occurs at all occurs within the following cycle of leap years.
    if cron.find_next_occurrence(&jiff::civil::date(2000, 1, 1).at(0, 0, 0, 0), true).is_err() {
        return refuse(format!("{line:?} never comes round"), "that day is in no month it names");
    }
    Ok(cron)
}

/// The time zone with this IANA name.
pub fn timezone(name: &str) -> Result<jiff::tz::TimeZone, ValueError> {
    // jiff also accepts POSIX strings and, as "local", the host's zone. Neither is the same on every host by name
    // alone.
    if let Ok(zone) = jiff::tz::TimeZone::get(name)
        && zone.iana_name().is_some()
    {
        return Ok(zone);
    }
    let db = jiff::tz::db();
    let known: Vec<String> = db.available().map(|name| name.as_str().to_owned()).collect();
    let hint = match nearest(name, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean {near:?}?"),
        None if known.len() < 10 => "this host has no time zone database: install tzdata".to_owned(),
        None => r#"write an IANA name, like "Europe/Berlin" or "UTC""#.to_owned(),
    };
    refuse(format!("there is no time zone {name:?}"), hint)
}

/// An absolute path without `.`, doubled or trailing slashes. `..` is refused: its meaning depends on links.
pub fn absolute(text: &str) -> Result<PathBuf, ValueError> {
    let path = Path::new(text);
    if text.contains('\0') {
        return refuse("a path cannot contain NUL", "remove it");
    }
    if !path.is_absolute() {
        let hint = match text {
            "" => "write an absolute path, like \"/srv/app\"".to_owned(),
            t if t.starts_with('~') => "write the path of the home directory in full".to_owned(),
            t => format!("write it from the root, like \"/srv/{}\"", t.trim_start_matches("./")),
        };
        return refuse(format!("{text:?} is not absolute"), hint);
    }
    if path.components().any(|c| c == Component::ParentDir) {
        return refuse(format!("{text:?} contains \"..\""), "write where it really is");
    }
    Ok(path.components().collect())
}

/// An HTTP status of [`STATUSES`].
pub(super) fn status(text: &str) -> Option<u16> {
    text.parse().ok().filter(|status| STATUSES.contains(status))
}

/// The suffixes of systemd unit names.
const UNIT_TYPES: [&str; 11] =
    ["service", "socket", "device", "mount", "automount", "swap", "target", "path", "timer", "slice", "scope"];

/// The name of one systemd unit with its type, as in systemd.unit(5); not a pattern, and not a template.
pub fn unit(name: &str) -> Result<&str, ValueError> {
    const HINT: &str = r#"write it like "app.service" or "postgresql@15-main.service""#;
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if let Some(c) = name.chars().find(|c| !allowed(*c)) {
        return refuse(format!("{name:?} is not the name of a unit: {c:?} is in it"), HINT);
    }
    match name.rsplit_once('.') {
        Some((stem, kind)) if UNIT_TYPES.contains(&kind) => {
            if stem.ends_with('@') {
                return refuse(
                    format!("{name:?} is a template, which never runs itself"),
                    format!("name one of its instances, like \"{stem}main.{kind}\""),
                );
            }
            // 255 is systemd's own limit.
            if stem.is_empty() || stem.starts_with('@') || name.len() > 255 {
                return refuse(format!("{name:?} is not the name of a unit"), HINT);
            }
            Ok(name)
        }
        _ if name.is_empty() => refuse("names no unit", HINT),
        _ => refuse(format!("{name:?} has no type of unit at its end"), format!("write \"{name}.service\"")),
    }
}

/// The candidate that a person probably meant, if one is similar enough.
pub fn nearest<'a>(text: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = text.to_lowercase();
    candidates
        .into_iter()
        .map(|c| (strsim::osa_distance(&lower, &c.to_lowercase()), c))
        // If at most a third of the letters differ it is a typo, otherwise another word.
        .filter(|(distance, c)| *distance <= (c.len().max(text.len()) / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_mins(90)));
        assert_eq!(duration("2h"), Ok(Duration::from_hours(2)));
        assert_eq!(format_duration(Duration::from_mins(90)), "1h30m");
        for bad in ["", "30", "soon", "-5m", "5 apples"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_tell_1024_from_1000() {
        for (text, bytes) in [
            ("20MiB", 20 << 20),
            ("20MB", 20_000_000),
            ("7", 7),
            ("1.5 KiB", 1536),
            ("3b", 3),
            ("2gib", 2 << 30),
            ("0", 0),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
            assert_eq!(size(&format_size(bytes)), Ok(bytes), "{text}");
        }
        for bad in ["", "MiB", "20 apples", "-1", "1.2.3", "99999999TiB", "20MiB/s", "."] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn cron_lines_have_five_fields_and_come_round() {
        for good in ["0 1 * * *", "*/15 2-4 * * MON-FRI", "0 0 29 2 *", "0 0 L * *"] {
            assert!(cron(good).is_ok(), "{good}");
        }
        for bad in ["", "0 1 * *", "0 0 1 * * *", "@daily", "61 * * * *", "0 0 30 2 *", "a b c d e"] {
            assert!(cron(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn zones_are_iana_names() {
        assert!(timezone("Europe/Berlin").is_ok());
        assert!(timezone("UTC").is_ok());
        assert_eq!(timezone("Europe/Berln").unwrap_err().hint, r#"did you mean "Europe/Berlin"?"#);
        assert!(timezone("CET-1CEST,M3.5.0,M10.5.0/3").is_err(), "POSIX rules have no name to show");
        assert!(timezone("").is_err());
    }

    #[test]
    fn a_unit_is_one_that_can_run() {
        for good in
            ["app.service", "postgresql@15-main.service", "srv-app.mount", "-.mount", r"a\x2db.timer", "a.b:c_d.target"]
        {
            assert_eq!(unit(good), Ok(good));
        }
        let long = format!("{}.service", "x".repeat(248));
        for bad in [
            "",
            "app",
            "app.sevice",
            ".service",
            "@.service",
            "@x.service",
            "app@.service",
            "app*.service",
            "a b.service",
            "a/b.mount",
            &long,
        ] {
            assert!(unit(bad).is_err(), "{bad:?}");
        }
        assert_eq!(unit("app").unwrap_err().hint, r#"write "app.service""#);
    }

    #[test]
    fn paths_are_normalised_but_links_are_not_guessed() {
        assert_eq!(absolute("/srv//app/./x/").unwrap(), Path::new("/srv/app/x"));
        assert_eq!(absolute("/").unwrap(), Path::new("/"));
        for bad in ["", "srv", "./srv", "~/x", "/srv/../etc", "/a\0b"] {
            assert!(absolute(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_cron_line_says_which_field_is_none() {
        for (line, why) in [
            ("61 * * * *", r#": "61" is no minute (0 to 59)"#),
            ("* 24 * * *", r#": "24" is no hour (0 to 23)"#),
            ("0 1 32 * *", r#": "32" is no day of the month"#),
            ("0 1 * FOO *", r#": "FOO" is no month"#),
            ("0 1 * * mondy", r#": "mondy" is no weekday"#),
        ] {
            let said = cron(line).unwrap_err().what;
            assert!(said.contains(why) && !said.to_lowercase().contains("component"), "{said}");
        }
    }
}
