//! The beat of whoever works without a lease: one small object below `live/` that changes while a run goes on, however long the run
//! takes and however little it commits. A node that would take the role from a silent holder looks whether it is.
//!
//! It proves nothing: the journal fences. It only keeps a healthy long upload from being taken for a dead node.

use std::time::Duration;

use bytes::Bytes;

use crate::config::{Lease, RoleSettings};
use crate::env::Task;
use crate::ids::Digest;
use crate::job::repository::Repository;
use crate::job::runner::Runner;
use crate::repo::names;
use crate::store::{SizeLimit, Store, StoreError};

/// How often it changes: four times within the silence that others wait for, between these.
const PART: u32 = 4;
const INTERVAL: (Duration, Duration) = (Duration::from_millis(200), Duration::from_mins(1));

/// Beats until it is dropped.
#[derive(Debug)]
pub struct Beat(Option<Task<()>>);

impl Beat {
    /// Beats for a role that has no lease; for one that has, the lease does.
    pub fn start(runner: &Runner, role: &RoleSettings, repository: &Repository) -> Self {
        if role.lease != Lease::None {
            return Self(None);
        }
        let (runner, store, key) = (runner.clone(), repository.store.clone(), names::beat(&role.name));
        let interval = (role.takeover_after / PART).clamp(INTERVAL.0, INTERVAL.1);
        let env = runner.env.clone();
        Self(Some(env.spawn(async move {
            loop {
                // A run that is shorter than that needs no beat.
                runner.env.sleep(interval).await;
                let value = serde_json::json!({
                    "node": runner.node.id, "name": runner.node.name, "instance": runner.instance,
                    "time": runner.env.clock.now(), "n": hex::encode(runner.env.random_bytes::<8>()),
                });
                if let Err(error) = store.put(&key, Bytes::from(format!("{value}\n"))).await {
                    tracing::debug!("the beat: {error}");
                }
            }
        })))
    }
}

impl Drop for Beat {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// The beat as it is now, to be compared with what it was; the same for none and for one that was never there.
///
/// # Errors
/// The store.
pub async fn look(store: &dyn Store, role: &RoleSettings) -> Result<Digest, StoreError> {
    match store.get(&names::beat(&role.name), SizeLimit::LIVE).await {
        Ok(bytes) => Ok(Digest(*blake3::hash(&bytes).as_bytes())),
        Err(error) if error.is_not_found() => Ok(Digest([0; 32])),
        Err(error) => Err(error),
    }
}
