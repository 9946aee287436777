//! Errors of reading a repository.

use crate::ids::{ChunkId, IndexId, PackId};
use crate::repo::codec::DecodeError;
use crate::repo::pack::PackError;
use crate::store::error::StoreError;

/// Why stored data cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RepositoryReadError {
    /// The store returned an error.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A pack is damaged.
    #[error("pack {pack} {error}")]
    Pack {
        /// The pack's ID.
        pack: PackId,
        /// The error in the pack.
        error: PackError,
    },
    /// An index object.
    #[error("index {index} is damaged ({error})")]
    Index {
        /// The ID of the index object.
        index: IndexId,
        /// The error in the index object.
        error: DecodeError,
    },
    /// No loaded index object lists the chunk.
    #[error("chunk {0} is in no pack that the index knows")]
    Missing(ChunkId),
    /// A frame's content differs from what its index lists.
    #[error("chunk {chunk} in pack {pack} has content that does not match its name")]
    Content {
        /// The chunk's ID.
        chunk: ChunkId,
        /// The pack that contains it.
        pack: PackId,
    },
    /// A part of a manifest is damaged.
    #[error("the manifest is damaged at chunk {chunk} ({error})")]
    Manifest {
        /// The chunk that does not decode.
        chunk: ChunkId,
        /// The error in the manifest.
        error: DecodeError,
    },
}
