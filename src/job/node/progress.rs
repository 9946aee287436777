//! Progress of a job: counters that the job moves and a terminal reads, without waiting for each other.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::job::node::stall::RunActivity;
use crate::store::Store;

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum JobPhase {
    /// Opening the repository, reading journal and index.
    #[default]
    Opening = 0,
    /// Walking, comparing, reading, uploading.
    Backup = 1,
    /// Writing index, manifest and record.
    Commit = 2,
    /// Comparing, fetching, writing.
    Restore = 3,
    /// Checking the structure or the data.
    Verify = 4,
    /// Finding what is needed, repacking it, deleting.
    Prune = 5,
    /// The job is over.
    Done = 6,
    /// Waiting until another node's lease is given back or runs out.
    Lease = 7,
    /// Waiting so that the node that had the role last can run the slot.
    Turn = 8,
    /// Listing a bucket.
    List = 9,
}

impl JobPhase {
    const ALL: [JobPhase; 10] = [
        JobPhase::Opening,
        JobPhase::Backup,
        JobPhase::Commit,
        JobPhase::Restore,
        JobPhase::Verify,
        JobPhase::Prune,
        JobPhase::Done,
        JobPhase::Lease,
        JobPhase::Turn,
        JobPhase::List,
    ];
}

/// The counters of one job. Each is exact when the job is over and a moment old while it runs.
#[derive(Debug, Default)]
pub struct JobProgress {
    phase: AtomicU8,
    /// Entries processed: files, directories, links, everything.
    pub entries: AtomicU64,
    /// Regular files processed.
    pub files: AtomicU64,
    /// Content processed, in bytes. Backup: read or known to be unchanged. Restore: written, taken over or left alone.
    pub bytes_read: AtomicU64,
    /// Bytes sent to the store.
    pub bytes_uploaded: AtomicU64,
    /// Bytes received from the store.
    pub bytes_fetched: AtomicU64,
    /// Expected final value of [`JobProgress::bytes_read`]; 0 is unknown.
    pub total_bytes: AtomicU64,
    /// Whether `total_bytes` still grows, because the walk that counts it goes on.
    pub total_grows: AtomicBool,
    /// Moves with everything else that shows progress: answers of the store, output of commands, processor time that
    /// they use.
    pub steps: Arc<AtomicU64>,
    seen: Mutex<Option<RunActivity>>,
    /// The store whose answers the job waits for.
    store: Mutex<Option<Arc<dyn Store>>>,
    /// Shared with each part of the job that may outlive it.
    uninterruptible: Arc<()>,
}

/// Held by a part of a job that cannot be ended while it is blocked in the kernel.
#[derive(Debug)]
pub struct UninterruptibleGuard(#[expect(dead_code, reason = "that it is held is all")] Arc<()>);

/// The numbers of a [`JobProgress`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProgressCounts {
    /// What the job is doing.
    pub phase: JobPhase,
    /// [`JobProgress::entries`].
    pub entries: u64,
    /// [`JobProgress::files`].
    pub files: u64,
    /// [`JobProgress::bytes_read`].
    pub bytes_read: u64,
    /// [`JobProgress::bytes_uploaded`].
    pub bytes_uploaded: u64,
    /// [`JobProgress::bytes_fetched`].
    pub bytes_fetched: u64,
    /// [`JobProgress::total_bytes`].
    pub total_bytes: u64,
    /// [`JobProgress::total_grows`].
    #[serde(default)]
    pub total_grows: bool,
}

impl JobProgress {
    /// All numbers, each a moment old.
    pub fn counts(&self) -> ProgressCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        ProgressCounts {
            phase: self.phase(),
            entries: read(&self.entries),
            files: read(&self.files),
            bytes_read: read(&self.bytes_read),
            bytes_uploaded: read(&self.bytes_uploaded),
            bytes_fetched: read(&self.bytes_fetched),
            total_bytes: read(&self.total_bytes),
            total_grows: self.total_grows.load(Ordering::Relaxed),
        }
    }

    /// Copies the numbers of a job that another process runs.
    pub fn set(&self, counts: &ProgressCounts) {
        self.enter(counts.phase);
        let numbers = [
            (&self.entries, counts.entries),
            (&self.files, counts.files),
            (&self.bytes_read, counts.bytes_read),
            (&self.bytes_uploaded, counts.bytes_uploaded),
            (&self.bytes_fetched, counts.bytes_fetched),
            (&self.total_bytes, counts.total_bytes),
        ];
        for (counter, n) in numbers {
            counter.store(n, Ordering::Relaxed);
        }
        self.total_grows.store(counts.total_grows, Ordering::Relaxed);
    }

    /// The current phase.
    pub fn phase(&self) -> JobPhase {
        JobPhase::ALL.get(usize::from(self.phase.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }

    /// Enters a phase.
    pub fn enter(&self, phase: JobPhase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
    }

    /// Runs `work` in a phase of its own, and returns to the phase before.
    pub async fn during<T>(&self, phase: JobPhase, work: impl Future<Output = T>) -> T {
        let before = self.phase();
        self.enter(phase);
        let done = work.await;
        self.enter(before);
        done
    }

    /// A number that differs whenever something has moved.
    pub fn mark(&self) -> u64 {
        let ProgressCounts { phase, entries, files, bytes_read, bytes_uploaded, bytes_fetched, .. } = self.counts();
        let moved = [entries, files, bytes_read, bytes_uploaded, bytes_fetched, self.steps.load(Ordering::Relaxed)];
        moved.into_iter().fold(phase as u64, u64::wrapping_add)
    }

    /// Records progress that no other counter shows.
    pub fn step(&self) {
        self.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Records that the job begins an activity that may take long.
    pub fn begin(&self, activity: RunActivity) {
        *self.seen.lock() = Some(activity);
        self.step();
    }

    /// What the job was last seen doing.
    pub fn last_activity(&self) -> Option<RunActivity> {
        self.seen.lock().clone()
    }

    /// Sets the store whose answers the job waits for from now on.
    pub fn set_store(&self, store: &Arc<dyn Store>) {
        *self.store.lock() = Some(Arc::clone(store));
    }

    /// How the last request to the store failed, if none has had an answer since.
    pub fn store_error(&self) -> Option<String> {
        self.store.lock().as_ref()?.last_attempt_error()
    }

    /// A guard for a part of the job that cannot be ended.
    pub fn enter_uninterruptible(&self) -> UninterruptibleGuard {
        UninterruptibleGuard(Arc::clone(&self.uninterruptible))
    }

    /// Whether a part that cannot be ended still runs.
    pub fn is_uninterruptible(&self) -> bool {
        Arc::strong_count(&self.uninterruptible) > 1
    }

    /// Adds to one of the counters.
    pub fn add(counter: &AtomicU64, n: u64) {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_phase_comes_back_as_itself() {
        let progress = JobProgress::default();
        assert_eq!(progress.phase(), JobPhase::Opening);
        for phase in JobPhase::ALL {
            progress.enter(phase);
            assert_eq!(progress.phase(), phase);
        }
        JobProgress::add(&progress.files, 3);
        let copy = JobProgress::default();
        copy.set(&progress.counts());
        assert_eq!((copy.phase(), copy.counts().files), (JobPhase::List, 3));
    }

    #[test]
    fn whatever_moves_changes_the_mark() {
        let progress = JobProgress::default();
        let mut marks = vec![progress.mark()];
        let mut note = |progress: &JobProgress| marks.push(progress.mark());
        progress.enter(JobPhase::Backup);
        note(&progress);
        for counter in [&progress.entries, &progress.files, &progress.bytes_read, &progress.bytes_uploaded] {
            JobProgress::add(counter, 1);
            note(&progress);
        }
        progress.begin(RunActivity::Hook("before"));
        note(&progress);
        marks.dedup();
        assert_eq!(marks.len(), 7);
        assert_eq!(progress.last_activity(), Some(RunActivity::Hook("before")));
    }

    #[test]
    fn what_outlives_a_job_is_seen() {
        let progress = JobProgress::default();
        let left = progress.enter_uninterruptible();
        assert!(progress.is_uninterruptible());
        drop(left);
        assert!(!progress.is_uninterruptible());
    }
}
