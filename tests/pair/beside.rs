//! What other processes of a node do beside its daemon: they go through it, or under its lease; they never stand in its way.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::etcd::EtcdCluster;
use crate::rig::{
    AT_ONCE, End, ONE_SLOT, TTL, TestDaemon, alive, assert_stays, begun, boottime, bucket_site, etcd_site, let_go, now,
    s3_site, seconds, since, slow_dump, taken_by, takeovers, wait_for, wait_within,
};
use crate::s3_server::{BUCKET, S3Server, ServerFault};
use crate::site::{Site, role, words};
use crate::support::invariants::check_journal;

/// Each place in a document, with the kind of what stands there.
fn shape(value: &Value, at: &str) -> BTreeSet<String> {
    match value {
        Value::Object(map) => map.iter().flat_map(|(key, value)| shape(value, &format!("{at}.{key}"))).collect(),
        Value::Array(list) => list.iter().flat_map(|value| shape(value, &format!("{at}[]"))).collect(),
        Value::Null => [format!("{at} null")].into(),
        Value::Number(_) => [format!("{at} number")].into(),
        Value::String(_) => [format!("{at} text")].into(),
        Value::Bool(_) => [format!("{at} bool")].into(),
    }
}

/// The process that wrote the newest record.
fn writer(site: &Site) -> Value {
    site.records().last().unwrap()["instance"].clone()
}

#[test]
fn a_backup_goes_through_it_and_tells_the_same() {
    let site = bucket_site("");
    let mut east = TestDaemon::settled(&site, "east", "active");
    let daemon = writer(&site);
    assert_eq!(site.records().len(), 1, "a role without a schedule is held, and nothing is run");
    site.backup("east");
    site.write("more", "of it");
    let beside = site.node("east").run(["backup", "app", "--json"]).expect(0).json();
    assert_eq!(writer(&site), daemon, "the daemon did it");
    let run = &beside["roles"][0];
    assert_eq!(
        (&run["outcome"], &run["term"], &run["takeover"], &run["files"]["new"]),
        (&"committed".into(), &1.into(), &false.into(), &1.into()),
        "{run}"
    );
    // What it cannot do is told by the same code, with the same reason.
    fs::rename(site.src(), site.path("elsewhere")).unwrap();
    let failed = site.node("east").run(["backup", "app", "--json"]).expect(1).json();
    let west = TestDaemon::settled(&site, "west", "standby");
    let standby = role(&site.node("west").run(["backup", "app", "--json"]).expect(0));
    assert_eq!(standby["outcome"], "standby");
    assert!(standby["reason"].as_str().unwrap().contains("east"), "{standby}");
    site.node("west").run(["backup", "app", "--require-active"]).expect(3);
    drop(west);

    east.stop();
    let failed_alone = site.node("east").run(["backup", "app", "--json"]).expect(1).json();
    assert_eq!(failed["roles"][0]["reason"], failed_alone["roles"][0]["reason"]);
    fs::rename(site.path("elsewhere"), site.src()).unwrap();
    site.write("still more", "of it");
    let alone = site.node("east").run(["backup", "app", "--json"]).expect(0).json();
    assert_ne!(writer(&site), daemon);
    assert_eq!(shape(&beside, ""), shape(&alone, ""));
    assert_eq!(check_journal(&site.node("looker"), "app").takeovers, ["east"], "one node, one term");
}

#[test]
fn who_hangs_up_ends_the_run() {
    let site = Site::leased("");
    site.config(&format!("bucket_lease_ttl = \"{TTL:?}\"\n{AT_ONCE}{}", slow_dump(&site)));
    site.init();
    let east = TestDaemon::settled(&site, "east", "active");
    let mut caller = site.node("east").start(["backup", "app"]);
    let dump = wait_for("the dump begins", || begun(&site).first().copied());
    caller.kill().unwrap();
    caller.wait().unwrap();
    wait_within(TTL, "the dump ends", || (!alive(dump)).then_some(()));
    let_go(&site);
    assert_eq!(site.backup("east")["outcome"], "committed", "and nothing is in the way of the next");
    east.waits_to_be("active");
}

#[test]
fn a_command_runs_under_its_term_and_a_backup_is_not_in_the_way() {
    let site = Site::leased("");
    site.config(&format!("bucket_lease_ttl = \"{TTL:?}\"\n{AT_ONCE}{ONE_SLOT}{}", slow_dump(&site)));
    site.write("file", "content");
    site.init();
    let mut east = TestDaemon::settled(&site, "east", "active");
    let west = TestDaemon::settled(&site, "west", "standby");
    wait_for("the dump begins", || begun(&site).first().copied());
    // While the daemon itself works for the role.
    let echo = ["exec", "app", "--", "sh", "-c", "echo $RUNNER_TERM $RUNNER_NODE"];
    assert_eq!(site.node("east").run(echo).expect(0).stdout, "1 east\n");
    site.node("west").run(echo).expect(3);
    let_go(&site);
    east.waits_to_say("committed");
    assert_eq!(site.node("east").run(echo).expect(0).stdout, "1 east\n");
    // For longer than any grant that it was given at the start.
    let script = format!("echo $$ > {}; while :; do sleep 0.05; done", site.path("command").display());
    let mut exec = site.node("east").start(["exec", "app", "--", "sh", "-c", &script]);
    assert_stays(TTL * 2, "it goes on", || exec_lives(&site));
    assert_eq!(takeovers(&site).len(), 1, "nobody had to take anything over");
    east.signal(Signal::TERM);
    let code = wait_for("it ends", || exec.try_wait().unwrap()).code();
    assert_eq!(code, Some(4));
    assert!(east.ends().success());
    west.waits_to_be("active");
    assert_eq!(check_journal(&site.node("looker"), "app").takeovers, ["east", "west"]);
}

fn exec_lives(site: &Site) -> bool {
    let pid = fs::read_to_string(site.path("command")).unwrap_or_default();
    // It has begun within the time it takes, and then it lives.
    pid.trim().parse().map_or(true, alive)
}

#[test]
fn many_commands_meet_it_at_any_moment() {
    let site = bucket_site("every = \"1s\"\njitter = \"0s\"");
    let _east = TestDaemon::settled(&site, "east", "active");
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..8 {
                    site.node("east").run(["exec", "app", "--", "true"]).expect(0);
                }
            });
        }
        scope.spawn(|| {
            for _ in 0..8 {
                site.node("east").run(["backup", "app"]).expect(0);
            }
        });
    });
    assert_eq!(check_journal(&site.node("looker"), "app").takeovers, ["east"]);
}

/// Starts a command that is deaf to SIGTERM under the lease of this node, and waits until it is there.
fn deaf(site: &Site, node: &str) -> (Child, u32) {
    let script = format!("trap '' TERM; echo $$ > {}; while :; do sleep 0.05; done", site.path("command").display());
    let exec = site.node(node).start(["exec", "app", "--", "sh", "-c", &script]);
    let pid = wait_for("the command begins", || fs::read_to_string(site.path("command")).ok()?.trim().parse().ok());
    (exec, pid)
}

#[test]
fn a_command_is_gone_before_the_lease_of_a_daemon_that_is_gone() {
    for signal in [Signal::KILL, Signal::STOP] {
        let etcd = EtcdCluster::single();
        let site = etcd_site(&etcd, "");
        let east = TestDaemon::settled(&site, "east", "active");
        let _west = TestDaemon::settled(&site, "west", "standby");
        let (mut exec, command) = deaf(&site, "east");
        let struck = now();
        east.signal(signal);
        let ended = End::of(command, "the command");
        let taken = taken_by(&site, "west", struck);
        println!("{signal:?}: ended {:.3} s before the takeover", ended.before(taken));
        assert_eq!(exec.wait().unwrap().code(), Some(4));
        assert_eq!(check_journal(&site.node("looker"), "app").takeovers, ["east", "west"]);
    }
}

#[test]
fn a_deaf_command_without_a_daemon_is_gone_before_its_lease_in_etcd() {
    let mut etcd = EtcdCluster::single();
    let site = etcd_site(&etcd, "");
    let (mut exec, command) = deaf(&site, "east");
    let struck = now();
    etcd.kill(0);
    let ended = End::of(command, "the command").gone;
    assert!(seconds(struck, ended) < TTL.as_secs_f64() + 0.3, "{} s", seconds(struck, ended));
    assert_eq!(exec.wait().unwrap().code(), Some(4));
}

#[test]
fn who_waits_for_a_backup_is_told_when_the_daemon_ends() {
    for (signal, code, words) in [(Signal::TERM, 130, "interrupted"), (Signal::KILL, 4, "stopped before it reported")] {
        let site = Site::leased("");
        site.config(&format!("bucket_lease_ttl = \"{TTL:?}\"\n{AT_ONCE}{}", slow_dump(&site)));
        site.init();
        let mut east = TestDaemon::settled(&site, "east", "active");
        let mut command = site.node("east").command(["backup", "app"]);
        let caller = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for("the dump begins", || begun(&site).first().copied());
        east.signal(signal);
        let output = caller.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!((output.status.code(), said.contains(words)), (Some(code), true), "{signal:?}: {said}");
        east.ends();
        assert_eq!(site.snapshots().len(), 0);
    }
}

#[test]
fn a_node_has_one() {
    let site = bucket_site("");
    let east = TestDaemon::settled(&site, "east", "active");
    let run = site.node("east").run(["daemon"]).expect(1);
    let said = words(&run);
    assert!(said.contains("another daemon runs on this node") && said.contains(&east.id().to_string()), "{said}");
    assert_eq!(site.backup("east")["term"], 1, "the first one was not disturbed");
    // One that was killed leaves its socket, and is in nobody's way.
    drop(east);
    assert!(site.path("state-east/daemon.sock").exists());
    assert_eq!(site.backup("west")["outcome"], "unchanged", "nor was its lease for ever");
    TestDaemon::start(&site, "east").waits_to_be("active");
}

#[test]
fn who_observes_changes_nothing_and_leaves_the_cron_job_alone() {
    let site = bucket_site(ONE_SLOT);
    let content = || {
        let read = |name: &String| (name.clone(), fs::read(site.path("store").join(name)).unwrap());
        site.objects().iter().map(read).collect::<Vec<_>>()
    };
    let before = content();
    let mut east = TestDaemon::of(&site, &site.node("east"), &["--observe"]);
    east.waits_to_say("would back up for the slot");
    assert!(east.said("the lease is free; observe mode does not take it"), "{}", east.log());
    assert_stays(TTL, "the store is as it was", || content() == before);
    // The cron job that it observes beside.
    let cron = role(&site.node("east").run(["backup", "app", "--scheduled", "--json"]).expect(0));
    assert_eq!(cron["outcome"], "committed", "{cron}");
    site.node("east").run(["exec", "app", "--", "true"]).expect(0);
    assert_eq!(role(&site.node("west").run(["backup", "app", "--json"]).expect(0))["outcome"], "unchanged");
    let before = content();
    assert_stays(TTL, "the store is as it was", || content() == before);
    east.stop();
    assert_eq!(content(), before);
    assert_eq!(check_journal(&site.node("looker"), "app").takeovers, ["east", "west"]);
}

#[test]
fn a_repair_that_takes_longer_than_a_slot_ends() {
    let (etcd, server) = (EtcdCluster::single(), S3Server::start());
    let site = s3_site(&server, &etcd, "every = \"2s\"\njitter = \"0s\"\n");
    // A pack each, of which the repair reads every one.
    for n in 0..8 {
        site.write("file", format!("content {n}"));
        site.backup("east");
    }
    let mut east = TestDaemon::settled(&site, "east", "active");
    let lost = server.root.join(BUCKET).join("prod/app/journal/0000000000000003");
    fs::remove_file(lost).unwrap();
    server.trouble("GET", "/packs/", ServerFault::Delay(Duration::from_millis(500)), 100_000);
    let (before, start) = (site.listed().len(), boottime());
    let run = site.node("west").run(["repair", "app", "--force", "--json"]);
    assert!(matches!(run.code, Some(0 | 7)), "{}", words(&run));
    assert!(since(start) > Duration::from_secs(4), "it took longer than a slot: {:?}", since(start));
    assert!(site.listed().len() > before, "slots were committed meanwhile");
    assert!(!run.json()["record"].is_null(), "{}", run.stdout);
    let repaired = site.listed().len();
    wait_for("the daemon goes on", || (site.listed().len() > repaired).then_some(()));
    east.stop();
    site.node("looker").run(["verify", "app"]).expect(0);
}
