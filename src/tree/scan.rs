//! A walk over the sources that gives every entry with its metadata, in path order.
//!
//! Nothing is opened but directories (and `CACHEDIR.TAG`): no content, no link target, no extended attribute. Two threads
//! work ahead of the consumer, who gets batches in the order of [`TreePath`].
//!
//! Memory: [`RUN_AHEAD`] bytes of results (and at most three pieces of work more), plus the sorted names of the directories
//! between a source and the current position that are not finished (usually one large one: its names and 10 bytes for
//! each), plus one path a level.
//! However many entries a tree has, and however deep it is, there is nothing else.

mod listing;
mod queue;
mod walk;

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::repo::entry::TreePath;
use crate::tree::exclude::ExcludePatterns;
use crate::tree::problem::PathProblem;
use crate::tree::roots::SourceRoots;
pub use crate::tree::roots::{ScanError, ScanErrorKind};
use crate::tree::stat::Stat;
use queue::{QueueLimits, QueuePoll, WalkQueue};
use walk::{TreeWalker, WalkTask};

/// How many threads walk. On warm caches the kernel's path lookups scale to two threads well and to more hardly; on cold
/// ones two keep a disk busy.
const WALKERS: usize = 2;

/// How many bytes of results may wait for the consumer, but for a few pieces of work of 256 KiB. About 20,000
/// entries: enough that a consumer who reads files never waits for the walk.
pub const RUN_AHEAD: usize = 4 << 20;

/// Walkers that have stopped at [`RUN_AHEAD`] go on when half of it is consumed, not for every batch.
const RESUME: usize = RUN_AHEAD / 2;

/// How many bytes of results make a batch worth waking the consumer for: about 1,000 entries.
const BATCH: usize = 256 << 10;

/// What to walk.
#[derive(Debug, Clone)]
pub struct ScanOptions {
    /// Where: absolute paths of directories, or of anything else.
    pub sources: Vec<PathBuf>,
    /// What to leave out. A source itself is never left out.
    pub exclude: ExcludePatterns,
    /// Stay on the file system of each source: a mount point below it appears as an empty directory.
    pub one_file_system: bool,
    /// Of a directory with a valid `CACHEDIR.TAG`, only the directory and the tag. The tag says nothing in a root itself.
    pub exclude_caches: bool,
    /// Leave out regular files larger than this, in bytes.
    pub exclude_larger_than: Option<u64>,
}

/// One step of the walk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanItem {
    /// Something to back up.
    Entry(ScannedEntry),
    /// Something that is left out, and not because of a pattern.
    Skipped {
        /// Where.
        path: TreePath,
        /// Why.
        why: SkipReason,
    },
    /// Something that could not be looked at. For a directory that cannot be listed it follows its entry.
    Problem(PathProblem),
}

/// Why an entry is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// There is nothing in a socket to back up.
    Socket,
    /// Larger than [`ScanOptions::exclude_larger_than`].
    Larger {
        /// Its size in bytes.
        size: u64,
    },
}

/// An entry as the walk sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScannedEntry {
    /// Where it is.
    pub path: TreePath,
    /// What is known without opening it.
    pub stat: Stat,
}

impl ScanItem {
    /// Which path this is about.
    pub fn path(&self) -> &TreePath {
        match self {
            Self::Entry(ScannedEntry { path, .. }) | Self::Skipped { path, .. } => path,
            Self::Problem(problem) => &problem.path,
        }
    }
}

/// A running walk: batches of what it finds. Dropping it stops the threads after their current piece of work; it does not
/// wait for them, because a file system that hangs must not take its user with it.
#[derive(Debug)]
pub struct TreeScan {
    shared: Arc<ScanShared>,
}

#[derive(Debug)]
struct ScanShared {
    options: ScanOptions,
    roots: Arc<SourceRoots>,
    state: Mutex<ScanState>,
    /// There is work, or no reason to wait for any.
    work: Condvar,
    /// There are results, or no reason to wait for any.
    results: Condvar,
}

#[derive(Debug)]
struct ScanState {
    queue: WalkQueue<WalkTask, ScanItem>,
    walkers_waiting: usize,
    consumer_waiting: bool,
    /// A walker panicked; what it had taken will never come.
    panicked: bool,
}

/// Opens the sources and starts to walk.
///
/// # Errors
/// A source that is missing or cannot be read. Nothing should be committed then.
///
/// # Panics
/// If the system gives no threads.
pub fn scan(options: ScanOptions) -> Result<TreeScan, ScanError> {
    let roots = Arc::new(SourceRoots::open(&options.sources)?);
    let limits = QueueLimits { run_ahead: RUN_AHEAD, resume: RESUME, batch: BATCH };
    let queue = WalkQueue::new(limits, (0..roots.all().len()).map(WalkTask::Root));
    let state = ScanState { queue, walkers_waiting: 0, consumer_waiting: false, panicked: false };
    let (work, results) = (Condvar::new(), Condvar::new());
    let shared = Arc::new(ScanShared { options, roots, state: Mutex::new(state), work, results });
    for _ in 0..WALKERS {
        let shared = shared.clone();
        thread::Builder::new()
            .name("walker".to_owned())
            .spawn(move || shared.walk())
            .expect("the system gives threads");
    }
    Ok(TreeScan { shared })
}

impl TreeScan {
    /// The open sources, to read what the walk finds.
    pub fn roots(&self) -> Arc<SourceRoots> {
        self.shared.roots.clone()
    }
}

impl Iterator for TreeScan {
    type Item = Vec<ScanItem>;

    /// The next batch, never an empty one. Blocks.
    fn next(&mut self) -> Option<Vec<ScanItem>> {
        let mut state = self.shared.lock();
        loop {
            assert!(!state.panicked, "a walker panicked");
            match state.queue.pop() {
                QueuePoll::Ready(batch) => {
                    if state.walkers_waiting > 0 && state.queue.wants_walkers(0) {
                        self.shared.work.notify_all();
                    }
                    return Some(batch);
                }
                QueuePoll::End => return None,
                QueuePoll::Wait => {
                    // The walkers may have stopped because the consumer had enough; it has not any more.
                    if state.walkers_waiting > 0 && state.queue.wants_walkers(0) {
                        self.shared.work.notify_all();
                    }
                    state.consumer_waiting = true;
                    state = self.shared.results.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.consumer_waiting = false;
                }
            }
        }
    }
}

impl Drop for TreeScan {
    fn drop(&mut self) {
        self.shared.lock().queue.close();
        self.shared.work.notify_all();
    }
}

impl ScanShared {
    fn lock(&self) -> MutexGuard<'_, ScanState> {
        // Only a bug panics while it holds the lock, and `panicked` tells of it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What each walker does until there is nothing left.
    fn walk(&self) {
        let _alarm = WalkerPanicGuard(self);
        let mut walker = TreeWalker::new(&self.options, &self.roots);
        let mut state = self.lock();
        loop {
            match state.queue.take() {
                QueuePoll::Ready((ticket, work, want)) => {
                    drop(state);
                    let parts = walker.run_task(work, want);
                    state = self.lock();
                    state.queue.finish(ticket, parts);
                    if state.consumer_waiting && state.queue.wants_consumer() {
                        self.results.notify_one();
                    }
                    if state.walkers_waiting > 0 && state.queue.wants_walkers(1) {
                        self.work.notify_all();
                    }
                }
                QueuePoll::Wait => {
                    state.walkers_waiting += 1;
                    state = self.work.wait(state).unwrap_or_else(PoisonError::into_inner);
                    state.walkers_waiting -= 1;
                }
                QueuePoll::End => return,
            }
        }
    }
}

/// Tells the consumer when a walker panics, which would otherwise wait for ever.
struct WalkerPanicGuard<'a>(&'a ScanShared);

impl Drop for WalkerPanicGuard<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let mut state = self.0.lock();
            state.panicked = true;
            state.queue.close();
            self.0.results.notify_all();
            self.0.work.notify_all();
        }
    }
}

#[cfg(test)]
mod tests;
