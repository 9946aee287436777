//! What `repair` reports.

use crate::ids::{Digest, IndexId, KeyGeneration, KeyId, PackId, RoleName, Seq, Term};
use crate::repo::entry::TreePath;

use super::snapshot::SnapshotInfo;

/// What is lost, what was mended, and what stays lost.
#[derive(Debug, Clone)]
pub struct RepairReport {
    /// Which role.
    pub role: RoleName,
    /// Nothing was changed.
    pub dry_run: bool,
    /// What was found, in the order in which a reader would meet it.
    pub findings: Vec<RepairFinding>,
    /// The key slots that the store has, and what is wrong with those that are damaged.
    pub keys: Vec<(KeyId, Option<String>)>,
    /// Every live snapshot, oldest first, with what of it cannot be restored.
    pub snapshots: Vec<SnapshotLoss>,
    /// Every pack was read; else those alone whose size is another than the index says.
    pub read_data: bool,
    /// The record that says so; `None`: none was needed, or it is a dry run.
    pub record: Option<(Seq, Term)>,
}

impl RepairReport {
    /// Whether anything was found.
    pub fn found_any(&self) -> bool {
        !self.findings.is_empty() || self.lost_files() > 0
    }

    /// Snapshots that are left out, since nothing vouches for them.
    pub fn left_out(&self) -> u64 {
        let left_out = |finding: &RepairFinding| match finding {
            RepairFinding::Unvouched { snapshots, .. } => snapshots.len() as u64,
            _ => 0,
        };
        self.findings.iter().map(left_out).sum()
    }

    /// The key slot that nobody asked to be written again: nothing in the store opens with the key at hand until it is.
    pub fn unwritten_slot(&self) -> Option<KeyId> {
        self.findings.iter().find_map(|finding| match finding {
            RepairFinding::KeySlot { id, put_back: false } => Some(*id),
            _ => None,
        })
    }

    /// Entries of live snapshots that nothing brings back.
    pub fn lost_files(&self) -> u64 {
        self.snapshots.iter().map(|snapshot| snapshot.lost_count).sum()
    }
}

/// One thing that is not as it should be, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RepairFinding {
    /// `format` is lost or not this repository's; it is written again.
    Format {
        /// What is wrong with it.
        what: String,
        /// What it is made from.
        source: FormatSource,
    },
    /// No key slot in the store opens with the key at hand, and this node remembers the one that did.
    KeySlot {
        /// Which.
        id: KeyId,
        /// Whether it is written again: only if that is asked for, since somebody may have removed it on purpose.
        put_back: bool,
    },
    /// A journal record is lost; a record is appended that says so.
    Record {
        /// Which.
        seq: Seq,
        /// What is wrong with it.
        what: String,
        /// What it said is known: a later record or this node's memory has it.
        known: bool,
    },
    /// The newest records are lost.
    End {
        /// The first.
        from: Seq,
        /// The last.
        to: Seq,
    },
    /// The record of the rotation to this generation of the repository key is lost, and all after it: the journal goes on under it.
    Rotation(KeyGeneration),
    /// Another object stands in the place of the copy of the newest rotation's record; the copy is written again.
    RotationCopy {
        /// Its key.
        object: String,
        /// What is wrong with it.
        what: String,
    },
    /// Records of an older generation that nothing of the newest vouches for, nor this node: they are left out.
    Unvouched {
        /// The first.
        from: Seq,
        /// The last.
        to: Seq,
        /// The snapshots that only they tell of.
        snapshots: Vec<Digest>,
    },
    /// A snapshot whose record is lost, as this node remembers it: it is in the journal again.
    Snapshot(Digest),
    /// An index object is lost.
    Index {
        /// Which.
        id: IndexId,
        /// What is wrong with it.
        what: String,
        /// This node has a copy, which is written again; else what it listed is listed anew from the packs' own tables.
        copy: bool,
    },
    /// Packs that no index object lists and that snapshots need: they are listed again.
    Listed {
        /// How many.
        packs: u64,
        /// How many chunks they have.
        chunks: u64,
    },
    /// A pack is lost: the index no longer lists it, so that the next backup stores its content again where the source has it.
    Pack {
        /// Which.
        id: PackId,
        /// What is wrong with it.
        what: String,
        /// Chunks that snapshots need and that were moved out of it.
        moved: u64,
    },
}

/// What `format` is made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FormatSource {
    /// This node's memory of it: the very same object.
    Memory,
    /// The key and the journal's records.
    Journal,
}

/// A live snapshot.
#[derive(Debug, Clone)]
pub struct SnapshotLoss {
    /// Which.
    pub info: SnapshotInfo,
    /// What of it cannot be restored, at most [`LOST_NAMED_MAX`].
    pub lost: Vec<LostEntry>,
    /// How many entries.
    pub lost_count: u64,
}

/// What cannot be restored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostEntry {
    /// The file, or the first path of several of which the list itself is lost.
    pub path: TreePath,
    /// How many entries follow it in path order, itself included: 1 for a file.
    pub entries: u64,
}

/// The most entries that are named for one snapshot.
pub const LOST_NAMED_MAX: usize = 1000;
