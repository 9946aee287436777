//! Logs on standard error, for people who look into a problem. A command's results are in its report, not here.

use std::fmt::{self, Debug};
use std::io::{self, Write};

use indicatif::MultiProgress;
use tracing::field::Field;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt as _;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::registry::LookupSpan;

use super::colour::paint;
use super::log_format::{self, JsonFields, JsonLineFormat};
use super::render::layout::PageLayout;
use super::terminal;
use crate::env;
use crate::text::{self, ADVICE};

/// Overrides `-v` and `-q`: the filter syntax of `tracing_subscriber`, `runner::journal=trace`.
pub const LOG_VARIABLE: &str = "RUNNER_LOG";

/// The level for this many `-v`, or for `-q`. Long-running commands log what they do by default. Warnings of
/// `aws_config` only repeat, as dumps, what the error of the request says in a sentence.
pub fn level(verbose: u8, quiet: bool, long_running: bool) -> &'static str {
    match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) if long_running => "warn,runner=info,aws_config=error",
        (false, 0) => "warn,aws_config=error",
        (false, 1) => "runner=debug,info,aws_config=error",
        (false, _) => "runner=trace,debug",
    }
}

/// The format of log lines.
#[derive(Debug, Clone, Copy)]
struct LogFormat {
    /// With the date, to the second. A command's few warnings need no date, and the journal dates its lines itself.
    is_dated: bool,
    /// Begins with the priority under which the journal stores the line: `journalctl -p err` finds it by that.
    has_priority: bool,
    /// With the name of the module that logs.
    has_target: bool,
    is_painted: bool,
    page: PageLayout,
}

/// Starts logging. Log lines and progress share the terminal, so lines are written while `bars` are hidden.
pub fn start(verbose: u8, quiet: bool, long_running: bool, bars: MultiProgress) {
    let asked = env::variable(LOG_VARIABLE).and_then(|filter| EnvFilter::try_new(filter.to_str()?).ok());
    let is_dated = long_running || verbose > 0 || asked.is_some();
    let filter = asked.unwrap_or_else(|| EnvFilter::new(level(verbose, quiet, long_running)));
    let has_priority = terminal::goes_to_journal();
    let look = LogFormat {
        is_dated: is_dated && !has_priority,
        has_priority,
        has_target: verbose > 1,
        is_painted: terminal::errors_have_colours(),
        page: terminal::error_page(),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(LogWriter(bars)).with_ansi(false);
    // A second subscriber is refused; the first one keeps working.
    let _ = if log_format::is_json() {
        builder.fmt_fields(JsonFields).event_format(JsonLineFormat { has_priority }).try_init()
    } else {
        builder.fmt_fields(debug_fn(field).delimited(" ")).event_format(look).try_init()
    };
    if let Some(format) = log_format::unknown_format() {
        tracing::warn!(
            "{} is {format:?}, which is no format of the log: it is text. {ADVICE}write text or json",
            log_format::LOG_FORMAT_VARIABLE
        );
    }
}

impl<S, N> FormatEvent<S, N> for LogFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut message = String::new();
        ctx.format_fields(Writer::new(&mut message), event)?;
        let level = match *event.metadata().level() {
            Level::INFO | Level::DEBUG | Level::TRACE if self.has_priority => "",
            // The prefix of errors, for a command that logs nothing else.
            Level::ERROR if !self.is_dated => "error: ",
            Level::WARN if !self.is_dated => "warning: ",
            Level::ERROR => "ERROR ",
            Level::WARN => " WARN ",
            Level::INFO => " INFO ",
            Level::DEBUG => "DEBUG ",
            Level::TRACE => "TRACE ",
        };
        let mut first = String::new();
        if self.is_dated {
            let mut date = String::new();
            SystemTime.format_time(&mut Writer::new(&mut date))?;
            // To the second: `2026-11-20T01:00:00.123456Z`.
            first = format!("{}Z ", date.split(['.', 'Z']).next().unwrap_or_default());
        }
        first += level;
        if self.has_target {
            first += &format!("{}: ", event.metadata().target());
        }
        let line = self.page.wrap_advised(&first, 2, &message);
        if self.has_priority {
            out.write_str(log_format::priority(*event.metadata().level()))?;
        }
        out.write_str(&if self.is_painted { paint(&line) } else { line })
    }
}

/// An event is one line, whatever a name or an external text contains.
fn field(out: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    let value = format!("{value:?}");
    let value = text::line(&value);
    match field.name() {
        "message" => write!(out, "{}", text::without_os_error(&value)),
        name => write!(out, "{name}={value}"),
    }
}

/// Writes whole lines to standard error while no bar is drawn.
#[derive(Debug, Clone)]
struct LogWriter(MultiProgress);

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = &'a LogWriter;
    fn make_writer(&'a self) -> &'a LogWriter {
        self
    }
}

impl Write for &LogWriter {
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

    /// The lines that `what` logs in this format.
    fn logged(look: LogFormat, what: impl FnOnce()) -> String {
        let (reader, writer) = io::pipe().unwrap();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(std::sync::Mutex::new(writer))
            .with_ansi(false)
            .fmt_fields(debug_fn(field).delimited(" "))
            .event_format(look)
            .finish();
        tracing::subscriber::with_default(subscriber, what);
        io::read_to_string(reader).unwrap()
    }

    const PLAIN: LogFormat =
        LogFormat { is_dated: false, has_priority: false, has_target: false, is_painted: false, page: PageLayout::LOG };

    #[test]
    fn a_message_is_one_line_and_steers_nothing() {
        let said = logged(PLAIN, || tracing::warn!(name = "a\u{202e}b", "west\u{1b}[2J\nrole app: all is well"));
        assert_eq!(said, "warning: west\\u{1b}[2J\\nrole app: all is well name=\"a\\u{202e}b\"\n");
    }

    #[test]
    fn the_journal_files_a_line_under_its_priority() {
        let look = LogFormat { has_priority: true, ..PLAIN };
        assert_eq!(logged(look, || tracing::error!("app: FAILED")), "<3>error: app: FAILED\n");
        assert_eq!(logged(look, || tracing::warn!("app: unknown")), "<4>warning: app: unknown\n");
        assert_eq!(logged(look, || tracing::info!("app: active")), "<6>app: active\n");
    }

    #[test]
    fn a_line_has_a_date_to_the_second_and_the_width_of_the_terminal() {
        let dated = logged(LogFormat { is_dated: true, ..PLAIN }, || tracing::info!("app: active, term 3"));
        assert_eq!(dated.split_once("Z  INFO ").unwrap().1, "app: active, term 3\n");
        assert_eq!(dated.split_once("Z ").unwrap().0.len(), "2026-11-20T01:00:00".len());
        let narrow = LogFormat { page: PageLayout::terminal(40), ..PLAIN };
        let said = logged(narrow, || tracing::error!("{}", "word ".repeat(30)));
        assert!(said.starts_with("error: word") && said.lines().all(|line| line.len() <= 40), "{said}");
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
