//! Copies the needed chunks of wasteful packs into new packs. Every chunk is checked against its ID, so damage is not
//! copied.

use std::collections::HashMap;

use bytes::Bytes;

use super::plan::PackAction;
use super::usage::RepositoryUsage;
use super::{PruneError, RepositoryReadError};
use crate::ids::{ChunkId, PackId};
use crate::job::admission::session::RoleSession;
use crate::job::backup::BackupError;
use crate::job::node::progress::JobProgress;
use crate::repo::object_keys;
use crate::repo::pack::{ChunkEntry, FRAME_TARGET_BYTES, FrameCompressor, PackBuilder, PackTable};

/// Frames of one pack that are fetched with one call.
const FRAMES_AT_ONCE: usize = 8;

/// Chunks that are collected for the next pack.
#[derive(Default)]
struct RepackBuffer {
    content: Vec<u8>,
    chunks: Vec<ChunkEntry>,
    pack: Option<PackBuilder>,
}

/// Copies the needed chunks; returns the tables of the new packs.
pub(super) async fn repack(
    session: &RoleSession<'_>,
    survey: &RepositoryUsage,
    fates: &[(PackId, PackAction)],
) -> Result<Vec<PackTable>, PruneError> {
    let fates: HashMap<PackId, PackAction> = fates.iter().copied().collect();
    let mut moving = Repacker { session, compressor: FrameCompressor::default(), tables: Vec::new() };
    // Content and manifest nodes go into separate packs, so that reading a manifest does not fetch content too.
    let (mut data, mut nodes) = (RepackBuffer::default(), RepackBuffer::default());
    for table in survey.tables.iter().filter(|table| fates.get(&table.id) == Some(&PackAction::Repack)) {
        let place = survey.reader.index().packs().iter().find(|place| place.id == table.id);
        let place = place.expect("every table is in the index");
        let wanted = |frame: &u32| {
            table.frames[*frame as usize].chunks.iter().any(|chunk| survey.is_needed_in(&chunk.id, table.id))
        };
        let frames: Vec<u32> = (0..table.frames.len() as u32).filter(wanted).collect();
        for numbers in frames.chunks(FRAMES_AT_ONCE) {
            if session.node_context.cancel.is_cancelled() {
                return Err(BackupError::Interrupted.into());
            }
            let contents = survey.reader.frames(place, numbers).await?;
            for (number, content) in numbers.iter().zip(contents) {
                let mut at = 0;
                for chunk in &table.frames[*number as usize].chunks {
                    let bytes = content.slice(at..at + chunk.len as usize);
                    at += chunk.len as usize;
                    if !survey.is_needed_in(&chunk.id, table.id) {
                        continue;
                    }
                    moving.check(&chunk.id, &bytes, table.id)?;
                    let lane = if survey.nodes.contains(&chunk.id) { &mut nodes } else { &mut data };
                    moving.push(lane, *chunk, &bytes).await?;
                }
            }
        }
    }
    moving.finish(data).await?;
    moving.finish(nodes).await?;
    Ok(moving.tables)
}

struct Repacker<'a> {
    session: &'a RoleSession<'a>,
    compressor: FrameCompressor,
    tables: Vec<PackTable>,
}

impl Repacker<'_> {
    fn check(&self, id: &ChunkId, content: &[u8], pack: PackId) -> Result<(), RepositoryReadError> {
        if self.session.repository.keys.chunk_id(content) == *id {
            return Ok(());
        }
        Err(RepositoryReadError::Content { chunk: *id, pack })
    }

    async fn push(&mut self, lane: &mut RepackBuffer, chunk: ChunkEntry, content: &[u8]) -> Result<(), PruneError> {
        lane.content.extend_from_slice(content);
        lane.chunks.push(chunk);
        if lane.content.len() < FRAME_TARGET_BYTES {
            return Ok(());
        }
        self.close_frame(lane);
        if lane.pack.as_ref().is_some_and(PackBuilder::is_full) {
            self.upload(lane).await?;
        }
        Ok(())
    }

    async fn finish(&mut self, mut lane: RepackBuffer) -> Result<(), PruneError> {
        if !lane.chunks.is_empty() {
            self.close_frame(&mut lane);
        }
        self.upload(&mut lane).await
    }

    fn close_frame(&mut self, lane: &mut RepackBuffer) {
        let frame = self.compressor.pack(&lane.content, std::mem::take(&mut lane.chunks));
        lane.content.clear();
        let (keys, env) = (&self.session.repository.keys, &self.session.node_context.env);
        let new = || PackBuilder::new(keys, PackId(env.random_bytes()), env.random_bytes());
        lane.pack.get_or_insert_with(new).push(frame);
    }

    async fn upload(&mut self, lane: &mut RepackBuffer) -> Result<(), PruneError> {
        let Some(pack) = lane.pack.take() else { return Ok(()) };
        let (bytes, table): (Bytes, PackTable) = pack.finish();
        let (repository, progress) = (self.session.repository, &self.session.node_context.progress);
        let len = bytes.len() as u64;
        repository.store.put(&object_keys::pack(repository.role(), table.id), bytes).await?;
        JobProgress::add(&progress.bytes_uploaded, len);
        self.tables.push(table);
        Ok(())
    }
}
