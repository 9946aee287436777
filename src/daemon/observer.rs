//! What a daemon tells its surroundings while it runs.

use std::collections::BTreeMap;
use std::error::Error as StdError;

use super::protocol::FailureExit;
use crate::config::Settings;
use crate::ids::RoleName;
use crate::job::error::GuardError;
use crate::job::prune::error::PruneError;
use crate::job::report::pruned::PruneReport;
use crate::job::report::{RoleReport, RunReason};
use crate::role::controller::RoleStatus;
use crate::role::probe::answer::ProbeResult;
use crate::role::slot::Slot;

/// An error with its causes.
pub type Failure = Box<dyn StdError + Send + Sync>;

/// What the daemon needs from its caller: the config, and the rendering of reports. Text for people is made in one
/// place only.
pub trait DaemonObserver: Send + Sync + 'static {
    /// Reads the config again.
    ///
    /// # Errors
    /// The config is not valid.
    fn load_settings(&self) -> Result<Settings, Failure>;
    /// This node's status for a role has changed.
    fn status_changed(&self, role: &RoleName, status: &RoleStatus, evidence: &[ProbeResult]);
    /// Why a run of the role ended as it did.
    fn reason_text(&self, role: &RoleName, reason: &RunReason) -> String;
    /// A run has ended.
    fn run_ended(&self, report: &RoleReport);
    /// The report of a failed run, and how the process that asked for the run exits.
    fn report_failure(&self, role: &RoleName, error: &GuardError) -> (RoleReport, FailureExit);
    /// A run, or a step on the way to one, failed.
    fn work_failed(&self, role: &RoleName, error: &GuardError);
    /// A role was pruned.
    fn prune_ended(&self, report: &PruneReport);
    /// Pruning a role failed.
    fn prune_failed(&self, role: &RoleName, error: &PruneError);
    /// In observe mode: this slot would run now.
    fn would_run(&self, role: &RoleName, slot: Slot);
    /// One line on the status of all roles.
    fn status_summary(&self, statuses: &BTreeMap<RoleName, Option<RoleStatus>>) -> String;
}
