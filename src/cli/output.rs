//! Standard output, whose reader may close it early.

use std::fmt::{self, Debug};
use std::io::{self, BufWriter, Write};

use serde_json::Value;

use super::colour::paint;
use super::json::JsonListWriter;
use super::render::layout::screen;
use crate::text;

/// A buffered output that remembers whether its reader closed it: `runner ls app | head` is not an error.
pub struct CommandOutput {
    out: Box<dyn Write + Send>,
    left: bool,
    used: bool,
    is_painted: bool,
}

impl CommandOutput {
    /// Writes to `out`.
    pub fn new(out: impl Write + Send + 'static) -> Self {
        Self { out: Box::new(BufWriter::new(out)), left: false, used: false, is_painted: false }
    }

    /// Whether the reader closed the output. Then a failed write, or a command that failed because of it, counts as
    /// success.
    pub fn reader_left(&self) -> bool {
        self.left
    }

    /// Whether anything was written. If so, the one document of `--json` has begun already.
    pub fn is_used(&self) -> bool {
        self.used
    }

    /// The same output, with colours if `is_painted`.
    pub fn in_colour(self, is_painted: bool) -> Self {
        Self { is_painted, ..self }
    }

    /// Writes the final text, made safe to show. A reader that closed the output does not change the result of the
    /// command.
    pub fn print(&mut self, text: &str) -> io::Result<()> {
        let shown = self.shown(text);
        self.end(&shown)
    }

    /// Writes a document for programs: unchanged, and without colours.
    pub fn document(&mut self, text: &str) -> io::Result<()> {
        self.end(&text::lines(text))
    }

    /// Writes `text` over what a terminal of `rows` rows shows.
    pub fn draw(&mut self, text: &str, rows: usize) -> io::Result<()> {
        let shown = self.shown(text);
        self.end(&screen(&shown, rows))
    }

    fn shown(&self, text: &str) -> String {
        let shown = text::lines(text);
        if self.is_painted { paint(&shown) } else { shown.into_owned() }
    }

    fn end(&mut self, text: &str) -> io::Result<()> {
        match self.write_all(text.as_bytes()).and_then(|()| self.flush()) {
            Err(_) if self.left => Ok(()),
            result => result,
        }
    }

    fn note<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        self.left |= result.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::BrokenPipe);
        result.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => error,
            kind => io::Error::new(kind, format!("standard output cannot be written: {error}")),
        })
    }
}

impl Write for CommandOutput {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        self.used = true;
        let result = self.out.write(buffer);
        self.note(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.out.flush();
        self.note(result)
    }
}

impl Debug for CommandOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("left", &self.left).finish_non_exhaustive()
    }
}

/// A list that is written item by item: text lines, or one JSON document.
#[derive(Debug)]
pub enum ListOutput<'a> {
    /// Text lines.
    Text(&'a mut CommandOutput),
    /// A JSON document.
    Json(JsonListWriter<&'a mut CommandOutput>),
}

impl<'a> ListOutput<'a> {
    /// Starts a list `name`, as JSON with these fields before it.
    pub fn open(out: &'a mut CommandOutput, json: bool, fields: &Value, name: &str) -> io::Result<Self> {
        Ok(if json { Self::Json(JsonListWriter::open(out, fields, name)?) } else { Self::Text(out) })
    }

    /// Writes one item in the requested format.
    pub fn item(&mut self, text: impl FnOnce() -> String, json: impl FnOnce() -> Value) -> io::Result<()> {
        match self {
            Self::Text(out) => out.write_all(text::lines(&text()).as_bytes()),
            Self::Json(list) => list.item(&json()),
        }
    }

    /// Ends the list: with `text` as the last lines, or with the fields `json`.
    pub fn finish(self, text: &str, json: &Value) -> io::Result<()> {
        match self {
            Self::Text(out) => out.print(text),
            Self::Json(list) => list.finish(json)?.flush(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use serde_json::json;

    use super::*;

    struct Gone;

    impl Write for Gone {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_left_is_told_from_a_full_disk() {
        let mut out = CommandOutput::new(Gone);
        assert!(out.print("x").is_ok() && out.reader_left());
        assert!(out.write_all(&vec![0; 1 << 20]).is_err(), "a long listing must end");
        let mut out = CommandOutput::new(Full);
        assert!(out.print("x").unwrap_err().to_string().starts_with("standard output") && !out.reader_left());
    }

    #[test]
    fn what_is_printed_steers_nothing_and_content_is_what_it_is() {
        let (reader, writer) = io::pipe().unwrap();
        let mut out = CommandOutput::new(writer);
        out.write_all(b"\x1b[0m\xff").unwrap();
        out.print("a\u{1b}[31m\u{202e}\n").unwrap();
        ListOutput::Text(&mut out).item(|| "b\u{9b}\n".to_owned(), || json!(null)).unwrap();
        let mut list = ListOutput::open(&mut out, true, &json!({ "name": "\u{202e}" }), "entries").unwrap();
        list.item(String::new, || json!("\u{2028}")).unwrap();
        list.finish("", &json!({ "end": "\u{7f}" })).unwrap();
        drop(out);
        let mut said = Vec::new();
        { reader }.read_to_end(&mut said).unwrap();
        let document = r#"{"schema":1,"name":"\u202e","entries":["\u2028"],"end":"\u007f"}"#;
        let shown = format!("a\\u{{1b}}[31m\\u{{202e}}\nb\\u{{9b}}\n{document}\n");
        assert_eq!(said, [&b"\x1b[0m\xff"[..], shown.as_bytes()].concat());
    }

    #[test]
    fn a_list_is_one_document_also_when_it_is_empty() {
        for items in [0, 3] {
            let (reader, writer) = io::pipe().unwrap();
            let mut out = CommandOutput::new(writer);
            let mut list = ListOutput::open(&mut out, true, &json!({ "role": "a}" }), "entries").unwrap();
            for n in 0..items {
                list.item(String::new, || json!({ "n": n })).unwrap();
            }
            list.finish("", &json!({ "count": items })).unwrap();
            drop(out);
            let text = io::read_to_string(reader).unwrap();
            let entries: Vec<Value> = (0..items).map(|n| json!({ "n": n })).collect();
            let document: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(document, json!({ "schema": 1, "role": "a}", "entries": entries, "count": items }));
        }
    }
}
