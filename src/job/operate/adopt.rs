//! `journal adopt`: restores the head in etcd of a journal. The store has all records; only the head is lost.

use crate::job::operate::{OperateReport, OperatorContext, RoleChange};
use crate::job::repository::open::Repository;
use crate::journal::error::AppendError;
use crate::journal::etcd_head::AdoptOutcome;
use crate::repo::format::JournalLocation;

/// Sets the head to the store's last record, by a takeover of this node. Safe to repeat, and on several nodes at once.
///
/// # Errors
/// Etcd or the store fails, or the store itself lost records.
pub async fn adopt(operator: &OperatorContext<'_>, repository: &Repository) -> Result<OperateReport, AppendError> {
    let role = repository.role().clone();
    if repository.format.journal == JournalLocation::Bucket {
        return Ok(OperateReport { role, change: RoleChange::JournalInBucket });
    }
    let (journal, known) = operator.journal(repository)?;
    Ok(match journal.adopt(known.as_ref()).await? {
        AdoptOutcome::Unneeded(_) => OperateReport { role, change: RoleChange::HeadSound },
        AdoptOutcome::Adopted { was, view } => {
            let head = view.head.as_ref().map(|head| head.seq);
            OperateReport {
                role,
                change: RoleChange::Adopted { was, seq: head.expect("it has a takeover"), term: view.term() },
            }
        }
    })
}
