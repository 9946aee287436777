//! Errors of `verify`, and the words for an object that cannot be read.

use crate::ids::Seq;
use crate::job::repository::open::OpenError;
use crate::journal::error::JournalError;
use crate::journal::record::RecordError;
use crate::store::{ObjectMeta, Store, StoreError, StoreErrorKind, list_filtered};

/// The description of a missing object.
pub(crate) const MISSING: &str = "is missing";

/// Why the check could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The repository does not open, for a reason other than damage.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The store does not answer, or refuses this caller.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A newer version of the program wrote the record.
    #[error("journal record {seq} {error}")]
    Newer {
        /// The record's number.
        seq: Seq,
        /// What the record says of its version.
        error: RecordError,
    },
    /// The journal continues under a newer key than the given one.
    #[error(transparent)]
    Rotated(JournalError),
    /// A newer version of the program wrote records of unknown kinds. They decide what is live, so nothing can be
    /// called missing.
    #[error(
        "the journal has records of a kind that this version does not know ({0}). hint: update runner on this node"
    )]
    NotUnderstood(String),
    /// A thread ended unexpectedly.
    #[error("internal error: {0}")]
    Broken(String),
}

/// The description of an error that concerns one object; an error that concerns the whole store ends the check.
pub(crate) fn object_trouble(error: StoreError) -> Result<String, VerifyError> {
    match error.kind {
        StoreErrorKind::NotFound => Ok(MISSING.to_owned()),
        // For example a bad sector under one file of a directory store.
        StoreErrorKind::DiskFault | StoreErrorKind::Other => Ok(format!("cannot be read ({})", error.detail)),
        StoreErrorKind::TooLarge | StoreErrorKind::NotAnObject => Ok(format!("is {} ({})", error.kind, error.detail)),
        _ => Err(error.into()),
    }
}

/// Visits all objects under a prefix without holding more than a page of them.
pub(crate) async fn each_listed(
    store: &dyn Store,
    prefix: &str,
    mut look: impl FnMut(&ObjectMeta) + Send,
) -> Result<(), StoreError> {
    let pick = |object: ObjectMeta| -> Option<()> {
        look(&object);
        None
    };
    list_filtered(store, prefix, 0, pick).await.map(|_| ())
}
