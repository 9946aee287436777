//! The keys of `[notify]` and of `[[notify.channel]]`. Pure.

use std::time::Duration;

use super::super::field::words;
use super::super::key::KeyExample::Commented;
use super::super::key::ValueForm::{
    Command, Headers, ListedTables, Text, Texts, VariableNames, Variables, Word, Words,
};
use super::super::key::{
    ConfigTable, DurationBounds, KeyField, KeyRow, TextForm, ValueForm, checked, field, row, secret_path,
};
use super::super::notify_settings::{ALERT_EVENTS, NotifyChannelKind, NotifyChannelSettings, NotifySettings};
use super::super::section::accept;
use super::super::url::HttpUrl;

/// The timeout of one alert: a process that ends waits for it, and a server that takes longer counts as down.
const ALERT_TIMEOUT: DurationBounds = DurationBounds::between(Duration::from_secs(1), Duration::from_mins(2));

pub(in crate::config) static NOTIFY: &[KeyRow<NotifySettings>] = &[
    row(
        "command",
        Command,
        field!(command),
        Commented(r#"["/usr/local/bin/tell"]"#),
        "A command that gets the event as one JSON document on its standard input. An exit code other than 0 is tried \
         again.",
    ),
    row(
        "environment",
        Variables,
        field!(environment.set),
        Commented(r#"{ CHANNEL = "ops" }"#),
        "Environment variables of that command, in addition to those that the commands of a role get by default.",
    ),
    row(
        "pass_environment",
        VariableNames,
        field!(environment.pass, unless | notify | notify.environment.pass.is_empty()),
        Commented(r#"["HTTPS_PROXY"]"#),
        "Environment variables that the command gets as runner has them.",
    ),
    row(
        "webhook",
        Text(TextForm::HttpUrl),
        KeyField {
            read: Some(|notify, section, key, checker| {
                notify.webhook = section.text(key).and_then(|at| accept(&at, at.value.parse(), &mut checker.problems));
            }),
            ..checked!(webhook)
        },
        Commented(r#""https://ops.example.net/hook""#),
        "The URL to which the same document is posted. A URL of this kind lets others post there: `config show` shows \
         the server alone.",
    ),
    row(
        "healthchecks",
        Text(TextForm::HttpUrl),
        KeyField {
            read: Some(|notify, section, key, checker| {
                notify.healthchecks =
                    section.text(key).and_then(|at| accept(&at, HttpUrl::with_role(at.value), &mut checker.problems));
            }),
            ..checked!(healthchecks)
        },
        Commented(r#""https://hc.example.net/ping/example/{role}""#),
        "The URL that is pinged at the begin and the end of every run, as healthchecks.io expects. A snapshot that lacks \
         unreadable files is a failure. {role} stands for the role's name.",
    ),
    row(
        "timeout",
        ValueForm::Duration(ALERT_TIMEOUT),
        field!(timeout),
        Commented(r#""10s""#),
        "The timeout of one attempt.",
    ),
    row(
        "channel",
        ListedTables(ConfigTable::NotifyChannel),
        KeyField::TABLE,
        Commented(""),
        "A channel of its own, as often as there are channels. All of them and those above may stand beside each other: \
         each has its own queue, and none waits for another one. `runner notify test` sends a message through each.",
    ),
];

/// The keys of one channel. Which of them a channel has depends on its kind: see the check.
pub(in crate::config) static CHANNEL: &[KeyRow<NotifyChannelSettings>] = &[
    row(
        "name",
        Text(TextForm::Plain),
        checked!(name),
        Commented(r#""ops""#),
        "The channel's name, for the log and for `runner notify test`. Required, and different for each channel.",
    ),
    row(
        "kind",
        Word(words::<NotifyChannelKind>),
        checked!(kind),
        Commented(r#""webhook""#),
        "What is sent, and which answer counts as delivered: docs/ALERTS.md has it for each. Required.",
    ),
    row(
        "events",
        Words(|| ALERT_EVENTS.to_vec()),
        field!(events),
        Commented(r#"["failed", "missed", "conflict"]"#),
        "The events that the channel gets, each with its end. Not for healthchecks, which hears of every run. Default: \
         all.",
    ),
    row(
        "roles",
        Texts(TextForm::Plain),
        field!(roles),
        Commented(r#"["app"]"#),
        "The roles of which the channel gets events, or whose runs are pinged. Default: all.",
    ),
    row(
        "url",
        Text(TextForm::HttpUrl),
        checked!(url),
        Commented(r#""https://ops.example.net/hook""#),
        "Where the channel is; url or url_file is required for all kinds but command and email. A URL of this kind lets \
         others post there: `config show` shows the server alone, and a file keeps it out of the config. For \
         healthchecks {role} stands for the role's name.",
    ),
    row(
        "url_file",
        Text(TextForm::SecretPath),
        secret_path!(url_file),
        Commented(r#""/etc/runner/ops-url""#),
        "A file with the URL alone, instead of url. \"credential:NAME\" takes systemd's credential of that name.",
    ),
    row(
        "token_file",
        Text(TextForm::SecretPath),
        secret_path!(token_file),
        Commented(r#""/etc/runner/ops-token""#),
        "webhook and ntfy only: a file with a token, sent as `Authorization: Bearer TOKEN`; or \"credential:NAME\".",
    ),
    row(
        "headers",
        Headers,
        field!(headers),
        Commented(r#"{ X-Environment = "production" }"#),
        "webhook only: additional headers of each request; `config show` hides the values.",
    ),
    row(
        "signing_key_file",
        Text(TextForm::SecretPath),
        secret_path!(signing_key_file),
        Commented(r#""/etc/runner/ops-signing-key""#),
        "webhook only: a file with a key of 16 bytes or more, or \"credential:NAME\". Each request then has the header \
         Runner-Signature with a time and an HMAC-SHA256 of time and body: docs/ALERTS.md says how a receiver checks it. \
         One newline at the file's end is not part of the key.",
    ),
    row(
        "ca_file",
        Text(TextForm::Path),
        field!(ca_file),
        Commented(r#""/etc/runner/ops-ca.pem""#),
        "https:// only: a PEM file with the root certificates to trust, or the server's own. Default: the system's roots.",
    ),
    row(
        "command",
        Command,
        field!(command),
        Commented(r#"["/usr/sbin/sendmail", "-t", "-i"]"#),
        "command: a program that gets the event as one JSON document on its standard input. email: a program that gets a \
         mail there and sends it to the recipients that its header names. Required for both; an exit code other than 0 \
         is tried again.",
    ),
    row(
        "environment",
        Variables,
        field!(environment.set),
        Commented(r#"{ CHANNEL = "ops" }"#),
        "Environment variables of that command, in addition to those that the commands of a role get by default.",
    ),
    row(
        "pass_environment",
        VariableNames,
        field!(environment.pass, unless | channel | channel.environment.pass.is_empty()),
        Commented(r#"["HTTPS_PROXY"]"#),
        "Environment variables that the command gets as runner has them.",
    ),
    row(
        "to",
        Texts(TextForm::Plain),
        field!(to),
        Commented(r#"["ops@example.net"]"#),
        "email only: the addresses of the recipients. Required for it.",
    ),
    row(
        "from",
        Text(TextForm::Plain),
        field!(from),
        Commented(r#""runner@example.net""#),
        "email only: the address of the sender. Default: the one that the command uses.",
    ),
    row(
        "timeout",
        ValueForm::Duration(ALERT_TIMEOUT),
        field!(timeout),
        Commented(r#""10s""#),
        "The timeout of one attempt.",
    ),
];
