//! Exit codes. They are part of the public contract, so this one table has every outcome and every kind of error.

use std::process::ExitCode;

use super::render::audited::RoleAuditResult;
use super::render::foreign::{ForeignAuditResult, is_doubtful};
use crate::alert::trial::ChannelTrial;
use crate::daemon::FailureExit;
use crate::job::exec::{ExecOutcome, ExecStopCause};
use crate::job::health::Severity;
use crate::job::report::repaired::RepairReport;
use crate::job::report::restored::RestoredSnapshot;
use crate::job::report::verified::VerifyReport;
use crate::job::report::whoami::RoleState;
use crate::job::report::{RoleReport, RunOutcome};

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExitKind {
    /// 0: done, or cleanly skipped because another node is active or the slot is committed.
    Done,
    /// 1: failed, nothing committed.
    Failed,
    /// 2: wrong usage or config.
    Usage,
    /// 3: not active.
    NotActive,
    /// 4: cannot tell.
    Unknown,
    /// 5: fenced, a newer takeover exists.
    Fenced,
    /// 6: committed, but some source files could not be read; or `restore` wrote what is whole, and some files were
    /// not.
    Unreadable,
    /// 7: `verify`, `audit` or `repair` found something.
    Findings,
    /// 130: interrupted.
    Interrupted,
    /// Only `whoami --check` has the exit codes of monitoring plugins.
    Plugin(PluginStatus),
    /// The exit code of a guarded command, or the one that `exec --skip-exit` sets.
    Command(u8),
}

/// The status of a monitoring plugin, as its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PluginStatus {
    /// 0: fine.
    Fine,
    /// 1: a warning.
    Warning,
    /// 2: critical.
    Critical,
    /// 3: unknown.
    Unknown,
}

impl From<Severity> for PluginStatus {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Note => PluginStatus::Fine,
            Severity::Warning => PluginStatus::Warning,
            Severity::Unknown => PluginStatus::Unknown,
            Severity::Critical => PluginStatus::Critical,
        }
    }
}

impl PluginStatus {
    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            PluginStatus::Fine => 0,
            PluginStatus::Warning => 1,
            PluginStatus::Critical => 2,
            PluginStatus::Unknown => 3,
        }
    }

    /// The worse of the two. Unknown is worse than a warning, because backups may be missing.
    pub fn or_worse(self, other: PluginStatus) -> PluginStatus {
        if other.severity() > self.severity() { other } else { self }
    }

    /// The severity; the worst has the highest number.
    pub fn severity(self) -> u8 {
        match self {
            PluginStatus::Fine => 0,
            PluginStatus::Warning => 1,
            PluginStatus::Unknown => 2,
            PluginStatus::Critical => 3,
        }
    }
}

impl ExitKind {
    /// The exit of a failed run, as the daemon sends it to the process that asked for the run.
    pub fn of_failure(self) -> FailureExit {
        match self {
            ExitKind::Usage => FailureExit::Usage,
            ExitKind::NotActive => FailureExit::NotActive,
            ExitKind::Unknown => FailureExit::Unknown,
            ExitKind::Fenced => FailureExit::Fenced,
            ExitKind::Interrupted => FailureExit::Interrupted,
            // No failure of a run has one of the others.
            ExitKind::Done
            | ExitKind::Failed
            | ExitKind::Unreadable
            | ExitKind::Findings
            | ExitKind::Plugin(_)
            | ExitKind::Command(_) => FailureExit::Failed,
        }
    }

    /// The exit code.
    pub fn code(self) -> u8 {
        match self {
            ExitKind::Done => 0,
            ExitKind::Failed => 1,
            ExitKind::Usage => 2,
            ExitKind::NotActive => 3,
            ExitKind::Unknown => 4,
            ExitKind::Fenced => 5,
            ExitKind::Unreadable => 6,
            ExitKind::Findings => 7,
            ExitKind::Interrupted => 130,
            ExitKind::Plugin(health) => health.code(),
            ExitKind::Command(code) => code,
        }
    }

    /// Among several roles, the exit kind that most needs a person wins: first what was surely not backed up (1, then
    /// 5, where at least another node has taken over), then what cannot be told (4), then what was backed up
    /// incompletely (7, 6), then what was not this node's turn (3). An interrupt and wrong usage concern all roles and
    /// rank above these.
    fn severity(self) -> u8 {
        match self {
            // A plugin's or a command's exit kind is never combined with another.
            ExitKind::Done | ExitKind::Plugin(_) | ExitKind::Command(_) => 0,
            ExitKind::NotActive => 1,
            ExitKind::Unreadable => 2,
            ExitKind::Findings => 3,
            ExitKind::Unknown => 4,
            ExitKind::Fenced => 5,
            ExitKind::Failed => 6,
            ExitKind::Usage => 7,
            ExitKind::Interrupted => 8,
        }
    }

    /// The worse of the two.
    pub fn or_worse(self, other: ExitKind) -> ExitKind {
        if other.severity() > self.severity() { other } else { self }
    }

    /// The exit kind after the operator interrupted the run: work that was finished keeps its code, anything else ended
    /// because of the interrupt.
    pub fn interrupted(self) -> ExitKind {
        match self {
            ExitKind::Done
            | ExitKind::NotActive
            | ExitKind::Unreadable
            | ExitKind::Findings
            | ExitKind::Plugin(_)
            | ExitKind::Command(_) => self,
            ExitKind::Failed | ExitKind::Usage | ExitKind::Unknown | ExitKind::Fenced | ExitKind::Interrupted => {
                ExitKind::Interrupted
            }
        }
    }
}

impl From<FailureExit> for ExitKind {
    fn from(exit: FailureExit) -> Self {
        match exit {
            FailureExit::Failed => ExitKind::Failed,
            FailureExit::Usage => ExitKind::Usage,
            FailureExit::NotActive => ExitKind::NotActive,
            FailureExit::Unknown => ExitKind::Unknown,
            FailureExit::Fenced => ExitKind::Fenced,
            FailureExit::Interrupted => ExitKind::Interrupted,
        }
    }
}

impl From<ExitKind> for ExitCode {
    fn from(exit: ExitKind) -> Self {
        ExitCode::from(exit.code())
    }
}

/// The code for one role's backup.
pub fn of_backup_role(report: &RoleReport, require_active: bool) -> ExitKind {
    match report.outcome {
        RunOutcome::Committed | RunOutcome::Unchanged if report.files.unreadable > 0 => ExitKind::Unreadable,
        RunOutcome::Standby if require_active => ExitKind::NotActive,
        RunOutcome::Committed | RunOutcome::Unchanged | RunOutcome::Skipped | RunOutcome::Standby => ExitKind::Done,
        RunOutcome::Unknown => ExitKind::Unknown,
        RunOutcome::Fenced => ExitKind::Fenced,
        RunOutcome::Failed => ExitKind::Failed,
    }
}

/// The code of a restore. One that was asked to write what is whole ends like a backup that could not read all of its
/// sources.
pub fn of_restore(restored: &RestoredSnapshot) -> ExitKind {
    match (restored.report.is_success() && restored.is_vouched_for, restored.salvage) {
        (true, _) => ExitKind::Done,
        (false, true) => ExitKind::Unreadable,
        (false, false) => ExitKind::Failed,
    }
}

/// The code of a repair: like `verify` if something is found on a dry run, or stays lost.
pub fn of_repair(report: &RepairReport) -> ExitKind {
    let stays = || report.lost_files() + report.left_out() > 0 || report.unwritten_slot().is_some();
    let finds = if report.dry_run { report.found_any() } else { stays() };
    if finds { ExitKind::Findings } else { ExitKind::Done }
}

/// The code of `verify`.
pub fn of_verify(report: &VerifyReport) -> ExitKind {
    if report.damage_count == 0 { ExitKind::Done } else { ExitKind::Findings }
}

/// The code of one role's audit. Any error means that the audit cannot tell.
pub fn of_audit(audited: &RoleAuditResult) -> ExitKind {
    match &audited.result {
        Ok(audit) if audit.finding_count == 0 => ExitKind::Done,
        Ok(_) => ExitKind::Findings,
        Err(_) => ExitKind::Unknown,
    }
}

/// The code of `audit` of a listing: what could not be read may hold the backups that seem to be missing, and more.
pub fn of_foreign_audit(result: &ForeignAuditResult) -> ExitKind {
    match (result.audit.is_sick(), is_doubtful(&result.unread)) {
        (true, _) => ExitKind::Findings,
        (false, true) => ExitKind::Unknown,
        (false, false) => ExitKind::Done,
    }
}

/// The code of `is-active`.
pub fn of_is_active(state: RoleState) -> ExitKind {
    match state {
        RoleState::Active => ExitKind::Done,
        // In a conflict another node has the newest takeover, and a pause stops the role on all nodes.
        RoleState::Standby | RoleState::Conflict | RoleState::Paused => ExitKind::NotActive,
        RoleState::Unknown => ExitKind::Unknown,
    }
}

/// The code of `notify test`.
pub fn of_trials(trials: &[ChannelTrial]) -> ExitKind {
    if trials.iter().all(|trial| trial.outcome.is_ok()) { ExitKind::Done } else { ExitKind::Failed }
}

/// The exit code for a timeout, as coreutils' `timeout` has it.
const TIMED_OUT: u8 = 124;

/// The code of `exec`: the command's own; `skip` if this node is not active.
pub fn of_exec(executed: &ExecOutcome, skip: u8) -> ExitKind {
    match executed {
        ExecOutcome::Ran { ended, .. } => ExitKind::Command(ended.code()),
        ExecOutcome::Stopped { cause: ExecStopCause::Fenced(_), .. } => ExitKind::Fenced,
        ExecOutcome::Stopped { cause: ExecStopCause::TimedOut(_), .. } => ExitKind::Command(TIMED_OUT),
        // Another node may be active by now, or not.
        ExecOutcome::Stopped { .. } => ExitKind::Unknown,
        ExecOutcome::Refused(refused) if refused.outcome == RunOutcome::Unknown => ExitKind::Unknown,
        ExecOutcome::Refused(_) => ExitKind::Command(skip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples;
    use crate::job::report::audited::AuditReport;

    /// The contract's table, written a second time.
    #[test]
    fn every_outcome_has_its_code() {
        let table = [
            (RunOutcome::Committed, 0, 0),
            (RunOutcome::Unchanged, 0, 0),
            (RunOutcome::Standby, 0, 3),
            (RunOutcome::Skipped, 0, 0),
            (RunOutcome::Unknown, 4, 4),
            (RunOutcome::Fenced, 5, 5),
            (RunOutcome::Failed, 1, 1),
        ];
        for (outcome, plain, require_active) in table {
            let report = RoleReport { outcome, ..samples::backup() };
            assert_eq!(of_backup_role(&report, false).code(), plain, "{outcome:?}");
            assert_eq!(of_backup_role(&report, true).code(), require_active, "{outcome:?} --require-active");
        }
        for outcome in [RunOutcome::Committed, RunOutcome::Unchanged] {
            let mut report = RoleReport { outcome, ..samples::backup() };
            report.files.unreadable = 1;
            assert_eq!(of_backup_role(&report, false).code(), 6, "{outcome:?} with an unreadable file");
        }
        assert_eq!(
            [RoleState::Active, RoleState::Standby, RoleState::Conflict, RoleState::Paused, RoleState::Unknown]
                .map(|state| of_is_active(state).code()),
            [0, 3, 3, 3, 4]
        );
    }

    #[test]
    fn an_audit_that_cannot_be_told_is_neither_clean_nor_a_finding() {
        let audit = samples::audit();
        let code = |result| of_audit(&RoleAuditResult { role: audit.role.clone(), since: audit.since, result }).code();
        assert_eq!(code(Ok(audit.clone())), 7);
        assert_eq!(
            code(Ok(AuditReport { finding_count: 0, findings: Vec::new(), ..audit.clone() })),
            0,
            "notes are none"
        );
        assert_eq!(code(Err("connection refused".to_owned())), 4);
    }

    #[test]
    fn what_could_not_be_read_is_not_clean() {
        use crate::cli::render::foreign::UnreadParts;
        use crate::foreign::report::ForeignAudit;
        let mut result = samples::foreign_audit();
        assert_eq!(of_foreign_audit(&result).code(), 7);
        result.audit = ForeignAudit::default();
        result.unread = UnreadParts { lines: 1, folders: 1, ..UnreadParts::default() };
        assert_eq!(of_foreign_audit(&result).code(), 0);
        result.unread.path_count = 1;
        assert_eq!(of_foreign_audit(&result).code(), 4);
    }

    #[test]
    fn of_several_roles_the_one_that_most_needs_a_person_decides() {
        let order = [
            ExitKind::Done,
            ExitKind::NotActive,
            ExitKind::Unreadable,
            ExitKind::Findings,
            ExitKind::Unknown,
            ExitKind::Fenced,
            ExitKind::Failed,
            ExitKind::Usage,
            ExitKind::Interrupted,
        ];
        for (i, mild) in order.iter().enumerate() {
            for severe in &order[i..] {
                assert_eq!((mild.or_worse(*severe), severe.or_worse(*mild)), (*severe, *severe));
            }
        }
    }

    /// A client of an earlier version exits with the number that the daemon sends.
    #[test]
    fn a_failure_is_sent_as_its_exit_code() {
        for exit in [
            FailureExit::Failed,
            FailureExit::Usage,
            FailureExit::NotActive,
            FailureExit::Unknown,
            FailureExit::Fenced,
            FailureExit::Interrupted,
        ] {
            assert_eq!(ExitKind::from(exit).code(), u8::from(exit));
            assert_eq!(ExitKind::from(exit).of_failure(), exit);
        }
    }

    #[test]
    fn an_interrupt_does_not_hide_what_was_finished() {
        assert_eq!(ExitKind::Done.interrupted().code(), 0);
        assert_eq!(ExitKind::Unreadable.interrupted().code(), 6);
        assert_eq!(ExitKind::Failed.interrupted().code(), 130);
        assert_eq!(ExitKind::Unknown.interrupted().code(), 130);
    }
}
