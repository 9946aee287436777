//! The stores: one contract over all of them, what is particular to each, and the proof.

mod contract;
mod crash;
mod dir;
mod dir_replace;
mod proof;
#[cfg(feature = "s3")]
mod s3;

#[path = "../support/crash_disk.rs"]
mod crash_disk;
#[cfg(feature = "s3")]
#[path = "../support/s3_foreign.rs"]
mod s3_foreign;
#[cfg(feature = "s3")]
#[path = "../support/s3_server.rs"]
mod s3_server;
