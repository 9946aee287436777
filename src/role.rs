//! Which node is active for a role: probes, leases, the election, slots and schedule.
//!
//! The decisions are pure. Adapters talk to the kernel, to etcd and to commands. Only this module can make a
//! [`candidacy::Candidacy`]; without a candidacy there is no permit, and without a permit no append.

pub mod candidacy;
pub mod clock_tolerance;
pub mod clone_detection;
pub mod controller;
pub mod election;
pub mod identity;
pub mod lease;
pub mod probe;
pub mod slot;
pub mod slot_commits;
