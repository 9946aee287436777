//! Configuration: raw TOML in, checked settings out. What is here is already valid; nobody downstream checks again.
//!
//! The same file stands on every node. Nothing is guessed from the host: no time zone, no hostname, no environment
//! except credentials of the store and where systemd puts a service's credentials.
//!
//! The way: text → `toml_document` (a tree with places) → `schema` (the schema: unknown keys, forms, what is not there yet) →
//! `check` (does it make sense) → [`Settings`]. All problems are collected on the way; only then it fails.

mod check;
mod error;
pub(crate) mod files;
pub mod pattern;
mod render;
mod schema;
mod section;
mod starter;
pub mod systemd;
#[cfg(test)]
mod tests;
mod toml_document;
mod url;
pub mod value;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use error::{ConfigError, ConfigLocation, ConfigProblem};
pub use starter::starter;
pub use url::HttpUrl;

use crate::file::access::{self, FileExposure};
use crate::ids::RoleName;

/// Everything that the config file says.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The files it was read from, in order; empty for the forms without config.
    pub files: Vec<PathBuf>,
    /// BLAKE3 of the checked settings in canonical form, 16 hex characters: equal on two nodes that are configured alike.
    pub hash: String,
    /// The time zone that schedules are meant in (IANA name).
    pub timezone: jiff::tz::TimeZone,
    /// Where roles without a store of their own are kept.
    pub store: StoreSettings,
    /// Where the config says where journals live, if it does.
    pub journal_at: ConfigLocation,
    /// Etcd, where there is one.
    pub etcd: Option<EtcdSettings>,
    /// Who is told when something is wrong.
    pub notify: NotifySettings,
    /// The roles, by name.
    pub roles: BTreeMap<RoleName, RoleSettings>,
    /// Keys that are right but have no effect in this version, and those that are dangerous where they lead.
    pub warnings: Vec<ConfigProblem>,
}

/// What the config takes from the process that reads it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConfigEnvironment {
    /// `$RUNNER_CONFIG`.
    pub runner_config: Option<PathBuf>,
    /// `$CREDENTIALS_DIRECTORY`, where systemd puts a service's credentials.
    pub credentials_directory: Option<PathBuf>,
}

/// The role of the forms without config, if no name is given.
pub const DEFAULT_ROLE: &str = "default";

impl Settings {
    /// Reads `flag` (`--config FILE`), else `$RUNNER_CONFIG`, else `/etc/runner/runner.toml`, and `conf.d/*.toml` beside it.
    ///
    /// # Errors
    /// Everything that is wrong with them, all at once.
    pub fn load(flag: Option<&Path>, host: &ConfigEnvironment) -> Result<Self, ConfigError> {
        files::load(flag, host)
    }

    /// Settings from the texts of files, the main one first. Pure.
    ///
    /// # Errors
    /// Everything that is wrong with them, all at once.
    pub fn parse(texts: &[(PathBuf, String)], host: &ConfigEnvironment) -> Result<Self, ConfigError> {
        files::parse(texts, host)
    }

    /// The forms without config: one role without schedule and probe. `sources` may be empty for those that only read.
    ///
    /// # Errors
    /// Sources that are not absolute, or one inside another.
    pub fn for_flags(
        sources: &[PathBuf],
        store: StoreUrl,
        role: RoleName,
        key: KeySource,
    ) -> Result<Self, ConfigError> {
        check::for_flags(sources, store, role, key)
    }

    /// What others on this host may change, or read although it is secret, of the files that these settings come from and name.
    pub fn exposures(&self) -> Vec<FileExposure> {
        let secret_urls = self.notify.webhook.is_some() || self.notify.healthchecks.is_some();
        let mut files: Vec<(&Path, bool)> = self.files.iter().map(|file| (file.as_path(), secret_urls)).collect();
        for key in [&self.store.key].into_iter().chain(self.roles.values().map(|role| &role.key)) {
            if let KeySource::KeyFile(path) | KeySource::PassphraseFile(path) = key {
                files.push((path, true));
            }
        }
        if let Some(etcd) = &self.etcd {
            files
                .extend([&etcd.key_file, &etcd.password_file].into_iter().flatten().map(|path| (path.as_path(), true)));
            files.extend([&etcd.ca_file, &etcd.cert_file].into_iter().flatten().map(|path| (path.as_path(), false)));
        }
        files.extend(self.store.credentials_file.iter().map(|path| (path.as_path(), true)));
        files.extend(self.store.ca_file.iter().map(|path| (path.as_path(), false)));
        files.sort_unstable();
        files.dedup();
        let mut found: Vec<FileExposure> = Vec::new();
        for exposure in files.into_iter().flat_map(|(path, secret)| access::exposures(path, secret)) {
            if !found.contains(&exposure) {
                found.push(exposure);
            }
        }
        found
    }

    /// The effective settings as TOML, defaults spelled out; reads back as the same settings, but for URLs that let whoever
    /// knows them speak: of these only the server is shown.
    pub fn render(&self) -> String {
        render::render(self, render::SecretDisplay::Hidden)
    }

    fn hashed(mut self) -> Self {
        self.hash =
            hex::encode(&blake3::hash(render::render(&self, render::SecretDisplay::Shown).as_bytes()).as_bytes()[..8]);
        self
    }
}

/// The object store.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreSettings {
    /// Where.
    pub url: StoreUrl,
    /// S3 only: the server, if it is not AWS.
    pub endpoint: Option<String>,
    /// S3 only: the region; default from the AWS environment, else `us-east-1`.
    pub region: Option<String>,
    /// S3 only: a profile of the AWS config files, or of `credentials_file`.
    pub profile: Option<String>,
    /// S3 only: a file with credentials in the form of AWS's own; default: where AWS tools look.
    pub credentials_file: Option<PathBuf>,
    /// S3 only: `true` puts the bucket into the path, `false` into the host name; default: path when there is an `endpoint`.
    pub path_style: Option<bool>,
    /// S3 only: storage class of packs (everything else is small and read often).
    pub storage_class: Option<String>,
    /// S3 only: server-side encryption (`AES256`, `aws:kms`).
    pub sse: Option<String>,
    /// S3 only: the key for `aws:kms`.
    pub sse_kms_key_id: Option<String>,
    /// S3 only: PEM file with further roots of trust.
    pub ca_file: Option<PathBuf>,
    /// How the repository key is unlocked.
    pub key: KeySource,
    /// Bytes per second, over all uploads of the process.
    pub limit_upload: Option<u64>,
    /// Where the journal shall live; settled at `init`.
    pub journal: JournalPlacement,
}

impl StoreSettings {
    /// A store for which nothing else is configured.
    pub fn new(url: StoreUrl, key: KeySource) -> Self {
        Self {
            url,
            endpoint: None,
            region: None,
            profile: None,
            credentials_file: None,
            path_style: None,
            storage_class: None,
            sse: None,
            sse_kms_key_id: None,
            ca_file: None,
            key,
            limit_upload: None,
            journal: JournalPlacement::Auto,
        }
    }
}

/// Etcd, which holds the leases of roles with `lease = "etcd"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdSettings {
    /// `http://host:port` or `https://host:port`; never empty, tried in this order.
    pub endpoints: Vec<String>,
    /// PEM file with the roots of trust; default: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file with this client's certificate.
    pub cert_file: Option<PathBuf>,
    /// PEM file with its key.
    pub key_file: Option<PathBuf>,
    /// Who this client is, where etcd asks for users.
    pub user: Option<String>,
    /// File with that user's password (one trailing newline is not part of it).
    pub password_file: Option<PathBuf>,
    /// What every key starts with: a slash first, none at the end.
    pub prefix: String,
    /// How long the lease of a process lasts without being renewed, in whole seconds.
    pub lease_ttl: Duration,
}

/// Who is told of alerts, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotifySettings {
    /// Program and arguments; gets the event as JSON on its standard input.
    pub command: Option<Vec<String>>,
    /// What that finds in its environment.
    pub environment: EnvironmentSettings,
    /// Where the event is posted to as JSON.
    pub webhook: Option<HttpUrl>,
    /// What is told of every run, in the manner of healthchecks.io. `{role}` in it stands for the role's name.
    pub healthchecks: Option<HttpUrl>,
    /// How long one try may take.
    pub timeout: Duration,
}

impl NotifySettings {
    /// How long one try may take, where nothing is said.
    pub const TIMEOUT: Duration = Duration::from_secs(10);
}

impl Default for NotifySettings {
    fn default() -> Self {
        Self {
            command: None,
            environment: EnvironmentSettings::default(),
            webhook: None,
            healthchecks: None,
            timeout: Self::TIMEOUT,
        }
    }
}

/// Where objects are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreUrl {
    /// `s3://bucket/prefix`.
    S3 {
        /// The bucket.
        bucket: String,
        /// The prefix without slashes at its ends; may be empty.
        prefix: String,
    },
    /// `file:///path`.
    Dir(PathBuf),
}

/// How the repository key is unlocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file with a random key.
    KeyFile(PathBuf),
    /// A file with a passphrase (one trailing newline is not part of it).
    PassphraseFile(PathBuf),
    /// `encryption = "none"`, said explicitly: the repository is readable by whoever can read the store.
    None,
}

/// Where a journal lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JournalPlacement {
    /// At `init`: the store if it passes the proof.
    #[default]
    Auto,
    /// The store.
    Bucket,
    /// Etcd.
    Etcd,
}

/// One role.
#[derive(Debug, Clone, PartialEq)]
pub struct RoleSettings {
    /// Its name.
    pub name: RoleName,
    /// Its own key source, or the store's.
    pub key: KeySource,
    /// Nodes (by `--node` or hostname) that may ever hold it; `None`: all.
    pub nodes: Option<Vec<String>>,
    /// When a node should be active.
    pub eligible: Option<Probe>,
    /// Which node may stand in when no eligible one did it.
    pub fallback: Option<FallbackSettings>,
    /// What makes it exclusive.
    pub lease: LeaseKind,
    /// What is backed up: absolute, none inside another, sorted.
    pub sources: Vec<PathBuf>,
    /// Patterns in gitignore syntax; a leading `/` means the file system's root.
    pub exclude: Vec<String>,
    /// Stay on the file system that each source is on.
    pub one_file_system: bool,
    /// Leave out the content of directories with a valid `CACHEDIR.TAG`.
    pub exclude_caches: bool,
    /// Leave out files larger than this, in bytes.
    pub exclude_larger_than: Option<u64>,
    /// File name in the snapshot → command.
    pub dumps: BTreeMap<String, DumpSettings>,
    /// When; `None`: only by hand.
    pub schedule: Option<Schedule>,
    /// The role's offset into each slot is derived from its name and is less than this.
    pub jitter: Duration,
    /// A slot must have started by then.
    pub missed_after: Duration,
    /// A run that makes no progress for so long is ended, and the role left to another node.
    pub stall_timeout: Duration,
    /// How long a lease in the bucket lasts without being renewed.
    pub bucket_lease_ttl: Duration,
    /// How long a node that did not hold the role last leaves a due slot to the one that did.
    pub takeover_delay: Duration,
    /// How long a silent holder, or an operator's takeover, keeps other nodes waiting.
    pub takeover_after: Duration,
    /// What the holder does while the lease service cannot be reached.
    pub on_lease_unreachable: LeaseUnreachablePolicy,
    /// Whether files are read again after the role came from another node.
    pub takeover_trust: TakeoverTrust,
    /// An empty source is believed.
    pub allow_empty: bool,
    /// Which snapshots a prune keeps; `None`: all, and nothing is pruned.
    pub keep: Option<RetentionPolicy>,
    /// So many percent of what is stored may be unused before a prune moves content out of wasteful packs.
    pub max_unused: u8,
    /// How long what nothing needs any more is left to those who still read it.
    pub prune_grace: Duration,
    /// Commands around a run, and around the time in which this node has the role.
    pub hooks: HookCommands,
    /// What hooks, probes and dumps find in their environment, and `exec`'s command beside what its caller gave it.
    pub environment: EnvironmentSettings,
}

/// What the programs that are started find in their environment beside what every program may expect.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EnvironmentSettings {
    /// With these values.
    pub set: BTreeMap<String, String>,
    /// As this process has them, where it has.
    pub pass: Vec<String>,
}

/// Which snapshots are kept: the newest so many, the newest of so many hours, days, weeks, months and years that have any, and all
/// that are not older than the newest by more than `within`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(missing_docs, reason = "one line above says it of all")]
pub struct RetentionPolicy {
    pub last: u32,
    pub hourly: u32,
    pub daily: u32,
    pub weekly: u32,
    pub monthly: u32,
    pub yearly: u32,
    pub within: Option<Duration>,
}

/// Who may do what no eligible node did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FallbackSettings {
    /// Evidence that a node may.
    pub probe: Probe,
    /// How long a slot must have been due without a commit.
    pub after: Duration,
}

impl FallbackSettings {
    /// How long eligible nodes have, where nothing is said: half of what makes a slot a missed one.
    pub const AFTER: Duration = Duration::from_mins(15);
}

/// A role's commands: program and arguments, no shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookCommands {
    /// Before a run reads anything. The run fails if it does.
    pub before: Option<Vec<String>>,
    /// After a run for which `before` was started, however it ended.
    pub after: Option<Vec<String>>,
    /// When this node begins to work for the role.
    pub on_takeover: Option<Vec<String>>,
    /// When it no longer does.
    pub on_lost: Option<Vec<String>>,
    /// Each is killed after this long.
    pub timeout: Duration,
}

impl HookCommands {
    /// How long each may take, where nothing is said.
    pub const TIMEOUT: Duration = Duration::from_mins(10);

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        [&self.before, &self.after, &self.on_takeover, &self.on_lost].iter().all(|hook| hook.is_none())
    }
}

impl Default for HookCommands {
    fn default() -> Self {
        Self { before: None, after: None, on_takeover: None, on_lost: None, timeout: Self::TIMEOUT }
    }
}

impl RoleSettings {
    /// A role that backs up `sources` by hand, on any node, with every default of the config file.
    pub fn new(name: RoleName, key: KeySource, sources: Vec<PathBuf>) -> Self {
        Self {
            name,
            key,
            nodes: None,
            eligible: None,
            fallback: None,
            lease: LeaseKind::None,
            sources,
            exclude: Vec::new(),
            one_file_system: false,
            exclude_caches: false,
            exclude_larger_than: None,
            dumps: BTreeMap::new(),
            schedule: None,
            jitter: Duration::ZERO,
            missed_after: Duration::from_mins(30),
            stall_timeout: Duration::from_mins(15),
            bucket_lease_ttl: Duration::from_mins(1),
            takeover_delay: Duration::from_mins(1),
            takeover_after: Duration::from_mins(15),
            on_lease_unreachable: LeaseUnreachablePolicy::default(),
            takeover_trust: TakeoverTrust::default(),
            allow_empty: false,
            keep: None,
            max_unused: 10,
            prune_grace: Duration::from_hours(24),
            hooks: HookCommands::default(),
            environment: EnvironmentSettings::default(),
        }
    }
}

/// What the node that holds the newest term does while its lease service cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LeaseUnreachablePolicy {
    /// It starts nothing, and what runs waits with its commit.
    #[default]
    Stop,
    /// It goes on with backups while its probes say yes; the journal fences.
    HolderContinues,
}

/// A command whose standard output becomes a file of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpSettings {
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    /// Run as this user.
    pub user: Option<String>,
    /// What it finds in its environment: the role's, and its own.
    pub environment: EnvironmentSettings,
    /// Killed after this long.
    pub timeout: Duration,
}

/// What makes a role exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseKind {
    /// A lease in etcd.
    Etcd,
    /// A lease in the bucket.
    Bucket,
    /// Only the journal.
    None,
}

/// Evidence for eligibility, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// An address that is on this machine.
    Vip {
        /// The address.
        address: std::net::IpAddr,
        /// Only on this interface. The only way to accept an address on `lo`.
        interface: Option<String>,
    },
    /// A command: exit 0 is yes, 1 is no, anything else and a timeout are unknown.
    Command {
        /// Program and arguments.
        command: Vec<String>,
        /// Default 10 s.
        timeout: Duration,
    },
    /// A question to a server: an answer that matches is yes, another one is no, none is unknown.
    Http {
        /// Where.
        url: HttpUrl,
        /// The statuses that match, sorted; empty: every 2xx.
        status: Vec<u16>,
        /// This text must be in the body.
        body: Option<String>,
        /// Default 5 s.
        timeout: Duration,
        /// PEM file with the roots to trust instead of the system's.
        ca_file: Option<PathBuf>,
    },
    /// A path where a file system is mounted.
    Mounted {
        /// Absolute, without links.
        path: PathBuf,
    },
    /// A systemd unit that is active.
    Unit {
        /// Its full name.
        unit: String,
        /// Default 5 s.
        timeout: Duration,
    },
    /// All of these.
    All(Vec<Probe>),
    /// At least one of these.
    Any(Vec<Probe>),
    /// The opposite; unknown stays unknown.
    Not(Box<Probe>),
}

/// When a role is backed up.
#[derive(Debug, Clone, PartialEq)]
pub enum Schedule {
    /// A cron line with five fields, in the config's time zone.
    Cron(String),
    /// At multiples of this, counted from 1970-01-01T00:00:00Z.
    Every(Duration),
}

/// What is believed of files after the role came from another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TakeoverTrust {
    /// Nothing that this node's own cache does not vouch for: read and hash again.
    #[default]
    Rehash,
    /// Size and modification time.
    Mtime,
}
