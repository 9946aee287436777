//! File flags that a restore sets at its end.

use std::os::fd::AsRawFd as _;
use std::sync::Mutex;

use crate::repo::entry::TreePath;
use crate::tree::flags::FileFlags;
use crate::tree::write::AttachPath as _;

/// Files that get their flags at the end: afterwards they can no longer be renamed, linked or written.
#[derive(Debug, Default)]
pub(super) struct DeferredFlags(pub(super) Mutex<Vec<DeferredFlagFile>>);

#[derive(Debug)]
pub(super) struct DeferredFlagFile {
    path: TreePath,
    /// Device and inode number.
    inode: (u64, u64),
    wanted: FileFlags,
}

/// The most files whose flags may wait for the end.
pub(super) const FLAGGED_MAX: usize = 65_536;
