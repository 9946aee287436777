//! A slot every two seconds on both nodes, and neither of them is spared: each slot is committed exactly once, or missed, and
//! `audit` tells the same as the checker that reads the journal from outside.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use rustix::process::{Pid, Signal, kill_process};

use crate::etcd::EtcdCluster;
use crate::rig::{AT_ONCE, TTL, TestDaemon, boottime, etcd_site};
use crate::site::Site;
use crate::support::invariants::{CheckedJournal, check_journal, missed_by_audit};
use crate::support::tree::TreeRng;

const EVERY: i64 = 2;
const SCHEDULE: &str = "every = \"2s\"\njitter = \"0s\"\n";

/// What runs as a test, and what `make check-slots` runs.
const FEW: u64 = 15;
const MANY: u64 = 200;

#[track_caller]
fn judge(site: &Site, slots: u64) -> CheckedJournal {
    let kept = check_journal(&site.node("looker"), "app");
    let missed = kept.missed_slots(EVERY);
    println!(
        "{} committed ({} east, {} west), {} missed, {} takeovers",
        kept.slots.len(),
        kept.commits_by("east"),
        kept.commits_by("west"),
        missed.len(),
        kept.takeovers.len()
    );
    let last = kept.slots.last().unwrap().0.parse::<Timestamp>().unwrap().as_second();
    let told: Vec<i64> =
        missed_by_audit(&site.node("looker"), "app", EVERY).into_iter().filter(|slot| *slot < last).collect();
    assert_eq!(told, missed, "what nobody committed is reported, and nothing else");
    assert!(kept.slots.len() as u64 >= slots / 3, "{kept:?}");
    assert!(kept.commits_by("east") > 0 && kept.commits_by("west") > 0, "{kept:?}");
    site.node("looker").run(["verify", "app", "--read-data"]).expect(0);
    let looker = site.node("looker");
    let listed = site.listed();
    for n in (0..listed.len()).step_by(listed.len().div_ceil(20)) {
        site.restore(&looker, listed[n]["id"].as_str().unwrap(), &format!("restored-{n}"));
    }
    kept
}

fn pause(dice: &mut TreeRng, up_to: Duration) {
    thread::sleep(Duration::from_millis(dice.below(up_to.as_millis() as u64)));
}

fn daemons(slots: u64, seed: u64) {
    println!("seed {seed}");
    let etcd = EtcdCluster::single();
    let site = etcd_site(&etcd, SCHEDULE);
    let mut dice = TreeRng::new(seed);
    let mut daemons = [TestDaemon::start(&site, "east"), TestDaemon::start(&site, "west")];
    let end = boottime() + Duration::from_secs(slots * EVERY as u64);
    for n in 0.. {
        site.write("file", format!("{n}"));
        pause(&mut dice, TTL * 2);
        if boottime() > end {
            break;
        }
        let daemon = &mut daemons[dice.below(2) as usize];
        match dice.below(4) {
            0 => daemon.kill(),
            1 => daemon.stop(),
            2 => {
                daemon.signal(Signal::STOP);
                pause(&mut dice, TTL * 2);
                daemon.signal(Signal::CONT);
                continue;
            }
            // Nothing for a while: somebody has to get something done.
            _ => {
                thread::sleep(TTL);
                continue;
            }
        }
        pause(&mut dice, TTL);
        *daemon = TestDaemon::start(&site, &daemon.name.clone());
    }
    daemons.iter_mut().for_each(TestDaemon::stop);
    judge(&site, slots);
}

/// A cron that calls more often than slots come, and whose calls do not always go well.
fn cron(site: &Site, node: &str, mut dice: TreeRng, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let mut run = site.node(node).start(["backup", "app", "--scheduled"]);
        let id = Pid::from_child(&run);
        if dice.below(6) == 0 {
            pause(&mut dice, Duration::from_millis(600));
            // It may have ended by itself; its number is its own until it is waited for.
            match dice.below(3) {
                0 => kill_process(id, Signal::KILL).unwrap(),
                1 => kill_process(id, Signal::TERM).unwrap(),
                _ => {
                    kill_process(id, Signal::STOP).unwrap();
                    pause(&mut dice, TTL * 2);
                    kill_process(id, Signal::CONT).unwrap();
                }
            }
        }
        let code = run.wait().unwrap().code();
        // Done or not needed, cannot tell, fenced, told to stop, killed.
        assert!(matches!(code, Some(0 | 4 | 5 | 130) | None), "{node}: {code:?}");
        thread::sleep(Duration::from_millis(300));
    }
}

fn crons(slots: u64, seed: u64) {
    println!("seed {seed}");
    let site = Site::leased("");
    let dump = "[role.app.dumps]\n\"now\" = { command = [\"sh\", \"-c\", \"sleep 0.2; date\"] }\n";
    site.config(&format!("bucket_lease_ttl = \"{TTL:?}\"\n{AT_ONCE}{SCHEDULE}{dump}"));
    site.write("file", "content");
    site.init();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let running = ["east", "west"].map(|node| {
            let (site, over) = (&site, &over);
            scope.spawn(move || cron(site, node, TreeRng::new(seed + u64::from(node == "west")), over))
        });
        let end = boottime() + Duration::from_secs(slots * EVERY as u64);
        while boottime() < end && !running.iter().any(thread::ScopedJoinHandle::is_finished) {
            thread::sleep(Duration::from_millis(100));
        }
        over.store(true, Ordering::Relaxed);
    });
    judge(&site, slots);
}

#[test]
fn of_two_daemons_one_commits_each_slot() {
    daemons(FEW, 11);
}

#[test]
fn of_two_crons_one_commits_each_slot() {
    crons(FEW, 12);
}

#[test]
#[ignore = "minutes: make check-slots"]
fn campaign_of_daemons() {
    daemons(MANY, 1);
}

#[test]
#[ignore = "minutes: make check-slots"]
fn campaign_of_crons() {
    crons(MANY, 2);
}
