//! Determines what the repository holds, and what of it the kept snapshots need.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures_util::TryStreamExt;
use jiff::{SignedDuration, Timestamp};

use super::RepositoryReadError;
use super::plan::PackUsage;
use crate::ids::{ChunkId, IndexId, PackId};
use crate::job::prune::error::PruneError;

use crate::job::repository::open::Repository;
use crate::journal::state::{JournalState, Snapshot};
use crate::repo::index::ChunkIndex;
use crate::repo::loss::PackLosses;
use crate::repo::manifest::ManifestWalk;
use crate::repo::object_keys;
use crate::repo::pack::PackTable;
use crate::repo::reader::{self, RepositoryReader};
use crate::store::{ObjectMeta, list_all, list_filtered};

/// The most unreferenced packs, and index objects, that one prune condemns. The next prune continues.
const UNNAMED_MAX: usize = 65_536;

/// The data that a prune decides on.
pub(super) struct RepositoryUsage {
    /// The tables of all packs that the index lists.
    pub(super) tables: Vec<PackTable>,
    /// Reader over the index of these tables.
    pub(super) reader: RepositoryReader,
    /// Manifest chunks of the kept snapshots.
    pub(super) nodes: HashSet<ChunkId>,
    /// One bit for each chunk of the index: a kept snapshot refers to it.
    needed: Vec<u64>,
    /// Packs that the store lacks, or has with another size.
    lost: HashSet<PackId>,
    /// Packs in the store that no record names.
    unnamed_packs: Vec<(PackId, ObjectMeta)>,
    unnamed_indexes: Vec<(IndexId, ObjectMeta)>,
}

/// Objects of interrupted runs that are old enough to be removed.
#[derive(Debug, Default)]
pub(super) struct OrphanObjects {
    pub(super) packs: Vec<PackId>,
    pub(super) indexes: Vec<IndexId>,
    /// Size of the packs in bytes.
    pub(super) bytes: u64,
}

impl RepositoryUsage {
    /// Reads the index, the manifests of the kept snapshots, and the store's listing.
    pub(super) async fn scan(
        repository: &Repository,
        state: &JournalState,
        kept: &[&Snapshot],
    ) -> Result<Self, PruneError> {
        let (store, keys) = (repository.store.clone(), repository.keys.clone());
        let role = repository.role();
        let fetched = reader::stream_tables(store.as_ref(), &keys, &state.indexes, None).try_concat().await;
        let mut tables = fetched.map_err(PruneError::Index)?;
        // Two sessions may have named the same pack; its table is needed once.
        let mut seen = HashSet::new();
        tables.retain(|table| seen.insert(table.id));
        let mut index = ChunkIndex::default();
        for table in &tables {
            index.add(table);
        }
        index.sort();
        let needed = vec![0; index.len().div_ceil(64)];
        let reader = RepositoryReader::new(store.clone(), keys, Arc::new(index));
        let mut survey = Self {
            tables,
            reader,
            nodes: HashSet::new(),
            needed,
            lost: HashSet::new(),
            unnamed_packs: Vec::new(),
            unnamed_indexes: Vec::new(),
        };
        for snapshot in kept {
            let walked = survey.walk(snapshot.root).await;
            walked.map_err(|error| PruneError::Damaged { snapshot: snapshot.id, error })?;
        }
        let condemned_packs: HashSet<PackId> = state.condemned.iter().flat_map(|c| &c.packs).copied().collect();
        let packs = list_all(store.as_ref(), &object_keys::packs_prefix(role)).await?.into_iter();
        let packs: Vec<(PackId, ObjectMeta)> =
            packs.filter_map(|object| Some((object_keys::parse_pack(role, &object.key)?, object))).collect();
        let sizes: HashMap<PackId, u64> = packs.iter().map(|(id, object)| (*id, object.size)).collect();
        let is_whole = |table: &&PackTable| sizes.get(&table.id) == Some(&table.object_len());
        survey.lost = survey.tables.iter().filter(|table| !is_whole(table)).map(|table| table.id).collect();
        survey.unnamed_packs =
            packs.into_iter().filter(|(id, _)| !seen.contains(id) && !condemned_packs.contains(id)).collect();
        survey.unnamed_packs.truncate(UNNAMED_MAX);
        let named: HashSet<IndexId> =
            state.indexes.iter().chain(state.condemned.iter().flat_map(|c| &c.indexes)).copied().collect();
        let unnamed = |object: ObjectMeta| {
            let id = object_keys::parse_index(role, &object.key)?;
            (!named.contains(&id)).then_some((id, object))
        };
        survey.unnamed_indexes =
            list_filtered(store.as_ref(), &object_keys::index_prefix(role), UNNAMED_MAX, unnamed).await?.found;
        Ok(survey)
    }

    /// Marks everything that a manifest refers to. Nodes that an earlier manifest has too are not read again.
    async fn walk(&mut self, root: ChunkId) -> Result<(), RepositoryReadError> {
        let mut walk = ManifestWalk::new(root);
        while let Some(id) = walk.wanted_chunk() {
            if !self.nodes.insert(id) {
                walk.skip();
                continue;
            }
            self.mark_needed(id)?;
            let bytes = self.reader.chunk(&id).await?;
            let entries =
                walk.provide_chunk(&bytes).map_err(|error| RepositoryReadError::Manifest { chunk: id, error })?;
            for entry in entries.into_iter().flatten() {
                entry.kind.chunks().iter().try_for_each(|chunk| self.mark_needed(*chunk))?;
            }
        }
        Ok(())
    }

    fn mark_needed(&mut self, chunk: ChunkId) -> Result<(), RepositoryReadError> {
        let number = self.reader.index().position(&chunk).ok_or(RepositoryReadError::Missing(chunk))?;
        self.needed[number / 64] |= 1 << (number % 64);
        Ok(())
    }

    /// Whether a kept snapshot refers to the chunk, and the index finds it in this pack.
    pub(super) fn is_needed_in(&self, chunk: &ChunkId, pack: PackId) -> bool {
        let index = self.reader.index();
        let marked = index.position(chunk).is_some_and(|number| self.needed[number / 64] & (1 << (number % 64)) != 0);
        marked && index.find(chunk).is_some_and(|(place, _)| place.pack == pack)
    }

    /// Needed packs that the store lacks, or has with another size.
    pub(super) fn lost(&self) -> PackLosses {
        let mut lost = PackLosses::default();
        self.packs().iter().filter(|pack| pack.needed > 0).for_each(|pack| {
            if self.lost.contains(&pack.pack) {
                lost.add_missing(pack.pack);
            }
        });
        lost
    }

    /// How much of each pack is needed. A frame of which only a part is needed counts by that part. Nothing can be
    /// moved out of a lost pack: it counts as needed whole, or not at all.
    pub(super) fn packs(&self) -> Vec<PackUsage> {
        let of = |table: &PackTable| {
            let stored = table.object_len();
            let mut needed = 0;
            let mut all = true;
            for frame in &table.frames {
                let raw = frame.raw_len().max(1);
                let wanted = frame.chunks.iter().filter(|chunk| self.is_needed_in(&chunk.id, table.id));
                let (count, wanted) = wanted.fold((0, 0), |(n, sum), chunk| (n + 1, sum + u64::from(chunk.len)));
                all &= count == frame.chunks.len();
                let share = u128::from(frame.stored_len) * u128::from(wanted) / u128::from(raw);
                // A needed chunk of length zero counts too.
                needed += (share as u64).max(u64::from(count > 0));
            }
            // Header and trailer do not count as waste.
            let is_full = (all && !table.frames.is_empty()) || (needed > 0 && self.lost.contains(&table.id));
            PackUsage { pack: table.id, stored, needed: if is_full { stored } else { needed } }
        };
        self.tables.iter().map(of).collect()
    }

    /// Objects older than `age` that no record names.
    pub(super) fn orphans(&self, now: Timestamp, age: SignedDuration) -> OrphanObjects {
        let old = |object: &ObjectMeta| now.duration_since(object.modified) >= age;
        let packs = self.unnamed_packs.iter().filter(|(_, object)| old(object)).take(PACKS_MAX / 2);
        OrphanObjects {
            bytes: packs.clone().map(|(_, object)| object.size).sum(),
            packs: packs.map(|(id, _)| *id).collect(),
            indexes: self.unnamed_indexes.iter().filter(|(_, object)| old(object)).map(|(id, _)| *id).collect(),
        }
    }
}

/// The most packs that one prune condemns, so that its record stays below 300 KB. The next prune continues.
pub(crate) const PACKS_MAX: usize = 8192;
