//! What `restore` reports.

use std::path::PathBuf;

use super::snapshot::SnapshotInfo;
pub use crate::job::restore::{RestoreBytes, RestoreCounts, RestoreProblem, RestoreProblemKind, RestoreReport};
pub use crate::tree::write::{MetadataFailure, MetadataKind};

/// A restore with its snapshot and target.
#[derive(Debug, Clone)]
pub struct RestoredSnapshot {
    /// The restored snapshot.
    pub snapshot: SnapshotInfo,
    /// The target directory; `None`: in place.
    pub target: Option<PathBuf>,
    /// Whether lost parts were skipped and named, as requested.
    pub salvage: bool,
    /// Whether the present journal vouches for this snapshot. Otherwise the holder of a former repository key can have
    /// made it up.
    pub is_vouched_for: bool,
    /// Result of the restore.
    pub report: RestoreReport,
}
