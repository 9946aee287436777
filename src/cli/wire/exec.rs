//! `runner exec`.

use std::sync::Arc;

use super::{
    AlertMonitor, CommandContext, DaemonClient, Error, TELL_PATIENCE, alert_dispatcher, announce_outcome, is_idle,
    no_schedule, node_context, render, verbs,
};
use crate::config::RoleSettings;
use crate::job::error::GuardError;

use crate::job::exec::{self, ExecError, ExecOutcome, ExecStopCause};
use crate::job::report::{RoleReport, RunOutcome};
use crate::job::repository::known_repository;
use crate::journal::view::JournalView;

/// Runs a command, if this node is active for the role. A command for a slot is reported like a backup.
pub async fn exec(context: &CommandContext, role: &RoleSettings, args: &verbs::ExecArgs) -> Result<ExecOutcome, Error> {
    let mut node_context = node_context(context, Arc::default()).await?;
    if let Some(daemon) = DaemonClient::find(&context.runtime_dir()).await? {
        node_context.leases = node_context.leases.with_lender(Arc::new(daemon));
    }
    let connect = || crate::store::connect(&context.settings.store, &context.env);
    let dispatcher = Arc::new(alert_dispatcher(context, &node_context, &context.settings.notify));
    let plan = known_repository::slot_plan(&context.settings, role, &context.env, &node_context.state_dir)?;
    let monitor = AlertMonitor::new(Arc::clone(&dispatcher), &node_context, role, plan);
    let begins = |view: &JournalView, slot| monitor.run_begins(view, slot);
    let request = exec::ExecRequest { command: args.command.clone(), scheduled: args.scheduled, timeout: args.timeout };
    let executed = Box::pin(exec::exec(&node_context, &context.settings, role, connect, &request, &begins)).await;
    node_context.leases.close().await;
    if args.scheduled {
        let failed = report_exec_to_observer(&monitor, context, role, &executed);
        let idle = matches!(&executed, Ok(ExecOutcome::Refused(refused)) if is_idle(&refused.0, refused.1.as_ref()));
        Box::pin(announce_outcome(&node_context, role, connect, &monitor, (failed, idle))).await;
        dispatcher.close(TELL_PATIENCE).await;
    }
    match executed {
        Err(ExecError::Guard(GuardError::NoSchedule { role })) => Err(no_schedule(&role)),
        result => Ok(result?),
    }
}

/// Reports the result of a command for a slot to the alert monitor. Returns whether it failed without a record in the
/// journal.
fn report_exec_to_observer(
    monitor: &AlertMonitor,
    context: &CommandContext,
    role: &RoleSettings,
    executed: &Result<ExecOutcome, ExecError>,
) -> bool {
    let nothing = |outcome| RoleReport::nothing(role.name.clone(), outcome);
    match executed {
        Ok(done @ (ExecOutcome::Ran { term, slot, .. } | ExecOutcome::Stopped { term, slot, recorded: true, .. })) => {
            monitor.command_ended(*slot, Some(*term), done.failure());
            false
        }
        Ok(ExecOutcome::Stopped { cause, term, slot, recorded: false, .. }) => {
            let outcome =
                if matches!(cause, ExecStopCause::Fenced(_)) { RunOutcome::Fenced } else { RunOutcome::Unknown };
            let reason = Some(format!("the command of exec was stopped: {}", render::executed::cause(cause)));
            monitor.run_ended(&RoleReport { reason, term: Some(*term), slot: *slot, ..nothing(outcome) }, None);
            true
        }
        Ok(ExecOutcome::Refused(refused)) => {
            let (report, reason) = &**refused;
            let words = reason.as_ref().map(|r| render::reason::text(r, &context.settings.timezone));
            monitor.run_ended(&RoleReport { reason: words, ..report.clone() }, reason.as_ref());
            false
        }
        Err(ExecError::Command { error, slot, term }) => {
            monitor.command_ended(*slot, Some(*term), Some(format!("did not run: {error}")));
            false
        }
        Err(ExecError::Guard(error)) => monitor.run_failed(error, &crate::cli::error::report(&role.name, error).0),
    }
}
