//! Over stores in memory, and directories whose disk fails.

use std::fs::File;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::io::Errno;

use super::*;
use crate::env::testing::SteppingClock;
use crate::env::{Clock, Env};
use crate::ids::{InstanceId, NodeId};
use crate::journal::body::{BeginBody, WriterNode};
use crate::journal::error::RecordReplacement;
use crate::journal::record::RecordError;
use crate::repo::crypto::Cipher;
use crate::repo::crypto::tests::keys;
use crate::role::candidacy::LeaseGrant;
use crate::role::candidacy::testing::candidacy;
use crate::store::counting::CountingStore;
use crate::store::dir::DirStore;
use crate::store::dir::file_system::{FileSystem, HostFileSystem, WritableFile};
use crate::store::dir::open_dir::{FileAt, OpenDir};
use crate::store::faulty::{FaultPlan, FaultyStore, InjectedFault};
use crate::store::memory::MemoryStore;
use crate::store::{LIST_PAGE_MAX, SizeLimit, Store};

fn journal(store: Arc<dyn Store>, env: &Env) -> Journal {
    let node = WriterNode { id: NodeId([1; 16]), name: "east".to_owned() };
    Journal::new(store, keys(Cipher::None), env.clone(), node, InstanceId([1; 8]))
}

fn in_memory() -> (MemoryStore, Journal) {
    let env = Env::host();
    let store = MemoryStore::new(&env);
    (store.clone(), journal(Arc::new(store), &env))
}

/// A journal of so many records.
async fn filled(journal: &Journal, records: u32) -> JournalView {
    let mut view = journal.read(None).await.unwrap();
    for _ in 0..records {
        view =
            journal.append_unfenced(&view, UnfencedAction::Pause(PauseBody { until: None, why: None })).await.unwrap();
    }
    view
}

#[tokio::test]
async fn what_an_older_version_read_past_is_read_again() {
    let (store, journal) = in_memory();
    let whole = filled(&journal, 2).await;
    // As a version saw it that knew no pauses, or kept something of its own.
    let mut past = whole.clone();
    past.state.paused = None;
    past.unknown_kinds.push("pause".to_owned());
    let mut newer = whole.clone();
    newer.state.unknown.insert("points".to_owned(), serde_json::json!([]));
    for remembered in [past, newer] {
        assert!(!remembered.is_understood());
        assert_eq!(journal.read(Some(&remembered)).await.unwrap(), whole);
        journal.append_unfenced(&journal.read(Some(&remembered)).await.unwrap(), UnfencedAction::Resume).await.unwrap();
        store.tamper("app/journal/0000000000000003", None);
        // It still shows whether the store is the one that it was read from.
        let last = store.objects()["app/journal/0000000000000002"].clone();
        store.tamper("app/journal/0000000000000002", None);
        let read = journal.read(Some(&remembered)).await;
        assert!(matches!(read, Err(JournalError::RolledBack { seq: Seq(2), .. })), "{read:?}");
        store.tamper("app/journal/0000000000000002", Some(last));
    }
}

#[tokio::test]
async fn a_permit_is_resumed_for_a_nodes_own_newest_takeover_alone() {
    let env = Env::host();
    let store = MemoryStore::new(&env);
    let (east, shared) = (journal(Arc::new(store.clone()), &env), Arc::new(store));
    let node = WriterNode { id: NodeId([2; 16]), name: "west".to_owned() };
    let west = Journal::new(shared, keys(Cipher::None), env.clone(), node, InstanceId([2; 8]));
    let view = east.read(None).await.unwrap();
    let lease = LeaseGrant { asked: env.clock.moment(), ttl: Duration::from_mins(1) };
    let candidacy = candidacy(&view.role, lease);
    assert!(east.resume(&view, &candidacy, Digest([0; 32])).is_none(), "no takeover at all");

    let (permit, view) = east.take_over(&view, &candidacy, TakeoverReason::First).await.unwrap();
    let resumed = east.resume(&view, &candidacy, permit.takeover()).unwrap();
    assert_eq!((resumed.takeover(), resumed.term()), (permit.takeover(), permit.term()));
    let view = east.append(&resumed, &view, RecordBody::Begin(BeginBody {}), None).await.unwrap();
    assert!(west.resume(&view, &candidacy, permit.takeover()).is_none(), "another node's takeover");

    let (_, view) = west.take_over(&view, &candidacy, TakeoverReason::Moved).await.unwrap();
    assert!(east.resume(&view, &candidacy, permit.takeover()).is_none(), "a newer takeover followed");
    let (fallback, view) = west.take_over(&view, &candidacy, TakeoverReason::Fallback).await.unwrap();
    assert!(west.resume(&view, &candidacy, fallback.takeover()).is_none(), "the node is eligible now");
}

#[tokio::test]
async fn what_an_older_version_did_not_take_down_is_read_again() {
    let (_, journal) = in_memory();
    let whole = filled(&journal, 2).await;
    let (made, mut old) = (Timestamp::UNIX_EPOCH, whole.clone());
    // It did not know when the repository was made, nor all that a state has now.
    old.state.paused = None;
    let journal = journal.created(made);
    let read = journal.read(Some(&old)).await.unwrap();
    assert_eq!((&read.state, read.created), (&whole.state, Some(made)));
    assert_eq!(journal.read(Some(&read)).await.unwrap(), read);
}

#[tokio::test]
async fn what_is_no_record_makes_no_hole() {
    let (store, journal) = in_memory();
    let view = filled(&journal, 2).await;
    for stray in ["0000000000000002.bak", "00000000000000031", "notes.txt"] {
        store.tamper(&format!("app/journal/{stray}"), Some(Bytes::from_static(b"stray")));
    }
    assert_eq!(journal.read(None).await.unwrap(), view);
    let view = journal.append_unfenced(&view, UnfencedAction::Resume).await.unwrap();
    assert_eq!(view.head.as_ref().unwrap().seq, Seq(3));
    // So many of them that a record stands on the listing's next page.
    for stray in 0..LIST_PAGE_MAX {
        store.tamper(&format!("app/journal/0000000000000003.{stray}"), Some(Bytes::new()));
    }
    assert_eq!(journal.read(None).await.unwrap(), view);
    let record = store.objects()["app/journal/0000000000000003"].clone();
    store.tamper("app/journal/0000000000000005", Some(record));
    let read = journal.read(None).await;
    assert!(matches!(read, Err(JournalError::Hole(Seq(4)))), "{read:?}");
}

/// Requests that such a journal takes to read: without memory, with `known`, and for a writer with `known`.
async fn costs(store: &MemoryStore, env: &Env, known: &JournalView) -> [u64; 3] {
    let mut costs = [0; 3];
    for (n, cost) in costs.iter_mut().enumerate() {
        let (counting, counters) = CountingStore::new(Arc::new(store.clone()));
        let journal = journal(Arc::new(counting), env);
        let view = match n {
            0 => journal.read_listed(None).await,
            1 => journal.read_listed(Some(known)).await,
            _ => journal.read(Some(known)).await,
        };
        assert_eq!(view.unwrap().state, known.state);
        *cost = counters.snapshot().requests();
    }
    costs
}

#[tokio::test]
async fn a_long_journal_is_read_in_a_handful_of_requests() {
    let (store, journal) = in_memory();
    let mut view = filled(&journal, 9_990).await;
    let mut most = [0; 3];
    for _ in 0..20 {
        view = journal.append_unfenced(&view, UnfencedAction::Resume).await.unwrap();
        let cost = costs(&store, &journal.env, &view).await;
        most = std::array::from_fn(|n| most[n].max(cost[n]));
    }
    // Listings, and a checkpoint with at most seven records after it; the head and what is listed after it; that, and
    // the number after it.
    assert_eq!(most, [15, 2, 3]);
}

#[tokio::test]
async fn a_listing_that_lags_hides_nothing_from_a_writer() {
    let env = Env::host();
    let lagging = FaultPlan::random(1, 1000, &[InjectedFault::StaleListing]);
    let journal = journal(Arc::new(FaultyStore::new(Arc::new(MemoryStore::new(&env)), lagging)), &env);
    let view = filled(&journal, 40).await;
    let mut behind = 0;
    for _ in 0..20 {
        assert_eq!(journal.read(None).await.unwrap().head, view.head);
        let listed = journal.read_listed(None).await.unwrap();
        behind += u32::from(listed.head != view.head);
        assert_eq!(journal.refresh(listed).await.unwrap().head, view.head);
        assert_eq!(journal.read_listed(Some(&view)).await.unwrap(), view, "never older than what was known");
    }
    assert!(behind > 0, "listings did lag");
}

#[tokio::test]
async fn a_stray_far_beyond_the_end_is_told_where_the_end_is() {
    let (store, journal) = in_memory();
    let view = filled(&journal, 12).await;
    let [third, eighth] = [3, 8].map(|n| store.objects()[&format!("app/journal/{n:016}")].clone());
    // The second number is one at which a checkpoint would stand, and the eighth record is one.
    for (number, object) in [
        (9_999_999_999_999_999_u64, third),
        (9_999_999_999_999_992, eighth),
        (9_999_999_999_999_992, Bytes::from_static(b"no record")),
    ] {
        let key = format!("app/journal/{number}");
        store.tamper(&key, Some(object));
        for read in [journal.read(None).await, journal.read_listed(Some(&view)).await] {
            assert!(matches!(read, Err(JournalError::Hole(Seq(13)))), "{number}: {read:?}");
        }
        assert_eq!(journal.read_until(Seq(12)).await.unwrap().state, view.state);
        store.tamper(&key, None);
    }
    store.tamper("app/journal/0000000000000010", None);
    let read = journal.read(None).await;
    assert!(matches!(read, Err(JournalError::Hole(Seq(10)))), "{read:?}");
}

/// A disk whose journal directory cannot be fsynced for a while, or on which links are unknown and an exclusive rename
/// is answered for its second sending.
#[derive(Debug, Default)]
struct Shaky {
    failures: Mutex<u32>,
    /// Fsyncs of the journal's directory that worked.
    synced: AtomicU64,
    replays: bool,
}

impl FileSystem for Shaky {
    fn create(&self, at: &FileAt) -> io::Result<Box<dyn WritableFile>> {
        HostFileSystem.create(at)
    }

    fn link(&self, from: &FileAt, to: &FileAt) -> io::Result<()> {
        if self.replays { Err(Errno::PERM.into()) } else { HostFileSystem.link(from, to) }
    }

    fn rename(&self, from: &FileAt, to: &FileAt) -> io::Result<()> {
        HostFileSystem.rename(from, to)
    }

    fn rename_new(&self, from: &FileAt, to: &FileAt) -> io::Result<()> {
        HostFileSystem.rename_new(from, to)?;
        HostFileSystem.rename_new(from, to)
    }

    fn remove(&self, at: &FileAt) -> io::Result<()> {
        HostFileSystem.remove(at)
    }

    fn make_dir(&self, at: &FileAt) -> io::Result<()> {
        HostFileSystem.make_dir(at)
    }

    fn sync_dir(&self, dir: &OpenDir) -> io::Result<()> {
        if dir.path().ends_with("journal") {
            let mut left = self.failures.lock();
            if let Some(fewer) = left.checked_sub(1) {
                *left = fewer;
                return Err(io::Error::other("the disk is shaky"));
            }
            self.synced.fetch_add(1, Ordering::SeqCst);
        }
        HostFileSystem.sync_dir(dir)
    }

    fn lock(&self, at: &FileAt, make: bool) -> io::Result<File> {
        HostFileSystem.lock(at, make)
    }
}

fn on(disk: Shaky, env: &Env) -> (tempfile::TempDir, Arc<Shaky>, Journal) {
    let (root, disk) = (tempfile::tempdir().unwrap(), Arc::new(disk));
    let store = DirStore::with_disk(root.path(), env, Arc::clone(&disk) as Arc<dyn FileSystem>).unwrap();
    (root, disk, journal(Arc::new(store), env))
}

#[tokio::test]
async fn a_record_that_is_seen_is_not_in_before_it_is_durable() {
    for failures in [1, 2, 3] {
        let shaky = Shaky { failures: Mutex::new(failures), ..Shaky::default() };
        let (_root, disk, journal) = on(shaky, &Env::host());
        let view = filled(&journal, 1).await;
        assert_eq!(view.head.unwrap().seq, Seq(1));
        assert_eq!((*disk.failures.lock(), disk.synced.load(Ordering::SeqCst)), (0, 1), "{failures}");
    }
    let host = Env::host();
    // The append gives up after a minute.
    let clock = SteppingClock::new(Arc::clone(&host.clock), Duration::from_secs(61));
    let env = Env { clock: Arc::new(clock), ..host };
    let (_root, _, journal) = on(Shaky { failures: Mutex::new(u32::MAX), ..Shaky::default() }, &env);
    let empty = journal.read(None).await.unwrap();
    let appended = journal.append_unfenced(&empty, UnfencedAction::Resume).await;
    assert!(matches!(appended, Err(AppendError::Unknown { seq: Seq(1), .. })), "{appended:?}");
    // Not even when there is no time left: a request may take longer than the whole patience.
    let (_root, disk, journal) = on(Shaky { failures: Mutex::new(1), ..Shaky::default() }, &env);
    filled(&journal, 1).await;
    assert_eq!(disk.synced.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_rename_that_was_sent_twice_is_ones_own() {
    let (_root, disk, journal) = on(Shaky { replays: true, ..Shaky::default() }, &Env::host());
    let view = filled(&journal, 3).await;
    assert_eq!(view.head.as_ref().unwrap().seq, Seq(3));
    assert_eq!(journal.read(None).await.unwrap(), view);
    assert_eq!(disk.synced.load(Ordering::SeqCst), 3);
}

/// A clock that stands still until the test moves it.
#[derive(Debug, Default)]
struct Still(AtomicU64);

impl Clock for Still {
    fn now(&self) -> Timestamp {
        Timestamp::UNIX_EPOCH + self.boottime()
    }

    fn boottime(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

#[tokio::test]
async fn what_the_store_answers_after_the_end_of_the_lease_is_not_written_upon() {
    let clock = Arc::new(Still::default());
    let env = Env { clock: Arc::clone(&clock) as Arc<dyn Clock>, ..Env::host() };
    let store = MemoryStore::new(&env);
    let quick = journal(Arc::new(store.clone()), &env);
    // A minute passes while the store is asked for the last record.
    let slow = || {
        let plan = FaultPlan::exactly([(0, InjectedFault::Delay(Duration::from_millis(1)))]);
        journal(Arc::new(FaultyStore::new(Arc::new(store.clone()), plan)), &env)
    };
    let minute = async || clock.0.fetch_add(60, Ordering::Relaxed);
    let lease = || candidacy(quick.keys.role(), LeaseGrant { asked: env.clock.moment(), ttl: Duration::from_secs(30) });
    let view = filled(&quick, 1).await;

    let (journal, mine) = (slow(), lease());
    let (late, _) = tokio::join!(journal.take_over(&view, &mine, TakeoverReason::First), minute());
    assert!(matches!(late, Err(AppendError::Expired)), "{late:?}");
    assert_eq!(quick.read(Some(&view)).await.unwrap(), view, "nothing was written");

    let (permit, view) = quick.take_over(&view, &lease(), TakeoverReason::First).await.unwrap();
    let journal = slow();
    let (late, _) = tokio::join!(journal.append(&permit, &view, RecordBody::Resume, None), minute());
    assert!(matches!(late, Err(AppendError::Expired)), "{late:?}");
    assert_eq!(quick.read(Some(&view)).await.unwrap(), view, "nothing was written");

    let (permit, view) = quick.take_over(&view, &lease(), TakeoverReason::Restart).await.unwrap();
    quick.append(&permit, &view, RecordBody::Resume, None).await.unwrap();
}

#[tokio::test]
async fn what_is_too_large_to_be_a_record_is_a_damaged_one() {
    let (store, journal) = in_memory();
    let view = filled(&journal, 3).await;
    let (key, size) = (object_keys::record(journal.keys.role(), Seq(4)), SizeLimit::RECORD.bytes() as usize + 1);
    store.tamper(&key, Some(Bytes::from(vec![b' '; size])));
    let is_damaged =
        |error: &JournalError| matches!(error, JournalError::Record { seq: Seq(4), error: RecordError::Damaged(_) });
    let read = journal.read(None).await;
    assert!(read.as_ref().is_err_and(is_damaged), "{read:?}");
    assert!(read.unwrap_err().to_string().contains(&size.to_string()), "it tells the size");
    // The number is taken all the same.
    let appended = journal.append_unfenced(&view, UnfencedAction::Resume).await;
    assert!(matches!(&appended, Err(AppendError::Journal(error)) if is_damaged(error)), "{appended:?}");
    // In the place of one that was seen it is another one.
    store.tamper(&key, None);
    store.tamper(&object_keys::record(journal.keys.role(), Seq(3)), Some(Bytes::from(vec![b' '; size])));
    let read = journal.read(Some(&view)).await;
    let is_damaged =
        matches!(&read, Err(JournalError::RolledBack { seq: Seq(3), instead: RecordReplacement::Damaged(_), .. }));
    assert!(is_damaged, "it is there, and cannot be read: {read:?}");
}

#[tokio::test]
async fn what_stands_in_place_of_a_record_that_was_seen_is_told_apart() {
    let (store, journal) = in_memory();
    let view = filled(&journal, 3).await;
    let newest = object_keys::record(journal.keys.role(), Seq(3));
    let whole = store.objects()[&newest].clone();
    let before = store.objects()[&object_keys::record(journal.keys.role(), Seq(2))].clone();
    for (there, words) in [
        (None, "the store does not have journal record 3"),
        (Some(before), "the store has another journal record 3"),
        (Some(whole.slice(..whole.len() / 2)), "journal record 3 cannot be read"),
        (Some(Bytes::new()), "journal record 3 cannot be read"),
    ] {
        store.tamper(&newest, there);
        let read = journal.read(Some(&view)).await.unwrap_err();
        assert!(read.is_rolled_back() && read.to_string().starts_with(words), "{read}");
    }
}

#[tokio::test]
async fn a_large_record_is_read_like_any_other_and_one_beyond_the_limit_is_not_made() {
    let (_, journal) = in_memory();
    let mut view = filled(&journal, 1).await;
    let pause = |len: u64| UnfencedAction::Pause(PauseBody { until: None, why: Some("x".repeat(len as usize)) });
    for _ in 0..2 {
        view = journal.append_unfenced(&view, pause(SizeLimit::RECORD_AHEAD.bytes() + 1)).await.unwrap();
    }
    assert_eq!(journal.read(None).await.unwrap().head, view.head);
    let refused = journal.append_unfenced(&view, pause(SizeLimit::RECORD.bytes())).await;
    assert!(matches!(refused, Err(AppendError::TooLarge { seq: Seq(4), .. })), "{refused:?}");
    assert_eq!(journal.read(None).await.unwrap().head, view.head);
}
