//! A walk over the sources that returns every entry with its metadata, in path order.
//!
//! Only directories (and `CACHEDIR.TAG`) are opened: no content, no link target, no extended attribute is read. Two
//! threads work ahead of the consumer, which gets batches in the order of [`TreePath`](crate::repo::entry::TreePath).
//!
//! Memory: [`RUN_AHEAD`] bytes of results (plus at most three tasks), the sorted names of the unfinished directories
//! between a source and the current position (usually one large one: its names and 10 bytes for each), and one path for
//! each level. This bound does not depend on the number of entries or the depth of the tree.

mod listing;
mod queue;
mod walk;

use std::sync::Arc;
use std::thread;

use parking_lot::{Condvar, Mutex, MutexGuard};
use queue::{QueueLimits, QueuePoll, WalkQueue};
use walk::{TreeWalker, WalkTask};

pub use self::item::{ScanItem, ScanOptions, ScannedEntry, SkipReason};
use crate::tree::roots::SourceRoots;
pub use crate::tree::roots::{ScanError, ScanErrorKind};

/// Number of walker threads. On warm caches the kernel's path lookups scale well to two threads and hardly to more; on
/// cold ones two keep a disk busy.
const WALKERS: usize = 2;

/// How many bytes of results may wait for the consumer, apart from a few tasks of 256 KiB. About 20,000 entries: enough
/// that a consumer that reads files never waits for the walk.
pub const RUN_AHEAD: usize = 4 << 20;

/// Walkers that stopped at [`RUN_AHEAD`] continue when half of it is consumed, not for every batch.
const RESUME: usize = RUN_AHEAD / 2;

/// How many bytes of results make a batch that is worth waking the consumer for: about 1,000 entries.
const BATCH: usize = 256 << 10;

/// A running walk: an iterator over batches of items. Dropping it stops the threads after their current task; it does
/// not wait for them, because a file system that hangs must not block the caller.
#[derive(Debug)]
pub struct TreeScan {
    shared: Arc<ScanShared>,
}

#[derive(Debug)]
struct ScanShared {
    options: ScanOptions,
    roots: Arc<SourceRoots>,
    state: Mutex<ScanState>,
    /// Signalled when there is work, or no more work will come.
    work: Condvar,
    /// Signalled when there are results, or no more results will come.
    results: Condvar,
}

#[derive(Debug)]
struct ScanState {
    queue: WalkQueue<WalkTask, ScanItem>,
    walkers_waiting: usize,
    consumer_waiting: bool,
    /// A walker panicked; the results of its task will never come.
    panicked: bool,
}

/// Opens the sources and starts to walk.
///
/// # Errors
/// A source is missing or cannot be read. No snapshot should be committed then.
///
/// # Panics
/// The system cannot start threads.
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
    /// The open sources, to read the files that the walk finds.
    pub fn roots(&self) -> Arc<SourceRoots> {
        self.shared.roots.clone()
    }
}

impl Iterator for TreeScan {
    type Item = Vec<ScanItem>;

    /// The next batch, never an empty one. Blocks until it is ready.
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
                    // The walkers may have stopped because the consumer had enough results; now it has not.
                    if state.walkers_waiting > 0 && state.queue.wants_walkers(0) {
                        self.shared.work.notify_all();
                    }
                    state.consumer_waiting = true;
                    self.shared.results.wait(&mut state);
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
        // Only a bug panics while the lock is held, and `panicked` reports it.
        self.state.lock()
    }

    /// The loop of each walker until no work is left.
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
                    self.work.wait(&mut state);
                    state.walkers_waiting -= 1;
                }
                QueuePoll::End => return,
            }
        }
    }
}

/// Wakes the consumer when a walker panics; it would otherwise wait for ever.
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

pub(crate) mod item;
#[cfg(test)]
mod tests;
