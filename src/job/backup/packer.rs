//! Gathering frames into packs and sending them off: one thread that builds, a task that uploads.

use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::ids::PackId;
use crate::job::backup::{BackupError, Shared};
use crate::job::progress::Progress;
use crate::repo::names;
use crate::repo::pack::{PackBuilder, PackTable, PackedFrame};
use crate::store::Store;

/// Packs in flight at once. Two keep a network busy while one is waited for; each is held in memory.
const UPLOADS: usize = 2;

/// A frame, and which pack it belongs to: content and manifest are kept apart, so that reading a manifest does not drag content
/// along.
#[derive(Debug)]
pub(crate) enum PackerInput {
    /// Content of files.
    Data(PackedFrame),
    /// Chunks of a manifest.
    Meta(PackedFrame),
}

/// A finished pack on its way to the store.
pub(crate) type Upload = (PackId, Bytes);

/// Turns to have a pack in flight: a builder waits for one before it lets go of a pack, so that no further pack waits in memory.
pub(crate) fn turns() -> (Sender<()>, Receiver<()>) {
    let (back, turns) = bounded(UPLOADS);
    (0..UPLOADS).for_each(|_| back.send(()).expect("there is room for all turns"));
    (back, turns)
}

/// Builds packs from frames until there are no more; returns what is in them.
pub(crate) fn build(
    shared: &Shared,
    frames: &Receiver<PackerInput>,
    turns: &Receiver<()>,
    uploads: &mpsc::Sender<Upload>,
) -> Result<Vec<PackTable>, BackupError> {
    let new = || new_pack(shared);
    let mut tables = Vec::new();
    let (mut data, mut meta) = (None, None);
    let mut finish = |pack: PackBuilder| {
        let (bytes, table) = pack.finish();
        let id = table.id;
        tables.push(table);
        turns.recv().map_err(|_| BackupError::Stopped)?;
        uploads.blocking_send((id, bytes)).map_err(|_| BackupError::Stopped)
    };
    for frame in frames {
        let (slot, frame) = match frame {
            PackerInput::Data(frame) => (&mut data, frame),
            PackerInput::Meta(frame) => (&mut meta, frame),
        };
        let pack = slot.get_or_insert_with(new);
        shared.spare.give_frame(pack.push(frame));
        if pack.is_full()
            && let Some(pack) = slot.take()
        {
            finish(pack)?;
        }
    }
    if !shared.failed() {
        data.into_iter().chain(meta).try_for_each(finish)?;
    }
    Ok(tables)
}

fn new_pack(shared: &Shared) -> PackBuilder {
    let (id, salt) = (PackId(shared.env.random_bytes()), shared.env.random_bytes());
    match shared.spare.pack() {
        Some(memory) => PackBuilder::reusing(memory, &shared.keys, id, salt),
        None => PackBuilder::new(&shared.keys, id, salt),
    }
}

/// Puts packs into the store, some at once, until there are no more. Pack IDs are random, so nothing is ever overwritten.
pub(crate) async fn upload(
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    mut packs: mpsc::Receiver<Upload>,
    turns: Sender<()>,
) -> Result<(), BackupError> {
    let mut running = JoinSet::new();
    let mut open = true;
    while open || !running.is_empty() {
        tokio::select! {
            next = packs.recv(), if open => match next {
                Some((id, bytes)) => {
                    running.spawn(put(shared.clone(), store.clone(), id, bytes));
                }
                None => open = false,
            },
            Some(done) = running.join_next() => {
                done.map_err(|e| BackupError::Internal(e.to_string()))??;
                // Whoever had asked for it may be gone.
                let _ = turns.send(());
            }
            // Dropping the set ends what is under way: a store that hangs must not hold an operator who has had enough.
            () = shared.stop.cancelled() => return Err(BackupError::Interrupted),
        }
    }
    Ok(())
}

async fn put(shared: Arc<Shared>, store: Arc<dyn Store>, id: PackId, bytes: Bytes) -> Result<(), BackupError> {
    store.put(&names::pack(shared.keys.role(), id), bytes.clone()).await?;
    Progress::add(&shared.progress.bytes_uploaded, bytes.len() as u64);
    if bytes.is_unique() {
        shared.spare.give_pack(bytes.into());
    }
    Ok(())
}
