//! How far a job is: counters that the job moves and a terminal reads, without waiting for each other.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// What a job is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Phase {
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
    /// Looking what is needed, moving it, deleting.
    Prune = 5,
    /// Over.
    Done = 6,
}

impl Phase {
    const ALL: [Phase; 7] =
        [Phase::Opening, Phase::Backup, Phase::Commit, Phase::Restore, Phase::Verify, Phase::Prune, Phase::Done];
}

/// The counters of one job. Each is exact when the job is over and a moment old while it runs.
#[derive(Debug, Default)]
pub struct Progress {
    phase: AtomicU8,
    /// Entries dealt with: files, directories, links, everything.
    pub entries: AtomicU64,
    /// Regular files dealt with.
    pub files: AtomicU64,
    /// Content dealt with, in bytes. Backup: read or known to be unchanged. Restore: written, taken over or left alone.
    pub bytes_read: AtomicU64,
    /// Bytes sent to the store.
    pub bytes_uploaded: AtomicU64,
    /// Bytes that came from the store.
    pub bytes_fetched: AtomicU64,
    /// What [`Progress::bytes_read`] is expected to become; 0 is unknown.
    pub total_bytes: AtomicU64,
}

/// The numbers of a [`Progress`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// What the job is doing.
    pub phase: Phase,
    /// [`Progress::entries`].
    pub entries: u64,
    /// [`Progress::files`].
    pub files: u64,
    /// [`Progress::bytes_read`].
    pub bytes_read: u64,
    /// [`Progress::bytes_uploaded`].
    pub bytes_uploaded: u64,
    /// [`Progress::bytes_fetched`].
    pub bytes_fetched: u64,
    /// [`Progress::total_bytes`].
    pub total_bytes: u64,
}

impl Progress {
    /// All numbers, each a moment old.
    pub fn counts(&self) -> Counts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            phase: self.phase(),
            entries: read(&self.entries),
            files: read(&self.files),
            bytes_read: read(&self.bytes_read),
            bytes_uploaded: read(&self.bytes_uploaded),
            bytes_fetched: read(&self.bytes_fetched),
            total_bytes: read(&self.total_bytes),
        }
    }

    /// Takes over the numbers of a job that another process runs.
    pub fn set(&self, counts: &Counts) {
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
    }

    /// The current phase.
    pub fn phase(&self) -> Phase {
        Phase::ALL.get(usize::from(self.phase.load(Ordering::Relaxed))).copied().unwrap_or_default()
    }

    /// Enters a phase.
    pub fn enter(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
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
        let progress = Progress::default();
        assert_eq!(progress.phase(), Phase::Opening);
        for phase in Phase::ALL {
            progress.enter(phase);
            assert_eq!(progress.phase(), phase);
        }
        Progress::add(&progress.files, 3);
        let copy = Progress::default();
        copy.set(&progress.counts());
        assert_eq!((copy.phase(), copy.counts().files), (Phase::Done, 3));
    }
}
