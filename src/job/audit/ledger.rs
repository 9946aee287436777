//! Compares what happened for each slot with the schedule. Pure.
//!
//! The schedule is the present one of the config. Between two commits of which one is for an instant that is not a slot
//! of this schedule, the journal shows that another schedule was in force: there no slot counts as missed.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use jiff::Timestamp;

use crate::ids::{InstanceId, ScheduleId, Term};
use crate::job::health::RunningBackup;
use crate::job::health::pauses::PauseHistory;
use crate::job::report::audited::{
    AttemptEnd, AuditFinding, AuditNote, AuditedSlot, CALENDAR_SLOTS_MAX, CommitInfo, SlotAttempt, SlotCounts,
};
use crate::job::report::whoami::RecentSlots;
use crate::journal::state::JournalState;
use crate::journal::view::JournalView;
use crate::role::clock_tolerance;
use crate::role::slot::{Slot, SlotSchedule, SlotStatus};
use crate::role::slot_commits::{ScheduleInForce, SlotCommits};

/// Number of recent slots in the status of a role.
const RECENT_SLOTS: usize = 10;

/// The history of one slot.
#[derive(Debug, Clone, Default)]
struct SlotHistory {
    /// The journal's state says that the slot is committed, and nothing more.
    is_committed_by_state: bool,
    /// The slot had a commit that a prune has forgotten.
    forgotten: bool,
    commits: Vec<CommitInfo>,
    attempts: Vec<(InstanceId, SlotAttempt)>,
}

impl SlotHistory {
    fn is_committed(&self) -> bool {
        self.is_committed_by_state || self.forgotten || !self.commits.is_empty()
    }
}

/// The history of all slots that a record names.
#[derive(Debug, Clone, Default)]
pub(crate) struct SlotLedger {
    slots: BTreeMap<Timestamp, SlotHistory>,
    /// Creation time of the repository: no earlier slot counts as missed or late.
    created: Option<Timestamp>,
    /// The schedule of the last committed slots.
    schedule: Option<ScheduleInForce>,
    last_snapshot: Option<Timestamp>,
    /// Periods in which the role was paused.
    pub(crate) pauses: PauseHistory,
}

/// The slots that the schedule requires.
#[derive(Debug, Clone, Copy)]
struct ExpectedSlots {
    /// Only slots that start after this time.
    after: Option<Timestamp>,
    /// Only slots from this one on, the first one that this schedule committed.
    from: Option<Timestamp>,
}

impl ExpectedSlots {
    fn has(&self, slot: Slot) -> bool {
        self.after.is_none_or(|after| slot.starts > after) && self.from.is_none_or(|from| slot.at >= from)
    }
}

/// Summary of the slots of a period.
#[derive(Debug, Clone, Default)]
pub(crate) struct SlotSummary {
    pub(crate) counts: SlotCounts,
    pub(crate) findings: Vec<AuditFinding>,
    pub(crate) notes: Vec<AuditNote>,
    /// The newest slots that were committed or missed.
    pub(crate) calendar: VecDeque<(Timestamp, AuditedSlot)>,
    /// Consecutive slots up to now that are not committed for the same reason.
    run: Option<UncommittedStreak>,
}

/// Consecutive slots without a commit.
#[derive(Debug, Clone)]
struct UncommittedStreak {
    first: Timestamp,
    last: Timestamp,
    count: u64,
    why: UncommittedReason,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum UncommittedReason {
    NotTried,
    Paused { by: String, why: Option<String> },
}

impl SlotLedger {
    /// The slots that a state still has, in a repository that was made at `created`.
    pub(crate) fn of_state(state: &JournalState, created: Option<Timestamp>) -> Self {
        let (schedule, last_snapshot) = (state.schedule, state.snapshots.last().map(|snapshot| snapshot.time));
        let created = created.map(|at| state.created_at(at));
        let mut ledger = Self { created, schedule, last_snapshot, ..Self::default() };
        for snapshot in &state.snapshots {
            let Some(slot) = snapshot.slot else { continue };
            let (time, cost) = (snapshot.time, snapshot.cost);
            let began = before(time, cost.duration_ms);
            let (seq, term, node) = (snapshot.seq, snapshot.term, snapshot.node.name.clone());
            ledger.commit(slot, CommitInfo { seq, node, term, began, time });
        }
        for slot in state.past_slots.iter().chain(&state.amended_slots) {
            ledger.slots.entry(*slot).or_default().forgotten = true;
        }
        // A successful guarded command leaves only this entry.
        for slot in &state.command_slots {
            ledger.slots.entry(*slot).or_default().is_committed_by_state = true;
        }
        // A state of an older version has only the last slot.
        if let Some(slot) = state.last_slot {
            let tries = ledger.slots.entry(slot).or_default();
            tries.is_committed_by_state |= !tries.is_committed();
        }
        if let Some(paused) = &state.paused {
            ledger.pauses.begin(paused);
        }
        ledger
    }

    /// An operator declared at `present` that all later dates are wrong. A committed slot stays committed.
    pub(crate) fn amend(&mut self, present: Timestamp) {
        self.created = self.created.map(|at| if clock_tolerance::is_in_future(at, present) { present } else { at });
    }

    /// Adds a snapshot, scheduled or not.
    pub(crate) fn snapshot(&mut self, time: Timestamp) {
        self.last_snapshot = Some(time);
    }

    /// Adds the schedule by which a slot was committed.
    pub(crate) fn scheduled(&mut self, slot: Timestamp, schedule: Option<ScheduleId>) {
        self.schedule = ScheduleInForce::after(self.schedule, schedule, slot);
    }

    /// Adds a commit of a slot.
    pub(crate) fn commit(&mut self, slot: Timestamp, commit: CommitInfo) {
        self.slots.entry(slot).or_default().commits.push(commit);
    }

    /// Adds the begin of a guarded command by this process.
    pub(crate) fn begin(&mut self, slot: Timestamp, instance: InstanceId, attempt: SlotAttempt) {
        self.slots.entry(slot).or_default().attempts.push((instance, attempt));
    }

    /// Adds a running backup of this term that the journal does not contain.
    pub(crate) fn under_way(&mut self, run: &RunningBackup, term: Term) {
        let attempt = SlotAttempt { node: run.node.clone(), term, began: run.since, end: None };
        self.begin(run.slot, InstanceId([0; InstanceId::LEN]), attempt);
    }

    /// Adds the end of a guarded command. Returns when it began, if that is known.
    pub(crate) fn end(&mut self, slot: Timestamp, instance: InstanceId, end: AttemptEnd) -> Option<Timestamp> {
        let attempts = &mut self.slots.entry(slot).or_default().attempts;
        let open = attempts.iter_mut().rfind(|(by, attempt)| *by == instance && attempt.end.is_none());
        open.map(|(_, attempt)| {
            attempt.end = Some(end);
            attempt.began
        })
    }

    /// Slots with more than one commit, the last of them at or after `since`.
    pub(crate) fn duplicates(&self, since: Timestamp) -> Vec<AuditFinding> {
        let twice =
            self.slots.iter().filter(|(_, tries)| tries.commits.len() + usize::from(tries.is_committed_by_state) > 1);
        twice
            .filter(|(_, tries)| tries.commits.iter().any(|commit| commit.time >= since))
            .map(|(slot, tries)| AuditFinding::Duplicate { slot: *slot, commits: tries.commits.clone() })
            .collect()
    }

    /// The committed slots.
    pub(crate) fn commits(&self) -> SlotCommits {
        let slots = self.slots.iter().filter(|(_, tries)| tries.is_committed()).map(|(at, _)| *at);
        SlotCommits::new(slots, self.created).with_schedule(self.schedule, self.last_snapshot)
    }

    /// Judges the slots from `since` to `now` by the schedule.
    pub(crate) fn judge(&self, plan: &SlotSchedule, since: Timestamp, now: Timestamp) -> SlotSummary {
        let mut verdict = SlotSummary::default();
        // Slots that a wrong clock wrote say nothing about the schedule.
        let horizon = clock_tolerance::future_horizon(now);
        let first = self.slots.range(..=horizon).next().map(|(slot, _)| *slot);
        let commits = self.commits();
        let owed = ExpectedSlots {
            after: plan.owed_after(&commits, now),
            from: self.schedule.filter(|last| last.id == plan.id()).and_then(|last| last.since),
        };
        // For a role without any slot only the repository's creation time tells whether slots were due.
        let Some(first) = first.into_iter().chain(owed.after).min() else { return verdict };
        let known = self.slots.range(..since).next_back().map_or(since, |(slot, _)| *slot);
        let known = known.min(horizon);
        let planned: BTreeMap<Timestamp, bool> =
            self.slots.range(known..=horizon).map(|(slot, _)| (*slot, plan.slot_at(*slot).is_some())).collect();
        let unplanned = |(slot, planned): &(&Timestamp, &bool)| !**planned && self.slots[*slot].is_committed();
        verdict.counts.unplanned = planned.range(since..).filter(unplanned).count() as u64;
        let mut next = plan.slot_at_or_after(since.max(first));
        while let Some(slot) = next.filter(|slot| slot.starts <= now) {
            self.judge_one(plan, slot, (&planned, owed), now, &mut verdict);
            next = plan.following(slot);
        }
        verdict.flush();
        verdict
    }

    fn judge_one(
        &self,
        plan: &SlotSchedule,
        slot: Slot,
        (planned, owed): (&BTreeMap<Timestamp, bool>, ExpectedSlots),
        now: Timestamp,
        verdict: &mut SlotSummary,
    ) {
        let tries = self.slots.get(&slot.at);
        if let Some(tries) = tries.filter(|tries| tries.is_committed()) {
            verdict.flush();
            verdict.counts.expected += 1;
            verdict.counts.committed += 1;
            let is_single = tries.commits.len() < 2;
            verdict.mark(slot, if is_single { AuditedSlot::Committed } else { AuditedSlot::Duplicated });
            if let Some(commit) = tries.commits.first() {
                self.judge_commit(plan, slot, (owed, now), commit, verdict);
            }
            return;
        }
        if tries.is_none() && (!owed.has(slot) || !was_planned(planned, slot)) {
            verdict.flush();
            return;
        }
        let attempts: Vec<SlotAttempt> =
            tries.map(|tries| tries.attempts.iter().map(|(_, attempt)| attempt.clone()).collect()).unwrap_or_default();
        verdict.counts.expected += 1;
        match plan.slot_status(slot, &SlotCommits::default(), !attempts.is_empty(), now) {
            SlotStatus::Committed | SlotStatus::Open { .. } => {
                verdict.flush();
                verdict.counts.open += 1;
            }
            SlotStatus::NotStarted | SlotStatus::NotFinished => self.missed(plan, slot, attempts, now, verdict),
        }
    }

    fn missed(
        &self,
        plan: &SlotSchedule,
        slot: Slot,
        attempts: Vec<SlotAttempt>,
        now: Timestamp,
        verdict: &mut SlotSummary,
    ) {
        if let Some((span, _)) = self.pauses.covering(slot.starts, plan.start_by(slot), now) {
            verdict.counts.paused += 1;
            verdict.extend(slot.at, UncommittedReason::Paused { by: span.by.clone(), why: span.why.clone() });
        } else if attempts.is_empty() {
            verdict.counts.missed += 1;
            verdict.mark(slot, AuditedSlot::Missed);
            verdict.extend(slot.at, UncommittedReason::NotTried);
        } else {
            verdict.flush();
            verdict.counts.missed += 1;
            verdict.mark(slot, AuditedSlot::Missed);
            verdict.findings.push(AuditFinding::Missed { first: slot.at, last: slot.at, count: 1, attempts });
        }
    }

    fn judge_commit(
        &self,
        plan: &SlotSchedule,
        slot: Slot,
        (owed, now): (ExpectedSlots, Timestamp),
        commit: &CommitInfo,
        verdict: &mut SlotSummary,
    ) {
        let none = SlotCommits::default();
        let begun_late = plan.slot_status(slot, &none, false, commit.began) == SlotStatus::NotStarted;
        let ended_late = plan.slot_status(slot, &none, true, commit.time) == SlotStatus::NotFinished;
        if (begun_late || ended_late)
            && owed.has(slot)
            && self.pauses.covering(slot.starts, plan.start_by(slot), now).is_none()
        {
            verdict.counts.late += 1;
            verdict.findings.push(AuditFinding::Late { slot: slot.at, commit: commit.clone() });
        }
    }
}

impl SlotSummary {
    fn mark(&mut self, slot: Slot, mark: AuditedSlot) {
        if self.calendar.len() == CALENDAR_SLOTS_MAX {
            self.calendar.pop_front();
        }
        self.calendar.push_back((slot.at, mark));
    }

    /// Adds a slot without a commit.
    fn extend(&mut self, slot: Timestamp, why: UncommittedReason) {
        match &mut self.run {
            Some(run) if run.why == why => {
                run.last = slot;
                run.count += 1;
            }
            _ => {
                self.flush();
                self.run = Some(UncommittedStreak { first: slot, last: slot, count: 1, why });
            }
        }
    }

    /// Ends the current streak.
    fn flush(&mut self) {
        let Some(UncommittedStreak { first, last, count, why }) = self.run.take() else { return };
        match why {
            UncommittedReason::NotTried => {
                self.findings.push(AuditFinding::Missed { first, last, count, attempts: Vec::new() });
            }
            UncommittedReason::Paused { by, why } => self.notes.push(AuditNote::Paused { first, last, count, by, why }),
        }
    }
}

/// Whether this schedule was in force for `slot`, judged by the recorded slots before and after it.
fn was_planned(planned: &BTreeMap<Timestamp, bool>, slot: Slot) -> bool {
    let after = planned.range((Bound::Excluded(slot.at), Bound::Unbounded)).next();
    let before = planned.range(..slot.at).next_back();
    // Slots after the newest recorded one are judged by the present schedule.
    after.is_none_or(|(_, after)| *after && before.is_none_or(|(_, before)| *before))
}

/// Counts of the newest slots, as far as a state has them: it has every snapshot and the newest slots of guarded
/// commands, but no past pauses. `None`: it is unknown since when slots are due, or which ones guarded commands have
/// committed.
pub(crate) fn recent(
    plan: &SlotSchedule,
    view: &JournalView,
    under_way: &[RunningBackup],
    now: Timestamp,
) -> Option<RecentSlots> {
    let mut ledger = SlotLedger::of_state(&view.state, view.created);
    let command = view.running.as_ref().and_then(RunningBackup::from_command);
    for run in under_way.iter().chain(&command) {
        ledger.under_way(run, view.term());
    }
    if ledger.slots.is_empty() && view.created.is_none() {
        return None;
    }
    let mut first = plan.due(now)?;
    for _ in 1..RECENT_SLOTS {
        first = plan.preceding(first)?;
    }
    // The state may have dropped older slots of guarded commands.
    let vouched = ledger.slots.iter().find(|(_, tries)| tries.is_committed_by_state);
    if vouched.is_some_and(|(oldest, _)| *oldest > first.at) {
        return None;
    }
    Some(RecentSlots { since: first.at, counts: ledger.judge(plan, first.at, now).counts })
}

/// The time this number of milliseconds before `time`.
pub(crate) fn before(time: Timestamp, milliseconds: u64) -> Timestamp {
    let span = jiff::SignedDuration::from_millis(i64::try_from(milliseconds).unwrap_or(i64::MAX));
    time.checked_sub(span).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests;
