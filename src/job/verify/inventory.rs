//! Compares what should be in the store, by the journal and its index, with what is there.

use std::collections::{HashMap, HashSet};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::damage_log::DamageLog;
use super::history::JournalHistory;
use crate::ids::{IndexId, PackId};
use crate::job::report::verified::DamageKind;
use crate::job::repository::open::Repository;
use crate::job::verify::error::{MISSING, VerifyError, each_listed, object_trouble};
use crate::repo::index::{ChunkIndex, decode_index};
use crate::repo::object_keys;
use crate::repo::pack::PackTable;
use crate::store::{LargeReadLock, SizeLimit, get_with_large_read_lock};

/// Index objects fetched at the same time; each has about 9 MiB at most.
const INDEX_FETCHES: usize = 4;

/// Unlisted packs that are requested singly at the same time.
const LOOKS: usize = 8;

/// The objects that the journal names.
pub(super) struct StoreInventory {
    pub(super) index: ChunkIndex,
    /// Each pack with its expected size.
    pub(super) packs: HashMap<PackId, u64>,
    /// Number of packs and index objects in the store that nothing refers to, and of objects that are neither.
    pub(super) unreferenced: u64,
}

/// Reads the index and lists the packs.
pub(super) async fn check_inventory(
    repository: &Repository,
    history: &JournalHistory,
    found: &mut DamageLog,
) -> Result<StoreInventory, VerifyError> {
    let mut index = ChunkIndex::default();
    let mut packs = HashMap::new();
    let ids = &history.state.indexes;
    let turn = LargeReadLock::default();
    let turn = &turn;
    let mut tables = stream::iter(ids.clone())
        .map(|id| async move { Ok::<_, VerifyError>((id, load(repository, id, turn).await?)) })
        .buffered(INDEX_FETCHES);
    while let Some((id, tables)) = tables.try_next().await? {
        match tables {
            Ok(tables) => {
                for table in tables {
                    packs.insert(table.id, table.object_len());
                    index.add(&table);
                }
            }
            Err(what) => {
                let number = found.damage(DamageKind::Index, object_keys::index(repository.role(), id), &what);
                found.lose_index(number);
            }
        }
    }
    drop(tables);
    index.sort();
    let in_use = index.packs_in_use();
    // Objects condemned by a prune are deleted soon; one that is gone or still there is not damage.
    let role = repository.role();
    let condemned = history.state.condemned.iter().flat_map(|condemned| {
        let packs = condemned.packs.iter().map(|id| object_keys::pack(role, *id));
        packs.chain(condemned.indexes.iter().map(|id| object_keys::index(role, *id)))
    });
    let condemned: HashSet<String> = condemned.collect();
    let (strangers, replaced) = list_packs(repository, &packs, &in_use, &condemned, found).await?;
    packs.retain(|id, _| !replaced.contains(id));
    let unreferenced = strangers + unreferenced_indexes(repository, ids, &condemned).await?;
    Ok(StoreInventory { index, packs, unreferenced })
}

/// The tables of one index object, or what is wrong with it.
pub(super) async fn load(
    repository: &Repository,
    id: IndexId,
    turn: &LargeReadLock,
) -> Result<Result<Vec<PackTable>, String>, VerifyError> {
    let (key, limits) = (object_keys::index(repository.role(), id), (SizeLimit::INDEX_AHEAD, SizeLimit::INDEX));
    match get_with_large_read_lock(repository.store.as_ref(), &key, limits, turn).await {
        Ok((object, _turn)) => Ok(decode_index(&repository.keys, id, &object).map_err(|error| error.to_string())),
        Err(error) => object_trouble(error).map(Err),
    }
}

/// Checks that every pack exists with its size. Returns the number of other packs, and the packs that are missing or
/// cut short without a loss, because all their content was stored again.
async fn list_packs(
    repository: &Repository,
    packs: &HashMap<PackId, u64>,
    in_use: &HashSet<PackId>,
    condemned: &HashSet<String>,
    found: &mut DamageLog,
) -> Result<(u64, HashSet<PackId>), VerifyError> {
    let (store, role) = (repository.store.as_ref(), repository.role());
    let mut missing: HashSet<PackId> = packs.keys().copied().collect();
    let mut replaced = HashSet::new();
    let mut strangers = 0;
    each_listed(store, &object_keys::packs_prefix(role), |object| {
        let named = object_keys::parse_pack(role, &object.key).and_then(|id| Some((id, *packs.get(&id)?)));
        let Some((id, size)) = named else {
            strangers += u64::from(!condemned.contains(&object.key));
            return;
        };
        missing.remove(&id);
        if object.size != size && !in_use.contains(&id) {
            replaced.insert(id);
        } else if object.size != size {
            found.losses.add_missing(id);
            // The lost frames show when the content is read.
            let what = format!("has {} bytes instead of {size}", object.size);
            found.damage(DamageKind::Pack, object.key.clone(), &what);
        }
    })
    .await?;
    // A listing may lag, so the object itself is asked for.
    let mut looks = stream::iter(missing)
        .map(|id| async move {
            let look = store.get_range(&object_keys::pack(role, id), 0..1).await;
            Ok::<_, VerifyError>((id, look.map_or_else(|e| object_trouble(e).map(Some), |_| Ok(None))?))
        })
        .buffer_unordered(LOOKS);
    let mut gone = Vec::new();
    while let Some((id, trouble)) = looks.try_next().await? {
        gone.extend(trouble.map(|what| (id, what)));
    }
    drop(looks);
    gone.sort();
    for (id, what) in gone {
        if what == MISSING && !in_use.contains(&id) {
            replaced.insert(id);
            continue;
        }
        found.losses.add_missing(id);
        let number = found.damage(DamageKind::Pack, object_keys::pack(role, id), &what);
        if what == MISSING {
            found.lose_pack(id, number);
        }
    }
    Ok((strangers, replaced))
}

async fn unreferenced_indexes(
    repository: &Repository,
    ids: &[IndexId],
    condemned: &HashSet<String>,
) -> Result<u64, VerifyError> {
    let role = repository.role();
    let known: HashSet<String> = ids.iter().map(|&id| object_keys::index(role, id)).collect();
    let mut strangers = 0;
    let is_known = |key: &String| known.contains(key) || condemned.contains(key);
    let count = |object: &crate::store::ObjectMeta| strangers += u64::from(!is_known(&object.key));
    each_listed(repository.store.as_ref(), &object_keys::index_prefix(role), count).await?;
    Ok(strangers)
}
