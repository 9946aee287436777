//! The target directory of a restore.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;

use super::deferred_flags::DeferredFlags;
use super::metadata_failures::MetadataFailures;
use super::owner::OwnerResolver;
use super::resolver::DirResolver;
use crate::repo::entry::UnixNanos;

/// The directory that a tree is written below.
#[derive(Debug)]
pub struct RestoreTarget {
    /// The path that the operator named, for messages.
    pub(super) path: PathBuf,
    pub(super) resolver: DirResolver,
    /// The prefix of this process's temporary names. It is random, so another process cannot create such a name
    /// beforehand.
    pub(super) temporary_prefix: String,
    pub(super) temporary_count: AtomicU64,
    pub(super) ids: OwnerResolver,
    pub(super) troubles: MetadataFailures,
    /// Files that get their flags at the end.
    pub(super) flagged: DeferredFlags,
    /// Held during the restore, so that no other restore takes its files for leftovers.
    pub(super) _lock: Option<OwnedFd>,
    /// The wall-clock time since which no other restore is at work below the same target; `None` if one may be.
    pub(super) alone_since: Option<UnixNanos>,
}
