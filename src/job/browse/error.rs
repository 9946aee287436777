//! Errors of the read-only commands.

use std::io;

use crate::repo::entry::{EntryKind, TreePath};
use crate::repo::reader::RepositoryReadError;

/// Called with each item of a listing. An error ends the listing.
pub(crate) type ItemCallback<'a, T> = &'a mut (dyn FnMut(&T) -> io::Result<()> + Send);

/// Why a command on a snapshot failed.
#[derive(Debug, thiserror::Error)]
pub enum BrowseError {
    /// The repository cannot be read.
    #[error("{0}")]
    Repo(#[from] RepositoryReadError),
    /// The snapshot has no such path.
    #[error("{}: not in this snapshot", path.display())]
    NotFound {
        /// The requested path.
        path: TreePath,
        /// What may have been meant.
        hint: Option<PathHint>,
    },
    /// The path is not a regular file.
    #[error("{}: {}, not a file", path.display(), name_of(kind))]
    NotAFile {
        /// The requested path.
        path: TreePath,
        /// The kind of its entry.
        kind: EntryKind,
    },
    /// An entry contradicts itself.
    #[error("{}: the manifest is not sound: {why}", path.display())]
    Unsound {
        /// The path of the entry.
        path: TreePath,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The pattern is not valid.
    #[error("pattern {pattern:?}: {why}")]
    Pattern {
        /// The pattern as given.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// Writing the output failed.
    #[error("{0}")]
    Output(#[from] io::Error),
}

/// What may have been meant by a path that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathHint {
    /// A similar path exists.
    Near(TreePath),
    /// A symbolic link is on the way; links are not followed.
    Link {
        /// The path of the link.
        at: TreePath,
        /// The target of the link.
        target: Vec<u8>,
    },
}

pub(crate) fn name_of(kind: &EntryKind) -> &'static str {
    match kind {
        EntryKind::File { .. } | EntryKind::Hardlink { .. } => "a file",
        EntryKind::Dir => "a directory",
        EntryKind::Symlink { .. } => "a symbolic link",
        EntryKind::Fifo => "a pipe",
        EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. } => "a device",
    }
}
