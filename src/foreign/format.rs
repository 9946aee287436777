//! Reads a listing that another program wrote. The format is recognised from its first lines.
//!
//! The invariant that lives here: a key comes back exactly, and what is not understood is counted, never guessed. A
//! listing that is cut off is an error, because an audit of a part would call backups missing that are there.
//!
//! The parsers are functions of one line; this file and `lines`, `compressed` and `json_stream` read from a `BufRead`.

mod collector;
mod compressed;
mod csv;
mod error;
mod json;
mod json_stream;
mod key;
mod lines;
mod sniff;
mod text;
mod time;

use std::io::BufRead;

pub use self::collector::ForeignListing;
use self::collector::{ListedLine, ListingCollector};
pub use self::error::{ListingError, ListingFormat, OBJECTS_MAX, UnreadLine};
pub use self::key::text as key_text;
use self::lines::LineReader;

/// How many bytes are looked at to recognise the format: more than a longest line.
const HEAD_BYTES: usize = lines::LINE_BYTES_MAX + 1024;

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
