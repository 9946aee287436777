//! Errors of a repair.

use std::time::Duration;

use crate::ids::RoleName;
use crate::job::error::BackupError;
use crate::job::operate::OperateError;
use crate::job::repository::init::error::InitError;
use crate::job::repository::open::OpenError;
use crate::journal::error::{AppendError, JournalError};
use crate::journal::register::RegisterError;
use crate::journal::repair::SalvageError;
use crate::repo::reader::RepositoryReadError;
use crate::store::StoreError;
use crate::store::proof::ProofFailure;

/// Why nothing was repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// The repository cannot be opened.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// A request to the store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// What is left of the journal cannot be determined, or is not a journal.
    #[error("{0}")]
    Mend(#[from] SalvageError),
    /// The journal cannot be opened or read.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// Other nodes appended to the journal during the whole time.
    #[error("other records were appended for {} s, so the repair found no free number", .0.as_secs())]
    Busy(Duration),
    /// The record of the repair could not be appended.
    #[error("{0}")]
    Append(#[from] AppendError),
    /// This node would get the role although it may not work for it.
    #[error("{0}")]
    Operate(#[from] OperateError),
    /// The request to etcd failed.
    #[error("{0}")]
    Register(#[from] RegisterError),
    /// `format` is lost, which says where the journal's head is.
    #[error("`format` of role {0} is lost, the config says that the journal is in etcd, and etcd has no head of it")]
    NoHead(RoleName),
    /// Not every key slot that could hold the key was tried.
    #[error(
        "`format` of role {role} is lost or unusable, and {untried} of its key slots were not tried: there are too many"
    )]
    UntriedSlots {
        /// The role of the repository.
        role: RoleName,
        /// The number of key slots that were not tried.
        untried: usize,
    },
    /// The store cannot keep the journal in the way that the lost `format` would have said.
    #[error(
        "`format` of role {role} is lost, no etcd has the head of its journal, and the store cannot hold it: {failure}"
    )]
    Proof {
        /// The role of the repository.
        role: RoleName,
        /// How the proof of the store failed.
        failure: ProofFailure,
    },
    /// `format` or the key slot could not be written.
    #[error("{0}")]
    Put(InitError),
    /// Content that has to be moved cannot be read.
    #[error("{0}")]
    Read(RepositoryReadError),
    /// Writing the packs of moved chunks failed.
    #[error("{0}")]
    Packs(#[from] BackupError),
}
