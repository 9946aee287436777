//! The world: hosts with their tasks, clocks and disks, and the one order in which everything happens.
//!
//! The invariants that live here: the same seed gives the same polls at the same world times; time moves only when nobody can do
//! anything any more; and nothing is locked while a task is polled, woken or dropped, so that it may call back.
//! Host 0 is the world itself: its clocks are right and nothing stops it, so that what belongs to nobody, a request under way for
//! example, is a task of it.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};

use crate::clock::{self, ClockModel};
use crate::files::{SimDisk, SimFiles};
use crate::hosts::{SimHost, SimRandom};
use crate::rng::{Rng, mix};
use crate::tasks::{PolledTask, SimProcess, SleepWaker, TaskKey, TaskTable};
use crate::timers::{SimTimer, TimerEvent};
use runner::clock_doubt::ClockDoubts;
use runner::env::Env;

/// The host that is the world.
pub const WORLD: usize = 0;

/// So many polls without any time passing are a loop that waits for nothing.
const POLLS_MAX: u64 = 2_000_000;

/// For how long a machine was up when it is first seen.
const UP: (Duration, Duration) = (Duration::from_mins(1), Duration::from_hours(2000));

struct WorldState {
    seed: u64,
    now: u64,
    steps: u64,
    steps_at_now: u64,
    trace: u64,
    serial: u64,
    rng: Rng,
    hosts: Vec<SimHost>,
    tasks: TaskTable,
    /// Ended by another task: to be dropped between two polls.
    ended: Vec<PolledTask>,
}

/// A world and everything in it, which ends with this.
#[derive(Debug)]
pub struct World(WorldHandle);

impl Deref for World {
    type Target = WorldHandle;

    fn deref(&self) -> &WorldHandle {
        &self.0
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Its tasks hold it. Those of a failed story are left alone: their destructors could hide what failed.
        if std::thread::panicking() {
            return;
        }
        let (tasks, timers) = {
            let mut state = self.0.state();
            for host in &mut state.hosts {
                host.life += 1;
            }
            let timers: Vec<_> = state.hosts.iter_mut().map(|host| std::mem::take(&mut host.timers)).collect();
            let mut tasks = state.tasks.remove_all(None);
            tasks.append(&mut state.ended);
            (tasks, timers)
        };
        drop(timers);
        drop(tasks);
    }
}

/// A handle on it.
#[derive(Clone)]
pub struct WorldHandle(Arc<Mutex<WorldState>>);

impl fmt::Debug for WorldHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("World")
    }
}

/// What a task that was started comes to.
#[derive(Debug)]
pub struct TaskResult<T>(Arc<Mutex<Option<T>>>);

impl<T> TaskResult<T> {
    /// Whether it has ended.
    pub fn is_there(&self) -> bool {
        self.0.lock().is_some()
    }

    /// What it came to; `None`: it has not ended, and never will if it was killed.
    pub fn take(&self) -> Option<T> {
        self.0.lock().take()
    }
}

impl World {
    /// The world of this seed, without any host.
    pub fn new(seed: u64) -> Self {
        let rng = Rng::new(seed);
        let (hosts, tasks, ended) = (Vec::new(), TaskTable::default(), Vec::new());
        let state =
            WorldState { seed, now: 0, steps: 0, steps_at_now: 0, trace: seed, serial: 0, rng, hosts, tasks, ended };
        let world = WorldHandle(Arc::new(Mutex::new(state)));
        world.add(Duration::ZERO);
        Self(world)
    }

    /// A further machine, up for some time, with an empty disk and right clocks; the first is 1.
    pub fn host(&self) -> usize {
        let up = self.draw(|rng| rng.time(UP.0, UP.1));
        self.add(up)
    }

    /// Goes on until this world time, or until nothing can happen any more.
    pub fn run_until(&self, end: Duration) {
        self.run(end, || true);
    }

    /// Goes on while `wanted`, for no more than this time. Whether it ended because it was not any more.
    pub fn run_while(&self, within: Duration, wanted: impl FnMut() -> bool) -> bool {
        self.run(self.now() + within, wanted)
    }

    /// Runs `future` on a host until it has ended; `None`: it has not within this time.
    pub fn finish<T: Send + 'static>(
        &self,
        host: usize,
        within: Duration,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let outcome = self.start(host, future);
        self.run_while(within, || !outcome.is_there());
        outcome.take()
    }

    fn run(&self, end: Duration, mut wanted: impl FnMut() -> bool) -> bool {
        let end = end.as_nanos() as u64;
        while wanted() {
            if !self.step() && !self.advance(end) {
                return false;
            }
        }
        true
    }

    /// One poll, if anybody is ready.
    fn step(&self) -> bool {
        let (key, mut task) = {
            let mut guard = self.state();
            let state = &mut *guard;
            let ended = std::mem::take(&mut state.ended);
            if !ended.is_empty() {
                drop(guard);
                drop(ended);
                return true;
            }
            let hosts = &state.hosts;
            let Some(taken) = state.tasks.take(&mut state.rng, |host| hosts[host].is_held()) else { return false };
            state.steps += 1;
            state.steps_at_now += 1;
            state.trace = mix(state.trace ^ taken.0.number()).wrapping_add(state.now);
            assert!(state.steps_at_now < POLLS_MAX, "time stands still: some task wakes itself for ever");
            taken
        };
        let done = task.future.as_mut().poll(&mut Context::from_waker(&task.waker)).is_ready();
        let over = {
            let mut state = self.state();
            if done {
                state.tasks.remove(key);
                Some(task)
            } else {
                state.tasks.give_back(key, task)
            }
        };
        drop(over);
        true
    }

    /// Moves time to the next timer, and rings all that are due. `false`: it has come to `end`.
    fn advance(&self, end: u64) -> bool {
        let mut due = Vec::new();
        let mut unwanted = Vec::new();
        {
            let mut guard = self.state();
            let state = &mut *guard;
            let mut next: Option<u64> = None;
            for host in state.hosts.iter_mut().filter(|host| !host.is_held()) {
                while host.timers.peek().is_some_and(|timer| !timer.is_wanted()) {
                    unwanted.extend(host.timers.pop());
                }
                let when = host.timers.peek().and_then(|timer| host.clocks.when(timer.at));
                next = next.into_iter().chain(when).min();
            }
            // What went off while its host was held is due in the past.
            let next = next.map(|next| next.max(state.now)).filter(|next| *next <= end);
            let now = next.unwrap_or(end).max(state.now);
            if now > state.now {
                (state.now, state.steps_at_now) = (now, 0);
            }
            if next.is_none() {
                return false;
            }
            for host in state.hosts.iter_mut().filter(|host| !host.is_held()) {
                let boot = host.clocks.boot(now);
                while host.timers.peek().is_some_and(|timer| timer.at <= boot) {
                    due.extend(host.timers.pop());
                }
            }
        }
        for timer in due {
            match timer.due {
                TimerEvent::Wake(waiting) => {
                    if let Some(waker) = waiting.take() {
                        waker.wake();
                    }
                }
                TimerEvent::Event(event) => event(self),
            }
        }
        true
    }
}

impl WorldHandle {
    /// World time.
    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.state().now)
    }

    /// Wall time, where the clocks are right.
    pub fn wall(&self) -> Timestamp {
        clock::right(self.state().now)
    }

    /// How many polls there were.
    pub fn steps(&self) -> u64 {
        self.state().steps
    }

    /// Of all polls so far, who and when.
    pub fn trace(&self) -> u64 {
        self.state().trace
    }

    /// A stream of chance of the caller's own.
    pub fn rng(&self) -> Rng {
        self.draw(Rng::fork)
    }

    /// One draw from the world's own.
    pub fn draw<T>(&self, draw: impl FnOnce(&mut Rng) -> T) -> T {
        draw(&mut self.state().rng)
    }

    /// Does something at this world time, or at once if it is over.
    pub fn at(&self, time: Duration, event: impl FnOnce(&WorldHandle) + Send + 'static) {
        let mut state = self.state();
        let at = (time.as_nanos() as u64).max(state.now);
        state.push(WORLD, at, TimerEvent::Event(Box::new(event)));
    }

    /// The process that runs on this host now.
    pub fn process(&self, host: usize) -> SimProcess {
        SimProcess { world: self.clone(), host, life: self.life(host) }
    }

    /// What this host gives to the process that runs on it now.
    pub fn env(&self, host: usize) -> Env {
        let process = Arc::new(self.process(host));
        let (random, disk) = {
            let mut guard = self.state();
            guard.serial += 1;
            let stream = mix(guard.seed) ^ mix((host as u64) << 48 | guard.serial);
            (SimRandom::new(stream), guard.hosts[host].disk.clone())
        };
        let files = Arc::new(SimFiles::new(SimProcess::clone(&process), disk));
        Env {
            clock: Arc::clone(&process) as _,
            random: Arc::new(random),
            runtime: process,
            files,
            clock_doubts: ClockDoubts::default(),
        }
    }

    /// Starts something on a host.
    pub fn start<T: Send + 'static>(
        &self,
        host: usize,
        future: impl Future<Output = T> + Send + 'static,
    ) -> TaskResult<T> {
        let outcome = TaskResult(Arc::new(Mutex::new(None)));
        let out = Arc::clone(&outcome.0);
        let task = async move {
            let ended = future.await;
            *out.lock() = Some(ended);
        };
        self.insert(&self.process(host), Box::pin(task));
        outcome
    }

    /// A host's disk.
    pub fn disk(&self, host: usize) -> SimDisk {
        self.state().hosts[host].disk.clone()
    }

    /// Which of its processes a host has now.
    pub fn life(&self, host: usize) -> u64 {
        self.state().hosts[host].life
    }

    /// Of this boot of the machine.
    pub fn boot_id(&self, host: usize) -> [u8; 32] {
        let state = self.state();
        let mut rng = Rng::new(mix(state.seed) ^ mix((host as u64) << 32 | state.hosts[host].boots));
        let mut id = [0; 32];
        id.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&rng.next().to_le_bytes()));
        id
    }

    /// Looks at a host's clocks; the number is the world time.
    pub fn on_clocks<T>(&self, host: usize, look: impl FnOnce(&ClockModel, u64) -> T) -> T {
        let state = self.state();
        look(&state.hosts[host].clocks, state.now)
    }

    /// Adds a task of this process; `None`: it is dead, and does nothing more.
    pub fn insert(&self, process: &SimProcess, task: BoxFuture<'static, ()>) -> Option<TaskKey> {
        let mut guard = self.state();
        if guard.hosts[process.host].life == process.life {
            return Some(guard.tasks.insert(process.host, task));
        }
        drop(guard);
        drop(task);
        None
    }

    /// All tasks of a host, to be dropped by the caller.
    pub fn end_tasks(&self, host: usize) -> Vec<PolledTask> {
        self.state().tasks.remove_all(Some(host))
    }

    /// Ends a task before anything else happens.
    pub fn abort(&self, key: TaskKey) {
        let mut state = self.state();
        let task = state.tasks.remove(key);
        state.ended.extend(task);
    }

    /// Wakes whoever waits, when this process's host shows this boot time.
    pub fn wake_at(&self, process: &SimProcess, boot: u64, waiting: &Arc<SleepWaker>) {
        let mut state = self.state();
        if state.hosts[process.host].life == process.life {
            state.push(process.host, boot, TimerEvent::Wake(Arc::clone(waiting)));
        }
    }

    fn add(&self, up: Duration) -> usize {
        let mut state = self.state();
        let clocks = ClockModel::up_for(up, state.now);
        state.hosts.push(SimHost::new(clocks));
        state.hosts.len() - 1
    }

    /// Changes a host; the number is the world time.
    pub fn hold(&self, host: usize, change: impl FnOnce(&mut SimHost, u64)) {
        assert_ne!(host, WORLD, "nothing stops the world");
        let mut guard = self.state();
        let state = &mut *guard;
        change(&mut state.hosts[host], state.now);
        let hosts = &state.hosts;
        state.tasks.sort(|host| hosts[host].is_held());
    }

    fn state(&self) -> MutexGuard<'_, WorldState> {
        self.0.lock()
    }
}

impl WorldState {
    fn push(&mut self, host: usize, at: u64, due: TimerEvent) {
        self.serial += 1;
        let timer = SimTimer { at, serial: self.serial, due };
        self.hosts[host].timers.push(timer);
    }
}
