//! What a running daemon follows: its config, what operators do, and what systemd wants to know.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use runner::role::duty::READ_INTERVAL;
use rustix::process::Signal;

use crate::rig::{Daemon, ONE_SLOT, TTL, boottime, bucket_site, stays, within};
use crate::site::Site;
use crate::support::promises::kept;

/// What a machine with other work may add to an interval.
const SLACK: Duration = Duration::from_secs(5);

/// Adds a role to the config.
fn add_role(site: &Site, name: &str) {
    let path = site.path("runner.toml");
    let source = site.src();
    let lines = format!(
        "\n[role.{name}]\nsources = [\"{}\"]\nlease = \"bucket\"\nbucket_lease_ttl = \"{TTL:?}\"\n",
        source.display()
    );
    fs::write(&path, fs::read_to_string(&path).unwrap() + &lines).unwrap();
}

#[test]
fn a_config_that_is_not_valid_changes_nothing_and_a_valid_one_is_followed() {
    let site = bucket_site("");
    let good = fs::read_to_string(site.path("runner.toml")).unwrap();
    let mut east = Daemon::settled(&site, "east", "active");
    fs::write(site.path("runner.toml"), format!("{good}\nsurces = []\n")).unwrap();
    east.signal(Signal::HUP);
    east.waits_to_say("the config is not valid, the one before stays in force");
    east.waits_to_say("surces");
    // The daemon goes on; whoever calls it needs a valid one.
    stays(Duration::from_secs(1), "it holds its role", || east.stand().as_deref() == Some("active"));

    // A role comes.
    fs::write(site.path("runner.toml"), &good).unwrap();
    add_role(&site, "more");
    site.node("east").run(["init", "more"]).expect(0);
    east.signal(Signal::HUP);
    east.waits_to_say(" more: active, term 1");
    assert_eq!(kept(&site.node("looker"), "app").records, 1, "the other one was not touched");
    assert_eq!(site.node("east").run(["exec", "more", "--", "sh", "-c", "echo $RUNNER_TERM"]).expect(0).stdout, "1\n");

    // It changes: it has a schedule now.
    let text = fs::read_to_string(site.path("runner.toml")).unwrap();
    fs::write(site.path("runner.toml"), format!("{text}{ONE_SLOT}")).unwrap();
    east.signal(Signal::HUP);
    east.waits_to_say("committed");
    kept(&site.node("looker"), "more");

    // It goes: another node can have it at once.
    fs::write(site.path("runner.toml"), &good).unwrap();
    east.signal(Signal::HUP);
    within(SLACK, "the lease is given up", || {
        fs::read_to_string(site.path("store/more/live/lease")).unwrap().contains("\"released\":true").then_some(())
    });
    assert_eq!(site.backup("east")["outcome"], "committed");
    assert_eq!(kept(&site.node("looker"), "app").takeovers, ["east"], "it never stopped to have this role");
    east.stop();
}

#[test]
fn a_changed_file_is_noticed_without_being_told() {
    let site = bucket_site("");
    let east = Daemon::settled(&site, "east", "active");
    add_role(&site, "more");
    site.node("east").run(["init", "more"]).expect(0);
    east.waits_to_say(" more: active, term 1");
}

#[test]
fn a_pause_and_its_end_are_followed() {
    let site = bucket_site("every = \"2s\"\njitter = \"0s\"");
    let east = Daemon::settled(&site, "east", "active");
    east.waits_to_say("committed");
    let west = Daemon::settled(&site, "west", "standby");
    site.node("west").run(["pause", "app", "--why", "disk swap"]).expect(0);
    east.stands_within(READ_INTERVAL + SLACK, "paused");
    assert!(east.said("disk swap"), "{}", east.log());
    let commits = site.snapshots().len();
    stays(Duration::from_secs(5), "nobody runs it", || site.snapshots().len() == commits);
    west.stands_within(READ_INTERVAL + SLACK, "paused");
    site.node("west").run(["resume", "app"]).expect(0);
    let resumed = boottime();
    within(READ_INTERVAL + SLACK, "slots are run again", || (site.snapshots().len() > commits).then_some(()));
    println!("followed after {:?}", boottime() - resumed);
    kept(&site.node("looker"), "app");
}

#[test]
fn an_operators_takeover_is_followed() {
    let site = bucket_site("takeover_after = \"10m\"");
    let east = Daemon::settled(&site, "east", "active");
    let west = Daemon::settled(&site, "west", "standby");
    site.node("west").run(["takeover", "app"]).expect(0);
    east.stands_within(READ_INTERVAL + SLACK, "standby");
    west.stands_within(READ_INTERVAL + SLACK, "active");
    assert_eq!(site.backup("west")["outcome"], "committed");
    assert_eq!(site.node("east").run(["is-active", "app"]).code, Some(3));
    let kept = kept(&site.node("looker"), "app");
    assert_eq!(kept.takeovers.first().map(String::as_str), Some("east"));
    assert!(kept.takeovers[1..].iter().all(|by| by == "west"), "{kept:?}");
}

#[test]
fn systemd_is_told() {
    let site = bucket_site("");
    let socket = site.path("notify");
    let listener = UnixDatagram::bind(&socket).unwrap();
    listener.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let told = || {
        let mut buffer = [0; 4096];
        let read = listener.recv(&mut buffer).expect("systemd is told something");
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    };
    let until = |words: &str| {
        let mut all = String::new();
        while !all.contains(words) {
            all = all + &told() + "\n";
        }
        all
    };
    let node =
        site.node("east").with_env("NOTIFY_SOCKET", socket.to_str().unwrap()).with_env("WATCHDOG_USEC", "3000000");
    let mut east = Daemon::of(&site, &node, &[]);
    assert!(told().starts_with("READY=1"), "the first word");
    until("STATUS=active: app");
    until("WATCHDOG=1");
    let good = fs::read_to_string(site.path("runner.toml")).unwrap();
    fs::write(site.path("runner.toml"), "nonsense").unwrap();
    east.signal(Signal::HUP);
    let reloaded = until("READY=1");
    assert!(reloaded.contains("RELOADING=1\nMONOTONIC_USEC="), "{reloaded}");
    assert!(reloaded.contains("config not valid"), "{reloaded}");
    fs::write(site.path("runner.toml"), good).unwrap();
    east.signal(Signal::TERM);
    until("STOPPING=1");
    assert!(east.ends().success());
}
