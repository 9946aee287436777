//! What befalls a cluster: a story of faults that the seed writes, then peace, and what must be so after it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use runner::config::LeaseKind;
use runner::env::Clock as _;
use runner::job::audit;
use runner::job::report::audited::AuditFinding;
use runner::role::controller::RoleStatus;
use runner::role::probe::ProbeAnswer;
use runner::role::slot::SlotSchedule;

pub use crate::action::ScenarioAction;
use crate::files::SimDisk;
use crate::hosts::ThawedClock;
use crate::invariant_checker::RecordCounts;
use crate::network::NetworkFaults;
use crate::node::{OperatorAction, SimCluster};
use crate::rng::Rng;
use crate::setup::{ClusterSetup, EVERY, EligibilityRule, LaunchMode};

/// For how long things happen.
const TROUBLE: (Duration, Duration) = (Duration::from_mins(4), Duration::from_mins(25));

/// When all faults have ended, everything is as it should be after so long: the longest pause between two tries of whatever failed is
/// five minutes, and a holder that is silent is waited for.
const SETTLES: Duration = Duration::from_mins(8);

/// And then stays so.
const PEACE: Duration = Duration::from_mins(4);

/// Of how many backups of a state directory it may be set back to one.
const KEPT_MAX: usize = 3;

/// How often a timer looks between two records: a weekly slot, looked for every five minutes, is looked for 2016 times.
pub const LOOKS: u32 = 1100;

/// What a seed came to.
#[derive(Debug, Clone, Default)]
pub struct SeedResult {
    pub seed: u64,
    pub steps: u64,
    pub requests: u64,
    pub count: RecordCounts,
    /// Of all that happened, and when.
    pub trace: u64,
    pub broken: Vec<String>,
    pub setup: Option<ClusterSetup>,
    pub story: Vec<String>,
}

pub struct Scenario {
    pub cluster: SimCluster,
    rng: Rng,
    planned: BTreeMap<(Duration, u64), ScenarioAction>,
    serial: u64,
    clone: Option<usize>,
    files: u64,
    /// The newest backups of state directories.
    kept: BTreeMap<usize, Vec<SimDisk>>,
    /// By how much it takes longer.
    off: Duration,
}

fn signed(time: Duration) -> SignedDuration {
    SignedDuration::try_from(time).expect("within the calendar")
}

/// Plays this seed's story; with `log` it is written down.
pub fn run_seed(seed: u64, log: bool) -> SeedResult {
    let mut rng = Rng::new(seed ^ 0x5107);
    let setup = ClusterSetup::drawn(&mut rng);
    let cluster = SimCluster::new(seed, setup);
    if log {
        cluster.truth.log();
    }
    let mut story = Scenario::new(cluster, rng);
    story.begin();
    story.trouble();
    if story.cluster.judge.is_content() {
        story.peace();
    }
    story.told(seed, log)
}

impl Scenario {
    pub fn new(cluster: SimCluster, rng: Rng) -> Self {
        Self {
            cluster,
            rng,
            planned: BTreeMap::new(),
            serial: 0,
            clone: None,
            files: 0,
            kept: BTreeMap::new(),
            off: Duration::ZERO,
        }
    }

    pub fn begin(&mut self) {
        for _ in 0..6 {
            self.write();
        }
        self.act(ScenarioAction::Move(1));
        for host in self.cluster.hosts() {
            self.cluster.start(host);
        }
    }

    fn trouble(&mut self) {
        let trouble = self.rng.time(TROUBLE.0, TROUBLE.1);
        let pace = *self.rng.pick(&[4, 12, 30]);
        let mut next = Duration::from_secs(20);
        while self.cluster.judge.is_content() {
            let planned = self.planned.keys().next().map(|(at, _)| *at);
            let at = planned.map_or(next, |at| at.min(next));
            if at >= trouble + self.off {
                return;
            }
            self.cluster.world.run_until(at);
            if let Some((_, action)) =
                self.planned.first_key_value().filter(|((at, _), _)| *at <= self.now()).map(|(k, a)| (*k, *a))
            {
                self.planned.pop_first();
                self.act(action);
            } else {
                self.happen();
                next = self.now().max(next) + self.rng.time(Duration::from_millis(200), Duration::from_secs(2 * pace));
            }
        }
    }

    fn now(&self) -> Duration {
        self.cluster.world.now()
    }

    fn later(&mut self, most: Duration, action: ScenarioAction) {
        let at = self.now() + self.rng.time(Duration::from_millis(100), most);
        self.plan(at, action);
    }

    fn plan(&mut self, at: Duration, action: ScenarioAction) {
        self.serial += 1;
        self.planned.insert((at, self.serial), action);
    }

    /// Something happens, and what ends it is planned.
    fn happen(&mut self) {
        let hosts: Vec<usize> = (1..=self.cluster.setup.nodes).collect();
        let host = *self.rng.pick(&hosts);
        let short = Duration::from_secs(*self.rng.pick(&[3, 15, 40, 150]));
        match self.rng.below(37) {
            0..=4 => self.act(ScenarioAction::Write),
            5..=7 => {
                // Seldom without a moment in which it is nowhere, or on both.
                match self.rng.below(3) {
                    0 => self.act(ScenarioAction::Move(0)),
                    1 => self.act(ScenarioAction::SetProbe(host, ProbeAnswer::Yes)),
                    _ => {}
                }
                self.later(Duration::from_secs(15), ScenarioAction::Move(host));
            }
            8 => {
                let answer =
                    *self.rng.pick(&[ProbeAnswer::Yes, ProbeAnswer::No, ProbeAnswer::Unknown, ProbeAnswer::Unknown]);
                self.act(ScenarioAction::SetProbe(host, answer));
            }
            9 | 10 => {
                let (wipe, reboot) = (self.rng.chance(250), self.rng.chance(400));
                self.act(ScenarioAction::Kill { host, wipe, reboot });
                self.later(short, ScenarioAction::Start(host));
            }
            11 | 12 => {
                self.act(ScenarioAction::Stop(host));
                self.later(short, ScenarioAction::Resume(host));
            }
            13 => {
                self.act(ScenarioAction::Freeze(host));
                let thaw = if self.rng.chance(500) { ThawedClock::Behind } else { ThawedClock::SetRight };
                self.later(short, ScenarioAction::Thaw(host, thaw));
            }
            14 => {
                let by = *self.rng.pick(&[-7200, -900, -20, -3, 3, 20, 900, 7200]);
                self.act(ScenarioAction::StepClock(host, by));
                self.later(Duration::from_mins(3), ScenarioAction::StepClock(host, 0));
            }
            15 => {
                let drift = *self.rng.pick(&[-20_000, -2_000, 2_000, 20_000]);
                self.act(ScenarioAction::DriftClock(host, drift));
                self.later(Duration::from_mins(5), ScenarioAction::DriftClock(host, 0));
            }
            16..=18 => {
                let most = *self.rng.pick(&[20, 80, 250]);
                let faults = NetworkFaults::drawn(&mut self.rng, most);
                self.act(ScenarioAction::Bucket(faults));
                self.later(short * 2, ScenarioAction::Bucket(NetworkFaults::NONE));
            }
            19 | 20 if self.has_etcd() => {
                let most = *self.rng.pick(&[50, 250]);
                let faults = NetworkFaults::drawn(&mut self.rng, most);
                let action = if self.rng.chance(500) {
                    ScenarioAction::Leases(faults)
                } else {
                    ScenarioAction::Registers(faults)
                };
                self.act(action);
                self.later(short * 2, ScenarioAction::Leases(NetworkFaults::NONE));
                self.later(short * 2, ScenarioAction::Registers(NetworkFaults::NONE));
            }
            21 if self.has_etcd() => match self.rng.below(5) {
                0 => self.act(ScenarioAction::EtcdForgets),
                1 => self.act(ScenarioAction::EtcdLeader),
                2 => {
                    let late = self.rng.time(Duration::ZERO, Duration::from_secs(5));
                    self.act(ScenarioAction::EtcdLate(late));
                }
                _ => {
                    self.act(ScenarioAction::SilenceEtcd(true));
                    self.later(short, ScenarioAction::SilenceEtcd(false));
                }
            },
            22 => {
                self.act(ScenarioAction::Cut(host, true));
                self.later(short, ScenarioAction::Cut(host, false));
            }
            23 if self.has_etcd() => {
                self.act(ScenarioAction::CutEtcd(host, true));
                self.later(short, ScenarioAction::CutEtcd(host, false));
            }
            24 => {
                self.act(ScenarioAction::SilenceBucket(true));
                self.later(Duration::from_secs(90), ScenarioAction::SilenceBucket(false));
            }
            25 => match self.rng.below(4) {
                0 => self.act(ScenarioAction::DeleteBootDir(host)),
                1 => {
                    self.act(ScenarioAction::MemoryFull(host, true));
                    self.later(short, ScenarioAction::MemoryFull(host, false));
                }
                _ => {
                    self.act(ScenarioAction::DiskFull(host, true));
                    self.later(short, ScenarioAction::DiskFull(host, false));
                }
            },
            26 if self.rng.chance(333) => self.act(ScenarioAction::Operate(host, OperatorAction::TakeOver)),
            26 => {
                self.act(ScenarioAction::Operate(host, OperatorAction::Pause));
                self.later(short, ScenarioAction::Operate(host, OperatorAction::Resume));
            }
            27 => self.act(ScenarioAction::Prune(host)),
            // Answers take their time, and then there are none, and others are eligible as well.
            28 | 29 if self.rng.chance(400) => {
                let slow = NetworkFaults { slow: 700, slow_max: Duration::from_secs(3), ..NetworkFaults::NONE };
                self.act(ScenarioAction::Leases(slow));
                self.act(ScenarioAction::Bucket(slow));
                let then = self.now() + self.rng.time(Duration::from_secs(3), Duration::from_secs(20));
                for action in [
                    ScenarioAction::CutEtcd(host, true),
                    ScenarioAction::Cut(host, true),
                    ScenarioAction::Leases(NetworkFaults::NONE),
                    ScenarioAction::Bucket(NetworkFaults::NONE),
                ] {
                    self.plan(then, action);
                }
                for other in hosts.into_iter().filter(|other| *other != host) {
                    self.plan(then, ScenarioAction::SetProbe(other, ProbeAnswer::Yes));
                }
                self.plan(then + short, ScenarioAction::Cut(host, false));
                self.plan(then + short, ScenarioAction::CutEtcd(host, false));
            }
            31 => {
                let days = self.rng.between(30, 1200) as i64;
                let by = if self.rng.chance(600) { days } else { -days };
                self.act(ScenarioAction::StepClock(host, by * 24 * 60 * 60));
                self.later(Duration::from_mins(3), ScenarioAction::StepClock(host, 0));
            }
            32 if self.rng.below(3) == 0 => self.act(ScenarioAction::DeleteStateDir(host)),
            32 => {
                self.act(ScenarioAction::BackUpStateDir(host));
                for _ in 0..self.rng.between(1, 4) {
                    self.later(Duration::from_mins(5), ScenarioAction::RestoreStateDir(host));
                }
            }
            33 => {
                self.act(ScenarioAction::Hang(host, true));
                self.later(Duration::from_mins(5), ScenarioAction::Hang(host, false));
            }
            34 => {
                let most = *self.rng.pick(&[50, 300]);
                let rate = |rng: &mut Rng| rng.below(most + 1) as u32;
                let faults =
                    NetworkFaults { garbled: rate(&mut self.rng), misled: rate(&mut self.rng), ..NetworkFaults::NONE };
                self.act(ScenarioAction::Bucket(faults));
                self.later(short * 2, ScenarioAction::Bucket(NetworkFaults::NONE));
            }
            35 if self.rng.chance(30) && self.cluster.setup.lease != LeaseKind::Etcd => {
                self.act(ScenarioAction::RunTimer(host, LOOKS));
                self.off += Duration::from_mins(12);
            }
            _ if self.rng.chance(120) && self.clone.is_none() => self.act(ScenarioAction::Clone { of: host }),
            _ if self.rng.chance(60) => {
                let days = self.rng.between(1, 9);
                self.act(ScenarioAction::Outage(Duration::from_hours(24 * days)));
            }
            _ => self.act(ScenarioAction::Write),
        }
    }

    fn has_etcd(&self) -> bool {
        self.cluster.setup.lease == LeaseKind::Etcd || self.cluster.setup.journal_in_etcd
    }

    pub fn act(&mut self, action: ScenarioAction) {
        let cluster = &mut self.cluster;
        let world = cluster.world.process(0).world;
        cluster.truth.say(&world, || format!("{action:?}"));
        match action {
            ScenarioAction::Move(to) => {
                for host in cluster.hosts() {
                    let here = host == to || self.clone == Some(host) && to != 0 && self.rng.chance(100);
                    cluster.truth.put(host, if here { ProbeAnswer::Yes } else { ProbeAnswer::No });
                }
            }
            ScenarioAction::SetProbe(host, answer) => cluster.truth.put(host, answer),
            ScenarioAction::Kill { host, wipe, reboot } => {
                if reboot {
                    world.reboot(host);
                } else {
                    world.kill(host);
                }
                cluster.judge.was_held(host, true);
                if wipe {
                    world.disk(host).wipe();
                    cluster.renew(host);
                }
            }
            ScenarioAction::Start(host) => {
                // It may have been started and killed again meanwhile.
                world.kill(host);
                cluster.start(host);
            }
            ScenarioAction::Stop(host) => {
                world.stop(host);
                cluster.judge.was_held(host, false);
            }
            ScenarioAction::Resume(host) => {
                world.go_on(host);
                cluster.judge.was_held(host, false);
            }
            ScenarioAction::Freeze(host) => {
                world.freeze(host);
                cluster.judge.was_held(host, true);
            }
            ScenarioAction::Thaw(host, thaw) => {
                world.thaw(host, thaw);
                cluster.judge.was_held(host, true);
            }
            ScenarioAction::StepClock(host, 0) => {
                let off = world.wall().duration_since(world.process(host).now());
                world.step_wall(host, off);
            }
            ScenarioAction::StepClock(host, by) => world.step_wall(host, SignedDuration::from_secs(by)),
            ScenarioAction::DriftClock(host, by) => world.drift(host, by),
            ScenarioAction::Bucket(faults) => cluster.bucket.net().set(faults),
            ScenarioAction::Leases(faults) => cluster.leases.net().set(faults),
            ScenarioAction::Registers(faults) => cluster.registers.net().set(faults),
            ScenarioAction::Cut(host, is_cut) => cluster.bucket.net().cut(host, is_cut),
            ScenarioAction::CutEtcd(host, is_cut) => {
                cluster.leases.net().cut(host, is_cut);
                cluster.registers.net().cut(host, is_cut);
            }
            ScenarioAction::SilenceBucket(silent) => cluster.bucket.net().silence(silent),
            ScenarioAction::SilenceEtcd(silent) => {
                cluster.leases.net().silence(silent);
                cluster.registers.net().silence(silent);
            }
            ScenarioAction::EtcdForgets => cluster.leases.forget(),
            ScenarioAction::EtcdLeader => cluster.leases.change_leader(),
            ScenarioAction::EtcdLate(by) => cluster.leases.expire_late(by),
            ScenarioAction::DiskFull(host, full) => world.disk(host).fill_up(full),
            ScenarioAction::DeleteStateDir(host) => world.disk(host).wipe(),
            ScenarioAction::DeleteBootDir(host) => world.disk(host).forget(),
            ScenarioAction::MemoryFull(host, full) => world.disk(host).fill_memory(full),
            ScenarioAction::BackUpStateDir(host) => {
                let kept = SimDisk::default();
                kept.copy(&world.disk(host));
                let all = self.kept.entry(host).or_default();
                all.push(kept);
                let surplus = all.len().saturating_sub(KEPT_MAX);
                all.drain(..surplus);
            }
            ScenarioAction::RestoreStateDir(host) => {
                let Some(all) = self.kept.get(&host) else { return };
                world.disk(host).copy(self.rng.pick(all));
            }
            ScenarioAction::Hang(host, hangs) => cluster.truth.hang(host, hangs),
            ScenarioAction::RunTimer(host, looks) => cluster.look_often(host, looks),
            ScenarioAction::Operate(host, act) => cluster.operate(host, act),
            ScenarioAction::Prune(host) => cluster.prune(host),
            ScenarioAction::Write => self.write(),
            ScenarioAction::Clone { of } => {
                let host = cluster.add();
                cluster.copy(host, of);
                self.clone = Some(host);
                cluster.start(host);
            }
            ScenarioAction::Outage(time) => {
                for host in cluster.hosts() {
                    world.reboot(host);
                    cluster.judge.was_held(host, true);
                }
                self.off += time;
                cluster.world.run_until(world.now() + time);
                let moved: Vec<ScenarioAction> = std::mem::take(&mut self.planned).into_values().collect();
                for action in moved {
                    self.later(Duration::from_mins(1), action);
                }
                for host in self.cluster.hosts() {
                    self.cluster.start(host);
                }
            }
        }
    }

    /// The application changes one of its files, makes one, or removes one.
    fn write(&mut self) {
        self.files += 1;
        let (n, rng) = (self.files, &mut self.rng);
        let path = format!("srv/f{}", rng.below(8)).into_bytes();
        let content = if rng.chance(200) {
            // What was there before comes again: content that is stored already, or was once.
            format!("old {}", rng.below(4))
        } else {
            format!("content {n} {}", rng.next())
        };
        let removes = rng.chance(150);
        self.cluster.truth.change(|files| {
            if removes && files.len() > 2 {
                files.remove(&path);
            } else {
                files.insert(path, Bytes::from(content));
            }
        });
    }

    /// All faults end; whoever is one too many is made a node of its own, or switched off; the role is on one node.
    fn peace(&mut self) {
        let hosts: Vec<usize> = self.cluster.hosts().collect();
        self.planned.clear();
        self.cluster.truth.answer_at_once();
        for action in [
            ScenarioAction::Bucket(NetworkFaults::NONE),
            ScenarioAction::Leases(NetworkFaults::NONE),
            ScenarioAction::Registers(NetworkFaults::NONE),
            ScenarioAction::SilenceBucket(false),
            ScenarioAction::SilenceEtcd(false),
            ScenarioAction::EtcdLate(Duration::ZERO),
            ScenarioAction::Move(0),
        ] {
            self.act(action);
        }
        for &host in &hosts {
            for action in [
                ScenarioAction::Thaw(host, ThawedClock::SetRight),
                ScenarioAction::Resume(host),
                ScenarioAction::DriftClock(host, 0),
                ScenarioAction::StepClock(host, 0),
                ScenarioAction::Cut(host, false),
                ScenarioAction::CutEtcd(host, false),
                ScenarioAction::DiskFull(host, false),
                ScenarioAction::MemoryFull(host, false),
                ScenarioAction::Hang(host, false),
            ] {
                self.act(action);
            }
        }
        // An identity that two machines had belongs to neither any more.
        if let Some(clone) = self.clone {
            self.cluster.world.kill(clone);
            for host in 1..=self.cluster.setup.nodes {
                self.cluster.world.kill(host);
                self.cluster.renew(host);
                self.cluster.start(host);
            }
        } else {
            for &host in &hosts {
                self.act(ScenarioAction::Start(host));
            }
        }
        self.cluster.world.run_until(self.now() + Duration::from_secs(30));
        self.act(ScenarioAction::Operate(1, OperatorAction::Resume));
        let home = 1 + self.rng.below(self.cluster.setup.nodes);
        // Not every host is well again. Where any of them may have the role, another one takes it.
        let ClusterSetup { eligible, lease, mode, store_clock, .. } = self.cluster.setup;
        if store_clock
            && mode == LaunchMode::Daemon
            && eligible == EligibilityRule::Always
            && lease != LeaseKind::None
            && self.rng.chance(500)
        {
            let hung = self.active().first().copied().unwrap_or(home);
            self.act(ScenarioAction::Hang(hung, true));
        }
        self.settle(home);
    }

    pub fn settle(&mut self, home: usize) {
        self.act(ScenarioAction::Move(0));
        self.run(Duration::from_secs(15));
        self.act(ScenarioAction::Move(home));
        self.run(SETTLES);
        let from = self.cluster.world.wall();
        self.act(ScenarioAction::Write);
        self.run(PEACE);
        if self.cluster.judge.is_content() {
            self.cluster.judge.read_all();
            let wrong = self.unsettled(home, from);
            self.cluster.judge.add(wrong);
        }
    }

    pub fn run(&mut self, time: Duration) {
        let judge = std::sync::Arc::clone(&self.cluster.judge);
        self.cluster.world.run_while(time, || judge.is_content());
    }

    /// The hosts whose daemon says that it has the role.
    fn active(&self) -> Vec<usize> {
        let SimCluster { world, truth, setup, .. } = &self.cluster;
        let is_active =
            |host: &usize| matches!(truth.status(*host, world.life(*host)), Some(RoleStatus::Active { term: Some(_) }));
        (1..=setup.nodes).filter(is_active).collect()
    }

    /// What is not as it should be, so long after all faults have ended.
    fn unsettled(&self, home: usize, from: Timestamp) -> Vec<String> {
        let SimCluster { world, truth, judge, setup, .. } = &self.cluster;
        let mut wrong = Vec::new();
        if setup.mode == LaunchMode::Daemon {
            let statuses = (1..=setup.nodes).map(|host| (host, truth.status(host, world.life(host))));
            let active = self.active();
            let right = match setup.eligible {
                EligibilityRule::Always => active.len() == 1,
                EligibilityRule::Vip | EligibilityRule::NotAway => active == [home],
            };
            if !right {
                wrong.push(format!("the role is on host {home}; {:?}", statuses.collect::<Vec<_>>()));
            }
        }
        let committed = judge.slots();
        let every = EVERY.as_secs() as i64;
        let now = world.wall().as_second();
        let first = from.as_second() / every * every + every;
        // The last one may be under way.
        for at in (first..now - 40).step_by(EVERY.as_secs() as usize) {
            let slot = Timestamp::from_second(at).expect("within the calendar");
            if !committed.contains_key(&slot) {
                wrong.push(format!("slot {slot} is not committed"));
            }
        }
        let plan = SlotSchedule::new(self.cluster.role(), &self.cluster.settings().timezone).expect("a schedule");
        let period = (from, world.wall());
        let audited = audit::audit(self.cluster.store(), self.cluster.role(), plan.as_ref(), period, &|_| None);
        match audited.now_or_never() {
            Some(Ok(audit)) => {
                let future = judge.names_the_future();
                let is_right = |finding: &AuditFinding| match finding {
                    AuditFinding::Flapping { .. } | AuditFinding::Backdated { .. } => true,
                    AuditFinding::Future { .. } => future,
                    // By a clock that was ahead, before it began.
                    AuditFinding::Late { slot, .. } => {
                        committed.get(slot).is_some_and(|at| signed(*at) < self.starts(*slot))
                    }
                    _ => false,
                };
                let told = audit.findings.iter().any(|finding| matches!(finding, AuditFinding::Future { .. }));
                if judge.commits_the_future() && !told {
                    wrong.push("audit: a committed slot lies beyond the present, and it says nothing of it".to_owned());
                }
                let bad = audit.findings.iter().filter(|finding| !is_right(finding));
                wrong.extend(bad.map(|finding| format!("audit: {finding:?}")));
            }
            other => wrong.push(format!("the audit: {other:?}")),
        }
        wrong
    }

    /// In world time.
    fn starts(&self, slot: Timestamp) -> SignedDuration {
        slot.duration_since(self.cluster.world.wall()) + signed(self.now())
    }

    fn told(self, seed: u64, log: bool) -> SeedResult {
        let SimCluster { world, bucket, leases, registers, judge, truth, setup, .. } = &self.cluster;
        let requests = [bucket.net(), leases.net(), registers.net()].map(|net| net.requests().values().sum::<u64>());
        SeedResult {
            seed,
            steps: world.steps(),
            requests: requests.iter().sum(),
            count: judge.count(),
            trace: world.trace(),
            broken: judge.broken(),
            setup: Some(*setup),
            story: if log { truth.story() } else { Vec::new() },
        }
    }
}
