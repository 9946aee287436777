//! Alerts: each condition is reported once, again after a day while it lasts, and once when it is over.
//!
//! An [`event::AlertEvent`] describes what happened. The [`ledger::AlertLedger`], which is pure, decides whether it is
//! to be reported now, and by which node of a pair. An [`dispatcher::AlertDispatcher`] keeps the ledger in the state
//! directory and sends what the ledger decides in tasks of its own: a backup never waits for a delivery.
//! # Example
//!
//! ```
//! use jiff::{SignedDuration, Timestamp};
//! use runner::alert::event::{AlertEvent, AlertKind, AlertPhase};
//! use runner::alert::ledger::{AlertLedger, ReporterStatus};
//! use runner::ids::RoleName;
//!
//! let role: RoleName = "app".parse()?;
//! let (mut ledger, began) = (AlertLedger::default(), Timestamp::UNIX_EPOCH);
//! let mut raise = |now: Timestamp| {
//!     let event = AlertEvent::new(AlertKind::Failed, role.clone(), "east".to_owned(), now);
//!     ledger.raise(event, ReporterStatus::Holder, now).map(|alert| alert.phase)
//! };
//! assert_eq!(raise(began), Some(AlertPhase::Begun));
//! assert_eq!(raise(began + SignedDuration::from_hours(1)), None, "it was reported an hour ago");
//! assert_eq!(raise(began + SignedDuration::from_hours(24)), Some(AlertPhase::Lasts));
//!
//! let now = began + SignedDuration::from_hours(25);
//! let over = ledger.resolve(&role, AlertKind::Failed, &[], "east", now);
//! assert_eq!((over.len(), over[0].phase, over[0].since), (1, AlertPhase::Over, began));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

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
