//! Errors of `verify`, `audit` and `repair`.

use crate::cli::error_hints::policy::{CommandPolicy, ErrorPolicy, PLAIN, failed};
use crate::cli::error_hints::store::TOO_MANY_SLOTS;
use crate::job::repair::error::RepairError;
use crate::job::repository::open::OpenError;
use crate::job::verify::error::VerifyError;
use crate::journal::repair::SalvageError;

impl CommandPolicy for VerifyError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            VerifyError::Open(error) => error.policy(),
            VerifyError::Store(error) => error.policy(),
            VerifyError::Rotated(error) => error.policy(),
            // Their own text says to update.
            VerifyError::Newer { .. } | VerifyError::NotUnderstood(_) => PLAIN,
            VerifyError::Broken(_) => failed("run it again with -vv and report what it logs."),
        }
    }
}

impl CommandPolicy for RepairError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            RepairError::UntriedSlots { .. } | RepairError::Open(OpenError::WrongSecret { untried: 1.., .. }) => {
                failed(TOO_MANY_SLOTS)
            }
            RepairError::Open(OpenError::NoKeySlots { .. } | OpenError::WrongSecret { .. }) => failed(
                "keep the store as it is. A key from 'runner key export', or another node that has opened the repository \
                 before, can open it.",
            ),
            RepairError::Open(OpenError::NoRepository { .. }) => failed(
                "check [store] url and whether the disk is mounted. `format` comes back on a node that has made a backup there, or by \
                 a key that opens one of the key slots.",
            ),
            RepairError::Open(error) => error.policy(),
            RepairError::Store(error) | RepairError::Mend(SalvageError::Store(error)) => error.policy(),
            RepairError::Mend(SalvageError::Newer { .. }) => PLAIN,
            RepairError::Mend(SalvageError::TooMany { .. }) => failed(
                "keep the store as it is, and find out who changed it. The administrator of the store can move an object \
                 away that is no record of this journal. If the store is an old copy, 'runner restore --salvage' writes \
                 what is whole.",
            ),
            RepairError::Journal(error) | RepairError::Mend(SalvageError::Rotated(error)) => error.policy(),
            RepairError::Busy(_) => {
                failed("run it again. If the role's slots follow each other closely, run 'runner pause ROLE' first.")
            }
            RepairError::Append(error) => error.policy(),
            RepairError::Operate(error) => error.policy(),
            RepairError::Register(error) => error.policy(),
            RepairError::NoHead(_) => {
                failed("bring back the etcd that has the head, or run the repair on a node that remembers `format`.")
            }
            RepairError::Proof { .. } => failed(
                "write [etcd] into the config if the journal was there; otherwise find out what changed in the store's server.",
            ),
            RepairError::Put(error) => error.policy(),
            RepairError::Read(error) => error.policy(),
            RepairError::Packs(error) => error.policy(),
        }
    }
}
