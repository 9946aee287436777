//! What counts as the present. A host's clock may be wrong by years, so an instant written by another host is compared
//! with the present before it is used. Pure.

use jiff::{SignedDuration, Timestamp};

/// The largest difference between two clocks that still counts as the same time. A node whose clock is further than
/// this from the store's clock runs no slots, because it would run the wrong ones. An instant further than this in the
/// future was written by a wrong clock.
pub const CLOCK_OFFSET_MAX: SignedDuration = SignedDuration::from_mins(5);

/// Whether `offset`, the difference between a clock and the store's clock, is too large for the clock to name slots.
pub fn is_clock_off(offset: SignedDuration) -> bool {
    offset.abs() > CLOCK_OFFSET_MAX
}

/// The last instant that a correct clock may have written.
pub fn future_horizon(now: Timestamp) -> Timestamp {
    now.saturating_add(CLOCK_OFFSET_MAX).unwrap_or(Timestamp::MAX)
}

/// Whether `at` is so far after `now` that a wrong clock must have written it.
pub fn is_in_future(at: Timestamp, now: Timestamp) -> bool {
    at > future_horizon(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_minutes_are_the_same_time() {
        let now: Timestamp = "2026-11-20T01:00:00Z".parse().unwrap();
        let seconds = |n| now + SignedDuration::from_secs(n);
        assert!(
            !is_in_future(seconds(300), now) && is_in_future(seconds(301), now) && !is_in_future(seconds(-90_000), now)
        );
        assert!(!is_in_future(Timestamp::MAX, Timestamp::MAX));
        assert!(!is_clock_off(SignedDuration::from_secs(-300)) && is_clock_off(SignedDuration::from_secs(-301)));
    }
}
