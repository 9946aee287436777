//! Many nodes in one process, on clocks, disks, networks and servers that one seed moves: what takes a cluster a week happens here in
//! seconds, and again, the same, for the same seed. The nodes are the program's own daemons; who watches them shares nothing with
//! them but the format.
//!
//! `make soak` runs seeds until it is stopped; `make replay SEED=n` tells the story of one.
#![allow(unreachable_pub, reason = "one binary of many files")]

#[path = "sim/action.rs"]
mod action;
#[path = "sim/clock.rs"]
mod clock;
#[path = "sim/costs.rs"]
mod costs;
#[path = "sim/failover.rs"]
mod failover;
#[path = "sim/files.rs"]
mod files;
#[path = "sim/hosts.rs"]
mod hosts;
#[path = "sim/judge.rs"]
mod judge;
#[path = "sim/leases.rs"]
mod leases;
#[path = "sim/net.rs"]
mod net;
#[path = "sim/node.rs"]
mod node;
#[path = "sim/plain.rs"]
mod plain;
#[cfg(feature = "planted")]
#[path = "sim/planted.rs"]
mod planted;
#[path = "sim/reader.rs"]
mod reader;
#[path = "sim/registers.rs"]
mod registers;
#[path = "sim/rng.rs"]
mod rng;
#[path = "sim/seeds.rs"]
mod seeds;
#[path = "sim/senses.rs"]
mod senses;
#[path = "sim/setup.rs"]
mod setup;
#[path = "sim/situations.rs"]
mod situations;
#[path = "sim/steps.rs"]
mod steps;
#[path = "sim/story.rs"]
mod story;
#[path = "sim/tasks.rs"]
mod tasks;
#[path = "sim/timers.rs"]
mod timers;
#[path = "sim/wire.rs"]
mod wire;
#[path = "sim/world.rs"]
mod world;

#[path = "sim/world/granting.rs"]
mod granting;
#[path = "sim/world/requests.rs"]
mod requests;
#[path = "sim/world/running.rs"]
mod running;
