//! Which lease a role has, ready to be asked.

use std::sync::Arc;

use crate::config::{Lease, RoleSettings};
use crate::env::Env;
use crate::ids::{InstanceId, NodeId};
use crate::job::backup::Runner;
use crate::job::guard::GuardError;
use crate::job::repository::Repository;
use crate::repo::names;
use crate::role::lease::bucket::BucketLease;
use crate::role::lease::{LeaseHolder, LeaseService};
use crate::store::{Store, proof};

/// Tries whether the store can hold the lease of `role`, if that is where it belongs. Once, at `init`.
///
/// # Errors
/// It cannot.
pub async fn prove(role: &RoleSettings, repository: &Repository, env: &Env) -> Result<(), GuardError> {
    if role.lease != Lease::Bucket {
        return Ok(());
    }
    proof::prove_replace(repository.store.as_ref(), &names::lease_probe(&role.name), env)
        .await
        .map_err(|error| GuardError::LeaseProof { role: role.name.clone(), error })
}

/// The lease of `role`, to be asked for by this process.
///
/// # Errors
/// The store fails the proof of compare-and-set.
pub async fn of_role(
    runner: &Runner,
    role: &RoleSettings,
    repository: &Repository,
) -> Result<Box<dyn LeaseService>, GuardError> {
    let (store, probe) = (&repository.store, names::lease_probe(&role.name));
    proof::check_replace(store.as_ref(), &probe, &runner.env)
        .await
        .map_err(|error| GuardError::LeaseProof { role: role.name.clone(), error })?;
    let me = LeaseHolder { node: runner.node.id, label: runner.node.name.clone(), instance: runner.instance };
    Ok(Box::new(in_bucket(store, role, &runner.env, me)))
}

/// The lease object in the role's bucket.
pub fn in_bucket(store: &Arc<dyn Store>, role: &RoleSettings, env: &Env, me: LeaseHolder) -> BucketLease {
    BucketLease::new(store.clone(), names::lease(&role.name), env.clone(), me, role.bucket_lease_ttl)
}

/// Somebody who only looks.
pub fn nobody(env: &Env) -> LeaseHolder {
    let (node, instance) = (NodeId(env.random_bytes()), InstanceId(env.random_bytes()));
    LeaseHolder { node, label: String::new(), instance }
}
