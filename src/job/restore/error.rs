//! Errors of a restore that restored nothing.

use std::path::PathBuf;

use crate::job::restore::source::SourceError;
use crate::repo::entry::TreePath;
use crate::tree::exclude::BadPattern;
use crate::tree::write::{TargetError, WriteError};

/// Why a restore ended early. Files that were restored before are complete.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The target cannot be opened or made.
    #[error("{0}")]
    Target(#[from] TargetError),
    /// The target cannot be written to at all, for example because it is read-only.
    #[error("{target}: {error}; files that are complete are in place, no file is half written", target = .target.display())]
    Write {
        /// The directory of [`RestoreOptions::target`](super::options::RestoreOptions::target).
        target: PathBuf,
        /// The write that failed.
        error: WriteError,
    },
    /// The manifest or the store cannot be read.
    #[error("{0}")]
    Source(SourceError),
    /// The manifest's entries are not in path order.
    #[error("the manifest is not sound: {} does not come after the entry before it", .path.display())]
    Unsorted {
        /// The first entry that is out of order.
        path: TreePath,
    },
    /// A pattern of [`RestoreOptions::exclude`](super::options::RestoreOptions::exclude) is not valid.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// A thread of the restore ended unexpectedly.
    #[error("internal error: {0}")]
    Broken(String),
}
