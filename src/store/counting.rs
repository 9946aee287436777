//! Counts the requests to a store, and the bytes written and read.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;

use super::{
    ListPage, ObjectVersion, PutOutcome, PutPause, ReplaceOutcome, SizeLimit, Store, StoreCapabilities, StoreError,
};

/// A store whose calls are counted.
#[derive(Debug)]
pub struct CountingStore {
    inner: Arc<dyn Store>,
    counters: Arc<StoreCounters>,
}

/// The counters, readable while the store is in use. A call counts when it is made, whatever its outcome; retries and
/// parts inside the backend do not count again.
#[derive(Debug, Default)]
pub struct StoreCounters {
    put: AtomicU64,
    put_if_absent: AtomicU64,
    replace: AtomicU64,
    get: AtomicU64,
    get_range: AtomicU64,
    list: AtomicU64,
    delete: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    answers: Option<ResponseCounter>,
}

/// Counts answers, to detect whether work on a store makes progress.
#[derive(Debug, Clone)]
pub struct ResponseCounter {
    /// Incremented with each answer.
    pub count: Arc<AtomicU64>,
    /// Whether an answer about this key, or prefix, is progress of the work. Renewals of leases are not: they go on
    /// even if the work stands still.
    pub is_progress: fn(&str) -> bool,
}

/// [`StoreCounters`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RequestCounts {
    /// Calls of `put`.
    pub put: u64,
    /// Calls of `put_if_absent`.
    pub put_if_absent: u64,
    /// Calls of `replace`.
    pub replace: u64,
    /// Calls of `get` and `get_versioned`.
    pub get: u64,
    /// Calls of `get_range`.
    pub get_range: u64,
    /// Calls of `list`: pages.
    pub list: u64,
    /// Calls of `delete`: batches.
    pub delete: u64,
    /// Bytes of all bodies passed in to be written.
    pub bytes_up: u64,
    /// Bytes of all bodies that were read.
    pub bytes_down: u64,
}

impl RequestCounts {
    /// All calls.
    pub fn requests(&self) -> u64 {
        self.put + self.put_if_absent + self.replace + self.get + self.get_range + self.list + self.delete
    }
}

impl StoreCounters {
    /// The numbers now.
    pub fn snapshot(&self) -> RequestCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RequestCounts {
            put: read(&self.put),
            put_if_absent: read(&self.put_if_absent),
            replace: read(&self.replace),
            get: read(&self.get),
            get_range: read(&self.get_range),
            list: read(&self.list),
            delete: read(&self.delete),
            bytes_up: read(&self.bytes_up),
            bytes_down: read(&self.bytes_down),
        }
    }

    fn record_upload(&self, calls: &AtomicU64, body: &Bytes) {
        calls.fetch_add(1, Ordering::Relaxed);
        self.bytes_up.fetch_add(body.len() as u64, Ordering::Relaxed);
    }

    fn record_download(&self, body: &Bytes) {
        self.bytes_down.fetch_add(body.len() as u64, Ordering::Relaxed);
    }

    /// "Not found" is an answer, too. An error without an answer is not counted.
    fn record_response<T>(&self, key: &str, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Some(answers) = &self.answers
            && (answers.is_progress)(key)
            && answer.as_ref().err().is_none_or(StoreError::is_not_found)
        {
            answers.count.fetch_add(1, Ordering::Relaxed);
        }
        answer
    }
}

impl CountingStore {
    /// Wraps `inner`; also returns the counters.
    pub fn new(inner: Arc<dyn Store>) -> (Self, Arc<StoreCounters>) {
        Self::with(inner, None)
    }

    /// Like [`CountingStore::new`], and also counts answers in `answers`.
    pub fn with_response_counter(inner: Arc<dyn Store>, answers: ResponseCounter) -> (Self, Arc<StoreCounters>) {
        Self::with(inner, Some(answers))
    }

    fn with(inner: Arc<dyn Store>, answers: Option<ResponseCounter>) -> (Self, Arc<StoreCounters>) {
        let counters = Arc::new(StoreCounters { answers, ..StoreCounters::default() });
        (Self { inner, counters: Arc::clone(&counters) }, counters)
    }
}

#[async_trait]
impl Store for CountingStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.counters.record_upload(&self.counters.put, &body);
        self.counters.record_response(key, self.inner.put(key, body).await)
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        self.counters.record_upload(&self.counters.put_if_absent, &body);
        self.counters.record_response(key, self.inner.put_if_absent(key, body).await)
    }

    async fn put_if_absent_paused(&self, key: &str, body: Bytes, hold: PutPause) -> Result<PutOutcome, StoreError> {
        self.counters.record_upload(&self.counters.put_if_absent, &body);
        self.counters.record_response(key, self.inner.put_if_absent_paused(key, body, hold).await)
    }

    async fn replace(&self, key: &str, body: Bytes, expected: &ObjectVersion) -> Result<ReplaceOutcome, StoreError> {
        self.counters.record_upload(&self.counters.replace, &body);
        self.counters.record_response(key, self.inner.replace(key, body, expected).await)
    }

    async fn get(&self, key: &str, limit: SizeLimit) -> Result<Bytes, StoreError> {
        self.counters.get.fetch_add(1, Ordering::Relaxed);
        let body = self.counters.record_response(key, self.inner.get(key, limit).await)?;
        self.counters.record_download(&body);
        Ok(body)
    }

    async fn get_versioned(&self, key: &str, limit: SizeLimit) -> Result<(Bytes, ObjectVersion), StoreError> {
        self.counters.get.fetch_add(1, Ordering::Relaxed);
        let (body, version) = self.counters.record_response(key, self.inner.get_versioned(key, limit).await)?;
        self.counters.record_download(&body);
        Ok((body, version))
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.counters.get_range.fetch_add(1, Ordering::Relaxed);
        let body = self.counters.record_response(key, self.inner.get_range(key, range).await)?;
        self.counters.record_download(&body);
        Ok(body)
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        self.counters.list.fetch_add(1, Ordering::Relaxed);
        self.counters.record_response(prefix, self.inner.list(prefix, after, limit).await)
    }

    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        self.counters.delete.fetch_add(1, Ordering::Relaxed);
        self.counters.record_response(keys.first().map_or("", String::as_str), self.inner.delete(keys).await)
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
    use crate::env::Env;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn calls_and_bytes_are_counted() {
        let answers: Arc<AtomicU64> = Arc::default();
        let memory = Arc::new(MemoryStore::new(&Env::host()));
        let (store, counters) = CountingStore::with_response_counter(
            memory,
            ResponseCounter { count: Arc::clone(&answers), is_progress: |key| key != "lease" },
        );
        store.put_if_absent("lease", Bytes::new()).await.unwrap();
        assert_eq!(answers.load(Ordering::Relaxed), 0, "it is renewed beside the work");
        store.put("a", Bytes::from_static(b"12345")).await.unwrap();
        store.put_if_absent("a", Bytes::from_static(b"123")).await.unwrap();
        store.get("a", SizeLimit::INDEX).await.unwrap();
        store.get("none", SizeLimit::INDEX).await.unwrap_err();
        let (_, version) = store.get_versioned("a", SizeLimit::INDEX).await.unwrap();
        store.replace("a", Bytes::from_static(b"1234"), &version).await.unwrap();
        store.get_range("a", 1..3).await.unwrap();
        store.list("", None, 1).await.unwrap();
        store.delete(&["a".to_owned(), "b".to_owned()]).await.unwrap();
        let expected = RequestCounts {
            put: 1,
            put_if_absent: 2,
            replace: 1,
            get: 3,
            get_range: 1,
            list: 1,
            delete: 1,
            bytes_up: 12,
            bytes_down: 12,
        };
        assert_eq!(counters.snapshot(), expected);
        assert_eq!(counters.snapshot().requests(), 10);
        assert_eq!(answers.load(Ordering::Relaxed), 9, "that there is no such object is an answer");
    }
}
