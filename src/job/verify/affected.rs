//! Finds the files, in which snapshots, that cannot be restored because of lost chunks.
//!
//! Only runs when something is lost. Segments that turned out to be unaffected are not read for the next snapshot
//! again.

use std::collections::{HashMap, HashSet};

use super::damage_log::{DamageLog, DamageNumber};
use crate::ids::ChunkId;
use crate::job::verify::error::{VerifyError, object_trouble};
use crate::journal::state::Snapshot;
use crate::repo::entry::{EntryKind, ManifestEntry, TreePath};
use crate::repo::manifest::{ManifestNodeRef, ManifestWalk};
use crate::repo::reader::{RepositoryReadError, RepositoryReader};

/// Limit of lost files per snapshot that are remembered because of their hard links.
const FIRST_NAMES_MAX: usize = 65_536;

/// Adds to `found` the entries that each damage affects.
pub(super) async fn find(
    reader: &RepositoryReader,
    snapshots: &[Snapshot],
    found: &mut DamageLog,
) -> Result<(), VerifyError> {
    if !found.lost_any() {
        return Ok(());
    }
    let mut clean = HashSet::new();
    for snapshot in snapshots {
        let mut search = AffectedSearch { reader, snapshot, found, clean: &mut clean, first_names: HashMap::new() };
        search.walk().await?;
    }
    Ok(())
}

struct AffectedSearch<'a> {
    reader: &'a RepositoryReader,
    snapshot: &'a Snapshot,
    found: &'a mut DamageLog,
    /// Segments without a lost chunk.
    clean: &'a mut HashSet<ChunkId>,
    /// Lost files of this snapshot, with the damages that cause the loss.
    first_names: HashMap<TreePath, Vec<DamageNumber>>,
}

impl AffectedSearch<'_> {
    async fn walk(&mut self) -> Result<(), VerifyError> {
        let mut walk = ManifestWalk::new(self.snapshot.root);
        while let Some(id) = walk.wanted_chunk() {
            if self.clean.contains(&id) {
                walk.skip();
                continue;
            }
            let node = walk.next_node().cloned();
            let causes = self.found.causes(self.reader.index(), &id);
            if !causes.is_empty() {
                self.lose_node(&causes, node.as_ref());
                walk.skip();
                continue;
            }
            let bytes = match self.reader.chunk(&id).await {
                Ok(bytes) => bytes,
                Err(RepositoryReadError::Store(error)) => {
                    object_trouble(error)?;
                    walk.skip();
                    continue;
                }
                // The check of the manifests has recorded the damage.
                Err(_) => {
                    walk.skip();
                    continue;
                }
            };
            if let Ok(Some(entries)) = walk.provide_chunk(&bytes)
                && self.segment(&entries)
            {
                self.clean.insert(id);
            }
        }
        Ok(())
    }

    /// Counts all entries below a node as lost; of their names only the first is known.
    fn lose_node(&mut self, causes: &[DamageNumber], node: Option<&ManifestNodeRef>) {
        let root = TreePath::default();
        let (path, count) = node.map_or((&root, self.snapshot.entries), |node| (&node.first, node.entries));
        for &number in causes {
            self.found.add_affected(number, self.snapshot.id, path, count);
        }
    }

    /// Whether the segment loses nothing, not even through hard links.
    fn segment(&mut self, entries: &[ManifestEntry]) -> bool {
        let mut clean = true;
        for entry in entries {
            let causes = match &entry.kind {
                EntryKind::Hardlink { target } => {
                    clean = false;
                    self.first_names.get(target).cloned().unwrap_or_default()
                }
                kind => {
                    let chunks = kind.chunks().iter();
                    let mut causes: Vec<DamageNumber> =
                        chunks.flat_map(|chunk| self.found.causes(self.reader.index(), chunk)).collect();
                    causes.sort_unstable();
                    causes.dedup();
                    causes
                }
            };
            for &number in &causes {
                self.found.add_affected(number, self.snapshot.id, &entry.path, 1);
            }
            if !causes.is_empty() {
                clean = false;
                if self.first_names.len() < FIRST_NAMES_MAX {
                    self.first_names.insert(entry.path.clone(), causes);
                }
            }
        }
        clean
    }
}
