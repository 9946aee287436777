//! The lease of a role as a run requests it, and the proof that the store can hold it.

use std::fmt::Debug;
use std::sync::Arc;

use crate::config::{LeaseKind, RoleSettings};
use crate::env::Env;
use crate::job::error::GuardError;
use crate::job::node::context::NodeContext;
use crate::job::repository::open::Repository;
use crate::repo::format::JournalLocation;
use crate::repo::object_keys;
use crate::role::lease::bucket::{BucketLease, ProcessObjects};
use crate::role::lease::{LeaseHolder, LeaseService};
use crate::store::{ObjectLock, Store, Versioning, proof};

/// Proves that the store can hold the lease of `role`, if the lease belongs into the bucket. Done once, at `init`.
///
/// # Errors
/// The store cannot hold the lease.
pub(crate) async fn prove_lease_store(
    role: &RoleSettings,
    repository: &Repository,
    env: &Env,
) -> Result<(), GuardError> {
    if role.lease != LeaseKind::Bucket {
        return Ok(());
    }
    require_bucket_journal(repository)?;
    if let Versioning::Kept { lock: ObjectLock::ByDefault { time } } = repository.store.versioning().await {
        return Err(GuardError::LeaseLocked { role: role.name.clone(), time });
    }
    proof::prove_replace(repository.store.as_ref(), &object_keys::lease_probe(&role.name), env)
        .await
        .map_err(|failure| GuardError::of_lease_proof(&role.name, failure))
}

/// How long a process holds its leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LeaseDuration {
    /// For one run.
    Run,
    /// As long as the process runs. All roles are renewed at once if the lease service can do that.
    Daemon,
}

/// The lease of `role`, for this process to request.
///
/// # Errors
/// The store fails the proof of compare-and-swap, or etcd is not configured.
pub(crate) async fn role_lease(
    node_context: &NodeContext,
    role: &RoleSettings,
    repository: &Repository,
    stay: LeaseDuration,
) -> Result<Box<dyn LeaseService>, GuardError> {
    if let Some(lender) = &node_context.leases.lender {
        return Ok(lender.lease(&role.name));
    }
    if role.lease == LeaseKind::Etcd {
        let lease = node_context.leases.etcd_lease(repository.keys.repo());
        return lease.ok_or_else(|| GuardError::NoEtcd { role: role.name.clone() });
    }
    require_bucket_journal(repository)?;
    let (store, probe) = (&repository.store, object_keys::lease_probe(&role.name));
    proof::check_replace(store.as_ref(), &probe, &node_context.env)
        .await
        .map_err(|failure| GuardError::of_lease_proof(&role.name, failure))?;
    let me = LeaseHolder {
        node: node_context.node.id,
        label: node_context.node.name.clone(),
        instance: node_context.instance,
    };
    let processes = Some(node_context.leases.processes()).filter(|_| stay == LeaseDuration::Daemon);
    Ok(Box::new(bucket_lease(store, role, &node_context.env, me, processes)))
}

/// A lease in the store needs the same conditions as a journal in the store, and a journal is in etcd because the store
/// lacks them.
fn require_bucket_journal(repository: &Repository) -> Result<(), GuardError> {
    match repository.format.journal {
        JournalLocation::Bucket => Ok(()),
        JournalLocation::Etcd { .. } => Err(GuardError::LeaseInBucket { role: repository.role().clone() }),
    }
}

/// The lease in the role's bucket. With `processes` it is renewed by the process object, otherwise by the lease object
/// itself.
pub fn bucket_lease(
    store: &Arc<dyn Store>,
    role: &RoleSettings,
    env: &Env,
    me: LeaseHolder,
    processes: Option<&ProcessObjects>,
) -> BucketLease {
    let object = (role.name.clone(), object_keys::lease(&role.name));
    BucketLease::new(store.clone(), object, env.clone(), me, role.bucket_lease_ttl, processes)
}
