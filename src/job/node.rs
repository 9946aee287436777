//! What each verb needs from the node it runs on: the context that is passed down, the leases that this process holds,
//! the files of the state directory, and what a run reports while it goes on (progress, heartbeat, presence).
//!
//! This room decides nothing about a role and writes nothing to a journal.

pub mod authors;
pub mod cancel;
pub mod context;
pub(crate) mod disk_reserve;
pub mod heartbeat;
pub mod known_repository;
pub mod leases;
pub mod local_state;
pub mod presence;
pub mod progress;
pub mod run_failure;
pub mod stall;
pub mod watchdog;
