//! What a daemon tells its surroundings while it runs.

use std::collections::BTreeMap;
use std::error::Error as StdError;

use crate::config::Settings;
use crate::ids::RoleName;
use crate::job::admission::reason::NoCommitReason;
use crate::job::error::GuardError;
use crate::job::prune::error::PruneError;
use crate::job::report::RoleReport;
use crate::job::report::pruned::PruneReport;
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
    /// The report with the text of its reason.
    fn with_reason_text(&self, report: &RoleReport, reason: Option<&NoCommitReason>) -> RoleReport;
    /// A run has ended; the report has its reason in text.
    fn run_ended(&self, report: &RoleReport);
    /// The report and exit code of a failed run.
    fn report_failure(&self, role: &RoleName, error: &GuardError) -> (RoleReport, u8);
    /// Why this node does not work for the role in its current status.
    fn refusal_text(&self, role: &RoleName, status: Option<&RoleStatus>, evidence: &[ProbeResult]) -> String;
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
