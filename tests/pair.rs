//! Two daemons, as two nodes run them: killed, stopped, frozen and cut off; and what a person does beside a running one. Every
//! story ends with the journal checked from outside.
#![cfg(all(feature = "s3", feature = "etcd"))]

mod support;

#[path = "pair/beside.rs"]
mod beside;
#[path = "pair/bucket.rs"]
mod bucket;
#[path = "support/etcd.rs"]
mod etcd;
#[path = "pair/following.rs"]
mod following;
#[path = "pair/rig.rs"]
mod rig;
#[path = "program/site.rs"]
mod site;
#[path = "pair/takeover.rs"]
mod takeover;
