//! Limits on concurrent work, over all roles of a process.
//!
//! The invariant that lives here: work that waits for the outside world keeps no other work waiting. A run without
//! progress for [`LENT_AFTER`] lends its place to the next one until it moves again. Only then may more runs be active
//! for a moment than the machine is meant for, and never more than [`LENT_PART`] times as many have begun.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, oneshot};

/// Bounds on concurrent runs: at least two, so that one large role does not hold up all others; at most eight, since
/// more only share the same disks and the same network.
const RUNS: (usize, usize) = (2, 8);

/// Processors for each run: it reads and compresses in two threads.
const RUN_CPUS: usize = 2;

/// Memory for each run, in bytes: what one was measured to take at most.
const RUN_MEMORY_BYTES: u64 = 160 << 20;

/// The part of the machine's memory that runs may take, with all places lent: one half.
const RUNS_MEMORY_PART: u64 = 2;

/// Maximum number of runs that have begun, as a multiple of the places, when the others wait for the outside world.
const LENT_PART: usize = 4;

/// Time without progress after which a run lends its place.
pub(super) const LENT_AFTER: Duration = Duration::from_mins(1);

/// Concurrent takeovers: a node that inherits a hundred roles does not ask the store for all of them in one second.
const TAKEOVERS_MAX: usize = 8;

/// Concurrent reads of journals.
const READS_MAX: usize = 8;

/// Limits that are shared by all roles.
#[derive(Debug)]
pub(super) struct ConcurrencyLimits {
    pub(super) runs: Arc<RunQueue>,
    pub(super) takeovers: Semaphore,
    pub(super) reads: Semaphore,
}

impl ConcurrencyLimits {
    /// Limits that fit this machine.
    pub(super) fn new() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            runs: RunQueue::new(run_places(cpus, memory_bytes())),
            takeovers: Semaphore::new(TAKEOVERS_MAX),
            reads: Semaphore::new(READS_MAX),
        }
    }
}

/// Number of concurrent runs that a machine with this many processors and this much memory is meant for.
fn run_places(cpus: usize, memory_bytes: u64) -> usize {
    let fit = memory_bytes / RUNS_MEMORY_PART / LENT_PART as u64 / RUN_MEMORY_BYTES;
    (cpus / RUN_CPUS).min(usize::try_from(fit).unwrap_or(usize::MAX)).clamp(RUNS.0, RUNS.1)
}

/// The memory that this process may use: the machine's, or the limit of its control group.
fn memory_bytes() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let group = std::fs::read_to_string("/proc/self/cgroup").ok().and_then(|text| {
        let path = text.lines().find_map(|line| line.strip_prefix("0::"))?.trim_start_matches('/');
        let limit = std::fs::read_to_string(format!("/sys/fs/cgroup/{path}/memory.max")).ok()?;
        limit.trim().parse().ok()
    });
    machine.unwrap_or(u64::MAX).min(group.unwrap_or(u64::MAX))
}

/// A queue of runs. The run that was due first goes first, however often it had to come back.
#[derive(Debug)]
pub(super) struct RunQueue(Mutex<RunQueueState>);

/// The runs that have begun, and those that wait.
#[derive(Debug)]
struct RunQueueState {
    places: usize,
    /// Number of runs that have begun, and how many of them lend their places.
    begun: usize,
    lent: usize,
    next: u64,
    waiting: BTreeMap<QueuePosition, oneshot::Sender<RunTurn>>,
}

/// Position in the queue: when the run was due, and its number in order of arrival.
type QueuePosition = (Timestamp, u64);

/// The right to run, until it is dropped.
#[derive(Debug)]
pub(super) struct RunTurn {
    turns: Arc<RunQueue>,
    lent: Mutex<bool>,
}

/// A position in the queue, given up when it is dropped.
#[derive(Debug)]
struct QueuedRun {
    turns: Arc<RunQueue>,
    place: QueuePosition,
}

impl RunQueueState {
    /// Whether one more may begin.
    fn has_room(&self) -> bool {
        self.begun - self.lent < self.places && self.begun < self.places * LENT_PART
    }

    /// Takes the first waiting run if it may begin.
    fn take_next(&mut self) -> Option<oneshot::Sender<RunTurn>> {
        if !self.has_room() {
            return None;
        }
        let (_, called) = self.waiting.pop_first()?;
        self.begun += 1;
        Some(called)
    }
}

impl RunQueue {
    fn new(places: usize) -> Arc<Self> {
        Arc::new(Self(Mutex::new(RunQueueState { places, begun: 0, lent: 0, next: 0, waiting: BTreeMap::new() })))
    }

    /// Waits for a turn for a run that was due at `due`. Dropping the future leaves the queue.
    pub(super) async fn acquire(self: &Arc<Self>, due: Timestamp) -> RunTurn {
        let (call, called) = oneshot::channel();
        let place = {
            let mut line = self.lock();
            let place = (due, line.next);
            line.next += 1;
            line.waiting.insert(place, call);
            place
        };
        let waiting = QueuedRun { turns: Arc::clone(self), place };
        self.wake_next();
        if let Ok(turn) = called.await {
            return turn;
        }
        // Only this future removes its entry from the queue, so the channel is never closed earlier.
        drop(waiting);
        std::future::pending().await
    }

    /// Starts waiting runs while there is room.
    fn wake_next(self: &Arc<Self>) {
        loop {
            let Some(call) = self.lock().take_next() else { return };
            let turn = RunTurn { turns: Arc::clone(self), lent: Mutex::new(false) };
            // If the run no longer waits, the turn comes back and is dropped.
            let _ = call.send(turn);
        }
    }

    fn lock(&self) -> MutexGuard<'_, RunQueueState> {
        // Each change is one step, so a poisoned lock protects nothing half done.
        self.0.lock()
    }
}

impl RunTurn {
    /// Sets whether the run waits for the outside world and needs no place.
    pub(super) fn set_lent(&self, lent: bool) {
        let mut was = self.lent.lock();
        if *was == lent {
            return;
        }
        *was = lent;
        {
            let mut line = self.turns.lock();
            if lent { line.lent += 1 } else { line.lent -= 1 }
        }
        self.turns.wake_next();
    }
}

impl Drop for RunTurn {
    fn drop(&mut self) {
        let lent = *self.lent.lock();
        {
            let mut line = self.turns.lock();
            line.begun -= 1;
            line.lent -= usize::from(lent);
        }
        self.turns.wake_next();
    }
}

impl Drop for QueuedRun {
    fn drop(&mut self) {
        // A turn that was granted in the meantime is dropped with its channel, outside of the lock.
        let call = self.turns.lock().waiting.remove(&self.place);
        drop(call);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn how_many_run_follows_the_machine() {
        let machines = [(1, GIB), (2, 4 * GIB), (8, GIB), (8, 5 * GIB), (8, 64 * GIB), (64, 256 * GIB), (64, u64::MAX)];
        assert_eq!(machines.map(|(cpus, memory)| run_places(cpus, memory)), [2, 2, 2, 4, 4, 8, 8]);
        assert!(memory_bytes() > 0);
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn what_is_due_first_goes_first_and_who_leaves_the_line_is_not_waited_for() {
        let turns = RunQueue::new(2);
        let [first, second] = [9, 8].map(|due| turns.acquire(at(due)).now_or_never().expect("there is a place"));
        let mut late = Box::pin(turns.acquire(at(7)));
        let mut gone = Box::pin(turns.acquire(at(1)));
        let mut early = Box::pin(turns.acquire(at(3)));
        for waiting in [&mut late, &mut gone, &mut early] {
            assert!(waiting.as_mut().now_or_never().is_none());
        }
        drop(gone);
        drop(first);
        assert!(late.as_mut().now_or_never().is_none());
        let third = early.as_mut().now_or_never().expect("it was due first");
        drop(second);
        // A turn that was granted and never received comes back.
        drop(late);
        let fourth = turns.acquire(at(5)).now_or_never().expect("there is a place");
        drop((third, fourth));
        let line = turns.lock();
        assert_eq!((line.begun, line.lent, line.waiting.len()), (0, 0, 0));
    }

    #[test]
    fn who_waits_for_the_world_lends_its_place_but_not_for_any_number() {
        let turns = RunQueue::new(2);
        let mut all = Vec::new();
        for due in 0..8 {
            let turn = turns.acquire(at(due)).now_or_never().expect("there is a place");
            turn.set_lent(true);
            turn.set_lent(true);
            all.push(turn);
        }
        let mut ninth = Box::pin(turns.acquire(at(9)));
        assert!(ninth.as_mut().now_or_never().is_none(), "each of them may want its place back");
        all.pop();
        let ninth = ninth.as_mut().now_or_never().expect("one of them has ended");
        for turn in &all[..2] {
            turn.set_lent(false);
        }
        drop(ninth);
        assert!(turns.acquire(at(10)).now_or_never().is_none(), "two that move are as many as there are places");
        all.remove(0);
        assert!(turns.acquire(at(10)).now_or_never().is_some());
    }
}
