//! From a command line to an exit code: the settings, the job, and its report as text or JSON.

use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, Span, error_span};

use super::args::{Cli, CliCommand, verbs};
use super::exit::ExitKind;
use super::output::CommandOutput;
use super::signal::{self, SignalNotice};
use super::{configure, error, generate, json, log, log_format, progress, terminal};
use crate::cli::command_error::CommandError;
use crate::cli::commands::backup::run_backup;
use crate::cli::commands::browse::{run_cat, run_diff, run_find, run_ls, run_snapshots};
use crate::cli::commands::daemon::run_daemon;
use crate::cli::commands::exec::run_exec;
use crate::cli::commands::init::run_init;
use crate::cli::commands::journal::run_journal;
use crate::cli::commands::key::run_key;
use crate::cli::commands::notify::run_notify;
use crate::cli::commands::operate::{OperateAction, run_operate};
use crate::cli::commands::prune::run_prune;
use crate::cli::commands::repair::run_repair;
use crate::cli::commands::restore::run_restore;
use crate::cli::commands::verify::{run_audit, run_verify};
use crate::cli::commands::whoami::{run_is_active, run_status, run_whoami};
use crate::cli::context::CliSession;
use crate::cli::error_hints::policy::ErrorPolicy;
use crate::env::Env;
use crate::ids::RoleName;

/// Runs the command and returns how the program ends.
pub async fn run(cli: Cli) -> ExitKind {
    let globals = cli.globals;
    let has_no_progress = globals.json || log_format::is_json();
    let style = progress::mode(has_no_progress, globals.quiet, terminal::errors_are_seen());
    let bars = progress::bars(style);
    let long_running = matches!(cli.command, CliCommand::Daemon(_));
    log::start(globals.verbose, globals.quiet, long_running, bars.clone());
    let cancel = CancellationToken::new();
    let mut session = CliSession {
        globals,
        env: Env::host(),
        cancel: cancel.clone(),
        style,
        bars,
        out: CommandOutput::new(terminal::output()).in_colour(terminal::output_has_colours()),
    };
    let announced = match &cli.command {
        CliCommand::Daemon(_) => SignalNotice::Log,
        CliCommand::Whoami(whoami) if whoami.watch => SignalNotice::Silent,
        _ => SignalNotice::Message,
    };
    let end_max = if long_running { signal::DAEMON_END_MAX } else { signal::END_MAX };
    // A guarded command gets the signals itself.
    let watched = if matches!(cli.command, CliCommand::Exec(_)) {
        Ok(())
    } else {
        signal::watch(cancel.clone(), end_max, announced)
    };
    let role = cli.command.role().cloned();
    let result = match watched {
        Ok(()) => {
            let span = role.as_ref().map_or_else(Span::none, |role| error_span!("role", %role));
            Box::pin(dispatch(&mut session, cli.command).instrument(span)).await
        }
        Err(e) => Err(e.into()),
    };
    let exit = finish(&mut session, result, role.as_ref());
    // A signal is the normal end of a daemon.
    if cancel.is_cancelled() && !long_running { exit.interrupted() } else { exit }
}

/// Prints the error, if there is one.
pub(crate) fn finish(
    session: &mut CliSession,
    result: Result<ExitKind, CommandError>,
    role: Option<&RoleName>,
) -> ExitKind {
    let error = match result {
        Ok(exit) => return exit,
        // The output failed because its reader has gone: head(1) has what it wanted.
        Err(_) if session.out.reader_left() => return ExitKind::Done,
        Err(error) => error,
    };
    let ErrorPolicy { exit, hint } = error.policy();
    let hint = hint.map(|hint| error::hint_for_role(hint, role));
    terminal::write_error(&error::render(error.as_ref(), hint.as_deref(), terminal::error_page()));
    if session.globals.json && !session.out.is_used() {
        let _ = session.out.document(&json::error(error.as_ref(), exit, hint.as_deref()));
    }
    exit
}

async fn dispatch(session: &mut CliSession, command: CliCommand) -> Result<ExitKind, CommandError> {
    match command {
        CliCommand::Init(args) => run_init(session, &args).await,
        CliCommand::Backup(args) => run_backup(session, &args).await,
        CliCommand::Snapshots(args) => run_snapshots(session, &args).await,
        CliCommand::Ls(args) => Box::pin(run_ls(session, &args)).await,
        CliCommand::Cat(args) => Box::pin(run_cat(session, &args)).await,
        CliCommand::Find(args) => Box::pin(run_find(session, &args)).await,
        CliCommand::Diff(args) => Box::pin(run_diff(session, &args)).await,
        CliCommand::Restore(args) => Box::pin(run_restore(session, &args)).await,
        CliCommand::Verify(args) => run_verify(session, &args).await,
        CliCommand::Whoami(args) => run_whoami(session, &args).await,
        CliCommand::Status => run_status(session).await,
        CliCommand::Audit(args) => Box::pin(run_audit(session, &args)).await,
        CliCommand::IsActive(args) => Ok(run_is_active(session, &args).await),
        CliCommand::Exec(args) => run_exec(session, &args).await,
        CliCommand::Daemon(args) => run_daemon(session, &args).await,
        CliCommand::Prune(args) => run_prune(session, &args).await,
        CliCommand::Repair(args) => run_repair(session, &args).await,
        CliCommand::Takeover(args) => {
            run_operate(session, &args.role, &OperateAction::Takeover { force: args.force }).await
        }
        CliCommand::Pause(args) => {
            run_operate(session, &args.role, &OperateAction::Pause { lasts: args.lasts, why: args.why }).await
        }
        CliCommand::Resume(args) => run_operate(session, &args.role, &OperateAction::Resume).await,
        CliCommand::Key(args) => run_key(session, &args).await,
        CliCommand::Journal(verbs::JournalCommand::Show(args)) => run_journal(session, &args).await,
        CliCommand::Journal(verbs::JournalCommand::Adopt(args)) => {
            run_operate(session, &args.role, &OperateAction::Adopt).await
        }
        CliCommand::Journal(verbs::JournalCommand::Amend(args)) => {
            run_operate(session, &args.role, &OperateAction::Amend { force: args.force }).await
        }
        CliCommand::Notify(args) => run_notify(session, &args).await,
        CliCommand::Config(args) => configure::config(session, &args),
        CliCommand::Completions(args) => {
            generate::completions(args.shell, &mut session.out)?;
            session.out.print("")?;
            Ok(ExitKind::Done)
        }
        CliCommand::Man(args) => {
            match args.dir {
                Some(dir) => generate::man_pages(&dir)?,
                None => generate::man(&mut session.out)?,
            }
            session.out.print("")?;
            Ok(ExitKind::Done)
        }
    }
}
