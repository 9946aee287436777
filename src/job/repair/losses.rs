//! Determines what of each snapshot cannot be restored, and which packs the rest needs.

use std::collections::{HashMap, HashSet};

use crate::ids::{ChunkId, PackId, RoleName};
use crate::job::report::repaired::{LOST_NAMED_MAX, LostEntry, SnapshotLoss};
use crate::job::repository::read_only::snapshot_info;
use crate::journal::state::Snapshot;
use crate::repo::entry::{EntryKind, ManifestEntry, TreePath};
use crate::repo::manifest::ManifestWalk;
use crate::repo::reader::{RepositoryReadError, RepositoryReader};
use crate::store::StoreError;

/// Lost files of a snapshot that are remembered because of their hard links.
const FIRST_NAMES_MAX: usize = 65_536;

/// Needs and losses of the snapshots.
#[derive(Debug, Default)]
pub(super) struct SnapshotNeeds {
    /// The losses of each snapshot.
    pub(super) snapshots: Vec<SnapshotLoss>,
    /// Packs that hold needed content.
    pub(super) used: HashSet<PackId>,
    /// Needed chunks that the index finds in one of the `watched` packs.
    pub(super) watched: HashMap<PackId, HashSet<ChunkId>>,
    /// Needed chunks that the index does not have.
    pub(super) unknown: HashSet<ChunkId>,
}

/// The snapshots that were walked so far.
#[derive(Debug, Default)]
pub(super) struct WalkedSnapshots {
    /// Needs and losses of these snapshots.
    pub(super) losses: SnapshotNeeds,
    /// Manifest segments that lose nothing, not even through hard links.
    clean: HashSet<ChunkId>,
}

/// Walks these snapshots, in addition to those of `before`. `is_lost`: whether the frame that the index names is lost.
///
/// # Errors
/// The store does not answer.
pub(super) async fn find(
    reader: &RepositoryReader,
    role: &RoleName,
    snapshots: &[Snapshot],
    watched: &HashSet<PackId>,
    is_lost: &(dyn Fn(PackId, u32) -> bool + Send + Sync),
    before: WalkedSnapshots,
) -> Result<WalkedSnapshots, StoreError> {
    let WalkedSnapshots { losses, clean } = before;
    let mut walk = SnapshotWalk { reader, watched, is_lost, losses, clean };
    for snapshot in snapshots {
        walk.snapshot(role, snapshot).await?;
    }
    Ok(WalkedSnapshots { losses: walk.losses, clean: walk.clean })
}

struct SnapshotWalk<'a> {
    reader: &'a RepositoryReader,
    watched: &'a HashSet<PackId>,
    is_lost: &'a (dyn Fn(PackId, u32) -> bool + Send + Sync),
    losses: SnapshotNeeds,
    clean: HashSet<ChunkId>,
}

impl SnapshotWalk<'_> {
    async fn snapshot(&mut self, role: &RoleName, snapshot: &Snapshot) -> Result<(), StoreError> {
        let mut loss = SnapshotLoss { info: snapshot_info(role, snapshot), lost: Vec::new(), lost_count: 0 };
        let mut first_names = HashSet::new();
        let mut walk = ManifestWalk::new(snapshot.root);
        while let Some(id) = walk.wanted_chunk() {
            if self.clean.contains(&id) {
                walk.skip();
                continue;
            }
            let node = walk.next_node().map(|node| (node.first.clone(), node.entries));
            let (first, entries) = node.unwrap_or_else(|| (TreePath::default(), snapshot.entries.max(1)));
            let bytes = if self.need(&id) {
                match self.reader.chunk(&id).await {
                    Ok(bytes) => Some(bytes),
                    Err(RepositoryReadError::Store(error)) if !error.is_not_found() && !error.concerns_one_object() => {
                        return Err(error);
                    }
                    Err(_) => None,
                }
            } else {
                None
            };
            match bytes.map(|bytes| walk.provide_chunk(&bytes)) {
                Some(Ok(None)) => {}
                Some(Ok(Some(entries))) => {
                    if self.segment(&entries, &mut loss, &mut first_names) {
                        self.clean.insert(id);
                    }
                }
                Some(Err(_)) => add_loss(&mut loss, &first, entries),
                None => {
                    add_loss(&mut loss, &first, entries);
                    walk.skip();
                }
            }
        }
        self.losses.snapshots.push(loss);
        Ok(())
    }

    /// Records that a chunk is needed; returns whether it is available.
    fn need(&mut self, chunk: &ChunkId) -> bool {
        let Some((place, _)) = self.reader.index().find(chunk) else {
            self.losses.unknown.insert(*chunk);
            return false;
        };
        self.losses.used.insert(place.pack);
        if self.watched.contains(&place.pack) {
            self.losses.watched.entry(place.pack).or_default().insert(*chunk);
        }
        !(self.is_lost)(place.pack, place.frame)
    }

    fn segment(
        &mut self,
        entries: &[ManifestEntry],
        loss: &mut SnapshotLoss,
        first_names: &mut HashSet<TreePath>,
    ) -> bool {
        let mut clean = true;
        for entry in entries {
            let whole = match &entry.kind {
                EntryKind::Hardlink { target } => {
                    clean = false;
                    !first_names.contains(target)
                }
                // Every chunk is visited, so that all of them are recorded as needed.
                kind => kind.chunks().iter().filter(|chunk| !self.need(chunk)).count() == 0,
            };
            if !whole {
                clean = false;
                add_loss(loss, &entry.path, 1);
                if first_names.len() < FIRST_NAMES_MAX {
                    first_names.insert(entry.path.clone());
                }
            }
        }
        clean
    }
}

fn add_loss(loss: &mut SnapshotLoss, path: &TreePath, entries: u64) {
    loss.lost_count += entries;
    if loss.lost.len() < LOST_NAMED_MAX {
        loss.lost.push(LostEntry { path: path.clone(), entries });
    }
}
