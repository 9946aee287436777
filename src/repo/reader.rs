//! Reads a repository: index objects, frames, chunks, manifests. The adapter between the pure formats and the store.
//!
//! Everything returned from here is verified: a frame by its seal, a chunk by its ID, an index and a manifest by both.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use parking_lot::Mutex;

use crate::env::Env;
use crate::ids::{ChunkId, IndexId, PackId};
use crate::repo::crypto::DerivedKeys;
use crate::repo::entry::{ManifestEntry, TreePath};
use crate::repo::index::{ChunkIndex, IndexedPack, decode_index};
use crate::repo::loss::LossLog;
use crate::repo::manifest::{ManifestNodeRef, ManifestWalk};
use crate::repo::object_keys;
use crate::repo::pack::{PackTable, open_frame};
pub use crate::repo::read_error::RepositoryReadError;
use crate::store::{LargeReadLock, SizeLimit, Store, get_with_large_read_lock};

/// How many index objects are fetched at once.
const INDEX_FETCHES: usize = 8;

/// How many decoded frames are cached: neighbours in path order share frames, and a frame has about 2 MiB.
const FRAMES_KEPT: usize = 8;

/// The most bytes for which frames close to each other are fetched with one request.
const FETCH_BYTES_MAX: u64 = 8 << 20;

/// The largest gap between two such frames, in bytes: at 100 MB/s reading it is cheaper than a second request even over
/// the fastest network.
const FETCH_GAP_MAX: u64 = 128 << 10;

/// Reads one repository.
#[derive(Debug)]
pub struct RepositoryReader {
    store: Arc<dyn Store>,
    keys: DerivedKeys,
    index: Arc<ChunkIndex>,
    frames: Mutex<VecDeque<((PackId, u32), Bytes)>>,
    /// Records what was missing or damaged.
    log: LossLog,
    /// Number of chunks returned so far, for tests: the cost of neighbours in a frame does not show in requests.
    #[cfg(test)]
    pub(crate) chunks_read: std::sync::atomic::AtomicU64,
}

/// Loads the index from these objects. With a cache each object is fetched once, because it never changes under its ID;
/// a cached copy is checked like one from the store.
pub async fn load_index(
    store: &dyn Store,
    keys: &DerivedKeys,
    ids: &[IndexId],
    cache: Option<&IndexCache>,
) -> Result<ChunkIndex, RepositoryReadError> {
    load_index_with_damaged_packs(store, keys, ids, cache, |_| false).await
}

/// Like [`load_index`], with these packs treated as damaged.
pub async fn load_index_with_damaged_packs(
    store: &dyn Store,
    keys: &DerivedKeys,
    ids: &[IndexId],
    cache: Option<&IndexCache>,
    is_damaged: impl Fn(&PackId) -> bool + Send,
) -> Result<ChunkIndex, RepositoryReadError> {
    let mut index = ChunkIndex::default();
    let mut tables = Box::pin(stream_tables(store, keys, ids, cache));
    while let Some(tables) = tables.try_next().await? {
        for table in &tables {
            if is_damaged(&table.id) {
                index.add_damaged(table, |_| true);
            } else {
                index.add(table);
            }
        }
    }
    index.sort();
    Ok(index)
}

/// The tables in these index objects, one object at a time; uses a cache like [`load_index`].
pub fn stream_tables<'a>(
    store: &'a dyn Store,
    keys: &'a DerivedKeys,
    ids: &[IndexId],
    cache: Option<&'a IndexCache>,
) -> impl Stream<Item = Result<Vec<PackTable>, RepositoryReadError>> + Send + use<'a> {
    let turn = Arc::new(LargeReadLock::default());
    let load = move |id: IndexId| {
        let turn = Arc::clone(&turn);
        async move {
            if let Some(index_cache) = cache
                && let Some(object) = index_cache.get(id).await
                && let Ok(tables) = decode_index(keys, id, &object)
            {
                return Ok(tables);
            }
            let limits = (SizeLimit::INDEX_AHEAD, SizeLimit::INDEX);
            let (object, _turn) =
                get_with_large_read_lock(store, &object_keys::index(keys.role(), id), limits, &turn).await?;
            let tables =
                decode_index(keys, id, &object).map_err(|error| RepositoryReadError::Index { index: id, error })?;
            if let Some(index_cache) = cache {
                index_cache.put(id, object).await;
            }
            Ok(tables)
        }
    };
    stream::iter(ids.to_vec()).map(load).buffered(INDEX_FETCHES)
}

/// This node's cache of index objects: files named by their ID.
#[derive(Debug, Clone)]
pub struct IndexCache {
    /// The directory of the cache.
    pub dir: PathBuf,
    /// The environment for file operations.
    pub env: Env,
}

impl IndexCache {
    /// The cached copy of this object, if there is one. The caller must check it like an object from the store.
    pub async fn get(&self, id: IndexId) -> Option<Vec<u8>> {
        let (path, files) = (self.dir.join(id.to_string()), Arc::clone(&self.env.files));
        self.env.blocking(move || files.read(&path).ok()).await.flatten()
    }

    /// If the cache cannot be written, the next run fetches the object again; nothing else is lost.
    async fn put(&self, id: IndexId, object: Bytes) {
        let (path, files) = (self.dir.join(id.to_string()), Arc::clone(&self.env.files));
        let _ = self.env.blocking(move || files.write(&path, &object)).await;
    }

    /// Removes the objects that are not in `named`. A file that cannot be removed only takes space.
    pub fn retain_only(&self, named: &[IndexId]) {
        for name in self.env.files.list(&self.dir).unwrap_or_default() {
            if name.parse().is_ok_and(|id: IndexId| !named.contains(&id)) {
                let _ = self.env.files.remove(&self.dir.join(name));
            }
        }
    }
}

impl RepositoryReader {
    /// A reader for the chunks in `index`.
    pub fn new(store: Arc<dyn Store>, keys: DerivedKeys, index: Arc<ChunkIndex>) -> Self {
        Self {
            store,
            keys,
            index,
            frames: Mutex::default(),
            log: LossLog::default(),
            #[cfg(test)]
            chunks_read: std::sync::atomic::AtomicU64::default(),
        }
    }

    /// Records losses in `log`.
    pub fn with_loss_log(self, log: &LossLog) -> Self {
        Self { log: log.clone(), ..self }
    }

    /// Records the error if it reports a loss, and returns it.
    fn record_loss(&self, error: RepositoryReadError) -> RepositoryReadError {
        self.log.record(&error, self.keys.role());
        error
    }

    /// The error for a chunk whose content does not match its ID.
    pub fn mismatch_error(&self, chunk: ChunkId, pack: PackId) -> RepositoryReadError {
        self.record_loss(RepositoryReadError::Content { chunk, pack })
    }

    /// The index that the reader uses.
    pub fn index(&self) -> &ChunkIndex {
        &self.index
    }

    /// The keys of the repository.
    pub fn keys(&self) -> &DerivedKeys {
        &self.keys
    }

    /// The plain content of frames `numbers` (ascending) of one pack, in that order; frames close to each other are
    /// fetched with one request.
    pub async fn frames(&self, pack: &IndexedPack, numbers: &[u32]) -> Result<Vec<Bytes>, RepositoryReadError> {
        let place = |n: u32| &pack.frames[n as usize];
        let end = |n: u32| place(n).offset + u64::from(place(n).stored_len);
        let mut out = Vec::with_capacity(numbers.len());
        let mut rest = numbers;
        while let Some(&first) = rest.first() {
            let start = place(first).offset;
            let mut run = 1;
            while let Some(&next) = rest.get(run)
                && place(next).offset.saturating_sub(end(rest[run - 1])) <= FETCH_GAP_MAX
                && end(next) - start <= FETCH_BYTES_MAX
            {
                run += 1;
            }
            let range = start..end(rest[run - 1]);
            let fetched = self.store.get_range(&object_keys::pack(self.keys.role(), pack.id), range).await;
            let sealed = fetched.map_err(|error| self.record_loss(error.into()))?;
            for &n in &rest[..run] {
                let at = (place(n).offset - start) as usize;
                let part = sealed.get(at..at + place(n).stored_len as usize).unwrap_or_default();
                out.push(self.open(pack, n, part)?);
            }
            rest = &rest[run..];
        }
        Ok(out)
    }

    fn open(&self, pack: &IndexedPack, frame: u32, sealed: &[u8]) -> Result<Bytes, RepositoryReadError> {
        let place = &pack.frames[frame as usize];
        let key = self.keys.object_sealer(pack.id.0, pack.salt);
        open_frame(&key, frame, sealed, place.compressed, place.raw_len as usize)
            .map(Bytes::from)
            .map_err(|error| self.record_loss(RepositoryReadError::Pack { pack: pack.id, error }))
    }

    fn cached_frame(&self, wanted: (PackId, u32)) -> Option<Bytes> {
        let frames = self.frames.lock();
        frames.iter().find(|(at, _)| *at == wanted).map(|(_, content)| content.clone())
    }

    fn cache_frame(&self, at: (PackId, u32), content: Bytes) {
        let mut frames = self.frames.lock();
        if frames.len() == FRAMES_KEPT {
            frames.pop_front();
        }
        frames.push_back((at, content));
    }

    /// The content of one chunk.
    pub async fn chunk(&self, id: &ChunkId) -> Result<Bytes, RepositoryReadError> {
        #[cfg(test)]
        self.chunks_read.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let (place, pack) = self.index.find(id).ok_or(RepositoryReadError::Missing(*id))?;
        let at = (place.pack, place.frame);
        let frame = if let Some(frame) = self.cached_frame(at) {
            frame
        } else {
            let frame = self.frames(pack, &[place.frame]).await?.pop().expect("one frame was asked for");
            self.cache_frame(at, frame.clone());
            frame
        };
        let range = place.offset as usize..place.offset as usize + place.len as usize;
        let content = frame.slice(range);
        if self.keys.chunk_id(&content) != *id {
            return Err(self.mismatch_error(*id, place.pack));
        }
        Ok(content)
    }

    /// Reads a manifest in path order.
    pub fn manifest(&self, root: ChunkId) -> ManifestReader<'_> {
        ManifestReader { reader: self, walk: ManifestWalk::new(root), from: None }
    }

    /// Looks up one entry by its path.
    pub async fn entry(&self, root: ChunkId, path: &TreePath) -> Result<Option<ManifestEntry>, RepositoryReadError> {
        let mut manifest = self.manifest(root);
        manifest.seek(path);
        while let Some(entries) = manifest.next_batch().await? {
            for entry in entries {
                if entry.path == *path {
                    return Ok(Some(entry));
                }
                if entry.path > *path {
                    return Ok(None);
                }
            }
            manifest.seek(path);
        }
        Ok(None)
    }
}

/// Reads a manifest one segment at a time.
#[derive(Debug)]
pub struct ManifestReader<'a> {
    reader: &'a RepositoryReader,
    walk: ManifestWalk,
    /// The path of the last seek, for pages that are opened later.
    from: Option<TreePath>,
}

impl ManifestReader<'_> {
    /// The entries of the next segment; `None` at the end.
    pub async fn next_batch(&mut self) -> Result<Option<Vec<ManifestEntry>>, RepositoryReadError> {
        while let Some(chunk) = self.walk.wanted_chunk() {
            let bytes = self.reader.chunk(&chunk).await?;
            let given =
                self.walk.provide_chunk(&bytes).map_err(|error| RepositoryReadError::Manifest { chunk, error })?;
            if given.is_some() {
                return Ok(given);
            }
            if let Some(path) = &self.from {
                self.walk.seek(path);
            }
        }
        Ok(None)
    }

    /// Skips what lies wholly before `path`; entries before it may still come.
    pub fn seek(&mut self, path: &TreePath) {
        self.walk.seek(path);
        self.from = Some(path.clone());
    }

    /// The next node, as far as it is known without reading it.
    pub fn next_node(&self) -> Option<&ManifestNodeRef> {
        self.walk.next_node()
    }

    /// The chunk of the next node.
    pub fn next_chunk(&self) -> Option<ChunkId> {
        self.walk.wanted_chunk()
    }

    /// Skips the next node.
    pub fn skip(&mut self) {
        self.walk.skip();
    }
}
