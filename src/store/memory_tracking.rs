//! A store for tests that counts how many bytes of returned objects are held at the same time.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;

use super::{
    ListPage, ObjectVersion, PutOutcome, PutPause, ReplaceOutcome, SizeLimit, Store, StoreCapabilities, StoreError,
};

/// Wraps another store.
#[derive(Debug)]
pub(crate) struct MemoryTrackingStore {
    inner: Arc<dyn Store>,
    count: Arc<OutstandingBytes>,
}

/// The counters.
#[derive(Debug, Default)]
pub(crate) struct OutstandingBytes {
    now: AtomicUsize,
    max: AtomicUsize,
}

impl OutstandingBytes {
    /// The most bytes held at the same time since the last call.
    pub(crate) fn take_max(&self) -> usize {
        self.max.swap(self.now.load(Ordering::SeqCst), Ordering::SeqCst)
    }
}

/// The bytes of an object, counted as long as they exist.
struct TrackedBytes {
    bytes: Bytes,
    count: Arc<OutstandingBytes>,
}

impl AsRef<[u8]> for TrackedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for TrackedBytes {
    fn drop(&mut self) {
        self.count.now.fetch_sub(self.bytes.len(), Ordering::SeqCst);
    }
}

impl MemoryTrackingStore {
    /// Wraps `inner`; also returns the counters.
    pub(crate) fn new(inner: Arc<dyn Store>) -> (Self, Arc<OutstandingBytes>) {
        let count = Arc::<OutstandingBytes>::default();
        (Self { inner, count: Arc::clone(&count) }, count)
    }

    fn counted(&self, bytes: Bytes) -> Bytes {
        let now = self.count.now.fetch_add(bytes.len(), Ordering::SeqCst) + bytes.len();
        self.count.max.fetch_max(now, Ordering::SeqCst);
        Bytes::from_owner(TrackedBytes { bytes, count: Arc::clone(&self.count) })
    }
}

#[async_trait]
impl Store for MemoryTrackingStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.inner.put(key, body).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        self.inner.put_if_absent(key, body).await
    }

    async fn put_if_absent_paused(&self, key: &str, body: Bytes, hold: PutPause) -> Result<PutOutcome, StoreError> {
        self.inner.put_if_absent_paused(key, body, hold).await
    }

    async fn replace(&self, key: &str, body: Bytes, expected: &ObjectVersion) -> Result<ReplaceOutcome, StoreError> {
        self.inner.replace(key, body, expected).await
    }

    async fn get(&self, key: &str, limit: SizeLimit) -> Result<Bytes, StoreError> {
        // Lets other tasks run, as a network request would.
        tokio::task::yield_now().await;
        let bytes = self.counted(self.inner.get(key, limit).await?);
        tokio::task::yield_now().await;
        Ok(bytes)
    }

    async fn get_versioned(&self, key: &str, limit: SizeLimit) -> Result<(Bytes, ObjectVersion), StoreError> {
        let (bytes, version) = self.inner.get_versioned(key, limit).await?;
        Ok((self.counted(bytes), version))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        Ok(self.counted(self.inner.get_range(key, range).await?))
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
