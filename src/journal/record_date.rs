//! The dates of records that a view keeps. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::Seq;
use crate::journal::body::{RecordBody, WriterNode};
use crate::journal::record::Record;
use crate::role::clock_tolerance::is_in_future;

/// Number of dates that a view keeps. Each of them is later than those of all records after it.
pub(super) const DATES_KEPT: usize = 16;

/// The date of a record: when it was written, or its slot if that is later.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordDate {
    /// The number of the record.
    pub seq: Seq,
    /// The node that wrote it.
    pub node: WriterNode,
    /// The date.
    pub latest: Timestamp,
}

/// Adds the date of the next record and drops those that are not later: they say no more than it does.
pub fn add_date(dates: &mut Vec<RecordDate>, record: &Record) {
    let next = RecordDate { seq: record.seq, node: record.node.clone(), latest: record.latest_date() };
    if matches!(record.body, RecordBody::Amend(_)) {
        dates.retain(|before| !is_in_future(before.latest, next.latest));
    }
    while dates.last().is_some_and(|before| before.latest <= next.latest) {
        dates.pop();
    }
    // If there are too many, the earliest one is dropped.
    dates.truncate(DATES_KEPT - 1);
    dates.push(next);
}
