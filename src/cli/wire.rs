//! The connection between command line and jobs: one function for each verb. It turns arguments into the job's request
//! and returns its report.

mod exec;
mod key;

use std::future::Future;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

pub use self::exec::exec;
pub use self::key::key;
use super::args::{GlobalArgs, verbs};
use super::error::{Error, Interrupted, UsageError};
use super::exit::ExitKind;
use super::log_observer::{AlertTextFormatter, LogObserver};
use super::progress::ProgressDisplay;
use super::run::{CommandContext, until_cancelled};
use super::{open, render};
use crate::alert::dispatcher::AlertDispatcher;
use crate::alert::monitor::AlertMonitor;
use crate::config::{NotifySettings, RoleSettings, StoreUrl};
use crate::daemon::client::{ClientError, DaemonClient};
use crate::daemon::oneshot::{self, OneshotObserver};
use crate::daemon::{self, DaemonParams, TELL_PATIENCE};
use crate::file::access::{self, FileExposure};
use crate::ids::{InstanceId, NodeId, RoleName};
use crate::job::admission::reason::NoCommitReason;
use crate::job::admission::{guard, lease};
use crate::job::audit::AuditingNode;

use crate::job::backup::request::BackupRequest;

use crate::job::browse::error::ItemCallback;
use crate::job::error::{BackupError, GuardError};
use crate::job::local_state::LocalState;
use crate::job::local_state::process_memory::ProcessMemory;
use crate::job::node::context::{NodeContext, NodeInputs};
use crate::job::node::leases::LeaseSessions;
use crate::job::node::progress::JobProgress;
use crate::job::operate::adopt::adopt;
use crate::job::operate::{self, OperateReport, OperatorContext};
use crate::job::prune::{self, PruneOutcome};
use crate::job::repair::RepairRequest;
use crate::job::repair::recovery::RecoveryInputs;
use crate::job::report::RoleReport;
use crate::job::report::audited::AuditReport;
use crate::job::report::browse::{DiffLine, FindMatch};
use crate::job::report::repaired::RepairReport;
use crate::job::report::restored::RestoredSnapshot;
use crate::job::report::setup::InitRoleReport;
use crate::job::report::snapshot::SnapshotInfo;
use crate::job::report::verified::VerifyReport;
use crate::job::report::whoami::{RoleState, WhoamiReport};
use crate::job::repository::journal_access::JournalAccess;
use crate::job::repository::known_repository::{self, RepositoryLocation};
use crate::job::repository::open::OpenError;
use crate::job::repository::read_only::{JournalEntry, ReadOnlyRepository, snapshot_info};
use crate::job::restore::options::{OverwritePolicy, RestoreOptions};
use crate::job::restore::{self, RepositorySource};
use crate::job::whoami::WhoamiRequest;
use crate::job::whoami::daemon_answer::DaemonAnswer;
use crate::job::{self, browse, verify};
use crate::journal::body::WriterNode;

use crate::journal::state::Snapshot;
use crate::journal::view::JournalView;

use crate::repo::entry::{ManifestEntry, TreePath};
use crate::role::identity::{self, IdentityOrigin, NodeIdentity, find_state_dir, open_state_dir};
use crate::store::{Store, StoreError, StoreErrorKind};

/// How long the daemon's answer with the node's ID is waited for; it answers from memory. Commands that only read use
/// the shorter time, and continue without an answer.
const IDENTITY_PATIENCE: Duration = Duration::from_secs(5);
const IDENTITY_GLANCE: Duration = Duration::from_millis(300);

/// Creates one role's repository, or finds it. `new` also allows it where this node knows one that is gone, or another
/// one than is there.
pub async fn init(context: &CommandContext, role: &RoleSettings, new: bool) -> Result<InitRoleReport, Error> {
    let (settings, env) = (&context.settings.store, &context.env);
    let place = RepositoryLocation::new(settings, &role.name);
    let state_dir = find_state_dir(context.state_dir.as_deref()).ok().filter(|dir| dir.is_dir());
    if !new {
        let refuse = |store| job::repository::init::refuse_gone(store, &place, state_dir.as_deref(), env);
        match crate::store::connect(settings, env).await {
            Ok(store) => refuse(Some(store.as_ref())).await?,
            Err(error) if error.kind == StoreErrorKind::NoSuchStore => refuse(None).await?,
            Err(error) => return Err(error.into()),
        }
    }
    let store = crate::store::create(settings, env).await?;
    let journal_access = JournalAccess::connect(&context.settings);
    let (repository, report) =
        job::repository::init::init(store, &role.name, &role.key, &journal_access, &context.env).await?;
    lease::prove_lease_store(role, &repository, &context.env).await?;
    if let Some(state_dir) = &state_dir {
        if new {
            place.accept(env, state_dir, &repository);
        } else {
            place.remember(env, state_dir, &repository)?;
        }
    }
    Ok(InitRoleReport { shared: matches!(settings.url, StoreUrl::S3 { .. }), ..report })
}

/// Gives this node a new identity.
pub fn new_identity(context: &CommandContext) -> Result<NodeId, Error> {
    let state_dir = open_state_dir(context.state_dir.as_deref())?;
    Ok(identity::renew_identity(&state_dir, &context.env)?)
}

/// Backs one role up, if this node is active for it.
///
/// If a daemon runs on this node, it does the backup, because it has the role's lease. The exit code is given if the
/// report alone does not determine it.
pub async fn backup(
    context: &CommandContext,
    role: &RoleSettings,
    args: &verbs::BackupArgs,
) -> Result<(RoleReport, Option<ExitKind>), Error> {
    let (progress, display) = context.progress(role.name.as_str());
    let request = BackupRequest { scheduled: args.scheduled, rehash: args.rehash, require_active: args.require_active };
    if args.source.is_empty()
        && let Some(daemon) = DaemonClient::find(&context.runtime_dir()).await?
    {
        if args.scheduled && role.schedule.is_none() {
            return Err(no_schedule(&role.name));
        }
        let done =
            until_cancelled(&context.cancel, async { Ok(daemon.back_up(&role.name, request, &progress).await?) });
        let (report, exit) = done.await?;
        // The daemon's log is in another place.
        if let Some(news) = context.env.clock_doubts.record(&role.name, report.clock_doubt.clone()) {
            tracing::warn!("role {}: {}", role.name, news.with_hint());
        }
        return Ok((report, exit.map(ExitKind::of_code)));
    }
    let node_context = node_context(context, progress).await?;
    let connect = connect_store(context);
    let observer = AlertingObserver::new(context, &node_context, role, Some(display))?;
    let done = Box::pin(oneshot::back_up(&node_context, &context.settings, role, &connect, request, &observer)).await;
    observer.close().await;
    match done {
        Ok((report, reason)) => Ok((with_reason_text(context, report, reason.as_ref()), None)),
        Err(GuardError::Backup(BackupError::Interrupted)) => Err(Interrupted.into()),
        Err(GuardError::NoSchedule { role }) => Err(no_schedule(&role)),
        Err(error) => Err(error.into()),
    }
}

/// Connects to the store of the config.
fn connect_store<'a>(
    context: &'a CommandContext,
) -> impl Fn() -> BoxFuture<'a, Result<Arc<dyn Store>, StoreError>> + Send + Sync + use<'a> {
    || Box::pin(crate::store::connect(&context.settings.store, &context.env))
}

/// The report with the reason in words.
fn with_reason_text(context: &CommandContext, report: RoleReport, reason: Option<&NoCommitReason>) -> RoleReport {
    let words = reason.map(|reason| render::reason::text(reason, &context.settings.timezone));
    RoleReport { reason: words, ..report }
}

/// Reports a one-shot run to the alert monitor.
struct AlertingObserver<'a> {
    context: &'a CommandContext,
    role: &'a RoleSettings,
    dispatcher: Arc<AlertDispatcher>,
    monitor: AlertMonitor,
    /// Taken away before the first message after the run.
    display: Mutex<Option<ProgressDisplay>>,
}

impl<'a> AlertingObserver<'a> {
    fn new(
        context: &'a CommandContext,
        node_context: &NodeContext,
        role: &'a RoleSettings,
        display: Option<ProgressDisplay>,
    ) -> Result<Self, Error> {
        let dispatcher = Arc::new(alert_dispatcher(context, node_context, &context.settings.notify));
        let plan = known_repository::slot_plan(&context.settings, role, &context.env, &node_context.state_dir)?;
        let monitor = AlertMonitor::new(Arc::clone(&dispatcher), node_context, role, plan);
        Ok(Self { context, role, dispatcher, monitor, display: Mutex::new(display) })
    }

    /// Waits until the alerts are delivered or kept.
    async fn close(&self) {
        self.dispatcher.close(TELL_PATIENCE).await;
    }

    fn end_display(&self) {
        drop(self.display.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl OneshotObserver for AlertingObserver<'_> {
    fn run_begins(&self, view: &JournalView, slot: Option<Timestamp>) {
        self.monitor.run_begins(view, slot);
    }

    fn run_ended(&self, report: &RoleReport, reason: Option<&NoCommitReason>) {
        self.end_display();
        self.monitor.run_ended(&with_reason_text(self.context, report.clone(), reason), reason);
    }

    fn run_failed(&self, error: &GuardError) -> bool {
        self.end_display();
        self.monitor.run_failed(error, &super::error::report(&self.role.name, error).0)
    }

    fn reports_missed_slots(&self) -> bool {
        !self.monitor.has_no_channels()
    }

    fn journal_read(&self, view: &JournalView) {
        self.monitor.journal_read(view);
    }

    fn journal_unread(&self, why: &str) {
        tracing::warn!("missed slots cannot be checked: {why}");
    }
}

fn alert_dispatcher(
    context: &CommandContext,
    node_context: &NodeContext,
    settings: &NotifySettings,
) -> AlertDispatcher {
    let words = Arc::new(AlertTextFormatter(context.settings.timezone.clone()));
    AlertDispatcher::new(settings, &node_context.state_dir, context.env.clone(), words)
}

/// This node's context, with its identity created if there is none.
async fn node_context(context: &CommandContext, progress: Arc<JobProgress>) -> Result<NodeContext, Error> {
    Ok(open_node(context, progress).await?.0)
}

/// This node's ID as its daemon knows it, which is right even if the state directory was deleted or replaced. `None`:
/// no daemon runs.
async fn daemon_node_id(context: &CommandContext, patience: Duration) -> Result<Option<NodeId>, ClientError> {
    match DaemonClient::find(&context.runtime_dir()).await? {
        Some(daemon) => daemon.node(patience).await.map(Some),
        None => Ok(None),
    }
}

async fn open_node(context: &CommandContext, progress: Arc<JobProgress>) -> Result<(NodeContext, NodeIdentity), Error> {
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

/// The usage error for `--scheduled` of a role without a schedule.
fn no_schedule(role: &RoleName) -> Error {
    UsageError {
        message: format!("role {role} has no schedule"),
        hint: format!("set schedule or every in [role.{role}], or leave --scheduled out."),
    }
    .into()
}

/// Runs the daemon until it is interrupted.
pub async fn daemon(context: &CommandContext, globals: GlobalArgs, observe: bool) -> Result<(), Error> {
    let (node_context, node) = open_node(context, Arc::default()).await?;
    let observer = Arc::new(LogObserver::new(globals, context.settings.timezone.clone(), context.env.clone()));
    let (settings, runtime_dir) = (context.settings.clone(), context.runtime_dir());
    // Observe mode only logs, and sends no alerts.
    let notify = if observe { NotifySettings::default() } else { settings.notify.clone() };
    let dispatcher = Arc::new(alert_dispatcher(context, &node_context, &notify));
    Ok(daemon::run(DaemonParams { node_context, node, settings, observer, alerts: dispatcher, observe, runtime_dir })
        .await?)
}

/// Prunes a role, if this node is active for it; a dry run is allowed on any node.
pub async fn prune(context: &CommandContext, role: &RoleSettings, dry_run: bool) -> Result<PruneOutcome, Error> {
    let zone = &context.settings.timezone;
    if dry_run {
        let archive = open::read_only(context, role).await?;
        open::require_complete_journal(&archive)?;
        let now = context.env.clock.now();
        let plan = prune::PrunePlan::make(&archive.repository, &archive.view, role, zone, now).await?;
        return Ok(PruneOutcome::Done(plan.report()));
    }
    let (progress, _display) = context.progress(&format!("prune {}", role.name));
    let mut node_context = node_context(context, progress).await?;
    if let Some(daemon) = DaemonClient::find(&context.runtime_dir()).await? {
        node_context.leases = node_context.leases.with_lender(Arc::new(daemon));
    }
    let connect = || crate::store::connect(&context.settings.store, &context.env);
    let pruned = Box::pin(prune::run(&node_context, &context.settings, role, connect)).await;
    node_context.leases.close().await;
    Ok(pruned?)
}

/// An operator's act on a role.
#[derive(Debug)]
pub enum OperateAction {
    /// Moves the role to this node.
    Takeover {
        /// Even if this node's probes do not say that it is active.
        force: bool,
    },
    /// Pauses the role.
    Pause {
        /// Duration of the pause; `None`: until a resume.
        lasts: Option<Duration>,
        /// The operator's reason.
        why: Option<String>,
    },
    /// Ends a pause.
    Resume,
    /// Makes the store's last record the head of the journal.
    Adopt,
    /// Takes back dates that lie in the future.
    Amend {
        /// Even if this node's clock is more likely to be the wrong one.
        force: bool,
    },
}

/// Performs an operator's act.
pub async fn operate(
    context: &CommandContext,
    role: &RoleSettings,
    act: &OperateAction,
) -> Result<OperateReport, Error> {
    let node_context = node_context(context, Arc::default()).await?;
    let opened = open::repository(context, role);
    let silent = || OpenError::Store(open::timeout_error(context, operate::PATIENCE));
    let repository = context.env.timeout(operate::PATIENCE, opened).await.unwrap_or_else(|| Err(silent().into()))?;
    known_repository::slot_plan(&context.settings, role, &context.env, &node_context.state_dir)?;
    let assessment = match act {
        OperateAction::Takeover { .. } => guard::run_probes(&node_context, role, None).await,
        _ => None,
    };
    let NodeContext { node, instance, state_dir, leases: sessions, .. } = node_context;
    let journal_access = sessions.journal_access().clone();
    let operator = OperatorContext { node, instance, env: &context.env, state_dir: Some(&state_dir), journal_access };
    let work = async {
        Ok::<OperateReport, Error>(match act {
            OperateAction::Takeover { force } => {
                operator.take_over(&repository, role, assessment.as_ref(), *force).await?
            }
            OperateAction::Pause { lasts, why } => {
                let until = lasts.map(|lasts| context.env.clock.now().checked_add(lasts)).transpose()?;
                operator.pause(&repository, until, why.clone()).await?
            }
            OperateAction::Resume => operator.resume(&repository).await?,
            OperateAction::Adopt => adopt(&operator, &repository).await?,
            OperateAction::Amend { force } => operator.amend(&repository, *force).await?,
        })
    };
    let acted = operate::with_timeout(
        &context.env,
        operate::PATIENCE,
        || repository.store.last_attempt_error(),
        Box::pin(work),
    )
    .await?;
    // The act is in the journal already; the daemon of this node only learns about it sooner.
    if let Ok(Some(daemon)) = DaemonClient::find(&context.runtime_dir()).await {
        daemon.notify_appended(&role.name).await;
    }
    Ok(acted)
}

/// An archive's snapshots, oldest first.
pub fn snapshots(archive: &ReadOnlyRepository) -> Vec<SnapshotInfo> {
    archive.snapshots().iter().map(|snapshot| snapshot_info(archive.role(), snapshot)).collect()
}

/// The entries of a snapshot.
pub async fn ls(
    archive: &ReadOnlyRepository,
    snapshot: &Snapshot,
    args: &verbs::LsArgs,
    each: ItemCallback<'_, ManifestEntry>,
) -> Result<(), Error> {
    let reader = archive.reader().await?;
    let path = args.below()?;
    Ok(browse::ls(&reader, snapshot.root, &path, args.recursive, each).await?)
}

/// One file's content.
pub async fn cat(
    archive: &ReadOnlyRepository,
    snapshot: &Snapshot,
    args: &verbs::CatArgs,
    out: &mut (dyn Write + Send),
) -> Result<(), Error> {
    Ok(browse::cat(&archive.reader().await?, snapshot.root, &args.path, out).await?)
}

/// The entries that match a pattern, in one snapshot or (`None`) in all.
pub async fn find(
    archive: &ReadOnlyRepository,
    snapshot: Option<&Snapshot>,
    args: &verbs::FindArgs,
    each: ItemCallback<'_, FindMatch>,
) -> Result<(), Error> {
    let snapshots = snapshot.map_or(archive.snapshots(), std::slice::from_ref);
    Ok(browse::find(&archive.reader().await?, snapshots, &args.pattern, each).await?)
}

/// The differences between two snapshots.
pub async fn diff(
    archive: &ReadOnlyRepository,
    between: [&Snapshot; 2],
    args: &verbs::DiffArgs,
    each: ItemCallback<'_, DiffLine>,
) -> Result<(), Error> {
    let path = args.path.clone().unwrap_or_default();
    Ok(browse::diff(&archive.reader().await?, between.map(|s| s.root), &path, each).await?)
}

/// Restores files from a snapshot.
pub async fn restore(
    context: &CommandContext,
    archive: &ReadOnlyRepository,
    snapshot: &Snapshot,
    args: &verbs::RestoreArgs,
) -> Result<RestoredSnapshot, Error> {
    let (progress, _display) = context.progress(&format!("restore {}", archive.role()));
    let source = RepositorySource::open(archive.clone(), snapshot.root).await?;
    let roots = source.roots().await?;
    let paths = browse::expand_to_roots(&args.paths, &roots);
    if paths.is_empty() {
        progress.total_bytes.store(snapshot.bytes, Ordering::Relaxed);
    }
    let overwrite = if args.trust_mtime { OverwritePolicy::IfChanged } else { args.overwrite.into() };
    let options = restore_options(args, roots, paths, overwrite);
    let entries = Box::new(source.entries(&options.paths));
    let report = restore::restore(Arc::new(source), entries, options, progress, &context.env).await?;
    let snapshot = snapshot_info(archive.role(), snapshot);
    Ok(RestoredSnapshot { snapshot, target: args.target.clone(), salvage: false, is_vouched_for: true, report })
}

/// Restores everything that is whole, whatever is lost, and names the rest.
pub async fn salvage(
    context: &CommandContext,
    role: &RoleSettings,
    args: &verbs::RestoreArgs,
) -> Result<RestoredSnapshot, Error> {
    let (progress, _display) = context.progress(&format!("restore {}", role.name));
    let state_dir = find_state_dir(context.state_dir.as_deref()).ok();
    let (place, journal_access) =
        (RepositoryLocation::new(&context.settings.store, &role.name), JournalAccess::connect(&context.settings));
    let step = recovery_inputs(context, role, &place, state_dir.as_deref(), &journal_access);
    let remains = Box::pin(job::repair::open_salvaged(open::store(context).await?, step)).await?;
    let archive = &remains.archive;
    let (snapshot, is_vouched_for) = open::select_salvaged_snapshot(context, &remains, &args.snapshot)?;
    let reader = remains.reader(is_vouched_for).await?;
    let source = RepositorySource::salvage(archive.clone(), snapshot.root, reader);
    // If the whole list of entries is lost, nothing is restored.
    let roots = source.roots().await.unwrap_or_else(|_| vec![TreePath::default()]);
    let paths = browse::expand_to_roots(&args.paths, &roots);
    let options = restore_options(args, roots, paths, args.overwrite.into());
    let entries = Box::new(source.entries(&options.paths));
    let mut report = restore::restore(Arc::new(source.clone()), entries, options, progress, &context.env).await?;
    report.add_lost(source.lost());
    let snapshot = snapshot_info(archive.role(), snapshot);
    Ok(RestoredSnapshot { snapshot, target: args.target.clone(), salvage: true, is_vouched_for, report })
}

fn restore_options(
    args: &verbs::RestoreArgs,
    roots: Vec<TreePath>,
    paths: Vec<TreePath>,
    overwrite: OverwritePolicy,
) -> RestoreOptions {
    RestoreOptions {
        target: args.target.clone().unwrap_or_else(|| PathBuf::from("/")),
        in_place: args.in_place,
        roots,
        paths,
        exclude: args.exclude.clone(),
        delete: args.delete,
        overwrite,
        dry_run: args.dry_run,
        numeric_ids: args.numeric_ids,
    }
}

fn recovery_inputs<'a>(
    context: &'a CommandContext,
    role: &'a RoleSettings,
    place: &'a RepositoryLocation,
    state_dir: Option<&'a Path>,
    journal_access: &'a JournalAccess,
) -> RecoveryInputs<'a> {
    RecoveryInputs { role: &role.name, key: &role.key, place, state_dir, journal_access, env: &context.env }
}

/// Repairs what a store has lost, or reports what a repair would do.
pub async fn repair(
    context: &CommandContext,
    role: &RoleSettings,
    args: &verbs::RepairArgs,
) -> Result<RepairReport, Error> {
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

/// Verifies a repository.
pub async fn verify(
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
pub async fn audit(context: &CommandContext, role: &RoleSettings, since: Timestamp) -> Result<AuditReport, Error> {
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

/// This node's identity, and its status for these roles.
pub async fn whoami(context: &CommandContext, roles: &[&RoleSettings]) -> Result<WhoamiReport, Error> {
    let state_dir = find_state_dir(context.state_dir.as_deref()).ok();
    let told = daemon_node_id(context, IDENTITY_GLANCE).await.ok().flatten();
    let mut exposures = context.settings.exposures();
    exposures.extend(state_dir.iter().flat_map(|dir| access::exposures(dir, false)));
    exposures.dedup();
    let request = whoami_request(context, state_dir.as_deref(), told, &exposures);
    Ok(Box::pin(job::whoami::whoami(&request, roles, store_connection(context), ask_daemon(context))).await)
}

/// Whether this node is active for a role.
pub async fn is_active(context: &CommandContext, role: &RoleSettings) -> RoleState {
    let state_dir = find_state_dir(context.state_dir.as_deref()).ok();
    let told = daemon_node_id(context, IDENTITY_GLANCE).await.ok().flatten();
    let request = whoami_request(context, state_dir.as_deref(), told, &[]);
    Box::pin(job::whoami::is_active(&request, role, store_connection(context), ask_daemon(context))).await
}

/// The answer of this node's daemon to a status request.
async fn ask_daemon(context: &CommandContext) -> DaemonAnswer {
    let Ok(Some(daemon)) = DaemonClient::find(&context.runtime_dir()).await else { return DaemonAnswer::None };
    match daemon.role_statuses(job::whoami::PATIENCE).await {
        Ok(words) => DaemonAnswer::Answered(words),
        Err(ClientError::Silent(_)) => DaemonAnswer::Silent,
        // A daemon of another version does not understand the request.
        Err(_) => DaemonAnswer::None,
    }
}

fn whoami_request<'a>(
    context: &'a CommandContext,
    state_dir: Option<&'a Path>,
    told: Option<NodeId>,
    exposures: &'a [FileExposure],
) -> WhoamiRequest<'a> {
    WhoamiRequest {
        settings: &context.settings,
        name: context.node.as_deref(),
        daemon_node_id: told,
        state_dir,
        exposures,
        env: &context.env,
        timeout: job::whoami::PATIENCE,
    }
}

fn store_connection(
    context: &CommandContext,
) -> impl Future<Output = Result<Arc<dyn Store>, StoreError>> + Send + 'static + use<> {
    let (settings, env) = (context.settings.store.clone(), context.env.clone());
    async move { crate::store::connect(&settings, &env).await }
}

/// The entries at the newest `last` numbers of the journal, oldest first.
pub async fn journal(archive: &ReadOnlyRepository, last: u64) -> Result<Vec<JournalEntry>, Error> {
    Ok(archive.records(last).await?)
}
