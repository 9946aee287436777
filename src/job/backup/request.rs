//! What an operator requests from a run.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::role::election::RetakeReason;

/// The options of a requested run.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct BackupRequest {
    /// Run only if a slot is due and not committed.
    pub scheduled: bool,
    /// Read every file, whatever the tree cache says.
    pub rehash: bool,
    /// Run only if this node is active already: a run by hand is no reason to move the role.
    #[serde(default)]
    pub require_active: bool,
}

impl BackupRequest {
    /// The reason for a takeover if the request says one; `None`: it follows from the slot or the start by hand.
    pub(crate) fn retake_reason(self) -> Option<RetakeReason> {
        (self.require_active && !self.scheduled).then_some(RetakeReason::None)
    }
}

/// Options of a run beyond the role's settings.
#[derive(Debug, Clone, Default)]
pub struct BackupOptions {
    /// Slot of the run.
    pub slot: Option<Timestamp>,
    /// Read every file, whatever the tree cache says.
    pub rehash: bool,
    /// Paths that are never part of a backup: a store inside a source would grow with each run.
    pub own_places: Vec<PathBuf>,
}
