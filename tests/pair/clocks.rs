//! One node's wall clock is set, an hour on and an hour back, while both daemons run: it says so, runs no slot and leaves the role to
//! the other one; and when it is right again, one of the two goes on.

use std::fs;

use serde_json::Value;

use crate::clock::NodeClock;
use crate::etcd::EtcdCluster;
use crate::rig::{TTL, TestDaemon, assert_stays, now, s3_site, wait_for};
use crate::s3_server::S3Server;
use crate::site::{Site, role};
use crate::support::invariants::{CheckedJournal, check_journal, missed_by_audit};

const EVERY: i64 = 2;
const SLOTS: &str = "every = \"2s\"\njitter = \"0s\"\n";

const HOUR: i64 = 3600;

/// A node with a clock of its own.
struct Host {
    daemon: TestDaemon,
    clock: NodeClock,
}

impl Host {
    #[track_caller]
    fn is_right_again(&self) {
        self.clock.set(0);
        self.daemon.waits_to_be("standby");
    }
}

/// What is dropped first stands first.
struct Stage {
    east: Host,
    west: Host,
    site: Site,
    began: i64,
    _server: S3Server,
    _etcd: EtcdCluster,
}

impl Stage {
    /// Both run, and East is active.
    fn new() -> Self {
        let (began, etcd, server) = (now().as_second(), EtcdCluster::single(), S3Server::start());
        let site = s3_site(&server, &etcd, SLOTS);
        let config = site.path("runner.toml");
        fs::write(&config, fs::read_to_string(&config).unwrap() + &site.telling()).unwrap();
        let start = |name: &str, status| {
            let clock = NodeClock::new(site.dir(), name);
            let daemon = TestDaemon::of(&site, &clock.on(site.node(name)), &[]);
            daemon.waits_to_be(status);
            Host { daemon, clock }
        };
        let east = start("east", "active");
        let west = start("west", "standby");
        Self { east, west, site, began, _server: server, _etcd: etcd }
    }

    fn commits(&self, by: &Host) -> usize {
        self.site.snapshots().iter().filter(|record| record["node"]["name"] == by.daemon.name).count()
    }

    #[track_caller]
    fn commits_again(&self, host: &Host) {
        host.daemon.waits_to_be("active");
        let before = self.commits(host);
        wait_for(format!("{} commits", host.daemon.name), || (self.commits(host) > before + 1).then_some(()));
    }

    /// The clock is set, and the node says so.
    #[track_caller]
    fn goes_wrong(&self, host: &Host, ahead: i64) {
        let said = if ahead > 0 { " ahead of the store's" } else { " behind the store's" };
        host.clock.set(ahead);
        host.daemon.waits_to_say(said);
        host.daemon.waits_to_be("unknown");
        let whoami = role(&host.clock.on(self.site.node(&host.daemon.name)).run(["whoami", "--json"]).expect(0));
        assert_eq!((&whoami["state"], &whoami["reason"]), (&"unknown".into(), &"clock_off".into()), "{whoami}");
        let is_clock = |warning: &&Value| warning["kind"] == "clock_off";
        let clock = whoami["warnings"].as_array().unwrap().iter().find(is_clock).expect("the skew is named");
        assert!((clock["seconds"].as_i64().unwrap() + ahead).abs() <= 5, "{clock}");
    }

    /// Who told what of a clock.
    fn told(&self) -> Vec<String> {
        let told = self.site.told().into_iter().filter(|told| told["event"] == "clock_off");
        told.map(|told| format!("{} {}", told["node"], told["phase"]).replace('"', "")).collect()
    }

    /// One goes on, and every slot of the time was committed once, or is known to be missed.
    #[track_caller]
    fn ends(mut self) -> CheckedJournal {
        let statuses = || [&self.east, &self.west].map(|host| host.daemon.status());
        let mut first = statuses();
        assert_stays(TTL, "one is active", || statuses() == first);
        first.sort();
        assert_eq!(first, [Some("active".to_owned()), Some("standby".to_owned())]);
        // The standby first: nothing moves.
        let west_is_active = self.west.daemon.status().as_deref() == Some("active");
        let [first, then] =
            if west_is_active { [&mut self.east, &mut self.west] } else { [&mut self.west, &mut self.east] };
        first.daemon.stop();
        then.daemon.stop();
        let looker = self.site.node("looker");
        let kept = check_journal(&looker, "app");
        let missed = kept.missed_slots(EVERY);
        println!("{} slots, missed {missed:?}, takeovers {:?}", kept.slots.len(), kept.takeovers);
        let at = |slot: &(String, String)| slot.0.parse::<jiff::Timestamp>().unwrap().as_second();
        let (first, last) = (at(&kept.slots[0]), at(kept.slots.last().unwrap()));
        assert!(first > self.began - EVERY && last <= now().as_second(), "slots of this hour: {kept:?}");
        let told: Vec<i64> = missed_by_audit(&looker, "app", EVERY).into_iter().filter(|slot| *slot < last).collect();
        assert_eq!(told, missed, "what nobody committed is reported, and nothing else");
        crate::rig::all_is_whole(&self.site);
        kept
    }
}

#[test]
fn a_standby_whose_clock_is_set_changes_nothing() {
    let stage = Stage::new();
    for ahead in [HOUR, -HOUR] {
        stage.goes_wrong(&stage.west, ahead);
        stage.commits_again(&stage.east);
    }
    stage.west.is_right_again();
    stage.commits_again(&stage.east);
    wait_for("it is told", || (stage.told() == ["west begun", "west over"]).then_some(()));
    assert_eq!(stage.ends().takeovers, ["east"]);
}

#[test]
fn an_active_node_whose_clock_is_set_leaves_the_role_to_the_other_one() {
    let stage = Stage::new();
    stage.commits_again(&stage.east);
    stage.goes_wrong(&stage.east, HOUR);
    stage.commits_again(&stage.west);
    stage.goes_wrong(&stage.east, -HOUR);
    stage.east.is_right_again();
    // By a clock that is an hour behind, nothing is due.
    stage.goes_wrong(&stage.west, -HOUR);
    stage.commits_again(&stage.east);
    stage.west.is_right_again();
    let told = ["east begun", "east over", "west begun", "west over"];
    wait_for("it is told", || (stage.told() == told).then_some(()));
    let kept = stage.ends();
    assert!(kept.commits_by("east") > 0 && kept.commits_by("west") > 0, "{kept:?}");
}
