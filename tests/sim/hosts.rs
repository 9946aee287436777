//! What befalls the hosts: stopped, frozen, killed, rebooted, and their clocks set.
//!
//! The invariant that lives here: a host that is held keeps everything that was to happen on it until it goes on, and one that was
//! killed keeps nothing but its disk and its clocks.

use std::collections::BinaryHeap;
use std::time::Duration;

use jiff::SignedDuration;
use parking_lot::Mutex;

use crate::clock::ClockModel;
use crate::files::SimDisk;
use crate::rng::Rng;
use crate::timers::SimTimer;
use crate::world::WorldHandle;
use runner::env::RandomSource;

/// How long a kernel takes before anything runs.
const BOOT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(40));

/// What a machine's wall clock shows after its hypervisor let it go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ThawedClock {
    /// It goes on from where it stood.
    Behind,
    /// The hypervisor sets it right.
    SetRight,
}

/// A machine.
pub struct SimHost {
    /// Which of its processes it has now.
    pub life: u64,
    pub boots: u64,
    stopped: bool,
    frozen: bool,
    pub clocks: ClockModel,
    pub timers: BinaryHeap<SimTimer>,
    pub disk: SimDisk,
}

impl SimHost {
    /// One with these clocks.
    pub fn new(clocks: ClockModel) -> Self {
        let (timers, disk) = (BinaryHeap::new(), SimDisk::default());
        Self { life: 1, boots: 1, stopped: false, frozen: false, clocks, timers, disk }
    }

    /// Its process is gone; a new one is not stopped. What waited, and the disk, of which the locks are to be let go.
    fn end_life(&mut self) -> (BinaryHeap<SimTimer>, SimDisk) {
        self.life += 1;
        self.stopped = false;
        (std::mem::take(&mut self.timers), self.disk.clone())
    }

    /// Whether nothing of it is polled.
    pub fn is_held(&self) -> bool {
        self.stopped || self.frozen
    }
}

impl WorldHandle {
    /// Sends `SIGSTOP`: nothing is polled, the clocks go on.
    pub fn stop(&self, host: usize) {
        self.hold(host, |host, _| host.stopped = true);
    }

    /// Sends `SIGCONT`: what was due meanwhile is due now.
    pub fn go_on(&self, host: usize) {
        self.hold(host, |host, _| host.stopped = false);
    }

    /// The hypervisor stops the machine, clocks and all.
    pub fn freeze(&self, host: usize) {
        self.hold(host, |host, now| {
            host.frozen = true;
            host.clocks.still(now, true);
        });
    }

    /// It lets it go on.
    pub fn thaw(&self, host: usize, wall: ThawedClock) {
        self.hold(host, |host, now| {
            host.frozen = false;
            host.clocks.still(now, false);
            if wall == ThawedClock::SetRight {
                host.clocks.set_right(now);
            }
        });
    }

    /// Sends `SIGKILL`: the process is gone with all its tasks and its locks. What it has sent is under way.
    pub fn kill(&self, host: usize) {
        let mut ended = None;
        self.hold(host, |host, _| ended = Some(host.end_life()));
        let tasks = self.end_tasks(host);
        let (timers, disk) = ended.expect("the host was there");
        disk.let_go();
        drop((timers, tasks));
    }

    /// The machine crashes and comes up again, frozen or not.
    pub fn reboot(&self, host: usize) {
        self.kill(host);
        let up = self.draw(|rng| rng.time(BOOT.0, BOOT.1));
        self.hold(host, |host, now| {
            host.boots += 1;
            host.frozen = false;
            host.disk.forget();
            host.clocks.booted(now, up);
        });
    }

    /// Sets how fast a host's clocks are, in millionths too fast. They do not jump.
    pub fn drift(&self, host: usize, millionths: i32) {
        self.hold(host, |host, now| host.clocks.drift(now, millionths));
    }

    /// Sets a host's wall clock, by so much.
    pub fn step_wall(&self, host: usize, by: SignedDuration) {
        self.hold(host, |host, _| host.clocks.step(by));
    }
}

/// Random numbers as a host's kernel gives them: every start, and every other host, has its own.
#[derive(Debug)]
pub struct SimRandom(Mutex<Rng>);

impl SimRandom {
    /// This stream of them.
    pub fn new(stream: u64) -> Self {
        Self(Mutex::new(Rng::new(stream)))
    }
}

impl RandomSource for SimRandom {
    fn fill(&self, buffer: &mut [u8]) {
        let mut rng = self.0.lock();
        for chunk in buffer.chunks_mut(8) {
            let bytes = rng.next().to_le_bytes();
            chunk.copy_from_slice(&bytes[..chunk.len()]);
        }
    }
}
