//! Why a backup committed nothing.

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
    /// An operator stopped it.
    #[error("interrupted")]
    Interrupted,
    /// It made no progress, and was ended.
    #[error("{0}")]
    Stalled(RunStall),
    /// Another part of the run failed; that part tells why.
    #[error("stopped by another failure")]
    Stopped,
    /// A source.
    #[error("{0}")]
    Scan(#[from] ScanError),
    /// A pattern of `exclude`.
    #[error("{0}")]
    Pattern(#[from] BadPattern),
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// What is stored.
    #[error("{0}")]
    Repo(#[from] RepositoryReadError),
    /// The tree cache; it has been dropped.
    #[error("{0}")]
    Cache(#[from] CacheError),
    /// The journal cannot be read.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// The record was not appended, or nobody knows.
    #[error("{0}")]
    Append(#[from] AppendError),
    /// The store does not keep its promise.
    #[error("the store no longer refuses what it must refuse: {0}")]
    Proof(ProofFailure),
    /// No answer shows whether it does.
    #[error("nothing is written before the store has shown that it keeps conditional writes apart: {0}")]
    Unproved(ProofFailure),
    /// The local state.
    #[error("{0}")]
    Lock(#[from] LockError),
    /// The local state.
    #[error("{}: {error}", path.display())]
    State {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A source that had files has none now.
    #[error("{} holds no file, and held {before} in the newest snapshot", source_path.display())]
    EmptySource {
        /// Which.
        source_path: TreePath,
        /// How many it had; links and the like count as files.
        before: u64,
    },
    /// No source has a file, and there is no dump: the snapshot would hold nothing.
    #[error("there is nothing to store: {} no file that is not excluded", held(sources))]
    Nothing {
        /// The sources.
        sources: Vec<TreePath>,
    },
    /// There are entries, and none of them holds anything.
    #[error(
        "there is nothing to store: all that was found is {count} {}",
        if *count == 1 { "empty file, pipe or device" } else { "empty files, pipes or devices" }
    )]
    NoContent {
        /// How many.
        count: u64,
    },
    /// Not one file could be read: the snapshot would hold nothing.
    #[error("nothing could be read, and {} could not: {}", paths(*count), first(problem.as_ref()))]
    NothingRead {
        /// How many paths could not be read.
        count: u64,
        /// One of them.
        problem: Option<PathProblem>,
    },
    /// A dump.
    #[error("dump {name:?}: {error}")]
    Dump {
        /// Its name.
        name: String,
        /// Why.
        error: DumpError,
    },
    /// A hook.
    #[error("{0}")]
    Hook(#[from] HookError),
    /// A prune came between the start of this run and its end.
    #[error("what this run counted on was pruned meanwhile; run it again")]
    Pruned,
    /// A bug.
    #[error("internal error: {0}")]
    Internal(String),
}

impl BackupError {
    /// Whether the journal goes on under a repository key that was not known: it may be opened with another one.
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
    /// A request that failed is no broken promise.
    fn from(failure: ProofFailure) -> Self {
        match failure.into_definite() {
            Ok(failure) if failure.is_certain() => Self::Proof(failure),
            Ok(failure) => Self::Unproved(failure),
            Err(error) => Self::Store(error),
        }
    }
}
