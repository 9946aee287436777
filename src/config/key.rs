//! What is known of a key of the config: one row has the form of its value with its bounds, the field of the settings
//! that it sets, an example, and its documentation.
//!
//! Pure.

use std::time::Duration;

use super::checker::SettingsChecker;
use super::field::SecretDisplay;
use super::section::ConfigSection;
use super::value::format_duration;

/// A key of a table.
pub(super) struct ConfigKey {
    pub(super) name: &'static str,
    pub(super) form: ValueForm,
    pub(super) example: KeyExample,
    /// The documentation, without default and bounds: these are added from the row.
    pub(super) doc: &'static str,
    pub(super) support: KeySupport,
}

/// The form of a value, with its bounds.
#[derive(Clone, Copy)]
pub(super) enum ValueForm {
    Text(TextForm),
    Flag,
    Duration(DurationBounds),
    Size,
    /// One of these words.
    Word(fn() -> Vec<&'static str>),
    Texts(TextForm),
    /// Some of these words.
    Words(fn() -> Vec<&'static str>),
    /// Program and arguments.
    Command,
    /// A table with the keys of this one.
    Table(ConfigTable),
    /// A table of tables with the keys of this one, under names that the config chooses.
    NamedTables(ConfigTable),
    /// A list of tables with the keys of this one: `[[name]]`.
    ListedTables(ConfigTable),
    /// Values by the names of environment variables.
    Variables,
    /// Names of environment variables.
    VariableNames,
    /// Values by the names of headers of HTTP.
    Headers,
    /// A number from 0 to this one.
    Count(u32),
    /// The status of an HTTP answer, or a list of them.
    Statuses,
    /// A probe.
    Probe,
    /// A probe that may have the key `after`.
    Fallback,
    /// A list of probes.
    Probes,
}

/// What a text is. `check` looks at it in full; an editor gets a pattern.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum TextForm {
    Plain,
    /// An absolute path.
    Path,
    /// An absolute path, or `credential:NAME`.
    SecretPath,
    StoreUrl,
    HttpUrl,
    /// Five fields.
    Cron,
}

/// The bounds of a duration.
#[derive(Clone, Copy)]
pub(super) struct DurationBounds {
    pub(super) from: Duration,
    pub(super) to: Duration,
    pub(super) whole_seconds: bool,
    /// What the hint adds to the default.
    pub(super) reason: &'static str,
}

impl DurationBounds {
    pub(super) const ANY: Self = Self { from: Duration::ZERO, to: Duration::MAX, whole_seconds: false, reason: "" };

    /// Any duration but zero.
    pub(super) const POSITIVE: Self = Self { from: Duration::from_nanos(1), ..Self::ANY };

    pub(super) const fn between(from: Duration, to: Duration) -> Self {
        Self { from, to, whole_seconds: false, reason: "" }
    }

    pub(super) const fn whole_seconds(self) -> Self {
        Self { whole_seconds: true, ..self }
    }

    pub(super) const fn reason(self, reason: &'static str) -> Self {
        Self { reason, ..self }
    }

    /// Whether zero is refused.
    pub(super) fn is_positive(&self) -> bool {
        !self.from.is_zero()
    }

    /// The bounds as text, if there are any besides zero.
    pub(super) fn range(&self) -> Option<(String, String)> {
        (self.to != Duration::MAX).then(|| (short_duration(self.from), short_duration(self.to)))
    }
}

pub(super) const POSITIVE: ValueForm = ValueForm::Duration(DurationBounds::POSITIVE);
pub(super) const ANY_DURATION: ValueForm = ValueForm::Duration(DurationBounds::ANY);
pub(super) const ANY_COUNT: ValueForm = ValueForm::Count(u32::MAX);

/// A duration in days, or as the config writes it.
fn short_duration(value: Duration) -> String {
    const DAY: u64 = 24 * 60 * 60;
    match value.as_secs() {
        secs if secs > 0 && secs.is_multiple_of(DAY) && value.subsec_nanos() == 0 => format!("{}d", secs / DAY),
        _ => format_duration(value),
    }
}

/// How the reference shows the key, as TOML: a value; a name for a table that the config names; nothing for a table.
#[derive(Clone, Copy)]
pub(super) enum KeyExample {
    /// The reference sets the key.
    Set(&'static str),
    /// The reference has the line commented out.
    Commented(&'static str),
}

impl KeyExample {
    pub(super) fn text(self) -> &'static str {
        match self {
            KeyExample::Set(text) | KeyExample::Commented(text) => text,
        }
    }
}

/// How this version supports a key.
#[derive(Clone, Copy)]
pub(super) enum KeySupport {
    /// The key has its effect.
    Supported,
    /// The key has no effect yet, which is reported. This is only for convenience keys: what is backed up, and by which
    /// node, does not depend on them.
    NoEffect(&'static str),
}

/// The tables of the config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConfigTable {
    Root,
    Store,
    Etcd,
    Role,
    Keep,
    Dump,
    Notify,
    NotifyChannel,
    Listen,
}

/// A key of a table whose settings are `S`, and the field that it sets.
pub(super) struct KeyRow<S: 'static> {
    pub(super) key: ConfigKey,
    pub(super) field: KeyField<S>,
}

/// Reads the value of a key into the settings.
pub(super) type FieldReader<S> = fn(&mut S, &ConfigSection<'_>, &str, &mut SettingsChecker<'_>);

/// How a key's value gets into the settings, and back to TOML.
pub(super) struct KeyField<S: 'static> {
    /// `None`: `check` reads the key, because its value depends on others.
    pub(super) read: Option<FieldReader<S>>,
    pub(super) print: fn(&S, SecretDisplay) -> Option<String>,
    /// Whether the key is left out although its field has a value.
    pub(super) unless: fn(&S) -> bool,
}

impl<S> KeyField<S> {
    /// A table: its keys have the fields.
    pub(super) const TABLE: Self = Self { read: None, print: |_, _| None, unless: |_| false };
}

pub(super) const fn key(name: &'static str, form: ValueForm, example: KeyExample, doc: &'static str) -> ConfigKey {
    ConfigKey { name, form, example, doc, support: KeySupport::Supported }
}

pub(super) const fn row<S>(
    name: &'static str,
    form: ValueForm,
    field: KeyField<S>,
    example: KeyExample,
    doc: &'static str,
) -> KeyRow<S> {
    KeyRow { key: key(name, form, example, doc), field }
}

impl<S> KeyRow<S> {
    pub(super) const fn without_effect(mut self, why: &'static str) -> Self {
        self.key.support = KeySupport::NoEffect(why);
        self
    }

    /// The value as TOML; `None` if the key is left out.
    pub(super) fn print(&self, settings: &S, secrets: SecretDisplay) -> Option<String> {
        if (self.field.unless)(settings) { None } else { (self.field.print)(settings, secrets) }
    }

    /// The value that an absent key stands for, as TOML, if that depends on nothing else.
    pub(super) fn default(&self, defaults: &S) -> Option<String> {
        self.field.read.and_then(|_| (self.field.print)(defaults, SecretDisplay::Shown))
    }
}

/// Reads all keys of a table that have a reader.
pub(super) fn read_rows<S>(
    rows: &[KeyRow<S>],
    settings: &mut S,
    section: &ConfigSection<'_>,
    checker: &mut SettingsChecker<'_>,
) {
    for row in rows {
        if let Some(read) = row.field.read {
            read(settings, section, row.key.name, checker);
        }
    }
}

impl ConfigKey {
    /// The documentation with bounds and default.
    pub(super) fn documentation(&self, default: Option<&str>) -> String {
        let bounds = match self.form {
            ValueForm::Duration(bounds) => match (bounds.range(), bounds.whole_seconds) {
                (Some((from, to)), true) => Some(format!("From {from} to {to}, in whole seconds.")),
                (Some((from, to)), false) => Some(format!("From {from} to {to}.")),
                (None, true) => Some("In whole seconds.".to_owned()),
                (None, false) => None,
            },
            ValueForm::Word(words) if words().len() > 1 => {
                let words: Vec<String> = words().into_iter().map(|word| format!("{word:?}")).collect();
                Some(format!("One of {}.", words.join(", ")))
            }
            ValueForm::Words(words) => {
                let words: Vec<String> = words().into_iter().map(|word| format!("{word:?}")).collect();
                Some(format!("Of {}.", words.join(", ")))
            }
            ValueForm::Count(to) if to != u32::MAX => Some(format!("From 0 to {to}.")),
            _ => None,
        };
        let effect = match self.support {
            KeySupport::Supported => None,
            KeySupport::NoEffect(why) => Some(format!("No effect in this version: {why}.")),
        };
        let default = default.map(|default| format!("Default: {default}."));
        let sentences = [Some(self.doc.to_owned()), bounds, default, effect];
        sentences.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// A field that is read and printed as its type is.
macro_rules! field {
    ($($field:ident).+) => {
        $crate::config::key::KeyField {
            read: Some(|settings, section, key, checker| {
                if let Some(value) = $crate::config::field::ReadField::read(section, key, checker) {
                    settings.$($field).+ = value;
                }
            }),
            ..$crate::config::key::checked!($($field).+)
        }
    };
    ($($field:ident).+, unless $unless:expr) => {
        $crate::config::key::KeyField { unless: $unless, ..$crate::config::key::field!($($field).+) }
    };
}

/// A field that `check` reads, because it depends on other keys.
macro_rules! checked {
    ($($field:ident).+) => {
        $crate::config::key::printed!(|settings, secrets| {
            $crate::config::field::PrintField::print(&settings.$($field).+, secrets)
        })
    };
}

/// A field that `check` reads, and that is printed in a way of its own.
macro_rules! printed {
    ($print:expr) => {
        $crate::config::key::KeyField { print: $print, ..$crate::config::key::KeyField::TABLE }
    };
}

/// A field with the path of a file that is secret: systemd may have it.
macro_rules! secret_path {
    ($field:ident) => {
        $crate::config::key::KeyField {
            read: Some(|settings, section, key, checker| {
                settings.$field = section.text(key).and_then(|at| checker.secret_path(&at));
            }),
            ..$crate::config::key::checked!($field)
        }
    };
}

/// A key that names how the repository key is unlocked.
macro_rules! unlocking {
    ($name:literal) => {
        $crate::config::key::printed!(|settings, _| $crate::config::field::print_key_source(&settings.key, $name))
    };
}

pub(super) use {checked, field, printed, secret_path, unlocking};
