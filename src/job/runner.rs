//! Who does the work on this node, and with what.

use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;

use crate::config::RoleSettings;
use crate::env::Env;
use crate::ids::{InstanceId, Term};
use crate::job::backup::Content;
use crate::job::cancel::Cancel;
use crate::job::lease::Sessions;
use crate::job::local::Memories;
use crate::job::progress::Progress;
use crate::journal::record::NodeRef;
use crate::role::probe::{Context, HostSenses, Senses};

/// One process of this node, as it works for its roles.
#[derive(Debug, Clone)]
pub struct Runner {
    /// Clock and randomness.
    pub env: Env,
    /// This node.
    pub node: NodeRef,
    /// This process.
    pub instance: InstanceId,
    /// Where this node keeps what it remembers.
    pub state_dir: PathBuf,
    /// An operator's interrupt.
    pub cancel: Cancel,
    /// How far it is.
    pub progress: Arc<Progress>,
    /// [`Settings::hash`](crate::config::Settings::hash), for the other nodes.
    pub config_hash: String,
    /// What the leases of this process have in common.
    pub sessions: Sessions,
    /// What this process remembers of its repositories, whatever becomes of the state directory.
    pub memories: Memories,
    /// What is around it.
    pub surroundings: Surroundings,
}

/// What a node finds around itself: evidence for its probes, and content for its backups.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// What its probes ask.
    pub senses: Arc<dyn Senses>,
    /// Content that is brought along instead of being read from a role's sources.
    pub content: Option<Arc<dyn Content>>,
}

impl Default for Surroundings {
    /// This host, and its files.
    fn default() -> Self {
        Self { senses: Arc::new(HostSenses), content: None }
    }
}

impl Runner {
    /// What every command that it starts for a role gets to know, as far as it is known.
    pub fn context(&self, role: &RoleSettings, term: Option<Term>, slot: Option<Timestamp>) -> Context {
        let (node, environment) = (self.node.name.clone(), role.environment.clone());
        Context { node, role: role.name.clone(), term, slot, environment }
    }
}
