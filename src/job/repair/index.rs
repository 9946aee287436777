//! Rebuilds the index from its objects, this node's copies of them and the packs' own tables.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::losses::{self, WalkedSnapshots};
use crate::ids::{ChunkId, Digest, IndexId, PackId};
use crate::job::backup::orphans;
use crate::job::repair::error::RepairError;
use crate::job::report::repaired::{RepairFinding, SnapshotLoss};
use crate::job::repository::open::Repository;
use crate::job::verify::content;
use crate::journal::state::{JournalState, Snapshot};
use crate::repo::index::{ChunkIndex, decode_index};
use crate::repo::object_keys;
use crate::repo::pack::PackTable;
use crate::repo::reader::{IndexCache, RepositoryReader};
use crate::store::{SizeLimit, StoreError, list_all};

/// The description of a missing object.
pub(super) const MISSING: &str = "is missing";

/// This node's copy of a lost object, and why the object itself cannot be read.
type LostCopy = (Bytes, String);

/// The index objects that the journal names.
#[derive(Debug, Default)]
struct LoadedIndexes {
    /// Each object with the tables of its packs; `Some`: the tables come from this node's copy of a lost object.
    objects: Vec<(IndexId, Vec<PackTable>, Option<LostCopy>)>,
    /// Lost objects, with the reason.
    lost: Vec<(IndexId, String)>,
}

/// The planned index.
#[derive(Debug)]
pub(super) struct IndexPlan {
    evidence: IndexEvidence,
    /// Objects that stay as they are.
    pub(super) kept: Vec<IndexId>,
    /// This node's copies of lost objects, which are written to the store again.
    pub(super) copies: Vec<(IndexId, Bytes)>,
    /// Packs that new objects will list.
    pub(super) listed: Vec<PackTable>,
    /// Chunks that are moved to a new pack.
    pub(super) moved: Vec<ChunkId>,
    /// What is reported.
    pub(super) findings: Vec<RepairFinding>,
}

impl IndexPlan {
    /// A reader of everything that is left.
    pub(super) fn reader(&self) -> &RepositoryReader {
        &self.evidence.reader
    }

    /// The losses of each snapshot.
    pub(super) fn losses(&self) -> &[SnapshotLoss] {
        &self.evidence.walked.losses.snapshots
    }

    /// Extends the plan by the snapshots committed since; only those are read. `None`: the plan has to be made anew.
    ///
    /// # Errors
    /// The store does not answer.
    pub(super) async fn extend(
        self,
        repository: &Repository,
        state: &JournalState,
    ) -> Result<Option<Self>, RepairError> {
        Ok(self.evidence.extend(repository, state).await?.map(IndexEvidence::plan))
    }

    /// Whether the journal has to name other index objects than it does now.
    pub(super) fn changes(&self, state: &JournalState) -> bool {
        self.kept != state.indexes || !self.listed.is_empty() || !self.moved.is_empty()
    }
}

/// A reader of everything that is left, for a restore; no snapshot is read. `more`: lost records may have named further
/// index objects.
///
/// # Errors
/// The store does not answer.
pub(super) async fn reader(
    repository: &Repository,
    state: &JournalState,
    index_cache: Option<&IndexCache>,
    more: bool,
) -> Result<RepositoryReader, RepairError> {
    let named = LoadedIndexes::load(repository, &state.indexes, index_cache).await?;
    let mut tables: Vec<PackTable> = named.objects.into_iter().flat_map(|(_, tables, _)| tables).collect();
    if more || !named.lost.is_empty() {
        // If several packs hold a chunk, the last table counts; packs that the journal names come last.
        let others = unlisted_packs(repository, &index_of(&tables), state).await?;
        tables.splice(0..0, others);
    }
    Ok(RepositoryReader::new(repository.store.clone(), repository.keys.clone(), Arc::new(index_of(&tables))))
}

/// Plans the index of these snapshots. `more`: lost records may have named further index objects. `read_data`: every
/// pack is read.
///
/// # Errors
/// The store does not answer.
pub(super) async fn plan(
    repository: &Repository,
    state: &JournalState,
    index_cache: Option<&IndexCache>,
    more: bool,
    read_data: bool,
) -> Result<IndexPlan, RepairError> {
    let named = LoadedIndexes::load(repository, &state.indexes, index_cache).await?;
    let all: Vec<&PackTable> = named.objects.iter().flat_map(|(_, tables, _)| tables).collect();
    let mut suspects = SuspectPacks::find(repository, &all, read_data).await?;
    let tables: Vec<PackTable> =
        all.into_iter().filter(|table| !suspects.missing.contains(&table.id)).cloned().collect();
    let mut others = Vec::new();
    if more || !named.lost.is_empty() {
        others = unlisted_packs(repository, &index_of(&tables), state).await?;
        if read_data {
            suspects.read(repository, &others).await?;
        }
    }
    let look = async |others: &[PackTable], suspects: &SuspectPacks| {
        walk_snapshots(repository, &tables, others, suspects, &state.snapshots, WalkedSnapshots::default()).await
    };
    let (mut reader, mut walked) = look(&others, &suspects).await?;
    if !walked.losses.unknown.is_empty() && others.is_empty() {
        others = unlisted_packs(repository, &index_of(&tables), state).await?;
        if !others.is_empty() {
            (reader, walked) = look(&others, &suspects).await?;
            // The index is complete and does not list what snapshots need: an earlier repair removed a damaged pack
            // from it.
            others.retain(|table| walked.losses.used.contains(&table.id));
            if suspects.read(repository, &others).await? {
                (reader, walked) = look(&others, &suspects).await?;
            }
        }
    }
    let snapshots = state.snapshots.iter().map(|snapshot| snapshot.id).collect();
    Ok(IndexEvidence { named, tables, others, suspects, walked, snapshots, reader }.plan())
}

/// What was read to plan the index.
#[derive(Debug)]
struct IndexEvidence {
    named: LoadedIndexes,
    /// Tables of the packs that the index objects list and that exist.
    tables: Vec<PackTable>,
    /// Tables of the packs that no index object lists.
    others: Vec<PackTable>,
    suspects: SuspectPacks,
    walked: WalkedSnapshots,
    /// The snapshots whose manifests were walked.
    snapshots: HashSet<Digest>,
    reader: RepositoryReader,
}

impl IndexEvidence {
    fn plan(self) -> IndexPlan {
        let (suspects, used) = (&self.suspects, &self.walked.losses.used);
        let others = self.others.iter().filter(|table| used.contains(&table.id) && !suspects.has(table.id));
        let others: Vec<PackTable> = others.cloned().collect();
        let mut findings: Vec<RepairFinding> = Vec::new();
        let (mut kept, mut copies, mut listed) = (Vec::new(), Vec::new(), Vec::new());
        for (id, tables, copy) in &self.named.objects {
            if let Some((_, what)) = copy {
                findings.push(RepairFinding::Index { id: *id, what: what.clone(), copy: true });
            }
            if tables.iter().any(|table| suspects.has(table.id)) {
                listed.extend(tables.iter().filter(|table| !suspects.has(table.id)).cloned());
            } else {
                kept.push(*id);
                copies.extend(copy.iter().map(|(object, _)| (*id, object.clone())));
            }
        }
        let lost =
            self.named.lost.iter().map(|(id, what)| RepairFinding::Index { id: *id, what: what.clone(), copy: false });
        findings.extend(lost);
        if !others.is_empty() {
            let chunks = others.iter().map(|table| table.chunks() as u64).sum();
            findings.push(RepairFinding::Listed { packs: others.len() as u64, chunks });
        }
        listed.extend(others);
        let mut moved = Vec::new();
        for (id, what) in &suspects.why {
            let mut chunks: Vec<ChunkId> = self.walked.losses.watched.get(id).into_iter().flatten().copied().collect();
            chunks.retain(|chunk| {
                self.reader.index().find(chunk).is_some_and(|(place, _)| !suspects.is_bad(place.pack, place.frame))
            });
            chunks.sort_unstable();
            // No chunk could be read from it before either.
            if chunks.is_empty() && suspects.unlisted.contains(id) {
                continue;
            }
            findings.push(RepairFinding::Pack { id: *id, what: what.clone(), moved: chunks.len() as u64 });
            moved.extend(chunks);
        }
        IndexPlan { evidence: self, kept, copies, listed, moved, findings }
    }

    /// Extends the evidence by what was committed since. `None`: more packs would have to be read.
    async fn extend(mut self, repository: &Repository, state: &JournalState) -> Result<Option<Self>, RepairError> {
        let known: HashSet<IndexId> = self.named.ids().collect();
        let fresh: Vec<IndexId> = state.indexes.iter().filter(|id| !known.contains(id)).copied().collect();
        // Objects that were written a moment ago are in the store, and not among this node's copies.
        let added = LoadedIndexes::load(repository, &fresh, None).await?;
        if !added.lost.is_empty() {
            return Ok(None);
        }
        self.tables.extend(added.objects.iter().flat_map(|(_, tables, _)| tables).cloned());
        self.named.objects.extend(added.objects);
        let snapshots: Vec<Snapshot> =
            state.snapshots.iter().filter(|snapshot| !self.snapshots.contains(&snapshot.id)).cloned().collect();
        let unknown = self.walked.losses.unknown.len();
        let before = std::mem::take(&mut self.walked);
        let Self { tables, others, suspects, .. } = &self;
        (self.reader, self.walked) = walk_snapshots(repository, tables, others, suspects, &snapshots, before).await?;
        self.snapshots.extend(snapshots.iter().map(|snapshot| snapshot.id));
        // If more chunks are unknown now, an unlisted pack may hold them.
        Ok((self.walked.losses.unknown.len() == unknown).then_some(self))
    }
}

async fn walk_snapshots(
    repository: &Repository,
    tables: &[PackTable],
    others: &[PackTable],
    suspects: &SuspectPacks,
    snapshots: &[Snapshot],
    before: WalkedSnapshots,
) -> Result<(RepositoryReader, WalkedSnapshots), RepairError> {
    // The last table of a chunk counts: sound packs come after damaged ones, and packs that the journal names after the
    // others.
    let (sound, damaged): (Vec<&PackTable>, Vec<&PackTable>) =
        others.iter().chain(tables).partition(|table| !suspects.damaged.contains_key(&table.id));
    let mut index = ChunkIndex::default();
    damaged.into_iter().chain(sound).for_each(|table| index.add(table));
    index.sort();
    let reader = RepositoryReader::new(repository.store.clone(), repository.keys.clone(), Arc::new(index));
    let watched: HashSet<PackId> = suspects.damaged.keys().copied().collect();
    let is_lost = |pack, frame| suspects.is_bad(pack, frame);
    let walked = losses::find(&reader, repository.role(), snapshots, &watched, &is_lost, before).await?;
    Ok((reader, walked))
}

fn index_of(tables: &[PackTable]) -> ChunkIndex {
    let mut index = ChunkIndex::default();
    for table in tables {
        index.add(table);
    }
    index.sort();
    index
}

/// The tables of packs that no index object lists and no prune condemned. The store is listed after the journal was
/// read.
async fn unlisted_packs(
    repository: &Repository,
    index: &ChunkIndex,
    state: &JournalState,
) -> Result<Vec<PackTable>, RepairError> {
    let condemned: HashSet<PackId> = state.condemned.iter().flat_map(|c| &c.packs).copied().collect();
    let listed = list_packs(repository).await?;
    let mut found = orphans::find(repository.store.as_ref(), &repository.keys, index, &listed, &condemned).await?;
    // The holder of a former key can have made a pack of an older generation: of several packs with a chunk the one of
    // the newest generation comes last, and counts.
    found.sort_by_key(|table| (table.salt.generation, table.id));
    Ok(found)
}

/// Every pack that the store lists, with its size.
async fn list_packs(repository: &Repository) -> Result<HashMap<PackId, u64>, StoreError> {
    let role = repository.role();
    let objects = list_all(repository.store.as_ref(), &object_keys::packs_prefix(role)).await?.into_iter();
    Ok(objects.filter_map(|object| Some((object_keys::parse_pack(role, &object.key)?, object.size))).collect())
}

impl LoadedIndexes {
    fn ids(&self) -> impl Iterator<Item = IndexId> {
        let objects = self.objects.iter().map(|(id, ..)| *id);
        objects.chain(self.lost.iter().map(|(id, _)| *id))
    }

    async fn load(
        repository: &Repository,
        ids: &[IndexId],
        index_cache: Option<&IndexCache>,
    ) -> Result<Self, StoreError> {
        let mut named = Self::default();
        for &id in ids {
            let stored = match repository.store.get(&object_keys::index(repository.role(), id), SizeLimit::INDEX).await
            {
                Ok(object) => {
                    decode_index(&repository.keys, id, &object).map_err(|error| format!("is damaged ({error})"))
                }
                Err(error) if error.is_not_found() => Err(MISSING.to_owned()),
                Err(error) if error.concerns_one_object() => Err(format!("cannot be read ({})", error.detail)),
                Err(error) => return Err(error),
            };
            let what = match stored {
                Ok(tables) => {
                    named.objects.push((id, tables, None));
                    continue;
                }
                Err(what) => what,
            };
            let copy = match index_cache {
                Some(index_cache) => index_cache.get(id).await,
                None => None,
            };
            let tables = copy.as_deref().and_then(|copy| decode_index(&repository.keys, id, copy).ok());
            match copy.zip(tables) {
                Some((copy, tables)) => named.objects.push((id, tables, Some((Bytes::from(copy), what)))),
                None => named.lost.push((id, what)),
            }
        }
        Ok(named)
    }
}

/// Packs that differ from the index.
#[derive(Debug, Default)]
struct SuspectPacks {
    missing: HashSet<PackId>,
    /// The lost frames of damaged packs.
    damaged: HashMap<PackId, HashSet<u32>>,
    why: Vec<(PackId, String)>,
    /// Packs of `missing` and `damaged` that no index object lists.
    unlisted: HashSet<PackId>,
}

impl SuspectPacks {
    fn has(&self, pack: PackId) -> bool {
        self.missing.contains(&pack) || self.damaged.contains_key(&pack)
    }

    fn is_bad(&self, pack: PackId, frame: u32) -> bool {
        self.missing.contains(&pack) || self.damaged.get(&pack).is_some_and(|bad| bad.contains(&frame))
    }

    /// Reads packs that no index object lists. Returns whether one of them is damaged.
    async fn read(&mut self, repository: &Repository, tables: &[PackTable]) -> Result<bool, RepairError> {
        let mut any = false;
        for table in tables {
            if self.read_one(repository, table).await? {
                self.unlisted.insert(table.id);
                any = true;
            }
        }
        self.why.sort_unstable();
        Ok(any)
    }

    /// Reads a pack. Returns whether it is damaged.
    async fn read_one(&mut self, repository: &Repository, table: &PackTable) -> Result<bool, RepairError> {
        match content::lost_frames(repository.store.as_ref(), &repository.keys, table).await {
            Ok(None) => return Ok(false),
            Ok(Some(bad)) => {
                let what = match bad.len() {
                    0 => "is damaged around its content".to_owned(),
                    n => format!("has {n} of {} frames that cannot be used", table.frames.len()),
                };
                self.why.push((table.id, what));
                self.damaged.insert(table.id, bad.into_iter().collect());
            }
            Err(error) if error.concerns_one_object() => {
                self.why.push((table.id, format!("cannot be read ({})", error.detail)));
                self.missing.insert(table.id);
            }
            Err(error) => return Err(error.into()),
        }
        Ok(true)
    }

    /// Finds them by names and sizes. All frames of a pack with another size are read; `read_data` reads those of every
    /// pack.
    async fn find(repository: &Repository, tables: &[&PackTable], read_data: bool) -> Result<Self, RepairError> {
        let (store, role) = (repository.store.as_ref(), repository.role());
        let sizes = list_packs(repository).await?;
        let (mut suspects, mut seen) = (Self::default(), HashSet::new());
        for table in tables.iter().filter(|table| seen.insert(table.id)) {
            match sizes.get(&table.id) {
                Some(size) if *size == table.object_len() && !read_data => {}
                Some(size) if *size == table.object_len() => {
                    suspects.read_one(repository, table).await?;
                }
                Some(size) => {
                    let bad = match content::lost_frames(store, &repository.keys, table).await {
                        Ok(bad) => bad.unwrap_or_default(),
                        Err(error) if error.concerns_one_object() => (0..table.frames.len() as u32).collect(),
                        Err(error) => return Err(error.into()),
                    };
                    suspects.why.push((table.id, format!("has {size} bytes instead of {}", table.object_len())));
                    suspects.damaged.insert(table.id, bad.into_iter().collect());
                }
                // A listing may lag, so the object itself is asked for.
                None => match store.get_range(&object_keys::pack(role, table.id), 0..1).await {
                    Ok(_) => {}
                    Err(error) if error.is_not_found() => {
                        suspects.why.push((table.id, MISSING.to_owned()));
                        suspects.missing.insert(table.id);
                    }
                    Err(error) if error.concerns_one_object() => {
                        suspects.why.push((table.id, format!("cannot be read ({})", error.detail)));
                        suspects.missing.insert(table.id);
                    }
                    Err(error) => return Err(error.into()),
                },
            }
        }
        suspects.why.sort_unstable();
        Ok(suspects)
    }
}
