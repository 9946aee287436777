//! The clock of a directory store: the time that its file system gives to a file which this process has just written.
//! On a network file system it is the server's clock. Elsewhere it is the kernel's, which this process may read
//! differently under a library that fakes the time. Pure.

use jiff::{SignedDuration, Timestamp};

use crate::clock_reading::ClockReading;

/// The precision of file dates: file systems store them in steps of up to two seconds, and kernels set them a few
/// milliseconds late.
const STEP: SignedDuration = SignedDuration::from_secs(2);

/// One measurement of the file system's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct DirClock {
    /// The file system's time at the host's time `taken`.
    time: Timestamp,
    taken: ClockReading,
}

impl DirClock {
    /// From the date of a file that was written between `before` and `after`. If the date lies between them the two
    /// clocks agree, however long the writing took.
    pub(super) fn read(before: ClockReading, modified: Timestamp, after: ClockReading) -> Self {
        let offset = if modified < before.wall.min(after.wall) {
            modified.duration_since(before.wall.min(after.wall))
        } else if modified > before.wall.max(after.wall) {
            modified.duration_since(before.wall.max(after.wall))
        } else {
            SignedDuration::ZERO
        };
        let offset = if offset.abs() <= STEP { SignedDuration::ZERO } else { offset };
        let far = if offset.is_negative() { Timestamp::MIN } else { Timestamp::MAX };
        Self { time: after.wall.checked_add(offset).unwrap_or(far), taken: after }
    }

    /// The file system's clock minus the host's, at `now`. Correct even if the host's wall clock was set since, because
    /// the boot clock was not.
    pub(super) fn offset(&self, now: ClockReading) -> SignedDuration {
        let passed = SignedDuration::try_from(now.boot.saturating_sub(self.taken.boot)).unwrap_or(SignedDuration::MAX);
        let offset = self.time.duration_since(now.wall).saturating_add(passed);
        if offset.abs() <= STEP { SignedDuration::ZERO } else { offset }
    }

    /// The age of the measurement.
    pub(super) fn age(&self, now: ClockReading) -> std::time::Duration {
        now.boot.saturating_sub(self.taken.boot)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn moment(boot: u64, wall: i64) -> ClockReading {
        ClockReading { boot: Duration::from_secs(boot), wall: Timestamp::from_second(wall).unwrap() }
    }

    fn offset(before: ClockReading, modified: i64, after: ClockReading, now: ClockReading) -> i64 {
        DirClock::read(before, Timestamp::from_second(modified).unwrap(), after).offset(now).as_secs()
    }

    #[test]
    fn a_file_that_is_dated_while_it_is_written_agrees_however_long_that_took() {
        let (before, after) = (moment(10, 1000), moment(810, 1800));
        for modified in [998, 1000, 1400, 1800, 1802] {
            assert_eq!(offset(before, modified, after, after), 0, "{modified}");
        }
        assert_eq!(offset(before, 2200, after, after), 400, "the store is ahead");
        assert_eq!(offset(before, 600, after, after), -400);
        let year = 365 * 86_400;
        assert_eq!(offset(moment(10, year), 1000, moment(11, year + 1), moment(11, year + 1)), 1000 - year);
    }

    #[test]
    fn a_clock_that_is_set_later_is_seen_without_another_look() {
        let at = moment(10, 1000);
        assert_eq!(offset(at, 1000, at, moment(70, 1060)), 0, "time goes on");
        assert_eq!(offset(at, 1000, at, moment(70, 1060 + 3600)), -3600, "this node was set ahead");
        assert_eq!(offset(at, 1000 + 3600, at, moment(70, 1060 + 3600)), 0, "it was set right");
        let clock = DirClock::read(at, Timestamp::MAX, at);
        assert!(
            clock.offset(at) > SignedDuration::from_hours(1) && clock.age(moment(25, 0)) == Duration::from_secs(15)
        );
    }
}
