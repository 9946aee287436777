//! Restore: a snapshot's entries become a tree again, in a fresh directory or over an existing one.
//!
//! Three stages, joined by short queues. *Inspect* (one thread, in path order) compares each entry with what the target
//! has, makes directories, deletes surplus objects, and cuts the rest into batches of bounded size. *Fetch* (async)
//! gets the frames of several batches at once. *Write* (two threads) verifies every chunk by its keyed hash and writes
//! it. Unverified bytes are never written, and no file appears under its name before it is complete.

mod fetch;
mod inspect;
pub(in crate::job) mod layout;
mod plan;
mod repository;
mod select;
mod shared;
#[cfg(test)]
mod tests;
mod write;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::env::Env;
use crate::ids::{ChunkId, PackId};
use crate::job::node::progress::{JobPhase, JobProgress};
use crate::repo::entry::{ManifestEntry, TreePath};
pub use repository::{RepositoryEntries, RepositorySource};
use shared::RestoreContext;

use crate::tree::exclude::BadPattern;
use crate::tree::write::{MetadataFailure, OwnerResolver, RestoreTarget, TargetError, WriteError, WriteErrorKind};

/// Batches that are fetched at the same time. A restore's memory is bounded by these batches of [`plan::BATCH_BYTES`]
/// each, one waiting batch, one at each writer, and [`plan::KEPT_BYTES`] of kept frames, most of which belong to these
/// batches.
const FETCH_AHEAD: usize = 3;

/// Threads that write. Creating files is bound by the kernel's locks on the directory; more than two bring nothing.
const WRITERS: usize = 2;

/// Batches of manifest entries waiting to be inspected.
const ENTRY_BATCHES: usize = 2;

/// Where a chunk is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkLocation {
    /// The pack that holds the chunk.
    pub pack: PackId,
    /// The number of the frame in its pack.
    pub frame: u32,
    /// Offset of the chunk in the plain frame, in bytes.
    pub offset_in_frame: u32,
    /// Length of the plain chunk, in bytes.
    pub len: u32,
    /// Offset of the frame in the pack, in bytes.
    pub stored_offset: u64,
    /// Length of the stored frame, in bytes.
    pub stored_len: u32,
}

/// The source of content: an opened snapshot.
#[async_trait]
pub trait SnapshotSource: Send + Sync {
    /// Location of a chunk; `None` if the index does not have it.
    fn locate(&self, chunk: &ChunkId) -> Option<ChunkLocation>;

    /// The plain bytes of whole frames, in the order of `frames`. The frame numbers ascend and lie so close together
    /// that one request serves them all.
    async fn frames(&self, pack: PackId, frames: &[u32]) -> Result<Vec<Bytes>, SourceError>;

    /// The keyed hash that names content.
    fn chunk_id(&self, bytes: &[u8]) -> ChunkId;

    /// The snapshot's entry at `path`.
    async fn entry(&self, path: &TreePath) -> Result<Option<ManifestEntry>, SourceError>;

    /// Reads the index again after a pack was missing or a chunk unknown: a prune may have moved chunks. `false` if the
    /// store has no newer index.
    async fn refresh(&self) -> bool;
}

/// The entries of a snapshot in path order.
#[async_trait]
pub trait EntryReader: Send {
    /// The next entries; `None` after the last batch.
    async fn next_batch(&mut self) -> Result<Option<Vec<ManifestEntry>>, SourceError>;
}

/// A failed read from a [`SnapshotSource`].
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub struct SourceError {
    /// Decides whether files fail or the restore ends.
    pub kind: SourceErrorKind,
    /// The object concerned and what is wrong with it.
    pub detail: String,
}

/// The kinds of [`SourceError`]; the restore's reaction depends on the kind alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// The pack is not in the store. The index is read again once; then the chunks count as lost.
    Gone,
    /// The stored bytes are not what was written. The files concerned fail, the others go on.
    Damaged,
    /// The store does not answer: the restore ends.
    Unavailable,
}

/// What happens to a file that exists in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OverwritePolicy {
    /// Its content is compared, whatever its size and time are.
    #[default]
    Always,
    /// Equal size and modification time: its content counts as equal without being read.
    IfChanged,
    /// It stays as it is, including its metadata.
    Never,
}

/// What to restore and how.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// The directory into which the tree is restored.
    pub target: PathBuf,
    /// Restores to the original place: `target` is `/`. The path to each of the `roots` may lead through symbolic links
    /// of root or of this user, as for a backup.
    pub in_place: bool,
    /// The sources of the snapshot. Directories above them are made if they are missing and otherwise left as they are,
    /// and [`RestoreOptions::delete`] works below them only.
    pub roots: Vec<TreePath>,
    /// Restores only these paths and what is below them; empty: everything.
    pub paths: Vec<TreePath>,
    /// Leaves these paths alone, in the snapshot and in the target: gitignore syntax, a leading `/` is the root of the
    /// tree.
    pub exclude: Vec<String>,
    /// Removes what the snapshot does not have, below [`RestoreOptions::roots`] and [`RestoreOptions::paths`].
    pub delete: bool,
    /// What happens to files that exist in the target.
    pub overwrite: OverwritePolicy,
    /// Changes nothing and fetches nothing; counts what would be done.
    pub dry_run: bool,
    /// Sets owners by number even if this host knows the name.
    pub numeric_ids: bool,
}

/// Why a restore ended early. Files that were restored before are complete.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The target cannot be opened or made.
    #[error("{0}")]
    Target(#[from] TargetError),
    /// The target cannot be written to at all, for example because it is read-only.
    #[error("{target}: {error}; files that are complete are in place, no file is half written", target = .target.display())]
    Write {
        /// The directory of [`RestoreOptions::target`].
        target: PathBuf,
        /// The write that failed.
        error: WriteError,
    },
    /// The manifest or the store cannot be read.
    #[error("{0}")]
    Source(SourceError),
    /// The manifest's entries are not in path order.
    #[error("the manifest is not sound: {} does not come after the entry before it", .path.display())]
    Unsorted {
        /// The first entry that is out of order.
        path: TreePath,
    },
    /// A pattern of [`RestoreOptions::exclude`] is not valid.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// A thread of the restore ended unexpectedly.
    #[error("internal error: {0}")]
    Broken(String),
}

/// Result of a restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreReport {
    /// Entries by outcome.
    pub counts: RestoreCounts,
    /// Bytes by origin.
    pub bytes: RestoreBytes,
    /// Metadata that could not be set, one example of each kind. Not a failure.
    pub metadata: Vec<MetadataFailure>,
    /// The first failures, at most [`PROBLEMS_MAX`](crate::job::report::PROBLEMS_MAX).
    pub problems: Vec<RestoreProblem>,
    /// Requested paths that the snapshot does not have.
    pub unmatched: Vec<TreePath>,
    /// Whether this was a dry run, which changes nothing.
    pub dry_run: bool,
    /// Duration of the restore.
    pub duration: Duration,
}

impl RestoreReport {
    /// Adds a failure for each lost part of the manifest.
    pub fn add_lost(&mut self, lost: impl IntoIterator<Item = (TreePath, u64)>) {
        for (path, entries) in lost {
            self.counts.failed += entries;
            if self.problems.len() < crate::job::report::PROBLEMS_MAX {
                self.problems.push(RestoreProblem { path, kind: RestoreProblemKind::Listing(entries) });
            }
        }
        self.problems.sort_by(|a, b| a.path.cmp(&b.path));
    }

    /// Whether everything requested was restored.
    pub fn is_success(&self) -> bool {
        self.counts.failed == 0 && self.unmatched.is_empty()
    }
}

/// Entries by outcome. Directories count in `directories`, and in `failed` if they failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RestoreCounts {
    /// Made or replaced.
    pub restored: u64,
    /// The content was right; owner, mode, time or attributes were set.
    pub touched: u64,
    /// Already equal.
    pub unchanged: u64,
    /// Files of `touched` and `unchanged` whose content was not read, because size and time were equal:
    /// [`OverwritePolicy::IfChanged`].
    pub trusted: u64,
    /// Kept because of `--overwrite never`, or a device file that this user may not make.
    pub skipped: u64,
    /// Removed from the target, directories included.
    pub deleted: u64,
    /// Removed files that an interrupted restore had left under temporary names.
    pub leftovers: u64,
    /// Not restored; the first of them are in [`RestoreReport::problems`].
    pub failed: u64,
    /// Directories that exist after the restore.
    pub directories: u64,
}

/// Bytes by origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RestoreBytes {
    /// Fetched from the store, as stored (compressed).
    pub fetched: u64,
    /// Reused from files of the target.
    pub reused: u64,
    /// Written to the target, including the reused bytes.
    pub written: u64,
}

/// A path that was not restored, with the reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreProblem {
    /// The path that failed.
    pub path: TreePath,
    /// The reason.
    pub kind: RestoreProblemKind,
}

/// Why a path was not restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreProblemKind {
    /// A chunk is not in the repository.
    #[error("chunk {0} is missing from the repository")]
    Missing(ChunkId),
    /// A chunk's bytes do not match its keyed hash, or cannot be decrypted.
    #[error("chunk {chunk} is damaged: {detail}")]
    Damaged {
        /// The damaged chunk.
        chunk: ChunkId,
        /// What is wrong with its bytes.
        detail: String,
    },
    /// The entry contradicts itself.
    #[error("the manifest is not sound: {0}")]
    Unsound(&'static str),
    /// It could not be written.
    #[error("{0}")]
    Write(WriteErrorKind),
    /// It could not be removed.
    #[error("not deleted: {0}")]
    Delete(WriteErrorKind),
    /// The entry is a further hard link of this path, which was not restored.
    #[error("its first name {} was not restored", .0.display())]
    FirstName(TreePath),
    /// The part of the manifest that begins at this path is lost, with this number of entries.
    #[error("{0} entries from here on are lost: their list is not in the repository")]
    Listing(u64),
    /// The existing file, of which content should be reused, changed during the restore.
    #[error("the file in the target changed during the restore")]
    Changed,
}

impl RestoreProblemKind {
    /// Number of entries that the problem stands for.
    pub fn entries(&self) -> u64 {
        match self {
            RestoreProblemKind::Listing(entries) => *entries,
            _ => 1,
        }
    }
}

impl From<WriteError> for RestoreProblemKind {
    fn from(e: WriteError) -> Self {
        Self::Write(e.kind)
    }
}

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
