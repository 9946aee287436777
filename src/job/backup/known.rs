//! What is known of a tree before it is walked, as one stream in path order: this node's cache, or a manifest from the store.

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::job::backup::BackupError;
use crate::job::cache::{CacheReader, Cached};
use crate::repo::entry::Entry;
use crate::repo::reader::{ManifestReader, RepoError};

/// Something that gives blocks of items in path order.
pub(crate) enum Blocks<'a> {
    /// Nothing.
    None,
    /// This node's cache.
    Cache(Box<CacheReader>),
    /// A manifest from the store, as far as it is not lost. Read from a thread that may block.
    Manifest(Box<ManifestReader<'a>>, Handle),
}

impl Blocks<'_> {
    fn next_block(&mut self) -> Result<Option<Vec<Cached>>, BackupError> {
        match self {
            Blocks::None => Ok(None),
            Blocks::Cache(reader) => Ok(reader.next_block()?),
            Blocks::Manifest(reader, handle) => {
                let entries = handle.block_on(next_left(reader))?;
                Ok(entries.map(|e| e.into_iter().map(|entry| Cached { entry: Arc::new(entry), local: None }).collect()))
            }
        }
    }
}

/// The next entries of a manifest, over what the index has not got: nothing is known of it then, and all of it is new.
pub(crate) async fn next_left(reader: &mut ManifestReader<'_>) -> Result<Option<Vec<Entry>>, RepoError> {
    loop {
        match reader.next_batch().await {
            Err(RepoError::Missing(_)) => reader.skip(),
            batch => return batch,
        }
    }
}

/// A stream that can be looked at before it is taken from.
pub(crate) struct Stream<'a> {
    blocks: Blocks<'a>,
    block: std::vec::IntoIter<Cached>,
    ended: bool,
}

impl<'a> Stream<'a> {
    pub(crate) fn new(blocks: Blocks<'a>) -> Self {
        Self { blocks, block: Vec::new().into_iter(), ended: false }
    }

    /// Takes the next item if it passes.
    pub(crate) fn next_if(&mut self, passes: impl Fn(&Cached) -> bool) -> Result<Option<Cached>, BackupError> {
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
