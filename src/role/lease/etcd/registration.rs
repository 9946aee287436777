//! Which processes are alive, by their registrations in etcd.

use serde::{Deserialize, Serialize};

use crate::ids::{InstanceId, NodeId};

/// One living process: the value of its registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRegistration {
    /// The version of this value.
    pub v: u32,
    /// Its node.
    pub node: NodeId,
    /// Which process.
    pub instance: InstanceId,
    /// What the node is called.
    pub name: String,
    /// What its host is called.
    pub hostname: String,
    /// The program's version.
    pub version: String,
    /// [`crate::config::Settings::hash`].
    pub config_hash: String,
}
