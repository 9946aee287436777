//! The built program, end to end, on a directory as store: what a person, a cron job and a second node would see.

#[path = "../support/mod.rs"]
mod support;

mod auditing;
#[path = "../support/certificate_authority.rs"]
mod certificate_authority;
mod channels;
mod clones;
mod documents;
mod dumps;
mod executing;
mod first_failure;
mod foreign;
mod former_key;
mod full;
mod healing;
mod hooks;
mod leases;
mod pruning;
mod reading;
mod refusals;
mod restoring;
mod rotating;
#[path = "../support/site.rs"]
mod site;
mod sources;
mod telling;
mod turns;
mod volumes;
