//! What a scan is asked, and what it yields.

use std::path::PathBuf;

use crate::repo::entry::TreePath;
use crate::tree::exclude::ExcludePatterns;
use crate::tree::problem::PathProblem;
use crate::tree::stat::Stat;

/// What to walk.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// Absolute paths of directories, or of single objects.
    pub sources: Vec<PathBuf>,
    /// Patterns to leave out. A source itself is never left out.
    pub exclude: ExcludePatterns,
    /// Stay on the file system of each source: a mount point below it appears as an empty directory.
    pub one_file_system: bool,
    /// Of a directory with a valid `CACHEDIR.TAG`, keep only the directory and the tag. A tag in a source itself is
    /// ignored.
    pub exclude_caches: bool,
    /// Leave out regular files larger than this, in bytes.
    pub exclude_larger_than: Option<u64>,
}

/// One step of the walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanItem {
    /// An entry to back up.
    Entry(ScannedEntry),
    /// An entry that is left out for another reason than a pattern.
    Skipped {
        /// The path that is left out.
        path: TreePath,
        /// The reason.
        why: SkipReason,
    },
    /// An object whose metadata could not be read. For a directory that cannot be listed it follows the directory's
    /// entry.
    Problem(PathProblem),
}

/// Why an entry is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// A socket has no content to back up.
    Socket,
    /// Larger than [`ScanOptions::exclude_larger_than`].
    Larger {
        /// Its size in bytes.
        size: u64,
    },
}

/// An entry as the walk sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedEntry {
    /// The entry's path.
    pub path: TreePath,
    /// The metadata that is known without opening it.
    pub stat: Stat,
}

impl ScanItem {
    /// The path that this item is about.
    pub fn path(&self) -> &TreePath {
        match self {
            Self::Entry(ScannedEntry { path, .. }) | Self::Skipped { path, .. } => path,
            Self::Problem(problem) => &problem.path,
        }
    }
}
