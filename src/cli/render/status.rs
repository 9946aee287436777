//! `status`: every role in one table, and below it what needs a person's attention. Pure.

use super::whoami::state_word;
use super::{RenderContext, warning};
use crate::cli::units::relative;
use crate::job::health::{self, Severity};
use crate::job::report::RunOutcome;
use crate::job::report::run_summary::RunStep;
use crate::job::report::whoami::{RoleInfo, RoleState, RoleWarning, WhoamiReport};

/// The mark of an empty cell.
const NONE: &str = "-";

/// A line per role, then a line per warning.
pub fn text(report: &WhoamiReport, view: &RenderContext) -> String {
    let rows = report.roles.iter().map(|role| {
        let or_none = |text: Option<String>| text.unwrap_or_else(|| NONE.to_owned());
        [
            role.role.to_string(),
            here(role.state),
            or_none(role.term.holder.clone()),
            or_none(role.term.current.map(|term| term.to_string())),
            or_none(role.last_backup.as_ref().map(|last| relative(last.time, view.now))),
            or_none(
                role.slots
                    .filter(|slots| slots.counts.expected > 0)
                    .map(|slots| format!("{}/{}", slots.counts.committed, slots.counts.expected)),
            ),
            or_none(role.next_slot.map(|next| relative(next, view.now))),
            risks(role),
        ]
    });
    let header = ["ROLE", "HERE", "HOLDER", "TERM", "LAST", "SLOTS", "NEXT", "RISKS"];
    let mut out = view.page.table(header, [false, false, false, true, false, true, false, false], rows);
    for role in &report.roles {
        for found in role.warnings.iter().filter(|found| health::severity(found) > Severity::Note) {
            out += &view.page.wrap_advised(&format!("{}: ", role.role), 2, &warning::text(&role.role, found, view));
        }
    }
    out
}

/// A state; in capitals if it needs a person's attention.
fn here(state: RoleState) -> String {
    match health::of_state(state) {
        Some(_) => state_word(state).to_uppercase(),
        None => state_word(state).to_owned(),
    }
}

/// The risks in one word each; the lines below the table give details.
fn risks(role: &RoleInfo) -> String {
    let word = |warning: &RoleWarning| match warning {
        RoleWarning::SlotsMissed { .. } => "missed",
        RoleWarning::RunFailed(run) if run.step == RunStep::Takeover && run.outcome == RunOutcome::Unknown => "lease",
        RoleWarning::RunFailed(_) => "failed",
        RoleWarning::NoRepository => "no repository",
        RoleWarning::NoSnapshot { .. } => "no snapshot",
        RoleWarning::ScheduleMissing { .. } => "schedule",
        RoleWarning::Paused { .. } => "paused",
        RoleWarning::LeaseUnread { .. } => "lease",
        RoleWarning::DaemonSilent => "daemon",
        RoleWarning::StateUnwritable { .. } => "state",
        RoleWarning::Exposed(_) => "exposed",
        RoleWarning::ClockOff(_) => "clock",
        RoleWarning::StoreUnreadable { .. } => "store",
        RoleWarning::StoreRolledBack => "rollback",
        RoleWarning::JournalHead { .. } | RoleWarning::RecordsLost { .. } => "journal",
        RoleWarning::Incomplete { .. } => "incomplete",
        RoleWarning::NoContent | RoleWarning::EmptySources(_) => "empty",
        RoleWarning::Lost { .. } => "lost",
        RoleWarning::RepositoryGone { .. } => "gone",
        RoleWarning::AnotherRepository { .. } => "other repository",
        RoleWarning::OnlyNode => "alone",
        RoleWarning::FormerNodes { .. } => "former",
        RoleWarning::Drift { .. } | RoleWarning::LeaseDrift { .. } => "drift",
        RoleWarning::FutureDates(_) => "future",
        RoleWarning::Twin { .. } => "twin",
        RoleWarning::Unread { .. } => "unread",
    };
    let alarming = role.warnings.iter().filter(|found| health::severity(found) > Severity::Note);
    let all: Vec<&str> = alarming.map(word).collect();
    if all.is_empty() { NONE.to_owned() } else { all.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples::{self, active, all, blind};
    use crate::job::report::whoami::{MissedCause, StateReason, TermInfo};

    #[test]
    fn one_line_a_role_and_what_needs_a_person() {
        let standby = RoleInfo {
            role: "billing-db".parse().unwrap(),
            state: RoleState::Standby,
            reason: StateReason::ProbesNo,
            term: TermInfo { mine: None, current: active().term.current, holder: Some("billing-db-02".to_owned()) },
            ..active()
        };
        let mut late = RoleInfo {
            role: "mail".parse().unwrap(),
            warnings: vec![RoleWarning::SlotsMissed {
                first: samples::at("2026-11-18T01:00:00Z"),
                last: samples::at("2026-11-19T01:00:00Z"),
                count: 2,
                cause: MissedCause::NotListed,
            }],
            ..active()
        };
        if let Some(slots) = &mut late.slots {
            (slots.counts.committed, slots.counts.missed) = (8, 2);
        }
        let status = all(vec![active(), standby, late, blind()]);
        samples::assert_fits(|view| text(&status, view));
        insta::assert_snapshot!(text(&status, &samples::view()));
        insta::assert_snapshot!("on_40_columns", text(&status, &samples::view_of(40)));
    }
}
