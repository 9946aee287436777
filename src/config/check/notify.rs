//! `[notify]` and `[[notify.channel]]`: the channels for alerts. Pure.

use std::collections::BTreeSet;

use super::super::checker::SettingsChecker;
use super::super::field::ReadField as _;
use super::super::key::read_rows;
use super::super::keys::{CHANNEL, NOTIFY, unnamed_channel};
use super::super::notify_settings::{NotifyChannelKind, NotifyChannelSettings, NotifySettings};
use super::super::section::{ConfigSection, LocatedValue, accept};
use super::super::url::HttpUrl;
use super::super::value;

/// What a host on the way to a channel could do without TLS.
const DANGER: &str = "reads what is told, and the URL by which others can send it";

/// The most characters of a channel's name: it stands at the begin of log lines.
const NAME_MAX: usize = 64;

/// Whether a kind has a key.
type KindPredicate = fn(NotifyChannelKind) -> bool;

/// The keys that only some kinds have, with a predicate for these kinds.
const KEYS_OF_KINDS: [(&str, KindPredicate); 12] = [
    ("events", |kind| kind != NotifyChannelKind::Healthchecks),
    ("url", NotifyChannelKind::has_url),
    ("url_file", NotifyChannelKind::has_url),
    ("ca_file", NotifyChannelKind::has_url),
    ("token_file", |kind| matches!(kind, NotifyChannelKind::Webhook | NotifyChannelKind::Ntfy)),
    ("headers", |kind| kind == NotifyChannelKind::Webhook),
    ("signing_key_file", |kind| kind == NotifyChannelKind::Webhook),
    ("command", NotifyChannelKind::has_command),
    ("environment", NotifyChannelKind::has_command),
    ("pass_environment", NotifyChannelKind::has_command),
    ("to", |kind| kind == NotifyChannelKind::Email),
    ("from", |kind| kind == NotifyChannelKind::Email),
];

impl SettingsChecker<'_> {
    /// Checks `[notify]`; `roles` are the names of the config's roles.
    pub(super) fn notify(&mut self, section: &ConfigSection<'_>, roles: &[&str]) -> NotifySettings {
        let mut notify = NotifySettings::default();
        read_rows(NOTIFY, &mut notify, section, self);
        for (key, url) in [("webhook", &notify.webhook), ("healthchecks", &notify.healthchecks)] {
            if let (Some(at), Some(url)) = (section.text(key), url) {
                self.warn_of_plain(&at, url, DANGER);
            }
        }
        // The channel of a key above is named like the key.
        let mut names: BTreeSet<String> = ["command", "webhook", "healthchecks"]
            .into_iter()
            .filter(|key| section.has(key))
            .map(str::to_owned)
            .collect();
        for channel in section.list_of_sections("channel").unwrap_or_default() {
            if let Some(settings) = self.channel(&channel, roles, &mut names) {
                notify.channels.push(settings);
            }
        }
        notify
    }

    /// Checks one channel; `names` are those of the channels before it.
    fn channel(
        &mut self,
        section: &ConfigSection<'_>,
        roles: &[&str],
        names: &mut BTreeSet<String>,
    ) -> Option<NotifyChannelSettings> {
        let before = self.problems.len();
        let name = self.channel_name(section, names);
        if !section.has("kind") {
            self.problems.push(section.problem("has no kind").hint("write kind = \"webhook\", or another one"));
        }
        let kind = NotifyChannelKind::read(section, "kind", self);
        let mut settings = unnamed_channel();
        read_rows(CHANNEL, &mut settings, section, self);
        self.channel_roles(section, roles);
        let kind = kind?;
        for (key, is_of) in KEYS_OF_KINDS {
            if !is_of(kind)
                && let Some(at) = section.place_of(key)
            {
                self.problems.push(at.problem("is for channels of another kind").hint("remove it, or correct kind"));
            }
        }
        if kind.has_url() {
            settings.url = self.channel_url(section, kind);
        }
        if kind.has_command() && !section.has("command") {
            let example = match kind {
                NotifyChannelKind::Email => "[\"/usr/sbin/sendmail\", \"-t\", \"-i\"]",
                _ => "[\"/usr/local/bin/tell\"]",
            };
            self.problems.push(section.problem("has no command").hint(format!("write command = {example}")));
        }
        if kind == NotifyChannelKind::Email {
            self.addresses(section);
        }
        let is_sound = self.problems.len() == before;
        Some(NotifyChannelSettings { name: name?, kind, ..settings }).filter(|_| is_sound)
    }

    fn channel_name(&mut self, section: &ConfigSection<'_>, names: &mut BTreeSet<String>) -> Option<String> {
        let Some(at) = section.text("name") else {
            if !section.has("name") {
                self.problems.push(section.problem("has no name").hint("write name = \"ops\", or another one"));
            }
            return None;
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if at.value.is_empty() || at.value.len() > NAME_MAX || !at.value.chars().all(is_name) {
            self.problems.push(
                at.problem(format!("{:?} is not the name of a channel", at.value))
                    .hint(format!("write at most {NAME_MAX} letters, digits, dots, dashes and underscores")),
            );
            return None;
        }
        if !names.insert(at.value.to_owned()) {
            self.problems.push(
                at.problem(format!("another channel has the name {:?}", at.value)).hint("give each its own name"),
            );
            return None;
        }
        Some(at.value.to_owned())
    }

    fn channel_roles(&mut self, section: &ConfigSection<'_>, roles: &[&str]) {
        let Some(list) = section.texts("roles") else { return };
        if list.value.is_empty() {
            self.problems.push(list.problem("is empty").hint("for all, remove the key"));
        }
        for at in list.value.iter().filter(|at| !roles.contains(&at.value)) {
            let problem = at.problem(format!("there is no role {:?}", at.value));
            self.problems.push(match value::nearest(at.value, roles.iter().copied()) {
                Some(near) => problem.hint(format!("did you mean {near:?}?")),
                None => problem.hint("name a role of this config"),
            });
        }
    }

    /// The URL, if the config has it; a channel has exactly one.
    fn channel_url(&mut self, section: &ConfigSection<'_>, kind: NotifyChannelKind) -> Option<HttpUrl> {
        match (section.text("url"), section.text("url_file")) {
            (Some(_), Some(file)) => {
                self.problems.push(file.problem("stands beside url").hint("keep one of the two"));
                None
            }
            (Some(at), None) => {
                let url = accept(&at, channel_url(kind, at.value), &mut self.problems)?;
                self.warn_of_plain(&at, &url, DANGER);
                Some(url)
            }
            (None, None) if !section.has("url") && !section.has("url_file") => {
                self.problems.push(section.problem("has no url").hint(
                    "write url = \"https://…\", or url_file = \"/etc/runner/ops-url\" with the URL in that file",
                ));
                None
            }
            (None, _) => None,
        }
    }

    /// Checks the addresses of a mail. A line break in one of them would become a header of its own.
    fn addresses(&mut self, section: &ConfigSection<'_>) {
        let to = section.texts("to");
        match &to {
            Some(list) if list.value.is_empty() => {
                self.problems.push(list.problem("is empty").hint("write to = [\"ops@example.net\"]"));
            }
            None if !section.has("to") => {
                self.problems.push(section.problem("has no recipient").hint("write to = [\"ops@example.net\"]"));
            }
            _ => {}
        }
        let is_odd = |at: &LocatedValue<&str>| {
            !at.value.chars().all(|c| c == ' ' || c.is_ascii_graphic()) || at.value.trim().is_empty()
        };
        for at in to.map(|list| list.value).unwrap_or_default().into_iter().chain(section.text("from")).filter(is_odd) {
            self.problems.push(
                at.problem(format!("{:?} is not the address of a mail", at.value))
                    .hint("write it like \"ops@example.net\""),
            );
        }
    }
}

/// The URL of a channel of this kind.
fn channel_url(kind: NotifyChannelKind, text: &str) -> Result<HttpUrl, value::ValueError> {
    if kind == NotifyChannelKind::Healthchecks { HttpUrl::with_role(text) } else { text.parse() }
}
