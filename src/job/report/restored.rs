//! What `restore` reports.

use std::path::PathBuf;

use super::snapshot::SnapshotInfo;
pub use crate::job::restore::{RestoreBytes, RestoreCounts, RestoreProblem, RestoreProblemKind, RestoreReport};
pub use crate::tree::write::{MetadataFailure, MetadataKind};

/// A restore, with what it was about.
#[derive(Debug, Clone)]
pub struct RestoredSnapshot {
    /// What was restored.
    pub snapshot: SnapshotInfo,
    /// Below which directory; `None`: in place.
    pub target: Option<PathBuf>,
    /// What is whole was asked for, and the rest named.
    pub salvage: bool,
    /// The journal as it is tells of this snapshot. Else a former holder of the repository key can have made it up.
    pub is_vouched_for: bool,
    /// How it went.
    pub report: RestoreReport,
}
