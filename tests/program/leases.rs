//! The lease in the store: who holds it works, who does not leaves, and what a dead or frozen holder leaves behind.

use std::fs;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::site::{Site, role, wait_for, words};
use crate::support::compare::assert_same;
use crate::support::tree;

/// As short as a lease may be that stays alive on a machine full of other tests.
const TTL: &str = "bucket_lease_ttl = \"4s\"\ntakeover_delay = \"0s\"\n";

/// A role with a lease, and a dump that lasts until there is a `DIR/go`; `DIR/begun` is there when it runs.
fn slow(lines: &str) -> Site {
    let site = Site::leased(lines);
    let dump = format!(
        "{lines}[role.app.dumps]\n\"slow\" = {{ command = [\"sh\", \"-c\", \"echo > {0}/begun; until test -e {0}/go; do sleep 0.05; done; echo gone\"] }}\n",
        site.dir().display()
    );
    site.config(&dump);
    site.write("file", "content");
    site.init();
    site
}

fn lease(site: &Site) -> Value {
    serde_json::from_slice(&fs::read(site.path("store/app/live/lease")).unwrap()).unwrap()
}

#[test]
fn it_is_the_default_and_given_up_after_each_run() {
    let site = Site::leased(TTL);
    site.write("file", "content");
    site.init();
    for (node, term) in [("east", 1), ("east", 1), ("west", 2), ("west", 2), ("east", 3)] {
        let run = site.backup(node);
        assert_eq!(run["term"], term, "{run}");
        let lease = lease(&site);
        assert_eq!((&lease["name"], &lease["released"]), (&node.into(), &true.into()), "{lease}");
    }
    let whoami = |node: &str| role(&site.node(node).run(["whoami", "--json"]).expect(0));
    assert_eq!((&whoami("east")["state"], &whoami("west")["state"]), (&"active".into(), &"standby".into()));
    site.node("east").run(["is-active", "app"]).expect(0);
    site.node("west").run(["is-active", "app"]).expect(3);
    site.node("north").run(["is-active", "app"]).expect(3);
}

#[test]
fn while_one_node_works_the_others_leave_and_are_told_who() {
    let site = slow(TTL);
    let mut east = site.node("east").start(["backup", "app"]);
    wait_for(|| site.path("begun").exists());
    let run = role(&site.node("west").run(["backup", "app", "--json"]).expect(0));
    assert_eq!(run["outcome"], "standby", "{run}");
    assert!(run["reason"].as_str().unwrap().contains("east"), "{run}");
    let whoami = role(&site.node("west").run(["whoami", "--json"]).expect(0));
    assert_eq!((&whoami["state"], &whoami["reason"]), (&"standby".into(), &"lease_taken".into()), "{whoami}");
    site.node("west").run(["exec", "app", "--", "true"]).expect(3);
    fs::write(site.path("go"), "").unwrap();
    assert_eq!(east.wait().unwrap().code(), Some(0));
    assert_eq!(site.snapshots().len(), 1);
}

#[test]
fn a_killed_holder_is_waited_out_and_the_next_goes_on() {
    let site = slow(TTL);
    let mut east = site.node("east").start(["backup", "app"]);
    wait_for(|| site.path("begun").exists());
    east.kill().unwrap();
    east.wait().unwrap();
    fs::remove_file(site.path("begun")).unwrap();
    let west = site.node("west").start(["backup", "app"]);
    wait_for(|| site.path("begun").exists());
    fs::write(site.path("go"), "").unwrap();
    assert_eq!(west.wait_with_output().unwrap().status.code(), Some(0));
    let records = site.records();
    let kinds: Vec<_> =
        records.iter().map(|r| (r["kind"].as_str().unwrap(), r["node"]["name"].as_str().unwrap())).collect();
    assert_eq!(kinds, [("takeover", "east"), ("takeover", "west"), ("snapshot", "west")]);
}

#[test]
fn a_holder_that_was_frozen_for_longer_than_its_lease_commits_nothing() {
    let site = slow(TTL);
    tree::make_many_files(&site.src().join("more"), 200, 3);
    let mut east = site.node("east").start(["backup", "app"]);
    wait_for(|| site.path("begun").exists());
    let pid = Pid::from_child(&east);
    kill_process(pid, Signal::STOP).unwrap();
    fs::remove_file(site.path("begun")).unwrap();
    let west = site.node("west").start(["backup", "app"]);
    wait_for(|| site.path("begun").exists());
    kill_process(pid, Signal::CONT).unwrap();
    assert_eq!(east.wait().unwrap().code(), Some(5), "fenced");
    fs::write(site.path("go"), "").unwrap();
    assert_eq!(west.wait_with_output().unwrap().status.code(), Some(0));
    let snapshots = site.snapshots();
    assert_eq!(snapshots.iter().map(|s| &s["node"]["name"]).collect::<Vec<_>>(), ["west"], "{snapshots:?}");
    assert_same(&site.src(), &site.restore(&site.node("north"), "latest", "out"));
    site.node("north").run(["verify", "app", "--read-data"]).expect(0);
}

#[test]
fn two_crontabs_commit_each_slot_once() {
    let site = Site::leased(&format!("{TTL}every = \"36500d\"\n"));
    tree::make_many_files(&site.src(), 300, 5);
    site.init();
    assert_eq!(
        site.race(["east", "west", "north"]),
        [0, 0, 0],
        "with a lease nobody is fenced: the others wait or leave"
    );
    assert_eq!(site.snapshots().len(), 1);
    // Long after the first has finished and given the lease up.
    let late = role(&site.node("south").run(["backup", "app", "--scheduled", "--json"]).expect(0));
    assert_eq!(late["outcome"], "skipped", "{late}");
    assert_eq!(site.records().len(), 2, "one takeover, one snapshot");
}

#[test]
fn nodes_see_each_other_and_a_config_that_differs() {
    let site = Site::leased("takeover_delay = \"0s\"\n");
    site.write("file", "content");
    site.init();
    site.backup("east");
    let whoami = |name: &str| role(&site.node(name).run(["whoami", "--json"]).expect(0));
    let status = whoami("west");
    assert_eq!(status["peers"].as_array().unwrap().len(), 1, "{status}");
    assert_eq!((&status["peers"][0]["name"], &status["warnings"]), (&"east".into(), &serde_json::json!([])));
    assert_eq!(whoami("east")["peers"], serde_json::json!([]), "west only looked");
    site.config("takeover_delay = \"1s\"\n");
    let warnings = whoami("west")["warnings"].clone();
    assert_eq!(
        warnings,
        serde_json::json!([{"kind": "drift", "node": "east", "version": null, "config": true,
            "severity": "warning"}])
    );
    site.backup("east");
    assert_eq!(whoami("west")["warnings"], serde_json::json!([]), "a new config is told at once");
}

#[test]
fn a_pause_holds_on_every_node_until_it_ends() {
    let site = Site::leased(TTL);
    site.write("file", "content");
    site.init();
    site.backup("east");
    let said = site.node("west").run(["pause", "app", "--why", "disk swap"]).expect(0).stdout.clone();
    assert!(said.contains("runner resume app"), "{said}");
    for node in ["east", "west"] {
        let run = role(&site.node(node).run(["backup", "app", "--json"]).expect(0));
        assert_eq!(run["outcome"], "skipped", "{run}");
        let reason = run["reason"].as_str().unwrap();
        assert!(reason.contains("paused on west") && reason.contains("disk swap"), "{reason}");
        let whoami = role(&site.node(node).run(["whoami", "--json"]).expect(0));
        assert_eq!(whoami["state"], "paused", "{whoami}");
        site.node(node).run(["is-active", "app"]).expect(3);
        site.node(node).run(["exec", "app", "--", "true"]).expect(3);
    }
    site.node("east").run(["resume", "app"]).expect(0);
    assert_eq!(site.backup("east")["outcome"], "unchanged");
    site.node("east").run(["pause", "app", "--for", "1ms"]).expect(0);
    assert_eq!(site.backup("east")["outcome"], "unchanged", "it is over by itself");
}

#[test]
fn a_takeover_by_an_operator_holds_against_the_node_that_had_the_role() {
    let site = Site::leased(TTL);
    site.write("file", "content");
    site.init();
    site.backup("east");
    let said = site.node("west").run(["takeover", "app"]).expect(0).stdout.clone();
    assert!(said.contains("work of east"), "{said}");
    let run = role(&site.node("east").run(["backup", "app", "--json"]).expect(0));
    assert_eq!(run["outcome"], "standby", "{run}");
    assert!(run["reason"].as_str().unwrap().contains("operator"), "{run}");
    assert_eq!(site.backup("west")["term"], 3, "its first run is a process of its own");
    let run = role(&site.node("east").run(["backup", "app", "--json"]).expect(0));
    assert_eq!(run["outcome"], "standby", "a run of the node that was given the role ends nothing: {run}");
}

#[test]
fn a_store_that_cannot_hold_a_lease_is_refused_with_a_way_out() {
    let site = Site::leased("bucket_lease_ttl = \"2h\"\n");
    let run = site.node("east").run(["init"]).expect(2);
    assert!(words(&run).contains("bucket_lease_ttl"), "{}", run.stderr);
}
