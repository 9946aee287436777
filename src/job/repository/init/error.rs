//! Errors of `init`.

use std::path::PathBuf;

use crate::ids::{RepoId, RoleName};
use crate::job::repository::open::OpenError;
use crate::journal::error::EtcdHeadError;
use crate::journal::register::RegisterError;
use crate::store::StoreError;
use crate::store::proof::ProofFailure;

/// Why `init` did not create a repository.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The repository that is there cannot be opened.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// A request to the store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// No repository is there, although this node knows one.
    #[error("{store} has no repository of role {role}, and this node knows one there ({repository})")]
    Gone {
        /// Store in which the repository is missing.
        store: String,
        /// Role of the missing repository.
        role: RoleName,
        /// ID of the missing repository.
        repository: RepoId,
    },
    /// It is unknown whether this node knows a repository there.
    #[error(
        "this node's note on the repository in {store} cannot be read, so it is unknown whether one is missing \
         there: {error}"
    )]
    Unread {
        /// Store whose known repository cannot be read.
        store: String,
        /// Error of reading the state directory.
        error: std::io::Error,
    },
    /// The prefix holds something other than a repository.
    #[error("{store} holds {key}, but no repository: refusing to make one over it")]
    NotEmpty {
        /// Store with the foreign objects.
        store: String,
        /// Key of the first object that was found.
        key: String,
    },
    /// The store does not keep the conditions that a journal needs.
    #[error("{store} cannot hold a journal: {failure}")]
    Proof {
        /// Store that failed the proof.
        store: String,
        /// How the store broke the condition.
        failure: ProofFailure,
    },
    /// The proof was inconclusive: it is unknown whether the store can hold a journal.
    #[error("it is unknown whether {store} can hold a journal: {failure}")]
    Unproved {
        /// Store whose proof was inconclusive.
        store: String,
        /// Answer or failure that left the proof inconclusive.
        failure: ProofFailure,
    },
    /// The journal cannot be in the place that the config or `format` names.
    #[error("{0}")]
    EtcdHead(#[from] EtcdHeadError),
    /// A request to etcd failed.
    #[error("{0}")]
    Register(#[from] RegisterError),
    /// The key file could not be created.
    #[error("{}: {error}", path.display())]
    KeyFile {
        /// Path of the key file.
        path: PathBuf,
        /// Error of the operating system.
        error: std::io::Error,
    },
    /// A key from `key export` opens one repository and cannot create one.
    #[error("{} holds the exported key of one repository; a new one needs a key file or a passphrase", .0.display())]
    ExportedKey(PathBuf),
    /// It is unknown whether an object was written.
    #[error("it is unknown whether {key} was written: {why}")]
    Unknown {
        /// Key of the object.
        key: String,
        /// What came instead of an answer.
        why: String,
    },
}
