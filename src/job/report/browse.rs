//! What `ls`, `find` and `diff` report. Results come one by one, so that memory does not grow with the tree.

use serde::Serialize;

use crate::ids::Digest;
use crate::repo::entry::{ManifestEntry, TreePath};

/// One match of `find`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindMatch {
    /// The snapshot that contains the entry.
    pub snapshot: Digest,
    /// The matching entry.
    pub entry: ManifestEntry,
}

/// One difference between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffLine {
    /// The path that differs.
    pub path: TreePath,
    /// How it differs.
    pub change: DiffChange,
    /// Size in the first snapshot; 0 if it does not contain a regular file at this path.
    pub size_before: u64,
    /// Size in the second snapshot, likewise.
    pub size_after: u64,
}

/// How a path differs between two snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiffChange {
    /// Only in the second snapshot.
    New,
    /// Only in the first snapshot.
    Removed,
    /// Other content, or another file type.
    Content,
    /// Same content; owner, mode, time or attributes differ.
    Metadata,
}

/// Totals of a `diff`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DiffCounts {
    /// Paths only in the second snapshot.
    pub new: u64,
    /// Paths only in the first snapshot.
    pub removed: u64,
    /// Paths with other content.
    pub content: u64,
    /// Paths with other metadata only.
    pub metadata: u64,
}

impl DiffCounts {
    /// Counts one difference.
    pub fn add(&mut self, change: DiffChange) {
        *match change {
            DiffChange::New => &mut self.new,
            DiffChange::Removed => &mut self.removed,
            DiffChange::Content => &mut self.content,
            DiffChange::Metadata => &mut self.metadata,
        } += 1;
    }
}
