//! The one bucket of a world, and each process's wire to it.
//!
//! The invariant that lives here: whatever changes an object is seen by the observer at that moment, in the order in which it
//! happens, with what was there before. The checkers stand on this and on nothing that the program says.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use jiff::{SignedDuration, Timestamp};
use parking_lot::{Mutex, MutexGuard};

use crate::network::{Network, NoAnswer, RequestKind};
use crate::tasks::SimProcess;
use crate::world::{WORLD, WorldHandle};
use runner::env::Clock as _;
use runner::store::memory::MemoryStore;
use runner::store::response::{StoreResponse, WriteResponse};
use runner::store::{
    LIST_PAGE_MAX, ListPage, ObjectMeta, ObjectVersion, PutOutcome, PutPause, ReplaceOutcome, SizeLimit, Store,
    StoreCapabilities, StoreError, StoreErrorKind, key,
};

/// What has changed where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffectPlace {
    /// An object in the bucket.
    Object,
    /// A register.
    Register,
}

/// One effect.
#[derive(Debug, Clone)]
pub struct StoredEffect {
    /// World time.
    pub at: Duration,
    /// Which of its host's processes has sent it. It may be dead.
    pub life: u64,
    pub place: EffectPlace,
    pub key: String,
    pub before: Option<Bytes>,
    pub after: Option<Bytes>,
}

/// Sees every effect when it happens.
pub trait EffectObserver: Debug + Send + Sync {
    /// `host` has sent what did this.
    fn changed(&self, host: usize, what: &StoredEffect);
}

/// The bucket.
#[derive(Debug)]
pub struct SimBucket {
    store: MemoryStore,
    net: Arc<Network>,
    /// When each object was made: a stale listing lacks new ones, and never one that was overwritten.
    born: Mutex<BTreeMap<String, Duration>>,
    /// Whether its answers tell the time.
    has_clock: bool,
    observer: OnceLock<Arc<dyn EffectObserver>>,
}

impl SimBucket {
    /// An empty one, whose clock is right; `has_clock`: its answers tell the time.
    pub fn new(world: &WorldHandle, has_clock: bool) -> Arc<Self> {
        let store = MemoryStore::new(&store_env(world));
        Arc::new(Self { store, net: Network::new(world), born: Mutex::default(), has_clock, observer: OnceLock::new() })
    }

    /// Who sees what happens to it.
    pub fn observe(&self, observer: Arc<dyn EffectObserver>) {
        self.observer.set(observer).expect("there is one observer");
    }

    /// What is in it, without any wire.
    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// The way to it.
    pub fn net(&self) -> &Arc<Network> {
        &self.net
    }

    /// The wire of a process.
    pub fn wire(self: &Arc<Self>, process: SimProcess) -> Arc<SimStore> {
        Arc::new(SimStore { process, bucket: Arc::clone(self), offset: Mutex::new(None) })
    }

    fn change<T>(
        &self,
        by: &SimProcess,
        key: &str,
        change: impl Future<Output = Result<T, StoreError>>,
        has_effect: impl FnOnce(&T) -> bool,
    ) -> Result<T, StoreError> {
        let body = || at_once(self.store.get(key, SizeLimit::RECORD)).ok();
        let before = body();
        let outcome = at_once(change)?;
        if !has_effect(&outcome) {
            return Ok(outcome);
        }
        let (after, at) = (body(), self.net.world().now());
        match (&before, &after) {
            (None, Some(_)) => self.born().insert(key.to_owned(), at),
            (_, None) => self.born().remove(key),
            _ => None,
        };
        if let Some(observer) = self.observer.get() {
            let change =
                StoredEffect { at, life: by.life, place: EffectPlace::Object, key: key.to_owned(), before, after };
            observer.changed(by.host, &change);
        }
        Ok(outcome)
    }

    fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        if !self.net.chance(|faults| faults.stale_listing) {
            return at_once(self.store.list(prefix, after, limit));
        }
        let since = self.net.world().now().saturating_sub(self.net.faults().stale_max);
        let limit = limit.clamp(1, LIST_PAGE_MAX);
        let mut objects: Vec<ObjectMeta> = Vec::new();
        let mut last = after.map(str::to_owned);
        loop {
            let page = at_once(self.store.list(prefix, last.as_deref(), LIST_PAGE_MAX))?;
            last = page.objects.last().map(|object| object.key.clone());
            let born = self.born();
            let is_old = |object: &ObjectMeta| born.get(&object.key).is_none_or(|born| *born < since);
            objects.extend(page.objects.into_iter().filter(is_old));
            if !page.truncated || objects.len() > limit {
                let truncated = objects.len() > limit;
                objects.truncate(limit);
                return Ok(ListPage { objects, truncated });
            }
        }
    }

    /// Its clock.
    fn date(&self) -> Timestamp {
        let ahead = self.store.clock_offset().unwrap_or_default();
        self.net.world().wall().saturating_add(ahead).expect("within the calendar")
    }

    fn born(&self) -> MutexGuard<'_, BTreeMap<String, Duration>> {
        self.born.lock()
    }
}

/// The store's own host is the world.
fn store_env(world: &WorldHandle) -> runner::env::Env {
    world.env(WORLD)
}

fn at_once<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("what is in memory does not wait")
}

/// A process's way to the bucket.
#[derive(Debug)]
pub struct SimStore {
    process: SimProcess,
    bucket: Arc<SimBucket>,
    offset: Mutex<Option<SignedDuration>>,
}

impl SimStore {
    /// What a conditional write comes to that has no answer, or one that is not the store's, by the program's own table; `Ok`: doubt.
    fn unanswered(&self, key: &str, NoAnswer(why): NoAnswer) -> Result<String, StoreError> {
        let answer = match why {
            "status 503" => StoreResponse { status: Some(503), code: Some("SlowDown"), has_no_body: false },
            "status 409" => {
                StoreResponse { status: Some(409), code: Some("ConditionalRequestConflict"), has_no_body: false }
            }
            _ => StoreResponse::default(),
        };
        match answer.write_response() {
            WriteResponse::Refused(kind) => Err(StoreError::new(kind, &self.describe(), Some(key), why)),
            WriteResponse::ConditionFailed | WriteResponse::NoSuchKey | WriteResponse::Unknown => Ok(why.to_owned()),
        }
    }

    async fn send<T: Send + 'static>(
        &self,
        kind: RequestKind,
        mut effect: impl FnMut(&SimBucket, &SimProcess) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Result<T, StoreError>, NoAnswer> {
        let (bucket, process) = (Arc::clone(&self.bucket), self.process.clone());
        let effect = move || (effect(&bucket, &process), bucket.date());
        let (answer, date) = self.bucket.net.carry(&self.process, kind, None, effect).await?;
        // The header knows whole seconds.
        let ahead = SignedDuration::from_secs(date.as_second() - self.process.now().as_second());
        *self.offset.lock() = self.bucket.has_clock.then_some(ahead);
        Ok(answer)
    }

    /// For requests of which the client's last try came to nothing.
    async fn send_again<T: Send + 'static>(
        &self,
        kind: RequestKind,
        key: Option<&str>,
        effect: impl FnMut(&SimBucket, &SimProcess) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let unreachable = |NoAnswer(why)| StoreError::new(StoreErrorKind::Unreachable, &self.describe(), key, why);
        self.send(kind, effect).await.map_err(unreachable)?
    }
}

#[async_trait]
impl Store for SimStore {
    fn describe(&self) -> String {
        "sim:".to_owned()
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.bucket.store.capabilities()
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        let to = key.to_owned();
        let effect = move |bucket: &SimBucket, by: &SimProcess| {
            bucket.change(by, &to, bucket.store.put(&to, body.clone()), |()| true)
        };
        self.send_again(RequestKind::Write, Some(key), effect).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        let to = key.to_owned();
        let effect = move |bucket: &SimBucket, by: &SimProcess| {
            let put = bucket.store.put_if_absent(&to, body.clone());
            bucket.change(by, &to, put, |outcome| *outcome == PutOutcome::Created)
        };
        match self.send(RequestKind::Once, effect).await {
            Ok(outcome) => outcome,
            Err(silence) => self.unanswered(key, silence).map(|why| PutOutcome::Unknown { why }),
        }
    }

    /// Held before it is sent: the store below judges when all of it has arrived.
    async fn put_if_absent_paused(&self, key: &str, body: Bytes, hold: PutPause) -> Result<PutOutcome, StoreError> {
        let _ = hold.begin().await;
        self.put_if_absent(key, body).await
    }

    async fn replace(&self, key: &str, body: Bytes, expected: &ObjectVersion) -> Result<ReplaceOutcome, StoreError> {
        let (to, expected) = (key.to_owned(), expected.clone());
        let effect = move |bucket: &SimBucket, by: &SimProcess| {
            let replace = bucket.store.replace(&to, body.clone(), &expected);
            bucket.change(by, &to, replace, |outcome| matches!(outcome, ReplaceOutcome::Replaced(_)))
        };
        match self.send(RequestKind::Once, effect).await {
            Ok(outcome) => outcome,
            Err(silence) => self.unanswered(key, silence).map(|why| ReplaceOutcome::Unknown { why }),
        }
    }

    async fn get(&self, key: &str, limit: SizeLimit) -> Result<Bytes, StoreError> {
        let from = key.to_owned();
        self.send_again(RequestKind::Read, Some(key), move |bucket, _| at_once(bucket.store.get(&from, limit))).await
    }

    async fn get_versioned(&self, key: &str, limit: SizeLimit) -> Result<(Bytes, ObjectVersion), StoreError> {
        let from = key.to_owned();
        self.send_again(RequestKind::Read, Some(key), move |bucket, _| {
            at_once(bucket.store.get_versioned(&from, limit))
        })
        .await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let from = key.to_owned();
        let effect = move |bucket: &SimBucket, _: &SimProcess| at_once(bucket.store.get_range(&from, range.clone()));
        self.send_again(RequestKind::Read, Some(key), effect).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.send_again(RequestKind::Read, None, move |bucket, _| bucket.list(&prefix, after.as_deref(), limit)).await
    }

    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        key::check_batch(&self.describe(), keys)?;
        let keys = keys.to_vec();
        let effect = move |bucket: &SimBucket, by: &SimProcess| {
            for key in keys.iter().filter(|key| at_once(bucket.store.get(key, SizeLimit::RECORD)).is_ok()) {
                let delete = bucket.store.delete(std::slice::from_ref(key));
                bucket.change(by, key, delete, |()| true)?;
            }
            Ok(())
        };
        self.send_again(RequestKind::Write, None, effect).await
    }

    fn clock_offset(&self) -> Option<SignedDuration> {
        *self.offset.lock()
    }
}
