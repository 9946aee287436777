//! Limits the time to read a role's store, with separate budgets for the store and for this machine's own work.

use std::future::Future;
use std::time::Duration;

use crate::env::Env;
use crate::job::repository::open::{UnlockProgress, UnlockStep};

/// Longest wait for a role's key: reading its file, and deriving it from a passphrase. This is work of this machine and
/// says nothing about the store, so it does not count against [`PATIENCE`](super::PATIENCE).
pub(super) const KEY_PATIENCE: Duration = Duration::from_secs(10);

/// The step whose time is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimeoutSource {
    /// Requests to the store.
    Store,
    /// Reading or deriving the key.
    Key(UnlockStep),
}

/// The remaining time for the store and for the key.
#[derive(Debug)]
pub(super) struct WaitBudget {
    pub(super) store: Duration,
    pub(super) key: Duration,
}

impl WaitBudget {
    /// Waits for the end of `task`, unless one of the two budgets is used up.
    pub(super) async fn wait<T>(
        &mut self,
        env: &Env,
        deriving: &UnlockProgress,
        mut task: impl Future<Output = T> + Unpin,
    ) -> Result<T, TimeoutSource> {
        let mut turns = deriving.subscribe();
        loop {
            let work = *turns.borrow_and_update();
            let (left, silent) = match work {
                Some(work) => (&mut self.key, TimeoutSource::Key(work)),
                None => (&mut self.store, TimeoutSource::Store),
            };
            let began = env.clock.boottime();
            let ended = tokio::select! {
                ended = &mut task => Some(Ok(ended)),
                // The sender is in this function, so the channel is not closed before the end.
                _ = turns.changed() => None,
                () = tokio::time::sleep(*left) => Some(Err(silent)),
            };
            *left = left.saturating_sub(env.clock.boottime().saturating_sub(began));
            if let Some(ended) = ended {
                return ended;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_mins(10);

    /// Waits for a task that never ends, while this step of unlocking is active.
    async fn hangs(mut patience: WaitBudget, work: Option<UnlockStep>) -> Result<(), TimeoutSource> {
        let deriving = UnlockProgress::default();
        deriving.send_replace(work);
        patience.wait(&Env::host(), &deriving, std::future::pending()).await
    }

    #[tokio::test]
    async fn whose_time_is_up_is_said() {
        assert_eq!(hangs(WaitBudget { store: SHORT, key: LONG }, None).await, Err(TimeoutSource::Store));
        for work in [UnlockStep::Read, UnlockStep::Derive] {
            assert_eq!(hangs(WaitBudget { store: LONG, key: SHORT }, Some(work)).await, Err(TimeoutSource::Key(work)));
        }
    }

    #[tokio::test]
    async fn the_derivation_takes_nothing_of_the_stores_time() {
        let mut patience = WaitBudget { store: LONG, key: LONG };
        let deriving = UnlockProgress::default();
        let progress = UnlockProgress::clone(&deriving);
        let task = Box::pin(async move {
            progress.send_replace(Some(UnlockStep::Derive));
            tokio::time::sleep(SHORT).await;
            progress.send_replace(None);
            7
        });
        assert_eq!(patience.wait(&Env::host(), &deriving, task).await, Ok(7));
        assert!(patience.key <= LONG.saturating_sub(SHORT), "{patience:?}");
        assert!(patience.store > LONG.saturating_sub(Duration::from_mins(1)), "{patience:?}");
    }
}
