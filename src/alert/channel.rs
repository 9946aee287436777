//! The ways an alert leaves this node. Each sends one message and says whether it was taken.

pub(super) mod command;
pub(super) mod webhook;
