//! Why a run ended without a commit although it did not fail.

use jiff::{SignedDuration, Timestamp};

use crate::config::{LeaseKind, RoleSettings};
use crate::job::report::{RoleReport, RunOutcome};
use crate::role::election::{RolePause, StandbyReason, UnknownReason};
use crate::role::lease::LeaseHolder;
use crate::role::probe;

/// Why a run ended without a commit although it did not fail. `cli` renders it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoCommitReason {
    /// This node stands by.
    Standby(StandbyReason, Vec<probe::ProbeResult>),
    /// It is unknown whether this node is active.
    Unknown(UnknownReason, Vec<probe::ProbeResult>),
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

/// A report, and the reason if there was no commit.
pub(crate) type GuardOutcome = (RoleReport, Option<NoCommitReason>);

/// The report of a run that committed nothing.
pub(crate) fn report_without_commit(role: &RoleSettings, outcome: RunOutcome) -> RoleReport {
    RoleReport::nothing(role.name.clone(), outcome)
}
