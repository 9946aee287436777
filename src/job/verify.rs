//! `verify`: checks that everything the journal names exists, and is what was written.
//!
//! The structure is always checked: `format`, key slots, every journal record from the first one on, every index
//! object, every pack by name and size, every manifest. With `read_percent` the content of packs is checked too, down
//! to each chunk's keyed hash. Damage never ends the check: it is recorded, what depends on it is set aside, and the
//! rest is checked. Only a store that does not answer ends it early, because then nothing can be said.
//!
//! It changes nothing, so it may be ended at any moment by dropping it. Memory grows with the number of chunks like
//! every reader's index (48 bytes each), never with the number of files or the size of the content.

mod affected;
pub(in crate::job) mod content;
pub(crate) mod damage_log;
pub mod error;
pub(crate) mod history;
mod inventory;
mod manifests;

use std::sync::Arc;
use std::time::Duration;

use damage_log::DamageLog;
use inventory::StoreInventory;

use crate::config::KeySource;
use crate::env::Env;
use crate::ids::{ChunkId, IndexId, RepoId, RoleName};
use crate::job::node::progress::{JobPhase, JobProgress};
use crate::job::report::verified::{AffectedFile, DamageKind, VerifyCounts, VerifyReport};
use crate::job::repository::open::{self, OpenError, Repository, StoredKeySlot};
use crate::job::repository::read_only::read_only_journal;
use crate::job::verify::error::{MISSING, VerifyError, object_trouble};
use crate::journal::state::Snapshot;
use crate::journal::view::JournalView;
use crate::repo::format::FormatError;
use crate::repo::keyslot::KeySlotError;
use crate::repo::object_keys;
use crate::repo::reader::{IndexCache, RepositoryReadError, RepositoryReader, load_index};
use crate::store::counting::CountingStore;
use crate::store::{Store, StoreError};

/// Returns this node's last view of a repository's journal, if it has one: only this view shows that the newest records
/// were removed.
pub type RememberedView<'a> = &'a (dyn Fn(RepoId) -> Option<JournalView> + Send + Sync);

/// Checks one role's repository. `read_percent` of the packs, chosen at random, are read and hashed; 0: none.
///
/// # Errors
/// An error that prevents the check. Damage is in the report.
pub async fn verify(
    store: Arc<dyn Store>,
    role: &RoleName,
    key: &KeySource,
    read_percent: u8,
    remembered: RememberedView<'_>,
    progress: &JobProgress,
    env: &Env,
) -> Result<VerifyReport, VerifyError> {
    let started = env.clock.boottime();
    let (store, counters) = CountingStore::new(store);
    let store: Arc<dyn Store> = Arc::new(store);
    let mut found = DamageLog::default();
    let mut checked = VerifyCounts::default();
    match Repository::open(store.clone(), role, key).await {
        Ok(repository) => {
            progress.enter(JobPhase::Verify);
            let known = remembered(repository.keys.repo());
            checked = check(&repository, read_percent, known.as_ref(), progress, env, &mut found).await?;
        }
        Err(error) => report_open_failure(store.as_ref(), role, error, &mut found).await?,
    }
    checked.bytes_read = counters.snapshot().bytes_down;
    progress.enter(JobPhase::Done);
    let duration: Duration = env.clock.boottime().saturating_sub(started);
    let losses = found.losses.clone();
    let (damages, damage_count) = found.into_damages();
    Ok(VerifyReport { role: role.clone(), checked, read_percent, duration, damages, damage_count, losses })
}

async fn check(
    repository: &Repository,
    read_percent: u8,
    known: Option<&JournalView>,
    progress: &JobProgress,
    env: &Env,
    found: &mut DamageLog,
) -> Result<VerifyCounts, VerifyError> {
    check_slots(repository.store.as_ref(), repository.role(), found).await?;
    let extent = history::find_extent(repository, known).await?;
    let history = history::read(repository, known, &extent, None, found, &mut |_, _| ()).await?;
    if let Some(wrong) = read_only_journal(repository, env).wrong_copy(&history.state).await? {
        found.damage(DamageKind::RotationCopy, wrong.key, &wrong.what);
    }
    let snapshots = &history.state.snapshots;
    let StoreInventory { index, packs, unreferenced } = inventory::check_inventory(repository, &history, found).await?;
    let pack_count = packs.len() as u64;
    let reader = RepositoryReader::new(repository.store.clone(), repository.keys.clone(), Arc::new(index));
    let chunks = manifests::check(&reader, repository.role(), snapshots, progress, found).await?;
    if read_percent > 0 {
        let named = (history.state.indexes.as_slice(), reader.index());
        content::check(repository, named, &packs, read_percent, progress, env, found).await?;
    }
    affected::find(&reader, snapshots, found).await?;
    Ok(VerifyCounts {
        records: history.records,
        snapshots: snapshots.len() as u64,
        indexes: history.state.indexes.len() as u64,
        packs: pack_count,
        chunks,
        bytes_read: 0,
        unreferenced: unreferenced + history.foreign_objects,
    })
}

/// The entries of `snapshots` that need these lost chunks: the first of them by name, and their number.
///
/// # Errors
/// The store does not answer.
pub(crate) async fn affected_entries(
    repository: &Repository,
    indexes: &[IndexId],
    snapshots: &[Snapshot],
    index_cache: &IndexCache,
    chunks: &[ChunkId],
) -> Result<(Vec<AffectedFile>, u64), VerifyError> {
    let (store, keys) = (&repository.store, &repository.keys);
    let index = load_index(store.as_ref(), keys, indexes, Some(index_cache)).await.map_err(|error| match error {
        RepositoryReadError::Store(error) => VerifyError::Store(error),
        error => VerifyError::Broken(error.to_string()),
    })?;
    let reader = RepositoryReader::new(store.clone(), keys.clone(), Arc::new(index));
    let mut found = DamageLog::default();
    let number = found.damage(DamageKind::Pack, object_keys::packs_prefix(repository.role()), MISSING);
    for chunk in chunks {
        found.lose_chunk(*chunk, number);
    }
    affected::find(&reader, snapshots, &mut found).await?;
    let (damages, _) = found.into_damages();
    Ok(damages.into_iter().next().map(|damage| (damage.affected, damage.affected_count)).unwrap_or_default())
}

/// Slots that another secret opens are checked by their names: damage must be found before that secret is needed.
async fn check_slots(store: &dyn Store, role: &RoleName, found: &mut DamageLog) -> Result<(), VerifyError> {
    for StoredKeySlot { id, slot, .. } in open::list_key_slots(store, role).await?.found {
        if let Err(error @ (KeySlotError::Damaged(_) | KeySlotError::Excessive { .. })) = slot {
            found.damage(DamageKind::Key, object_keys::key(role, id), &error.to_string());
        }
    }
    Ok(())
}

/// Separates damage that prevents opening, which is reported, from all other errors, which are returned.
async fn report_open_failure(
    store: &dyn Store,
    role: &RoleName,
    error: OpenError,
    found: &mut DamageLog,
) -> Result<(), VerifyError> {
    match &error {
        OpenError::Format { error: what @ (FormatError::Damaged(_) | FormatError::Forged), .. } => {
            found.damage(DamageKind::Format, object_keys::format(role), &what.to_string());
        }
        OpenError::NoRepository { .. } if holds_data(store, role).await? => {
            found.damage(DamageKind::Format, object_keys::format(role), MISSING);
        }
        OpenError::WrongSecret { .. } | OpenError::NoKeySlots { .. } => {
            check_slots(store, role, found).await?;
            if store.list(&object_keys::keys_prefix(role), None, 1).await?.objects.is_empty() {
                found.damage(DamageKind::Key, object_keys::keys_prefix(role), "holds no key slot");
            }
        }
        OpenError::Store(error) if error.key.is_some() => {
            let key = error.key.clone().unwrap_or_default();
            let what = object_trouble(error.clone())?;
            found.damage(DamageKind::Format, key, &what);
        }
        _ => {}
    }
    if found.is_empty() { Err(error.into()) } else { Ok(()) }
}

/// Whether the store has objects that only a complete repository has.
async fn holds_data(store: &dyn Store, role: &RoleName) -> Result<bool, StoreError> {
    for prefix in [object_keys::journal_prefix(role), object_keys::packs_prefix(role), object_keys::index_prefix(role)]
    {
        if !store.list(&prefix, None, 1).await?.objects.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}
