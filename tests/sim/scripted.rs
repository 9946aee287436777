//! A story without chance, for whoever goes through all cases.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use crate::invariant_checker::RecordCounts;
use crate::node::SimCluster;
use crate::rng::Rng;
use crate::scenario::{Scenario, ScenarioAction};
use crate::setup::{ClusterSetup, EVERY};

/// A story in which nothing happens but what it is told.
pub struct ScriptedScenario(Scenario);

impl ScriptedScenario {
    /// The role is on node 1, and its files change now and then.
    pub fn begin(seed: u64, setup: ClusterSetup) -> Self {
        let (rng, cluster) = (Rng::new(seed), SimCluster::new(seed, setup));
        let mut story = Scenario::new(cluster, rng);
        story.begin();
        let truth = Arc::clone(&story.cluster.truth);
        for n in 1..40_u64 {
            let truth = Arc::clone(&truth);
            story.cluster.world.at(Duration::from_secs(n * 45), move |_| {
                truth.change(|files| {
                    files.insert(format!("srv/f{}", n % 5).into_bytes(), Bytes::from(format!("content {n}")));
                });
            });
        }
        Self(story)
    }

    pub fn run(&mut self, time: Duration) {
        self.0.run(time);
    }

    /// Until this host has had so many effects; `false`: it has not, within this time.
    pub fn run_until_effects(&mut self, host: usize, effects: u64, within: Duration) -> bool {
        let judge = Arc::clone(&self.0.cluster.judge);
        self.0.cluster.world.run_while(within, || judge.effects(host) < effects && judge.is_content());
        judge.effects(host) >= effects
    }

    pub fn effects(&self, host: usize) -> u64 {
        self.0.cluster.judge.effects(host)
    }

    pub fn act(&mut self, action: ScenarioAction) {
        self.0.act(action);
    }

    pub fn kill(&mut self, host: usize, wipe: bool) {
        self.0.act(ScenarioAction::Kill { host, wipe, reboot: wipe });
    }

    pub fn start(&mut self, host: usize) {
        self.0.act(ScenarioAction::Start(host));
    }

    pub fn stop(&mut self, host: usize) {
        self.0.act(ScenarioAction::Stop(host));
    }

    pub fn go_on(&mut self, host: usize) {
        self.0.act(ScenarioAction::Resume(host));
    }

    pub fn give(&mut self, host: usize) {
        self.0.act(ScenarioAction::Move(host));
    }

    /// The role belongs here, and everything has time to settle.
    pub fn peace(&mut self, home: usize) {
        if self.0.cluster.judge.is_content() {
            self.0.settle(home);
        }
    }

    /// The slots that have started from the first second of this one on, and whether each is committed.
    pub fn slots_since(&self, from: Timestamp) -> Vec<(Timestamp, bool)> {
        let committed = self.0.cluster.judge.slots();
        let seconds = (from.as_second()..self.now().as_second()).filter(|at| at % EVERY.as_secs() as i64 == 0);
        let slots = seconds.map(|at| Timestamp::from_second(at).expect("within the calendar"));
        slots.map(|slot| (slot, committed.contains_key(&slot))).collect()
    }

    /// The right time.
    pub fn now(&self) -> Timestamp {
        self.0.cluster.world.wall()
    }

    pub fn count(&self) -> RecordCounts {
        self.0.cluster.judge.count()
    }

    pub fn broken(&self) -> Vec<String> {
        self.0.cluster.judge.broken()
    }
}
