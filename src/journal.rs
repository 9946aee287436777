//! A role's journal: the append-only sequence of records that is the single truth.
//!
//! [`record`] is what is stored, [`state`] what it adds up to (pure), [`future_dates`] what of it a wrong clock dated, or would (pure), [`log`] reads and appends: to the store, or where that keeps no
//! conditions to a [`register`] that decides, and from there into the store ([`etcd_head`], [`head_state`]); [`rotation`] is about its keys (pure); [`head_search`] finds where it ends (pure). Of a journal of which records are lost, [`salvage`] tells what is left (pure), [`repair`] says so in it, [`repair_history`] is what it said, [`void_numbers`] which numbers say nothing since, and `emptied` whether it has lost all of them. Everything that a role
//! stores is live because a record says so, and nothing becomes visible before its record is in. A takeover record ends
//! every older permit; that is all the fencing there is, and it needs no clock and no lease.

pub mod dates;
pub(crate) mod emptied;
pub mod error;
pub mod etcd_head;
pub mod future_dates;
pub mod head_search;
pub mod head_state;
pub mod log;
pub mod record;
pub mod register;
pub mod repair;
pub mod repair_history;
pub mod rotation;
pub mod salvage;
pub mod state;
pub mod void_numbers;
