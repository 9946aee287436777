//! The store, connected to when it is first needed and shared by all roles: its limits are the process's, and so is its
//! health. After an outage the first answer to any role ends the waiting of all.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;
use parking_lot::{Mutex as SyncMutex, MutexGuard};
use tokio::sync::{Mutex, watch};

use super::outages::{OutageCause, OutageLog, store_answered};
use crate::config::StoreSettings;
use crate::env::Env;
use crate::store::{
    ListPage, ObjectVersion, PutOutcome, PutPause, ReplaceOutcome, SizeLimit, Store, StoreCapabilities, StoreError,
};

/// A silence that is shorter than this is no outage: one request of many may fail, and its retries wait only for a
/// moment.
const SILENCE_MIN: Duration = Duration::from_secs(5);

/// Connects to the store once.
#[derive(Debug)]
pub(super) struct StoreConnector {
    settings: StoreSettings,
    env: Env,
    connected: Mutex<Option<Arc<dyn Store>>>,
    health: Arc<StoreHealth>,
}

impl StoreConnector {
    pub(super) fn new(settings: StoreSettings, env: Env) -> Self {
        let health = Arc::new(StoreHealth::new(&env));
        Self { settings, env, connected: Mutex::new(None), health }
    }

    /// A connector with an existing connection.
    pub(super) fn connected_to(settings: StoreSettings, env: Env, store: Arc<dyn Store>) -> Self {
        let health = Arc::new(StoreHealth::new(&env));
        let store: Arc<dyn Store> = Arc::new(MonitoredStore { inner: store, health: Arc::clone(&health) });
        Self { settings, env, connected: Mutex::new(Some(store)), health }
    }

    /// The store. A failed connection is tried again at the next call.
    pub(super) async fn store(&self) -> Result<Arc<dyn Store>, StoreError> {
        let mut connected = self.connected.lock().await;
        if let Some(store) = &*connected {
            return Ok(Arc::clone(store));
        }
        let inner = self.health.observe(crate::store::connect(&self.settings, &self.env).await)?;
        let store: Arc<dyn Store> = Arc::new(MonitoredStore { inner, health: Arc::clone(&self.health) });
        *connected = Some(Arc::clone(&store));
        Ok(store)
    }

    /// Error of the last attempt, if none has been answered since. `None` while the store is being connected to.
    pub(super) fn last_failure(&self) -> Option<String> {
        self.connected.try_lock().ok()?.as_ref()?.last_attempt_error()
    }

    /// Makes the next request read credentials and certificates again.
    pub(super) async fn renew_credentials(&self) {
        if let Some(store) = &*self.connected.lock().await {
            store.reload_credentials();
        }
    }

    /// The outages that all roles meet together.
    pub(super) fn outages(&self) -> &OutageLog {
        &self.health.outages
    }

    /// Changes whenever the store answers again after an outage.
    pub(super) fn recoveries(&self) -> watch::Receiver<u64> {
        self.health.recoveries.subscribe()
    }
}

/// Whether a store answers, as observed by all its users together.
#[derive(Debug)]
struct StoreHealth {
    env: Env,
    last_answer: SyncMutex<LastAnswer>,
    outages: OutageLog,
    /// Refused requests that have not succeeded since.
    refused: SyncMutex<BTreeSet<(StoreOperation, String)>>,
    recoveries: watch::Sender<u64>,
}

/// A kind of request. Success of one kind says nothing about another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum StoreOperation {
    Put,
    PutIfAbsent,
    Replace,
    Get,
    List,
}

/// The part of a role's folder that contains this key or prefix. Credentials may be limited to some parts, and a store
/// that is full for packs may have room for a lease.
fn key_area(key: &str) -> &str {
    let end = key.match_indices('/').nth(1).map_or(key.len(), |(at, _)| at);
    &key[..end]
}

/// When a store answered last, as boot time, and whether it has failed since.
#[derive(Debug, Clone, Copy)]
struct LastAnswer {
    answered: Duration,
    failed: bool,
}

impl LastAnswer {
    /// Notes an answer, or a failure. Returns whether an outage has ended.
    fn note(&mut self, now: Duration, answered: bool) -> bool {
        if !answered {
            self.failed = true;
            return false;
        }
        let back = self.failed && now.saturating_sub(self.answered) >= SILENCE_MIN;
        *self = Self { answered: now, failed: false };
        back
    }
}

impl StoreHealth {
    fn new(env: &Env) -> Self {
        let pulse = LastAnswer { answered: env.clock.boottime(), failed: false };
        Self {
            env: env.clone(),
            last_answer: SyncMutex::new(pulse),
            outages: OutageLog::new(env),
            refused: SyncMutex::default(),
            recoveries: watch::Sender::new(0),
        }
    }

    fn note(&self, answered: bool) {
        let now = self.env.clock.boottime();
        let back = self.last_answer.lock().note(now, answered);
        if answered {
            self.outages.note_answer(&OutageCause::Store);
        }
        if back {
            self.recoveries.send_modify(|returns| *returns += 1);
        }
    }

    fn observe<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        match &answer {
            Ok(_) => self.note(true),
            // A refusal shows neither an outage nor its end.
            Err(error) => store_answered(error.kind).into_iter().for_each(|answered| self.note(answered)),
        }
        answer
    }

    /// The same for a request that may be refused or succeed.
    fn observe_request<T>(
        &self,
        op: StoreOperation,
        key: &str,
        answer: Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        match &answer {
            Ok(_) => self.clear_refusal(op, key),
            Err(error) if error.kind.is_refusal() => {
                self.refused().insert((op, key_area(key).to_owned()));
            }
            Err(_) => {}
        }
        self.observe(answer)
    }

    /// Notes that a request succeeded.
    fn clear_refusal(&self, op: StoreOperation, key: &str) {
        let mut refused = self.refused();
        let is_over = refused.remove(&(op, key_area(key).to_owned())) && refused.is_empty();
        drop(refused);
        if is_over {
            self.outages.note_answer(&OutageCause::Refusal);
        }
    }

    fn refused(&self) -> MutexGuard<'_, BTreeSet<(StoreOperation, String)>> {
        self.refused.lock()
    }
}

/// A store that reports the result of each request to [`StoreHealth`].
#[derive(Debug)]
struct MonitoredStore {
    inner: Arc<dyn Store>,
    health: Arc<StoreHealth>,
}

impl MonitoredStore {
    fn put(&self, key: &str, put: Result<PutOutcome, StoreError>) -> Result<PutOutcome, StoreError> {
        match put {
            Ok(PutOutcome::Unknown { .. }) => self.health.note(false),
            // The object exists already, so nothing was written: this is an answer, and does not end a refusal of
            // writes.
            Ok(PutOutcome::Exists) => self.health.note(true),
            put => return self.health.observe_request(StoreOperation::PutIfAbsent, key, put),
        }
        put
    }
}

#[async_trait]
impl Store for MonitoredStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.health.observe_request(StoreOperation::Put, key, self.inner.put(key, body).await)
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        MonitoredStore::put(self, key, self.inner.put_if_absent(key, body).await)
    }

    async fn put_if_absent_paused(&self, key: &str, body: Bytes, hold: PutPause) -> Result<PutOutcome, StoreError> {
        MonitoredStore::put(self, key, self.inner.put_if_absent_paused(key, body, hold).await)
    }

    async fn replace(&self, key: &str, body: Bytes, expected: &ObjectVersion) -> Result<ReplaceOutcome, StoreError> {
        let replaced = self.inner.replace(key, body, expected).await;
        match replaced {
            Ok(ReplaceOutcome::Unknown { .. }) => self.health.note(false),
            Ok(ReplaceOutcome::Changed) => self.health.note(true),
            replaced => return self.health.observe_request(StoreOperation::Replace, key, replaced),
        }
        replaced
    }

    async fn get(&self, key: &str, limit: SizeLimit) -> Result<Bytes, StoreError> {
        self.health.observe_request(StoreOperation::Get, key, self.inner.get(key, limit).await)
    }

    async fn get_versioned(&self, key: &str, limit: SizeLimit) -> Result<(Bytes, ObjectVersion), StoreError> {
        self.health.observe_request(StoreOperation::Get, key, self.inner.get_versioned(key, limit).await)
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.health.observe_request(StoreOperation::Get, key, self.inner.get_range(key, range).await)
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        self.health.observe_request(StoreOperation::List, prefix, self.inner.list(prefix, after, limit).await)
    }

    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        self.health.observe(self.inner.delete(keys).await)
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
    use crate::store::faulty::{FaultPlan, FaultyStore, InjectedFault};
    use crate::store::memory::MemoryStore;

    #[test]
    fn a_store_is_back_when_it_answers_after_a_silence() {
        let at = Duration::from_secs;
        let mut pulse = LastAnswer { answered: at(100), failed: false };
        assert!(!pulse.note(at(500), true), "there was no request in between");
        assert!(!pulse.note(at(501), false));
        assert!(!pulse.note(at(502), true), "one request of many");
        assert!(!pulse.note(at(503), false) && !pulse.note(at(506), false));
        assert!(pulse.note(at(507), true));
        assert!(!pulse.note(at(600), true), "it is told once");
    }

    #[tokio::test]
    async fn a_refusal_is_over_when_the_same_is_done_and_by_no_other_answer() {
        let memory = Arc::new(MemoryStore::new(&Env::host()));
        let denied = |n: &[u64]| FaultPlan::exactly(n.iter().map(|n| (*n, InjectedFault::Denied)));
        let settings =
            StoreSettings::new(crate::config::StoreUrl::Dir("/nowhere".into()), crate::config::KeySource::None);
        let faulty = Arc::new(FaultyStore::new(memory, denied(&[0, 1])));
        let stores = StoreConnector::connected_to(settings, Env::host(), faulty);
        let store = stores.store().await.unwrap();
        let refused = || stores.health.refused().len();
        store.put("app/packs/00/a", Bytes::new()).await.unwrap_err();
        assert!(stores.outages().note_failure(&OutageCause::Refusal, "denied"));
        store.get("app/packs/00/a", SizeLimit::LIVE).await.unwrap_err();
        assert_eq!(refused(), 2);
        store.put("app/live/beat", Bytes::new()).await.unwrap();
        store.list("app/packs/", None, 1).await.unwrap();
        assert!(store.get("app/packs/00/none", SizeLimit::LIVE).await.unwrap_err().is_not_found());
        assert_eq!(refused(), 2, "other requests, and one that found nothing");
        store.put("app/packs/01/b", Bytes::new()).await.unwrap();
        assert_eq!(refused(), 1);
        assert!(!stores.outages().note_failure(&OutageCause::Refusal, "denied"), "it lasts, and is logged already");
        store.get("app/packs/01/b", SizeLimit::LIVE).await.unwrap();
        assert_eq!(refused(), 0);
        assert!(!stores.outages().is_logged(&OutageCause::Refusal), "its end was told");
    }

    #[tokio::test]
    async fn a_recovery_is_published_whichever_request_finds_it() {
        let settings =
            StoreSettings::new(crate::config::StoreUrl::Dir("/nowhere".into()), crate::config::KeySource::None);
        let stores = StoreConnector::connected_to(settings, Env::host(), Arc::new(MemoryStore::new(&Env::host())));
        let mut heard = stores.recoveries();
        stores.health.note(false);
        // The store has been away for some time.
        stores.health.last_answer.lock().answered = Duration::ZERO;
        let store = stores.store().await.unwrap();
        assert!(!heard.has_changed().unwrap());
        assert!(store.get("none", SizeLimit::INDEX).await.unwrap_err().is_not_found());
        assert!(heard.has_changed().unwrap(), "that there is nothing is an answer");
        heard.mark_unchanged();
        store.list("", None, 1).await.unwrap();
        assert!(!heard.has_changed().unwrap());
    }
}
