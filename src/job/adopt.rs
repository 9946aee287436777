//! `journal adopt`: lets a journal go on whose head in etcd is gone. The store has all of it; what is lost is only who decides.

use crate::job::operate::{Acted, Change, Operator};
use crate::job::repository::Repository;
use crate::journal::log::AppendError;
use crate::journal::seat::Adopted;
use crate::repo::format::JournalHome;

/// Makes the head again from the store's last record, by a takeover of this node's. Safe to repeat, and on several nodes at once.
///
/// # Errors
/// Etcd or the store; the store itself lost records.
pub async fn adopt(operator: &Operator<'_>, repository: &Repository) -> Result<Acted, AppendError> {
    let role = repository.role().clone();
    if repository.format.journal == JournalHome::Bucket {
        return Ok(Acted { role, change: Change::InStore });
    }
    let (journal, known) = operator.journal(repository)?;
    Ok(match journal.adopt(known.as_ref()).await? {
        Adopted::Sound(_) => Acted { role, change: Change::Sound },
        Adopted::Taken { was, view } => {
            let head = view.head.as_ref().map(|head| head.seq);
            Acted { role, change: Change::Adopted { was, seq: head.expect("it has a takeover"), term: view.term() } }
        }
    })
}
