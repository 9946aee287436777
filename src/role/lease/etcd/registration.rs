//! Which processes are alive, by their registrations in etcd. Pure.

use serde::{Deserialize, Serialize};

use crate::ids::{InstanceId, NodeId};

/// A living process: the value of its registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRegistration {
    /// The format version of this value.
    pub v: u32,
    /// The process's node.
    pub node: NodeId,
    /// The process's ID.
    pub instance: InstanceId,
    /// The node's label.
    pub name: String,
    /// The host's name.
    pub hostname: String,
    /// The program's version.
    pub version: String,
    /// [`crate::config::Settings::hash`].
    pub config_hash: String,
}
