//! Audits of real repositories: which records are read, and what is reported.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::*;
use crate::config::Schedule;
use crate::ids::{Digest, Seq};
use crate::job::backup::request::BackupOptions;

use crate::job::node::context::NodeContext;
use crate::job::report::audited::{AuditFinding, AuditNote};
use crate::job::report::run_summary::RunStep;

use crate::job::report::PROBLEMS_MAX;
use crate::job::report::snapshot::EmptySources;
use crate::job::report::verified::{DamageKind, DamagedObject};
use crate::job::testing::{JobFixture, failure};
use crate::journal::view::JournalView;
use crate::repo::object_keys;
use crate::store::SizeLimit;

const DAY: SignedDuration = SignedDuration::from_hours(24);

async fn told(rig: &JobFixture, since: SignedDuration, known: Option<JournalView>) -> AuditReport {
    let now = rig.env.clock.now();
    let plan = SlotSchedule::new(&rig.role, &TimeZone::UTC).unwrap();
    audit(rig.store.clone(), &rig.role, plan.as_ref(), (now + since, now), &move |_| known.clone()).await.unwrap()
}

async fn backup(rig: &JobFixture, slot: Option<Timestamp>) {
    if std::fs::read_dir(rig.src()).unwrap().next().is_none() {
        rig.write("file", "content");
    }
    let node_context: NodeContext = rig.node_context();
    rig.backup_as(&node_context, &BackupOptions { slot, ..BackupOptions::default() }).await;
}

fn key(rig: &JobFixture, seq: u64) -> String {
    object_keys::record(&rig.role.name, Seq(seq))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_journal_has_no_findings() {
    let rig = JobFixture::new().await;
    assert_eq!(told(&rig, -DAY, None).await.records, 0);
    for content in ["1", "2", "3"] {
        rig.write(content, content);
        backup(&rig, None).await;
    }
    let audit = told(&rig, -DAY, None).await;
    assert_eq!((audit.records, audit.slots, &audit.findings[..], &audit.notes[..]), (4, None, &[][..], &[][..]));
    assert_eq!((audit.nodes[0].node.as_str(), audit.nodes[0].commits), ("east", 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn missed_doubled_and_late_slots_are_told() {
    let mut rig = JobFixture::new().await;
    rig.role.schedule = Some(Schedule::Every(Duration::from_hours(1)));
    let plan = SlotSchedule::new(&rig.role, &TimeZone::UTC).unwrap().unwrap();
    let now = rig.env.clock.now();
    let due = plan.due(now).unwrap();
    let three_before = due.at - SignedDuration::from_hours(3);
    rig.made_at(three_before - SignedDuration::from_mins(1));
    for _ in 0..2 {
        backup(&rig, Some(three_before)).await;
    }
    let audit = audit(rig.store.clone(), &rig.role, Some(&plan), (now - DAY, now), &|_| None).await.unwrap();
    let slots = audit.slots.unwrap();
    assert_eq!((slots.expected, slots.committed, slots.missed + slots.open), (4, 1, 3));
    // The run that commits the slot comes hours after it.
    let [
        AuditFinding::Duplicate { slot, commits },
        AuditFinding::Late { .. },
        AuditFinding::Missed { first, attempts, .. },
    ] = &audit.findings[..]
    else {
        panic!("{audit:?}")
    };
    assert_eq!((*slot, commits.len(), commits[0].node.as_str()), (three_before, 2, "east"));
    assert_eq!((*first, attempts.len()), (three_before + SignedDuration::from_hours(1), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_wrong_clock_dated_is_told_until_it_is_amended() {
    let rig = JobFixture::new().await;
    rig.write("file", "content");
    rig.memory.set_clock_offset(DAY * 365);
    backup(&rig, None).await;
    rig.memory.set_clock_offset(SignedDuration::ZERO);
    let audit = told(&rig, -DAY, None).await;
    // The takeover and the snapshot.
    let [AuditFinding::Future { count: 2, nodes, .. }] = &audit.findings[..] else { panic!("{audit:?}") };
    assert_eq!(nodes, &["east"]);
    let operator = rig.operator(2, "west");
    operator.amend(&rig.repository, false).await.unwrap();
    let audit = told(&rig, -DAY, None).await;
    assert_eq!(audit.findings, []);
    let [AuditNote::Amended { count: 2, by, .. }] = &audit.notes[..] else { panic!("{audit:?}") };
    assert_eq!(by, "west");
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_and_breaks_are_told_but_not_what_is_too_long_ago() {
    let rig = JobFixture::new().await;
    backup(&rig, None).await;
    let operator = rig.operator(2, "west");
    for n in 0..70 {
        // Takeover and snapshot, then these: the 64th record is a checkpoint.
        if n % 2 == 0 {
            operator.pause(&rig.repository, None, None).await.unwrap();
        } else {
            operator.resume(&rig.repository).await.unwrap();
        }
    }
    let known = rig.archive().await.view;
    assert_eq!(known.head.as_ref().unwrap().seq, Seq(72));
    let (long, short) = (-DAY, SignedDuration::from_hours(2));
    assert_eq!((told(&rig, long, None).await.records, told(&rig, short, None).await.records), (72, 9));

    rig.store.delete(&[key(&rig, 5)]).await.unwrap();
    assert_eq!(told(&rig, long, None).await.findings, [AuditFinding::Hole { record: key(&rig, 5) }]);
    assert_eq!(told(&rig, short, None).await.findings, [], "the checkpoint stands for all before it");
    // The newest record is gone: only a node that has seen it can tell.
    rig.store.delete(&[key(&rig, 72)]).await.unwrap();
    assert_eq!(told(&rig, short, None).await.findings, []);
    assert_eq!(told(&rig, short, Some(known)).await.findings, [AuditFinding::Hole { record: key(&rig, 72) }]);
    // A damaged record, as if it was written with another key.
    let object = rig.store.get(&key(&rig, 70), SizeLimit::INDEX).await.unwrap();
    let mut broken = object.to_vec();
    broken[40] ^= 1;
    rig.store.delete(&[key(&rig, 70)]).await.unwrap();
    rig.store.put(&key(&rig, 70), broken.into()).await.unwrap();
    let findings = told(&rig, short, None).await.findings;
    assert!(matches!(&findings[..], [AuditFinding::Broken { record, .. }] if *record == key(&rig, 70)), "{findings:?}");
    // The reading does not begin at an unreadable checkpoint.
    rig.store.delete(&[key(&rig, 64)]).await.unwrap();
    let audit = told(&rig, short, None).await;
    assert_eq!((audit.records, audit.finding_count), (69, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_before_the_checkpoint_still_explains() {
    let mut rig = JobFixture::new().await;
    rig.role.schedule = Some(Schedule::Every(Duration::from_secs(1)));
    rig.role.missed_after = Duration::from_secs(1);
    let plan = SlotSchedule::new(&rig.role, &TimeZone::UTC).unwrap().unwrap();
    backup(&rig, plan.due(rig.env.clock.now()).map(|slot| slot.at)).await;
    let operator = rig.operator(2, "west");
    for _ in 0..65 {
        operator.pause(&rig.repository, None, Some("disk swap".to_owned())).await.unwrap();
    }
    let last = rig.archive().await.view.state.paused.unwrap().time;
    let later = last + SignedDuration::from_hours(3);
    let period = (later - SignedDuration::from_secs(100), later);
    let audit = audit(rig.store.clone(), &rig.role, Some(&plan), period, &|_| None).await.unwrap();
    assert!(audit.records < 10 && audit.findings.is_empty(), "{audit:?}");
    let [AuditNote::Paused { count, by, why, .. }] = &audit.notes[..] else { panic!("{audit:?}") };
    assert!((98..=100).contains(count), "{count}");
    assert_eq!((by.as_str(), why.as_deref()), ("west", Some("disk swap")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_that_the_journal_does_not_have_is_a_finding_until_something_is_committed() {
    let rig = JobFixture::new().await;
    backup(&rig, None).await;
    let state_dir = rig.state_dir();
    let looker = looker(&rig, &state_dir);
    let failed = async || {
        let now = rig.env.clock.now();
        let asked = audit_here(rig.store.clone(), &rig.role, None, (now - DAY, now), &|_| None, Some(looker));
        asked.await.unwrap().findings.into_iter().find_map(|finding| match finding {
            AuditFinding::Failed(run) => Some(run.error),
            _ => None,
        })
    };
    assert_eq!(failed().await, None);
    let failure = RunFailure { time: rig.env.clock.now(), after: Some(2), ..failure("no room") };
    RunFailureFile::of_node(&rig.node_context(), &rig.role.name).add(failure);
    assert_eq!(failed().await, Some("no room".to_owned()));
    assert!(told(&rig, -DAY, None).await.findings.is_empty(), "the journal alone does not tell");
    backup(&rig, None).await;
    assert_eq!(failed().await, None);
}

fn looker<'a>(rig: &'a JobFixture, state_dir: &'a Path) -> AuditingNode<'a> {
    AuditingNode {
        env: &rig.env,
        state_dir: Some(state_dir),
        node: Some(rig.node),
        label: "east",
        reported_failure: None,
        unwritable: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keeps_a_holder_from_writing_down_its_failure_is_a_finding() {
    let rig = JobFixture::new().await;
    backup(&rig, None).await;
    let (state_dir, now) = (rig.state_dir(), rig.env.clock.now());
    let failure = RunFailure { time: now, failures: 1, after: Some(2), ..failure("no room") };
    let found = async |looker: AuditingNode<'_>| {
        let audit = audit_here(rig.store.clone(), &rig.role, None, (now - DAY, now), &|_| None, Some(looker)).await;
        let words = audit.unwrap().findings.into_iter().map(|finding| match finding {
            AuditFinding::Failed(run) => run.error,
            AuditFinding::StateUnwritable { why } => why,
            other => panic!("{other:?}"),
        });
        words.collect::<Vec<_>>()
    };
    let here = AuditingNode { reported_failure: Some(&failure), unwritable: Some("full"), ..looker(&rig, &state_dir) };
    assert_eq!(found(here).await, ["full", "no room"]);
    let unnamed = AuditingNode { node: None, reported_failure: None, label: "another", ..here };
    assert_eq!(found(unnamed).await, [""; 0], "it does not have the role");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_failed_is_a_finding_before_its_slot_is_missed_and_until_it_is_committed() {
    let mut rig = JobFixture::new().await;
    rig.role.schedule = Some(Schedule::Every(Duration::from_hours(24 * 36_500)));
    let failed = async || {
        let findings = told(&rig, -DAY, None).await.findings;
        findings
            .iter()
            .map(|finding| match finding {
                AuditFinding::Failed(run) => (run.step, run.error.clone()),
                other => panic!("{other:?}"),
            })
            .collect::<Vec<_>>()
    };
    crate::job::exec::tests::call(&rig, "exit 3", true).await;
    assert_eq!(failed().await, [(RunStep::Command, "ended with exit code 3".to_owned())]);
    crate::job::exec::tests::call(&rig, "exit 4", false).await;
    assert_eq!(failed().await.len(), 1, "a command by hand changes nothing");
    crate::job::exec::tests::call(&rig, "kill -9 $$", true).await;
    assert_eq!(failed().await, [(RunStep::Command, "was ended by signal 9".to_owned())]);
    crate::job::exec::tests::call(&rig, "exit 0", true).await;
    assert_eq!(failed().await, []);
}

#[test]
fn there_are_no_more_findings_than_are_told_and_empty_sources_are_the_first() {
    let period = AuditPeriod { since: Timestamp::UNIX_EPOCH, now: Timestamp::UNIX_EPOCH + DAY };
    let empty = AuditFinding::EmptySources {
        first: period.since,
        last: period.since,
        snapshot: Digest([1; 32]),
        runs: 1,
        empty: EmptySources { named: Vec::new(), unnamed: 1 },
    };
    let damage = |n: usize| DamagedObject {
        kind: DamageKind::Record,
        object: format!("app/journal/{n}"),
        what: "is missing".to_owned(),
        affected: Vec::new(),
        affected_count: 0,
    };
    let damages = (0..PROBLEMS_MAX).map(damage).collect();
    let account = JournalAudit::new(None, period, None, period.since);
    let audit = account.finish("app".parse().unwrap(), Some(empty.clone()), (damages, PROBLEMS_MAX as u64 + 7));
    assert_eq!((audit.findings.len(), audit.finding_count), (PROBLEMS_MAX, PROBLEMS_MAX as u64 + 8));
    assert_eq!(audit.findings[0], empty);
}
