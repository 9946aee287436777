//! What is particular to the directory store.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use runner::env::{Clock, Env, HostClock};
use runner::store::dir::DirStore;
use runner::store::dir::file_system::{FileSystem, HostFileSystem, WritableFile};
use runner::store::dir::open_dir::{FileAt, OpenDir};
use runner::store::{PutOutcome, SizeLimit, Store, StoreErrorKind, list_all};
use rustix::io::Errno;

const BODY: Bytes = Bytes::from_static(b"body");

#[tokio::test]
async fn a_missing_root_is_no_store_and_is_made_by_create_alone() {
    let base = tempfile::tempdir().unwrap();
    let root = base.path().join("not/yet");
    assert_eq!(DirStore::open(&root, &Env::host()).unwrap_err().kind, StoreErrorKind::NoSuchStore);
    assert!(!root.exists());
    let store = DirStore::create(&root, &Env::host()).unwrap();
    store.put("a/b", BODY).await.unwrap();
    assert_eq!(mode(&root), 0o700);
    assert_eq!(mode(&root.join("a")), 0o700);
    assert_eq!(mode(&root.join("a/b")), 0o600);
    DirStore::create(&root, &Env::host()).unwrap();
    assert_eq!(store.get("a/b", SizeLimit::INDEX).await.unwrap(), BODY);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[tokio::test]
async fn a_root_that_goes_away_or_is_exchanged_takes_nothing() {
    let base = tempfile::tempdir().unwrap();
    let root = base.path().join("store");
    let store = DirStore::create(&root, &Env::host()).unwrap();
    store.put("a/b", BODY).await.unwrap();

    fs::rename(&root, base.path().join("moved")).unwrap();
    all_refuse(&store).await;
    assert!(!root.exists());

    // The mount point below an unmounted disk.
    fs::create_dir(&root).unwrap();
    all_refuse(&store).await;
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
}

async fn all_refuse(store: &DirStore) {
    let kinds = [
        store.put("a/b", BODY).await.unwrap_err().kind,
        store.put_if_absent("a/c", BODY).await.unwrap_err().kind,
        store.get("a/b", SizeLimit::INDEX).await.unwrap_err().kind,
        store.list("", None, 1).await.unwrap_err().kind,
        store.delete(&["a/b".to_owned()]).await.unwrap_err().kind,
    ];
    assert_eq!(kinds, [StoreErrorKind::NoSuchStore; 5]);
}

#[tokio::test]
async fn directories_that_were_removed_are_made_again() {
    let root = tempfile::tempdir().unwrap();
    let store = DirStore::open(root.path(), &Env::host()).unwrap();
    store.put("a/b/c", BODY).await.unwrap();
    fs::remove_dir_all(root.path().join("a")).unwrap();
    store.put("a/b/c", BODY).await.unwrap();
    assert_eq!(store.get("a/b/c", SizeLimit::INDEX).await.unwrap(), BODY);
}

/// A disk on which one kind of step fails.
#[derive(Debug, Default)]
pub(crate) struct Failing {
    pub(crate) link: Option<Errno>,
    pub(crate) rename_new: Option<Errno>,
    pub(crate) write: Option<Errno>,
    /// This many fsyncs of files fail, each with EIO.
    pub(crate) sync: Arc<AtomicUsize>,
    pub(crate) sync_dir: Arc<AtomicUsize>,
    pub(crate) lock: Option<Errno>,
    /// What somebody else does in the directory just before a lock is taken in it.
    pub(crate) before_lock: Option<fn(&Path)>,
    pub(crate) created: AtomicUsize,
}

fn fail(errno: Option<Errno>) -> io::Result<()> {
    errno.map_or(Ok(()), |e| Err(e.into()))
}

fn countdown(left: &AtomicUsize) -> io::Result<()> {
    match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)) {
        Ok(_) => Err(Errno::IO.into()),
        Err(_) => Ok(()),
    }
}

struct FailingFile(Box<dyn WritableFile>, Option<Errno>, Arc<AtomicUsize>);

impl WritableFile for FailingFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        fail(self.1)?;
        self.0.write_all(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        countdown(&self.2)?;
        self.0.sync()
    }
}

impl FileSystem for Failing {
    fn create(&self, at: &FileAt) -> io::Result<Box<dyn WritableFile>> {
        self.created.fetch_add(1, Ordering::SeqCst);
        Ok(Box::new(FailingFile(HostFileSystem.create(at)?, self.write, Arc::clone(&self.sync))))
    }
    fn link(&self, from: &FileAt, to: &FileAt) -> io::Result<()> {
        fail(self.link)?;
        HostFileSystem.link(from, to)
    }
    fn rename(&self, from: &FileAt, to: &FileAt) -> io::Result<()> {
        HostFileSystem.rename(from, to)
    }
    fn rename_new(&self, from: &FileAt, to: &FileAt) -> io::Result<()> {
        fail(self.rename_new)?;
        HostFileSystem.rename_new(from, to)
    }
    fn remove(&self, at: &FileAt) -> io::Result<()> {
        HostFileSystem.remove(at)
    }
    fn make_dir(&self, at: &FileAt) -> io::Result<()> {
        HostFileSystem.make_dir(at)
    }
    fn sync_dir(&self, dir: &OpenDir) -> io::Result<()> {
        countdown(&self.sync_dir)?;
        HostFileSystem.sync_dir(dir)
    }
    fn lock(&self, at: &FileAt, make: bool) -> io::Result<fs::File> {
        fail(self.lock)?;
        if let Some(meddle) = self.before_lock {
            meddle(at.dir().path());
        }
        HostFileSystem.lock(at, make)
    }
}

pub(crate) fn on(disk: Failing) -> (tempfile::TempDir, DirStore, Arc<Failing>) {
    let root = tempfile::tempdir().unwrap();
    let disk = Arc::new(disk);
    let store = DirStore::with_disk(root.path(), &Env::host(), Arc::clone(&disk) as Arc<dyn FileSystem>).unwrap();
    (root, store, disk)
}

pub(crate) fn files_in(root: &Path) -> usize {
    fs::read_dir(root).unwrap().count()
}

#[tokio::test]
async fn without_links_an_exclusive_rename_serves() {
    for errno in [Errno::PERM, Errno::OPNOTSUPP, Errno::NOSYS] {
        let (root, store, _) = on(Failing { link: Some(errno), ..Failing::default() });
        assert_eq!(store.put_if_absent("k", BODY).await.unwrap(), PutOutcome::Created);
        assert_eq!(store.put_if_absent("k", Bytes::new()).await.unwrap(), PutOutcome::Exists);
        assert_eq!(store.get("k", SizeLimit::INDEX).await.unwrap(), BODY);
        assert_eq!(files_in(root.path()), 1, "no temporary file stays");
    }
}

#[tokio::test]
async fn a_file_system_with_neither_holds_no_journal_but_data() {
    let neither = Failing { link: Some(Errno::PERM), rename_new: Some(Errno::INVAL), ..Failing::default() };
    let (root, store, _) = on(neither);
    let e = store.put_if_absent("k", BODY).await.unwrap_err();
    assert_eq!(e.kind, StoreErrorKind::Unsupported);
    assert!(e.to_string().contains("no journal"), "{e}");
    assert_eq!(files_in(root.path()), 0);
    store.put("k", BODY).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_is_said_to_be_full_and_keeps_no_rubbish() {
    for errno in [Errno::NOSPC, Errno::DQUOT] {
        let (root, store, disk) = on(Failing { write: Some(errno), ..Failing::default() });
        assert_eq!(store.put("k", BODY).await.unwrap_err().kind, StoreErrorKind::NoSpace);
        assert_eq!(store.put_if_absent("k", BODY).await.unwrap_err().kind, StoreErrorKind::NoSpace);
        assert_eq!(files_in(root.path()), 0);
        assert_eq!(disk.created.load(Ordering::SeqCst), 2, "a second try fills no less");
    }
}

#[tokio::test]
async fn a_failed_fsync_is_answered_with_a_new_file() {
    let (_root, store, disk) = on(Failing { sync: Arc::new(AtomicUsize::new(1)), ..Failing::default() });
    store.put("k", BODY).await.unwrap();
    assert_eq!(disk.created.load(Ordering::SeqCst), 2);

    let (root, store, disk) = on(Failing { sync: Arc::new(AtomicUsize::new(9)), ..Failing::default() });
    assert_eq!(store.put_if_absent("k", BODY).await.unwrap_err().kind, StoreErrorKind::DiskFault);
    assert_eq!(disk.created.load(Ordering::SeqCst), 2);
    assert_eq!(files_in(root.path()), 0);
}

#[tokio::test]
async fn a_record_whose_name_may_be_lost_is_not_called_created() {
    let (_root, store, _) = on(Failing { sync_dir: Arc::new(AtomicUsize::new(1)), ..Failing::default() });
    assert!(matches!(store.put_if_absent("k", BODY).await.unwrap(), PutOutcome::Unknown { .. }));
    assert_eq!(store.put_if_absent("k", BODY).await.unwrap(), PutOutcome::Exists);
}

/// The host's clocks, of which the wall clock is set.
#[derive(Debug, Default)]
struct SetClock(std::sync::atomic::AtomicI64);

impl Clock for SetClock {
    fn now(&self) -> Timestamp {
        HostClock.now() + SignedDuration::from_secs(self.0.load(Ordering::Relaxed))
    }

    fn boottime(&self) -> std::time::Duration {
        HostClock.boottime()
    }
}

#[tokio::test]
async fn the_file_systems_clock_is_known_once_something_was_written_or_it_was_asked() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(SetClock::default());
    let env = Env { clock: Arc::<SetClock>::clone(&clock), ..Env::host() };
    let store = DirStore::open(dir.path(), &env).unwrap();
    assert_eq!(store.clock_offset(), None, "nobody has asked");
    store.measure_clock_offset().await;
    assert_eq!(store.clock_offset(), Some(SignedDuration::ZERO));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "it leaves nothing");

    // A clock that is set is seen at once, and when it is right again.
    let (year, minute) = (365 * 86_400, SignedDuration::from_mins(1));
    for (wrong, right) in [(year, -year), (-year, year)] {
        clock.0.store(wrong, Ordering::Relaxed);
        let offset = store.clock_offset().unwrap();
        assert!((offset - SignedDuration::from_secs(right)).abs() < minute, "{offset}");
        store.put("a/b", BODY).await.unwrap();
        let written = store.clock_offset().unwrap();
        assert!((written - SignedDuration::from_secs(right)).abs() < minute, "{written}");
        clock.0.store(0, Ordering::Relaxed);
        assert!(store.clock_offset().unwrap().abs() < minute);
    }

    // A directory that cannot be asked tells nothing, and what was known stays.
    fs::remove_dir_all(dir.path()).unwrap();
    store.measure_clock_offset().await;
    assert!(store.clock_offset().is_some());
}

/// What somebody who may write into the store's directory puts there. None of it is followed, waited for or written through.
#[tokio::test]
async fn what_stands_in_the_place_of_an_object_is_named_and_left_alone() {
    let (root, store, _) = on(Failing::default());
    let outside = tempfile::tempdir().unwrap();
    let victim = outside.path().join("victim");
    fs::write(&victim, "theirs").unwrap();
    store.put("a/b/real", BODY).await.unwrap();
    let at = |name: &str| root.path().join(name);
    std::os::unix::fs::symlink(&victim, at("a/link")).unwrap();
    std::os::unix::fs::symlink(outside.path().join("new"), at("a/dangling")).unwrap();
    std::os::unix::fs::symlink(outside.path(), at("a/dir")).unwrap();
    nix::unistd::mkfifo(&at("a/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let no_object = |error: Option<runner::store::StoreError>, what: &str| {
        let error = error.unwrap_or_else(|| panic!("{what} was done"));
        assert_eq!(error.kind, StoreErrorKind::NotAnObject, "{what}: {error}");
    };
    for key in ["a/link", "a/dangling", "a/fifo", "a/dir/victim"] {
        no_object(store.get(key, SizeLimit::LIVE).await.err(), key);
        let versioned = store.get_versioned(key, SizeLimit::LIVE).await.err();
        assert!(versioned.as_ref().is_some_and(|error| error.version.is_some()), "{key}: it can be replaced");
        no_object(versioned, key);
        no_object(store.get_range(key, 0..9).await.err(), key);
    }
    // A link to a folder is no folder.
    no_object(store.put("a/dir/new", BODY).await.err(), "put");
    no_object(store.put_if_absent("a/dir/new", BODY).await.err(), "put_if_absent");
    no_object(store.delete(&["a/dir/victim".to_owned()]).await.err(), "delete");
    no_object(store.list("a/dir/", None, 9).await.err(), "list");
    let listed: Vec<String> = list_all(&store, "a/").await.unwrap().into_iter().map(|object| object.key).collect();
    assert_eq!(listed, ["a/b/real"]);
    // A name that is taken is taken, whatever by; a put replaces the link and not what it leads to.
    assert_eq!(store.put_if_absent("a/dangling", BODY).await.unwrap(), PutOutcome::Exists);
    for key in ["a/link", "a/dangling", "a/fifo"] {
        store.put(key, BODY).await.unwrap();
        assert_eq!(store.get(key, SizeLimit::LIVE).await.unwrap(), BODY);
    }
    std::os::unix::fs::symlink(&victim, at("a/replaced")).unwrap();
    let version = store.get_versioned("a/replaced", SizeLimit::LIVE).await.unwrap_err().version.unwrap();
    let replaced = store.replace("a/replaced", BODY, &version).await.unwrap();
    assert!(matches!(replaced, runner::store::ReplaceOutcome::Replaced(_)), "{replaced:?}");
    store.delete(&["a/link".to_owned()]).await.unwrap();
    assert_eq!(fs::read(&victim).unwrap(), b"theirs");
    assert_eq!(files_in(outside.path()), 1, "nothing was made outside");
}

#[tokio::test]
async fn a_root_that_is_a_link_is_the_operators_own() {
    let base = tempfile::tempdir().unwrap();
    fs::create_dir(base.path().join("real")).unwrap();
    std::os::unix::fs::symlink("real", base.path().join("root")).unwrap();
    let store = DirStore::open(&base.path().join("root"), &Env::host()).unwrap();
    store.put("a/b", BODY).await.unwrap();
    assert_eq!(fs::read(base.path().join("real/a/b")).unwrap(), BODY);
}

#[tokio::test]
async fn five_gigabytes_of_nothing_are_not_read() {
    let (root, store, _) = on(Failing::default());
    store.put("k", BODY).await.unwrap();
    fs::OpenOptions::new().write(true).open(root.path().join("k")).unwrap().set_len(5 << 30).unwrap();
    let error = store.get("k", SizeLimit::INDEX).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::TooLarge);
    assert!(error.detail.contains("5368709120"), "{error}");
    assert_eq!(store.get_range("k", 0..u64::MAX).await.unwrap_err().kind, StoreErrorKind::TooLarge);
    assert_eq!(store.get_range("k", 0..4).await.unwrap(), BODY);
}
