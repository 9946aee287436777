//! Two daemons, as two nodes run them: killed, stopped, frozen and cut off; and what a person does beside a running one. Every
//! story ends with the journal checked from outside.
#![cfg(all(feature = "s3", feature = "etcd"))]

#[path = "../support/mod.rs"]
mod support;

mod beside;
mod bucket;
#[path = "../support/clock.rs"]
mod clock;
mod clocks;
mod crowd;
mod cuts;
#[path = "../support/daemon.rs"]
mod daemon;
#[path = "../support/etcd.rs"]
mod etcd;
mod following;
mod hostile;
mod life;
mod outages;
mod rig;
#[path = "../support/s3_server.rs"]
mod s3_server;
#[path = "../support/site.rs"]
mod site;
mod slots;
mod stalls;
mod state_dir;
mod takeover;
