//! One instant on a host's two clocks.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// Side by side the clocks show what neither shows alone: a machine that its hypervisor stopped finds its wall clock ahead of
/// its boot clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    /// Time since boot, suspend included.
    pub boot: Duration,
    /// Wall time.
    pub wall: Timestamp,
}

impl ClockReading {
    /// By how much more one of the clocks went on than the other since `then`.
    pub fn drift_since(self, then: ClockReading) -> SignedDuration {
        let boot = SignedDuration::try_from(self.boot.saturating_sub(then.boot)).unwrap_or(SignedDuration::MAX);
        self.wall.duration_since(then.wall).saturating_sub(boot).abs()
    }
}
