//! A run whose content is passed in memory instead of being read from sources: small files, one chunk each, stored by
//! one task without threads. Every decision on what is stored, reused and named is the same as in a run over a tree.

use std::collections::{BTreeMap, HashSet};

use crate::ids::ChunkId;
use crate::job::admission::session::RoleSession;
use crate::job::backup::dedup_index::{DedupIndex, IndexLoadOptions, IndexLoader};
use crate::job::backup::entry_stream::next_readable;
use crate::job::backup::finish_stage::BackupStats;
use crate::job::backup::pack_writer::PackWriter;
use crate::job::backup::pipeline::PipelineOutput;
use crate::job::error::BackupError;
use crate::job::node::context::InlineContent;
use crate::journal::state::Snapshot;
use crate::repo::crypto::DerivedKeys;
use crate::repo::entry::{EntryKind, ManifestEntry, OwnerAndMode, UnixNanos};
use crate::repo::manifest::{ManifestChunkSink, ManifestWriter};
use crate::repo::pack::ChunkEntry;
use crate::repo::reader::RepositoryReader;
use crate::tree::compare::{self, PathChange};

/// Collects the new chunks of one kind.
struct NewChunks<'a> {
    keys: &'a DerivedKeys,
    dedup: &'a DedupIndex<'a>,
    /// The chunks, with their content.
    chunks: Vec<(ChunkEntry, Vec<u8>)>,
    /// The IDs of all chunks, new or not.
    ids: Vec<ChunkId>,
}

impl<'a> NewChunks<'a> {
    fn new(keys: &'a DerivedKeys, dedup: &'a DedupIndex<'a>) -> Self {
        Self { keys, dedup, chunks: Vec::new(), ids: Vec::new() }
    }

    fn bytes(&self) -> u64 {
        self.chunks.iter().map(|(_, content)| content.len() as u64).sum()
    }
}

impl ManifestChunkSink for NewChunks<'_> {
    type Error = BackupError;

    fn put(&mut self, content: Vec<u8>) -> Result<ChunkId, BackupError> {
        let id = self.keys.chunk_id(&content);
        if self.dedup.claim(&id)? {
            self.chunks.push((ChunkEntry { id, len: content.len() as u32 }, content));
        }
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
    let files = content.files(session.permit());
    let index_loader = IndexLoader::new(session, survey);
    let known_chunks = index_loader.load().await?;
    let (repository, node_context) = (session.repository(), session.node_context());
    let reader = RepositoryReader::new(repository.store.clone(), repository.keys.clone(), known_chunks.index.clone());
    let mut before = BTreeMap::new();
    if let Some(base) = base {
        let mut manifest = reader.manifest(base.root);
        while let Some(entries) = next_readable(&mut manifest).await? {
            before.extend(entries.into_iter().map(|entry| (entry.path.clone(), entry)));
        }
    }
    let dedup = DedupIndex::new(HashSet::new(), Some(known_chunks), || unreachable!("it was loaded"));
    let (mut data, mut tally) = (NewChunks::new(&repository.keys, &dedup), BackupStats::default());
    let mut manifest = ManifestWriter::new(NewChunks::new(&repository.keys, &dedup));
    let mut read_bytes = 0;
    for (path, bytes) in files {
        let chunks = if bytes.is_empty() { Vec::new() } else { vec![data.put(bytes.to_vec())?] };
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
    let (ids, new_bytes) = (nodes.ids.clone(), data.bytes());
    let mut packs = Vec::new();
    for collected in [data, nodes] {
        if node_context.cancel.is_cancelled() {
            return Err(BackupError::Interrupted);
        }
        let mut writer = PackWriter::new(repository, &node_context.env, Some(&node_context.progress));
        for (chunk, content) in collected.chunks {
            writer.push(chunk, &content).await?;
        }
        packs.extend(writer.finish().await?);
    }
    packs.extend(dedup.used_orphans());
    let healing = dedup.healing();
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
