//! What `prune` reports.

use jiff::Timestamp;

use crate::ids::{Digest, RoleName};
use crate::job::prune::retention::KeepReason;
use crate::journal::state::Snapshot;

/// How a prune of one role went, or would go.
#[derive(Debug, Clone)]
pub struct PruneReport {
    /// Which role.
    pub role: RoleName,
    /// Every snapshot, in the journal's order.
    pub snapshots: Vec<RetentionVerdict>,
    /// Packs that nothing needs any more.
    pub packs_condemned: u64,
    /// Packs whose needed part was written anew.
    pub packs_repacked: u64,
    /// Bytes that are freed when the grace is over.
    pub bytes_freed: u64,
    /// Bytes that nothing needs, and that stay because moving the rest is not worth it.
    pub bytes_unused: u64,
    /// Packs that something needs and that the store has not got as they should be: nothing is moved out of them.
    pub packs_lost: u64,
    /// What was deleted, of this and of earlier prunes.
    pub swept: SweepCounts,
    /// The store keeps versions of what is deleted: nothing is freed by it alone.
    pub is_versioned: bool,
}

impl PruneReport {
    /// Where everything stays and nothing is freed.
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

/// A snapshot, and what becomes of it.
#[derive(Debug, Clone)]
pub struct RetentionVerdict {
    /// Which.
    pub snapshot: Digest,
    /// When it was taken.
    pub time: Timestamp,
    /// By which node.
    pub node: String,
    /// Whether it stays.
    pub kept: bool,
    /// Why.
    pub reasons: Vec<KeepReason>,
}

/// What a sweep deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SweepCounts {
    /// Packs.
    pub packs: u64,
    /// Index objects.
    pub indexes: u64,
    /// Packs whose grace is not over.
    pub waiting: u64,
}
