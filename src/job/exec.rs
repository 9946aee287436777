//! `exec`: any command, only while this node is active for the role, and ended when it no longer is.
//!
//! What is promised: it does not start where this node is not active, and it is told to end, then made to, before the lease
//! that vouches for it runs out. What is not: nothing outside the repository is fenced. The command gets its term, so that
//! it can pass it on to something that checks it.

mod child;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

pub use self::child::ProcessExit;
use crate::config::{RoleSettings, Settings};
use crate::ids::Term;
use crate::job::admission::guard::{
    self, Admission, AdmittedRun, BeginCallback, GuardError, GuardOutcome, NoCommitReason, Precheck, RoleGuard,
};
use crate::job::backup::{BackupError, RoleSession};
use crate::job::health;
use crate::job::node::context::NodeContext;
use crate::job::node::local_state::{LocalLock, LocalState, LockError};
use crate::job::report::{RoleReport, RunOutcome};
use crate::job::repository::open::Repository;
use crate::journal::record::{BeginBody, EndBody, RecordBody};
use crate::journal::state::RoleHolder;
use crate::role::lease::LeaseHolder;
use crate::role::lease::keep_alive::LeaseKeepAlive;
use crate::role::permit::{Deadline, safety_margin};
use crate::role::probe::{ProbeAnswer, ProbeResult};
use crate::store::{Store, StoreError};

/// How often the probes and the journal are asked again while the command runs; the probes also when an address changes.
const WATCH: Duration = Duration::from_secs(10);

/// How often the deadline is looked at.
const TICK: Duration = Duration::from_millis(50);

/// How long a command that was told to end is given where no lease sets the limit.
const GRACE: Duration = Duration::from_secs(10);

/// What is to be run.
#[derive(Debug, Clone)]
pub struct ExecRequest {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Only if a slot is due and not committed; begin, end and outcome are recorded.
    pub scheduled: bool,
    /// How long the command may take; then it is ended, and the role's lease is free.
    pub timeout: Option<Duration>,
}

/// What became of it.
#[derive(Debug)]
pub enum ExecOutcome {
    /// It ran to its end.
    Ran {
        /// How it ended.
        ended: ProcessExit,
        /// Under which term.
        term: Term,
        /// For which slot.
        slot: Option<Timestamp>,
    },
    /// It was ended, because this node was no longer active, or its time was over.
    Stopped {
        /// How it ended.
        ended: ProcessExit,
        /// Why.
        cause: ExecStopCause,
        /// Under which term.
        term: Term,
        /// For which slot.
        slot: Option<Timestamp>,
        /// The journal has its end.
        recorded: bool,
    },
    /// It was not run.
    Refused(Box<GuardOutcome>),
}

impl ExecOutcome {
    /// How it ended, in the words that the journal's record of it is told in; `None`: well, or it was not run.
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

/// Why a command was ended.
#[derive(Debug)]
pub enum ExecStopCause {
    /// Another process has the lease.
    LeaseLost(Option<LeaseHolder>),
    /// The lease could not be renewed in time.
    Expired,
    /// The probes say no.
    NotEligible(Vec<ProbeResult>),
    /// Another node took the role over.
    Fenced(Box<RoleHolder>),
    /// It took longer than this.
    TimedOut(Duration),
}

/// Why a command could not be run at all.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The way to the role, and the journal.
    #[error("{0}")]
    Guard(#[from] GuardError),
    /// The command could not be started, or not be waited for; of one for a slot the journal has it.
    #[error("{error}")]
    Command {
        /// Why.
        error: std::io::Error,
        /// Under which term.
        term: Term,
        /// For which slot.
        slot: Option<Timestamp>,
    },
}

impl From<BackupError> for ExecError {
    fn from(error: BackupError) -> Self {
        Self::Guard(error.into())
    }
}

/// Runs the command if this node is active for `role`. `begins`: told when one for a slot does.
///
/// # Errors
/// Whether this node is active cannot be found out, or the command cannot be started.
pub async fn exec(
    runner: &NodeContext,
    settings: &Settings,
    role: &RoleSettings,
    connect: impl AsyncFnOnce() -> Result<Arc<dyn Store>, StoreError>,
    request: &ExecRequest,
    begins: BeginCallback<'_>,
) -> Result<ExecOutcome, ExecError> {
    let approach = match guard::precheck(runner, settings, role, connect, request.scheduled).await? {
        Ok(approach) => approach,
        Err(refused) => return Ok(ExecOutcome::Refused(Box::new(refused))),
    };
    let Precheck { repository, plan, assessment, .. } = approach;
    // Before the slot is looked up: whoever runs it has committed it when this is free.
    let _turn = match lock_command(runner, role, &repository, request).await? {
        Ok(turn) => turn,
        Err(refused) => return Ok(ExecOutcome::Refused(Box::new(refused))),
    };
    let scheduled = request.scheduled;
    // Where only a lease decides, and nobody holds it between runs, each node could have it in turn and run the same command: it goes
    // where `is-active` says yes. A slot is committed once, so the role moves with that.
    if !scheduled
        && role.eligible.is_none()
        && let Some(refused) = guard::held_elsewhere(runner, role, &repository).await?
    {
        return Ok(ExecOutcome::Refused(Box::new(refused)));
    }
    let guard = RoleGuard { runner, role, repository: &repository, plan, scheduled, occasion: None };
    match Box::pin(guard.admit(assessment)).await? {
        Admission::Refused(refused) => Ok(ExecOutcome::Refused(refused)),
        Admission::Active(admitted) => {
            let AdmittedRun { opening, candidacy, slot, keeper } = *admitted;
            if request.scheduled {
                begins(opening.view(), slot.map(|slot| slot.at));
            }
            let result = match Box::pin(opening.take_over(&candidacy)).await {
                Ok(session) => run(runner, role, session, slot.map(|slot| slot.at), keeper.as_ref(), request).await,
                Err(error) => Err(error.into()),
            };
            guard::release(keeper).await;
            result
        }
    }
}

/// Keeps other scheduled commands of the role on this node off until it is dropped; `Err`: one is running.
async fn lock_command(
    runner: &NodeContext,
    role: &RoleSettings,
    repository: &Repository,
    request: &ExecRequest,
) -> Result<Result<Option<LocalLock>, GuardOutcome>, BackupError> {
    if !request.scheduled {
        return Ok(Ok(None));
    }
    match LocalState::open(&runner.env, &runner.state_dir, repository.keys.repo())?.lock_command().await {
        Err(LockError::Busy { pid }) => {
            let report = RoleReport::nothing(role.name.clone(), RunOutcome::Skipped);
            Ok(Err((report, Some(NoCommitReason::CommandRunning { pid }))))
        }
        lock => Ok(Ok(Some(lock?))),
    }
}

async fn run(
    runner: &NodeContext,
    role: &RoleSettings,
    mut session: RoleSession<'_>,
    slot: Option<Timestamp>,
    keeper: Option<&LeaseKeepAlive>,
    request: &ExecRequest,
) -> Result<ExecOutcome, ExecError> {
    let deadline = session.permit().deadline().clone();
    let term = session.permit().term();
    if request.scheduled {
        session.append(RecordBody::Begin(BeginBody {}), slot).await?;
    }
    session.unlock();
    let variables = variables(runner, role, term, slot, &deadline);
    // What is kept back of the lease, wherever that is, is all the time there is to end in.
    let grace = deadline.grant().map_or(GRACE, |grant| safety_margin(grant.ttl) / 2);
    let started = runner.env.clock.boottime();
    let stop = async {
        tokio::select! {
            to = guard::lease_lost(keeper) => ExecStopCause::LeaseLost(to),
            () = deadline_passed(runner, &deadline) => ExecStopCause::Expired,
            cause = stop_cause(runner, role, &session) => cause,
            cause = timed_out(runner, request.timeout) => cause,
        }
    };
    let done = child::run(&request.command, &role.environment, &variables, grace, stop).await;
    let duration = || runner.env.clock.boottime().saturating_sub(started).as_millis() as u64;
    let (ended, cause) = match done {
        Ok(done) => done,
        Err(error) => {
            // Without an end it would seem to run still.
            let body = EndBody { exit: start_error_code(&error), duration_ms: duration(), ..EndBody::default() };
            if request.scheduled
                && let Err(error) = session.append(RecordBody::End(body), slot).await
            {
                tracing::warn!("that the command did not run is not recorded: {error}");
            }
            return Err(ExecError::Command { error, term, slot });
        }
    };
    let mut recorded = request.scheduled;
    if request.scheduled {
        let body = end_body(ended, cause.as_ref(), duration());
        // Only a good end commits the slot. Where another node has the role by now there is nothing to say any more.
        if let Err(error) = session.append(RecordBody::End(body), slot).await {
            if cause.is_none() {
                return Err(error.into());
            }
            recorded = false;
            tracing::debug!("the end is not recorded: {error}");
        }
    }
    Ok(match cause {
        None => ExecOutcome::Ran { ended, term, slot },
        Some(cause) => ExecOutcome::Stopped { ended, cause, term, slot, recorded },
    })
}

/// What is recorded of an end.
fn end_body(ended: ProcessExit, cause: Option<&ExecStopCause>, duration_ms: u64) -> EndBody {
    let signal = match ended {
        ProcessExit::Signal(signal) => u8::try_from(signal).ok(),
        ProcessExit::Exit(_) => None,
    };
    let timed_out = matches!(cause, Some(ExecStopCause::TimedOut(_)));
    EndBody { exit: ended.code(), stopped: cause.is_some(), duration_ms, signal, timed_out }
}

/// The exit code of a command that could not be started, as shells give it.
fn start_error_code(error: &std::io::Error) -> u8 {
    if error.kind() == std::io::ErrorKind::NotFound { 127 } else { 126 }
}

fn variables(
    runner: &NodeContext,
    role: &RoleSettings,
    term: Term,
    slot: Option<Timestamp>,
    deadline: &Deadline,
) -> Vec<(&'static str, String)> {
    let now = runner.env.clock.moment();
    let until = deadline.until().and_then(|until| now.wall.checked_add(until.saturating_sub(now.boot)).ok());
    let mut variables = runner.probe_context(role, Some(term), slot).variables();
    // As it stands at the start; it moves on while the lease is renewed.
    variables.extend(until.map(|until| ("RUNNER_DEADLINE", until.to_string())));
    variables
}

/// Resolves when the command's time is over.
async fn timed_out(runner: &NodeContext, timeout: Option<Duration>) -> ExecStopCause {
    match timeout {
        Some(timeout) => {
            runner.env.sleep(timeout).await;
            ExecStopCause::TimedOut(timeout)
        }
        None => std::future::pending().await,
    }
}

/// Resolves when work must have stopped.
pub(crate) async fn deadline_passed(runner: &NodeContext, deadline: &Deadline) {
    while !deadline.passed(runner.env.clock.moment()) {
        runner.env.sleep(TICK).await;
    }
}

/// Resolves when the probes or the journal say that the role is not here any more. What cannot be told is no reason: that is
/// what the lease is for.
async fn stop_cause(runner: &NodeContext, role: &RoleSettings, session: &RoleSession<'_>) -> ExecStopCause {
    let mut hints = runner.inputs.probes.hints(role.eligible.as_ref());
    let mut poll = tokio::time::interval(WATCH);
    // The first one is now.
    poll.tick().await;
    loop {
        let polled = tokio::select! {
            _ = poll.tick() => true,
            () = hints.changed() => false,
        };
        if let Some(assessment) = guard::run_probes(runner, role, None).await
            && assessment.answer == ProbeAnswer::No
            && !assessment.may_work()
        {
            return ExecStopCause::NotEligible(assessment.results);
        }
        // What the kernel tells is about this node alone.
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
