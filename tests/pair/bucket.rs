//! Two daemons with nothing but the store: its holder dies, says farewell, is frozen, or uploads slowly.

use std::time::Duration;

use rustix::process::Signal;

use crate::rig::{
    AT_ONCE, End, ONE_SLOT, TTL, TestDaemon, all_is_whole, assert_stays, begun, let_go, now, seconds, slow_dump,
    taken_by, takeovers, wait_for,
};
use crate::site::Site;
use crate::support::invariants::check_journal;
use crate::support::tree::TreeRng;

/// Both daemons, with a dump that lasts as long as the test wants, and the first one at it.
fn working(what: &str) -> (Site, TestDaemon, TestDaemon) {
    let site = Site::leased("");
    let lease = format!("bucket_lease_ttl = \"{TTL:?}\"\n");
    site.config(&format!("{lease}{AT_ONCE}{ONE_SLOT}{}", slow_dump(&site)));
    site.write("file", what);
    site.init();
    let east = TestDaemon::settled(&site, "east", "active");
    wait_for("the dump begins", || begun(&site).first().copied());
    let west = TestDaemon::settled(&site, "west", "standby");
    (site, east, west)
}

/// West goes on, and commits the slot.
#[track_caller]
fn west_commits(site: &Site, west: &TestDaemon) {
    let_go(site);
    west.waits_to_say("committed");
    let kept = check_journal(&site.node("looker"), "app");
    assert_eq!((kept.takeovers.len(), kept.commits_by("east"), kept.commits_by("west")), (2, 0, 1), "{kept:?}");
    all_is_whole(site);
}

#[test]
fn a_killed_holder_is_waited_out_and_followed() {
    let (site, mut east, west) = working("content");
    let killed = now();
    east.kill();
    let taken = taken_by(&site, "west", killed);
    // It was seen to be alive at most a renewal before; the wait is a whole lease, and an ask.
    assert!((1.5..2.5 * TTL.as_secs_f64()).contains(&seconds(killed, taken)), "{} s", seconds(killed, taken));
    west_commits(&site, &west);
    let east = TestDaemon::settled(&site, "east", "standby");
    assert_stays(TTL, "who comes back does not take the role back", || {
        (east.status(), west.status()) == (Some("standby".into()), Some("active".into())) && takeovers(&site).len() == 2
    });
}

#[test]
fn who_is_told_to_stop_ends_its_work_first_and_gives_the_lease_up() {
    let (site, mut east, west) = working("content");
    let dump = begun(&site)[0];
    let told = now();
    east.signal(Signal::TERM);
    let ended = End::of(dump, "the dump");
    let taken = taken_by(&site, "west", told);
    assert!(ended.before(taken) < 1.0, "{} s", ended.before(taken));
    assert!(east.ends().success());
    assert!(!east.said("ERROR"), "a farewell is no failure:\n{}", east.log());
    west_commits(&site, &west);
}

#[test]
fn who_was_frozen_commits_nothing_says_so_and_stands_by() {
    let (site, east, west) = working("content");
    let frozen = now();
    east.signal(Signal::STOP);
    taken_by(&site, "west", frozen);
    west.waits_to_be("active");
    // Both dumps are at their end when it comes back.
    west_commits(&site, &west);
    east.signal(Signal::CONT);
    east.waits_to_be("standby");
    east.waits_to_say("took the role over");
    let kept = check_journal(&site.node("looker"), "app");
    assert_eq!((kept.takeovers.len(), kept.commits_by("east"), kept.commits_by("west")), (2, 0, 1), "{kept:?}");
    all_is_whole(&site);
}

/// A source of two packs, of which the second has to wait for the first to be paid for, longer than the lease lasts.
fn throttled() -> Site {
    let site = Site::leased("");
    site.config(&format!("bucket_lease_ttl = \"{TTL:?}\"\n{AT_ONCE}{ONE_SLOT}"));
    let text = std::fs::read_to_string(site.path("runner.toml")).unwrap();
    std::fs::write(site.path("runner.toml"), text.replace("[store]\n", "[store]\nlimit_upload = \"2MiB\"\n")).unwrap();
    site.write("noise", TreeRng::new(5).noise(22 << 20));
    site.init();
    site
}

#[test]
fn a_slow_upload_keeps_its_lease() {
    let site = throttled();
    let east = TestDaemon::settled(&site, "east", "active");
    let _west = TestDaemon::settled(&site, "west", "standby");
    wait_for("the first pack is there", || (site.packs().len() == 1).then_some(()));
    let first = now();
    east.waits_to_say("committed");
    assert!(seconds(first, now()) > TTL.as_secs_f64(), "it went on for longer than the lease");
    let kept = check_journal(&site.node("looker"), "app");
    assert_eq!((kept.takeovers, kept.slots.len()), (vec!["east".to_owned()], 1));
}

#[test]
fn who_was_frozen_in_the_middle_of_an_upload_leaves_garbage_at_most() {
    let site = throttled();
    let east = TestDaemon::settled(&site, "east", "active");
    let west = TestDaemon::settled(&site, "west", "standby");
    wait_for("the first pack is there", || (site.packs().len() == 1).then_some(()));
    let frozen = now();
    east.signal(Signal::STOP);
    taken_by(&site, "west", frozen);
    // In the middle of the other one's upload, too.
    std::thread::sleep(Duration::from_secs(1));
    east.signal(Signal::CONT);
    east.waits_to_be("standby");
    west.waits_to_say("committed");
    assert!(!east.said("committed,"), "{}", east.log());
    let kept = check_journal(&site.node("looker"), "app");
    assert_eq!((kept.takeovers.len(), kept.commits_by("east"), kept.commits_by("west")), (2, 0, 1), "{kept:?}");
    all_is_whole(&site);
}
