//! The known entries of a tree as one stream in path order: from this node's cache, or from a manifest in the store.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::job::backup::tree_cache::{CacheReader, CachedEntry};
use crate::job::error::BackupError;
use crate::repo::entry::ManifestEntry;
use crate::repo::reader::{ManifestReader, RepositoryReadError};

/// A source of blocks of entries in path order.
pub(crate) enum EntryBlocks<'a> {
    /// No entries.
    None,
    /// This node's cache.
    Cache(Box<CacheReader>),
    /// A manifest in the store, without its lost parts. Read from a thread that may block.
    Manifest(Box<ManifestReader<'a>>, Handle),
}

impl EntryBlocks<'_> {
    fn next_block(&mut self) -> Result<Option<Vec<CachedEntry>>, BackupError> {
        match self {
            EntryBlocks::None => Ok(None),
            EntryBlocks::Cache(reader) => Ok(reader.next_block()?),
            EntryBlocks::Manifest(reader, handle) => {
                let entries = handle.block_on(next_readable(reader))?;
                Ok(entries
                    .map(|e| e.into_iter().map(|entry| CachedEntry { entry: Arc::new(entry), local: None }).collect()))
            }
        }
    }
}

/// The next entries of a manifest. Nodes that the index lacks are skipped: their entries count as new.
pub(crate) async fn next_readable(
    reader: &mut ManifestReader<'_>,
) -> Result<Option<Vec<ManifestEntry>>, RepositoryReadError> {
    loop {
        match reader.next_batch().await {
            Err(RepositoryReadError::Missing(_)) => reader.skip(),
            batch => return batch,
        }
    }
}

/// A stream with a look at the next entry before it is taken.
pub(crate) struct EntryStream<'a> {
    blocks: EntryBlocks<'a>,
    block: std::vec::IntoIter<CachedEntry>,
    ended: bool,
}

impl<'a> EntryStream<'a> {
    pub(crate) fn new(blocks: EntryBlocks<'a>) -> Self {
        Self { blocks, block: Vec::new().into_iter(), ended: false }
    }

    /// Takes the next entry if `passes` returns true for it.
    pub(crate) fn next_if(
        &mut self,
        passes: impl Fn(&CachedEntry) -> bool,
    ) -> Result<Option<CachedEntry>, BackupError> {
        while self.block.as_slice().is_empty() {
            if self.ended {
                return Ok(None);
            }
            match self.blocks.next_block()? {
                Some(block) => self.block = block.into_iter(),
                None => self.ended = true,
            }
        }
        if self.block.as_slice().first().is_some_and(passes) { Ok(self.block.next()) } else { Ok(None) }
    }
}
