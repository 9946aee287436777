//! The pauses before a failed effect is repeated, and the periods in which a role is left to other nodes. Pure.

use std::time::Duration;

use crate::ids::{NodeId, RoleName};

/// The pause after the first failure.
const FIRST: Duration = Duration::from_secs(1);

/// The longest pause after failed runs and takeovers.
pub(super) const WORK_MAX: Duration = Duration::from_mins(5);

/// The longest pause after a failed read of the journal, in pauses between two requests to a lease service that does
/// not answer; this comes to half a lease. A longer pause would notice a store that is back later than a failover
/// takes; a shorter one would only load a store that is down.
const READ_PART: u32 = 6;
const READ_MAX: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(30));

/// When the store answers again, its roles go on one after the other within this period, so that a hundred of them do
/// not ask at once.
pub(super) const RETURN_SPREAD: Duration = Duration::from_secs(2);

/// How long a node leaves a role to others after a stalled run, and the maximum to which this doubles. It is long
/// enough for another node to see that the lease is free, and then so rare that a source that hangs costs little.
pub(super) const AWAY: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(1));

/// How long a node leaves a role to others because no run is free for it, in pauses between two requests for the lease.
/// A node that waits for the lease has asked several times by then.
pub(super) const OFFER_ASKS: u32 = 12;

/// The failed attempts in a row, and the time before which the next one waits.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    pub(super) failures: u32,
    pub(super) until: Duration,
}

impl Backoff {
    /// Doubles the pause, up to `longest`.
    pub(super) fn note_failure(&mut self, now: Duration, longest: Duration) {
        self.until = now + exponential_backoff(FIRST, self.failures, longest);
        self.failures = self.failures.saturating_add(1);
    }

    /// Shortens the pause to end at `at`. An attempt that fails again waits as long as it would have.
    pub(super) fn shorten(&mut self, at: Duration) {
        self.until = self.until.min(at);
    }
}

/// `first`, doubled `times` times, at most `longest`.
pub(super) fn exponential_backoff(first: Duration, times: u32, longest: Duration) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}

/// The longest pause between two reads, for a lease service that is asked again after `retry_interval` if it does not
/// answer.
pub(super) fn read_backoff_max(retry_interval: Duration) -> Duration {
    (retry_interval * READ_PART).clamp(READ_MAX.0, READ_MAX.1)
}

/// The part of [`RETURN_SPREAD`] that this role and node wait.
pub(super) fn resume_jitter(role: &RoleName, node: NodeId) -> Duration {
    let hash = blake3::Hasher::new().update(role.as_str().as_bytes()).update(&node.0).finalize();
    RETURN_SPREAD * u32::from(hash.as_bytes()[0]) / u32::from(u8::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest() {
        let mut backoff = Backoff::default();
        let pauses: Vec<u64> = (0..11)
            .map(|_| {
                backoff.note_failure(Duration::ZERO, WORK_MAX);
                backoff.until.as_secs()
            })
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        backoff.shorten(Duration::from_secs(7));
        assert_eq!((backoff.until.as_secs(), backoff.failures), (7, 11));
    }

    #[test]
    fn a_journal_is_read_again_within_half_a_lease() {
        // Leases of 3 s, a minute and an hour: the service is asked every twelfth of the lease, at most every 5 s.
        let longest = [250, 5_000, 5_000].map(|retry| read_backoff_max(Duration::from_millis(retry)).as_secs());
        assert_eq!(longest, [5, 30, 30]);
    }

    #[test]
    fn a_hundred_roles_come_back_one_after_the_other() {
        let of = |n: u32, node| resume_jitter(&format!("r{n}").parse().unwrap(), NodeId([node; 16]));
        let mut all: Vec<Duration> = (0..100).map(|n| of(n, 1)).collect();
        all.sort();
        all.dedup();
        assert!(all.len() > 60 && all[all.len() - 1] <= RETURN_SPREAD, "{all:?}");
        assert_ne!(of(1, 1), of(1, 2), "the nodes of one role as well");
    }
}
