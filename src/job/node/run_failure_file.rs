//! The file in the state directory with the last failures of a role's runs.

use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::ids::RoleName;
use crate::job::local_state::run_failure::{RunFailure, UnsavedFailures};
use crate::job::node::context::NodeContext;
use crate::job::report::run_summary::RunStep;

/// File in which one role's failure is kept.
#[derive(Debug, Clone)]
pub(crate) struct RunFailureFile {
    env: Env,
    role: RoleName,
    pub(crate) path: PathBuf,
    unwritten: UnsavedFailures,
}

impl RunFailureFile {
    /// For `role`, on the node of `node_context`.
    pub(crate) fn of_node(node_context: &NodeContext, role: &RoleName) -> Self {
        let unwritten = node_context.memory.failures();
        Self { unwritten, ..Self::at(&node_context.env, &node_context.state_dir, role) }
    }

    /// The same for a command that only reads.
    pub(crate) fn at(env: &Env, state_dir: &Path, role: &RoleName) -> Self {
        let path = state_dir.join("failures").join(format!("{role}.json"));
        Self { env: env.clone(), role: role.clone(), path, unwritten: UnsavedFailures::default() }
    }

    /// The failure since the last commit here; `None` with a warning if it cannot be read.
    pub(crate) fn load(&self) -> Option<RunFailure> {
        self.try_load().unwrap_or_else(|error| {
            tracing::warn!("the result of the last run cannot be read: {}: {error}", self.path.display());
            None
        })
    }

    /// The same for a caller that reports the error itself.
    pub(crate) fn try_load(&self) -> std::io::Result<Option<RunFailure>> {
        let unwritten = self.unwritten.all().get(&self.role).cloned();
        unwritten.map_or_else(|| self.env.read_json(&self.path), Ok)
    }

    /// Adds a failure.
    pub(crate) fn add(&self, failure: RunFailure) {
        let failure = failure.after(self.load().as_ref());
        let kept = serde_json::to_vec(&failure).map_err(std::io::Error::other).and_then(|bytes| {
            if let Some(dir) = self.path.parent() {
                self.env.files.make_dir(dir)?;
            }
            self.env.files.replace(&self.path, &bytes)
        });
        let mut unwritten = self.unwritten.all();
        match kept {
            Ok(()) => drop(unwritten.remove(&self.role)),
            Err(error) => {
                if unwritten.insert(self.role.clone(), Some(failure)).is_none() {
                    tracing::warn!("the failure of the run cannot be saved: {}: {error}", self.path.display());
                }
            }
        }
    }

    /// Forgets the failure after a commit.
    pub(crate) fn clear(&self) {
        let mut unwritten = self.unwritten.all();
        match self.env.files.remove(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::debug!("{}: {error}", self.path.display());
                unwritten.insert(self.role.clone(), None);
            }
            _ => drop(unwritten.remove(&self.role)),
        }
    }

    /// Forgets a failure to reach the lease, because it has been answered.
    pub(crate) fn clear_doubt(&self) {
        if self.load().is_some_and(|failure| failure.is_doubt()) {
            self.clear();
        }
    }

    /// Forgets a failure to take over, because the role has been taken over.
    pub(crate) fn clear_takeover(&self) {
        if self.load().is_some_and(|failure| failure.step == RunStep::Takeover) {
            self.clear();
        }
    }
}
