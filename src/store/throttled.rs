//! The bandwidth limit: `limit_upload`, over everything that is sent through one [`BandwidthLimiter`].
//!
//! A whole object is sent at line speed, and the next one waits until the limit allows it, so the limit holds over
//! seconds, not at each moment. Conditional puts count like all others, but they never wait: they are small, and a
//! lease that waited for the debt of a pack would expire in the middle of its holder's own upload.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;
use parking_lot::Mutex;

use super::{
    ListPage, ObjectVersion, PutOutcome, PutPause, ReplaceOutcome, SizeLimit, Store, StoreCapabilities, StoreError,
};
use crate::env::Env;

/// How much unused bandwidth is carried over, so that small objects after a pause need not wait.
const BURST: Duration = Duration::from_secs(1);

/// A bandwidth limit shared by all clones.
#[derive(Debug, Clone)]
pub struct BandwidthLimiter {
    bucket: Arc<Mutex<TokenBucket>>,
    env: Env,
}

impl BandwidthLimiter {
    /// At most this many bytes per second; 0 counts as 1.
    pub fn new(bytes_per_second: u64, env: &Env) -> Self {
        let bucket = TokenBucket::new(bytes_per_second, env.clock.boottime());
        Self { bucket: Arc::new(Mutex::new(bucket)), env: env.clone() }
    }

    async fn acquire(&self, bytes: usize) {
        let wait = self.take(bytes);
        if wait > Duration::ZERO {
            tokio::time::sleep(wait).await;
        }
    }

    /// Counts the bytes, and returns how long the caller has to wait.
    fn take(&self, bytes: usize) -> Duration {
        let now = self.env.clock.boottime();
        self.bucket.lock().take(now, bytes as u64)
    }
}

/// A token bucket that may go into debt: each caller waits until the debt before it is paid.
#[derive(Debug)]
struct TokenBucket {
    bytes_per_second: u64,
    /// The time at which all bytes taken so far are paid for.
    paid_at: Duration,
}

impl TokenBucket {
    fn new(bytes_per_second: u64, now: Duration) -> Self {
        Self { bytes_per_second: bytes_per_second.max(1), paid_at: now.saturating_sub(BURST) }
    }

    fn take(&mut self, now: Duration, bytes: u64) -> Duration {
        let start = self.paid_at.max(now.saturating_sub(BURST));
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        self.paid_at = start.saturating_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)));
        start.saturating_sub(now)
    }
}

/// A store whose uploads respect a [`BandwidthLimiter`].
#[derive(Debug)]
pub struct ThrottledStore {
    inner: Arc<dyn Store>,
    limiter: BandwidthLimiter,
}

impl ThrottledStore {
    /// Wraps `inner` with the limit.
    pub fn new(inner: Arc<dyn Store>, limiter: BandwidthLimiter) -> Self {
        Self { inner, limiter }
    }
}

#[async_trait]
impl Store for ThrottledStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.limiter.acquire(body.len()).await;
        self.inner.put(key, body).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        self.limiter.take(body.len());
        self.inner.put_if_absent(key, body).await
    }

    async fn put_if_absent_paused(&self, key: &str, body: Bytes, hold: PutPause) -> Result<PutOutcome, StoreError> {
        self.limiter.take(body.len());
        self.inner.put_if_absent_paused(key, body, hold).await
    }

    async fn replace(&self, key: &str, body: Bytes, expected: &ObjectVersion) -> Result<ReplaceOutcome, StoreError> {
        self.limiter.take(body.len());
        self.inner.replace(key, body, expected).await
    }

    async fn get(&self, key: &str, limit: SizeLimit) -> Result<Bytes, StoreError> {
        self.inner.get(key, limit).await
    }

    async fn get_versioned(&self, key: &str, limit: SizeLimit) -> Result<(Bytes, ObjectVersion), StoreError> {
        self.inner.get_versioned(key, limit).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.inner.get_range(key, range).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        self.inner.list(prefix, after, limit).await
    }

    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        self.inner.delete(keys).await
    }

    fn inner(&self) -> Option<&dyn Store> {
        Some(self.inner.as_ref())
    }

    fn clock_offset(&self) -> Option<SignedDuration> {
        self.inner.clock_offset()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn debts_are_paid_before_the_next_may_start() {
        let mut bucket = TokenBucket::new(1000, 100 * S);
        assert_eq!(bucket.take(100 * S, 5000), Duration::ZERO, "the first goes at once, on what was saved");
        assert_eq!(bucket.take(100 * S, 1000), 4 * S);
        assert_eq!(bucket.take(100 * S, 0), 5 * S);
        assert_eq!(bucket.take(103 * S, 2000), 2 * S);
        assert_eq!(bucket.take(107 * S, 1), Duration::ZERO);
    }

    #[tokio::test]
    async fn a_lease_and_a_record_do_not_wait_for_the_debt_of_a_pack() {
        let env = Env::host();
        let limiter = BandwidthLimiter::new(1000, &env);
        let store = ThrottledStore::new(Arc::new(crate::store::memory::MemoryStore::new(&env)), limiter);
        store.put("pack", Bytes::from(vec![0; 100_000])).await.unwrap();
        let put = store.put("another", Bytes::from_static(b"x"));
        assert!(tokio::time::timeout(Duration::from_millis(50), put).await.is_err(), "it waits for 99 s");
        let small = async {
            store.put_if_absent("lease", Bytes::from_static(b"1")).await.unwrap();
            let (_, version) = store.get_versioned("lease", SizeLimit::INDEX).await.unwrap();
            store.replace("lease", Bytes::from_static(b"2"), &version).await.unwrap()
        };
        let replaced = tokio::time::timeout(10 * S, small).await.expect("they go at once");
        assert!(matches!(replaced, ReplaceOutcome::Replaced(_)));
    }

    #[test]
    fn idle_time_is_saved_for_a_moment_only() {
        let mut bucket = TokenBucket::new(1000, Duration::ZERO);
        assert_eq!(bucket.take(3600 * S, 3000), Duration::ZERO);
        assert_eq!(bucket.take(3600 * S, 1), 2 * S);
    }

    #[test]
    fn odd_limits_do_not_break() {
        let mut bucket = TokenBucket::new(0, Duration::ZERO);
        assert_eq!(bucket.take(S, u64::MAX), Duration::ZERO);
        assert!(bucket.take(S, u64::MAX) > S);
    }
}
