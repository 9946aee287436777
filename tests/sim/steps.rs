//! Every step of one node's life, and whatever may stand between two of them: the takeover, the commits, the prune that condemns and
//! the one that deletes, the journal's mirror. After each effect on the bucket or the register the node is killed, or stopped while
//! another one takes the role and gets so far. No chance, no faults: all of the cases, each of them judged at every step.

use std::time::Duration;

use runner::config::LeaseKind;

use crate::scripted::ScriptedScenario;
use crate::setup::{ClusterSetup, EligibilityRule, LaunchMode};

/// Two retained snapshots of five, packs rewritten at the least waste.
pub const PAIR: ClusterSetup = ClusterSetup {
    nodes: 2,
    mode: LaunchMode::Daemon,
    lease: LeaseKind::None,
    journal_in_etcd: false,
    eligible: EligibilityRule::Vip,
    holder_continues: false,
    keep: 2,
    max_unused: 0,
    store_clock: true,
    second: false,
};

const SETUPS: [ClusterSetup; 7] = [
    PAIR,
    ClusterSetup { lease: LeaseKind::Bucket, ..PAIR },
    ClusterSetup { lease: LeaseKind::Bucket, second: true, ..PAIR },
    ClusterSetup { lease: LeaseKind::Etcd, ..PAIR },
    ClusterSetup { lease: LeaseKind::Etcd, journal_in_etcd: true, ..PAIR },
    ClusterSetup { journal_in_etcd: true, ..PAIR },
    ClusterSetup { lease: LeaseKind::Bucket, mode: LaunchMode::Cron, ..PAIR },
];

/// In which its first prune has deleted what it condemned.
const LIFE: Duration = Duration::from_secs(330);

/// What comes between two steps.
#[derive(Debug, Clone, Copy)]
enum Disturbance {
    /// It dies; it comes back with what it remembered, or without.
    Death { wipe: bool },
    /// It stands still until the other node has had so many effects.
    Sleep { others: u64 },
}

/// A life with something after effect `at`; how many effects node 1 had. `None`: it never came so far.
fn run_with_disturbance(setup: ClusterSetup, at: u64, between: Disturbance) -> Option<u64> {
    let mut plain = ScriptedScenario::begin(at, setup);
    let came = plain.run_until_effects(1, at, LIFE);
    if !came {
        return None;
    }
    let lived = plain.effects(1);
    match between {
        Disturbance::Death { wipe } => {
            plain.kill(1, wipe);
            plain.give(2);
            plain.run(Duration::from_secs(150));
            plain.start(1);
        }
        Disturbance::Sleep { others } => {
            plain.stop(1);
            plain.give(2);
            let had = plain.effects(2);
            plain.run_until_effects(2, had + others, Duration::from_secs(150));
            plain.go_on(1);
            plain.run(Duration::from_secs(90));
        }
    }
    plain.peace(1);
    let broken = plain.broken();
    assert!(broken.is_empty(), "{setup:?}, after effect {at}: {between:?}: {broken:#?}");
    Some(lived)
}

fn disturb_every_step(between: Disturbance) -> u64 {
    let mut lives = 0;
    for setup in SETUPS {
        let mut at = 1;
        while run_with_disturbance(setup, at, between).is_some() {
            (lives, at) = (lives + 1, at + 1);
        }
        assert!(at > 25, "{setup:?}: a life of {at} effects is none");
    }
    lives
}

#[test]
fn a_life_without_disturbance_has_every_kind_of_effect() {
    for setup in SETUPS {
        let mut plain = ScriptedScenario::begin(0, setup);
        plain.run(LIFE);
        let count = plain.count();
        assert!(count.commits >= 5 && count.takeovers >= 1 && count.prunes >= 2 && count.deleted > 0, "{count:?}");
    }
}

#[test]
fn a_node_that_dies_after_any_effect_leaves_nothing_wrong() {
    println!("{} lives", disturb_every_step(Disturbance::Death { wipe: false }));
}

#[test]
fn a_node_that_dies_after_any_effect_and_forgets_leaves_nothing_wrong() {
    println!("{} lives", disturb_every_step(Disturbance::Death { wipe: true }));
}

#[test]
fn a_node_that_sleeps_through_a_takeover_after_any_effect_does_no_harm() {
    println!("{} lives", disturb_every_step(Disturbance::Sleep { others: 3 }));
}

#[test]
fn a_node_that_sleeps_through_a_commit_after_any_effect_does_no_harm() {
    println!("{} lives", disturb_every_step(Disturbance::Sleep { others: 8 }));
}

/// All depths.
#[test]
#[ignore = "minutes; part of make soak"]
fn a_node_that_sleeps_for_any_number_of_effects_does_no_harm() {
    let lives: u64 = (1..=30).map(|others| disturb_every_step(Disturbance::Sleep { others })).sum();
    println!("{lives} lives");
}
