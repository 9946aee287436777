//! Why a run committed nothing although nothing failed.

use jiff::tz::TimeZone;

use crate::cli::units;
use crate::config::Lease;
use crate::job::guard::Reason;
use crate::role::election::{StandbyReason, UnknownReason};
use crate::role::probe::{Answer, Evidence};

/// One sentence without a full stop.
pub fn text(reason: &Reason, zone: &TimeZone) -> String {
    match reason {
        Reason::Standby(StandbyReason::NotListed, _) => "the config's nodes do not list this one".to_owned(),
        Reason::Standby(StandbyReason::NotEligible, evidence) => probes("not active here", evidence, Answer::No),
        Reason::Unknown(UnknownReason::Probes, evidence) => {
            probes("the probes cannot tell whether this node is active", evidence, Answer::Unknown)
        }
        Reason::Unknown(UnknownReason::Journal, _) => "the journal cannot be read".to_owned(),
        Reason::Unknown(UnknownReason::Lease(lease), _) => {
            let lease = match lease {
                Lease::Etcd => "etcd",
                Lease::Bucket => "bucket",
                Lease::None => "none",
            };
            format!("this version cannot hold a lease of the kind {lease}")
        }
        Reason::Conflict { holder } => format!("conflict: node {holder} took the role from this one"),
        Reason::SlotCommitted { slot } => format!("the slot {} is committed already", units::minute(*slot, zone)),
        Reason::NothingDue => "no slot has been due yet".to_owned(),
        Reason::ClockOff { offset } => format!(
            "this node's clock and the store's are {} apart; slots are not run until it is set right",
            units::duration(offset.unsigned_abs())
        ),
    }
}

/// The verdict with the probes that made it.
fn probes(verdict: &str, evidence: &[Evidence], decisive: Answer) -> String {
    let named: Vec<String> =
        evidence.iter().filter(|e| e.answer == decisive).map(|e| format!("{}: {}", e.subject, e.detail)).collect();
    // Under `not` the decisive answer may be the opposite; then all of it is shown.
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
        let committed = Reason::SlotCommitted { slot: samples::at("2026-11-20T01:00:00Z") };
        assert_eq!(text(&committed, &samples::view().zone), "the slot 2026-11-20 02:00 +01:00 is committed already");
    }
}
