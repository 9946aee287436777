//! Pure. Recognises the format of a listing from its first lines.

use super::collector::{EntryVersion, ListedEntry, ListedLine, ListingCollector, unread};
use super::csv::{CsvColumns, CsvReader};
use super::error::{ListingError, ListingFormat, UnreadLine};
use super::text::{DirectoryFilter, FoundFile};
use super::{csv, json, text};

/// How many lines are looked at.
const SAMPLE_LINES: usize = 100;

/// Refuses what is no text.
pub(super) fn refuse_binary(head: &[u8]) -> Result<(), ListingError> {
    match head {
        [b'O', b'R', b'C', ..] => Err(ListingError::Columnar("Apache ORC")),
        [b'P', b'A', b'R', b'1', ..] => Err(ListingError::Columnar("Apache Parquet")),
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Err(ListingError::Utf16),
        _ => Ok(()),
    }
}

/// The first lines that are not blank. One that the head may have cut is not among them.
pub(super) fn sample(head: &[u8], is_whole: bool) -> Vec<&[u8]> {
    let whole = if is_whole { head.len() } else { head.iter().rposition(|byte| *byte == b'\n').unwrap_or(0) };
    let lines = head[..whole].split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.filter(|line| !line.trim_ascii().is_empty()).take(SAMPLE_LINES).collect()
}

/// The first line that is not blank, for a message.
pub(super) fn first_line(head: &[u8]) -> UnreadLine {
    let mut lines = (1..).zip(head.split(|byte| *byte == b'\n'));
    lines.find(|(_, line)| !line.trim_ascii().is_empty()).map_or_else(|| unread(1, b""), |(n, line)| unread(n, line))
}

/// Whether this is JSON that is not an object a line.
pub(super) fn is_json_document(head: &[u8], sample: &[&[u8]]) -> bool {
    matches!(head.trim_ascii_start().first(), Some(b'{' | b'[')) && !is_json_lines(sample)
}

/// Whether there is an object a line, perhaps between brackets.
fn is_json_lines(sample: &[&[u8]]) -> bool {
    let first = match sample {
        [first, second, ..] if first.trim_ascii() == b"[" => second,
        [first, ..] => first,
        [] => return false,
    };
    matches!(sample, [only] if only.trim_ascii() == b"[]") || json::is_entry(first)
}

/// A format whose lines are read one by one.
pub(super) enum LineFormat {
    AwsLs,
    Find(DirectoryFilter),
    RcloneLsl,
    JsonLines(json::ArrayBrackets),
    Csv(CsvReader),
}

impl LineFormat {
    pub(super) fn name(&self) -> ListingFormat {
        match self {
            Self::AwsLs => ListingFormat::AwsLs,
            Self::Find(_) => ListingFormat::FindPrintf,
            Self::RcloneLsl => ListingFormat::RcloneLsl,
            Self::JsonLines(_) => ListingFormat::JsonLines,
            Self::Csv(reader) if reader.has_header() => ListingFormat::CsvWithHeader,
            Self::Csv(_) => ListingFormat::CsvWithoutHeader,
        }
    }

    /// Whether a record goes on in the next line, also in a blank one.
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Csv(reader) if reader.is_open())
    }

    /// Reads a line that is not blank.
    pub(super) fn line(
        &mut self,
        number: u64,
        line: &[u8],
        collector: &mut ListingCollector,
    ) -> Result<(), ListingError> {
        match self {
            Self::AwsLs => collector.line(number, line, &text::aws_ls(line)),
            Self::RcloneLsl => collector.line(number, line, &text::rclone_lsl(line)),
            Self::Csv(reader) => reader.line(number, line, collector),
            Self::JsonLines(brackets) => collector.line(number, line, &json::line(line, brackets)),
            Self::Find(filter) => match text::find_printf(line) {
                ListedLine::Object(entry) => {
                    let file = filter.next(&entry.key, entry.size, entry.modified);
                    collector.line(number, line, &found(file.as_ref()))
                }
                held => collector.line(number, line, &held),
            },
        }
    }

    /// Reads what the last line left open.
    pub(super) fn end(&mut self, collector: &mut ListingCollector) -> Result<(), ListingError> {
        match self {
            Self::Find(filter) => match found(filter.end().as_ref()) {
                ListedLine::Object(entry) => collector.object(&entry),
                _ => Ok(()),
            },
            Self::JsonLines(brackets) if brackets.is_open() => {
                Err(ListingError::Incomplete("the array has no end, so the program that listed was interrupted"))
            }
            Self::Csv(reader) => reader.end(collector),
            Self::AwsLs | Self::RcloneLsl | Self::JsonLines(_) => Ok(()),
        }
    }
}

fn found(file: Option<&FoundFile>) -> ListedLine<'_> {
    file.map_or(ListedLine::Nothing, |(key, size, modified)| {
        let (key, size, modified) = (key.as_slice().into(), *size, *modified);
        ListedLine::Object(ListedEntry { key, size, modified, version: EntryVersion::Unknown })
    })
}

/// The format that fits most of these lines.
///
/// # Errors
/// The format is known, but lacks what an audit needs.
pub(super) fn recognise(sample: &[&[u8]]) -> Result<Option<LineFormat>, ListingError> {
    let Some(first) = sample.first() else { return Ok(None) };
    if is_json_lines(sample) {
        return Ok(Some(LineFormat::JsonLines(json::ArrayBrackets::default())));
    }
    let fitting =
        |parse: fn(&[u8]) -> ListedLine<'_>| sample.iter().filter(|line| parse(line) != ListedLine::Unread).count();
    let counts = [fitting(text::aws_ls), fitting(text::find_printf), fitting(text::rclone_lsl)];
    let best = counts.iter().copied().max().unwrap_or(0);
    if 2 * best > sample.len() {
        return Ok(Some(match counts {
            [aws, ..] if aws == best => LineFormat::AwsLs,
            [_, find, _] if find == best => LineFormat::Find(DirectoryFilter::default()),
            _ => LineFormat::RcloneLsl,
        }));
    }
    if let Some(rounded) = sample.iter().position(|line| text::is_rounded(line)) {
        return Err(ListingError::RoundedSizes(unread(rounded as u64 + 1, sample[rounded])));
    }
    let columns = match CsvColumns::of_header(first)? {
        Some(columns) => Some(columns),
        None => csv::columns_of_content(sample)?,
    };
    // Where a few lines of another format are among damaged ones, the message names that format.
    Ok(columns.map(|columns| LineFormat::Csv(CsvReader::new(columns))).or_else(|| match counts {
        [0, 0, 0] => None,
        [aws, ..] if aws == best => Some(LineFormat::AwsLs),
        [_, find, _] if find == best => Some(LineFormat::Find(DirectoryFilter::default())),
        _ => Some(LineFormat::RcloneLsl),
    }))
}
