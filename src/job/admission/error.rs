//! Errors of a guarded run.

use crate::ids::RoleName;
use crate::job::backup::BackupError;
use crate::job::node::local_state::LockError;
use crate::job::repository::open::OpenError;
use crate::journal::log::AppendError;
use crate::repo::reader::RepositoryReadError;
use crate::store::proof::ProofFailure;
use crate::store::{StoreError, StoreErrorKind};

/// Why a guarded run failed.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The store cannot be connected to.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The repository cannot be opened.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// The backup itself failed.
    #[error("{0}")]
    Backup(#[from] BackupError),
    /// The store does not keep the conditions that a lease needs.
    #[error("the store cannot hold the lease of role {role}: {error}")]
    LeaseProof {
        /// Role whose lease the store cannot hold.
        role: RoleName,
        /// How the store broke the condition.
        error: ProofFailure,
    },
    /// The proof was inconclusive: it is unknown whether the store can hold the lease.
    #[error("it is unknown whether the store can hold the lease of role {role}: {error}")]
    LeaseUnproved {
        /// Role whose lease the store was to hold.
        role: RoleName,
        /// Answer or failure that left the proof inconclusive.
        error: ProofFailure,
    },
    /// `lease = "bucket"` where the journal is in etcd.
    #[error("role {role} has its journal in etcd, so its lease cannot be in the bucket")]
    LeaseInBucket {
        /// Role whose lease is configured in the bucket.
        role: RoleName,
    },
    /// `lease = "bucket"` where the bucket's object lock retains every version.
    #[error(
        "the bucket locks each version of an object for {time} by default, and the lease of role {role} would leave one with each renewal"
    )]
    LeaseLocked {
        /// Role whose lease is configured in the bucket.
        role: RoleName,
        /// Default retention of a version, as the bucket reports it.
        time: String,
    },
    /// `lease = "etcd"` without an etcd.
    #[error("role {role} has its lease in etcd, and none is configured")]
    NoEtcd {
        /// Role whose lease is configured in etcd.
        role: RoleName,
    },
    /// `--scheduled` for a role without a schedule.
    #[error("role {role} has no schedule")]
    NoSchedule {
        /// Role that has no schedule.
        role: RoleName,
    },
    /// The schedule of the role is invalid.
    #[error("the schedule of role {role}: {why}")]
    Schedule {
        /// Role whose schedule is invalid.
        role: RoleName,
        /// What is wrong with the schedule.
        why: String,
    },
}

impl GuardError {
    /// Whether the store has no room left.
    pub fn is_no_space(&self) -> bool {
        matches!(
            self,
            Self::Store(error)
            | Self::Backup(
                BackupError::Store(error)
                | BackupError::Repo(RepositoryReadError::Store(error))
                | BackupError::Append(AppendError::Store { error, .. }),
            ) if error.kind == StoreErrorKind::NoSpace
        )
    }

    /// Whether this node's own state cannot be read or written.
    pub(crate) fn is_local_state(&self) -> bool {
        matches!(self, Self::Backup(BackupError::State { .. } | BackupError::Lock(LockError::Io { .. })))
    }

    /// The error for a failed proof of the lease of `role`. A request that failed says nothing about the conditions, so
    /// it stays a store error.
    pub(crate) fn of_lease_proof(role: &RoleName, failure: ProofFailure) -> Self {
        match failure.into_definite() {
            Ok(error) if error.is_certain() => Self::LeaseProof { role: role.clone(), error },
            Ok(error) => Self::LeaseUnproved { role: role.clone(), error },
            Err(error) => Self::Store(error),
        }
    }
}
