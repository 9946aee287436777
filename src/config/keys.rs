//! The table of all keys of the config: one row for each. From it come the check of forms and bounds, the reader, what
//! `config show` prints (in this order), the reference `config/runner.toml`, and the JSON schema.
//!
//! Pure.

mod notify;
mod probe;
mod role;

use std::path::PathBuf;
use std::time::Duration;

pub(super) use notify::{CHANNEL, NOTIFY};
pub(super) use probe::{FALLBACK_AFTER, PROBE_KINDS, PROBE_OPTIONS};
pub(super) use role::{DUMP, KEEP, ROLE};

use super::field::words;
use super::key::KeyExample::{Commented, Set};
use super::key::ValueForm::{Flag, NamedTables, Size, Table, Text, Texts, Word};
use super::key::{
    ConfigKey, ConfigTable, DurationBounds, KeyField, KeyRow, TextForm, ValueForm, checked, field, row, secret_path,
    unlocking,
};
use super::notify_settings::{NotifyChannelKind, NotifyChannelSettings, NotifySettings};
use super::settings::{
    DEFAULT_ROLE, DumpSettings, EtcdSettings, JournalPlacement, KeySource, RetentionPolicy, RoleSettings, Settings,
    StoreSettings,
};
use super::store_url::StoreUrl;

/// The TTL of the lease in etcd. Etcd itself grants nothing under two election timeouts; a longer TTL than this keeps
/// the other node out of a dead node's roles for no use.
const ETCD_LEASE_TTL: DurationBounds =
    DurationBounds::between(Duration::from_secs(2), Duration::from_mins(10)).whole_seconds();

/// The keys that say how the repository key is unlocked.
pub(super) const UNLOCKING: [&str; 3] = ["key_file", "passphrase_file", "encryption"];

/// The keys at the top of the file.
pub(super) static ROOT: &[KeyRow<Settings>] = &[
    row(
        "timezone",
        Text(TextForm::Plain),
        field!(timezone),
        Set(r#""Europe/Berlin""#),
        "The time zone of schedules, as an IANA name. The host's own time zone is never used.",
    ),
    row("store", Table(ConfigTable::Store), KeyField::TABLE, Set(""), "The store of the repositories."),
    row(
        "etcd",
        Table(ConfigTable::Etcd),
        KeyField::TABLE,
        Commented(""),
        "Etcd, for leases: which node works is then decided within seconds, and etcd is asked, not the bucket. Also for \
         the journals of a store that ignores conditional writes. A restore never needs it. A user needs to read and \
         write below the prefix, nothing else.",
    ),
    row(
        "role",
        NamedTables(ConfigTable::Role),
        KeyField::TABLE,
        Set("app"),
        "A role: what exactly one node is responsible for at a time. The name is part of the key of everything that is \
         stored. It is not the hostname, and a new name starts a new history.",
    ),
    row(
        "notify",
        Table(ConfigTable::Notify),
        KeyField::TABLE,
        Commented(""),
        "The channels for alerts: each alert is sent once, and once when it is over. docs/ALERTS.md has the events.",
    ),
    row(
        "listen",
        Table(ConfigTable::Listen),
        KeyField::TABLE,
        Commented(""),
        "/metrics, /healthz, /status.json and a status page.",
    )
    .without_effect("nothing listens yet"),
];

pub(super) static STORE: &[KeyRow<StoreSettings>] = &[
    row(
        "url",
        Text(TextForm::StoreUrl),
        checked!(url),
        Set(r#""s3://backups/prod""#),
        "Where the repositories are, one for each role: \"s3://bucket/prefix\", \"file:///absolute/path\" or the bare \
         path. Required.",
    ),
    row(
        "endpoint",
        Text(TextForm::HttpUrl),
        field!(endpoint),
        Set(r#""https://s3.example.net""#),
        "S3 only: the server, if it is not AWS.",
    ),
    row(
        "region",
        Text(TextForm::Plain),
        field!(region),
        Set(r#""eu-central-1""#),
        "S3 only: the region. Default: from the AWS environment, else \"us-east-1\".",
    ),
    row(
        "profile",
        Text(TextForm::Plain),
        field!(profile),
        Commented(r#""backup""#),
        "S3 only: a profile of credentials_file, or of the AWS config files, instead of \"default\".",
    ),
    row(
        "credentials_file",
        Text(TextForm::SecretPath),
        secret_path!(credentials_file),
        Commented(r#""/etc/runner/s3-credentials""#),
        "S3 only: a file with the credentials in the format of AWS ([default], aws_access_key_id = …, \
         aws_secret_access_key = …). It should be readable by root alone. \"credential:NAME\" takes systemd's \
         credential of that name. Default: where AWS tools look: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (of the \
         systemd units in /etc/runner/environment), ~/.aws (a service has none), the role of the container or machine.",
    ),
    row(
        "path_style",
        Flag,
        field!(path_style),
        Commented("true"),
        "S3 only: true puts the bucket into the path, false into the host name. Default: true if there is an endpoint.",
    ),
    row(
        "storage_class",
        Text(TextForm::Plain),
        field!(storage_class),
        Commented(r#""STANDARD_IA""#),
        "S3 only: the storage class of packs. All other objects are small and read often. Default: the bucket's own.",
    ),
    row(
        "sse",
        Word(|| vec!["AES256", "aws:kms"]),
        field!(sse),
        Commented(r#""aws:kms""#),
        "S3 only: encryption by the server. It does not replace the encryption of the repository.",
    ),
    row(
        "sse_kms_key_id",
        Text(TextForm::Plain),
        field!(sse_kms_key_id),
        Commented(r#""arn:aws:kms:eu-central-1:111122223333:key/example""#),
        "S3 only: the key for sse = \"aws:kms\".",
    ),
    row(
        "ca_file",
        Text(TextForm::Path),
        field!(ca_file),
        Commented(r#""/etc/runner/ca.pem""#),
        "S3 only: a PEM file with additional root certificates to trust.",
    ),
    row(
        "key_file",
        Text(TextForm::SecretPath),
        unlocking!("key_file"),
        Set(r#""/etc/runner/repository.key""#),
        "How the repository key is unlocked; exactly one of key_file, passphrase_file and encryption is required. This is \
         a file with a random key, which `runner init` creates. \"credential:NAME\" takes systemd's credential of that \
         name (LoadCredential=NAME:/path in the unit).",
    ),
    row(
        "passphrase_file",
        Text(TextForm::SecretPath),
        unlocking!("passphrase_file"),
        Commented(r#""/etc/runner/passphrase""#),
        "Instead of key_file: a file with a passphrase. One newline at its end is not part of it. \"credential:NAME\" \
         works here, too.",
    ),
    row(
        "encryption",
        Word(|| vec!["none"]),
        unlocking!("encryption"),
        Commented(r#""none""#),
        "Instead of key_file: no encryption. Any reader of the store can then read the backups.",
    ),
    row(
        "journal",
        Word(words::<JournalPlacement>),
        field!(journal),
        Set(r#""auto""#),
        "Where the journals live: in the store, or in etcd. \"auto\" is the store if it passes the proof of conditional \
         writes, else etcd, if that is configured. `runner init` decides it for good. See docs/JOURNAL.md.",
    ),
    row(
        "limit_upload",
        Size,
        field!(limit_upload),
        Set(r#""20MiB""#),
        "The most that this process uploads in a second. Default: no limit.",
    ),
];

pub(super) static ETCD: &[KeyRow<EtcdSettings>] = &[
    row(
        "endpoints",
        Texts(TextForm::HttpUrl),
        checked!(endpoints),
        Commented(r#"["https://etcd1:2379", "https://etcd2:2379", "https://etcd3:2379"]"#),
        "Every member, with http:// or https://. A member that does not answer is passed over. Required.",
    ),
    row(
        "ca_file",
        Text(TextForm::Path),
        field!(ca_file),
        Commented(r#""/etc/runner/etcd-ca.pem""#),
        "https:// only: a PEM file with the root certificates to trust. Default: the system's.",
    ),
    row(
        "cert_file",
        Text(TextForm::SecretPath),
        secret_path!(cert_file),
        Commented(r#""/etc/runner/etcd.pem""#),
        "https:// only: a PEM file with this client's certificate; key_file is required beside it. \"credential:NAME\" \
         takes systemd's credential of that name.",
    ),
    row(
        "key_file",
        Text(TextForm::SecretPath),
        secret_path!(key_file),
        Commented(r#""/etc/runner/etcd.key""#),
        "The PEM file with the key of that certificate, or \"credential:NAME\".",
    ),
    row(
        "user",
        Text(TextForm::Plain),
        field!(user),
        Commented(r#""runner""#),
        "The user, if etcd requires authentication; password_file is required beside it.",
    ),
    row(
        "password_file",
        Text(TextForm::SecretPath),
        secret_path!(password_file),
        Commented(r#""/etc/runner/etcd-password""#),
        "The file with that user's password, or \"credential:NAME\". One newline at its end is not part of it.",
    ),
    row(
        "prefix",
        Text(TextForm::Plain),
        field!(prefix),
        Commented(r#""/runner""#),
        "The prefix of all keys. It begins with a slash and does not end with one.",
    ),
    row(
        "lease_ttl",
        ValueForm::Duration(ETCD_LEASE_TTL),
        field!(lease_ttl),
        Commented(r#""30s""#),
        "How long after its last sign of life a process has lost all its roles.",
    ),
];

/// The settings of a table whose keys have no effect yet.
pub(super) struct ListenSettings;

static LISTEN: &[KeyRow<ListenSettings>] = &[row(
    "address",
    Text(TextForm::Plain),
    KeyField::TABLE,
    Commented(r#""127.0.0.1:9180""#),
    "The address and port to listen on.",
)];

impl ConfigTable {
    /// The tables in which a misplaced key is looked for, with their headers.
    pub(super) const HEADERS: [(&'static str, ConfigTable); 7] = [
        ("store", ConfigTable::Store),
        ("role.NAME", ConfigTable::Role),
        ("role.NAME.keep", ConfigTable::Keep),
        ("etcd", ConfigTable::Etcd),
        ("notify", ConfigTable::Notify),
        ("listen", ConfigTable::Listen),
        ("", ConfigTable::Root),
    ];

    /// The keys of the table.
    pub(super) fn keys(self) -> Vec<&'static ConfigKey> {
        fn keys<S>(rows: &'static [KeyRow<S>]) -> Vec<&'static ConfigKey> {
            rows.iter().map(|row| &row.key).collect()
        }
        match self {
            ConfigTable::Root => keys(ROOT),
            ConfigTable::Store => keys(STORE),
            ConfigTable::Etcd => keys(ETCD),
            ConfigTable::Role => keys(ROLE),
            ConfigTable::Keep => keys(KEEP),
            ConfigTable::Dump => keys(DUMP),
            ConfigTable::Notify => keys(NOTIFY),
            ConfigTable::NotifyChannel => keys(CHANNEL),
            ConfigTable::Listen => keys(LISTEN),
        }
    }

    /// The value that an absent key stands for, as TOML, if that depends on nothing else.
    pub(super) fn default(self, name: &str) -> Option<String> {
        fn default<S>(rows: &[KeyRow<S>], name: &str, defaults: &S) -> Option<String> {
            rows.iter().find(|row| row.key.name == name)?.default(defaults)
        }
        match self {
            ConfigTable::Root => default(ROOT, name, &Settings::new(unnamed_store())),
            ConfigTable::Store => default(STORE, name, &unnamed_store()),
            ConfigTable::Etcd => default(ETCD, name, &EtcdSettings::new(Vec::new())),
            ConfigTable::Role => default(ROLE, name, &unnamed_role()),
            ConfigTable::Keep => default(KEEP, name, &RetentionPolicy::default()),
            ConfigTable::Dump => default(DUMP, name, &DumpSettings::new(Vec::new())),
            ConfigTable::Notify => default(NOTIFY, name, &NotifySettings::default()),
            ConfigTable::NotifyChannel => default(CHANNEL, name, &unnamed_channel()),
            ConfigTable::Listen => default(LISTEN, name, &ListenSettings),
        }
    }
}

/// A store that has nothing but defaults: its URL and its key are still to be set.
pub(super) fn unnamed_store() -> StoreSettings {
    StoreSettings::new(StoreUrl::Dir(PathBuf::new()), KeySource::None)
}

/// A channel that has nothing but defaults: its name and its kind are still to be set.
pub(super) fn unnamed_channel() -> NotifyChannelSettings {
    NotifyChannelSettings::new(String::new(), NotifyChannelKind::Command)
}

/// A role that has nothing but defaults: its name and its key are still to be set.
pub(super) fn unnamed_role() -> RoleSettings {
    let name = DEFAULT_ROLE.parse().expect("the default name is the name of a role");
    RoleSettings::new(name, KeySource::None, Vec::new())
}
