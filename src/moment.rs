//! One instant on a host's two clocks.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Side by side the clocks show what neither shows alone: a machine that its hypervisor stopped finds its wall clock ahead of
/// its boot clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Time since boot, suspend included.
    pub boot: Duration,
    /// Wall time.
    pub wall: Timestamp,
}
