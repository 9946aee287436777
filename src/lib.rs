//! `runner`: an HA-aware backup runner with leader election for active/standby pairs.
//!
//! Direction of the modules: `main → cli → daemon → alert → job → role, journal, repo, tree → store`; `foreign` stands
//! beside `job`: `cli → foreign → store`. Nothing points back. `ids`, `clock_reading`, `text`, `file`, `outage`,
//! `client_renewal` and `planted` are leaves; `clock_doubt`, `env`, `config`, `process`, `http` and `etcd` use only these
//! and one another. The table `ARROWS` in `tests/house/main.rs` says which module may use which, and fails when an import
//! breaks it.

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
