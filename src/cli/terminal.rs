//! Standard output and standard error: only this file names them. Text from elsewhere (names of files and nodes,
//! messages of stores and dumps) is made safe to show here, once, and not where each text is made; colours are added
//! here, too.

use std::io::{self, Write};
use std::os::fd::AsFd;

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use rustix::fs::fstat;
use rustix::termios::{isatty, tcgetwinsize};

use super::colour::paint;
use super::log_format;
use super::render::layout::PageLayout;
use crate::env;
use crate::text;

/// Columns and rows of a terminal that does not report its size.
const USUAL: (usize, usize) = (80, 24);

/// Writes a message to standard error. If that is closed, the exit code remains.
pub fn write_error(words: &str) {
    if log_format::is_json() {
        let (level, line) = log_format::of_text(words);
        let priority = if goes_to_journal() { log_format::priority(level) } else { "" };
        let _ = io::stderr().write_all(format!("{priority}{line}").as_bytes());
        return;
    }
    let shown = text::lines(words);
    let shown = if errors_have_colours() { paint(&shown) } else { shown.into_owned() };
    // The journal treats each line by itself.
    let is_error = shown.starts_with("error:") && goes_to_journal();
    let shown = if is_error { format!("<3>{}\n", shown.trim_end().replace('\n', "\n<3>")) } else { shown };
    let _ = io::stderr().write_all(shown.as_bytes());
}

/// Whether standard error goes to the systemd journal, which dates each line itself, and stores it under the priority
/// that the line begins with.
pub fn goes_to_journal() -> bool {
    let variable = env::variable("JOURNAL_STREAM").and_then(|stream| stream.into_string().ok());
    let stream = fstat(io::stderr()).map(|stat| (stat.st_dev, stat.st_ino)).unwrap_or_default();
    is_stream(variable.as_deref(), stream.0, stream.1)
}

/// Whether `$JOURNAL_STREAM` names this stream. It holds the device and inode of the stream that systemd gave; children
/// that redirect theirs inherit the variable nevertheless.
fn is_stream(variable: Option<&str>, device: u64, inode: u64) -> bool {
    variable.is_some_and(|v| v == format!("{device}:{inode}"))
}

/// Whether standard error is a terminal.
pub fn errors_are_seen() -> bool {
    isatty(io::stderr())
}

/// Whether standard output is a terminal.
pub fn output_is_seen() -> bool {
    isatty(io::stdout())
}

/// The page of reports on standard output.
pub fn output_page() -> PageLayout {
    size(io::stdout()).map_or_else(file_page, |(columns, _)| PageLayout::terminal(columns))
}

/// The page of a file or a pipe. Its reader may tell its width by `COLUMNS`.
fn file_page() -> PageLayout {
    let columns = env::variable("COLUMNS").and_then(|text| text.to_str()?.parse().ok());
    columns.map_or(PageLayout::FILE, PageLayout::file)
}

/// The number of columns of standard output, if it is a terminal.
pub fn output_columns() -> Option<usize> {
    size(io::stdout()).map(|(columns, _)| columns)
}

/// The number of rows of standard output.
pub fn output_rows() -> usize {
    size(io::stdout()).map_or(USUAL.1, |(_, rows)| rows)
}

/// The page of reports on standard error.
pub fn report_page() -> PageLayout {
    size(io::stderr()).map_or_else(file_page, |(columns, _)| PageLayout::terminal(columns))
}

/// The page of messages on standard error: without a terminal each message is one line.
pub fn error_page() -> PageLayout {
    size(io::stderr()).map_or(PageLayout::LOG, |(columns, _)| PageLayout::terminal(columns))
}

/// The number of columns of standard error.
pub fn error_columns() -> usize {
    size(io::stderr()).map_or(USUAL.0, |(columns, _)| columns)
}

/// Whether standard error gets colours.
pub fn errors_have_colours() -> bool {
    has_colours(&io::stderr())
}

/// Whether standard output gets colours.
pub fn output_has_colours() -> bool {
    has_colours(&io::stdout())
}

/// By the conventions: `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE`, `TERM=dumb`; without any of them, colours if it is a
/// terminal.
fn has_colours(stream: &impl RawStream) -> bool {
    AutoStream::choice(stream) != ColorChoice::Never
}

/// Columns and rows of a terminal; `None` for other streams.
fn size(stream: impl AsFd) -> Option<(usize, usize)> {
    if !isatty(&stream) {
        return None;
    }
    let said = tcgetwinsize(&stream).map(|size| (size.ws_col.into(), size.ws_row.into())).unwrap_or_default();
    let or_usual = |n: usize, usual| if n == 0 { usual } else { n };
    Some((or_usual(said.0, USUAL.0), or_usual(said.1, USUAL.1)))
}

/// Plain standard output, for [`super::output::CommandOutput`].
pub fn output() -> impl Write + Send + 'static {
    io::stdout()
}

/// Plain standard error, for the log, whose messages and values are already safe to show.
pub fn log() -> impl Write {
    io::stderr()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_must_be_the_one_that_systemd_gave() {
        assert!(is_stream(Some("9:4711"), 9, 4711));
        assert!(!is_stream(Some("9:4711"), 9, 4712), "inherited by a child with its own stderr");
        assert!(!is_stream(None, 0, 0));
    }
}
