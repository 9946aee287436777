//! `runner prune`.

use std::sync::Arc;

use crate::cli::args::verbs;
use crate::cli::command_error::CommandError;
use crate::cli::context::{CliSession, CommandContext, node_context};
use crate::cli::exit::{self, ExitKind};
use crate::cli::{json, open, render, settings};
use crate::config::RoleSettings;
use crate::daemon::client::DaemonClient;
use crate::job::prune::{self, PruneOutcome};

/// Prunes a role, if this node is active for it; a dry run is allowed on any node.
pub(crate) async fn prune(
    context: &CommandContext,
    role: &RoleSettings,
    dry_run: bool,
) -> Result<PruneOutcome, CommandError> {
    let zone = &context.settings.timezone;
    if dry_run {
        let archive = open::read_only(context, role).await?;
        open::require_complete_journal(&archive)?;
        let now = context.env.clock.now();
        let plan = prune::PrunePlan::make(&archive.repository, &archive.view, role, zone, now).await?;
        return Ok(PruneOutcome::Done(plan.report()));
    }
    let (progress, _display) = context.progress(&format!("prune {}", role.name));
    let mut node_context = node_context(context, progress).await?;
    if let Some(daemon) = DaemonClient::find(&context.runtime_dir()).await? {
        node_context.leases = node_context.leases.with_lender(Arc::new(daemon));
    }
    let connect = || crate::store::connect(&context.settings.store, &context.env);
    let pruned = Box::pin(prune::run(&node_context, &context.settings, role, connect)).await;
    node_context.leases.close().await;
    Ok(pruned?)
}

pub(crate) async fn run_prune(session: &mut CliSession, args: &verbs::PruneArgs) -> Result<ExitKind, CommandError> {
    let context = session.context(settings::from_file(&session.globals)?);
    let role = settings::role(&context.settings, &args.role)?;
    let view = context.view();
    match prune(&context, role, args.dry_run).await? {
        // A dry run is always printed: its report is what was asked for.
        PruneOutcome::Done(report) if args.dry_run => {
            session.report(|| render::pruned::report(&report, true, &view), || json::pruned::report(&report, true))?;
            Ok(ExitKind::Done)
        }
        PruneOutcome::Done(report) => Ok(session.report_result(
            ExitKind::Done,
            || render::pruned::report(&report, false, &view),
            || json::pruned::report(&report, false),
        )),
        PruneOutcome::Refused(refused) => {
            let why = refused.reason.as_ref();
            let why = why.map(|why| render::run_reason::text(&role.name, why, &view.zone)).unwrap_or_default();
            let exit = exit::of_backup_role(&refused, false);
            Ok(session.report_result(
                exit,
                || render::pruned::refused(&role.name, &why, &view),
                || json::pruned::refused(&refused, &why),
            ))
        }
    }
}
