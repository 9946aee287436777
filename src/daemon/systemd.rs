//! Notifications to systemd: ready, status, watchdog. Without systemd they do nothing.

use std::time::Duration;

use sd_notify::NotifyState;

/// Interval if systemd does not set one.
const INTERVAL: Duration = Duration::from_secs(10);

/// Implements the protocol of `sd_notify(3)`.
#[derive(Debug)]
pub(super) struct ServiceManager {
    watchdog: Option<Duration>,
}

impl ServiceManager {
    pub(super) fn new() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled() }
    }

    /// A third of the watchdog's time limit: two more notifications come before it ends.
    pub(super) fn watchdog_interval(&self) -> Duration {
        self.watchdog.map_or(INTERVAL, |given| (given / 3).clamp(Duration::from_millis(100), INTERVAL))
    }

    pub(super) fn ready(&self, status: &str) {
        self.send(&[NotifyState::Ready, NotifyState::Status(status)]);
    }

    pub(super) fn reloading(&self) {
        match NotifyState::monotonic_usec_now() {
            Ok(now) => self.send(&[NotifyState::Reloading, now]),
            Err(error) => tracing::debug!("systemd cannot be told of the reload: {error}"),
        }
    }

    pub(super) fn status(&self, status: &str) {
        self.send(&[NotifyState::Status(status)]);
    }

    pub(super) fn ping_watchdog(&self) {
        if self.watchdog.is_some() {
            self.send(&[NotifyState::Watchdog]);
        }
    }

    pub(super) fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    #[allow(clippy::unused_self, reason = "without systemd it does nothing")]
    fn send(&self, state: &[NotifyState<'_>]) {
        if let Err(error) = sd_notify::notify(state) {
            tracing::debug!("systemd cannot be notified: {error}");
        }
    }
}
