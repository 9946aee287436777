//! `runner exec`.

use std::sync::Arc;

use super::{
    Client, Context, Error, TELL_PATIENCE, Watch, is_idle, no_schedule, render, runner, tell_on, teller, verbs,
};
use crate::config::RoleSettings;
use crate::job::exec::{self, Cause, ExecError, Executed};
use crate::job::guard::GuardError;
use crate::job::known;
use crate::job::report::{Outcome, RoleReport};
use crate::journal::state::View;

/// Runs a command, if this node is active for the role. One for a slot is told of as a backup is.
pub async fn exec(context: &Context, role: &RoleSettings, args: &verbs::Exec) -> Result<Executed, Error> {
    let mut runner = runner(context, Arc::default()).await?;
    if let Some(daemon) = Client::find(&context.runtime_dir()).await? {
        runner.sessions = runner.sessions.borrowing(Arc::new(daemon));
    }
    let connect = || crate::store::connect(&context.settings.store, &context.env);
    let teller = Arc::new(teller(context, &runner, &context.settings.notify));
    let plan = known::plan(&context.settings, role, &context.env, &runner.state_dir)?;
    let watch = Watch::new(Arc::clone(&teller), &runner, role, plan);
    let begins = |view: &View, slot| watch.begins(view, slot);
    let request = exec::Request { command: args.command.clone(), scheduled: args.scheduled, timeout: args.timeout };
    let executed = Box::pin(exec::exec(&runner, &context.settings, role, connect, &request, &begins)).await;
    runner.sessions.close().await;
    if args.scheduled {
        let failed = report_to(&watch, context, role, &executed);
        let idle = matches!(&executed, Ok(Executed::Refused(refused)) if is_idle(&refused.0, refused.1.as_ref()));
        Box::pin(tell_on(&runner, role, connect, &watch, (failed, idle))).await;
        teller.close(TELL_PATIENCE).await;
    }
    match executed {
        Err(ExecError::Guard(GuardError::NoSchedule { role })) => Err(no_schedule(&role)),
        result => Ok(result?),
    }
}

/// Has told how a command for a slot went. Says whether it failed and the journal does not have it.
fn report_to(watch: &Watch, context: &Context, role: &RoleSettings, executed: &Result<Executed, ExecError>) -> bool {
    let nothing = |outcome| RoleReport::nothing(role.name.clone(), outcome);
    match executed {
        Ok(done @ (Executed::Ran { term, slot, .. } | Executed::Stopped { term, slot, recorded: true, .. })) => {
            watch.command_ended(*slot, Some(*term), done.failure());
            false
        }
        Ok(Executed::Stopped { cause, term, slot, recorded: false, .. }) => {
            let outcome = if matches!(cause, Cause::Fenced(_)) { Outcome::Fenced } else { Outcome::Unknown };
            let reason = Some(format!("the command of exec was stopped: {}", render::executed::cause(cause)));
            watch.ended(&RoleReport { reason, term: Some(*term), slot: *slot, ..nothing(outcome) }, None);
            true
        }
        Ok(Executed::Refused(refused)) => {
            let (report, reason) = &**refused;
            let words = reason.as_ref().map(|r| render::reason::text(r, &context.settings.timezone));
            watch.ended(&RoleReport { reason: words, ..report.clone() }, reason.as_ref());
            false
        }
        Err(ExecError::Command { error, slot, term }) => {
            watch.command_ended(*slot, Some(*term), Some(format!("did not run: {error}")));
            false
        }
        Err(ExecError::Guard(error)) => watch.failed(error, &crate::cli::error::report(&role.name, error).0),
    }
}
