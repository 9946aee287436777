//! `runner daemon`.

use std::sync::Arc;

use crate::cli::args::{GlobalArgs, verbs};
use crate::cli::command_error::CommandError;
use crate::cli::commands::backup::alert_dispatcher;
use crate::cli::context::{CliSession, CommandContext, open_node, warn_of_exposures};
use crate::cli::exit::ExitKind;
use crate::cli::log_observer::LogObserver;
use crate::cli::settings;
use crate::config::NotifySettings;
use crate::daemon::{self, DaemonParams};

/// Runs the daemon until it is interrupted.
pub(crate) async fn daemon(context: &CommandContext, globals: GlobalArgs, observe: bool) -> Result<(), CommandError> {
    let (node_context, node) = open_node(context, Arc::default()).await?;
    let observer = Arc::new(LogObserver::new(globals, context.settings.timezone.clone(), context.env.clone()));
    let (settings, runtime_dir) = (context.settings.clone(), context.runtime_dir());
    // Observe mode only logs, and sends no alerts.
    let notify = if observe { NotifySettings::default() } else { settings.notify.clone() };
    let dispatcher = Arc::new(alert_dispatcher(context, &node_context, &notify));
    Ok(daemon::run(DaemonParams { node_context, node, settings, observer, alerts: dispatcher, observe, runtime_dir })
        .await?)
}

pub(crate) async fn run_daemon(session: &mut CliSession, args: &verbs::DaemonArgs) -> Result<ExitKind, CommandError> {
    let context = session.context(settings::from_file(&session.globals)?);
    warn_of_exposures(&context.settings);
    daemon(&context, session.globals.clone(), args.observe).await?;
    Ok(ExitKind::Done)
}
