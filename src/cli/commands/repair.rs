//! `runner repair`.

use std::path::Path;
use std::sync::Arc;

use crate::cli::args::verbs;
use crate::cli::command_error::CommandError;
use crate::cli::context::{CliSession, CommandContext, node_context};
use crate::cli::exit::{self, ExitKind};
use crate::cli::{json, open, render, settings};
use crate::config::RoleSettings;
use crate::daemon::client::DaemonClient;
use crate::ids::{InstanceId, NodeId};
use crate::job;
use crate::job::admission::guard;
use crate::job::repair::RepairRequest;
use crate::job::repair::recovery::RecoveryInputs;
use crate::job::report::repaired::RepairReport;
use crate::job::repository::journal_access::JournalAccess;
use crate::job::repository::known_repository::RepositoryLocation;
use crate::journal::body::WriterNode;
use crate::role::identity::find_state_dir;

pub(crate) fn recovery_inputs<'a>(
    context: &'a CommandContext,
    role: &'a RoleSettings,
    place: &'a RepositoryLocation,
    state_dir: Option<&'a Path>,
    journal_access: &'a JournalAccess,
) -> RecoveryInputs<'a> {
    RecoveryInputs { role: &role.name, key: &role.key, place, state_dir, journal_access, env: &context.env }
}

/// Repairs what a store has lost, or reports what a repair would do.
pub(crate) async fn repair(
    context: &CommandContext,
    role: &RoleSettings,
    args: &verbs::RepairArgs,
) -> Result<RepairReport, CommandError> {
    let store = open::store(context).await?;
    let (place, journal_access) =
        (RepositoryLocation::new(&context.settings.store, &role.name), JournalAccess::connect(&context.settings));
    if args.dry_run {
        let state_dir = find_state_dir(context.state_dir.as_deref()).ok();
        let step = recovery_inputs(context, role, &place, state_dir.as_deref(), &journal_access);
        let (node, instance) =
            (WriterNode { id: NodeId([0; NodeId::LEN]), name: String::new() }, InstanceId([0; InstanceId::LEN]));
        let (key_slot, read_data) = (args.key_slot, args.read_data);
        let by =
            RepairRequest { inputs: step, node, instance, role, assessment: None, force: false, key_slot, read_data };
        return Ok(Box::pin(job::repair::dry_run(store, &by)).await?);
    }
    let node_context = node_context(context, Arc::default()).await?;
    let assessment = guard::run_probes(&node_context, role, None).await;
    let step = recovery_inputs(context, role, &place, Some(&node_context.state_dir), &journal_access);
    let by = RepairRequest {
        inputs: step,
        node: node_context.node.clone(),
        instance: node_context.instance,
        role,
        assessment: assessment.as_ref(),
        force: args.force,
        key_slot: args.key_slot,
        read_data: args.read_data,
    };
    let report = Box::pin(job::repair::repair(store, &by)).await?;
    // The daemon of this node learns about the repair sooner.
    if let Ok(Some(daemon)) = DaemonClient::find(&context.runtime_dir()).await {
        daemon.notify_appended(&role.name).await;
    }
    Ok(report)
}

pub(crate) async fn run_repair(session: &mut CliSession, args: &verbs::RepairArgs) -> Result<ExitKind, CommandError> {
    let context = session.context(settings::for_role(&session.globals, &args.direct, &args.role)?);
    let role = settings::role(&context.settings, &args.role)?;
    let report = repair(&context, role, args).await?;
    let exit = exit::of_repair(&report);
    if args.dry_run {
        // A dry run is always printed: its report is what was asked for.
        session.report(|| render::repaired::report(&report, &context.view()), || json::repaired::report(&report))?;
        return Ok(exit);
    }
    Ok(session.report_result(
        exit,
        || render::repaired::report(&report, &context.view()),
        || json::repaired::report(&report),
    ))
}
