//! `status`: every role in one table, and below it what needs a person.

use super::whoami::word;
use super::{View, warning};
use crate::cli::units::relative;
use crate::job::health::{self, Severity};
use crate::job::report::Outcome;
use crate::job::report::whoami::{RoleStatus, State, Step, Warning, WhoamiReport};

/// What stands where there is nothing to say.
const NONE: &str = "-";

/// A line a role, then a line a warning.
pub fn text(report: &WhoamiReport, view: &View) -> String {
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
            out += &view.page.wrap(&format!("{}: ", role.role), 2, &warning::text(&role.role, found, view));
        }
    }
    out
}

/// A state; in capitals where it needs a person.
fn here(state: State) -> String {
    match health::of_state(state) {
        Some(_) => word(state).to_uppercase(),
        None => word(state).to_owned(),
    }
}

/// In a word each; the lines below the table tell more.
fn risks(role: &RoleStatus) -> String {
    let word = |warning: &Warning| match warning {
        Warning::SlotsMissed { .. } => "missed",
        Warning::RunFailed(run) if run.step == Step::Takeover && run.outcome == Outcome::Unknown => "lease",
        Warning::RunFailed(_) => "failed",
        Warning::NoRepository => "no repository",
        Warning::NoSnapshot { .. } => "no snapshot",
        Warning::ScheduleMissing { .. } => "schedule",
        Warning::Paused { .. } => "paused",
        Warning::LeaseUnread { .. } => "lease",
        Warning::DaemonSilent => "daemon",
        Warning::StateUnwritable { .. } => "state",
        Warning::Exposed(_) => "exposed",
        Warning::ClockOff(_) => "clock",
        Warning::StoreUnreadable { .. } => "store",
        Warning::StoreRolledBack => "rollback",
        Warning::JournalHead { .. } | Warning::RecordsLost { .. } => "journal",
        Warning::Incomplete { .. } => "incomplete",
        Warning::NoContent | Warning::EmptySources(_) => "empty",
        Warning::Lost { .. } => "lost",
        Warning::RepositoryGone { .. } => "gone",
        Warning::AnotherRepository { .. } => "other repository",
        Warning::OnlyNode => "alone",
        Warning::FormerNodes { .. } => "former",
        Warning::Drift { .. } | Warning::LeaseDrift { .. } => "drift",
        Warning::FutureDates(_) => "future",
        Warning::Twin { .. } => "twin",
        Warning::Unread { .. } => "unread",
    };
    let alarming = role.warnings.iter().filter(|found| health::severity(found) > Severity::Note);
    let all: Vec<&str> = alarming.map(word).collect();
    if all.is_empty() { NONE.to_owned() } else { all.join(",") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples::{self, active, all, blind};
    use crate::job::report::whoami::{MissedCause, Reason, TermInfo};

    #[test]
    fn one_line_a_role_and_what_needs_a_person() {
        let standby = RoleStatus {
            role: "billing-db".parse().unwrap(),
            state: State::Standby,
            reason: Reason::ProbesNo,
            term: TermInfo { mine: None, current: active().term.current, holder: Some("billing-db-02".to_owned()) },
            ..active()
        };
        let mut late = RoleStatus {
            role: "mail".parse().unwrap(),
            warnings: vec![Warning::SlotsMissed {
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
