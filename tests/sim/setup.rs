//! How a cluster is set up: what its config says, and the repository that it begins with.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use jiff::Timestamp;
use runner::config::{ConfigEnvironment, LeaseKind, Settings};
use runner::ids::{RepoId, RoleName};
use runner::repo::crypto::{Cipher, DerivedKeys};
use runner::repo::format::{self, ChunkerParams, JournalLocation, RepositoryFormat};
use runner::repo::keyring::RepositoryKey;
use runner::repo::object_keys;
use runner::store::Store as _;

use crate::registers::CLUSTER;
use crate::rng::Rng;
use crate::sim_store::SimBucket;

/// How long what is condemned stays.
pub const GRACE: Duration = Duration::from_secs(100);

/// How often a slot comes.
pub const EVERY: Duration = Duration::from_mins(1);

/// How long after its start a slot may be committed.
pub const MISSED_AFTER: Duration = Duration::from_secs(30);

/// The lease's length, in seconds.
pub const TTL: u64 = 10;

/// What makes a node eligible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EligibilityRule {
    Always,
    Vip,
    /// A probe under a `not`.
    NotAway,
}

/// Who runs the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchMode {
    Daemon,
    Cron,
}

/// How a cluster is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClusterSetup {
    pub nodes: usize,
    pub mode: LaunchMode,
    pub lease: LeaseKind,
    /// The journal has its head in etcd.
    pub journal_in_etcd: bool,
    pub eligible: EligibilityRule,
    pub holder_continues: bool,
    pub keep: u32,
    pub max_unused: u8,
    /// The store tells what time it is.
    pub store_clock: bool,
    /// Each daemon has a second role in the same bucket.
    pub second: bool,
}

impl ClusterSetup {
    /// One of those that the config allows.
    pub fn drawn(rng: &mut Rng) -> Self {
        let lease = *rng.pick(&[LeaseKind::None, LeaseKind::Bucket, LeaseKind::Etcd]);
        let mode = if lease != LeaseKind::Etcd && rng.chance(250) { LaunchMode::Cron } else { LaunchMode::Daemon };
        let eligible = match rng.below(5) {
            0 if lease != LeaseKind::None => EligibilityRule::Always,
            0..=2 => EligibilityRule::Vip,
            _ => EligibilityRule::NotAway,
        };
        Self {
            nodes: 2 + usize::from(rng.chance(300)),
            mode,
            lease,
            journal_in_etcd: lease != LeaseKind::Bucket && rng.chance(350),
            eligible,
            holder_continues: rng.chance(300),
            keep: 1 + rng.below(3) as u32,
            max_unused: *rng.pick(&[0, 10, 50, 100]),
            store_clock: rng.chance(700),
            second: lease == LeaseKind::Bucket && mode == LaunchMode::Daemon && rng.chance(700),
        }
    }

    /// The config file of all nodes, read as the program reads it.
    pub fn settings(&self) -> Settings {
        let lease = match self.lease {
            // The lease service that stands in for etcd needs no client of it.
            LeaseKind::None | LeaseKind::Etcd => "none",
            LeaseKind::Bucket => "bucket",
        };
        let eligible = match self.eligible {
            // Somebody who may always have the role, where nothing but the journal keeps others out, is a mistake to the config.
            EligibilityRule::Always => "",
            EligibilityRule::Vip => "eligible = { vip = \"192.0.2.1\" }",
            EligibilityRule::NotAway => "eligible = { not = { command = [\"/away\"] } }",
        };
        let unreachable = if self.holder_continues && !self.journal_in_etcd { "holder_continues" } else { "stop" };
        let text = format!(
            "[store]\nurl = \"file:///sim\"\nencryption = \"none\"\n\
             [role.app]\n{eligible}\nlease = \"{lease}\"\nsources = [\"/srv\"]\nevery = \"{}s\"\njitter = \"0s\"\n\
             bucket_lease_ttl = \"{TTL}s\"\nmissed_after = \"{}s\"\nstall_timeout = \"40s\"\ntakeover_delay = \"3s\"\ntakeover_after = \"90s\"\n\
             on_lease_unreachable = \"{unreachable}\"\nkeep = {{ last = {} }}\nmax_unused = {}\nprune_grace = \"{}s\"\n",
            EVERY.as_secs(),
            MISSED_AFTER.as_secs(),
            self.keep,
            self.max_unused,
            GRACE.as_secs(),
        );
        let place = ConfigEnvironment { runner_config: None, credentials_directory: None };
        let settings = Settings::parse(&[(PathBuf::from("sim.toml"), text)], &place);
        let mut settings = settings.unwrap_or_else(|error| panic!("{error}"));
        settings.roles.values_mut().for_each(|role| role.lease = self.lease);
        settings
    }
}

/// What `init` makes, without its proof: a repository that is not encrypted, so that whoever checks reads it with nothing but the
/// bytes.
pub fn make_repository(bucket: &SimBucket, role: &RoleName, journal_in_etcd: bool, rng: &mut Rng) -> RepoId {
    let mut key = [7; 32];
    key[..8].copy_from_slice(&rng.next().to_le_bytes());
    let mut repo = [3; 16];
    repo[..8].copy_from_slice(&rng.next().to_le_bytes());
    let (repo, master) = (RepoId(repo), RepositoryKey::new(key));
    let keys = DerivedKeys::new(Cipher::None, repo, role.clone(), master.clone());
    let journal = if journal_in_etcd { JournalLocation::Etcd { cluster: CLUSTER } } else { JournalLocation::Bucket };
    let format = RepositoryFormat {
        v: format::VERSION,
        role: role.clone(),
        repo,
        created: Timestamp::UNIX_EPOCH,
        cipher: Cipher::None,
        journal,
        chunker: ChunkerParams::default(),
        clear_key: Some(hex::encode(key)),
    };
    let there = [
        (object_keys::format(role), Bytes::from(format.encode(&keys))),
        (object_keys::probe(role), Bytes::from_static(b"probe")),
        (object_keys::lease_probe(role), Bytes::from_static(b"probe")),
    ];
    for (key, body) in there {
        bucket.store().put(&key, body).now_or_never().expect("it is in memory").expect("it takes anything");
    }
    repo
}
