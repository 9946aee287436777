//! What the store lost comes back with the next backup, whoever found it, or is named; and nothing is green over it until then.

use std::path::PathBuf;

use serde_json::Value;

use crate::site::{Site, number, role, words};
use crate::support::compare::assert_same;
use crate::support::tree::TreeRng;

/// A site whose role moves by a probe, with a snapshot of three files.
fn site() -> Site {
    let site = Site::pair("");
    for n in 0..3 {
        site.write(&format!("f{n}"), TreeRng::new(n).noise(3_000_000));
    }
    site.init();
    site.move_to("east");
    site.backup("east");
    site
}

/// Deletes the largest pack, and says where it was.
fn lose_pack(site: &Site) -> PathBuf {
    let packs = site.packs();
    let paths = packs.iter().map(|name| site.path("store").join(name));
    let largest = paths.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    std::fs::remove_file(&largest).unwrap();
    largest
}

#[track_caller]
fn assert_healed(site: &Site, run: &Value) {
    assert!(number(&run["loss"]["packs"]) > 0 && number(&run["loss"]["healed_bytes"]) > 1_000_000, "{run}");
    assert_eq!(run["loss"]["missing_files"], 0, "{run}");
    site.node("north").run(["verify", "app", "--read-data"]).expect(0);
    assert_same(&site.src(), &site.restore(&site.node("north"), "latest", "out"));
    for node in ["east", "west"] {
        let look = site.node(node).run(["whoami", "app", "--json"]).expect(0).json();
        let kinds: Vec<&Value> = look["roles"][0]["warnings"].as_array().unwrap().iter().map(|w| &w["kind"]).collect();
        assert!(!kinds.contains(&&"lost".into()), "{kinds:?}");
    }
    assert_eq!(site.backup("east")["loss"], Value::Null);
}

#[test]
fn another_node_and_a_full_look_heal_without_being_told() {
    for way in ["west", "--rehash"] {
        let site = site();
        lose_pack(&site);
        let run = if way == "west" {
            site.move_to("west");
            let run = site.backup("west");
            site.move_to("east");
            run
        } else {
            role(&site.node("east").run(["backup", "app", "--rehash", "--json"]).expect(0))
        };
        assert_healed(&site, &run);
    }
}

#[test]
fn whatever_meets_a_loss_tells_the_next_run_of_every_node() {
    let target = |site: &Site| site.path("target").to_str().unwrap().to_owned();
    let verbs: [fn(&Site, &str) -> Vec<String>; 3] = [
        |_, _| ["verify", "app"].map(str::to_owned).to_vec(),
        |site, target| {
            let all = ["restore", "app", "--target", target].map(str::to_owned).to_vec();
            assert!(!site.path("target").exists());
            all
        },
        |site, _| ["cat".to_owned(), "app".to_owned(), site.src().join("f1").to_str().unwrap().to_owned()].to_vec(),
    ];
    for verb in verbs {
        let site = site();
        lose_pack(&site);
        assert_eq!(site.backup("east")["loss"], Value::Null, "nobody has looked since this morning");
        let run = site.node("north").run(verb(&site, &target(&site)));
        assert_ne!(run.code, Some(0), "{}", run.stdout);
        for node in ["east", "west", "north"] {
            let check = site.node(node).run(["whoami", "app", "--check"]);
            assert_ne!(check.code, Some(0), "{node}: {}", check.stdout);
            assert!(check.stdout.contains("content is lost in the store"), "{node}: {}", check.stdout);
        }
        let status = site.node("east").run(["status"]).expect(0).stdout;
        assert!(status.contains("lost"), "{status}");
        let run = site.backup("east");
        assert_eq!(run["files"]["changed"], 0, "{run}");
        assert_healed(&site, &run);
    }
}

#[test]
fn what_has_no_source_any_more_is_named_until_nothing_needs_it() {
    let site = Site::pair("keep = { last = 1 }\nprune_grace = \"0s\"\n");
    site.write("stays", "stays");
    site.write("goes", TreeRng::new(7).noise(2_000_000));
    site.init();
    site.move_to("east");
    site.backup("east");
    std::fs::remove_file(site.src().join("goes")).unwrap();
    lose_pack(&site);
    site.node("east").run(["verify", "app"]).expect(7);
    let run = site.node("east").run(["backup", "app"]).expect(0);
    let said = run.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("1 file of earlier snapshots cannot be restored") && said.contains("goes in"), "{said}");
    let check = site.node("west").run(["whoami", "app", "--check"]);
    assert!(check.stdout.contains("1 file of earlier snapshots"), "{}", check.stdout);
    site.node("north").run(["verify", "app"]).expect(7);
    assert_same(&site.src(), &site.restore(&site.node("north"), "latest", "out"));
    let pruned = site.node("east").run(["prune", "app", "--json"]).expect(0).json();
    assert_eq!(pruned["packs"]["lost"], 0, "the snapshot that needed it is forgotten: {pruned}");
    site.node("north").run(["verify", "app"]).expect(0);
    assert_eq!(site.backup("east")["loss"], Value::Null, "the index was replaced, so it is compared again");
    let check = site.node("west").run(["whoami", "app", "--check"]);
    assert!(!check.stdout.contains("lost"), "{}", check.stdout);
    assert!(words(&check).is_empty(), "{}", check.stderr);
}

#[test]
fn an_index_object_that_was_lost_comes_back_from_the_nodes_copy() {
    let site = site();
    let index = site.objects().into_iter().find(|name| name.contains("/index/")).unwrap();
    // A run that needs it keeps a copy.
    site.write("f8", "more");
    site.backup("east");
    std::fs::remove_file(site.path("store").join(&index)).unwrap();
    site.write("f9", "another");
    let run = site.node("east").run(["backup", "app", "--rehash"]).expect(0);
    assert!(words(&run).contains(&format!("the store had lost {index}: it is written again")), "{}", run.stderr);
    site.node("north").run(["verify", "app", "--read-data"]).expect(0);
    assert_same(&site.src(), &site.restore(&site.node("north"), "latest", "out"));
}

/// A node compares with what it backed up last, also where that record is void since.
#[test]
fn a_node_whose_last_snapshot_was_damaged_and_repaired_goes_on() {
    let site = site();
    let last = site.path("store/app/journal").join(format!("{:016}", site.records().len()));
    std::fs::write(last, "nothing").unwrap();
    site.node("east").run(["repair", "app"]).expect(0);
    for node in ["west", "east"] {
        site.move_to(node);
        site.backup(node);
    }
    assert_same(&site.src(), &site.restore(&site.node("north"), "latest", "out"));
}

/// The newest snapshots are lost with a pack, and a repair brings them back, with numbers that may be later than its own: what it took
/// out of the index is stored again all the same.
#[test]
fn what_is_lost_of_a_snapshot_that_a_repair_brought_back_is_stored_again() {
    for lost in 1..=2 {
        let site = site();
        site.backup("east");
        site.backup("east");
        let newest = site.records().len();
        for record in newest + 1 - lost..=newest {
            std::fs::remove_file(site.path("store/app/journal").join(format!("{record:016}"))).unwrap();
        }
        lose_pack(&site);
        site.node("east").run(["repair", "app"]).expect(7);
        site.backup("east");
        site.node("north").run(["verify", "app", "--read-data"]).expect(0);
        assert_same(&site.src(), &site.restore(&site.node("north"), "latest", "out"));
    }
}

/// What a repair took out of the index looks like what a broken run left, and is not what it says.
#[test]
fn a_pack_that_a_repair_took_out_is_not_taken_for_one_that_a_broken_run_left() {
    let site = site();
    let sizes = site.packs().into_iter().map(|name| site.path("store").join(name));
    let largest = sizes.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut content = std::fs::read(&largest).unwrap();
    content[100] ^= 1;
    std::fs::write(&largest, content).unwrap();
    site.move_to("west");
    site.node("west").run(["repair", "app", "--read-data"]).expect(7);
    site.backup("west");
    site.node("north").run(["verify", "app", "--read-data"]).expect(0);
    assert_same(&site.src(), &site.restore(&site.node("north"), "latest", "out"));
}

#[test]
fn a_key_slot_that_stays_lost_is_no_success() {
    let site = site();
    for slot in std::fs::read_dir(site.path("store/app/keys")).unwrap() {
        std::fs::remove_file(slot.unwrap().path()).unwrap();
    }
    let east = site.node("east");
    for args in [&["repair", "app", "--dry-run"][..], &["repair", "app"]] {
        let run = east.run(args).expect(7);
        assert!(run.stdout.contains("--key-slot"), "{}", run.stdout);
    }
    east.run(["snapshots", "app"]).expect(1);
    east.run(["repair", "app", "--key-slot"]).expect(0);
    east.run(["repair", "app"]).expect(0);
    site.node("north").run(["snapshots", "app"]).expect(0);
}

/// The first record comes before everything else: nobody takes a repository of which no record is left for a new one.
#[test]
fn a_journal_of_which_nothing_is_left_is_not_taken_for_a_new_one() {
    let site = site();
    let seen = site.listed();
    let journal = site.path("store/app/journal");
    std::fs::remove_dir_all(&journal).unwrap();
    std::fs::create_dir(&journal).unwrap();
    let north = site.node("north");
    let target = site.path("out").to_str().unwrap().to_owned();
    for (args, code) in [
        (&["snapshots", "app"][..], 1),
        (&["restore", "app", "--target", &target], 1),
        (&["restore", "app", "--salvage", "--target", &target], 1),
        (&["verify", "app"], 7),
        (&["repair", "app", "--dry-run"], 7),
    ] {
        let run = north.run(args).expect(code);
        let said = words(&run);
        assert!(!said.contains("no snapshots yet"), "{said}");
    }
    site.move_to("west");
    assert!(site.node("west").run(["backup", "app"]).expect(1).stderr.contains("record 1 is missing"));
    // A node that remembers brings it all back; else a repair lets it go on, and says that it is gone.
    site.move_to("east");
    site.node("east").run(["repair", "app"]).expect(0);
    assert_eq!(site.listed(), seen);
    site.move_to("west");
    site.backup("west");
    assert_same(&site.src(), &site.restore(&north, "latest", "whole"));
}

/// Objects that somebody puts where the next records would be.
#[test]
fn what_is_before_many_objects_that_are_no_records_can_be_read() {
    let site = site();
    let (seen, records) = (site.listed(), site.records().len());
    let id = seen[0]["id"].as_str().unwrap();
    for seq in records + 1..records + 1_100 {
        std::fs::write(site.path("store/app/journal").join(format!("{seq:016}")), "junk").unwrap();
    }
    for node in ["east", "north"] {
        let node = site.node(node);
        let listed = node.run(["snapshots", "app"]).expect(1);
        assert!(listed.stdout.contains(&id[..8]), "{}{}", listed.stdout, listed.stderr);
        let target = |name: &str| site.path(name).to_str().unwrap().to_owned();
        node.run(["restore", "app", "--snapshot", id, "--target", &target("one")]).expect(0);
        node.run(["restore", "app", "--salvage", "--target", &target("two")]).expect(0);
    }
}
