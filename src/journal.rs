//! A role's journal: the append-only sequence of records that is the single truth.
//!
//! [`record`] is what is stored, [`state`] what it adds up to (pure), [`future`] what of it a wrong clock dated, or would (pure), [`log`] reads and appends: to the store, or where that keeps no
//! conditions to a [`register`] that decides, and from there into the store ([`seat`], [`standing`]); [`rotation`] is about its keys (pure); [`search`] finds where it ends (pure). Of a journal of which records are lost, [`mend`] tells what is left (pure), [`repair`] says so in it, [`repaired`] is what it said, [`void`] which numbers say nothing since, and [`emptied`] whether it has lost all of them. Everything that a role
//! stores is live because a record says so, and nothing becomes visible before its record is in. A takeover record ends
//! every older permit; that is all the fencing there is, and it needs no clock and no lease.

pub mod dates;
pub(crate) mod emptied;
pub mod error;
pub mod future;
pub mod log;
pub mod mend;
pub mod record;
pub mod register;
pub mod repair;
pub mod repaired;
pub mod rotation;
pub mod search;
pub mod seat;
pub mod standing;
pub mod state;
pub mod void;
