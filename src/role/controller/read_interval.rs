//! How often a journal is read. Each read is a request that costs money, and what is read rarely is seen late. Pure.

use std::time::Duration;

use super::{RoleController, RoleStatus};
use crate::clock_reading::ClockReading;
use crate::config::LeaseKind;
use crate::role::slot::Slot;

/// The interval between reads while a record may come that this node has to see soon, and nothing else reads the
/// journal.
pub const READ_INTERVAL: Duration = Duration::from_secs(10);

/// The interval between reads while nothing is due. Only two records may come then: an operator's decision on another
/// node, and a takeover by a node that must get the lease first.
pub const READ_INTERVAL_IDLE: Duration = Duration::from_mins(1);

/// One process reads the journals of all its idle roles no more often than this, so that the cost does not grow with
/// their number.
const READ_SPACING: Duration = Duration::from_millis(2500);

/// The longest interval, however many roles a process has: a third of the time after which a slot counts as missed by
/// default.
const READ_INTERVAL_MAX: Duration = Duration::from_mins(10);

/// How closely a journal is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReadUrgency {
    /// A slot waits for its commit, another process works under this role's lease, or the status is not clear.
    Close,
    /// Nothing is due, and only the journal tells this node that it has lost the role.
    JournalOnly,
    /// Nothing is due.
    Idle,
}

/// The interval between two reads of a journal, in a process with `roles` roles.
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

    /// The boot time at which the journal is to be read.
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
        // Work that is under way reads the journal itself.
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
        /// All roles of a process together are read no more often than the spacing, and each role no less often than
        /// the maximum interval.
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
