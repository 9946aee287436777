//! JSON documents whose objects have no line each: `aws s3api`, and what `jq` makes of any listing. They are read as a
//! stream, so the memory is that of the objects alone.

use std::io::BufRead;

use serde::de::DeserializeSeed as _;

use super::collector::{ForeignListing, ListingCollector, unread};
use super::error::{ListingError, ListingFormat};
use super::json::{EntrySink, EntryWalk, JsonEntry};

/// Collects entries, and looks at the objects around them.
struct DocumentSink {
    collector: ListingCollector,
    entries: u64,
    /// There is an object that is neither one of a bucket nor a document of objects.
    is_strange: bool,
}

impl EntrySink for DocumentSink {
    fn entry(&mut self, entry: JsonEntry) -> Result<(), ListingError> {
        if entry.is_envelope() {
            self.is_strange |= !entry.is_document();
            return entry.check_envelope();
        }
        self.entries += 1;
        self.collector.line(self.entries, b"a JSON object", &entry.into_line())
    }
}

/// Reads all documents.
pub(super) fn read(mut input: impl BufRead) -> Result<ForeignListing, ListingError> {
    let mut sink = DocumentSink { collector: ListingCollector::default(), entries: 0, is_strange: false };
    while skip_blanks(&mut input)? {
        let mut failed = None;
        let walk = EntryWalk { sink: &mut sink, failed: &mut failed, are_delete_markers: false, are_versions: false };
        let read = walk.deserialize(&mut serde_json::Deserializer::from_reader(&mut input));
        if let Some(error) = failed {
            return Err(error);
        }
        read.map_err(|error| match error.io_error_kind() {
            Some(_) => ListingError::Read(error.into()),
            None => ListingError::Json(error.to_string()),
        })?;
    }
    if sink.is_strange && sink.entries == 0 {
        return Err(ListingError::Unrecognised(unread(1, b"JSON without the key, size and time of objects")));
    }
    sink.collector.finish(ListingFormat::JsonDocument)
}

/// Skips what stands between documents; `false` at the end of the input.
fn skip_blanks(input: &mut impl BufRead) -> std::io::Result<bool> {
    loop {
        let read = input.fill_buf()?;
        if read.is_empty() {
            return Ok(false);
        }
        let blanks = read.iter().take_while(|byte| byte.is_ascii_whitespace() || **byte == b',').count();
        let is_only_blanks = blanks == read.len();
        input.consume(blanks);
        if !is_only_blanks {
            return Ok(true);
        }
    }
}
