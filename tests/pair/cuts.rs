//! Two daemons, a bucket and an etcd, and what comes between them: cuts, a dead member, a frozen leader, an etcd that has
//! forgotten everything. East is reached through wires that can be cut; West stands beside etcd and the bucket.
//!
//! When a fault is over, exactly one of them is active within [`RECOVERY`], slots are committed again, and every snapshot restores.

use std::fs;
use std::time::Duration;

use crate::etcd::{EtcdCluster, ProxyMode, TcpProxy};
use crate::rig::{TTL, TestDaemon, assert_stays, boottime, s3_site, since, wait_for, wait_within};
use crate::s3_server::S3Server;
use crate::site::Site;
use crate::support::cli::TestNode;
use crate::support::invariants::{CheckedJournal, check_journal};

/// How long after the end of a fault exactly one is active at the latest.
const RECOVERY: Duration = Duration::from_secs(TTL.as_secs() * 3);

/// How long a fault lasts: the lease runs out in it, and the other one has it for a while.
const FAULT: Duration = Duration::from_secs(TTL.as_secs() * 2);

const SLOTS: &str = "every = \"2s\"\njitter = \"0s\"\n";

/// What is dropped first stands first: the daemons' logs are in the site.
struct Stage {
    east: TestDaemon,
    west: TestDaemon,
    site: Site,
    to_etcd: Vec<TcpProxy>,
    to_store: TcpProxy,
    etcd: EtcdCluster,
    _server: S3Server,
}

impl Stage {
    /// Both run, and East is active.
    fn new() -> Self {
        let (etcd, server) = (EtcdCluster::cluster(), S3Server::start());
        let to_etcd: Vec<TcpProxy> = (0..3).map(|n| TcpProxy::to(etcd.port(n))).collect();
        let to_store = TcpProxy::to(server.endpoint.rsplit(':').next().unwrap().parse().unwrap());
        let site = s3_site(&server, &etcd, SLOTS);
        let text = fs::read_to_string(site.path("runner.toml")).unwrap();
        let wires: Vec<String> = to_etcd.iter().map(TcpProxy::endpoint).collect();
        let text = text
            .replace(&format!("{:?}", etcd.endpoints()), &format!("{wires:?}"))
            .replace(&server.endpoint, &to_store.endpoint());
        fs::write(site.path("runner-east.toml"), text).unwrap();
        let node = TestNode { config: Some(site.path("runner-east.toml")), ..site.node("east") };
        let east = TestDaemon::of(&site, &node, &[]);
        east.waits_to_say("committed");
        let west = TestDaemon::settled(&site, "west", "standby");
        Self { etcd, to_etcd, to_store, site, east, west, _server: server }
    }

    fn etcd_is(&self, mode: ProxyMode) {
        self.to_etcd.iter().for_each(|wire| wire.set(mode));
    }

    /// How both stand.
    fn statuses(&self) -> [Option<String>; 2] {
        [self.east.status(), self.west.status()]
    }

    fn exactly_one(&self) -> bool {
        let mut statuses = self.statuses();
        statuses.sort();
        statuses == [Some("active".to_owned()), Some("standby".to_owned())]
    }

    fn commits(&self, by: &str) -> usize {
        self.site.snapshots().iter().filter(|s| s["node"]["name"] == by).count()
    }

    /// The fault is over: one is active, goes on, and all that was committed is whole.
    #[track_caller]
    fn recovers(mut self) -> CheckedJournal {
        let (start, before) = (boottime(), ["east", "west"].map(|node| self.commits(node)));
        let goes_on =
            |n: usize, node| self.statuses()[n].as_deref() == Some("active") && self.commits(node) > before[n];
        let one = || (self.exactly_one() && (goes_on(0, "east") || goes_on(1, "west"))).then_some(());
        wait_within(RECOVERY, "exactly one is active, and commits", one);
        println!("recovered after {:?}: {:?}", since(start), self.statuses());
        assert_stays(TTL, "it stays like that", || self.exactly_one());
        // The standby first: nothing moves.
        let west_is_active = self.statuses()[1].as_deref() == Some("active");
        let [first, then] =
            if west_is_active { [&mut self.east, &mut self.west] } else { [&mut self.west, &mut self.east] };
        first.stop();
        then.stop();
        let kept = check_journal(&self.site.node("looker"), "app");
        println!("{} slots, missed {:?}, takeovers {:?}", kept.slots.len(), kept.missed_slots(2), kept.takeovers);
        crate::rig::all_is_whole(&self.site);
        kept
    }
}

/// West has the role, and commits.
#[track_caller]
fn west_goes_on(stage: &Stage) {
    wait_within(TTL * 3, "west takes over", || (stage.west.status().as_deref() == Some("active")).then_some(()));
    let before = stage.commits("west");
    wait_for("west commits", || (stage.commits("west") > before).then_some(()));
}

#[test]
fn cut_off_from_etcd_alone_it_stops_and_the_other_goes_on() {
    let stage = Stage::new();
    stage.etcd_is(ProxyMode::Cut);
    west_goes_on(&stage);
    stage.east.waits_to_be("unknown");
    let commits = stage.commits("east");
    assert_stays(FAULT, "east commits nothing", || stage.commits("east") == commits);
    stage.etcd_is(ProxyMode::Pass);
    let kept = stage.recovers();
    assert_eq!(kept.takeovers, ["east", "west"], "who comes back stands by");
}

#[test]
fn cut_off_from_the_store_alone_nothing_is_lost_but_time() {
    let stage = Stage::new();
    stage.to_store.set(ProxyMode::Cut);
    let commits = stage.commits("east");
    std::thread::sleep(FAULT);
    assert!(stage.commits("east") <= commits + 1, "one was under way at most");
    stage.to_store.set(ProxyMode::Pass);
    stage.recovers();
}

#[test]
fn cut_off_from_both_it_stops_and_the_other_goes_on() {
    let stage = Stage::new();
    stage.etcd_is(ProxyMode::Cut);
    stage.to_store.set(ProxyMode::Cut);
    west_goes_on(&stage);
    std::thread::sleep(FAULT);
    stage.etcd_is(ProxyMode::Pass);
    stage.to_store.set(ProxyMode::Pass);
    let kept = stage.recovers();
    assert_eq!(kept.takeovers, ["east", "west"], "who comes back stands by");
}

#[test]
fn a_member_that_is_killed_stops_nothing() {
    let mut stage = Stage::new();
    let leader = stage.etcd.leader();
    // Whom both asked last, unless that one leads.
    let member = usize::from(leader == 0);
    stage.etcd.kill(member);
    let commits = stage.commits("east");
    wait_for("east goes on", || (stage.commits("east") > commits + 2).then_some(()));
    stage.etcd.restart(member);
    // The lease outlives the member; on a busy machine its holder may be late all the same, and then the other goes on.
    stage.recovers();
}

#[test]
fn a_leader_that_freezes_is_replaced_and_one_goes_on() {
    let stage = Stage::new();
    let leader = stage.etcd.leader();
    stage.etcd.stop(leader);
    let commits = stage.site.snapshots().len();
    wait_for("slots are committed without it", || (stage.site.snapshots().len() > commits + 2).then_some(()));
    stage.etcd.cont(leader);
    stage.recovers();
}

#[test]
fn an_etcd_that_has_forgotten_everything_is_asked_anew() {
    let mut stage = Stage::new();
    stage.etcd.restart_empty();
    // What the old one granted holds until it has run out.
    std::thread::sleep(TTL);
    stage.recovers();
}
