//! The commands, a file per verb or group of verbs: arguments, call and rendering side by side.

pub(crate) mod audit_foreign;
pub(crate) mod backup;
pub(crate) mod browse;
pub(crate) mod daemon;
pub(crate) mod exec;
pub(crate) mod init;
pub(crate) mod journal;
pub(crate) mod key;
pub(crate) mod notify;
pub(crate) mod operate;
pub(crate) mod prune;
pub(crate) mod repair;
pub(crate) mod restore;
pub(crate) mod verify;
pub(crate) mod whoami;
