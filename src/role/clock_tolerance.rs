//! What counts as the present. The clock of one host is evidence and may be wrong by years, so an instant that another host wrote is
//! compared with the present before anything is concluded from it. Pure.

use jiff::{SignedDuration, Timestamp};

/// The largest difference between two clocks that is taken for the same time. A node whose clock is further than this from the
/// store's runs no slots: it would run the wrong ones. An instant further than this ahead was written by a wrong clock.
pub const CLOCK_OFFSET_MAX: SignedDuration = SignedDuration::from_mins(5);

/// Whether a clock is so far from the store's (the difference of the two) that it must not name slots.
pub fn is_clock_off(offset: SignedDuration) -> bool {
    offset.abs() > CLOCK_OFFSET_MAX
}

/// The last instant that may have been written by a clock that is right.
pub fn future_horizon(now: Timestamp) -> Timestamp {
    now.saturating_add(CLOCK_OFFSET_MAX).unwrap_or(Timestamp::MAX)
}

/// Whether `at` lies so far after `now` that a wrong clock wrote it.
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
