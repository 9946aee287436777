//! What is due when, the earliest first, and of two at one time the one that was set first.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::tasks::Waiting;
use crate::world::WorldRef;

/// What.
pub enum Due {
    /// Somebody waits.
    Wake(Arc<Waiting>),
    /// The story goes on.
    Event(Box<dyn FnOnce(&WorldRef) + Send>),
}

/// Something is due.
pub struct Timer {
    /// Boot time of the host.
    pub at: u64,
    pub serial: u64,
    pub due: Due,
}

impl Timer {
    /// Whether somebody still waits for it.
    pub fn is_wanted(&self) -> bool {
        !matches!(&self.due, Due::Wake(waiting) if Arc::strong_count(waiting) == 1)
    }
}

impl Ord for Timer {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.serial).cmp(&(self.at, self.serial))
    }
}

impl PartialOrd for Timer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Timer {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl Eq for Timer {}
