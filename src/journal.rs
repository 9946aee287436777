//! A role's journal: the append-only sequence of records that is the single truth. Everything that a role stores is live
//! because a record says so, and nothing becomes visible before its record is appended. A takeover record ends every
//! older permit; fencing is nothing else, and needs no clock and no lease.
//!
//! A file uses only files that stand above it here; "pure" files do no I/O:
//!
//! - [`rotation`] (pure): the record that begins a generation of the repository key.
//! - [`body`] (pure): the kinds of records, as they are stored.
//! - [`repair_history`] (pure): what repairs said is lost.
//! - [`state`] (pure): what records add up to.
//! - [`record`] (pure): one record, encoded and decoded; [`record_date`] (pure): when it was written.
//! - [`view`] (pure): a journal as far as it was read; folds records into the state.
//! - [`future_dates`] (pure): what a wrong clock dated, or would date. [`salvage`] (pure): what is left after a loss.
//! - [`register`]: one value with compare-and-swap, which decides where the store ignores conditions.
//! - [`error`]: why a journal is not read, or not appended to.
//! - [`head_search`] (pure): where a journal ends. [`head_state`] (pure): whether etcd and the store agree on that.
//! - [`void_numbers`]: the numbers that repairs made void. `emptied`: a journal whose records are all lost.
//! - [`reader`]: [`reader::Journal`], and what the store has of it. [`dates`]: the dates of all its records.
//! - [`permit`]: proof of a takeover, which only the journal makes.
//! - [`draft`]: a record before it is sent.
//! - [`etcd_head`]: a journal whose head is in a register.
//! - [`current_view`]: reading up to the head, wherever that is.
//! - [`append`]: takeovers and all other records.
//! - [`repair`]: lets a journal continue that lost records.

pub mod append;
pub mod body;
pub mod current_view;
pub mod dates;
pub mod draft;
pub(crate) mod emptied;
pub mod error;
pub mod etcd_head;
pub mod future_dates;
pub mod head_search;
pub mod head_state;
pub mod permit;
pub mod reader;
pub mod record;
pub mod record_date;
pub mod register;
pub mod repair;
pub mod repair_history;
pub mod rotation;
pub mod salvage;
pub mod state;
pub mod view;
pub mod void_numbers;
