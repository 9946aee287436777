//! The state of a node for a role, from the election, the lease and the daemon.

use crate::config::RoleSettings;
use crate::env::Env;
use crate::ids::NodeId;
use crate::job::report::whoami::{ProbeReport, ProbeVerdict, RoleState, StateReason};
use crate::job::whoami::daemon_answer::DaemonRoleStatus;
use crate::role::election::{self, ElectionHistory, StandbyReason, UnknownReason};
use crate::role::lease::LeaseReply;
use crate::role::probe;

/// The state with the daemon's answer: if the daemon is not active, the node runs no backups, whatever the probes and
/// the journal say.
pub(super) fn state_by_daemon(
    state: RoleState,
    reason: StateReason,
    word: Option<&DaemonRoleStatus>,
) -> (RoleState, StateReason) {
    match word {
        Some(DaemonRoleStatus { state: Some(says), why, .. })
            if state == RoleState::Active && *says != RoleState::Active =>
        {
            (*says, StateReason::Daemon { why: why.clone() })
        }
        _ => (state, reason),
    }
}

/// The state for a role whose lease decides. `whoami` does not take the lease, so the node that holds it, or held the
/// role last, counts as the holder.
pub(super) fn state_by_lease(
    node: NodeId,
    lease: Option<&LeaseReply>,
    history: Option<&ElectionHistory>,
) -> (RoleState, StateReason) {
    let last = history.and_then(|history| history.holder.as_ref());
    match (lease, last) {
        (Some(LeaseReply::Taken { by: Some(by), .. }), _) if by.node == node => {
            (RoleState::Active, StateReason::LeaseHeld)
        }
        (Some(LeaseReply::Taken { by, .. }), _) => {
            (RoleState::Standby, StateReason::LeaseTaken { by: by.as_ref().map(|by| by.label.clone()) })
        }
        (Some(LeaseReply::Free), Some(last)) if last.node == node => (RoleState::Active, StateReason::LeaseFreeMine),
        (Some(LeaseReply::Free), Some(last)) => {
            (RoleState::Standby, StateReason::LeaseFree { last: Some(last.label.clone()) })
        }
        (Some(LeaseReply::Free), None) => (RoleState::Standby, StateReason::LeaseFree { last: None }),
        (Some(LeaseReply::Unknown { .. } | LeaseReply::Held(_)) | None, _) => {
            (RoleState::Unknown, StateReason::LeaseUnread)
        }
    }
}

/// The state and reason for the result of an election.
pub(super) fn state_of_election(role: &RoleSettings, state: election::ElectionState) -> (RoleState, StateReason) {
    match state {
        election::ElectionState::Active { .. } if role.eligible.is_none() => {
            (RoleState::Active, StateReason::AlwaysActive)
        }
        election::ElectionState::Active { candidacy, .. } if candidacy.stands_in() => {
            (RoleState::Active, StateReason::StandsIn)
        }
        election::ElectionState::Active { .. } => (RoleState::Active, StateReason::ProbesYes),
        election::ElectionState::Unknown(UnknownReason::Journal) => (RoleState::Unknown, StateReason::JournalUnread),
        election::ElectionState::Unknown(UnknownReason::Probes) => (RoleState::Unknown, StateReason::ProbesUnknown),
        election::ElectionState::Unknown(UnknownReason::Lease(_)) => (RoleState::Unknown, StateReason::LeaseUnread),
        election::ElectionState::Unknown(UnknownReason::Clock { .. }) => (RoleState::Unknown, StateReason::ClockOff),
        election::ElectionState::Standby(StandbyReason::NotListed) => (RoleState::Standby, StateReason::NotListed),
        election::ElectionState::Standby(StandbyReason::NotEligible) => (RoleState::Standby, StateReason::ProbesNo),
        election::ElectionState::Standby(StandbyReason::Fallback { from }) => {
            (RoleState::Standby, StateReason::Fallback { from })
        }
        election::ElectionState::Standby(StandbyReason::LeaseTaken(by)) => {
            (RoleState::Standby, StateReason::LeaseTaken { by: by.map(|by| by.label) })
        }
        election::ElectionState::Standby(StandbyReason::HandedOver { to, until }) => {
            (RoleState::Standby, StateReason::HandedOver { to: to.label, until })
        }
        election::ElectionState::Candidate => (RoleState::Standby, StateReason::LeaseFree { last: None }),
        election::ElectionState::Conflict { holder } => {
            (RoleState::Conflict, StateReason::TakenOver { by: holder.label, term: holder.term })
        }
        election::ElectionState::Cloned => (RoleState::Conflict, StateReason::Cloned),
        election::ElectionState::Paused(pause) => (
            RoleState::Paused,
            StateReason::Paused { by: pause.by, since: pause.since, until: pause.until, why: pause.why },
        ),
    }
}

/// A probe's answer for the report.
pub(super) fn describe(evidence: &probe::ProbeResult, env: &Env) -> ProbeReport {
    ProbeReport {
        probe: evidence.subject.to_string(),
        answer: match evidence.answer {
            probe::ProbeAnswer::Yes => ProbeVerdict::Yes,
            probe::ProbeAnswer::No => ProbeVerdict::No,
            probe::ProbeAnswer::Unknown => ProbeVerdict::Unknown,
        },
        detail: evidence.detail.to_string(),
        latency: evidence.latency,
        age: evidence.age(env.clock.boottime()),
        fallback: evidence.fallback,
    }
}
