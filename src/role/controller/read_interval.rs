//! How often a journal is looked at. Each look is a request that is paid for, and what is not looked at is seen late.

use std::time::Duration;

use super::{RoleController, RoleStatus};
use crate::clock_reading::ClockReading;
use crate::config::LeaseKind;
use crate::role::slot::Slot;

/// How often the journal is read while something may happen in it that this node has to see soon, and nothing else reads it.
pub const READ_INTERVAL: Duration = Duration::from_secs(10);

/// How often it is read while nothing is due: what may come then is what an operator says on another node, and a takeover by a node
/// that must get the lease first.
pub const READ_INTERVAL_IDLE: Duration = Duration::from_mins(1);

/// One process looks at the journals of all its idle roles no more often than this, so that what that costs does not grow with their
/// number.
const READ_SPACING: Duration = Duration::from_millis(2500);

/// However many roles a process has, each journal is looked at so often: a third of the time after which a slot counts as missed by
/// default.
const READ_INTERVAL_MAX: Duration = Duration::from_mins(10);

/// How closely a journal is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadUrgency {
    /// A slot waits for its commit, work of another process rests on this one's role, or it is not clear how this node stands.
    Close,
    /// Nothing is due, and nothing but the journal tells this node that it has lost the role.
    JournalOnly,
    /// Nothing is due.
    Idle,
}

/// How long after one look at a journal the next one comes, in a process that has so many roles.
pub(super) fn journal_read_interval(attention: ReadUrgency, roles: usize) -> Duration {
    let least = match attention {
        ReadUrgency::Close => return READ_INTERVAL,
        ReadUrgency::JournalOnly => READ_INTERVAL,
        ReadUrgency::Idle => READ_INTERVAL_IDLE,
    };
    let shared = READ_SPACING.saturating_mul(u32::try_from(roles).unwrap_or(u32::MAX));
    shared.clamp(least, READ_INTERVAL_MAX)
}

impl RoleController {
    /// The slot that waits for its commit.
    pub(super) fn pending(&self, now: ClockReading) -> Option<Slot> {
        let commits = self.history.as_ref().map(|history| history.commits.clone()).unwrap_or_default();
        self.plan.as_ref().and_then(|plan| plan.pending(&commits, now.wall))
    }

    /// When the journal is to be read, as boot time.
    pub(super) fn reads_at(&self, now: ClockReading) -> Duration {
        match self.last_read {
            _ if self.history.is_none() => self.reading.until,
            Some(last) => last + journal_read_interval(self.read_urgency(now), self.roles),
            None => Duration::ZERO,
        }
    }

    /// How closely the journal is followed now.
    fn read_urgency(&self, now: ClockReading) -> ReadUrgency {
        let settled = match &self.reported {
            Some(
                RoleStatus::Active { .. } | RoleStatus::Candidate | RoleStatus::Standby(_) | RoleStatus::Paused(_),
            ) => true,
            Some(RoleStatus::Away(_) | RoleStatus::Unknown(_) | RoleStatus::Conflict(_) | RoleStatus::Cloned)
            | None => false,
        };
        // Work that is under way reads for itself.
        if !settled || self.run_requested || self.borrowers > 0 || self.pending(now).is_some() {
            ReadUrgency::Close
        } else if self.role.lease == LeaseKind::None && matches!(self.reported, Some(RoleStatus::Active { .. })) {
            ReadUrgency::JournalOnly
        } else {
            ReadUrgency::Idle
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However many roles a process has, it looks at all of them together no more often than that; and at none too seldom.
        #[test]
        fn looks_are_bounded(roles in 1usize..240, attention in 0usize..3) {
            let attention = [ReadUrgency::Close, ReadUrgency::JournalOnly, ReadUrgency::Idle][attention];
            let interval = journal_read_interval(attention, roles);
            prop_assert!((READ_INTERVAL..=READ_INTERVAL_MAX).contains(&interval));
            prop_assert!(journal_read_interval(attention, roles + 1) >= interval);
            match attention {
                ReadUrgency::Close => prop_assert_eq!(interval, READ_INTERVAL),
                ReadUrgency::JournalOnly | ReadUrgency::Idle => prop_assert!(interval >= READ_SPACING * roles as u32),
            }
        }
    }
}
