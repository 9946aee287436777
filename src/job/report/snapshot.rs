//! What the journal says of a snapshot.

use jiff::Timestamp;

use crate::ids::{Digest, RoleName, Term};
use crate::repo::entry::TreePath;

/// One committed backup according to its journal record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The snapshot's ID: the digest of its record.
    pub id: Digest,
    /// Name of the role.
    pub role: RoleName,
    /// The term of the commit.
    pub term: Term,
    /// The label of the node that made it.
    pub node: String,
    /// Time of the commit by that node's clock.
    pub time: Timestamp,
    /// The slot of the run; `None` for an unscheduled run.
    pub slot: Option<Timestamp>,
    /// Number of regular files.
    pub files: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// Entries that differ from the previous snapshot: new, changed and removed ones.
    pub changed: u64,
    /// Entries that could not be read: the snapshot lacks them, or has them as they were read before. A snapshot with
    /// any is incomplete.
    pub unreadable: u64,
    /// Number of sources and dumps without any file; `None`: unknown.
    pub empty: Option<u64>,
}

/// Sources and dumps of a snapshot that held no file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmptySources {
    /// Those that the config names.
    pub named: Vec<TreePath>,
    /// Number of those that the config does not name.
    pub unnamed: u64,
}

impl EmptySources {
    /// Number of all of them.
    pub fn count(&self) -> u64 {
        self.named.len() as u64 + self.unnamed
    }
}
