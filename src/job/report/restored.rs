//! What `restore` reports.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::snapshot::SnapshotInfo;
use crate::ids::ChunkId;
use crate::repo::entry::TreePath;
pub use crate::tree::write::{MetadataFailure, MetadataKind};
use crate::tree::write::{WriteError, WriteErrorKind};

/// A restore with its snapshot and target.
#[derive(Debug, Clone)]
pub struct RestoredSnapshot {
    /// The restored snapshot.
    pub snapshot: SnapshotInfo,
    /// The target directory; `None`: in place.
    pub target: Option<PathBuf>,
    /// Whether lost parts were skipped and named, as requested.
    pub salvage: bool,
    /// Whether the present journal vouches for this snapshot. Otherwise the holder of a former repository key can have
    /// made it up.
    pub is_vouched_for: bool,
    /// Result of the restore.
    pub report: RestoreReport,
}

/// Result of a restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreReport {
    /// Entries by outcome.
    pub counts: RestoreCounts,
    /// Bytes by origin.
    pub bytes: RestoreBytes,
    /// Metadata that could not be set, one example of each kind. Not a failure.
    pub metadata: Vec<MetadataFailure>,
    /// The first failures, at most [`PROBLEMS_MAX`](crate::job::report::PROBLEMS_MAX).
    pub problems: Vec<RestoreProblem>,
    /// Requested paths that the snapshot does not have.
    pub unmatched: Vec<TreePath>,
    /// Whether this was a dry run, which changes nothing.
    pub dry_run: bool,
    /// Duration of the restore.
    pub duration: Duration,
}

impl RestoreReport {
    /// Adds a failure for each lost part of the manifest.
    pub fn add_lost(&mut self, lost: impl IntoIterator<Item = (TreePath, u64)>) {
        for (path, entries) in lost {
            self.counts.failed += entries;
            if self.problems.len() < crate::job::report::PROBLEMS_MAX {
                self.problems.push(RestoreProblem { path, kind: RestoreProblemKind::Listing(entries) });
            }
        }
        self.problems.sort_by(|a, b| a.path.cmp(&b.path));
    }

    /// Whether everything requested was restored.
    pub fn is_success(&self) -> bool {
        self.counts.failed == 0 && self.unmatched.is_empty()
    }
}

/// Entries by outcome. Directories count in `directories`, and in `failed` if they failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RestoreCounts {
    /// Made or replaced.
    pub restored: u64,
    /// The content was right; owner, mode, time or attributes were set.
    pub touched: u64,
    /// Already equal.
    pub unchanged: u64,
    /// Files of `touched` and `unchanged` whose content was not read, because size and time were equal:
    /// [`OverwritePolicy::IfChanged`](crate::job::restore::options::OverwritePolicy::IfChanged).
    pub trusted: u64,
    /// Kept because of `--overwrite never`, or a device file that this user may not make.
    pub skipped: u64,
    /// Removed from the target, directories included.
    pub deleted: u64,
    /// Removed files that an interrupted restore had left under temporary names.
    pub leftovers: u64,
    /// Not restored; the first of them are in [`RestoreReport::problems`].
    pub failed: u64,
    /// Directories that exist after the restore.
    pub directories: u64,
}

/// Bytes by origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RestoreBytes {
    /// Fetched from the store, as stored (compressed).
    pub fetched: u64,
    /// Reused from files of the target.
    pub reused: u64,
    /// Written to the target, including the reused bytes.
    pub written: u64,
}

/// A path that was not restored, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreProblem {
    /// The path that failed.
    pub path: TreePath,
    /// The reason.
    pub kind: RestoreProblemKind,
}

/// Why a path was not restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreProblemKind {
    /// A chunk is not in the repository.
    #[error("chunk {0} is missing from the repository")]
    Missing(ChunkId),
    /// A chunk's bytes do not match its keyed hash, or cannot be decrypted.
    #[error("chunk {chunk} is damaged: {detail}")]
    Damaged {
        /// The damaged chunk.
        chunk: ChunkId,
        /// What is wrong with its bytes.
        detail: String,
    },
    /// The entry contradicts itself.
    #[error("the manifest is not sound: {0}")]
    Unsound(&'static str),
    /// It could not be written.
    #[error("{0}")]
    Write(WriteErrorKind),
    /// It could not be removed.
    #[error("not deleted: {0}")]
    Delete(WriteErrorKind),
    /// The entry is a further hard link of this path, which was not restored.
    #[error("its first name {} was not restored", .0.display())]
    FirstName(TreePath),
    /// The part of the manifest that begins at this path is lost, with this number of entries.
    #[error("{0} entries from here on are lost: their list is not in the repository")]
    Listing(u64),
    /// The existing file, of which content should be reused, changed during the restore.
    #[error("the file in the target changed during the restore")]
    Changed,
}

impl RestoreProblemKind {
    /// Number of entries that the problem stands for.
    pub fn entries(&self) -> u64 {
        match self {
            RestoreProblemKind::Listing(entries) => *entries,
            _ => 1,
        }
    }
}

impl From<WriteError> for RestoreProblemKind {
    fn from(e: WriteError) -> Self {
        Self::Write(e.kind)
    }
}
