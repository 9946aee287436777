//! Reads a listing that another program wrote. The format is recognised from its first lines.
//!
//! The invariant that lives here: a key comes back exactly, and what is not understood is counted, never guessed. A
//! listing that is cut off is an error, because an audit of a part would call backups missing that are there.
//!
//! The parsers are functions of one line; this file and `lines`, `compressed` and `json_stream` read from a `BufRead`.

mod compressed;
mod csv;
mod json;
mod json_stream;
mod key;
mod lines;
mod sniff;
mod text;
mod time;

pub use self::key::text as key_text;

use std::borrow::Cow;
use std::fmt;
use std::io::{self, BufRead};

use crate::foreign::format::lines::LineReader;
use crate::foreign::listing::{BucketListing, ListedObject, VersionColumn};

/// The most objects of one listing: some 5 GB of memory.
pub const OBJECTS_MAX: usize = 50_000_000;

/// How many bytes are looked at to recognise the format: more than a longest line.
const HEAD_BYTES: usize = lines::LINE_BYTES_MAX + 1024;

/// Of how many lines one may be unreadable.
const BAD_ONE_IN: u64 = 10;

/// The program or the kind of file that a listing is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListingFormat {
    /// `aws s3 ls`.
    AwsLs,
    /// Comma-separated values whose first line names the columns.
    CsvWithHeader,
    /// Comma-separated values without names, such as S3 Inventory.
    CsvWithoutHeader,
    /// A JSON object a line: `mc ls --json`, `rclone lsjson`.
    JsonLines,
    /// A JSON document: `aws s3api`.
    JsonDocument,
    /// `find -printf '%T@ %s %p\n'`.
    FindPrintf,
    /// `rclone lsl`.
    RcloneLsl,
}

impl fmt::Display for ListingFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AwsLs => "aws s3 ls",
            Self::CsvWithHeader => "CSV with a header",
            Self::CsvWithoutHeader => "CSV without a header, as of S3 Inventory",
            Self::JsonLines => "JSON lines, as of mc ls --json and rclone lsjson",
            Self::JsonDocument => "a JSON document, as of aws s3api",
            Self::FindPrintf => "find -printf",
            Self::RcloneLsl => "rclone lsl",
        })
    }
}

/// A line that was not understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnreadLine {
    /// Its number, from 1.
    pub number: u64,
    /// What it says, cut.
    pub text: String,
}

impl fmt::Display for UnreadLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.number, self.text)
    }
}

/// A listing, with what was left out of it.
#[derive(Debug, Default)]
pub struct ForeignListing {
    /// The objects.
    pub listing: BucketListing,
    /// The format; `None` if there was no line.
    pub format: Option<ListingFormat>,
    /// Number of lines that were not understood.
    pub unread_lines: u64,
    /// The first of them.
    pub first_unread: Option<UnreadLine>,
    /// Number of folders whose content is not in the listing.
    pub unlisted_folders: u64,
    /// Number of directories and files that a walk could not read.
    pub unread_path_count: u64,
    /// The first of them, each with its error.
    pub unread_paths: Vec<String>,
}

/// Why a listing is refused.
#[derive(Debug, thiserror::Error)]
pub enum ListingError {
    /// The file cannot be read, or what it is compressed with is damaged.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// No format fits.
    #[error("not a listing that is known: {0}")]
    Unrecognised(UnreadLine),
    /// Too many lines do not fit the format.
    #[error("read as {format}, but {bad} of {lines} lines do not fit, the first is {first}")]
    Unreadable {
        /// The format.
        format: ListingFormat,
        /// Number of lines that do not fit.
        bad: u64,
        /// Number of lines.
        lines: u64,
        /// The first that does not fit.
        first: UnreadLine,
    },
    /// A binary format that holds columns.
    #[error("this is {0}, which is not read")]
    Columnar(&'static str),
    /// Text of two bytes a character.
    #[error("this is UTF-16 text, which is not read")]
    Utf16,
    /// `aws s3 ls --human-readable`.
    #[error("the sizes are rounded: {0}")]
    RoundedSizes(UnreadLine),
    /// A JSON document that is damaged or cut off.
    #[error("the JSON document is damaged or breaks off: {0}")]
    Json(String),
    /// The listing says itself that there is more.
    #[error("the listing is not complete: {0}")]
    Incomplete(&'static str),
    /// `manifest.json` of S3 Inventory.
    #[error("this is the manifest of an S3 Inventory, not the inventory itself")]
    Manifest,
    /// A column that is needed.
    #[error("the table has no column with the {0}")]
    MissingColumn(&'static str),
    /// More than [`OBJECTS_MAX`].
    #[error("there are more than {OBJECTS_MAX} objects")]
    TooManyObjects,
}

impl ListingError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Read(_) => "check the file; a compressed file may have been cut off while it was copied.",
            Self::Unrecognised(_) | Self::Unreadable { .. } => {
                "these listings are read: aws s3 ls --recursive, aws s3api list-object-versions or list-objects-v2, S3 Inventory (CSV), CSV \
                 with a header, mc ls --json, rclone lsjson or lsl, find -printf '%T@ %s %p\\n', each also in gzip or zstd. A CSV file needs a \
                 first line such as last_modified,size,key."
            }
            Self::Columnar(_) => {
                "let S3 Inventory write CSV, or convert it: duckdb -c \"copy (select * from 'FILE') to 'listing.csv' (header)\"."
            }
            Self::Utf16 => "convert it: iconv -f UTF-16 -t UTF-8 FILE > listing.txt.",
            Self::RoundedSizes(_) => "list without --human-readable: the sizes of backups are compared to the byte.",
            Self::Json(_) => "list again; the program that lists may have been interrupted.",
            Self::Incomplete(_) => {
                "list everything: without --max-items and --no-paginate, and until the program ends."
            }
            Self::Manifest => {
                "pass the files that it names under \"files\": zcat *.csv.gz | runner audit --listing - reads several as one."
            }
            Self::MissingColumn(_) => {
                "add the column (in S3 Inventory: the fields Size and Last modified), or a first line with names: last_modified,size,key."
            }
            Self::TooManyObjects => "list a part: a prefix of the bucket, or one file of the inventory.",
        }
    }
}

/// What a line holds.
#[derive(Debug, PartialEq, Eq)]
enum ListedLine<'a> {
    /// An object.
    Object(ListedEntry<'a>),
    /// Nothing to audit, such as a summary.
    Nothing,
    /// A version that says that the key was deleted.
    DeleteMarker(Cow<'a, [u8]>),
    /// A folder whose content is not listed.
    Folder,
    /// Not understood.
    Unread,
}

/// One object as a line names it.
#[derive(Debug, PartialEq, Eq)]
struct ListedEntry<'a> {
    /// The key's bytes.
    key: Cow<'a, [u8]>,
    /// Size, in bytes.
    size: u64,
    /// Seconds since 1970.
    modified: i64,
    /// Whether the entry is a version, and whether it is the newest one, if the line says so.
    version: EntryVersion,
}

/// What a line says about the version of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EntryVersion {
    /// Nothing.
    Unknown,
    /// There are versions; the newest of a key is listed first.
    Ordered,
    /// There are versions, and this is the newest one or is not.
    Named { is_latest: bool },
}

/// Collects what the lines hold.
#[derive(Debug, Default)]
struct ListingCollector {
    read: ForeignListing,
    /// Lines that are not blank.
    lines: u64,
    /// The key before, for listings in which the newest version comes first.
    before: Vec<u8>,
}

impl ListingCollector {
    fn object(&mut self, entry: &ListedEntry<'_>) -> Result<(), ListingError> {
        if entry.key.last().is_none_or(|last| *last == b'/') {
            return Ok(());
        }
        if self.read.listing.len() == OBJECTS_MAX {
            return Err(ListingError::TooManyObjects);
        }
        let is_latest = match entry.version {
            EntryVersion::Unknown => true,
            EntryVersion::Named { is_latest } => is_latest,
            EntryVersion::Ordered => self.is_first_of(&entry.key),
        };
        if entry.version != EntryVersion::Unknown {
            self.read.listing.versions = VersionColumn::Present;
        }
        let object = ListedObject { size: entry.size, modified: entry.modified, is_latest };
        self.read.listing.push(&key::text(&entry.key), object);
        Ok(())
    }

    /// Whether the line before named another key. A delete marker is a line, too.
    fn is_first_of(&mut self, key: &[u8]) -> bool {
        let is_first = self.before != key;
        if is_first {
            self.before.clear();
            self.before.extend_from_slice(key);
        }
        is_first
    }

    fn line(&mut self, number: u64, line: &[u8], held: &ListedLine<'_>) -> Result<(), ListingError> {
        self.lines += 1;
        match held {
            ListedLine::Object(entry) => return self.object(entry),
            ListedLine::Nothing => {}
            ListedLine::DeleteMarker(key) => {
                self.is_first_of(key);
            }
            ListedLine::Folder => self.read.unlisted_folders += 1,
            ListedLine::Unread => {
                self.read.unread_lines += 1;
                self.read.first_unread.get_or_insert_with(|| unread(number, line));
            }
        }
        Ok(())
    }

    fn finish(mut self, format: ListingFormat) -> Result<ForeignListing, ListingError> {
        let (bad, lines) = (self.read.unread_lines, self.lines);
        if let Some(first) = &self.read.first_unread
            && (bad * BAD_ONE_IN > lines || bad == lines)
        {
            return Err(ListingError::Unreadable { format, bad, lines, first: first.clone() });
        }
        self.read.format = Some(format);
        Ok(self.read)
    }
}

/// The most characters that are shown of a line that was not understood.
const UNREAD_CHARS_MAX: usize = 120;

fn unread(number: u64, line: &[u8]) -> UnreadLine {
    let head = &line[..line.len().min(4 * UNREAD_CHARS_MAX)];
    let text = String::from_utf8_lossy(head);
    let mut shown: String = text.trim().chars().take(UNREAD_CHARS_MAX).collect();
    if text.trim().chars().count() > UNREAD_CHARS_MAX || head.len() < line.len() {
        shown.push('…');
    }
    UnreadLine { number, text: shown }
}

/// Reads a listing to its end, whatever it is compressed with. An empty one is an answer: there is nothing.
///
/// # Errors
/// It cannot be read, is no listing that is known, or is not complete.
pub fn read_listing(input: impl BufRead) -> Result<ForeignListing, ListingError> {
    let input = compressed::open(input)?;
    let (head, input) = lines::head(input, HEAD_BYTES)?;
    sniff::refuse_binary(&head)?;
    let sample = sniff::sample(&head, head.len() < HEAD_BYTES);
    if head.trim_ascii().is_empty() && head.len() < HEAD_BYTES {
        return Ok(ForeignListing::default());
    }
    if sniff::is_json_document(&head, &sample) {
        return json_stream::read(input);
    }
    let Some(mut format) = sniff::recognise(&sample)? else {
        return Err(ListingError::Unrecognised(sniff::first_line(&head)));
    };
    let mut lines = LineReader::new(input);
    let mut collector = ListingCollector::default();
    while let Some(line) = lines.next_line()? {
        match line.bytes {
            bytes if bytes.trim_ascii().is_empty() && !format.is_open() => {}
            bytes if line.is_cut => collector.line(line.number, bytes, &ListedLine::Unread)?,
            bytes => format.line(line.number, bytes, &mut collector)?,
        }
    }
    format.end(&mut collector)?;
    collector.finish(format.name())
}

#[cfg(test)]
mod tests;
