use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::repo::entry::TreePath;
use crate::tree::exclude::ExcludePatterns;
use crate::tree::problem::PathProblemKind;
use crate::tree::roots::PASS;
use crate::tree::stat::FileType;
use crate::tree::testing::{at, dir, tree_path, without_privileges};

fn options(sources: &[&Path]) -> ScanOptions {
    ScanOptions {
        sources: sources.iter().map(|&s| s.to_owned()).collect(),
        exclude: ExcludePatterns::none(),
        one_file_system: false,
        exclude_caches: false,
        exclude_larger_than: None,
    }
}

fn all(options: ScanOptions) -> Vec<ScanItem> {
    scan(options).unwrap().flatten().collect()
}

/// The paths below `base`, as text.
fn names(found: &[ScanItem], base: &TreePath) -> Vec<String> {
    let below = |f: &ScanItem| {
        let path = f.path().display();
        path.strip_prefix(&base.display()).map(|p| p.trim_start_matches('/').to_owned()).unwrap_or(path)
    };
    found.iter().map(below).collect()
}

fn entries(found: &[ScanItem]) -> impl Iterator<Item = &ScannedEntry> {
    found.iter().filter_map(|f| match f {
        ScanItem::Entry(scanned) => Some(scanned),
        _ => None,
    })
}

/// The tree as the standard library reads it: path → (inode, size, mode).
fn walked(path: &Path, into: &mut BTreeMap<TreePath, (u64, u64, u32)>) {
    let meta = fs::symlink_metadata(path).unwrap();
    into.insert(tree_path(path), (meta.ino(), meta.len(), meta.mode() & 0o7777));
    if meta.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            walked(&entry.unwrap().path(), into);
        }
    }
}

fn assert_equals_a_plain_walk(found: &[ScanItem], source: &Path) {
    let mut expected = BTreeMap::new();
    walked(source, &mut expected);
    let got: Vec<_> =
        entries(found).map(|s| (s.path.clone(), (s.stat.ino, s.stat.size, u32::from(s.stat.mode)))).collect();
    assert_eq!(got.len(), found.len());
    assert!(got.iter().zip(&expected).all(|(a, b)| (&a.0, &a.1) == b), "{got:?}\n{expected:?}");
    assert_eq!(got.len(), expected.len());
}

#[test]
fn every_kind_of_entry_in_path_order() {
    let (dir, base) = dir();
    let p = dir.path();
    fs::create_dir_all(p.join("a/x")).unwrap();
    for name in ["a-b", "a.b", "a/x/y", "a/0", "b"] {
        fs::write(p.join(name), name).unwrap();
    }
    fs::write(p.join(OsStr::from_bytes(b"\xff\n\x01")), "x").unwrap();
    symlink("nowhere", p.join("link")).unwrap();
    symlink("a", p.join("link-to-dir")).unwrap();
    fs::hard_link(p.join("b"), p.join("c")).unwrap();
    nix::unistd::mkfifo(&p.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(p.join("socket")).unwrap();

    let found = all(options(&[p]));
    let expected = [
        "",
        "a",
        "a/0",
        "a/x",
        "a/x/y",
        "a-b",
        "a.b",
        "b",
        "c",
        "fifo",
        "link",
        "link-to-dir",
        "socket",
        "\\xff\\n\\u{1}",
    ];
    // The byte 0xff sorts last.
    assert_eq!(names(&found, &base), expected);
    let kind = |name: &str| entries(&found).find(|s| s.path == at(&base, name)).unwrap().stat.kind;
    assert_eq!(kind("link-to-dir"), FileType::Symlink);
    assert_eq!((kind("fifo"), kind("a"), kind("b")), (FileType::Fifo, FileType::Dir, FileType::File));
    assert!(found.contains(&ScanItem::Skipped { path: at(&base, "socket"), why: SkipReason::Socket }));
    let b = entries(&found).find(|s| s.path == at(&base, "b")).unwrap().stat;
    let meta = fs::metadata(p.join("b")).unwrap();
    assert_eq!((b.ino, b.dev, u64::from(b.nlink), b.size), (meta.ino(), meta.dev(), 2, 1));
    assert_eq!(
        (b.mtime.seconds_and_nanos().0, i64::from(b.mtime.seconds_and_nanos().1)),
        (meta.mtime(), meta.mtime_nsec())
    );
    assert_eq!((b.ctime.seconds_and_nanos().0, b.blocks, b.uid), (meta.ctime(), meta.blocks(), meta.uid()));

    fs::remove_file(p.join("socket")).unwrap();
    assert_equals_a_plain_walk(&all(options(&[p])), p);
}

#[test]
fn several_sources_come_in_path_order_whatever_they_are() {
    let (dir, base) = dir();
    let p = dir.path();
    fs::create_dir_all(p.join("a/x")).unwrap();
    fs::create_dir_all(p.join("a-b")).unwrap();
    fs::write(p.join("file"), "x").unwrap();
    fs::write(p.join("not-named"), "x").unwrap();
    let sources = ["a-b", "file", "a", "a/x"].map(|n| p.join(n));
    let found = all(options(&sources.each_ref().map(PathBuf::as_path)));
    assert_eq!(names(&found, &base), ["a", "a/x", "a-b", "file"]);
}

#[test]
fn a_missing_source_stops_everything() {
    let (dir, _) = dir();
    let error = scan(options(&[dir.path(), &dir.path().join("gone")])).unwrap_err();
    assert_eq!(error.source_path, dir.path().join("gone"));
    assert!(matches!(error.why, ScanErrorKind::Missing));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    /// Names with bytes below, at and above the separator, in any nesting: the walk returns what exists, sorted.
    #[test]
    fn any_tree_comes_whole_and_sorted(paths in prop::collection::vec(prop::collection::vec("[ab \\-.0\u{1}ÿ]{1,3}", 1..5), 0..40)) {
        let (dir, _) = dir();
        for components in paths.iter().filter(|p| p.iter().all(|c| c != "." && c != "..")) {
            // Fails where a file has that name already, which is fine.
            if fs::create_dir_all(dir.path().join(components[..components.len() - 1].join("/"))).is_ok() {
                let _ = fs::write(dir.path().join(components.join("/")), "");
            }
        }
        let found = all(options(&[dir.path()]));
        assert_equals_a_plain_walk(&found, dir.path());
        prop_assert!(found.is_sorted_by(|a, b| a.path() < b.path()));
    }
}

#[test]
fn paths_longer_than_the_kernel_takes() {
    let (dir, base) = dir();
    let roots = SourceRoots::open(&[dir.path().to_owned()]).unwrap();
    let mut path = base;
    for i in 0..60 {
        let parent = roots.open_at(&path, PASS).unwrap();
        let name = format!("{i}{}", "d".repeat(200));
        rustix::fs::mkdirat(&parent, &*name, rustix::fs::Mode::RWXU).unwrap();
        path = path.join(name.as_bytes()).unwrap();
    }
    let deepest = roots.open_at(&path, PASS).unwrap();
    for i in 10..90 {
        rustix::fs::mkdirat(&deepest, &*i.to_string(), rustix::fs::Mode::RWXU).unwrap();
    }
    let found = all(options(&[dir.path()]));
    assert_eq!((found.len(), entries(&found).count()), (141, 141));
    assert_eq!(found[60].path(), &path);
    assert!(path.as_bytes().len() > 12_000);
    // So long that these few entries are more than one task.
    let below: Vec<_> = (10..90).map(|i| at(&path, i.to_string())).collect();
    assert_eq!(found[61..].iter().map(ScanItem::path).collect::<Vec<_>>(), below.iter().collect::<Vec<_>>());
}

#[test]
fn what_is_excluded_is_not_even_opened() {
    let (dir, base) = dir();
    let p = dir.path();
    for path in ["cache/deep", "keep/cache", "build"] {
        fs::create_dir_all(p.join(path)).unwrap();
    }
    for path in ["cache/deep/x", "keep/cache/x", "keep/x.tmp", "keep/y.tmp", "build/out"] {
        fs::write(p.join(path), "").unwrap();
    }
    fs::write(p.join(OsStr::from_bytes(b"\xfe.tmp")), "").unwrap();
    // Opening it would be reported as a problem.
    fs::set_permissions(p.join("cache"), fs::Permissions::from_mode(0o0)).unwrap();
    let anchored = format!("{}/cache", p.display());
    // The source's own name matches a pattern too.
    let own = p.file_name().unwrap().to_str().unwrap();
    let exclude = ExcludePatterns::new(&[&anchored, "*.tmp", "!y.tmp", "build/", own]).unwrap();
    let options = ScanOptions { exclude, ..options(&[p]) };
    let found = without_privileges(|| all(options));
    assert_eq!(names(&found, &base), ["", "keep", "keep/cache", "keep/cache/x", "keep/y.tmp"]);
    assert_eq!(entries(&found).count(), found.len());
}

#[test]
fn of_a_cache_only_the_tag_stays() {
    let (dir, base) = dir();
    let p = dir.path();
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n# This file is a cache directory tag.\n";
    for (name, content) in [("cache", tag), ("short", &tag[..42]), ("other", &tag.to_lowercase())] {
        fs::create_dir_all(p.join(name).join("sub")).unwrap();
        fs::write(p.join(name).join("CACHEDIR.TAG"), content).unwrap();
        fs::write(p.join(name).join("a"), "").unwrap();
    }
    fs::create_dir(p.join("link")).unwrap();
    symlink("../cache/CACHEDIR.TAG", p.join("link/CACHEDIR.TAG")).unwrap();
    fs::write(p.join("link/a"), "").unwrap();
    let found = all(ScanOptions { exclude_caches: true, ..options(&[p]) });
    let whole = |name: &str| ["", "/CACHEDIR.TAG", "/a", "/sub"].map(|below| format!("{name}{below}"));
    let mut expected = vec![String::new(), "cache".into(), "cache/CACHEDIR.TAG".into()];
    expected.extend(["link", "link/CACHEDIR.TAG", "link/a"].map(String::from));
    expected.extend(whole("other").into_iter().chain(whole("short")));
    assert_eq!(names(&found, &base), expected);
    assert_eq!(all(options(&[p])).len(), expected.len() + 2, "only when asked for");
}

#[test]
fn a_source_is_no_cache_whatever_is_put_into_it() {
    let (dir, base) = dir();
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n";
    fs::create_dir_all(dir.path().join("below")).unwrap();
    for name in ["CACHEDIR.TAG", "below/CACHEDIR.TAG"] {
        fs::write(dir.path().join(name), tag).unwrap();
    }
    for name in ["a", "below/a"] {
        fs::write(dir.path().join(name), "").unwrap();
    }
    let found = all(ScanOptions { exclude_caches: true, ..options(&[dir.path()]) });
    assert_eq!(names(&found, &base), ["", "CACHEDIR.TAG", "a", "below", "below/CACHEDIR.TAG"]);
}

#[test]
fn large_files_are_left_out_and_named() {
    let (dir, base) = dir();
    fs::write(dir.path().join("small"), [0; 10]).unwrap();
    fs::write(dir.path().join("large"), [0; 11]).unwrap();
    let found = all(ScanOptions { exclude_larger_than: Some(10), ..options(&[dir.path()]) });
    assert_eq!(found[1], ScanItem::Skipped { path: at(&base, "large"), why: SkipReason::Larger { size: 11 } });
    assert_eq!(names(&found, &base), ["", "large", "small"]);
}

#[test]
fn a_mount_point_is_an_empty_directory() {
    // Every Linux system, container or not, has another file system there.
    let (dev, pts) = (Path::new("/dev"), Path::new("/dev/pts"));
    assert_ne!(fs::metadata(dev).unwrap().dev(), fs::metadata(pts).unwrap().dev(), "/dev/pts is not mounted");
    let below = |one_file_system| {
        let found = all(ScanOptions { one_file_system, ..options(&[dev]) });
        let below = found.iter().filter(|f| f.path().starts_with(&tree_path(pts)));
        below.map(|f| f.path().display()).collect::<Vec<_>>()
    };
    assert_eq!(below(true), ["/dev/pts"]);
    assert!(below(false).contains(&"/dev/pts/ptmx".to_owned()));
    // A source may be a mount point itself.
    assert!(all(ScanOptions { one_file_system: true, ..options(&[pts]) }).len() > 1);
}

#[test]
fn an_unreadable_directory_is_named_and_the_rest_goes_on() {
    let (dir, base) = dir();
    fs::create_dir_all(dir.path().join("closed/below")).unwrap();
    fs::create_dir_all(dir.path().join("listed/below")).unwrap();
    fs::write(dir.path().join("z"), "").unwrap();
    let mode = |name, mode| fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
    mode("closed", 0o700);
    // The names in it can be read, but not their metadata.
    mode("listed", 0o744);
    let found = without_privileges(|| all(options(&[dir.path()])));
    assert_eq!(names(&found, &base), ["", "closed", "closed", "listed", "listed/below", "z"]);
    for (index, path) in [(2, "closed"), (4, "listed/below")] {
        let ScanItem::Problem(problem) = &found[index] else { panic!("{:?}", found[index]) };
        assert_eq!(problem.path, at(&base, path));
        assert!(matches!(&problem.kind, PathProblemKind::Unreadable(why) if why.contains("ermission")), "{problem:?}");
    }
}

#[test]
fn what_vanishes_under_the_walk_is_reported_and_harms_nothing() {
    let (dir, base) = dir();
    let p = dir.path();
    for i in 0..200 {
        fs::create_dir(p.join(format!("d{i}"))).unwrap();
        fs::write(p.join(format!("d{i}/stays")), "").unwrap();
    }
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                for i in 0..200 {
                    fs::create_dir_all(p.join(format!("d{i}/goes/below"))).unwrap();
                    fs::write(p.join(format!("d{i}/goes.txt")), "").unwrap();
                }
                for i in 0..200 {
                    fs::remove_dir_all(p.join(format!("d{i}/goes"))).unwrap();
                    fs::remove_file(p.join(format!("d{i}/goes.txt"))).unwrap();
                }
            }
        });
        for _ in 0..50 {
            let found = all(options(&[p]));
            assert!(found.is_sorted_by(|a, b| a.path() <= b.path()));
            for problem in found.iter().filter_map(|f| if let ScanItem::Problem(p) = f { Some(p) } else { None }) {
                assert_eq!(problem.kind, PathProblemKind::Vanished, "{problem:?}");
                assert!(problem.path.display().contains("/goes"));
            }
            let stays = entries(&found).filter(|s| s.path.name() == b"stays").count();
            assert_eq!(stays, 200);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(names(&all(options(&[&p.join("d7")])), &at(&base, "d7")), ["", "stays"]);
}

/// Waits until `done`, with a time limit.
fn eventually(what: &str, done: impl Fn() -> bool) {
    for _ in 0..6000 {
        if done() {
            return;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}

#[test]
fn fifty_thousand_names_in_one_directory_with_bounded_run_ahead() {
    let (dir, base) = dir();
    for i in 0..50_000 {
        fs::File::create(dir.path().join(format!("{i}"))).unwrap();
    }
    // The empty directory right in the middle comes at its place in the order.
    fs::create_dir(dir.path().join("25000-dir")).unwrap();
    let weight =
        |found: &[ScanItem]| -> usize { found.iter().map(|f| size_of::<ScanItem>() + f.path().as_bytes().len()).sum() };
    let mut scan = scan(options(&[dir.path()])).unwrap();
    let mut found = vec![];
    // No consumer yet: the walkers stop at the limit, after each has finished its task.
    eventually("the walkers stop", || scan.shared.lock().walkers_waiting == WALKERS);
    let waiting = scan.shared.lock().queue.ready();
    assert!((RUN_AHEAD..RUN_AHEAD + WALKERS * 2 * BATCH).contains(&waiting), "{waiting}");
    // The consumer reads: the walkers continue to the end.
    for batch in scan.by_ref() {
        assert!(!batch.is_empty() && weight(&batch) < 4 * BATCH);
        found.extend(batch);
    }
    assert!(scan.next().is_none());
    let mut expected: Vec<_> = (0..50_000).map(|i| at(&base, i.to_string())).collect();
    expected.extend([base.clone(), at(&base, "25000-dir")]);
    expected.sort();
    assert!(weight(&found) > RUN_AHEAD + RESUME);
    assert_eq!(found.iter().map(ScanItem::path).collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
}

#[test]
fn a_deep_and_wide_tree_stays_below_the_limit_too() {
    let (dir, base) = dir();
    // Each level has as many entries behind its directory as a task holds.
    let mut path = dir.path().to_owned();
    for _ in 0..30 {
        for i in 0..400 {
            fs::File::create(path.join(format!("z{i}"))).unwrap();
        }
        path.push("a".repeat(60));
        fs::create_dir(&path).unwrap();
    }
    let mut scan = scan(options(&[dir.path()])).unwrap();
    let (mut most, mut count, mut last) = (0, 0, base);
    loop {
        eventually("the walkers stop or end", || {
            let state = scan.shared.lock();
            state.walkers_waiting == WALKERS || Arc::strong_count(&scan.shared) == 1
        });
        most = most.max(scan.shared.lock().queue.ready());
        let Some(batch) = scan.next() else { break };
        for found in batch {
            count += 1;
            assert!(count == 1 || last < *found.path());
            last = found.path().clone();
        }
    }
    assert_eq!(count, 1 + 30 * 401);
    assert!((RUN_AHEAD..RUN_AHEAD + (WALKERS + 1) * BATCH * 2).contains(&most), "{most}");
}

#[test]
fn dropping_a_walk_ends_its_threads() {
    let (dir, _) = dir();
    for i in 0..3000 {
        fs::create_dir(dir.path().join(format!("{i}"))).unwrap();
        fs::create_dir(dir.path().join(format!("{i}/{}", "x".repeat(200)))).unwrap();
    }
    let mut scan = scan(options(&[dir.path()])).unwrap();
    assert!(scan.next().is_some());
    let threads = Arc::downgrade(&scan.shared);
    drop(scan);
    eventually("the threads end", || threads.strong_count() == 0);
}

#[test]
fn what_a_restore_has_not_completed_is_left_out() {
    let (dir, base) = dir();
    let name = format!("{}a0", crate::tree::temporary::prefix([3; 8]));
    fs::write(dir.path().join(&name), "half").unwrap();
    fs::create_dir(dir.path().join(name.replace("-a0", "-a1"))).unwrap();
    fs::write(dir.path().join(".runner-0303030303030303-a0"), "mine").unwrap();
    let found = all(options(&[dir.path()]));
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().all(|f| f.path() != &at(&base, &name)));
}

/// Deeply nested directories, which take next to no space: the walk ends, and names the path.
#[test]
fn a_directory_with_an_endless_path_is_named_and_not_entered() {
    let (dir, base) = dir();
    let roots = SourceRoots::open(&[dir.path().to_owned()]).unwrap();
    let mut path = base;
    let name = "d".repeat(250);
    for _ in 0..300 {
        let parent = roots.open_at(&path, PASS).unwrap();
        rustix::fs::mkdirat(&parent, &*name, rustix::fs::Mode::RWXU).unwrap();
        path = path.join(name.as_bytes()).unwrap();
    }
    let found = all(options(&[dir.path()]));
    let (problems, rest): (Vec<_>, Vec<_>) = found.iter().partition(|f| matches!(f, ScanItem::Problem(_)));
    let [ScanItem::Problem(problem)] = problems[..] else { panic!("{problems:?}") };
    assert_eq!(Some(&problem.path), rest.last().map(|f| f.path()));
    assert!((16 << 10..17 << 10).contains(&problem.path.as_bytes().len()));
    assert!(matches!(&problem.kind, PathProblemKind::Unreadable(why) if why.contains("bytes")), "{problem:?}");
}
