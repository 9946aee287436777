//! A role's journal: the append-only sequence of records that is the single truth.
//!
//! [`record`] is what is stored, [`state`] what it adds up to (pure), [`log`] reads and appends. Everything that a role
//! stores is live because a record says so, and nothing becomes visible before its record is in. A takeover record ends
//! every older permit; that is all the fencing there is, and it needs no clock and no lease.

pub mod log;
pub mod record;
pub mod state;
