//! Fetching the frames of a batch, also if a prune has moved them. A frame that another batch has fetched recently, or
//! is fetching, is not fetched again.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::plan::{FrameKey, FrameRequest, FrameSet};
use super::shared::{FileChunk, RestoreContext, WriteBatch, WriteJob};
use crate::ids::ChunkId;
use crate::job::node::progress::JobProgress;
use crate::job::report::restored::RestoreProblemKind;
use crate::job::restore::frame_cache::FrameSender;
use crate::job::restore::source::{ChunkLocation, SourceError, SourceErrorKind};

/// Concurrent requests of one batch. Frames scattered over old packs are fetched in a few round trips; neighbours are
/// one request anyway.
const REQUESTS: usize = 4;

/// A batch with the frames that could be fetched.
pub(super) struct FetchedBatch {
    pub(super) batch: WriteBatch,
    frames: HashMap<FrameKey, Bytes>,
    /// Channels to the batches that wait for its frames.
    senders: HashMap<FrameKey, FrameSender>,
    /// Why a frame is missing.
    lost: HashMap<FrameKey, String>,
    /// Chunks that are not where they were when the batch was planned.
    moved: HashMap<ChunkId, ChunkLocation>,
}

impl FetchedBatch {
    /// The bytes of a chunk, not verified.
    pub(super) fn chunk(&self, part: &FileChunk, planned: &ChunkLocation) -> Result<&[u8], RestoreProblemKind> {
        let place = self.moved.get(&part.chunk).unwrap_or(planned);
        let key = (place.pack, place.frame);
        let damaged = |detail: String| RestoreProblemKind::Damaged { chunk: part.chunk, detail };
        let Some(frame) = self.frames.get(&key) else {
            let detail = self.lost.get(&key).cloned();
            return Err(detail.map_or(RestoreProblemKind::Missing(part.chunk), damaged));
        };
        let start = place.offset_in_frame as usize;
        start
            .checked_add(place.len as usize)
            .and_then(|end| frame.get(start..end))
            .ok_or_else(|| damaged(format!("frame {} of pack {} is too short for it", place.frame, place.pack)))
    }

    fn add_frame(&mut self, shared: &RestoreContext, set: &FrameSet, key: FrameKey, frame: Bytes) {
        let stored = set.stored_len(key);
        shared.count_bytes(|b| b.fetched += stored);
        JobProgress::add(&shared.progress.bytes_fetched, stored);
        if let Some(sender) = self.senders.remove(&key) {
            sender.send_replace(Some(frame.clone()));
        }
        self.frames.insert(key, frame);
    }
}

/// Fetches the batch's frames. Lost and damaged ones are noted; only a store that does not answer is an error.
pub(super) async fn fetch(shared: &RestoreContext, mut batch: WriteBatch) -> Result<FetchedBatch, SourceError> {
    let mut set = std::mem::take(&mut batch.frames);
    let (coming, claimed) = shared.frame_cache.claim(&mut set);
    let frames = HashMap::new();
    let mut fetched = FetchedBatch { batch, frames, senders: claimed, lost: HashMap::new(), moved: HashMap::new() };
    if shared.options.dry_run {
        let stored = set.stored_bytes();
        shared.count_bytes(|b| b.fetched += stored);
        return Ok(fetched);
    }
    if shared.is_stopped() {
        return Ok(fetched);
    }
    let mut gone = get_frames(shared, &set, &mut fetched).await?;
    fetched.senders.clear();
    // Batches are fetched in order, so no two batches wait for each other.
    for (key, mut coming) in coming {
        if let Ok(frame) = coming.wait_for(Option::is_some).await {
            fetched.frames.extend(frame.clone().map(|frame| (key, frame)));
        }
    }
    let mut failed = FrameSet::default();
    for (_, place) in wanted_chunks(&fetched.batch) {
        let key = (place.pack, place.frame);
        if !fetched.frames.contains_key(&key) && !fetched.lost.contains_key(&key) && !gone.contains_key(&key) {
            // The batch that fetched it failed; the reason must be known here as well.
            failed.add(place);
        }
    }
    gone.extend(get_frames(shared, &failed, &mut fetched).await?);
    if gone.is_empty() {
        return Ok(fetched);
    }
    // The packs were pruned in the meantime: live chunks are elsewhere now.
    let mut again = FrameSet::default();
    let mut moved = HashMap::new();
    for (chunk, place) in wanted_chunks(&fetched.batch) {
        if gone.contains_key(&(place.pack, place.frame))
            && let Some(better) = shared.relocate(chunk, Some(place)).await
        {
            again.add(&better);
            moved.insert(*chunk, better);
        }
    }
    fetched.moved = moved;
    let still_gone = get_frames(shared, &again, &mut fetched).await?;
    fetched.lost.extend(gone);
    fetched.lost.extend(still_gone);
    Ok(fetched)
}

fn wanted_chunks(batch: &WriteBatch) -> impl Iterator<Item = (&ChunkId, &ChunkLocation)> {
    batch
        .jobs
        .iter()
        .flat_map(|job| match job {
            WriteJob::Piece { parts, .. } => parts.as_slice(),
            _ => &[],
        })
        .filter_map(|part| part.place.as_ref().map(|place| (&part.chunk, place)))
}

/// Fetches all frames of the set; returns those whose pack is gone.
async fn get_frames(
    shared: &RestoreContext,
    set: &FrameSet,
    fetched: &mut FetchedBatch,
) -> Result<HashMap<FrameKey, String>, SourceError> {
    let mut gone = HashMap::new();
    let mut requests = set.requests();
    while !requests.is_empty() {
        let answers = requests.drain(..).map(|request| async move {
            let answer = shared.source.frames(request.pack, &request.frames).await;
            (request, answer)
        });
        let answers: Vec<_> = futures_util::stream::iter(answers).buffer_unordered(REQUESTS).collect().await;
        for (request, answer) in answers {
            let keys = request.frames.iter().map(|&frame| (request.pack, frame));
            match answer {
                Ok(frames) if frames.len() == request.frames.len() => {
                    for (key, frame) in keys.zip(frames) {
                        fetched.add_frame(shared, set, key, frame);
                    }
                }
                Ok(_) => fetched.lost.extend(keys.map(|key| (key, "the pack has fewer frames".to_owned()))),
                Err(e) => match e.kind {
                    SourceErrorKind::Unavailable => return Err(e),
                    SourceErrorKind::Gone => gone.extend(keys.map(|key| (key, e.detail.clone()))),
                    // One of the frames is damaged; the others are fetched one by one.
                    SourceErrorKind::Damaged if request.frames.len() > 1 => {
                        requests.extend(keys.map(|(pack, frame)| FrameRequest { pack, frames: vec![frame] }));
                    }
                    SourceErrorKind::Damaged => fetched.lost.extend(keys.map(|key| (key, e.detail.clone()))),
                },
            }
        }
    }
    Ok(gone)
}
