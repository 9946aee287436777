//! The state directory under a running daemon: deleted, set back, replaced. The daemon knows better who it is.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::rig::{TestDaemon, assert_stays, bucket_site, now, taken_by, wait_for};
use crate::site::{Site, role, words};
use crate::support::invariants::check_journal;

/// Who a node says it is, and how it stands.
fn whoami(site: &Site, name: &str) -> (Value, Value) {
    let run = site.node(name).run(["whoami", "--json"]).expect(0);
    (run.json()["node"]["id"].clone(), role(&run)["state"].clone())
}

fn terms(site: &Site) -> usize {
    site.records().iter().filter(|record| record["kind"] == "takeover").count()
}

#[test]
fn the_state_directory_is_deleted_under_a_daemon() {
    let site = bucket_site("");
    let mut east = TestDaemon::settled(&site, "east", "active");
    let west = TestDaemon::settled(&site, "west", "standby");
    site.backup("east");
    let (id, state) = whoami(&site, "east");
    assert_eq!(state, "active");
    let before = terms(&site);
    let dir = site.path("state-east");
    for round in 0..3 {
        fs::remove_dir_all(&dir).unwrap();
        // At once, and beside it: whoever is asked at this moment.
        assert_eq!(whoami(&site, "east"), (id.clone(), "active".into()), "round {round}");
        site.node("east").run(["is-active", "app"]).expect(0);
        let beside = site.node("east").run(["exec", "app", "--", "true"]).expect(0);
        assert!(!words(&beside).contains("node"), "{}", beside.stderr);
        site.write("file", format!("content {round}"));
        let run = site.backup("east");
        assert_eq!((&run["outcome"], &run["takeover"]), (&"committed".into(), &false.into()), "{run}");
        wait_for("the identity is written again", || fs::read_to_string(dir.join("node.json")).ok());
        wait_for("the socket is made again", || dir.join("daemon.sock").exists().then_some(()));
        assert_eq!(whoami(&site, "east"), (id.clone(), "active".into()), "round {round}");
        // A second daemon beside it is none, whatever the lock's file says.
        site.node("east").run(["daemon"]).expect(1);
    }
    assert!(east.said("is written again, as node"), "{}", east.log());
    assert_eq!(east.status().as_deref(), Some("active"));
    assert_eq!(west.status().as_deref(), Some("standby"));
    assert_eq!(terms(&site), before, "{:?}", site.records());
    assert!(site.records().iter().all(|record| record["kind"] != "clone"));
    let ended = now();
    east.stop();
    taken_by(&site, "west", ended);
    check_journal(&site.node("looker"), "app");
}

#[test]
fn a_state_directory_that_is_set_back_under_a_daemon_is_no_clone() {
    let site = bucket_site("");
    let east = TestDaemon::settled(&site, "east", "active");
    site.backup("east");
    let (id, _) = whoami(&site, "east");
    let (dir, earlier) = (site.path("state-east"), site.path("earlier"));
    assert!(Command::new("cp").arg("-a").args([&dir, &earlier]).status().unwrap().success());
    for round in 0..3 {
        for n in 0..2 {
            site.write("file", format!("content {round} {n}"));
            site.backup("east");
            site.node("east").run(["exec", "app", "--", "true"]).expect(0);
        }
        fs::remove_dir_all(&dir).unwrap();
        assert!(Command::new("cp").arg("-a").args([&earlier, &dir]).status().unwrap().success());
        site.write("file", format!("content {round}, set back"));
        assert_eq!(site.backup("east")["takeover"], false);
        assert_eq!(whoami(&site, "east"), (id.clone(), "active".into()));
        wait_for("it is reached", || dir.join("daemon.sock").exists().then_some(()));
    }
    let text = east.log();
    assert!(!text.contains("cloned") && !text.contains("twice"), "{text}");
    assert!(site.records().iter().all(|record| record["kind"] != "clone"));
}

#[test]
fn a_daemon_whose_state_directory_is_another_nodes_stops_and_says_so() {
    let site = bucket_site("");
    let mut east = TestDaemon::settled(&site, "east", "active");
    let (id, _) = whoami(&site, "east");
    // Who is made a new node by hand is one: the daemon does not go on as the former one.
    site.node("east").run(["init", "--new-identity"]).expect(0);
    let status = east.ends();
    assert_eq!(status.code(), Some(1), "{}", east.log());
    assert!(east.said("state directory was replaced"), "{}", east.log());
    let again = TestDaemon::settled(&site, "east", "active");
    let (now, state) = whoami(&site, "east");
    assert_eq!(state, "active");
    assert_ne!(now, id);
    assert!(site.records().iter().all(|record| record["kind"] != "clone"));
    assert_stays(std::time::Duration::from_secs(3), "it works", || again.status().as_deref() == Some("active"));
}

#[test]
fn a_daemon_that_cannot_be_asked_keeps_others_from_making_an_identity() {
    let site = bucket_site("");
    let east = TestDaemon::settled(&site, "east", "active");
    let dir = site.path("state-east");
    east.signal(rustix::process::Signal::STOP);
    fs::remove_dir_all(&dir).unwrap();
    let refused = site.node("east").run(["exec", "app", "--", "true"]).expect(1);
    assert!(words(&refused).contains("did not answer"), "{refused:?}");
    assert!(!dir.join("node.json").exists(), "{refused:?}");
    east.signal(rustix::process::Signal::CONT);
    wait_for("the identity is written again", || fs::read_to_string(dir.join("node.json")).ok());
    site.backup("east");
}
