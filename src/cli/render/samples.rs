//! Sample reports for the tests of the renderers.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::RenderContext;
use super::layout::PageLayout;
use crate::ids::{Digest, InstanceId, NodeId, RoleName, Seq, Term};
use crate::job::report::audited::{
    AttemptEnd, AuditFinding, AuditNote, AuditReport, CommitInfo, IncompleteStreak, NodeShare, SlotAttempt, SlotCounts,
    SnapshotStreak,
};
use crate::job::report::snapshot::SnapshotInfo;
use crate::job::report::whoami::{
    MissedCause, NodeInfo, PeerInfo, PeerPresence, ProbeReport, ProbeVerdict, RecentSlots, RoleInfo, RoleState,
    RoleWarning, StateReason, StoreState, StoreStatus, TermInfo, WhoamiReport,
};
use crate::job::report::{ByteCounts, FileCounts, RoleReport, RunOutcome};
use crate::journal::body::WriterNode;
use crate::journal::future_dates::{FutureDates, WrongClock};
use crate::repo::format::JournalLocation;

pub(crate) fn view() -> RenderContext {
    RenderContext {
        zone: TimeZone::get("Europe/Berlin").unwrap(),
        now: at("2026-11-20T01:05:00Z"),
        page: PageLayout::FILE,
    }
}

/// A view for a terminal of `columns` columns.
pub(crate) fn view_of(columns: usize) -> RenderContext {
    RenderContext { page: PageLayout::terminal(columns), ..view() }
}

/// Checks that the output of `render` for 80 and for 40 columns fits, except for a single word that is longer.
pub(crate) fn assert_fits(render: impl Fn(&RenderContext) -> String) {
    for columns in [80, 40] {
        let text = render(&view_of(columns));
        for line in text.lines().filter(|line| line.chars().count() > columns) {
            let longest = line.split_whitespace().map(str::len).max().unwrap_or_default();
            assert!(longest + 14 > columns, "{columns} columns: {line}\n{text}");
        }
    }
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Missed slots, the last of them at `last`.
pub(crate) fn missed(last: &str, count: usize) -> RoleWarning {
    let last = at(last);
    RoleWarning::SlotsMissed { first: last, last, count, cause: MissedCause::NotEligible }
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
        outcome: RunOutcome::Committed,
        reason: None,
        snapshot: Some(digest(0x3f)),
        previous: Some(at("2026-11-19T01:00:00Z")),
        term: Some(Term(7)),
        slot: Some(at("2026-11-20T01:00:00Z")),
        takeover: false,
        files: FileCounts { new: 12, changed: 3, unchanged: 118_000, removed: 0, unreadable: 0, kept: 0 },
        bytes: ByteCounts { source: 9_000_000_000, read: 4_404_019, new: 3_000_000, uploaded: 1_153_434 },
        requests: 9,
        duration: Duration::from_millis(2_300),
        problems: Vec::new(),
        problem_count: 0,
        empty_sources: Vec::new(),
        loss: None,
        clock_doubt: None,
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
        unreadable: 0,
        empty: None,
    }
}

pub(crate) fn active() -> RoleInfo {
    RoleInfo {
        role: app(),
        state: RoleState::Active,
        reason: StateReason::ProbesYes,
        evidence: vec![
            ProbeReport {
                probe: "vip 10.0.0.50".to_owned(),
                answer: ProbeVerdict::Yes,
                detail: "on eth0".to_owned(),
                latency: Duration::from_millis(1),
                age: Duration::from_millis(900),
                fallback: false,
            },
            ProbeReport {
                probe: "command /usr/local/bin/is-primary --role app --strict".to_owned(),
                answer: ProbeVerdict::Unknown,
                detail: "exit 3: could not connect to 127.0.0.1:5432".to_owned(),
                latency: Duration::from_millis(2_300),
                age: Duration::from_secs(12),
                fallback: false,
            },
        ],
        term: TermInfo { mine: Some(Term(7)), current: Some(Term(7)), holder: Some("app01".to_owned()) },
        last_backup: Some(snapshot(0x3f, "2026-11-20T01:00:00Z")),
        last_run: None,
        next_slot: Some(at("2026-11-21T01:00:00Z")),
        slots: Some(RecentSlots {
            since: at("2026-11-11T01:00:00Z"),
            counts: SlotCounts { expected: 10, committed: 10, ..SlotCounts::default() },
        }),
        store: StoreState {
            url: "s3://backups/prod".to_owned(),
            status: StoreStatus::Ok,
            journal: Some(JournalLocation::Bucket),
            clock_offset_seconds: Some(0),
        },
        etcd: None,
        has_daemon: true,
        peers: vec![PeerPresence {
            node: PeerInfo {
                id: NodeId([0x22; 16]),
                name: "app02".to_owned(),
                version: "0.1.0".to_owned(),
                config_hash: "4be01c22a90d77f3".to_owned(),
            },
            seen: at("2026-11-20T00:40:00Z"),
            lease: None,
            failure: None,
        }],
        warnings: Vec::new(),
    }
}

pub(crate) fn blind() -> RoleInfo {
    RoleInfo {
        role: "orders-db".parse().unwrap(),
        state: RoleState::Unknown,
        reason: StateReason::ProbesUnknown,
        term: TermInfo::default(),
        last_backup: None,
        next_slot: None,
        slots: None,
        store: StoreState {
            url: "s3://backups/prod".to_owned(),
            status: StoreStatus::Failed("cannot be reached: orders-db/format (connection refused)".to_owned()),
            journal: None,
            clock_offset_seconds: None,
        },
        etcd: None,
        peers: Vec::new(),
        warnings: vec![
            RoleWarning::StoreUnreadable { why: "connection refused".to_owned() },
            RoleWarning::ClockOff(-400),
        ],
        ..active()
    }
}

/// A node whose clone wrote the newest record, under the same name and term.
pub(crate) fn cloned() -> RoleInfo {
    RoleInfo { state: RoleState::Conflict, reason: StateReason::Cloned, evidence: Vec::new(), ..active() }
}

pub(crate) fn all(roles: Vec<RoleInfo>) -> WhoamiReport {
    let node = NodeInfo {
        id: Some(NodeId([0x9c; 16])),
        hostname: "app01".to_owned(),
        instance: InstanceId([0x1d; 8]),
        version: "0.1.0".to_owned(),
        config_hash: "4be01c22a90d77f3".to_owned(),
    };
    WhoamiReport { node, roles }
}

fn committed(seq: u64, node: &str, time: &str) -> CommitInfo {
    CommitInfo {
        seq: Seq(seq),
        node: node.to_owned(),
        term: Term(7),
        began: at(time) - SignedDuration::from_mins(2),
        time: at(time),
    }
}

/// Records from a clock that was two years ahead.
pub(crate) fn future() -> FutureDates {
    let node = WriterNode { id: NodeId([1; 16]), name: "app02".to_owned() };
    FutureDates { count: 2, latest: at("2028-11-19T01:00:00Z"), node: Some(node), clock: WrongClock::Writer }
}

pub(crate) fn audit() -> AuditReport {
    let attempt = |minute: &str, end| SlotAttempt {
        node: "app01".to_owned(),
        term: Term(7),
        began: at(&format!("2026-11-12T01:{minute}:02Z")),
        end,
    };
    let streak = SnapshotStreak {
        first: at("2026-11-14T01:00:00Z"),
        last: at("2026-11-19T01:00:00Z"),
        snapshot: digest(0x3f),
        runs: 6,
        changes: 9,
        new_bytes: 0,
        same_tree: true,
    };
    let incomplete = IncompleteStreak {
        first: at("2026-11-18T01:00:00Z"),
        last: at("2026-11-19T01:00:00Z"),
        snapshot: digest(0x3f),
        runs: 1,
        unreadable: 1,
    };
    let slot = at("2026-11-11T01:00:00Z");
    let missed = |first: &str, last: &str, count, attempts| AuditFinding::Missed {
        first: at(first),
        last: at(last),
        count,
        attempts,
    };
    AuditReport {
        role: app(),
        since: at("2026-10-21T01:05:00Z"),
        records: 128,
        slots: Some(SlotCounts { expected: 30, committed: 23, missed: 4, late: 1, paused: 2, open: 1, unplanned: 3 }),
        nodes: vec![
            NodeShare { node: "app01".to_owned(), commits: 20, attempts: 2 },
            NodeShare { node: "app02".to_owned(), commits: 1, attempts: 0 },
        ],
        findings: vec![
            AuditFinding::Hole { record: "app/journal/0000000000000007".to_owned() },
            AuditFinding::Future {
                count: 2,
                latest: at("2028-11-19T01:00:00Z"),
                nodes: vec!["app02".to_owned()],
                reader: false,
            },
            AuditFinding::Backdated {
                count: 3,
                by: SignedDuration::from_hours(17_520),
                nodes: vec!["app02".to_owned()],
            },
            AuditFinding::Broken {
                record: "app/journal/0000000000000012".to_owned(),
                what: "does not continue the record before it".to_owned(),
            },
            AuditFinding::Duplicate {
                slot,
                commits: vec![
                    committed(70, "app01", "2026-11-11T01:04:00Z"),
                    committed(72, "app02", "2026-11-11T01:05:00Z"),
                ],
            },
            missed("2026-11-01T01:00:00Z", "2026-11-03T01:00:00Z", 3, Vec::new()),
            missed(
                "2026-11-12T01:00:00Z",
                "2026-11-12T01:00:00Z",
                1,
                vec![
                    attempt("00", Some(AttemptEnd { exit: 2, stopped: false })),
                    attempt("10", Some(AttemptEnd { exit: 143, stopped: true })),
                    attempt("20", None),
                ],
            ),
            AuditFinding::Late {
                slot: at("2026-11-13T01:00:00Z"),
                commit: committed(80, "app01", "2026-11-13T02:04:00Z"),
            },
            AuditFinding::SameChanges(streak.clone()),
            AuditFinding::EverythingChanged(SnapshotStreak { runs: 1, ..streak.clone() }),
            AuditFinding::Incomplete(IncompleteStreak { runs: 2, unreadable: 5_200, ..incomplete.clone() }),
            AuditFinding::Flapping {
                first: at("2026-11-14T01:00:00Z"),
                last: at("2026-11-14T09:00:00Z"),
                count: 12,
                nodes: vec!["app01".to_owned(), "app02".to_owned()],
            },
            AuditFinding::ScheduleMissing { last: at("2026-11-17T01:00:04Z") },
            AuditFinding::PausedTooLong {
                since: at("2026-11-18T12:00:00Z"),
                by: "app02".to_owned(),
                why: Some("disk swap".to_owned()),
            },
        ],
        finding_count: 10,
        notes: vec![
            AuditNote::Paused {
                first: at("2026-11-05T01:00:00Z"),
                last: at("2026-11-06T01:00:00Z"),
                count: 2,
                by: "app01".to_owned(),
                why: Some("disk swap".to_owned()),
            },
            AuditNote::Incomplete(incomplete),
            AuditNote::SameFiles(SnapshotStreak { same_tree: false, changes: 1, new_bytes: 31 << 20, ..streak }),
        ],
    }
}
