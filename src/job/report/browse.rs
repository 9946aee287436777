//! What a look inside snapshots finds. These come one by one, so that memory does not grow with the tree.

use serde::Serialize;

use crate::ids::Digest;
use crate::repo::entry::{ManifestEntry, TreePath};

/// One hit of `find`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindMatch {
    /// The snapshot it is in.
    pub snapshot: Digest,
    /// The entry.
    pub entry: ManifestEntry,
}

/// One difference between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiffLine {
    /// Which path.
    pub path: TreePath,
    /// How it differs.
    pub change: DiffChange,
    /// Size in the first snapshot; 0 where it is not in there or no regular file.
    pub size_before: u64,
    /// Size in the second snapshot, likewise.
    pub size_after: u64,
}

/// How a path differs between two snapshots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DiffChange {
    /// Only in the second.
    New,
    /// Only in the first.
    Removed,
    /// Other content, or another kind of thing.
    Content,
    /// Same content; owner, mode, time or attributes differ.
    Metadata,
}

/// What a whole `diff` came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct DiffCounts {
    /// Only in the second.
    pub new: u64,
    /// Only in the first.
    pub removed: u64,
    /// Other content.
    pub content: u64,
    /// Other metadata.
    pub metadata: u64,
}

impl DiffCounts {
    /// Counts one more.
    pub fn add(&mut self, change: DiffChange) {
        *match change {
            DiffChange::New => &mut self.new,
            DiffChange::Removed => &mut self.removed,
            DiffChange::Content => &mut self.content,
            DiffChange::Metadata => &mut self.metadata,
        } += 1;
    }
}
