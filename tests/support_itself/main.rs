//! The testers' tests: each kind of difference between two trees is planted once and must be seen, alone and by its name.

#[path = "../support/mod.rs"]
mod support;

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use support::compare::{DifferenceKind, compare_trees};
use support::tree;

/// Two equal small trees with one of everything that is compared.
fn pair() -> (tempfile::TempDir, tempfile::TempDir) {
    let (left, right) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for root in [left.path(), right.path()] {
        fs::create_dir(root.join("dir")).unwrap();
        fs::write(root.join("dir/file"), vec![7; 600_000]).unwrap();
        fs::write(root.join("twin"), b"x").unwrap();
        fs::hard_link(root.join("twin"), root.join("twin-2")).unwrap();
        fs::write(root.join("single"), b"x").unwrap();
        symlink("dir/file", root.join("link")).unwrap();
        let sparse = File::create(root.join("sparse")).unwrap();
        sparse.set_len(8 << 20).unwrap();
        sparse.write_all_at(b"end", (8 << 20) - 3).unwrap();
        rustix::fs::lsetxattr(root.join("dir"), "user.a", b"1", XattrFlags::empty()).unwrap();
        rustix::fs::mkfifoat(CWD, root.join("pipe"), Mode::from_raw_mode(0o600)).unwrap();
        std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        for name in ["dir/file", "twin", "single", "link", "sparse", "pipe", "dir", ""] {
            set_time(&root.join(name), 1_600_000_000, 5);
        }
    }
    (left, right)
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Plants something in the right tree, restores the times it moved, and returns what is found, as (path, what).
fn after(plant: impl FnOnce(&Path)) -> Vec<(String, DifferenceKind)> {
    let (left, right) = pair();
    plant(right.path());
    for name in ["dir/file", "twin", "single", "sparse", "dir", ""] {
        let path = right.path().join(name);
        if path.symlink_metadata().is_ok() {
            set_time(&path, 1_600_000_000, 5);
        }
    }
    let found = compare_trees(left.path(), right.path());
    found.into_iter().map(|d| (String::from_utf8(d.path).unwrap(), d.what)).collect()
}

#[test]
fn equal_trees_are_equal_and_sockets_do_not_count() {
    assert_eq!(after(|_| {}), []);
    assert_eq!(after(|root| fs::remove_file(root.join("socket")).unwrap()), []);
}

#[test]
fn one_changed_byte_is_seen_where_it_is() {
    let found = after(|root| {
        let file = OpenOptions::new().write(true).open(root.join("dir/file")).unwrap();
        file.write_all_at(&[8], 500_001).unwrap();
    });
    assert_eq!(found, [("dir/file".into(), DifferenceKind::Content(500_001))]);
}

#[test]
fn size_and_presence_are_seen() {
    let grown = after(|root| {
        OpenOptions::new().append(true).open(root.join("dir/file")).unwrap().write_all(b"+").unwrap();
    });
    assert_eq!(grown, [("dir/file".into(), DifferenceKind::Size(600_000, 600_001))]);
    assert_eq!(
        after(|root| fs::remove_file(root.join("single")).unwrap()),
        [("single".into(), DifferenceKind::OnlyLeft)]
    );
    assert_eq!(after(|root| fs::write(root.join("more"), b"").unwrap()), [("more".into(), DifferenceKind::OnlyRight)]);
}

#[test]
fn another_kind_is_seen() {
    let found = after(|root| {
        fs::remove_file(root.join("pipe")).unwrap();
        fs::write(root.join("pipe"), b"").unwrap();
    });
    assert!(matches!(&found[..], [(path, DifferenceKind::Type(..))] if path == "pipe"), "{found:?}");
}

#[test]
fn metadata_is_seen() {
    let mode = after(|root| fs::set_permissions(root.join("single"), fs::Permissions::from_mode(0o4755)).unwrap());
    assert!(matches!(&mode[..], [(path, DifferenceKind::Mode(_, 0o4755))] if path == "single"), "{mode:?}");
    let root_mode = after(|root| fs::set_permissions(root, fs::Permissions::from_mode(0o711)).unwrap());
    assert!(matches!(&root_mode[..], [(path, DifferenceKind::Mode(_, 0o711))] if path.is_empty()), "{root_mode:?}");

    let (left, right) = pair();
    set_time(&right.path().join("link"), 1_600_000_000, 6);
    set_time(&right.path().join("dir"), -1, 5);
    let found: Vec<DifferenceKind> = compare_trees(left.path(), right.path()).into_iter().map(|d| d.what).collect();
    let wanted = [
        DifferenceKind::Mtime((1_600_000_000, 5), (-1, 5)),
        DifferenceKind::Mtime((1_600_000_000, 5), (1_600_000_000, 6)),
    ];
    assert_eq!(found, wanted);
}

#[test]
fn links_are_seen() {
    let (left, right) = pair();
    fs::remove_file(right.path().join("link")).unwrap();
    symlink("dir/File", right.path().join("link")).unwrap();
    set_time(&right.path().join("link"), 1_600_000_000, 5);
    set_time(right.path(), 1_600_000_000, 5);
    let found: Vec<DifferenceKind> = compare_trees(left.path(), right.path()).into_iter().map(|d| d.what).collect();
    assert_eq!(found, [DifferenceKind::LinkTarget(b"dir/file".to_vec(), b"dir/File".to_vec())]);

    // A hard link that came back as a copy, and a copy that came back as a hard link.
    let copied = after(|root| {
        fs::remove_file(root.join("twin-2")).unwrap();
        fs::write(root.join("twin-2"), b"x").unwrap();
        set_time(&root.join("twin-2"), 1_600_000_000, 5);
    });
    assert_eq!(copied.len(), 2, "{copied:?}");
    assert!(copied.iter().all(|(path, what)| path.starts_with("twin")
        && matches!(what, DifferenceKind::HardLinks(l, r) if l.len() == 2 && r.is_empty())));
    let joined = after(|root| {
        fs::remove_file(root.join("single")).unwrap();
        fs::hard_link(root.join("twin"), root.join("single")).unwrap();
    });
    assert_eq!(joined.len(), 3, "{joined:?}");
    assert!(joined.iter().all(|(_, what)| matches!(what, DifferenceKind::HardLinks(_, r) if r.len() == 3)));
}

#[test]
fn attributes_are_seen() {
    let value = after(|root| rustix::fs::lsetxattr(root.join("dir"), "user.a", b"2", XattrFlags::empty()).unwrap());
    assert_eq!(value, [("dir".into(), DifferenceKind::Xattr(b"user.a".to_vec(), true, true))]);
    let lost = after(|root| rustix::fs::lremovexattr(root.join("dir"), "user.a").unwrap());
    assert_eq!(lost, [("dir".into(), DifferenceKind::Xattr(b"user.a".to_vec(), true, false))]);
    let more = after(|root| rustix::fs::lsetxattr(root.join("single"), "user.b", b"", XattrFlags::empty()).unwrap());
    assert_eq!(more, [("single".into(), DifferenceKind::Xattr(b"user.b".to_vec(), false, true))]);
}

#[test]
fn a_filled_hole_is_seen_and_a_new_one_is_fine() {
    let found = after(|root| {
        let file = OpenOptions::new().write(true).open(root.join("sparse")).unwrap();
        file.write_all_at(&vec![0; 6 << 20], 0).unwrap();
        file.sync_all().unwrap();
    });
    assert!(matches!(&found[..], [(path, DifferenceKind::Sparse(..))] if path == "sparse"), "{found:?}");
}

#[test]
fn what_only_root_can_plant_is_seen() {
    if !rustix::process::geteuid().is_root() {
        // An ordinary user can neither give files away nor make devices: both sides are always equal here.
        return;
    }
    let owner = after(|root| chown(root.join("single"), Some(12), Some(34)).unwrap());
    assert_eq!(owner, [("single".into(), DifferenceKind::Owner((0, 0), (12, 34)))]);

    let (left, right) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let device = |root: &Path, minor| {
        let made = rustix::fs::mknodat(
            CWD,
            root.join("d"),
            FileType::CharacterDevice,
            Mode::RUSR,
            rustix::fs::makedev(1, minor),
        );
        if made.is_ok() {
            set_time(&root.join("d"), 1, 0);
        }
        set_time(root, 1, 0);
        made.is_ok()
    };
    if device(left.path(), 3) && device(right.path(), 5) {
        let found = compare_trees(left.path(), right.path());
        assert!(matches!(&found[..], [d] if d.what == DifferenceKind::Device((1, 3), (1, 5))), "{found:?}");
    }
}

#[test]
fn a_rich_tree_is_what_its_seed_says_and_has_everything() {
    let (one, two, three) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let made = tree::make_rich_tree(one.path(), 1);
    assert_eq!(tree::make_rich_tree(two.path(), 1), made);
    tree::make_rich_tree(three.path(), 2);
    support::compare::assert_same(one.path(), two.path());
    let other = compare_trees(one.path(), three.path());
    assert!(
        other.iter().any(|d| matches!(d.what, DifferenceKind::Content(_)))
            && other.iter().any(|d| matches!(d.what, DifferenceKind::Mtime(..)))
    );

    let hole = one.path().join("sparse/only-a-hole");
    assert!(
        fs::metadata(&hole).unwrap().len() == 16 << 20 && tree::allocated(&hole) < 1 << 20,
        "the file system keeps holes"
    );
    let names: Vec<_> = fs::read_dir(one.path().join("names")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().any(|n| std::str::from_utf8(n.as_bytes()).is_err()));
    assert_eq!(made.owners, rustix::process::geteuid().is_root());
}

#[test]
fn trees_deeper_than_the_kernels_paths_are_compared_to_the_bottom() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tree::beyond_path_max(one.path(), b"down here");
    tree::beyond_path_max(two.path(), b"down there");
    let found = compare_trees(one.path(), two.path());
    let content: Vec<_> = found.iter().filter(|d| matches!(d.what, DifferenceKind::Size(9, 10))).collect();
    assert!(matches!(&content[..], [d] if d.path.len() > 4096), "{found:?}");
}

#[test]
fn many_files_and_a_share_of_them_changed() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    tree::make_many_files(one.path(), 500, 3);
    tree::make_many_files(two.path(), 500, 3);
    let touched = tree::touch_every(two.path(), 100, 4);
    let found = compare_trees(one.path(), two.path());
    assert_eq!(touched.len(), 5);
    assert_eq!(found.iter().filter(|d| matches!(d.what, DifferenceKind::Size(..))).count(), 5);
}

#[test]
fn runs_of_the_program_are_told_apart_by_exit_code_and_files_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let config = support::cli::write_config(dir.path(), "[role.app]\nsources = [\"/srv\"]\n");
    let text = fs::read_to_string(config).unwrap();
    let table: toml::Table = text.parse().unwrap();
    assert!(
        table["store"]["url"].as_str().unwrap().starts_with("file:///") && table["role"]["app"]["sources"].is_array()
    );

    let node = support::cli::TestNode::new(dir.path(), "east").without_config().with_env("RUNNER_CONFIG", "/nowhere");
    let run = node.run(["--version"]);
    let code = run.code.unwrap();
    let said = std::panic::catch_unwind(|| run.expect(code + 1)).unwrap_err();
    assert!(said.downcast_ref::<String>().unwrap().contains("--node east"), "a failure shows the whole command");

    fs::create_dir_all(dir.path().join("store/app/packs/00")).unwrap();
    fs::write(dir.path().join("store/app/packs/00/one"), b"").unwrap();
    fs::write(dir.path().join("store/app/format"), b"").unwrap();
    assert_eq!(support::cli::count_files(dir.path(), "/packs/"), 1);
    assert_eq!(support::cli::count_files(&dir.path().join("missing"), ""), 0);
}

mod promises {
    use serde_json::{Value, json};

    use crate::support::invariants::{CheckedJournal, check_records};

    fn record(seq: u64, term: u64, kind: &str, node: &str, slot: Option<u32>) -> Value {
        let slot = slot.map(|second| format!("2026-11-20T01:00:{second:02}Z"));
        let body = if kind == "end" { json!({ "exit": 0 }) } else { json!({}) };
        json!({ "seq": seq, "term": term, "kind": kind, "node": { "id": node, "name": node }, "slot": slot, "body": body })
    }

    fn good() -> Vec<Value> {
        vec![
            record(1, 1, "takeover", "east", None),
            record(2, 1, "snapshot", "east", Some(2)),
            record(3, 1, "pause", "west", None),
            record(4, 1, "snapshot", "east", None),
            record(5, 2, "takeover", "west", None),
            record(6, 2, "begin", "west", Some(8)),
            record(7, 2, "end", "west", Some(8)),
        ]
    }

    /// Plants something, and returns what is found.
    fn broken(plant: impl FnOnce(&mut Vec<Value>)) -> Vec<String> {
        let mut records = good();
        plant(&mut records);
        check_records(&records).expect_err("it must be seen")
    }

    #[test]
    fn a_good_journal_is_summed_up() {
        let slot = |second: u32, by: &str| (format!("2026-11-20T01:00:{second:02}Z"), by.to_owned());
        let takeovers = vec!["east".to_owned(), "west".to_owned()];
        let kept = check_records(&good()).unwrap();
        assert_eq!(kept, CheckedJournal { slots: vec![slot(2, "east"), slot(8, "west")], takeovers, records: 7 });
        assert_eq!((kept.missed_slots(2).len(), kept.missed_slots(6).len(), kept.commits_by("east")), (2, 0, 1));
        assert_eq!(check_records(&[]).unwrap(), CheckedJournal::default());
    }

    #[test]
    fn each_broken_promise_is_seen() {
        assert_eq!(broken(|r| drop(r.remove(3)))[0], "record 5 (takeover): its place is 4");
        assert_eq!(broken(|r| r[3]["seq"] = json!(3)), ["record 3 (snapshot): its place is 4"]);
        let late = record(8, 1, "snapshot", "east", None);
        let fenced =
            ["term 1, not 2", "by east, who has not taken term 1"].map(|w| format!("record 8 (snapshot): {w}"));
        assert_eq!(broken(|r| r.push(late)), fenced);
        let foreign = record(8, 2, "snapshot", "east", None);
        assert_eq!(broken(|r| r.push(foreign)), ["record 8 (snapshot): by east, who has not taken term 2"]);
        let jump = record(8, 4, "takeover", "east", None);
        assert_eq!(broken(|r| r.push(jump)), ["record 8 (takeover): term 4, not 3"]);
        for kind in ["snapshot", "end"] {
            let twice = record(8, 2, kind, "west", Some(8));
            let what = format!("record 8 ({kind}): slot 2026-11-20T01:00:08Z was committed by record 7");
            assert_eq!(broken(|r| r.push(twice)), [what]);
        }
        // Within what clocks may be apart it is no broken promise.
        let mut back = record(8, 2, "snapshot", "west", None);
        back["slot"] = json!("2026-11-20T00:55:07Z");
        assert_eq!(broken(|r| r.push(back)).len(), 1);
    }
}
