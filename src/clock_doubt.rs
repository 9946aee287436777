//! What speaks against this node's clock, which dates the records that it writes.
//!
//! A record is written all the same: an operator's act or a run by hand needs no slot. What must not be done by such a clock is refused
//! before that (slots, prunes, the end of a pause).

use std::collections::BTreeMap;
use std::fmt;
use std::mem::discriminant;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::RoleName;
use crate::text::ADVICE;

/// Why this node's clock is probably wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockDoubt {
    /// The store's clock is another.
    Store {
        /// The store's minus this node's.
        offset: SignedDuration,
    },
    /// What the journal dates lies beyond it, and nothing, or no other node, agrees with it.
    Journal {
        /// The latest date.
        latest: Timestamp,
        /// By how much that is ahead.
        ahead: SignedDuration,
        /// The label of the node that wrote it, where it is known.
        node: Option<String>,
    },
}

impl ClockDoubt {
    /// The store's clock minus this node's, where that is what tells.
    pub fn offset(&self) -> Option<SignedDuration> {
        match self {
            Self::Store { offset } => Some(*offset),
            Self::Journal { .. } => None,
        }
    }

    /// In one line, with what to do.
    pub fn with_hint(&self) -> String {
        format!("{self}. {ADVICE}{}", self.remedy())
    }

    /// What to do.
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
            // It is off by more than five minutes.
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

/// What a process's appends to the journals of its roles found of its clock. Reports show it. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct ClockDoubts(Arc<Mutex<BTreeMap<RoleName, ClockDoubt>>>);

impl ClockDoubts {
    /// What the last append of some role found, if that speaks against the clock.
    pub fn any(&self) -> Option<ClockDoubt> {
        self.found().values().next().cloned()
    }

    /// What the last append to a role's journal found.
    pub fn of(&self, role: &RoleName) -> Option<ClockDoubt> {
        self.found().get(role).cloned()
    }

    /// Takes note of what an append to a role's journal found. Returns it if it is news.
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
        // Each entry is replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
