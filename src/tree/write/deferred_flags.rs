//! File flags that a restore sets at its end.

use parking_lot::Mutex;

use crate::repo::entry::TreePath;
use crate::tree::flags::FileFlags;

/// Files that get their flags at the end: afterwards they can no longer be renamed, linked or written.
#[derive(Debug, Default)]
pub(super) struct DeferredFlags(pub(super) Mutex<Vec<DeferredFlagFile>>);

#[derive(Debug)]
pub(super) struct DeferredFlagFile {
    pub(super) path: TreePath,
    /// Device and inode number.
    pub(super) inode: (u64, u64),
    pub(super) wanted: FileFlags,
}

/// The most files whose flags may wait for the end.
pub(super) const FLAGGED_MAX: usize = 65_536;
