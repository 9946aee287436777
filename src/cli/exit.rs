//! Exit codes: part of the outside contract, so every outcome and every kind of error ends in this one table.

use std::process::ExitCode;

use super::render::audited::Audited;
use crate::job::exec::{Cause, Executed};
use crate::job::health::Severity;
use crate::job::report::repaired::RepairReport;
use crate::job::report::restored::Restored;
use crate::job::report::verified::VerifyReport;
use crate::job::report::whoami::State;
use crate::job::report::{Outcome, RoleReport};

/// How the program ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Exit {
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
    /// 6: committed, but some source files could not be read; restored what is whole, and some was not.
    Unreadable,
    /// 7: `verify`, `audit` or `repair` found something.
    Findings,
    /// 130: interrupted.
    Interrupted,
    /// `whoami --check` alone follows monitoring plugins.
    Plugin(Health),
    /// What a guarded command ended with, or what `exec --skip-exit` asks for.
    Command(u8),
}

/// What a monitoring plugin tells by its exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Health {
    /// 0.
    Fine,
    /// 1.
    Warning,
    /// 2.
    Critical,
    /// 3.
    Unknown,
}

impl From<Severity> for Health {
    fn from(severity: Severity) -> Self {
        match severity {
            Severity::Note => Health::Fine,
            Severity::Warning => Health::Warning,
            Severity::Unknown => Health::Unknown,
            Severity::Critical => Health::Critical,
        }
    }
}

impl Health {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Health::Fine => 0,
            Health::Warning => 1,
            Health::Critical => 2,
            Health::Unknown => 3,
        }
    }

    /// The worse of the two; not to know is worse than a warning, because backups may be missing.
    pub fn or_worse(self, other: Health) -> Health {
        if other.severity() > self.severity() { other } else { self }
    }

    /// How bad it is, the worst highest.
    pub fn severity(self) -> u8 {
        match self {
            Health::Fine => 0,
            Health::Warning => 1,
            Health::Unknown => 2,
            Health::Critical => 3,
        }
    }
}

impl Exit {
    /// The exit code that another process of this program named; what it cannot name is a failure.
    pub fn of_code(code: u8) -> Self {
        let named = [
            Exit::Done,
            Exit::Usage,
            Exit::NotActive,
            Exit::Unknown,
            Exit::Fenced,
            Exit::Unreadable,
            Exit::Interrupted,
        ];
        named.into_iter().find(|exit| exit.code() == code).unwrap_or(Exit::Failed)
    }

    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::NotActive => 3,
            Exit::Unknown => 4,
            Exit::Fenced => 5,
            Exit::Unreadable => 6,
            Exit::Findings => 7,
            Exit::Interrupted => 130,
            Exit::Plugin(health) => health.code(),
            Exit::Command(code) => code,
        }
    }

    /// Among several roles the one that most needs a person wins: first what was surely not backed up (1, then 5, where at
    /// least another node has taken over), then what cannot be told (4), then what was backed up incompletely (7, 6), then
    /// what was not this node's turn (3). An interrupt and wrong usage concern all of them and stand above.
    fn severity(self) -> u8 {
        match self {
            // A plugin's and a command's code are never combined with another.
            Exit::Done | Exit::Plugin(_) | Exit::Command(_) => 0,
            Exit::NotActive => 1,
            Exit::Unreadable => 2,
            Exit::Findings => 3,
            Exit::Unknown => 4,
            Exit::Fenced => 5,
            Exit::Failed => 6,
            Exit::Usage => 7,
            Exit::Interrupted => 8,
        }
    }

    /// The worse of the two.
    pub fn or_worse(self, other: Exit) -> Exit {
        if other.severity() > self.severity() { other } else { self }
    }

    /// What it becomes when the operator interrupted the run: work that came to its end keeps its code, anything else
    /// ended because of the interrupt.
    pub fn interrupted(self) -> Exit {
        match self {
            Exit::Done | Exit::NotActive | Exit::Unreadable | Exit::Findings | Exit::Plugin(_) | Exit::Command(_) => {
                self
            }
            Exit::Failed | Exit::Usage | Exit::Unknown | Exit::Fenced | Exit::Interrupted => Exit::Interrupted,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit.code())
    }
}

/// The code for one role's backup.
pub fn of_backup_role(report: &RoleReport, require_active: bool) -> Exit {
    match report.outcome {
        Outcome::Committed | Outcome::Unchanged if report.files.unreadable > 0 => Exit::Unreadable,
        Outcome::Standby if require_active => Exit::NotActive,
        Outcome::Committed | Outcome::Unchanged | Outcome::Skipped | Outcome::Standby => Exit::Done,
        Outcome::Unknown => Exit::Unknown,
        Outcome::Fenced => Exit::Fenced,
        Outcome::Failed => Exit::Failed,
    }
}

/// The code of a restore. One that was asked to write what is whole did that, as a backup that could not read all of its source did.
pub fn of_restore(restored: &Restored) -> Exit {
    match (restored.report.is_success() && restored.is_vouched_for, restored.salvage) {
        (true, _) => Exit::Done,
        (false, true) => Exit::Unreadable,
        (false, false) => Exit::Failed,
    }
}

/// The code of a repair: like `verify` where something is found on a dry run, or stays lost.
pub fn of_repair(report: &RepairReport) -> Exit {
    let stays = || report.lost_files() + report.left_out() > 0 || report.shut().is_some();
    let finds = if report.dry_run { report.found_any() } else { stays() };
    if finds { Exit::Findings } else { Exit::Done }
}

/// The code of `verify`.
pub fn of_verify(report: &VerifyReport) -> Exit {
    if report.damage_count == 0 { Exit::Done } else { Exit::Findings }
}

/// The code of one role's audit. Whatever kept it from being told, it cannot be told.
pub fn of_audit(audited: &Audited) -> Exit {
    match &audited.result {
        Ok(audit) if audit.finding_count == 0 => Exit::Done,
        Ok(_) => Exit::Findings,
        Err(_) => Exit::Unknown,
    }
}

/// The code of `is-active`.
pub fn of_is_active(state: State) -> Exit {
    match state {
        State::Active => Exit::Done,
        // In a conflict another node has the newest takeover, and in a pause nobody runs the role.
        State::Standby | State::Conflict | State::Paused => Exit::NotActive,
        State::Unknown => Exit::Unknown,
    }
}

/// What `timeout` of coreutils exits with as well.
const TIMED_OUT: u8 = 124;

/// The code of `exec`: the command's own; `skip` where this node is not active.
pub fn of_exec(executed: &Executed, skip: u8) -> Exit {
    match executed {
        Executed::Ran { ended, .. } => Exit::Command(ended.code()),
        Executed::Stopped { cause: Cause::Fenced(_), .. } => Exit::Fenced,
        Executed::Stopped { cause: Cause::TimedOut(_), .. } => Exit::Command(TIMED_OUT),
        // Somebody else may be active by now, or not.
        Executed::Stopped { .. } => Exit::Unknown,
        Executed::Refused(refused) if refused.0.outcome == Outcome::Unknown => Exit::Unknown,
        Executed::Refused(_) => Exit::Command(skip),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples;
    use crate::job::report::audited::RoleAudit;

    /// The contract's table, written down a second time.
    #[test]
    fn every_outcome_has_its_code() {
        let table = [
            (Outcome::Committed, 0, 0),
            (Outcome::Unchanged, 0, 0),
            (Outcome::Standby, 0, 3),
            (Outcome::Skipped, 0, 0),
            (Outcome::Unknown, 4, 4),
            (Outcome::Fenced, 5, 5),
            (Outcome::Failed, 1, 1),
        ];
        for (outcome, plain, require_active) in table {
            let report = RoleReport { outcome, ..samples::backup() };
            assert_eq!(of_backup_role(&report, false).code(), plain, "{outcome:?}");
            assert_eq!(of_backup_role(&report, true).code(), require_active, "{outcome:?} --require-active");
        }
        for outcome in [Outcome::Committed, Outcome::Unchanged] {
            let mut report = RoleReport { outcome, ..samples::backup() };
            report.files.unreadable = 1;
            assert_eq!(of_backup_role(&report, false).code(), 6, "{outcome:?} with an unreadable file");
        }
        assert_eq!(
            [State::Active, State::Standby, State::Conflict, State::Paused, State::Unknown]
                .map(|state| of_is_active(state).code()),
            [0, 3, 3, 3, 4]
        );
    }

    #[test]
    fn an_audit_that_cannot_be_told_is_neither_clean_nor_a_finding() {
        let audit = samples::audit();
        let code = |result| of_audit(&Audited { role: audit.role.clone(), since: audit.since, result }).code();
        assert_eq!(code(Ok(audit.clone())), 7);
        assert_eq!(
            code(Ok(RoleAudit { finding_count: 0, findings: Vec::new(), ..audit.clone() })),
            0,
            "notes are none"
        );
        assert_eq!(code(Err("connection refused".to_owned())), 4);
    }

    #[test]
    fn of_several_roles_the_one_that_most_needs_a_person_decides() {
        let order = [
            Exit::Done,
            Exit::NotActive,
            Exit::Unreadable,
            Exit::Findings,
            Exit::Unknown,
            Exit::Fenced,
            Exit::Failed,
            Exit::Usage,
            Exit::Interrupted,
        ];
        for (i, mild) in order.iter().enumerate() {
            for severe in &order[i..] {
                assert_eq!((mild.or_worse(*severe), severe.or_worse(*mild)), (*severe, *severe));
            }
        }
    }

    #[test]
    fn an_interrupt_does_not_hide_what_was_finished() {
        assert_eq!(Exit::Done.interrupted().code(), 0);
        assert_eq!(Exit::Unreadable.interrupted().code(), 6);
        assert_eq!(Exit::Failed.interrupted().code(), 130);
        assert_eq!(Exit::Unknown.interrupted().code(), 130);
    }
}
