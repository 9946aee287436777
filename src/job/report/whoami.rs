//! What `whoami` reports: the node's identity, whether it is active, and the evidence.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::audited::SlotCounts;
use super::snapshot::SnapshotInfo;
use crate::config::LeaseKind;
use crate::file::access::FileExposure;
use crate::ids::{InstanceId, NodeId, RepoId, RoleName, Seq, Term};
use crate::job::report::run_summary::RunSummary;
use crate::job::report::snapshot::EmptySources;
use crate::journal::future_dates::FutureDates;
use crate::repo::format::JournalLocation;

/// This node and the requested roles.
#[derive(Debug, Clone)]
pub struct WhoamiReport {
    /// Identity of this node.
    pub node: NodeInfo,
    /// The requested roles.
    pub roles: Vec<RoleInfo>,
}

/// Identity of this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NodeInfo {
    /// The node ID; `None` before the first backup, or if this user may not read it.
    pub id: Option<NodeId>,
    /// Its label: `--node`, else the hostname.
    pub hostname: String,
    /// ID of this process.
    pub instance: InstanceId,
    /// Version of this program.
    pub version: String,
    /// [`crate::config::Settings::hash`].
    pub config_hash: String,
}

/// State of one role on this node.
#[derive(Debug, Clone)]
pub struct RoleInfo {
    /// Name of the role.
    pub role: RoleName,
    /// Whether this node runs the role.
    pub state: RoleState,
    /// The reason for `state`.
    pub reason: StateReason,
    /// All probes and their answers.
    pub evidence: Vec<ProbeReport>,
    /// The fencing tokens.
    pub term: TermInfo,
    /// The newest snapshot; `None` also if the store could not be read.
    pub last_backup: Option<SnapshotInfo>,
    /// The end of the newest known run on any node: a failure without a later commit, else the newest snapshot.
    pub last_run: Option<RunSummary>,
    /// The next slot; `None` without a schedule.
    pub next_slot: Option<Timestamp>,
    /// Counts of the newest slots; `None` if the journal's state does not contain them.
    pub slots: Option<RecentSlots>,
    /// The store.
    pub store: StoreState,
    /// State of etcd, if the role's lease is there.
    pub etcd: Option<EtcdState>,
    /// Conditions that need an operator's attention, the worst first.
    pub warnings: Vec<RoleWarning>,
    /// Whether a daemon on this node has the role's schedule.
    pub has_daemon: bool,
    /// The other nodes of the role, as they recently announced themselves in the store.
    pub peers: Vec<PeerPresence>,
}

/// Counts of the newest slots that have started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct RecentSlots {
    /// The first of these slots.
    pub since: Timestamp,
    /// Numbers of slots by state.
    #[serde(flatten)]
    pub counts: SlotCounts,
}

/// Whether a node runs a role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleState {
    /// This node runs the role's backups.
    Active,
    /// Another node runs the role.
    Standby,
    /// The node cannot determine its state, and therefore does nothing.
    Unknown,
    /// It should be active, but another node has the newest takeover.
    Conflict,
    /// An operator paused the role on all nodes.
    Paused,
}

/// The reason for a [`RoleState`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateReason {
    /// The role has neither probes nor a lease: every node that runs it is active.
    AlwaysActive,
    /// The config's `nodes` does not name this node.
    NotListed,
    /// The probes say yes.
    ProbesYes,
    /// The probes say no.
    ProbesNo,
    /// The probes have no answer.
    ProbesUnknown,
    /// No eligible node ran the due slot, so this fallback node runs it.
    StandsIn,
    /// The probes do not say yes, but this node is a fallback node.
    Fallback {
        /// When this node starts if no eligible node runs the due slot; `None`: no slot is due.
        from: Option<Timestamp>,
    },
    /// Everything known speaks for this node, but the journal, which names the role's holder, could not be read.
    JournalUnread,
    /// A process on this node holds the lease.
    LeaseHeld,
    /// The lease is free, and this node held the role last: it may take the lease first.
    LeaseFreeMine,
    /// The lease is free.
    LeaseFree {
        /// The label of the node that held the role last.
        last: Option<String>,
    },
    /// A process on another node holds the lease.
    LeaseTaken {
        /// That node's label, if it can be read.
        by: Option<String>,
    },
    /// The holder of the lease cannot be read.
    LeaseUnread,
    /// This node's clock differs too much from the store's; a warning says by how much.
    ClockOff,
    /// An operator handed the role over to another node.
    HandedOver {
        /// That node's label.
        to: String,
        /// That node must take the role by then.
        until: Timestamp,
    },
    /// The daemon of this node, which runs its backups, is not active for the role.
    Daemon {
        /// The daemon's reason.
        why: String,
    },
    /// This node exists twice: another machine uses a copy of its state directory.
    Cloned,
    /// An operator paused the role on all nodes.
    Paused {
        /// The node on which the operator paused the role.
        by: String,
        /// Begin of the pause.
        since: Timestamp,
        /// End of the pause; `None`: until a resume.
        until: Option<Timestamp>,
        /// The operator's reason.
        why: Option<String>,
    },
    /// The probes say yes, but another node took the role over since.
    TakenOver {
        /// That node's label.
        by: String,
        /// The term of its takeover.
        term: Term,
    },
}

/// A probe and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// The probe, in the config's words: `vip 10.0.0.50`, `command /usr/local/bin/is-primary`.
    pub probe: String,
    /// The answer.
    pub answer: ProbeVerdict,
    /// The fact behind it: `on eth0`, `exit 1`, `timed out`. May be empty.
    pub detail: String,
    /// Time until the answer.
    pub latency: Duration,
    /// Time since the answer.
    pub age: Duration,
    /// Whether the probe is one of `fallback`.
    pub fallback: bool,
}

/// The first probe without an answer, with its reason.
pub fn undecided_probe(evidence: &[ProbeReport]) -> Option<String> {
    let unknown = |found: &&ProbeReport| found.answer == ProbeVerdict::Unknown;
    let decides = |found: &&ProbeReport| !found.fallback;
    let found = evidence.iter().filter(unknown).find(decides).or_else(|| evidence.iter().find(unknown))?;
    Some(if found.detail.is_empty() { found.probe.clone() } else { format!("{}: {}", found.probe, found.detail) })
}

/// The answer of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProbeVerdict {
    /// Active.
    Yes,
    /// Not active.
    No,
    /// The probe has no answer.
    Unknown,
}

/// The fencing tokens of a role, seen from this node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct TermInfo {
    /// The newest term of this node; `None`: none that it remembers.
    pub mine: Option<Term>,
    /// The newest term of the journal; `None`: an empty or unreadable journal.
    pub current: Option<Term>,
    /// The label of the node that holds this term.
    pub holder: Option<String>,
}

/// State of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreState {
    /// Description of the store.
    pub url: String,
    /// Result of the attempt to read it.
    pub status: StoreStatus,
    /// Place of the journal's head, if `format` could be read.
    pub journal: Option<JournalLocation>,
    /// Store clock minus own clock, in seconds, if the store sent its time.
    pub clock_offset_seconds: Option<i64>,
}

/// Result of an attempt to read a role's repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreStatus {
    /// It was read.
    Ok,
    /// There is no repository of this role yet.
    NotInitialised,
    /// The store has no repository, but this node knows one there: the store is not mounted, was emptied, or is another
    /// one.
    Gone,
    /// It could not be read, with the error's text.
    Failed(String),
}

/// State of etcd as seen by this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdState {
    /// The configured endpoints.
    pub endpoints: Vec<String>,
    /// Result of the status request.
    pub status: EtcdHealth,
    /// The label of the node that holds the role's lease; `None`: the lease is free or could not be read.
    pub holder: Option<String>,
}

/// A node as it describes itself in etcd or in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    /// The node's ID.
    pub id: NodeId,
    /// The node's label.
    pub name: String,
    /// The version of its program.
    pub version: String,
    /// The hash of its config.
    pub config_hash: String,
}

/// A node that announced itself in the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerPresence {
    /// The node with its version and config.
    #[serde(flatten)]
    pub node: PeerInfo,
    /// When it announced itself, by the store's clock.
    pub seen: Timestamp,
    /// The kind of lease that it uses, if it says so.
    #[serde(skip)]
    pub lease: Option<LeaseKind>,
    /// Its last failed run, encrypted.
    #[serde(skip)]
    pub failure: Option<String>,
}

/// Why slots were missed, as far as one node can see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MissedCause {
    /// This node is not eligible. It does not see whether another node is.
    NotEligible,
    /// The config does not list this node.
    NotListed,
    /// This node's clock is off, so it runs no slots.
    ClockOff,
    /// This node holds the lease.
    HeldBy(String),
    /// This node is active, and did not run them.
    ActiveHere,
    /// The attempts failed; another warning reports this.
    Failing,
    /// The answer of this node's daemon.
    Daemon(String),
    /// A run was started, and its end is unknown.
    Running {
        /// The label of the node that started it.
        node: String,
        /// When it was started.
        since: Timestamp,
        /// Whether it is a guarded command, which the journal shows, and not a backup.
        is_command: bool,
        /// Whether it was on this node, and no process of it is left.
        gone: bool,
    },
    /// The probes have no answer here; the first one without, and why.
    ProbesUnknown(Option<String>),
    /// No node holds the lease.
    LeaseFree,
    /// According to the journal this node holds the role.
    HasRole(String),
    /// The cause is not visible from this node.
    NotSeen,
}

/// Result of a status request to etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EtcdHealth {
    /// Etcd answered.
    Ok {
        /// The endpoint that answered.
        endpoint: String,
        /// That member's ID.
        member: u64,
        /// The leader's member ID; 0 for none.
        leader: u64,
        /// The raft term.
        raft_term: u64,
        /// The server's version.
        version: String,
        /// The nodes that have a session there, ordered by label.
        nodes: Vec<PeerInfo>,
        /// Why these nodes cannot be read, with the error's text.
        unread: Option<String>,
    },
    /// Etcd did not answer, with the error's text.
    Failed(String),
}

/// An input of `whoami`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnreadableInput {
    /// The announcements of the other nodes.
    Peers,
    /// Whether the store still has the records that this node has read.
    Records,
    /// The notes about lost packs.
    Losses,
    /// This node's saved view of the journal.
    Memory,
    /// Whether this node's last run failed.
    LastRun,
    /// The repository that this node knows in the store.
    Repository,
    /// The identity of this node.
    Identity,
}

/// A condition that needs attention.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RoleWarning {
    /// Slots passed without a commit.
    SlotsMissed {
        /// The oldest slot.
        first: Timestamp,
        /// The newest slot.
        last: Timestamp,
        /// Number of slots; a lower limit if it is [`MISSED_MAX`](crate::role::slot::MISSED_MAX).
        count: usize,
        /// The cause, as far as this node sees it.
        cause: MissedCause,
    },
    /// The last run committed nothing, and nothing was committed since.
    RunFailed(RunSummary),
    /// There is no repository, so nothing can be backed up.
    NoRepository,
    /// The role has no commit yet.
    NoSnapshot {
        /// Creation time of the repository.
        since: Option<Timestamp>,
    },
    /// The config has no schedule for the role, but the journal shows that slots were committed by one.
    ScheduleMissing {
        /// The last committed slot.
        last: Timestamp,
    },
    /// An operator paused the role on all nodes.
    Paused {
        /// The node on which the operator paused the role.
        by: String,
        /// Begin of the pause.
        since: Timestamp,
        /// End of the pause; `None`: until a resume.
        until: Option<Timestamp>,
        /// The operator's reason.
        why: Option<String>,
        /// Whether the pause has no stated end and lasts for more than a day.
        too_long: bool,
    },
    /// Another node uses another kind of lease, so both nodes may be active at the same time.
    LeaseDrift {
        /// That node's label.
        node: String,
        /// The lease of that node.
        theirs: LeaseKind,
        /// The lease of this node.
        own: LeaseKind,
    },
    /// The holder of the lease cannot be read, so this node cannot take the role.
    LeaseUnread {
        /// The error's text.
        why: String,
    },
    /// This node's state directory is not writable, so its runs cannot succeed.
    StateUnwritable {
        /// The error's text.
        why: String,
        /// Whether another node holds the role.
        stands_by: bool,
    },
    /// Other users of this host may change a file that this node uses, or read a secret one.
    Exposed(FileExposure),
    /// A daemon of this node listens on its socket but does not answer.
    DaemonSilent,
    /// This node's clock and the store's are this many seconds apart (positive: the store is ahead).
    ClockOff(i64),
    /// Records are dated in the future: a clock is, or was, wrong.
    FutureDates(FutureDates),
    /// The store could not be read, so terms and snapshots are unknown.
    StoreUnreadable {
        /// The error's text.
        why: String,
    },
    /// The store has older records than this node has already read: it was rolled back.
    StoreRolledBack,
    /// An input cannot be read, so the warnings that depend on it are unknown.
    Unread {
        /// The unreadable input.
        what: UnreadableInput,
        /// The error's text.
        why: String,
        /// Whether the problem may be temporary or local: no answer came within the short time limit, or the file
        /// belongs to another user.
        harmless: bool,
    },
    /// The store has lost records that this node has read: a node without a saved view cannot read beyond them.
    RecordsLost {
        /// The first lost record.
        first: Seq,
        /// Number of lost records.
        count: u64,
    },
    /// The newest snapshot lacks files that could not be read.
    Incomplete {
        /// Number of unreadable entries.
        unreadable: u64,
    },
    /// The newest snapshot has entries but no content, although the config does not allow it.
    NoContent,
    /// These sources and dumps of the newest snapshot are empty, although the config does not allow it.
    EmptySources(EmptySources),
    /// Content is lost in the store.
    Lost {
        /// Number of missing or damaged packs; a lower limit.
        packs: u64,
        /// Files of snapshots with content that no run could store again; `None`: no run has checked yet.
        files: Option<u64>,
        /// The label of the node that found it.
        by: String,
        /// When it was found.
        time: Timestamp,
    },
    /// No other node of the role was ever seen, and the store is a directory, which other nodes may not reach. It may
    /// be intended, so this is only a note.
    OnlyNode,
    /// Other nodes with this node's label announced themselves recently, but not since this node has its present ID:
    /// they are this node before it lost its state directory. It may be intended, so this is only a note.
    FormerNodes {
        /// Number of such nodes.
        count: u64,
    },
    /// The store has no repository, but this node knows one there.
    RepositoryGone {
        /// ID of the known repository.
        repository: RepoId,
    },
    /// The store has another repository than this node knows.
    AnotherRepository {
        /// ID of the known repository.
        known: RepoId,
        /// ID of the repository in the store.
        found: RepoId,
    },
    /// A process that does not belong to this node repeatedly announces itself with this node's ID.
    Twin {
        /// ID of that process.
        other: InstanceId,
    },
    /// The journal cannot be appended to.
    JournalHead {
        /// Whether its head in etcd is lost, or the config has no etcd; otherwise etcd does not answer.
        lost: bool,
        /// The error's text.
        why: String,
    },
    /// Another node has another config or version than this node.
    Drift {
        /// That node's label.
        node: String,
        /// Its program's version, if it differs.
        version: Option<String>,
        /// Whether its config differs.
        config: bool,
    },
}
