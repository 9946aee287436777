//! A store that builds a new client when the current one is refused: credentials, profiles and certificates may be
//! replaced on disk while a node runs.
//!
//! The invariant that lives here: a request is sent again only when it was definitely refused, and only once; the
//! answer to the new client is final. [`crate::client_renewal`] decides when a new client is built.

use std::fmt;
use std::ops::Range;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;
use parking_lot::{Mutex as SyncMutex, MutexGuard};
use tokio::sync::Mutex;

use super::{
    ListPage, ObjectVersion, PutOutcome, PutPause, ReplaceOutcome, SizeLimit, Store, StoreCapabilities, StoreError,
    StoreErrorKind, Versioning,
};
use crate::client_renewal::{ClientRenewal, RenewalAction};
use crate::env::Env;
use crate::outage::Outage;

/// A pending connection to a store.
pub(super) type ConnectFuture = Pin<Box<dyn Future<Output = Result<Arc<dyn Store>, StoreError>> + Send>>;

/// The current store, and how to make the next one.
pub(super) struct ReconnectingStore {
    connect: Box<dyn Fn() -> ConnectFuture + Send + Sync>,
    env: Env,
    now: SyncMutex<ConnectionState>,
    /// Held while connecting, so that only one task connects.
    turn: Mutex<()>,
}

struct ConnectionState {
    store: Arc<dyn Store>,
    renewal: ClientRenewal,
    /// The operator has asked for a new client.
    is_asked: bool,
    /// The outage during which no new client can be built.
    outage: Outage,
}

impl fmt::Debug for ReconnectingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = self.now();
        f.debug_struct("Renewing").field("store", &now.store).field("renewal", &now.renewal).finish_non_exhaustive()
    }
}

impl ReconnectingStore {
    /// Wraps the store that `connect` makes, at first and after each refusal.
    ///
    /// # Errors
    /// `connect` failed.
    pub(super) async fn connect(
        connect: impl Fn() -> ConnectFuture + Send + Sync + 'static,
        env: &Env,
    ) -> Result<Self, StoreError> {
        let store = connect().await?;
        let now = SyncMutex::new(ConnectionState {
            store,
            renewal: ClientRenewal::default(),
            is_asked: false,
            outage: Outage::default(),
        });
        Ok(Self { connect: Box::new(connect), env: env.clone(), now, turn: Mutex::default() })
    }

    /// The current store and its number.
    async fn current_store(&self) -> (Arc<dyn Store>, u64) {
        if self.now().is_asked {
            let _turn = self.turn.lock().await;
            if std::mem::take(&mut self.now().is_asked) {
                self.reconnect().await;
            }
        }
        let now = self.now();
        (Arc::clone(&now.store), now.renewal.generation())
    }

    /// The store to try after store number `used` was refused; `None` if the refusal is final.
    async fn store_after_refusal(&self, used: u64, error: &StoreError) -> Option<Arc<dyn Store>> {
        if !is_client_refusal(error.kind) {
            return None;
        }
        let _turn = self.turn.lock().await;
        let decided = self.now().renewal.note_refusal(used, self.env.clock.boottime());
        match decided {
            RenewalAction::GiveUp => return None,
            RenewalAction::UseNewer if std::mem::take(&mut self.now().is_asked) => {
                self.reconnect().await;
            }
            RenewalAction::UseNewer => {}
            RenewalAction::Build => {
                tracing::debug!("{error}; asking again with the credentials and certificates that are on disk");
                self.now().renewal.note_built(self.env.clock.boottime());
                if !self.reconnect().await {
                    return None;
                }
            }
        }
        Some(Arc::clone(&self.now().store))
    }

    /// Builds a new client; on failure the previous one stays.
    async fn reconnect(&self) -> bool {
        match (self.connect)().await {
            Ok(store) => {
                self.now().store = store;
                true
            }
            Err(error) => {
                let (now, why) = (self.env.clock.boottime(), error.to_string());
                if self.now().outage.note_failure(&why, now) {
                    tracing::warn!("the store is still used with the former credentials and certificates: {error}");
                }
                false
            }
        }
    }

    /// Sends the request to the current store, and if that is refused once more to the next one.
    async fn call_with_reconnect<T, F>(&self, ask: impl Fn(Arc<dyn Store>) -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>> + Send,
    {
        let (store, used) = self.current_store().await;
        let refused = match ask(store).await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        let Some(store) = self.store_after_refusal(used, &refused).await else { return Err(refused) };
        let asked = ask(store).await;
        if !asked.as_ref().is_err_and(|error| is_client_refusal(error.kind)) {
            self.now().renewal.note_accepted();
        }
        asked
    }

    fn now(&self) -> MutexGuard<'_, ConnectionState> {
        // No holder of the lock can fail in between.
        self.now.lock()
    }
}

/// Whether an error may come from the client itself: its credentials are refused, or it refuses the server's
/// certificate. Both are definite: nothing was written.
fn is_client_refusal(kind: StoreErrorKind) -> bool {
    matches!(
        kind,
        StoreErrorKind::Denied | StoreErrorKind::NoCredentials | StoreErrorKind::Invalid | StoreErrorKind::Untrusted
    )
}

#[async_trait]
impl Store for ReconnectingStore {
    fn describe(&self) -> String {
        self.now().store.describe()
    }

    fn capabilities(&self) -> StoreCapabilities {
        self.now().store.capabilities()
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        self.call_with_reconnect(|store| {
            let body = body.clone();
            async move { store.put(key, body).await }
        })
        .await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        self.call_with_reconnect(|store| {
            let body = body.clone();
            async move { store.put_if_absent(key, body).await }
        })
        .await
    }

    async fn put_if_absent_paused(&self, key: &str, body: Bytes, hold: PutPause) -> Result<PutOutcome, StoreError> {
        // The pause works only once. The proof, which has put other objects before, starts again by itself.
        self.current_store().await.0.put_if_absent_paused(key, body, hold).await
    }

    async fn replace(&self, key: &str, body: Bytes, expected: &ObjectVersion) -> Result<ReplaceOutcome, StoreError> {
        self.call_with_reconnect(|store| {
            let body = body.clone();
            async move { store.replace(key, body, expected).await }
        })
        .await
    }

    async fn get(&self, key: &str, limit: SizeLimit) -> Result<Bytes, StoreError> {
        self.call_with_reconnect(|store| async move { store.get(key, limit).await }).await
    }

    async fn get_versioned(&self, key: &str, limit: SizeLimit) -> Result<(Bytes, ObjectVersion), StoreError> {
        self.call_with_reconnect(|store| async move { store.get_versioned(key, limit).await }).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.call_with_reconnect(|store| {
            let range = range.clone();
            async move { store.get_range(key, range).await }
        })
        .await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        self.call_with_reconnect(|store| async move { store.list(prefix, after, limit).await }).await
    }

    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        self.call_with_reconnect(|store| async move { store.delete(keys).await }).await
    }

    async fn measure_clock_offset(&self) {
        self.current_store().await.0.measure_clock_offset().await;
    }

    async fn versioning(&self) -> Versioning {
        self.current_store().await.0.versioning().await
    }

    fn reload_credentials(&self) {
        let mut now = self.now();
        now.renewal.request_rebuild();
        now.is_asked = true;
    }

    fn last_attempt_error(&self) -> Option<String> {
        self.now().store.last_attempt_error()
    }

    fn clock_offset(&self) -> Option<SignedDuration> {
        self.now().store.clock_offset()
    }
}
