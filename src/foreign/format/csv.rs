//! Pure. Comma-separated values (RFC 4180): with names in the first line, or recognised by what is in the columns, as S3
//! Inventory writes them.

use std::borrow::Cow;
use std::ops::Range;

use super::collector::{EntryVersion, ListedEntry, ListedLine, ListingCollector};
use super::error::ListingError;
use super::lines::LINE_BYTES_MAX;
use super::{key, text, time};

/// Names of the column with the key, the best first, in lower case and without blanks and marks.
const KEY_NAMES: [&str; 10] =
    ["key", "objectkey", "path", "filepath", "name", "objectname", "object", "filename", "file", "blobname"];

/// Names of the column with the time of writing.
const TIME_NAMES: [&str; 13] = [
    "lastmodified",
    "lastmodifieddate",
    "lastmodifiedtime",
    "modified",
    "modtime",
    "mtime",
    "datetime",
    "timestamp",
    "updated",
    "date",
    "time",
    "created",
    "creationtime",
];

/// Names of the column with the size in bytes.
const SIZE_NAMES: [&str; 8] =
    ["size", "bytes", "sizebytes", "sizeinbytes", "filesize", "objectsize", "contentlength", "length"];

/// Where a table has what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CsvColumns {
    separator: u8,
    has_header: bool,
    is_url_encoded: bool,
    key: usize,
    size: usize,
    modified: usize,
    /// The time of day, where `modified` is only a date.
    time_of_day: Option<usize>,
    version_id: Option<usize>,
    is_latest: Option<usize>,
    is_delete_marker: Option<usize>,
}

impl CsvColumns {
    /// The columns that a first line names; `None` if it names none.
    ///
    /// # Errors
    /// It names some, but not all that are needed.
    pub(super) fn of_header(line: &[u8]) -> Result<Option<Self>, ListingError> {
        let separator = separator(line);
        let mut record = CsvRecord::default();
        if !record.split(line, separator) {
            return Ok(None);
        }
        let plain = |field: &[u8]| -> String {
            let text = String::from_utf8_lossy(field);
            text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect()
        };
        let names: Vec<String> = (0..record.len()).map(|at| plain(record.field(at))).collect();
        let find = |wanted: &[&str]| wanted.iter().find_map(|name| names.iter().position(|found| found == name));
        let (key, size, modified) = (find(&KEY_NAMES), find(&SIZE_NAMES), find(&TIME_NAMES));
        // One common word alone is no header.
        if [key, size, modified].iter().flatten().count() < 2 {
            return Ok(None);
        }
        let modified = modified.ok_or(ListingError::MissingColumn("time"))?;
        let time_of_day = if names[modified] == "date" { find(&["time"]) } else { None };
        Ok(Some(Self {
            separator,
            has_header: true,
            is_url_encoded: false,
            key: key.ok_or(ListingError::MissingColumn("key"))?,
            size: size.ok_or(ListingError::MissingColumn("size"))?,
            modified,
            time_of_day,
            version_id: find(&["versionid", "version"]),
            is_latest: find(&["islatest", "latest"]),
            is_delete_marker: find(&["isdeletemarker", "deletemarker"]),
        }))
    }
}

/// The separator of a line: the one that it has most.
fn separator(line: &[u8]) -> u8 {
    let count = |separator: u8| line.iter().filter(|byte| **byte == separator).count();
    [b',', b';', b'\t'].into_iter().rev().max_by_key(|separator| count(*separator)).unwrap_or(b',')
}

/// What all fields of a column look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ColumnContent {
    Time,
    Integer,
    Boolean,
    Empty,
    Text,
}

/// The columns of a table without names, by what is in them; `None` if it is no such table.
///
/// S3 Inventory begins with bucket and key, then has the version if it lists versions, and then what was asked for in a
/// fixed order: size and time of writing are its first number and its first time.
///
/// # Errors
/// It is an inventory without a size or a time.
pub(super) fn columns_of_content(sample: &[&[u8]]) -> Result<Option<CsvColumns>, ListingError> {
    let Some(first) = sample.first() else { return Ok(None) };
    let separator = separator(first);
    let mut record = CsvRecord::default();
    let mut rows: Vec<Vec<Vec<u8>>> = Vec::new();
    for line in sample {
        if record.split(line, separator) {
            rows.push((0..record.len()).map(|at| record.field(at).to_vec()).collect());
        }
    }
    let width = rows.iter().map(Vec::len).max().unwrap_or(0);
    rows.retain(|row| row.len() == width);
    if width < 3 || 2 * rows.len() < sample.len() {
        return Ok(None);
    }
    let content: Vec<ColumnContent> = (0..width).map(|at| column_content(&rows, at)).collect();
    let first_of = |kind: ColumnContent| content.iter().position(|found| *found == kind);
    let is_constant = |at: usize| rows.iter().all(|row| row[at] == rows[0][at]);
    let is_inventory = content[1] == ColumnContent::Text && is_constant(0) && is_bucket_name(&rows[0][0]);
    let key = if is_inventory { Some(1) } else { first_of(ColumnContent::Text) };
    let (Some(key), size, modified) = (key, first_of(ColumnContent::Integer), first_of(ColumnContent::Time)) else {
        return Ok(None);
    };
    let (size, modified) = match (size, modified) {
        (Some(size), Some(modified)) => (size, modified),
        (Some(_), None) if is_inventory => return Err(ListingError::MissingColumn("time")),
        (None, Some(_)) if is_inventory => return Err(ListingError::MissingColumn("size")),
        _ => return Ok(None),
    };
    let has_versions = is_inventory && content.get(3) == Some(&ColumnContent::Boolean);
    let has_markers = has_versions && content.get(4) == Some(&ColumnContent::Boolean);
    Ok(Some(CsvColumns {
        separator,
        has_header: false,
        is_url_encoded: is_inventory && rows.iter().all(|row| key::is_url_encoded(&row[key])),
        key,
        size,
        modified,
        time_of_day: None,
        version_id: has_versions.then_some(2),
        is_latest: has_versions.then_some(3),
        is_delete_marker: has_markers.then_some(4),
    }))
}

fn column_content(rows: &[Vec<Vec<u8>>], at: usize) -> ColumnContent {
    let mut fields = rows.iter().map(|row| row[at].as_slice()).filter(|field| !field.is_empty()).peekable();
    if fields.peek().is_none() {
        return ColumnContent::Empty;
    }
    let all =
        |is: fn(&[u8]) -> bool| rows.iter().map(|row| row[at].as_slice()).all(|field| field.is_empty() || is(field));
    if all(|field| boolean(field).is_some()) {
        ColumnContent::Boolean
    } else if all(|field| text::number(field).is_some()) {
        ColumnContent::Integer
    } else if all(|field| time::parse(field).is_some()) {
        ColumnContent::Time
    } else {
        ColumnContent::Text
    }
}

/// Whether this may be the name of a bucket: 3 to 63 small letters, digits, dots and hyphens, and in old buckets more.
fn is_bucket_name(field: &[u8]) -> bool {
    (3..=255).contains(&field.len()) && field.iter().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(byte))
}

fn boolean(field: &[u8]) -> Option<bool> {
    if field.eq_ignore_ascii_case(b"true") {
        Some(true)
    } else if field.eq_ignore_ascii_case(b"false") {
        Some(false)
    } else {
        None
    }
}

/// One record: its fields without quotes, in one buffer that is used again.
#[derive(Debug, Default)]
struct CsvRecord {
    bytes: Vec<u8>,
    fields: Vec<Range<usize>>,
}

impl CsvRecord {
    /// Splits a record. `false`: a quote is open at its end, or a closed one is followed by more.
    fn split(&mut self, line: &[u8], separator: u8) -> bool {
        self.bytes.clear();
        self.fields.clear();
        let mut rest = line;
        loop {
            let start = self.bytes.len();
            if let Some(mut quoted) = rest.strip_prefix(b"\"") {
                loop {
                    let Some(quote) = quoted.iter().position(|byte| *byte == b'"') else { return false };
                    self.bytes.extend_from_slice(&quoted[..quote]);
                    quoted = &quoted[quote + 1..];
                    let Some(doubled) = quoted.strip_prefix(b"\"") else { break };
                    self.bytes.push(b'"');
                    quoted = doubled;
                }
                self.fields.push(start..self.bytes.len());
                match quoted.split_first() {
                    None => return true,
                    Some((byte, more)) if *byte == separator => rest = more,
                    Some(_) => return false,
                }
            } else {
                let end = rest.iter().position(|byte| *byte == separator);
                self.bytes.extend_from_slice(&rest[..end.unwrap_or(rest.len())]);
                self.fields.push(start..self.bytes.len());
                match end {
                    None => return true,
                    Some(end) => rest = &rest[end + 1..],
                }
            }
        }
    }

    fn len(&self) -> usize {
        self.fields.len()
    }

    /// A field, empty if there is none.
    fn field(&self, at: usize) -> &[u8] {
        self.fields.get(at).map_or(&[], |range| &self.bytes[range.clone()])
    }
}

/// Whether a quote is open at the end of a record.
fn is_open(record: &[u8]) -> bool {
    record.iter().filter(|byte| **byte == b'"').count() % 2 == 1
}

/// Reads records, of which one may have several lines.
#[derive(Debug)]
pub(super) struct CsvReader {
    columns: CsvColumns,
    record: CsvRecord,
    /// Lines of a record whose last quote is open, and the number of the first.
    open: Vec<u8>,
    open_number: u64,
    is_past_header: bool,
}

impl CsvReader {
    pub(super) fn new(columns: CsvColumns) -> Self {
        let is_past_header = !columns.has_header;
        Self { columns, record: CsvRecord::default(), open: Vec::new(), open_number: 0, is_past_header }
    }

    pub(super) fn has_header(&self) -> bool {
        self.columns.has_header
    }

    /// Whether a quote is open.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Reads a line.
    pub(super) fn line(
        &mut self,
        number: u64,
        line: &[u8],
        collector: &mut ListingCollector,
    ) -> Result<(), ListingError> {
        if !self.is_past_header {
            self.is_past_header = true;
            return Ok(());
        }
        if self.open.is_empty() {
            if !is_open(line) {
                return self.record(number, line, collector);
            }
            self.open_number = number;
            self.open.extend_from_slice(line);
            return Ok(());
        }
        self.open.push(b'\n');
        self.open.extend_from_slice(line);
        if is_open(line) || self.open.len() > LINE_BYTES_MAX { self.end(collector) } else { Ok(()) }
    }

    /// Reads a record that has several lines, also if its quote is still open.
    pub(super) fn end(&mut self, collector: &mut ListingCollector) -> Result<(), ListingError> {
        if self.open.is_empty() {
            return Ok(());
        }
        let open = std::mem::take(&mut self.open);
        self.record(self.open_number, &open, collector)
    }

    fn record(&mut self, number: u64, line: &[u8], collector: &mut ListingCollector) -> Result<(), ListingError> {
        let is_split = self.record.split(line, self.columns.separator);
        let held = if is_split { self.columns.entry(&self.record) } else { None };
        collector.line(number, line, &held.unwrap_or(ListedLine::Unread))
    }
}

impl CsvColumns {
    fn entry<'a>(&self, record: &'a CsvRecord) -> Option<ListedLine<'a>> {
        let last = self.key.max(self.size).max(self.modified);
        let key = record.field(self.key);
        if record.len() <= last || key.is_empty() {
            return None;
        }
        let key = if self.is_url_encoded { key::url_decoded(key) } else { Cow::Borrowed(key) };
        let version = self.version(record)?;
        let is_marker = self.is_delete_marker.and_then(|at| boolean(record.field(at))).unwrap_or(false);
        if is_marker {
            return Some(ListedLine::DeleteMarker(key));
        }
        let modified = match self.time_of_day {
            Some(at) => time::parse(&[record.field(self.modified), b" ", record.field(at)].concat()),
            None => time::parse(record.field(self.modified)),
        };
        let (size, modified) = (text::number(record.field(self.size).trim_ascii())?, modified?);
        Some(ListedLine::Object(ListedEntry { key, size, modified, version }))
    }

    fn version(&self, record: &CsvRecord) -> Option<EntryVersion> {
        // Of a bucket that keeps no versions.
        let is_null = self.version_id.is_some_and(|at| matches!(record.field(at), b"" | b"null"));
        if let Some(at) = self.is_latest {
            let field = record.field(at).trim_ascii();
            let flag = match field {
                b"1" => Some(true),
                b"0" => Some(false),
                _ => boolean(field),
            };
            let is_latest = flag?;
            let is_only = is_null && is_latest;
            return Some(if is_only { EntryVersion::Unknown } else { EntryVersion::Named { is_latest } });
        }
        Some(if self.version_id.is_some() && !is_null { EntryVersion::Ordered } else { EntryVersion::Unknown })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> ListingCollector {
        let lines: Vec<&[u8]> = text.lines().map(str::as_bytes).collect();
        let columns = match CsvColumns::of_header(lines[0]).unwrap() {
            Some(columns) => columns,
            None => columns_of_content(&lines).unwrap().unwrap(),
        };
        let (mut reader, mut collector) = (CsvReader::new(columns), ListingCollector::default());
        for (number, line) in (1..).zip(lines) {
            reader.line(number, line, &mut collector).unwrap();
        }
        reader.end(&mut collector).unwrap();
        collector
    }

    fn objects(collector: &ListingCollector) -> Vec<(&str, u64, i64, bool)> {
        let listing = &collector.read.listing;
        (0..listing.len())
            .map(|at| {
                let object = listing.object(at);
                (listing.key(at), object.size, object.modified, object.is_latest)
            })
            .collect()
    }

    #[test]
    fn columns_in_any_order_and_quoted_fields() {
        let collector = read("Size (bytes);Name;Last-Modified\n1;\"a \"\"b\"\";\nc\";1970-01-01 00:00:05\n");
        assert_eq!(objects(&collector), [("a \"b\";\nc", 1, 5, true)]);
        let collector =
            read("size,name,class,Last-Modified\n1,\"a \"\"b\"\",\nc\",STANDARD,1970-01-01 00:00:05\n2,d,,x\n");
        assert_eq!(objects(&collector), [("a \"b\",\nc", 1, 5, true)]);
        assert_eq!(collector.read.unread_lines, 1);
        let collector = read("date,time,bytes,key\n1970-01-01,00:01,7,k\n");
        assert_eq!(objects(&collector), [("k", 7, 60, true)]);
    }

    #[test]
    fn an_inventory_is_recognised_by_its_content() {
        let collector = read(concat!(
            "\"b-1\",\"a+b%2B/c\",\"v1\",\"true\",\"false\",\"12\",\"1970-01-01T00:00:05.000Z\",\"9\",\"STANDARD\",\"false\"\n",
            "\"b-1\",\"a+b%2B/c\",\"v0\",\"false\",\"false\",\"11\",\"1970-01-01T00:00:04.000Z\",\"9\",\"STANDARD\",\"false\"\n",
            "\"b-1\",\"gone\",\"v0\",\"true\",\"true\",\"\",\"1970-01-01T00:00:04.000Z\",\"\",\"\",\"\"\n",
        ));
        assert_eq!(objects(&collector), [("a b+/c", 12, 5, true), ("a b+/c", 11, 4, false)]);
        let collector = read("b-1,a/1,12,1970-01-01T00:00:05.000Z\nb-1,a/2,13,1970-01-01T00:00:06.000Z\n");
        assert_eq!(objects(&collector), [("a/1", 12, 5, true), ("a/2", 13, 6, true)]);
        let collector = read("1970-01-01T00:00:05Z,12,a b\n1970-01-01T00:00:06Z,13,c%20\n");
        assert_eq!(objects(&collector), [("a b", 12, 5, true), ("c%20", 13, 6, true)]);
    }

    #[test]
    fn a_column_that_lacks_is_named() {
        let lines: [&[u8]; 1] = [b"b-1,a/1,12,STANDARD"];
        assert!(matches!(columns_of_content(&lines), Err(ListingError::MissingColumn("time"))));
        assert!(matches!(CsvColumns::of_header(b"key,size,class"), Err(ListingError::MissingColumn("time"))));
        assert_eq!(CsvColumns::of_header(b"name,of,something").unwrap(), None);
    }

    proptest! {
        #[test]
        fn a_field_comes_back_exactly(fields in proptest::collection::vec("[^\r]{0,20}", 1..6)) {
            let quoted: Vec<String> = fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
            let mut record = CsvRecord::default();
            prop_assert!(record.split(quoted.join(",").as_bytes(), b','));
            let back: Vec<&[u8]> = (0..record.len()).map(|at| record.field(at)).collect();
            prop_assert_eq!(back, fields.iter().map(String::as_bytes).collect::<Vec<_>>());
        }

        #[test]
        fn no_line_panics(lines: Vec<Vec<u8>>) {
            let lines: Vec<&[u8]> = lines.iter().map(Vec::as_slice).collect();
            let _ = columns_of_content(&lines);
            let columns = CsvColumns::of_header(b"key,size,time").unwrap().unwrap();
            let (mut reader, mut collector) = (CsvReader::new(columns), ListingCollector::default());
            for line in lines {
                let _ = CsvColumns::of_header(line);
                reader.line(1, line, &mut collector).unwrap();
            }
            reader.end(&mut collector).unwrap();
        }
    }
}
