//! What `verify` reports.

use std::time::Duration;

use serde::Serialize;

use crate::ids::{Digest, RoleName};
use crate::repo::entry::TreePath;
use crate::repo::loss::PackLosses;

/// Result of a verification.
#[derive(Debug, Clone)]
pub struct VerifyReport {
    /// Name of the role.
    pub role: RoleName,
    /// What was checked.
    pub checked: VerifyCounts,
    /// Percentage of the packs whose content was read and hashed; 0: only the structure.
    pub read_percent: u8,
    /// Duration of the check.
    pub duration: Duration,
    /// The damaged objects, at most [`super::PROBLEMS_MAX`].
    pub damages: Vec<DamagedObject>,
    /// Number of all damaged objects.
    pub damage_count: u64,
    /// The damaged packs, for the next backup.
    pub losses: PackLosses,
}

/// What was checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct VerifyCounts {
    /// Number of journal records.
    pub records: u64,
    /// Number of snapshots whose manifests were walked.
    pub snapshots: u64,
    /// Number of index objects.
    pub indexes: u64,
    /// Number of packs.
    pub packs: u64,
    /// Number of chunks that snapshots refer to.
    pub chunks: u64,
    /// Bytes received from the store.
    pub bytes_read: u64,
    /// Objects that nothing refers to, from interrupted runs. Not damage; a prune removes them.
    pub unreferenced: u64,
}

/// An object that is missing or damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedObject {
    /// The kind of the object.
    pub kind: DamageKind,
    /// Its key in the store.
    pub object: String,
    /// What is wrong with it.
    pub what: String,
    /// Files that cannot be restored because of it, at most [`AFFECTED_MAX`].
    pub affected: Vec<AffectedFile>,
    /// Number of all these files.
    pub affected_count: u64,
}

/// The kinds of objects that can be damaged; the consequences of damage depend on the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DamageKind {
    /// The description of the repository: nothing can be read without it.
    Format,
    /// One wrapped key. Others may still open the repository.
    Key,
    /// A journal record: the journal from this record on is not reliable.
    Record,
    /// The copy of a rotation's record: it is needed if the record is lost.
    RotationCopy,
    /// An index object, or the index as a whole.
    Index,
    /// A pack.
    Pack,
}

/// The most files that one [`DamagedObject`] names.
pub const AFFECTED_MAX: usize = 100;

/// A file that cannot be restored because of a damage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AffectedFile {
    /// The snapshot that contains it.
    pub snapshot: Digest,
    /// Path of the file.
    pub path: TreePath,
}
