//! The events that alerts report. Pure: data only.

use std::fmt::Debug;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{RoleName, Term};
use crate::job::report::{RoleReport, RunReason};

/// The kind of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertKind {
    /// A run failed. Over when any node has backed the role up again.
    Failed,
    /// A newer takeover ended a run. Over when the role is backed up again.
    Fenced,
    /// Slots can no longer be committed in time. Over when a later slot is committed.
    Missed,
    /// A slot has more than one commit.
    Duplicate,
    /// The role went to another node.
    Takeover,
    /// This node is eligible, and another node took the role. Over when the conflict is resolved.
    Conflict,
    /// Another live node has this node's identity. Over when it is no longer seen.
    Clone,
    /// The nodes are configured differently. Over when their configs agree.
    Drift,
    /// This node's clock is too far from the store's. Over when it is right.
    ClockOff,
    /// The journal shows something that should not happen: the same changes run after run, a hole, a role that keeps
    /// moving between nodes. Over when an audit of the last days no longer finds it.
    Anomaly,
    /// The role has been paused, without an end, for a long time. Over when it is resumed.
    PausedTooLong,
    /// The newest snapshot lacks files that could not be read. Over when a snapshot is complete.
    Incomplete,
    /// Snapshots need content that the store has lost and that no source has. Over when none does.
    Lost,
}

impl AlertKind {
    /// Every kind.
    pub const ALL: [Self; 13] = [
        AlertKind::Failed,
        AlertKind::Fenced,
        AlertKind::Missed,
        AlertKind::Duplicate,
        AlertKind::Takeover,
        AlertKind::Conflict,
        AlertKind::Clone,
        AlertKind::Drift,
        AlertKind::ClockOff,
        AlertKind::Anomaly,
        AlertKind::PausedTooLong,
        AlertKind::Incomplete,
        AlertKind::Lost,
    ];

    /// The node that reports this kind.
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

    /// Whether the event lasts until something ends it. Otherwise it is reported once.
    pub fn is_ongoing(self) -> bool {
        !matches!(self, AlertKind::Duplicate | AlertKind::Takeover)
    }

    /// The kind's name in documents.
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

/// Which node of a role reports an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertReporter {
    /// The node that it happened to.
    AffectedNode,
    /// The node that has the role; another node if the holder shows no sign of life.
    Holder,
    /// As [`AlertReporter::Holder`], for what a record of the holder shows: it lived when it wrote the record, so the
    /// other nodes wait longer.
    HolderByRecord,
}

/// The mark that tells the failure of a guarded command from that of a run.
pub const COMMAND: &str = "command";

/// An event of a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AlertEvent {
    /// The kind of the event.
    pub kind: AlertKind,
    /// The role.
    pub role: RoleName,
    /// The label of the node that it happened to, or that saw it.
    pub node: String,
    /// When it happened, by that node's clock.
    pub time: Timestamp,
    /// The slot that is concerned.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slot: Option<Timestamp>,
    /// The term in which it happened.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub term: Option<Term>,
    /// A count, for kinds that may have one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<u64>,
    /// The mark that tells the event from others of its kind: two duplicates are of two slots.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub mark: String,
    /// The number of the newest snapshot's record when the event happened, if it was known: a later snapshot ends a
    /// failure, whatever the clocks say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub after: Option<u64>,
    /// The cause of a failure, if it is known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cause: Option<FailureCause>,
    /// Details, in words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub detail: Option<String>,
}

/// A cause of failure that alerts name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCause {
    /// A run made no progress, and was ended.
    Stalled,
    /// Sources or dumps held no file.
    EmptySource,
    /// The node that reports is not active; `detail` says why.
    NotActive,
}

impl AlertEvent {
    /// An event without details.
    pub fn new(kind: AlertKind, role: RoleName, node: String, time: Timestamp) -> Self {
        let mark = String::new();
        let (cause, detail) = (None, None);
        Self { kind, role, node, time, slot: None, term: None, count: None, mark, after: None, cause, detail }
    }
}

/// The phase of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AlertPhase {
    /// The event is reported for the first time.
    Begun,
    /// The event has lasted for a day or more.
    Lasts,
    /// The event is over.
    Over,
}

/// An event that is to be reported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertNotification {
    /// The phase of the event.
    pub phase: AlertPhase,
    /// When the event began, by this node's clock.
    pub since: Timestamp,
    /// The event.
    pub event: AlertEvent,
}

impl AlertNotification {
    /// The JSON document that is sent, with `text` as its sentence.
    pub fn document(&self, text: &str) -> String {
        let AlertEvent { kind, role, node, time, slot, term, count, cause, detail, .. } = &self.event;
        let document = serde_json::json!({
            "schema": 1, "event": kind, "phase": self.phase, "role": role, "node": node, "slot": slot, "term": term,
            "count": count, "time": time, "since": self.since, "cause": cause, "detail": detail, "text": text,
        });
        document.to_string()
    }
}

/// Turns alerts into sentences. They are made in one place only.
pub trait AlertFormatter: Debug + Send + Sync {
    /// The sentence for an alert.
    fn format(&self, notice: &AlertNotification) -> String;

    /// Why a run of the role ended as it did.
    fn reason_text(&self, role: &RoleName, reason: &RunReason) -> String;

    /// The lines of a run's report, for a service that keeps them.
    fn format_report(&self, report: &RoleReport) -> String;
}
