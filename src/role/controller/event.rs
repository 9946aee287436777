//! What a role's task tells the controller, and what the controller tells it to do.

use jiff::SignedDuration;

#[cfg(doc)]
use super::RoleController;
use crate::ids::{Digest, Term};
use crate::role::election::{ElectionHistory, RetakeReason};
use crate::role::lease::LeaseHolder;
use crate::role::permit::Deadline;
use crate::role::probe::ProbeAssessment;
use crate::role::slot::Slot;

/// What has happened.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time is made, handed over and taken apart")]
pub enum RoleEvent {
    /// The time that [`RoleController::wake`] named has come, or any other.
    Tick,
    /// Something on this machine changed that the probes may see.
    ProbesChanged,
    /// The probes answered; `None`: the role has none.
    Assessed(Option<ProbeAssessment>),
    /// The lease may have come free.
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
    /// The run that was started leaves the role to another node; [`RoleEvent::Journal`] follows.
    Yielded(YieldReason),
    /// What was left behind by a run that was stalled goes on.
    Unblocked,
    /// Somebody asks for a run now.
    RunRequested,
    /// So many other processes of this node work under this one's lease now.
    Borrowers(usize),
    /// This node stops working for the role.
    Stop,
}

/// Why a node leaves a role that it may have to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum YieldReason {
    /// Its run made no progress, and was ended.
    Stalled {
        /// Something of it cannot be ended: it waits for the kernel. A further run would wait as well.
        blocked: bool,
    },
    /// Its run has waited for longer than `missed_after` until others end.
    Crowded,
}

/// What asking for the lease came to.
#[derive(Debug)]
pub enum LeaseUpdate {
    /// This process holds it, until then; the deadline moves while it is renewed.
    Held(Deadline),
    /// Another process holds it.
    Taken(Option<LeaseHolder>),
    /// Nobody does: only somebody who observes is told this.
    Free,
    /// It cannot be told.
    Unreachable,
}

/// What work on the journal came to.
#[derive(Debug)]
pub struct JournalUpdate {
    /// What it says now; `None`: it could not be read.
    pub history: Option<ElectionHistory>,
    /// The term under which this process works now.
    pub term: Option<Term>,
    /// Whether what was tried is to be tried again.
    pub failed: bool,
    /// What changes while the holder works without a lease; `None`: nobody looked.
    pub heartbeat: Option<Digest>,
    /// The store's clock minus this node's; `None`: the store has not told.
    pub clock_offset: Option<SignedDuration>,
}

/// What is to be done. Each effect is answered by the event of the same matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoleEffect {
    /// Ask the probes: [`RoleEvent::Assessed`].
    Probe,
    /// Ask for the lease: [`RoleEvent::Lease`].
    AskLease,
    /// Give the lease up: [`RoleEvent::Released`].
    ReleaseLease,
    /// Read the journal on: [`RoleEvent::Journal`].
    ReadJournal,
    /// Append a takeover, or go on under this node's own: [`RoleEvent::Journal`].
    TakeOver {
        /// What speaks for it where another node took the role meanwhile.
        reason: RetakeReason,
    },
    /// Back up for this slot: [`RoleEvent::Journal`].
    BackUp(Slot),
    /// Say that this slot would be backed up now; no answer is awaited.
    WouldBackUp(Slot),
    /// Do the run that was wanted: [`RoleEvent::Journal`].
    BackUpNow,
    /// Tell whoever wanted a run that this node does not work for the role; no answer is awaited.
    RefuseRuns,
    /// End the work that is under way; its own event tells when it has.
    Cancel,
    /// Tell the processes that work under this one's lease to end; they are gone when [`RoleEvent::Guests`] says so.
    EndBorrowers,
    /// This node stands differently than before; no answer is awaited.
    ReportStatus,
    /// All work has ended and nothing is held: nothing more comes.
    End,
}
