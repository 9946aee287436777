//! `RUNNER_LOG_FORMAT=json`: every event of the log, and every text on standard error, is one line with a JSON object.
//!
//! `time` (UTC), `level` and `message` are always there, `target` is where an event comes from. What is known of `role`,
//! `term`, `slot` and `snapshot` stands in the spans around the event, and as fields of the same names in the line. The
//! text format does not show spans.

use std::fmt::{self, Debug, Write as _};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields};
use tracing_subscriber::registry::LookupSpan;

use crate::env;
use crate::text;

/// The format of the log: `text` (the default) or `json`.
pub(super) const LOG_FORMAT_VARIABLE: &str = "RUNNER_LOG_FORMAT";

/// Whether the log is JSON.
pub(super) fn is_json() -> bool {
    env::variable(LOG_FORMAT_VARIABLE).is_some_and(|format| format == "json")
}

/// A value of the variable that is no format.
pub(super) fn unknown_format() -> Option<String> {
    let format = env::variable(LOG_FORMAT_VARIABLE)?;
    let is_known = format.is_empty() || format == "json" || format == "text";
    (!is_known).then(|| format.to_string_lossy().into_owned())
}

/// Formats events as lines of JSON.
#[derive(Debug, Clone, Copy)]
pub(super) struct JsonLineFormat {
    /// Begins with the priority under which the systemd journal stores the line; the journal takes it away.
    pub(super) has_priority: bool,
}

impl<S> FormatEvent<S, JsonFields> for JsonLineFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, JsonFields>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = Map::new();
        // The inner span's value counts.
        for span in ctx.event_scope().into_iter().flat_map(tracing_subscriber::registry::Scope::from_root) {
            let extensions = span.extensions();
            let formatted = extensions.get::<FormattedFields<JsonFields>>();
            fields.extend(formatted.map(|formatted| object(&formatted.fields)).unwrap_or_default());
        }
        let mut own = FieldCollector::default();
        event.record(&mut own);
        let message = match own.0.remove("message") {
            Some(Value::String(message)) => text::without_os_error(&message).into_owned(),
            _ => String::new(),
        };
        fields.extend(own.0);
        let (level, target) = (*event.metadata().level(), event.metadata().target());
        if self.has_priority {
            out.write_str(priority(level))?;
        }
        out.write_str(&line(level, Some(target), &message, &fields))
    }
}

/// The priority of a line for the systemd journal: the numbers of syslog(3).
pub(super) fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        Level::DEBUG | Level::TRACE => "<7>",
    }
}

/// A text for standard error as a line of JSON. Its first word may be the level.
pub(super) fn of_text(words: &str) -> (Level, String) {
    let words = words.trim();
    let levels = [("error:", Level::ERROR), ("warning:", Level::WARN)];
    let prefixed = levels.into_iter().find_map(|(word, level)| Some((level, words.strip_prefix(word)?.trim_start())));
    let (level, message) = prefixed.unwrap_or((Level::INFO, words));
    (level, line(level, None, message, &Map::new()))
}

fn line(level: Level, target: Option<&str>, message: &str, fields: &Map<String, Value>) -> String {
    let mut time = String::new();
    // Writing to a text does not fail.
    let _ = SystemTime.format_time(&mut Writer::new(&mut time));
    let level = level.as_str().to_ascii_lowercase();
    let mut out = format!("{{\"time\":{},\"level\":{}", Value::from(time), Value::from(level));
    if let Some(target) = target {
        let _ = write!(out, ",\"target\":{}", Value::from(target));
    }
    let _ = write!(out, ",\"message\":{}", Value::from(message));
    for (name, value) in fields.iter().filter(|(name, _)| !RESERVED.contains(&name.as_str())) {
        let _ = write!(out, ",{}:{value}", Value::from(name.as_str()));
    }
    out += "}\n";
    text::json(&out).into_owned()
}

/// The names that each line has already.
const RESERVED: [&str; 4] = ["time", "level", "target", "message"];

/// The text of a JSON object, read again.
fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
}

/// Formats the fields of spans as JSON objects.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct JsonFields;

impl<'writer> FormatFields<'writer> for JsonFields {
    fn format_fields<R: RecordFields>(&self, mut out: Writer<'writer>, fields: R) -> fmt::Result {
        let mut collected = FieldCollector::default();
        fields.record(&mut collected);
        write!(out, "{}", Value::Object(collected.0))
    }

    fn add_fields(
        &self,
        current: &'writer mut FormattedFields<Self>,
        fields: &tracing::span::Record<'_>,
    ) -> fmt::Result {
        let mut collected = FieldCollector(object(&current.fields));
        fields.record(&mut collected);
        current.fields = Value::Object(collected.0).to_string();
        Ok(())
    }
}

/// Collects fields as JSON values.
#[derive(Debug, Default)]
struct FieldCollector(Map<String, Value>);

impl FieldCollector {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for FieldCollector {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.put(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing::{error_span, info, warn};

    use super::*;

    /// The lines that `what` logs.
    fn logged(has_priority: bool, what: impl FnOnce()) -> Vec<String> {
        let (reader, writer) = io::pipe().unwrap();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(std::sync::Mutex::new(writer))
            .with_ansi(false)
            .fmt_fields(JsonFields)
            .event_format(JsonLineFormat { has_priority })
            .finish();
        tracing::subscriber::with_default(subscriber, what);
        io::read_to_string(reader).unwrap().lines().map(str::to_owned).collect()
    }

    #[test]
    fn an_event_is_one_line_with_the_fields_of_its_spans() {
        let lines = logged(false, || {
            let role = error_span!("role", role = %"app", term = 2_u64).entered();
            let slot: Option<&str> = None;
            let run = error_span!("run", term = 3_u64, slot, snapshot = tracing::field::Empty).entered();
            run.record("snapshot", "ab12");
            warn!(packs = 7, complete = true, "west\u{1b}[2J\n\"quoted\" (os error 2)");
            drop(run);
            drop(role);
            info!("outside");
        });
        let value: Value = serde_json::from_str(&lines[0]).unwrap();
        assert_eq!(value["message"], "west\u{1b}[2J\n\"quoted\"");
        assert_eq!((&value["level"], &value["role"]), (&"warn".into(), &"app".into()));
        assert_eq!((&value["term"], &value["snapshot"]), (&3.into(), &"ab12".into()));
        assert_eq!((&value["packs"], &value["complete"]), (&7.into(), &true.into()));
        assert!(value.get("slot").is_none() && value["target"].as_str().unwrap().starts_with("runner::"));
        assert!(value["time"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
        assert!(lines[0].starts_with("{\"time\":") && !lines[0].contains('\u{1b}'), "{}", lines[0]);
        let outside: Value = serde_json::from_str(&lines[1]).unwrap();
        assert!(outside.get("role").is_none());
    }

    #[test]
    fn the_journal_files_a_line_under_its_priority() {
        let line = &logged(true, || tracing::error!("failed"))[0];
        assert!(line.starts_with("<3>{\"time\":"), "{line}");
    }

    #[test]
    fn a_text_has_the_level_that_it_begins_with() {
        let of = |words| {
            let (level, line) = of_text(words);
            let value: Value = serde_json::from_str(&line).unwrap();
            (level, value["message"].as_str().unwrap().to_owned())
        };
        assert_eq!(of("error: no store\nhint: mount it\n"), (Level::ERROR, "no store\nhint: mount it".to_owned()));
        assert_eq!(of("warning: late\n"), (Level::WARN, "late".to_owned()));
        assert_eq!(of("\napp: 3 files\n"), (Level::INFO, "app: 3 files".to_owned()));
    }
}
