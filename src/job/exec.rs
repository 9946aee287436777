//! `exec`: runs any command only while this node is active for the role, and stops it when the node is no longer
//! active.
//!
//! Guaranteed: the command does not start on a node that is not active, and it gets SIGTERM, then SIGKILL, before the
//! lease that protects it runs out. Not guaranteed: nothing outside of the repository is fenced. The command gets its
//! term, so that it can pass the term on to a service that checks it.

mod child;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use self::child::ProcessExit;
use crate::config::{RoleSettings, Settings};
use crate::ids::Term;
use crate::job::admission::guard::{self, Admission, AdmittedRun, BeginCallback, Precheck, RoleGuard};
use crate::job::admission::session::RoleSession;
use crate::job::error::{BackupError, GuardError};
use crate::job::health;
use crate::job::local_state::{LocalLock, LocalState, LockError};
use crate::job::node::context::NodeContext;
use crate::job::node::deadline::deadline_passed;
use crate::job::report::{NoCommitReason, RoleReport};
use crate::job::repository::open::Repository;
use crate::journal::body::{BeginBody, EndBody, RecordBody};
use crate::journal::state::RoleHolder;
use crate::role::candidacy::{Deadline, safety_margin};
use crate::role::lease::LeaseHolder;
use crate::role::lease::keep_alive::LeaseKeepAlive;
use crate::role::probe::{ProbeAnswer, ProbeResult};
use crate::store::{Store, StoreError};

/// Interval at which the probes and the journal are asked while the command runs; the probes also after a change of
/// addresses.
const WATCH: Duration = Duration::from_secs(10);

/// Time between SIGTERM and SIGKILL if no lease sets a limit.
const GRACE: Duration = Duration::from_secs(10);

/// A command to run.
#[derive(Debug, Clone)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Runs only if a slot is due and not committed; begin, end and exit code are recorded.
    pub scheduled: bool,
    /// Time limit of the command; after it the command is stopped and the role's lease released.
    pub timeout: Option<Duration>,
}

/// Result of `exec`.
#[derive(Debug)]
pub enum ExecOutcome {
    /// The command ran to its end.
    Ran {
        /// The exit of the command.
        ended: ProcessExit,
        /// The term of the run.
        term: Term,
        /// The slot of the run.
        slot: Option<Timestamp>,
    },
    /// The command was stopped, because this node was no longer active or the time limit was reached.
    Stopped {
        /// The exit of the command.
        ended: ProcessExit,
        /// Why it was stopped.
        cause: ExecStopCause,
        /// The term of the run.
        term: Term,
        /// The slot of the run.
        slot: Option<Timestamp>,
        /// Whether the end is recorded in the journal.
        recorded: bool,
    },
    /// The command was not run.
    Refused(Box<RoleReport>),
}

impl ExecOutcome {
    /// The failure in the same words as for the journal's record; `None`: it succeeded or was not run.
    pub fn failure(&self) -> Option<String> {
        let (ended, cause) = match self {
            ExecOutcome::Ran { ended, .. } => (*ended, None),
            ExecOutcome::Stopped { ended, cause, .. } => (*ended, Some(cause)),
            ExecOutcome::Refused(_) => return None,
        };
        let body = end_body(ended, cause, 0);
        (!body.is_success()).then(|| health::ended(&body))
    }
}

/// Why a command was stopped.
#[derive(Debug)]
pub enum ExecStopCause {
    /// Another process holds the lease.
    LeaseLost(Option<LeaseHolder>),
    /// The lease could not be renewed in time.
    Expired,
    /// The probes say no.
    NotEligible(Vec<ProbeResult>),
    /// Another node took the role over.
    Fenced(Box<RoleHolder>),
    /// It took longer than this time limit.
    TimedOut(Duration),
}

/// Why a command could not be run.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The admission to the role or the journal failed.
    #[error("{0}")]
    Guard(#[from] GuardError),
    /// The command could not be started or waited for; for a slot this is recorded in the journal.
    #[error("{error}")]
    Command {
        /// The error of the operating system.
        error: std::io::Error,
        /// The term of the run.
        term: Term,
        /// The slot of the run.
        slot: Option<Timestamp>,
    },
}

impl From<BackupError> for ExecError {
    fn from(error: BackupError) -> Self {
        Self::Guard(error.into())
    }
}

/// Runs the command if this node is active for `role`. `begins` is called when a scheduled command starts.
///
/// # Errors
/// It cannot be determined whether this node is active, or the command cannot be started.
pub async fn exec(
    node_context: &NodeContext,
    settings: &Settings,
    role: &RoleSettings,
    connect: impl AsyncFnOnce() -> Result<Arc<dyn Store>, StoreError>,
    request: &ExecRequest,
    begins: BeginCallback<'_>,
) -> Result<ExecOutcome, ExecError> {
    let approach = match guard::precheck(node_context, settings, role, connect, request.scheduled).await? {
        Ok(approach) => approach,
        Err(refused) => return Ok(ExecOutcome::Refused(refused)),
    };
    let Precheck { repository, plan, assessment, .. } = approach;
    // Before the slot is looked up: once the lock is free, the process that held it has committed its slot.
    let _turn = match lock_command(node_context, role, &repository, request).await? {
        Ok(turn) => turn,
        Err(refused) => return Ok(ExecOutcome::Refused(refused)),
    };
    let scheduled = request.scheduled;
    // If only a lease decides and it is free between runs, each node could take it in turn and run the same command. An
    // unscheduled command therefore runs on the node for which `is-active` says yes. A slot is committed once, so a
    // scheduled command may move the role.
    if !scheduled
        && role.eligible.is_none()
        && let Some(refused) = guard::held_elsewhere(node_context, role, &repository).await?
    {
        return Ok(ExecOutcome::Refused(refused));
    }
    let guard = RoleGuard { node_context, role, repository: &repository, plan, scheduled, retake_reason: None };
    match Box::pin(guard.admit(assessment)).await? {
        Admission::Refused(refused) => Ok(ExecOutcome::Refused(refused)),
        Admission::Active(admitted) => {
            let AdmittedRun { opening, candidacy, slot, keep_alive } = *admitted;
            if request.scheduled {
                begins(opening.view(), slot.map(|slot| slot.at));
            }
            let result = match Box::pin(opening.take_over(&candidacy)).await {
                Ok(session) => {
                    run(node_context, role, session, slot.map(|slot| slot.at), keep_alive.as_ref(), request).await
                }
                Err(error) => Err(error.into()),
            };
            guard::release(keep_alive).await;
            result
        }
    }
}

/// Locks out other scheduled commands of the role on this node until the lock is dropped; `Err`: one is running.
async fn lock_command(
    node_context: &NodeContext,
    role: &RoleSettings,
    repository: &Repository,
    request: &ExecRequest,
) -> Result<Result<Option<LocalLock>, Box<RoleReport>>, BackupError> {
    if !request.scheduled {
        return Ok(Ok(None));
    }
    match LocalState::open(&node_context.env, &node_context.state_dir, repository.keys.repo())?.lock_command().await {
        Err(LockError::Busy { pid }) => {
            let reason = NoCommitReason::CommandRunning { pid };
            Ok(Err(Box::new(RoleReport::without_commit(role.name.clone(), reason))))
        }
        lock => Ok(Ok(Some(lock?))),
    }
}

async fn run(
    node_context: &NodeContext,
    role: &RoleSettings,
    mut session: RoleSession<'_>,
    slot: Option<Timestamp>,
    keep_alive: Option<&LeaseKeepAlive>,
    request: &ExecRequest,
) -> Result<ExecOutcome, ExecError> {
    let deadline = session.permit().deadline().clone();
    let term = session.permit().term();
    if request.scheduled {
        session.append(RecordBody::Begin(BeginBody {}), slot).await?;
    }
    session.unlock();
    let variables = variables(node_context, role, term, slot, &deadline);
    // The command has to end within the lease's safety margin.
    let grace = deadline.grant().map_or(GRACE, |grant| safety_margin(grant.ttl) / 2);
    let started = node_context.env.clock.boottime();
    let stop = async {
        tokio::select! {
            to = guard::lease_lost(keep_alive) => ExecStopCause::LeaseLost(to),
            () = deadline_passed(node_context, &deadline) => ExecStopCause::Expired,
            cause = stop_cause(node_context, role, &session) => cause,
            cause = timed_out(node_context, request.timeout) => cause,
        }
    };
    let done = child::run(&request.command, &role.environment, &variables, grace, stop).await;
    let duration = || node_context.env.clock.boottime().saturating_sub(started).as_millis() as u64;
    let (ended, cause) = match done {
        Ok(done) => done,
        Err(error) => {
            // Without an end record the command would seem to be running.
            let body = EndBody { exit: start_error_code(&error), duration_ms: duration(), ..EndBody::default() };
            if request.scheduled
                && let Err(error) = session.append(RecordBody::End(body), slot).await
            {
                tracing::warn!("the failed start of the command cannot be recorded: {error}");
            }
            return Err(ExecError::Command { error, term, slot });
        }
    };
    let mut recorded = request.scheduled;
    if request.scheduled {
        let body = end_body(ended, cause.as_ref(), duration());
        // Only success commits the slot. If the command was stopped, another node may hold the role, and the record is
        // optional.
        if let Err(error) = session.append(RecordBody::End(body), slot).await {
            if cause.is_none() {
                return Err(error.into());
            }
            recorded = false;
            tracing::debug!("the end of the command cannot be recorded: {error}");
        }
    }
    Ok(match cause {
        None => ExecOutcome::Ran { ended, term, slot },
        Some(cause) => ExecOutcome::Stopped { ended, cause, term, slot, recorded },
    })
}

/// The end record.
fn end_body(ended: ProcessExit, cause: Option<&ExecStopCause>, duration_ms: u64) -> EndBody {
    let signal = match ended {
        ProcessExit::Signal(signal) => u8::try_from(signal).ok(),
        ProcessExit::Exit(_) => None,
    };
    let timed_out = matches!(cause, Some(ExecStopCause::TimedOut(_)));
    EndBody { exit: ended.code(), stopped: cause.is_some(), duration_ms, signal, timed_out }
}

/// The exit code of a command that could not be started, as shells define it.
fn start_error_code(error: &std::io::Error) -> u8 {
    if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }
}

fn variables(
    node_context: &NodeContext,
    role: &RoleSettings,
    term: Term,
    slot: Option<Timestamp>,
    deadline: &Deadline,
) -> Vec<(&'static str, String)> {
    let now = node_context.env.clock.moment();
    let until = deadline.until().and_then(|until| now.wall.checked_add(until.saturating_sub(now.boot)).ok());
    let mut variables = node_context.probe_context(role, Some(term), slot).variables();
    // The deadline at the start; it moves while the lease is renewed.
    variables.extend(until.map(|until| ("RUNNER_DEADLINE", until.to_string())));
    variables
}

/// Waits until the time limit of the command.
async fn timed_out(node_context: &NodeContext, timeout: Option<Duration>) -> ExecStopCause {
    match timeout {
        Some(timeout) => {
            node_context.env.sleep(timeout).await;
            ExecStopCause::TimedOut(timeout)
        }
        None => std::future::pending().await,
    }
}

/// Waits until the probes or the journal say that this node no longer holds the role. An unknown answer does not stop
/// the command: the lease covers that case.
async fn stop_cause(node_context: &NodeContext, role: &RoleSettings, session: &RoleSession<'_>) -> ExecStopCause {
    let mut hints = node_context.inputs.probes.hints(role.eligible.as_ref());
    let mut poll = tokio::time::interval(WATCH);
    // The first tick is immediate.
    poll.tick().await;
    loop {
        let polled = tokio::select! {
            _ = poll.tick() => true,
            () = hints.changed() => false,
        };
        if let Some(assessment) = guard::run_probes(node_context, role, None).await
            && assessment.answer == ProbeAnswer::No
            && !assessment.may_work()
        {
            return ExecStopCause::NotEligible(assessment.results);
        }
        // A change of addresses concerns the probes alone.
        if !polled {
            continue;
        }
        match session.superseded_by().await {
            Ok(Some(holder)) => return ExecStopCause::Fenced(Box::new(holder)),
            Ok(None) => {}
            Err(error) => tracing::warn!("{error}"),
        }
    }
}
