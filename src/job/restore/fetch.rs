//! Getting a batch's frames, also when a prune has moved them.

use std::collections::HashMap;

use bytes::Bytes;
use futures_util::StreamExt as _;

use super::plan::{FrameKey, FrameSet, Request};
use super::shared::{Batch, Job, Part, Shared};
use super::{ChunkPlace, RestoreProblemKind, SourceError, SourceErrorKind};
use crate::ids::ChunkId;
use crate::job::progress::Progress;

/// Requests of one batch at the same time. Frames scattered over old packs are fetched in a few round trips; neighbours
/// are one request anyway.
const REQUESTS: usize = 4;

/// A batch with the frames that could be got.
pub(super) struct Fetched {
    pub(super) batch: Batch,
    frames: HashMap<FrameKey, Bytes>,
    /// Why a frame is not there.
    lost: HashMap<FrameKey, String>,
    /// Chunks that are not where they were when the batch was planned.
    moved: HashMap<ChunkId, ChunkPlace>,
}

impl Fetched {
    /// The bytes of a chunk, not verified.
    pub(super) fn chunk(&self, part: &Part, planned: &ChunkPlace) -> Result<&[u8], RestoreProblemKind> {
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

    fn take(&mut self, shared: &Shared, set: &FrameSet, key: FrameKey, frame: Bytes) {
        let stored = set.stored_len(key);
        shared.count_bytes(|b| b.fetched += stored);
        Progress::add(&shared.progress.bytes_fetched, stored);
        self.frames.insert(key, frame);
    }
}

/// Fetches the batch's frames. Lost and damaged ones are noted; only a store that does not answer is an error.
pub(super) async fn fetch(shared: &Shared, batch: Batch) -> Result<Fetched, SourceError> {
    let frames = HashMap::new();
    let mut fetched = Fetched { batch, frames, lost: HashMap::new(), moved: HashMap::new() };
    if shared.options.dry_run {
        let stored = fetched.batch.frames.stored_bytes();
        shared.count_bytes(|b| b.fetched += stored);
        return Ok(fetched);
    }
    if shared.is_stopped() {
        return Ok(fetched);
    }
    let set = std::mem::take(&mut fetched.batch.frames);
    let gone = get(shared, &set, &mut fetched).await?;
    if gone.is_empty() {
        return Ok(fetched);
    }
    // The packs were pruned meanwhile: what lives is elsewhere by now.
    let mut again = FrameSet::default();
    let mut moved = HashMap::new();
    for (chunk, place) in wanted(&fetched.batch) {
        if gone.contains_key(&(place.pack, place.frame))
            && let Some(better) = shared.relocate(chunk, Some(place)).await
        {
            again.add(&better);
            moved.insert(*chunk, better);
        }
    }
    fetched.moved = moved;
    let still_gone = get(shared, &again, &mut fetched).await?;
    fetched.lost.extend(gone);
    fetched.lost.extend(still_gone);
    Ok(fetched)
}

fn wanted(batch: &Batch) -> impl Iterator<Item = (&ChunkId, &ChunkPlace)> {
    batch
        .jobs
        .iter()
        .flat_map(|job| match job {
            Job::Piece { parts, .. } => parts.as_slice(),
            _ => &[],
        })
        .filter_map(|part| part.place.as_ref().map(|place| (&part.chunk, place)))
}

/// Gets all frames of the set; returns those whose pack is gone.
async fn get(shared: &Shared, set: &FrameSet, fetched: &mut Fetched) -> Result<HashMap<FrameKey, String>, SourceError> {
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
                        fetched.take(shared, set, key, frame);
                    }
                }
                Ok(_) => fetched.lost.extend(keys.map(|key| (key, "the pack has fewer frames".to_owned()))),
                Err(e) => match e.kind {
                    SourceErrorKind::Unavailable => return Err(e),
                    SourceErrorKind::Gone => gone.extend(keys.map(|key| (key, e.detail.clone()))),
                    // One of them is damaged; the others shall not suffer for it.
                    SourceErrorKind::Damaged if request.frames.len() > 1 => {
                        requests.extend(keys.map(|(pack, frame)| Request { pack, frames: vec![frame] }));
                    }
                    SourceErrorKind::Damaged => fetched.lost.extend(keys.map(|key| (key, e.detail.clone()))),
                },
            }
        }
    }
    Ok(gone)
}
