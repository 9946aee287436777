//! A machine cloned with its state directory: the same node ID, the same permit, the same cron line.

use std::path::Path;
use std::process::Command;

use crate::site::{Site, role, words};
use crate::support::cli::TestNode;

/// A copy of a node's state directory, as a clone of its machine has it.
fn clone_of(site: &Site, name: &str) -> TestNode {
    let (from, to) = (site.path("state-east"), site.path(&format!("state-{name}")));
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    site.node(name)
}

fn identity(state: &Path) -> String {
    std::fs::read_to_string(state.join("node.json")).unwrap()
}

#[test]
fn both_sides_find_out_and_stop_until_each_is_a_node_of_its_own() {
    let site = Site::leased("takeover_delay = \"0s\"\n");
    site.write("file", "content");
    site.init();
    site.backup("east");
    let (east, clone) = (site.node("east"), clone_of(&site, "clone"));
    let run = |node: &TestNode| node.run(["backup", "app", "--json"]);

    // Each sees the other's first record; that could be a machine that was set back.
    run(&clone).expect(0);
    let first = run(&east).expect(0);
    assert!(words(&first).contains("cloned with its state directory"), "{}", first.stderr);
    run(&clone).expect(0);
    // The second one could not.
    let found = run(&east).expect(4);
    assert!(found.stdout.contains("--new-identity"), "{}", found.stdout);
    let before = site.snapshots().len();
    for node in [&east, &clone] {
        let refused = role(&run(node).expect(4));
        assert_eq!(refused["outcome"], "unknown", "{refused}");
        let whoami = role(&node.run(["whoami", "--json"]).expect(0));
        assert_eq!((&whoami["state"], &whoami["reason"]), (&"conflict".into(), &"cloned".into()), "{whoami}");
        node.run(["whoami", "--check"]).expect(2);
        node.run(["is-active", "app"]).expect(3);
        node.run(["exec", "app", "--", "true"]).expect(4);
    }
    assert_eq!(site.snapshots().len(), before);
    let kinds: Vec<_> = site.records().iter().map(|r| r["kind"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "clone").count(), 1, "{kinds:?}");
    // A third node goes on with the role.
    assert_eq!(site.backup("north")["outcome"], "unchanged");

    let was = identity(&site.path("state-clone"));
    for (node, name) in [(&east, "east"), (&clone, "clone")] {
        let said = node.run(["init", "--new-identity"]).expect(0).stdout;
        assert!(said.contains("new one"), "{said}");
        assert_ne!(identity(&site.path(&format!("state-{name}"))), was);
        assert_eq!(role(&run(node).expect(0))["takeover"], true, "a new node takes over");
    }
    assert_ne!(identity(&site.path("state-east")), identity(&site.path("state-clone")));
    site.node("north").run(["verify", "app"]).expect(0);
}

/// The kinds of the records.
fn kinds(site: &Site) -> Vec<String> {
    site.records().iter().map(|record| record["kind"].as_str().unwrap().to_owned()).collect()
}

/// What is noted about who appends.
fn notes(site: &Site, node: &str) -> Vec<String> {
    let repositories = site.path(&format!("state-{node}")).join("repositories");
    let repository = std::fs::read_dir(repositories).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(repository.join("authors")).unwrap();
    text.lines().skip(1).map(str::to_owned).collect()
}

#[test]
fn looking_is_no_evidence() {
    let site = Site::new("every = \"36500d\"\njitter = \"0s\"\n");
    site.write("file", "content");
    site.init();
    let east = site.node("east");
    east.run(["backup", "app", "--scheduled"]).expect(0);
    for round in 0..3 {
        // Each backup is by a process of its own, and so is each look between them.
        site.write("file", format!("content {round}"));
        assert_eq!(words(&east.run(["backup", "app"]).expect(0)), "");
        let noted = notes(&site, "east");
        for _ in 0..20 {
            assert_eq!(words(&east.run(["backup", "app", "--scheduled"]).expect(0)), "");
        }
        assert_eq!(notes(&site, "east"), noted, "who only looks leaves nothing");
    }
    assert!(!kinds(&site).contains(&"clone".to_owned()));
}

#[test]
fn what_was_noted_and_is_lost_is_no_evidence() {
    let site = Site::new("");
    site.write("file", "content");
    site.init();
    let east = site.node("east");
    let repositories = site.path("state-east").join("repositories");
    for lost in ["authors", "memory.json", "both", "damaged"] {
        for _ in 0..2 {
            assert_eq!(words(&east.run(["backup", "app"]).expect(0)), "");
        }
        let repository = std::fs::read_dir(&repositories).unwrap().next().unwrap().unwrap().path();
        match lost {
            "both" => std::fs::remove_dir_all(&repositories).unwrap(),
            "damaged" => std::fs::write(repository.join("authors"), "\0\0\0").unwrap(),
            file => std::fs::remove_file(repository.join(file)).unwrap(),
        }
        for _ in 0..2 {
            assert_eq!(words(&east.run(["backup", "app"]).expect(0)), "", "{lost}");
        }
    }
    assert!(!kinds(&site).contains(&"clone".to_owned()));
}

#[test]
fn a_machine_that_was_set_back_is_warned_once_and_goes_on() {
    let site = Site::leased("takeover_delay = \"0s\"\n");
    site.write("file", "content");
    site.init();
    site.backup("east");
    clone_of(&site, "before");
    site.backup("east");
    std::fs::remove_dir_all(site.path("state-east")).unwrap();
    std::fs::rename(site.path("state-before"), site.path("state-east")).unwrap();
    let run = site.node("east").run(["backup", "app"]).expect(0);
    assert!(words(&run).contains("set back"), "{}", run.stderr);
    for _ in 0..3 {
        let run = site.node("east").run(["backup", "app"]).expect(0);
        assert_eq!(words(&run), "", "{}", run.stderr);
    }
    // Operators' acts are this node's own as well.
    site.node("east").run(["pause", "app", "--for", "1ms"]).expect(0);
    site.node("east").run(["resume", "app"]).expect(0);
    assert_eq!(words(&site.node("east").run(["backup", "app"]).expect(0)), "");
}

/// What is noted in memory about this node's processes is lost.
fn forget_memory(site: &Site, node: &str) {
    let dir = runner::file::boot::open(&site.path(&format!("state-{node}"))).unwrap();
    std::fs::remove_dir_all(dir.path()).unwrap();
}

#[test]
fn a_state_directory_that_is_set_back_again_and_again_in_one_boot_is_no_clone() {
    for is_lost in [false, true] {
        let site = Site::leased("takeover_delay = \"0s\"\n");
        site.write("file", "content");
        site.init();
        site.backup("east");
        let (east, state) = (site.node("east"), site.path("state-east"));
        let keep = || drop(std::fs::remove_dir_all(site.path("state-before")).map(|()| clone_of(&site, "before")));
        clone_of(&site, "before");
        for round in 0..5 {
            for _ in 0..2 {
                assert_eq!(words(&east.run(["backup", "app"]).expect(0)), "");
            }
            std::fs::remove_dir_all(&state).unwrap();
            assert!(
                Command::new("cp").arg("-a").args([&site.path("state-before"), &state]).status().unwrap().success()
            );
            if is_lost {
                forget_memory(&site, "east");
            }
            // Its memory knows that the records are its own. Without that it may be a clone, and never is said to be one.
            let said = words(&east.run(["backup", "app"]).expect(0));
            let expected = if is_lost { "cloned with its state directory" } else { "does not know" };
            assert!(said.contains(expected), "round {round}: {said}");
            // What it found is kept and set back as well, now and then.
            if round % 2 == 0 {
                keep();
            }
        }
        assert!(!kinds(&site).contains(&"clone".to_owned()));
        let whoami = role(&east.run(["whoami", "--json"]).expect(0));
        assert_eq!(whoami["state"], "active", "{whoami}");
        forget_memory(&site, "east");
    }
}

#[test]
fn a_node_whose_state_directory_does_not_stay_is_a_new_one_each_time_and_no_clone() {
    let site = Site::leased("takeover_delay = \"0s\"\nbucket_lease_ttl = \"4s\"\n");
    site.write("file", "content");
    site.init();
    let east = site.node("east");
    let state = site.path("state-east");
    for start in 1..=5 {
        let _ = std::fs::remove_dir_all(&state);
        // Another config each time: what an earlier container had is nothing that this one drifts from.
        site.config(&format!("takeover_delay = \"0s\"\nbucket_lease_ttl = \"4s\"\nexclude = [\"*.{start}\"]\n"));
        let run = site.backup("east");
        assert_eq!((&run["term"], &run["takeover"]), (&start.into(), &true.into()), "{run}");
        let whoami = role(&east.run(["whoami", "--json"]).expect(0));
        assert_eq!((&whoami["state"], &whoami["term"]["mine"]), (&"active".into(), &start.into()), "{whoami}");
        let kinds: Vec<&str> =
            whoami["warnings"].as_array().unwrap().iter().map(|found| found["kind"].as_str().unwrap()).collect();
        let expected = if start == 1 { vec!["only_node"] } else { vec!["former_nodes"] };
        assert_eq!(kinds, expected, "{whoami}");
        east.run(["whoami", "--check"]).expect(0);
    }
    let said = east.run(["whoami"]).expect(0).stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(said.contains("4 nodes of this name") && said.contains("container without a volume"), "{said}");
    assert!(site.records().iter().all(|record| record["kind"] != "clone"));
    east.run(["audit"]).expect(0);
    east.run(["verify", "app"]).expect(0);
}
