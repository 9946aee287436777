//! How much of everything goes on at the same time, over all roles of a process.

use tokio::sync::Semaphore;

/// Runs at a time: each reads, compresses and uploads with all processors by itself.
const RUNS_MAX: usize = 2;

/// Takeovers at a time: a node that inherits a hundred roles does not ask the store for all of them in one second.
const TAKEOVERS_MAX: usize = 8;

/// Journals that are read at a time.
const READS_MAX: usize = 8;

/// Shared by all roles.
#[derive(Debug)]
pub(super) struct Limits {
    pub(super) runs: Semaphore,
    pub(super) takeovers: Semaphore,
    pub(super) reads: Semaphore,
}

impl Limits {
    pub(super) fn new() -> Self {
        Self {
            runs: Semaphore::new(RUNS_MAX),
            takeovers: Semaphore::new(TAKEOVERS_MAX),
            reads: Semaphore::new(READS_MAX),
        }
    }
}
