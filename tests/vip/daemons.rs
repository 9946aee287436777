//! A daemon on each host: duty follows the address without anybody's call, and an address on both hosts is one conflict of one
//! of them, told once.

use std::time::Duration;

use runner::role::controller::read_interval::READ_INTERVAL;

use crate::Pair;
use crate::daemon::{TestDaemon, assert_stays, wait_for};
use crate::netns::{East, LanHost, West};
use crate::support::invariants::{check_journal, missed_by_audit};

const EVERY: i64 = 3;

/// Whoever is eligible again after the other one took the role waits until that one lets a slot pass, for this long.
const SCHEDULE: &str =
    "every = \"3s\"\njitter = \"0s\"\nmissed_after = \"3s\"\ntakeover_delay = \"0s\"\ntakeover_after = \"6s\"";

/// How long the address stays on both hosts: longer than the one that lost the role goes without a look at the journal.
const DOUBLED: Duration = Duration::from_secs(READ_INTERVAL.as_secs() + 1);

/// What is dropped first stands first: the daemons' logs are in the pair.
struct Stage {
    daemons: [TestDaemon; 2],
    pair: Pair,
}

impl Stage {
    /// Both run, and the east one is active.
    fn new() -> Self {
        let pair = Pair::with_vip(SCHEDULE);
        let daemons = LanHost::BOTH.map(|side| TestDaemon::of(&pair.site, &pair.node(side), &[]));
        let stage = Self { daemons, pair };
        stage.works(East);
        stage
    }

    fn daemon(&self, side: LanHost) -> &TestDaemon {
        &self.daemons[side as usize]
    }

    fn commits(&self, by: LanHost) -> usize {
        self.pair.site.snapshots().iter().filter(|record| record["node"]["name"] == by.name()).count()
    }

    #[track_caller]
    fn waits_for_commits(&self, by: LanHost, more: usize) {
        let before = self.commits(by);
        wait_for(format!("{by:?} commits"), || (self.commits(by) >= before + more).then_some(()));
    }

    /// This one works for the role, and the other one stands by.
    #[track_caller]
    fn works(&self, side: LanHost) {
        self.daemon(side).waits_to_be("active");
        self.daemon(side.other()).waits_to_be("standby");
        self.waits_for_commits(side, 1);
    }

    /// Who told what of a conflict.
    fn conflicts(&self) -> Vec<String> {
        let told = self.pair.site.told().into_iter().filter(|told| told["event"] == "conflict");
        told.map(|told| format!("{} {}", told["node"], told["phase"]).replace('"', "")).collect()
    }
}

#[test]
fn duty_follows_the_address_and_a_doubled_one_is_told_once() {
    let mut stage = Stage::new();
    stage.pair.lan.stop_keepalived(East);
    stage.works(West);
    stage.pair.lan.start_keepalived(East);
    stage.pair.lan.link_down(West);
    stage.works(East);
    stage.pair.lan.link_up(West);
    assert_eq!(stage.conflicts(), [""; 0]);

    stage.pair.lan.freeze(East);
    stage.pair.lan.wait_for_vip(West);
    assert!(stage.pair.lan.has_vip(East), "the address is on both");
    stage.daemon(West).waits_to_be("active");
    stage.daemon(East).waits_to_be("CONFLICT");
    let (before, whoami) = (stage.commits(East), LanHost::BOTH.map(|side| stage.pair.whoami(side)));
    let states = whoami.each_ref().map(|role| (role["state"].as_str().unwrap(), role["reason"].as_str().unwrap()));
    assert_eq!(states, [("conflict", "taken_over"), ("active", "probes_yes")], "{whoami:?}");
    wait_for("it is told", || (!stage.conflicts().is_empty()).then_some(()));
    stage.waits_for_commits(West, 1);
    assert_stays(DOUBLED, "one works, and the other one does not", || {
        let statuses = stage.daemons.each_ref().map(TestDaemon::status);
        statuses == [Some("CONFLICT".to_owned()), Some("active".to_owned())] && stage.commits(East) == before
    });
    assert_eq!(stage.conflicts(), ["east begun"], "one alert from the pair");

    // The one that comes back outranks the other one.
    stage.pair.lan.thaw(East);
    stage.pair.lan.wait_for_no_vip(West);
    stage.works(East);
    wait_for("it is told to be over", || (stage.conflicts().len() > 1).then_some(()));
    stage.daemons.iter_mut().for_each(TestDaemon::stop);
    assert_eq!(stage.conflicts(), ["east begun", "east over"]);

    let looker = stage.pair.site.node("looker");
    let kept = check_journal(&looker, "app");
    println!("{} slots, missed {:?}, takeovers {:?}", kept.slots.len(), kept.missed_slots(EVERY), kept.takeovers);
    assert_eq!(kept.takeovers, ["east", "west", "east", "west", "east"], "only where the address went: {kept:?}");
    let last = kept.slots.last().unwrap().0.parse::<jiff::Timestamp>().unwrap().as_second();
    let told: Vec<i64> = missed_by_audit(&looker, "app", EVERY).into_iter().filter(|slot| *slot < last).collect();
    assert_eq!(told, kept.missed_slots(EVERY), "what nobody committed is reported, and nothing else");
    looker.run(["verify", "app", "--read-data"]).expect(0);
}
