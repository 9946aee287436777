//! A store that fails as networks and servers do, by plan or by seed, always the same way for the same seed.
//!
//! For tests and the simulator. The most important faults are those that a caller cannot see: a request that never
//! arrived, an answer that was lost after the effect, and an effect that comes long after the caller has given up.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;
use parking_lot::{Mutex, MutexGuard};

use super::{
    ListPage, ObjectVersion, PutOutcome, PutPause, ReplaceOutcome, SizeLimit, Store, StoreCapabilities, StoreError,
    StoreErrorKind,
};

/// The fault injected into one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InjectedFault {
    /// The request never arrives.
    LostRequest,
    /// The request takes effect; the answer never arrives.
    LostAnswer,
    /// A conditional put or replace gets no answer, arrives this much later, and takes effect then. Other calls are
    /// merely lost.
    LateEffect(Duration),
    /// The call takes this long, and then works.
    Delay(Duration),
    /// The server answers 503 and does nothing.
    Refused,
    /// The credentials do not allow it. Conditional puts and replaces work.
    Denied,
    /// A listing lacks the newest objects. Other calls work.
    StaleListing,
}

/// Which calls fail, and how.
#[derive(Debug, Clone)]
pub struct FaultPlan {
    /// Faults by the number of the call; the first call is 0.
    pub at: BTreeMap<u64, InjectedFault>,
    /// In addition, how many calls in a thousand fail at random.
    pub per_mille: u64,
    /// The possible random faults, all equally likely.
    pub faults: Vec<InjectedFault>,
    /// The seed of the random choice.
    pub seed: u64,
}

impl FaultPlan {
    /// A plan with exactly these faults.
    pub fn exactly(faults: impl IntoIterator<Item = (u64, InjectedFault)>) -> Self {
        Self { at: faults.into_iter().collect(), per_mille: 0, faults: Vec::new(), seed: 0 }
    }

    /// A plan with random faults only.
    pub fn random(seed: u64, per_mille: u64, faults: &[InjectedFault]) -> Self {
        Self { at: BTreeMap::new(), per_mille, faults: faults.to_vec(), seed }
    }
}

/// How many of the newest keys a stale listing may lack.
const STALE_KEYS_MAX: usize = 16;

/// A store that fails by plan.
#[derive(Debug)]
pub struct FaultyStore {
    inner: Arc<dyn Store>,
    state: Mutex<FaultyStoreState>,
}

#[derive(Debug)]
struct FaultyStoreState {
    plan: FaultPlan,
    calls: u64,
    recent: VecDeque<String>,
}

impl FaultyStore {
    /// Wraps `inner`, which then fails as `plan` says.
    pub fn new(inner: Arc<dyn Store>, plan: FaultPlan) -> Self {
        Self { inner, state: Mutex::new(FaultyStoreState { plan, calls: 0, recent: VecDeque::new() }) }
    }

    /// How many calls were made.
    pub fn calls(&self) -> u64 {
        self.state().calls
    }

    fn state(&self) -> MutexGuard<'_, FaultyStoreState> {
        self.state.lock()
    }

    fn next_fault(&self) -> Option<InjectedFault> {
        let mut state = self.state();
        let call = state.calls;
        state.calls += 1;
        let plan = &state.plan;
        if let Some(fault) = plan.at.get(&call) {
            return Some(*fault);
        }
        // Each call has its own random number, so that one more fault does not change all that follow.
        let luck = mix(plan.seed ^ mix(call));
        if luck % 1000 >= plan.per_mille || plan.faults.is_empty() {
            return None;
        }
        Some(plan.faults[(luck / 1000) as usize % plan.faults.len()])
    }

    fn wrote(&self, key: &str) {
        let mut state = self.state();
        if state.recent.len() == STALE_KEYS_MAX {
            state.recent.pop_front();
        }
        state.recent.push_back(key.to_owned());
    }

    fn no_answer_error(&self, key: Option<&str>) -> StoreError {
        StoreError::new(StoreErrorKind::Unreachable, &self.inner.describe(), key, "no answer")
    }

    /// An idempotent call. Its retries would hide single faults, so what is injected here is a failure after all
    /// retries.
    async fn idempotent<T>(
        &self,
        fault: Option<InjectedFault>,
        key: Option<&str>,
        call: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        match fault {
            None | Some(InjectedFault::StaleListing) => call.await,
            Some(InjectedFault::Delay(time)) => {
                tokio::time::sleep(time).await;
                call.await
            }
            Some(InjectedFault::LostAnswer) => {
                call.await?;
                Err(self.no_answer_error(key))
            }
            Some(InjectedFault::LostRequest | InjectedFault::Refused | InjectedFault::LateEffect(_)) => {
                Err(self.no_answer_error(key))
            }
            Some(InjectedFault::Denied) => {
                Err(StoreError::new(StoreErrorKind::Denied, &self.inner.describe(), key, ""))
            }
        }
    }

    /// A call that sends one request only; `unknown` is its outcome when no answer comes.
    async fn single_request<T: Send + 'static>(
        &self,
        fault: Option<InjectedFault>,
        unknown: impl FnOnce(String) -> T,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let why = match fault {
            None | Some(InjectedFault::StaleListing | InjectedFault::Denied) => return call.await,
            Some(InjectedFault::Delay(time)) => {
                tokio::time::sleep(time).await;
                return call.await;
            }
            Some(InjectedFault::LostAnswer) => {
                call.await?;
                "the answer was lost"
            }
            Some(InjectedFault::LostRequest) => "the request was lost",
            Some(InjectedFault::Refused) => "status 503",
            Some(InjectedFault::LateEffect(time)) => {
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    // The caller has given up, so the result is dropped.
                    let _ = call.await;
                });
                "still under way"
            }
        };
        Ok(unknown(why.to_owned()))
    }
}

/// splitmix64's output function.
fn mix(mut z: u64) -> u64 {
    z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[async_trait]
impl Store for FaultyStore {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.inner.capabilities()
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.idempotent(self.next_fault(), Some(key), self.inner.put(key, body)).await?;
        self.wrote(key);
        Ok(())
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        let (inner, to) = (Arc::clone(&self.inner), key.to_owned());
        let call = async move { inner.put_if_absent(&to, body).await };
        let outcome = self.single_request(self.next_fault(), |why| PutOutcome::Unknown { why }, call).await?;
        if outcome != PutOutcome::Exists {
            self.wrote(key);
        }
        Ok(outcome)
    }

    /// Never fails by plan: the proof is about the store below.
    async fn put_if_absent_paused(&self, key: &str, body: Bytes, hold: PutPause) -> Result<PutOutcome, StoreError> {
        self.inner.put_if_absent_paused(key, body, hold).await
    }

    async fn replace(&self, key: &str, body: Bytes, expected: &ObjectVersion) -> Result<ReplaceOutcome, StoreError> {
        let (inner, to, expected) = (Arc::clone(&self.inner), key.to_owned(), expected.clone());
        let call = async move { inner.replace(&to, body, &expected).await };
        self.single_request(self.next_fault(), |why| ReplaceOutcome::Unknown { why }, call).await
    }

    async fn get(&self, key: &str, limit: SizeLimit) -> Result<Bytes, StoreError> {
        self.idempotent(self.next_fault(), Some(key), self.inner.get(key, limit)).await
    }

    async fn get_versioned(&self, key: &str, limit: SizeLimit) -> Result<(Bytes, ObjectVersion), StoreError> {
        self.idempotent(self.next_fault(), Some(key), self.inner.get_versioned(key, limit)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.idempotent(self.next_fault(), Some(key), self.inner.get_range(key, range)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        let fault = self.next_fault();
        let mut page = self.idempotent(fault, None, self.inner.list(prefix, after, limit)).await?;
        if fault == Some(InjectedFault::StaleListing) {
            let recent = self.state().recent.clone();
            page.objects.retain(|object| !recent.contains(&object.key));
        }
        Ok(page)
    }

    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        self.idempotent(self.next_fault(), None, self.inner.delete(keys)).await
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

    const BODY: Bytes = Bytes::from_static(b"body");

    fn faulty(plan: FaultPlan) -> (MemoryStore, FaultyStore) {
        let memory = MemoryStore::new(&Env::host());
        (memory.clone(), FaultyStore::new(Arc::new(memory), plan))
    }

    fn is_unknown(outcome: &Result<PutOutcome, StoreError>) -> bool {
        matches!(outcome, Ok(PutOutcome::Unknown { .. }))
    }

    #[tokio::test]
    async fn each_fault_leaves_what_it_should() {
        let late = Duration::from_millis(20);
        let plan = FaultPlan::exactly([
            (0, InjectedFault::LostRequest),
            (1, InjectedFault::LostAnswer),
            (2, InjectedFault::LateEffect(late)),
            (3, InjectedFault::Refused),
            (4, InjectedFault::Delay(late)),
            (5, InjectedFault::LostAnswer),
            (6, InjectedFault::LostRequest),
        ]);
        let (memory, store) = faulty(plan);
        for key in ["k0", "k1", "k2", "k3"] {
            assert!(is_unknown(&store.put_if_absent(key, BODY).await), "{key}");
        }
        assert_eq!(memory.objects().into_keys().collect::<Vec<_>>(), ["k1"]);
        assert_eq!(store.put_if_absent("k4", BODY).await.unwrap(), PutOutcome::Created);
        while !memory.objects().contains_key("k2") {
            tokio::time::sleep(late).await;
        }
        assert_eq!(store.put("k6", BODY).await.unwrap_err().kind, StoreErrorKind::Unreachable);
        assert!(memory.objects().contains_key("k6"));
        assert_eq!(store.get("k6", SizeLimit::INDEX).await.unwrap_err().kind, StoreErrorKind::Unreachable);
        assert_eq!(store.get("k6", SizeLimit::INDEX).await.unwrap(), BODY);
        assert_eq!(store.calls(), 8);
    }

    #[tokio::test]
    async fn a_replace_without_answer_may_have_worked_or_work_later() {
        let late = Duration::from_millis(20);
        let plan = FaultPlan::exactly([
            (1, InjectedFault::LostRequest),
            (2, InjectedFault::Refused),
            (3, InjectedFault::LostAnswer),
        ]);
        let (memory, store) = faulty(plan);
        memory.put("k", BODY).await.unwrap();
        let (_, first) = store.get_versioned("k", SizeLimit::INDEX).await.unwrap();
        let content = || memory.objects()["k"].clone();
        for (body, there) in [("lost", "body"), ("refused", "body"), ("done", "done")] {
            let outcome = store.replace("k", Bytes::from(body), &first).await.unwrap();
            assert!(matches!(outcome, ReplaceOutcome::Unknown { .. }), "{body}: {outcome:?}");
            assert_eq!(content(), there);
        }
        assert_eq!(store.replace("k", BODY, &first).await.unwrap(), ReplaceOutcome::Changed);

        let store =
            FaultyStore::new(Arc::new(memory.clone()), FaultPlan::exactly([(1, InjectedFault::LateEffect(late))]));
        let (_, second) = store.get_versioned("k", SizeLimit::INDEX).await.unwrap();
        let outcome = store.replace("k", Bytes::from("late"), &second).await.unwrap();
        assert!(matches!(outcome, ReplaceOutcome::Unknown { .. }), "{outcome:?}");
        assert_eq!(content(), "done");
        while content() == "done" {
            tokio::time::sleep(late).await;
        }
        assert_eq!(content(), "late");
        assert_eq!(store.replace("k", BODY, &second).await.unwrap(), ReplaceOutcome::Changed);
    }

    #[tokio::test]
    async fn a_stale_listing_lacks_the_newest() {
        let (_, store) = faulty(FaultPlan::exactly([(1, InjectedFault::StaleListing)]));
        store.inner.put("old", BODY).await.unwrap();
        store.put("new", BODY).await.unwrap();
        assert_eq!(store.list("", None, 9).await.unwrap().objects.len(), 1);
        assert_eq!(store.list("", None, 9).await.unwrap().objects.len(), 2);
    }

    #[tokio::test]
    async fn equal_seeds_fail_alike_and_as_often_as_asked() {
        let failures = async |seed| {
            let (_, store) =
                faulty(FaultPlan::random(seed, 250, &[InjectedFault::LostRequest, InjectedFault::Refused]));
            let mut failed = Vec::new();
            for call in 0..1000 {
                if store.put("k", BODY).await.is_err() {
                    failed.push(call);
                }
            }
            failed
        };
        let first = failures(7).await;
        assert_eq!(first, failures(7).await);
        assert_ne!(first, failures(8).await);
        assert!((200..300).contains(&first.len()), "{}", first.len());
    }
}
