//! Whether the simulator would find anything: bugs are planted one by one, and each must be found within what every run of the tests
//! can spend on it.

use std::panic::{AssertUnwindSafe, catch_unwind};

use runner::planted::{self, ALL, PlantedBug};

use crate::scenario;

/// So many seeds are played for each.
const BUDGET: u64 = 1000;

/// How many seeds it takes to find it, and what is found; `None`: more than `budget`.
fn find_planted_bug(bug: PlantedBug, first: u64, budget: u64) -> Option<(u64, String)> {
    planted::plant(Some(bug));
    let found = (0..budget).find_map(|n| {
        let told = catch_unwind(AssertUnwindSafe(|| scenario::run_seed(first + n, false)));
        let broken = told.map_or_else(|_| vec!["it panicked".to_owned()], |told| told.broken);
        Some((n + 1, broken.first()?.clone()))
    });
    planted::plant(None);
    found
}

fn share(part: usize, of: usize) {
    let mut missed = Vec::new();
    for bug in ALL.into_iter().skip(part).step_by(of) {
        match find_planted_bug(bug, 0, BUDGET) {
            Some((seeds, what)) => println!("{bug:?}: {seeds} seeds: {what}"),
            None => missed.push(bug),
        }
    }
    assert!(missed.is_empty(), "not found within {BUDGET} seeds: {missed:?}");
}

#[test]
fn the_first_quarter_of_the_planted_bugs_is_found() {
    share(0, 4);
}

#[test]
fn the_second_quarter_of_the_planted_bugs_is_found() {
    share(1, 4);
}

#[test]
fn the_third_quarter_of_the_planted_bugs_is_found() {
    share(2, 4);
}

#[test]
fn the_fourth_quarter_of_the_planted_bugs_is_found() {
    share(3, 4);
}

/// How many seeds each takes, in the middle of several hunts.
#[test]
#[ignore = "minutes; prints a table"]
fn medians() {
    for bug in ALL {
        let mut took: Vec<u64> = (1..=9)
            .map(|hunting| find_planted_bug(bug, hunting * 1_000_000, 4 * BUDGET).map_or(u64::MAX, |(seeds, _)| seeds))
            .collect();
        took.sort_unstable();
        println!("{bug:?}: median {}, at most {}", took[took.len() / 2], took[took.len() - 1]);
    }
}
