//! Power cuts: what a returned call promised is there, and what is there is whole; cut at every step.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use runner::env::Env;
use runner::store::dir::DirStore;
use runner::store::dir::file_system::FileSystem;
use runner::store::dir::open_dir::{FileAt, OpenDir};
use runner::store::{PutOutcome, ReplaceOutcome, SizeLimit, Store, list_all};

use crate::crash_disk::{CrashFileSystem, UnsyncedChanges};

fn store_on(root: &Path, disk: &Arc<CrashFileSystem>) -> DirStore {
    DirStore::with_disk(root, &Env::host(), Arc::clone(disk) as Arc<dyn FileSystem>).unwrap()
}

async fn objects_after(disk: &CrashFileSystem, cut: usize, survival: UnsyncedChanges) -> BTreeMap<String, Bytes> {
    let target = tempfile::tempdir().unwrap();
    disk.materialise(cut, survival, target.path());
    let store = DirStore::open(target.path(), &Env::host()).unwrap();
    let mut objects = BTreeMap::new();
    for object in list_all(&store, "").await.unwrap() {
        objects.insert(object.key.clone(), store.get(&object.key, SizeLimit::INDEX).await.unwrap());
    }
    objects
}

fn body(n: usize) -> Bytes {
    Bytes::from(format!("{n} ").repeat(100 + n))
}

/// Each step puts a value of its own; the key of every fourth is one of those before. What was there is replaced by
/// compare-and-set every other time.
async fn step(store: &DirStore, n: usize) -> (String, Bytes) {
    let key = match n % 4 {
        0 => "app/live/beat".to_owned(),
        1 => format!("app/journal/{n:016}"),
        2 => format!("app/packs/{n:02}/pack"),
        _ => format!("other/deep/er/{n}"),
    };
    if n % 8 == 4 {
        let (_, version) = store.get_versioned(&key, SizeLimit::INDEX).await.unwrap();
        let outcome = store.replace(&key, body(n), &version).await.unwrap();
        assert!(matches!(outcome, ReplaceOutcome::Replaced(_)), "{outcome:?}");
    } else if n % 4 == 1 {
        assert_eq!(store.put_if_absent(&key, body(n)).await.unwrap(), PutOutcome::Created);
    } else {
        store.put(&key, body(n)).await.unwrap();
    }
    (key, body(n))
}

fn at(path: &Path) -> FileAt {
    FileAt::of(path).unwrap()
}

#[tokio::test]
async fn what_returned_is_durable_and_what_is_visible_is_whole() {
    const STEPS: usize = 10;
    let root = tempfile::tempdir().unwrap();
    let disk = CrashFileSystem::over(root.path());
    let store = store_on(root.path(), &disk);
    // What was promised once this many operations were done.
    let mut promised: Vec<(usize, BTreeMap<String, Bytes>)> = vec![(0, BTreeMap::new())];
    for n in 0..STEPS {
        let (key, body) = step(&store, n).await;
        let mut now = promised.last().unwrap().1.clone();
        now.insert(key, body);
        promised.push((disk.ops(), now));
    }
    assert!(disk.ops() > 5 * STEPS, "the seam sees the steps: {}", disk.ops());

    for cut in 0..=disk.ops() {
        let at = promised.iter().rposition(|(ops, _)| *ops <= cut).unwrap();
        let before = &promised[at].1;
        let after = &promised[(at + 1).min(STEPS)].1;
        let wrecks =
            std::iter::once(UnsyncedChanges::Strict).chain((0..3).map(|seed| UnsyncedChanges::Partly { seed }));
        for survival in wrecks {
            let found = objects_after(&disk, cut, survival).await;
            for (key, old) in before {
                let there = found.get(key);
                assert!(there == Some(old) || there == after.get(key), "cut {cut}, {survival:?}: {key} is {there:?}");
            }
            for (key, there) in &found {
                assert!(
                    before.get(key) == Some(there) || after.get(key) == Some(there),
                    "cut {cut}, {survival:?}: {key} is torn"
                );
            }
        }
    }
}

/// A record that somebody was shown by `Exists` must not vanish afterwards, though its writer died before its last fsync.
#[tokio::test]
async fn what_a_loser_was_shown_is_durable() {
    let root = tempfile::tempdir().unwrap();
    let disk = CrashFileSystem::over(root.path());
    disk.make_dir(&at(&root.path().join("journal"))).unwrap();
    disk.sync_dir(&OpenDir::root(root.path()).unwrap()).unwrap();
    let mut file = disk.create(&at(&root.path().join("journal/1"))).unwrap();
    file.write_all(b"winner").unwrap();
    file.sync().unwrap();
    assert!(objects_after(&disk, disk.ops(), UnsyncedChanges::Strict).await.is_empty());

    let store = store_on(root.path(), &disk);
    assert_eq!(store.put_if_absent("journal/1", body(1)).await.unwrap(), PutOutcome::Exists);
    let found = objects_after(&disk, disk.ops(), UnsyncedChanges::Strict).await;
    assert_eq!(found.get("journal/1").map(|b| &b[..]), Some(&b"winner"[..]));
}

/// The tester tested: each missing fsync must show.
#[tokio::test]
async fn the_crash_disk_finds_each_missing_fsync() {
    for (file_sync, dir_sync, parent_sync) in
        [(false, true, true), (true, false, true), (true, true, false), (true, true, true)]
    {
        let root = tempfile::tempdir().unwrap();
        let disk = CrashFileSystem::over(root.path());
        let dir = root.path().join("d");
        disk.make_dir(&at(&dir)).unwrap();
        if parent_sync {
            disk.sync_dir(&OpenDir::root(root.path()).unwrap()).unwrap();
        }
        let mut file = disk.create(&at(&dir.join(".tmp-1"))).unwrap();
        file.write_all(b"content").unwrap();
        if file_sync {
            file.sync().unwrap();
        }
        disk.rename(&at(&dir.join(".tmp-1")), &at(&dir.join("k"))).unwrap();
        if dir_sync {
            disk.sync_dir(&OpenDir::root(&dir).unwrap()).unwrap();
        }
        let found = objects_after(&disk, disk.ops(), UnsyncedChanges::Strict).await;
        let whole = found.get("d/k").is_some_and(|b| &b[..] == b"content");
        assert_eq!(whole, file_sync && dir_sync && parent_sync, "{file_sync} {dir_sync} {parent_sync}: {found:?}");
    }
}

#[tokio::test]
async fn the_crash_disk_keeps_what_was_there_and_forgets_unsynced_removals() {
    let root = tempfile::tempdir().unwrap();
    std::fs::create_dir(root.path().join("d")).unwrap();
    std::fs::write(root.path().join("d/old"), "old").unwrap();
    let disk = CrashFileSystem::over(root.path());
    disk.remove(&at(&root.path().join("d/old"))).unwrap();
    assert_eq!(objects_after(&disk, disk.ops(), UnsyncedChanges::Strict).await.len(), 1);
    disk.sync_dir(&OpenDir::root(&root.path().join("d")).unwrap()).unwrap();
    assert_eq!(objects_after(&disk, disk.ops(), UnsyncedChanges::Strict).await.len(), 0);
    assert_eq!(objects_after(&disk, 0, UnsyncedChanges::Strict).await.len(), 1);
}

#[tokio::test]
async fn partial_survival_has_more_than_one_wreck() {
    let root = tempfile::tempdir().unwrap();
    let disk = CrashFileSystem::over(root.path());
    let mut file = disk.create(&at(&root.path().join("k"))).unwrap();
    file.write_all(b"content").unwrap();
    let mut wrecks = Vec::new();
    for seed in 0..64 {
        let wreck = objects_after(&disk, disk.ops(), UnsyncedChanges::Partly { seed }).await;
        assert_eq!(wreck, objects_after(&disk, disk.ops(), UnsyncedChanges::Partly { seed }).await);
        wrecks.push(wreck.get("k").map(Bytes::len));
    }
    for expected in [None, Some(0), Some(7)] {
        assert!(wrecks.contains(&expected), "{expected:?} among {wrecks:?}");
    }
    assert!(wrecks.iter().flatten().any(|len| (1..7).contains(len)), "a torn one among {wrecks:?}");
}
