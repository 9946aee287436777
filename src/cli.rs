//! What a person types and sees: arguments, rendering, exit codes. The only room that writes sentences.
//!
//! Nothing is decided here about backups: a verb turns arguments into a job's request and the job's report into text.

#![allow(clippy::format_push_string, reason = "short texts for people: they should read like what they print")]

pub mod args;
mod configure;
pub mod error;
pub mod exit;
pub mod generate;
pub mod json;
pub mod log;
pub mod open;
pub mod output;
mod paint;
pub mod policy;
pub mod progress;
pub mod render;
pub mod run;
pub mod settings;
pub mod signal;
mod speaker;
mod surroundings;
mod systemd;
pub mod terminal;
pub mod units;
pub mod usage;
pub mod wire;
