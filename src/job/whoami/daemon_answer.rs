//! What the daemon of this node answers about its roles.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::RoleName;
use crate::job::health::RunningBackup;
use crate::job::local_state::run_failure::RunFailure;
use crate::job::report::whoami::RoleState;

/// A daemon's state of one role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonRoleStatus {
    /// The state; `None`: not yet determined.
    pub state: Option<RoleState>,
    /// The reason in words, without a full stop.
    pub why: String,
    /// The last failed run, if nothing was committed since.
    pub failure: Option<RunFailure>,
    /// The running backup of a slot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub under_way: Option<RunningBackup>,
}

/// The answer of this node's daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum DaemonAnswer {
    /// There is no daemon, or it cannot be asked.
    #[default]
    None,
    /// The daemon does not answer.
    Silent,
    /// The daemon answered.
    Answered(BTreeMap<RoleName, DaemonRoleStatus>),
}

impl DaemonAnswer {
    /// The daemon's state of this role.
    pub(crate) fn of(&self, role: &RoleName) -> Option<&DaemonRoleStatus> {
        let Self::Answered(words) = self else { return None };
        words.get(role)
    }
}
