//! What the integration tests share: trees with everything in them, a comparison and a reader of journals that know nothing
//! of the code under test, and the built program as a person would run it.
//!
//! Each test crate compiles this for itself and uses a part of it.
#![allow(dead_code, unreachable_pub, reason = "every test crate uses its own part of the tools")]

pub mod cli;
pub mod compare;
pub mod invariants;
pub mod tree;
pub mod webhook_server;
