//! Metadata that a restore could not set: how often, and the first path of each kind.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::repo::entry::TreePath;

/// The kinds of metadata that may fail to be set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetadataKind {
    /// Owner or group. Set-ID bits are then left out, because they would lend rights of another user.
    Owner,
    /// Permissions.
    Mode,
    /// A POSIX ACL.
    Acl,
    /// A file capability.
    Capability,
    /// Another extended attribute.
    Xattr,
    /// The modification time.
    Time,
    /// A device file, which only root can make; it is missing.
    Device,
    /// A hard link that became a separate file.
    Hardlink,
    /// File flags: immutable, append only, no dump.
    Flags,
}

/// One kind of metadata that could not be set, with the number of entries concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetadataFailure {
    /// What could not be set.
    pub kind: MetadataKind,
    /// Number of entries concerned.
    pub count: u64,
    /// The first of these entries.
    pub first: TreePath,
    /// The system's error for the first entry.
    pub error: String,
}

#[derive(Debug, Default)]
pub(super) struct MetadataFailures(Mutex<BTreeMap<MetadataKind, MetadataFailure>>);

impl MetadataFailures {
    pub(super) fn note(&self, kind: MetadataKind, path: &TreePath, error: impl FnOnce() -> String) {
        let mut all = self.0.lock();
        all.entry(kind)
            .or_insert_with(|| MetadataFailure { kind, count: 0, first: path.clone(), error: error() })
            .count += 1;
    }

    pub(super) fn list(&self) -> Vec<MetadataFailure> {
        self.0.lock().values().cloned().collect()
    }
}
