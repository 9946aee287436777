//! Where a restore gets entries and frames from.

use async_trait::async_trait;
use bytes::Bytes;

use crate::ids::{ChunkId, PackId};
use crate::repo::entry::{ManifestEntry, TreePath};

/// Where a chunk is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkLocation {
    /// The pack that holds the chunk.
    pub pack: PackId,
    /// The number of the frame in its pack.
    pub frame: u32,
    /// Offset of the chunk in the plain frame, in bytes.
    pub offset_in_frame: u32,
    /// Length of the plain chunk, in bytes.
    pub len: u32,
    /// Offset of the frame in the pack, in bytes.
    pub stored_offset: u64,
    /// Length of the stored frame, in bytes.
    pub stored_len: u32,
}

/// The source of content: an opened snapshot.
#[async_trait]
pub trait SnapshotSource: Send + Sync {
    /// Location of a chunk; `None` if the index does not have it.
    fn locate(&self, chunk: &ChunkId) -> Option<ChunkLocation>;

    /// The plain bytes of whole frames, in the order of `frames`. The frame numbers ascend and lie so close together
    /// that one request serves them all.
    async fn frames(&self, pack: PackId, frames: &[u32]) -> Result<Vec<Bytes>, SourceError>;

    /// The keyed hash that names content.
    fn chunk_id(&self, bytes: &[u8]) -> ChunkId;

    /// The snapshot's entry at `path`.
    async fn entry(&self, path: &TreePath) -> Result<Option<ManifestEntry>, SourceError>;

    /// Reads the index again after a pack was missing or a chunk unknown: a prune may have moved chunks. `false` if the
    /// store has no newer index.
    async fn refresh(&self) -> bool;
}

/// The entries of a snapshot in path order.
#[async_trait]
pub trait EntryReader: Send {
    /// The next entries; `None` after the last batch.
    async fn next_batch(&mut self) -> Result<Option<Vec<ManifestEntry>>, SourceError>;
}

/// A failed read from a [`SnapshotSource`].
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub struct SourceError {
    /// Decides whether files fail or the restore ends.
    pub kind: SourceErrorKind,
    /// The object concerned and what is wrong with it.
    pub detail: String,
}

/// The kinds of [`SourceError`]; the restore's reaction depends on the kind alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// The pack is not in the store. The index is read again once; then the chunks count as lost.
    Gone,
    /// The stored bytes are not what was written. The files concerned fail, the others go on.
    Damaged,
    /// The store does not answer: the restore ends.
    Unavailable,
}
