//! Seeds, one after another: so many in a test, without end in `make soak`, one with its story in `make replay`.

use std::time::Instant;
use std::{env, thread};

use parking_lot::Mutex;

use crate::scenario::{self, SeedResult};

/// What many seeds came to.
#[derive(Debug, Default)]
struct SeedTotals {
    seeds: u64,
    steps: u64,
    requests: u64,
    records: u64,
    commits: u64,
    takeovers: u64,
    prunes: u64,
    swept: u64,
    deleted: u64,
    broken: Vec<SeedResult>,
}

impl SeedTotals {
    fn add(&mut self, told: SeedResult) {
        self.seeds += 1;
        self.steps += told.steps;
        self.requests += told.requests;
        self.records += told.count.records;
        self.commits += told.count.commits;
        self.takeovers += told.count.takeovers;
        self.prunes += told.count.prunes;
        self.swept += told.count.swept;
        self.deleted += told.count.deleted;
        if !told.broken.is_empty() {
            let commit = env::var("SIM_COMMIT").unwrap_or_default();
            println!("seed {} {commit}: {}", told.seed, told.broken[0]);
            self.broken.push(told);
        }
    }

    fn say(&self, started: Instant) {
        let seconds = started.elapsed().as_secs_f64();
        println!(
            "{} seeds, {} steps ({:.0} a second), {} requests, {} records: {} commits, {} takeovers, {} prunes, {} sweeps of {} objects; {} broken; {seconds:.1} s",
            self.seeds,
            self.steps,
            self.steps as f64 / seconds,
            self.requests,
            self.records,
            self.commits,
            self.takeovers,
            self.prunes,
            self.swept,
            self.deleted,
            self.broken.len(),
        );
    }
}

#[allow(clippy::disallowed_methods, reason = "how fast it goes is told, and nothing else")]
fn real_time() -> Instant {
    Instant::now()
}

fn number(name: &str, otherwise: u64) -> u64 {
    env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

/// A share of the seeds that every run of the tests plays.
fn share(part: u64, of: u64) {
    let (started, mut sum) = (real_time(), SeedTotals::default());
    let (first, count) = (number("SIM_FIRST", 0), number("SIM_SEEDS", 2000));
    for seed in (first..first + count).filter(|seed| seed % of == part) {
        sum.add(scenario::run_seed(seed, false));
    }
    sum.say(started);
    let names: Vec<u64> = sum.broken.iter().map(|told| told.seed).collect();
    assert!(names.is_empty(), "seeds {names:?}; the first: {:#?}", sum.broken[0].broken);
}

/// One test for each share of the seeds, so that they run beside each other.
macro_rules! shares {
    ($of:literal: $($test:ident = $part:literal),* $(,)?) => {
        $(
            #[test]
            fn $test() {
                share($part, $of);
            }
        )*
    };
}

shares! {
    8:
    stories_of_the_first_share_end_well = 0,
    stories_of_the_second_share_end_well = 1,
    stories_of_the_third_share_end_well = 2,
    stories_of_the_fourth_share_end_well = 3,
    stories_of_the_fifth_share_end_well = 4,
    stories_of_the_sixth_share_end_well = 5,
    stories_of_the_seventh_share_end_well = 6,
    stories_of_the_eighth_share_end_well = 7,
}

#[test]
fn equal_seeds_tell_equal_stories() {
    for seed in 0..40 {
        let (one, other) = (scenario::run_seed(seed, true), scenario::run_seed(seed, true));
        assert_eq!(one.story, other.story, "seed {seed}");
        assert_eq!((one.trace, one.steps, one.count), (other.trace, other.steps, other.count), "seed {seed}");
    }
}

#[test]
#[ignore = "make replay SEED=n"]
fn replay() {
    let level = env::var("SIM_LOG").unwrap_or_default();
    tracing_subscriber::fmt()
        .with_env_filter(level)
        .without_time()
        .with_ansi(false)
        .with_writer(std::io::stdout)
        .init();
    let told = scenario::run_seed(number("SIM_SEED", 0), true);
    println!("{:#?}", told.setup);
    println!("{} steps, {} requests, {:?}", told.steps, told.requests, told.count);
    assert!(told.broken.is_empty(), "{:#?}", told.broken);
}

/// Plays on every core until it is stopped, or so many seeds.
#[test]
#[ignore = "make soak"]
fn soak() {
    let (started, sum) = (real_time(), Mutex::new(SeedTotals::default()));
    let (first, count) = (number("SIM_FIRST", 1_000_000), number("SIM_SEEDS", u64::MAX));
    let cores = thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    thread::scope(|scope| {
        for core in 0..cores {
            let sum = &sum;
            scope.spawn(move || {
                for n in (core..count).step_by(cores as usize) {
                    let told = scenario::run_seed(first + n, false);
                    let mut sum = sum.lock();
                    sum.add(told);
                    if sum.seeds.is_multiple_of(1000) {
                        sum.say(started);
                    }
                }
            });
        }
    });
    let sum = sum.into_inner();
    sum.say(started);
    assert!(sum.broken.is_empty());
}
