//! What `prune` reports.

use jiff::Timestamp;

use crate::ids::{Digest, RoleName};

use crate::journal::state::Snapshot;

/// Result of a prune of one role, or of its dry run.
#[derive(Debug, Clone)]
pub struct PruneReport {
    /// Name of the role.
    pub role: RoleName,
    /// Every snapshot with its verdict, in the journal's order.
    pub snapshots: Vec<RetentionVerdict>,
    /// Packs that no kept snapshot needs.
    pub packs_condemned: u64,
    /// Packs whose needed content was copied to new packs.
    pub packs_repacked: u64,
    /// Bytes that are freed after the grace period.
    pub bytes_freed: u64,
    /// Unneeded bytes that stay, because repacking is not worth it.
    pub bytes_unused: u64,
    /// Needed packs that the store lacks or has with another size: they are not repacked.
    pub packs_lost: u64,
    /// What was deleted, of this prune and of earlier ones.
    pub swept: SweepCounts,
    /// The store keeps versions of deleted objects, so deletes alone free no space.
    pub is_versioned: bool,
}

impl PruneReport {
    /// The report of a prune that keeps everything and frees nothing.
    pub fn idle(role: RoleName, snapshots: &[Snapshot]) -> Self {
        let verdict = |snapshot: &Snapshot| RetentionVerdict {
            snapshot: snapshot.id,
            time: snapshot.time,
            node: snapshot.node.name.clone(),
            kept: true,
            reasons: Vec::new(),
        };
        Self {
            role,
            snapshots: snapshots.iter().map(verdict).collect(),
            packs_condemned: 0,
            packs_repacked: 0,
            bytes_freed: 0,
            bytes_unused: 0,
            packs_lost: 0,
            swept: SweepCounts::default(),
            is_versioned: false,
        }
    }
}

/// Whether a snapshot is kept.
#[derive(Debug, Clone)]
pub struct RetentionVerdict {
    /// ID of the snapshot.
    pub snapshot: Digest,
    /// Time of the snapshot.
    pub time: Timestamp,
    /// The node that made it.
    pub node: String,
    /// Whether it is kept.
    pub kept: bool,
    /// The reasons to keep it.
    pub reasons: Vec<KeepReason>,
}

/// What a sweep deleted, and what it will delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SweepCounts {
    /// Deleted packs.
    pub packs: u64,
    /// Deleted index objects.
    pub indexes: u64,
    /// Condemned packs whose grace period is not over.
    pub waiting: u64,
}

/// Why a snapshot is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetentionRule {
    /// It is among the newest `last` snapshots.
    Last,
    /// It is the newest snapshot of its hour.
    Hourly,
    /// It is the newest snapshot of its day.
    Daily,
    /// It is the newest snapshot of its week, which begins on Monday.
    Weekly,
    /// It is the newest snapshot of its month.
    Monthly,
    /// It is the newest snapshot of its year.
    Yearly,
    /// It is within the configured duration before the newest snapshot.
    Within,
    /// It is dated in the future.
    Future,
    /// It is the newest complete snapshot: the ones after it lack entries that could not be read.
    Complete,
}

/// One reason to keep a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepReason {
    /// The rule that keeps the snapshot.
    pub rule: RetentionRule,
    /// The snapshot is the oldest of all, and the rule keeps it because the rule's number is not used up.
    pub oldest: bool,
}
