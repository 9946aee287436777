//! What stories have now and then, without chance: a clock that was wrong by years, a timer that looks thousands of times between two
//! records, a state directory that is deleted or set back under whoever runs, a holder whose run hangs.

use std::time::Duration;

use runner::config::LeaseKind;

use crate::scenario::{LOOKS, ScenarioAction};
use crate::scripted::ScriptedScenario;
use crate::setup::{ClusterSetup, EligibilityRule, LaunchMode};
use crate::steps::PAIR;

const MINUTE: Duration = Duration::from_mins(1);

const YEARS: i64 = 2 * 365 * 24 * 60 * 60;

/// One a row: who has the role, and where the journal is.
fn setups() -> [ClusterSetup; 5] {
    [
        PAIR,
        ClusterSetup { lease: LeaseKind::Bucket, second: true, ..PAIR },
        ClusterSetup { lease: LeaseKind::Etcd, journal_in_etcd: true, ..PAIR },
        ClusterSetup { mode: LaunchMode::Cron, ..PAIR },
        ClusterSetup { lease: LeaseKind::Bucket, mode: LaunchMode::Cron, eligible: EligibilityRule::Always, ..PAIR },
    ]
}

/// Plays what happens in each set-up, and looks whether all is well in the end.
fn in_every_setup(setups: impl IntoIterator<Item = ClusterSetup>, what: impl Fn(&mut ScriptedScenario)) {
    for setup in setups {
        let mut plain = ScriptedScenario::begin(7, setup);
        plain.run(3 * MINUTE);
        what(&mut plain);
        plain.peace(1);
        let broken = plain.broken();
        assert!(broken.is_empty(), "{setup:?}: {broken:#?}");
    }
}

#[test]
fn a_clock_that_was_wrong_by_years_leaves_the_schedule_alone() {
    for by in [YEARS, -YEARS] {
        for store_clock in [true, false] {
            let setups = setups().map(|setup| ClusterSetup { store_clock, ..setup });
            in_every_setup(setups, |plain| {
                plain.act(ScenarioAction::StepClock(1, by));
                plain.run(2 * MINUTE);
                plain.act(ScenarioAction::StepClock(1, 0));
                plain.run(MINUTE);
            });
        }
    }
}

#[test]
fn a_clock_that_was_ahead_by_less_than_is_told_leaves_the_schedule_alone() {
    for store_clock in [true, false] {
        let setups = setups().map(|setup| ClusterSetup { store_clock, ..setup });
        in_every_setup(setups, |plain| {
            let from = plain.now();
            plain.act(ScenarioAction::StepClock(1, 240));
            plain.run(MINUTE);
            plain.act(ScenarioAction::StepClock(1, 0));
            plain.run(6 * MINUTE + MINUTE / 2);
            let slots = plain.slots_since(from);
            let left_out = slots.iter().filter(|(_, is_committed)| !is_committed).count();
            assert!(slots.len() > 6 && left_out <= 1, "the one in which the clock was ahead at most: {slots:?}");
        });
    }
}

#[test]
fn a_node_that_looks_thousands_of_times_between_two_records_is_no_clone() {
    let setups = setups().into_iter().filter(|setup| setup.lease != LeaseKind::Etcd);
    in_every_setup(setups, |plain| {
        plain.act(ScenarioAction::RunTimer(1, LOOKS));
        plain.run(25 * MINUTE);
    });
}

#[test]
fn a_state_directory_that_is_deleted_or_set_back_makes_no_clone() {
    in_every_setup(setups(), |plain| {
        for _ in 0..3 {
            plain.act(ScenarioAction::BackUpStateDir(1));
            plain.run(5 * MINUTE);
            plain.act(ScenarioAction::RestoreStateDir(1));
            plain.run(5 * MINUTE);
            plain.act(ScenarioAction::DeleteStateDir(1));
            plain.run(5 * MINUTE);
        }
    });
}

#[test]
fn a_state_directory_that_is_set_back_again_and_again_in_one_boot_makes_no_clone() {
    in_every_setup(setups(), |plain| {
        plain.act(ScenarioAction::BackUpStateDir(1));
        for round in 0..8 {
            plain.run(MINUTE);
            // What it remembers of having been set back is set back, and sometimes it is not.
            if round % 2 == 0 {
                plain.act(ScenarioAction::BackUpStateDir(1));
            }
            plain.run(MINUTE);
            plain.act(ScenarioAction::RestoreStateDir(1));
        }
        plain.act(ScenarioAction::DeleteBootDir(1));
        plain.act(ScenarioAction::RestoreStateDir(1));
        plain.run(5 * MINUTE);
    });
}

#[test]
fn what_the_holder_hangs_on_is_committed_by_the_standby() {
    // A job that is started anew by cron has the lease only while it runs: who gets it in between is a matter of luck.
    let may_both =
        setups().into_iter().filter(|setup| setup.lease != LeaseKind::None && setup.mode == LaunchMode::Daemon);
    in_every_setup(may_both.map(|setup| ClusterSetup { eligible: EligibilityRule::Always, ..setup }), |plain| {
        plain.act(ScenarioAction::Hang(1, true));
    });
}
