//! One file for each verb: what a command does, from the first request to its report. No prose for people; `cli`
//! renders.

pub mod admission;
pub mod audit;
pub mod backup;
pub mod browse;
pub mod error;
pub mod exec;
pub mod health;
pub mod keys;
pub mod local_state;
pub mod node;
pub mod operate;
pub mod prune;
pub mod repair;
pub mod report;
pub mod repository;
pub mod restore;
#[cfg(test)]
pub(crate) mod testing;
pub mod verify;
pub mod whoami;
