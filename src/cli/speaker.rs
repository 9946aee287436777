//! The daemon's words, in the log.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;

use super::args::Globals;
use super::error::ADVICE;
use super::render::page::Page;
use super::render::{self, View};
use super::{error, settings};
use crate::config::Settings;
use crate::daemon::{Failure, Voice};
use crate::env::Env;
use crate::ids::RoleName;
use crate::job::guard::{GuardError, Reason};
use crate::job::prune::PruneError;
use crate::job::report::pruned::PruneReport;
use crate::job::report::{Outcome, RoleReport};
use crate::notice::event::{Notice, Words};
use crate::role::duty::Stand;
use crate::role::probe::Evidence;
use crate::role::slot::Slot;
use crate::text;

/// Speaks in the time zone of the config that the daemon was started with.
#[derive(Debug)]
pub(super) struct Speaker {
    globals: Globals,
    zone: TimeZone,
    env: Env,
}

impl Speaker {
    pub(super) fn new(globals: Globals, zone: TimeZone, env: Env) -> Self {
        Self { globals, zone, env }
    }
}

/// The sentences of alerts, in this time zone.
#[derive(Debug)]
pub(super) struct Sentences(pub(super) TimeZone);

impl Words for Sentences {
    fn text(&self, notice: &Notice) -> String {
        // Sent on to terminals and mails as it is.
        text::line(&text::without_os_error(&render::notice::text(notice, &self.0))).into_owned()
    }
}

/// A report's sentences as one line of a log.
fn one_line(report: &str) -> String {
    let mut out = String::new();
    for line in report.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if !out.is_empty() {
            out += if out.ends_with(['.', ':']) { " " } else { "; " };
        }
        out += line;
    }
    out
}

impl Voice for Speaker {
    fn load(&self) -> Result<Settings, Failure> {
        settings::from_file(&self.globals)
    }

    fn stands(&self, role: &RoleName, stand: &Stand, evidence: &[Evidence]) {
        let text = render::daemon::stand(stand, evidence, &self.zone);
        match stand {
            Stand::Conflict(_) | Stand::Cloned | Stand::Unknown(_) | Stand::Away(_) => tracing::warn!("{role}: {text}"),
            _ => tracing::info!("{role}: {text}"),
        }
    }

    fn ran(&self, report: &RoleReport) {
        let view = View { zone: self.zone.clone(), now: self.env.clock.now(), page: Page::LOG };
        let text = one_line(&render::backup::role(report, &view));
        match report.outcome {
            Outcome::Fenced | Outcome::Failed | Outcome::Unknown => tracing::error!("{text}"),
            _ if report.problem_count > 0 || !report.empty_sources.is_empty() || report.has_no_content() => {
                tracing::warn!("{text}");
            }
            _ => tracing::info!("{text}"),
        }
    }

    fn explained(&self, report: &RoleReport, reason: Option<&Reason>) -> RoleReport {
        let reason = reason.map(|reason| render::reason::text(reason, &self.zone));
        RoleReport { reason, ..report.clone() }
    }

    fn report_failure(&self, role: &RoleName, failure: &GuardError) -> (RoleReport, u8) {
        let (report, exit) = error::report(role, failure);
        (report, exit.code())
    }

    fn refusal(&self, role: &RoleName, stand: Option<&Stand>, evidence: &[Evidence]) -> String {
        match stand {
            Some(stand) => render::daemon::why(stand, evidence, &self.zone),
            None => format!("the daemon has not found out yet how this node stands for role {role}"),
        }
    }

    fn failed(&self, role: &RoleName, failure: &GuardError) {
        let (report, _) = error::report(role, failure);
        tracing::error!("{role}: {}", report.reason.unwrap_or_default());
    }

    fn pruned(&self, report: &PruneReport) {
        let text = render::pruned::report(
            report,
            false,
            &View { zone: self.zone.clone(), now: self.env.clock.now(), page: Page::LOG },
        );
        tracing::info!("{}", one_line(&text));
    }

    fn not_pruned(&self, role: &RoleName, failure: &PruneError) {
        let advice = error::judge(failure).1.map(|advice| format!(". {ADVICE}{advice}")).unwrap_or_default();
        tracing::warn!("{role}: {failure}{advice}");
    }

    fn would_run(&self, role: &RoleName, slot: Slot) {
        tracing::info!("{role}: {}", render::daemon::would_run(slot, &self.zone));
    }

    fn summary(&self, stands: &BTreeMap<RoleName, Option<Stand>>) -> String {
        render::daemon::summary(stands)
    }
}
