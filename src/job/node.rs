//! What each verb needs from the node it runs on: the context that is passed down, the leases that this process holds,
//! the files of the state directory, and what a run reports while it goes on (progress, heartbeat, presence).
//!
//! This room decides nothing about a role and writes nothing to a journal.

pub mod context;
pub(crate) mod deadline;
pub mod heartbeat;
pub mod leases;
pub mod presence;
pub mod progress;
pub(crate) mod run_failure_file;
pub mod stall;
pub mod watchdog;
