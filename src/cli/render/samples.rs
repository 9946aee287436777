//! Reports that the tests of this room render.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};

use super::View;
use crate::ids::{Digest, InstanceId, NodeId, RoleName, Term};
use crate::job::report::snapshot::SnapshotInfo;
use crate::job::report::whoami::{
    Answer, Evidence, NodeInfo, Reason, RoleStatus, State, StoreState, StoreStatus, TermInfo, Warning, WhoamiReport,
};
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

pub(crate) fn active() -> RoleStatus {
    RoleStatus {
        role: app(),
        state: State::Active,
        reason: Reason::ProbesYes,
        evidence: vec![
            Evidence {
                probe: "vip 10.0.0.50".to_owned(),
                answer: Answer::Yes,
                detail: "on eth0".to_owned(),
                latency: Duration::from_millis(1),
                age: Duration::from_millis(900),
            },
            Evidence {
                probe: "command /usr/local/bin/is-primary --role app --strict".to_owned(),
                answer: Answer::Unknown,
                detail: "exit 3: could not connect to 127.0.0.1:5432".to_owned(),
                latency: Duration::from_millis(2_300),
                age: Duration::from_secs(12),
            },
        ],
        term: TermInfo { mine: Some(Term(7)), current: Some(Term(7)), holder: Some("app01".to_owned()) },
        last_backup: Some(snapshot(0x3f, "2026-11-20T01:00:00Z")),
        next_slot: Some(at("2026-11-21T01:00:00Z")),
        store: StoreState {
            url: "s3://backups/prod".to_owned(),
            status: StoreStatus::Ok,
            clock_offset_seconds: Some(0),
        },
        etcd: None,
        warnings: Vec::new(),
    }
}

pub(crate) fn blind() -> RoleStatus {
    RoleStatus {
        role: "orders-db".parse().unwrap(),
        state: State::Unknown,
        reason: Reason::ProbesUnknown,
        term: TermInfo::default(),
        last_backup: None,
        next_slot: None,
        store: StoreState {
            url: "s3://backups/prod".to_owned(),
            status: StoreStatus::Failed("cannot be reached: orders-db/format (connection refused)".to_owned()),
            clock_offset_seconds: None,
        },
        etcd: None,
        warnings: vec![Warning::StoreUnreadable, Warning::ClockOff(-400)],
        ..active()
    }
}

pub(crate) fn all(roles: Vec<RoleStatus>) -> WhoamiReport {
    let node = NodeInfo {
        id: Some(NodeId([0x9c; 16])),
        hostname: "app01".to_owned(),
        instance: InstanceId([0x1d; 8]),
        version: "0.1.0".to_owned(),
        config_hash: "4be01c22a90d77f3".to_owned(),
    };
    WhoamiReport { node, roles }
}
