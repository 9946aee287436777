//! `whoami --check`: the output of a monitoring plugin, and its exit code. Pure.

use std::cmp::Reverse;

use super::browse::escaped;
use super::whoami::{state_word, why};
use super::{RenderContext, warning};
use crate::cli::exit::PluginStatus;
use crate::cli::units::relative;
use crate::job::health::{self, Severity};
use crate::job::report::whoami::{self, RoleInfo, RoleWarning, StateReason, WhoamiReport};

/// The health of a role, as monitoring sees it. A healthy standby is fine.
fn health(role: &RoleInfo) -> PluginStatus {
    let warnings = alarming(role).map(health::severity).max();
    warnings.max(health::of_state(role.state)).map_or(PluginStatus::Fine, PluginStatus::from)
}

/// The warnings that are reasons for an alarm, the worst first.
fn alarming(role: &RoleInfo) -> impl Iterator<Item = &RoleWarning> {
    role.warnings.iter().filter(|found| health::severity(found) > Severity::Note)
}

/// The longest first line, in characters: monitoring shows it in a cell of a table, or sends it as a text message.
const CHECK_MAX: usize = 120;

/// `whoami --check`: one line that begins with the worst problem, all problems in lines below, and the exit code.
pub fn check(report: &WhoamiReport, view: &RenderContext) -> (String, PluginStatus) {
    let verdicts = report.roles.iter().map(|role| {
        let health = health(role);
        let (text, said) = verdict(health, role, view);
        (health, role, text, said)
    });
    let verdicts: Vec<(PluginStatus, &RoleInfo, String, Option<&RoleWarning>)> = verdicts.collect();
    let worst = verdicts.iter().map(|(health, ..)| *health).fold(PluginStatus::Fine, PluginStatus::or_worse);
    // The sort keeps the config's order among roles with the same health.
    let mut ordered: Vec<_> = verdicts.iter().collect();
    ordered.sort_by_key(|(health, ..)| Reverse(health.severity()));
    let outcome = match worst {
        PluginStatus::Fine => "OK",
        PluginStatus::Warning => "WARNING",
        PluginStatus::Critical => "CRITICAL",
        PluginStatus::Unknown => "UNKNOWN",
    };
    let texts: Vec<&str> = ordered.iter().map(|(_, _, text, _)| text.as_str()).collect();
    let headline = format!("RUNNER {outcome} - {}", texts.join("; "));
    let mut out = shortened(&headline, CHECK_MAX);
    // What the first line says in full is not repeated.
    let is_cut = out != headline;
    out.push('\n');
    for (_, role, _, said) in &verdicts {
        let is_said = |found: &RoleWarning| !is_cut && said.is_some_and(|said| std::ptr::eq(said, found));
        for found in alarming(role).filter(|found| !is_said(found)) {
            let severity = warning::severity(health::severity(found)).trim_end();
            let text = format!("{severity}: {}", warning::text(&role.role, found, view));
            out += &view.page.wrap(&format!("{} ", role.role), 2, &text);
        }
        // If the first line has a warning, it lacks the reason of the node's status.
        if health::of_state(role.state).is_some() && (is_cut || said.is_some()) {
            let text = format!("{}: {}", state_word(role.state).to_uppercase(), reason(role, view));
            out += &view.page.wrap(&format!("{} ", role.role), 2, &text);
        }
    }
    // A bar separates the performance data of a plugin, so it is replaced.
    (out.replace('|', "/"), worst)
}

/// The part of one role in monitoring's first line: its worst warning, if any, else that it is well; and that warning.
fn verdict<'a>(health: PluginStatus, role: &'a RoleInfo, view: &RenderContext) -> (String, Option<&'a RoleWarning>) {
    let state = state_word(role.state);
    let by_state = health::of_state(role.state).map(PluginStatus::from);
    let explains = |found: &&RoleWarning| by_state != Some(health) || explains(found, &role.reason);
    match alarming(role).find(explains) {
        Some(worst) if by_state == Some(health) => {
            (format!("{} {state}: {}", role.role, warning::text(&role.role, worst, view)), Some(worst))
        }
        Some(worst) => (format!("{}: {}", role.role, warning::text(&role.role, worst, view)), Some(worst)),
        None if by_state.is_some() => (format!("{} {state}: {}", role.role, reason(role, view)), None),
        None => {
            let last = role.last_backup.as_ref().map(|last| format!(", last backup {}", relative(last.time, view.now)));
            (format!("{} {state}{}", role.role, last.unwrap_or_default()), None)
        }
    }
}

/// The reason of the node's status. Its probes are not listed here, so the one that cannot tell is named.
fn reason(role: &RoleInfo, view: &RenderContext) -> String {
    match whoami::undecided_probe(&role.evidence).filter(|_| role.reason == StateReason::ProbesUnknown) {
        Some(probe) => format!("the probes cannot tell, so nothing starts here: {}", escaped(probe.as_bytes())),
        None => why(role, view),
    }
}

/// Whether a warning is the reason why a node's status is unknown.
fn explains(found: &RoleWarning, reason: &StateReason) -> bool {
    match reason {
        StateReason::JournalUnread => {
            matches!(found, RoleWarning::StoreUnreadable { .. } | RoleWarning::StoreRolledBack)
        }
        StateReason::LeaseUnread => {
            matches!(found, RoleWarning::LeaseUnread { .. } | RoleWarning::StoreUnreadable { .. })
        }
        StateReason::ClockOff => matches!(found, RoleWarning::ClockOff(_)),
        _ => false,
    }
}

/// The text as one line of at most `most` characters.
fn shortened(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= most {
        return line;
    }
    line.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples::{self, active, all, blind, missed};
    use crate::job::report::whoami::{RoleState, RoleWarning, StateReason};

    #[test]
    fn why_a_node_cannot_tell_is_said_beside_what_is_worse() {
        let since = "2026-11-18T01:00:00Z".parse().unwrap();
        let paused = RoleWarning::Paused { by: "east".to_owned(), since, until: None, why: None, too_long: true };
        let role = RoleInfo { role: "db".parse().unwrap(), warnings: vec![paused], ..blind() };
        let (text, worst) = check(&all(vec![role.clone()]), &samples::view());
        assert_eq!(worst, PluginStatus::Critical);
        let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
        let why = reason(&role, &samples::view()).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(!text.contains('…'), "the first line is whole: {text}");
        assert!(words.contains(&format!("UNKNOWN: {why}")), "{text}");
    }

    #[test]
    fn monitoring_gets_one_line_and_the_worst_state() {
        let view = samples::view();
        let standby = RoleInfo { state: RoleState::Standby, reason: StateReason::ProbesNo, ..active() };
        assert_eq!(check(&all(vec![standby.clone()]), &view).1, PluginStatus::Fine);
        let (line, worst) = check(&all(vec![active(), blind()]), &view);
        assert_eq!(worst, PluginStatus::Unknown);
        insta::assert_snapshot!(line);
        let odd = RoleInfo { warnings: vec![RoleWarning::ClockOff(400)], ..standby.clone() };
        let (line, _) = check(&all(vec![odd]), &view);
        insta::assert_snapshot!("what_is_said_is_not_said_again", line);
        let conflict = RoleInfo { state: RoleState::Conflict, ..active() };
        assert_eq!(check(&all(vec![conflict, blind()]), &view).1, PluginStatus::Critical);
        let late = RoleInfo { warnings: vec![missed("2026-11-20T01:00:00Z", 3)], ..standby.clone() };
        assert_eq!(check(&all(vec![late]), &view).1, PluginStatus::Critical);
        let skewed = RoleInfo { warnings: vec![RoleWarning::ClockOff(400)], ..standby };
        assert_eq!(check(&all(vec![skewed]), &view).1, PluginStatus::Warning);
    }
}
