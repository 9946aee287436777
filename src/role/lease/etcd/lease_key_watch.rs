//! A watch on a role's key. It is only a hint to read now: the next poll finds what the watch misses.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::Client;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::session::EtcdSession;

/// The pause before a broken watch is tried again.
const PAUSE: Duration = Duration::from_secs(1);

/// The watch runs until this is dropped.
#[derive(Debug)]
pub(super) struct LeaseKeyWatch {
    notify: Arc<Notify>,
    task: JoinHandle<()>,
}

impl LeaseKeyWatch {
    pub(super) fn start(session: EtcdSession, key: String) -> Self {
        let notify = Arc::new(Notify::new());
        let task = tokio::spawn(run(session, key, Arc::clone(&notify)));
        Self { notify, task }
    }

    pub(super) fn notify(&self) -> Arc<Notify> {
        Arc::clone(&self.notify)
    }
}

impl Drop for LeaseKeyWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(session: EtcdSession, key: String, notify: Arc<Notify>) {
    let pool = session.pool();
    let count = pool.settings().endpoints.len();
    let mut index = pool.preferred();
    loop {
        let watch = |mut client: Client| {
            let key = key.clone();
            async move { client.watch(key, None).await }
        };
        match pool.call_on(index, watch).await {
            Ok(Ok(mut stream)) => {
                // The first answer says that the watch is established. Earlier changes are not reported, so it is a
                // hint, too.
                while let Ok(Some(answer)) = stream.message().await {
                    notify.notify_one();
                    if answer.canceled() {
                        break;
                    }
                }
            }
            Ok(Err(why)) => tracing::debug!("etcd's watch: {why}"),
            Err(error) => tracing::debug!("etcd's watch: {error}"),
        }
        tokio::time::sleep(PAUSE).await;
        index = (index + 1) % count;
    }
}
