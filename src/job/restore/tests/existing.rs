//! Restores over an existing tree.

use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::*;
use crate::job::report::restored::{RestoreBytes, RestoreCounts};
use crate::job::restore::options::OverwritePolicy;

fn touch(path: &Path, mtime: UnixNanos) {
    let time = std::time::UNIX_EPOCH + Duration::from_nanos(mtime.0 as u64);
    std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// A change that keeps size and time is found by `Always`; `IfChanged` does not read the file and counts it as
/// `trusted`.
#[tokio::test(flavor = "multi_thread")]
async fn content_is_compared_and_what_is_believed_is_told() {
    let tmp = tempfile::tempdir().unwrap();
    let fake = Snapshot::new().dir("").file("f", b"right").build();
    let report = run(&fake, into(tmp.path())).await;
    assert_eq!(report.counts.trusted, 0);
    std::fs::write(tmp.path().join("f"), "wrong").unwrap();
    touch(&tmp.path().join("f"), MTIME);
    let report = run(&fake, RestoreOptions { overwrite: OverwritePolicy::IfChanged, ..into(tmp.path()) }).await;
    assert_eq!((report.counts.trusted, report.counts.unchanged), (1, 1));
    let report = run(&fake, into(tmp.path())).await;
    assert_eq!((report.counts.trusted, report.counts.restored), (0, 1));
    assert_restored(&fake, tmp.path());
}

/// The tree contains a hard link to a file outside: that file keeps its owner, mode, time and content.
#[tokio::test(flavor = "multi_thread")]
async fn what_has_a_name_elsewhere_is_replaced_and_not_changed() {
    for overwrite in [OverwritePolicy::Always, OverwritePolicy::IfChanged] {
        let tmp = tempfile::tempdir().unwrap();
        let (tree, outside) = (tmp.path().join("tree"), tmp.path().join("outside"));
        std::fs::create_dir_all(&tree).unwrap();
        let fake = Snapshot::new()
            .dir("")
            .file("content", b"content")
            .with(|e| e.owner.mode = 0o4777)
            .entry("fifo", EntryKind::Fifo)
            .symlink("symlink", "target")
            .xattr("trusted.x", b"x")
            .build();
        std::fs::write(&outside, "content").unwrap();
        touch(&outside, MTIME);
        std::fs::hard_link(&outside, tree.join("content")).unwrap();
        let pipe = tmp.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRUSR).unwrap();
        std::fs::hard_link(&pipe, tree.join("fifo")).unwrap();
        let link = tmp.path().join("link");
        std::os::unix::fs::symlink("target", &link).unwrap();
        std::fs::hard_link(&link, tree.join("symlink")).unwrap();
        let look_outside = || {
            [&outside, &pipe, &link].map(|p| {
                let meta = p.symlink_metadata().unwrap();
                (meta.mode(), meta.uid(), meta.mtime(), meta.mtime_nsec(), meta.ino())
            })
        };
        let before = look_outside();
        let report = run(&fake, RestoreOptions { overwrite, ..into(&tree) }).await;
        assert!(report.is_success(), "{:?}", problems(&report));
        assert_eq!(look_outside(), before);
        assert_restored(&fake, &tree);
        assert_eq!((report.counts.restored, report.bytes.fetched, report.bytes.reused), (3, 0, 7), "{overwrite:?}");
        let again = run(&fake, RestoreOptions { overwrite, ..into(&tree) }).await;
        assert_eq!(again.counts.unchanged, 3);
    }
}

/// Hard links that all lie in the tree stay links of one file.
#[tokio::test(flavor = "multi_thread")]
async fn hard_links_of_the_tree_stay_together() {
    let tmp = tempfile::tempdir().unwrap();
    let fake = Snapshot::new().dir("").file("a", b"content").hardlink("b", "a").dir("d").hardlink("d/c", "a").build();
    run(&fake, into(tmp.path())).await;
    assert_eq!(run(&fake, into(tmp.path())).await.counts.unchanged, 3);
    touch(&tmp.path().join("a"), UnixNanos(7));
    let report = run(&fake, into(tmp.path())).await;
    assert_restored(&fake, tmp.path());
    assert_eq!((report.counts.restored, report.bytes.fetched), (3, 0));
}

/// Files that an interrupted restore left are removed; files that only look similar stay.
#[tokio::test(flavor = "multi_thread")]
async fn leftovers_of_an_interrupted_restore_go() {
    let tmp = tempfile::tempdir().unwrap();
    let fake = Snapshot::new().dir("").dir("d").file("d/f", b"f").build();
    run(&fake, into(tmp.path())).await;
    let left = [".runner-", "d/.runner-"].map(|at| {
        let name = crate::tree::temporary::prefix([9; 8]).replace(".runner-", at);
        tmp.path().join(format!("{name}1"))
    });
    let kept = ["d/.runner-0123456789abcdef-1", "d/.runner-notes"].map(|name| tmp.path().join(name));
    for file in left.iter().chain(&kept) {
        std::fs::write(file, "x").unwrap();
    }
    let report = run(&fake, RestoreOptions { dry_run: true, ..into(tmp.path()) }).await;
    assert_eq!((report.counts.leftovers, left[0].exists()), (0, true));
    {
        // Another restore holds the lock on the target.
        let dir = std::fs::File::open(tmp.path()).unwrap();
        dir.lock_shared().unwrap();
        assert_eq!(run(&fake, into(tmp.path())).await.counts.leftovers, 0);
    }
    let report = run(&fake, into(tmp.path())).await;
    assert_eq!((report.counts.leftovers, report.counts.deleted), (2, 0));
    assert!(left.iter().all(|file| !file.exists()) && kept.iter().all(|file| file.exists()));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_differs_is_fetched() {
    let tmp = tempfile::tempdir().unwrap();
    let mut snapshot = Snapshot::new().dir("");
    for i in 0..1000_u64 {
        snapshot = snapshot.file(format!("f{i:04}"), &noise(i, 4000));
    }
    let fake = snapshot.file("large", &noise(5000, 8 << 20)).build();
    run(&fake, into(tmp.path())).await;
    // 1 % of the files, ten neighbours, and two places of the large file.
    for i in 500..510 {
        std::fs::write(tmp.path().join(format!("f{i:04}")), "changed").unwrap();
    }
    let large = std::fs::File::options().write(true).open(tmp.path().join("large")).unwrap();
    large.write_all_at(&[0; 10], 100_000).unwrap();
    large.write_all_at(&[0; 10], 5_000_000).unwrap();
    fake.fetched.store(0, Ordering::SeqCst);

    let report = run(&fake, into(tmp.path())).await;
    assert_restored(&fake, tmp.path());
    assert_eq!(report.counts, counts(11, 990, 1));
    assert_eq!(report.bytes.reused, (8 << 20) - 2 * fake::CHUNK as u64);
    assert_eq!(report.bytes.written, (8 << 20) + 10 * 4000);
    assert_eq!(report.bytes.fetched, fake.fetched.load(Ordering::SeqCst));
    // One or two frames for the ten files, one for each place.
    assert!(report.bytes.fetched <= 4 * (128 << 10), "{} bytes", report.bytes.fetched);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_longer_or_shorter_file_keeps_what_it_has() {
    let tmp = tempfile::tempdir().unwrap();
    let content = noise(1, 1 << 20);
    let fake = Snapshot::new().file("appended", &content).file("cut", &content).build();
    std::fs::write(tmp.path().join("appended"), [&content[..], b"more"].concat()).unwrap();
    std::fs::write(tmp.path().join("cut"), &content[..1_000_000]).unwrap();
    let report = run(&fake, into(tmp.path())).await;
    assert_restored(&fake, tmp.path());
    let whole_chunks = 1_000_000 / fake::CHUNK as u64 * fake::CHUNK as u64;
    assert_eq!(report.bytes.reused, (1 << 20) + whole_chunks);
    assert!(report.bytes.fetched <= 128 << 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_content_with_another_time_is_touched_only() {
    let tmp = tempfile::tempdir().unwrap();
    let content = noise(1, 100_000);
    let fake = Snapshot::new().file("f", &content).build();
    std::fs::write(tmp.path().join("f"), &content).unwrap();
    let inode = std::fs::metadata(tmp.path().join("f")).unwrap().ino();
    let report = run(&fake, into(tmp.path())).await;
    assert_restored(&fake, tmp.path());
    assert_eq!(report.counts, RestoreCounts { touched: 1, ..RestoreCounts::default() });
    assert_eq!(report.bytes, RestoreBytes::default());
    assert_eq!(std::fs::metadata(tmp.path().join("f")).unwrap().ino(), inode);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_overwrite_does_what_it_says() {
    let tmp = tempfile::tempdir().unwrap();
    let file = tmp.path().join("f");
    let fake = Snapshot::new().dir("").file("f", b"right").file("g", b"new").build();
    let put = || {
        std::fs::write(&file, "wrong").unwrap();
        touch(&file, MTIME);
    };
    for (overwrite, content) in
        [(OverwritePolicy::Never, "wrong"), (OverwritePolicy::IfChanged, "wrong"), (OverwritePolicy::Always, "right")]
    {
        put();
        let _ = std::fs::remove_file(tmp.path().join("g"));
        let report = run(&fake, RestoreOptions { overwrite, ..into(tmp.path()) }).await;
        assert_eq!(std::fs::read_to_string(&file).unwrap(), content, "{overwrite:?}");
        assert_eq!(std::fs::read_to_string(tmp.path().join("g")).unwrap(), "new", "{overwrite:?}");
        assert_eq!(report.counts.skipped, u64::from(overwrite == OverwritePolicy::Never));
        assert!(report.is_success());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_never_a_link_to_a_kept_file_gets_the_snapshots_content() {
    let tmp = tempfile::tempdir().unwrap();
    let fake = Snapshot::new().dir("").file("a", b"snapshot").hardlink("b", "a").hardlink("c", "a").build();
    std::fs::write(tmp.path().join("a"), "kept").unwrap();
    let report = run(&fake, RestoreOptions { overwrite: OverwritePolicy::Never, ..into(tmp.path()) }).await;
    assert!(report.is_success(), "{report:?}");
    let read = |name| std::fs::read_to_string(tmp.path().join(name)).unwrap();
    assert_eq!((read("a"), read("b"), read("c")), ("kept".into(), "snapshot".into(), "snapshot".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn sparse_files_are_compared_with_their_holes() {
    let tmp = tempfile::tempdir().unwrap();
    let data = noise(1, 100_000);
    let fake = Snapshot::new().sparse("s", 10 << 20, &[(4 << 20, &data)]).build();
    run(&fake, into(tmp.path())).await;
    let file = tmp.path().join("s");
    let run_again = async || {
        let report = run(&fake, RestoreOptions { overwrite: OverwritePolicy::Always, ..into(tmp.path()) }).await;
        assert_restored(&fake, tmp.path());
        assert!(std::fs::metadata(&file).unwrap().blocks() * 512 < 200_000);
        report
    };
    assert_eq!(run_again().await.counts.unchanged, 1);
    let open = std::fs::File::options().write(true).open(&file).unwrap();
    open.write_all_at(b"where a hole was", 9 << 20).unwrap();
    touch(&file, MTIME);
    let report = run_again().await;
    assert_eq!((report.counts.restored, report.bytes.fetched, report.bytes.reused), (1, 0, 100_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_stays_below_the_roots_and_leaves_the_excluded() {
    let tmp = tempfile::tempdir().unwrap();
    let fake = Snapshot::new().dir("srv").dir("srv/app").dir("srv/app/d").file("srv/app/d/f", b"f").build();
    let root = tmp.path();
    for dir in ["srv/other", "srv/app/d/gone/deep", "srv/app/half/cache", "srv/app/cache"] {
        std::fs::create_dir_all(root.join(dir)).unwrap();
    }
    let kept = ["top", "srv/beside", "srv/other/x", "srv/app/half/cache/x", "srv/app/cache/y", "srv/app/d/k.keep"];
    let gone = ["srv/app/a", "srv/app/z", "srv/app/d/gone/deep/x", "srv/app/half/x", "srv/app/d/g"];
    for file in kept.iter().chain(&gone) {
        std::fs::write(root.join(file), "x").unwrap();
    }
    std::os::unix::fs::symlink(root, root.join("srv/app/d/out")).unwrap();
    let options = RestoreOptions {
        roots: vec![path("srv/app")],
        delete: true,
        exclude: vec!["cache/".to_owned(), "*.keep".to_owned()],
        ..into(root)
    };
    let report = run(&fake, options).await;
    assert!(report.is_success(), "{report:?}");
    for file in kept {
        assert!(root.join(file).exists(), "{file} was deleted");
    }
    for file in gone {
        assert!(!root.join(file).exists(), "{file} is still there");
    }
    assert!(root.join("srv/app/d/out").symlink_metadata().is_err());
    // The five files, the link, and the directories gone/deep and gone.
    assert_eq!(report.counts.deleted, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn delete_with_paths_stays_below_the_paths() {
    let tmp = tempfile::tempdir().unwrap();
    let fake = Snapshot::new().dir("").dir("a").file("a/f", b"f").dir("b").build();
    for file in ["a/x", "b/x", "x"] {
        let file = tmp.path().join(file);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "x").unwrap();
    }
    let options = RestoreOptions { delete: true, paths: vec![path("a")], ..into(tmp.path()) };
    assert_eq!(run(&fake, options).await.counts.deleted, 1);
    let seen: Vec<_> = look(tmp.path()).into_keys().map(|p| p.display()).collect();
    assert_eq!(seen, ["/a", "/a/f", "/b", "/b/x", "/x"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_directory_in_the_way_goes_only_with_delete() {
    let tmp = tempfile::tempdir().unwrap();
    let fake = Snapshot::new().dir("").file("empty", b"1").file("full", b"2").symlink("link", "x").build();
    let fill = || {
        for name in ["empty", "full", "link"] {
            let _ = std::fs::remove_file(tmp.path().join(name));
            std::fs::create_dir(tmp.path().join(name)).unwrap();
        }
        for name in ["full", "link"] {
            std::fs::write(tmp.path().join(name).join("x"), "x").unwrap();
        }
    };
    fill();
    let report = run(&fake, into(tmp.path())).await;
    assert_eq!(
        problems(&report),
        [
            "/full: a directory that is not empty is in its place",
            "/link: a directory that is not empty is in its place"
        ]
    );
    assert_eq!(std::fs::read(tmp.path().join("empty")).unwrap(), b"1");
    assert!(tmp.path().join("full/x").exists());
    std::fs::remove_dir_all(tmp.path().join("full")).unwrap();
    std::fs::remove_dir_all(tmp.path().join("link")).unwrap();
    std::fs::remove_file(tmp.path().join("empty")).unwrap();
    std::fs::create_dir(tmp.path().join("dummy")).unwrap();
    fill();
    let report = run(&fake, RestoreOptions { delete: true, ..into(tmp.path()) }).await;
    assert!(report.is_success(), "{report:?}");
    assert_restored(&fake, tmp.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_the_way_of_a_directory_goes() {
    let tmp = tempfile::tempdir().unwrap();
    let fake = Snapshot::new().dir("").dir("d").file("d/f", b"f").build();
    std::fs::write(tmp.path().join("d"), "a file").unwrap();
    let never = RestoreOptions { overwrite: OverwritePolicy::Never, ..into(tmp.path()) };
    let report = run(&fake, never).await;
    assert_eq!((report.counts.failed, std::fs::read(tmp.path().join("d")).unwrap().len()), (2, 6));
    assert!(run(&fake, into(tmp.path())).await.is_success());
    assert_restored(&fake, tmp.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_drifted_apart_become_one_file_again() {
    let tmp = tempfile::tempdir().unwrap();
    let fake = Snapshot::new().dir("").file("a", b"one").hardlink("b", "a").symlink("s", "right").build();
    std::fs::write(tmp.path().join("a"), "one").unwrap();
    std::fs::write(tmp.path().join("b"), "one").unwrap();
    std::os::unix::fs::symlink("wrong", tmp.path().join("s")).unwrap();
    assert!(run(&fake, into(tmp.path())).await.is_success());
    assert_restored(&fake, tmp.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn stale_attributes_and_modes_are_set_right() {
    let tmp = tempfile::tempdir().unwrap();
    let fake = Snapshot::new().dir("").dir("d").file("d/f", b"f").with(|e| e.owner.mode = 0o600).build();
    run(&fake, into(tmp.path())).await;
    let (dir, file) = (tmp.path().join("d"), tmp.path().join("d/f"));
    for path in [&dir, &file] {
        rustix::fs::setxattr(path, "user.stale", b"x", rustix::fs::XattrFlags::empty()).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    let report = run(&fake, into(tmp.path())).await;
    assert_eq!(report.counts.touched, 1);
    assert_restored(&fake, tmp.path());
    for path in [&dir, &file] {
        assert!(rustix::fs::getxattr(path, "user.stale", &mut [0; 9]).is_err());
    }
}
