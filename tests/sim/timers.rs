//! What is due when, the earliest first, and of two at one time the one that was set first.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::tasks::SleepWaker;
use crate::world::WorldHandle;

/// What.
pub enum TimerEvent {
    /// Somebody waits.
    Wake(Arc<SleepWaker>),
    /// The story goes on.
    Event(Box<dyn FnOnce(&WorldHandle) + Send>),
}

/// Something is due.
pub struct SimTimer {
    /// Boot time of the host.
    pub at: u64,
    pub serial: u64,
    pub due: TimerEvent,
}

impl SimTimer {
    /// Whether somebody still waits for it.
    pub fn is_wanted(&self) -> bool {
        !matches!(&self.due, TimerEvent::Wake(waiting) if Arc::strong_count(waiting) == 1)
    }
}

impl Ord for SimTimer {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.serial).cmp(&(self.at, self.serial))
    }
}

impl PartialOrd for SimTimer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for SimTimer {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl Eq for SimTimer {}
