//! `runner key`.

use std::io::Write;
use std::sync::Arc;

use crate::cli::args::verbs;
use crate::cli::command_error::{CommandError, UsageError};
use crate::cli::context::{CliSession, CommandContext, node_context};
use crate::cli::exit::ExitKind;
use crate::cli::{json, open, render, settings, terminal};
use crate::config::{KeySource, RoleSettings};
use crate::daemon::client::DaemonClient;
use crate::job::admission::guard;
use crate::job::keys;
use crate::job::keys::rotate::{KeyRotator, RotateRequest, rotate};
use crate::job::node::context::NodeContext;
use crate::job::operate::OperatorContext;
use crate::job::report::setup::KeyReport;

pub(crate) async fn run_key(session: &mut CliSession, args: &verbs::KeyCommand) -> Result<ExitKind, CommandError> {
    let (role, direct) = args.place();
    let context = session.context(settings::for_role(&session.globals, direct, role)?);
    let role = settings::role(&context.settings, role)?;
    let to_stdout = matches!(args, verbs::KeyCommand::Export(export) if export.output.as_os_str() == "-");
    if to_stdout && session.globals.json {
        return Err(UsageError {
            message: "--output - together with --json".to_owned(),
            hint: "both write to standard output: name a file, or leave --json out.".to_owned(),
        }
        .into());
    }
    match key(&context, role, args, &mut session.out).await? {
        Some(report)
            if matches!(
                args,
                verbs::KeyCommand::List(_) | verbs::KeyCommand::Rotate(verbs::KeyRotateArgs { dry_run: true, .. })
            ) =>
        {
            session.report(|| render::setup::keys(&report, terminal::output_page()), || json::keys(&report))?;
        }
        Some(report) => {
            session.report_result(
                ExitKind::Done,
                || render::setup::keys(&report, terminal::output_page()),
                || json::keys(&report),
            );
        }
        None => session.out.print("")?,
    }
    Ok(ExitKind::Done)
}

/// Shows or changes the keys of a repository. `None`: the key was written to standard output, which must contain
/// nothing else.
pub(crate) async fn key(
    context: &CommandContext,
    role: &RoleSettings,
    args: &verbs::KeyCommand,
    out: &mut (dyn Write + Send),
) -> Result<Option<KeyReport>, CommandError> {
    let open = || open::repository(context, role);
    Ok(Some(match args {
        verbs::KeyCommand::Rotate(args) => Box::pin(rotated(context, role, args)).await?,
        verbs::KeyCommand::List(_) => keys::list(&open().await?).await?,
        verbs::KeyCommand::Export(args) if args.output.as_os_str() == "-" => {
            if let Some(text) = keys::export(&open().await?)?.to_key_file_text() {
                out.write_all(text.as_bytes())?;
            }
            return Ok(None);
        }
        verbs::KeyCommand::Export(args) => keys::export_to(&open().await?, &args.output).await?,
        verbs::KeyCommand::Add(args) => {
            let new = source(args.new_key_file.as_ref(), args.new_passphrase_file.as_ref());
            keys::add(&open().await?, &new.unwrap_or(KeySource::None), &context.env).await?
        }
        verbs::KeyCommand::Remove(args) => keys::remove(&open().await?, args.id, &role.key).await?,
    }))
}

pub(crate) async fn rotated(
    context: &CommandContext,
    role: &RoleSettings,
    args: &verbs::KeyRotateArgs,
) -> Result<KeyReport, CommandError> {
    let node_context = node_context(context, Arc::default()).await?;
    let repository = open::repository(context, role).await?;
    let assessment = guard::run_probes(&node_context, role, None).await;
    let NodeContext { node, instance, state_dir, leases: sessions, .. } = node_context;
    let journal_access = sessions.journal_access().clone();
    let operator = OperatorContext { node, instance, env: &context.env, state_dir: Some(&state_dir), journal_access };
    let by = KeyRotator { operator, role, assessment: assessment.as_ref(), force: args.force };
    let phrases = args.keep_passphrase_file.iter().cloned().map(KeySource::PassphraseFile);
    let ask = RotateRequest {
        current: &role.key,
        new: source(args.new_key_file.as_ref(), args.new_passphrase_file.as_ref()),
        keep: args.keep_key_file.iter().cloned().map(KeySource::KeyFile).chain(phrases).collect(),
        drop: args.drop.clone(),
        dry_run: args.dry_run,
    };
    let report = rotate(&repository, &by, &ask).await?;
    // The daemon of this node learns about the rotation sooner.
    if let Ok(Some(daemon)) = DaemonClient::find(&context.runtime_dir()).await {
        daemon.notify_appended(&role.name).await;
    }
    Ok(report)
}

pub(crate) fn source(
    key_file: Option<&std::path::PathBuf>,
    passphrase_file: Option<&std::path::PathBuf>,
) -> Option<KeySource> {
    let phrase = || passphrase_file.cloned().map(KeySource::PassphraseFile);
    key_file.cloned().map(KeySource::KeyFile).or_else(phrase)
}
