//! What `audit` reports: how the slots stand, and what a person should know of a journal.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::snapshot::EmptySources;
use super::whoami::RunSummary;
use crate::ids::{Digest, RoleName, Seq, Term};

/// What a role's journal tells of the time since some instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditReport {
    /// Which role.
    pub role: RoleName,
    /// From when on.
    pub since: Timestamp,
    /// Journal records read.
    pub records: u64,
    /// How its slots stand; `None` for a role without a schedule.
    pub slots: Option<SlotCounts>,
    /// Who did the work, by name.
    pub nodes: Vec<NodeShare>,
    /// What is wrong, at most [`super::PROBLEMS_MAX`].
    pub findings: Vec<AuditFinding>,
    /// How many there were.
    pub finding_count: u64,
    /// What looks like a finding and is none, at most [`super::PROBLEMS_MAX`].
    pub notes: Vec<AuditNote>,
}

/// Slots by how they stand. Each that is expected is committed, missed, paused or open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SlotCounts {
    /// That have started, as the schedule says now. Those before the first commit that is known are not expected.
    pub expected: u64,
    /// That have a commit.
    pub committed: u64,
    /// That nobody will commit in time any more.
    pub missed: u64,
    /// Of the committed ones those that were begun or committed too late.
    pub late: u64,
    /// That have no commit because the role was paused.
    pub paused: u64,
    /// That have still time.
    pub open: u64,
    /// Commits for instants that the schedule does not have: it was another one then.
    pub unplanned: u64,
}

/// What one node did.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct NodeShare {
    /// Its label.
    pub node: String,
    /// Snapshots, and guarded commands that ended well for a slot.
    pub commits: u64,
    /// Guarded commands that were begun for a slot.
    pub attempts: u64,
}

/// What commits a slot: a snapshot, or the good end of a guarded command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommitInfo {
    /// The record's number.
    pub seq: Seq,
    /// The label of the node that wrote it.
    pub node: String,
    /// The fencing token.
    pub term: Term,
    /// When its work was begun.
    pub began: Timestamp,
    /// When it was written, by the store's clock if the writer saw it.
    pub time: Timestamp,
}

/// A guarded command that was begun for a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotAttempt {
    /// The label of the node that ran it.
    pub node: String,
    /// The fencing token.
    pub term: Term,
    /// When it was begun.
    pub began: Timestamp,
    /// How it ended; `None`: no end was recorded.
    pub end: Option<AttemptEnd>,
}

/// How a guarded command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AttemptEnd {
    /// Its exit code; 128 and the number for a signal.
    pub exit: u8,
    /// It was ended because its node was no longer active.
    pub stopped: bool,
}

/// Snapshots one after the other that say the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotStreak {
    /// The first of them.
    pub first: Timestamp,
    /// The last of them.
    pub last: Timestamp,
    /// The last one's ID.
    pub snapshot: Digest,
    /// How many.
    pub runs: u64,
    /// Entries that the last one reported as new, changed or removed.
    pub changes: u64,
    /// Bytes of new content in all of them but the first, lists of files included.
    pub new_bytes: u64,
    /// The trees are equal, although changes were reported.
    pub same_tree: bool,
}

/// Snapshots one after the other that lack files that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncompleteStreak {
    /// The first of them that is known.
    pub first: Timestamp,
    /// The last of them.
    pub last: Timestamp,
    /// The last one's ID.
    pub snapshot: Digest,
    /// How many.
    pub runs: u64,
    /// Entries that the last one could not read.
    pub unreadable: u64,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditFinding {
    /// The last run, or the last try to take the role, failed, and nothing was committed since. The journal does not have it: it is what
    /// the node that audits knows, and what the others told.
    Failed(RunSummary),
    /// The state directory of the node that audits, and that has the role, cannot be written.
    StateUnwritable {
        /// Why.
        why: String,
    },
    /// Slots one after the other without a commit.
    Missed {
        /// The first of them.
        first: Timestamp,
        /// The last of them.
        last: Timestamp,
        /// How many.
        count: u64,
        /// Who tried; only where there is one slot.
        attempts: Vec<SlotAttempt>,
    },
    /// The config has no schedule for the role, and slots were committed by one.
    ScheduleMissing {
        /// When one was committed last.
        last: Timestamp,
    },
    /// A slot that was begun after `missed_after`, or committed after the next one had started.
    Late {
        /// Which.
        slot: Timestamp,
        /// By whom, and when.
        commit: CommitInfo,
    },
    /// A slot with more than one commit.
    Duplicate {
        /// Which.
        slot: Timestamp,
        /// All of them.
        commits: Vec<CommitInfo>,
    },
    /// A record that is gone, although later ones are there or this node has seen it.
    Hole {
        /// Its key in the store.
        record: String,
    },
    /// A record that cannot be used, or does not continue the one before.
    Broken {
        /// Its key in the store.
        record: String,
        /// Why.
        what: String,
    },
    /// The same changed set run after run.
    SameChanges(SnapshotStreak),
    /// Every file was reported as changed, and no content was new.
    EverythingChanged(SnapshotStreak),
    /// Records that are dated beyond the present.
    Future {
        /// How many, slots included of which no record is known any more.
        count: u64,
        /// The latest date.
        latest: Timestamp,
        /// The nodes that wrote them, by name, as far as records tell.
        nodes: Vec<String>,
        /// This node's clock is the one that is probably wrong: nothing is dated by it, or several nodes agree against it.
        reader: bool,
    },
    /// Records that are dated much earlier than one that comes before them.
    Backdated {
        /// How many.
        count: u64,
        /// By how much, at most.
        by: SignedDuration,
        /// The nodes that wrote them, by name.
        nodes: Vec<String>,
    },
    /// The newest snapshot lacks files that could not be read.
    Incomplete(IncompleteStreak),
    /// The newest snapshot has nothing of some sources or dumps.
    EmptySources {
        /// The first snapshot in a row that lacks some.
        first: Timestamp,
        /// The last.
        last: Timestamp,
        /// The last one's ID.
        snapshot: Digest,
        /// How many.
        runs: u64,
        /// Which, of the last one.
        empty: EmptySources,
    },
    /// More takeovers than a pair needs.
    Flapping {
        /// The first of them.
        first: Timestamp,
        /// The last of them.
        last: Timestamp,
        /// How many.
        count: u64,
        /// Who took the role, by name.
        nodes: Vec<String>,
    },
    /// A pause without a stated end that lasts for more than a day.
    PausedTooLong {
        /// Since when.
        since: Timestamp,
        /// On which node it was said.
        by: String,
        /// Why.
        why: Option<String>,
    },
}

/// Something that looks like a finding, with what explains it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditNote {
    /// Slots one after the other without a commit, because of a pause.
    Paused {
        /// The first of them.
        first: Timestamp,
        /// The last of them.
        last: Timestamp,
        /// How many.
        count: u64,
        /// On which node it was said.
        by: String,
        /// Why.
        why: Option<String>,
    },
    /// Records that were dated beyond the present, and that an operator has amended.
    Amended {
        /// How many.
        count: u64,
        /// The latest date.
        latest: Timestamp,
        /// On which node.
        by: String,
    },
    /// The same changed set run after run, but each run brought new content.
    SameFiles(SnapshotStreak),
    /// Snapshots one after the other lack files that could not be read; a complete one came after them.
    Incomplete(IncompleteStreak),
}
