//! One verb a file: what a command does, from the first request to its report. No prose here; `cli` renders.

pub mod adopt;
pub mod audit;
pub mod authors;
pub mod backup;
pub mod beat;
pub mod cache;
pub mod cancel;
pub mod exec;
pub mod guard;
pub mod health;
pub mod hook;
pub mod init;
pub mod inside;
pub mod keys;
pub mod known;
pub mod last_run;
pub mod lease;
pub mod local;
pub mod loss;
pub mod operate;
pub mod pace;
pub mod presence;
pub mod progress;
pub mod prune;
pub mod report;
pub mod repository;
pub(crate) mod reserve;
pub mod restore;
pub mod runner;
pub mod seat;
pub mod select;
pub mod stall;
#[cfg(test)]
pub(crate) mod testing;
pub mod verify;
pub mod whoami;
