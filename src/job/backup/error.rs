//! Errors of a backup that committed nothing.

use std::path::PathBuf;

use crate::job::backup::dump::DumpError;
use crate::job::backup::hooks::HookError;
use crate::job::backup::tree_cache::CacheError;
use crate::job::node::local_state::LockError;
use crate::job::node::stall::RunStall;
use crate::journal::log::{AppendError, JournalError};
use crate::repo::entry::TreePath;
use crate::repo::reader::RepositoryReadError;
use crate::store::StoreError;
use crate::store::proof::ProofFailure;
use crate::tree::exclude::BadPattern;
use crate::tree::problem::{PathProblem, PathProblemKind};
use crate::tree::scan::ScanError;

/// Why a backup committed nothing.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// An operator interrupted it.
    #[error("interrupted")]
    Interrupted,
    /// It made no progress, and was ended.
    #[error("{0}")]
    Stalled(RunStall),
    /// Another part of the run failed; that part has the reason.
    #[error("stopped by another failure")]
    Stopped,
    /// A source cannot be walked.
    #[error("{0}")]
    Scan(#[from] ScanError),
    /// A pattern of `exclude` is invalid.
    #[error("{0}")]
    Pattern(#[from] BadPattern),
    /// A request to the store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Stored data cannot be read.
    #[error("{0}")]
    Repo(#[from] RepositoryReadError),
    /// The tree cache is damaged; it has been dropped.
    #[error("{0}")]
    Cache(#[from] CacheError),
    /// The journal cannot be read.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// The record was not appended, or that is unknown.
    #[error("{0}")]
    Append(#[from] AppendError),
    /// The store no longer keeps the conditions that a journal needs.
    #[error("the store no longer refuses the writes that it must refuse: {0}")]
    Proof(ProofFailure),
    /// The proof was inconclusive: it is unknown whether the store keeps conditions.
    #[error("nothing is written before the store has shown that it keeps conditional writes apart: {0}")]
    Unproved(ProofFailure),
    /// The lock of the local state was not acquired.
    #[error("{0}")]
    Lock(#[from] LockError),
    /// The local state cannot be read or written.
    #[error("{}: {error}", path.display())]
    State {
        /// File of the failed operation.
        path: PathBuf,
        /// Error of the operating system.
        error: std::io::Error,
    },
    /// A source that had files has none now.
    #[error("{} holds no file, and held {before} in the newest snapshot", source_path.display())]
    EmptySource {
        /// The empty source.
        source_path: TreePath,
        /// Number of its files in the newest snapshot; links and the like count as files.
        before: u64,
    },
    /// No source has a file, and there is no dump: the snapshot would be empty.
    #[error("there is nothing to store: {} no file that is not excluded", held(sources))]
    Nothing {
        /// The configured sources.
        sources: Vec<TreePath>,
    },
    /// There are entries, and none of them has content.
    #[error(
        "there is nothing to store: all that was found is {count} {}",
        if *count == 1 { "empty file, pipe or device" } else { "empty files, pipes or devices" }
    )]
    NoContent {
        /// Number of entries.
        count: u64,
    },
    /// Not one file could be read: the snapshot would be empty.
    #[error("nothing could be read, and {} could not: {}", paths(*count), first(problem.as_ref()))]
    NothingRead {
        /// Number of paths that could not be read.
        count: u64,
        /// One of the problems.
        problem: Option<PathProblem>,
    },
    /// A dump failed.
    #[error("dump {name:?}: {error}")]
    Dump {
        /// Name of the dump.
        name: String,
        /// How the dump failed.
        error: DumpError,
    },
    /// A hook failed.
    #[error("{0}")]
    Hook(#[from] HookError),
    /// A prune ran between the start of this run and its end.
    #[error("content that this run refers to was pruned meanwhile")]
    Pruned,
    /// A bug in this program.
    #[error("internal error: {0}")]
    Internal(String),
}

impl BackupError {
    /// Whether the journal continues under an unknown repository key: another key may open it.
    pub fn is_rotated(&self) -> bool {
        matches!(
            self,
            Self::Journal(JournalError::Rotated { .. })
                | Self::Append(AppendError::Journal(JournalError::Rotated { .. }))
        )
    }
}

fn held(sources: &[TreePath]) -> String {
    let names: Vec<String> = sources.iter().map(TreePath::display).collect();
    format!("{} {}", names.join(", "), if names.len() == 1 { "holds" } else { "hold" })
}

fn paths(count: u64) -> String {
    if count == 1 { "1 path".to_owned() } else { format!("{count} paths") }
}

fn first(problem: Option<&PathProblem>) -> String {
    match problem {
        Some(PathProblem { path, kind: PathProblemKind::Unreadable(why) }) => format!("{}: {why}", path.display()),
        Some(PathProblem { path, .. }) => path.display(),
        None => "not named".to_owned(),
    }
}

impl From<ProofFailure> for BackupError {
    /// A request that failed says nothing about the conditions, so it stays a store error.
    fn from(failure: ProofFailure) -> Self {
        match failure.into_definite() {
            Ok(failure) if failure.is_certain() => Self::Proof(failure),
            Ok(failure) => Self::Unproved(failure),
            Err(error) => Self::Store(error),
        }
    }
}
