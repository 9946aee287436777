//! What `repair` reports.

use crate::ids::{Digest, IndexId, KeyGeneration, KeyId, PackId, RoleName, Seq, Term};
use crate::repo::entry::TreePath;

use super::snapshot::SnapshotInfo;

/// What is lost, what was repaired, and what stays lost.
#[derive(Debug, Clone)]
pub struct RepairReport {
    /// Name of the role.
    pub role: RoleName,
    /// Whether this was a dry run, which changes nothing.
    pub dry_run: bool,
    /// What was found, in the order in which a reader needs it.
    pub findings: Vec<RepairFinding>,
    /// The key slots in the store, with the error of each damaged one.
    pub keys: Vec<(KeyId, Option<String>)>,
    /// Every live snapshot, oldest first, with its losses.
    pub snapshots: Vec<SnapshotLoss>,
    /// Whether every pack was read; otherwise only packs whose size differs from the index.
    pub read_data: bool,
    /// The record of the repair; `None`: none was needed, or it is a dry run.
    pub record: Option<(Seq, Term)>,
}

impl RepairReport {
    /// Whether anything was found.
    pub fn found_any(&self) -> bool {
        !self.findings.is_empty() || self.lost_files() > 0
    }

    /// Number of snapshots that are left out because nothing vouches for them.
    pub fn left_out(&self) -> u64 {
        let left_out = |finding: &RepairFinding| match finding {
            RepairFinding::Unvouched { snapshots, .. } => snapshots.len() as u64,
            _ => 0,
        };
        self.findings.iter().map(left_out).sum()
    }

    /// The remembered key slot that was not written again because `--key-slot` was not given: until then the store has
    /// no slot that the given key opens.
    pub fn unwritten_slot(&self) -> Option<KeyId> {
        self.findings.iter().find_map(|finding| match finding {
            RepairFinding::KeySlot { id, put_back: false } => Some(*id),
            _ => None,
        })
    }

    /// Number of entries of live snapshots that stay lost.
    pub fn lost_files(&self) -> u64 {
        self.snapshots.iter().map(|snapshot| snapshot.lost_count).sum()
    }
}

/// One problem, and what the repair does about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepairFinding {
    /// `format` is lost or belongs to another repository; it is written again.
    Format {
        /// What is wrong with the stored one.
        what: String,
        /// The origin of the new one.
        source: FormatSource,
    },
    /// The given key opens no key slot in the store, but this node remembers a slot that it opens.
    KeySlot {
        /// ID of the remembered slot.
        id: KeyId,
        /// Whether it is written again: only on request, since an operator may have removed it on purpose.
        put_back: bool,
    },
    /// A journal record is lost; a record is appended that declares the loss.
    Record {
        /// Number of the lost record.
        seq: Seq,
        /// What is wrong with it.
        what: String,
        /// Whether its content is known, from a later record or from this node's memory.
        known: bool,
    },
    /// The newest records are lost.
    End {
        /// The first lost number.
        from: Seq,
        /// The last lost number.
        to: Seq,
    },
    /// The record of the rotation to this generation of the repository key, and all records after it, are lost: the
    /// journal continues under this generation.
    Rotation(KeyGeneration),
    /// The copy of the newest rotation's record was replaced by another object; the copy is written again.
    RotationCopy {
        /// Key of the copy.
        object: String,
        /// What is wrong with it.
        what: String,
    },
    /// Records of an older generation for which neither a record of the newest generation nor this node vouches: they
    /// are left out.
    Unvouched {
        /// The first number.
        from: Seq,
        /// The last number.
        to: Seq,
        /// The snapshots that only these records contain.
        snapshots: Vec<Digest>,
    },
    /// A snapshot whose record is lost, and which this node remembers: it is added to the journal again.
    Snapshot(Digest),
    /// An index object is lost.
    Index {
        /// ID of the index object.
        id: IndexId,
        /// What is wrong with it.
        what: String,
        /// Whether this node has a copy, which is written again; otherwise its packs are listed again from their own
        /// tables.
        copy: bool,
    },
    /// Packs that snapshots need and no index object lists: they are listed again.
    Listed {
        /// Number of packs.
        packs: u64,
        /// Number of their chunks.
        chunks: u64,
    },
    /// A pack is lost: the index no longer lists it, so that the next backup stores its content again if the source
    /// still has it.
    Pack {
        /// ID of the pack.
        id: PackId,
        /// What is wrong with it.
        what: String,
        /// Number of needed chunks that were moved out of it.
        moved: u64,
    },
}

/// The origin of a rebuilt `format`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatSource {
    /// This node's copy of the original object.
    Memory,
    /// The key and the journal's records.
    Journal,
}

/// Losses of a live snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotLoss {
    /// The snapshot.
    pub info: SnapshotInfo,
    /// The entries that cannot be restored, at most [`LOST_NAMED_MAX`].
    pub lost: Vec<LostEntry>,
    /// Number of all lost entries.
    pub lost_count: u64,
}

/// A part of a snapshot that cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostEntry {
    /// The file, or the first path of a lost part of the manifest.
    pub path: TreePath,
    /// Number of lost entries from this path on, itself included: 1 for a file.
    pub entries: u64,
}

/// The most lost entries that are named for one snapshot.
pub const LOST_NAMED_MAX: usize = 1000;
