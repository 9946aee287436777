//! The daemon's log messages.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use tracing::error_span;

use super::args::GlobalArgs;
use super::error::{self, ADVICE};
use super::error_hints::policy::CommandPolicy;
use super::render::layout::PageLayout;
use super::render::{self, RenderContext};
use super::settings;
use crate::alert::event::{AlertFormatter, AlertNotification};
use crate::config::Settings;
use crate::daemon::{DaemonObserver, Failure, FailureExit};
use crate::env::Env;
use crate::ids::RoleName;
use crate::job::error::GuardError;
use crate::job::prune::error::PruneError;
use crate::job::report::pruned::PruneReport;
use crate::job::report::{RoleReport, RunOutcome, RunReason};
use crate::role::controller::RoleStatus;
use crate::role::probe::ProbeResult;
use crate::role::slot::Slot;
use crate::text;

/// Logs the daemon's events, in the time zone of the config that the daemon was started with.
#[derive(Debug)]
pub(super) struct LogObserver {
    globals: GlobalArgs,
    zone: TimeZone,
    env: Env,
}

impl LogObserver {
    pub(super) fn new(globals: GlobalArgs, zone: TimeZone, env: Env) -> Self {
        Self { globals, zone, env }
    }
}

/// Formats alerts as sentences, and reports as lines, in this time zone.
#[derive(Debug)]
pub(super) struct AlertTextFormatter {
    pub(super) zone: TimeZone,
    pub(super) env: Env,
}

impl AlertFormatter for AlertTextFormatter {
    fn format(&self, notice: &AlertNotification) -> String {
        // Alerts are passed on to terminals and mails, so control characters are escaped.
        text::line(&text::without_os_error(&render::alert::text(notice, &self.zone))).into_owned()
    }

    fn format_report(&self, report: &RoleReport) -> String {
        let view = RenderContext { zone: self.zone.clone(), now: self.env.clock.now(), page: PageLayout::LOG };
        text::lines(&text::without_os_error(&render::backup::role(report, &view))).into_owned()
    }

    fn reason_text(&self, role: &RoleName, reason: &RunReason) -> String {
        render::run_reason::text(role, reason, &self.zone)
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

impl DaemonObserver for LogObserver {
    fn load_settings(&self) -> Result<Settings, Failure> {
        Ok(settings::from_file(&self.globals)?)
    }

    fn status_changed(&self, role: &RoleName, status: &RoleStatus, evidence: &[ProbeResult]) {
        let term = if let RoleStatus::Active { term } = status { term.map(|term| term.0) } else { None };
        let _fields = error_span!("status", %role, term).entered();
        let text = render::daemon::status_line(status, evidence, &self.zone);
        match status {
            RoleStatus::Conflict(_) | RoleStatus::Cloned | RoleStatus::Unknown(_) | RoleStatus::Away(_) => {
                tracing::warn!("{role}: {text}");
            }
            _ => tracing::info!("{role}: {text}"),
        }
    }

    fn run_ended(&self, report: &RoleReport) {
        let view = RenderContext { zone: self.zone.clone(), now: self.env.clock.now(), page: PageLayout::LOG };
        let text = one_line(&render::backup::role(report, &view));
        let _fields = error_span!(
            "report",
            role = %report.role,
            term = report.term.map(|term| term.0),
            slot = report.slot.map(tracing::field::display),
            snapshot = report.snapshot.map(tracing::field::display),
        )
        .entered();
        match report.outcome {
            RunOutcome::Fenced | RunOutcome::Failed | RunOutcome::Unknown => tracing::error!("{text}"),
            _ if report.problem_count > 0 || !report.empty_sources.is_empty() || report.has_no_content() => {
                tracing::warn!("{text}");
            }
            _ => tracing::info!("{text}"),
        }
    }

    fn reason_text(&self, role: &RoleName, reason: &RunReason) -> String {
        render::run_reason::text(role, reason, &self.zone)
    }

    fn report_failure(&self, role: &RoleName, failure: &GuardError) -> (RoleReport, FailureExit) {
        let (report, exit) = error::report(role, failure);
        (report, exit.of_failure())
    }

    fn work_failed(&self, role: &RoleName, failure: &GuardError) {
        tracing::error!("{role}: {}", error::with_causes_and_hint(failure, role));
    }

    fn prune_ended(&self, report: &PruneReport) {
        let text = render::pruned::report(
            report,
            false,
            &RenderContext { zone: self.zone.clone(), now: self.env.clock.now(), page: PageLayout::LOG },
        );
        tracing::info!("{}", one_line(&text));
    }

    fn prune_failed(&self, role: &RoleName, failure: &PruneError) {
        let advice = failure.policy().hint.map(|advice| format!(". {ADVICE}{advice}")).unwrap_or_default();
        tracing::warn!("{role}: {failure}{advice}");
    }

    fn would_run(&self, role: &RoleName, slot: Slot) {
        tracing::info!("{role}: {}", render::daemon::would_run(slot, &self.zone));
    }

    fn status_summary(&self, statuses: &BTreeMap<RoleName, Option<RoleStatus>>) -> String {
        render::daemon::summary(statuses)
    }
}
