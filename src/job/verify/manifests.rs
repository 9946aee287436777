//! Checks the manifest of every live snapshot, each distinct node once: what a snapshot shares with an older one was
//! checked there.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::damage_log::DamageLog;
use crate::ids::{ChunkId, PackId, RoleName};
use crate::job::node::progress::JobProgress;
use crate::job::report::verified::DamageKind;
use crate::job::verify::error::{VerifyError, object_trouble};
use crate::journal::state::Snapshot;
use crate::repo::entry::{EntryKind, ManifestEntry, TreePath};
use crate::repo::manifest::{ManifestNodeRef, ManifestWalk};
use crate::repo::object_keys;
use crate::repo::pack::PackError;
use crate::repo::reader::{RepositoryReadError, RepositoryReader};

/// Hard links whose first names are looked up together. One look-up may read a segment; neighbours share it.
const LINKS_AT_ONCE: usize = 4096;

/// Walks all manifests; returns the number of distinct chunks that they refer to, manifest chunks included.
pub(super) async fn check(
    reader: &RepositoryReader,
    role: &RoleName,
    snapshots: &[Snapshot],
    progress: &JobProgress,
    found: &mut DamageLog,
) -> Result<u64, VerifyError> {
    let mut check = ManifestCheck {
        reader,
        role,
        progress,
        found,
        visited: HashSet::new(),
        roots: HashMap::new(),
        referred: vec![0; reader.index().len().div_ceil(64)],
        links: Vec::new(),
        entries: 0,
    };
    for snapshot in snapshots {
        check.snapshot(snapshot).await?;
    }
    Ok(check.referred.iter().map(|word| u64::from(word.count_ones())).sum())
}

struct ManifestCheck<'a> {
    reader: &'a RepositoryReader,
    role: &'a RoleName,
    progress: &'a JobProgress,
    found: &'a mut DamageLog,
    /// Checked nodes together with their description in the parent node: the same node under another description is
    /// checked again. Half a hash each.
    visited: HashSet<[u8; 16]>,
    /// Checked roots, and the number of their entries.
    roots: HashMap<ChunkId, Option<u64>>,
    /// Referenced chunks: one bit for each chunk of the index.
    referred: Vec<u64>,
    /// Hard links whose first name is elsewhere in the manifest.
    links: Vec<(TreePath, TreePath, ChunkId)>,
    /// Readable entries of the current manifest.
    entries: u64,
}

impl ManifestCheck<'_> {
    async fn snapshot(&mut self, snapshot: &Snapshot) -> Result<(), VerifyError> {
        let entries = if let Some(&entries) = self.roots.get(&snapshot.root) {
            entries
        } else {
            let entries = self.walk(snapshot.root).await?;
            self.roots.insert(snapshot.root, entries);
            entries
        };
        if let Some(entries) = entries.filter(|&entries| entries != snapshot.entries) {
            let what = format!("counts {} entries, and its manifest has {entries}", snapshot.entries);
            self.found.damage(DamageKind::Record, object_keys::record(self.role, snapshot.seq), &what);
        }
        Ok(())
    }

    /// Walks a manifest; returns the number of its entries if its root is readable.
    async fn walk(&mut self, root: ChunkId) -> Result<Option<u64>, VerifyError> {
        self.entries = 0;
        let mut walk = ManifestWalk::new(root);
        let mut root_read = true;
        while let Some(id) = walk.wanted_chunk() {
            let node = walk.next_node().cloned();
            if let Some(node) = &node
                && !self.visited.insert(visit_key(node))
            {
                self.entries += node.entries;
                walk.skip();
                continue;
            }
            self.mark_referred(id);
            let Some(bytes) = self.read(&id).await? else {
                root_read &= node.is_some();
                self.entries += node.map_or(0, |node| node.entries);
                walk.skip();
                continue;
            };
            match walk.provide_chunk(&bytes) {
                Ok(None) => {}
                Ok(Some(entries)) => {
                    self.entries += entries.len() as u64;
                    self.segment(id, &entries);
                }
                Err(error) => {
                    root_read &= node.is_some();
                    self.entries += node.map_or(0, |node| node.entries);
                    let number = self.damage(&id, &format!("manifest chunk {id} cannot be used ({error})"));
                    self.found.lose_chunk(id, number);
                }
            }
            if self.links.len() >= LINKS_AT_ONCE {
                self.check_links(root).await?;
            }
        }
        self.check_links(root).await?;
        Ok(root_read.then_some(self.entries))
    }

    /// Reads a chunk of a manifest; `None` if it is unreadable, which is recorded as damage.
    async fn read(&mut self, id: &ChunkId) -> Result<Option<Bytes>, VerifyError> {
        if !self.found.causes(self.reader.index(), id).is_empty() {
            return Ok(None);
        }
        match self.reader.chunk(id).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => self.unreadable(*id, error).map(|()| None),
        }
    }

    fn unreadable(&mut self, id: ChunkId, error: RepositoryReadError) -> Result<(), VerifyError> {
        match error {
            RepositoryReadError::Store(error) => {
                let what = object_trouble(error)?;
                if let Some((place, _)) = self.reader.index().find(&id) {
                    let (pack, frame) = (place.pack, place.frame);
                    let number = self.damage_pack(pack, &what);
                    self.found.lose_frame(pack, frame, number);
                }
            }
            RepositoryReadError::Pack { pack, error } => {
                let number = self.damage_pack(pack, &error.to_string());
                match error {
                    PackError::Frame { frame, .. } | PackError::Content { frame } => {
                        self.found.lose_frame(pack, frame, number);
                    }
                    _ => self.found.lose_chunk(id, number),
                }
            }
            RepositoryReadError::Missing(_) => {}
            RepositoryReadError::Content { .. }
            | RepositoryReadError::Index { .. }
            | RepositoryReadError::Manifest { .. } => {
                let number = self.damage(&id, &error.to_string());
                self.found.lose_chunk(id, number);
            }
        }
        Ok(())
    }

    fn damage_pack(&mut self, pack: PackId, what: &str) -> usize {
        self.found.losses.add_damaged(pack);
        self.found.damage(DamageKind::Pack, object_keys::pack(self.role, pack), what)
    }

    /// Records that the content of a chunk is wrong, as damage of the pack that holds it.
    fn damage(&mut self, chunk: &ChunkId, what: &str) -> usize {
        match self.reader.index().find(chunk) {
            Some((place, _)) => self.damage_pack(place.pack, what),
            None => self.found.damage(DamageKind::Index, object_keys::index_prefix(self.role), what),
        }
    }

    /// Marks a chunk as referenced.
    fn mark_referred(&mut self, id: ChunkId) {
        if let Some(number) = self.reader.index().position(&id) {
            self.referred[number / 64] |= 1 << (number % 64);
        } else if self.found.index_is_whole() {
            let key = object_keys::index_prefix(self.role);
            let number = self.found.damage(DamageKind::Index, key, "no index object lists chunks that snapshots need");
            self.found.lose_index(number);
        }
    }

    fn segment(&mut self, id: ChunkId, entries: &[ManifestEntry]) {
        for entry in entries {
            let sum = entry.kind.chunks().iter().try_fold(0, |sum, chunk| {
                self.mark_referred(*chunk);
                self.reader.index().find(chunk).map(|(place, _)| sum + u64::from(place.len))
            });
            match &entry.kind {
                EntryKind::File { size, extents, .. } => {
                    JobProgress::add(&self.progress.files, 1);
                    let stated = extents.as_ref().map_or(*size, |e| e.iter().map(|e| e.len).sum());
                    if let Some(sum) = sum.filter(|&sum| sum != stated) {
                        let path = entry.path.display();
                        self.damage(&id, &format!("the chunks of {path} have {sum} bytes instead of {stated}"));
                    }
                }
                EntryKind::Hardlink { target } => {
                    let here = entries.binary_search_by(|e| e.path.cmp(target));
                    match here {
                        Ok(at) => self.check_target(id, &entry.path, target, Some(&entries[at])),
                        Err(_) => self.links.push((target.clone(), entry.path.clone(), id)),
                    }
                }
                _ => {}
            }
        }
        JobProgress::add(&self.progress.entries, entries.len() as u64);
    }

    /// Looks up the first names of the collected hard links.
    async fn check_links(&mut self, root: ChunkId) -> Result<(), VerifyError> {
        let mut links = std::mem::take(&mut self.links);
        links.sort();
        for (target, path, id) in links {
            match self.reader.entry(root, &target).await {
                Ok(entry) => self.check_target(id, &path, &target, entry.as_ref()),
                // An unreadable target is a damage of its own.
                Err(RepositoryReadError::Store(error)) => drop(object_trouble(error)?),
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn check_target(&mut self, id: ChunkId, path: &TreePath, target: &TreePath, entry: Option<&ManifestEntry>) {
        let what = match entry.map(|e| &e.kind) {
            Some(EntryKind::Hardlink { .. }) => "a hard link itself",
            Some(EntryKind::Dir) => "a directory",
            Some(_) => return,
            None => "not in the snapshot",
        };
        let what = format!("{} is a hard link to {}, which is {what}", path.display(), target.display());
        self.damage(&id, &what);
    }
}

/// Identifies a node together with its description in the parent node.
fn visit_key(node: &ManifestNodeRef) -> [u8; 16] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&node.id.0).update(&node.entries.to_le_bytes()).update(node.first.as_bytes());
    let mut half = [0; 16];
    hasher.finalize_xof().fill(&mut half);
    half
}
