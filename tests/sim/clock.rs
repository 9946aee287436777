//! A host's two clocks as functions of world time.
//!
//! The invariant that lives here: boot time never goes back and never jumps while the machine is up, however often its speed is
//! changed, and whoever sleeps until `boot` is woken at the first world time at which this clock shows it.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::tasks::SimProcess;
use runner::env::Clock;

/// World time 0 on a calendar.
const EPOCH: i64 = 1_767_225_600;

const MILLION: i128 = 1_000_000;

/// How the clocks of one host go. World time is in nanoseconds everywhere.
#[derive(Debug, Clone)]
pub struct ClockModel {
    /// The world time at which the following held.
    since: u64,
    boot: u64,
    /// Nanoseconds after the calendar's 1970.
    wall: i128,
    /// By how many millionths they are fast.
    drift: i32,
    /// The hypervisor has stopped the machine.
    still: bool,
}

impl ClockModel {
    /// Right ones of a machine that has been up for so long.
    pub fn up_for(boot: Duration, world: u64) -> Self {
        Self { since: world, boot: boot.as_nanos() as u64, wall: calendar(world), drift: 0, still: false }
    }

    /// Time since boot.
    pub fn boot(&self, world: u64) -> u64 {
        self.boot + self.passed(world)
    }

    /// Wall time.
    pub fn wall(&self, world: u64) -> Timestamp {
        timestamp(self.wall + i128::from(self.passed(world)))
    }

    /// When they will show this boot time; `None` while they stand still. What is over lies in the past.
    pub fn when(&self, boot: u64) -> Option<u64> {
        if self.still {
            return None;
        }
        let ahead = i128::from(boot.saturating_sub(self.boot));
        let speed = MILLION + i128::from(self.drift);
        Some(self.since.saturating_add(u64::try_from((ahead * MILLION + speed - 1) / speed).unwrap_or(u64::MAX)))
    }

    /// From now on they are fast by so many millionths.
    pub fn drift(&mut self, world: u64, drift: i32) {
        assert!(i128::from(drift) > -MILLION, "a clock goes on");
        self.settle(world);
        self.drift = drift;
    }

    /// Sets the wall clock.
    pub fn step(&mut self, by: SignedDuration) {
        self.wall += by.as_nanos();
    }

    /// Sets the wall clock right.
    pub fn set_right(&mut self, world: u64) {
        self.settle(world);
        self.wall = calendar(world);
    }

    /// Stops both, or lets them go on from where they were.
    pub fn still(&mut self, world: u64, still: bool) {
        self.settle(world);
        self.still = still;
    }

    /// The machine was up for so long just now. The battery kept the wall clock.
    pub fn booted(&mut self, world: u64, boot: Duration) {
        self.still(world, false);
        self.boot = boot.as_nanos() as u64;
    }

    fn settle(&mut self, world: u64) {
        let passed = self.passed(world);
        (self.since, self.boot, self.wall) = (world, self.boot + passed, self.wall + i128::from(passed));
    }

    /// What they showed to pass since the last change.
    fn passed(&self, world: u64) -> u64 {
        if self.still {
            return 0;
        }
        let world = world - self.since;
        if self.drift == 0 {
            return world;
        }
        (i128::from(world) * (MILLION + i128::from(self.drift)) / MILLION) as u64
    }
}

/// Wall time where the clocks are right.
pub fn right(world: u64) -> Timestamp {
    timestamp(calendar(world))
}

fn calendar(world: u64) -> i128 {
    i128::from(EPOCH) * 1_000_000_000 + i128::from(world)
}

fn timestamp(nanoseconds: i128) -> Timestamp {
    Timestamp::from_nanosecond(nanoseconds).expect("stories end before the calendar does")
}

impl Clock for SimProcess {
    fn now(&self) -> Timestamp {
        self.on_clocks(ClockModel::wall)
    }

    fn boottime(&self) -> Duration {
        Duration::from_nanos(self.on_clocks(ClockModel::boot))
    }

    fn boot_id(&self) -> Option<[u8; 32]> {
        Some(self.world.boot_id(self.host))
    }
}
