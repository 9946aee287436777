//! The channels through which alerts leave this node. Each sends one message and says whether it was accepted.

pub(super) mod command;
pub(super) mod webhook;
