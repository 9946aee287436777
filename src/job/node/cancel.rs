//! The operator's request that a job ends: one flag that threads poll and tasks await.

use std::sync::Arc;

use futures_util::future::select_all;
use tokio::sync::watch;

/// A flag that is shared by its clones. Once set it stays set.
#[derive(Debug, Clone)]
pub struct CancelToken {
    flag: Arc<watch::Sender<bool>>,
    /// The token that also sets this one.
    parent: Option<Arc<CancelToken>>,
}

impl CancelToken {
    /// A token that is not set.
    pub fn new() -> Self {
        Self { flag: Arc::new(watch::Sender::new(false)), parent: None }
    }

    /// A token that is set together with this one, and can be set alone.
    pub fn child(&self) -> Self {
        Self { parent: Some(Arc::new(self.clone())), ..Self::new() }
    }

    /// Sets the flag.
    pub fn cancel(&self) {
        self.flag.send_replace(true);
    }

    /// Whether it is set.
    pub fn is_cancelled(&self) -> bool {
        *self.flag.borrow() || self.parent.as_ref().is_some_and(|parent| parent.is_cancelled())
    }

    /// Returns when it is set.
    pub async fn cancelled(&self) {
        let mut receivers: Vec<_> = std::iter::successors(Some(self), |cancel| cancel.parent.as_deref())
            .map(|cancel| cancel.flag.subscribe())
            .collect();
        let waits = receivers.iter_mut().map(|receiver| Box::pin(receiver.wait_for(|&set| set)));
        // An error means that the sender is gone, and `self` owns a sender.
        let _ = select_all(waits).await;
    }
}

impl Default for CancelToken {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn whoever_waits_is_woken_and_whoever_comes_late_does_not_wait() {
        let cancel = CancelToken::new();
        let waiting = tokio::spawn({
            let cancel = cancel.clone();
            async move { cancel.cancelled().await }
        });
        assert!(!cancel.is_cancelled());
        cancel.clone().cancel();
        waiting.await.unwrap();
        cancel.cancelled().await;
        assert!(cancel.is_cancelled());
    }

    #[tokio::test]
    async fn a_child_is_set_with_its_parent_and_not_the_other_way() {
        let parent = CancelToken::new();
        let (child, other) = (parent.child(), parent.child());
        child.cancel();
        assert!(child.is_cancelled() && !parent.is_cancelled() && !other.is_cancelled());
        parent.cancel();
        other.cancelled().await;
        assert!(other.is_cancelled());
    }
}
