//! The repository of a role: how verbs create it, open it with a key or read only, and where its journal is written.

pub(crate) mod disk_reserve;
pub mod init;
pub mod journal_access;
pub mod known_repository;
pub mod loss_notes;
pub mod open;
pub mod read_only;
