//! Contradictory manifests, damaged repositories, and symbolic or hard links planted by other users.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use super::*;
use crate::ids::PackId;
use crate::job::restore::options::OverwritePolicy;
use crate::tree::write::WriteErrorKind;

/// A target, and beside it a directory that must stay unchanged.
fn stage() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let tmp = tempfile::tempdir().unwrap();
    let (target, outside) = (tmp.path().join("target"), tmp.path().join("outside"));
    std::fs::create_dir(&target).unwrap();
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("b"), "outside").unwrap();
    (tmp, target, outside)
}

fn assert_untouched(outside: &Path) {
    assert_eq!(std::fs::read_dir(outside).unwrap().count(), 1);
    assert_eq!(std::fs::read(outside.join("b")).unwrap(), b"outside");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_of_the_snapshot_is_not_followed() {
    let (_tmp, target, outside) = stage();
    let to = outside.to_str().unwrap();
    let fake = Snapshot::new()
        .dir("")
        .symlink("a", to)
        .file("a/b", b"through the link")
        .dir("a/c")
        .file("a/c/d", b"further")
        .hardlink("a/h", "a")
        .file("z", b"z")
        .build();
    let report = run(&fake, into(&target)).await;
    assert_eq!(report.counts.failed, 4);
    assert!(problems(&report)[0].contains("/a/b: the manifest is not sound"), "{:?}", problems(&report));
    assert_eq!(std::fs::read(target.join("z")).unwrap(), b"z");
    assert_untouched(&outside);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_the_target_is_not_followed() {
    let (_tmp, target, outside) = stage();
    for options in [into(&target), RestoreOptions { delete: true, ..into(&target) }] {
        let _ = std::fs::remove_dir_all(target.join("a"));
        std::os::unix::fs::symlink(&outside, target.join("a")).unwrap();
        let fake = Snapshot::new().dir("").dir("a").file("a/b", b"inside").build();
        assert!(run(&fake, options).await.is_success());
        assert_restored(&fake, &target);
        assert_untouched(&outside);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_above_what_is_restored_stops_it() {
    let (_tmp, target, outside) = stage();
    std::os::unix::fs::symlink(&outside, target.join("a")).unwrap();
    // `a` has no entry of its own: the snapshot does not say that the link should be removed.
    let fake = Snapshot::new().file("a/b", b"inside").dir("a/c").file("a/c/d", b"x").file("z", b"z").build();
    let report = run(&fake, RestoreOptions { roots: vec![path("a/c")], ..into(&target) }).await;
    assert_eq!((report.counts.failed, report.counts.restored), (3, 1), "{report:?}");
    assert!(target.join("a").is_symlink());
    assert_untouched(&outside);
}

#[tokio::test(flavor = "multi_thread")]
async fn in_place_the_way_to_a_root_may_lead_through_the_operators_links() {
    let (_tmp, target, outside) = stage();
    let link = target.join("srv");
    std::os::unix::fs::symlink(&outside, &link).unwrap();
    std::fs::create_dir(outside.join("deep")).unwrap();
    std::os::unix::fs::symlink("/", outside.join("deep/evil")).unwrap();
    let fake = Snapshot::new()
        .dir("srv/deep/app")
        .file("srv/deep/app/f", b"f")
        .dir("srv/deep/evil")
        .file("srv/deep/evil/x", b"x")
        .build();
    let roots = vec![path("srv/deep/app"), path("srv/deep/evil")];
    let options = RestoreOptions { in_place: true, roots, delete: true, ..into(&target) };
    let report = run(&fake, options.clone()).await;
    assert!(report.is_success(), "{:?}", problems(&report));
    let read = |name: &str| std::fs::read_to_string(outside.join("deep").join(name)).unwrap();
    assert_eq!((read("app/f"), read("evil/x")), ("f".to_owned(), "x".to_owned()));
    assert!(link.is_symlink() && !outside.join("deep/evil").is_symlink(), "a root itself is no link");
    assert_eq!(run(&fake, options.clone()).await.counts, counts(0, 2, 2));

    let report = run(&fake, RestoreOptions { in_place: false, ..options.clone() }).await;
    assert_eq!(report.counts.failed, 4, "below another target the same link is a stranger");
    if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::lchown(&link, Some(12345), None).unwrap();
        assert_eq!(run(&fake, options).await.counts.failed, 4, "another user's link is not followed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_at_a_files_place_is_replaced_not_written_through() {
    let (_tmp, target, outside) = stage();
    std::os::unix::fs::symlink(outside.join("b"), target.join("f")).unwrap();
    let fake = Snapshot::new().dir("").file("f", b"inside").build();
    assert!(run(&fake, into(&target)).await.is_success());
    assert_restored(&fake, &target);
    assert_untouched(&outside);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_out_of_order_end_the_restore() {
    let (_tmp, target, outside) = stage();
    for entries in [["b", "a"], ["a", "a"]] {
        let fake = Snapshot::new().file(entries[0], b"1").file(entries[1], b"2").build_as_is();
        let error = try_run(&fake, into(&target)).await.unwrap_err();
        assert!(matches!(&error, RestoreError::Unsorted { path: p } if *p == path(entries[1])), "{error}");
    }
    assert_untouched(&outside);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_contradict_themselves_are_named() {
    let (_tmp, target, _) = stage();
    let fake = Snapshot::new()
        .dir("")
        .file("long", b"12345")
        .with(|e| {
            if let EntryKind::File { size, .. } = &mut e.kind {
                *size = 4;
            }
        })
        .hardlink("before", "later")
        .file("later", b"x")
        .hardlink("self", "self")
        .hardlink("to nothing", "none")
        .hardlink("to the root", "")
        .sparse("wild", 10, &[(8, b"123")])
        .build();
    let report = run(&fake, into(&target)).await;
    assert_eq!(report.counts.failed, 6, "{:?}", problems(&report));
    assert_eq!(look(&target).into_keys().collect::<Vec<_>>(), [path("later")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_frame_costs_its_files_only() {
    let (_tmp, target, _) = stage();
    let mut snapshot = Snapshot::new().dir("");
    for i in 0..64_u64 {
        snapshot = snapshot.file(format!("f{i:02}"), &noise(i, 16 << 10));
    }
    let fake = snapshot.hardlink("g", "f30").file("k", b"kept").build();
    std::fs::write(target.join("f30"), "old content").unwrap();
    let bad = fake.place_of("f30");
    fake.damaged.lock().insert((bad.pack, bad.frame));
    let report = run(&fake, into(&target)).await;
    // Eight chunks share the frame; `g` has no content of its own.
    assert_eq!((report.counts.failed, report.counts.restored), (9, 57), "{:?}", problems(&report));
    assert!(problems(&report)[0].contains("cannot be opened"), "{:?}", problems(&report));
    assert!(problems(&report).last().unwrap().contains("/g: its first name /f30"), "{:?}", problems(&report));
    assert_eq!(std::fs::read_to_string(target.join("f30")).unwrap(), "old content");
    assert!(!target.join("f31").exists() && !target.join("g").exists());
    let names = std::fs::read_dir(&target).unwrap().map(|n| n.unwrap().file_name());
    assert!(names.into_iter().all(|n| !n.as_bytes().starts_with(b".runner")), "a temporary file is left");
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_in_a_sound_frame_are_never_written() {
    let (_tmp, target, _) = stage();
    let fake = Snapshot::new().dir("").file("a", b"aaaa").file("b", b"bbbb").build();
    fake.confuse("a", "b");
    let report = run(&fake, into(&target)).await;
    assert!(problems(&report)[0].contains("/a: chunk"), "{:?}", problems(&report));
    assert_eq!((report.counts.failed, target.join("a").exists()), (1, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_chunk_is_asked_for_again_and_then_named() {
    let (_tmp, target, _) = stage();
    let fake = Snapshot::new().dir("").file("a", b"aaaa").file("b", b"bbbb").build();
    fake.forget(&fake.entries[1].kind.chunks()[0]);
    let report = run(&fake, into(&target)).await;
    assert_eq!(fake.refreshes.load(Ordering::SeqCst), 1);
    assert!(problems(&report)[0].contains("is missing from the repository"), "{:?}", problems(&report));
    assert_eq!((report.counts.failed, report.counts.restored), (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_lost_chunks_do_not_reload_the_index_thousands_of_times() {
    let (_tmp, target, _) = stage();
    let mut snapshot = Snapshot::new().dir("");
    for i in 0..2000_u64 {
        snapshot = snapshot.file(format!("f{i:04}"), &noise(i, 10));
    }
    let fake = snapshot.build();
    for entry in &fake.entries[1..] {
        fake.forget(&entry.kind.chunks()[0]);
    }
    let report = run(&fake, into(&target)).await;
    assert_eq!((report.counts.failed, report.problems.len()), (2000, 1000));
    assert_eq!(fake.refreshes.load(Ordering::SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn packs_that_a_prune_moved_are_found_again() {
    let (_tmp, target, _) = stage();
    let mut fake = Snapshot::new().dir("").file("large", &noise(1, 10 << 20)).build();
    let moved = fake.place_of("large").pack;
    fake.repack(moved, PackId([0xee; 16]));
    let report = run(&fake, into(&target)).await;
    assert!(report.is_success(), "{:?}", problems(&report));
    assert_restored(&fake, &target);
    assert_eq!(fake.refreshes.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_that_is_gone_for_good_costs_its_files_only() {
    let (_tmp, target, _) = stage();
    let fake = Snapshot::new().dir("").file("a", &noise(1, 2 << 20)).file("b", &noise(2, 1 << 20)).build();
    fake.gone.lock().insert(fake.place_of("a").pack);
    let report = run(&fake, into(&target)).await;
    assert_eq!(report.problems.len(), 1, "{:?}", problems(&report));
    assert!(problems(&report)[0].starts_with("/a: ") && problems(&report)[0].contains("is gone"));
    assert_eq!(std::fs::read(target.join("b")).unwrap(), noise(2, 1 << 20));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_vanishes_ends_the_restore_and_leaves_no_half_file() {
    let (_tmp, target, _) = stage();
    let mut fake = Snapshot::new().dir("").file("a", b"first").file("large", &noise(1, 40 << 20)).build();
    Arc::get_mut(&mut fake).unwrap().answers = 3;
    let error = try_run(&fake, into(&target)).await.unwrap_err();
    assert!(error.to_string().contains("does not answer"), "{error}");
    let left: Vec<_> = look(&target).into_keys().map(|p| p.display()).collect();
    assert!(left.iter().all(|p| p == "/a"), "{left:?}");
}

/// While a file is restored in place, its owner keeps exchanging it with a hard link to another user's file.
#[tokio::test(flavor = "multi_thread")]
async fn a_hard_link_that_comes_and_goes_changes_nothing_elsewhere() {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    use std::sync::atomic::AtomicBool;
    let (_tmp, target, outside) = stage();
    let other = outside.join("b");
    let look = || {
        let meta = std::fs::metadata(&other).unwrap();
        (meta.mode(), meta.uid(), meta.mtime(), meta.size())
    };
    let mut snapshot = Snapshot::new().dir("");
    for i in 0..20 {
        snapshot = snapshot.file(format!("f{i:02}"), b"outside").with(|e| e.owner.mode = 0o4777);
    }
    let fake = snapshot.build();
    run(&fake, into(&target)).await;
    let links: Vec<_> = (0..20).map(|i| (target.join(format!("f{i:02}")), target.join(format!("l{i:02}")))).collect();
    for (_, link) in &links {
        std::fs::hard_link(&other, link).unwrap();
    }
    let (before, over) = (look(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                for (file, link) in &links {
                    renameat_with(CWD, file, CWD, link, RenameFlags::EXCHANGE).unwrap();
                }
            }
        });
        tokio::task::block_in_place(|| {
            let runtime = tokio::runtime::Handle::current();
            for overwrite in [OverwritePolicy::Always, OverwritePolicy::IfChanged].repeat(15) {
                runtime.block_on(run(&fake, RestoreOptions { overwrite, ..into(&target) }));
                assert_eq!(look(), before);
            }
        });
        over.store(true, Ordering::Relaxed);
    });
    assert_untouched(&outside);
}

/// The object at the path is no longer the inspected one: its metadata are left alone.
#[test]
fn metadata_are_set_on_what_was_looked_at_and_on_nothing_else() {
    let (_tmp, target, _) = stage();
    let fake = Snapshot::new().file("f", b"x").with(|e| e.owner.mode = 0o600).build();
    let entry = &fake.entries[0];
    let (place, _) = RestoreTarget::open(&target, true, OwnerResolver::new(false), &Env::host()).unwrap();
    std::fs::write(target.join("f"), "x").unwrap();
    let found = place.stat(&entry.path).unwrap().unwrap();
    std::fs::write(target.join("g"), "y").unwrap();
    std::fs::rename(target.join("g"), target.join("f")).unwrap();
    let mode = || std::fs::metadata(target.join("f")).unwrap().mode() & 0o7777;
    let before = mode();
    assert_eq!(place.set_metadata(entry, Some(found.inode)).unwrap_err().kind, WriteErrorKind::Changed);
    assert_eq!(place.open_file(&entry.path, Some(&found)).unwrap_err().kind, WriteErrorKind::Changed);
    // It is the inspected object, and has another name by now.
    let found = place.stat(&entry.path).unwrap().unwrap();
    std::fs::hard_link(target.join("f"), target.join("h")).unwrap();
    assert_eq!(place.set_metadata(entry, Some(found.inode)).unwrap_err().kind, WriteErrorKind::Changed);
    assert_eq!(mode(), before);
    std::fs::remove_file(target.join("h")).unwrap();
    assert!(place.set_metadata(entry, Some(found.inode)).unwrap());
    assert_eq!(mode(), 0o600);
}

/// A user who can write where a file's first name is puts an own file there: it gets no second name where that user
/// cannot write.
#[test]
fn a_further_name_elsewhere_is_of_the_owner_that_the_snapshot_says() {
    let (_tmp, target, _) = stage();
    let fake = Snapshot::new().dir("a").file("a/first", b"x").dir("b").hardlink("b/second", "a/first").build();
    let (place, _) = RestoreTarget::open(&target, true, OwnerResolver::new(true), &Env::host()).unwrap();
    for dir in ["a", "b"] {
        std::fs::create_dir(target.join(dir)).unwrap();
    }
    std::fs::write(target.join("a/first"), "x").unwrap();
    let link = |checked| place.link(&path("a/first"), &fake.entries[3], checked);
    let foreign = if nix::unistd::geteuid().is_root() {
        std::os::unix::fs::chown(target.join("a/first"), Some(65534), None).unwrap();
        fake.entries[3].clone()
    } else {
        ManifestEntry { owner: OwnerAndMode { uid: 0, ..fake.entries[3].owner.clone() }, ..fake.entries[3].clone() }
    };
    let error = place.link(&path("a/first"), &foreign, true).unwrap_err();
    assert_eq!((error.kind, target.join("b/second").exists()), (WriteErrorKind::Changed, false));
    assert_eq!(std::fs::read_dir(target.join("b")).unwrap().count(), 0, "nothing is left behind");
    link(false).unwrap();
    assert!(target.join("b/second").exists());
}
