//! Errors of a guarded run, from its admission to its commit. The verbs that append to a journal return them.
//! Their kinds
//! decide the exit code.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::ids::RoleName;
use crate::job::local_state::LockError;
use crate::job::node::stall::RunStall;
use crate::job::repository::open::OpenError;
use crate::journal::error::{AppendError, JournalError};
use crate::process::ProcessExit;
use crate::repo::DecodeError;
use crate::repo::entry::TreePath;
use crate::repo::reader::RepositoryReadError;
use crate::store::proof::ProofFailure;
use crate::store::{StoreError, StoreErrorKind};
use crate::tree::exclude::BadPattern;
use crate::tree::problem::{PathProblem, PathProblemKind};
use crate::tree::scan::ScanError;

/// Why a dump failed.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The name leads out of the snapshot, or into a source.
    #[error("is no valid file name in the snapshot, or is inside a source")]
    Name,
    /// The user does not exist.
    #[error("there is no user {0}")]
    User(String),
    /// The command could not be started.
    #[error("could not be started: {0}")]
    Start(io::Error),
    /// The output could not be read.
    #[error("its output could not be read: {0}")]
    Read(io::Error),
    /// The command failed.
    #[error("{status}{}", if stderr.is_empty() { String::new() } else { format!(": {stderr}") })]
    Status {
        /// The exit status or signal.
        status: String,
        /// The end of its standard error.
        stderr: String,
    },
    /// The command succeeded without output.
    #[error("it succeeded and printed nothing")]
    Empty,
    /// The command ran too long and was killed.
    #[error("killed after {}", humantime::format_duration(*.0))]
    Timeout(Duration),
}

/// Why a hook failed.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// The hook could not be started, or its start could not be saved.
    #[error("hook {hook}: {error}")]
    Start {
        /// Name of the hook.
        hook: &'static str,
        /// Error of the operating system.
        error: io::Error,
    },
    /// The hook ended with a failure.
    #[error("hook {hook}: {}", match ended { ProcessExit::Exit(code) => format!("exit code {code}"), ProcessExit::Signal(n) => format!("ended by signal {n}") })]
    Failed {
        /// Name of the hook.
        hook: &'static str,
        /// How its process ended.
        ended: ProcessExit,
    },
    /// The hook exceeded its time limit.
    #[error("hook {hook}: killed after {}", humantime::format_duration(*after))]
    Timeout {
        /// Name of the hook.
        hook: &'static str,
        /// Its time limit.
        after: Duration,
    },
    /// The run that the hook belongs to was to end.
    #[error("hook {hook}: ended, because the run was told to stop")]
    Stopped {
        /// Name of the hook.
        hook: &'static str,
    },
}

/// Why a cache cannot be used. It is dropped, and the run starts again without it.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The file cannot be read.
    #[error("the tree cache cannot be read: {0}")]
    Io(#[from] io::Error),
    /// The content of the file is damaged.
    #[error("the tree cache is damaged: {0}")]
    Damaged(#[from] DecodeError),
}

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
        error: io::Error,
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

pub(crate) fn held(sources: &[TreePath]) -> String {
    let names: Vec<String> = sources.iter().map(TreePath::display).collect();
    format!("{} {}", names.join(", "), if names.len() == 1 { "holds" } else { "hold" })
}

pub(crate) fn paths(count: u64) -> String {
    if count == 1 { "1 path".to_owned() } else { format!("{count} paths") }
}

pub(crate) fn first(problem: Option<&PathProblem>) -> String {
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

/// Why a guarded run failed.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The store cannot be connected to.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The repository cannot be opened.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// The backup itself failed.
    #[error("{0}")]
    Backup(#[from] BackupError),
    /// The store does not keep the conditions that a lease needs.
    #[error("the store cannot hold the lease of role {role}: {error}")]
    LeaseProof {
        /// Role whose lease the store cannot hold.
        role: RoleName,
        /// How the store broke the condition.
        error: ProofFailure,
    },
    /// The proof was inconclusive: it is unknown whether the store can hold the lease.
    #[error("it is unknown whether the store can hold the lease of role {role}: {error}")]
    LeaseUnproved {
        /// Role whose lease the store was to hold.
        role: RoleName,
        /// Answer or failure that left the proof inconclusive.
        error: ProofFailure,
    },
    /// `lease = "bucket"` where the journal is in etcd.
    #[error("role {role} has its journal in etcd, so its lease cannot be in the bucket")]
    LeaseInBucket {
        /// Role whose lease is configured in the bucket.
        role: RoleName,
    },
    /// `lease = "bucket"` where the bucket's object lock retains every version.
    #[error(
        "the bucket locks each version of an object for {time} by default, and the lease of role {role} would leave one with each renewal"
    )]
    LeaseLocked {
        /// Role whose lease is configured in the bucket.
        role: RoleName,
        /// Default retention of a version, as the bucket reports it.
        time: String,
    },
    /// `lease = "etcd"` without an etcd.
    #[error("role {role} has its lease in etcd, and none is configured")]
    NoEtcd {
        /// Role whose lease is configured in etcd.
        role: RoleName,
    },
    /// `--scheduled` for a role without a schedule.
    #[error("role {role} has no schedule")]
    NoSchedule {
        /// Role that has no schedule.
        role: RoleName,
    },
    /// The schedule of the role is invalid.
    #[error("the schedule of role {role}: {why}")]
    Schedule {
        /// Role whose schedule is invalid.
        role: RoleName,
        /// What is wrong with the schedule.
        why: String,
    },
}

impl GuardError {
    /// Whether the store has no room left.
    pub fn is_no_space(&self) -> bool {
        matches!(
            self,
            Self::Store(error)
            | Self::Backup(
                BackupError::Store(error)
                | BackupError::Repo(RepositoryReadError::Store(error))
                | BackupError::Append(AppendError::Store { error, .. }),
            ) if error.kind == StoreErrorKind::NoSpace
        )
    }

    /// Whether the run failed by this error. A run that was ended on purpose did not fail, nor one that met another run
    /// at work: that run goes on, or is tried again at once.
    pub fn is_run_failure(&self) -> bool {
        !matches!(
            self,
            Self::NoSchedule { .. }
                | Self::Backup(
                    BackupError::Interrupted
                        | BackupError::Lock(LockError::Busy { .. })
                        | BackupError::Append(AppendError::Moved(_))
                )
        )
    }

    /// Whether this node's own state cannot be read or written.
    pub(crate) fn is_local_state(&self) -> bool {
        matches!(self, Self::Backup(BackupError::State { .. } | BackupError::Lock(LockError::Io { .. })))
    }

    /// The error for a failed proof of the lease of `role`. A request that failed says nothing about the conditions, so
    /// it stays a store error.
    pub(crate) fn of_lease_proof(role: &RoleName, failure: ProofFailure) -> Self {
        match failure.into_definite() {
            Ok(error) if error.is_certain() => Self::LeaseProof { role: role.clone(), error },
            Ok(error) => Self::LeaseUnproved { role: role.clone(), error },
            Err(error) => Self::Store(error),
        }
    }
}
