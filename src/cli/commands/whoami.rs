//! `runner whoami`, `status` and `is-active`.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::cli::args::verbs;
use crate::cli::command_error::{CommandError, UsageError};
use crate::cli::context::{CliSession, CommandContext, daemon_node_id, until_cancelled};
use crate::cli::error_hints::policy::ErrorPolicy;
use crate::cli::exit::{self, ExitKind};
use crate::cli::{error, json, render, settings, terminal};
use crate::config::RoleSettings;
use crate::daemon::client::{ClientError, DaemonClient};
use crate::file::access::{self, FileExposure};
use crate::ids::NodeId;
use crate::job;
use crate::job::report::whoami::{RoleState, WhoamiReport};
use crate::job::whoami::WhoamiRequest;
use crate::job::whoami::daemon_answer::DaemonAnswer;
use crate::role::identity::find_state_dir;
use crate::store::{Store, StoreError};

const IDENTITY_GLANCE: Duration = Duration::from_millis(300);

/// This node's identity, and its status for these roles.
pub(crate) async fn whoami(context: &CommandContext, roles: &[&RoleSettings]) -> Result<WhoamiReport, CommandError> {
    let state_dir = find_state_dir(context.state_dir.as_deref()).ok();
    let told = daemon_node_id(context, IDENTITY_GLANCE).await.ok().flatten();
    let mut exposures = context.settings.exposures();
    exposures.extend(state_dir.iter().flat_map(|dir| access::exposures(dir, false)));
    exposures.dedup();
    let request = whoami_request(context, state_dir.as_deref(), told, &exposures);
    Ok(Box::pin(job::whoami::whoami(&request, roles, store_connection(context), ask_daemon(context))).await)
}

/// Whether this node is active for a role.
pub(crate) async fn is_active(context: &CommandContext, role: &RoleSettings) -> RoleState {
    let state_dir = find_state_dir(context.state_dir.as_deref()).ok();
    let told = daemon_node_id(context, IDENTITY_GLANCE).await.ok().flatten();
    let request = whoami_request(context, state_dir.as_deref(), told, &[]);
    Box::pin(job::whoami::is_active(&request, role, store_connection(context), ask_daemon(context))).await
}

/// The answer of this node's daemon to a status request.
pub(crate) async fn ask_daemon(context: &CommandContext) -> DaemonAnswer {
    let Ok(Some(daemon)) = DaemonClient::find(&context.runtime_dir()).await else { return DaemonAnswer::None };
    match daemon.role_statuses(job::whoami::PATIENCE).await {
        Ok(words) => DaemonAnswer::Answered(words),
        Err(ClientError::Silent(_)) => DaemonAnswer::Silent,
        // A daemon of another version does not understand the request.
        Err(_) => DaemonAnswer::None,
    }
}

pub(crate) fn whoami_request<'a>(
    context: &'a CommandContext,
    state_dir: Option<&'a Path>,
    told: Option<NodeId>,
    exposures: &'a [FileExposure],
) -> WhoamiRequest<'a> {
    WhoamiRequest {
        settings: &context.settings,
        name: context.node.as_deref(),
        daemon_node_id: told,
        state_dir,
        exposures,
        env: &context.env,
        timeout: job::whoami::PATIENCE,
    }
}

fn store_connection(
    context: &CommandContext,
) -> impl Future<Output = Result<Arc<dyn Store>, StoreError>> + Send + 'static + use<> {
    let (settings, env) = (context.settings.store.clone(), context.env.clone());
    async move { crate::store::connect(&settings, &env).await }
}

/// Interval of `whoami --watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

pub(crate) async fn run_whoami(session: &mut CliSession, args: &verbs::WhoamiArgs) -> Result<ExitKind, CommandError> {
    let context = session.context(settings::from_file(&session.globals)?);
    let roles = settings::roles(&context.settings, args.role.as_slice())?;
    if args.watch {
        return match watch(session, &context, &roles).await {
            Err(error) if error.policy().exit == ExitKind::Interrupted => Ok(ExitKind::Interrupted),
            ended => ended,
        };
    }
    let report = until_cancelled(&context.cancel, whoami(&context, &roles)).await?;
    let view = context.view();
    let (line, health) = render::check::check(&report, &view);
    session.report(
        || if args.check { line } else { render::whoami::report(&report, &view) },
        || json::whoami::report(&report),
    )?;
    Ok(if args.check { ExitKind::Plugin(health) } else { ExitKind::Done })
}

/// Prints the report repeatedly, on a terminal in the same place. An interrupt is its normal end.
pub(crate) async fn watch(
    session: &mut CliSession,
    context: &CommandContext,
    roles: &[&RoleSettings],
) -> Result<ExitKind, CommandError> {
    if session.globals.json {
        return Err(UsageError {
            message: "--watch together with --json".to_owned(),
            hint: "--watch does not end, and a JSON document has to: leave one of them out.".to_owned(),
        }
        .into());
    }
    loop {
        let report = until_cancelled(&context.cancel, whoami(context, roles)).await?;
        let text = render::whoami::report(&report, &context.view());
        if terminal::output_is_seen() {
            session.out.draw(&text, terminal::output_rows())?;
        } else {
            session.out.print(&format!("\n{text}"))?;
        }
        until_cancelled(&context.cancel, async {
            tokio::time::sleep(WATCH_INTERVAL).await;
            Ok(())
        })
        .await?;
    }
}

pub(crate) async fn run_status(session: &mut CliSession) -> Result<ExitKind, CommandError> {
    let context = session.context(settings::from_file(&session.globals)?);
    let roles = settings::roles(&context.settings, &[])?;
    let report = until_cancelled(&context.cancel, whoami(&context, &roles)).await?;
    session.report(|| render::status::text(&report, &context.view()), || json::whoami::report(&report))?;
    Ok(ExitKind::Done)
}

/// Prints errors only. A script must never take a failure for an answer, so every failure except wrong usage and an
/// interrupt exits as unknown.
pub(crate) async fn run_is_active(session: &mut CliSession, args: &verbs::IsActiveArgs) -> ExitKind {
    let asked: Result<RoleState, CommandError> = async {
        let context = session.context(settings::from_file(&session.globals)?);
        let role = settings::role(&context.settings, &args.role)?;
        until_cancelled(&context.cancel, async { Ok(Box::pin(is_active(&context, role)).await) }).await
    }
    .await;
    match asked {
        Ok(state) => exit::of_is_active(state),
        Err(error) => {
            let ErrorPolicy { exit, hint } = error.policy();
            terminal::write_error(&error::render(error.as_ref(), hint.as_deref(), terminal::error_page()));
            if matches!(exit, ExitKind::Usage | ExitKind::Interrupted) { exit } else { ExitKind::Unknown }
        }
    }
}
