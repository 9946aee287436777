//! The types of the settings' fields: how a value of each is read from a table of the config, and how it is printed.
//!
//! Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::checker::SettingsChecker;
use super::notify_settings::NotifyChannelKind;
use super::section::{ConfigSection, accept};
use super::settings::{
    FallbackSettings, JournalPlacement, KeySource, LeaseKind, LeaseUnreachablePolicy, Probe, Schedule, TakeoverTrust,
};
use super::store_url::StoreUrl;
use super::url::HttpUrl;
use super::value::{self, format_duration, format_size};

/// Whether secrets are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SecretDisplay {
    Hidden,
    Shown,
}

/// A type of fields that is read from the value of one key.
pub(super) trait ReadField: Sized {
    /// The value; `None` if the key is absent or its value is not valid, which is then among the problems.
    fn read(section: &ConfigSection<'_>, key: &str, checker: &mut SettingsChecker<'_>) -> Option<Self>;
}

/// A type of fields that is printed as the value of one key.
pub(super) trait PrintField {
    /// The value as TOML; `None` if the key is left out.
    fn print(&self, secrets: SecretDisplay) -> Option<String>;
}

impl<T: ReadField> ReadField for Option<T> {
    fn read(section: &ConfigSection<'_>, key: &str, checker: &mut SettingsChecker<'_>) -> Option<Self> {
        T::read(section, key, checker).map(Some)
    }
}

impl<T: PrintField> PrintField for Option<T> {
    fn print(&self, secrets: SecretDisplay) -> Option<String> {
        self.as_ref().and_then(|value| value.print(secrets))
    }
}

/// An enum whose values are words.
pub(super) trait WordField: Copy + PartialEq + 'static {
    /// The values with their words.
    const WORDS: &'static [(&'static str, Self)];
}

impl WordField for JournalPlacement {
    const WORDS: &'static [(&'static str, Self)] =
        &[("auto", JournalPlacement::Auto), ("bucket", JournalPlacement::Bucket), ("etcd", JournalPlacement::Etcd)];
}

impl WordField for LeaseKind {
    const WORDS: &'static [(&'static str, Self)] =
        &[("etcd", LeaseKind::Etcd), ("bucket", LeaseKind::Bucket), ("none", LeaseKind::None)];
}

impl WordField for LeaseUnreachablePolicy {
    const WORDS: &'static [(&'static str, Self)] =
        &[("stop", LeaseUnreachablePolicy::Stop), ("holder_continues", LeaseUnreachablePolicy::HolderContinues)];
}

impl WordField for NotifyChannelKind {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("command", NotifyChannelKind::Command),
        ("webhook", NotifyChannelKind::Webhook),
        ("healthchecks", NotifyChannelKind::Healthchecks),
        ("slack", NotifyChannelKind::Slack),
        ("teams", NotifyChannelKind::Teams),
        ("ntfy", NotifyChannelKind::Ntfy),
        ("email", NotifyChannelKind::Email),
    ];
}

impl NotifyChannelKind {
    /// The kind as the config names it.
    pub fn name(self) -> &'static str {
        Self::WORDS.iter().find(|(_, kind)| *kind == self).map_or("", |(word, _)| word)
    }
}

impl WordField for TakeoverTrust {
    const WORDS: &'static [(&'static str, Self)] =
        &[("rehash", TakeoverTrust::Rehash), ("mtime", TakeoverTrust::Mtime)];
}

/// The words of `T`, in their order.
pub(super) fn words<T: WordField>() -> Vec<&'static str> {
    T::WORDS.iter().map(|(word, _)| *word).collect()
}

impl<T: WordField> ReadField for T {
    fn read(section: &ConfigSection<'_>, key: &str, _: &mut SettingsChecker<'_>) -> Option<Self> {
        let at = section.text(key)?;
        T::WORDS.iter().find(|(word, _)| *word == at.value).map(|(_, value)| *value)
    }
}

impl<T: WordField> PrintField for T {
    fn print(&self, _: SecretDisplay) -> Option<String> {
        T::WORDS.iter().find(|(_, value)| value == self).map(|(word, _)| quote(word))
    }
}

impl ReadField for bool {
    fn read(section: &ConfigSection<'_>, key: &str, _: &mut SettingsChecker<'_>) -> Option<Self> {
        section.flag(key)
    }
}

impl PrintField for bool {
    fn print(&self, _: SecretDisplay) -> Option<String> {
        Some(self.to_string())
    }
}

impl ReadField for Duration {
    fn read(section: &ConfigSection<'_>, key: &str, _: &mut SettingsChecker<'_>) -> Option<Self> {
        section.duration(key).map(|at| at.value)
    }
}

impl PrintField for Duration {
    fn print(&self, _: SecretDisplay) -> Option<String> {
        Some(quote(&format_duration(*self)))
    }
}

/// A size in bytes.
impl ReadField for u64 {
    fn read(section: &ConfigSection<'_>, key: &str, _: &mut SettingsChecker<'_>) -> Option<Self> {
        section.size(key)
    }
}

impl PrintField for u64 {
    fn print(&self, _: SecretDisplay) -> Option<String> {
        Some(quote(&format_size(*self)))
    }
}

impl ReadField for u32 {
    fn read(section: &ConfigSection<'_>, key: &str, _: &mut SettingsChecker<'_>) -> Option<Self> {
        section.count(key)
    }
}

impl PrintField for u32 {
    fn print(&self, _: SecretDisplay) -> Option<String> {
        Some(self.to_string())
    }
}

/// The schema has compared the number with its bound.
impl ReadField for u8 {
    fn read(section: &ConfigSection<'_>, key: &str, _: &mut SettingsChecker<'_>) -> Option<Self> {
        section.count(key).and_then(|count| u8::try_from(count).ok())
    }
}

impl PrintField for u8 {
    fn print(&self, _: SecretDisplay) -> Option<String> {
        Some(self.to_string())
    }
}

impl ReadField for String {
    fn read(section: &ConfigSection<'_>, key: &str, _: &mut SettingsChecker<'_>) -> Option<Self> {
        section.owned(key)
    }
}

impl PrintField for String {
    fn print(&self, _: SecretDisplay) -> Option<String> {
        Some(quote(self))
    }
}

impl ReadField for PathBuf {
    fn read(section: &ConfigSection<'_>, key: &str, checker: &mut SettingsChecker<'_>) -> Option<Self> {
        section.path(key, &mut checker.problems)
    }
}

impl PrintField for PathBuf {
    fn print(&self, _: SecretDisplay) -> Option<String> {
        Some(quote_path(self))
    }
}

impl ReadField for Vec<String> {
    fn read(section: &ConfigSection<'_>, key: &str, _: &mut SettingsChecker<'_>) -> Option<Self> {
        section.strings(key)
    }
}

impl<T: PrintField> PrintField for Vec<T> {
    fn print(&self, secrets: SecretDisplay) -> Option<String> {
        let items: Vec<String> = self.iter().filter_map(|item| item.print(secrets)).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

/// Environment variables, or headers.
impl ReadField for BTreeMap<String, String> {
    fn read(section: &ConfigSection<'_>, key: &str, _: &mut SettingsChecker<'_>) -> Option<Self> {
        section.variables(key)
    }
}

/// The value of a variable or a header may be a password.
impl PrintField for BTreeMap<String, String> {
    fn print(&self, secrets: SecretDisplay) -> Option<String> {
        let shown = |value: &String| if secrets == SecretDisplay::Shown { quote(value) } else { quote("…") };
        let variables: Vec<String> = self.iter().map(|(name, value)| format!("{name} = {}", shown(value))).collect();
        (!variables.is_empty()).then(|| format!("{{ {} }}", variables.join(", ")))
    }
}

impl ReadField for jiff::tz::TimeZone {
    fn read(section: &ConfigSection<'_>, key: &str, checker: &mut SettingsChecker<'_>) -> Option<Self> {
        let at = section.text(key)?;
        accept(&at, value::timezone(at.value), &mut checker.problems)
    }
}

impl PrintField for jiff::tz::TimeZone {
    fn print(&self, _: SecretDisplay) -> Option<String> {
        Some(quote(self.iana_name().unwrap_or("UTC")))
    }
}

impl PrintField for StoreUrl {
    fn print(&self, _: SecretDisplay) -> Option<String> {
        Some(quote(&self.to_string()))
    }
}

/// The URL of an alert channel: its path lets others write there.
impl PrintField for HttpUrl {
    fn print(&self, secrets: SecretDisplay) -> Option<String> {
        Some(quote(&match secrets {
            SecretDisplay::Shown => self.to_string(),
            SecretDisplay::Hidden if self.target == "/" => self.to_string(),
            // No URL contains `…`, so what is shown is not taken for the whole URL.
            SecretDisplay::Hidden => HttpUrl { target: "/…".to_owned(), ..self.clone() }.to_string(),
        }))
    }
}

impl PrintField for Probe {
    fn print(&self, secrets: SecretDisplay) -> Option<String> {
        let timeout = |timeout: &Duration| format!("timeout = \"{}\"", format_duration(*timeout));
        Some(match self {
            Probe::Vip { address, interface: None } => format!("{{ vip = \"{address}\" }}"),
            Probe::Vip { address, interface: Some(interface) } => {
                format!("{{ vip = \"{address}\", interface = {} }}", quote(interface))
            }
            Probe::Command { command, timeout: after } => {
                format!("{{ command = {}, {} }}", command.print(secrets)?, timeout(after))
            }
            Probe::Http { url, status, body, timeout: after, ca_file } => {
                let mut out = format!("{{ http = {}", quote(&url.to_string()));
                if !status.is_empty() {
                    let statuses: Vec<String> = status.iter().map(u16::to_string).collect();
                    let _ = write!(out, ", status = [{}]", statuses.join(", "));
                }
                if let Some(body) = body {
                    let _ = write!(out, ", body = {}", quote(body));
                }
                if let Some(ca_file) = ca_file {
                    let _ = write!(out, ", ca_file = {}", quote_path(ca_file));
                }
                format!("{out}, {} }}", timeout(after))
            }
            Probe::Mounted { path } => format!("{{ mounted = {} }}", quote_path(path)),
            Probe::Unit { unit, timeout: after } => format!("{{ unit = {}, {} }}", quote(unit), timeout(after)),
            Probe::All(probes) => format!("{{ all = {} }}", probes.print(secrets)?),
            Probe::Any(probes) => format!("{{ any = {} }}", probes.print(secrets)?),
            Probe::Not(inner) => format!("{{ not = {} }}", inner.print(secrets)?),
        })
    }
}

impl PrintField for FallbackSettings {
    fn print(&self, secrets: SecretDisplay) -> Option<String> {
        let probe = self.probe.print(secrets)?;
        let open = probe.strip_suffix(" }").expect("a probe is written in braces");
        Some(format!("{open}, after = \"{}\" }}", format_duration(self.after)))
    }
}

/// The cron line, if the schedule is one.
pub(super) fn print_cron(schedule: Option<&Schedule>) -> Option<String> {
    match schedule {
        Some(Schedule::Cron(line)) => Some(quote(line)),
        _ => None,
    }
}

/// The distance of the slots, if the schedule is one.
pub(super) fn print_every(schedule: Option<&Schedule>) -> Option<String> {
    match schedule {
        Some(Schedule::Every(every)) => Some(quote(&format_duration(*every))),
        _ => None,
    }
}

/// A text as a TOML string.
pub(super) fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn quote_path(path: &Path) -> String {
    quote(&path.to_string_lossy())
}

/// The key source as the value of the key `name`, if it is the one.
pub(super) fn print_key_source(source: &KeySource, name: &str) -> Option<String> {
    match (source, name) {
        (KeySource::KeyFile(path), "key_file") | (KeySource::PassphraseFile(path), "passphrase_file") => {
            Some(quote_path(path))
        }
        (KeySource::None, "encryption") => Some(quote("none")),
        _ => None,
    }
}
