//! A hundred roles in one process have one lease in etcd, and ask for little.

use std::fmt::Write as _;
use std::fs;
use std::thread;
use std::time::Duration;

use crate::etcd::EtcdCluster;
use crate::rig::{TestDaemon, boottime, since, wait_for};
use crate::site::Site;

const ROLES: u64 = 100;

/// Two rounds of renewals are counted; a short one would measure the machine.
const TTL: Duration = Duration::from_secs(6);
const ROUNDS: u64 = 2;

/// A third of the lease.
const ROUND: Duration = Duration::from_secs(2);

const METHODS: [&str; 5] = ["LeaseGrant", "LeaseKeepAlive", "Range", "Txn", "Put"];

/// How many requests of each method came in so many rounds.
fn counted(etcd: &EtcdCluster) -> [u64; 5] {
    let before = METHODS.map(|method| etcd.received(method));
    thread::sleep(ROUND * ROUNDS as u32);
    let after = METHODS.map(|method| etcd.received(method));
    let mut came = [0; 5];
    for (n, came) in came.iter_mut().enumerate() {
        *came = after[n] - before[n];
    }
    let all: u64 = came.iter().sum();
    let second = (ROUND * ROUNDS as u32).as_secs_f64();
    println!("{METHODS:?} {came:?}: {:.1} a second, at a TTL of {TTL:?}", all as f64 / second);
    came
}

#[test]
fn a_hundred_roles_have_one_lease() {
    let etcd = EtcdCluster::single();
    let site = Site::new("");
    let mut text = fs::read_to_string(site.path("runner.toml")).unwrap();
    text = text.split("[role.app]").next().unwrap().to_owned();
    for n in 0..ROLES {
        write!(text, "[role.r{n}]\nsources = [\"{}\"]\n", site.src().display()).unwrap();
    }
    write!(text, "[etcd]\nendpoints = {:?}\nlease_ttl = \"{TTL:?}\"\n", etcd.endpoints()).unwrap();
    fs::write(site.path("runner.toml"), text).unwrap();
    site.write("file", "content");
    // The first one makes the key; most of the time is waited for the disk.
    site.node("east").run(["init", "r0"]).expect(0);
    let names: Vec<String> = (1..ROLES).map(|n| format!("r{n}")).collect();
    thread::scope(|scope| {
        for part in names.chunks(20) {
            scope
                .spawn(|| site.node("east").run(["init"].into_iter().chain(part.iter().map(String::as_str))).expect(0));
        }
    });
    let roles = |daemon: &TestDaemon, status: &str| daemon.log().matches(&format!(": {status}")).count() as u64;

    let start = boottime();
    let mut east = TestDaemon::start(&site, "east");
    wait_for("all roles are active", || (roles(&east, "active, term 1") == ROLES).then_some(()));
    println!("{ROLES} roles taken over in {:?}", since(start));
    assert_eq!(etcd.received("LeaseGrant"), 1, "one lease for the whole process");
    let [grants, keep_alives, ranges, txns, puts] = counted(&etcd);
    assert_eq!((grants, txns, puts), (0, 0, 0), "to hold a role nothing is written");
    // Each role reads its key once a round; those that do it within a sixth of the lease share a keep-alive.
    assert!((1..=3 * (ROUNDS + 1)).contains(&keep_alives), "{keep_alives}");
    assert!((ROLES * (ROUNDS - 1)..=ROLES * (ROUNDS + 1)).contains(&ranges), "{ranges}");

    let west = TestDaemon::start(&site, "west");
    wait_for("all roles are followed", || (roles(&west, "standby") == ROLES).then_some(()));
    assert_eq!(etcd.received("LeaseGrant"), 2);
    let [grants, _, _, txns, puts] = counted(&etcd);
    assert_eq!((grants, txns, puts), (0, 0, 0), "to wait for a role nothing is written");

    let start = boottime();
    east.stop();
    wait_for("all roles are taken over", || (roles(&west, "active, term 2") == ROLES).then_some(()));
    println!("{ROLES} roles given up and taken over in {:?}", since(start));
}
