//! Who does the work on this node, and with what.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use crate::config::RoleSettings;
use crate::env::Env;
use crate::ids::{InstanceId, Term};
use crate::job::backup::InlineContent;
use crate::job::node::cancel::CancelToken;
use crate::job::node::leases::LeaseSessions;
use crate::job::node::local_state::ProcessMemory;
use crate::job::node::progress::JobProgress;
use crate::journal::record::WriterNode;
use crate::role::probe::{CommandVariables, HostProbeRunner, ProbeRunner};

/// One process of this node, as it works for its roles.
#[derive(Debug, Clone)]
pub struct NodeContext {
    /// Clock and randomness.
    pub env: Env,
    /// This node.
    pub node: WriterNode,
    /// This process.
    pub instance: InstanceId,
    /// Where this node keeps what it remembers.
    pub state_dir: PathBuf,
    /// An operator's interrupt.
    pub cancel: CancelToken,
    /// How far it is.
    pub progress: Arc<JobProgress>,
    /// [`Settings::hash`](crate::config::Settings::hash), for the other nodes.
    pub config_hash: String,
    /// What the leases of this process have in common.
    pub leases: LeaseSessions,
    /// What this process remembers of its repositories, whatever becomes of the state directory.
    pub memory: ProcessMemory,
    /// What is around it.
    pub inputs: NodeInputs,
}

/// What a node finds around itself: evidence for its probes, and content for its backups.
#[derive(Debug, Clone)]
pub struct NodeInputs {
    /// What its probes ask.
    pub probes: Arc<dyn ProbeRunner>,
    /// Content that is brought along instead of being read from a role's sources.
    pub content: Option<Arc<dyn InlineContent>>,
}

impl Default for NodeInputs {
    /// This host, and its files.
    fn default() -> Self {
        Self { probes: Arc::new(HostProbeRunner), content: None }
    }
}

impl NodeContext {
    /// What every command that it starts for a role gets to know, as far as it is known.
    pub fn probe_context(&self, role: &RoleSettings, term: Option<Term>, slot: Option<Timestamp>) -> CommandVariables {
        let (node, environment) = (self.node.name.clone(), role.environment.clone());
        CommandVariables { node, role: role.name.clone(), term, slot, environment }
    }
}
