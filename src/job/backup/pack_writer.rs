//! Writes chunks into packs, one after the other, and uploads each pack when it is full. For work of one task; the
//! pipeline of a backup builds and uploads in parallel ([`super::packer`]).

use crate::env::Env;
use crate::ids::PackId;
use crate::job::node::progress::JobProgress;
use crate::job::repository::open::Repository;
use crate::repo::object_keys;
use crate::repo::pack::{ChunkEntry, FRAME_TARGET_BYTES, FrameCompressor, PackBuilder, PackTable};
use crate::store::StoreError;

/// Collects chunks of one kind. Content and manifest nodes go into packs of their own, so that reading a manifest does
/// not fetch content too: each kind has its own writer.
pub(in crate::job) struct PackWriter<'a> {
    repository: &'a Repository,
    env: &'a Env,
    /// Counts the uploaded bytes.
    progress: Option<&'a JobProgress>,
    compressor: FrameCompressor,
    content: Vec<u8>,
    chunks: Vec<ChunkEntry>,
    pack: Option<PackBuilder>,
    tables: Vec<PackTable>,
}

impl<'a> PackWriter<'a> {
    pub(in crate::job) fn new(repository: &'a Repository, env: &'a Env, progress: Option<&'a JobProgress>) -> Self {
        Self {
            repository,
            env,
            progress,
            compressor: FrameCompressor::default(),
            content: Vec::new(),
            chunks: Vec::new(),
            pack: None,
            tables: Vec::new(),
        }
    }

    /// Adds a chunk, whose length is that of `content`. A full pack is uploaded before this returns.
    ///
    /// # Errors
    /// The pack could not be stored.
    pub(in crate::job) async fn push(&mut self, chunk: ChunkEntry, content: &[u8]) -> Result<(), StoreError> {
        self.content.extend_from_slice(content);
        self.chunks.push(chunk);
        if self.content.len() >= FRAME_TARGET_BYTES {
            self.close_frame();
        }
        if self.pack.as_ref().is_some_and(PackBuilder::is_full) { self.upload().await } else { Ok(()) }
    }

    /// Uploads the rest. Returns the tables of all packs.
    ///
    /// # Errors
    /// The pack could not be stored.
    pub(in crate::job) async fn finish(mut self) -> Result<Vec<PackTable>, StoreError> {
        if !self.chunks.is_empty() {
            self.close_frame();
        }
        self.upload().await?;
        Ok(self.tables)
    }

    fn close_frame(&mut self) {
        let frame = self.compressor.pack(&self.content, std::mem::take(&mut self.chunks));
        self.content.clear();
        let (keys, env) = (&self.repository.keys, self.env);
        let new = || PackBuilder::new(keys, PackId(env.random_bytes()), env.random_bytes());
        self.pack.get_or_insert_with(new).push(frame);
    }

    async fn upload(&mut self) -> Result<(), StoreError> {
        let Some(pack) = self.pack.take() else { return Ok(()) };
        let (object, table) = pack.finish();
        let len = object.len() as u64;
        self.repository.store.put(&object_keys::pack(self.repository.role(), table.id), object).await?;
        if let Some(progress) = self.progress {
            JobProgress::add(&progress.bytes_uploaded, len);
        }
        self.tables.push(table);
        Ok(())
    }
}
