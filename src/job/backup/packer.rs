//! Gathering frames into packs and sending them off: one thread that builds, a task that uploads.

use std::sync::Arc;

use bytes::Bytes;
use crossbeam_channel::Receiver;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::env::Env;
use crate::ids::PackId;
use crate::job::backup::{BackupError, Shared};
use crate::job::progress::Progress;
use crate::repo::crypto::Keys;
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

/// Builds packs from frames until there are no more; returns what is in them.
pub(crate) fn build(
    shared: &Shared,
    frames: &Receiver<PackerInput>,
    uploads: &mpsc::Sender<Upload>,
) -> Result<Vec<PackTable>, BackupError> {
    let new = || new_pack(&shared.keys, &shared.env);
    let mut tables = Vec::new();
    let (mut data, mut meta) = (None, None);
    let mut finish = |pack: PackBuilder| {
        let (bytes, table) = pack.finish();
        let id = table.id;
        tables.push(table);
        uploads.blocking_send((id, bytes)).map_err(|_| BackupError::Stopped)
    };
    for frame in frames {
        let (slot, frame) = match frame {
            PackerInput::Data(frame) => (&mut data, frame),
            PackerInput::Meta(frame) => (&mut meta, frame),
        };
        let pack = slot.get_or_insert_with(new);
        pack.push(frame);
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

fn new_pack(keys: &Keys, env: &Env) -> PackBuilder {
    PackBuilder::new(keys, PackId(env.random_bytes()), env.random_bytes())
}

/// Puts packs into the store, some at once, until there are no more. Pack IDs are random, so nothing is ever overwritten.
pub(crate) async fn upload(
    shared: Arc<Shared>,
    store: Arc<dyn Store>,
    mut packs: mpsc::Receiver<Upload>,
) -> Result<(), BackupError> {
    let mut running = JoinSet::new();
    let mut open = true;
    while open || !running.is_empty() {
        tokio::select! {
            next = packs.recv(), if open && running.len() < UPLOADS => match next {
                Some((id, bytes)) => {
                    running.spawn(put(shared.clone(), store.clone(), id, bytes));
                }
                None => open = false,
            },
            Some(done) = running.join_next() => done.map_err(|e| BackupError::Internal(e.to_string()))??,
            // Dropping the set ends what is under way: a store that hangs must not hold an operator who has had enough.
            () = shared.stop.cancelled() => return Err(BackupError::Interrupted),
        }
    }
    Ok(())
}

async fn put(shared: Arc<Shared>, store: Arc<dyn Store>, id: PackId, bytes: Bytes) -> Result<(), BackupError> {
    let len = bytes.len() as u64;
    store.put(&names::pack(shared.keys.role(), id), bytes).await?;
    Progress::add(&shared.progress.bytes_uploaded, len);
    Ok(())
}
