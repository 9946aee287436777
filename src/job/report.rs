//! What jobs report: plain data without sentences. `cli` renders it as text and JSON, and the JSON is part of the
//! external contract.
//!
//! Pure.

pub mod audited;
pub mod browse;
pub mod pruned;
mod reason;
pub mod repaired;
pub mod restored;
pub mod run_summary;
pub mod setup;
pub mod snapshot;
pub mod verified;
pub mod whoami;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use self::reason::{NoCommitReason, RunReason};
use crate::clock_doubt::ClockDoubt;
use crate::ids::{Digest, RoleName, Term};
use crate::repo::entry::TreePath;
pub use crate::tree::problem::{PathProblem, PathProblemKind};

pub use crate::text::ADVICE;

/// How a run of one role ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// A snapshot with changes was committed.
    Committed,
    /// A snapshot was committed whose manifest root equals the previous one's.
    Unchanged,
    /// Another node is active.
    Standby,
    /// The slot is committed already, or none is due.
    Skipped,
    /// The result of the election or of the commit is unknown.
    Unknown,
    /// A newer takeover exists; nothing was committed.
    Fenced,
    /// Nothing was committed.
    Failed,
}

/// Files by their difference from the previous snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FileCounts {
    /// Not in the previous snapshot.
    pub new: u64,
    /// Content or metadata differs.
    pub changed: u64,
    /// Equal in both.
    pub unchanged: u64,
    /// No longer in the source.
    pub removed: u64,
    /// Could not be read. [`RoleReport::problems`] names each of them, or the directory above it; an unreadable
    /// directory with unknown content counts as one.
    pub unreadable: u64,
    /// Those of `unreadable` that the snapshot contains as they were last read.
    #[serde(default)]
    pub kept: u64,
}

/// Bytes by processing step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ByteCounts {
    /// Size of all regular files of the snapshot.
    pub source: u64,
    /// Read from files.
    pub read: u64,
    /// Content that was new to the repository, before compression.
    pub new: u64,
    /// Sent to the store in total.
    pub uploaded: u64,
}

/// Indexed content that the store had lost, and what the run did about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossReport {
    /// Packs that are missing or incomplete.
    pub packs: u64,
    /// Bytes of their content that the run stored again, before compression.
    pub healed_bytes: u64,
    /// Files of snapshots that need what is still missing, counted once for each snapshot; `None`: unknown.
    pub missing_files: Option<u64>,
    /// The first of these files, at most [`verified::AFFECTED_MAX`].
    pub missing: Vec<MissingFile>,
}

/// A file of a snapshot whose content is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingFile {
    /// The snapshot that contains the file.
    pub snapshot: Digest,
    /// Path of the file; if a part of a manifest is lost, the first path in it.
    pub path: TreePath,
}

/// Result of a backup of one role.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RoleReport {
    /// Name of the role.
    pub role: RoleName,
    /// How the run ended.
    pub outcome: RunOutcome,
    /// Explains the outcome if it does not explain itself: the probe that said no, or the error that ended the run.
    pub reason: Option<RunReason>,
    /// ID of the committed snapshot: the digest of its record.
    pub snapshot: Option<Digest>,
    /// Time of the snapshot that this run was compared with; `None` for a first run.
    pub previous: Option<Timestamp>,
    /// The fencing token of the run.
    pub term: Option<Term>,
    /// The slot of the run; `None` for an unscheduled run.
    pub slot: Option<Timestamp>,
    /// Whether this run appended a takeover.
    pub takeover: bool,
    /// Numbers of files.
    pub files: FileCounts,
    /// Numbers of bytes.
    pub bytes: ByteCounts,
    /// Requests sent to the store.
    pub requests: u64,
    /// Duration of the run.
    pub duration: Duration,
    /// Problems of single paths, at most [`PROBLEMS_MAX`].
    pub problems: Vec<PathProblem>,
    /// Number of all problems, including those that `problems` has no room for.
    pub problem_count: u64,
    /// Sources in which no file was found, but which did not stop the run because of
    /// [`crate::config::RoleSettings::allow_empty`] or the other sources.
    #[serde(default)]
    pub empty_sources: Vec<TreePath>,
    /// Content that the store had lost; `None`: nothing was found missing.
    #[serde(default)]
    pub loss: Option<LossReport>,
    /// Evidence that the clock of the run's records was wrong.
    #[serde(default)]
    pub clock_doubt: Option<ClockDoubt>,
}

impl RoleReport {
    /// Whether there is a snapshot without any content.
    pub fn has_no_content(&self) -> bool {
        self.snapshot.is_some() && self.bytes.source == 0
    }

    /// Why the run committed nothing although it did not fail; `None`: it committed, it failed, or it did not begin.
    pub fn no_commit_reason(&self) -> Option<&NoCommitReason> {
        match &self.reason {
            Some(RunReason::NoCommit(reason)) => Some(reason),
            Some(RunReason::Refused { .. } | RunReason::Text(_)) | None => None,
        }
    }

    /// The report of a run that committed nothing although it did not fail. The reason determines the outcome.
    pub fn without_commit(role: RoleName, reason: NoCommitReason) -> Self {
        let outcome = match &reason {
            NoCommitReason::Standby(..) | NoCommitReason::Conflict { .. } | NoCommitReason::HeldBy { .. } => {
                RunOutcome::Standby
            }
            NoCommitReason::SlotCommitted { .. }
            | NoCommitReason::NothingDue
            | NoCommitReason::CommandRunning { .. }
            | NoCommitReason::AlreadyRunning { .. }
            | NoCommitReason::Paused(_) => RunOutcome::Skipped,
            NoCommitReason::Unknown(..)
            | NoCommitReason::LeaseUnknown { .. }
            | NoCommitReason::Cloned
            | NoCommitReason::LeaseLost(_)
            | NoCommitReason::ClockOff { .. } => RunOutcome::Unknown,
        };
        Self { reason: Some(RunReason::NoCommit(reason)), ..Self::nothing(role, outcome) }
    }

    /// The report of a run that committed nothing.
    pub fn nothing(role: RoleName, outcome: RunOutcome) -> Self {
        Self {
            role,
            outcome,
            reason: None,
            snapshot: None,
            previous: None,
            term: None,
            slot: None,
            takeover: false,
            files: FileCounts::default(),
            bytes: ByteCounts::default(),
            requests: 0,
            duration: Duration::ZERO,
            problems: Vec::new(),
            problem_count: 0,
            empty_sources: Vec::new(),
            loss: None,
            clock_doubt: None,
        }
    }
}

/// The most problems that a report names; further ones are only counted.
pub const PROBLEMS_MAX: usize = 1000;
