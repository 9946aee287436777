//! Errors of commands that no other room has.

use std::error::Error as StdError;

use crate::foreign::bucket::BucketError;
use crate::ids::Digest;

/// Snapshots are left, but the journal vouches for none that the selector names.
#[derive(Debug, thiserror::Error)]
#[error(
    "the journal confirms no such snapshot. {count} more are named only by records from before a rotation of the \
     repository key, and no record after it continues them: a former holder of the key could have forged them. The \
     newest of them has the ID {newest}"
)]
pub(crate) struct UnvouchedError {
    /// Number of such snapshots.
    pub(super) count: usize,
    /// ID of the newest of them.
    pub(super) newest: Digest,
}

/// An error of any module.
pub(crate) type Error = Box<dyn StdError + Send + Sync>;

/// Wrong usage that is found only after the command line was parsed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct UsageError {
    /// The problem.
    pub message: String,
    /// What to write instead.
    pub hint: String,
}

/// A listing that cannot be audited.
#[derive(Debug, thiserror::Error)]
#[error("{source_name}: {error}")]
pub(crate) struct ForeignListingError {
    /// The bucket's URL or the file's name.
    pub(super) source_name: String,
    /// The error.
    pub(super) error: BucketError,
}

/// A signal of the operator ended the command.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;
