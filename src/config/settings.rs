//! The checked settings: what the other rooms receive. They are always valid.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::environment_settings::EnvironmentSettings;
use super::error::{ConfigLocation, ConfigProblem};
use super::notify_settings::NotifySettings;
use super::store_url::StoreUrl;
use super::url::HttpUrl;
use crate::file::access::{self, FileExposure};
use crate::ids::RoleName;

/// The content of the config files.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The files that were read, in order; empty for the forms without a config.
    pub files: Vec<PathBuf>,
    /// BLAKE3 of the checked settings in canonical form, 16 hex characters: equal on two nodes that are configured
    /// alike.
    pub hash: String,
    /// The time zone in which cron lines are read (IANA name).
    pub timezone: jiff::tz::TimeZone,
    /// The store of the roles that have none of their own.
    pub store: StoreSettings,
    /// The location of the key that says where journals live, if the config has it.
    pub journal_at: ConfigLocation,
    /// The etcd section, if the config has one.
    pub etcd: Option<EtcdSettings>,
    /// The channels for alerts.
    pub notify: NotifySettings,
    /// The roles, by name.
    pub roles: BTreeMap<RoleName, RoleSettings>,
    /// Keys that are valid but have no effect in this version, and values that are dangerous in their place.
    pub warnings: Vec<ConfigProblem>,
}

/// The role's name in the forms without a config, if no name is given.
pub const DEFAULT_ROLE: &str = "default";

impl Settings {
    /// Settings with this store and defaults for everything else, without roles.
    pub(super) fn new(store: StoreSettings) -> Self {
        Self {
            files: Vec::new(),
            hash: String::new(),
            timezone: jiff::tz::TimeZone::UTC,
            store,
            journal_at: ConfigLocation::nowhere(),
            etcd: None,
            notify: NotifySettings::default(),
            roles: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }

    /// The files of these settings, or named by them, that other users of this host may change, or that they may read
    /// although they are secret.
    pub fn exposures(&self) -> Vec<FileExposure> {
        let has_secrets = self.notify.has_secrets();
        let mut files: Vec<(&Path, bool)> = self.files.iter().map(|file| (file.as_path(), has_secrets)).collect();
        for channel in &self.notify.channels {
            files.extend(channel.secret_files().map(|(_, path)| (path.as_path(), true)));
            files.extend(channel.ca_file.iter().map(|path| (path.as_path(), false)));
        }
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
}

/// The object store.
#[derive(Debug, Clone, PartialEq)]
pub struct StoreSettings {
    /// The location of the store.
    pub url: StoreUrl,
    /// S3 only: the server, if it is not AWS.
    pub endpoint: Option<String>,
    /// S3 only: the region; default from the AWS environment, else `us-east-1`.
    pub region: Option<String>,
    /// S3 only: a profile of the AWS config files, or of `credentials_file`.
    pub profile: Option<String>,
    /// S3 only: a file with credentials in the format of AWS; default: where AWS tools look.
    pub credentials_file: Option<PathBuf>,
    /// S3 only: `true` puts the bucket into the path, `false` into the host name; default: path when there is an
    /// `endpoint`.
    pub path_style: Option<bool>,
    /// S3 only: storage class of packs (everything else is small and read often).
    pub storage_class: Option<String>,
    /// S3 only: server-side encryption (`AES256`, `aws:kms`).
    pub sse: Option<String>,
    /// S3 only: the key for `aws:kms`.
    pub sse_kms_key_id: Option<String>,
    /// S3 only: PEM file with additional trusted root certificates.
    pub ca_file: Option<PathBuf>,
    /// How the repository key is unlocked.
    pub key: KeySource,
    /// Upload limit in bytes per second, over all uploads of the process.
    pub limit_upload: Option<u64>,
    /// Where new repositories keep their journal; decided at `init`.
    pub journal: JournalPlacement,
}

impl StoreSettings {
    /// A store with defaults for everything else.
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

/// The etcd that holds the leases of roles with `lease = "etcd"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdSettings {
    /// `http://host:port` or `https://host:port`; never empty, tried in this order.
    pub endpoints: Vec<String>,
    /// PEM file with the trusted root certificates; default: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file with this client's certificate.
    pub cert_file: Option<PathBuf>,
    /// PEM file with the key of that certificate.
    pub key_file: Option<PathBuf>,
    /// The user name, if etcd requires authentication.
    pub user: Option<String>,
    /// File with that user's password (one trailing newline is not part of it).
    pub password_file: Option<PathBuf>,
    /// The prefix of every key: it begins with a slash and does not end with one.
    pub prefix: String,
    /// TTL of a process's lease, in whole seconds.
    pub lease_ttl: Duration,
}

impl EtcdSettings {
    /// An etcd with defaults for everything else.
    pub(super) fn new(endpoints: Vec<String>) -> Self {
        Self {
            endpoints,
            ca_file: None,
            cert_file: None,
            key_file: None,
            user: None,
            password_file: None,
            prefix: "/runner".to_owned(),
            lease_ttl: Duration::from_secs(30),
        }
    }
}

/// How the repository key is unlocked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// A file with a random key.
    KeyFile(PathBuf),
    /// A file with a passphrase (one trailing newline is not part of it).
    PassphraseFile(PathBuf),
    /// `encryption = "none"`, written explicitly: any reader of the store can read the repository.
    None,
}

/// Where a journal lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JournalPlacement {
    /// Decided at `init`: the store, if it proves that it honours conditional writes.
    #[default]
    Auto,
    /// The journal lives in the store.
    Bucket,
    /// The journal's head is kept in etcd.
    Etcd,
}

/// The settings of a role.
#[derive(Debug, Clone, PartialEq)]
pub struct RoleSettings {
    /// Its name.
    pub name: RoleName,
    /// Its own key source, or the store's.
    pub key: KeySource,
    /// Nodes (by `--node` or hostname) that may ever hold the role; `None`: all.
    pub nodes: Option<Vec<String>>,
    /// The probe that decides whether a node should be active.
    pub eligible: Option<Probe>,
    /// Which node may work as a fallback if no eligible node does.
    pub fallback: Option<FallbackSettings>,
    /// What makes the role exclusive.
    pub lease: LeaseKind,
    /// What is backed up: absolute paths, none inside another, sorted.
    pub sources: Vec<PathBuf>,
    /// Patterns in gitignore syntax; a leading `/` means the file system's root.
    pub exclude: Vec<String>,
    /// Stay on the file system of each source.
    pub one_file_system: bool,
    /// Leave out the content of directories with a valid `CACHEDIR.TAG`.
    pub exclude_caches: bool,
    /// Leave out files larger than this, in bytes.
    pub exclude_larger_than: Option<u64>,
    /// The dumps, by their file names in the snapshot.
    pub dumps: BTreeMap<String, DumpSettings>,
    /// When backups run; `None`: only by hand.
    pub schedule: Option<Schedule>,
    /// The role's offset into each slot is derived from its name and is less than this.
    pub jitter: Duration,
    /// How late a run for a slot may start.
    pub missed_after: Duration,
    /// A run that makes no progress for this long is ended, and the role is left to another node.
    pub stall_timeout: Duration,
    /// TTL of a lease in the bucket.
    pub bucket_lease_ttl: Duration,
    /// How long a node that did not hold the role last leaves a due slot to the node that did.
    pub takeover_delay: Duration,
    /// How long a silent holder, or an operator's takeover, keeps other nodes waiting.
    pub takeover_after: Duration,
    /// What the holder does while the lease service cannot be reached.
    pub on_lease_unreachable: LeaseUnreachablePolicy,
    /// Whether files are read again after the role came from another node.
    pub takeover_trust: TakeoverTrust,
    /// An empty source is allowed.
    pub allow_empty: bool,
    /// Which snapshots a prune keeps; `None`: all, and nothing is pruned.
    pub keep: Option<RetentionPolicy>,
    /// How much of what is stored, in percent, may be unused before a prune moves content out of wasteful packs.
    pub max_unused: u8,
    /// How long a prune keeps unused content for readers that still need it.
    pub prune_grace: Duration,
    /// Commands around a run, and around the time in which this node has the role.
    pub hooks: HookCommands,
    /// The environment variables of hooks, probes and dumps; `exec`'s command gets them in addition to its caller's.
    pub environment: EnvironmentSettings,
}

/// Which snapshots are kept: the newest `last`; the newest of each of that many hours, days, weeks, months and years
/// that have any; and all that are at most `within` older than the newest.
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

/// Which node may do what no eligible node did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FallbackSettings {
    /// The probe that decides whether a node may work as a fallback.
    pub probe: Probe,
    /// How long a slot must have been due without a commit.
    pub after: Duration,
}

impl FallbackSettings {
    /// The default for `after`: half of the time after which a slot counts as missed.
    pub const AFTER: Duration = Duration::from_mins(15);
}

/// The hook commands of a role: program and arguments, no shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookCommands {
    /// Runs before a backup reads anything. If it fails, the run fails.
    pub before: Option<Vec<String>>,
    /// Runs after a backup for which `before` was started, however it ended.
    pub after: Option<Vec<String>>,
    /// Runs when this node begins to work for the role.
    pub on_takeover: Option<Vec<String>>,
    /// Runs when this node no longer works for the role.
    pub on_lost: Option<Vec<String>>,
    /// Each command is killed after this time.
    pub timeout: Duration,
}

impl HookCommands {
    /// Whether there are no hooks.
    pub fn is_empty(&self) -> bool {
        [&self.before, &self.after, &self.on_takeover, &self.on_lost].iter().all(|hook| hook.is_none())
    }
}

impl Default for HookCommands {
    fn default() -> Self {
        Self { before: None, after: None, on_takeover: None, on_lost: None, timeout: Duration::from_mins(10) }
    }
}

impl RoleSettings {
    /// A role that backs up `sources` by hand, on any node, with every default of the config.
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
    /// The node starts nothing, and a run that is under way waits with its commit.
    #[default]
    Stop,
    /// The node goes on with backups while its probes say yes; the journal fences.
    HolderContinues,
}

/// A command whose standard output becomes a file of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DumpSettings {
    /// Program and arguments; no shell.
    pub command: Vec<String>,
    /// The user that runs the command.
    pub user: Option<String>,
    /// The environment variables of the command: the role's, and its own.
    pub environment: EnvironmentSettings,
    /// The command is killed after this time.
    pub timeout: Duration,
}

impl DumpSettings {
    /// A dump with defaults for everything else. The timeout is long enough for any real dump; without one a dump that
    /// hangs would block the role for ever.
    pub(super) fn new(command: Vec<String>) -> Self {
        Self { command, user: None, environment: EnvironmentSettings::default(), timeout: Duration::from_hours(24) }
    }
}

/// What makes a role exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaseKind {
    /// A lease in etcd.
    Etcd,
    /// A lease in the bucket.
    Bucket,
    /// Only the journal.
    None,
}

/// A probe for eligibility, as configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// An address that is on this machine.
    Vip {
        /// The address.
        address: std::net::IpAddr,
        /// The interface that must have the address. Only this way an address on `lo` is accepted.
        interface: Option<String>,
    },
    /// A command: exit 0 is yes, 1 is no, anything else and a timeout are unknown.
    Command {
        /// Program and arguments.
        command: Vec<String>,
        /// The timeout; 10 s by default.
        timeout: Duration,
    },
    /// A request to a server: an answer that matches is yes, another answer is no, no answer is unknown.
    Http {
        /// The URL.
        url: HttpUrl,
        /// The statuses that match, sorted; empty: every 2xx.
        status: Vec<u16>,
        /// The text that the body must contain.
        body: Option<String>,
        /// The timeout; 5 s by default.
        timeout: Duration,
        /// PEM file with the root certificates to trust instead of the system's.
        ca_file: Option<PathBuf>,
    },
    /// A path where a file system is mounted.
    Mounted {
        /// The absolute path, without links.
        path: PathBuf,
    },
    /// A systemd unit that is active.
    Unit {
        /// The unit's full name.
        unit: String,
        /// The timeout; 5 s by default.
        timeout: Duration,
    },
    /// All of these probes must say yes.
    All(Vec<Probe>),
    /// At least one of these probes must say yes.
    Any(Vec<Probe>),
    /// The opposite answer; unknown stays unknown.
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

/// Which file attributes are trusted after the role came from another node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TakeoverTrust {
    /// Only what this node's own cache confirms: all other files are read and hashed again.
    #[default]
    Rehash,
    /// Size and modification time are trusted.
    Mtime,
}
