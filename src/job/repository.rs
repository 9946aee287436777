//! The repository of a role as the verbs use it: created, opened with a key, or read only; and where its journal can be written.

pub mod init;
pub mod journal_access;
pub mod keys;
pub mod loss_notes;
pub mod open;
pub mod read_only;
