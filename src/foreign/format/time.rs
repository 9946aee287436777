//! Pure. Dates as the programs that list write them.

use jiff::civil::DateTime;
use jiff::fmt::rfc2822;
use jiff::tz::Offset;

/// An epoch beyond this is in milliseconds: as seconds it would be after the year 5000.
const EPOCH_SECONDS_MAX: i64 = 100_000_000_000;

/// Seconds since 1970 of a date with a time: `2026-10-01 01:04:16`, `2026-10-01T01:04:16.123Z`,
/// `2026-10-01T03:04:16+02:00`, an epoch in seconds or milliseconds, or RFC 2822. Without a zone it is UTC.
pub(super) fn parse(text: &[u8]) -> Option<i64> {
    let text = text.trim_ascii();
    iso(text).or_else(|| epoch(text)).or_else(|| {
        let text = std::str::from_utf8(text).ok().filter(|text| text.contains(','))?;
        rfc2822::parse(text).ok().map(|time| time.timestamp().as_second())
    })
}

/// A date with a time, alone.
pub(super) fn iso(text: &[u8]) -> Option<i64> {
    let (time, rest) = civil(text)?;
    let seconds = Offset::UTC.to_timestamp(time).ok()?.as_second();
    let rest = rest.strip_prefix(b".").map_or(rest, |rest| rest.trim_ascii_start_digits());
    Some(seconds - offset(rest.trim_ascii_start())?)
}

/// The first 19 bytes, `2026-10-01 01:04:16`, or 10 or 16 of them, and what follows.
pub(super) fn civil(text: &[u8]) -> Option<(DateTime, &[u8])> {
    let number = |range: std::ops::Range<usize>| {
        text.get(range)?
            .iter()
            .try_fold(0_i16, |sum, digit| digit.is_ascii_digit().then(|| sum * 10 + i16::from(digit - b'0')))
    };
    let is = |at: usize, what: &[u8]| text.get(at).is_some_and(|byte| what.contains(byte));
    if !is(4, b"-/") || !is(7, b"-/") {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)? as i8, number(8..10)? as i8);
    if text.len() == 10 {
        return Some((DateTime::new(year, month, day, 0, 0, 0, 0).ok()?, &[]));
    }
    if !is(10, b" Tt") || !is(13, b":") {
        return None;
    }
    let (hour, minute) = (number(11..13)? as i8, number(14..16)? as i8);
    let (second, rest) = if is(16, b":") { (number(17..19)? as i8, &text[19..]) } else { (0, &text[16..]) };
    Some((DateTime::new(year, month, day, hour, minute, second.min(59), 0).ok()?, rest))
}

/// The seconds that a zone is ahead of UTC. No zone is UTC.
fn offset(zone: &[u8]) -> Option<i64> {
    let (sign, digits) = match zone {
        b"" | b"Z" | b"z" | b"UTC" | b"GMT" => return Some(0),
        [b'+', digits @ ..] => (1, digits),
        [b'-', digits @ ..] => (-1, digits),
        _ => return None,
    };
    let zone_name = |end: &[u8]| end.is_empty() || end == b" UTC" || end == b" GMT";
    let pair = |high: u8, low: u8| {
        (high.is_ascii_digit() && low.is_ascii_digit()).then(|| i64::from(high - b'0') * 10 + i64::from(low - b'0'))
    };
    let (hours, minutes) = match digits {
        [a, b, b':', c, d, end @ ..] | [a, b, c, d, end @ ..] if zone_name(end) => (pair(*a, *b)?, pair(*c, *d)?),
        [a, b] => (pair(*a, *b)?, 0),
        _ => return None,
    };
    Some(sign * (hours * 3600 + minutes * 60))
}

/// An epoch in seconds, also with a fraction, or in milliseconds.
pub(super) fn epoch(text: &[u8]) -> Option<i64> {
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&text[..dot], &text[dot + 1..]),
        None => (text, &text[..0]),
    };
    let digits = whole.strip_prefix(b"-").unwrap_or(whole);
    let all_digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
    if digits.is_empty() || digits.len() > 15 || !all_digits(digits) || !all_digits(fraction) {
        return None;
    }
    let value = digits.iter().fold(0_i64, |sum, digit| sum * 10 + i64::from(digit - b'0'));
    let value = if value > EPOCH_SECONDS_MAX { value / 1000 } else { value };
    Some(if whole.len() == digits.len() { value } else { -value })
}

/// Bytes that begin with digits.
trait LeadingDigits {
    /// What follows the digits.
    fn trim_ascii_start_digits(&self) -> &Self;
}

impl LeadingDigits for [u8] {
    fn trim_ascii_start_digits(&self) -> &Self {
        let end = self.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(self.len());
        &self[end..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notation_of_one_moment() {
        let moment = 1_790_816_656;
        for text in [
            "2026-10-01 01:04:16",
            "2026-10-01T01:04:16Z",
            "2026-10-01T01:04:16.000Z",
            "2026-10-01T01:04:16.123456789Z",
            "2026-10-01T03:04:16+02:00",
            "2026-10-01T03:04:16.5+0200",
            "2026-09-30T20:04:16-05",
            "2026-10-01 01:04:16 UTC",
            "2026-10-01 01:04:16 +0000 UTC",
            "2026/10/01 01:04:16",
            "1790816656",
            "1790816656.1234567890",
            "1790816656000",
            "Thu, 01 Oct 2026 01:04:16 GMT",
        ] {
            assert_eq!(parse(text.as_bytes()), Some(moment), "{text}");
        }
        assert_eq!(parse(b"2026-10-01"), Some(moment - 3856));
        assert_eq!(parse(b"-1.5"), Some(-1));
    }

    #[test]
    fn what_is_no_time() {
        for text in [
            "",
            "-",
            ".",
            "2026-13-01 00:00:00",
            "2026-02-30",
            "2026-10-01 25:00:00",
            "2026-10-01T01:04:16+x",
            "app/a.tar",
            "99999999999999999999",
            "2026-10-01 01:04:16 key",
        ] {
            assert_eq!(parse(text.as_bytes()), None, "{text}");
        }
    }
}
