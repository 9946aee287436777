//! The story that made all this necessary: a standby cloned from its primary, crontab included. The same cron line on both
//! nodes, guarded by the address, and not guarded at all.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::netns::{East, LanHost, West};
use crate::site::{Site, wait_for};
use crate::support::cli::TestNode;
use crate::support::invariants::check_journal;
use crate::{Pair, ended_well};

const EVERY: i64 = 2;
const SCHEDULE: &str = "every = \"2s\"\njitter = \"0s\"\n";

/// How many slots a stage of the story lasts.
const STAGE: usize = 7;

/// Both crons: more often than a slot comes, so that each is tried for several times.
const CRON: Duration = Duration::from_millis(300);

/// What the runs of a cron line ended with: how often each code came on a node, and what the first strange one said, or else the last.
type Ends = BTreeMap<(String, i32), (usize, String)>;

/// Runs all nodes' cron lines as long as the story goes on.
#[track_caller]
fn crons(nodes: &[TestNode], ends_well: fn(i32) -> bool, story: impl FnOnce()) -> String {
    let over = AtomicBool::new(false);
    let ends: Ends = thread::scope(|scope| {
        let cron = |node: &TestNode| {
            let mut ends = Ends::new();
            while !over.load(Ordering::Relaxed) {
                let run = node.run(["backup", "app", "--scheduled"]);
                let code = run.code.expect("no signal");
                let (count, said) = ends.entry((node.name.clone(), code)).or_default();
                if *count == 0 || ends_well(code) {
                    *said = run.stdout + &run.stderr;
                }
                *count += 1;
                thread::sleep(CRON);
            }
            ends
        };
        let running: Vec<_> = nodes.iter().map(|node| scope.spawn(move || cron(node))).collect();
        // A story that fails ends the crons as well.
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(story));
        over.store(true, Ordering::Relaxed);
        let ends = running.into_iter().flat_map(|cron| cron.join().unwrap()).collect();
        told.unwrap_or_else(|why| std::panic::resume_unwind(why));
        ends
    });
    let strange: Vec<_> = ends.iter().filter(|((_, code), _)| !ends_well(*code)).collect();
    assert!(strange.is_empty(), "{strange:#?}");
    ends.iter().map(|((node, code), (count, _))| format!("{node} {count} times {code}")).collect::<Vec<_>>().join(", ")
}

/// Waits until `more` more slots are committed, and writes a file into each.
#[track_caller]
fn wait_for_commits(site: &Site, by: Option<&str>, more: usize) {
    let count = || {
        let by_it = |r: &&serde_json::Value| by.is_none_or(|by| r["node"]["name"] == by);
        site.snapshots().iter().filter(by_it).count()
    };
    let before = count();
    for n in 0..6000 {
        let done = count() - before;
        if done >= more {
            return;
        }
        if n % 20 == 0 {
            site.write(&format!("{}-{done}", by.unwrap_or("any")), format!("{n}"));
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{by:?} does not commit");
}

#[test]
fn two_crons_with_the_address_as_their_guard() {
    let pair = Pair::with_vip(SCHEDULE);
    let codes = crons(&LanHost::BOTH.map(|side| pair.node(side)), ended_well, || {
        wait_for_commits(&pair.site, Some("east"), STAGE);
        pair.lan.link_down(East);
        wait_for_commits(&pair.site, Some("west"), STAGE);
        pair.lan.link_up(East);
        pair.lan.pull_cable(West);
        wait_for_commits(&pair.site, Some("east"), STAGE);
    });
    let journal = check_journal(&pair.node(West), "app");
    assert_eq!(journal.takeovers, ["east", "west", "east"], "only where the address went: {journal:?}");
    assert!(journal.slots.len() >= 3 * STAGE, "{journal:?}");
    println!("{} slots, missed: {:?}, exit codes: {codes}", journal.slots.len(), journal.missed_slots(EVERY));
    pair.run(East, &["verify", "app", "--read-data"]).expect(0);
}

#[test]
fn two_crons_with_nothing_but_the_journal() {
    let site = Site::new(SCHEDULE);
    assert!(fs::read_to_string(site.path("runner.toml")).unwrap().contains("lease = \"none\""));
    site.write("file", "content");
    site.init();
    let codes =
        crons(&["east", "west"].map(|name| site.node(name)), ended_well, || wait_for_commits(&site, None, 3 * STAGE));
    let journal = check_journal(&site.node("north"), "app");
    assert!(journal.slots.len() >= 3 * STAGE, "{journal:?}");
    println!("{} slots, missed: {:?}, exit codes: {codes}", journal.slots.len(), journal.missed_slots(EVERY));
    site.node("north").run(["verify", "app", "--read-data"]).expect(0);
}

/// Containers that were copied with all they remember have one machine ID, one boot and one node ID: the copy is
/// taken for a later run of the same node until a process of either finds a record that none of its own wrote.
#[test]
fn a_clone_with_its_state_directory_commits_no_slot_twice_and_is_found_out() {
    let site = Site::new(SCHEDULE);
    site.write("file", "content");
    site.init();
    site.node("east").run(["backup", "app", "--scheduled"]).expect(0);
    let copied = Command::new("cp").arg("-a").arg(site.path("state-east")).arg(site.path("state-west")).status();
    assert!(copied.unwrap().success());
    let codes = crons(
        &["east", "west"].map(|name| site.node(name)),
        // 4 from when they are found out on.
        |code| ended_well(code) || code == 4,
        || wait_for(|| site.records().iter().any(|record| record["kind"] == "clone")),
    );
    let journal = check_journal(&site.node("north"), "app");
    println!("{} slots, missed: {:?}, exit codes: {codes}", journal.slots.len(), journal.missed_slots(EVERY));
}
