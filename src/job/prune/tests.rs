//! Prunes over a store in memory: kept snapshots can be restored, the rest is gone, and nothing else changes.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::*;
use crate::config::StoreUrl;
use crate::ids::{ChunkId, IndexId};
use crate::job::backup::request::BackupOptions;
use crate::job::report::RunOutcome;
use crate::job::testing::{JobFixture, noise};
use crate::job::verify::verify;
use crate::journal::body::{BeginBody, EndBody};
use crate::repo::object_keys;
use crate::store::{SizeLimit, list_all};

const MIB: usize = 1 << 20;

/// Prunes as the fixture's node, without asking the probes.
async fn prune_now(
    rig: &JobFixture,
    keep: RetentionPolicy,
    max_unused: u8,
    grace: Duration,
) -> Result<PruneReport, PruneError> {
    let role = RoleSettings { keep: Some(keep), max_unused, prune_grace: grace, ..rig.role.clone() };
    let node_context = rig.node_context();
    let opening = RoleJournal::open(&node_context, &rig.repository).await?;
    let candidacy = rig.candidacy();
    prune_admitted(&node_context, &role, &TimeZone::UTC, opening, &candidacy, std::future::pending()).await
}

/// A fixture with this number of snapshots of one file whose content changes entirely each time.
async fn rewritten(times: u64) -> JobFixture {
    let rig = JobFixture::new().await;
    for n in 0..times {
        rig.write("file", noise(n, MIB));
        rig.backup().await;
    }
    rig
}

fn last(last: u32) -> RetentionPolicy {
    RetentionPolicy { last, ..RetentionPolicy::default() }
}

async fn objects(rig: &JobFixture, kind: &str) -> Vec<String> {
    let prefix = format!("{}/{kind}/", rig.role.name);
    list_all(rig.store.as_ref(), &prefix).await.unwrap().into_iter().map(|object| object.key).collect()
}

/// Every snapshot is complete, content included, and the store has no object that is neither referenced nor condemned.
async fn assert_sound(rig: &JobFixture) {
    let report = verify(rig.store.clone(), &rig.role.name, &rig.role.key, 100, &|_| None, &Arc::default(), &rig.env)
        .await
        .unwrap();
    assert_eq!(report.damage_count, 0, "{:?}", report.damages);
}

async fn roots(rig: &JobFixture) -> Vec<ChunkId> {
    rig.archive().await.snapshots().iter().map(|snapshot| snapshot.root).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_forgotten_is_condemned_and_after_the_grace_deleted() {
    let rig = JobFixture::new().await;
    for n in 0..4 {
        rig.write("big", noise(n, 3 * MIB));
        rig.write("small", format!("{n}"));
        rig.backup().await;
    }
    let (before, packs, indexes) = (roots(&rig).await, objects(&rig, "packs").await, objects(&rig, "index").await);
    let day = Duration::from_hours(24);
    let report = prune_now(&rig, last(2), 100, day).await.unwrap();
    assert_eq!(report.snapshots.iter().map(|v| v.kept).collect::<Vec<_>>(), [false, false, true, true]);
    assert!(report.packs_condemned >= 2 && report.bytes_freed >= 6 * MIB as u64, "{report:?}");
    assert_eq!((report.swept.packs, report.swept.waiting), (0, report.packs_condemned));
    assert_eq!(objects(&rig, "packs").await, packs, "those who read have their time");
    assert_eq!(roots(&rig).await, before[2..]);
    assert_sound(&rig).await;

    let again = prune_now(&rig, last(2), 100, day).await.unwrap();
    assert_eq!((again.packs_condemned, again.swept.packs), (0, 0), "it is condemned once");
    let swept = prune_now(&rig, last(2), 100, Duration::ZERO).await.unwrap().swept;
    assert_eq!((swept.packs, swept.waiting), (report.packs_condemned, 0));
    assert_eq!(swept.indexes, indexes.len() as u64, "those that were there before, and no others");
    assert_eq!(objects(&rig, "packs").await.len() as u64, packs.len() as u64 - report.packs_condemned);
    assert_eq!(objects(&rig, "index").await.len(), 1, "one index object for all");
    assert_sound(&rig).await;
    let head = rig.archive().await.view.head;
    prune_now(&rig, last(2), 100, Duration::ZERO).await.unwrap();
    assert_eq!(rig.archive().await.view.head, head, "nothing to do is no record");
    // The next run continues from what is left.
    assert_eq!(rig.backup().await.bytes.new, 0);
    rig.write("big", noise(0, 3 * MIB));
    assert!(rig.backup().await.bytes.new >= 3 * MIB as u64, "what was forgotten is stored anew");
    assert_sound(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grace_counts_from_when_the_record_is_where_readers_look() {
    let rig = rewritten(2).await;
    let day = Duration::from_hours(24);
    let condemned = prune_now(&rig, last(1), 100, day).await.unwrap().packs_condemned;
    assert!(condemned > 0);
    let record = object_keys::record(&rig.role.name, rig.archive().await.view.head.unwrap().seq);
    // The record was decided in etcd, and came into the store a day later.
    rig.memory.set_clock_offset(SignedDuration::from_hours(25));
    let object = rig.store.get(&record, SizeLimit::INDEX).await.unwrap();
    rig.store.put(&record, object).await.unwrap();
    let early = prune_now(&rig, last(1), 100, day).await.unwrap().swept;
    assert_eq!((early.packs, early.waiting), (0, condemned));
    rig.memory.set_clock_offset(SignedDuration::from_hours(50));
    let swept = prune_now(&rig, last(1), 100, day).await.unwrap().swept;
    assert_eq!((swept.packs, swept.waiting), (condemned, 0));
    assert_sound(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wasteful_pack_is_written_anew_and_what_stays_is_the_same() {
    let rig = JobFixture::new().await;
    rig.write("stays", noise(1, 2 * MIB));
    rig.write("goes", noise(2, 5 * MIB));
    rig.backup().await;
    std::fs::remove_file(rig.src().join("goes")).unwrap();
    rig.backup().await;
    let root = roots(&rig).await[1];
    let all = prune_now(&rig, last(2), 100, Duration::ZERO).await.unwrap();
    assert_eq!(all.bytes_unused, 0, "headers and trailers are no waste");
    let lax = prune_now(&rig, last(1), 100, Duration::ZERO).await.unwrap();
    assert!(lax.packs_repacked == 0 && lax.bytes_unused >= 5 * MIB as u64, "{lax:?}");
    assert!(lax.bytes_unused < (5 * MIB + MIB / 2) as u64, "{lax:?}");
    let strict = prune_now(&rig, last(1), 5, Duration::ZERO).await.unwrap();
    assert!(strict.packs_repacked > 0 && strict.bytes_freed >= 5 * MIB as u64, "{strict:?}");
    assert_eq!(strict.bytes_unused, 0);
    assert_eq!(roots(&rig).await, [root]);
    let stored: u64 = list_all(rig.store.as_ref(), "app/packs/").await.unwrap().iter().map(|object| object.size).sum();
    assert!(stored < 3 * MIB as u64, "{stored}");
    assert_sound(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_snapshot_that_stays_keeps_everything() {
    let rig = rewritten(3).await;
    let newest = rig.archive().await.snapshots()[2].root;
    let index = rig.archive().await.reader().await.unwrap();
    let pack = index.index().find(&newest).unwrap().0.pack;
    rig.memory.tamper(&object_keys::pack(&rig.role.name, pack), None);
    let head = rig.archive().await.view.head;
    let error = prune_now(&rig, last(1), 10, Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, PruneError::Damaged { .. }), "{error}");
    assert_eq!(rig.archive().await.view.head, head);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_stays_and_a_role_without_keep_is_not_pruned() {
    let rig = JobFixture::new().await;
    rig.write("file", "content");
    rig.backup().await;
    let node_context = rig.node_context();
    let mut session =
        RoleJournal::open(&node_context, &rig.repository).await.unwrap().take_over(&rig.candidacy()).await.unwrap();
    let error = prune(&mut session, &rig.role, &TimeZone::UTC).await.unwrap_err();
    assert!(matches!(error, PruneError::KeepsAll(_)), "{error}");
    let none = retain(
        &RetentionPolicy { within: Some(Duration::ZERO), ..RetentionPolicy::default() },
        rig.archive().await.snapshots(),
        rig.env.clock.now(),
        &TimeZone::UTC,
    );
    assert!(none[0].kept && none[0].reasons.is_empty(), "the next run goes on from it");
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_are_seconds_apart_do_not_change_which_snapshot_is_the_newest() {
    let rig = rewritten(3).await;
    let mut snapshots = rig.archive().await.snapshots().to_vec();
    let now = rig.env.clock.now();
    snapshots[1].time = now + SignedDuration::from_secs(299);
    snapshots[2].time = now;
    let kept = |snapshots: &[Snapshot]| -> Vec<bool> {
        retain(&last(1), snapshots, now, &TimeZone::UTC).iter().map(|verdict| verdict.kept).collect()
    };
    assert_eq!(kept(&snapshots), [false, false, true]);
}

#[tokio::test(flavor = "multi_thread")]
async fn strays_of_a_week_are_condemned_and_younger_ones_are_not() {
    let rig = JobFixture::new().await;
    rig.write("file", "content");
    rig.backup().await;
    let pack = object_keys::pack(&rig.role.name, PackId([0xaa; 16]));
    rig.store.put(&pack, bytes::Bytes::from_static(b"left by a broken run")).await.unwrap();
    let index = object_keys::index(&rig.role.name, IndexId([0xbb; 16]));
    rig.store.put(&index, bytes::Bytes::from_static(b"and this as well")).await.unwrap();
    let plan = |now| {
        let rig = &rig;
        let role = RoleSettings { keep: Some(last(9)), ..rig.role.clone() };
        async move {
            let archive = rig.archive().await;
            let plan = PrunePlan::make(&archive.repository, &archive.view, &role, &TimeZone::UTC, now).await.unwrap();
            (plan.orphans.packs.clone(), plan.orphans.indexes.clone())
        }
    };
    let now = rig.env.clock.now();
    assert_eq!(plan(now).await, (vec![], vec![]));
    assert_eq!(plan(now + STRAY_AGE).await, (vec![PackId([0xaa; 16])], vec![IndexId([0xbb; 16])]));
}

/// A session of the fixture's node beside which its other runs may work, as the runs of a clone do.
async fn begun<'a>(rig: &'a JobFixture, node_context: &'a NodeContext) -> RoleSession<'a> {
    let opening = RoleJournal::open(node_context, &rig.repository).await.unwrap();
    let mut session = opening.take_over(&rig.candidacy()).await.unwrap();
    session.unlock();
    session
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_meets_a_prune_is_refused_whatever_is_left_of_it() {
    // One prune that deletes at once, and one that only condemns.
    for grace in [Duration::ZERO, Duration::from_hours(24)] {
        let rig = JobFixture::new().await;
        let pack = object_keys::pack(&rig.role.name, PackId([0xaa; 16]));
        rig.store.put(&pack, bytes::Bytes::from_static(b"left by a broken run")).await.unwrap();
        rig.memory.set_clock_offset(STRAY_AGE);
        let node_context = rig.node_context();
        let session = begun(&rig, &node_context).await;
        assert!(session.state().indexes.is_empty() && session.state().condemned.is_empty());
        let report = prune_now(&rig, last(1), 100, grace).await.unwrap();
        assert_eq!((report.packs_condemned, report.swept.packs), (1, u64::from(grace.is_zero())));
        let now = rig.archive().await.view.state;
        assert_eq!((now.indexes.len(), now.condemned.len()), (0, usize::from(!grace.is_zero())));
        assert_eq!(now.holder, session.state().holder, "it is the same permit");
        rig.write("file", "content");
        let error = session.back_up_with_retry(&rig.role, &BackupOptions::default()).await.unwrap_err();
        assert!(matches!(error, BackupError::Pruned), "{error}");
        assert_eq!(roots(&rig).await, []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_that_meets_other_index_objects_is_refused() {
    let rig = rewritten(2).await;
    let node_context = rig.node_context();
    let session = begun(&rig, &node_context).await;
    // The content that the session refers to is still there.
    prune_now(&rig, last(1), 100, Duration::from_hours(24)).await.unwrap();
    let before = roots(&rig).await;
    rig.write("file", noise(9, MIB));
    let error = session.back_up_with_retry(&rig.role, &BackupOptions::default()).await.unwrap_err();
    assert!(matches!(error, BackupError::Pruned), "{error}");
    assert_eq!(roots(&rig).await, before);
    assert_sound(&rig).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_refers_to_nothing_and_ends_whatever_was_pruned() {
    let rig = rewritten(2).await;
    let node_context = rig.node_context();
    let slot = Some(rig.env.clock.now());
    let mut session = begun(&rig, &node_context).await;
    session.append(RecordBody::Begin(BeginBody {}), slot).await.unwrap();
    assert!(prune_now(&rig, last(1), 100, Duration::ZERO).await.unwrap().swept.packs > 0);
    session.append(RecordBody::End(EndBody { exit: 0, duration_ms: 1, ..EndBody::default() }), slot).await.unwrap();
    assert_eq!(rig.archive().await.view.state.last_slot, slot, "its slot is committed");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_condemned_goes_also_when_the_role_keeps_everything_since() {
    let rig = rewritten(3).await;
    let condemned = prune_now(&rig, last(2), 100, Duration::from_hours(24)).await.unwrap().packs_condemned;
    let keeps_all = async |grace| {
        let role = RoleSettings { prune_grace: grace, ..rig.role.clone() };
        let node_context = rig.node_context();
        let opening = RoleJournal::open(&node_context, &rig.repository).await?;
        prune_admitted(&node_context, &role, &TimeZone::UTC, opening, &rig.candidacy(), std::future::pending()).await
    };
    let waits = keeps_all(Duration::from_hours(24)).await.unwrap();
    assert_eq!((waits.swept.packs, waits.swept.waiting), (0, condemned));
    let report = keeps_all(Duration::ZERO).await.unwrap();
    assert_eq!((report.swept.packs, report.packs_condemned), (condemned, 0));
    assert_eq!(report.snapshots.iter().map(|v| v.kept).collect::<Vec<_>>(), [true; 2]);
    assert_eq!(roots(&rig).await.len(), 2);
    assert_sound(&rig).await;
    let error = keeps_all(Duration::ZERO).await.unwrap_err();
    assert!(matches!(error, PruneError::KeepsAll(_)), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_clock_is_off_prunes_nothing_without_a_schedule_either() {
    let rig = rewritten(2).await;
    let role = RoleSettings { keep: Some(last(1)), ..rig.role.clone() };
    assert_eq!(role.schedule, None);
    let url = StoreUrl::Dir("/srv/backups".into());
    let settings = Settings::for_flags(&role.sources, url, role.name.clone(), role.key.clone()).unwrap();
    let ask = async || run(&rig.node_context(), &settings, &role, async || Ok(rig.store.clone())).await.unwrap();
    rig.memory.set_clock_offset(SignedDuration::from_mins(6));
    let PruneOutcome::Refused(refused) = ask().await else { panic!("it was pruned") };
    assert_eq!(refused.no_commit_reason(), Some(&NoCommitReason::ClockOff { offset: SignedDuration::from_mins(6) }));
    assert_eq!((refused.outcome, roots(&rig).await.len()), (RunOutcome::Unknown, 2));
    rig.memory.set_clock_offset(SignedDuration::from_mins(4));
    let PruneOutcome::Done(_) = ask().await else { panic!("it was not pruned") };
    assert_eq!(roots(&rig).await.len(), 1);
}
