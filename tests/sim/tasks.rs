//! Tasks: who runs them, who is ready, and how they wait.
//!
//! The invariants that live here: a wake makes a task ready once, however often it is woken before it is polled; which ready task is
//! polled next is drawn from the seed; and a process that was killed does nothing more, not even in the destructors of
//! what it was doing.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, future};
use parking_lot::Mutex;

use crate::clock::ClockModel;
use crate::rng::Rng;
use crate::world::WorldHandle;
use runner::env::{AbortableTask, AsyncRuntime};

/// Names a task; never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskKey {
    slot: u32,
    serial: u32,
}

impl TaskKey {
    /// As a number.
    pub fn number(self) -> u64 {
        u64::from(self.serial) << 32 | u64::from(self.slot)
    }
}

/// What is polled.
pub struct PolledTask {
    pub future: BoxFuture<'static, ()>,
    pub waker: Waker,
}

/// Where wakers say that a task is ready.
type Ready = Arc<Mutex<Vec<TaskKey>>>;

struct TaskWaker {
    key: TaskKey,
    rung: AtomicBool,
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.rung.swap(true, Ordering::Relaxed) {
            self.ready.lock().push(self.key);
        }
    }
}

#[derive(Default)]
struct TaskSlot {
    serial: u32,
    host: usize,
    ring: Option<Arc<TaskWaker>>,
    /// Not there while it is polled.
    task: Option<PolledTask>,
}

/// All tasks.
#[derive(Default)]
pub struct TaskTable {
    slots: Vec<TaskSlot>,
    free: Vec<u32>,
    ready: Ready,
    heard: Vec<TaskKey>,
    runnable: Vec<TaskKey>,
    /// Ready tasks of hosts that do not run.
    parked: Vec<TaskKey>,
}

impl TaskTable {
    /// A task of `host`, ready.
    pub fn insert(&mut self, host: usize, future: BoxFuture<'static, ()>) -> TaskKey {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(TaskSlot::default());
            self.slots.len() as u32 - 1
        });
        let at = &mut self.slots[slot as usize];
        let key = TaskKey { slot, serial: at.serial };
        let ring = Arc::new(TaskWaker { key, rung: AtomicBool::new(false), ready: Arc::clone(&self.ready) });
        ring.wake_by_ref();
        let waker = Waker::from(Arc::clone(&ring));
        (at.host, at.ring, at.task) = (host, Some(ring), Some(PolledTask { future, waker }));
        key
    }

    /// One that is ready, to be polled and given back; `None`: all wait.
    pub fn take(&mut self, rng: &mut Rng, held: impl Fn(usize) -> bool) -> Option<(TaskKey, PolledTask)> {
        std::mem::swap(&mut self.heard, &mut *self.ready.lock());
        // One poll may wake many, and a `watch` channel does so in an order that its own chance gives.
        self.heard.sort_unstable_by_key(|key| key.number());
        for key in self.heard.drain(..) {
            let slot = &self.slots[key.slot as usize];
            if slot.serial == key.serial {
                if held(slot.host) { &mut self.parked } else { &mut self.runnable }.push(key);
            }
        }
        loop {
            let key = match self.runnable.len() {
                0 => return None,
                1 => self.runnable.pop()?,
                n => self.runnable.swap_remove(rng.below(n)),
            };
            let slot = &mut self.slots[key.slot as usize];
            if slot.serial == key.serial {
                slot.ring.as_ref()?.rung.store(false, Ordering::Relaxed);
                return Some((key, slot.task.take()?));
            }
        }
    }

    /// It waits for something. If it was ended meanwhile it comes back, to be dropped.
    pub fn give_back(&mut self, key: TaskKey, task: PolledTask) -> Option<PolledTask> {
        let slot = &mut self.slots[key.slot as usize];
        if slot.serial != key.serial {
            return Some(task);
        }
        slot.task = Some(task);
        None
    }

    /// Ends it. What comes back is to be dropped where nothing is locked: destructors may do anything.
    pub fn remove(&mut self, key: TaskKey) -> Option<PolledTask> {
        let slot = &mut self.slots[key.slot as usize];
        if slot.serial != key.serial {
            return None;
        }
        slot.serial += 1;
        slot.ring = None;
        self.free.push(key.slot);
        slot.task.take()
    }

    /// Ends all of `host`, or all.
    pub fn remove_all(&mut self, host: Option<usize>) -> Vec<PolledTask> {
        let of_host = |slot: &TaskSlot| slot.ring.is_some() && host.is_none_or(|host| slot.host == host);
        let keys: Vec<TaskKey> =
            self.slots.iter().filter(|s| of_host(s)).filter_map(|s| Some(s.ring.as_ref()?.key)).collect();
        keys.into_iter().filter_map(|key| self.remove(key)).collect()
    }

    /// Sorts those that are ready anew, because some host was held or let go.
    pub fn sort(&mut self, held: impl Fn(usize) -> bool) {
        let all: Vec<TaskKey> = self.runnable.drain(..).chain(self.parked.drain(..)).collect();
        for key in all {
            let slot = &self.slots[key.slot as usize];
            if slot.serial == key.serial {
                if held(slot.host) { &mut self.parked } else { &mut self.runnable }.push(key);
            }
        }
    }
}

/// One run of the program on a host: from when it is started until it is killed.
#[derive(Clone)]
pub struct SimProcess {
    pub world: WorldHandle,
    pub host: usize,
    pub life: u64,
}

impl fmt::Debug for SimProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Process({}:{})", self.host, self.life)
    }
}

impl SimProcess {
    /// Whether it was not killed.
    pub fn is_alive(&self) -> bool {
        self.world.life(self.host) == self.life
    }

    /// Looks at its host's clocks; the number is the world time.
    pub fn on_clocks<T>(&self, look: impl FnOnce(&ClockModel, u64) -> T) -> T {
        self.world.on_clocks(self.host, look)
    }
}

impl AsyncRuntime for SimProcess {
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        let due = self.on_clocks(ClockModel::boot).saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        Box::pin(SimSleep { process: self.clone(), due, waiting: None })
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Box<dyn AbortableTask> {
        Box::new(SimTaskHandle { world: self.world.clone(), key: self.world.insert(self, task) })
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let process = self.clone();
        async move {
            if !process.is_alive() {
                return future::pending().await;
            }
            work();
        }
        .boxed()
    }
}

struct SimTaskHandle {
    world: WorldHandle,
    key: Option<TaskKey>,
}

impl fmt::Debug for SimTaskHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({:?})", self.key)
    }
}

impl AbortableTask for SimTaskHandle {
    fn abort(&self) {
        if let Some(key) = self.key {
            self.world.abort(key);
        }
    }
}

/// Somebody waits for a boot time. Whoever has given up waiting has dropped their end.
#[derive(Debug, Default)]
pub struct SleepWaker(Mutex<Option<Waker>>);

impl SleepWaker {
    /// Whom to wake.
    pub fn take(&self) -> Option<Waker> {
        self.0.lock().take()
    }

    fn set(&self, waker: &Waker) {
        let mut there = self.0.lock();
        let before = match &*there {
            Some(same) if same.will_wake(waker) => return,
            _ => there.replace(waker.clone()),
        };
        // Dropping a waker may drop anything.
        drop(there);
        drop(before);
    }
}

struct SimSleep {
    process: SimProcess,
    due: u64,
    waiting: Option<Arc<SleepWaker>>,
}

impl Future for SimSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.process.on_clocks(ClockModel::boot) >= self.due {
            return Poll::Ready(());
        }
        if let Some(waiting) = &self.waiting {
            waiting.set(cx.waker());
        } else {
            let waiting = Arc::new(SleepWaker(Mutex::new(Some(cx.waker().clone()))));
            self.process.world.wake_at(&self.process, self.due, &waiting);
            self.waiting = Some(waiting);
        }
        Poll::Pending
    }
}
