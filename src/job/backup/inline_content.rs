//! A run whose content is passed in memory instead of being read from sources: small files, one chunk each, stored by
//! one task without threads. Every decision on what is stored, reused and named is the same as in a run over a tree.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::ids::{ChunkId, PackId};
use crate::job::admission::session::RoleSession;
use crate::job::backup::BackupError;
use crate::job::backup::dedup_index::{DedupIndex, IndexLoadOptions, IndexLoader};
use crate::job::backup::entry_stream::next_readable;
use crate::job::backup::finish_stage::BackupStats;
use crate::job::backup::pipeline::PipelineOutput;
use crate::job::node::progress::JobProgress;
use crate::journal::state::Snapshot;
use crate::repo::entry::{EntryKind, ManifestEntry, OwnerAndMode, TreePath, UnixNanos};
use crate::repo::manifest::{ManifestChunkSink, ManifestWriter};
use crate::repo::object_keys;
use crate::repo::pack::{ChunkEntry, FrameCompressor, PackBuilder, PackTable, PackedFrame};
use crate::repo::reader::RepositoryReader;
use crate::role::permit::Permit;
use crate::tree::compare::{self, PathChange};

/// Content that is passed in memory.
pub trait InlineContent: Debug + Send + Sync {
    /// Resolves when the files can be read. For content that hangs it never does.
    fn ready(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::ready(()))
    }

    /// The current files, for a run under this permit.
    fn files(&self, permit: &Permit) -> BTreeMap<TreePath, Bytes>;
}

/// Collects new chunks of one kind into a pack.
struct PackWriter<'a> {
    session: &'a RoleSession<'a>,
    ledger: &'a DedupIndex<'a>,
    compressor: FrameCompressor,
    frames: Vec<PackedFrame>,
    ids: Vec<ChunkId>,
    new_bytes: u64,
}

impl<'a> PackWriter<'a> {
    fn new(session: &'a RoleSession<'a>, ledger: &'a DedupIndex<'a>) -> Self {
        let (compressor, frames, ids) = (FrameCompressor::default(), Vec::new(), Vec::new());
        Self { session, ledger, compressor, frames, ids, new_bytes: 0 }
    }

    fn store(&mut self, content: &[u8]) -> Result<ChunkId, BackupError> {
        let id = self.session.repository.keys.chunk_id(content);
        if self.ledger.claim(&id)? {
            let chunk = ChunkEntry { id, len: content.len() as u32 };
            self.frames.push(self.compressor.pack(content, vec![chunk]));
            self.new_bytes += content.len() as u64;
        }
        Ok(id)
    }

    async fn upload(self) -> Result<Option<PackTable>, BackupError> {
        let (node_context, repository) = (self.session.node_context, self.session.repository);
        if self.frames.is_empty() {
            return Ok(None);
        }
        let mut pack = PackBuilder::new(
            &repository.keys,
            PackId(node_context.env.random_bytes()),
            node_context.env.random_bytes(),
        );
        for frame in self.frames {
            pack.push(frame);
        }
        let (bytes, table) = pack.finish();
        let len = bytes.len() as u64;
        repository.store.put(&object_keys::pack(repository.role(), table.id), bytes).await?;
        JobProgress::add(&node_context.progress.bytes_uploaded, len);
        Ok(Some(table))
    }
}

impl ManifestChunkSink for PackWriter<'_> {
    type Error = BackupError;

    fn put(&mut self, bytes: Vec<u8>) -> Result<ChunkId, BackupError> {
        let id = self.store(&bytes)?;
        self.ids.push(id);
        Ok(id)
    }
}

/// Stores the part of `content` that is new.
pub(in crate::job) async fn gather(
    session: &RoleSession<'_>,
    content: &dyn InlineContent,
    base: Option<&Snapshot>,
    survey: IndexLoadOptions,
) -> Result<PipelineOutput, BackupError> {
    content.ready().await;
    let files = content.files(&session.permit);
    let index_loader = IndexLoader::new(session, survey);
    let known_chunks = index_loader.load().await?;
    let repository = session.repository;
    let reader = RepositoryReader::new(repository.store.clone(), repository.keys.clone(), known_chunks.index.clone());
    let mut before = BTreeMap::new();
    if let Some(base) = base {
        let mut manifest = reader.manifest(base.root);
        while let Some(entries) = next_readable(&mut manifest).await? {
            before.extend(entries.into_iter().map(|entry| (entry.path.clone(), entry)));
        }
    }
    let ledger = DedupIndex::new(HashSet::new(), Some(known_chunks), || unreachable!("it was loaded"));
    let (mut data, mut tally) = (PackWriter::new(session, &ledger), BackupStats::default());
    let mut manifest = ManifestWriter::new(PackWriter::new(session, &ledger));
    let mut read_bytes = 0;
    for (path, bytes) in files {
        let chunks = if bytes.is_empty() { Vec::new() } else { vec![data.store(&bytes)?] };
        read_bytes += bytes.len() as u64;
        let kind = EntryKind::File { size: bytes.len() as u64, extents: None, chunks };
        let entry =
            ManifestEntry { path, kind, owner: OwnerAndMode::default(), mtime: UnixNanos(0), xattrs: Vec::new() };
        let was = before.remove(&entry.path);
        match compare::path_change(was.as_ref(), Some(&entry)) {
            Some(PathChange::New) => tally.files.new += 1,
            Some(PathChange::Unchanged) => tally.files.unchanged += 1,
            _ => tally.files.changed += 1,
        }
        if was.as_ref() != Some(&entry) {
            tally.changed_set.update(entry.path.as_bytes()).update(b"\0");
        }
        tally.regular += 1;
        tally.content += 1;
        tally.source_bytes += bytes.len() as u64;
        manifest.push(entry)?;
    }
    for path in before.keys() {
        tally.changed_set.update(path.as_bytes()).update(b"\0-");
    }
    let (root, entries, nodes) = manifest.finish()?;
    tally.entries = entries;
    let (ids, new_bytes) = (nodes.ids.clone(), data.new_bytes);
    let mut packs = Vec::new();
    for lane in [data, nodes] {
        if session.node_context.cancel.is_cancelled() {
            return Err(BackupError::Interrupted);
        }
        packs.extend(lane.upload().await?);
    }
    packs.extend(ledger.used_orphans());
    let healing = ledger.healing();
    Ok(PipelineOutput {
        root,
        nodes: ids,
        removed: before.len() as u64,
        changed_set: *tally.changed_set.finalize().as_bytes(),
        stats: Box::new(tally),
        sources: Vec::new(),
        indexes: Vec::new(),
        packs,
        cache: None,
        healing,
        mounts: Vec::new(),
        read_bytes,
        new_bytes,
    })
}
