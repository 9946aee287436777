//! The built program, end to end, on a directory as store: what a person, a cron job and a second node would see.

mod support;

#[path = "program/auditing.rs"]
mod auditing;
#[path = "program/clones.rs"]
mod clones;
#[path = "program/documents.rs"]
mod documents;
#[path = "program/dumps.rs"]
mod dumps;
#[path = "program/executing.rs"]
mod executing;
#[path = "program/first_failure.rs"]
mod first_failure;
#[path = "program/former_key.rs"]
mod former_key;
#[path = "program/full.rs"]
mod full;
#[path = "program/healing.rs"]
mod healing;
#[path = "program/hooks.rs"]
mod hooks;
#[path = "program/leases.rs"]
mod leases;
#[path = "program/pruning.rs"]
mod pruning;
#[path = "program/reading.rs"]
mod reading;
#[path = "program/refusals.rs"]
mod refusals;
#[path = "program/restoring.rs"]
mod restoring;
#[path = "program/rotating.rs"]
mod rotating;
#[path = "program/site.rs"]
mod site;
#[path = "program/sources.rs"]
mod sources;
#[path = "program/telling.rs"]
mod telling;
#[path = "program/turns.rs"]
mod turns;
#[path = "program/volumes.rs"]
mod volumes;
