//! The only source of chance: splitmix64, so that a run is its seed and nothing else.

use std::time::Duration;

/// A stream of numbers that its seed determines.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// The stream of this seed.
    pub fn new(seed: u64) -> Self {
        Self(mix(seed))
    }

    /// Any number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// Less than `n`, which is not 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// Whether something happens that does so many times in a thousand.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.below(1000) < per_mille as usize
    }

    /// From `a` to `b`, both included.
    pub fn between(&mut self, a: u64, b: u64) -> u64 {
        let span = u128::from(b - a) + 1;
        a + ((u128::from(self.next()) * span) >> 64) as u64
    }

    /// From `a` to `b`, to the nanosecond: two of them are hardly ever equal.
    pub fn time(&mut self, a: Duration, b: Duration) -> Duration {
        Duration::from_nanos(self.between(a.as_nanos() as u64, b.as_nanos() as u64))
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A stream of its own, so that what is drawn from it moves nothing here.
    pub fn fork(&mut self) -> Self {
        Self::new(self.next())
    }
}

/// splitmix64's output function.
pub fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
