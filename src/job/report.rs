//! What jobs report: plain data, no sentences. `cli` makes prose and JSON of it, and the JSON is part of the outside
//! contract.

pub mod audited;
pub mod browse;
pub mod pruned;
pub mod repaired;
pub mod restored;
pub mod setup;
pub mod snapshot;
pub mod verified;
pub mod whoami;

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::clock_doubt::ClockDoubt;
use crate::ids::{Digest, RoleName, Term};
use crate::repo::entry::TreePath;
pub use crate::tree::problem::{PathProblem, PathProblemKind};

pub use crate::text::ADVICE;

/// How a run over one role ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    /// A snapshot with changes was committed.
    Committed,
    /// A snapshot was committed; its manifest root is the one before.
    Unchanged,
    /// Another node is active.
    Standby,
    /// The slot is committed already, or none is due.
    Skipped,
    /// The election, or whether the commit went through, cannot be told.
    Unknown,
    /// A newer takeover exists; nothing was committed.
    Fenced,
    /// Nothing was committed.
    Failed,
}

/// Files by what became of them, compared with the snapshot before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FileCounts {
    /// Not there before.
    pub new: u64,
    /// Content or metadata differs.
    pub changed: u64,
    /// Equal.
    pub unchanged: u64,
    /// No longer there.
    pub removed: u64,
    /// Could not be read. [`RoleReport::problems`] names each, or the directory above it; one of which nothing is known counts as one.
    pub unreadable: u64,
    /// Those of them that are in the snapshot as they were read last.
    #[serde(default)]
    pub kept: u64,
}

/// Bytes by where they went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ByteCounts {
    /// Size of all regular files of the snapshot.
    pub source: u64,
    /// Read from files.
    pub read: u64,
    /// Content that the repository did not have, before compression.
    pub new: u64,
    /// Sent to the store, everything included.
    pub uploaded: u64,
}

/// What the store had lost of what the index names, and what a run did about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossReport {
    /// Packs that are missing, or have not what they should have.
    pub packs: u64,
    /// Bytes of their content that were stored again, before compression.
    pub healed_bytes: u64,
    /// Files of snapshots that need what is still missing, counted once a snapshot; `None`: it could not be told.
    pub missing_files: Option<u64>,
    /// The first of them, at most [`verified::AFFECTED_MAX`].
    pub missing: Vec<MissingFile>,
}

/// A file of a snapshot whose content is lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingFile {
    /// The snapshot.
    pub snapshot: Digest,
    /// The file; where a part of a manifest is lost, the first in it.
    pub path: TreePath,
}

/// How a backup of one role went.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RoleReport {
    /// Which role.
    pub role: RoleName,
    /// How it ended.
    pub outcome: RunOutcome,
    /// Why, where the outcome alone does not tell: the probe that said no, the error that ended it.
    pub reason: Option<String>,
    /// The committed snapshot: the digest of its record.
    pub snapshot: Option<Digest>,
    /// When the snapshot that this run was compared with was taken; `None` for a first run.
    pub previous: Option<Timestamp>,
    /// The fencing token it ran under.
    pub term: Option<Term>,
    /// The slot it was for.
    pub slot: Option<Timestamp>,
    /// Whether this run appended a takeover.
    pub takeover: bool,
    /// Counts.
    pub files: FileCounts,
    /// Counts.
    pub bytes: ByteCounts,
    /// Requests sent to the store.
    pub requests: u64,
    /// How long it took.
    pub duration: Duration,
    /// What went wrong with single paths, at most [`PROBLEMS_MAX`].
    pub problems: Vec<PathProblem>,
    /// How many problems there were, those included that `problems` has no room for.
    pub problem_count: u64,
    /// Sources in which no file was found. [`crate::config::RoleSettings::allow_empty`] or the other sources let the run go on.
    #[serde(default)]
    pub empty_sources: Vec<TreePath>,
    /// What the store had lost; `None`: nothing was found missing.
    #[serde(default)]
    pub loss: Option<LossReport>,
    /// What speaks against the clock that dated the run's records.
    #[serde(default)]
    pub clock_doubt: Option<ClockDoubt>,
}

impl RoleReport {
    /// Whether there is a snapshot, and not a byte of content in it.
    pub fn has_no_content(&self) -> bool {
        self.snapshot.is_some() && self.bytes.source == 0
    }

    /// A report on a run that committed nothing.
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

/// The most problems that a report names one by one; beyond it they are only counted.
pub const PROBLEMS_MAX: usize = 1000;
