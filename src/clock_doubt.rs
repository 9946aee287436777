//! Evidence that this node's clock is wrong. The clock dates the records that the node writes.
//!
//! The record is written all the same: an operator's command or a manual run needs no slot. Actions that a wrong clock
//! must not trigger (slots, prunes, the end of a pause) are refused before.

use std::collections::BTreeMap;
use std::fmt;
use std::mem::discriminant;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use crate::ids::RoleName;
use crate::text::ADVICE;

/// Why this node's clock is probably wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockDoubt {
    /// The store's clock differs.
    Store {
        /// The store's clock minus this node's.
        offset: SignedDuration,
    },
    /// Dates in the journal lie ahead of this node's clock, and nothing, or no other node, confirms the clock.
    Journal {
        /// The latest date in the journal.
        latest: Timestamp,
        /// How far that date is ahead of this node's clock.
        ahead: SignedDuration,
        /// The label of the node that wrote the date, if known.
        node: Option<String>,
    },
}

impl ClockDoubt {
    /// The store's clock minus this node's, if that is the evidence.
    pub fn offset(&self) -> Option<SignedDuration> {
        match self {
            Self::Store { offset } => Some(*offset),
            Self::Journal { .. } => None,
        }
    }

    /// The doubt and the remedy in one line.
    pub fn with_hint(&self) -> String {
        format!("{self}. {ADVICE}{}", self.remedy())
    }

    /// The remedy, for the operator.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Store { offset } if offset.is_negative() => {
                "set this node's clock right, then run 'runner journal amend ROLE', which takes back what is dated beyond the present."
            }
            Self::Store { .. } => "set this node's clock right.",
            Self::Journal { .. } => {
                "compare this node's clock with another one and set it right. Where it is right, 'runner journal amend ROLE --force' \
                 takes the dates back."
            }
        }
    }
}

impl fmt::Display for ClockDoubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let span = |time: &SignedDuration| {
            // The difference is more than five minutes, so whole minutes are enough.
            let whole = Duration::from_secs((time.unsigned_abs().as_secs() + 30) / 60 * 60);
            humantime::format_duration(whole).to_string()
        };
        match self {
            Self::Store { offset } => write!(
                f,
                "this node's clock is {} {} the store's, and dates what is recorded",
                span(offset),
                if offset.is_negative() { "ahead of" } else { "behind" }
            ),
            Self::Journal { latest, ahead, node } => {
                let by = node.as_ref().map(|node| format!(" by {node}")).unwrap_or_default();
                write!(
                    f,
                    "this node's clock is probably behind, and dates what is recorded: the journal has dates{by} that are up to {} ahead \
                     of it ({latest:.0})",
                    span(ahead)
                )
            }
        }
    }
}

/// The clock doubts that this process's appends to the journals of its roles found. Reports show them. Clones share the
/// same list.
#[derive(Debug, Clone, Default)]
pub struct ClockDoubts(Arc<Mutex<BTreeMap<RoleName, ClockDoubt>>>);

impl ClockDoubts {
    /// A doubt that the last append to some role's journal found, if any.
    pub fn any(&self) -> Option<ClockDoubt> {
        self.found().values().next().cloned()
    }

    /// The doubt that the last append to this role's journal found.
    pub fn of(&self, role: &RoleName) -> Option<ClockDoubt> {
        self.found().get(role).cloned()
    }

    /// Records the result of an append to a role's journal. Returns the doubt if it is new.
    pub fn record(&self, role: &RoleName, found: Option<ClockDoubt>) -> Option<ClockDoubt> {
        let Some(found) = found else {
            self.found().remove(role);
            return None;
        };
        let before = self.found().insert(role.clone(), found.clone());
        let is_news = before.is_none_or(|before| discriminant(&before) != discriminant(&found));
        is_news.then_some(found)
    }

    fn found(&self) -> MutexGuard<'_, BTreeMap<RoleName, ClockDoubt>> {
        // Each entry is replaced as a whole, so the map stays consistent.
        self.0.lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_once_is_no_news() {
        let (doubts, role) = (ClockDoubts::default(), |name: &str| name.parse::<RoleName>().unwrap());
        let (app, db) = (role("app"), role("db"));
        let offset = |n| Some(ClockDoubt::Store { offset: SignedDuration::from_secs(n) });
        assert_eq!((doubts.record(&app, None), doubts.any()), (None, None));
        assert_eq!(doubts.record(&app, offset(400)), offset(400));
        assert_eq!((doubts.clone().record(&app, offset(401)), doubts.any()), (None, offset(401)));
        assert_eq!(
            (doubts.record(&db, None), doubts.any()),
            (None, offset(401)),
            "another role's journal says nothing of it"
        );
        assert_eq!(
            (doubts.record(&app, None), doubts.any(), doubts.record(&app, offset(400))),
            (None, None, offset(400))
        );
    }
}
