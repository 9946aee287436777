//! What `restore` reports.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::snapshot::SnapshotInfo;
use crate::repo::entry::TreePath;
pub use crate::tree::write::{MetaKind, MetaTrouble};

/// A restore, with what it was about.
#[derive(Debug, Clone)]
pub struct Restored {
    /// What was restored.
    pub snapshot: SnapshotInfo,
    /// Below which directory; `None`: in place.
    pub target: Option<PathBuf>,
    /// How it went.
    pub report: RestoreReport,
}

/// How a restore went.
#[derive(Debug, Clone, Default)]
pub struct RestoreReport {
    /// Entries.
    pub counts: RestoreCounts,
    /// Bytes.
    pub bytes: RestoreBytes,
    /// Metadata that could not be set, once a kind. Not a failure.
    pub metadata: Vec<MetaTrouble>,
    /// What failed, at most [`super::PROBLEMS_MAX`].
    pub problems: Vec<RestoreProblem>,
    /// Paths asked for that the snapshot does not have.
    pub unmatched: Vec<TreePath>,
    /// Nothing was changed.
    pub dry_run: bool,
    /// How long it took.
    pub duration: Duration,
}

impl RestoreReport {
    /// Whether everything that was asked for is there.
    pub fn is_success(&self) -> bool {
        self.counts.failed == 0 && self.unmatched.is_empty()
    }
}

/// Entries by what became of them. Directories count in `directories`, and in `failed` if they failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RestoreCounts {
    /// Written: made or replaced.
    pub restored: u64,
    /// Content was right; owner, mode, time or attributes were set.
    pub touched: u64,
    /// Equal already.
    pub unchanged: u64,
    /// Kept because of `--overwrite never`, or a device file that this user may not make.
    pub skipped: u64,
    /// Removed from the target, directories included.
    pub deleted: u64,
    /// Not restored; the first of them are in [`RestoreReport::problems`].
    pub failed: u64,
    /// Directories that are there now.
    pub directories: u64,
}

/// Bytes by where they came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RestoreBytes {
    /// Got from the store, as stored (compressed).
    pub fetched: u64,
    /// Taken from files that were in the target.
    pub reused: u64,
    /// Written to the target, reused ones included.
    pub written: u64,
}

/// Something that was not restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreProblem {
    /// Which path.
    pub path: TreePath,
    /// Why.
    pub kind: String,
}
