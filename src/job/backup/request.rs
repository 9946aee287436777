//! What an operator asks of a run.

use serde::{Deserialize, Serialize};

use crate::role::election::RetakeReason;

/// What the operator asked for.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct BackupRequest {
    /// Only if a slot is due and not committed.
    pub scheduled: bool,
    /// Read every file, whatever the cache says.
    pub rehash: bool,
    /// Only if this node is active without it: a run by hand is no reason to move the role.
    #[serde(default)]
    pub require_active: bool,
}

impl BackupRequest {
    /// What speaks for a takeover, where the request itself does not.
    pub(crate) fn occasion(self) -> Option<RetakeReason> {
        (self.require_active && !self.scheduled).then_some(RetakeReason::None)
    }
}
