//! `runner verify` and `audit`.

use jiff::{SignedDuration, Timestamp};

use crate::cli::args::verbs;
use crate::cli::command_error::{Error, Interrupted};
use crate::cli::commands::audit_foreign::{ListingSource, run_foreign_audit};
use crate::cli::commands::whoami::{ask_daemon, whoami_request};
use crate::cli::context::{CliSession, CommandContext, until_cancelled};
use crate::cli::exit::{self, ExitKind};
use crate::cli::render::audited::RoleAuditResult;
use crate::cli::{error, json, open, render, settings, terminal};
use crate::config::RoleSettings;
use crate::job::audit::AuditingNode;
use crate::job::local_state::LocalState;
use crate::job::report::audited::AuditReport;
use crate::job::report::verified::VerifyReport;
use crate::job::repository::known_repository;
use crate::job::{self, verify};
use crate::role::identity::{self, find_state_dir};

/// Verifies a repository.
pub(crate) async fn verify(
    context: &CommandContext,
    role: &RoleSettings,
    args: &verbs::VerifyArgs,
) -> Result<VerifyReport, Error> {
    let store = open::store(context).await?;
    let (progress, _display) = context.progress(&format!("verify {}", role.name));
    // A host that has only the bucket and the key remembers nothing.
    let state_dir = find_state_dir(context.state_dir.as_deref()).ok();
    let remembered = move |repo| LocalState::peek(&context.env, state_dir.as_ref()?, repo).last_view();
    let percent = args.read_data.unwrap_or(0);
    open::warn_of_versioning(context, store.as_ref(), &[role]).await;
    let verified = verify::verify(store, &role.name, &role.key, percent, &remembered, &progress, &context.env);
    let report = Box::pin(verified).await?;
    if !report.losses.is_empty() {
        match open::repository(context, role).await {
            Ok(repository) => open::note_losses(context, &repository, &report.losses).await,
            Err(error) => tracing::debug!("the loss cannot be noted for the next run: {error}"),
        }
    }
    Ok(report)
}

/// Audits a role's journal from `since` on.
pub(crate) async fn audit(
    context: &CommandContext,
    role: &RoleSettings,
    since: Timestamp,
) -> Result<AuditReport, Error> {
    let store = open::store(context).await?;
    let state_dir = find_state_dir(context.state_dir.as_deref()).ok();
    let plan = known_repository::recalled_slot_plan(&context.settings, role, &context.env, state_dir.as_deref())?;
    let remembered = |repo| LocalState::peek(&context.env, state_dir.as_ref()?, repo).last_view();
    let period = (since, context.env.clock.now());
    let (node, label) = identity::peek_identity(state_dir.as_deref(), context.node.as_deref());
    let request = whoami_request(context, state_dir.as_deref(), None, &[]);
    let (daemon, unwritable) = tokio::join!(ask_daemon(context), job::whoami::try_state_dir(&request));
    let looker = AuditingNode {
        env: &context.env,
        state_dir: state_dir.as_deref(),
        node,
        label: &label,
        reported_failure: daemon.of(&role.name).and_then(|word| word.failure.as_ref()),
        unwritable: unwritable.as_deref(),
    };
    Ok(Box::pin(job::audit::audit_here(store, role, plan.as_ref(), period, &remembered, Some(looker))).await?)
}

pub(crate) async fn run_verify(session: &mut CliSession, args: &verbs::VerifyArgs) -> Result<ExitKind, Error> {
    let context = session.context(settings::for_role(&session.globals, &args.direct, &args.role)?);
    let role = settings::role(&context.settings, &args.role)?;
    let report = until_cancelled(&context.cancel, verify(&context, role, args)).await?;
    let exit = exit::of_verify(&report);
    Ok(session.report_result(
        exit,
        || render::verified::report(&report, terminal::output_page()),
        || json::verify(&report),
    ))
}

pub(crate) async fn run_audit(session: &mut CliSession, args: &verbs::AuditArgs) -> Result<ExitKind, Error> {
    if let Some(source) = ListingSource::of(&args.foreign)? {
        return Box::pin(run_foreign_audit(session, source, args)).await;
    }
    let context = session.context(settings::from_file(&session.globals)?);
    let roles = settings::roles(&context.settings, &args.roles)?;
    let back = SignedDuration::try_from(args.since).unwrap_or(SignedDuration::MAX);
    let since = context.env.clock.now().checked_sub(back).unwrap_or(Timestamp::MIN);
    let mut all = Vec::new();
    for role in roles {
        // One role's error does not suppress the reports of the others.
        let result = until_cancelled(&context.cancel, audit(&context, role, since)).await;
        let result = match result {
            Err(error) if error.is::<Interrupted>() => return Err(error),
            result => result.map_err(|error| error::with_causes_and_hint(error.as_ref(), &role.name)),
        };
        all.push(RoleAuditResult { role: role.name.clone(), since, result });
    }
    let exit = all.iter().map(exit::of_audit).fold(ExitKind::Done, ExitKind::or_worse);
    let report = if args.calendar { render::audited::report_with_calendars } else { render::audited::report };
    Ok(session.report_result(exit, || report(&all, &context.view()), || json::audit::report(&all)))
}
