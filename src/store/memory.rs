//! A store in memory, for tests, for the simulator, and as the shortest definition of a store.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use parking_lot::{Mutex, MutexGuard};

use super::{
    LIST_PAGE_MAX, ListPage, ObjectMeta, ObjectVersion, PutOutcome, PutPause, RANGE_BYTES_MAX, ReplaceOutcome,
    SizeLimit, Store, StoreCapabilities, StoreError, StoreErrorKind, key,
};
use crate::env::Env;

/// Objects in memory. Clones share the same objects.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    shared: Arc<Mutex<MemoryStoreState>>,
    env: Env,
}

#[derive(Debug, Default)]
struct MemoryStoreState {
    objects: BTreeMap<String, (Bytes, Timestamp)>,
    clock_offset: SignedDuration,
}

const NAME: &str = "memory:";

impl MemoryStore {
    /// An empty store whose clock is the clock of `env`.
    pub fn new(env: &Env) -> Self {
        Self { shared: Arc::default(), env: env.clone() }
    }

    /// Puts the store's clock ahead of the host's (or behind, if negative).
    pub fn set_clock_offset(&self, offset: SignedDuration) {
        self.state().clock_offset = offset;
    }

    /// A copy of all objects, for a test to inspect, damage or restore.
    pub fn objects(&self) -> BTreeMap<String, Bytes> {
        self.state().objects.iter().map(|(k, (body, _))| (k.clone(), body.clone())).collect()
    }

    /// Replaces, or with `None` removes, an object without a normal call.
    pub fn tamper(&self, key: &str, body: Option<Bytes>) {
        let modified = self.env.clock.now();
        match body {
            Some(body) => self.state().objects.insert(key.to_owned(), (body, modified)),
            None => self.state().objects.remove(key),
        };
    }

    fn state(&self) -> MutexGuard<'_, MemoryStoreState> {
        // Nothing below panics between two changes, so the state is consistent even if the lock is poisoned.
        self.shared.lock()
    }

    fn find(&self, key: &str) -> Result<Bytes, StoreError> {
        key::check(NAME, key)?;
        let found = self.state().objects.get(key).map(|(body, _)| body.clone());
        found.ok_or_else(|| StoreError::new(StoreErrorKind::NotFound, NAME, Some(key), ""))
    }

    fn insert(&self, state: &mut MemoryStoreState, key: &str, body: &Bytes) {
        // Copied, because the caller's buffer may be a slice of something much larger.
        let modified = self.env.clock.now().saturating_add(state.clock_offset).unwrap_or(Timestamp::MAX);
        state.objects.insert(key.to_owned(), (Bytes::copy_from_slice(body), modified));
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn describe(&self) -> String {
        NAME.to_owned()
    }

    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities { put_if_absent: true, replace: true, has_finite_space: false }
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        key::check(NAME, key)?;
        self.insert(&mut self.state(), key, &body);
        Ok(())
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        key::check(NAME, key)?;
        let mut state = self.state();
        let exists = state.objects.contains_key(key);
        #[cfg(feature = "planted")]
        let exists = exists && !crate::planted::is(crate::planted::PlantedBug::PutOverwrites);
        if exists {
            return Ok(PutOutcome::Exists);
        }
        self.insert(&mut state, key, &body);
        Ok(PutOutcome::Created)
    }

    async fn put_if_absent_paused(&self, key: &str, body: Bytes, hold: PutPause) -> Result<PutOutcome, StoreError> {
        let _ = hold.begin().await;
        self.put_if_absent(key, body).await
    }

    async fn replace(&self, key: &str, body: Bytes, expected: &ObjectVersion) -> Result<ReplaceOutcome, StoreError> {
        key::check(NAME, key)?;
        let mut state = self.state();
        if state.objects.get(key).is_none_or(|(there, _)| ObjectVersion::of_content(there) != *expected) {
            return Ok(ReplaceOutcome::Changed);
        }
        self.insert(&mut state, key, &body);
        Ok(ReplaceOutcome::Replaced(ObjectVersion::of_content(&body)))
    }

    async fn get(&self, key: &str, limit: SizeLimit) -> Result<Bytes, StoreError> {
        let body = self.find(key)?;
        limit.check(NAME, key, body.len() as u64)?;
        Ok(body)
    }

    async fn get_versioned(&self, key: &str, limit: SizeLimit) -> Result<(Bytes, ObjectVersion), StoreError> {
        let body = self.find(key)?;
        let version = ObjectVersion::of_content(&body);
        match limit.check(NAME, key, body.len() as u64) {
            Ok(()) => Ok((body, version)),
            Err(error) => Err(error.with_version(Some(version))),
        }
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let body = self.find(key)?;
        let clamp = |at: u64| usize::try_from(at).map_or(body.len(), |at| at.min(body.len()));
        let (start, end) = (clamp(range.start), clamp(range.end));
        let part = if start < end { body.slice(start..end) } else { Bytes::new() };
        SizeLimit::range(RANGE_BYTES_MAX).check(NAME, key, part.len() as u64)?;
        Ok(part)
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        key::check_prefix(NAME, prefix)?;
        let limit = limit.clamp(1, LIST_PAGE_MAX);
        let state = self.state();
        let mut matching = state
            .objects
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(key, _)| after.is_none_or(|after| key.as_str() > after));
        let objects = matching
            .by_ref()
            .take(limit)
            .map(|(key, (body, modified))| ObjectMeta {
                key: key.clone(),
                size: body.len() as u64,
                modified: *modified,
            })
            .collect();
        Ok(ListPage { objects, truncated: matching.next().is_some() })
    }

    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        key::check_batch(NAME, keys)?;
        let mut state = self.state();
        for key in keys {
            state.objects.remove(key);
        }
        Ok(())
    }

    fn clock_offset(&self) -> Option<SignedDuration> {
        Some(self.state().clock_offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_stores_clock_dates_objects() {
        let store = MemoryStore::new(&Env::host());
        store.set_clock_offset(SignedDuration::from_hours(5));
        store.put("a", Bytes::from_static(b"x")).await.unwrap();
        let modified = store.list("", None, 1).await.unwrap().objects[0].modified;
        let ahead = modified.duration_since(store.env.clock.now());
        assert!(ahead > SignedDuration::from_hours(4), "{ahead}");
        assert_eq!(store.clock_offset(), Some(SignedDuration::from_hours(5)));
    }
}
