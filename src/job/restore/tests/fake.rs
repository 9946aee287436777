//! A repository in memory that counts requests and fails on demand.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use super::*;
use crate::ids::{ChunkId, PackId};
use crate::job::restore::source::{ChunkLocation, SourceError, SourceErrorKind};

/// Fixed sizes, small enough that a file of a few MB has many of each.
pub(super) const CHUNK: usize = 16 << 10;
const FRAME: usize = 128 << 10;
const FRAMES_PER_PACK: u32 = 16;

#[derive(Default)]
pub(super) struct Fake {
    pub(super) entries: Vec<ManifestEntry>,
    places: Mutex<HashMap<ChunkId, ChunkLocation>>,
    frames: HashMap<(PackId, u32), Bytes>,
    open: Vec<u8>,
    next_frame: u32,
    next_offset: u64,
    /// Frames that cannot be decrypted.
    pub(super) damaged: Mutex<BTreeSet<(PackId, u32)>>,
    /// Packs that are missing from the store.
    pub(super) gone: Mutex<BTreeSet<PackId>>,
    /// The index after it was read again.
    pub(super) newer: Mutex<Option<HashMap<ChunkId, ChunkLocation>>>,
    /// Number of requests that the store answers before it fails. 0: no limit.
    pub(super) answers: u64,
    pub(super) requests: AtomicU64,
    pub(super) fetched: AtomicU64,
    pub(super) refreshes: AtomicU64,
}

fn chunk_id(bytes: &[u8]) -> ChunkId {
    ChunkId(*blake3::keyed_hash(&[7; 32], bytes).as_bytes())
}

impl Fake {
    fn pack(&self) -> PackId {
        PackId([(self.next_frame / FRAMES_PER_PACK) as u8; 16])
    }

    pub(super) fn store(&mut self, content: &[u8]) -> Vec<ChunkId> {
        content
            .chunks(CHUNK)
            .map(|bytes| {
                let id = chunk_id(bytes);
                if self.places.lock().contains_key(&id) {
                    return id;
                }
                if self.open.len() + bytes.len() > FRAME {
                    self.seal();
                }
                let place = ChunkLocation {
                    pack: self.pack(),
                    frame: self.next_frame % FRAMES_PER_PACK,
                    offset_in_frame: self.open.len() as u32,
                    len: bytes.len() as u32,
                    stored_offset: self.next_offset,
                    stored_len: 0,
                };
                self.open.extend_from_slice(bytes);
                self.places.lock().insert(id, place);
                id
            })
            .collect()
    }

    /// Closes the open frame.
    pub(super) fn seal(&mut self) {
        if self.open.is_empty() {
            return;
        }
        let (pack, frame) = (self.pack(), self.next_frame % FRAMES_PER_PACK);
        let bytes = std::mem::take(&mut self.open);
        for place in self.places.get_mut().values_mut() {
            if (place.pack, place.frame) == (pack, frame) {
                place.stored_len = bytes.len() as u32;
            }
        }
        self.next_offset += bytes.len() as u64;
        self.frames.insert((pack, frame), bytes.into());
        self.next_frame += 1;
        if self.next_frame.is_multiple_of(FRAMES_PER_PACK) {
            self.next_offset = 0;
        }
    }

    pub(super) fn place_of(&self, at: &str) -> ChunkLocation {
        let entry = self.entries.iter().find(|e| e.path == path(at)).unwrap();
        self.locate(&entry.kind.chunks()[0]).unwrap()
    }

    /// Moves everything of one pack to another, as a prune does; the next read of the index shows it.
    pub(super) fn repack(self: &mut Arc<Self>, from: PackId, to: PackId) {
        let fake = Arc::get_mut(self).unwrap();
        let old: Vec<_> = fake.frames.keys().copied().filter(|(pack, _)| *pack == from).collect();
        for key in old {
            let bytes = fake.frames[&key].clone();
            fake.frames.insert((to, key.1), bytes);
        }
        let mut newer = fake.places.lock().clone();
        newer.values_mut().filter(|p| p.pack == from).for_each(|p| p.pack = to);
        *fake.newer.lock() = Some(newer);
        fake.gone.lock().insert(from);
    }

    /// Removes a chunk from the index.
    pub(super) fn forget(&self, chunk: &ChunkId) {
        self.places.lock().remove(chunk);
    }

    /// Lets the index give the location of other content for a chunk of `one`.
    pub(super) fn confuse(&self, one: &str, other: &str) {
        let place = self.place_of(other);
        let id = self.entries.iter().find(|e| e.path == path(one)).unwrap().kind.chunks()[0];
        self.places.lock().insert(id, place);
    }

    /// The whole content of a regular file, holes as zeros.
    pub(super) fn content(&self, kind: &EntryKind) -> Vec<u8> {
        let EntryKind::File { size, extents, chunks } = kind else { panic!("{kind:?}") };
        let mut bytes = Vec::new();
        for chunk in chunks {
            let place = self.locate(chunk).unwrap();
            let frame = &self.frames[&(place.pack, place.frame)];
            bytes.extend_from_slice(&frame[place.offset_in_frame as usize..][..place.len as usize]);
        }
        let Some(extents) = extents else { return bytes };
        let mut whole = vec![0; *size as usize];
        let mut rest = bytes.as_slice();
        for extent in extents {
            let (part, after) = rest.split_at(extent.len as usize);
            whole[extent.offset as usize..][..part.len()].copy_from_slice(part);
            rest = after;
        }
        whole
    }
}

#[async_trait]
impl SnapshotSource for Fake {
    fn locate(&self, chunk: &ChunkId) -> Option<ChunkLocation> {
        self.places.lock().get(chunk).copied()
    }

    async fn frames(&self, pack: PackId, frames: &[u32]) -> Result<Vec<Bytes>, SourceError> {
        assert!(frames.is_sorted() && !frames.is_empty());
        let fail = |kind, detail: String| Err(SourceError { kind, detail });
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        if self.answers > 0 && number > self.answers {
            return fail(SourceErrorKind::Unavailable, "the store does not answer".to_owned());
        }
        if self.gone.lock().contains(&pack) {
            return fail(SourceErrorKind::Gone, format!("pack {pack} is gone"));
        }
        if let Some(bad) = frames.iter().find(|f| self.damaged.lock().contains(&(pack, **f))) {
            return fail(SourceErrorKind::Damaged, format!("frame {bad} of pack {pack} cannot be opened"));
        }
        let bytes: Vec<Bytes> = frames.iter().map(|f| self.frames[&(pack, *f)].clone()).collect();
        self.fetched.fetch_add(bytes.iter().map(|b| b.len() as u64).sum(), Ordering::SeqCst);
        Ok(bytes)
    }

    fn chunk_id(&self, bytes: &[u8]) -> ChunkId {
        chunk_id(bytes)
    }

    async fn entry(&self, path: &TreePath) -> Result<Option<ManifestEntry>, SourceError> {
        Ok(self.entries.iter().find(|e| e.path == *path).cloned())
    }

    async fn refresh(&self) -> bool {
        self.refreshes.fetch_add(1, Ordering::SeqCst);
        let newer = self.newer.lock().take();
        newer.map(|newer| *self.places.lock() = newer).is_some()
    }
}

/// Entries in small batches.
pub(super) struct List(std::collections::VecDeque<ManifestEntry>);

impl List {
    pub(super) fn new(entries: Vec<ManifestEntry>) -> Self {
        Self(entries.into())
    }
}

#[async_trait]
impl EntryReader for List {
    async fn next_batch(&mut self) -> Result<Option<Vec<ManifestEntry>>, SourceError> {
        let n = self.0.len().min(7);
        Ok((n > 0).then(|| self.0.drain(..n).collect()))
    }
}
