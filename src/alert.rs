//! Alerts: each condition is reported once, again after a day while it lasts, and once when it is over.
//!
//! An [`event::AlertEvent`] describes what happened. The [`ledger::AlertLedger`], which is pure, decides whether it is
//! to be reported now, and by which node of a pair. An [`dispatcher::AlertDispatcher`] keeps the ledger in the state
//! directory and sends what the ledger decides in tasks of its own: a backup never waits for a delivery.

mod channel;
mod conditions;
pub mod delivery;
pub mod dispatcher;
pub mod event;
pub mod ledger;
mod ledger_file;
mod message;
pub mod monitor;
mod pace;
pub mod ping;
pub mod trial;
