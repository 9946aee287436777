//! Pure. What the lines of a listing hold, and what is made of them.

use std::borrow::Cow;

use super::error::{ListingError, ListingFormat, OBJECTS_MAX, UnreadLine};
use super::key;
use crate::foreign::listing::{BucketListing, ListedObject, VersionColumn};

/// Of how many lines one may be unreadable.
const BAD_ONE_IN: u64 = 10;

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

/// What a line holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ListedLine<'a> {
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
pub(super) struct ListedEntry<'a> {
    /// The key's bytes.
    pub(super) key: Cow<'a, [u8]>,
    /// Size, in bytes.
    pub(super) size: u64,
    /// Seconds since 1970.
    pub(super) modified: i64,
    /// Whether the entry is a version, and whether it is the newest one, if the line says so.
    pub(super) version: EntryVersion,
}

/// What a line says about the version of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryVersion {
    /// Nothing.
    Unknown,
    /// There are versions; the newest of a key is listed first.
    Ordered,
    /// There are versions, and this is the newest one or is not.
    Named { is_latest: bool },
}

/// Collects what the lines hold.
#[derive(Debug, Default)]
pub(super) struct ListingCollector {
    pub(super) read: ForeignListing,
    /// Lines that are not blank.
    lines: u64,
    /// The key before, for listings in which the newest version comes first.
    before: Vec<u8>,
}

impl ListingCollector {
    pub(super) fn object(&mut self, entry: &ListedEntry<'_>) -> Result<(), ListingError> {
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

    pub(super) fn line(&mut self, number: u64, line: &[u8], held: &ListedLine<'_>) -> Result<(), ListingError> {
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

    pub(super) fn finish(mut self, format: ListingFormat) -> Result<ForeignListing, ListingError> {
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

pub(super) fn unread(number: u64, line: &[u8]) -> UnreadLine {
    let head = &line[..line.len().min(4 * UNREAD_CHARS_MAX)];
    let text = String::from_utf8_lossy(head);
    let mut shown: String = text.trim().chars().take(UNREAD_CHARS_MAX).collect();
    if text.trim().chars().count() > UNREAD_CHARS_MAX || head.len() < line.len() {
        shown.push('…');
    }
    UnreadLine { number, text: shown }
}
