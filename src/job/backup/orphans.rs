//! Packs of interrupted runs: no index names them, and the next run may refer to them instead of uploading their
//! content again.

use std::collections::{HashMap, HashSet};

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::ids::PackId;
use crate::job::error::BackupError;
use crate::job::verify::content;
use crate::repo::crypto::DerivedKeys;
use crate::repo::index::ChunkIndex;
use crate::repo::object_keys;
use crate::repo::pack::{self, PackTable};
use crate::store::{Store, StoreError};

/// Trailers of orphans that are fetched at the same time.
const ORPHAN_FETCHES: usize = 8;

/// Orphans that are read at the same time: about 20 MiB each.
const ORPHAN_READS: usize = 2;

/// The most orphans that are examined: half a terabyte of an interrupted run. The content of further ones is stored
/// again.
const ORPHANS_MAX: usize = 32_768;

/// Bytes that are fetched from a pack's end to find its trailer; a longer trailer takes a second request.
const TRAILER_GUESS: u64 = 64 << 10;

/// The longest trailer that is fetched: that of a full pack of files of some 50 bytes. The content of a pack with a
/// longer trailer is stored again.
const TRAILER_READ_MAX: usize = 8 << 20;

/// Packs that are `listed` in the store and in no index: they belong to an interrupted run. The listing is newer than
/// the head, so none of them can have been deleted by a prune that the head knows of; `condemned` packs are excluded.
/// An unreadable pack is left alone.
pub(crate) async fn find(
    store: &dyn Store,
    keys: &DerivedKeys,
    index: &ChunkIndex,
    listed: &HashMap<PackId, u64>,
    condemned: &HashSet<PackId>,
) -> Result<Vec<PackTable>, BackupError> {
    let known: HashSet<PackId> = index.packs().iter().map(|p| p.id).collect();
    let mut orphans: Vec<(PackId, u64)> = listed
        .iter()
        .map(|(id, size)| (*id, *size))
        .filter(|(id, _)| !known.contains(id) && !condemned.contains(id))
        .collect();
    orphans.sort_unstable();
    orphans.truncate(ORPHANS_MAX);
    let tables: Vec<Option<PackTable>> = stream::iter(orphans)
        .map(|(id, size)| async move { table(store, keys, id, size).await })
        .buffered(ORPHAN_FETCHES)
        .try_collect()
        .await?;
    Ok(tables.into_iter().flatten().collect())
}

/// Those of `orphans` whose chunks all match their IDs; all packs are read. In a repaired journal an orphan may be a
/// pack that a repair found damaged and removed from the index.
pub(crate) async fn verified_only(
    store: &dyn Store,
    keys: &DerivedKeys,
    orphans: Vec<PackTable>,
) -> Result<Vec<PackTable>, StoreError> {
    let read: Vec<Option<PackTable>> = stream::iter(orphans)
        .map(|table| async move {
            let lost = content::lost_frames(store, keys, &table).await?;
            Ok::<_, StoreError>(lost.is_none().then_some(table))
        })
        .buffered(ORPHAN_READS)
        .try_collect()
        .await?;
    Ok(read.into_iter().flatten().collect())
}

/// The table of an orphan. A listing may still show a deleted pack, which then has no table.
async fn table(store: &dyn Store, keys: &DerivedKeys, id: PackId, size: u64) -> Result<Option<PackTable>, StoreError> {
    match read_table(store, keys, id, &object_keys::pack(keys.role(), id), size).await {
        Err(error) if error.is_not_found() || error.is_not_an_object() => Ok(None),
        table => table,
    }
}

async fn read_table(
    store: &dyn Store,
    keys: &DerivedKeys,
    id: PackId,
    key: &str,
    size: u64,
) -> Result<Option<PackTable>, StoreError> {
    let head = store.get_range(key, 0..pack::HEADER_LEN as u64).await?;
    let Ok(salt) = pack::open_header(keys, &head) else { return Ok(None) };
    let mut tail = store.get_range(key, size.saturating_sub(TRAILER_GUESS)..size).await?;
    let footer = tail.len().saturating_sub(pack::FOOTER_LEN);
    let Ok(len) = pack::trailer_len(&tail[footer..]) else { return Ok(None) };
    let whole = (len + pack::FOOTER_LEN) as u64;
    if whole > size || len > TRAILER_READ_MAX {
        return Ok(None);
    }
    if whole > tail.len() as u64 {
        tail = store.get_range(key, size - whole..size).await?;
    }
    let Some(start) = tail.len().checked_sub(len + pack::FOOTER_LEN) else { return Ok(None) };
    Ok(pack::open_trailer(keys, id, salt, &tail[start..start + len]).ok())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::env::Env;
    use crate::ids::ChunkId;
    use crate::job::backup::inventory;
    use crate::repo::crypto::Cipher;
    use crate::repo::crypto::tests::keys;
    use crate::repo::pack::{ChunkEntry, FrameCompressor, PackBuilder};
    use crate::store::SizeLimit;
    use crate::store::faulty::{FaultPlan, FaultyStore, InjectedFault};
    use crate::store::memory::MemoryStore;

    /// The orphans if no index names any pack.
    async fn found(store: &MemoryStore, keys: &DerivedKeys) -> Vec<PackTable> {
        let listed = inventory::list_packs(store, keys).await.unwrap();
        find(store, keys, &ChunkIndex::default(), &listed, &HashSet::new()).await.unwrap()
    }

    /// Stores a pack with this number of chunks of one byte each.
    async fn put(store: &MemoryStore, keys: &DerivedKeys, id: PackId, chunks: usize) -> PackTable {
        let content: Vec<u8> = (0..chunks).map(|n| n as u8).collect();
        let entries = (0..chunks as u64).map(|n| {
            let mut id = [id.0[0]; 32];
            id[..8].copy_from_slice(&n.to_le_bytes());
            ChunkEntry { id: ChunkId(id), len: 1 }
        });
        let mut builder = PackBuilder::new(keys, id, [1; 32]);
        builder.push(FrameCompressor::default().pack(&content, entries.collect()));
        let (bytes, table) = builder.finish();
        store.put(&object_keys::pack(keys.role(), id), bytes).await.unwrap();
        table
    }

    #[tokio::test]
    async fn orphans_are_packs_that_are_neither_named_nor_condemned() {
        let (store, keys) = (MemoryStore::new(&Env::host()), keys(Cipher::None));
        let [named, condemned, orphan] = [1, 2, 3].map(|n| PackId([n; 16]));
        let mut index = ChunkIndex::default();
        index.add(&put(&store, &keys, named, 3).await);
        put(&store, &keys, condemned, 3).await;
        let left = put(&store, &keys, orphan, 3).await;
        index.sort();
        let listed = inventory::list_packs(&store, &keys).await.unwrap();
        let found = find(&store, &keys, &index, &listed, &HashSet::from([condemned])).await.unwrap();
        assert_eq!(found, [left]);
    }

    #[tokio::test]
    async fn a_table_of_any_length_is_read_and_what_is_none_is_passed_over() {
        let (store, keys) = (MemoryStore::new(&Env::host()), keys(Cipher::None));
        // The second pack's table is longer than the first fetch.
        for chunks in [1, 4_000] {
            let id = PackId([7; 16]);
            let table = put(&store, &keys, id, chunks).await;
            let key = object_keys::pack(keys.role(), id);
            assert_eq!(found(&store, &keys).await, [table]);
            let whole = store.get(&key, SizeLimit::INDEX).await.unwrap();
            let (header, footer) = (whole.slice(..pack::HEADER_LEN), whole.slice(whole.len() - pack::FOOTER_LEN..));
            let hollow = Bytes::from([header, footer].concat());
            let (cut, start, end) =
                (whole.slice(..whole.len() - 1), whole.slice(..40), whole.slice(whole.len() - 60..));
            for damaged in [cut, start, end, hollow] {
                store.tamper(&key, Some(damaged));
                assert_eq!(found(&store, &keys).await, []);
            }
        }
    }

    #[tokio::test]
    async fn one_with_a_chunk_that_is_not_right_is_not_whole() {
        let (store, keys) = (MemoryStore::new(&Env::host()), keys(Cipher::None));
        let content = [b"one".as_slice(), b"two"];
        let tables = [1, 2].map(|n: u8| {
            let mut builder = PackBuilder::new(&keys, PackId([n; 16]), [n; 32]);
            for part in content {
                let entry = ChunkEntry { id: keys.chunk_id(part), len: part.len() as u32 };
                builder.push(FrameCompressor::default().pack(part, vec![entry]));
            }
            builder.finish()
        });
        for (bytes, table) in &tables {
            store.put(&object_keys::pack(keys.role(), table.id), bytes.clone()).await.unwrap();
        }
        let [(_, sound), (bytes, other)] = tables;
        let both = vec![sound.clone(), other.clone()];
        assert_eq!(verified_only(&store, &keys, both.clone()).await.unwrap(), both);
        let mut flipped = bytes.to_vec();
        flipped[pack::HEADER_LEN] ^= 1;
        store.tamper(&object_keys::pack(keys.role(), other.id), Some(Bytes::from(flipped)));
        assert_eq!(found(&store, &keys).await, both, "its table does not list it");
        assert_eq!(verified_only(&store, &keys, both).await.unwrap(), [sound]);
    }

    #[tokio::test]
    async fn one_that_is_listed_and_gone_is_passed_over() {
        let (store, keys) = (MemoryStore::new(&Env::host()), keys(Cipher::None));
        let id = PackId([0xaa; 16]);
        let size = put(&store, &keys, id, 3).await.object_len();
        assert_eq!(table(&store, &keys, id, size).await.unwrap().map(|table| table.id), Some(id));
        let silent = FaultyStore::new(Arc::new(store.clone()), FaultPlan::exactly([(0, InjectedFault::LostRequest)]));
        assert!(table(&silent, &keys, id, size).await.is_err(), "a store that is silent says nothing of what is there");
        store.tamper(&object_keys::pack(keys.role(), id), None);
        assert!(table(&store, &keys, id, size).await.unwrap().is_none());
    }
}
