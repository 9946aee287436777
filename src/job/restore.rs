//! Restore: a snapshot's entries become a tree again, in a fresh directory or over an existing one.
//!
//! Three stages, joined by short queues. *Inspect* (one thread, in path order) compares each entry with what stands in
//! the target, makes directories, deletes what is too much, and cuts the rest into batches of bounded size. *Fetch*
//! (async) gets the frames of several batches at once. *Write* (two threads) verifies every chunk by its keyed hash and
//! writes. Nothing is written that was not verified, and no file appears under its name before it is whole.

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

/// Batches that are fetched at the same time. With [`plan::BATCH_BYTES`] each, one waiting and one at each writer, and
/// [`plan::KEPT_BYTES`] of frames, most of which are theirs, this is the memory of a restore.
const FETCH_AHEAD: usize = 3;

/// Threads that write. Creating files is bound by the kernel's locks on the directory; two is where it stops paying.
const WRITERS: usize = 2;

/// Batches of manifest entries waiting to be inspected.
const ENTRY_BATCHES: usize = 2;

/// Where a chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkLocation {
    /// The pack.
    pub pack: PackId,
    /// The number of the frame in its pack.
    pub frame: u32,
    /// Where the chunk begins in the plain frame, in bytes.
    pub offset_in_frame: u32,
    /// How long the chunk is, in bytes.
    pub len: u32,
    /// Where the frame begins in the pack, in bytes.
    pub stored_offset: u64,
    /// How long the frame is in the pack, in bytes.
    pub stored_len: u32,
}

/// Where content comes from: an opened snapshot.
#[async_trait]
pub trait SnapshotSource: Send + Sync {
    /// Where a chunk is; `None` if the index does not know it.
    fn locate(&self, chunk: &ChunkId) -> Option<ChunkLocation>;

    /// The plain bytes of whole frames, in the order asked for. The frames ascend and lie so close together that one
    /// request serves them all.
    async fn frames(&self, pack: PackId, frames: &[u32]) -> Result<Vec<Bytes>, SourceError>;

    /// The keyed hash that names content.
    fn chunk_id(&self, bytes: &[u8]) -> ChunkId;

    /// The snapshot's entry at this path.
    async fn entry(&self, path: &TreePath) -> Result<Option<ManifestEntry>, SourceError>;

    /// Reads the index again, because a pack was gone or a chunk unknown: a prune may have moved things. `false` if
    /// there is nothing newer than what is known.
    async fn refresh(&self) -> bool;
}

/// The entries of a snapshot in path order.
#[async_trait]
pub trait EntryReader: Send {
    /// The next entries; `None` after the last.
    async fn next_batch(&mut self) -> Result<Option<Vec<ManifestEntry>>, SourceError>;
}

/// Why a source did not give what was asked for.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub struct SourceError {
    /// What follows from it.
    pub kind: SourceErrorKind,
    /// Which object and what about it.
    pub detail: String,
}

/// The kinds of [`SourceError`]; they carry the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceErrorKind {
    /// The pack is not in the store: the index is read again once; then the chunks count as lost.
    Gone,
    /// What is there is not what was written. The files concerned fail, the others go on.
    Damaged,
    /// The store does not answer: the restore ends.
    Unavailable,
}

/// What happens to a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OverwritePolicy {
    /// Its content is compared whatever its size and time say.
    #[default]
    Always,
    /// Equal size and modification time: its content is believed.
    IfChanged,
    /// It stays as it is, metadata included.
    Never,
}

/// What to restore and how.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// The directory to write below.
    pub target: PathBuf,
    /// Write to where it came from: `target` is `/`, and the way to each of the `roots` may lead through links of root's or
    /// this user's, as it may for a backup.
    pub in_place: bool,
    /// What the snapshot was made of: its sources. Directories above them are made if they are missing and otherwise left
    /// as they are, and [`RestoreOptions::delete`] works below them only.
    pub roots: Vec<TreePath>,
    /// Restore only these and what is below them; empty: everything.
    pub paths: Vec<TreePath>,
    /// Leave these alone, in the snapshot and in the target: gitignore syntax, a leading `/` is the root of the tree.
    pub exclude: Vec<String>,
    /// Remove what the snapshot does not have, below [`RestoreOptions::roots`] and [`RestoreOptions::paths`].
    pub delete: bool,
    /// What happens to files that are there.
    pub overwrite: OverwritePolicy,
    /// Change nothing, fetch nothing; count what would be.
    pub dry_run: bool,
    /// Owners by number even where this host knows the name.
    pub numeric_ids: bool,
}

/// Why a restore ended early. What was restored before is whole.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The target cannot be opened or made.
    #[error("{0}")]
    Target(#[from] TargetError),
    /// The target is read-only.
    #[error("{target}: {error}; files that are complete are in place, no file is half written", target = .target.display())]
    Write {
        /// The target.
        target: PathBuf,
        /// What could not be written.
        error: WriteError,
    },
    /// The manifest or the store cannot be read.
    #[error("{0}")]
    Source(SourceError),
    /// The manifest's entries are not in path order.
    #[error("the manifest is not sound: {} does not come after the entry before it", .path.display())]
    Unsorted {
        /// The entry.
        path: TreePath,
    },
    /// A pattern to exclude is not valid.
    #[error(transparent)]
    Pattern(#[from] BadPattern),
    /// A thread ended that should not have.
    #[error("internal error: {0}")]
    Broken(String),
}

/// How a restore went.
#[derive(Debug, Clone, Default)]
pub struct RestoreReport {
    /// Entries.
    pub counts: RestoreCounts,
    /// Bytes.
    pub bytes: RestoreBytes,
    /// Metadata that could not be set, once a kind. Not a failure.
    pub metadata: Vec<MetadataFailure>,
    /// What failed, at most [`PROBLEMS_MAX`](crate::job::report::PROBLEMS_MAX).
    pub problems: Vec<RestoreProblem>,
    /// Paths asked for that the snapshot does not have.
    pub unmatched: Vec<TreePath>,
    /// Nothing was changed.
    pub dry_run: bool,
    /// How long it took.
    pub duration: Duration,
}

impl RestoreReport {
    /// Names parts of the manifest that are lost.
    pub fn add_lost(&mut self, lost: impl IntoIterator<Item = (TreePath, u64)>) {
        for (path, entries) in lost {
            self.counts.failed += entries;
            if self.problems.len() < crate::job::report::PROBLEMS_MAX {
                self.problems.push(RestoreProblem { path, kind: RestoreProblemKind::Listing(entries) });
            }
        }
        self.problems.sort_by(|a, b| a.path.cmp(&b.path));
    }

    /// Whether everything that was asked for is there.
    pub fn is_success(&self) -> bool {
        self.counts.failed == 0 && self.unmatched.is_empty()
    }
}

/// Entries by what became of them. Directories count in `directories`, and in `failed` if they failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RestoreCounts {
    /// Written: made or replaced.
    pub restored: u64,
    /// Content was right; owner, mode, time or attributes were set.
    pub touched: u64,
    /// Equal already.
    pub unchanged: u64,
    /// Of the files in `touched` and `unchanged`, those whose content was believed by size and time: [`OverwritePolicy::IfChanged`].
    pub trusted: u64,
    /// Kept because of `--overwrite never`, or a device file that this user may not make.
    pub skipped: u64,
    /// Removed from the target, directories included.
    pub deleted: u64,
    /// Files that an interrupted restore left under temporary names, and that are removed.
    pub leftovers: u64,
    /// Not restored; the first of them are in [`RestoreReport::problems`].
    pub failed: u64,
    /// Directories that are there now.
    pub directories: u64,
}

/// Bytes by where they came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct RestoreBytes {
    /// Got from the store, as stored (compressed).
    pub fetched: u64,
    /// Taken from files that were in the target.
    pub reused: u64,
    /// Written to the target, reused ones included.
    pub written: u64,
}

/// Something that was not restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RestoreProblem {
    /// Which path.
    pub path: TreePath,
    /// Why.
    pub kind: RestoreProblemKind,
}

/// Why something was not restored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RestoreProblemKind {
    /// A chunk is not in the repository.
    #[error("chunk {0} is missing from the repository")]
    Missing(ChunkId),
    /// A chunk is not what it was.
    #[error("chunk {chunk} is damaged: {detail}")]
    Damaged {
        /// The chunk.
        chunk: ChunkId,
        /// What was found.
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
    /// The file whose further name it is was not restored.
    #[error("its first name {} was not restored", .0.display())]
    FirstName(TreePath),
    /// The list of what comes from this path on is lost.
    #[error("{0} entries from here on are lost: their list is not in the repository")]
    Listing(u64),
    /// What should be reused of the existing file changed during the restore.
    #[error("the file in the target changed during the restore")]
    Changed,
}

impl RestoreProblemKind {
    /// How many entries it is about.
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
/// What ends the whole restore. What concerns single paths is in the report.
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

    // Whichever of them fails tells `shared`, and the first failure counts.
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

/// How long a restore that is given up waits for its threads to remove what they have not completed.
const END_MAX: Duration = Duration::from_secs(2);

/// So often it looks.
const END_LOOKS: u32 = 200;

/// Ends the threads of a restore that is given up: what it is dropped with.
struct AbortGuard(Weak<RestoreContext>);

impl Drop for AbortGuard {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.end();
        }
        // Of a restore that went to its end nobody but the caller is left.
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
