//! The node and the process that do the work, with what they need for it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::config::RoleSettings;
use crate::env::Env;
use crate::ids::{InstanceId, Term};
use crate::job::local_state::process_memory::ProcessMemory;
use crate::job::node::leases::LeaseSessions;
use crate::job::node::progress::JobProgress;
use crate::journal::body::WriterNode;
use crate::journal::permit::Permit;
use crate::repo::entry::TreePath;
use crate::role::probe::{CommandVariables, HostProbeRunner, ProbeRunner};

/// One process of this node, in which jobs for roles run.
#[derive(Debug, Clone)]
pub struct NodeContext {
    /// Clock, randomness and files.
    pub env: Env,
    /// This node, as records name it.
    pub node: WriterNode,
    /// Instance ID of this process.
    pub instance: InstanceId,
    /// The state directory.
    pub state_dir: PathBuf,
    /// Set by the operator's interrupt.
    pub cancel: CancellationToken,
    /// Counters of the job's progress.
    pub progress: Arc<JobProgress>,
    /// [`Settings::hash`](crate::config::Settings::hash), published to the other nodes.
    pub config_hash: String,
    /// What the leases of this process share.
    pub leases: LeaseSessions,
    /// What this process remembers of its repositories, even if the state directory is lost.
    pub memory: ProcessMemory,
    /// Probes and content that the job takes from its host.
    pub inputs: NodeInputs,
}

/// Inputs of a node: evidence for its probes, and content for its backups.
#[derive(Debug, Clone)]
pub struct NodeInputs {
    /// Runs the probes.
    pub probes: Arc<dyn ProbeRunner>,
    /// Content that is passed in memory instead of being read from a role's sources.
    pub content: Option<Arc<dyn InlineContent>>,
}

impl Default for NodeInputs {
    /// The probes of this host, and its files.
    fn default() -> Self {
        Self { probes: Arc::new(HostProbeRunner), content: None }
    }
}

impl NodeContext {
    /// Variables for each command that is started for a role; `term` and `slot` if known.
    pub fn probe_context(&self, role: &RoleSettings, term: Option<Term>, slot: Option<Timestamp>) -> CommandVariables {
        let (node, environment) = (self.node.name.clone(), role.environment.clone());
        CommandVariables { node, role: role.name.clone(), term, slot, environment }
    }
}

/// Content that is passed in memory.
pub trait InlineContent: Debug + Send + Sync {
    /// Resolves when the files can be read. For content that hangs it never does.
    fn ready(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// The current files, for a run under this permit.
    fn files(&self, permit: &Permit) -> BTreeMap<TreePath, Bytes>;
}
