//! What a person types and sees: arguments, rendering, exit codes. Only this module writes sentences.
//!
//! Nothing about backups is decided here: a command turns arguments into a job's request, and the job's report into
//! text.

#![allow(clippy::format_push_string, reason = "short texts for people: they should read like what they print")]

pub mod args;
mod colour;
pub(crate) mod command_error;
mod commands;
mod configure;
pub(crate) mod context;
pub mod error;
pub mod error_hints;
pub mod exit;
pub mod generate;
mod host_check;
pub mod json;
pub mod log;
mod log_format;
mod log_observer;
pub mod open;
pub mod output;
pub mod progress;
pub mod render;
pub mod run;
pub mod settings;
pub mod signal;
mod systemd;
pub mod terminal;
pub mod units;
pub mod usage_hints;
