//! Never green over nothing: each way in which a role is not backed up, against everything that a person looks at. None of it is
//! green, and what is said names the cause. The table in `docs/HEALTH.md` is this test's.
#![cfg(all(feature = "s3", feature = "etcd"))]

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/clock.rs"]
mod clock;
#[path = "../support/etcd.rs"]
mod etcd;
mod looks;
#[path = "../support/s3_server.rs"]
mod s3_server;
#[path = "../support/site.rs"]
mod site;
mod ways;
