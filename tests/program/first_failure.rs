//! The tests that the lost write-back would have needed: a change triggers a backup, and no change triggers none, whoever asks,
//! and whatever that node remembers.

use std::fs;

use crate::site::{Site, files, number};
use crate::support::compare::assert_same;
use crate::support::tree;

/// A site with some files, backed up once by east.
fn backed_up() -> Site {
    let site = Site::pair("");
    tree::make_many_files(&site.src(), 300, 1);
    site.write("big", tree::TreeRng::new(2).noise(3 << 20));
    site.init();
    site.move_to("east");
    let first = site.backup("east");
    assert_eq!(first["outcome"], "committed");
    assert!(!site.packs().is_empty() && number(&first["bytes"]["new"]) > 3 << 20, "{first}");
    site
}

/// A run that must find nothing to do, and says so.
fn assert_unchanged(site: &Site, node: &str) {
    let (objects, roots) = (site.objects(), site.roots());
    let run = site.backup(node);
    assert_eq!(run["outcome"], "unchanged", "{run}");
    assert_eq!(number(&run["bytes"]["new"]), 0, "{run}");
    let [new, changed, unchanged, removed, unreadable] = files(&run);
    assert_eq!([new, changed, removed, unreadable], [0; 4], "{run}");
    assert!(unchanged > 301, "{run}");

    let now = site.objects();
    let added: Vec<&String> = now.difference(&objects).collect();
    let small = |object: &&String| object.starts_with("app/journal/") || object.starts_with("app/live/nodes/");
    assert!(added.iter().all(small), "only records are written, and that this node is here: {added:?}");
    assert!(objects.is_subset(&now), "and nothing is deleted");
    let after = site.roots();
    assert_eq!(after.len(), roots.len() + 1, "a quiet night is recorded");
    assert_eq!(after.last(), roots.last(), "with the same manifest root");
}

#[test]
fn a_change_triggers_a_backup_of_just_that() {
    let site = backed_up();
    let mut content = fs::read(site.src().join("d0001/f000123")).unwrap();
    content.extend(b"one line more\n");
    fs::write(site.src().join("d0001/f000123"), &content).unwrap();
    let (packs, roots) = (site.packs().len(), site.roots());

    let run = site.backup("east");
    assert_eq!(run["outcome"], "committed", "{run}");
    let [new, changed, unchanged, removed, unreadable] = files(&run);
    assert_eq!([new, changed, removed, unreadable], [0, 1, 0, 0], "{run}");
    assert!(unchanged > 300, "{run}");
    // The file and the part of the manifest that names it; not the 3 MiB beside it.
    let uploaded = number(&run["bytes"]["new"]);
    assert!(uploaded >= content.len() as u64 && uploaded < 1 << 20, "{run}");
    assert!(site.packs().len() > packs);
    assert_ne!(site.roots().last(), roots.last());
    assert_same(&site.src(), &site.restore(&site.node("east"), "latest", "out"));
    assert_unchanged(&site, "east");
}

#[test]
fn additions_removals_and_metadata_are_changes_too() {
    use std::os::unix::fs::PermissionsExt as _;
    let site = backed_up();
    let none = |run: &serde_json::Value| {
        assert_eq!(run["outcome"], "committed", "{run}");
        files(run)
    };
    site.write("d0000/added", "new");
    // The directory's time changes with it.
    assert_eq!(none(&site.backup("east"))[..2], [1, 1]);
    fs::remove_file(site.src().join("d0000/added")).unwrap();
    let [new, changed, _, removed, _] = none(&site.backup("east"));
    assert_eq!([new, changed, removed], [0, 1, 1]);
    fs::set_permissions(site.src().join("big"), fs::Permissions::from_mode(0o600)).unwrap();
    let run = site.backup("east");
    let [new, changed, _, removed, _] = none(&run);
    assert_eq!([new, changed, removed], [0, 1, 0]);
    assert!(number(&run["bytes"]["new"]) < 1 << 20, "content that is there is not uploaded again: {run}");
    assert_same(&site.src(), &site.restore(&site.node("east"), "latest", "out"));
}

#[test]
fn a_change_that_keeps_size_and_mtime_is_seen_where_it_is_made() {
    let site = backed_up();
    let path = site.src().join("d0002/f000200");
    let times = fs::metadata(&path).unwrap().modified().unwrap();
    let mut content = fs::read(&path).unwrap();
    content[0] ^= 1;
    fs::write(&path, &content).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_modified(times).unwrap();
    let run = site.backup("east");
    assert_eq!(files(&run)[1], 1, "{run}");
    assert_same(&site.src(), &site.restore(&site.node("east"), "latest", "out"));
}

#[test]
fn no_change_triggers_no_backup_on_the_same_node() {
    let site = backed_up();
    // What changed within the clock's tick before it was seen is read once more.
    std::thread::sleep(std::time::Duration::from_millis(50));
    assert_unchanged(&site, "east");
    let (packs, run) = (site.packs(), site.backup("east"));
    assert_eq!(number(&run["bytes"]["read"]), 0, "what is known is not even read: {run}");
    assert_eq!(site.packs(), packs);
    assert_unchanged(&site, "east");
}

#[test]
fn no_change_triggers_no_backup_on_another_node() {
    let site = backed_up();
    site.move_to("west");
    let state = site.node("west").state_dir;
    assert!(!state.exists(), "west knows nothing yet");
    assert_unchanged(&site, "west");
    let west = site.records().into_iter().rev().find(|r| r["kind"] == "takeover").unwrap();
    assert_eq!(
        (&west["node"]["name"], &west["term"], &west["body"]["why"]),
        (&"west".into(), &2.into(), &"moved".into())
    );
    assert_unchanged(&site, "west");
    site.move_to("east");
    assert_unchanged(&site, "east");
}

#[test]
fn a_change_is_seen_by_the_other_node() {
    let site = backed_up();
    site.move_to("west");
    fs::write(site.src().join("d0000/f000007"), "changed while the role moved").unwrap();
    let run = site.backup("west");
    assert_eq!((&run["outcome"], files(&run)[1]), (&"committed".into(), 1), "{run}");
    assert!(number(&run["bytes"]["new"]) < 1 << 20, "{run}");
    assert_same(&site.src(), &site.restore(&site.node("west"), "latest", "out"));
}

#[test]
fn no_change_triggers_no_backup_after_all_local_state_is_deleted() {
    let site = backed_up();
    fs::remove_dir_all(site.node("east").state_dir).unwrap();
    assert_unchanged(&site, "east");
    // Neither a part of it, nor rubbish in it.
    let memory = fs::read_dir(site.node("east").state_dir.join("repositories")).unwrap().next().unwrap().unwrap();
    fs::write(memory.path().join("tree"), b"rubbish").unwrap();
    assert_unchanged(&site, "east");
    fs::write(memory.path().join("memory.json"), b"{").unwrap();
    assert_unchanged(&site, "east");
    for index in fs::read_dir(memory.path().join("index")).unwrap() {
        fs::write(index.unwrap().path(), b"rubbish").unwrap();
    }
    fs::remove_file(memory.path().join("tree")).unwrap();
    assert_unchanged(&site, "east");
}

#[test]
fn trusting_mtimes_reads_nothing_on_the_other_node_and_misses_no_change_of_time() {
    let site = Site::pair("takeover_trust = \"mtime\"");
    tree::make_many_files(&site.src(), 100, 1);
    site.init();
    site.move_to("east");
    site.backup("east");
    site.move_to("west");
    assert_eq!(number(&site.backup("west")["bytes"]["read"]), 0);
    fs::write(site.src().join("d0000/f000007"), "changed while the role moved").unwrap();
    site.move_to("north");
    let run = site.backup("north");
    assert_eq!((number(&run["bytes"]["read"]), files(&run)[1]), (28, 1), "{run}");
}

#[test]
fn rehash_reads_everything_and_uploads_nothing() {
    let site = backed_up();
    let packs = site.packs();
    let run = crate::site::role(&site.node("east").run(["backup", "app", "--rehash", "--json"]).expect(0));
    assert_eq!(run["outcome"], "unchanged", "{run}");
    assert_eq!(run["bytes"]["read"], run["bytes"]["source"], "{run}");
    assert_eq!(site.packs(), packs);
}
