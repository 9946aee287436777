//! Which lease a role has, ready to be asked.

use std::time::Duration;

use crate::config::{Lease, RoleSettings};
use crate::env::Env;
use crate::ids::RoleName;
use crate::job::backup::Runner;
use crate::job::guard::GuardError;
use crate::job::repository::Repository;
use crate::repo::names;
use crate::role::lease::bucket::BucketLease;
use crate::role::lease::{LeaseHolder, LeaseService};
use crate::store::proof::{self, ProofFailure};

/// The lease of `role`, to be asked for by this process.
///
/// # Errors
/// The store fails the proof of compare-and-set.
pub async fn of_role(
    runner: &Runner,
    role: &RoleSettings,
    repository: &Repository,
) -> Result<Box<dyn LeaseService>, GuardError> {
    prove(&repository.store, &role.name, &runner.env)
        .await
        .map_err(|error| GuardError::LeaseProof { role: role.name.clone(), error })?;
    let me =
        LeaseHolder { node: runner.node.id, label: runner.node.name.clone(), instance: runner.instance };
    let (store, env) = (repository.store.clone(), runner.env.clone());
    Ok(Box::new(BucketLease::new(store, names::lease(&role.name), env, me, role.bucket_lease_ttl)))
}
