//! What lies between a host and a server: every request is a task of the world, so that it goes on whatever becomes of its sender.
//!
//! What matters most is what the sender cannot see: a request that never arrived, an answer that was lost after the effect, and an
//! effect that comes when the sender has long given up, or is dead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;

use crate::rng::Rng;
use crate::tasks::SimProcess;
use crate::world::{WORLD, WorldHandle};
use runner::env::AsyncRuntime as _;

/// One way, where nothing is wrong.
const DELAY: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// What is added at least where something is slow.
const SLOW_MIN: Duration = Duration::from_millis(200);

/// After how long at most a request that is sent twice arrives again.
const AGAIN_MAX: Duration = Duration::from_secs(5);

/// What goes wrong, each so many times in a thousand; together no more than a thousand, but for the last two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NetworkFaults {
    /// It never arrives.
    pub lost_request: u32,
    /// It does what it should; its answer never arrives.
    pub lost_answer: u32,
    /// Its sender gives up, and later it does what it should. What only reads is merely lost.
    pub late: u32,
    /// The server refuses for the moment, 503, and does nothing.
    pub refused: u32,
    /// The server sees another conditional request under way, 409, and does nothing.
    pub conflict: u32,
    /// It does what it should, and what comes back is no answer of the service: broken off, or a proxy's own words.
    pub garbled: u32,
    /// The same, and it never arrives at the service.
    pub misled: u32,
    /// What may be sent twice arrives twice, the second time some seconds later.
    pub twice: u32,
    /// A listing lacks what was made last.
    pub stale_listing: u32,
    /// It takes its time, each way.
    pub slow: u32,
    /// How much, at most.
    pub slow_max: Duration,
    /// After how long a sender gives up.
    pub patience: (Duration, Duration),
    /// How long after that a late request arrives, at most.
    pub late_max: Duration,
    /// What a stale listing lacks was made within this time.
    pub stale_max: Duration,
}

impl NetworkFaults {
    /// Nothing.
    pub const NONE: Self = Self {
        lost_request: 0,
        lost_answer: 0,
        late: 0,
        refused: 0,
        conflict: 0,
        garbled: 0,
        misled: 0,
        twice: 0,
        stale_listing: 0,
        slow: 0,
        slow_max: Duration::from_secs(10),
        patience: (Duration::from_secs(3), Duration::from_secs(10)),
        late_max: Duration::from_mins(1),
        stale_max: Duration::from_secs(5),
    };

    /// Some of it, each at most so many times in a thousand: a seed may lack a fault altogether, or have little else.
    pub fn drawn(rng: &mut Rng, max: u32) -> Self {
        let mut rate = || if rng.chance(300) { 0 } else { rng.below(max as usize + 1) as u32 };
        Self {
            lost_request: rate(),
            lost_answer: rate(),
            late: rate(),
            refused: rate(),
            conflict: rate(),
            garbled: rate() / 2,
            misled: rate() / 2,
            twice: rate(),
            stale_listing: rate(),
            slow: rate(),
            ..Self::NONE
        }
    }
}

/// What a request may suffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    /// It changes nothing.
    Read,
    /// It may be sent twice.
    Write,
    /// It is sent once.
    Once,
}

/// No answer that tells anything; the text says what came instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoAnswer(pub &'static str);

const NO_ANSWER: NoAnswer = NoAnswer("no answer");

/// What came is not of this service, and tells nothing of what was done.
const GARBAGE: NoAnswer = NoAnswer("bytes that are no answer");

/// The way of one request, in times after it was sent.
struct RequestSchedule {
    arrives: Option<Duration>,
    again: Option<Duration>,
    answered: Option<Duration>,
    refusal: Option<NoAnswer>,
    /// What it says is not what arrives.
    garbled: bool,
    patience: Duration,
}

#[derive(Debug, Clone, Copy)]
enum RequestStep {
    Arrive,
    Answer,
    GiveUp,
}

/// The way to one service, from every host.
#[derive(Debug)]
pub struct Network {
    world: WorldHandle,
    state: Mutex<NetworkState>,
}

#[derive(Debug)]
struct NetworkState {
    faults: NetworkFaults,
    rng: Rng,
    cut: BTreeSet<usize>,
    is_silent: bool,
    requests: BTreeMap<usize, u64>,
}

impl Network {
    /// A way without faults.
    pub fn new(world: &WorldHandle) -> Arc<Self> {
        let (faults, rng, cut, requests) = (NetworkFaults::NONE, world.rng(), BTreeSet::new(), BTreeMap::new());
        Arc::new(Self {
            world: world.clone(),
            state: Mutex::new(NetworkState { faults, rng, cut, is_silent: false, requests }),
        })
    }

    /// The world it goes through.
    pub fn world(&self) -> &WorldHandle {
        &self.world
    }

    /// What goes wrong with requests that are sent from now on.
    pub fn set(&self, faults: NetworkFaults) {
        self.state().faults = faults;
    }

    /// What goes wrong now.
    pub fn faults(&self) -> NetworkFaults {
        self.state().faults
    }

    /// Nothing that this host sends from now on arrives, and no answer reaches it; or again.
    pub fn cut(&self, host: usize, is_cut: bool) {
        let mut state = self.state();
        if is_cut {
            state.cut.insert(host)
        } else {
            state.cut.remove(&host)
        };
    }

    /// The service does nothing with what arrives from now on, and answers nothing; or again.
    pub fn silence(&self, is_silent: bool) {
        self.state().is_silent = is_silent;
    }

    /// How many requests each host has sent.
    pub fn requests(&self) -> BTreeMap<usize, u64> {
        self.state().requests.clone()
    }

    /// Whether something happens that does so many times in a thousand.
    pub fn chance(&self, rate: impl FnOnce(&NetworkFaults) -> u32) -> bool {
        let mut state = self.state();
        let rate = rate(&state.faults);
        rate > 0 && state.rng.chance(rate)
    }

    /// A time as the way has them.
    pub fn delay(&self) -> Duration {
        delay(&mut self.state())
    }

    /// Whether the service says anything that reaches this host.
    pub fn reaches(&self, host: usize) -> bool {
        let state = self.state();
        !state.is_silent && !state.cut.contains(&host)
    }

    /// Sends a request: at some time `effect` happens, or it does not, and at some time there is an answer, or there is not.
    /// Nobody waits for longer than `patience`, or what the faults say.
    pub async fn carry<T: Send + 'static>(
        self: &Arc<Self>,
        from: &SimProcess,
        kind: RequestKind,
        patience: Option<Duration>,
        effect: impl FnMut() -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        if !from.is_alive() {
            return future::pending().await;
        }
        let way = self.way(from.host, kind, patience);
        let (tell, told) = oneshot::channel();
        let net = Arc::clone(self);
        self.world.start(WORLD, net.go(from.host, way, tell, effect));
        match told.await {
            Ok(answer) => answer,
            // The world has ended.
            Err(_) => future::pending().await,
        }
    }

    async fn go<T>(
        self: Arc<Self>,
        host: usize,
        way: RequestSchedule,
        tell: oneshot::Sender<Result<T, NoAnswer>>,
        mut effect: impl FnMut() -> T,
    ) {
        let (mut answer, mut tell) = (way.refusal.map(Err), Some(tell));
        let mut steps = [
            (way.arrives, RequestStep::Arrive),
            (way.answered, RequestStep::Answer),
            (Some(way.patience), RequestStep::GiveUp),
            (way.again, RequestStep::Arrive),
        ];
        steps.sort_by_key(|(after, _)| after.unwrap_or(Duration::MAX));
        let (clock, sent) = (self.world.process(WORLD), self.world.now());
        for (after, step) in steps {
            let Some(after) = after else { return };
            if matches!(step, RequestStep::Answer | RequestStep::GiveUp) && tell.is_none() {
                continue;
            }
            clock.sleep((sent + after).saturating_sub(self.world.now())).await;
            match step {
                RequestStep::Arrive if self.state().is_silent => {}
                RequestStep::Arrive => {
                    let effect = effect();
                    answer.get_or_insert(if way.garbled { Err(GARBAGE) } else { Ok(effect) });
                }
                RequestStep::Answer if self.reaches(host) => {
                    // Whoever asked may be dead.
                    let _ = answer.take().map(|answer| tell.take().map(|tell| tell.send(answer)));
                }
                RequestStep::Answer => {}
                RequestStep::GiveUp => {
                    let _ = tell.take().map(|tell| tell.send(Err(NO_ANSWER)));
                }
            }
        }
    }

    fn way(&self, host: usize, kind: RequestKind, patience: Option<Duration>) -> RequestSchedule {
        let mut state = self.state();
        *state.requests.entry(host).or_default() += 1;
        let faults = state.faults;
        let patience = patience.unwrap_or_else(|| state.rng.time(faults.patience.0, faults.patience.1));
        let there = delay(&mut state);
        let back = there + delay(&mut state);
        let mut way = RequestSchedule {
            arrives: Some(there),
            again: None,
            answered: Some(back),
            refusal: None,
            garbled: false,
            patience,
        };
        if state.cut.contains(&host) {
            return RequestSchedule { arrives: None, answered: None, ..way };
        }
        let mut luck = state.rng.below(1000) as u32;
        let mut falls = |rate: u32| {
            let hit = luck < rate;
            luck = if hit { u32::MAX } else { luck - rate };
            hit
        };
        if falls(faults.lost_request) {
            (way.arrives, way.answered) = (None, None);
        } else if falls(faults.lost_answer) {
            way.answered = None;
        } else if falls(faults.late) {
            let late = patience + state.rng.time(Duration::ZERO, faults.late_max);
            (way.arrives, way.answered) = ((kind != RequestKind::Read).then_some(late), None);
        } else if falls(faults.refused) {
            (way.arrives, way.refusal) = (None, Some(NoAnswer("status 503")));
        } else if falls(faults.conflict) && kind == RequestKind::Once {
            (way.arrives, way.refusal) = (None, Some(NoAnswer("status 409")));
        } else if falls(faults.garbled) {
            way.garbled = true;
        } else if falls(faults.misled) {
            (way.arrives, way.refusal) = (None, Some(GARBAGE));
        } else if falls(faults.twice) && kind != RequestKind::Once {
            way.again = Some(there + state.rng.time(Duration::ZERO, AGAIN_MAX));
        }
        way
    }

    fn state(&self) -> MutexGuard<'_, NetworkState> {
        self.state.lock()
    }
}

fn delay(state: &mut NetworkState) -> Duration {
    let NetworkFaults { slow, slow_max, .. } = state.faults;
    let more = if state.rng.chance(slow) { state.rng.time(SLOW_MIN, slow_max) } else { Duration::ZERO };
    state.rng.time(DELAY.0, DELAY.1) + more
}
