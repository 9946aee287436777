//! Why a run ended as it did. Pure.

use jiff::tz::TimeZone;

use super::{daemon, reason};
use crate::ids::RoleName;
use crate::job::report::RunReason;

/// The reason of a run of the role, as a sentence without a full stop.
pub fn text(role: &RoleName, reason: &RunReason, zone: &TimeZone) -> String {
    match reason {
        RunReason::NoCommit(reason) => reason::text(reason, zone),
        RunReason::Refused { status: Some(status), evidence } => daemon::status_reason(status, evidence, zone),
        RunReason::Refused { status: None, .. } => {
            format!("the daemon does not know this node's state for role {role} yet")
        }
        RunReason::Text(text) => text.clone(),
    }
}
