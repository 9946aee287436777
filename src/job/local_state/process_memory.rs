//! What one process remembers about each repository, whatever becomes of the state directory.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};

use crate::ids::{Digest, RepoId};
use crate::job::local_state::run_failure::UnsavedFailures;
use crate::job::local_state::saved_state::{ANNOUNCEMENT_INTERVAL, SavedState};

/// What this process has saved about each repository. A state directory may be deleted or set back while a process
/// runs; the process still knows what it saw and what it took over.
#[derive(Debug, Clone, Default)]
pub struct ProcessMemory {
    repositories: Arc<Mutex<BTreeMap<RepoId, SavedState>>>,
    failures: UnsavedFailures,
    /// What was published to the other nodes, if that could not be written to the state directory.
    last_announced: Arc<Mutex<BTreeMap<RepoId, (Digest, Timestamp)>>>,
}

impl ProcessMemory {
    pub(crate) fn get(&self, repo: RepoId) -> Option<SavedState> {
        self.all().get(&repo).cloned()
    }

    pub(crate) fn set(&self, repo: RepoId, memory: &SavedState) {
        self.all().insert(repo, memory.clone());
    }

    /// The repositories about which something is remembered.
    pub fn repositories(&self) -> Vec<RepoId> {
        self.all().keys().copied().collect()
    }

    /// Failures of runs that could not be written to the state directory.
    pub(crate) fn failures(&self) -> UnsavedFailures {
        self.failures.clone()
    }

    /// Whether `what` is due to be published to the other nodes; if so it counts as published from now on.
    pub(crate) fn claim_announcement(&self, repo: RepoId, what: Digest, now: Timestamp) -> bool {
        let mut told = self.last_announced.lock();
        let due = told
            .get(&repo)
            .is_none_or(|(was, at)| *was != what || now.duration_since(*at).abs() >= ANNOUNCEMENT_INTERVAL);
        if due {
            told.insert(repo, (what, now));
        }
        due
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<RepoId, SavedState>> {
        self.repositories.lock()
    }
}
