//! The daemon's messages: one line per event, for the log and for systemd's status. Pure.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::reason;
use crate::cli::units;
use crate::ids::RoleName;
use crate::job::report::NoCommitReason;
use crate::role::controller::{RoleStatus, YieldReason};
use crate::role::probe::ProbeResult;
use crate::role::slot::Slot;

/// This node's status for a role, to follow the role's name.
pub fn status_line(status: &RoleStatus, evidence: &[ProbeResult], zone: &TimeZone) -> String {
    let state = match status {
        RoleStatus::Active { .. } | RoleStatus::Candidate | RoleStatus::Paused(_) => {
            return status_reason(status, evidence, zone);
        }
        RoleStatus::Standby(_) | RoleStatus::Away(_) => "standby",
        RoleStatus::Unknown(_) => "unknown",
        RoleStatus::Conflict(_) | RoleStatus::Cloned => "CONFLICT",
    };
    format!("{state}: {}", status_reason(status, evidence, zone))
}

/// The reason for the status.
pub fn status_reason(status: &RoleStatus, evidence: &[ProbeResult], zone: &TimeZone) -> String {
    let why = match status {
        RoleStatus::Active { term: Some(term) } => return format!("active, term {term}"),
        RoleStatus::Active { term: None } => return "this node would be active; observe mode takes no role".to_owned(),
        RoleStatus::Candidate => {
            return "the lease is free; observe mode does not take it".to_owned();
        }
        RoleStatus::Away(YieldReason::Stalled { blocked: true }) => {
            return "left to other nodes: the last run made no progress, and part of it cannot be ended".to_owned();
        }
        RoleStatus::Away(YieldReason::Stalled { blocked: false }) => {
            return "left to other nodes for a while: the last run made no progress".to_owned();
        }
        RoleStatus::Away(YieldReason::Crowded) => {
            return "left to other nodes for a while: this node already runs as many jobs as it may".to_owned();
        }
        RoleStatus::Conflict(holder) => return format!("node {} took the role from this one", holder.label),
        RoleStatus::Standby(why) => NoCommitReason::Standby(why.clone(), evidence.to_vec()),
        RoleStatus::Unknown(why) => NoCommitReason::Unknown(*why, evidence.to_vec()),
        RoleStatus::Cloned => NoCommitReason::Cloned,
        RoleStatus::Paused(pause) => NoCommitReason::Paused(pause.clone()),
    };
    reason::text(&why, zone)
}

/// A slot that observe mode does not back up.
pub fn would_run(slot: Slot, zone: &TimeZone) -> String {
    format!("this node would back up for the slot {} now; observe mode does not", units::minute(slot.at, zone))
}

/// The statuses of all roles, in one line: those that need attention first.
pub fn summary(statuses: &BTreeMap<RoleName, Option<RoleStatus>>) -> String {
    let names = |wanted: &dyn Fn(&Option<RoleStatus>) -> bool| {
        statuses.iter().filter(|(_, status)| wanted(status)).map(|(name, _)| name.as_str()).collect::<Vec<_>>()
    };
    let parts = [
        ("CONFLICT", names(&|s| matches!(s, Some(RoleStatus::Conflict(_) | RoleStatus::Cloned)))),
        ("unknown", names(&|s| matches!(s, Some(RoleStatus::Unknown(_))))),
        ("active", names(&|s| matches!(s, Some(RoleStatus::Active { .. })))),
        (
            "standby",
            names(&|s| matches!(s, Some(RoleStatus::Standby(_) | RoleStatus::Candidate | RoleStatus::Away(_)))),
        ),
        ("paused", names(&|s| matches!(s, Some(RoleStatus::Paused(_))))),
        ("starting", names(&Option::is_none)),
    ];
    let named = |(state, names): (&str, Vec<&str>)| match names.len() {
        0 => None,
        1..=4 => Some(format!("{state}: {}", names.join(", "))),
        many => Some(format!("{state}: {many} roles")),
    };
    let parts: Vec<String> = parts.into_iter().filter_map(named).collect();
    if parts.is_empty() { "no roles are configured".to_owned() } else { parts.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Term;
    use crate::role::election::{StandbyReason, UnknownReason};

    #[test]
    fn roles_that_need_attention_come_first() {
        let role = |name: &str| name.parse::<RoleName>().unwrap();
        let active = || Some(RoleStatus::Active { term: Some(Term(3)) });
        let mut statuses = BTreeMap::from([
            (role("app"), active()),
            (role("db"), Some(RoleStatus::Unknown(UnknownReason::Probes))),
            (role("web"), None),
        ]);
        assert_eq!(summary(&statuses), "unknown: db; active: app; starting: web");
        statuses
            .extend((0..9).map(|n| (role(&format!("more{n}")), Some(RoleStatus::Standby(StandbyReason::NotEligible)))));
        assert_eq!(summary(&statuses), "unknown: db; active: app; standby: 9 roles; starting: web");
        assert_eq!(summary(&BTreeMap::new()), "no roles are configured");
        let says = status_line(&RoleStatus::Standby(StandbyReason::NotListed), &[], &TimeZone::UTC);
        assert_eq!(says, "standby: the config's nodes do not list this one");
        let unread = status_reason(&RoleStatus::Unknown(UnknownReason::Journal), &[], &TimeZone::UTC);
        assert_eq!(unread, "the journal cannot be read");
    }
}
