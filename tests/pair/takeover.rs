//! How fast the other one goes on: after a death, counted from etcd's own end of the holder's key, and after a farewell.

use std::sync::Arc;
use std::time::Duration;
use std::{fs, thread};

use etcd_client::{Client, EventType, WatchOptions};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::etcd::EtcdCluster;
use crate::rig::{
    End, ONE_SLOT, TTL, TestDaemon, all_is_whole, begun, etcd_site, let_go, now, seconds, slow_dump, taken_by, wait_for,
};
use crate::site::Site;
use crate::support::invariants::check_journal;
use crate::support::tree::TreeRng;

/// From the end of the holder's key to the takeover record.
const AFTER_THE_KEY: f64 = 2.0;

/// From the end of the last guarded child to the takeover record.
const AFTER_THE_CHILD: f64 = 1.0;

/// When holders' keys went, by etcd's word.
struct Deletions(Arc<Mutex<Vec<Timestamp>>>);

impl Deletions {
    fn watch(etcd: &EtcdCluster) -> Self {
        let (endpoints, seen) = (etcd.endpoints(), Arc::new(Mutex::new(Vec::new())));
        let tell = Arc::clone(&seen);
        let (ready, is_ready) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut client = Client::connect(endpoints, None).await.unwrap();
                let options = WatchOptions::new().with_prefix();
                let mut stream = client.watch("/runner/", Some(options)).await.unwrap();
                ready.send(()).unwrap();
                // It ends with its etcd.
                while let Ok(Some(answer)) = stream.message().await {
                    let gone = |event: &etcd_client::Event| {
                        event.event_type() == EventType::Delete
                            && event.kv().is_some_and(|kv| kv.key().ends_with(b"/holder"))
                    };
                    if answer.events().iter().any(gone) {
                        tell.lock().push(now());
                    }
                }
            });
        });
        is_ready.recv().unwrap();
        Self(seen)
    }

    #[track_caller]
    fn first_after(&self, at: Timestamp) -> Timestamp {
        wait_for("the holder's key goes", || self.0.lock().iter().find(|seen| **seen >= at).copied())
    }
}

/// Kills whoever is active, so many times; how long it took from the end of its key, and from the kill.
fn kill_again_and_again(times: usize) -> Vec<(f64, f64)> {
    let etcd = EtcdCluster::cluster();
    let site = etcd_site(&etcd, "");
    let deletions = Deletions::watch(&etcd);
    let mut dice = TreeRng::new(7);
    let mut active = TestDaemon::settled(&site, "east", "active");
    let mut standby = TestDaemon::settled(&site, "west", "standby");
    let mut samples = Vec::new();
    for _ in 0..times {
        // Somewhere between two keep-alives.
        thread::sleep(Duration::from_millis(500 + dice.below(TTL.as_millis() as u64 / 3)));
        let killed = now();
        active.kill();
        let (gone, taken) = (deletions.first_after(killed), taken_by(&site, &standby.name, killed));
        samples.push((seconds(gone, taken), seconds(killed, taken)));
        let restarted = TestDaemon::settled(&site, &active.name, "standby");
        active = std::mem::replace(&mut standby, restarted);
    }
    assert_eq!(check_journal(&site.node("looker"), "app").takeovers.len(), times + 1, "nobody took over without need");
    samples
}

#[test]
fn a_killed_holder_is_followed_soon_after_the_end_of_its_key() {
    let samples = kill_again_and_again(3);
    println!("from the end of the key, from the kill: {samples:.3?}");
    assert!(samples.iter().all(|(key, _)| *key < AFTER_THE_KEY), "{samples:.3?}");
    // A lease is never over before its time, counted from the last keep-alive.
    let early = TTL.as_secs_f64() * 2.0 / 3.0 - 0.5;
    assert!(samples.iter().all(|(_, kill)| *kill > early), "{samples:.3?}");
}

#[test]
#[ignore = "minutes: make check-pair"]
fn campaign_of_kills() {
    let samples = kill_again_and_again(20);
    for (what, mut times) in [
        ("from the end of the key", samples.iter().map(|s| s.0).collect::<Vec<_>>()),
        ("from the kill", samples.iter().map(|s| s.1).collect()),
    ] {
        times.sort_by(f64::total_cmp);
        let at = |part: f64| times[((times.len() - 1) as f64 * part).round() as usize];
        println!(
            "{what}: min {:.3} s, median {:.3} s, p95 {:.3} s, max {:.3} s ({} times, TTL {TTL:?})",
            at(0.0),
            at(0.5),
            at(0.95),
            at(1.0),
            times.len()
        );
    }
    assert!(samples.iter().all(|(key, _)| *key < AFTER_THE_KEY), "{samples:.3?}");
}

#[test]
fn who_is_told_to_stop_ends_its_backup_first_and_the_other_follows_at_once() {
    let etcd = EtcdCluster::cluster();
    let site = Site::leased("");
    site.config(&crate::rig::etcd_lines(&etcd.endpoints(), &format!("{ONE_SLOT}{}", slow_dump(&site))));
    site.write("file", "content");
    site.init();
    let mut east = TestDaemon::settled(&site, "east", "active");
    wait_for("the dump begins", || begun(&site).first().copied());
    let west = TestDaemon::settled(&site, "west", "standby");
    let told = now();
    east.signal(rustix::process::Signal::TERM);
    let dump = begun(&site)[0];
    let ended = End::of(dump, "the dump");
    let taken = taken_by(&site, "west", told);
    println!("backup: {:.3} s after the dump, {:.3} s after SIGTERM", ended.before(taken), seconds(told, taken));
    assert!(ended.before(taken) < AFTER_THE_CHILD, "{}", ended.before(taken));
    assert!(east.ends().success());
    let_go(&site);
    west.waits_to_say("committed");
    let kept = check_journal(&site.node("looker"), "app");
    assert_eq!((kept.takeovers.len(), kept.commits_by("east"), kept.commits_by("west")), (2, 0, 1), "{kept:?}");
    all_is_whole(&site);
}

#[test]
fn who_is_told_to_stop_ends_its_guests_first_and_the_other_follows_at_once() {
    let etcd = EtcdCluster::cluster();
    let site = etcd_site(&etcd, "");
    let mut east = TestDaemon::settled(&site, "east", "active");
    let west = TestDaemon::settled(&site, "west", "standby");
    let script = format!("echo $$ > {}; while :; do sleep 0.05; done", site.path("command").display());
    let exec = site.node("east").start(["exec", "app", "--", "sh", "-c", &script]);
    let command = wait_for("the command begins", || fs::read_to_string(site.path("command")).ok()?.trim().parse().ok());
    let told = now();
    east.signal(rustix::process::Signal::TERM);
    let ended = End::of(command, "the command");
    let taken = taken_by(&site, "west", told);
    println!("exec: {:.3} s after it, {:.3} s after SIGTERM", ended.before(taken), seconds(told, taken));
    assert!(ended.before(taken) < AFTER_THE_CHILD, "{}", ended.before(taken));
    assert!(seconds(told, taken) < TTL.as_secs_f64() + AFTER_THE_CHILD, "{}", seconds(told, taken));
    let status = exec.wait_with_output().unwrap().status;
    assert_eq!(status.code(), Some(4), "it cannot tell any more whether the role is here");
    assert!(east.ends().success());
    west.waits_to_be("active");
    assert_eq!(check_journal(&site.node("looker"), "app").takeovers, ["east", "west"]);
}
