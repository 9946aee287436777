//! The last run of a node in a few words, and the step that it failed in.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::job::report::RunOutcome;

/// The step of a run that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStep {
    /// The run itself.
    #[default]
    Run,
    /// Becoming the active node: taking the lease, or appending the takeover. If the end is not known, the lease was
    /// not obtained.
    Takeover,
    /// A command of `exec --scheduled`, recorded in the journal.
    Command,
}

/// The end of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// The label of the node that ran it.
    pub node: String,
    /// The outcome of the run.
    pub outcome: RunOutcome,
    /// The step that ended it.
    pub step: RunStep,
    /// When it ended.
    pub time: Timestamp,
    /// The slot of the run.
    pub slot: Option<Timestamp>,
    /// Why nothing was committed; empty after a commit.
    pub error: String,
    /// Number of consecutive failures.
    pub failures: u32,
    /// The number of the newest commit's record that the node knew at that time.
    pub after: Option<u64>,
}
