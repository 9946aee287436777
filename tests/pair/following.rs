//! What a running daemon follows: its config, what operators do, and what systemd wants to know.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Signal;

use crate::rig::{ONE_SLOT, TTL, TestDaemon, assert_stays, boottime, bucket_site, since, wait_within};
use crate::site::Site;
use crate::support::cli::TestNode;
use crate::support::invariants::check_journal;
use runner::role::controller::read_interval::{READ_INTERVAL, READ_INTERVAL_IDLE};

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
    let mut east = TestDaemon::settled(&site, "east", "active");
    fs::write(site.path("runner.toml"), format!("{good}\nsurces = []\n")).unwrap();
    east.signal(Signal::HUP);
    east.waits_to_say("the config is not valid, the one before stays in force");
    east.waits_to_say("surces");
    // The daemon goes on; whoever calls it needs a valid one.
    assert_stays(Duration::from_secs(1), "it holds its role", || east.status().as_deref() == Some("active"));

    // A role comes.
    fs::write(site.path("runner.toml"), &good).unwrap();
    add_role(&site, "more");
    site.node("east").run(["init", "more"]).expect(0);
    east.signal(Signal::HUP);
    east.waits_to_say(" more: active, term 1");
    assert_eq!(check_journal(&site.node("looker"), "app").records, 1, "the other one was not touched");
    assert_eq!(site.node("east").run(["exec", "more", "--", "sh", "-c", "echo $RUNNER_TERM"]).expect(0).stdout, "1\n");

    // It changes: it has a schedule now.
    let text = fs::read_to_string(site.path("runner.toml")).unwrap();
    fs::write(site.path("runner.toml"), format!("{text}{ONE_SLOT}")).unwrap();
    east.signal(Signal::HUP);
    east.waits_to_say("committed");
    check_journal(&site.node("looker"), "more");

    // It goes: another node can have it at once.
    fs::write(site.path("runner.toml"), &good).unwrap();
    east.signal(Signal::HUP);
    wait_within(SLACK, "the lease is released", || {
        fs::read_to_string(site.path("store/more/live/lease")).unwrap().contains("\"released\":true").then_some(())
    });
    assert_eq!(site.backup("east")["outcome"], "committed");
    assert_eq!(check_journal(&site.node("looker"), "app").takeovers, ["east"], "it never stopped to have this role");
    east.stop();
}

#[test]
fn a_changed_file_is_noticed_without_being_told() {
    let site = bucket_site("");
    let east = TestDaemon::settled(&site, "east", "active");
    add_role(&site, "more");
    site.node("east").run(["init", "more"]).expect(0);
    east.waits_to_say(" more: active, term 1");
}

#[test]
fn a_pause_and_its_end_are_followed() {
    let site = bucket_site("every = \"2s\"\njitter = \"0s\"");
    let east = TestDaemon::settled(&site, "east", "active");
    east.waits_to_say("committed");
    let west = TestDaemon::settled(&site, "west", "standby");
    site.node("west").run(["pause", "app", "--why", "disk swap"]).expect(0);
    east.stands_within(READ_INTERVAL + SLACK, "paused");
    assert!(east.said("disk swap"), "{}", east.log());
    let commits = site.snapshots().len();
    assert_stays(Duration::from_secs(5), "nobody runs it", || site.snapshots().len() == commits);
    west.stands_within(READ_INTERVAL + SLACK, "paused");
    site.node("west").run(["resume", "app"]).expect(0);
    let resumed = boottime();
    wait_within(READ_INTERVAL + SLACK, "slots are run again", || (site.snapshots().len() > commits).then_some(()));
    println!("followed after {:?}", since(resumed));
    check_journal(&site.node("looker"), "app");
}

#[test]
fn an_operators_takeover_is_followed() {
    let site = bucket_site("takeover_after = \"10m\"");
    let east = TestDaemon::settled(&site, "east", "active");
    let west = TestDaemon::settled(&site, "west", "standby");
    site.node("west").run(["takeover", "app"]).expect(0);
    // Nothing is due.
    east.stands_within(READ_INTERVAL_IDLE + SLACK, "standby");
    west.stands_within(READ_INTERVAL + SLACK, "active");
    assert_eq!(site.backup("west")["outcome"], "committed");
    assert_eq!(site.node("east").run(["is-active", "app"]).code, Some(3));
    let kept = check_journal(&site.node("looker"), "app");
    assert_eq!(kept.takeovers.first().map(String::as_str), Some("east"));
    assert!(kept.takeovers[1..].iter().all(|by| by == "west"), "{kept:?}");
}

/// What systemd would hear.
struct Notified {
    listener: UnixDatagram,
    path: PathBuf,
}

impl Notified {
    fn new(site: &Site) -> Self {
        let path = site.path("notify");
        let listener = UnixDatagram::bind(&path).unwrap();
        listener.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Self { listener, path }
    }

    /// A node that tells it, and is to say every 3 s that it lives.
    fn node(&self, site: &Site) -> TestNode {
        let node = site.node("east").with_env("NOTIFY_SOCKET", self.path.to_str().unwrap());
        node.with_env("WATCHDOG_USEC", "3000000")
    }

    #[track_caller]
    fn next(&self) -> String {
        let mut buffer = [0; 4096];
        let read = self.listener.recv(&mut buffer).expect("systemd is told something");
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    }

    /// Everything up to these words.
    #[track_caller]
    fn until(&self, words: &str) -> String {
        let mut all = String::new();
        while !all.contains(words) {
            all = all + &self.next() + "\n";
        }
        all
    }
}

#[test]
fn systemd_is_told() {
    let site = bucket_site("");
    let told = Notified::new(&site);
    let mut east = TestDaemon::of(&site, &told.node(&site), &[]);
    assert!(told.next().starts_with("READY=1"), "the first word");
    told.until("STATUS=active: app");
    told.until("WATCHDOG=1");
    let good = fs::read_to_string(site.path("runner.toml")).unwrap();
    fs::write(site.path("runner.toml"), "nonsense").unwrap();
    east.signal(Signal::HUP);
    let reloaded = told.until("READY=1");
    assert!(reloaded.contains("RELOADING=1\nMONOTONIC_USEC="), "{reloaded}");
    assert!(reloaded.contains("config not valid"), "{reloaded}");
    fs::write(site.path("runner.toml"), good).unwrap();
    east.signal(Signal::TERM);
    told.until("STOPPING=1");
    assert!(east.ends().success());
}

#[test]
fn a_reload_that_waits_for_work_to_end_looks_alive() {
    let site = Site::leased("bucket_lease_ttl = \"8s\"\n");
    site.write("file", "content");
    site.init();
    let told = Notified::new(&site);
    let east = TestDaemon::of(&site, &told.node(&site), &[]);
    east.waits_to_be("active");
    // It goes on for as long as its last grant says.
    let script = format!("echo > {}; while :; do sleep 0.05; done", site.path("command").display());
    let mut exec = site.node("east").start(["exec", "app", "--", "sh", "-c", &script]);
    wait_within(SLACK, "the command begins", || site.path("command").exists().then_some(()));
    site.config("bucket_lease_ttl = \"8s\"\nexclude = [\"*.tmp\"]\n");
    east.signal(Signal::HUP);
    told.until("RELOADING=1");
    let beats = told.until("READY=1").matches("WATCHDOG=1").count();
    assert!(beats >= 3, "{beats} in the time that a command took to end");
    assert_eq!(exec.wait().unwrap().code(), Some(4));
    check_journal(&site.node("looker"), "app");
}
