//! Restores into a new or empty directory.

use std::sync::atomic::Ordering;

use super::*;
use crate::job::report::restored::{RestoreBytes, RestoreProblemKind};

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_entry_comes_back() {
    let tmp = tempfile::tempdir().unwrap();
    let fake = Snapshot::new()
        .dir("")
        .dir("d")
        .with(|e| e.owner.mode = 0o1770)
        .file("d/empty", b"")
        .file("d/small", b"hello")
        .with(|e| e.owner.mode = 0o4755)
        .file("d/large", &noise(1, 5_000_000))
        .symlink("d/link", "/nowhere/at all")
        .entry("d/pipe", EntryKind::Fifo)
        .hardlink("d/small2", "d/small")
        .hardlink("e", "d/large")
        .file(b"caf\xe9\n\x01".to_vec(), b"any byte in a name")
        .file("old", b"before the epoch")
        .with(|e| e.mtime = UnixNanos(-1))
        .dir("sealed")
        .with(|e| e.owner.mode = 0o500)
        .file("sealed/x", b"in a directory without write permission")
        .file("with attributes", b"x")
        .xattr("user.note", b"\0binary\xff")
        .build();
    let target = tmp.path().join("new/below");
    let report = run(&fake, into(&target)).await;
    assert_restored(&fake, &target);
    assert_eq!(problems(&report), [""; 0]);
    assert_eq!(report.counts, counts(11, 0, 3));
    assert_eq!(report.metadata, []);
    let unique: u64 = fake.fetched.load(Ordering::SeqCst);
    assert_eq!((report.bytes.fetched, report.bytes.reused), (unique, 0));
    let mut value = [0; 20];
    let n = rustix::fs::getxattr(target.join("with attributes"), "user.note", &mut value).unwrap();
    assert_eq!(&value[..n], b"\0binary\xff");
    let again = run(&fake, into(&target)).await;
    assert_eq!(again.counts, counts(0, 11, 3), "nothing is left to do: {again:?}");
    assert_eq!(again.bytes, RestoreBytes::default());
    std::fs::set_permissions(target.join("sealed"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn holes_stay_holes() {
    let tmp = tempfile::tempdir().unwrap();
    let (head, tail) = (noise(1, 70_000), noise(2, 4096));
    let fake = Snapshot::new()
        .sparse("sparse", 50 << 20, &[(1 << 20, &head), (40 << 20, &tail)])
        .sparse("hole", 10 << 20, &[])
        .build();
    run(&fake, into(tmp.path())).await;
    assert_restored(&fake, tmp.path());
    let blocks = |name: &str| std::fs::metadata(tmp.path().join(name)).unwrap().blocks() * 512;
    assert!(blocks("sparse") < 200_000, "{}", blocks("sparse"));
    assert_eq!(blocks("hole"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbouring_frames_come_with_few_requests_and_each_once() {
    let tmp = tempfile::tempdir().unwrap();
    let mut snapshot = Snapshot::new();
    for i in 0..400_u64 {
        snapshot = snapshot.file(format!("f{i:03}"), &noise(i, 20_000));
    }
    let fake = snapshot.file("g", &noise(999, 20 << 20)).build();
    let report = run(&fake, into(tmp.path())).await;
    assert_restored(&fake, tmp.path());
    let content = 400 * 20_000 + (20 << 20);
    assert_eq!((report.bytes.fetched, report.bytes.written), (content, content));
    // 28 MB in packs of 2 MiB; some batches end within a pack.
    let requests = fake.requests.load(Ordering::SeqCst);
    assert!(requests <= 80, "{requests} requests");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_batch_before_got_lately_is_not_fetched_again() {
    let mut snapshot = Snapshot::new().dir("");
    for turn in 0..4 {
        snapshot = snapshot.dir(format!("{turn}"));
        for i in 0..12_u64 {
            // Each file is one frame.
            snapshot = snapshot.file(format!("{turn}/{i:02}"), &noise(i, 128 << 10));
        }
    }
    let fake = snapshot.build();
    for dry_run in [true, false] {
        let tmp = tempfile::tempdir().unwrap();
        let report = run(&fake, RestoreOptions { dry_run, ..into(tmp.path()) }).await;
        assert_eq!((report.counts.restored, report.bytes.fetched), (48, 12 * (128 << 10)), "dry: {dry_run}");
    }
    let bad = fake.place_of("0/05");
    fake.damaged.lock().insert((bad.pack, bad.frame));
    let tmp = tempfile::tempdir().unwrap();
    let report = run(&fake, into(tmp.path())).await;
    let named: Vec<String> = report.problems.iter().map(|p| p.path.display()).collect();
    assert_eq!(named, ["/0/05", "/1/05", "/2/05", "/3/05"]);
    assert!(report.problems.iter().all(|p| matches!(p.kind, RestoreProblemKind::Damaged { .. })), "{report:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_beyond_the_kernels_limit_are_restored_and_deleted() {
    let tmp = tempfile::tempdir().unwrap();
    let mut snapshot = Snapshot::new().dir("");
    let mut deep = TreePath::default();
    for _ in 0..40 {
        deep = deep.join(&[b'n'; 200]).unwrap();
        snapshot = snapshot.dir(deep.as_bytes());
    }
    let file = deep.join(b"file").unwrap();
    let fake = snapshot.file(file.as_bytes(), b"deep down").symlink("s", "t").build();
    let report = run(&fake, into(tmp.path())).await;
    assert_eq!((problems(&report), report.counts), (vec![], counts(2, 0, 41)));
    let target = RestoreTarget::open(tmp.path(), false, OwnerResolver::default(), &Env::host()).unwrap().0;
    assert_eq!(std::io::read_to_string(target.open_file(&file, None).unwrap()).unwrap(), "deep down");
    assert_eq!(target.stat(&deep).unwrap().unwrap().mtime, MTIME);
    let again = run(&fake, into(tmp.path())).await;
    assert_eq!(again.counts, counts(0, 2, 41));

    let empty = Snapshot::new().dir("").build();
    let report = run(&empty, RestoreOptions { delete: true, ..into(tmp.path()) }).await;
    assert_eq!((report.counts.deleted, look(tmp.path()).len()), (42, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_255_bytes_are_restored() {
    let tmp = tempfile::tempdir().unwrap();
    let name = "n".repeat(255);
    let fake = Snapshot::new().file(name.as_str(), b"x").symlink(&"l".repeat(255), "x").build();
    assert!(run(&fake, into(tmp.path())).await.is_success());
    assert_restored(&fake, tmp.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn links_whose_first_name_is_left_out_become_links_of_each_other() {
    let tmp = tempfile::tempdir().unwrap();
    let fake = Snapshot::new()
        .dir("")
        .dir("a")
        .file("a/first", b"shared content")
        .dir("b")
        .hardlink("b/one", "a/first")
        .dir("c")
        .hardlink("c/two", "a/first")
        .build();
    let options = RestoreOptions { paths: vec![path("b"), path("c")], ..into(tmp.path()) };
    let report = run(&fake, options.clone()).await;
    assert!(report.is_success() && !tmp.path().join("a").exists(), "{report:?}");
    assert_eq!(std::fs::read(tmp.path().join("b/one")).unwrap(), b"shared content");
    let inode = |p: &str| std::fs::metadata(tmp.path().join(p)).unwrap().ino();
    assert_eq!(inode("b/one"), inode("c/two"));
    let again = run(&fake, options).await;
    assert_eq!((again.counts.restored, again.counts.unchanged), (0, 2));
    // Now the first name is selected too: all three are links of one file.
    run(&fake, into(tmp.path())).await;
    assert_restored(&fake, tmp.path());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selection_takes_its_parents_along_and_says_what_it_missed() {
    let tmp = tempfile::tempdir().unwrap();
    let fake = Snapshot::new()
        .dir("srv")
        .with(|e| e.owner.mode = 0o711)
        .dir("srv/app")
        .file("srv/app/in", b"in")
        .file("srv/app/x.tmp", b"excluded")
        .file("srv/out", b"out")
        .build();
    let options = RestoreOptions {
        roots: vec![path("srv")],
        paths: vec![path("srv/app"), path("srv/none")],
        exclude: vec!["*.tmp".to_owned()],
        ..into(tmp.path())
    };
    let report = run(&fake, options).await;
    assert_eq!(report.unmatched, [path("srv/none")]);
    assert!(!report.is_success());
    let seen = look(tmp.path());
    let paths: Vec<_> = seen.keys().map(TreePath::display).collect();
    assert_eq!(paths, ["/srv", "/srv/app", "/srv/app/in"]);
    assert_eq!(seen[&path("srv")], format!("dir 711 {}", MTIME.0), "it was made, so it gets the snapshot's metadata");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_counts_and_changes_nothing() {
    let tmp = tempfile::tempdir().unwrap();
    let fake = Snapshot::new()
        .dir("")
        .dir("d")
        .file("d/f", &noise(1, 300_000))
        .hardlink("d/g", "d/f")
        .symlink("d/l", "f")
        .build();
    let missing = tmp.path().join("missing");
    let report = run(&fake, RestoreOptions { dry_run: true, ..into(&missing) }).await;
    assert!(report.dry_run && !missing.exists());
    assert_eq!(report.counts, counts(3, 0, 2));
    assert_eq!((report.bytes.fetched, report.bytes.written), (300_000, 300_000));
    assert_eq!(fake.requests.load(Ordering::SeqCst), 0);

    run(&fake, into(tmp.path())).await;
    std::fs::write(tmp.path().join("d/f"), "changed").unwrap();
    std::fs::write(tmp.path().join("extra"), "extra").unwrap();
    let before = look(tmp.path());
    let report = run(&fake, RestoreOptions { dry_run: true, delete: true, ..into(tmp.path()) }).await;
    assert_eq!((report.counts.restored, report.counts.deleted, report.counts.unchanged), (1, 1, 2));
    assert_eq!(look(tmp.path()), before);
}

/// Flags that forbid linking a file or filling a directory are set last, and stay.
#[tokio::test(flavor = "multi_thread")]
async fn file_flags_come_back_when_everything_is_in_place() {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let tmp = tempfile::tempdir_in("/dev/shm").unwrap();
    let fake = Snapshot::new()
        .dir("")
        .dir("closed")
        .xattr("runner.flags", b"i")
        .file("closed/f", b"f")
        .xattr("runner.flags", b"adz")
        .xattr("user.x", b"x")
        .hardlink("g", "closed/f")
        .file("nodump", b"n")
        .xattr("runner.flags", b"d")
        .build();
    let report = run(&fake, into(tmp.path())).await;
    assert!(report.is_success() && report.metadata.is_empty(), "{report:?}");
    assert_restored(&fake, tmp.path());
    let again = run(&fake, into(tmp.path())).await;
    assert_eq!((again.counts.unchanged, again.counts.touched, again.metadata.len()), (3, 0, 0), "{again:?}");
    let mut flags = Vec::new();
    for (name, plain) in
        [("closed", IFlags::IMMUTABLE), ("closed/f", IFlags::APPEND | IFlags::NODUMP), ("nodump", IFlags::NODUMP)]
    {
        let file = std::fs::File::open(tmp.path().join(name)).unwrap();
        let now = ioctl_getflags(&file).unwrap();
        // Flags are cleared so that the directory can be removed at the end.
        ioctl_setflags(&file, now - (IFlags::IMMUTABLE | IFlags::APPEND)).unwrap();
        flags.push(now & (IFlags::IMMUTABLE | IFlags::APPEND | IFlags::NODUMP) == plain);
    }
    assert_eq!(flags, [true; 3]);
}
