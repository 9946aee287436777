//! How fast one channel sends. Pure.
//!
//! A storm of events must not make a service refuse the channel: Slack allows one message a second, an ntfy server one
//! every five seconds after the first ones. What is too fast waits in the channel's own queue.

use std::time::Duration;

/// Messages that may be sent at once after a quiet time.
const BURST: u32 = 10;

/// How often one more message may be sent.
const INTERVAL: Duration = Duration::from_secs(5);

/// The pace of one channel.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ChannelPace {
    /// When the messages that were sent are no longer counted: each counts for one interval.
    counted_until: Duration,
}

impl ChannelPace {
    /// Counts one more message at `now`. Returns how long it has to wait.
    pub(super) fn next_wait(&mut self, now: Duration) -> Duration {
        let before = self.counted_until.max(now);
        self.counted_until = before + INTERVAL;
        (before + INTERVAL).saturating_sub(now + INTERVAL * BURST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_goes_at_once_and_the_rest_at_the_pace() {
        let mut pace = ChannelPace::default();
        let start = Duration::from_secs(1000);
        let waits: Vec<u64> = (0..13).map(|_| pace.next_wait(start).as_secs()).collect();
        assert_eq!(waits, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 10, 15]);
        let later = start + Duration::from_secs(15);
        assert_eq!(pace.next_wait(later).as_secs(), 5, "those that wait are sent at the same pace");
        let much_later = start + Duration::from_hours(1);
        assert_eq!((0..10).map(|_| pace.next_wait(much_later).as_secs()).sum::<u64>(), 0);
    }
}
