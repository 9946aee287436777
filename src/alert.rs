//! Who is told when something is wrong: once for each thing, again after a day while it lasts, and once when it is over.
//!
//! What happened is an [`event::AlertEvent`]. Whether it is to be told now, and by this node of a pair, is decided by the
//! [`ledger::AlertLedger`], which is pure. A [`dispatcher::AlertDispatcher`] keeps the ledger in the state directory and sends what it says in
//! tasks of its own: nobody who backs up waits for anybody who is told.

mod channel;
mod conditions;
pub mod dispatcher;
pub mod event;
pub mod ledger;
mod ledger_file;
pub mod monitor;
