//! What the host gives: clocks and random numbers. The only place that asks the operating system for either, so that
//! everything above can be run under a simulated clock and a seed.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::moment::Moment;

/// The host's two clocks.
pub trait Clock: Debug + Send + Sync {
    /// Wall time. It may jump; never measure with it.
    fn now(&self) -> Timestamp;

    /// Time since boot, suspend included (`CLOCK_BOOTTIME`). Measures durations and deadlines.
    fn boottime(&self) -> Duration;

    /// Both clocks at once.
    fn moment(&self) -> Moment {
        Moment { boot: self.boottime(), wall: self.now() }
    }
}

/// A source of random bytes that cannot repeat in a cloned machine.
pub trait Random: Debug + Send + Sync {
    /// Fills `buffer` with unpredictable bytes.
    fn fill(&self, buffer: &mut [u8]);
}

/// Clock and randomness, passed to whoever needs them.
#[derive(Debug, Clone)]
pub struct Env {
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// The random numbers.
    pub random: Arc<dyn Random>,
}

impl Env {
    /// The real host.
    pub fn host() -> Self {
        Self { clock: Arc::new(HostClock), random: Arc::new(HostRandom) }
    }

    /// `N` random bytes.
    pub fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes);
        bytes
    }
}

/// The kernel's clocks.
#[derive(Debug, Clone, Copy)]
pub struct HostClock;

impl Clock for HostClock {
    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn boottime(&self) -> Duration {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec as u32)
    }
}

/// The kernel's `getrandom(2)`, asked at each use: a generator with state in the process would repeat itself in a
/// cloned virtual machine, the kernel's is reseeded.
#[derive(Debug, Clone, Copy)]
pub struct HostRandom;

impl Random for HostRandom {
    fn fill(&self, buffer: &mut [u8]) {
        // It fails only where the system call does not exist, and nothing secret can be made there.
        getrandom::fill(buffer).expect("the kernel gives random bytes");
    }
}
