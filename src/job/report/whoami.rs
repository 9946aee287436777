//! What `whoami` reports: who this node is, whether it is active, and the evidence for it.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::audited::SlotCounts;
use super::snapshot::SnapshotInfo;
use crate::config::LeaseKind;
use crate::file::access::FileExposure;
use crate::ids::{InstanceId, NodeId, RepoId, RoleName, Seq, Term};
use crate::job::report::RunOutcome;
use crate::job::report::snapshot::EmptySources;
use crate::journal::future_dates::FutureDates;
use crate::repo::format::JournalLocation;

/// This node, and every role that was asked about.
#[derive(Debug, Clone)]
pub struct WhoamiReport {
    /// This node.
    pub node: NodeInfo,
    /// The roles.
    pub roles: Vec<RoleInfo>,
}

/// This node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeInfo {
    /// Its ID; `None` until its first backup, and for who may not read it.
    pub id: Option<NodeId>,
    /// Its label: `--node`, else the hostname.
    pub hostname: String,
    /// This process.
    pub instance: InstanceId,
    /// This program's version.
    pub version: String,
    /// [`crate::config::Settings::hash`].
    pub config_hash: String,
}

/// Where this node stands for one role.
#[derive(Debug, Clone)]
pub struct RoleInfo {
    /// Which role.
    pub role: RoleName,
    /// The verdict.
    pub state: RoleState,
    /// What it rests on.
    pub reason: StateReason,
    /// Every probe that was asked.
    pub evidence: Vec<ProbeReport>,
    /// The fencing tokens.
    pub term: TermInfo,
    /// The newest snapshot; `None` also when the store could not be read.
    pub last_backup: Option<SnapshotInfo>,
    /// How the newest run ended, on any node that is known of: a failure with nothing committed after it, else the newest snapshot's.
    pub last_run: Option<RunSummary>,
    /// The next slot; `None` without a schedule.
    pub next_slot: Option<Timestamp>,
    /// How the newest slots stand; `None` where the state of the journal does not tell.
    pub slots: Option<RecentSlots>,
    /// The store.
    pub store: StoreState,
    /// Etcd, where the role's lease is there.
    pub etcd: Option<EtcdState>,
    /// What a person should look after, the worst first.
    pub warnings: Vec<RoleWarning>,
    /// Whether a daemon on this node has the role's schedule.
    pub has_daemon: bool,
    /// The other nodes of the role, as far as they told of themselves in the store lately.
    pub peers: Vec<PeerPresence>,
}

/// How the newest slots stand, those that have started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RecentSlots {
    /// The first of them.
    pub since: Timestamp,
    /// How many stand how.
    #[serde(flatten)]
    pub counts: SlotCounts,
}

/// The verdict on one role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleState {
    /// This node does the role's backups.
    Active,
    /// Another node does.
    Standby,
    /// It cannot tell, and therefore does nothing.
    Unknown,
    /// It should be active, but another node has the newest takeover.
    Conflict,
    /// An operator said that nobody runs the role.
    Paused,
}

/// What a [`RoleState`] rests on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateReason {
    /// The role has no probes and no lease: whoever runs it is active.
    AlwaysActive,
    /// The config's `nodes` does not name this node.
    NotListed,
    /// The probes say yes.
    ProbesYes,
    /// The probes say no.
    ProbesNo,
    /// The probes cannot tell.
    ProbesUnknown,
    /// No eligible node did what was due, and this one stands in.
    StandsIn,
    /// The probes do not say yes, and this node would stand in.
    Fallback {
        /// When, if nobody does what is due; `None`: nothing is.
        from: Option<Timestamp>,
    },
    /// Nothing speaks against this node, but the journal, which says who has the role, could not be read.
    JournalUnread,
    /// A process on this node holds the lease.
    LeaseHeld,
    /// Nobody holds the lease now, and this node had the role last: it goes first.
    LeaseFreeMine,
    /// Nobody holds the lease now.
    LeaseFree {
        /// The label of the node that had the role last.
        last: Option<String>,
    },
    /// A process on another node holds the lease.
    LeaseTaken {
        /// That node's label, where it can be read.
        by: Option<String>,
    },
    /// Who holds the lease cannot be read.
    LeaseUnread,
    /// This node's clock is too far from the store's; a warning has by how much.
    ClockOff,
    /// An operator gave the role to another node.
    HandedOver {
        /// That node's label.
        to: String,
        /// So long it has for showing itself.
        until: Timestamp,
    },
    /// The daemon of this node, which does its work, is not active for the role.
    Daemon {
        /// Its words.
        why: String,
    },
    /// This node exists twice.
    Cloned,
    /// An operator said that nobody runs the role.
    Paused {
        /// On which node.
        by: String,
        /// When.
        since: Timestamp,
        /// Until when; `None`: until a resume.
        until: Option<Timestamp>,
        /// Why.
        why: Option<String>,
    },
    /// The probes say yes, but this other node took the role over since.
    TakenOver {
        /// Its label.
        by: String,
        /// Under which term.
        term: Term,
    },
}

/// One probe and what it said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// The probe, in the config's words: `vip 10.0.0.50`, `command /usr/local/bin/is-primary`.
    pub probe: String,
    /// What it said.
    pub answer: ProbeVerdict,
    /// The fact behind it: `on eth0`, `exit 1`, `timed out`. May be empty.
    pub detail: String,
    /// How long it took to answer.
    pub latency: Duration,
    /// How long ago that was.
    pub age: Duration,
    /// It speaks for standing in only.
    pub fallback: bool,
}

/// The first probe that cannot tell, with its reason.
pub fn undecided_probe(evidence: &[ProbeReport]) -> Option<String> {
    let unknown = |found: &&ProbeReport| found.answer == ProbeVerdict::Unknown;
    let decides = |found: &&ProbeReport| !found.fallback;
    let found = evidence.iter().filter(unknown).find(decides).or_else(|| evidence.iter().find(unknown))?;
    Some(if found.detail.is_empty() { found.probe.clone() } else { format!("{}: {}", found.probe, found.detail) })
}

/// What a probe says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeVerdict {
    /// Active.
    Yes,
    /// Not active.
    No,
    /// It cannot tell.
    Unknown,
}

/// The fencing tokens of a role, seen from this node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct TermInfo {
    /// The newest term this node itself has had; `None`: none that it remembers.
    pub mine: Option<Term>,
    /// The journal's; `None`: an empty or unreadable journal.
    pub current: Option<Term>,
    /// The label of the node that holds it.
    pub holder: Option<String>,
}

/// Whether the store could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreState {
    /// The store, as it describes itself.
    pub url: String,
    /// How the attempt ended.
    pub status: StoreStatus,
    /// Where the journal lives, where `format` could be read.
    pub journal: Option<JournalLocation>,
    /// Store clock minus own clock, in seconds, where the store told.
    pub clock_offset_seconds: Option<i64>,
}

/// How an attempt to read a role's repository ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreStatus {
    /// It was read.
    Ok,
    /// There is no repository of this role yet.
    NotInitialised,
    /// There is none, where this node knows one: the store is not mounted, was emptied, or is another one.
    Gone,
    /// It could not be read; the error's own words.
    Failed(String),
}

/// Etcd, as this node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdState {
    /// Where it is.
    pub endpoints: Vec<String>,
    /// How it is.
    pub status: EtcdHealth,
    /// The label of the node that holds the role's lease; `None`: nobody does, or it could not be read.
    pub holder: Option<String>,
}

/// A node, as it tells of itself in etcd or in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// Its ID.
    pub id: NodeId,
    /// Its label.
    pub name: String,
    /// Its program's version.
    pub version: String,
    /// Its config's hash.
    pub config_hash: String,
}

/// A node that told of itself in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerPresence {
    /// Which, and how it is set up.
    #[serde(flatten)]
    pub node: PeerInfo,
    /// When, by the store's clock.
    pub seen: Timestamp,
    /// By which lease it excludes others from the role, where it tells.
    #[serde(skip)]
    pub lease: Option<LeaseKind>,
    /// How its last run failed, sealed.
    #[serde(skip)]
    pub failure: Option<String>,
}

/// What was tried when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStep {
    /// A run.
    #[default]
    Run,
    /// To become the node that runs: its lease, or the takeover's record. Where its end is not known, the lease was asked for in vain.
    Takeover,
    /// A command of `exec --scheduled`, as the journal tells.
    Command,
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// The label of the node that ran it.
    pub node: String,
    /// How it ended.
    pub outcome: RunOutcome,
    /// What was tried.
    pub step: RunStep,
    /// When.
    pub time: Timestamp,
    /// For which slot.
    pub slot: Option<Timestamp>,
    /// Why nothing was committed; empty where something was.
    pub error: String,
    /// How many failed one after the other.
    pub failures: u32,
    /// The number of the newest commit's record as that node knew it then.
    pub after: Option<u64>,
}

/// Why slots were missed, as far as it is seen from one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MissedCause {
    /// This node is not eligible. Whether another one is, it does not see.
    NotEligible,
    /// The config does not list this node.
    NotListed,
    /// This node's clock is off, so that it runs none.
    ClockOff,
    /// That node holds the lease.
    HeldBy(String),
    /// This node is active, and did not run them.
    ActiveHere,
    /// What was tried failed, and is told by itself.
    Failing,
    /// The daemon of this node answers; these are its words.
    Daemon(String),
    /// A run was begun, and nothing shows its end.
    Running {
        /// The label of the node that began it.
        node: String,
        /// When.
        since: Timestamp,
        /// It is a guarded command, which the journal shows, and no backup.
        is_command: bool,
        /// It was on this node, and no process of it is left here.
        gone: bool,
    },
    /// The probes cannot tell here; the first one that cannot, and why.
    ProbesUnknown(Option<String>),
    /// No node holds the lease.
    LeaseFree,
    /// The journal says that node has the role.
    HasRole(String),
    /// Nothing that this node sees.
    NotSeen,
}

/// How an etcd is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EtcdHealth {
    /// It answers.
    Ok {
        /// Which endpoint did.
        endpoint: String,
        /// That member's ID.
        member: u64,
        /// The leader's; 0 for none.
        leader: u64,
        /// The term of raft.
        raft_term: u64,
        /// The server's version.
        version: String,
        /// The processes that have a lease there, one for each node, by label.
        nodes: Vec<PeerInfo>,
        /// Why these cannot be read; the error's own words.
        unread: Option<String>,
    },
    /// It does not; the error's own words.
    Failed(String),
}

/// A part of what a look goes by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnreadableInput {
    /// What the other nodes tell of themselves.
    Peers,
    /// Whether the store still has the records that this node has read.
    Records,
    /// What was noted of losses.
    Losses,
    /// What this node remembers of the journal.
    Memory,
    /// Whether this node's last run failed.
    LastRun,
    /// Which repository this node knows in the store.
    Repository,
    /// Who this node is.
    Identity,
}

/// Something that works, but not as it should.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleWarning {
    /// Slots have passed without a commit.
    SlotsMissed {
        /// The oldest of them.
        first: Timestamp,
        /// The newest of them.
        last: Timestamp,
        /// How many; at least so many if it is [`MISSED_MAX`](crate::role::slot::MISSED_MAX).
        count: usize,
        /// Why, as far as this node sees.
        cause: MissedCause,
    },
    /// The last run committed nothing, and nothing was committed since.
    RunFailed(RunSummary),
    /// There is no repository: nothing can be backed up.
    NoRepository,
    /// Nothing was ever committed.
    NoSnapshot {
        /// Since the repository was made.
        since: Option<Timestamp>,
    },
    /// The config has no schedule for the role, and the journal shows that slots were committed by one.
    ScheduleMissing {
        /// When one was committed last.
        last: Timestamp,
    },
    /// A person said that no node runs the role.
    Paused {
        /// On which node.
        by: String,
        /// When.
        since: Timestamp,
        /// Until when; `None`: until a resume.
        until: Option<Timestamp>,
        /// Why.
        why: Option<String>,
        /// It has no stated end, and lasts for more than a day.
        too_long: bool,
    },
    /// Another node excludes others by another lease, so that both may be active at the same time.
    LeaseDrift {
        /// Its label.
        node: String,
        /// By which.
        theirs: LeaseKind,
        /// And this one.
        own: LeaseKind,
    },
    /// Who holds the lease cannot be read, so this node cannot take the role.
    LeaseUnread {
        /// The error's own words.
        why: String,
    },
    /// This node's state directory cannot be written, so that no run of it can succeed.
    StateUnwritable {
        /// The error's own words.
        why: String,
        /// The role is another node's.
        stands_by: bool,
    },
    /// Others on this host may change, or read although it is secret, a file that this node works with.
    Exposed(FileExposure),
    /// A daemon of this node has its socket open and does not answer.
    DaemonSilent,
    /// This node's clock and the store's are this many seconds apart (positive: the store is ahead).
    ClockOff(i64),
    /// Records are dated beyond the present: a clock is, or was, wrong.
    FutureDates(FutureDates),
    /// The store could not be read, so terms and snapshots are not known.
    StoreUnreadable {
        /// The error's own words.
        why: String,
    },
    /// The store shows less than this node has already seen: it was rolled back.
    StoreRolledBack,
    /// A part of what a look goes by cannot be read, so what it would tell is not known.
    Unread {
        /// Which part.
        what: UnreadableInput,
        /// The error's own words.
        why: String,
        /// It may be so only for this look: no answer came in its short time, or the file is another user's.
        harmless: bool,
    },
    /// The store has lost records that this node has read: who knows nothing cannot read on beyond them.
    RecordsLost {
        /// The first of them.
        first: Seq,
        /// How many.
        count: u64,
    },
    /// The newest snapshot lacks files that could not be read.
    Incomplete {
        /// How many.
        unreadable: u64,
    },
    /// The newest snapshot has entries and not a byte of content, and nothing says that this is meant.
    NoContent,
    /// The newest snapshot has nothing of these sources and dumps, and nothing says that this is meant.
    EmptySources(EmptySources),
    /// Content is lost in the store.
    Lost {
        /// Packs that are missing or damaged, or have a part that is; at least so many.
        packs: u64,
        /// Files of snapshots that need what no run could store again; `None`: no run has looked yet.
        files: Option<u64>,
        /// The label of the node that found it.
        by: String,
        /// When.
        time: Timestamp,
    },
    /// No other node was ever seen for the role, and the store is a directory, which may be this node's alone. It may well be meant, so
    /// this is only a note.
    OnlyNode,
    /// Other nodes of this one's name told of themselves lately, and not since this one has its ID: it was they before its state directory
    /// was lost. It may be meant, so this is only a note.
    FormerNodes {
        /// How many.
        count: u64,
    },
    /// The store has no repository, where this node knows one.
    RepositoryGone {
        /// Its ID.
        repository: RepoId,
    },
    /// The store has another repository than this node knows there.
    AnotherRepository {
        /// The one that is known.
        known: RepoId,
        /// The one that is there.
        found: RepoId,
    },
    /// A process that is none of this node's tells of itself as this node, again and again.
    Twin {
        /// The process.
        other: InstanceId,
    },
    /// The journal cannot be written.
    JournalHead {
        /// Its head in etcd is lost, or the config has no way there; else etcd does not answer.
        lost: bool,
        /// The error's own words.
        why: String,
    },
    /// Another node runs with another config or program than this one has.
    Drift {
        /// Its label.
        node: String,
        /// Its program's version, where that is another.
        version: Option<String>,
        /// Whether its config is another.
        config: bool,
    },
}
