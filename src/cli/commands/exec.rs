//! `runner exec`.

use std::sync::Arc;

use crate::cli::args::verbs;
use crate::cli::command_error::CommandError;
use crate::cli::commands::backup::{AlertingObserver, connect_store, no_schedule};
use crate::cli::context::{CliSession, CommandContext, node_context};
use crate::cli::exit::{self, ExitKind};
use crate::cli::{render, settings, terminal};
use crate::config::RoleSettings;
use crate::daemon::client::DaemonClient;
use crate::daemon::oneshot::{self, OneshotFollowUp, OneshotObserver};
use crate::job::error::GuardError;
use crate::job::exec::{self, ExecError, ExecOutcome, ExecStopCause};
use crate::job::report::{RoleReport, RunOutcome, RunReason};
use crate::journal::view::JournalView;

/// Prints nothing if the command ran: its output is what counts.
pub(crate) async fn run_exec(session: &mut CliSession, args: &verbs::ExecArgs) -> Result<ExitKind, CommandError> {
    let context = session.context(settings::from_file(&session.globals)?);
    let role = settings::role(&context.settings, &args.role)?;
    let executed = exec(&context, role, args).await?;
    let exit = exit::of_exec(&executed, args.skip_exit);
    // A node that is not active is no error, whatever exit code was configured.
    let skipped = matches!(&executed, ExecOutcome::Refused(_)) && matches!(exit, ExitKind::Command(_));
    if !(session.globals.quiet && skipped)
        && let Some(text) = render::executed::text(&args.role, &executed, &context.view_on(terminal::report_page()))
    {
        // Standard output belongs to the command.
        terminal::write_error(&text);
    }
    Ok(exit)
}

/// Runs a command, if this node is active for the role. A command for a slot is reported like a backup.
pub(crate) async fn exec(
    context: &CommandContext,
    role: &RoleSettings,
    args: &verbs::ExecArgs,
) -> Result<ExecOutcome, CommandError> {
    let mut node_context = node_context(context, Arc::default()).await?;
    if let Some(daemon) = DaemonClient::find(&context.runtime_dir()).await? {
        node_context.leases = node_context.leases.with_lender(Arc::new(daemon));
    }
    let connect = connect_store(context);
    let observer = AlertingObserver::new(context, &node_context, role, None)?;
    let begins = |view: &JournalView, slot| observer.run_begins(view, slot);
    let request = exec::ExecRequest { command: args.command.clone(), scheduled: args.scheduled, timeout: args.timeout };
    let executed =
        Box::pin(exec::exec(&node_context, &context.settings, role, async || connect().await, &request, &begins)).await;
    node_context.leases.close().await;
    if args.scheduled {
        let next = report_exec(&observer, &executed);
        Box::pin(oneshot::follow_up(&node_context, role, &connect, &observer, next)).await;
        observer.close().await;
    }
    match executed {
        Err(ExecError::Guard(GuardError::NoSchedule { role })) => Err(no_schedule(&role)),
        result => Ok(result?),
    }
}

/// Reports the result of a command for a slot to the alert monitor. A failure without a record in the journal is
/// published.
fn report_exec(observer: &AlertingObserver<'_>, executed: &Result<ExecOutcome, ExecError>) -> OneshotFollowUp {
    let monitor = &observer.monitor;
    let nothing = |outcome| RoleReport::nothing(observer.role.name.clone(), outcome);
    OneshotFollowUp::of_failure(match executed {
        Ok(done @ (ExecOutcome::Ran { term, slot, .. } | ExecOutcome::Stopped { term, slot, recorded: true, .. })) => {
            monitor.command_ended(*slot, Some(*term), done.failure());
            false
        }
        Ok(ExecOutcome::Stopped { cause, term, slot, recorded: false, .. }) => {
            let outcome =
                if matches!(cause, ExecStopCause::Fenced(_)) { RunOutcome::Fenced } else { RunOutcome::Unknown };
            let reason = format!("the command of exec was stopped: {}", render::executed::cause(cause));
            let reason = Some(RunReason::Text(reason));
            monitor.run_ended(&RoleReport { reason, term: Some(*term), slot: *slot, ..nothing(outcome) });
            true
        }
        Ok(ExecOutcome::Refused(refused)) => {
            observer.run_ended(refused);
            return OneshotFollowUp::of_outcome(true, refused);
        }
        Err(ExecError::Command { error, slot, term }) => {
            monitor.command_ended(*slot, Some(*term), Some(format!("did not run: {error}")));
            false
        }
        Err(ExecError::Guard(error)) => {
            observer.run_failed(error);
            return OneshotFollowUp::of_error(error);
        }
    })
}
