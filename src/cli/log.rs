//! Logs: on standard error, for whoever looks into a problem. What a command has to say stands in its report, not here.

use std::fmt::{self, Debug};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt as _;

use indicatif::MultiProgress;
use tracing::field::Field;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};

use super::terminal;
use crate::env;
use crate::text;

/// Overrides `-v` and `-q`: the filter syntax of `tracing_subscriber`, `runner::journal=trace`.
pub const LOG_VARIABLE: &str = "RUNNER_LOG";

/// What is logged with this many `-v`, or with `-q`. Whoever runs for long says what it does without being asked.
pub fn level(verbose: u8, quiet: bool, long_running: bool) -> &'static str {
    match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) if long_running => "warn,runner=info",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, 2) => "runner=debug,info",
        (false, _) => "runner=trace,debug",
    }
}

/// Whether standard error goes to the journal itself, which dates each line: `$JOURNAL_STREAM` names device and inode of the
/// stream that systemd gave, and children that redirect theirs inherit the variable nevertheless.
pub fn under_journald(variable: Option<&str>, device: u64, inode: u64) -> bool {
    variable.is_some_and(|v| v == format!("{device}:{inode}"))
}

/// Starts logging. Lines and progress share the terminal, so lines are written while `bars` are hidden.
pub fn start(verbose: u8, quiet: bool, long_running: bool, bars: MultiProgress) {
    let asked = env::variable(LOG_VARIABLE).and_then(|filter| EnvFilter::try_new(filter.to_str()?).ok());
    let filter = asked.unwrap_or_else(|| EnvFilter::new(level(verbose, quiet, long_running)));
    let variable = env::variable("JOURNAL_STREAM").and_then(|stream| stream.into_string().ok());
    let stream = std::fs::metadata("/proc/self/fd/2").map(|m| (m.dev(), m.ino())).unwrap_or_default();
    let color = terminal::errors_are_seen() && env::variable("NO_COLOR").is_none();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .fmt_fields(debug_fn(field).delimited(" "))
        .with_writer(Lines(bars))
        .with_ansi(color)
        .with_target(verbose > 1);
    // A second subscriber is refused; the first one keeps working.
    let _ = if under_journald(variable.as_deref(), stream.0, stream.1) {
        builder.without_time().try_init()
    } else {
        builder.try_init()
    };
}

/// What happened is one line, whatever stands in a name or in somebody else's words.
fn field(out: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let value = format!("{value:?}");
    let value = text::line(&value);
    match field.name() {
        "message" => write!(out, "{value}"),
        name => write!(out, "{name}={value}"),
    }
}

/// Writes whole lines to standard error while no bar is drawn.
#[derive(Debug, Clone)]
struct Lines(MultiProgress);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Lines;
    fn make_writer(&'a self) -> &'a Lines {
        self
    }
}

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.suspend(|| terminal::log().write(line))
    }

    fn flush(&mut self) -> io::Result<()> {
        terminal::log().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_must_be_the_one_that_systemd_gave() {
        assert!(under_journald(Some("9:4711"), 9, 4711));
        assert!(!under_journald(Some("9:4711"), 9, 4712), "inherited by a child with its own stderr");
        assert!(!under_journald(None, 0, 0));
    }

    #[test]
    fn a_message_is_one_line_and_steers_nothing() {
        let (reader, writer) = io::pipe().unwrap();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(std::sync::Mutex::new(writer))
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .fmt_fields(debug_fn(field).delimited(" "))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::warn!(name = "a\u{202e}b", "west\u{1b}[2J\nrole app: all is well");
        });
        let said = io::read_to_string(reader).unwrap();
        assert_eq!(said.trim_start(), "WARN west\\u{1b}[2J\\nrole app: all is well name=\"a\\u{202e}b\"\n");
    }

    #[test]
    fn every_level_is_a_filter() {
        for (verbose, quiet) in [(0, true), (0, false), (1, false), (2, false), (9, false)] {
            for long_running in [false, true] {
                assert!(EnvFilter::try_new(level(verbose, quiet, long_running)).is_ok(), "{verbose} {quiet}");
            }
        }
    }
}
