//! Collects frames into packs and uploads them: one thread builds, a task uploads.

use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::ids::{IndexId, PackId};
use crate::job::backup::shared::PipelineContext;
use crate::job::error::BackupError;
use crate::job::node::progress::JobProgress;
use crate::repo::index::{self, encode_index};
use crate::repo::object_keys;
use crate::repo::pack::{PackBuilder, PackTable, PackedFrame};
use crate::store::Store;

/// Packs that are uploaded at the same time. Two keep a network busy; each is held in memory.
const UPLOADS: usize = 2;

/// A frame for one of the two kinds of packs: content and manifest nodes go into separate packs, so that reading a
/// manifest does not fetch content too.
#[derive(Debug)]
pub(crate) enum PackerInput {
    /// Content of files.
    Data(PackedFrame),
    /// Chunks of a manifest.
    Meta(PackedFrame),
}

/// A finished object that waits for its upload.
#[derive(Debug)]
pub(crate) enum PendingUpload {
    /// A pack.
    Pack(PackId, Bytes),
    /// The index of uploaded packs.
    Index(IndexId, Bytes),
}

impl PendingUpload {
    /// Number of upload turns that the object takes. An index takes all of them, so every earlier upload is complete
    /// before it.
    fn turns(&self) -> usize {
        match self {
            PendingUpload::Pack(..) => 1,
            PendingUpload::Index(..) => UPLOADS,
        }
    }
}

/// Result of the packer.
#[derive(Debug, Default)]
pub(crate) struct PackerOutput {
    /// The index objects that were sent to the uploader.
    pub(crate) indexes: Vec<IndexId>,
    /// Packs that none of these index objects lists.
    pub(crate) packs: Vec<PackTable>,
}

/// The turns for uploads: the builder waits for a turn before it sends a pack, so that no further pack waits in memory.
pub(crate) fn upload_turns() -> (Sender<()>, Receiver<()>) {
    let (back, turns) = bounded(UPLOADS);
    (0..UPLOADS).for_each(|_| back.send(()).expect("there is room for all turns"));
    (back, turns)
}

/// Builds packs from frames until the channel is closed, and an index object whenever its size is reached, so that
/// memory does not grow with the number of packs.
pub(crate) fn build(
    shared: &PipelineContext,
    frames: &Receiver<PackerInput>,
    turns: &Receiver<()>,
    uploads: &mpsc::Sender<PendingUpload>,
) -> Result<PackerOutput, BackupError> {
    let new = || new_pack(shared);
    let send = |upload: PendingUpload| {
        for _ in 0..upload.turns() {
            turns.recv().map_err(|_| BackupError::Stopped)?;
        }
        uploads.blocking_send(upload).map_err(|_| BackupError::Stopped)
    };
    let mut built = PackerOutput::default();
    let (mut data, mut meta) = (None, None);
    let mut finish = |pack: PackBuilder| {
        let (bytes, table) = pack.finish();
        let id = table.id;
        built.packs.push(table);
        let fitting = index::count_fitting_packs(&built.packs);
        if fitting < built.packs.len() {
            let (id, salt) = (IndexId(shared.env.random_bytes()), shared.env.random_bytes());
            send(PendingUpload::Index(id, encode_index(&shared.keys, id, salt, &built.packs[..fitting])))?;
            built.indexes.push(id);
            built.packs.drain(..fitting);
        }
        send(PendingUpload::Pack(id, bytes))
    };
    for frame in frames {
        let (slot, frame) = match frame {
            PackerInput::Data(frame) => (&mut data, frame),
            PackerInput::Meta(frame) => (&mut meta, frame),
        };
        let pack = slot.get_or_insert_with(new);
        shared.buffers.give_frame(pack.push(frame));
        if pack.is_full()
            && let Some(pack) = slot.take()
        {
            finish(pack)?;
        }
    }
    if !shared.failed() {
        data.into_iter().chain(meta).try_for_each(finish)?;
    }
    Ok(built)
}

fn new_pack(shared: &PipelineContext) -> PackBuilder {
    let (id, salt) = (PackId(shared.env.random_bytes()), shared.env.random_bytes());
    match shared.buffers.pack() {
        Some(memory) => PackBuilder::with_buffer(memory, &shared.keys, id, salt),
        None => PackBuilder::new(&shared.keys, id, salt),
    }
}

/// Uploads objects, some at the same time, until the channel is closed. Their IDs are random, so nothing is
/// overwritten.
pub(crate) async fn upload(
    shared: Arc<PipelineContext>,
    store: Arc<dyn Store>,
    mut objects: mpsc::Receiver<PendingUpload>,
    turns: Sender<()>,
) -> Result<(), BackupError> {
    let mut running = JoinSet::new();
    let mut open = true;
    while open || !running.is_empty() {
        tokio::select! {
            next = objects.recv(), if open => match next {
                Some(object) => {
                    running.spawn(put(shared.clone(), store.clone(), object));
                }
                None => open = false,
            },
            Some(done) = running.join_next() => {
                for _ in 0..done.map_err(|e| BackupError::Internal(e.to_string()))?? {
                    // The builder that waits for the turn may have ended.
                    let _ = turns.send(());
                }
            }
            // Dropping the set aborts the uploads: a hanging store must not delay the end of a run that an operator
            // stops.
            () = shared.stop.cancelled() => return Err(BackupError::Interrupted),
        }
    }
    Ok(())
}

async fn put(shared: Arc<PipelineContext>, store: Arc<dyn Store>, object: PendingUpload) -> Result<usize, BackupError> {
    let (role, turns) = (shared.keys.role(), object.turns());
    let (key, bytes, is_pack) = match object {
        PendingUpload::Pack(id, bytes) => (object_keys::pack(role, id), bytes, true),
        PendingUpload::Index(id, bytes) => (object_keys::index(role, id), bytes, false),
    };
    store.put(&key, bytes.clone()).await?;
    JobProgress::add(&shared.progress.bytes_uploaded, bytes.len() as u64);
    if is_pack && bytes.is_unique() {
        shared.buffers.give_pack(bytes.into());
    }
    Ok(turns)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ChunkId;
    use crate::job::backup::worker::tests::{SMALL, shared};
    use crate::job::testing::noise;
    use crate::repo::index::{INDEX_OBJECT_CHUNKS, decode_index};
    use crate::repo::pack::{ChunkEntry, FrameCompressor, PACK_TARGET_BYTES};

    /// A frame that fills a pack by its size.
    fn frame(number: u8, chunks: usize) -> PackerInput {
        let id =
            |n: usize| ChunkId([&[number; 24], &(n as u64).to_be_bytes()[..]].concat().try_into().expect("32 bytes"));
        let (content, last) = (noise(number.into(), PACK_TARGET_BYTES), chunks - 1);
        let len = |n| if n == last { PACK_TARGET_BYTES - last } else { 1 };
        let chunks = (0..chunks).map(|n| ChunkEntry { id: id(n), len: len(n) as u32 }).collect();
        PackerInput::Data(FrameCompressor::default().pack(&content, chunks))
    }

    #[test]
    fn an_index_that_is_full_goes_after_its_packs_and_before_the_others() {
        let here = tempfile::tempdir().unwrap();
        let shared = shared(SMALL, here.path());
        let (frames_in, frames) = crossbeam_channel::unbounded();
        // The second frame does not fit beside the first; the third fits beside the second.
        for (number, chunks) in [(1, INDEX_OBJECT_CHUNKS - 1), (2, 2), (3, 3)] {
            frames_in.send(frame(number, chunks)).unwrap();
        }
        drop(frames_in);
        let (back, turns) = upload_turns();
        let (sent, mut objects) = mpsc::channel(1);
        let (built, sent) = std::thread::scope(|scope| {
            let builder = scope.spawn(|| build(&shared, &frames, &turns, &sent).unwrap());
            let mut sent = Vec::new();
            for _ in 0..4 {
                let object = objects.blocking_recv().unwrap();
                (0..object.turns()).for_each(|_| back.send(()).unwrap());
                sent.push(object);
            }
            (builder.join().unwrap(), sent)
        });
        let [
            PendingUpload::Pack(first, _),
            PendingUpload::Index(index, object),
            PendingUpload::Pack(second, _),
            PendingUpload::Pack(third, _),
        ] = &sent[..]
        else {
            panic!("{} objects", sent.len())
        };
        let named = |tables: &[PackTable]| tables.iter().map(|table| table.id).collect::<Vec<_>>();
        assert_eq!(named(&decode_index(&shared.keys, *index, object).unwrap()), [*first]);
        assert_eq!((built.indexes, named(&built.packs)), (vec![*index], vec![*second, *third]));
    }
}
