//! What `audit` reports: the state of the slots, and what an operator should know about a journal.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::snapshot::EmptySources;
use crate::ids::{Digest, RoleName, Seq, Term};
use crate::job::report::run_summary::RunSummary;

/// Result of an audit for the time since some instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditReport {
    /// Name of the role.
    pub role: RoleName,
    /// Begin of the audited period.
    pub since: Timestamp,
    /// Number of journal records that were read.
    pub records: u64,
    /// Counts of the slots; `None` for a role without a schedule.
    pub slots: Option<SlotCounts>,
    /// The slots that were committed or missed, for a calendar, oldest first; the newest [`CALENDAR_SLOTS_MAX`].
    pub calendar: VecDeque<(Timestamp, AuditedSlot)>,
    /// The nodes that ran the role, by name.
    pub nodes: Vec<NodeShare>,
    /// Problems, at most [`super::PROBLEMS_MAX`].
    pub findings: Vec<AuditFinding>,
    /// Number of all findings.
    pub finding_count: u64,
    /// Conditions that look like a finding and are explained, at most [`super::PROBLEMS_MAX`].
    pub notes: Vec<AuditNote>,
}

/// How many slots are kept for a calendar: those of a year with one every quarter of an hour.
pub const CALENDAR_SLOTS_MAX: usize = 36_000;

/// What a calendar shows of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditedSlot {
    /// It has one commit.
    Committed,
    /// It has several.
    Duplicated,
    /// It has none, and no time is left for one.
    Missed,
}

/// Slots by state. Each expected slot is committed, missed, paused or open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct SlotCounts {
    /// Slots of the present schedule that have started. Slots before the first known commit are not expected.
    pub expected: u64,
    /// Slots with a commit.
    pub committed: u64,
    /// Slots that no node can commit in time any more.
    pub missed: u64,
    /// Committed slots whose run began or ended too late.
    pub late: u64,
    /// Slots without a commit because the role was paused.
    pub paused: u64,
    /// Slots that can still be committed in time.
    pub open: u64,
    /// Commits for instants that the present schedule does not contain: another schedule was in force.
    pub unplanned: u64,
}

/// The runs of one node.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct NodeShare {
    /// The node's label.
    pub node: String,
    /// Snapshots, and scheduled guarded commands that succeeded.
    pub commits: u64,
    /// Scheduled guarded commands that were started.
    pub attempts: u64,
}

/// The commit of a slot: a snapshot, or a successful guarded command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommitInfo {
    /// The record's number.
    pub seq: Seq,
    /// The label of the node that wrote it.
    pub node: String,
    /// The fencing token of the commit.
    pub term: Term,
    /// When the run began.
    pub began: Timestamp,
    /// When the record was written, by the store's clock if the writer saw it.
    pub time: Timestamp,
}

/// A guarded command that was started for a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SlotAttempt {
    /// The label of the node that ran it.
    pub node: String,
    /// The fencing token of the command.
    pub term: Term,
    /// When the command started.
    pub began: Timestamp,
    /// How it ended; `None`: no end was recorded.
    pub end: Option<AttemptEnd>,
}

/// How a guarded command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct AttemptEnd {
    /// Its exit code; 128 plus the signal number if a signal ended it.
    pub exit: u8,
    /// It was stopped because its node was no longer active.
    pub stopped: bool,
}

/// Consecutive snapshots with the same property.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotStreak {
    /// Time of the first of them.
    pub first: Timestamp,
    /// Time of the last of them.
    pub last: Timestamp,
    /// ID of the last of them.
    pub snapshot: Digest,
    /// Number of snapshots.
    pub runs: u64,
    /// Entries that the last one reported as new, changed or removed.
    pub changes: u64,
    /// Bytes of new content in all of them but the first, manifest nodes included.
    pub new_bytes: u64,
    /// Their manifest roots are equal, although changes were reported.
    pub same_tree: bool,
}

/// Consecutive snapshots that lack files that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncompleteStreak {
    /// Time of the first known one.
    pub first: Timestamp,
    /// Time of the last of them.
    pub last: Timestamp,
    /// ID of the last of them.
    pub snapshot: Digest,
    /// Number of snapshots.
    pub runs: u64,
    /// Entries that the last one could not read.
    pub unreadable: u64,
}

/// A problem that the audit found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditFinding {
    /// The last run, or the last attempt to take the role, failed, and nothing was committed since. The journal does
    /// not contain it: the auditing node knows it, or another node reported it.
    Failed(RunSummary),
    /// The state directory of the auditing node, which holds the role, is not writable.
    StateUnwritable {
        /// The error of the write.
        why: String,
    },
    /// Consecutive slots without a commit.
    Missed {
        /// The first slot.
        first: Timestamp,
        /// The last slot.
        last: Timestamp,
        /// Number of slots.
        count: u64,
        /// The attempts; only for a single slot.
        attempts: Vec<SlotAttempt>,
    },
    /// The config has no schedule for the role, but slots were committed by one.
    ScheduleMissing {
        /// The last committed slot.
        last: Timestamp,
    },
    /// A slot whose run began after `missed_after`, or that was committed after the next slot had started.
    Late {
        /// The late slot.
        slot: Timestamp,
        /// Its commit.
        commit: CommitInfo,
    },
    /// A slot with more than one commit.
    Duplicate {
        /// The slot.
        slot: Timestamp,
        /// All its commits.
        commits: Vec<CommitInfo>,
    },
    /// A missing record, although later records exist or this node has read it.
    Hole {
        /// Its key in the store.
        record: String,
    },
    /// A record that is unusable, or does not continue the one before.
    Broken {
        /// Its key in the store.
        record: String,
        /// What is wrong with it.
        what: String,
    },
    /// Consecutive runs report the same changed set.
    SameChanges(SnapshotStreak),
    /// Every file was reported as changed, although no content was new.
    EverythingChanged(SnapshotStreak),
    /// Records that are dated in the future.
    Future {
        /// Number of records and of slots whose record no longer exists.
        count: u64,
        /// The latest date.
        latest: Timestamp,
        /// The nodes that wrote them, by name, as far as the records name them.
        nodes: Vec<String>,
        /// Probably this node's own clock is wrong: nothing is dated by it, or several nodes agree against it.
        reader: bool,
    },
    /// Records that are dated much earlier than a preceding record.
    Backdated {
        /// Number of records.
        count: u64,
        /// The largest difference.
        by: SignedDuration,
        /// The nodes that wrote them, by name.
        nodes: Vec<String>,
    },
    /// The newest snapshot lacks files that could not be read.
    Incomplete(IncompleteStreak),
    /// Some sources or dumps of the newest snapshot are empty.
    EmptySources {
        /// Time of the first consecutive snapshot with an empty source.
        first: Timestamp,
        /// Time of the last one.
        last: Timestamp,
        /// ID of the last one.
        snapshot: Digest,
        /// Number of snapshots.
        runs: u64,
        /// The empty sources of the last one.
        empty: EmptySources,
    },
    /// More takeovers than a pair of nodes needs.
    Flapping {
        /// Time of the first takeover.
        first: Timestamp,
        /// Time of the last takeover.
        last: Timestamp,
        /// Number of takeovers.
        count: u64,
        /// The nodes that took the role, by name.
        nodes: Vec<String>,
    },
    /// A pause without a stated end that lasts for more than a day.
    PausedTooLong {
        /// Begin of the pause.
        since: Timestamp,
        /// The node on which the operator paused the role.
        by: String,
        /// The operator's reason.
        why: Option<String>,
    },
}

/// A condition that looks like a finding, with its explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditNote {
    /// Consecutive slots without a commit because of a pause.
    Paused {
        /// The first slot.
        first: Timestamp,
        /// The last slot.
        last: Timestamp,
        /// Number of slots.
        count: u64,
        /// The node on which the operator paused the role.
        by: String,
        /// The operator's reason.
        why: Option<String>,
    },
    /// Records that were dated in the future, which an operator has amended.
    Amended {
        /// Number of records.
        count: u64,
        /// The latest date.
        latest: Timestamp,
        /// The node on which the operator amended the dates.
        by: String,
    },
    /// Consecutive runs report the same changed set, but each run has new content.
    SameFiles(SnapshotStreak),
    /// Consecutive snapshots lack files that could not be read; a complete one came after them.
    Incomplete(IncompleteStreak),
}
