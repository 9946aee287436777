//! The store, connected to when it is first needed, by all roles together: its limits are the process's.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::config::StoreSettings;
use crate::env::Env;
use crate::store::{Store, StoreError};

/// Connects once.
#[derive(Debug)]
pub(super) struct Stores {
    settings: StoreSettings,
    env: Env,
    connected: Mutex<Option<Arc<dyn Store>>>,
}

impl Stores {
    pub(super) fn new(settings: StoreSettings, env: Env) -> Self {
        Self { settings, env, connected: Mutex::new(None) }
    }

    /// The one that this is already.
    pub(super) fn of(settings: StoreSettings, env: Env, store: Arc<dyn Store>) -> Self {
        Self { settings, env, connected: Mutex::new(Some(store)) }
    }

    /// The store. One that cannot be connected to is tried again at the next call.
    pub(super) async fn store(&self) -> Result<Arc<dyn Store>, StoreError> {
        let mut connected = self.connected.lock().await;
        if let Some(store) = &*connected {
            return Ok(Arc::clone(store));
        }
        let store = crate::store::connect(&self.settings, &self.env).await?;
        *connected = Some(Arc::clone(&store));
        Ok(store)
    }
}
