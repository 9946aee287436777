//! Why a listing is refused, and which formats there are.

use std::fmt;
use std::io;

/// The most objects of one listing: some 5 GB of memory.
pub const OBJECTS_MAX: usize = 50_000_000;

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
