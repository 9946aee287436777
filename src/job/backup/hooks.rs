//! A role's hooks: commands around a run, and around the time in which this node has the role.
//!
//! The invariants that live here: `after` runs for every run whose pair was opened, whatever its outcome; an open pair
//! is saved before `before` starts, so that the next start finds it after a crash; and no hook runs longer than its
//! time limit. `before` and `on_takeover` end when the permit ends. `after` does not: it gives back what `before` took,
//! on this node only, and a machine that stays frozen is worse than one that is thawed late.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use nix::unistd::Pid;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::config::RoleSettings;
use crate::env::LockGuard;
use crate::ids::Term;
use crate::job::backup::outcome::CommittedBackup;
use crate::job::error::{BackupError, HookError};
use crate::job::local_state::LockError;
use crate::job::node::context::NodeContext;
use crate::job::node::deadline::deadline_passed;
use crate::job::node::progress::JobProgress;
use crate::job::node::stall::{RunActivity, check_interval};
use crate::journal::error::AppendError;
use crate::process::{self, CommandBuilder, ProcessExit, log_lines};
use crate::role::candidacy::{Deadline, safety_margin};

/// How long a hook may go on when its process is to end. An `after` and an `on_lost` one after the other fit into the
/// time that a service manager waits.
pub const ENDING_MAX: Duration = Duration::from_secs(30);

/// How long output is read after the hook ended: a child that it left behind may keep the pipe open.
const DRAIN: Duration = Duration::from_millis(200);

/// Interval at which a lock of another process of this node is tried again.
const POLL: Duration = Duration::from_millis(100);

/// The saved state of an open pair.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct HookPairRecord {
    term: Term,
    slot: Option<Timestamp>,
}

/// Saved while this node has the role.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct RoleHeldRecord {
    term: Term,
}

/// One role's hooks on this node.
#[derive(Debug, Clone, Copy)]
pub struct HookRunner<'a> {
    node_context: &'a NodeContext,
    role: &'a RoleSettings,
}

/// An open pair of `before` and `after`. The kernel releases its lock with the process; the saved state stays.
#[derive(Debug)]
pub(crate) struct OpenHookPair<'a> {
    hooks: HookRunner<'a>,
    open: HookPairRecord,
    _lock: Box<dyn LockGuard>,
}

impl<'a> HookRunner<'a> {
    /// The hooks of `role` on this node.
    pub fn new(node_context: &'a NodeContext, role: &'a RoleSettings) -> Self {
        Self { node_context, role }
    }

    /// Opens a pair; `None`: the role has no such hooks. A pair that a crash left open is closed first.
    pub(crate) async fn open(
        self,
        term: Term,
        slot: Option<Timestamp>,
    ) -> Result<Option<OpenHookPair<'a>>, BackupError> {
        let hooks = &self.role.hooks;
        if hooks.before.is_none() && hooks.after.is_none() {
            return Ok(None);
        }
        let lock = tokio::select! {
            lock = self.lock(OPEN) => lock?,
            () = self.node_context.cancel.cancelled() => return Err(BackupError::Interrupted),
        };
        self.close_left_open().await;
        let open = HookPairRecord { term, slot };
        self.write(OPEN, &open).map_err(|error| BackupError::Hook(HookError::Start { hook: "before", error }))?;
        Ok(Some(OpenHookPair { hooks: self, open, _lock: lock }))
    }

    /// Runs the `after` of a run that a crash interrupted, unless another process of this node handles it.
    pub async fn recover(self) {
        if self.read::<HookPairRecord>(OPEN).is_none() {
            return;
        }
        // The process that has the lock is running, or recovering the pair.
        if let Ok(Some(_lock)) = self.try_lock(OPEN) {
            self.close_left_open().await;
        }
    }

    async fn close_left_open(self) {
        let Some(open) = self.read::<HookPairRecord>(OPEN) else { return };
        tracing::warn!("role {}: a run was interrupted after its hook 'before'; running 'after' now", self.role.name);
        self.run_after(open, "unknown").await;
    }

    /// Runs `on_takeover` once for each term in which this node works for the role.
    pub(crate) async fn on_takeover(self, term: Term, deadline: &Deadline, ending: &CancellationToken) {
        let hooks = &self.role.hooks;
        if hooks.on_takeover.is_none() && hooks.on_lost.is_none() {
            return;
        }
        let Ok(_lock) = self.lock(HELD).await.inspect_err(|error| tracing::error!("{error}")) else { return };
        if self.read::<RoleHeldRecord>(HELD).is_some_and(|taken| taken.term == term) {
            return;
        }
        if let Some(command) = &hooks.on_takeover {
            let stop = async {
                tokio::select! {
                    () = deadline_passed(self.node_context, deadline) => {}
                    () = ending.cancelled() => {}
                    () = self.node_context.cancel.cancelled() => {}
                }
            };
            let variables = self.variables(term, None);
            self.log_failure(self.run("on_takeover", command, &variables, hooks.timeout, stop).await);
        }
        if let Err(error) = self.write(HELD, &RoleHeldRecord { term }) {
            tracing::error!("role {}: on_lost will not be run: {error}", self.role.name);
        }
    }

    /// Runs `on_lost` when this node no longer works for the role, or gives it up. The hook runs no longer than
    /// `limit`.
    pub async fn on_lost(self, limit: Duration) {
        if self.read::<RoleHeldRecord>(HELD).is_none() {
            return;
        }
        let work = async {
            let _lock = self.lock(HELD).await.inspect_err(|error| tracing::error!("{error}"));
            // Another process may have handled it in the meantime.
            let Some(taken) = self.read::<RoleHeldRecord>(HELD) else { return };
            self.remove(HELD);
            if let Some(command) = &self.role.hooks.on_lost {
                let variables = self.variables(taken.term, None);
                let limit = limit.min(self.role.hooks.timeout);
                self.log_failure(self.run("on_lost", command, &variables, limit, std::future::pending()).await);
            }
        };
        // The hook ends earlier by itself; the lock may be held by a process that does not.
        let _ = self.node_context.env.timeout(limit + ENDING_MAX, work).await;
    }

    async fn run_after(self, open: HookPairRecord, outcome: &str) {
        if let Some(command) = &self.role.hooks.after {
            let mut variables = self.variables(open.term, open.slot);
            variables.push(("RUNNER_OUTCOME", outcome.to_owned()));
            let stop = async {
                self.node_context.cancel.cancelled().await;
                tokio::time::sleep(ENDING_MAX).await;
            };
            let ended = self.run("after", command, &variables, self.role.hooks.timeout, stop).await;
            let stopped = matches!(ended, Err(HookError::Stopped { .. }));
            self.log_failure(ended);
            if stopped {
                // It runs again at the next start.
                return;
            }
        }
        self.remove(OPEN);
    }

    /// Logs the failure of a hook on which nothing else depends.
    fn log_failure(self, ended: Result<(), HookError>) {
        if let Err(error) = ended {
            tracing::error!("role {}: {error}", self.role.name);
        }
    }

    /// Runs one hook until it ends, its time limit is reached, or `stop` resolves.
    async fn run(
        self,
        hook: &'static str,
        command: &[String],
        variables: &[(&'static str, String)],
        limit: Duration,
        stop: impl Future<Output = ()>,
    ) -> Result<(), HookError> {
        let start = |error| HookError::Start { hook, error };
        let grace = safety_margin(self.role.bucket_lease_ttl) / 2;
        let program = CommandBuilder::configured(command, &self.role.environment, variables, None).map_err(start)?;
        let mut group = program.piped(false).start().map_err(start)?;
        let ((_, out, err), id) = (group.pipes(), group.id());
        let label = format!("role {}, {hook}", self.role.name);
        let progress = &self.node_context.progress;
        progress.begin(RunActivity::Hook(hook));
        let streams = [
            out.map(|out| log_lines(out, label.clone(), progress_step(progress))),
            err.map(|err| log_lines(err, label, progress_step(progress))),
        ];
        let ended = tokio::select! {
            ended = group.wait() => match ended.map_err(start)? {
                ProcessExit::Exit(0) => Ok(()),
                ended => Err(HookError::Failed { hook, ended }),
            },
            () = watch_cpu_time(id, self.role.stall_timeout, progress) => unreachable!("it is looked at as long as it runs"),
            () = tokio::time::sleep(limit) => {
                group.terminate(grace).await.map_err(start)?;
                Err(HookError::Timeout { hook, after: limit })
            }
            () = stop => {
                group.terminate(grace).await.map_err(start)?;
                Err(HookError::Stopped { hook })
            }
        };
        for mut stream in streams.into_iter().flatten() {
            // The output so far is logged.
            let _ = tokio::time::timeout(DRAIN, &mut stream).await;
            stream.abort();
        }
        ended
    }

    fn variables(self, term: Term, slot: Option<Timestamp>) -> Vec<(&'static str, String)> {
        self.node_context.probe_context(self.role, Some(term), slot).variables()
    }

    fn dir(self) -> PathBuf {
        self.node_context.state_dir.join("hooks")
    }

    /// Named after the role, because a standby need not know the repository.
    fn file(self, what: &str, kind: &str) -> PathBuf {
        self.dir().join(format!("{}.{what}.{kind}", self.role.name))
    }

    async fn lock(self, what: &str) -> Result<Box<dyn LockGuard>, LockError> {
        loop {
            if let Some(lock) = self.try_lock(what)? {
                return Ok(lock);
            }
            self.node_context.env.sleep(POLL).await;
        }
    }

    /// `None`: another process has the lock.
    fn try_lock(self, what: &str) -> Result<Option<Box<dyn LockGuard>>, LockError> {
        let path = self.file(what, "lock");
        let io = |error: io::Error| LockError::Io { path: path.clone(), error };
        let files = &self.node_context.env.files;
        files.make_dir(&self.dir()).map_err(io)?;
        files.lock(&path).map_err(io)
    }

    /// `None`: the file is missing, or unreadable, which is logged.
    fn read<T: DeserializeOwned>(self, what: &str) -> Option<T> {
        let path = self.file(what, "json");
        self.node_context.env.read_json(&path).unwrap_or_else(|error| {
            let role = &self.role.name;
            tracing::error!(
                "role {role}: the notes on due hooks cannot be read, none is run: {}: {error}",
                path.display()
            );
            None
        })
    }

    fn write(self, what: &str, value: &impl Serialize) -> io::Result<()> {
        // Durable, because a hook may stop the machine or its disk.
        self.node_context.env.files.replace(&self.file(what, "json"), &serde_json::to_vec(value)?)
    }

    fn remove(self, what: &str) {
        if let Err(error) = self.node_context.env.files.remove(&self.file(what, "json"))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::error!("role {}: {error}", self.role.name);
        }
    }
}

/// Name of the files of an open pair.
const OPEN: &str = "open";

/// Name of the files that say that this node has the role.
const HELD: &str = "held";

impl OpenHookPair<'_> {
    /// Runs `before`. Whatever its result, [`OpenHookPair::run_after`] must follow.
    pub(crate) async fn run_before(&self, deadline: &Deadline) -> Result<(), BackupError> {
        let HookRunner { node_context, role } = self.hooks;
        let Some(command) = &role.hooks.before else { return Ok(()) };
        let stop = async {
            tokio::select! {
                () = deadline_passed(node_context, deadline) => {}
                () = node_context.cancel.cancelled() => {}
            }
        };
        let variables = self.hooks.variables(self.open.term, self.open.slot);
        match self.hooks.run("before", command, &variables, role.hooks.timeout, stop).await {
            Err(HookError::Stopped { .. }) if node_context.cancel.is_cancelled() => Err(BackupError::Interrupted),
            Err(HookError::Stopped { .. }) => Err(AppendError::Expired.into()),
            result => Ok(result?),
        }
    }

    /// Runs `after`.
    pub(crate) async fn run_after(self, result: &Result<CommittedBackup, BackupError>) {
        self.hooks.run_after(self.open, outcome(result)).await;
    }
}

/// The outcome of a run in a word, for `after`.
fn outcome(result: &Result<CommittedBackup, BackupError>) -> &'static str {
    match result {
        Ok(done) if done.previous.as_ref().is_some_and(|previous| previous.root == done.snapshot.root) => "unchanged",
        Ok(_) => "committed",
        Err(BackupError::Append(AppendError::Fenced(_))) => "fenced",
        Err(BackupError::Append(AppendError::Unknown { .. } | AppendError::Expired)) => "unknown",
        Err(_) => "failed",
    }
}

/// Counts processor time as progress: a hook that prints nothing may run as long as it uses some.
async fn watch_cpu_time(group: Option<Pid>, stall_timeout: Duration, progress: &JobProgress) {
    let Some(group) = group else { return std::future::pending().await };
    let (look, mut before) = (check_interval(stall_timeout), 0);
    loop {
        tokio::time::sleep(look).await;
        let now = process::cpu_ticks(group);
        if process::is_cpu_work(now.saturating_sub(before), look) {
            progress.step();
        }
        before = now;
    }
}

/// Counts the output of a hook as progress.
fn progress_step(progress: &Arc<JobProgress>) -> impl Fn() + Send + 'static {
    let progress = Arc::clone(progress);
    move || progress.step()
}
