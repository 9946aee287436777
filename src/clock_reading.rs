//! One instant on a host's two clocks. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// The difference of the two clocks shows what neither shows alone: after its hypervisor paused a machine, the wall
/// clock is ahead of the boot clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockReading {
    /// Time since boot, suspend included.
    pub boot: Duration,
    /// Wall time.
    pub wall: Timestamp,
}

impl ClockReading {
    /// How much more one of the clocks advanced than the other since `then`.
    pub fn drift_since(self, then: ClockReading) -> SignedDuration {
        let boot = SignedDuration::try_from(self.boot.saturating_sub(then.boot)).unwrap_or(SignedDuration::MAX);
        self.wall.duration_since(then.wall).saturating_sub(boot).abs()
    }
}
