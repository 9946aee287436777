//! `runner`: an HA-aware backup runner with leader election for active/standby pairs.
//!
//! Direction of the modules: `main → cli, daemon → job → role, journal, repo, tree → store`. Nothing points back;
//! `tests/house/` checks it. `foreign` stands beside `job`: `cli → foreign → store`. `ids`, `text`, `env`, `file`,
//! `http`, `etcd`, `client_renewal` and `process` are leaves that every module may use.

pub mod alert;
pub mod cli;
pub mod client_renewal;
pub mod clock_doubt;
pub mod clock_reading;
pub mod config;
pub mod daemon;
pub mod env;
#[cfg(feature = "etcd")]
pub mod etcd;
pub mod file;
pub mod foreign;
pub mod http;
pub mod ids;
pub mod job;
pub mod journal;
pub mod outage;
#[cfg(feature = "planted")]
pub mod planted;
pub mod process;
pub mod repo;
pub mod role;
pub mod store;
pub mod text;
pub mod tree;
