//! Reports that the tests of this room render.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};

use super::View;
use crate::ids::{Digest, RoleName, Term};
use crate::job::report::snapshot::SnapshotInfo;
use crate::job::report::{ByteCounts, FileCounts, Outcome, RoleReport};

pub(crate) fn view() -> View {
    View { zone: TimeZone::get("Europe/Berlin").unwrap(), now: at("2026-11-20T01:05:00Z") }
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub(crate) fn app() -> RoleName {
    "app".parse().unwrap()
}

pub(crate) fn digest(first: u8) -> Digest {
    let mut bytes = [0xc0; 32];
    bytes[0] = first;
    bytes[1] = 0x2a;
    bytes[2] = 0x91;
    Digest(bytes)
}

pub(crate) fn backup() -> RoleReport {
    RoleReport {
        role: app(),
        outcome: Outcome::Committed,
        reason: None,
        snapshot: Some(digest(0x3f)),
        previous: Some(at("2026-11-19T01:00:00Z")),
        term: Some(Term(7)),
        slot: Some(at("2026-11-20T01:00:00Z")),
        takeover: false,
        files: FileCounts { new: 12, changed: 3, unchanged: 118_000, removed: 0, unreadable: 0 },
        bytes: ByteCounts { source: 9_000_000_000, read: 4_404_019, new: 3_000_000, uploaded: 1_153_434 },
        requests: 9,
        duration: Duration::from_millis(2_300),
        problems: Vec::new(),
        problem_count: 0,
    }
}

pub(crate) fn snapshot(first: u8, time: &str) -> SnapshotInfo {
    SnapshotInfo {
        id: digest(first),
        role: app(),
        term: Term(7),
        node: "app01".to_owned(),
        time: at(time),
        slot: None,
        files: 118_015,
        bytes: 9_000_000_000,
        changed: 16,
    }
}
