//! What `restore` reports.

use std::path::PathBuf;

use super::snapshot::SnapshotInfo;
use crate::job::restore::RestoreReport;

/// A restore, with what it was about.
#[derive(Debug, Clone)]
pub struct Restored {
    /// What was restored.
    pub snapshot: SnapshotInfo,
    /// Below which directory; `None`: in place.
    pub target: Option<PathBuf>,
    /// How it went.
    pub report: RestoreReport,
}
