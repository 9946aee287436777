//! A snapshot of a real repository as the source of a restore.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

use crate::ids::{ChunkId, PackId};
use crate::job::browse::{self, path_after_subtree};
use crate::job::repository::read_only::ReadOnlyRepository;
use crate::job::restore::source::{ChunkLocation, EntryReader, SnapshotSource, SourceError, SourceErrorKind};
use crate::journal::reader::Journal;
use crate::journal::view::JournalView;
use crate::repo::crypto::DerivedKeys;
use crate::repo::entry::{ManifestEntry, TreePath};
use crate::repo::manifest::ManifestWalk;
use crate::repo::reader::{RepositoryReadError, RepositoryReader};

/// One snapshot of a repository. Clones share the index.
#[derive(Debug, Clone)]
pub struct RepositorySource(Arc<SourceState>);

#[derive(Debug)]
struct SourceState {
    archive: ReadOnlyRepository,
    root: ChunkId,
    known: RwLock<Arc<SourceIndex>>,
    /// Lost parts of the manifest that were skipped: first path and number of entries. `None`: a lost part ends the
    /// restore.
    lost: Option<Mutex<Vec<(TreePath, u64)>>>,
}

/// The index and what is derived from it.
#[derive(Debug)]
struct SourceIndex {
    view: JournalView,
    reader: RepositoryReader,
    /// Position of each pack in the reader's index.
    packs: HashMap<PackId, usize>,
}

impl SourceIndex {
    async fn load(archive: &ReadOnlyRepository) -> Result<Self, RepositoryReadError> {
        Ok(Self::new(archive.view.clone(), archive.reader().await?))
    }

    fn new(view: JournalView, reader: RepositoryReader) -> Self {
        let packs = reader.index().packs().iter().enumerate().map(|(at, pack)| (pack.id, at)).collect();
        Self { view, reader, packs }
    }
}

impl RepositorySource {
    /// Opens the snapshot with this manifest root.
    pub async fn open(archive: ReadOnlyRepository, root: ChunkId) -> Result<Self, RepositoryReadError> {
        let known = RwLock::new(Arc::new(SourceIndex::load(&archive).await?));
        Ok(Self(Arc::new(SourceState { archive, root, known, lost: None })))
    }

    /// Opens a snapshot of which parts are lost. `reader` alone is used, since it has all that is left, and unreadable
    /// parts of the manifest are skipped.
    pub fn salvage(archive: ReadOnlyRepository, root: ChunkId, reader: RepositoryReader) -> Self {
        let known = RwLock::new(Arc::new(SourceIndex::new(archive.view.clone(), reader)));
        Self(Arc::new(SourceState { archive, root, known, lost: Some(Mutex::default()) }))
    }

    /// Parts of the manifest that were skipped: first path and number of entries.
    pub fn lost(&self) -> Vec<(TreePath, u64)> {
        let lost = self.0.lost.as_ref().map(|lost| lost.lock().clone());
        lost.unwrap_or_default()
    }

    /// The entries that a restore of `paths` needs: those at and below them, and their ancestors. An empty list means
    /// all entries.
    pub fn entries(&self, paths: &[TreePath]) -> RepositoryEntries {
        let mut wanted = Vec::new();
        for path in paths {
            wanted.push((path.clone(), PathScope::Subtree));
            let above = std::iter::successors(path.parent(), TreePath::parent);
            wanted.extend(above.map(|dir| (dir, PathScope::Exact)));
        }
        if paths.is_empty() {
            wanted.push((TreePath::default(), PathScope::Subtree));
        }
        // Sorted so that the next one is last. Of equal paths `Subtree` comes first and covers `Exact`.
        wanted.sort_by(|a, b| b.cmp(a));
        RepositoryEntries { source: self.clone(), walk: ManifestWalk::new(self.0.root), wanted }
    }

    /// The sources of the snapshot.
    pub async fn roots(&self) -> Result<Vec<TreePath>, RepositoryReadError> {
        browse::source_roots(&self.index().reader, self.0.root).await
    }

    fn index(&self) -> Arc<SourceIndex> {
        Arc::clone(&self.0.known.read())
    }

    /// Reads a chunk of the manifest; reads the index again if the chunk is not where the index says.
    async fn chunk(&self, id: &ChunkId) -> Result<Bytes, SourceError> {
        match self.index().reader.chunk(id).await.map_err(|e| source_error(&e)) {
            Err(e) if e.kind == SourceErrorKind::Gone && self.refresh().await => {
                self.index().reader.chunk(id).await.map_err(|e| source_error(&e))
            }
            result => result,
        }
    }

    /// Number of entries of the snapshot according to its record.
    fn entries_count(&self) -> u64 {
        let snapshots = self.0.archive.snapshots().iter();
        snapshots.filter(|snapshot| snapshot.root == self.0.root).map(|snapshot| snapshot.entries).max().unwrap_or(1)
    }

    fn keys(&self) -> &DerivedKeys {
        &self.0.archive.repository.keys
    }

    fn journal(&self) -> &Journal {
        &self.0.archive.journal
    }
}

#[async_trait]
impl SnapshotSource for RepositorySource {
    fn locate(&self, chunk: &ChunkId) -> Option<ChunkLocation> {
        let known = self.index();
        let (place, pack) = known.reader.index().find(chunk)?;
        let frame = pack.frames.get(place.frame as usize)?;
        Some(ChunkLocation {
            pack: place.pack,
            frame: place.frame,
            offset_in_frame: place.offset,
            len: place.len,
            stored_offset: frame.offset,
            stored_len: frame.stored_len,
        })
    }

    async fn frames(&self, pack: PackId, frames: &[u32]) -> Result<Vec<Bytes>, SourceError> {
        let known = self.index();
        let Some(at) = known.packs.get(&pack) else {
            let detail = format!("pack {pack} is no longer in the index");
            return Err(SourceError { kind: SourceErrorKind::Gone, detail });
        };
        known.reader.frames(&known.reader.index().packs()[*at], frames).await.map_err(|e| source_error(&e))
    }

    fn chunk_id(&self, bytes: &[u8]) -> ChunkId {
        self.keys().chunk_id(bytes)
    }

    async fn entry(&self, path: &TreePath) -> Result<Option<ManifestEntry>, SourceError> {
        self.index().reader.entry(self.0.root, path).await.map_err(|e| source_error(&e))
    }

    async fn refresh(&self) -> bool {
        if self.0.lost.is_some() {
            return false;
        }
        let known = self.index();
        let newer = async {
            let view = self.journal().read(Some(&known.view)).await.ok()?;
            if view.state.indexes == known.view.state.indexes {
                return None;
            }
            SourceIndex::load(&ReadOnlyRepository { view, ..self.0.archive.clone() }).await.ok()
        };
        // A failure counts as "no newer index"; a chunk that is missing then fails on its own.
        match newer.await {
            Some(newer) => {
                *self.0.known.write() = Arc::new(newer);
                true
            }
            None => false,
        }
    }
}

/// The restore's reaction to a read error.
fn source_error(error: &RepositoryReadError) -> SourceError {
    let kind = match error {
        RepositoryReadError::Store(e) if e.is_not_found() => SourceErrorKind::Gone,
        RepositoryReadError::Missing(_) => SourceErrorKind::Gone,
        // For example a bad sector under one object; the other objects may be readable.
        RepositoryReadError::Store(e) if e.concerns_one_object() => SourceErrorKind::Damaged,
        RepositoryReadError::Store(_) => SourceErrorKind::Unavailable,
        RepositoryReadError::Pack { .. }
        | RepositoryReadError::Index { .. }
        | RepositoryReadError::Content { .. }
        | RepositoryReadError::Manifest { .. } => SourceErrorKind::Damaged,
    };
    SourceError { kind, detail: error.to_string() }
}

/// How much of the manifest is wanted at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum PathScope {
    /// The path and everything below it.
    Subtree,
    /// Only the path itself.
    Exact,
}

/// Entries of a snapshot in path order.
#[derive(Debug)]
pub struct RepositoryEntries {
    source: RepositorySource,
    walk: ManifestWalk,
    /// The wanted paths in descending order: the next one is last.
    wanted: Vec<(TreePath, PathScope)>,
}

impl RepositoryEntries {
    /// Keeps the wanted entries, and drops the wanted paths that the entries have passed.
    fn pick(&mut self, entries: Vec<ManifestEntry>) -> Vec<ManifestEntry> {
        let mut picked = Vec::with_capacity(entries.len());
        for entry in entries {
            while let Some((path, wanted)) = self.wanted.last() {
                let over = match wanted {
                    PathScope::Exact => entry.path > *path,
                    PathScope::Subtree => entry.path > *path && !entry.path.starts_with(path),
                };
                if !over {
                    break;
                }
                self.wanted.pop();
            }
            match self.wanted.last() {
                Some((path, _)) if entry.path >= *path => picked.push(entry),
                Some(_) => {}
                None => break,
            }
        }
        picked
    }
}

#[async_trait]
impl EntryReader for RepositoryEntries {
    async fn next_batch(&mut self) -> Result<Option<Vec<ManifestEntry>>, SourceError> {
        while let Some((path, _)) = self.wanted.last() {
            self.walk.seek(path);
            let Some(id) = self.walk.wanted_chunk() else { return Ok(None) };
            if self.beyond() {
                self.wanted.pop();
                continue;
            }
            let bytes = match self.source.chunk(&id).await {
                Err(error) if error.kind != SourceErrorKind::Unavailable && self.pass_over() => {
                    self.walk.skip();
                    continue;
                }
                bytes => bytes?,
            };
            let given = match self.walk.provide_chunk(&bytes) {
                Err(_) if self.source.0.lost.is_some() => {
                    self.pass_over();
                    continue;
                }
                given => given.map_err(|error| source_error(&RepositoryReadError::Manifest { chunk: id, error }))?,
            };
            if let Some(entries) = given {
                let picked = self.pick(entries);
                if !picked.is_empty() {
                    return Ok(Some(picked));
                }
            }
        }
        Ok(None)
    }
}

impl RepositoryEntries {
    /// Records that the manifest node that comes next is lost. Returns whether it may be skipped.
    fn pass_over(&self) -> bool {
        let Some(lost) = &self.source.0.lost else { return false };
        let node = self.walk.next_node().map(|node| (node.first.clone(), node.entries));
        let all = || (TreePath::default(), self.source.entries_count());
        lost.lock().push(node.unwrap_or_else(all));
        true
    }

    /// Whether all remaining entries of the current subtree lie beyond the next wanted path.
    fn beyond(&self) -> bool {
        let (Some(node), Some((path, wanted))) = (self.walk.next_node(), self.wanted.last()) else { return false };
        match wanted {
            PathScope::Exact => node.first > *path,
            PathScope::Subtree => path_after_subtree(path).is_some_and(|end| node.first >= end),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::job::restore::options::RestoreOptions;
    use crate::job::restore::restore;
    use crate::job::restore::source::SourceErrorKind;
    use crate::job::testing::{JobFixture, noise};

    async fn paths(rig: &JobFixture, source: &RepositorySource, wanted: &[&str]) -> Vec<String> {
        let wanted: Vec<TreePath> = wanted.iter().map(|p| rig.path(p)).collect();
        let mut entries = source.entries(&wanted);
        let mut paths = Vec::new();
        while let Some(batch) = entries.next_batch().await.unwrap() {
            paths.extend(batch.iter().map(|e| rig.below(&e.path)));
        }
        paths
    }

    async fn source(rig: &JobFixture) -> RepositorySource {
        let archive = rig.archive().await;
        let root = archive.snapshots().last().unwrap().root;
        RepositorySource::open(archive, root).await.unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_snapshot_comes_back_from_a_repository() {
        let rig = JobFixture::new().await;
        let big = noise(1, 9 << 20);
        rig.write("a/big", &big);
        rig.write("a/small", "small");
        std::fs::hard_link(rig.src().join("a/small"), rig.src().join("b")).unwrap();
        rig.backup().await;
        let source = source(&rig).await;
        let target = rig.dir.path().join("target");
        let roots = source.roots().await.unwrap();
        assert_eq!(roots, [rig.path("")]);
        let entries = Box::new(source.entries(&[]));
        let options = RestoreOptions { target: target.clone(), roots, ..RestoreOptions::default() };
        let report = restore(Arc::new(source), entries, options, Arc::default(), &Env::host()).await.unwrap();
        assert!(report.is_success(), "{report:?}");
        let at = |name: &str| target.join(rig.src().strip_prefix("/").unwrap()).join(name);
        assert!(std::fs::read(at("a/big")).unwrap() == big);
        assert_eq!(std::fs::read(at("b")).unwrap(), b"small");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn only_what_is_wanted_is_read() {
        let rig = JobFixture::new().await;
        for n in 0..3000 {
            rig.write(&format!("{:02}/file-{n}", n / 100), format!("{n}"));
        }
        rig.write("10.x", "sorts after 10/ and before 11");
        rig.backup().await;
        let source = source(&rig).await;
        assert_eq!(paths(&rig, &source, &[]).await.len(), 3000 + 30 + 1 + 1);
        let wanted = ["10", "25/file-2510", "25/file-2510", "nowhere"];
        let found = paths(&rig, &source, &wanted).await;
        assert_eq!(found[..3], ["", "/10", "/10/file-1000"]);
        assert_eq!(found.len(), 1 + 101 + 2);
        assert_eq!(found[102..], ["/25", "/25/file-2510"]);
        assert_eq!(
            paths(&rig, &source, &["10", "10/file-1000", "10.x"]).await[100..],
            ["/10/file-1098", "/10/file-1099", "/10.x"]
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn errors_tell_what_follows_from_them() {
        let rig = JobFixture::new().await;
        rig.write("a", noise(1, 3 << 20));
        rig.backup().await;
        let source = source(&rig).await;
        let entry = source.entry(&rig.path("a")).await.unwrap().unwrap();
        let place = source.locate(&entry.kind.chunks()[0]).unwrap();
        let key = crate::repo::object_keys::pack(&rig.role.name, place.pack);
        let whole = rig.memory.objects()[&key].clone();
        let kind = async || source.frames(place.pack, &[place.frame]).await.map_err(|e| e.kind).err();
        assert_eq!(kind().await, None);
        let mut flipped = whole.to_vec();
        flipped[place.stored_offset as usize + 100] ^= 1;
        rig.memory.tamper(&key, Some(flipped.into()));
        assert_eq!(kind().await, Some(SourceErrorKind::Damaged));
        rig.memory.tamper(&key, Some(whole.slice(..50)));
        assert_eq!(kind().await, Some(SourceErrorKind::Damaged));
        rig.memory.tamper(&key, None);
        assert_eq!(kind().await, Some(SourceErrorKind::Gone));
        assert!(!source.refresh().await, "the journal says nothing new");
        rig.write("b", "more");
        rig.memory.tamper(&key, Some(whole));
        rig.backup().await;
        assert!(source.refresh().await);
        assert_eq!(kind().await, None);
    }
}
