//! `runner notify`.

use crate::alert::trial::{channel_names, send_trial};
use crate::cli::args::verbs;
use crate::cli::command_error::{CommandError, UsageError};
use crate::cli::context::{CliSession, until_cancelled, warn_of_exposures};
use crate::cli::exit::{self, ExitKind};
use crate::cli::{json, render, settings, terminal};
use crate::ids::RoleName;
use crate::role::identity;

pub(crate) async fn run_notify(
    session: &mut CliSession,
    args: &verbs::NotifyCommand,
) -> Result<ExitKind, CommandError> {
    let verbs::NotifyCommand::Test(args) = args;
    let settings = settings::from_file(&session.globals)?;
    let only = args.channel.as_deref();
    let names = channel_names(&settings.notify);
    if names.is_empty() {
        return Err(UsageError {
            message: "the config has no channel for alerts".to_owned(),
            hint: "add a [[notify.channel]]: docs/ALERTS.md has one of each kind.".to_owned(),
        }
        .into());
    }
    if let Some(name) = only.filter(|name| !names.iter().any(|known| known == name)) {
        return Err(UsageError {
            message: format!("the config has no channel {name:?}"),
            hint: format!("it has {}.", names.join(", ")),
        }
        .into());
    }
    warn_of_exposures(&settings);
    let (_, label) = identity::peek_identity(session.globals.state_dir.as_deref(), session.globals.node.as_deref());
    let roles: Vec<RoleName> = settings.roles.keys().cloned().collect();
    let text = render::notify::trial_text(&label);
    let work = async { Ok(send_trial(&settings.notify, only, &roles, &label, &text, &session.env).await) };
    let trials = until_cancelled(&session.cancel, work).await?;
    let exit = exit::of_trials(&trials);
    Ok(session.report_result(
        exit,
        || render::notify::trials(&trials, terminal::output_page()),
        || json::notify::trials(&label, &trials),
    ))
}
