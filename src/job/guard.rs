//! One guarded run: back up if this node is active for the role, else leave quietly.
//!
//! Probes are asked first, so that a standby needs no store. Then the journal: a scheduled run looks its slot up before it
//! appends anything. Only then may a takeover happen.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::config::{RoleSettings, Settings, StoreUrl};
use crate::job::backup::{Ask, BackupError, Committed, Opening, Runner};
use crate::job::report::{ByteCounts, Outcome, RoleReport};
use crate::job::repository::{OpenError, Repository};
use crate::role::election::{self, Eligibility, Inputs, Occasion, StandbyReason, State, UnknownReason};
use crate::role::probe::{self, Assessment, Context};
use crate::role::slot::{Plan, Slot};
use crate::store::counting::{Counters, Counting};
use crate::store::{Store, StoreError};

/// A node whose clock is further than this from the store's runs no slots: it would run the wrong ones.
pub const CLOCK_OFFSET_MAX: SignedDuration = SignedDuration::from_mins(5);

/// What the operator asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request {
    /// Only if a slot is due and not committed.
    pub scheduled: bool,
    /// Read every file, whatever the cache says.
    pub rehash: bool,
}

/// Why a run ended without a commit, where that is no failure; in words that `cli` chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// This node stands by.
    Standby(StandbyReason, Vec<probe::Evidence>),
    /// It cannot tell.
    Unknown(UnknownReason, Vec<probe::Evidence>),
    /// Another node took the role, and this one was not asked to take it back.
    Conflict {
        /// Its label.
        holder: String,
    },
    /// The due slot is committed.
    SlotCommitted {
        /// Which.
        slot: Timestamp,
    },
    /// No slot has been due yet.
    NothingDue,
    /// This node's clock and the store's are too far apart.
    ClockOff {
        /// Store minus own.
        offset: SignedDuration,
    },
}

/// Why a guarded run failed.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The store cannot be connected to.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The repository.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// The run.
    #[error("{0}")]
    Backup(#[from] BackupError),
    /// `--scheduled` for a role without a schedule.
    #[error("role {role} has no schedule")]
    NoSchedule {
        /// Which.
        role: crate::ids::RoleName,
    },
    /// The schedule.
    #[error("the schedule of role {role}: {why}")]
    Schedule {
        /// Which.
        role: crate::ids::RoleName,
        /// What is wrong with it.
        why: String,
    },
}

/// A report, and why there was no commit.
pub type Guarded = (RoleReport, Option<Reason>);

/// Backs up `role` if this node is active for it. The store is connected to only if the probes do not say no: a standby whose
/// disk is not mounted stands by as well as any other.
pub async fn backup(
    runner: &Runner,
    settings: &Settings,
    role: &RoleSettings,
    connect: impl AsyncFnOnce() -> Result<Arc<dyn Store>, StoreError>,
    request: Request,
) -> Result<Guarded, GuardError> {
    let started = runner.env.clock.boottime();
    let slot = if request.scheduled { Some(due_slot(role, settings, runner.env.clock.now())?) } else { None };
    let due = slot.as_ref().and_then(|(_, at)| *at);
    let assessment = until_cancelled(runner, async { Ok(assess(runner, role, due).await) }).await?;
    // What is clear without the journal needs no store.
    let evidence = || assessment.as_ref().map(|a| a.evidence.clone()).unwrap_or_default();
    let left = match election::eligibility(role, &runner.node.name, assessment.as_ref()) {
        Eligibility::Yes => None,
        Eligibility::No(why) => Some((Outcome::Standby, Reason::Standby(why, evidence()))),
        Eligibility::Unknown(why) => Some((Outcome::Unknown, Reason::Unknown(why, evidence()))),
    };
    if let Some((outcome, reason)) = left {
        let duration = runner.env.clock.boottime().saturating_sub(started);
        return Ok((RoleReport { duration, ..RoleReport::nothing(role.name.clone(), outcome) }, Some(reason)));
    }
    let (counting, counters) = Counting::new(connect().await?);
    let store: Arc<dyn Store> = Arc::new(counting);
    let finish = |mut report: RoleReport, reason: Option<Reason>| {
        report.duration = runner.env.clock.boottime().saturating_sub(started);
        report.requests = counters.read().requests();
        Ok((report, reason))
    };
    let repository =
        until_cancelled(runner, async { Ok(Repository::open(store, &role.name, &role.key).await?) }).await?;
    let opening = until_cancelled(runner, async { Ok(Opening::open(runner, &repository).await?) }).await?;
    let slot = match slot {
        None => None,
        Some((plan, _)) => {
            if let Some(offset) = repository.store.clock_offset().filter(|o| o.abs() > CLOCK_OFFSET_MAX) {
                return finish(
                    RoleReport::nothing(role.name.clone(), Outcome::Unknown),
                    Some(Reason::ClockOff { offset }),
                );
            }
            let (now, committed) = (runner.env.clock.now(), opening.view().state.last_slot);
            match (plan.pending(committed, now), plan.due(now)) {
                (Some(slot), _) => Some(slot.at),
                (None, Some(due)) => {
                    let report =
                        RoleReport { slot: Some(due.at), ..RoleReport::nothing(role.name.clone(), Outcome::Skipped) };
                    return finish(report, Some(Reason::SlotCommitted { slot: due.at }));
                }
                (None, None) => {
                    return finish(RoleReport::nothing(role.name.clone(), Outcome::Skipped), Some(Reason::NothingDue));
                }
            }
        }
    };
    let history = opening.history();
    let verdict = election::decide(Inputs {
        role,
        node: runner.node.id,
        label: &runner.node.name,
        assessment: assessment.as_ref(),
        history: Some(&history),
        occasion: slot.map_or(Occasion::ByHand, Occasion::Slot),
    });
    match verdict.state {
        State::Active { candidacy, .. } => {
            let ask = Ask { slot, rehash: request.rehash, own_places: own_places(runner, settings) };
            let done = Box::pin(opening.back_up(role, &candidacy, &ask)).await?;
            finish(committed(role, done, slot, &counters), None)
        }
        State::Standby(why) => finish(
            RoleReport::nothing(role.name.clone(), Outcome::Standby),
            Some(Reason::Standby(why, verdict.evidence)),
        ),
        State::Unknown(why) => finish(
            RoleReport::nothing(role.name.clone(), Outcome::Unknown),
            Some(Reason::Unknown(why, verdict.evidence)),
        ),
        State::Conflict { holder } => finish(
            RoleReport::nothing(role.name.clone(), Outcome::Standby),
            Some(Reason::Conflict { holder: holder.label }),
        ),
    }
}

/// Work that has changed nothing yet ends with the operator's signal.
async fn until_cancelled<T>(
    runner: &Runner,
    work: impl Future<Output = Result<T, GuardError>>,
) -> Result<T, GuardError> {
    tokio::select! {
        result = work => result,
        () = runner.cancel.cancelled() => Err(BackupError::Interrupted.into()),
    }
}

/// A store in a directory, and what this node remembers: both may lie inside a source.
fn own_places(runner: &Runner, settings: &Settings) -> Vec<PathBuf> {
    let store = match &settings.store.url {
        StoreUrl::Dir(path) => Some(path.clone()),
        StoreUrl::S3 { .. } => None,
    };
    store.into_iter().chain([runner.state_dir.clone()]).filter(|path| path.is_absolute()).collect()
}

/// What the probes say of `role` here; `None` for a role without any.
pub async fn assess(runner: &Runner, role: &RoleSettings, slot: Option<Timestamp>) -> Option<Assessment> {
    let probe = role.eligible.as_ref()?;
    let context = Context { node: runner.node.name.clone(), role: role.name.clone(), term: None, slot };
    Some(probe::assess(probe, &context, &runner.env).await)
}

fn due_slot(role: &RoleSettings, settings: &Settings, now: Timestamp) -> Result<(Plan, Option<Timestamp>), GuardError> {
    let plan = Plan::new(role, &settings.timezone)
        .map_err(|e| GuardError::Schedule { role: role.name.clone(), why: e.to_string() })?
        .ok_or_else(|| GuardError::NoSchedule { role: role.name.clone() })?;
    let at = plan.due(now).map(|slot: Slot| slot.at);
    Ok((plan, at))
}

fn committed(role: &RoleSettings, done: Committed, slot: Option<Timestamp>, counters: &Counters) -> RoleReport {
    let unchanged = done.previous.as_ref().is_some_and(|p| p.root == done.snapshot.root);
    RoleReport {
        outcome: if unchanged { Outcome::Unchanged } else { Outcome::Committed },
        snapshot: Some(done.snapshot.id),
        previous: done.previous.map(|p| p.time),
        term: Some(done.snapshot.term),
        slot,
        takeover: done.takeover,
        files: done.files,
        bytes: ByteCounts { uploaded: counters.read().bytes_up, ..done.bytes },
        problems: done.problems,
        problem_count: done.problem_count,
        ..RoleReport::nothing(role.name.clone(), Outcome::Committed)
    }
}
