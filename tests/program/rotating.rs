//! `key rotate` as an operator, the other nodes and a holder of the old key see it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::site::{Site, number, words};
use crate::support::cli::{ProgramRun, TestNode};
use crate::support::compare::assert_same;
use crate::support::tree::TreeRng;

/// A site whose role moves by a probe, with one snapshot, and a copy of its key.
fn site(seed: u64) -> Site {
    let site = Site::pair("");
    site.write("kept", TreeRng::new(seed).noise(3_000_000));
    site.write("changed", "one");
    site.init();
    site.move_to("east");
    site.backup("east");
    fs::copy(site.path("key"), site.path("old")).unwrap();
    site
}

fn rotate(site: &Site, node: &str, more: &[&str]) -> ProgramRun {
    let new = site.path("new").display().to_string();
    let all = ["key", "rotate", "app", "--new-key-file", &new].into_iter().chain(more.iter().copied());
    site.node(node).run(all.collect::<Vec<_>>())
}

/// A command of a host that has nothing but the store and this key.
fn direct(site: &Site, key: &str, command: &[&str]) -> ProgramRun {
    let (store, key) = (format!("file://{}", site.path("store").display()), site.path(key));
    let all = command.iter().copied().chain(["--store", &store, "--key-file", key.to_str().unwrap()]);
    TestNode::new(&site.path("bare"), "bare").run(all.collect::<Vec<_>>())
}

#[test]
fn a_new_key_goes_round_and_the_old_one_stays_out() {
    let site = site(1);
    let exported = site.path("exported");
    site.node("east").run(["key", "export", "app", "--output", exported.to_str().unwrap()]).expect(0);
    let before = site.objects();
    let dry = rotate(&site, "east", &["--dry-run", "--json"]).expect(0).json();
    assert_eq!((&dry["rotation"]["dry_run"], number(&dry["rotation"]["generation"])), (&true.into(), 1), "{dry}");
    assert_eq!(site.objects(), before);
    assert!(!site.path("new").exists());

    let done = rotate(&site, "east", &["--json"]).expect(0).json();
    assert_eq!((&done["change"], number(&done["generation"])), (&"rotated".into(), 1), "{done}");
    assert_eq!(done["rotation"]["removed"].as_array().unwrap().len(), 1, "{done}");
    assert_eq!(site.path("new").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    assert!(site.objects().iter().all(|key| !key.contains("/rotate/")), "nothing is left staged");

    // Until it is copied both nodes stop, and say why.
    for node in ["east", "west"] {
        site.move_to(node);
        let said = site.refused(node, 1);
        assert!(said.contains("does not open the repository") && said.contains("key rotate"), "{node}: {said}");
    }
    fs::copy(site.path("new"), site.path("key")).unwrap();
    site.write("changed", "two");
    let moved = site.backup("west");
    assert_eq!(moved["outcome"], "committed", "{moved}");
    assert!(number(&moved["bytes"]["new"]) < 100_000, "what is stored is not stored again: {moved}");
    site.move_to("east");
    site.write("added", TreeRng::new(2).noise(100_000));
    site.backup("east");
    site.node("north").run(["verify", "app", "--read-data"]).expect(0);
    site.node("north").run(["repair", "app", "--dry-run"]).expect(0);
    assert_same(&site.src(), &site.restore(&site.node("north"), "latest", "out"));
    let first = site.listed()[0]["id"].as_str().unwrap().to_owned();
    let first = site.restore(&site.node("north"), &first, "first");
    assert_eq!(fs::read(first.join("changed")).unwrap(), b"one");
    let listed = site.node("north").run(["key", "list", "app", "--json"]).expect(0).json();
    let generations: Vec<&Value> = listed["slots"].as_array().unwrap().iter().map(|s| &s["generation"]).collect();
    assert_eq!(generations, [1], "{listed}");

    // The old key file opens nothing, and the old repository key what was written before.
    let refused = direct(&site, "old", &["snapshots", "app"]).expect(1);
    assert!(words(&refused).contains("does not open"), "{}", refused.stderr);
    let old = direct(&site, "exported", &["snapshots", "app", "--json"]);
    assert_eq!(old.json()["snapshots"].as_array().unwrap().len(), 1, "{}", old.stdout);
    assert!(words(&old).contains("generation 1"), "{}", old.stderr);
    let written = direct(&site, "exported", &["backup", "--source", "/etc/hostname", "--role", "app"]);
    assert_ne!(written.code, Some(0), "{}", written.stdout);
    let added = direct(&site, "exported", &["key", "add", "app", "--new-key-file", "/nonexistent/key"]).expect(1);
    assert!(!PathBuf::from("/nonexistent/key").exists(), "{}", added.stderr);
}

#[test]
fn a_rotation_that_is_killed_at_any_moment_is_finished_by_the_next() {
    let (mut killed, mut finished) = (0, 0);
    for round in 0..16 {
        let site = site(round);
        let new = site.path("new").display().to_string();
        let mut command = site.node("east").command(["key", "rotate", "app", "--new-key-file", &new]);
        let mut run = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Some are killed by the clock, some when a certain object is there.
        let is_time = || match round % 4 {
            1 => site.objects().iter().any(|key| key.contains("/rotate/")),
            2 => site.records().iter().any(|record| record["kind"] == "rotate"),
            _ => site.objects().iter().filter(|key| key.contains("/keys/")).count() > 1 || site.path("new").exists(),
        };
        if round % 4 == 0 {
            std::thread::sleep(Duration::from_millis(20 + 10 * round));
        } else {
            while !is_time() && run.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let _ = run.kill();
        killed += usize::from(run.wait().unwrap().code().is_none());

        // The same again; where the old key opens nothing any more it was done.
        let again = rotate(&site, "east", &["--json"]);
        if again.code == Some(0) {
            finished += usize::from(again.json()["rotation"]["finished"] == true);
        } else {
            assert!(words(&again).contains("does not open"), "{}", again.stderr);
        }
        fs::copy(site.path("new"), site.path("key")).unwrap();
        site.write("changed", "two");
        site.backup("east");
        site.node("north").run(["verify", "app", "--read-data"]).expect(0);
        assert_eq!(site.listed().len(), 2);
        assert_eq!(direct(&site, "old", &["snapshots", "app"]).code, Some(1));
    }
    assert!(killed > 4, "{killed} were killed, {finished} finished");
}
