//! What `verify` reports.

use std::time::Duration;

use serde::Serialize;

use crate::ids::{Digest, RoleName};
use crate::repo::entry::TreePath;
use crate::repo::loss::PackLosses;

/// What was checked and what was found.
#[derive(Debug, Clone)]
pub struct VerifyReport {
    /// Which role.
    pub role: RoleName,
    /// What was looked at.
    pub checked: VerifyCounts,
    /// Percentage of the packs whose content was read and hashed; 0: only the structure.
    pub read_percent: u8,
    /// How long it took.
    pub duration: Duration,
    /// What is damaged, at most [`super::PROBLEMS_MAX`].
    pub damages: Vec<DamagedObject>,
    /// How many there were.
    pub damage_count: u64,
    /// The packs among them, for the next run.
    pub losses: PackLosses,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct VerifyCounts {
    /// Journal records.
    pub records: u64,
    /// Snapshots whose manifests were walked.
    pub snapshots: u64,
    /// Index objects.
    pub indexes: u64,
    /// Packs.
    pub packs: u64,
    /// Chunks that snapshots refer to.
    pub chunks: u64,
    /// Bytes received from the store.
    pub bytes_read: u64,
    /// Objects that nothing refers to: what broken runs left. No damage; a prune removes them.
    pub unreferenced: u64,
}

/// One object that is missing or not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedObject {
    /// What it is.
    pub kind: DamageKind,
    /// Its key in the store.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// The files that cannot be restored because of it, at most [`AFFECTED_MAX`].
    pub affected: Vec<AffectedFile>,
    /// How many there are.
    pub affected_count: u64,
}

/// The kinds of object that can be damaged; what follows from a damage depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DamageKind {
    /// What the repository is: nothing can be read without it.
    Format,
    /// One wrapped key. Others may still open the repository.
    Key,
    /// A journal record: what the journal says from here on cannot be relied on.
    Record,
    /// The copy of the record of a rotation: it is needed where the record is lost.
    RotationCopy,
    /// An index object, or the index as a whole.
    Index,
    /// A pack.
    Pack,
}

/// The most files that one [`DamagedObject`] names.
pub const AFFECTED_MAX: usize = 100;

/// One file that a damage concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffectedFile {
    /// In which snapshot.
    pub snapshot: Digest,
    /// Which path.
    pub path: TreePath,
}
