//! gzip and zstd, recognised by their first bytes.

use std::io::{self, BufRead, BufReader};

use flate2::bufread::MultiGzDecoder;

use super::lines;

/// How much of the decompressed text is read at once.
const BUFFER_BYTES: usize = 128 << 10;

/// The input, decompressed if it is compressed. Several compressed files that were joined are read as one.
pub(super) fn open<'a>(input: impl BufRead + 'a) -> io::Result<Box<dyn BufRead + 'a>> {
    let (head, input) = lines::head(input, 4)?;
    Ok(if head.starts_with(b"\x1f\x8b") {
        Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(input)))
    } else if head.starts_with(b"\x28\xb5\x2f\xfd") {
        Box::new(BufReader::with_capacity(BUFFER_BYTES, zstd::Decoder::with_buffer(input)?))
    } else {
        Box::new(input)
    })
}
