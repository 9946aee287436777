//! Determines which chunks the repository already has, so that only new ones are stored.
//!
//! The reuse rule lives here: a session relies on a chunk only if the journal vouches for it at the session's starting
//! head (it is in an index that the head names), or if it is in a pack that was listed in the store after that head was
//! read. The index is loaded at the first request for a chunk that is not in the newest manifest: a run without changes
//! needs it only for the daily comparison with the store. Content that the store has lost according to this comparison
//! is not relied on.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use crate::ids::{ChunkId, IndexId, PackId};
use crate::job::admission::session::{PruneCheck, RoleSession};
use crate::job::backup::lost_content::{HealingSummary, LostContent};
use crate::job::backup::{indexes, inventory, orphans};
use crate::job::error::BackupError;
use crate::repo::crypto::DerivedKeys;
use crate::repo::index::ChunkIndex;
use crate::repo::loss::PackLosses;
use crate::repo::pack::PackTable;
use crate::repo::reader::{self, IndexCache, load_index_with_damaged_packs};
use crate::store::Store;

/// The chunks in the repository when the session began.
#[derive(Debug, Default)]
pub(crate) struct KnownChunks {
    /// The index that the journal names.
    pub(crate) index: Arc<ChunkIndex>,
    /// Packs of interrupted runs that were seen in the store after the head was read.
    pub(crate) orphans: OrphanPacks,
    /// Indexed content that the store has lost; `None`: the index was not compared with the store.
    pub(crate) lost: Option<LostContent>,
}

/// Options for loading the index.
#[derive(Debug, Clone, Default)]
pub(crate) struct IndexLoadOptions {
    /// Interrupted runs may have left packs.
    pub(crate) unfinished: bool,
    /// `Some`: the index is compared with the store, and these packs are read. `None`: the index is trusted.
    pub(crate) compare: Option<PackLosses>,
    /// Packs with losses that an earlier run found: their content is stored again.
    pub(crate) known: PackLosses,
}

/// Loads the index as of the session's starting head.
pub(crate) struct IndexLoader {
    store: Arc<dyn Store>,
    keys: DerivedKeys,
    indexes: Vec<IndexId>,
    index_cache: IndexCache,
    condemned: HashSet<PackId>,
    survey: IndexLoadOptions,
    /// Whether the journal names a repair.
    is_repaired: bool,
    /// A loss must not be the work of a prune that ran meanwhile.
    prune_check: PruneCheck,
}

impl IndexLoader {
    /// A loader for the session's starting head.
    pub(crate) fn new(session: &RoleSession<'_>, survey: IndexLoadOptions) -> Self {
        let (repository, state) = (session.repository(), session.state());
        Self {
            store: repository.store.clone(),
            keys: repository.keys.clone(),
            indexes: state.indexes.clone(),
            index_cache: session.index_cache(),
            condemned: state.condemned.iter().flat_map(|c| &c.packs).copied().collect(),
            survey,
            is_repaired: !state.repaired.is_empty(),
            prune_check: session.prune_check(),
        }
    }

    /// Whether the index is compared with the store.
    pub(crate) fn compares_with_store(&self) -> bool {
        self.survey.compare.is_some()
    }

    pub(crate) async fn load(&self) -> Result<KnownChunks, BackupError> {
        let Self { store, keys, indexes: named, index_cache, condemned, survey, .. } = self;
        #[cfg(feature = "planted")]
        let (named, condemned) = (&self.trusted(named).await?, &excluded_packs(condemned));
        let Some(noted) = &survey.compare else {
            let known = |id: &PackId| survey.known.missing.contains(id) || survey.known.damaged.contains(id);
            let index = load_index_with_damaged_packs(store.as_ref(), keys, named, Some(index_cache), known).await?;
            return Ok(KnownChunks { index: Arc::new(index), orphans: OrphanPacks::default(), lost: None });
        };
        if named.is_empty() && !survey.unfinished {
            return Ok(KnownChunks { lost: Some(LostContent::default()), ..KnownChunks::default() });
        }
        let listed = inventory::list_packs(store.as_ref(), keys).await?;
        let missing = indexes::missing(store.as_ref(), keys, named).await?;
        if !missing.is_empty() {
            self.prune_check.check().await?;
            indexes::put_back(store.as_ref(), keys, &missing, index_cache).await?;
        }
        let tables = reader::stream_tables(store.as_ref(), keys, named, Some(index_cache));
        let (index, lost) = inventory::compare(store.as_ref(), keys, tables, &listed, noted).await?;
        if !lost.packs.is_empty() {
            self.prune_check.check().await?;
        }
        let orphans = if survey.unfinished {
            let mut found = orphans::find(store.as_ref(), keys, &index, &listed, condemned).await?;
            // A pack of an older generation may be made by the holder of a former key, with a table that does not match
            // its content.
            found.retain(|table| table.salt.generation == keys.generation());
            if self.is_repaired { orphans::verified_only(store.as_ref(), keys, found).await? } else { found }
        } else {
            Vec::new()
        };
        Ok(KnownChunks { index: Arc::new(index), orphans: OrphanPacks::new(orphans), lost: Some(lost) })
    }

    #[cfg(feature = "planted")]
    async fn trusted(&self, named: &[IndexId]) -> Result<Vec<IndexId>, BackupError> {
        use crate::repo::object_keys;
        let mut trusted = named.to_vec();
        if crate::planted::is(crate::planted::PlantedBug::UnnamedIndexIsTrusted) {
            let listed =
                crate::store::list_all(self.store.as_ref(), &object_keys::index_prefix(self.keys.role())).await?;
            trusted.extend(listed.iter().filter_map(|object| object_keys::parse_index(self.keys.role(), &object.key)));
        }
        Ok(trusted)
    }
}

#[cfg(feature = "planted")]
fn excluded_packs(condemned: &HashSet<PackId>) -> HashSet<PackId> {
    let reused = crate::planted::is(crate::planted::PlantedBug::CondemnedIsReused);
    if reused { HashSet::new() } else { condemned.clone() }
}

/// Packs that no index names.
#[derive(Debug, Default)]
pub(crate) struct OrphanPacks {
    packs: Vec<(PackTable, AtomicBool)>,
    chunks: HashMap<ChunkId, usize>,
}

impl OrphanPacks {
    pub(crate) fn new(tables: Vec<PackTable>) -> Self {
        let mut chunks = HashMap::new();
        for (number, table) in tables.iter().enumerate() {
            for chunk in table.frames.iter().flat_map(|f| &f.chunks) {
                chunks.entry(chunk.id).or_insert(number);
            }
        }
        Self { packs: tables.into_iter().map(|t| (t, AtomicBool::new(false))).collect(), chunks }
    }

    /// Whether an orphan has the chunk; this session's index must then name that pack.
    fn claim(&self, id: &ChunkId) -> bool {
        self.chunks.get(id).is_some_and(|&number| {
            self.packs[number].1.store(true, Ordering::Relaxed);
            true
        })
    }

    /// Whether a used orphan, which this session's index will name, has the chunk.
    fn is_used(&self, id: &ChunkId) -> bool {
        self.chunks.get(id).is_some_and(|&number| self.packs[number].1.load(Ordering::Relaxed))
    }

    /// The orphans of which some content was used.
    pub(crate) fn used(&self) -> impl Iterator<Item = &PackTable> {
        self.packs.iter().filter(|(_, used)| used.load(Ordering::Relaxed)).map(|(table, _)| table)
    }
}

/// Decides whether a chunk must be stored; of several requests for a chunk only one gets `true`.
pub(crate) struct DedupIndex<'a> {
    /// Chunks of the newest manifest itself: known without the index.
    nodes: HashSet<ChunkId>,
    known_chunks: OnceLock<KnownChunks>,
    loading: Mutex<()>,
    load: Box<dyn Fn() -> Result<KnownChunks, BackupError> + Send + Sync + 'a>,
    fresh: Mutex<CompactIdSet>,
}

/// A set of IDs in short sorted lists, chosen by the first bytes of the ID: 32 bytes for each ID plus an eighth, while
/// a hash table takes up to 66 bytes, and half as much again while it grows.
#[derive(Default)]
struct CompactIdSet(Vec<Vec<ChunkId>>);

impl CompactIdSet {
    /// With a hundred million IDs a list has 200 KiB, of which half is moved for each insertion.
    const LISTS: usize = 1 << 14;

    fn contains(&self, id: &ChunkId) -> bool {
        let number = usize::from(u16::from_be_bytes([id.0[0], id.0[1]])) % Self::LISTS;
        self.0.get(number).is_some_and(|list| list.binary_search(id).is_ok())
    }

    /// `false`: the ID is in the set already.
    fn insert(&mut self, id: &ChunkId) -> bool {
        if self.0.is_empty() {
            self.0.resize(Self::LISTS, Vec::new());
        }
        let number = usize::from(u16::from_be_bytes([id.0[0], id.0[1]])) % Self::LISTS;
        let list = &mut self.0[number];
        let Err(at) = list.binary_search(id) else { return false };
        if list.len() == list.capacity() {
            list.reserve_exact((list.len() / 8).max(4));
        }
        list.insert(at, *id);
        true
    }
}

impl<'a> DedupIndex<'a> {
    pub(crate) fn new(
        nodes: HashSet<ChunkId>,
        known_chunks: Option<KnownChunks>,
        load: impl Fn() -> Result<KnownChunks, BackupError> + Send + Sync + 'a,
    ) -> Self {
        // Lost manifest nodes are stored again, even if a repair removed their pack from the index.
        let compared = known_chunks
            .as_ref()
            .filter(|known_chunks| known_chunks.lost.is_some())
            .map(|known_chunks| Arc::clone(&known_chunks.index));
        let nodes = match compared {
            Some(index) => nodes.into_iter().filter(|id| index.is_in_sound_pack(id)).collect(),
            None => nodes,
        };
        let known_chunks = known_chunks.map_or_else(OnceLock::new, OnceLock::from);
        let (loading, fresh) = (Mutex::new(()), Mutex::default());
        Self { nodes, known_chunks, loading, load: Box::new(load), fresh }
    }

    /// The known chunks, loaded at the first call.
    pub(crate) fn known_chunks(&self) -> Result<&KnownChunks, BackupError> {
        let _one = self.loading.lock();
        if let Some(known_chunks) = self.known_chunks.get() {
            return Ok(known_chunks);
        }
        let known_chunks = (self.load)()?;
        Ok(self.known_chunks.get_or_init(|| known_chunks))
    }

    /// `true`: the caller must store the chunk. Every other request for the same chunk gets `false`.
    pub(crate) fn claim(&self, id: &ChunkId) -> Result<bool, BackupError> {
        if self.nodes.contains(id) {
            return Ok(false);
        }
        let known_chunks = match self.known_chunks.get() {
            Some(known_chunks) => known_chunks,
            None => self.known_chunks()?,
        };
        if known_chunks.index.is_in_sound_pack(id) || known_chunks.orphans.claim(id) {
            return Ok(false);
        }
        Ok(self.fresh.lock().insert(id))
    }

    /// The index, if it was compared with the store: then it alone decides what is stored.
    pub(crate) fn compared_index(&self) -> Option<&ChunkIndex> {
        self.known_chunks
            .get()
            .filter(|known_chunks| known_chunks.lost.is_some())
            .map(|known_chunks| known_chunks.index.as_ref())
    }

    /// What happened to lost content; `None`: the index was not compared with the store.
    pub(crate) fn healing(&self) -> Option<HealingSummary> {
        let known_chunks = self.known_chunks.get()?;
        let fresh = self.fresh.lock();
        let stored = |id: &ChunkId| fresh.contains(id) || known_chunks.orphans.is_used(id);
        Some(HealingSummary::of(known_chunks.lost.as_ref()?, &known_chunks.index, stored))
    }

    /// Whether the repository has these chunks, as far as is known: the journal vouches for the content of the newest
    /// manifest.
    pub(crate) fn has_all(&self, ids: &[ChunkId]) -> bool {
        self.known_chunks.get().is_none_or(|known_chunks| ids.iter().all(|id| known_chunks.index.contains(id)))
    }

    /// The orphans that this session used.
    pub(crate) fn used_orphans(&self) -> Vec<PackTable> {
        self.known_chunks.get().map(|known_chunks| known_chunks.orphans.used().cloned().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::pack::{ChunkEntry, FrameEntry};

    fn table(pack: u8, chunks: &[u8]) -> PackTable {
        let chunks = chunks.iter().map(|&c| ChunkEntry { id: ChunkId([c; 32]), len: 1 }).collect();
        let frames = vec![FrameEntry { stored_len: 1, compressed: false, chunks }];
        PackTable { id: PackId([pack; 16]), salt: [0; 32].into(), frames }
    }

    #[test]
    fn each_id_is_claimed_once_whatever_they_begin_with() {
        let ids = |seed: u8| {
            (0..40_000u32).map(move |n| ChunkId(*blake3::hash(&[&[seed], &n.to_be_bytes()[..]].concat()).as_bytes()))
        };
        let mut claimed = CompactIdSet::default();
        assert!(ids(1).all(|id| claimed.insert(&id)) && !ids(1).any(|id| claimed.insert(&id)));
        assert!(ids(2).all(|id| claimed.insert(&id)), "others are others");
        let kept: usize = claimed.0.iter().map(Vec::capacity).sum();
        assert!(kept < 120_000, "{kept} places for 80,000");
        let alike = |last| ChunkId([[7; 31].as_slice(), &[last]].concat().try_into().unwrap());
        assert!((0..=255).rev().all(|last| claimed.insert(&alike(last))) && !claimed.insert(&alike(9)));
    }

    #[test]
    fn each_new_chunk_is_claimed_once_and_used_orphans_are_named() {
        let loads = Mutex::new(0);
        let ledger = DedupIndex::new(HashSet::from([ChunkId([9; 32])]), None, || {
            *loads.lock() += 1;
            let mut index = ChunkIndex::default();
            index.add(&table(1, &[1]));
            index.sort();
            Ok(KnownChunks {
                index: Arc::new(index),
                orphans: OrphanPacks::new(vec![table(2, &[2]), table(3, &[3])]),
                lost: None,
            })
        });
        assert!(!ledger.claim(&ChunkId([9; 32])).unwrap());
        assert_eq!(*loads.lock(), 0, "what the newest manifest vouches for needs no index");
        let claims = [1, 2, 4, 4].map(|c| ledger.claim(&ChunkId([c; 32])).unwrap());
        assert_eq!(claims, [false, false, true, false]);
        assert_eq!(*loads.lock(), 1);
        assert_eq!(ledger.used_orphans(), [table(2, &[2])]);
    }
}
