//! What `restore` reports.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::snapshot::SnapshotInfo;
use crate::repo::entry::TreePath;

/// How a restore went.
#[derive(Debug, Clone)]
pub struct RestoreReport {
    /// What was restored.
    pub snapshot: SnapshotInfo,
    /// Below which directory; `None`: in place.
    pub target: Option<PathBuf>,
    /// Nothing was written, only counted.
    pub dry_run: bool,
    /// Counts.
    pub entries: RestoreCounts,
    /// Counts.
    pub bytes: RestoreBytes,
    /// Requests sent to the store.
    pub requests: u64,
    /// How long it took.
    pub duration: Duration,
    /// Metadata that this user may not set, by kind: named once, not once a file.
    pub unset: Vec<Unset>,
    /// Paths that could not be restored, at most [`super::PROBLEMS_MAX`].
    pub problems: Vec<RestoreProblem>,
    /// How many there were.
    pub problem_count: u64,
}

/// Entries by what became of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RestoreCounts {
    /// Were not there.
    pub created: u64,
    /// Were there with other content or metadata, and were replaced or corrected.
    pub updated: u64,
    /// Were there already as they should be.
    pub unchanged: u64,
    /// Were there differently and were left alone, because of `--overwrite`.
    pub kept: u64,
    /// Were there, not in the snapshot, and were deleted, because of `--delete`.
    pub deleted: u64,
}

/// Bytes by where they came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RestoreBytes {
    /// Size of all regular files that were asked for.
    pub total: u64,
    /// Content that was there already and was verified instead of fetched.
    pub reused: u64,
    /// Written to files.
    pub written: u64,
    /// Received from the store, everything included.
    pub downloaded: u64,
}

/// A kind of metadata that could not be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unset {
    /// Which kind.
    pub kind: UnsetKind,
    /// On how many entries.
    pub count: u64,
    /// The first of them.
    pub first: TreePath,
    /// The system's own words about the first.
    pub why: String,
}

/// Kinds of metadata that a restore may be refused to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum UnsetKind {
    /// Owner and group.
    Owner,
    /// Permission bits.
    Mode,
    /// Modification time.
    Time,
    /// Extended attributes, ACLs and capabilities among them.
    Xattr,
    /// Device nodes, which were left out.
    Device,
}

/// One path that could not be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreProblem {
    /// Which path.
    pub path: TreePath,
    /// The system's own words.
    pub why: String,
}
