//! The long-running node: it runs the election of every configured role, backs each up on its schedule, and gives roles
//! up in good order.
//!
//! Each role has a task of its own that performs what its [`RoleController`](crate::role::controller::RoleController)
//! decides. No role can hold up another one, except through the limit on concurrent runs. This room starts and stops
//! those tasks, follows the config, and reports the status to systemd.
//! # Example
//!
//! A process that is to back a role up asks the daemon of its node for the run, and runs it itself if there is no daemon.
//!
//! ```
//! use runner::daemon::client::DaemonClient;
//! use runner::job::backup::request::BackupRequest;
//! use runner::job::node::progress::JobProgress;
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
//! # runtime.block_on(async {
//! # let runtime_dir = tempfile::tempdir()?;
//! let role = "app".parse()?;
//! if let Some(daemon) = DaemonClient::find(runtime_dir.path()).await? {
//!     let (report, _) = daemon.back_up(&role, BackupRequest::default(), &JobProgress::default()).await?;
//!     println!("{:?}", report.outcome);
//! } else {
//!     println!("no daemon runs on this node");
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod client;
mod clients;
mod concurrency;
pub(crate) mod error;
pub(crate) mod observer;
pub mod oneshot;
mod outages;
mod protocol;
mod role_actions;
mod role_task;
pub mod socket;
mod state_dir;
mod store_connector;
mod systemd;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::MutexGuard;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error_span};

use self::clients::RoleCommand;
use self::concurrency::ConcurrencyLimits;
pub use self::error::DaemonError;
pub use self::observer::{DaemonObserver, Failure};
pub use self::protocol::FailureExit;
use self::role_task::RoleTask;
pub use self::socket::SocketError;
use self::socket::{DaemonSocket, RoleDirectory, SocketContext};
use self::state_dir::StateDirMonitor;
use self::store_connector::StoreConnector;
use self::systemd::ServiceManager;
use crate::alert::dispatcher::AlertDispatcher;
use crate::config::{RoleSettings, Settings};
use crate::ids::RoleName;
use crate::job::node::context::NodeContext;
use crate::job::node::leases::LeaseSessions;
use crate::role::controller::RoleStatus;
use crate::role::identity::NodeIdentity;
use crate::store::Store;

/// Interval at which the config's files are read again.
const RELOAD_INTERVAL: Duration = Duration::from_secs(10);

/// Capacity of the queue of commands to one role's task.
const COMMANDS_MAX: usize = 16;

/// How long the roles may take to stop: their work is cancelled at once.
const STOP_PATIENCE: Duration = Duration::from_secs(80);

/// How long a process that ends goes on delivering alerts.
pub const TELL_PATIENCE: Duration = Duration::from_secs(5);

/// Parameters of a daemon.
pub struct DaemonParams {
    /// The node that works. Its `cancel` ends the daemon.
    pub node_context: NodeContext,
    /// Identity of this node.
    pub node: NodeIdentity,
    /// The first settings; the config is read again while the daemon runs.
    pub settings: Settings,
    /// Receives status changes and reports, and renders them.
    pub observer: Arc<dyn DaemonObserver>,
    /// Delivers alerts.
    pub alerts: Arc<AlertDispatcher>,
    /// Observe mode: decides and reports, but runs nothing.
    pub observe: bool,
    /// Directory of the socket.
    pub runtime_dir: PathBuf,
}

/// Runs until it is cancelled and all roles have stopped.
///
/// # Errors
/// The signal handlers cannot be installed, another daemon runs on this node, or the state directory was replaced.
pub async fn run(start: DaemonParams) -> Result<(), DaemonError> {
    let mut hangup = signal(SignalKind::hangup())?;
    let (cancel, runtime_dir, node_context) =
        (start.node_context.cancel.clone(), start.runtime_dir.clone(), start.node_context.clone());
    let mut supervisor = Supervisor::new(start);
    let (ask_to_look, mut asked_to_look) = mpsc::channel(COMMANDS_MAX);
    // In observe mode no socket is opened, so a cron job beside it is unaffected.
    let mut state_dir = if supervisor.observe {
        None
    } else {
        let (node, directory) = (node_context.node.id, Arc::clone(&supervisor.directory));
        let socket_context = SocketContext { node, directory, look: ask_to_look };
        let socket = DaemonSocket::open(&runtime_dir, &socket_context).await?;
        let NodeContext { state_dir: dir, node, env, memory: memories, .. } = node_context;
        Some(StateDirMonitor {
            dir,
            node: node.id,
            env,
            memories,
            socket_context,
            socket,
            seen: Vec::new(),
            trouble: None,
        })
    };
    supervisor.start_missing_roles();
    tracing::info!(
        "runner {} has started as node {}, config {}, {} {}{}",
        env!("CARGO_PKG_VERSION"),
        supervisor.node.label,
        supervisor.settings.hash,
        supervisor.settings.roles.len(),
        if supervisor.settings.roles.len() == 1 { "role" } else { "roles" },
        if supervisor.observe { "; observe mode: it takes no role, writes nothing and runs nothing" } else { "" }
    );
    let notifier = ServiceManager::new();
    notifier.ready(&supervisor.summary());
    let mut reload = tokio::time::interval(RELOAD_INTERVAL);
    let mut beat = tokio::time::interval(notifier.watchdog_interval());
    let mut look = tokio::time::interval(state_dir::INTERVAL);
    let ended = loop {
        tokio::select! {
            () = cancel.cancelled() => break Ok(()),
            asked = async {
                tokio::select! {
                    _ = look.tick() => None,
                    Some(asked) = asked_to_look.recv() => Some(asked),
                }
            } => {
                let looked = state_dir.as_mut().map_or(Ok(()), StateDirMonitor::check);
                if let Err(error) = looked {
                    tracing::error!("the daemon stops: {error}");
                    break Err(error);
                }
                // The client may have disconnected.
                let _ = asked.map(|asked| asked.send(()));
            }
            _ = hangup.recv() => {
                notifier.reloading();
                supervisor.renew().await;
                supervisor.reload(true, &notifier).await;
                notifier.ready(&supervisor.summary());
            }
            _ = reload.tick() => supervisor.reload(false, &notifier).await,
            _ = beat.tick() => {
                notifier.status(&supervisor.summary());
                // A hung task of a role must not look alive.
                if supervisor.all_alive() {
                    notifier.ping_watchdog();
                }
            }
        }
    };
    tracing::info!("the daemon stops");
    notifier.stopping();
    supervisor.close(&notifier).await;
    // The borrowers have disconnected; a later client finds no socket.
    drop(state_dir);
    ended
}

/// Parameters of the task of one role alone, without a config to follow and without a socket.
pub struct RoleTaskConfig {
    /// The node that works.
    pub node_context: NodeContext,
    /// The settings that the role belongs to.
    pub settings: Settings,
    /// Settings of the role.
    pub role: RoleSettings,
    /// Store of the role's repository.
    pub store: Arc<dyn Store>,
    /// Receives status changes and reports, and renders them.
    pub observer: Arc<dyn DaemonObserver>,
    /// Delivers alerts.
    pub alerts: Arc<AlertDispatcher>,
    /// Interval between prunes.
    pub prune_interval: Duration,
}

/// Runs one role until `stop` is true and all its work has ended, as [`run`] does for each role.
pub async fn run_role(hold: RoleTaskConfig, stop: watch::Receiver<bool>) {
    let RoleTaskConfig { node_context, settings, role, store, observer, alerts: dispatcher, prune_interval } = hold;
    let stores = Arc::new(StoreConnector::connected_to(settings.store.clone(), node_context.env.clone(), store));
    let (settings, limits, observe) = (Arc::new(settings), Arc::new(ConcurrencyLimits::new()), false);
    let (_callers, commands) = mpsc::channel(COMMANDS_MAX);
    let task = RoleTask { node_context, settings, role, stores, limits, observer, dispatcher, observe, prune_interval };
    task.run(stop, commands, watch::channel(None).0, watch::channel(0).0).await;
}

/// All roles of this node.
struct Supervisor {
    node_context: NodeContext,
    node: NodeIdentity,
    settings: Arc<Settings>,
    observer: Arc<dyn DaemonObserver>,
    alerts: Arc<AlertDispatcher>,
    observe: bool,
    stores: Arc<StoreConnector>,
    limits: Arc<ConcurrencyLimits>,
    roles: BTreeMap<RoleName, RoleHandle>,
    /// The command queue of each role's task.
    directory: RoleDirectory,
    /// The last error of reading the config, if it is not valid.
    config_error: Option<String>,
}

/// Handle of a role's task.
struct RoleHandle {
    role: RoleSettings,
    stop: watch::Sender<bool>,
    status: watch::Receiver<Option<RoleStatus>>,
    /// Counts the iterations of its loop.
    loop_turns: watch::Receiver<u64>,
    loop_turns_seen: u64,
    task: JoinHandle<()>,
}

impl Supervisor {
    fn new(start: DaemonParams) -> Self {
        let DaemonParams { node_context, node, settings, observer, alerts: dispatcher, observe, .. } = start;
        let settings = Arc::new(settings);
        let stores = Arc::new(StoreConnector::new(settings.store.clone(), node_context.env.clone()));
        let limits = Arc::new(ConcurrencyLimits::new());
        let (roles, directory) = (BTreeMap::new(), RoleDirectory::default());
        Self {
            node_context,
            node,
            settings,
            observer,
            alerts: dispatcher,
            observe,
            stores,
            limits,
            roles,
            directory,
            config_error: None,
        }
    }

    /// Starts a task for every role that has none.
    fn start_missing_roles(&mut self) {
        for (name, role) in &self.settings.roles {
            if self.roles.contains_key(name) {
                continue;
            }
            let (stop, stopped) = watch::channel(false);
            let (tell, status) = watch::channel(None);
            let (count, turns) = watch::channel(0);
            let (commander, commands) = mpsc::channel(COMMANDS_MAX);
            self.lock_directory().insert(name.clone(), commander);
            let task = RoleTask {
                node_context: NodeContext { cancel: CancellationToken::new(), ..self.node_context.clone() },
                settings: Arc::clone(&self.settings),
                role: role.clone(),
                stores: Arc::clone(&self.stores),
                limits: Arc::clone(&self.limits),
                observer: Arc::clone(&self.observer),
                dispatcher: Arc::clone(&self.alerts),
                observe: self.observe,
                prune_interval: role_actions::PRUNE_INTERVAL,
            };
            // What the role's task logs has the role as a field.
            let span = error_span!("role", role = %name);
            let task = tokio::spawn(task.run(stopped, commands, tell, count).instrument(span));
            self.roles.insert(
                name.clone(),
                RoleHandle { role: role.clone(), stop, status, loop_turns: turns, loop_turns_seen: 0, task },
            );
        }
    }

    /// Makes the next request read credentials and certificates again. Requests in progress continue.
    async fn renew(&self) {
        self.node_context.leases.renew();
        self.stores.renew_credentials().await;
    }

    /// Reads the config again, and applies the changes. An invalid config changes nothing.
    async fn reload(&mut self, asked: bool, notifier: &ServiceManager) {
        let settings = match self.observer.load_settings() {
            Ok(settings) => settings,
            Err(error) => {
                let text = error.to_string();
                if asked || self.config_error.as_ref() != Some(&text) {
                    tracing::error!("the config is not valid, the one before stays in force:");
                    text.lines().for_each(|line| tracing::error!("{line}"));
                }
                self.config_error = Some(text);
                return;
            }
        };
        self.config_error = None;
        if settings.hash == self.settings.hash {
            if asked {
                tracing::info!("the config was read again as asked for, and has not changed");
            }
            return;
        }
        tracing::info!("the config has changed: {} is in force now", settings.hash);
        let was = Arc::clone(&self.settings);
        let all = settings.store != was.store || settings.etcd != was.etcd || settings.timezone != was.timezone;
        let kept = |name: &RoleName, handle: &RoleHandle| !all && settings.roles.get(name) == Some(&handle.role);
        let gone: Vec<RoleName> =
            self.roles.iter().filter(|(name, handle)| !kept(name, handle)).map(|(name, _)| name.clone()).collect();
        self.stop(gone, notifier).await;
        if all {
            self.node_context.leases.close().await;
            self.node_context.leases = LeaseSessions::new(&settings, &self.node_context.env, &self.node);
            self.stores = Arc::new(StoreConnector::new(settings.store.clone(), self.node_context.env.clone()));
        }
        if settings.notify != was.notify && !self.observe {
            self.alerts.configure(&settings.notify);
        }
        self.node_context.config_hash.clone_from(&settings.hash);
        self.settings = Arc::new(settings);
        self.start_missing_roles();
    }

    /// Stops roles, all at the same time. Meanwhile the watchdog of systemd is fed, because this may take long.
    async fn stop(&mut self, names: Vec<RoleName>, notifier: &ServiceManager) {
        let leaving: Vec<(RoleName, RoleHandle)> =
            names.into_iter().filter_map(|name| self.roles.remove_entry(&name)).collect();
        for (name, handle) in &leaving {
            self.lock_directory().remove(name);
            handle.stop.send_replace(true);
        }
        let all = async {
            for (name, handle) in leaving {
                if let Err(error) = handle.task.await {
                    tracing::error!("role {name}: {error}");
                }
            }
        };
        let alive = async {
            let mut beat = tokio::time::interval(notifier.watchdog_interval());
            loop {
                beat.tick().await;
                notifier.ping_watchdog();
            }
        };
        tokio::select! {
            () = all => {}
            () = tokio::time::sleep(STOP_PATIENCE) => {
                tracing::error!("some work did not end in time; its lease expires by itself");
            }
            () = alive => {}
        }
    }

    fn lock_directory(&self) -> MutexGuard<'_, BTreeMap<RoleName, mpsc::Sender<RoleCommand>>> {
        // Each change is one step, so a poisoned lock protects nothing half done.
        self.directory.lock()
    }

    async fn close(&mut self, notifier: &ServiceManager) {
        let names = self.roles.keys().cloned().collect();
        self.stop(names, notifier).await;
        self.node_context.leases.close().await;
        self.alerts.close(TELL_PATIENCE).await;
    }

    fn summary(&self) -> String {
        let statuses = self.roles.iter().map(|(name, handle)| (name.clone(), handle.status.borrow().clone())).collect();
        let summary = self.observer.status_summary(&statuses);
        if self.config_error.is_some() {
            format!("config not valid, the one before is in force; {summary}")
        } else {
            summary
        }
    }

    /// Whether every role's loop has moved since the last call.
    fn all_alive(&mut self) -> bool {
        let mut alive = true;
        for handle in self.roles.values_mut() {
            let turns = *handle.loop_turns.borrow();
            alive &= turns != handle.loop_turns_seen && !handle.task.is_finished();
            handle.loop_turns_seen = turns;
        }
        alive
    }
}
