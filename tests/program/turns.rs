//! Whose turn it is: standbys leave quietly, doubts are no yes, a slot is committed once, and one run goes on at a time.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::thread::sleep;
use std::time::Duration;

use runner::env::Env;

use crate::site::{Site, role, wait_for, words};
use crate::support::compare::assert_same;
use crate::support::tree;

#[test]
fn a_standby_leaves_quietly_and_writes_nothing() {
    let site = Site::pair("");
    site.write("file", "content");
    site.init();
    site.move_to("east");
    site.backup("east");
    let objects = site.objects();
    let run = role(&site.node("west").run(["backup", "app", "--json"]).expect(0));
    assert_eq!((&run["outcome"], &run["snapshot"]), (&"standby".into(), &serde_json::Value::Null), "{run}");
    let reason = run["reason"].as_str().unwrap();
    assert!(reason.contains("grep"), "the probe that said no is named: {reason}");
    role(&site.node("west").run(["backup", "app", "--require-active", "--json"]).expect(3));
    assert_eq!(site.objects(), objects);
}

#[test]
fn a_run_by_hand_that_requires_to_be_active_moves_no_role() {
    let site = Site::new("");
    site.write("file", "content");
    site.init();
    site.backup("east");
    let run = role(&site.node("west").run(["backup", "app", "--require-active", "--json"]).expect(3));
    assert_eq!(run["outcome"], "standby", "{run}");
    assert_eq!(site.records().len(), 2, "one takeover, one snapshot");
    let run = site.node("west").run(["backup", "app"]).expect(0);
    assert!(run.stderr.contains("node east had the role last, and this run takes it over"), "{}", run.stderr);
    role(&site.node("west").run(["backup", "app", "--require-active", "--json"]).expect(0));
}

#[test]
fn a_report_that_cannot_be_written_changes_nothing_about_the_commit() {
    let site = Site::new("");
    site.write("file", "content");
    site.init();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = site.node("east").command(["backup", "app"]).stdout(full).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("warning: standard output cannot be written"), "{said}");
    assert_eq!(site.snapshots().len(), 1);
}

#[test]
fn a_standby_needs_no_store() {
    let site = Site::pair("");
    site.write("file", "content");
    site.init();
    site.move_to("east");
    fs::rename(site.path("store"), site.path("elsewhere")).unwrap();
    assert_eq!(role(&site.node("west").run(["backup", "app", "--json"]).expect(0))["outcome"], "standby");
}

/// The distance of the slots in the story of a fallback: long enough for its steps on a busy machine.
const SLOT_SECONDS: i64 = 40;

#[test]
fn a_node_stands_in_when_no_eligible_one_ran_the_slot() {
    let standing_in = |after: &str| {
        format!(
            "every = \"{SLOT_SECONDS}s\"\njitter = \"0s\"\n\
             fallback = {{ command = [\"/bin/sh\", \"-c\", \"test $RUNNER_NODE = west\"], after = \"{after}\" }}\n"
        )
    };
    let site = Site::pair(&standing_in("36400d"));
    site.write("file", "content");
    site.init();
    site.move_to("east");
    site.node("east").run(["backup", "app", "--scheduled"]).expect(0);
    site.move_to("north");
    // Only slots that start after the repository was made are owed. The rest of the story has the time of one slot.
    let into_slot = Env::host().clock.now().as_second() % SLOT_SECONDS;
    sleep(Duration::from_secs((SLOT_SECONDS - into_slot) as u64 + 1));
    let slot = |name: &str| role(&site.node(name).run(["backup", "app", "--scheduled", "--json"]).expect(0));
    let waits = slot("west");
    assert_eq!(waits["outcome"], "standby", "{waits}");
    assert!(waits["reason"].as_str().unwrap().contains("stands in from 21"), "{waits}");
    assert_eq!(role(&site.node("west").run(["whoami", "--json"]).expect(0))["reason"], "fallback");

    site.config(&site.probed(&standing_in("1s")));
    assert_eq!(slot("east")["outcome"], "standby", "its fallback says no");
    assert_eq!(role(&site.node("west").run(["whoami", "--json"]).expect(0))["reason"], "stands_in");
    let stood_in = slot("west");
    assert_eq!((&stood_in["outcome"], &stood_in["takeover"]), (&"unchanged".into(), &true.into()), "{stood_in}");
    assert_eq!(site.records().iter().filter(|r| r["body"]["why"] == "fallback").count(), 1);
    assert_eq!(slot("west")["outcome"], "skipped", "the slot is committed");
    let by_hand = role(&site.node("west").run(["backup", "app", "--json"]).expect(0));
    assert_eq!(by_hand["outcome"], "standby", "nothing is due any more: {by_hand}");

    site.move_to("east");
    assert_eq!(role(&site.node("east").run(["whoami", "--json"]).expect(0))["state"], "active", "no conflict");
    assert_eq!(site.backup("east")["outcome"], "unchanged");
}

#[test]
fn a_node_that_the_config_does_not_list_stands_by() {
    let site = Site::new("nodes = [\"east\", \"west\"]");
    site.write("file", "content");
    site.init();
    assert_eq!(role(&site.node("north").run(["backup", "app", "--json"]).expect(0))["outcome"], "standby");
    assert_eq!(site.backup("west")["outcome"], "committed");
}

#[test]
fn unknown_is_not_yes() {
    let site = Site::pair("");
    site.write("file", "content");
    site.init();
    // Nobody wrote who is active: grep fails with 2, which is neither yes nor no.
    let run = role(&site.node("east").run(["backup", "app", "--json"]).expect(4));
    assert_eq!(run["outcome"], "unknown", "{run}");
    assert_eq!(site.records(), Vec::<serde_json::Value>::new(), "not even a takeover");
    site.config("eligible = { command = [\"/nonexistent/probe\"] }");
    site.refused("east", 4);
    site.config("eligible = { not = { command = [\"/nonexistent/probe\"] } }");
    site.refused("east", 4);
}

#[test]
fn a_slot_is_committed_once_whichever_node_runs() {
    // The slot began a while ago and lasts for years.
    let site = Site::new("every = \"36500d\"\nmissed_after = \"1h\"\njitter = \"0s\"");
    site.write("file", "content");
    site.init();
    let scheduled = |node: &str| role(&site.node(node).run(["backup", "app", "--scheduled", "--json"]).expect(0));
    let first = scheduled("east");
    assert_eq!((&first["outcome"], &first["slot"]), (&"committed".into(), &"1970-01-01T00:00:00Z".into()), "{first}");
    let records = site.records().len();
    for node in ["east", "west", "north"] {
        let run = scheduled(node);
        assert_eq!((&run["outcome"], &run["slot"]), (&"skipped".into(), &first["slot"]), "{run}");
    }
    assert_eq!(site.records().len(), records, "who finds the slot committed does not even take over");
    site.backup("west");
    assert_eq!(scheduled("east")["outcome"], "skipped", "a backup by hand takes no slot and opens none");
}

#[test]
fn of_two_nodes_that_race_for_a_slot_one_commits_it() {
    let site = Site::new("every = \"36500d\"\njitter = \"0s\"");
    tree::make_many_files(&site.src(), 300, 5);
    site.init();
    let codes = site.race(["east", "west", "north"]);
    // 0: committed, or came so late that it found the slot committed. 5: fenced by a later takeover.
    assert!(codes.iter().all(|code| [0, 5].contains(code)) && codes.contains(&0), "{codes:?}");
    let snapshots = site.snapshots();
    assert_eq!(snapshots.len(), 1, "{snapshots:?}");
    assert_eq!(snapshots[0]["slot"], "1970-01-01T00:00:00Z");
    assert_same(&site.src(), &site.restore(&site.node("south"), "latest", "out"));
}

#[test]
fn scheduled_runs_want_a_schedule() {
    let site = Site::new("");
    site.init();
    let run = site.node("east").run(["backup", "app", "--scheduled"]).expect(2);
    assert!(words(&run).contains("no schedule"), "{}", run.stderr);
}

#[test]
fn a_second_run_on_the_same_node_is_refused_while_the_first_goes_on() {
    let site =
        Site::new("[role.app.dumps]\n\"slow\" = { command = [\"sh\", \"-c\", \"echo > DIR/begun; cat DIR/pipe\"] }");
    let slow = fs::read_to_string(site.path("runner.toml")).unwrap().replace("DIR", site.dir().to_str().unwrap());
    fs::write(site.path("runner.toml"), slow).unwrap();
    site.write("file", "content");
    site.init();
    let pipe = site.path("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RWXU).unwrap();
    let mut first = site.node("east").start(["backup", "app"]);
    wait_for(|| site.path("begun").exists());
    let said = site.refused("east", 1);
    assert!(said.contains("another run") && said.contains(&first.id().to_string()), "{said}");
    fs::write(&pipe, "dump").unwrap();
    assert_eq!(first.wait().unwrap().code(), Some(0));
    assert_eq!(site.snapshots().len(), 1);
}

#[test]
fn an_interrupt_ends_a_run_with_130_and_commits_nothing() {
    for signal in [rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let site =
            Site::new("[role.app.dumps]\n\"slow\" = { command = [\"sh\", \"-c\", \"echo > DIR/begun; sleep 1000\"] }");
        let slow = fs::read_to_string(site.path("runner.toml")).unwrap().replace("DIR", site.dir().to_str().unwrap());
        fs::write(site.path("runner.toml"), slow).unwrap();
        site.write("file", "content");
        site.init();
        let mut child = site.node("east").start(["backup", "app"]);
        wait_for(|| site.path("begun").exists());
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, signal).unwrap();
        let status = child.wait().unwrap();
        assert_eq!((status.code(), status.signal()), (Some(130), None));
        assert_eq!(site.snapshots().len(), 0);
        site.config("");
        assert_eq!(site.backup("east")["outcome"], "committed", "and nothing has to be unlocked");
    }
}
