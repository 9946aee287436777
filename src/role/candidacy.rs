//! Proof, in types, that the election agreed, and for how long.
//!
//! The invariants that live here: a deadline is dated from the moment at which the lease was *requested*, never from
//! the answer, on the clock that runs through suspend; and if the wall clock of a machine ran ahead of that clock, the
//! machine was stopped, so its deadline is void. Only the role module makes a [`Candidacy`], and only it moves a
//! [`Deadline`].
//!
//! Pure.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use crate::clock_reading::ClockReading;
use crate::ids::RoleName;

/// The smallest safety margin of a lease: stopping work takes about that long.
const MARGIN_MIN: Duration = Duration::from_millis(200);

/// The safety margin of a lease of length `ttl`: a tenth, at least 200 ms, at most half. Work ends this long before the
/// service would let another node in. Clocks that drift apart by less than a tenth are covered.
pub fn safety_margin(ttl: Duration) -> Duration {
    (ttl / 10).max(MARGIN_MIN).min(ttl / 2)
}

/// A lease as the service granted it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseGrant {
    /// When the lease was requested.
    pub asked: ClockReading,
    /// How long the service keeps other processes out, counted from some moment after `asked`.
    pub ttl: Duration,
}

impl LeaseGrant {
    /// The boot time at which work must have stopped.
    pub fn work_until(&self) -> Duration {
        self.asked.boot + self.ttl.saturating_sub(safety_margin(self.ttl))
    }

    /// Whether the lease has expired at `now`.
    pub fn passed(&self, now: ClockReading) -> bool {
        now.boot >= self.work_until() || self.machine_stopped_for(now) > safety_margin(self.ttl)
    }

    /// How long the machine was stopped by its hypervisor since the request, while other machines went on: by how much
    /// the wall clock ran ahead of the boot clock.
    fn machine_stopped_for(&self, now: ClockReading) -> Duration {
        let wall = Duration::try_from(now.wall.duration_since(self.asked.wall)).unwrap_or_default();
        wall.saturating_sub(now.boot.saturating_sub(self.asked.boot))
    }
}

/// Until when its holder may work. Copies share one state: the election extends it while a run goes on.
#[derive(Debug, Clone)]
pub struct Deadline(Arc<Mutex<DeadlineState>>);

#[derive(Debug, Clone, Copy)]
enum DeadlineState {
    /// No lease: only the journal excludes others.
    Endless,
    /// A lease.
    Granted(LeaseGrant),
    /// The deadline was ended, whatever the clock says.
    Ended,
}

impl Deadline {
    /// A deadline without an end: only the journal excludes others.
    pub(in crate::role) fn endless() -> Self {
        Self(Arc::new(Mutex::new(DeadlineState::Endless)))
    }

    /// The deadline of a lease.
    pub(in crate::role) fn granted(grant: LeaseGrant) -> Self {
        Self(Arc::new(Mutex::new(DeadlineState::Granted(grant))))
    }

    /// Extends the deadline after a renewal. It never moves back, and a deadline that was ended stays ended.
    pub(in crate::role) fn renew(&self, grant: LeaseGrant) {
        let mut span = self.span();
        if let DeadlineState::Granted(before) = *span
            && before.asked.boot < grant.asked.boot
        {
            *span = DeadlineState::Granted(grant);
        }
    }

    /// Ends the deadline: the lease is lost, or given up.
    pub(in crate::role) fn end(&self) {
        *self.span() = DeadlineState::Ended;
    }

    /// Whether work must have stopped at `now`.
    pub fn passed(&self, now: ClockReading) -> bool {
        match *self.span() {
            DeadlineState::Endless => false,
            DeadlineState::Granted(grant) => grant.passed(now),
            DeadlineState::Ended => true,
        }
    }

    /// The boot time at which work must stop, as far as is known now; `None` if there is no end.
    pub fn until(&self) -> Option<Duration> {
        match *self.span() {
            DeadlineState::Endless => None,
            DeadlineState::Granted(grant) => Some(grant.work_until()),
            DeadlineState::Ended => Some(Duration::ZERO),
        }
    }

    /// The newest grant, for another process of this host; `None` if there is none, or the deadline was ended.
    pub fn grant(&self) -> Option<LeaseGrant> {
        match *self.span() {
            DeadlineState::Granted(grant) => Some(grant),
            DeadlineState::Endless | DeadlineState::Ended => None,
        }
    }

    /// Whether the deadline was ended: unlike one that only passed, it will not be renewed.
    pub fn is_ended(&self) -> bool {
        matches!(*self.span(), DeadlineState::Ended)
    }

    fn span(&self) -> MutexGuard<'_, DeadlineState> {
        // The state is replaced as a whole, so a poisoned lock holds a valid one.
        self.0.lock()
    }
}

/// Proof that the election lets this node take over a role now. Only the role module makes one.
#[derive(Debug, Clone)]
pub struct Candidacy {
    role: RoleName,
    deadline: Deadline,
    stands_in: bool,
}

impl Candidacy {
    pub(in crate::role) fn new(role: RoleName, deadline: Deadline) -> Self {
        Self { role, deadline, stands_in: false }
    }

    pub(in crate::role) fn standing_in(self) -> Self {
        Self { stands_in: true, ..self }
    }

    /// Whether this node works as a fallback: no eligible node did what was due.
    pub fn stands_in(&self) -> bool {
        self.stands_in
    }

    /// The role.
    pub fn role(&self) -> &RoleName {
        &self.role
    }

    /// The deadline for work.
    pub fn deadline(&self) -> &Deadline {
        &self.deadline
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::{Candidacy, Deadline, LeaseGrant};
    use crate::ids::RoleName;

    /// The candidacy of a node that holds this lease.
    pub(crate) fn candidacy(role: &RoleName, grant: LeaseGrant) -> Candidacy {
        Candidacy::new(role.clone(), Deadline::granted(grant))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(boot_ms: u64, wall_ms: i64) -> ClockReading {
        ClockReading { boot: Duration::from_millis(boot_ms), wall: jiff::Timestamp::from_millisecond(wall_ms).unwrap() }
    }

    const TTL: Duration = Duration::from_secs(10);

    #[test]
    fn it_is_dated_from_the_question_and_ends_before_the_server_would() {
        let deadline = Deadline::granted(LeaseGrant { asked: at(5_000, 0), ttl: TTL });
        assert!(!deadline.passed(at(13_999, 8_999)));
        assert!(deadline.passed(at(14_000, 9_000)), "ten seconds less a tenth, from the question on");
        deadline.renew(LeaseGrant { asked: at(8_000, 3_000), ttl: TTL });
        assert!(!deadline.passed(at(16_999, 11_999)));
        deadline.renew(LeaseGrant { asked: at(6_000, 1_000), ttl: TTL });
        assert_eq!(deadline.until(), Some(Duration::from_secs(17)), "an answer that comes late moves nothing back");
        deadline.renew(LeaseGrant { asked: at(8_000, 3_000), ttl: TTL / 2 });
        assert_eq!(deadline.until(), Some(Duration::from_secs(17)), "nor does a second one to the same question");
    }

    #[test]
    fn another_process_of_the_host_rests_on_the_newest_grant_and_on_none_that_is_over() {
        let deadline = Deadline::granted(LeaseGrant { asked: at(5_000, 0), ttl: TTL });
        assert_eq!(deadline.grant().map(|grant| grant.asked), Some(at(5_000, 0)));
        assert!(!deadline.is_ended());
        deadline.renew(LeaseGrant { asked: at(8_000, 3_000), ttl: TTL });
        assert_eq!(deadline.grant().map(|grant| grant.asked), Some(at(8_000, 3_000)));
        deadline.end();
        assert!(deadline.is_ended() && deadline.grant().is_none());
        let endless = Deadline::endless();
        assert!(!endless.is_ended() && endless.grant().is_none() && !endless.passed(at(u64::MAX / 2, 0)));
    }

    #[test]
    fn a_machine_that_was_stopped_has_lost_it() {
        let deadline = Deadline::granted(LeaseGrant { asked: at(5_000, 0), ttl: TTL });
        assert!(!deadline.passed(at(6_000, 2_000)), "the wall clock may be set by as much as the margin");
        assert!(deadline.passed(at(6_000, 2_001)));
        assert!(!deadline.passed(at(6_000, -3_600_000)), "a wall clock that is set back says nothing");
    }

    #[test]
    fn what_was_ended_does_not_come_back() {
        let deadline = Deadline::granted(LeaseGrant { asked: at(0, 0), ttl: TTL });
        let clone = deadline.clone();
        deadline.end();
        clone.renew(LeaseGrant { asked: at(1_000, 1_000), ttl: TTL });
        assert!(clone.passed(at(1_000, 1_000)) && clone.is_ended());
        assert!(!Deadline::endless().passed(at(u32::MAX.into(), 0)));
    }

    #[test]
    fn short_leases_keep_back_what_stopping_takes() {
        assert_eq!(safety_margin(Duration::from_secs(1)), Duration::from_millis(200));
        assert_eq!(safety_margin(Duration::from_millis(300)), Duration::from_millis(150));
        assert_eq!(safety_margin(Duration::from_mins(1)), Duration::from_secs(6));
    }
}
