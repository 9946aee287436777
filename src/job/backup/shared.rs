//! The context that all stages of a run share: keys, clocks, the sources, and whether the run is stopped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::env::Env;
use crate::job::error::BackupError;
use crate::job::node::progress::{JobProgress, UninterruptibleGuard};
use crate::repo::crypto::DerivedKeys;
use crate::repo::entry::UnixNanos;
use crate::repo::format::ChunkerParams;
use crate::tree::owner_names::OwnerNames;
use crate::tree::roots::SourceRoots;

/// The context that all stages of a run share.
#[derive(Debug)]
pub(crate) struct PipelineContext {
    pub(crate) keys: DerivedKeys,
    pub(crate) chunker: ChunkerParams,
    pub(crate) env: Env,
    pub(crate) names: OwnerNames,
    pub(crate) roots: Arc<SourceRoots>,
    pub(crate) stop: CancellationToken,
    pub(crate) failed: AtomicBool,
    pub(crate) progress: Arc<JobProgress>,
    pub(crate) counts: WorkerCounters,
    pub(crate) buffers: BufferPool,
    pub(crate) stall_timeout: Duration,
    /// Held because threads of the run may still wait for the kernel after the rest of it has ended.
    #[expect(dead_code, reason = "that it is held is all")]
    pub(crate) presence: UninterruptibleGuard,
}

/// Buffers of compressed frames and uploaded packs, for reuse: the kernel provides large allocations page by page, and
/// an allocator keeps them for a while. The pool never holds more buffers than were in use at the same time.
#[derive(Debug, Default)]
pub(crate) struct BufferPool {
    frames: Mutex<Vec<Vec<u8>>>,
    packs: Mutex<Vec<Vec<u8>>>,
}

impl BufferPool {
    /// The buffer of a frame; empty if the pool has none.
    pub(crate) fn frame(&self) -> Vec<u8> {
        self.frames.lock().pop().unwrap_or_default()
    }

    pub(crate) fn give_frame(&self, memory: Vec<u8>) {
        self.frames.lock().push(memory);
    }

    pub(crate) fn pack(&self) -> Option<Vec<u8>> {
        self.packs.lock().pop()
    }

    pub(crate) fn give_pack(&self, memory: Vec<u8>) {
        self.packs.lock().push(memory);
    }
}

impl PipelineContext {
    /// The wall clock: files that are examined from now on are observed at this time or later.
    pub(crate) fn observed_at(&self) -> UnixNanos {
        UnixNanos(self.env.clock.now().as_nanosecond())
    }

    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Fails if the run is stopped or has failed.
    pub(crate) fn check(&self) -> Result<(), BackupError> {
        match (self.stop.is_cancelled(), self.failed()) {
            (true, _) => Err(BackupError::Interrupted),
            (_, true) => Err(BackupError::Stopped),
            _ => Ok(()),
        }
    }
}

/// Counts of all workers.
#[derive(Debug, Default)]
pub(crate) struct WorkerCounters {
    pub(crate) read_bytes: AtomicU64,
    pub(crate) new_bytes: AtomicU64,
}
