//! Backup duty goes where keepalived brings the address, whatever brings it there.

use std::time::Duration;

use runner::env::Env;

use crate::Pair;
use crate::netns::{East, LanHost, West};
use crate::support::invariants::check_journal;

/// How often `exec` asks the probes by itself, less what this test may need until it pulls the link.
const POLL: Duration = Duration::from_secs(8);

/// The address has gone from one host to the other, which goes on with the same history.
#[track_caller]
fn moved(pair: &Pair, to: LanHost, term: u64) {
    pair.lan.wait_for_vip(to);
    pair.lan.wait_for_no_vip(to.other());
    assert_eq!((pair.is_active(to), pair.is_active(to.other())), (0, 3));
    let idle = pair.backup(to.other());
    assert_eq!(idle["outcome"], "standby", "{idle}");
    pair.site.write(&format!("written-in-term-{term}"), "x");
    let run = pair.backup(to);
    assert_eq!((&run["outcome"], &run["term"]), (&"committed".into(), &term.into()), "{run}");
    assert_eq!((&run["takeover"], &run["files"]["new"]), (&true.into(), &1.into()), "{run}");
    assert_eq!((&pair.whoami(to)["state"], &pair.whoami(to.other())["state"]), (&"active".into(), &"standby".into()));
}

#[test]
fn it_goes_with_a_link_and_with_a_cable() {
    let pair = Pair::with_vip("");
    assert_eq!((pair.is_active(East), pair.is_active(West)), (0, 3));
    let (east, west) = (pair.whoami(East), pair.whoami(West));
    assert_eq!((&east["state"], &east["evidence"][0]["detail"]), (&"active".into(), &"on lan".into()), "{east}");
    let nowhere = (&"standby".into(), &"not on this machine".into());
    assert_eq!((&west["state"], &west["evidence"][0]["detail"]), nowhere, "{west}");
    assert_eq!(pair.backup(East)["term"], 1);
    let idle = pair.backup(West);
    assert_eq!(idle["outcome"], "standby", "{idle}");
    pair.run(West, &["backup", "app", "--require-active"]).expect(3);

    pair.lan.link_down(East);
    moved(&pair, West, 2);
    // Who comes back does not take the address back.
    pair.lan.link_up(East);
    assert_eq!((pair.is_active(East), pair.is_active(West)), (3, 0));
    pair.lan.pull_cable(West);
    moved(&pair, East, 3);

    let journal = check_journal(&pair.node(West), "app");
    assert_eq!((journal.takeovers, journal.records), (["east", "west", "east"].map(str::to_owned).to_vec(), 6));
    pair.run(West, &["verify", "app", "--read-data"]).expect(0);
}

#[test]
fn it_goes_when_keepalived_ends() {
    let mut pair = Pair::with_vip("");
    pair.backup(East);
    pair.lan.stop_keepalived(East);
    moved(&pair, West, 2);
    pair.lan.start_keepalived(East);
    pair.lan.stop_keepalived(West);
    moved(&pair, East, 3);
    assert_eq!(check_journal(&pair.node(East), "app").takeovers, ["east", "west", "east"]);
}

#[test]
fn a_guarded_command_ends_when_the_address_goes() {
    let pair = Pair::with_vip("");
    let begun = pair.site.path("begun");
    let script = format!("echo > {}; exec sleep 1000", begun.display());
    let mut guarded = pair.node(East).start(["exec", "app", "--", "sh", "-c", &script]);
    crate::site::wait_for(|| begun.exists());
    let clock = Env::host().clock;
    let before = clock.boottime();
    pair.lan.link_down(East);
    let status = guarded.wait().unwrap();
    let took = clock.boottime().saturating_sub(before);
    assert!(took < POLL, "the kernel's word was not listened to: {took:?}");
    assert_eq!(status.code(), Some(4), "ended; who is active now, this node cannot tell");
    pair.lan.wait_for_vip(West);
    pair.run(West, &["exec", "app", "--", "true"]).expect(0);
    pair.run(East, &["exec", "app", "--", "true"]).expect(3);
    check_journal(&pair.node(West), "app");
}
