//! What is known of a snapshot without opening it.

use jiff::Timestamp;

use crate::ids::{Digest, RoleName, Term};

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
}
