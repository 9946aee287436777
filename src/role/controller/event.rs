//! The events that a role's task sends to the controller, and the effects that the controller returns. Pure.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::ids::{Digest, Term};
use crate::role::candidacy::Deadline;
use crate::role::election::{ElectionHistory, RetakeReason};
use crate::role::lease::LeaseHolder;
use crate::role::probe::ProbeAssessment;
use crate::role::slot::Slot;

/// An event.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time is made, handed over and taken apart")]
pub enum RoleEvent {
    /// The time that [`RoleController::next_wake`](super::RoleController::next_wake) named has come, or any other.
    Tick,
    /// Something changed on this machine that the probes may see.
    ProbesChanged,
    /// The probes answered; `None` if the role has no probes.
    Assessed(Option<ProbeAssessment>),
    /// The lease may be free.
    LeaseHint,
    /// The journal may have a new record.
    JournalHint,
    /// The lease service answered.
    LeaseUpdated(LeaseUpdate),
    /// Another process has the lease now.
    LeaseLost(Option<LeaseHolder>),
    /// The lease was given up.
    Released,
    /// Work on the journal ended.
    JournalUpdated(JournalUpdate),
    /// The store answers again, after it did not.
    StoreAnswered,
    /// The run that is under way leaves the role to another node; [`RoleEvent::JournalUpdated`] follows.
    Yielded(YieldReason),
    /// A thread of a stalled run that was blocked goes on.
    Unblocked,
    /// A person asks for a run now.
    RunRequested,
    /// The number of other processes of this node that work under this process's lease now.
    Borrowers(usize),
    /// This node stops working for the role.
    Stop,
}

/// Why a node leaves a role to another node although it may have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum YieldReason {
    /// The run made no progress, and was ended.
    Stalled {
        /// A part of the run cannot be ended: it waits for the kernel. Another run would wait as well.
        blocked: bool,
    },
    /// The run has waited longer than `missed_after` for other runs to end.
    Crowded,
}

/// The answer to a request for a lease.
#[derive(Debug)]
pub enum LeaseUpdate {
    /// This process holds the lease; the deadline moves while the lease is renewed.
    Held(Deadline),
    /// Another process holds the lease.
    Taken(Option<LeaseHolder>),
    /// The lease is free. Only observe mode gets this answer.
    Free,
    /// The lease's state cannot be told.
    Unreachable,
}

/// The result of an effect on the journal.
#[derive(Debug)]
pub struct JournalUpdate {
    /// The journal's content now; `None` if it could not be read.
    pub history: Option<ElectionHistory>,
    /// The term under which this process works now.
    pub term: Option<Term>,
    /// Whether the effect failed and is to be repeated.
    pub failed: bool,
    /// The holder's heartbeat, which changes while it works without a lease; `None` if it was not read.
    pub heartbeat: Option<Digest>,
    /// The store's clock minus this node's; `None` if the store has not told its time.
    pub clock_offset: Option<SignedDuration>,
}

/// An effect to perform. Each effect is answered by the event that its variant names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleEffect {
    /// Evaluate the probes: [`RoleEvent::Assessed`].
    Probe,
    /// Ask for the lease: [`RoleEvent::LeaseUpdated`].
    AskLease,
    /// Give the lease up: [`RoleEvent::Released`].
    ReleaseLease,
    /// Read the journal's new records: [`RoleEvent::JournalUpdated`].
    ReadJournal,
    /// Append a takeover, or go on under this node's own: [`RoleEvent::JournalUpdated`].
    TakeOver {
        /// The reason for the takeover, if another node took the role meanwhile.
        reason: RetakeReason,
    },
    /// Back up for this slot: [`RoleEvent::JournalUpdated`].
    BackUp(Slot),
    /// Report that this slot would be backed up now; no answer follows.
    WouldBackUp(Slot),
    /// Do the requested run: [`RoleEvent::JournalUpdated`].
    BackUpNow,
    /// Refuse the requested runs: this node does not work for the role; no answer follows.
    RefuseRuns,
    /// End the work that is under way; its own event tells when it has ended.
    Cancel,
    /// Tell the processes that work under this process's lease to end; they have ended when [`RoleEvent::Borrowers`]
    /// says 0.
    EndBorrowers,
    /// The status changed and is to be reported; no answer follows.
    ReportStatus,
    /// All work has ended and nothing is held: this is the last effect.
    End,
}
