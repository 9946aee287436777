//! The address on both hosts: what VRRP promises not to happen, and what does when keepalived is frozen or killed. The
//! journal keeps the two apart.

use std::process::Stdio;
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::netns::{East, LanHost, West};
use crate::site::wait_for;
use crate::support::compare::assert_same;
use crate::support::invariants::check_journal;
use crate::{Pair, ended_well};

/// Slots are so long that several runs fit in one, and so short that a test can wait for the next.
const EVERY: &str = "every = \"4s\"\njitter = \"0s\"\n";

/// How often both cron lines come at the same moment.
const ROUNDS: usize = 6;

#[track_caller]
fn scheduled(pair: &Pair, side: LanHost) -> Value {
    crate::site::role(&pair.run(side, &["backup", "app", "--scheduled", "--json"]).expect(0))
}

/// Runs until a new slot is committed.
#[track_caller]
fn next_slot(pair: &Pair, side: LanHost) -> Value {
    for _ in 0..200 {
        let run = scheduled(pair, side);
        if run["outcome"] != "skipped" {
            return run;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("no slot comes");
}

/// Both cron lines at the same moment: their exit codes and outcomes.
fn at_once(pair: &Pair) -> [(i32, String); 2] {
    let start = |side| {
        let mut command = pair.node(side).command(["backup", "app", "--scheduled", "--json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    LanHost::BOTH.map(start).map(|child| {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.code().unwrap(), text.into_owned())
    })
}

fn on_both(double: impl FnOnce(&mut Pair)) -> Pair {
    let mut pair = Pair::with_vip(EVERY);
    let first = next_slot(&pair, East);
    assert_eq!((&first["outcome"], &first["term"]), (&"committed".into(), &1.into()), "{first}");
    double(&mut pair);
    pair.lan.wait_for_vip(West);
    assert!(pair.lan.has_vip(East));
    assert_eq!((pair.is_active(East), pair.is_active(West)), (0, 0), "the probes cannot tell them apart");

    // Where one has committed the slot, the other finds it committed, unless the next one has come.
    let (one, two) = (next_slot(&pair, East), scheduled(&pair, West));
    assert!(two["outcome"] == "skipped" || two["slot"] != one["slot"], "{one} {two}");
    let west = next_slot(&pair, West);
    let east = pair.whoami(East);
    assert_eq!((&east["state"], &east["reason"]), (&"conflict".into(), &"taken_over".into()), "{west} {east}");
    pair.run(East, &["whoami", "--check"]).expect(2);

    for round in 0..ROUNDS {
        pair.site.write(&format!("round-{round}"), "x");
        let before = pair.site.snapshots().len();
        while pair.site.snapshots().len() == before {
            for (code, said) in at_once(&pair) {
                assert!(ended_well(code), "exit {code}: {said}");
            }
        }
    }
    pair
}

fn nothing_is_lost(pair: &Pair) {
    let journal = check_journal(&pair.node(West), "app");
    assert!(journal.slots.len() >= ROUNDS + 2, "{journal:?}");
    assert!(journal.commits_by("east") > 0 && journal.commits_by("west") > 0, "{journal:?}");
    pair.run(West, &["verify", "app", "--read-data"]).expect(0);
    let out = pair.site.restore(&pair.site.node("north"), "latest", "out");
    assert_same(&pair.site.src(), &out);
}

/// The address is on one host alone again: it has the role, and the conflict is over.
fn apart_again(pair: &Pair) {
    wait_for(|| pair.lan.has_vip(East) != pair.lan.has_vip(West));
    let (active, idle) = if pair.lan.has_vip(East) { (East, West) } else { (West, East) };
    assert_eq!((pair.is_active(active), pair.is_active(idle)), (0, 3));
    next_slot(pair, active);
    assert_eq!(scheduled(pair, idle)["outcome"], "standby");
    let (active, idle) = (pair.whoami(active), pair.whoami(idle));
    assert_eq!((&active["state"], &idle["state"]), (&"active".into(), &"standby".into()));
}

#[test]
fn a_frozen_keepalived_doubles_the_address_and_not_the_history() {
    let pair = on_both(|pair| pair.lan.freeze(East));
    pair.lan.thaw(East);
    apart_again(&pair);
    nothing_is_lost(&pair);
}

#[test]
fn a_killed_keepalived_leaves_the_address_behind_until_it_starts_again() {
    let mut pair = on_both(|pair| pair.lan.kill_keepalived(East));
    pair.lan.start_keepalived(East);
    pair.lan.wait_for_no_vip(East);
    apart_again(&pair);
    nothing_is_lost(&pair);
}
