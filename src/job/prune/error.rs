//! Errors of a prune.

use crate::ids::{Digest, RoleName};
use crate::job::error::{BackupError, GuardError};
use crate::repo::reader::RepositoryReadError;
use crate::store::StoreError;

/// Why a prune did not complete.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The role keeps all snapshots.
    #[error("role {0} keeps every snapshot: its config has no keep")]
    KeepsAll(RoleName),
    /// Content that a kept snapshot needs cannot be read: nothing was changed.
    #[error("snapshot {snapshot} cannot be read whole, so nothing is pruned: {error}")]
    Damaged {
        /// The kept snapshot.
        snapshot: Digest,
        /// The failed read.
        error: RepositoryReadError,
    },
    /// The index cannot be read: nothing was changed.
    #[error("the index cannot be read, so nothing is pruned: {0}")]
    Index(RepositoryReadError),
    /// Reading the content that is moved to new packs failed.
    #[error("{0}")]
    Read(#[from] RepositoryReadError),
    /// Appending to the journal, or preparing the run, failed.
    #[error("{0}")]
    Session(#[from] BackupError),
    /// This node could not be admitted to work for the role.
    #[error("{0}")]
    Guard(#[from] GuardError),
    /// A request to the store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The store is full: nothing was deleted.
    #[error(
        "a prune writes its index and its record before it deletes, and there is no room for their {needed} bytes: {error}"
    )]
    NoRoom {
        /// Bytes that the index and the record need.
        needed: u64,
        /// The store's error.
        error: StoreError,
    },
    /// The store's credentials are append-only.
    #[error(
        "the snapshots are forgotten, but these credentials may not delete: no space is freed until prune is run with credentials that may ({0})"
    )]
    MayNotDelete(StoreError),
}
