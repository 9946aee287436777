//! What all parts of a run share: keys, clocks, the sources, and whether there is a point in going on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::env::Env;
use crate::job::backup::BackupError;
use crate::job::backup::worker::Counts;
use crate::job::cancel::Cancel;
use crate::job::progress::Progress;
use crate::repo::crypto::Keys;
use crate::repo::entry::Nanos;
use crate::repo::format::ChunkerParams;
use crate::tree::names::Names;
use crate::tree::roots::Roots;

/// What all parts of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) keys: Keys,
    pub(crate) chunker: ChunkerParams,
    pub(crate) env: Env,
    pub(crate) names: Names,
    pub(crate) roots: Arc<Roots>,
    pub(crate) stop: Cancel,
    pub(crate) failed: AtomicBool,
    pub(crate) progress: Arc<Progress>,
    pub(crate) counts: Counts,
}

impl Shared {
    /// The wall clock now: what is looked at from here on was seen at this time or later.
    pub(crate) fn seen(&self) -> Nanos {
        Nanos(self.env.clock.now().as_nanosecond())
    }

    pub(crate) fn failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Fails if there is no point in going on.
    pub(crate) fn check(&self) -> Result<(), BackupError> {
        match (self.stop.is_cancelled(), self.failed()) {
            (true, _) => Err(BackupError::Interrupted),
            (_, true) => Err(BackupError::Stopped),
            _ => Ok(()),
        }
    }
}
