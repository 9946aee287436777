//! What is away is asked again and again, by all roles of a node, and the log says so once in a while. Lines are counted, not seconds: the
//! daemon logs with `-v` what it would keep to itself.

use std::fs;

use crate::etcd::EtcdCluster;
use crate::rig::{TTL, TestDaemon, bucket_site, etcd_site, wait_for};
use crate::s3_server::{BUCKET, S3Server, ServerFault, environment};
use crate::site::Site;

/// So many failures that nobody reads of without `-v` are enough to tell a line for each from a line a minute.
const FAILURES: usize = 30;

/// Two roles beside the site's own, with the same lease.
fn add_roles(site: &Site) {
    let path = site.path("runner.toml");
    let text = fs::read_to_string(&path).unwrap();
    let lease = if text.contains("[etcd]") { String::new() } else { format!("bucket_lease_ttl = \"{TTL:?}\"\n") };
    let role = |name: &str| {
        format!("\n[role.{name}]\nsources = [\"{}\"]\n{lease}takeover_delay = \"0s\"\n", site.src().display())
    };
    fs::write(&path, text + &role("db") + &role("web")).unwrap();
    for name in ["db", "web"] {
        site.node("east").run(["init", name]).expect(0);
    }
}

/// A daemon that has all three roles.
fn settled(site: &Site) -> TestDaemon {
    add_roles(site);
    let east = TestDaemon::of(site, &site.node("east"), &["-v"]);
    for role in ["app", "db", "web"] {
        east.waits_to_say(&format!(" {role}: active, term"));
    }
    east
}

/// Lines of the log that somebody reads who did not ask for more.
fn read(log: &str) -> Vec<&str> {
    log.lines().filter(|line| !line.contains("Z DEBUG ") && !line.contains("Z TRACE ")).collect()
}

/// Takes `cause` away and brings it back: what was logged in between, without what each role says of itself when it stands differently.
fn outage(east: &TestDaemon, cause: &str, away: impl FnOnce(), back: impl FnOnce()) -> Vec<String> {
    let before = east.log().len();
    away();
    let again = format!("DEBUG again, {cause}: ");
    wait_for(format!("{FAILURES} failures of {cause}\n{}", east.log()), || {
        (east.log()[before..].matches(&again).count() >= FAILURES).then_some(())
    });
    let end = east.log().len();
    back();
    for role in ["app", "db", "web"] {
        let active = format!(" {role}: active, term");
        wait_for(format!("{role} is active again"), || east.log()[end..].contains(&active).then_some(()));
    }
    let log = east.log();
    let answers = format!("{cause} answers again");
    assert_eq!(log[before..].matches(&answers).count(), 1, "{log}");
    let is_status = |line: &&str| ["app", "db", "web"].iter().any(|role| line.contains(&format!(" {role}: unknown: ")));
    let said: Vec<&str> = read(&log[before..end]);
    let told: Vec<&str> = said.iter().copied().filter(|line| !is_status(line)).collect();
    assert!(said.len() - told.len() <= 6, "a role says how it stands when that changes: {said:#?}");
    told.iter().map(|line| (*line).to_owned()).collect()
}

#[test]
fn a_directory_that_is_away_is_said_once() {
    let site = bucket_site("");
    let mut east = settled(&site);
    let (store, gone) = (site.path("store"), site.path("gone"));
    let told = outage(&east, "the store", || fs::rename(&store, &gone).unwrap(), || fs::rename(&gone, &store).unwrap());
    assert!((1..=2).contains(&told.len()), "{told:#?}");
    assert!(told[0].contains("there is no such directory"), "{told:#?}");
    east.stop();
}

#[test]
fn a_bucket_that_does_not_answer_is_said_once() {
    let server = S3Server::start();
    let (url, objects) = (format!("s3://{BUCKET}/prod"), server.root.join(BUCKET).join("prod"));
    let site = Site::on_s3(&url, &server.endpoint, objects, environment(), "");
    let config = site.path("runner.toml");
    let lease = format!("bucket_lease_ttl = \"{TTL:?}\"\ntakeover_delay = \"0s\"\n");
    fs::write(&config, fs::read_to_string(&config).unwrap().replace("lease = \"none\"\n", &lease)).unwrap();
    site.write("file", "content");
    site.init();
    let mut east = settled(&site);
    let hang_up = || {
        for method in ["GET", "PUT", "POST", "HEAD"] {
            server.trouble(method, "", ServerFault::Hangup, usize::MAX);
        }
    };
    let told = outage(&east, "the store", hang_up, || server.calm());
    assert!((1..=2).contains(&told.len()), "{told:#?}");
    assert!(told.iter().all(|line| line.contains(&server.endpoint)), "it is named: {told:#?}");
    east.stop();
}

#[test]
fn an_etcd_that_is_away_is_said_once() {
    let mut etcd = EtcdCluster::single();
    let site = etcd_site(&etcd, "");
    let mut east = settled(&site);
    let etcd = std::cell::RefCell::new(&mut etcd);
    let told = outage(&east, "etcd", || etcd.borrow_mut().kill(0), || etcd.borrow_mut().restart(0));
    assert!((1..=2).contains(&told.len()), "{told:#?}");
    let endpoint = &etcd.borrow().endpoints()[0];
    assert!(told.iter().all(|line| line.contains(endpoint.as_str())), "it is named: {told:#?}");
    east.stop();
}
