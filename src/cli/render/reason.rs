//! Why a run committed nothing although nothing failed. Pure.

use jiff::tz::TimeZone;

use crate::cli::render::browse::escaped;
use crate::cli::units;
use crate::config::LeaseKind;
use crate::job::report::{ADVICE, NoCommitReason};
use crate::role::election::{RolePause, StandbyReason, UnknownReason};
use crate::role::probe::{ProbeAnswer, ProbeResult};

/// The message about a node that exists twice, with a hint.
pub const CLONED: &str = "this node exists twice, because a machine was cloned with its state directory. Neither of \
                          the two works for the role. hint: run 'runner init --new-identity' on each of them";

/// The reason, as a sentence without a full stop.
pub fn text(reason: &NoCommitReason, zone: &TimeZone) -> String {
    match reason {
        NoCommitReason::Standby(StandbyReason::NotListed, _) => "the config's nodes do not list this one".to_owned(),
        NoCommitReason::Standby(StandbyReason::NotEligible, evidence) => not_eligible("not active here", evidence),
        NoCommitReason::Standby(StandbyReason::Fallback { from: None }, _) => {
            "not active here; stands in if no eligible node runs a slot".to_owned()
        }
        NoCommitReason::Standby(StandbyReason::Fallback { from: Some(from) }, _) => format!(
            "not active here; stands in from {} on if no eligible node runs the due slot",
            units::minute(*from, zone)
        ),
        NoCommitReason::Standby(StandbyReason::LeaseTaken(Some(by)), _) => format!("node {} holds the lease", by.label),
        NoCommitReason::Standby(StandbyReason::LeaseTaken(None), _) => "another node holds the lease".to_owned(),
        NoCommitReason::Standby(StandbyReason::HandedOver { to, until }, _) => format!(
            "an operator gave the role to node {}; this one may take it back from {} on",
            to.label,
            units::minute(*until, zone)
        ),
        NoCommitReason::Unknown(UnknownReason::Probes, evidence) => {
            probes("the probes cannot tell whether this node is active", evidence, ProbeAnswer::Unknown)
        }
        NoCommitReason::Unknown(UnknownReason::Journal, _) => "the journal cannot be read".to_owned(),
        NoCommitReason::Unknown(UnknownReason::Lease(lease), _) => no_lease(*lease),
        NoCommitReason::LeaseUnknown { lease, why } => format!("{}: {}", no_lease(*lease), escaped(why.as_bytes())),
        NoCommitReason::HeldBy { holder } => {
            format!(
                "node {holder} had the role last. {ADVICE}run it there, or give the role to this node with 'runner \
                 takeover'"
            )
        }
        NoCommitReason::Conflict { holder } => format!("conflict: node {holder} took the role from this one"),
        NoCommitReason::SlotCommitted { slot } => {
            format!("the slot {} is committed already", units::minute(*slot, zone))
        }
        NoCommitReason::Paused(pause) => paused(pause, zone),
        NoCommitReason::Cloned => CLONED.to_owned(),
        NoCommitReason::LeaseLost(Some(to)) => {
            format!("node {} got the lease during this run; nothing was committed", to.label)
        }
        NoCommitReason::LeaseLost(None) => {
            "another node got the lease during this run; nothing was committed".to_owned()
        }
        NoCommitReason::NothingDue => "no slot has been due yet".to_owned(),
        NoCommitReason::CommandRunning { pid } => {
            format!("the command of an earlier call still runs on this node{}", process(pid.as_deref()))
        }
        NoCommitReason::AlreadyRunning { pid } => {
            format!(
                "another process of this node works for the role{}; due slots are left to it",
                process(pid.as_deref())
            )
        }
        NoCommitReason::ClockOff { offset } | NoCommitReason::Unknown(UnknownReason::Clock { offset }, _) => format!(
            "this node's clock is {} {} the store's; no slot is run and nothing is pruned here until it is set right",
            units::duration(offset.unsigned_abs()),
            if offset.is_negative() { "ahead of" } else { "behind" }
        ),
    }
}

fn process(pid: Option<&str>) -> String {
    pid.map(|pid| format!(" (process {pid})")).unwrap_or_default()
}

fn no_lease(lease: LeaseKind) -> String {
    let place = match lease {
        LeaseKind::Etcd => "etcd",
        LeaseKind::Bucket | LeaseKind::None => "the store",
    };
    format!("the lease in {place} cannot be asked for")
}

fn paused(pause: &RolePause, zone: &TimeZone) -> String {
    let until = pause.until.map(|until| format!(" until {}", units::minute(until, zone))).unwrap_or_default();
    let why = pause.why.as_deref().map(|why| format!(" ({})", escaped(why.as_bytes()))).unwrap_or_default();
    format!("paused on {} at {}{until}{why}; 'runner resume' ends it", pause.by, units::minute(pause.since, zone))
}

/// A verdict that rests on probes that say no.
pub fn not_eligible(verdict: &str, evidence: &[ProbeResult]) -> String {
    probes(verdict, evidence, ProbeAnswer::No)
}

/// A verdict with the probes that led to it.
fn probes(verdict: &str, evidence: &[ProbeResult], decisive: ProbeAnswer) -> String {
    let named: Vec<String> = evidence
        .iter()
        .filter(|e| e.answer == decisive && !e.fallback)
        .map(|e| format!("{}: {}", e.subject, e.detail))
        .collect();
    // Under `not` the decisive answer may be the opposite; then all probes are named.
    let named = if named.is_empty() {
        evidence.iter().map(|e| format!("{}: {}", e.subject, e.detail)).collect()
    } else {
        named
    };
    if named.is_empty() { verdict.to_owned() } else { format!("{verdict} ({})", named.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples;

    #[test]
    fn a_slot_is_told_in_the_configs_time_zone_as_everywhere() {
        let committed = NoCommitReason::SlotCommitted { slot: samples::at("2026-11-20T01:00:00Z") };
        assert_eq!(text(&committed, &samples::view().zone), "the slot 2026-11-20 02:00 +01:00 is committed already");
    }

    #[test]
    fn a_command_that_runs_is_named_by_its_process_where_that_is_known() {
        let runs = |pid: Option<&str>| {
            text(&NoCommitReason::CommandRunning { pid: pid.map(str::to_owned) }, &samples::view().zone)
        };
        assert_eq!(runs(None), "the command of an earlier call still runs on this node");
        assert_eq!(runs(Some("42")), "the command of an earlier call still runs on this node (process 42)");
    }
}
