//! What is known of a snapshot without opening it, and the journal's records one by one.

use jiff::Timestamp;

use super::{ByteCounts, FileCounts};
use crate::ids::{Digest, RoleName, Seq, Term};

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
    /// Counts.
    pub files: FileCounts,
    /// Counts.
    pub bytes: ByteCounts,
}

/// One journal record in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalLine {
    /// Its place.
    pub seq: Seq,
    /// Its digest, which is the snapshot's ID where it is one.
    pub digest: Digest,
    /// What kind of record it is: `takeover`, `snapshot` …
    pub kind: String,
    /// The term it was written under.
    pub term: Term,
    /// The label of the node that wrote it.
    pub node: String,
    /// When, by that node's clock.
    pub time: Timestamp,
    /// The slot it is about.
    pub slot: Option<Timestamp>,
    /// The record's own words on what happened, as the journal stores them (`moved`, `restart` …); may be empty.
    pub detail: String,
}
