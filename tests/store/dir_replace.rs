//! Compare-and-set in a directory: the lock, those who do not hold it, and processes of their own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;

use bytes::Bytes;
use runner::env::Env;
use runner::store::dir::DirStore;
use runner::store::dir::file_system::{FileSystem, HostFileSystem};
use runner::store::dir::open_dir::FileAt;
use runner::store::key::LOCK_NAME;
use runner::store::{ObjectVersion, PutOutcome, ReplaceOutcome, SizeLimit, Store, StoreErrorKind};
use rustix::io::Errno;

use crate::dir::{Failing, files_in, on};

const BODY: Bytes = Bytes::from_static(b"body");
const NEW: Bytes = Bytes::from_static(b"new");

async fn create(store: &DirStore) -> ObjectVersion {
    assert_eq!(store.put_if_absent("k", BODY).await.unwrap(), PutOutcome::Created);
    store.get_versioned("k", SizeLimit::INDEX).await.unwrap().1
}

fn lock(root: &Path) -> std::io::Result<fs::File> {
    HostFileSystem.lock(&FileAt::of(&root.join(LOCK_NAME))?, true)
}

fn is_replaced(outcome: &ReplaceOutcome) -> bool {
    matches!(outcome, ReplaceOutcome::Replaced(_))
}

#[tokio::test]
async fn a_lock_that_stays_busy_stops_all_but_readers_and_new_objects() {
    let (root, store, _) = on(Failing::default());
    let version = create(&store).await;
    let held = lock(root.path()).unwrap();
    let gone = ["k".to_owned()];
    let (replaced, put, deleted) =
        tokio::join!(store.replace("k", NEW, &version), store.put("k", NEW), store.delete(&gone));
    assert!(
        matches!(replaced.as_ref().unwrap(), ReplaceOutcome::Unknown { why } if why.contains(LOCK_NAME)),
        "{replaced:?}"
    );
    assert_eq!([put.unwrap_err().kind, deleted.unwrap_err().kind], [StoreErrorKind::Unreachable; 2]);
    assert_eq!(store.get_versioned("k", SizeLimit::INDEX).await.unwrap(), (BODY, version.clone()));
    assert_eq!(store.put_if_absent("other", BODY).await.unwrap(), PutOutcome::Created);
    assert_eq!(files_in(root.path()), 3, "two objects and the lock, no temporary files");
    drop(held);
    assert!(is_replaced(&store.replace("k", NEW, &version).await.unwrap()));
}

#[tokio::test]
async fn a_late_replace_does_not_wait_and_writes_nothing() {
    let (root, store, disk) = on(Failing::default());
    let old = create(&store).await;
    store.put("k", NEW).await.unwrap();
    let _held = lock(root.path()).unwrap();
    let created = disk.created.load(Ordering::SeqCst);
    assert_eq!(store.replace("k", BODY, &old).await.unwrap(), ReplaceOutcome::Changed);
    assert_eq!(disk.created.load(Ordering::SeqCst), created);
}

#[tokio::test]
async fn what_changes_before_the_lock_is_taken_is_seen_under_it() {
    type Meddler = (fn(&Path), Option<&'static str>);
    let meddlers: [Meddler; 2] = [
        (|dir| fs::remove_file(dir.join("k")).unwrap(), None),
        (|dir| fs::write(dir.join("k"), "theirs").unwrap(), Some("theirs")),
    ];
    for (meddle, left) in meddlers {
        let (root, store, _) = on(Failing { before_lock: Some(meddle), ..Failing::default() });
        let version = create(&store).await;
        assert_eq!(store.replace("k", NEW, &version).await.unwrap(), ReplaceOutcome::Changed);
        assert_eq!(store.get("k", SizeLimit::INDEX).await.ok().as_deref(), left.map(str::as_bytes));
        assert_eq!(files_in(root.path()), 1 + usize::from(left.is_some()), "the lock, and what is left");
    }
}

#[tokio::test]
async fn a_file_system_without_locks_holds_no_lease_but_all_else() {
    for errno in [Errno::OPNOTSUPP, Errno::NOSYS, Errno::NOLCK] {
        let (root, store, _) = on(Failing { lock: Some(errno), ..Failing::default() });
        let version = create(&store).await;
        let e = store.replace("k", NEW, &version).await.unwrap_err();
        assert_eq!(e.kind, StoreErrorKind::Unsupported);
        assert!(e.to_string().contains("no lease"), "{e}");
        assert_eq!(files_in(root.path()), 1);
        store.put("k", NEW).await.unwrap();
        store.delete(&["k".to_owned()]).await.unwrap();
    }
    let (_root, store, _) = on(Failing { lock: Some(Errno::ACCESS), ..Failing::default() });
    let version = create(&store).await;
    assert_eq!(store.replace("k", NEW, &version).await.unwrap_err().kind, StoreErrorKind::Denied);
}

#[tokio::test]
async fn a_content_whose_name_may_be_lost_is_not_called_replaced() {
    let (_root, store, disk) = on(Failing::default());
    let version = create(&store).await;
    for _ in 0..2 {
        // The first time the object is replaced, the second time it turns out to be.
        disk.sync_dir.store(1, Ordering::SeqCst);
        let outcome = store.replace("k", NEW, &version).await.unwrap();
        assert!(matches!(outcome, ReplaceOutcome::Unknown { .. }), "{outcome:?}");
    }
    assert_eq!(store.get("k", SizeLimit::INDEX).await.unwrap(), NEW);
}

#[tokio::test]
async fn a_lock_file_that_was_tidied_away_is_made_again() {
    let (root, store, _) = on(Failing::default());
    let mut version = create(&store).await;
    for body in ["1", "2"] {
        let ReplaceOutcome::Replaced(new) = store.replace("k", Bytes::from(body), &version).await.unwrap() else {
            panic!("nobody else is there")
        };
        version = new;
        fs::remove_file(root.path().join(LOCK_NAME)).unwrap();
    }
}

const CHILD_ROOT: &str = "RUNNER_TEST_ROOT";

/// Runs one of the tests below in a process of its own, over the store in `root`.
fn child(test: &str, root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("dir_replace::{test}"), "--nocapture"])
        .env(CHILD_ROOT, root)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn a_holder_that_dies_leaves_nothing_to_unlock() {
    if let Some(root) = std::env::var_os(CHILD_ROOT) {
        let _held = lock(Path::new(&root)).unwrap();
        println!("\nlocked");
        return std::future::pending().await;
    }
    let (root, store, _) = on(Failing::default());
    let version = create(&store).await;
    let mut holder = child("a_holder_that_dies_leaves_nothing_to_unlock", root.path());
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.map(Result::unwrap).any(|line| line == "locked"));
    let busy = lock(root.path()).unwrap_err();
    assert_eq!(busy.kind(), std::io::ErrorKind::WouldBlock);
    holder.kill().unwrap();
    holder.wait().unwrap();
    assert!(is_replaced(&store.replace("k", NEW, &version).await.unwrap()));
}

#[tokio::test]
async fn processes_lose_no_increment() {
    const PROCESSES: usize = 4;
    const EACH: usize = 25;
    if let Some(root) = std::env::var_os(CHILD_ROOT) {
        return count(Path::new(&root), EACH).await;
    }
    let root = tempfile::tempdir().unwrap();
    let store = DirStore::open(root.path(), &Env::host()).unwrap();
    store.put_if_absent("counter", Bytes::from_static(b"0")).await.unwrap();
    let children: Vec<Child> = (0..PROCESSES).map(|_| child("processes_lose_no_increment", root.path())).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    assert_eq!(store.get("counter", SizeLimit::INDEX).await.unwrap(), (PROCESSES * EACH).to_string());
}

async fn count(root: &Path, times: usize) {
    let store = DirStore::open(root, &Env::host()).unwrap();
    let mut left = times;
    while left > 0 {
        let (body, version) = store.get_versioned("counter", SizeLimit::INDEX).await.unwrap();
        let count: usize = std::str::from_utf8(&body).unwrap().parse().unwrap();
        let outcome = store.replace("counter", Bytes::from((count + 1).to_string()), &version).await.unwrap();
        assert!(!matches!(outcome, ReplaceOutcome::Unknown { .. }), "{outcome:?}");
        left -= usize::from(is_replaced(&outcome));
    }
}

/// What stands in the place of a lock's file and is no file.
fn plant(kind: &str, lock: &Path, target: &Path) {
    match kind {
        "link" => std::os::unix::fs::symlink(target, lock).unwrap(),
        "fifo" => nix::unistd::mkfifo(lock, nix::sys::stat::Mode::S_IRWXU).unwrap(),
        "socket" => drop(std::os::unix::net::UnixListener::bind(lock).unwrap()),
        "directory" | "full directory" => fs::create_dir(lock).unwrap(),
        other => panic!("{other}"),
    }
    if kind == "full directory" {
        fs::write(lock.join("somebody's"), "content").unwrap();
    }
}

#[tokio::test]
async fn what_is_no_file_makes_room_for_the_lock_and_nothing_is_made_elsewhere() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().join("new");
    for kind in ["link", "fifo", "socket", "directory"] {
        let (root, store, _) = on(Failing::default());
        let version = create(&store).await;
        let lock = root.path().join(LOCK_NAME);
        plant(kind, &lock, &target);
        assert!(is_replaced(&store.replace("k", NEW, &version).await.unwrap()), "{kind}");
        assert!(fs::symlink_metadata(&lock).unwrap().is_file(), "{kind}");
        fs::remove_file(&lock).unwrap();
        plant(kind, &lock, &target);
        store.put("k", BODY).await.unwrap();
        assert!(fs::symlink_metadata(&lock).unwrap().is_file(), "{kind}: who puts takes part in the lock");
        assert_eq!(store.get("k", SizeLimit::LIVE).await.unwrap(), BODY);
        assert!(!target.exists());
    }
}

#[tokio::test]
async fn an_occupied_lock_path_is_named_and_its_content_stays() {
    let (root, store, _) = on(Failing::default());
    let version = create(&store).await;
    let lock = root.path().join(LOCK_NAME);
    plant("full directory", &lock, root.path());
    let error = store.replace("k", NEW, &version).await.unwrap_err();
    assert_eq!(error.kind, StoreErrorKind::NotAnObject, "{error}");
    assert!(error.to_string().contains("a directory is in its place"), "{error}");
    assert!(error.key.as_deref().is_some_and(|key| key.ends_with(LOCK_NAME)), "{error}");
    assert_eq!(store.put("k", NEW).await.unwrap_err().kind, StoreErrorKind::NotAnObject);
    assert_eq!(store.get("k", SizeLimit::LIVE).await.unwrap(), BODY);
    assert!(lock.join("somebody's").exists());
}

#[tokio::test]
async fn a_file_in_the_place_of_a_directory_is_named_by_each_write() {
    let (root, store, _) = on(Failing::default());
    fs::write(root.path().join("a"), "").unwrap();
    assert!(store.get("a/b/k", SizeLimit::LIVE).await.unwrap_err().is_not_found(), "as in a bucket");
    for key in ["a/k", "a/b/k"] {
        let errors = [store.put(key, BODY).await.unwrap_err(), store.put_if_absent(key, BODY).await.unwrap_err()];
        for error in errors {
            assert_eq!((error.kind, error.key.as_deref()), (StoreErrorKind::NotAnObject, Some(key)), "{error}");
            assert!(error.to_string().contains("no directory is where a directory"), "{error}");
        }
    }
    assert_eq!(files_in(root.path()), 1, "no temporary files");
    let below = DirStore::create(&root.path().join("a/store"), &Env::host()).unwrap_err();
    assert_eq!(below.kind, StoreErrorKind::NotAnObject, "{below}");
}

#[tokio::test]
async fn a_directory_in_the_place_of_an_object_is_named_at_once() {
    let (root, store, _) = on(Failing::default());
    fs::create_dir(root.path().join("k")).unwrap();
    assert!(store.get("k", SizeLimit::LIVE).await.unwrap_err().is_not_found(), "as in a bucket");
    let put = store.put_if_absent("k", BODY).await.unwrap_err();
    assert_eq!((put.kind, put.key.as_deref()), (StoreErrorKind::NotAnObject, Some("k")), "{put}");
    assert_eq!(store.put("k", BODY).await.unwrap_err().kind, StoreErrorKind::NotAnObject);
    assert_eq!(files_in(root.path()), 1, "no temporary files");
}
