//! Pure. Listings with blanks between time, size and key: `aws s3 ls`, `find -printf`, `rclone lsl`.

use std::borrow::Cow;

use super::collector::{EntryVersion, ListedEntry, ListedLine};
use super::time;

/// The units of `aws s3 ls --human-readable`.
const ROUNDED_UNITS: [&[u8]; 8] = [b"Byte", b"Bytes", b"KiB", b"MiB", b"GiB", b"TiB", b"PiB", b"EiB"];

/// A line of `aws s3 ls`: `2026-10-01 01:04:16  815250957 app/key with blanks`, `PRE app/`, or the summary.
pub(super) fn aws_ls(line: &[u8]) -> ListedLine<'_> {
    let Some((modified, rest)) = aws_time(line) else {
        let words = line.trim_ascii();
        return match words {
            _ if words.starts_with(b"PRE ") && words.ends_with(b"/") => ListedLine::Folder,
            _ if words.starts_with(b"Total Objects:") || words.starts_with(b"Total Size:") => ListedLine::Nothing,
            _ => ListedLine::Unread,
        };
    };
    sized_key(rest).map_or(ListedLine::Unread, |(size, key)| entry(key, size, modified))
}

fn aws_time(line: &[u8]) -> Option<(i64, &[u8])> {
    let rest = line.get(19..)?.strip_prefix(b" ")?;
    Some((time::iso(line.get(..19)?)?, rest))
}

/// Whether a line is of `aws s3 ls --human-readable`, with a size such as `1.2 MiB`.
pub(super) fn is_rounded(line: &[u8]) -> bool {
    let Some((_, rest)) = aws_time(line) else { return false };
    let mut words = rest.trim_ascii_start().split(|byte| *byte == b' ');
    let (Some(size), Some(unit)) = (words.next(), words.next()) else { return false };
    size.contains(&b'.')
        && size.iter().all(|byte| byte.is_ascii_digit() || *byte == b'.')
        && ROUNDED_UNITS.contains(&unit)
}

/// A line of `find -printf '%T@ %s %p\n'`: `1790816656.1234567890 815250957 ./app/key`.
pub(super) fn find_printf(line: &[u8]) -> ListedLine<'_> {
    let Some((modified, rest)) = word(line) else { return ListedLine::Unread };
    let (Some(modified), Some((size, key))) = (time::epoch(modified), sized_key(rest)) else {
        return ListedLine::Unread;
    };
    match key.strip_prefix(b"./").unwrap_or(key) {
        b"" | b"." => ListedLine::Nothing,
        key => entry(key, size, modified),
    }
}

/// A line of `rclone lsl`: `    60295 2016-06-25 18:55:41.062626927 app/key`.
pub(super) fn rclone_lsl(line: &[u8]) -> ListedLine<'_> {
    let of = || {
        let (size, rest) = sized_key(line)?;
        let moment = rest.get(..29)?;
        let key = rest.get(29..)?.strip_prefix(b" ")?;
        (moment.get(19) == Some(&b'.')).then_some(())?;
        Some((size?, time::iso(moment)?, key))
    };
    of().map_or(ListedLine::Unread, |(size, modified, key)| entry(key, Some(size), modified))
}

/// A size, perhaps behind blanks, one blank, and a key that may begin and end with blanks. The size is `None` if it is
/// unknown (`-1`).
fn sized_key(text: &[u8]) -> Option<(Option<u64>, &[u8])> {
    let (size, key) = word(text.trim_ascii_start())?;
    if key.is_empty() {
        return None;
    }
    if size == b"-1" { Some((None, key)) } else { Some((Some(number(size)?), key)) }
}

/// The bytes before the first blank, and those behind it.
fn word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let blank = text.iter().position(|byte| *byte == b' ')?;
    Some((&text[..blank], &text[blank + 1..]))
}

/// A whole number without a sign.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    digits.iter().try_fold(0_u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

fn entry(key: &[u8], size: Option<u64>, modified: i64) -> ListedLine<'_> {
    let entry = |size| ListedEntry { key: Cow::Borrowed(key), size, modified, version: EntryVersion::Unknown };
    size.map_or(ListedLine::Nothing, |size| ListedLine::Object(entry(size)))
}

/// Leaves out the directories of `find` without `-type f`: a path that is above the one before or behind it.
#[derive(Debug, Default)]
pub(super) struct DirectoryFilter {
    /// The file of the last line, until the next one shows whether it is a directory.
    held: Option<(u64, i64)>,
    /// The path of the last line, files and directories alike.
    last: Vec<u8>,
}

/// A file with its size and time.
pub(super) type FoundFile = (Vec<u8>, u64, i64);

impl DirectoryFilter {
    /// Takes a line and returns the one before if that is a file.
    pub(super) fn next(&mut self, key: &[u8], size: u64, modified: i64) -> Option<FoundFile> {
        let is_above =
            |above: &[u8], below: &[u8]| below.strip_prefix(above).is_some_and(|rest| rest.starts_with(b"/"));
        let before = self.held.take().filter(|_| !is_above(&self.last, key));
        // With -depth a directory comes behind its content.
        self.held = (!is_above(key, &self.last)).then_some((size, modified));
        let last = std::mem::replace(&mut self.last, key.to_vec());
        before.map(|(size, modified)| (last, size, modified))
    }

    /// The last line.
    pub(super) fn end(&mut self) -> Option<FoundFile> {
        let (size, modified) = self.held.take()?;
        Some((std::mem::take(&mut self.last), size, modified))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object<'a>(key: &'a str, size: u64, modified: i64) -> ListedLine<'a> {
        entry(key.as_bytes(), Some(size), modified)
    }

    #[test]
    fn lines_of_aws_ls() {
        let moment = 1_790_816_656;
        let line = aws_ls(b"2026-10-01 01:04:16  815250957 app/key with  blanks.tar.gz ");
        assert_eq!(line, object("app/key with  blanks.tar.gz ", 815_250_957, moment));
        assert_eq!(aws_ls(b"2026-10-01 01:04:16          0  x"), object(" x", 0, moment));
        assert_eq!(aws_ls(b"                           PRE app/"), ListedLine::Folder);
        for summary in ["Total Objects: 99", "   Total Size: 12345"] {
            assert_eq!(aws_ls(summary.as_bytes()), ListedLine::Nothing);
        }
        for bad in ["2026-10-01 01:04:16 bucket", "2026-10-01 01:04:16    1.2 MiB x", "2026-10-01 01:04:16 12 ", "x"] {
            assert_eq!(aws_ls(bad.as_bytes()), ListedLine::Unread, "{bad}");
        }
        assert!(is_rounded(b"2026-10-01 01:04:16    1.2 MiB x"));
        assert!(!is_rounded(b"2026-10-01 01:04:16         12 MiB x"), "a key may begin like this");
    }

    #[test]
    fn lines_of_find_and_rclone() {
        let moment = 1_790_816_656;
        assert_eq!(find_printf(b"1790816656.1234567890 12 ./app/a b"), object("app/a b", 12, moment));
        assert_eq!(find_printf(b"1790816656.12 12 /mnt/a"), object("/mnt/a", 12, moment));
        assert_eq!(find_printf(b"1790816656.12 4096 ."), ListedLine::Nothing);
        assert_eq!(rclone_lsl(b"    12 2026-10-01 01:04:16.062626927 app/a b"), object("app/a b", 12, moment));
        assert_eq!(rclone_lsl(b"    -1 2026-10-01 01:04:16.062626927 app/a b"), ListedLine::Unread);
        assert_eq!(rclone_lsl(b"    12 2026-10-01 01:04:16 app/a b 0123456789"), ListedLine::Unread);
    }

    #[test]
    fn directories_of_find_are_left_out() {
        for order in [["a", "a/b", "a/b/x", "a/b/y", "c"], ["a/b/x", "a/b/y", "a/b", "a", "c"]] {
            let mut filter = DirectoryFilter::default();
            let mut kept = Vec::new();
            for key in order {
                kept.extend(filter.next(key.as_bytes(), 1, 2));
            }
            kept.extend(filter.end());
            let kept: Vec<String> = kept.into_iter().map(|(key, ..)| String::from_utf8(key).unwrap()).collect();
            assert_eq!(kept, ["a/b/x", "a/b/y", "c"], "{order:?}");
        }
    }

    proptest! {
        #[test]
        fn a_key_comes_back_exactly(key in "[^\r\n]{1,40}", size: u64, second in 0..59_u32) {
            let line = format!("2026-10-01 01:04:{second:02} {size:>10} {key}");
            let expected = object(&key, size, 1_790_816_640 + i64::from(second));
            prop_assert_eq!(aws_ls(line.as_bytes()), expected);
        }

        #[test]
        fn no_line_panics(line: Vec<u8>) {
            for parse in [aws_ls, find_printf, rclone_lsl] {
                parse(&line);
            }
            is_rounded(&line);
            time::parse(&line);
        }
    }
}
