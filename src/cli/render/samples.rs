//! Sample reports for the tests of the renderers.

use std::time::Duration;

use jiff::civil::{DateTime, date};
use jiff::{SignedDuration, Timestamp, tz::TimeZone};

use super::RenderContext;
use super::layout::PageLayout;
use crate::cli::render::foreign::{ForeignAuditResult, UnreadParts};
use crate::foreign::format::UnreadLine;
use crate::foreign::report::{
    ByteRange, FindingConfidence, ForeignAudit, ForeignFinding, ForeignNote, ForeignRepository, ForeignSeries,
    SeriesRhythm, SlotMark, StereoEvidence,
};
use crate::ids::{Digest, InstanceId, NodeId, RoleName, Seq, Term};
use crate::job::report::audited::{
    AttemptEnd, AuditFinding, AuditNote, AuditReport, AuditedSlot, CommitInfo, IncompleteStreak, NodeShare,
    SlotAttempt, SlotCounts, SnapshotStreak,
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

/// An audit of a listing with a finding of each kind.
pub(crate) fn foreign_audit() -> ForeignAuditResult {
    use crate::foreign::report::ForeignFindingKind as Kind;
    let day = |text: &str| Some(text.parse().unwrap());
    let slot = |text: &str| -> DateTime { text.parse().unwrap() };
    let finding = |kind, confidence, series: &str, example: &str| ForeignFinding {
        kind,
        confidence,
        series: series.to_owned(),
        hosts: Vec::new(),
        evidence: None,
        since: None,
        until: None,
        slots: 1,
        missed: Vec::new(),
        surplus: None,
        surplus_month: None,
        surplus_guess: None,
        sizes: None,
        example: example.to_owned(),
    };
    let range = |min, max| Some(ByteRange { min, max });
    let app = "app/{host}/{host}-{date}.tar.gz";
    let (sure, likely) = (FindingConfidence::Sure, FindingConfidence::Likely);
    let findings = vec![
        ForeignFinding {
            since: day("2026-11-20"),
            slots: 9,
            ..finding(Kind::Stopped, sure, "prod/mail/mail-{date}.tgz", "prod/mail/mail-261119.tgz")
        },
        ForeignFinding {
            missed: ["2026-10-09", "2026-10-10", "2026-11-15"].map(|day| slot(&format!("{day}T00:00:00"))).into(),
            slots: 3,
            ..finding(Kind::Missed, likely, "mysql/shop-{date}.sql.gz", "mysql/shop-2026-10-12.sql.gz")
        },
        ForeignFinding {
            hosts: vec!["app01".to_owned(), "app02".to_owned()],
            evidence: Some(StereoEvidence::TwinSeries),
            since: day("2026-10-20"),
            slots: 40,
            surplus: range(38_000_000_000, 38_200_000_000),
            surplus_month: range(28_500_000_000, 28_600_000_000),
            surplus_guess: Some(38_104_963_913),
            ..finding(Kind::Stereo, sure, app, "app/app02/app02-2026-11-28T010003.tar.gz")
        },
        ForeignFinding {
            evidence: Some(StereoEvidence::TwoVersions),
            since: day("2026-11-01"),
            until: day("2026-11-28"),
            slots: 28,
            surplus: range(1_653_000_000, 1_653_000_001),
            ..finding(Kind::Stereo, likely, "rke/{date}_etcd.zip", "rke/2026-11-28_etcd.zip")
        },
        ForeignFinding {
            since: day("2026-11-01"),
            slots: 2,
            ..finding(Kind::Overwritten, sure, "conf/latest.tar", "conf/latest.tar")
        },
        ForeignFinding {
            since: day("2026-11-06"),
            slots: 23,
            sizes: Some((424_390_033, 9_485_390)),
            ..finding(Kind::Frozen, sure, "srv-data/backup-{date}.tar.gz", "srv-data/backup-2026-11-28T01-00-00.tar.gz")
        },
        ForeignFinding {
            since: day("2026-11-28"),
            until: day("2026-11-28"),
            sizes: Some((5_000_000, 20)),
            ..finding(Kind::Empty, sure, "pg/{date}.sql.gz", "pg/2026-11-28.sql.gz")
        },
        ForeignFinding {
            since: day("2026-11-27"),
            slots: 2,
            sizes: Some((5_000_000, 1_000_000)),
            ..finding(Kind::Shrunk, likely, "crm/{date}.tar", "crm/2026-11-28.tar")
        },
        ForeignFinding {
            since: day("2026-11-03"),
            slots: 5,
            ..finding(
                Kind::TwoChains,
                FindingConfidence::Ask,
                "dup/duplicity-inc.{time}.to.{time}.vol1.difftar.gz",
                "dup/duplicity-inc.20261103T010000Z.to.20261104T010000Z.vol1.difftar.gz",
            )
        },
    ];
    let nights = (1..=28).map(|day| {
        let mark = match day {
            9 | 10 => SlotMark::Missed,
            20.. => SlotMark::Several,
            _ => SlotMark::One,
        };
        (date(2026, 11, day).at(1, 0, 3, 0), mark)
    });
    let series = ForeignSeries {
        name: app.to_owned(),
        hosts: vec!["app01".to_owned(), "app02".to_owned()],
        backups: 99,
        bytes: 90_000_000_000,
        span: (slot("2026-10-01T01:00:03"), slot("2026-11-28T01:00:03")),
        rhythm: SeriesRhythm::Days(1),
        slots: nights.collect(),
    };
    let notes = vec![
        ForeignNote::Moved {
            series: "files/{host}/{date}/data.tar.gz".to_owned(),
            from: "node-a".to_owned(),
            to: "node-b".to_owned(),
            on: date(2026, 11, 3),
        },
        ForeignNote::OverwrittenUnseen,
        ForeignNote::Unjudged { objects: 3, bytes: 12_000 },
    ];
    let repository = ForeignRepository {
        program: "restic",
        prefix: "restic/web/".to_owned(),
        objects: 1234,
        bytes: 9_000_000_000,
        snapshots: Some(30),
        newest: Some(slot("2026-11-28T02:00:10")),
    };
    let audit = ForeignAudit {
        objects: 1433,
        bytes: 99_000_000_000,
        span: Some((slot("2026-10-01T01:04:16"), slot("2026-11-28T01:05:13"))),
        series: vec![series],
        repositories: vec![repository],
        findings,
        unlisted: 7,
        notes,
    };
    let unread = UnreadParts {
        lines: 2,
        first_line: Some(UnreadLine { number: 17, text: "An error occurred (Expired)".to_owned() }),
        folders: 1,
        path_count: 1,
        paths: vec!["/srv/backup/root: Permission denied".to_owned()],
    };
    ForeignAuditResult { source: "s3://backups/prod".to_owned(), audit, unread }
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
        calendar: [
            ("2026-11-17T01:00:00Z", AuditedSlot::Committed),
            ("2026-11-18T01:00:00Z", AuditedSlot::Missed),
            ("2026-11-19T01:00:00Z", AuditedSlot::Duplicated),
        ]
        .map(|(slot, mark)| (at(slot), mark))
        .into(),
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
