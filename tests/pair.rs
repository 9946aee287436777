//! Two daemons, as two nodes run them: killed, stopped, frozen and cut off; and what a person does beside a running one. Every
//! story ends with the journal checked from outside.
#![cfg(all(feature = "s3", feature = "etcd"))]

mod support;

#[path = "pair/beside.rs"]
mod beside;
#[path = "pair/bucket.rs"]
mod bucket;
#[path = "support/clock.rs"]
mod clock;
#[path = "pair/clocks.rs"]
mod clocks;
#[path = "pair/crowd.rs"]
mod crowd;
#[path = "pair/cuts.rs"]
mod cuts;
#[path = "support/daemon.rs"]
mod daemon;
#[path = "support/etcd.rs"]
mod etcd;
#[path = "pair/following.rs"]
mod following;
#[path = "pair/hostile.rs"]
mod hostile;
#[path = "pair/life.rs"]
mod life;
#[path = "pair/outages.rs"]
mod outages;
#[path = "pair/rig.rs"]
mod rig;
#[path = "support/s3_server.rs"]
mod s3_server;
#[path = "program/site.rs"]
mod site;
#[path = "pair/slots.rs"]
mod slots;
#[path = "pair/stalls.rs"]
mod stalls;
#[path = "pair/state_dir.rs"]
mod state_dir;
#[path = "pair/takeover.rs"]
mod takeover;
