//! The verdict on a node, out of what the election, the lease and the daemon say.

use super::DaemonWord;
use crate::config::RoleSettings;
use crate::env::Env;
use crate::ids::NodeId;
use crate::job::report::whoami::{Answer, Evidence, Reason, State};
use crate::role::election::{self, History, StandbyReason, UnknownReason};
use crate::role::lease::Reply;
use crate::role::probe;

/// A node whose daemon is not active does no work, whatever a look shows.
pub(super) fn by_daemon(state: State, reason: Reason, word: Option<&DaemonWord>) -> (State, Reason) {
    match word {
        Some(DaemonWord { state: Some(says), why, .. }) if state == State::Active && *says != State::Active => {
            (*says, Reason::Daemon { why: why.clone() })
        }
        _ => (state, reason),
    }
}

/// The holder of a role whose lease decides. This look asks for no lease, so the node that holds it, or had the role last, has it.
pub(super) fn by_lease(node: NodeId, lease: Option<&Reply>, history: Option<&History>) -> (State, Reason) {
    let last = history.and_then(|history| history.holder.as_ref());
    match (lease, last) {
        (Some(Reply::Taken { by: Some(by), .. }), _) if by.node == node => (State::Active, Reason::LeaseHeld),
        (Some(Reply::Taken { by, .. }), _) => {
            (State::Standby, Reason::LeaseTaken { by: by.as_ref().map(|by| by.label.clone()) })
        }
        (Some(Reply::Free), Some(last)) if last.node == node => (State::Active, Reason::LeaseFreeMine),
        (Some(Reply::Free), Some(last)) => (State::Standby, Reason::LeaseFree { last: Some(last.label.clone()) }),
        (Some(Reply::Free), None) => (State::Standby, Reason::LeaseFree { last: None }),
        (Some(Reply::Unknown { .. } | Reply::Held(_)) | None, _) => (State::Unknown, Reason::LeaseUnread),
    }
}

/// The election's verdict.
pub(super) fn of_election(role: &RoleSettings, state: election::State) -> (State, Reason) {
    match state {
        election::State::Active { .. } if role.eligible.is_none() => (State::Active, Reason::AlwaysActive),
        election::State::Active { candidacy, .. } if candidacy.stands_in() => (State::Active, Reason::StandsIn),
        election::State::Active { .. } => (State::Active, Reason::ProbesYes),
        election::State::Unknown(UnknownReason::Journal) => (State::Unknown, Reason::JournalUnread),
        election::State::Unknown(UnknownReason::Probes) => (State::Unknown, Reason::ProbesUnknown),
        election::State::Unknown(UnknownReason::Lease(_)) => (State::Unknown, Reason::LeaseUnread),
        election::State::Unknown(UnknownReason::Clock { .. }) => (State::Unknown, Reason::ClockOff),
        election::State::Standby(StandbyReason::NotListed) => (State::Standby, Reason::NotListed),
        election::State::Standby(StandbyReason::NotEligible) => (State::Standby, Reason::ProbesNo),
        election::State::Standby(StandbyReason::Fallback { from }) => (State::Standby, Reason::Fallback { from }),
        election::State::Standby(StandbyReason::LeaseTaken(by)) => {
            (State::Standby, Reason::LeaseTaken { by: by.map(|by| by.label) })
        }
        election::State::Standby(StandbyReason::HandedOver { to, until }) => {
            (State::Standby, Reason::HandedOver { to: to.label, until })
        }
        election::State::Candidate => (State::Standby, Reason::LeaseFree { last: None }),
        election::State::Conflict { holder } => {
            (State::Conflict, Reason::TakenOver { by: holder.label, term: holder.term })
        }
        election::State::Cloned => (State::Conflict, Reason::Cloned),
        election::State::Paused(pause) => {
            (State::Paused, Reason::Paused { by: pause.by, since: pause.since, until: pause.until, why: pause.why })
        }
    }
}

/// A probe's answer, as it is reported.
pub(super) fn describe(evidence: &probe::Evidence, env: &Env) -> Evidence {
    Evidence {
        probe: evidence.subject.to_string(),
        answer: match evidence.answer {
            probe::Answer::Yes => Answer::Yes,
            probe::Answer::No => Answer::No,
            probe::Answer::Unknown => Answer::Unknown,
        },
        detail: evidence.detail.to_string(),
        latency: evidence.latency,
        age: evidence.age(env.clock.boottime()),
        fallback: evidence.fallback,
    }
}
