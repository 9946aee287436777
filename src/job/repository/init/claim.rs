//! One `format` for several nodes that create a repository at the same time, in a store that would accept each of
//! theirs.
//!
//! The claim is a register that is empty except during an `init`. A process that finds a `format` in it puts that one
//! into the store, unless the store has one already, and empties the register. So a late or interrupted `init` changes
//! nothing that others already use, and a store that was emptied can be used again.

use std::time::Duration;

use bytes::Bytes;

use crate::ids::RoleName;
use crate::job::repository::init::error::InitError;
use crate::job::repository::init::new_object::{PUT_ATTEMPTS, put_new};
use crate::job::repository::journal_access::JournalAccess;
use crate::job::repository::open::OpenError;
use crate::journal::error::EtcdHeadError;
use crate::journal::register::{self, CasOutcome, Register};
use crate::repo::format::RepositoryFormat;
use crate::repo::object_keys;
use crate::store::{SizeLimit, Store};

/// Pause before etcd is asked again.
const ASK_PAUSE: Duration = Duration::from_millis(200);

/// Puts the one `format` that etcd chooses among those that are put at the same time. Returns whether the stored one is
/// `ours`.
pub(super) async fn put_chosen(
    store: &dyn Store,
    role: &RoleName,
    journal_access: &JournalAccess,
    ours: Bytes,
) -> Result<bool, InitError> {
    let claim = journal_access.creation_register(role).ok_or_else(|| EtcdHeadError::NoEtcd { role: role.clone() })?;
    let chosen = claimed(claim.as_ref(), &ours).await?;
    let key = object_keys::format(role);
    if let Err(error) = store.get(&key, SizeLimit::FORMAT).await {
        if !error.is_not_found() {
            return Err(error.into());
        }
        let format =
            RepositoryFormat::parse(&chosen, role).map_err(|error| OpenError::Format { role: role.clone(), error })?;
        let head = journal_access.register(&register::head_name(format.repo));
        let head = head.ok_or_else(|| EtcdHeadError::NoEtcd { role: role.clone() })?;
        // The head exists before the repository can be opened: a process that opens it finds a journal without records.
        written(head.as_ref()).await?;
        put_new(store, &key, chosen.to_vec()).await?;
    }
    if let Err(error) = claim.compare_and_swap(Some(&chosen), Bytes::new()).await {
        tracing::warn!("the claim of this init stays in etcd: {error}");
    }
    Ok(store.get(&key, SizeLimit::FORMAT).await? == ours)
}

/// The `format` in the claim: `ours`, unless another one is there.
async fn claimed(claim: &dyn Register, ours: &Bytes) -> Result<Bytes, InitError> {
    let mut last = String::new();
    for _ in 0..PUT_ATTEMPTS {
        let there = claim.read().await?.value;
        match there {
            Some(chosen) if !chosen.is_empty() => return Ok(chosen),
            free => {
                if let CasOutcome::Unknown { why } = claim.compare_and_swap(free.as_ref(), ours.clone()).await? {
                    last = why;
                    tokio::time::sleep(ASK_PAUSE).await;
                }
            }
        }
    }
    Err(InitError::Unknown { key: "the claim in etcd".to_owned(), why: last })
}

/// Creates the head of a journal without records, if there is none.
async fn written(head: &dyn Register) -> Result<(), InitError> {
    let mut last = String::new();
    for _ in 0..PUT_ATTEMPTS {
        match head.compare_and_swap(None, Bytes::new()).await? {
            CasOutcome::Swapped | CasOutcome::Mismatch(_) => return Ok(()),
            CasOutcome::Unknown { why } => last = why,
        }
        tokio::time::sleep(ASK_PAUSE).await;
    }
    Err(InitError::Unknown { key: "the head in etcd".to_owned(), why: last })
}
