//! A store that ignores conditions and reports success, as some servers do. For tests that the proof refuses such a
//! store, and of what is used instead of a conditional put.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;

use super::{
    ListPage, ObjectVersion, PutOutcome, PutPause, ReplaceOutcome, SizeLimit, Store, StoreCapabilities, StoreError,
};

/// `inner` without its conditions.
#[derive(Debug, Clone)]
pub struct IgnoresConditions(pub Arc<dyn Store>);

#[async_trait]
impl Store for IgnoresConditions {
    fn describe(&self) -> String {
        self.0.describe()
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.0.capabilities()
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.0.put(key, body).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        self.0.put(key, body).await.map(|()| PutOutcome::Created)
    }

    async fn put_if_absent_paused(&self, key: &str, body: Bytes, hold: PutPause) -> Result<PutOutcome, StoreError> {
        let _ = hold.begin().await;
        self.put_if_absent(key, body).await
    }

    async fn replace(&self, key: &str, body: Bytes, _: &ObjectVersion) -> Result<ReplaceOutcome, StoreError> {
        self.0.put(key, body.clone()).await.map(|()| ReplaceOutcome::Replaced(ObjectVersion::of_content(&body)))
    }

    async fn get(&self, key: &str, limit: SizeLimit) -> Result<Bytes, StoreError> {
        self.0.get(key, limit).await
    }

    async fn get_versioned(&self, key: &str, limit: SizeLimit) -> Result<(Bytes, ObjectVersion), StoreError> {
        self.0.get_versioned(key, limit).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.0.get_range(key, range).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        self.0.list(prefix, after, limit).await
    }

    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        self.0.delete(keys).await
    }

    fn inner(&self) -> Option<&dyn Store> {
        Some(self.0.as_ref())
    }

    fn clock_offset(&self) -> Option<SignedDuration> {
        self.0.clock_offset()
    }
}
