//! The settings of alerts: the one channel of each kind in `[notify]`, and the channels of `[[notify.channel]]`. Pure.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use super::environment_settings::EnvironmentSettings;
use super::url::HttpUrl;

/// The timeout of one attempt, if the config has none.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The names of the events that a channel may choose from, as alerts carry them.
pub const ALERT_EVENTS: [&str; 13] = [
    "failed",
    "fenced",
    "missed",
    "duplicate",
    "takeover",
    "conflict",
    "clone",
    "drift",
    "clock_off",
    "anomaly",
    "paused_too_long",
    "incomplete",
    "lost",
];

/// The channels for alerts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifySettings {
    /// Program and arguments; it gets the event as JSON on its standard input.
    pub command: Option<Vec<String>>,
    /// The environment variables of that program.
    pub environment: EnvironmentSettings,
    /// The URL to which the event is posted as JSON.
    pub webhook: Option<HttpUrl>,
    /// The URL that is pinged for every run, as healthchecks.io expects. `{role}` in it stands for the role's name.
    pub healthchecks: Option<HttpUrl>,
    /// Timeout of one attempt of the channels above.
    pub timeout: Duration,
    /// The channels of `[[notify.channel]]`, in the order of the file.
    pub channels: Vec<NotifyChannelSettings>,
}

impl Default for NotifySettings {
    fn default() -> Self {
        Self {
            command: None,
            environment: EnvironmentSettings::default(),
            webhook: None,
            healthchecks: None,
            timeout: TIMEOUT,
            channels: Vec::new(),
        }
    }
}

impl NotifySettings {
    /// Whether the config itself has a URL by which others could send alerts, or a header that may be a password.
    pub fn has_secrets(&self) -> bool {
        let has_secret = |channel: &NotifyChannelSettings| channel.url.is_some() || !channel.headers.is_empty();
        self.webhook.is_some() || self.healthchecks.is_some() || self.channels.iter().any(has_secret)
    }
}

/// The kind of a channel: what is sent, and which answer counts as delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotifyChannelKind {
    /// A program that gets the event as JSON on its standard input.
    Command,
    /// A server to which the event is posted as JSON.
    Webhook,
    /// A healthchecks service that is pinged for every run.
    Healthchecks,
    /// An incoming webhook of Slack.
    Slack,
    /// A Workflows webhook of Microsoft Teams.
    Teams,
    /// A topic of an ntfy server.
    Ntfy,
    /// A program that sends a mail, as `sendmail -t` does.
    Email,
}

impl NotifyChannelKind {
    /// Whether the channel is reached by a URL.
    pub fn has_url(self) -> bool {
        !self.has_command()
    }

    /// Whether the channel is a program.
    pub fn has_command(self) -> bool {
        matches!(self, NotifyChannelKind::Command | NotifyChannelKind::Email)
    }
}

/// A channel of `[[notify.channel]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifyChannelSettings {
    /// Its name, which no other channel has.
    pub name: String,
    /// Its kind.
    pub kind: NotifyChannelKind,
    /// The events that it gets; `None`: all.
    pub events: Option<Vec<String>>,
    /// The names of the roles of which it gets events; `None`: all.
    pub roles: Option<Vec<String>>,
    /// Program and arguments, for kinds that have one.
    pub command: Option<Vec<String>>,
    /// The environment variables of that program.
    pub environment: EnvironmentSettings,
    /// The sender of mails, if it is not left to the program.
    pub from: Option<String>,
    /// The recipients of mails.
    pub to: Option<Vec<String>>,
    /// The URL, if the config has it.
    pub url: Option<HttpUrl>,
    /// The file with the URL, if the config does not have it.
    pub url_file: Option<PathBuf>,
    /// Additional headers of each request.
    pub headers: BTreeMap<String, String>,
    /// The file with the token that is sent as `Authorization: Bearer`.
    pub token_file: Option<PathBuf>,
    /// The file with the key by which each request is signed.
    pub signing_key_file: Option<PathBuf>,
    /// A PEM file with the root certificates to trust, or the server's own; by default the system's.
    pub ca_file: Option<PathBuf>,
    /// Timeout of one attempt.
    pub timeout: Duration,
}

impl NotifyChannelSettings {
    /// A channel that has nothing but defaults.
    pub(super) fn new(name: String, kind: NotifyChannelKind) -> Self {
        Self {
            name,
            kind,
            events: None,
            roles: None,
            command: None,
            environment: EnvironmentSettings::default(),
            from: None,
            to: None,
            url: None,
            url_file: None,
            headers: BTreeMap::new(),
            token_file: None,
            signing_key_file: None,
            ca_file: None,
            timeout: TIMEOUT,
        }
    }

    /// The files with secrets, each with its key.
    pub fn secret_files(&self) -> impl Iterator<Item = (&'static str, &PathBuf)> {
        let files = [
            ("url_file", &self.url_file),
            ("token_file", &self.token_file),
            ("signing_key_file", &self.signing_key_file),
        ];
        files.into_iter().filter_map(|(key, file)| Some((key, file.as_ref()?)))
    }
}
