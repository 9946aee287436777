//! From a command line to an exit code: the settings, the job, and its report as text or JSON.

use std::fmt::Display as Shown;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use indicatif::MultiProgress;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::args::{Cli, CliCommand, GlobalArgs, verbs};
use super::error::{self, ADVICE, Error, Interrupted, UsageError};
use super::exit::{self, ExitKind};
use super::output::{CommandOutput, ListOutput};
use super::progress::{self, ProgressDisplay, ProgressMode};
use super::render::audited::RoleAuditResult;
use super::render::layout::PageLayout;
use super::render::{self, RenderContext};
use super::signal::SignalNotice;
use super::{configure, generate, json, log, open, settings, signal, terminal, wire};
use crate::config::{RoleSettings, Settings};
use crate::env::{self, Env};
use crate::ids::RoleName;
use crate::job::exec::ExecOutcome;
use crate::job::node::cancel::CancelToken;
use crate::job::node::progress::JobProgress;
use crate::job::operate::RoleChange;
use crate::job::prune::PruneOutcome;
use crate::job::report::RunOutcome;
use crate::job::report::browse::{DiffCounts, DiffLine};
use crate::job::report::setup::InitReport;
use crate::job::report::whoami::RoleState;
use crate::job::repository::read_only::{JournalEntry, ReadOnlyRepository};
use crate::journal::state::Snapshot;

/// The role of `backup --source` without `--role`.
const DIRECT_ROLE: &str = crate::config::DEFAULT_ROLE;

/// Interval of `whoami --watch`.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// The value of `--snapshot` of `find` that means all snapshots.
const ALL: &str = "all";

/// What a job needs in addition to its request.
#[derive(Debug)]
pub struct CommandContext {
    /// The checked settings.
    pub settings: Settings,
    /// This node's name, if the command line or the environment gives one; else the hostname.
    pub node: Option<String>,
    /// State directory, if the command line or the environment gives one.
    pub state_dir: Option<PathBuf>,
    /// Clocks, random numbers and files.
    pub env: Env,
    /// Set when the operator interrupts the program.
    pub cancel: CancelToken,
    mode: ProgressMode,
    bars: MultiProgress,
}

impl CommandContext {
    /// Counters for a job, and their display, which lasts until it is dropped.
    pub fn progress(&self, label: &str) -> (Arc<JobProgress>, ProgressDisplay) {
        let progress = Arc::new(JobProgress::default());
        let clock = Arc::clone(&self.env.clock);
        let display = ProgressDisplay::start(label.to_owned(), Arc::clone(&progress), self.mode, &self.bars, clock);
        (progress, display)
    }

    /// Runtime directory, where a daemon on this node has its socket.
    pub fn runtime_dir(&self) -> PathBuf {
        let variable = |name| env::variable(name).map(PathBuf::from);
        let root = rustix::process::geteuid().is_root();
        runtime_dir(self.state_dir.as_deref(), root, variable("XDG_RUNTIME_DIR"))
    }

    /// The rendering context of standard output.
    fn view(&self) -> RenderContext {
        self.view_on(terminal::output_page())
    }

    fn view_on(&self, page: PageLayout) -> RenderContext {
        RenderContext { zone: self.settings.timezone.clone(), now: self.env.clock.now(), page }
    }
}

/// A node with a configured state directory has its socket there as well: several nodes may share a host.
fn runtime_dir(state_dir: Option<&Path>, root: bool, of_user: Option<PathBuf>) -> PathBuf {
    match (state_dir, root, of_user) {
        (Some(dir), _, _) => dir.to_owned(),
        (None, false, Some(dir)) => dir.join("runner"),
        (None, _, _) => PathBuf::from("/run/runner"),
    }
}

/// State of the program before the settings are read.
pub(super) struct CliSession {
    pub(super) globals: GlobalArgs,
    env: Env,
    cancel: CancelToken,
    style: ProgressMode,
    bars: MultiProgress,
    pub(super) out: CommandOutput,
}

impl CliSession {
    fn context(&self, settings: Settings) -> CommandContext {
        CommandContext {
            settings,
            node: self.globals.node.clone(),
            state_dir: self.globals.state_dir.clone(),
            env: self.env.clone(),
            cancel: self.cancel.clone(),
            mode: self.style,
            bars: self.bars.clone(),
        }
    }

    /// Prints a report as text or as JSON.
    pub(super) fn report(&mut self, text: impl FnOnce() -> String, json: impl FnOnce() -> String) -> Result<(), Error> {
        let said = if self.globals.json { self.out.document(&json()) } else { self.out.print(&text()) };
        Ok(said?)
    }

    /// The same for the result of a command: with `-q` a good result is not printed.
    fn report_result(
        &mut self,
        exit: ExitKind,
        text: impl FnOnce() -> String,
        json: impl FnOnce() -> String,
    ) -> ExitKind {
        if self.globals.json || !self.is_suppressed(exit) {
            let doubt = self.env.clock_doubts.any();
            let said = self.report(text, || json::with_clock_doubt(json(), doubt.as_ref()));
            self.warn_if_unwritten(said);
        }
        exit
    }

    /// Warns about a report that cannot be written. This does not change what was done, which the exit code tells.
    fn warn_if_unwritten(&self, said: Result<(), impl Shown>) {
        if let Err(error) = said
            && !self.out.reader_left()
        {
            let text = format!("{error}: the work is done, only its report is lost");
            terminal::write_error(&terminal::error_page().wrap("warning: ", 2, &text));
        }
    }

    /// Whether `-q` suppresses a result: a success, or a skip because the node is not active.
    fn is_suppressed(&self, exit: ExitKind) -> bool {
        self.globals.quiet && matches!(exit, ExitKind::Done | ExitKind::NotActive)
    }
}

/// Runs the command and returns how the program ends.
pub async fn run(cli: Cli) -> ExitKind {
    let globals = cli.globals;
    let style = progress::mode(globals.json, globals.quiet, terminal::errors_are_seen());
    let bars = progress::bars(style);
    let long_running = matches!(cli.command, CliCommand::Daemon(_));
    log::start(globals.verbose, globals.quiet, long_running, bars.clone());
    let cancel = CancelToken::new();
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
        Ok(()) => Box::pin(dispatch(&mut session, cli.command)).await,
        Err(e) => Err(e.into()),
    };
    let exit = finish(&mut session, result, role.as_ref());
    // A signal is the normal end of a daemon.
    if cancel.is_cancelled() && !long_running { exit.interrupted() } else { exit }
}

/// Prints the error, if there is one.
fn finish(session: &mut CliSession, result: Result<ExitKind, Error>, role: Option<&RoleName>) -> ExitKind {
    let error = match result {
        Ok(exit) => return exit,
        // The output failed because its reader has gone: head(1) has what it wanted.
        Err(_) if session.out.reader_left() => return ExitKind::Done,
        Err(error) => error,
    };
    let (exit, hint) = error::exit_and_hint(error.as_ref());
    let hint = hint.map(|hint| error::hint_for_role(hint, role));
    terminal::write_error(&error::render(error.as_ref(), hint.as_deref(), terminal::error_page()));
    if session.globals.json && !session.out.is_used() {
        let _ = session.out.document(&json::error(error.as_ref(), exit, hint.as_deref()));
    }
    exit
}

async fn dispatch(session: &mut CliSession, command: CliCommand) -> Result<ExitKind, Error> {
    match command {
        CliCommand::Init(args) => init(session, &args).await,
        CliCommand::Backup(args) => backup(session, &args).await,
        CliCommand::Snapshots(args) => snapshots(session, &args).await,
        CliCommand::Ls(args) => Box::pin(ls(session, &args)).await,
        CliCommand::Cat(args) => Box::pin(cat(session, &args)).await,
        CliCommand::Find(args) => Box::pin(find(session, &args)).await,
        CliCommand::Diff(args) => Box::pin(diff(session, &args)).await,
        CliCommand::Restore(args) => Box::pin(restore(session, &args)).await,
        CliCommand::Verify(args) => verify(session, &args).await,
        CliCommand::Whoami(args) => whoami(session, &args).await,
        CliCommand::Status => status(session).await,
        CliCommand::Audit(args) => Box::pin(audit(session, &args)).await,
        CliCommand::IsActive(args) => Ok(is_active(session, &args).await),
        CliCommand::Exec(args) => exec(session, &args).await,
        CliCommand::Daemon(args) => daemon(session, &args).await,
        CliCommand::Prune(args) => prune(session, &args).await,
        CliCommand::Repair(args) => repair(session, &args).await,
        CliCommand::Takeover(args) => {
            operate(session, &args.role, &wire::OperateAction::Takeover { force: args.force }).await
        }
        CliCommand::Pause(args) => {
            operate(session, &args.role, &wire::OperateAction::Pause { lasts: args.lasts, why: args.why }).await
        }
        CliCommand::Resume(args) => operate(session, &args.role, &wire::OperateAction::Resume).await,
        CliCommand::Key(args) => key(session, &args).await,
        CliCommand::Journal(verbs::JournalCommand::Show(args)) => journal(session, &args).await,
        CliCommand::Journal(verbs::JournalCommand::Adopt(args)) => {
            operate(session, &args.role, &wire::OperateAction::Adopt).await
        }
        CliCommand::Journal(verbs::JournalCommand::Amend(args)) => {
            operate(session, &args.role, &wire::OperateAction::Amend { force: args.force }).await
        }
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

/// Runs work that changes nothing and may end anywhere, until it is done or the operator interrupts it.
pub async fn until_cancelled<T>(
    cancel: &CancelToken,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::select! {
        result = work => result,
        () = cancel.cancelled() => Err(Interrupted.into()),
    }
}

/// Warns about files of these settings that other users of this host can change, or read although they are secret. Only
/// a person can correct that.
fn warn_of_exposures(settings: &Settings) {
    for exposure in settings.exposures() {
        tracing::warn!("{exposure}. {ADVICE}{}", exposure.remedy());
    }
}

async fn init(session: &mut CliSession, args: &verbs::InitArgs) -> Result<ExitKind, Error> {
    let context = session.context(settings::from_file(&session.globals)?);
    warn_of_exposures(&context.settings);
    let mut report = InitReport { roles: Vec::new(), new_identity: None };
    if args.new_identity {
        report.new_identity = Some(wire::new_identity(&context)?);
    }
    let asked = settings::roles(&context.settings, &args.roles)?;
    for &role in &asked {
        match wire::init(&context, role, args.new).await {
            Ok(done) => report.roles.push(done),
            Err(error) => {
                // The key of a repository that was created must be copied: print this before the error.
                if !session.globals.json && !report.roles.is_empty() {
                    session.out.print(&render::setup::init(&report, terminal::output_page()))?;
                }
                return Err(error);
            }
        }
    }
    // A created key is printed before anything else can fail.
    let exit = session.report_result(
        ExitKind::Done,
        || render::setup::init(&report, terminal::output_page()),
        || json::init(&report),
    );
    match open::store(&context).await {
        Ok(store) => open::warn_of_versioning(&context, store.as_ref(), &asked).await,
        Err(error) => tracing::warn!("it cannot be asked whether the bucket keeps versions: {error}"),
    }
    Ok(exit)
}

async fn backup(session: &mut CliSession, args: &verbs::BackupArgs) -> Result<ExitKind, Error> {
    let direct = match (&args.direct.store, args.source.is_empty()) {
        (Some(url), false) => Some(url),
        (None, true) => None,
        // Clap refuses sources without a store.
        (Some(_), true) | (None, false) => {
            return Err(UsageError {
                message: "--store without --source".to_owned(),
                hint: "say what to back up: --source DIR, or leave --store out to use the config.".to_owned(),
            }
            .into());
        }
    };
    let settings = match direct {
        Some(url) => {
            let role = match &args.role {
                Some(role) => role.clone(),
                None => DIRECT_ROLE.parse()?,
            };
            settings::from_flags(&args.direct, url, &role, &args.source, &args.exclude)?
        }
        None => settings::from_file(&session.globals)?,
    };
    let context = session.context(settings);
    let roles = settings::roles(&context.settings, &args.roles)?;

    let mut created = Vec::new();
    if direct.is_some() {
        // The form without config initialises an empty store.
        for role in &roles {
            created.push(wire::init(&context, role, args.new).await?);
        }
        created.retain(|role| role.created);
        if !created.is_empty() && !session.globals.json && !session.globals.quiet {
            let report = InitReport { roles: created.clone(), new_identity: None };
            session.out.print(&format!("{}\n", render::setup::init(&report, terminal::output_page())))?;
        }
    }
    let mut reports = Vec::new();
    let mut worst = ExitKind::Done;
    for role in roles {
        if context.cancel.is_cancelled() {
            worst = ExitKind::Interrupted;
            break;
        }
        let (report, exit) = match wire::backup(&context, role, args).await {
            Ok((report, exit)) => {
                let exit = exit.unwrap_or_else(|| exit::of_backup_role(&report, args.require_active));
                (report, exit)
            }
            Err(error) => error::report(&role.name, error.as_ref()),
        };
        worst = worst.or_worse(exit);
        // Print each role at once: an operator who stops the run later still learns about the first.
        match report.outcome {
            _ if session.globals.json || session.is_suppressed(exit) => {}
            // `runner backup > /dev/null` in a crontab must still show failures.
            RunOutcome::Failed | RunOutcome::Fenced | RunOutcome::Unknown => {
                terminal::write_error(&render::backup::role(&report, &context.view_on(terminal::report_page())));
            }
            _ => {
                let said = session.out.print(&render::backup::role(&report, &context.view()));
                session.warn_if_unwritten(said);
            }
        }
        reports.push(report);
    }
    if session.globals.json {
        let said = session.out.document(&json::backup(&created, &reports));
        session.warn_if_unwritten(said);
    }
    Ok(worst)
}

async fn snapshots(session: &mut CliSession, args: &verbs::SnapshotsArgs) -> Result<ExitKind, Error> {
    let context = session.context(settings::for_role(&session.globals, &args.direct, &args.role)?);
    let role = settings::role(&context.settings, &args.role)?;
    let archive = until_cancelled(&context.cancel, open::read_only_from_listing(&context, role)).await?;
    let list = wire::snapshots(&archive);
    session.report(
        || render::snapshots::list(&list, archive.doubt().is_some(), &context.view()),
        || json::snapshots(&list, &json::journal_doubt(archive.doubt())),
    )?;
    // A snapshot can be chosen from what is left, by ID; the list is incomplete.
    open::require_complete_journal(&archive)?;
    Ok(ExitKind::Done)
}

/// The fields before a list from inside a snapshot.
fn heading(role: &RoleSettings, snapshot: Option<&Snapshot>, archive: &ReadOnlyRepository) -> Value {
    json!({ "role": role.name, "snapshot": snapshot.map(|s| s.id), "doubt": json::journal_doubt(archive.doubt()) })
}

async fn ls(session: &mut CliSession, args: &verbs::LsArgs) -> Result<ExitKind, Error> {
    let context = session.context(settings::for_role(&session.globals, &args.direct, &args.role)?);
    let (role, view) = (settings::role(&context.settings, &args.role)?, context.view());
    Box::pin(until_cancelled(&context.cancel, async {
        let archive = open::read_only(&context, role).await?;
        let snapshot = open::select_snapshot(&context, &archive, args.selector())?;
        let head = heading(role, Some(snapshot), &archive);
        let mut list = ListOutput::open(&mut session.out, session.globals.json, &head, "entries")?;
        let mut each = |e: &_| list.item(|| render::browse::entry(e, args.long, &view), || json::entry(e));
        let read = wire::ls(&archive, snapshot, args, &mut each).await;
        open::note_reader_losses(&context, &archive).await;
        read?;
        Ok(list.finish("", &json!({}))?)
    }))
    .await?;
    Ok(ExitKind::Done)
}

async fn cat(session: &mut CliSession, args: &verbs::CatArgs) -> Result<ExitKind, Error> {
    let context = session.context(settings::for_role(&session.globals, &args.direct, &args.role)?);
    let role = settings::role(&context.settings, &args.role)?;
    Box::pin(until_cancelled(&context.cancel, async {
        let archive = open::read_only(&context, role).await?;
        let snapshot = open::select_snapshot(&context, &archive, &args.snapshot)?;
        let read = wire::cat(&archive, snapshot, args, &mut session.out).await;
        open::note_reader_losses(&context, &archive).await;
        read?;
        Ok(session.out.print("")?)
    }))
    .await?;
    Ok(ExitKind::Done)
}

async fn find(session: &mut CliSession, args: &verbs::FindArgs) -> Result<ExitKind, Error> {
    let context = session.context(settings::for_role(&session.globals, &args.direct, &args.role)?);
    let (role, view) = (settings::role(&context.settings, &args.role)?, context.view());
    Box::pin(until_cancelled(&context.cancel, async {
        let archive = open::read_only(&context, role).await?;
        let snapshot =
            if args.snapshot == ALL { None } else { Some(open::select_snapshot(&context, &archive, &args.snapshot)?) };
        let head = heading(role, snapshot, &archive);
        let mut list = ListOutput::open(&mut session.out, session.globals.json, &head, "entries")?;
        let mut each = |hit: &_| list.item(|| render::browse::found_entry(hit, args.long, &view), || json::found(hit));
        let read = wire::find(&archive, snapshot, args, &mut each).await;
        open::note_reader_losses(&context, &archive).await;
        read?;
        list.finish("", &json!({}))?;
        // The search covered what is left; the rest may have had matches.
        if snapshot.is_none() { open::require_complete_journal(&archive) } else { Ok(()) }
    }))
    .await?;
    Ok(ExitKind::Done)
}

async fn diff(session: &mut CliSession, args: &verbs::DiffArgs) -> Result<ExitKind, Error> {
    let context = session.context(settings::for_role(&session.globals, &args.direct, &args.role)?);
    let role = settings::role(&context.settings, &args.role)?;
    Box::pin(until_cancelled(&context.cancel, async {
        let archive = open::read_only(&context, role).await?;
        let before = open::select_snapshot(&context, &archive, &args.before)?;
        let after = open::select_snapshot(&context, &archive, &args.after)?;
        let head = json!({
            "role": role.name, "before": before.id, "after": after.id, "doubt": json::journal_doubt(archive.doubt()),
        });
        let mut counts = DiffCounts::default();
        let mut list = ListOutput::open(&mut session.out, session.globals.json, &head, "changes")?;
        let mut each = |line: &DiffLine| {
            counts.add(line.change);
            list.item(|| render::browse::diff(line), || json::diff(line))
        };
        let read = wire::diff(&archive, [before, after], args, &mut each).await;
        open::note_reader_losses(&context, &archive).await;
        read?;
        Ok(list.finish(&render::browse::diff_total(&counts), &json::diff_total(&counts))?)
    }))
    .await?;
    Ok(ExitKind::Done)
}

async fn restore(session: &mut CliSession, args: &verbs::RestoreArgs) -> Result<ExitKind, Error> {
    if let Some(second) = &args.second {
        let (what, role) = (format!("restore takes one role, and no further argument {second:?}"), &args.role);
        let todo = format!("name the snapshot with --snapshot: runner restore {role} --snapshot {second} --target DIR");
        return Err(UsageError { message: what, hint: todo }.into());
    }
    let context = session.context(settings::for_role(&session.globals, &args.direct, &args.role)?);
    let role = settings::role(&context.settings, &args.role)?;
    // A file gets its name only when it is complete, so a restore may end anywhere.
    let (report, doubt) = Box::pin(until_cancelled(&context.cancel, async {
        if args.salvage {
            return Ok((Box::pin(wire::salvage(&context, role, args)).await?, Value::Null));
        }
        let archive = open::read_only(&context, role).await?;
        let snapshot = open::select_snapshot(&context, &archive, &args.snapshot)?;
        let restored = Box::pin(wire::restore(&context, &archive, snapshot, args)).await;
        open::note_reader_losses(&context, &archive).await;
        Ok((restored?, json::journal_doubt(archive.doubt())))
    }))
    .await?;
    let exit = exit::of_restore(&report);
    Ok(session.report_result(
        exit,
        || render::restored::report(&report, &context.view()),
        || json::restore(&report, &doubt),
    ))
}

async fn verify(session: &mut CliSession, args: &verbs::VerifyArgs) -> Result<ExitKind, Error> {
    let context = session.context(settings::for_role(&session.globals, &args.direct, &args.role)?);
    let role = settings::role(&context.settings, &args.role)?;
    let report = until_cancelled(&context.cancel, wire::verify(&context, role, args)).await?;
    let exit = exit::of_verify(&report);
    Ok(session.report_result(
        exit,
        || render::verified::report(&report, terminal::output_page()),
        || json::verify(&report),
    ))
}

async fn repair(session: &mut CliSession, args: &verbs::RepairArgs) -> Result<ExitKind, Error> {
    let context = session.context(settings::for_role(&session.globals, &args.direct, &args.role)?);
    let role = settings::role(&context.settings, &args.role)?;
    let report = wire::repair(&context, role, args).await?;
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

async fn prune(session: &mut CliSession, args: &verbs::PruneArgs) -> Result<ExitKind, Error> {
    let context = session.context(settings::from_file(&session.globals)?);
    let role = settings::role(&context.settings, &args.role)?;
    let view = context.view();
    match wire::prune(&context, role, args.dry_run).await? {
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
            let (report, reason) = *refused;
            let why =
                reason.map(|reason| render::reason::text(&reason, &context.settings.timezone)).unwrap_or_default();
            let exit = exit::of_backup_role(&report, false);
            Ok(session.report_result(
                exit,
                || render::pruned::refused(&role.name, &why, &view),
                || json::pruned::refused(&report, &why),
            ))
        }
    }
}

async fn whoami(session: &mut CliSession, args: &verbs::WhoamiArgs) -> Result<ExitKind, Error> {
    let context = session.context(settings::from_file(&session.globals)?);
    let roles = settings::roles(&context.settings, args.role.as_slice())?;
    if args.watch {
        return match watch(session, &context, &roles).await {
            Err(error) if error.is::<Interrupted>() => Ok(ExitKind::Interrupted),
            ended => ended,
        };
    }
    let report = until_cancelled(&context.cancel, wire::whoami(&context, &roles)).await?;
    let view = context.view();
    let (line, health) = render::check::check(&report, &view);
    session.report(
        || if args.check { line } else { render::whoami::report(&report, &view) },
        || json::whoami::report(&report),
    )?;
    Ok(if args.check { ExitKind::Plugin(health) } else { ExitKind::Done })
}

/// Prints the report repeatedly, on a terminal in the same place. An interrupt is its normal end.
async fn watch(session: &mut CliSession, context: &CommandContext, roles: &[&RoleSettings]) -> Result<ExitKind, Error> {
    if session.globals.json {
        return Err(UsageError {
            message: "--watch together with --json".to_owned(),
            hint: "--watch does not end, and a JSON document has to: leave one of them out.".to_owned(),
        }
        .into());
    }
    loop {
        let report = until_cancelled(&context.cancel, wire::whoami(context, roles)).await?;
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

async fn status(session: &mut CliSession) -> Result<ExitKind, Error> {
    let context = session.context(settings::from_file(&session.globals)?);
    let roles = settings::roles(&context.settings, &[])?;
    let report = until_cancelled(&context.cancel, wire::whoami(&context, &roles)).await?;
    session.report(|| render::status::text(&report, &context.view()), || json::whoami::report(&report))?;
    Ok(ExitKind::Done)
}

async fn audit(session: &mut CliSession, args: &verbs::AuditArgs) -> Result<ExitKind, Error> {
    let context = session.context(settings::from_file(&session.globals)?);
    let roles = settings::roles(&context.settings, &args.roles)?;
    let back = SignedDuration::try_from(args.since).unwrap_or(SignedDuration::MAX);
    let since = context.env.clock.now().checked_sub(back).unwrap_or(Timestamp::MIN);
    let mut all = Vec::new();
    for role in roles {
        // One role's error does not suppress the reports of the others.
        let result = until_cancelled(&context.cancel, wire::audit(&context, role, since)).await;
        let result = match result {
            Err(error) if error.is::<Interrupted>() => return Err(error),
            result => result.map_err(|error| error::with_causes_and_hint(error.as_ref(), &role.name)),
        };
        all.push(RoleAuditResult { role: role.name.clone(), since, result });
    }
    let exit = all.iter().map(exit::of_audit).fold(ExitKind::Done, ExitKind::or_worse);
    Ok(session.report_result(exit, || render::audited::report(&all, &context.view()), || json::audit::report(&all)))
}

/// Prints errors only. A script must never take a failure for an answer, so every failure except wrong usage and an
/// interrupt exits as unknown.
async fn is_active(session: &mut CliSession, args: &verbs::IsActiveArgs) -> ExitKind {
    let asked: Result<RoleState, Error> = async {
        let context = session.context(settings::from_file(&session.globals)?);
        let role = settings::role(&context.settings, &args.role)?;
        until_cancelled(&context.cancel, async { Ok(Box::pin(wire::is_active(&context, role)).await) }).await
    }
    .await;
    match asked {
        Ok(state) => exit::of_is_active(state),
        Err(error) => {
            let (exit, hint) = error::exit_and_hint(error.as_ref());
            terminal::write_error(&error::render(error.as_ref(), hint.as_deref(), terminal::error_page()));
            if matches!(exit, ExitKind::Usage | ExitKind::Interrupted) { exit } else { ExitKind::Unknown }
        }
    }
}

/// Prints nothing if the command ran: its output is what counts.
async fn exec(session: &mut CliSession, args: &verbs::ExecArgs) -> Result<ExitKind, Error> {
    let context = session.context(settings::from_file(&session.globals)?);
    let role = settings::role(&context.settings, &args.role)?;
    let executed = wire::exec(&context, role, args).await?;
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

async fn daemon(session: &mut CliSession, args: &verbs::DaemonArgs) -> Result<ExitKind, Error> {
    let context = session.context(settings::from_file(&session.globals)?);
    warn_of_exposures(&context.settings);
    wire::daemon(&context, session.globals.clone(), args.observe).await?;
    Ok(ExitKind::Done)
}

async fn operate(session: &mut CliSession, role: &RoleName, act: &wire::OperateAction) -> Result<ExitKind, Error> {
    let context = session.context(settings::from_file(&session.globals)?);
    let settings = settings::role(&context.settings, role)?;
    // Not interruptible: the result of an operator's act must be reported.
    let acted = wire::operate(&context, settings, act).await?;
    let undone = matches!(acted.change, RoleChange::ClockOff { .. } | RoleChange::OwnClockSuspect(_));
    let exit = if undone { ExitKind::Unknown } else { ExitKind::Done };
    Ok(session.report_result(
        exit,
        || render::operated::report(&acted, &context.view()),
        || json::operate_report(&acted),
    ))
}

async fn key(session: &mut CliSession, args: &verbs::KeyCommand) -> Result<ExitKind, Error> {
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
    match wire::key(&context, role, args, &mut session.out).await? {
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

async fn journal(session: &mut CliSession, args: &verbs::JournalShowArgs) -> Result<ExitKind, Error> {
    let context = session.context(settings::for_role(&session.globals, &args.direct, &args.role)?);
    let role = settings::role(&context.settings, &args.role)?;
    let (archive, lines) = until_cancelled(&context.cancel, async {
        let archive = open::read_only(&context, role).await?;
        let lines = wire::journal(&archive, args.last).await?;
        Ok((archive, lines))
    })
    .await?;
    session.report(
        || render::journal::lines(&lines, &context.view()),
        || json::journal(&role.name, &lines, &json::journal_doubt(archive.doubt())),
    )?;
    open::require_complete_journal(&archive)?;
    let lost = lines.into_iter().find_map(|line| match line {
        JournalEntry::Lost { error, .. } => Some(error),
        _ => None,
    });
    lost.map_or(Ok(ExitKind::Done), |error| Err(error.into()))
}
