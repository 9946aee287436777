//! What was backed up comes back, to the byte, the nanosecond and the hole.

use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::site::{Site, below, number, words};
use crate::support::cli::TestNode;
use crate::support::compare::{assert_same, compare_trees};
use crate::support::tree;

/// A restore that must end well, and its report.
#[track_caller]
fn restore(node: &TestNode, target: &Path, more: &[&str]) -> Value {
    let target = target.display().to_string();
    let args = ["restore", "app", "--json", "--target", &target];
    node.run(args.iter().chain(more)).expect(0).json()
}

#[test]
fn a_tree_with_everything_in_it_comes_back_the_same() {
    let site = Site::new("");
    tree::make_rich_tree(&site.src(), 11);
    site.init();
    let run = site.backup("east");
    assert_eq!(run["problem_count"], 0, "{run}");
    let report = restore(&site.node("east"), &site.path("out"), &[]);
    assert_eq!(report["problems"], Value::Array(Vec::new()), "{report}");
    assert_same(&site.src(), &below(&site.path("out"), &site.src()));

    // Once more, from the store and the key alone: no config, no state, another name.
    let rescue = site.node("rescue").without_config();
    let store = format!("file://{}", site.path("store").display());
    let key = site.path("key").display().to_string();
    restore(&rescue, &site.path("rescued"), &["--store", &store, "--key-file", &key]);
    assert_same(&site.src(), &below(&site.path("rescued"), &site.src()));

    // The tree was only read: nothing changed by being backed up or restored.
    let again = site.backup("east");
    assert_eq!((&again["outcome"], number(&again["bytes"]["new"])), (&"unchanged".into(), 0), "{again}");
}

#[test]
fn an_existing_directory_is_fetched_only_where_it_differs() {
    let site = Site::new("");
    tree::make_many_files(&site.src(), 200, 3);
    site.write("large", tree::TreeRng::new(4).noise(20 << 20));
    site.init();
    site.backup("east");
    let node = site.node("east");
    let first = restore(&node, &site.path("out"), &[]);
    assert!(number(&first["bytes"]["fetched"]) > 20 << 20, "{first}");
    assert_eq!(number(&first["entries"]["restored"]), 201, "{first}");

    let again = restore(&node, &site.path("out"), &[]);
    assert_eq!((number(&again["entries"]["unchanged"]), number(&again["bytes"]["written"])), (201, 0), "{again}");

    // One byte in the middle of the large file, one small file gone, one changed behind the restore's back, one too many.
    let out = below(&site.path("out"), &site.src());
    let large = fs::File::options().write(true).open(out.join("large")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&large, b"!", 11 << 20).unwrap();
    fs::remove_file(out.join("d0000/f000010")).unwrap();
    fs::write(out.join("d0000/f000011"), "rubbish").unwrap();
    fs::write(out.join("d0000/extra"), "extra").unwrap();
    let before: Vec<_> = compare_trees(&site.src(), &out);
    let plan = restore(&node, &site.path("out"), &["--dry-run"]);
    assert_eq!(plan["dry_run"], true);
    assert_eq!(number(&plan["entries"]["restored"]), 3, "{plan}");
    assert_eq!(compare_trees(&site.src(), &out), before, "a dry run changes nothing");

    let mended = restore(&node, &site.path("out"), &["--delete"]);
    assert_eq!((number(&mended["entries"]["restored"]), number(&mended["entries"]["deleted"])), (3, 1), "{mended}");
    // The chunk that differs and the frames with the two small files; not the 20 MiB.
    assert!(number(&mended["bytes"]["fetched"]) < 8 << 20, "{mended}");
    assert_same(&site.src(), &out);
}

#[test]
fn only_the_paths_that_are_asked_for_come_back() {
    let site = Site::new("");
    tree::make_many_files(&site.src(), 300, 3);
    site.init();
    site.backup("east");
    let wanted = site.src().join("d0001");
    let report = restore(&site.node("east"), &site.path("out"), &["--path", wanted.to_str().unwrap()]);
    assert_eq!(number(&report["entries"]["restored"]), 100, "{report}");
    let out = below(&site.path("out"), &site.src());
    assert_same(&wanted, &out.join("d0001"));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 1);

    let target = site.path("none").display().to_string();
    let nowhere = site.src().join("not-there").display().to_string();
    let run = site.node("east").run(["restore", "app", "--target", &target, "--path", &nowhere]).expect(1);
    assert!(run.stdout.contains("not-there") || words(&run).contains("not-there"), "{run:?}");
}

#[test]
fn each_snapshot_comes_back_as_it_was() {
    let site = Site::new("");
    site.init();
    let mut ids = Vec::new();
    for turn in 0..4_u8 {
        site.write("changing", [b'0' + turn; 100]);
        site.write(&format!("added-{turn}"), "new");
        if turn > 1 {
            fs::remove_file(site.src().join(format!("added-{}", turn - 1))).unwrap();
        }
        let run = site.backup("east");
        ids.push(run["snapshot"].as_str().unwrap().to_owned());
        let copy = site.path(&format!("copy-{turn}"));
        let copied = std::process::Command::new("cp").arg("-a").arg(site.src()).arg(&copy).status().unwrap();
        assert!(copied.success());
    }
    assert_eq!(site.listed().iter().map(|s| s["id"].as_str().unwrap()).collect::<Vec<_>>(), ids);
    for (turn, id) in ids.iter().enumerate() {
        let out = site.restore(&site.node("west"), &id[..12], &format!("out-{turn}"));
        assert_same(&site.path(&format!("copy-{turn}")), &out);
    }
    let out = site.restore(&site.node("west"), "latest~2", "out");
    assert_same(&site.path("copy-1"), &out);
    let run = site.node("west").run(["restore", "app", "--snapshot", "latest~9", "--target", "/nonexistent"]);
    assert!([1, 2].contains(&run.code.unwrap()) && words(&run).contains("latest~9"), "{run:?}");
}

#[test]
fn a_damaged_pack_fails_the_restore_by_name_and_gives_no_wrong_byte() {
    let site = Site::new("");
    tree::make_many_files(&site.src(), 100, 3);
    site.write("large", tree::TreeRng::new(4).noise(4 << 20));
    site.init();
    site.backup("east");
    // Each pack alone, in its middle: in a frame.
    for pack in site.packs() {
        let path = site.path("store").join(&pack);
        let whole = fs::read(&path).unwrap();
        let mut flipped = whole.clone();
        let at = whole.len() / 2;
        flipped[at] ^= 0x10;
        fs::write(&path, flipped).unwrap();
        let target = site.path("out");
        let run = site.node("east").run(["restore", "app", "--target", target.to_str().unwrap()]).expect(1);
        let id = pack.rsplit('/').next().unwrap();
        assert!(run.stdout.contains(id) || words(&run).contains(id), "{run:?}");
        let out = below(&target, &site.src());
        if out.exists() {
            // What is there under its name is right.
            for file in regular(&out) {
                let name = file.strip_prefix(&out).unwrap();
                assert!(fs::read(&file).unwrap() == fs::read(site.src().join(name)).unwrap(), "{}", name.display());
            }
        }
        let _ = fs::remove_dir_all(&target);
        fs::write(&path, whole).unwrap();
    }
    assert_same(&site.src(), &site.restore(&site.node("east"), "latest", "out"));
}

fn regular(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap() {
            t if t.is_dir() => found.extend(regular(&entry.path())),
            t if t.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}
