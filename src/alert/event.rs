//! What can be told. Pure data.

use std::fmt::Debug;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{RoleName, Term};

/// What has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// A run failed. Over when the role is backed up again, by any node.
    Failed,
    /// A newer takeover ended a run. Over when the role is backed up again.
    Fenced,
    /// Slots that nobody will commit in time any more. Over when one after them is committed.
    Missed,
    /// A slot has more than one commit.
    Duplicate,
    /// The role went to another node.
    Takeover,
    /// This node is eligible, and another one took the role. Over when it stands clear again.
    Conflict,
    /// Another live node has this one's identity. Over when it is no longer seen.
    Clone,
    /// The nodes are configured differently. Over when they are not.
    Drift,
    /// This node's clock is too far from the store's. Over when it is right.
    ClockOff,
    /// The journal shows what it should not: the same changes run after run, a hole, a role that cannot stay where it is. Over
    /// when an audit of the last days finds it no longer.
    Anomaly,
    /// The role is paused, without an end, for a long time. Over when it is resumed.
    PausedTooLong,
    /// The newest snapshot lacks files that could not be read. Over when one is complete.
    Incomplete,
    /// Snapshots need content that the store has lost and no source has. Over when none does.
    Lost,
}

impl AlertKind {
    /// Who tells it.
    pub fn reporter(self) -> AlertReporter {
        match self {
            AlertKind::Failed
            | AlertKind::Fenced
            | AlertKind::Takeover
            | AlertKind::Conflict
            | AlertKind::Clone
            | AlertKind::ClockOff => AlertReporter::AffectedNode,
            AlertKind::Missed | AlertKind::PausedTooLong => AlertReporter::Holder,
            AlertKind::Duplicate | AlertKind::Anomaly | AlertKind::Drift | AlertKind::Incomplete | AlertKind::Lost => {
                AlertReporter::HolderByRecord
            }
        }
    }

    /// Whether it goes on until something ends it; else it has happened, and is told once.
    pub fn is_ongoing(self) -> bool {
        !matches!(self, AlertKind::Duplicate | AlertKind::Takeover)
    }

    /// Its name in documents.
    pub fn name(self) -> &'static str {
        match self {
            AlertKind::Failed => "failed",
            AlertKind::Fenced => "fenced",
            AlertKind::Missed => "missed",
            AlertKind::Duplicate => "duplicate",
            AlertKind::Takeover => "takeover",
            AlertKind::Conflict => "conflict",
            AlertKind::Clone => "clone",
            AlertKind::Drift => "drift",
            AlertKind::ClockOff => "clock_off",
            AlertKind::Anomaly => "anomaly",
            AlertKind::PausedTooLong => "paused_too_long",
            AlertKind::Incomplete => "incomplete",
            AlertKind::Lost => "lost",
        }
    }
}

/// Which node of a role tells something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertReporter {
    /// The node that it happened to.
    AffectedNode,
    /// The node that has the role; another one when that one gives no sign of life.
    Holder,
    /// The same for what a record of that node shows: it lived when it wrote it, so the others wait longer.
    HolderByRecord,
}

/// What tells the failure of a guarded command from that of a run.
pub const COMMAND: &str = "command";

/// Something that happened to a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertEvent {
    /// What.
    pub kind: AlertKind,
    /// To which role.
    pub role: RoleName,
    /// The label of the node that it happened to, or that saw it.
    pub node: String,
    /// When, by that node's clock.
    pub time: Timestamp,
    /// For which slot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slot: Option<Timestamp>,
    /// Under which term.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub term: Option<Term>,
    /// How many, where there may be several.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<u64>,
    /// What tells it from others of its kind: two duplicates are of two slots.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub mark: String,
    /// The number of the newest snapshot's record when it happened, where that was known: a later one ends a failure, whatever the
    /// clocks say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<u64>,
    /// What kind of failure it was, where that is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<FailureCause>,
    /// More of it, in words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

/// A kind of failure that is told by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCause {
    /// A run made no progress, and was ended.
    Stalled,
    /// Sources or dumps held no file.
    EmptySource,
    /// The node that tells is not active; the detail is why.
    NotActive,
}

impl AlertEvent {
    /// An event of which no more is known.
    pub fn new(kind: AlertKind, role: RoleName, node: String, time: Timestamp) -> Self {
        let mark = String::new();
        let (cause, detail) = (None, None);
        Self { kind, role, node, time, slot: None, term: None, count: None, mark, after: None, cause, detail }
    }
}

/// Where in its course an event is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertPhase {
    /// It is told for the first time.
    Begun,
    /// It goes on since a day or more.
    Lasts,
    /// It is over.
    Over,
}

/// An event that is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertNotification {
    /// Where in its course it is.
    pub phase: AlertPhase,
    /// When it began, by this node's clock.
    pub since: Timestamp,
    /// The event.
    pub event: AlertEvent,
}

impl AlertNotification {
    /// The JSON document that is handed on, with its sentence.
    pub fn document(&self, text: &str) -> String {
        let AlertEvent { kind, role, node, time, slot, term, count, cause, detail, .. } = &self.event;
        let document = serde_json::json!({
            "schema": 1, "event": kind, "phase": self.phase, "role": role, "node": node, "slot": slot, "term": term,
            "count": count, "time": time, "since": self.since, "cause": cause, "detail": detail, "text": text,
        });
        document.to_string()
    }
}

/// Makes sentences of notices. They are made in one place only.
pub trait AlertFormatter: Debug + Send + Sync {
    /// One sentence.
    fn format(&self, notice: &AlertNotification) -> String;
}
