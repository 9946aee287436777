//! How a role stands, judged from what a node sees: what keeps it from being backed up, how bad that is, and why. Pure.
//!
//! `whoami` and its `--check`, `status`, the present of an `audit` and the alerts all ask here, so that there is one opinion. A
//! verdict claims only what was seen: that no node is active is never known to a node that is not.

use std::cmp::Reverse;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::job::audit::pauses::PauseHistory;
use crate::job::report::RunOutcome;
use crate::job::report::whoami::{
    self, MissedCause, ProbeReport, RoleState, RoleWarning, RunStep, RunSummary, StateReason, StoreStatus,
};
use crate::journal::record::EndBody;
use crate::journal::state::{CommandEnd, JournalPause, JournalView, RunningCommand};
use crate::role::clock_tolerance;
use crate::role::slot::{Slot, SlotSchedule};
use crate::role::slot_commits::SlotCommits;

/// A pause without a stated end that is older than this was forgotten: a day is the longest work that people do without a plan.
pub(crate) const PAUSED_MAX: SignedDuration = SignedDuration::from_hours(24);

/// How bad something is, the worst last. Not to know is worse than a warning, because backups may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It may well be meant: told to people who ask, and no reason for an alarm.
    Note,
    /// It works, but not as it should, or may soon not work any more.
    Warning,
    /// Whether the role is backed up cannot be told.
    Unknown,
    /// The role is not backed up.
    Critical,
}

/// A backup that was begun for a slot, and of whose end nothing is known. The journal does not show it: a daemon says so, or a beat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningBackup {
    /// The label of the node that runs it.
    pub node: String,
    /// For which slot.
    pub slot: Timestamp,
    /// When it was begun, by that node's clock.
    pub since: Timestamp,
}

impl RunningBackup {
    /// What the journal shows the same of: a guarded command for a slot.
    pub(crate) fn from_command(running: &RunningCommand) -> Option<Self> {
        Some(Self { node: running.node.name.clone(), slot: running.slot?, since: running.time })
    }
}

/// What a journal says of the past, as far as a verdict needs it.
#[derive(Debug, Clone, Default)]
pub(crate) struct RoleHistory {
    /// The committed slots, and from when on slots are owed.
    pub(crate) commits: SlotCommits,
    /// The number of the newest snapshot's record, and when it was committed.
    pub(crate) snapshot: Option<(u64, Timestamp)>,
    /// When a slot was committed last, as far as that is remembered.
    pub(crate) scheduled: Option<Timestamp>,
    /// What the newest snapshot could not read.
    pub(crate) unreadable: u64,
    /// The pause that was said last and not ended by a person.
    pub(crate) paused: Option<JournalPause>,
    /// When no node was to run.
    pub(crate) pauses: PauseHistory,
    /// The guarded command of whose end the journal shows nothing.
    pub(crate) running: Option<RunningCommand>,
    /// That was begun on this node, and no process of this node runs it any more.
    pub(crate) running_ended: bool,
    /// How the guarded command for a slot ended that ended last.
    pub(crate) command: Option<CommandEnd>,
    /// The backups that are under way, as far as that is told.
    pub(crate) under_way: Vec<RunningBackup>,
}

impl RoleHistory {
    /// What `view` says.
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

    /// The number and the time of the record that the newest commit is: a snapshot, or the good end of a guarded command.
    pub(crate) fn committed(&self) -> Option<(u64, Timestamp)> {
        newest_commit(self.snapshot, self.command.as_ref())
    }

    /// The guarded command that ended last, if it failed and its slot is still to be committed.
    pub(crate) fn failed_command(&self, now: Timestamp) -> Option<RunSummary> {
        failed_command(self.command.as_ref()?, |slot| self.commits.is_closed(slot, now))
    }

    /// The slots that no node will commit in time any more, and that no pause excuses. `own`: the slot of a run of this node
    /// that is under way. Where no slot was ever committed they count from the making of the repository.
    pub(crate) fn missed(&self, plan: &SlotSchedule, own: Option<Timestamp>, now: Timestamp) -> Vec<Slot> {
        let excuse = |slot: Slot| self.pauses.covering(slot.starts, plan.start_by(slot), now).map(|(_, until)| until);
        let command = self.running.as_ref().and_then(|running| running.slot);
        let running: Vec<Timestamp> = self.under_way.iter().map(|run| run.slot).chain(command).chain(own).collect();
        plan.missed_except(&self.commits, &running, now, excuse).slots
    }

    /// When a slot was committed last, where the config has no schedule for the role.
    pub(crate) fn schedule_missing(&self, plan: Option<&SlotSchedule>) -> Option<Timestamp> {
        self.scheduled.filter(|_| plan.is_none())
    }

    /// The pause that goes on, and whether it was forgotten.
    pub(crate) fn pause(&self, now: Timestamp) -> Option<(&JournalPause, bool)> {
        let paused = self.paused.as_ref().filter(|paused| paused.until.is_none_or(|until| until > now))?;
        Some((paused, is_forgotten(paused.time, paused.until, now)))
    }
}

/// The number and the time of the newest commit, by these two: a command that failed is none.
pub(crate) fn newest_commit(
    snapshot: Option<(u64, Timestamp)>,
    command: Option<&CommandEnd>,
) -> Option<(u64, Timestamp)> {
    let command = command.filter(|command| command.end.is_success()).map(|command| (command.seq.0, command.time));
    snapshot.into_iter().chain(command).max_by_key(|(seq, _)| *seq)
}

/// The newest of these failures that had no commit after it. `newest`: the newest commit's number and time. Numbers tell it whatever
/// the clocks say.
pub(crate) fn open_failure(failures: &[RunSummary], newest: Option<(u64, Timestamp)>) -> Option<&RunSummary> {
    let is_over = |run: &RunSummary| match (newest, run.after) {
        (Some((seq, _)), Some(after)) => seq > after,
        (Some((_, time)), None) => time > run.time,
        (None, _) => false,
    };
    failures.iter().filter(|run| !is_over(run)).max_by_key(|run| run.time)
}

/// How a guarded command ended that failed, after the words for what it is.
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

/// How the guarded command failed that ended last, unless its slot `is_closed` by now. A command that a person ran for no slot is none of
/// these: it owes nothing.
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

/// Whether a pause lasts for too long: one with a stated end is meant for that long. Of one that is dated beyond the present it is
/// not known how old it is.
pub(crate) fn is_forgotten(since: Timestamp, until: Option<Timestamp>, now: Timestamp) -> bool {
    until.is_none() && (now.duration_since(since) >= PAUSED_MAX || clock_tolerance::is_in_future(since, now))
}

/// What a verdict rests on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HealthFacts<'a> {
    pub(crate) now: Timestamp,
    /// The election's verdict on this node, and its reason.
    pub(crate) state: RoleState,
    pub(crate) reason: &'a StateReason,
    /// What the probes said.
    pub(crate) evidence: &'a [ProbeReport],
    pub(crate) plan: Option<&'a SlotSchedule>,
    /// The store's clock minus this node's, in seconds.
    pub(crate) clock_offset_seconds: Option<i64>,
    pub(crate) store: &'a StoreStatus,
    /// The store shows less than this node has seen.
    pub(crate) rolled_back: bool,
    /// `None`: the journal cannot be read.
    pub(crate) past: Option<&'a RoleHistory>,
    /// Runs that ended without a commit, by this node and by those that told of theirs.
    pub(crate) failures: &'a [RunSummary],
    /// What the daemon of this node says of the role, where it answers.
    pub(crate) daemon: Option<&'a str>,
    /// What was seen besides: drift, the journal's head, the lease.
    pub(crate) observed: &'a [RoleWarning],
}

/// Everything that a person should look after, the worst first.
pub(crate) fn health_warnings(facts: &HealthFacts<'_>) -> Vec<RoleWarning> {
    let mut found = Vec::new();
    match facts.store {
        StoreStatus::Failed(why) => found.push(RoleWarning::StoreUnreadable { why: why.clone() }),
        StoreStatus::NotInitialised => found.push(RoleWarning::NoRepository),
        // One that this node knows and that is gone is among what was seen.
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
        // A role whose slots are committed by a command of `exec` has none.
        if past.snapshot.is_none() && past.commits.is_empty() && *facts.store == StoreStatus::Ok {
            let since = past.commits.created().filter(|at| !clock_tolerance::is_in_future(*at, facts.now));
            found.push(RoleWarning::NoSnapshot { since });
        }
    }
    found.extend_from_slice(facts.observed);
    found.sort_by_key(|warning| Reverse(severity(warning)));
    found
}

/// What was tried and failed, and nothing was committed since: the newest run or takeover, and the newest guarded command. The newest first.
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

/// The run that was begun for one of these slots or one before them, unless a run failed after that, and whether it is a command.
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

/// Now, by the store's clock where this node's is known to be off: its own would count slots that have not come, or leave out some
/// that have.
fn corrected_now(facts: &HealthFacts<'_>) -> Timestamp {
    let offset = facts
        .clock_offset_seconds
        .map(SignedDuration::from_secs)
        .filter(|offset| clock_tolerance::is_clock_off(*offset));
    offset.and_then(|offset| facts.now.checked_add(offset).ok()).unwrap_or(facts.now)
}

/// How bad it is.
pub fn severity(warning: &RoleWarning) -> Severity {
    match warning {
        // Another node may have the role, and back it up.
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

/// How bad a verdict on a node is by itself; `None`: it is as it should be. A pause is a warning of its own.
pub fn of_state(state: RoleState) -> Option<Severity> {
    match state {
        RoleState::Active | RoleState::Standby | RoleState::Paused => None,
        RoleState::Unknown => Some(Severity::Unknown),
        RoleState::Conflict => Some(Severity::Critical),
    }
}

#[cfg(test)]
mod tests;
