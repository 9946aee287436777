//! Over stores in memory, and directories whose disk fails.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::io::Errno;

use super::*;
use crate::env::Clock;
use crate::ids::NodeId;
use crate::repo::crypto::Cipher;
use crate::repo::crypto::tests::keys;
use crate::store::dir::DirStore;
use crate::store::dir::disk::{Disk, DiskFile, HostDisk};
use crate::store::memory::MemoryStore;

fn journal(store: Arc<dyn Store>, env: &Env) -> Journal {
    let node = NodeRef { id: NodeId([1; 16]), name: "east".to_owned() };
    Journal::new(store, keys(Cipher::None), env.clone(), node, InstanceId([1; 8]))
}

fn in_memory() -> (MemoryStore, Journal) {
    let env = Env::host();
    let store = MemoryStore::new(&env);
    (store.clone(), journal(Arc::new(store), &env))
}

/// A journal of so many records.
async fn filled(journal: &Journal, records: u32) -> View {
    let mut view = journal.read(None).await.unwrap();
    for _ in 0..records {
        view = journal.note(&view, Act::Pause(PauseBody { until: None, why: None })).await.unwrap();
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
        assert!(!remembered.understood());
        assert_eq!(journal.read(Some(&remembered)).await.unwrap(), whole);
        journal.note(&journal.read(Some(&remembered)).await.unwrap(), Act::Resume).await.unwrap();
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
async fn what_is_no_record_makes_no_hole() {
    let (store, journal) = in_memory();
    let view = filled(&journal, 2).await;
    for stray in ["0000000000000002.bak", "00000000000000031", "notes.txt"] {
        store.tamper(&format!("app/journal/{stray}"), Some(Bytes::from_static(b"stray")));
    }
    assert_eq!(journal.read(None).await.unwrap(), view);
    let view = journal.note(&view, Act::Resume).await.unwrap();
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

/// A disk whose journal directory cannot be fsynced for a while, or on which links are unknown and an exclusive rename is answered
/// for its second sending.
#[derive(Debug, Default)]
struct Shaky {
    failures: Mutex<u32>,
    /// Fsyncs of the journal's directory that worked.
    synced: AtomicU64,
    replays: bool,
}

impl Disk for Shaky {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        HostDisk.create(path)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        if self.replays { Err(Errno::PERM.into()) } else { HostDisk.link(from, to) }
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        HostDisk.rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        HostDisk.rename_new(from, to)?;
        HostDisk.rename_new(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        HostDisk.remove(path)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        HostDisk.make_dir(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if path.ends_with("journal") {
            let mut left = self.failures.lock().unwrap();
            if let Some(fewer) = left.checked_sub(1) {
                *left = fewer;
                return Err(io::Error::other("the disk is shaky"));
            }
            self.synced.fetch_add(1, Ordering::SeqCst);
        }
        HostDisk.sync_dir(path)
    }

    fn lock(&self, path: &Path, make: bool) -> io::Result<File> {
        HostDisk.lock(path, make)
    }
}

/// A clock by which a minute passes between two looks.
#[derive(Debug, Default)]
struct Hasty(AtomicU64);

impl Clock for Hasty {
    fn now(&self) -> Timestamp {
        Env::host().clock.now()
    }

    fn boottime(&self) -> Duration {
        Duration::from_secs(self.0.fetch_add(61, Ordering::Relaxed))
    }
}

fn on(disk: Shaky, env: &Env) -> (tempfile::TempDir, Arc<Shaky>, Journal) {
    let (root, disk) = (tempfile::tempdir().unwrap(), Arc::new(disk));
    let store = DirStore::with_disk(root.path(), env, Arc::clone(&disk) as Arc<dyn Disk>).unwrap();
    (root, disk, journal(Arc::new(store), env))
}

#[tokio::test]
async fn a_record_that_is_seen_is_not_in_before_it_is_durable() {
    for failures in [1, 2, 3] {
        let shaky = Shaky { failures: Mutex::new(failures), ..Shaky::default() };
        let (_root, disk, journal) = on(shaky, &Env::host());
        let view = filled(&journal, 1).await;
        assert_eq!(view.head.unwrap().seq, Seq(1));
        assert_eq!((*disk.failures.lock().unwrap(), disk.synced.load(Ordering::SeqCst)), (0, 1), "{failures}");
    }
    let env = Env { clock: Arc::new(Hasty::default()), ..Env::host() };
    let (_root, _, journal) = on(Shaky { failures: Mutex::new(u32::MAX), ..Shaky::default() }, &env);
    let empty = journal.read(None).await.unwrap();
    let appended = journal.note(&empty, Act::Resume).await;
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
