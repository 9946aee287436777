//! Why a run ended as it did. `cli` renders it.
//!
//! Pure.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::LeaseKind;
use crate::role::controller::RoleStatus;
use crate::role::election::{RolePause, StandbyReason, UnknownReason};
use crate::role::lease::LeaseHolder;
use crate::role::probe::ProbeResult;

/// Why a run ended as it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunReason {
    /// The run committed nothing although it did not fail.
    NoCommit(NoCommitReason),
    /// The daemon did not begin the run.
    Refused {
        /// The node's status for the role; `None`: the daemon does not know it yet.
        status: Option<RoleStatus>,
        /// The last results of the probes.
        evidence: Vec<ProbeResult>,
    },
    /// The text of the error that ended the run. An error has no other form that can be sent to another process.
    #[serde(untagged)]
    Text(String),
}

/// Why a run ended without a commit although it did not fail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoCommitReason {
    /// This node stands by.
    Standby(StandbyReason, Vec<ProbeResult>),
    /// It is unknown whether this node is active.
    Unknown(UnknownReason, Vec<ProbeResult>),
    /// It is unknown whether this node is active, because no request for its lease was answered.
    LeaseUnknown {
        /// Where the lease is.
        lease: LeaseKind,
        /// Result of the last attempt.
        why: String,
    },
    /// Another node took the role, and this run has no reason to take it back.
    Conflict {
        /// Label of the other node.
        holder: String,
    },
    /// The slot that is due is committed already.
    SlotCommitted {
        /// The due slot.
        slot: Timestamp,
    },
    /// No slot has been due yet.
    NothingDue,
    /// The command of an earlier call is still running on this node.
    CommandRunning {
        /// The process that started it.
        pid: Option<String>,
    },
    /// Another process of this node is working for the role: a run for the slot is in progress.
    AlreadyRunning {
        /// The process that works for the role.
        pid: Option<String>,
    },
    /// Another node had the role last, and this kind of work is no reason to take the role over.
    HeldBy {
        /// Label of the other node.
        holder: String,
    },
    /// Two machines use this node's ID.
    Cloned,
    /// A person paused the role.
    Paused(RolePause),
    /// Another process got the lease during this run, and has not appended a record yet.
    LeaseLost(Option<LeaseHolder>),
    /// This node's clock and the store's are too far apart.
    ClockOff {
        /// Store time minus this node's time.
        offset: SignedDuration,
    },
}
