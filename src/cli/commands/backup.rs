//! `runner backup`, and what a one-shot run tells the alert monitor.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::alert::dispatcher::AlertDispatcher;
use crate::alert::monitor::AlertMonitor;
use crate::cli::args::verbs;
use crate::cli::command_error::{CommandError, Interrupted, UsageError};
use crate::cli::commands::init;
use crate::cli::context::{CliSession, CommandContext, node_context, until_cancelled};
use crate::cli::error::report;
use crate::cli::exit::{self, ExitKind};
use crate::cli::log_observer::AlertTextFormatter;
use crate::cli::progress::ProgressDisplay;
use crate::cli::{json, render, settings, terminal};
use crate::config::{NotifySettings, RoleSettings};
use crate::daemon::TELL_PATIENCE;
use crate::daemon::oneshot::{self, BackupPlace, BackupPlaceError, OneshotObserver};
use crate::ids::RoleName;
use crate::job::backup::request::BackupRequest;
use crate::job::error::{BackupError, GuardError};
use crate::job::node::context::NodeContext;
use crate::job::report::setup::InitReport;
use crate::job::report::{RoleReport, RunOutcome};
use crate::job::repository::known_repository;
use crate::journal::view::JournalView;
use crate::store::{Store, StoreError};

/// Backs one role up, if this node is active for it.
pub(crate) async fn backup(
    context: &CommandContext,
    role: &RoleSettings,
    args: &verbs::BackupArgs,
) -> Result<(RoleReport, ExitKind), CommandError> {
    let (progress, display) = context.progress(role.name.as_str());
    let request = BackupRequest { scheduled: args.scheduled, rehash: args.rehash, require_active: args.require_active };
    let of_report = |report: &RoleReport| exit::of_backup_role(report, args.require_active);
    match BackupPlace::find(&context.runtime_dir(), role, request, !args.source.is_empty()).await {
        Ok(BackupPlace::ThisProcess) => {}
        Ok(BackupPlace::Daemon(daemon)) => {
            let done =
                until_cancelled(&context.cancel, async { Ok(daemon.back_up(&role.name, request, &progress).await?) });
            let (report, exit) = done.await?;
            // The daemon's log is in another place.
            if let Some(news) = context.env.clock_doubts.record(&role.name, report.clock_doubt.clone()) {
                tracing::warn!("role {}: {}", role.name, news.with_hint());
            }
            let exit = exit.map_or_else(|| of_report(&report), ExitKind::from);
            return Ok((report, exit));
        }
        Err(BackupPlaceError::NoSchedule { role }) => return Err(no_schedule(&role)),
        Err(BackupPlaceError::Daemon(error)) => return Err(error.into()),
    }
    let node_context = node_context(context, progress).await?;
    let connect = connect_store(context);
    let observer = AlertingObserver::new(context, &node_context, role, Some(display))?;
    let done = Box::pin(oneshot::back_up(&node_context, &context.settings, role, &connect, request, &observer)).await;
    observer.close().await;
    match done {
        Ok(report) => {
            let exit = of_report(&report);
            Ok((report, exit))
        }
        Err(GuardError::Backup(BackupError::Interrupted)) => Err(Interrupted.into()),
        Err(GuardError::NoSchedule { role }) => Err(no_schedule(&role)),
        Err(error) => Err(error.into()),
    }
}

/// Connects to the store of the config.
pub(crate) fn connect_store<'a>(
    context: &'a CommandContext,
) -> impl Fn() -> BoxFuture<'a, Result<Arc<dyn Store>, StoreError>> + Send + Sync + use<'a> {
    || Box::pin(crate::store::connect(&context.settings.store, &context.env))
}

/// Reports a one-shot run to the alert monitor.
pub(crate) struct AlertingObserver<'a> {
    pub(crate) role: &'a RoleSettings,
    dispatcher: Arc<AlertDispatcher>,
    pub(crate) monitor: AlertMonitor,
    /// Taken away before the first message after the run.
    display: Mutex<Option<ProgressDisplay>>,
}

impl<'a> AlertingObserver<'a> {
    pub(crate) fn new(
        context: &CommandContext,
        node_context: &NodeContext,
        role: &'a RoleSettings,
        display: Option<ProgressDisplay>,
    ) -> Result<Self, CommandError> {
        let dispatcher = Arc::new(alert_dispatcher(context, node_context, &context.settings.notify));
        let plan = known_repository::slot_plan(&context.settings, role, &context.env, &node_context.state_dir)?;
        let monitor = AlertMonitor::new(Arc::clone(&dispatcher), node_context, role, plan);
        Ok(Self { role, dispatcher, monitor, display: Mutex::new(display) })
    }

    /// Waits until the alerts are delivered or kept.
    pub(crate) async fn close(&self) {
        self.dispatcher.close(TELL_PATIENCE).await;
    }

    fn end_display(&self) {
        drop(self.display.lock().take());
    }
}

impl OneshotObserver for AlertingObserver<'_> {
    fn run_begins(&self, view: &JournalView, slot: Option<Timestamp>) {
        self.monitor.run_begins(view, slot);
    }

    fn run_ended(&self, report: &RoleReport) {
        self.end_display();
        self.monitor.run_ended(report);
    }

    fn run_failed(&self, error: &GuardError) {
        self.end_display();
        self.monitor.run_failed(error, &report(&self.role.name, error).0);
    }

    fn reports_missed_slots(&self) -> bool {
        !self.monitor.has_no_channels()
    }

    fn journal_read(&self, view: &JournalView) {
        self.monitor.journal_read(view);
    }

    fn journal_unread(&self, why: &str) {
        tracing::warn!("missed slots cannot be checked: {why}");
    }
}

pub(crate) fn alert_dispatcher(
    context: &CommandContext,
    node_context: &NodeContext,
    settings: &NotifySettings,
) -> AlertDispatcher {
    let words = Arc::new(AlertTextFormatter { zone: context.settings.timezone.clone(), env: context.env.clone() });
    AlertDispatcher::new(settings, &node_context.state_dir, context.env.clone(), words)
}

/// The usage error for `--scheduled` of a role without a schedule.
pub(crate) fn no_schedule(role: &RoleName) -> CommandError {
    UsageError {
        message: format!("role {role} has no schedule"),
        hint: format!("set schedule or every in [role.{role}], or leave --scheduled out."),
    }
    .into()
}

/// The role of `backup --source` without `--role`.
const DIRECT_ROLE: &str = crate::config::DEFAULT_ROLE;

pub(crate) async fn run_backup(session: &mut CliSession, args: &verbs::BackupArgs) -> Result<ExitKind, CommandError> {
    let direct = match (&args.direct.store, args.source.is_empty()) {
        (Some(url), false) => Some(url),
        (None, true) => None,
        // Clap refuses sources without a store.
        (Some(_), true) | (None, false) => {
            return Err(UsageError {
                message: "--store without --source".to_owned(),
                hint: "say what to back up: --source DIR, or leave --store out to use the config.".to_owned(),
            }
            .into());
        }
    };
    let settings = match direct {
        Some(url) => {
            let role = match &args.role {
                Some(role) => role.clone(),
                None => DIRECT_ROLE.parse()?,
            };
            settings::from_flags(&args.direct, url, &role, &args.source, &args.exclude)?
        }
        None => settings::from_file(&session.globals)?,
    };
    let context = session.context(settings);
    let roles = settings::roles(&context.settings, &args.roles)?;

    let mut created = Vec::new();
    if direct.is_some() {
        // The form without config initialises an empty store.
        for role in &roles {
            created.push(init::init(&context, role, args.new).await?);
        }
        created.retain(|role| role.created);
        if !created.is_empty() && !session.globals.json && !session.globals.quiet {
            let report = InitReport { roles: created.clone(), new_identity: None };
            session.out.print(&format!("{}\n", render::setup::init(&report, terminal::output_page())))?;
        }
    }
    let mut reports = Vec::new();
    let mut worst = ExitKind::Done;
    for role in roles {
        if context.cancel.is_cancelled() {
            worst = ExitKind::Interrupted;
            break;
        }
        let done = backup(&context, role, args).await;
        let (report, exit) = done.unwrap_or_else(|error| report(&role.name, error.as_ref()));
        worst = worst.or_worse(exit);
        // Print each role at once: an operator who stops the run later still learns about the first.
        match report.outcome {
            _ if session.globals.json || session.is_suppressed(exit) => {}
            // `runner backup > /dev/null` in a crontab must still show failures.
            RunOutcome::Failed | RunOutcome::Fenced | RunOutcome::Unknown => {
                terminal::write_error(&render::backup::role(&report, &context.view_on(terminal::report_page())));
            }
            _ => {
                let said = session.out.print(&render::backup::role(&report, &context.view()));
                session.warn_if_unwritten(said);
            }
        }
        reports.push(report);
    }
    if session.globals.json {
        let said = session.out.document(&json::backup(&created, &reports, &context.settings.timezone));
        session.warn_if_unwritten(said);
    }
    Ok(worst)
}
