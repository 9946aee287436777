//! What is known of a snapshot without opening it.

use jiff::Timestamp;

use crate::ids::{Digest, RoleName, Term};
use crate::repo::entry::TreePath;

/// One committed backup, as its journal record tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// The digest of its record.
    pub id: Digest,
    /// Which role.
    pub role: RoleName,
    /// Under which term it was committed.
    pub term: Term,
    /// The label of the node that made it.
    pub node: String,
    /// When it was committed, by that node's clock.
    pub time: Timestamp,
    /// The slot it was for; `None` for a run by hand.
    pub slot: Option<Timestamp>,
    /// Regular files in it.
    pub files: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// Entries that differ from the snapshot before: new, changed and removed ones.
    pub changed: u64,
    /// Entries that could not be read when it was made: they are missing in it, or in it as they were read before. Where there are any
    /// it is incomplete.
    pub unreadable: u64,
    /// How many sources and dumps held no file; `None`: it is not known.
    pub empty: Option<u64>,
}

/// Sources and dumps of which a snapshot has nothing: they held no file when it was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmptySources {
    /// Those that the config names.
    pub named: Vec<TreePath>,
    /// How many it does not name.
    pub unnamed: u64,
}

impl EmptySources {
    /// How many.
    pub fn count(&self) -> u64 {
        self.named.len() as u64 + self.unnamed
    }
}
