//! What the stages of a restore share, and the work items that they pass on.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use parking_lot::{Condvar, Mutex};

use super::plan::FrameSet;
use super::select::RestoreScope;
use crate::ids::ChunkId;
use crate::job::node::progress::JobProgress;
use crate::job::report::PROBLEMS_MAX;
use crate::job::report::restored::{RestoreBytes, RestoreCounts, RestoreProblem, RestoreProblemKind, RestoreReport};
use crate::job::restore::error::RestoreError;
use crate::job::restore::frame_cache::FrameCache;
use crate::job::restore::options::RestoreOptions;
use crate::job::restore::source::{ChunkLocation, SnapshotSource};
use crate::repo::entry::{EntryKind, ManifestEntry, TreePath};
use crate::repo::file_layout::FileLayout;
use crate::tree::write::{ExistingObject, NewFile, RestoreTarget, WriteErrorKind};

/// Maximum number of failed names that are kept for their hard links. Beyond it no further link is made: it could lead
/// to a file that is not the snapshot's.
const FAILED_NAMES_MAX: usize = 10_000;

/// Number of reloads of the index without news after which unknown chunks count as lost: reloading for each of
/// thousands would only cost requests.
const FRUITLESS_REFRESHES_MAX: u32 = 3;

pub(super) struct RestoreContext {
    pub(super) source: Arc<dyn SnapshotSource>,
    pub(super) target: RestoreTarget,
    pub(super) scope: RestoreScope,
    pub(super) options: RestoreOptions,
    pub(super) progress: Arc<JobProgress>,
    pub(super) order: BatchOrder,
    pub(super) frame_cache: FrameCache,
    report: Mutex<RestoreReport>,
    failed: Mutex<HashSet<TreePath>>,
    stopped: AtomicBool,
    error: Mutex<Option<RestoreError>>,
    refreshing: tokio::sync::Mutex<()>,
    empty_refreshes: AtomicU32,
    /// Something did not fit: what follows is compared with the free space before it is fetched.
    full: AtomicBool,
}

impl RestoreContext {
    pub(super) fn new(
        source: Arc<dyn SnapshotSource>,
        target: RestoreTarget,
        scope: RestoreScope,
        options: RestoreOptions,
        progress: Arc<JobProgress>,
    ) -> Self {
        let report = RestoreReport { dry_run: options.dry_run, ..RestoreReport::default() };
        Self {
            source,
            target,
            scope,
            options,
            progress,
            order: BatchOrder::default(),
            frame_cache: FrameCache::default(),
            report: Mutex::new(report),
            failed: Mutex::default(),
            stopped: AtomicBool::new(false),
            error: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
            empty_refreshes: AtomicU32::new(0),
            full: AtomicBool::new(false),
        }
    }

    /// Stops the restore. The first error counts.
    pub(super) fn stop(&self, error: RestoreError) {
        self.error.lock().get_or_insert(error);
        self.stopped.store(true, Ordering::Release);
    }

    /// Stops the restore because its caller is gone.
    pub(super) fn end(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(super) fn count(&self, count: impl FnOnce(&mut RestoreCounts)) {
        count(&mut self.report.lock().counts);
    }

    pub(super) fn count_bytes(&self, count: impl FnOnce(&mut RestoreBytes)) {
        count(&mut self.report.lock().bytes);
    }

    #[allow(clippy::needless_pass_by_value, reason = "callers make it for this call")]
    /// Records that something could not be restored or removed. The other entries continue, unless all of them would
    /// fail.
    pub(super) fn fail(&self, path: &TreePath, kind: &RestoreProblemKind) {
        if let &(RestoreProblemKind::Write(write) | RestoreProblemKind::Delete(write)) = kind
            && write.is_fatal()
        {
            let error = crate::tree::write::WriteError { path: path.clone(), kind: write };
            return self.stop(RestoreError::Write { target: self.target.path().to_owned(), error });
        }
        if matches!(kind, RestoreProblemKind::Write(WriteErrorKind::NoSpace)) {
            self.full.store(true, Ordering::Relaxed);
        }
        let mut failed = self.failed.lock();
        if failed.len() < FAILED_NAMES_MAX {
            failed.insert(path.clone());
        }
        drop(failed);
        let mut report = self.report.lock();
        report.counts.failed += 1;
        if report.problems.len() < PROBLEMS_MAX {
            report.problems.push(RestoreProblem { path: path.clone(), kind: kind.clone() });
        }
    }

    /// Whether `bytes` of data are known not to fit at `path`.
    pub(super) fn has_no_space_for(&self, path: &TreePath, bytes: u64) -> bool {
        self.full.load(Ordering::Relaxed) && self.target.free_bytes(path).is_ok_and(|free| free < bytes)
    }

    /// Whether the entry at this path may have failed.
    pub(super) fn may_have_failed(&self, path: &TreePath) -> bool {
        let failed = self.failed.lock();
        failed.len() >= FAILED_NAMES_MAX || failed.contains(path)
    }

    /// The location of a chunk that is no longer at `known`; the index is reloaded if it has no other location.
    pub(super) async fn relocate(&self, chunk: &ChunkId, known: Option<&ChunkLocation>) -> Option<ChunkLocation> {
        let _one_at_a_time = self.refreshing.lock().await;
        let better = || self.source.locate(chunk).filter(|place| Some(place) != known);
        if let Some(place) = better() {
            return Some(place);
        }
        if self.empty_refreshes.load(Ordering::Relaxed) >= FRUITLESS_REFRESHES_MAX {
            return None;
        }
        if !self.source.refresh().await {
            self.empty_refreshes.fetch_add(1, Ordering::Relaxed);
        }
        better()
    }

    /// Removes what is at `path`, except excluded entries; directories only if the operator allowed it.
    pub(super) fn remove(&self, path: &TreePath) {
        let keep = |path: &TreePath, is_dir: bool| self.scope.excludes(path, is_dir);
        let removed = self.target.remove(path, &keep, self.options.dry_run);
        self.count(|c| c.deleted += removed.count);
        for failure in removed.failures {
            self.fail(&failure.path, &RestoreProblemKind::Delete(failure.kind));
        }
    }

    pub(super) fn into_report(self) -> Result<RestoreReport, RestoreError> {
        if let Some(error) = self.error.into_inner() {
            return Err(error);
        }
        let mut report = self.report.into_inner();
        report.metadata = self.target.metadata_failures();
        report.problems.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(report)
    }
}

/// A directory in whose tree work is left. The last one to leave it sets its metadata. So directories get theirs after
/// their content, the deepest first, without a list of them all.
#[derive(Debug)]
pub(super) struct PendingDir {
    pub(super) path: TreePath,
    /// Metadata to set at the end; `None`: it is left as it is.
    pub(super) entry: Option<ManifestEntry>,
    /// Device and inode of the existing or created directory.
    pub(super) inode: Option<(u64, u64)>,
    pub(super) above: Option<Arc<PendingDir>>,
    /// The directory contains only what this restore created.
    pub(super) fresh: bool,
}

impl PendingDir {
    pub(super) fn leave(self: Arc<Self>, shared: &RestoreContext) {
        let mut dir = Some(self);
        while let Some(mut left) = dir.and_then(Arc::into_inner) {
            if let Some(entry) = &left.entry
                && !shared.options.dry_run
                && !shared.is_stopped()
                && let Err(e) = shared.target.set_metadata(entry, left.inode)
            {
                shared.fail(&entry.path, &e.into());
            }
            dir = left.above.take();
        }
    }
}

impl Drop for PendingDir {
    /// Drops the chain of parents iteratively: a chain of a hundred thousand would overflow the stack.
    fn drop(&mut self) {
        let mut above = self.above.take();
        while let Some(mut dir) = above.and_then(Arc::into_inner) {
            above = dir.above.take();
        }
    }
}

/// A regular file that is being restored, in one piece or several.
pub(super) struct FileJob {
    pub(super) entry: ManifestEntry,
    pub(super) layout: FileLayout,
    /// A directory is in the way.
    pub(super) obstacle: bool,
    pub(super) state: Mutex<FileState>,
    /// Number of pieces that are not written yet; the last one is included from the beginning.
    pub(super) pieces: AtomicUsize,
}

#[derive(Default)]
pub(super) struct FileState {
    pub(super) new: Option<Arc<NewFile>>,
    pub(super) failed: Option<RestoreProblemKind>,
    pub(super) dir: Option<Arc<PendingDir>>,
}

impl FileJob {
    /// Whether the file is sparse.
    pub(super) fn is_sparse(&self) -> bool {
        matches!(self.entry.kind, EntryKind::File { extents: Some(_), .. })
    }

    /// Drops what has been written so far at once: others may need the space.
    pub(super) fn fail(&self, kind: RestoreProblemKind) {
        let unfinished = {
            let mut state = self.state.lock();
            state.failed.get_or_insert(kind);
            state.new.take()
        };
        drop(unfinished);
    }
}

/// One chunk of a file.
#[derive(Debug)]
pub(super) struct FileChunk {
    pub(super) chunk: ChunkId,
    /// Offset in the file's content.
    pub(super) at: u64,
    pub(super) len: u32,
    /// Where to fetch it; `None`: the existing file has it at the same place.
    pub(super) place: Option<ChunkLocation>,
}

/// A work item of a writer.
pub(super) enum WriteJob {
    /// Writes chunks of a file, and finishes it if they are the last.
    Piece { file: Arc<FileJob>, parts: Vec<FileChunk> },
    /// Makes a symbolic link, pipe or device.
    Node { entry: ManifestEntry, found: Option<ExistingObject>, obstacle: bool, dir: Arc<PendingDir> },
    /// Sets the metadata of a file whose content is right already; device and inode identify it.
    Metadata { entry: ManifestEntry, inode: (u64, u64), dir: Arc<PendingDir> },
    /// Adds a hard link to a file.
    Link { entry: ManifestEntry, first: TreePath, obstacle: bool, dir: Arc<PendingDir> },
}

/// Jobs in path order with the frames that they need.
#[derive(Default)]
pub(super) struct WriteBatch {
    pub(super) number: u64,
    pub(super) jobs: Vec<WriteJob>,
    pub(super) frames: FrameSet,
}

/// Which batches are finished: a hard link must wait for all work on its first name, which an earlier batch may hold.
#[derive(Debug, Default)]
pub(super) struct BatchOrder {
    finished: Mutex<FinishedBatches>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct FinishedBatches {
    /// All batches below this number are finished.
    below: u64,
    /// Finished batches above it.
    ahead: BTreeSet<u64>,
}

impl BatchOrder {
    /// The batch counts as finished when the guard is dropped, also by a panic, so that no batch waits for ever.
    pub(super) fn begin(&self, number: u64) -> BatchGuard<'_> {
        BatchGuard { order: self, number }
    }

    /// Waits until all batches before `number` are finished.
    pub(super) fn wait_for_those_before(&self, number: u64) {
        self.changed.wait_while(&mut self.finished.lock(), |over| over.below < number);
    }
}

pub(super) struct BatchGuard<'a> {
    order: &'a BatchOrder,
    number: u64,
}

impl Drop for BatchGuard<'_> {
    fn drop(&mut self) {
        let mut guard = self.order.finished.lock();
        let over = &mut *guard;
        over.ahead.insert(self.number);
        while over.ahead.remove(&over.below) {
            over.below += 1;
        }
        drop(guard);
        self.order.changed.notify_all();
    }
}
