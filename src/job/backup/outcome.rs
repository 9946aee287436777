//! The result of a committed backup.

use crate::job::report::{ByteCounts, FileCounts, LossReport};
use crate::journal::state::Snapshot;
use crate::repo::entry::TreePath;
use crate::tree::problem::PathProblem;

/// A committed backup.
#[derive(Debug)]
pub struct CommittedBackup {
    /// Its snapshot.
    pub snapshot: Snapshot,
    /// The snapshot before.
    pub previous: Option<Snapshot>,
    /// Whether this run appended a takeover.
    pub takeover: bool,
    /// Counts of files by kind of change.
    pub files: FileCounts,
    /// Counts of bytes; `uploaded` counts packs and index objects.
    pub bytes: ByteCounts,
    /// Problems with single paths, the first ones.
    pub problems: Vec<PathProblem>,
    /// Number of all problems.
    pub problem_count: u64,
    /// Sources in which no file was found.
    pub empty_sources: Vec<TreePath>,
    /// What the store had lost; `None`: nothing, or it was not compared.
    pub loss: Option<LossReport>,
}
