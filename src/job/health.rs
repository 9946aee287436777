//! Judges a role from what a node sees: what prevents its backups, how severe that is, and why. Pure.
//!
//! `whoami` and its `--check`, `status`, the present state in `audit` and the alerts all use this module, so they
//! always agree. A verdict claims only what was observed: an inactive node never knows that no node is active.

pub(crate) mod pauses;

use std::cmp::Reverse;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::job::health::pauses::PauseHistory;
use crate::job::report::RunOutcome;
use crate::job::report::run_summary::{RunStep, RunSummary};
use crate::job::report::whoami::{self, MissedCause, ProbeReport, RoleState, RoleWarning, StateReason, StoreStatus};
use crate::journal::body::EndBody;
use crate::journal::state::{CommandEnd, JournalPause, RunningCommand};
use crate::journal::view::JournalView;
use crate::role::clock_tolerance;
use crate::role::slot::{Slot, SlotSchedule};
use crate::role::slot_commits::SlotCommits;

/// A pause without a stated end counts as forgotten after this time: a day is the longest work that people do without a
/// plan.
pub(crate) const PAUSED_MAX: SignedDuration = SignedDuration::from_hours(24);

/// Severity of a warning, the worst last. An unknown state is worse than a warning, because backups may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It may be intended: shown on request, without an alert.
    Note,
    /// It works, but not as it should, or may stop working soon.
    Warning,
    /// It is unknown whether the role is backed up.
    Unknown,
    /// The role is not backed up.
    Critical,
}

/// A backup that was started for a slot and has not ended as far as is known. The journal does not contain it: the
/// daemon or a heartbeat reports it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningBackup {
    /// The label of the node that runs it.
    pub node: String,
    /// The slot of the backup.
    pub slot: Timestamp,
    /// When it was started, by that node's clock.
    pub since: Timestamp,
}

impl RunningBackup {
    /// The same for a guarded command of a slot, which the journal contains.
    pub(crate) fn from_command(running: &RunningCommand) -> Option<Self> {
        Some(Self { node: running.node.name.clone(), slot: running.slot?, since: running.time })
    }
}

/// The parts of a journal that a verdict needs.
#[derive(Debug, Clone, Default)]
pub(crate) struct RoleHistory {
    /// The committed slots, and since when slots are due.
    pub(crate) commits: SlotCommits,
    /// Record number and time of the newest snapshot.
    pub(crate) snapshot: Option<(u64, Timestamp)>,
    /// The last committed slot, as far as the journal has it.
    pub(crate) scheduled: Option<Timestamp>,
    /// Number of entries that the newest snapshot could not read.
    pub(crate) unreadable: u64,
    /// The newest pause that no operator has ended.
    pub(crate) paused: Option<JournalPause>,
    /// All pauses.
    pub(crate) pauses: PauseHistory,
    /// The guarded command without a recorded end.
    pub(crate) running: Option<RunningCommand>,
    /// Whether `running` was started on this node, and no process of this node runs it any more.
    pub(crate) running_ended: bool,
    /// The end of the scheduled guarded command that ended last.
    pub(crate) command: Option<CommandEnd>,
    /// The running backups that are known.
    pub(crate) under_way: Vec<RunningBackup>,
}

impl RoleHistory {
    /// The history in `view`.
    pub(crate) fn of(view: &JournalView) -> Self {
        let mut pauses = PauseHistory::default();
        if let Some(past) = &view.past_pause {
            pauses.past(past);
        }
        if let Some(paused) = &view.state.paused {
            pauses.begin(paused);
        }
        Self {
            commits: view.commits(),
            snapshot: view.state.snapshots.last().map(|snapshot| (snapshot.seq.0, snapshot.time)),
            scheduled: view.state.last_scheduled(),
            unreadable: view.state.snapshots.last().map_or(0, |snapshot| snapshot.changes.unreadable),
            paused: view.state.paused.clone(),
            pauses,
            running: view.running.clone(),
            under_way: Vec::new(),
            running_ended: false,
            command: view.state.holder.as_ref().and_then(|holder| holder.command.clone()),
        }
    }

    /// Record number and time of the newest commit: a snapshot, or a successful guarded command.
    pub(crate) fn committed(&self) -> Option<(u64, Timestamp)> {
        newest_commit(self.snapshot, self.command.as_ref())
    }

    /// The guarded command that ended last, if it failed and its slot is not committed yet.
    pub(crate) fn failed_command(&self, now: Timestamp) -> Option<RunSummary> {
        failed_command(self.command.as_ref()?, |slot| self.commits.is_closed(slot, now))
    }

    /// The slots that no node can commit in time any more, without those that a pause covers. `own`: the slot of a
    /// running backup of this node. If no slot was ever committed, slots count from the creation of the repository.
    pub(crate) fn missed(&self, plan: &SlotSchedule, own: Option<Timestamp>, now: Timestamp) -> Vec<Slot> {
        let excuse = |slot: Slot| self.pauses.covering(slot.starts, plan.start_by(slot), now).map(|(_, until)| until);
        let command = self.running.as_ref().and_then(|running| running.slot);
        let running: Vec<Timestamp> = self.under_way.iter().map(|run| run.slot).chain(command).chain(own).collect();
        plan.missed_except(&self.commits, &running, now, excuse).slots
    }

    /// The last committed slot, if the config has no schedule for the role.
    pub(crate) fn schedule_missing(&self, plan: Option<&SlotSchedule>) -> Option<Timestamp> {
        self.scheduled.filter(|_| plan.is_none())
    }

    /// The current pause, and whether it counts as forgotten.
    pub(crate) fn pause(&self, now: Timestamp) -> Option<(&JournalPause, bool)> {
        let paused = self.paused.as_ref().filter(|paused| paused.until.is_none_or(|until| until > now))?;
        Some((paused, is_forgotten(paused.time, paused.until, now)))
    }
}

/// Record number and time of the newer of these two commits; a failed command is not a commit.
pub(crate) fn newest_commit(
    snapshot: Option<(u64, Timestamp)>,
    command: Option<&CommandEnd>,
) -> Option<(u64, Timestamp)> {
    let command = command.filter(|command| command.end.is_success()).map(|command| (command.seq.0, command.time));
    snapshot.into_iter().chain(command).max_by_key(|(seq, _)| *seq)
}

/// The newest of these failures without a later commit. `newest`: record number and time of the newest commit. The
/// record number decides, so clock differences do not matter.
pub(crate) fn open_failure(failures: &[RunSummary], newest: Option<(u64, Timestamp)>) -> Option<&RunSummary> {
    let is_over = |run: &RunSummary| match (newest, run.after) {
        (Some((seq, _)), Some(after)) => seq > after,
        (Some((_, time)), None) => time > run.time,
        (None, _) => false,
    };
    failures.iter().filter(|run| !is_over(run)).max_by_key(|run| run.time)
}

/// How a failed guarded command ended, as a continuation of its name.
pub(crate) fn ended(end: &EndBody) -> String {
    let ended = match end.signal {
        Some(signal) => format!("was ended by signal {signal}"),
        None => format!("ended with exit code {}", end.exit),
    };
    match (end.stopped, end.timed_out) {
        (_, true) => format!("took longer than its --timeout, and {ended}"),
        (true, false) => format!("was stopped, because its node was no longer active, and {ended}"),
        (false, false) => ended,
    }
}

/// The failure of the guarded command that ended last, unless its slot `is_closed`. A command that an operator started
/// without a slot does not count.
pub(crate) fn failed_command(last: &CommandEnd, is_closed: impl FnOnce(Timestamp) -> bool) -> Option<RunSummary> {
    let CommandEnd { node, time, slot, end, .. } = last;
    if end.is_success() || is_closed(*slot) {
        return None;
    }
    Some(RunSummary {
        node: node.name.clone(),
        outcome: RunOutcome::Failed,
        step: RunStep::Command,
        time: *time,
        slot: Some(*slot),
        error: ended(end),
        failures: 1,
        after: None,
    })
}

/// Whether a pause lasts too long. A pause with a stated end is intended for that long. The age of a pause that is
/// dated in the future is unknown.
pub(crate) fn is_forgotten(since: Timestamp, until: Option<Timestamp>, now: Timestamp) -> bool {
    until.is_none() && (now.duration_since(since) >= PAUSED_MAX || clock_tolerance::is_in_future(since, now))
}

/// The inputs of a verdict.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HealthFacts<'a> {
    pub(crate) now: Timestamp,
    /// The election's result for this node, and its reason.
    pub(crate) state: RoleState,
    pub(crate) reason: &'a StateReason,
    /// The answers of the probes.
    pub(crate) evidence: &'a [ProbeReport],
    pub(crate) plan: Option<&'a SlotSchedule>,
    /// The store's clock minus this node's, in seconds.
    pub(crate) clock_offset_seconds: Option<i64>,
    pub(crate) store: &'a StoreStatus,
    /// The store has older records than this node has read.
    pub(crate) rolled_back: bool,
    /// `None`: the journal cannot be read.
    pub(crate) past: Option<&'a RoleHistory>,
    /// Runs without a commit, of this node and of the nodes that reported theirs.
    pub(crate) failures: &'a [RunSummary],
    /// The answer of this node's daemon, if there is one.
    pub(crate) daemon: Option<&'a str>,
    /// Warnings from other observations: drift, the journal's head, the lease.
    pub(crate) observed: &'a [RoleWarning],
}

/// All conditions that need an operator's attention, the worst first.
pub(crate) fn health_warnings(facts: &HealthFacts<'_>) -> Vec<RoleWarning> {
    let mut found = Vec::new();
    match facts.store {
        StoreStatus::Failed(why) => found.push(RoleWarning::StoreUnreadable { why: why.clone() }),
        StoreStatus::NotInitialised => found.push(RoleWarning::NoRepository),
        // A known repository that is gone is among the observed warnings.
        StoreStatus::Ok | StoreStatus::Gone => {}
    }
    if facts.rolled_back {
        found.push(RoleWarning::StoreRolledBack);
    }
    found.extend(failures_since_commit(facts).into_iter().map(RoleWarning::RunFailed));
    if let Some(seconds) = facts.clock_offset_seconds
        && clock_tolerance::is_clock_off(SignedDuration::from_secs(seconds))
    {
        found.push(RoleWarning::ClockOff(seconds));
    }
    if let Some(past) = facts.past {
        found.extend(slots_missed(facts, past));
        found.extend(past.schedule_missing(facts.plan).map(|last| RoleWarning::ScheduleMissing { last }));
        if let Some((paused, too_long)) = past.pause(corrected_now(facts)) {
            let (by, since, until, why) = (paused.node.name.clone(), paused.time, paused.until, paused.why.clone());
            found.push(RoleWarning::Paused { by, since, until, why, too_long });
        }
        if past.unreadable > 0 {
            found.push(RoleWarning::Incomplete { unreadable: past.unreadable });
        }
        // A role whose slots are committed by a command of `exec` has no snapshots.
        if past.snapshot.is_none() && past.commits.is_empty() && *facts.store == StoreStatus::Ok {
            let since = past.commits.created().filter(|at| !clock_tolerance::is_in_future(*at, facts.now));
            found.push(RoleWarning::NoSnapshot { since });
        }
    }
    found.extend_from_slice(facts.observed);
    found.sort_by_key(|warning| Reverse(severity(warning)));
    found
}

/// Failures without a later commit: the newest run or takeover, and the newest guarded command. The newest comes first.
pub(crate) fn failures_since_commit(facts: &HealthFacts<'_>) -> Vec<RunSummary> {
    let run = open_failure(facts.failures, facts.past.and_then(RoleHistory::committed)).cloned();
    let command = facts.past.and_then(|past| past.failed_command(corrected_now(facts)));
    let mut failed: Vec<RunSummary> = run.into_iter().chain(command).collect();
    failed.sort_by_key(|run| Reverse(run.time));
    failed
}

fn slots_missed(facts: &HealthFacts<'_>, past: &RoleHistory) -> Option<RoleWarning> {
    let missed = past.missed(facts.plan?, None, corrected_now(facts));
    let (first, last, count) = (missed.first()?.at, missed.last()?.at, missed.len());
    let cause = match (facts.state, facts.reason) {
        _ if let Some((run, is_command)) = blocking_run(facts, past, &missed) => {
            let gone = is_command && past.running_ended;
            MissedCause::Running { node: run.node, since: run.since, is_command, gone }
        }
        (_, StateReason::ProbesNo | StateReason::Fallback { .. }) => MissedCause::NotEligible,
        (_, StateReason::NotListed) => MissedCause::NotListed,
        (_, StateReason::ClockOff) => MissedCause::ClockOff,
        (_, StateReason::LeaseTaken { by: Some(by) }) => MissedCause::HeldBy(by.clone()),
        (_, StateReason::Daemon { why }) => MissedCause::Daemon(why.clone()),
        (RoleState::Active, _)
            if !failures_since_commit(facts).is_empty() || facts.observed.iter().any(is_state_dir_warning) =>
        {
            MissedCause::Failing
        }
        (RoleState::Active, _) => {
            facts.daemon.map_or(MissedCause::ActiveHere, |says| MissedCause::Daemon(says.to_owned()))
        }
        (_, StateReason::ProbesUnknown) => MissedCause::ProbesUnknown(whoami::undecided_probe(facts.evidence)),
        (_, StateReason::LeaseFree { .. }) if !failures_since_commit(facts).is_empty() => MissedCause::Failing,
        (_, StateReason::LeaseFree { .. }) => MissedCause::LeaseFree,
        (_, StateReason::HandedOver { to: by, .. } | StateReason::TakenOver { by, .. }) => {
            MissedCause::HasRole(by.clone())
        }
        _ => MissedCause::NotSeen,
    };
    Some(RoleWarning::SlotsMissed { first, last, count, cause })
}

/// The run that was started for one of these slots or an earlier one, unless a run failed after that, and whether it is
/// a guarded command.
fn blocking_run(facts: &HealthFacts<'_>, past: &RoleHistory, missed: &[Slot]) -> Option<(RunningBackup, bool)> {
    let command = past.running.as_ref().and_then(RunningBackup::from_command);
    let is_open = |run: &RunningBackup| {
        !past.commits.is_closed(run.slot, corrected_now(facts)) && missed.iter().any(|missed| missed.at >= run.slot)
    };
    let failed_since =
        |run: &RunningBackup| failures_since_commit(facts).first().is_some_and(|failed| failed.time > run.since);
    let backups = past.under_way.iter().cloned().map(|run| (run, false));
    command.map(|run| (run, true)).into_iter().chain(backups).find(|(run, _)| is_open(run) && !failed_since(run))
}

fn is_state_dir_warning(warning: &RoleWarning) -> bool {
    matches!(warning, RoleWarning::StateUnwritable { .. })
}

/// The present by the store's clock if this node's clock is known to be off: its own would count slots that have not
/// started, or omit some that have.
fn corrected_now(facts: &HealthFacts<'_>) -> Timestamp {
    let offset = facts
        .clock_offset_seconds
        .map(SignedDuration::from_secs)
        .filter(|offset| clock_tolerance::is_clock_off(*offset));
    offset.and_then(|offset| facts.now.checked_add(offset).ok()).unwrap_or(facts.now)
}

/// The severity of a warning.
pub fn severity(warning: &RoleWarning) -> Severity {
    match warning {
        // Another node may hold the role and back it up.
        RoleWarning::RunFailed(run) if (run.step, run.outcome) == (RunStep::Takeover, RunOutcome::Unknown) => {
            Severity::Unknown
        }
        RoleWarning::RunFailed(_)
        | RoleWarning::SlotsMissed { .. }
        | RoleWarning::StoreRolledBack
        | RoleWarning::NoRepository
        | RoleWarning::RepositoryGone { .. }
        | RoleWarning::AnotherRepository { .. }
        | RoleWarning::LeaseDrift { .. }
        | RoleWarning::StateUnwritable { stands_by: false, .. }
        | RoleWarning::Paused { too_long: true, .. }
        | RoleWarning::JournalHead { lost: true, .. } => Severity::Critical,
        RoleWarning::OnlyNode | RoleWarning::FormerNodes { .. } | RoleWarning::Unread { harmless: true, .. } => {
            Severity::Note
        }
        RoleWarning::ClockOff(_)
        | RoleWarning::Incomplete { .. }
        | RoleWarning::NoContent
        | RoleWarning::EmptySources(_)
        | RoleWarning::Lost { .. }
        | RoleWarning::Twin { .. }
        | RoleWarning::StoreUnreadable { .. }
        | RoleWarning::NoSnapshot { .. }
        | RoleWarning::ScheduleMissing { .. }
        | RoleWarning::Paused { too_long: false, .. }
        | RoleWarning::Drift { .. }
        | RoleWarning::LeaseUnread { .. }
        | RoleWarning::DaemonSilent
        | RoleWarning::StateUnwritable { stands_by: true, .. }
        | RoleWarning::Exposed(_)
        | RoleWarning::Unread { harmless: false, .. }
        | RoleWarning::FutureDates(_)
        | RoleWarning::RecordsLost { .. }
        | RoleWarning::JournalHead { lost: false, .. } => Severity::Warning,
    }
}

/// The severity of a node's state by itself; `None`: the state is normal. A pause has its own warning.
pub fn of_state(state: RoleState) -> Option<Severity> {
    match state {
        RoleState::Active | RoleState::Standby | RoleState::Paused => None,
        RoleState::Unknown => Some(Severity::Unknown),
        RoleState::Conflict => Some(Severity::Critical),
    }
}

#[cfg(test)]
mod tests;
