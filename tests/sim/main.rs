//! Many nodes in one process, on clocks, disks, networks and servers that one seed moves: what takes a cluster a week happens here in
//! seconds, and again, the same, for the same seed. The nodes are the program's own daemons; who watches them shares nothing with
//! them but the format.
//!
//! `make soak` runs seeds until it is stopped; `make replay SEED=n` tells the story of one.
#![allow(unreachable_pub, reason = "one binary of many files")]

mod action;
mod clock;
mod costs;
mod failover;
mod files;
mod ground_truth;
mod hosts;
mod invariant_checker;
mod leases;
mod network;
mod node;
#[cfg(feature = "planted")]
mod planted;
mod reader;
mod registers;
mod rng;
mod scenario;
mod scripted;
mod scripted_cases;
mod seeds;
mod setup;
mod sim_store;
mod steps;
mod tasks;
mod timers;
mod world;

#[path = "world/granting.rs"]
mod granting;
#[path = "world/requests.rs"]
mod requests;
#[path = "world/running.rs"]
mod running;
