//! Lines of a listing, one at a time, in bounded memory.

use std::io::{self, BufRead, Chain, Cursor, Read};

/// The longest line. A key has at most 1,024 bytes in S3 and 4,096 in a file system.
pub(super) const LINE_BYTES_MAX: usize = 64 << 10;

/// The byte order mark of UTF-8, which some programs write first.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The first bytes of an input, at most `max`, and the input with these bytes before it again.
pub(super) fn head<R: BufRead>(mut input: R, max: usize) -> io::Result<(Vec<u8>, Chain<Cursor<Vec<u8>>, R>)> {
    let mut head = Vec::new();
    while head.len() < max {
        let read = input.fill_buf()?;
        let used = read.len().min(max - head.len());
        if used == 0 {
            break;
        }
        head.extend_from_slice(&read[..used]);
        input.consume(used);
    }
    let begin = usize::from(head.starts_with(BYTE_ORDER_MARK)) * BYTE_ORDER_MARK.len();
    head.drain(..begin);
    Ok((head.clone(), Cursor::new(head).chain(input)))
}

/// A line without its end.
#[derive(Debug)]
pub(super) struct ReadLine<'a> {
    pub(super) number: u64,
    pub(super) bytes: &'a [u8],
    /// It is longer than [`LINE_BYTES_MAX`]; the rest was skipped.
    pub(super) is_cut: bool,
}

/// Reads lines that end in LF or CRLF, the last one perhaps in neither.
#[derive(Debug)]
pub(super) struct LineReader<R> {
    input: R,
    line: Vec<u8>,
    number: u64,
}

impl<R: BufRead> LineReader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, line: Vec::new(), number: 0 }
    }

    /// The next line, blank ones included.
    pub(super) fn next_line(&mut self) -> io::Result<Option<ReadLine<'_>>> {
        self.line.clear();
        let bound = LINE_BYTES_MAX as u64 + 1;
        if self.input.by_ref().take(bound).read_until(b'\n', &mut self.line)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        let is_cut = self.line.len() > LINE_BYTES_MAX && self.line.last() != Some(&b'\n');
        if is_cut {
            self.skip_line()?;
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        Ok(Some(ReadLine { number: self.number, bytes: line, is_cut }))
    }

    fn skip_line(&mut self) -> io::Result<()> {
        loop {
            let read = self.input.fill_buf()?;
            let end = read.iter().position(|byte| *byte == b'\n');
            let (used, is_end) = (end.map_or(read.len(), |end| end + 1), end.is_some() || read.is_empty());
            self.input.consume(used);
            if is_end {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[u8]) -> Vec<(u64, String, bool)> {
        let (_, input) = head(text, LINE_BYTES_MAX).unwrap();
        let mut reader = LineReader::new(input);
        let mut all = Vec::new();
        while let Some(line) = reader.next_line().unwrap() {
            all.push((line.number, String::from_utf8(line.bytes.to_vec()).unwrap(), line.is_cut));
        }
        all
    }

    #[test]
    fn mixed_ends_a_mark_and_no_end() {
        let line = |number, text: &str| (number, text.to_owned(), false);
        assert_eq!(lines(b"\xef\xbb\xbfa\r\nb\n\nc"), [line(1, "a"), line(2, "b"), line(3, ""), line(4, "c")]);
        assert_eq!(lines(b""), []);
        assert_eq!(lines(b"\n"), [line(1, "")]);
    }

    #[test]
    fn a_long_line_is_cut_and_the_next_one_is_whole() {
        let long = "x".repeat(LINE_BYTES_MAX);
        let read = lines(format!("{long}yy\nb\n{long}\nc").as_bytes());
        let kinds: Vec<(usize, bool)> = read.iter().map(|(_, line, is_cut)| (line.len(), *is_cut)).collect();
        assert_eq!(kinds, [(LINE_BYTES_MAX + 1, true), (1, false), (LINE_BYTES_MAX, false), (1, false)]);
    }
}
