//! What commands get from the program: settings, node, clocks, output.

use std::fmt::Display as Shown;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use indicatif::MultiProgress;
use tokio_util::sync::CancellationToken;

use crate::cli::args::GlobalArgs;
use crate::cli::command_error::{CommandError, Interrupted};
use crate::cli::exit::ExitKind;
use crate::cli::output::CommandOutput;
use crate::cli::progress::{ProgressDisplay, ProgressMode};
use crate::cli::render::RenderContext;
use crate::cli::render::layout::PageLayout;
use crate::cli::{json, terminal};
use crate::config::Settings;
use crate::daemon::client::{ClientError, DaemonClient};
use crate::env::{self, Env};
use crate::ids::NodeId;
use crate::job::local_state::process_memory::ProcessMemory;
use crate::job::node::context::{NodeContext, NodeInputs};
use crate::job::node::leases::LeaseSessions;
use crate::job::node::progress::JobProgress;
use crate::journal::body::WriterNode;
use crate::role::identity::{self, IdentityOrigin, NodeIdentity, open_state_dir};
use crate::text::ADVICE;

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
    pub cancel: CancellationToken,
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
    pub(crate) fn view(&self) -> RenderContext {
        self.view_on(terminal::output_page())
    }

    pub(crate) fn view_on(&self, page: PageLayout) -> RenderContext {
        RenderContext { zone: self.settings.timezone.clone(), now: self.env.clock.now(), page }
    }
}

/// A node with a configured state directory has its socket there as well: several nodes may share a host.
pub(crate) fn runtime_dir(state_dir: Option<&Path>, root: bool, of_user: Option<PathBuf>) -> PathBuf {
    match (state_dir, root, of_user) {
        (Some(dir), _, _) => dir.to_owned(),
        (None, false, Some(dir)) => dir.join("runner"),
        (None, _, _) => PathBuf::from("/run/runner"),
    }
}

/// How long the daemon's answer with the node's ID is waited for; it answers from memory. Commands that only read use
/// the shorter time, and continue without an answer.
const IDENTITY_PATIENCE: Duration = Duration::from_secs(5);

/// This node's context, with its identity created if there is none.
pub(crate) async fn node_context(
    context: &CommandContext,
    progress: Arc<JobProgress>,
) -> Result<NodeContext, CommandError> {
    Ok(open_node(context, progress).await?.0)
}

/// This node's ID as its daemon knows it, which is right even if the state directory was deleted or replaced. `None`:
/// no daemon runs.
pub(crate) async fn daemon_node_id(
    context: &CommandContext,
    patience: Duration,
) -> Result<Option<NodeId>, ClientError> {
    match DaemonClient::find(&context.runtime_dir()).await? {
        Some(daemon) => daemon.node(patience).await.map(Some),
        None => Ok(None),
    }
}

pub(crate) async fn open_node(
    context: &CommandContext,
    progress: Arc<JobProgress>,
) -> Result<(NodeContext, NodeIdentity), CommandError> {
    let told = daemon_node_id(context, IDENTITY_PATIENCE).await;
    let state_dir = open_state_dir(context.state_dir.as_deref())?;
    let (name, env) = (context.node.as_deref(), &context.env);
    let node = match told {
        Ok(Some(id)) => NodeIdentity::from_daemon(id, name, env),
        Ok(None) => NodeIdentity::open(&state_dir, name, env)?,
        // If the daemon does not answer, the identity in the state directory may be used, but no new one may be
        // created.
        Err(error) if identity::peek_identity(Some(&state_dir), name).0.is_some() => {
            tracing::debug!("the daemon does not tell the node ID: {error}");
            NodeIdentity::open(&state_dir, name, env)?
        }
        Err(error) => return Err(error.into()),
    };
    if let IdentityOrigin::OtherMachine { was } = node.origin {
        tracing::warn!(
            "the state directory belongs to another machine (node {was}); this machine is node {} from now on",
            node.id
        );
    }
    let sessions = LeaseSessions::new(&context.settings, &context.env, &node);
    let node_context = NodeContext {
        leases: sessions,
        env: context.env.clone(),
        node: WriterNode { id: node.id, name: node.label.clone() },
        instance: node.instance,
        state_dir,
        cancel: context.cancel.clone(),
        progress,
        config_hash: context.settings.hash.clone(),
        memory: ProcessMemory::default(),
        inputs: NodeInputs::default(),
    };
    Ok((node_context, node))
}

/// State of the program before the settings are read.
pub(crate) struct CliSession {
    pub(super) globals: GlobalArgs,
    pub(super) env: Env,
    pub(super) cancel: CancellationToken,
    pub(super) style: ProgressMode,
    pub(super) bars: MultiProgress,
    pub(super) out: CommandOutput,
}

impl CliSession {
    pub(crate) fn context(&self, settings: Settings) -> CommandContext {
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
    pub(super) fn report(
        &mut self,
        text: impl FnOnce() -> String,
        json: impl FnOnce() -> String,
    ) -> Result<(), CommandError> {
        let said = if self.globals.json { self.out.document(&json()) } else { self.out.print(&text()) };
        Ok(said?)
    }

    /// The same for the result of a command: with `-q` a good result is not printed.
    pub(crate) fn report_result(
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
    pub(crate) fn warn_if_unwritten(&self, said: Result<(), impl Shown>) {
        if let Err(error) = said
            && !self.out.reader_left()
        {
            let text = format!("{error}: the work is done, only its report is lost");
            terminal::write_error(&terminal::error_page().wrap("warning: ", 2, &text));
        }
    }

    /// Whether `-q` suppresses a result: a success, or a skip because the node is not active.
    pub(crate) fn is_suppressed(&self, exit: ExitKind) -> bool {
        self.globals.quiet && matches!(exit, ExitKind::Done | ExitKind::NotActive)
    }
}

/// Runs work that changes nothing and may end anywhere, until it is done or the operator interrupts it.
pub(crate) async fn until_cancelled<T>(
    cancel: &CancellationToken,
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    tokio::select! {
        result = work => result,
        () = cancel.cancelled() => Err(Interrupted.into()),
    }
}

/// Warns about files of these settings that other users of this host can change, or read although they are secret. Only
/// a person can correct that.
pub(crate) fn warn_of_exposures(settings: &Settings) {
    for exposure in settings.exposures() {
        tracing::warn!("{exposure}. {ADVICE}{}", exposure.remedy());
    }
}
