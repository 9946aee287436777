//! The stores: one contract over all of them, what is particular to each, and the proof.

mod contract;
mod crash;
mod dir;

#[path = "../support/crash_disk.rs"]
mod crash_disk;
