//! Restore: a snapshot's entries become a tree again, in a fresh directory or over an existing one.
//!
//! Three stages, joined by short queues. *Inspect* (one thread, in path order) compares each entry with what the target
//! has, makes directories, deletes surplus objects, and cuts the rest into batches of bounded size. *Fetch* (async)
//! gets the frames of several batches at once. *Write* (two threads) verifies every chunk by its keyed hash and writes
//! it. Unverified bytes are never written, and no file appears under its name before it is complete.

pub mod error;
mod fetch;
mod frame_cache;
mod inspect;
pub mod options;
mod plan;
mod repository;
mod select;
mod shared;
pub mod source;
#[cfg(test)]
mod tests;
mod write;

use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::StreamExt as _;
use parking_lot::Mutex;
pub use repository::{RepositoryEntries, RepositorySource};
use shared::RestoreContext;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::env::Env;
use crate::job::node::progress::{JobPhase, JobProgress};
use crate::job::report::restored::RestoreReport;
use crate::job::restore::error::RestoreError;
use crate::job::restore::options::RestoreOptions;
use crate::job::restore::source::{EntryReader, SnapshotSource};
use crate::repo::entry::{ManifestEntry, TreePath};
use crate::tree::write::{OwnerResolver, RestoreTarget};

/// Batches that are fetched at the same time. A restore's memory is bounded by these batches of [`plan::BATCH_BYTES`]
/// each, one waiting batch, one at each writer, and [`plan::KEPT_BYTES`] of kept frames, most of which belong to these
/// batches.
const FETCH_AHEAD: usize = 3;

/// Threads that write. Creating files is bound by the kernel's locks on the directory; more than two bring nothing.
const WRITERS: usize = 2;

/// Batches of manifest entries waiting to be inspected.
const ENTRY_BATCHES: usize = 2;

/// Restores `entries` with content from `source`.
///
/// # Errors
/// An error that ends the whole restore. Problems of single paths are in the report.
pub async fn restore(
    source: Arc<dyn SnapshotSource>,
    entries: Box<dyn EntryReader>,
    options: RestoreOptions,
    progress: Arc<JobProgress>,
    env: &Env,
) -> Result<RestoreReport, RestoreError> {
    let started = env.clock.boottime();
    progress.enter(JobPhase::Restore);
    let scope = select::RestoreScope::new(&options)?;
    let (mut target, fresh) =
        RestoreTarget::open(&options.target, !options.dry_run, OwnerResolver::new(options.numeric_ids), env)?;
    if options.in_place {
        for above in options.roots.iter().filter_map(TreePath::parent) {
            target.anchor(&above);
        }
    }
    let shared = Arc::new(RestoreContext::new(source, target, scope, options, progress));

    let ending = AbortGuard(Arc::downgrade(&shared));
    let (entry_sender, entry_receiver) = mpsc::channel(ENTRY_BATCHES);
    let (plan_sender, plan_receiver) = mpsc::channel(1);
    let (write_sender, write_receiver) = mpsc::channel(1);
    let write_receiver = Arc::new(Mutex::new(write_receiver));

    let inspector = {
        let (shared, runtime) = (Arc::clone(&shared), tokio::runtime::Handle::current());
        spawn_blocking(move || inspect::run(&shared, fresh, entry_receiver, plan_sender, &runtime))
    };
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (shared, receiver) = (Arc::clone(&shared), Arc::clone(&write_receiver));
            spawn_blocking(move || write::run(&shared, &receiver))
        })
        .collect();
    drop(write_receiver);

    // The stage that fails first records its error in `shared`; later errors are dropped.
    tokio::join!(read_entries(&shared, entries, entry_sender), fetch_batches(&shared, plan_receiver, write_sender));
    let broken = |e: tokio::task::JoinError| RestoreError::Broken(e.to_string());
    let unmatched = inspector.await.map_err(broken)?;
    for writer in writers {
        writer.await.map_err(broken)?;
    }
    if !shared.options.dry_run && !shared.is_stopped() {
        let flagged = Arc::clone(&shared);
        spawn_blocking(move || flagged.target.set_flags()).await.map_err(broken)?;
    }
    shared.progress.enter(JobPhase::Done);
    drop(ending);
    let shared = Arc::into_inner(shared).ok_or_else(|| RestoreError::Broken("a stage still runs".to_owned()))?;
    let mut report = shared.into_report()?;
    report.unmatched = unmatched;
    report.duration = env.clock.boottime().saturating_sub(started);
    Ok(report)
}

/// Longest wait for the threads of an abandoned restore to remove their unfinished files.
const END_MAX: Duration = Duration::from_secs(2);

/// Number of times in [`END_MAX`] that [`AbortGuard`] checks whether the threads have ended.
const END_LOOKS: u32 = 200;

/// Ends the threads of the restore when its future is dropped.
struct AbortGuard(Weak<RestoreContext>);

impl Drop for AbortGuard {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.end();
        }
        // After a restore that ended normally only the caller holds the context.
        for _ in 0..END_LOOKS {
            if self.0.strong_count() <= 1 {
                break;
            }
            std::thread::sleep(END_MAX / END_LOOKS);
        }
    }
}

async fn read_entries(
    shared: &RestoreContext,
    mut entries: Box<dyn EntryReader>,
    sender: mpsc::Sender<Vec<ManifestEntry>>,
) {
    loop {
        match entries.next_batch().await {
            Ok(Some(batch)) => {
                if sender.send(batch).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(e) => return shared.stop(RestoreError::Source(e)),
        }
    }
}

async fn fetch_batches(
    shared: &RestoreContext,
    receiver: mpsc::Receiver<shared::WriteBatch>,
    sender: mpsc::Sender<fetch::FetchedBatch>,
) {
    let batches = futures_util::stream::unfold(receiver, |mut receiver| async move {
        receiver.recv().await.map(|batch| (batch, receiver))
    });
    let mut fetched = std::pin::pin!(batches.map(|batch| fetch::fetch(shared, batch)).buffered(FETCH_AHEAD));
    while let Some(result) = fetched.next().await {
        match result {
            Ok(batch) => {
                if sender.send(batch).await.is_err() {
                    return;
                }
            }
            Err(e) => return shared.stop(RestoreError::Source(e)),
        }
    }
}
