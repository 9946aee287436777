//! The controller of one role on one long-running node. It decides what to do next from what was observed. Pure: it is
//! given events with the time at which they happened, and returns effects that its caller performs.
//!
//! The invariants that live here: one effect at a time works on a role's journal; nothing is started without a clear
//! yes; a lease is given up only after the work that it guarded has ended; and a controller that stops for good stops
//! its work first.
//!
//! State that the election cannot see in a single evaluation is kept here: whether this node's eligibility was lost and
//! came back since another node took the role, since when the probes cannot tell, and when this node took the role
//! over, so that a due slot is not run on a machine that has only just become active.

mod backoff;
mod event;
pub mod read_interval;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use self::backoff::{AWAY, Backoff, OFFER_ASKS, exponential_backoff};
pub use self::event::{JournalUpdate, LeaseUpdate, RoleEffect, RoleEvent, YieldReason};
use super::candidacy::Deadline;
use super::election::{
    self, ElectionHistory, ElectionInputs, ElectionState, LeaseView, RetakeReason, RolePause, StandbyReason,
    TakeoverInfo, UnknownReason,
};
use super::lease::LeaseHolder;
use super::probe::{ProbeAnswer, ProbeAssessment};
use super::slot::SlotSchedule;
use crate::clock_reading::ClockReading;
use crate::config::{LeaseKind, RoleSettings};
use crate::ids::{Digest, NodeId, Term};

/// The interval between two evaluations of the probes. A change on the machine makes the next one sooner.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// A clock that moved by less than this counts as unmoved: the store's time has whole seconds.
const CLOCK_MOVED_MIN: SignedDuration = SignedDuration::from_secs(10);

/// The longest time between two ticks: a clock may be set, and a lease may expire, without an event.
const IDLE_MAX: Duration = Duration::from_secs(5);

#[derive(Debug)]
enum LeaseStatus {
    /// The lease was not asked for, or was given up.
    NotHeld,
    Mine(Deadline),
    Taken(Option<LeaseHolder>),
    Free,
    Unreachable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ActiveWork {
    Reading,
    TakingOver,
    Working,
}

/// This node's status for a role. Unlike [`ElectionState`] it carries no proof, so it can be kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RoleStatus {
    /// The node works for the role. In observe mode there is no term: the node would work for it.
    Active {
        /// The node's term.
        term: Option<Term>,
    },
    /// The lease is free; observe mode does not take it.
    Candidate,
    /// The node should not work for the role.
    Standby(StandbyReason),
    /// The node cannot tell.
    Unknown(UnknownReason),
    /// Another node took the role while this one was eligible as well.
    Conflict(TakeoverInfo),
    /// A person paused the role on all nodes.
    Paused(RolePause),
    /// This node exists twice.
    Cloned,
    /// The node has left the role to other nodes for a while.
    Away(YieldReason),
}

/// What a [`RoleController`] needs to know about its role and node.
#[derive(Debug)]
pub struct RoleParams {
    /// The role's settings.
    pub role: RoleSettings,
    /// This node.
    pub node: NodeId,
    /// This node's label.
    pub label: String,
    /// The role's schedule, if it has one.
    pub plan: Option<SlotSchedule>,
    /// The number of roles of this process.
    pub roles: usize,
    /// The interval between requests for the lease while another process has it.
    pub ask_interval: Duration,
    /// The pause after the lease service did not answer.
    pub retry_interval: Duration,
    /// Observe mode: probes and decides, but takes nothing.
    pub observe: bool,
}

/// A period in which the role is left to other nodes.
#[derive(Debug, Clone, Copy)]
struct AwayPeriod {
    why: YieldReason,
    /// The end of the period, as boot time.
    until: Duration,
}

/// The state machine of one role on one node.
#[derive(Debug)]
pub struct RoleController {
    role: RoleSettings,
    node: NodeId,
    label: String,
    plan: Option<SlotSchedule>,
    roles: usize,
    ask_interval: Duration,
    retry_interval: Duration,
    observe: bool,
    assessment: Option<ProbeAssessment>,
    probes_unknown_since: Option<Duration>,
    /// The boot time since which the journal cannot be read.
    journal_unreadable_since: Option<Duration>,
    history: Option<ElectionHistory>,
    /// When `history` was read.
    read_at: Timestamp,
    clock_offset: Option<SignedDuration>,
    /// The time of the last event.
    last: Option<ClockReading>,
    lease: LeaseStatus,
    term: Option<Term>,
    /// The probes said no since this node last had the role.
    was_away: bool,
    /// The boot time before which this node leaves alone a slot that another node did not run.
    settled_at: Duration,
    busy: Option<ActiveWork>,
    probing: bool,
    asking: bool,
    releasing: bool,
    cancelled: bool,
    run_requested: bool,
    borrowers: usize,
    borrowers_told_to_end: bool,
    stopping: bool,
    ended: bool,
    next_probe: Duration,
    next_ask: Duration,
    /// The boot time of the last read of the journal; `None` if it is to be read at once.
    last_read: Option<Duration>,
    /// A hint came while an effect was under way.
    hinted: bool,
    reading: Backoff,
    working: Backoff,
    /// This role's own delay before it goes on when the store answers again, so that many roles do not start at once.
    spread: Duration,
    away_reason: Option<AwayPeriod>,
    /// Stalled runs in a row.
    stalls: u32,
    /// The slot for which the role was offered to other nodes. It is offered once per slot; otherwise two busy nodes
    /// would hand it back and forth.
    offered_slot: Option<Timestamp>,
    announced_slot: Option<Timestamp>,
    /// The holder's heartbeat, and the boot time at which it changed last.
    holder_heartbeat: Option<(Digest, Duration)>,
    /// Number of times this node took the role from a silent holder. Each time it waits twice as long.
    retakes: u32,
    /// The reason of the takeover that is under way.
    takeover_reason: Option<RetakeReason>,
    reported: Option<RoleStatus>,
}

impl RoleController {
    /// A controller that has seen no event.
    pub fn new(terms: RoleParams) -> Self {
        let RoleParams { role, node, label, plan, roles, ask_interval, retry_interval, observe } = terms;
        let spread = backoff::resume_jitter(&role.name, node);
        Self {
            role,
            node,
            label,
            plan,
            roles,
            ask_interval,
            retry_interval,
            observe,
            assessment: None,
            probes_unknown_since: None,
            journal_unreadable_since: None,
            history: None,
            read_at: Timestamp::MIN,
            clock_offset: None,
            last: None,
            lease: LeaseStatus::NotHeld,
            term: None,
            was_away: false,
            settled_at: Duration::ZERO,
            busy: None,
            probing: false,
            asking: false,
            releasing: false,
            cancelled: false,
            run_requested: false,
            borrowers: 0,
            borrowers_told_to_end: false,
            stopping: false,
            ended: false,
            next_probe: Duration::ZERO,
            next_ask: Duration::ZERO,
            last_read: None,
            hinted: false,
            reading: Backoff::default(),
            working: Backoff::default(),
            spread,
            away_reason: None,
            stalls: 0,
            offered_slot: None,
            announced_slot: None,
            holder_heartbeat: None,
            retakes: 0,
            takeover_reason: None,
            reported: None,
        }
    }

    /// The status that was last reported.
    pub fn status(&self) -> Option<&RoleStatus> {
        self.reported.as_ref()
    }

    /// Whether the role has been told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether a requested run has neither begun nor been refused.
    pub fn is_run_requested(&self) -> bool {
        self.run_requested
    }

    /// Whether another process of this node may work under this process's lease.
    pub fn lends_lease(&self) -> bool {
        self.term.is_some()
            && !self.borrowers_told_to_end
            && !self.stopping
            && matches!(self.reported, Some(RoleStatus::Active { .. }))
    }

    /// The newest answer of the probes.
    pub fn assessment(&self) -> Option<&ProbeAssessment> {
        self.assessment.as_ref()
    }

    /// Handles an event and returns the effects to perform.
    pub fn on_event(&mut self, now: ClockReading, event: RoleEvent) -> Vec<RoleEffect> {
        // The clock was set, or the machine was suspended: the store's time and the other nodes' records are read again
        // at once.
        if self.last.replace(now).is_some_and(|last| now.drift_since(last) >= CLOCK_MOVED_MIN) {
            self.last_read = None;
        }
        self.apply_event(now, event);
        let mut effects = Vec::new();
        self.decide(now, &mut effects);
        effects
    }

    /// The boot time at which the next tick is due.
    pub fn next_wake(&self, now: ClockReading) -> Duration {
        let in_time = |at: Option<Timestamp>| {
            let left = at.map_or(SignedDuration::MAX, |at| at.duration_since(now.wall));
            now.boot.saturating_add(Duration::try_from(left).unwrap_or_default())
        };
        let due = self.plan.as_ref().and_then(|plan| plan.next(now.wall)).map(|slot| slot.starts);
        let paused = self.history.as_ref().and_then(|h| h.paused.as_ref()).and_then(|p| p.until);
        let timers = [
            (!self.probing && !self.stopping).then_some(self.next_probe),
            (!self.asking && !self.stopping && self.role.lease != LeaseKind::None).then_some(self.next_ask),
            (self.busy.is_none() && !self.stopping).then_some(self.reads_at(now)),
            Some(self.working.until),
            self.away_reason.map(|away| away.until),
            Some(self.settled_at),
            Some(in_time(due)),
            Some(in_time(paused)),
        ];
        let next = timers.into_iter().flatten().filter(|at| *at > now.boot).min();
        next.unwrap_or(Duration::MAX).min(now.boot + IDLE_MAX)
    }

    fn apply_event(&mut self, now: ClockReading, event: RoleEvent) {
        match event {
            RoleEvent::Tick => {}
            RoleEvent::ProbesChanged => self.next_probe = now.boot,
            RoleEvent::Assessed(assessment) => {
                self.probing = false;
                self.next_probe = now.boot + PROBE_INTERVAL;
                match assessment.as_ref().map(|a| a.answer) {
                    Some(ProbeAnswer::Unknown) => {
                        self.probes_unknown_since.get_or_insert(now.boot);
                    }
                    answer => {
                        self.probes_unknown_since = None;
                        self.was_away |= answer == Some(ProbeAnswer::No);
                    }
                }
                self.assessment = assessment;
            }
            RoleEvent::LeaseHint => {
                self.next_ask = now.boot;
            }
            RoleEvent::JournalHint => {
                self.last_read = None;
                // The effect that is under way may have read before the change.
                self.hinted = self.busy.is_some();
            }
            RoleEvent::LeaseUpdated(answer) => {
                self.asking = false;
                let silent = matches!(answer, LeaseUpdate::Unreachable);
                if !silent && matches!(self.lease, LeaseStatus::Unreachable) {
                    self.retry_soon(now);
                }
                self.next_ask = now.boot + if silent { self.retry_interval } else { self.ask_interval };
                self.lease = match answer {
                    LeaseUpdate::Held(deadline) => LeaseStatus::Mine(deadline),
                    LeaseUpdate::Taken(by) => LeaseStatus::Taken(by),
                    LeaseUpdate::Free => LeaseStatus::Free,
                    LeaseUpdate::Unreachable => LeaseStatus::Unreachable,
                };
            }
            RoleEvent::LeaseLost(to) => {
                self.lease = LeaseStatus::Taken(to);
                self.term = None;
            }
            RoleEvent::Released => {
                (self.releasing, self.lease, self.term) = (false, LeaseStatus::NotHeld, None);
                // A process that waits for the lease goes first.
                self.next_ask = now.boot + self.ask_interval;
            }
            RoleEvent::JournalUpdated(done) => self.apply_journal(now, done),
            RoleEvent::StoreAnswered => self.retry_soon(now),
            RoleEvent::Yielded(why) => self.step_aside(now, why),
            RoleEvent::Unblocked => {
                if let Some(AwayPeriod { why: YieldReason::Stalled { blocked: true }, .. }) = self.away_reason {
                    self.away_reason =
                        Some(AwayPeriod { why: YieldReason::Stalled { blocked: false }, until: now.boot + AWAY.0 });
                }
            }
            RoleEvent::RunRequested => {
                self.run_requested = true;
                // The person who asks for a run answers for it.
                self.away_reason = None;
            }
            RoleEvent::Borrowers(guests) => {
                self.borrowers = guests;
                self.borrowers_told_to_end &= guests > 0;
            }
            RoleEvent::Stop => self.stopping = true,
        }
    }

    fn apply_journal(&mut self, now: ClockReading, done: JournalUpdate) {
        let was = self.busy.take();
        self.cancelled = false;
        self.last_read = (!std::mem::take(&mut self.hinted)).then_some(now.boot);
        if done.term.is_some() {
            if self.term != done.term {
                let moved = self.history.as_ref().and_then(|h| h.holder.as_ref()).is_some_and(|h| h.node != self.node);
                self.settled_at = if moved { now.boot + self.role.takeover_delay } else { now.boot };
            }
            self.retakes += u32::from(self.takeover_reason == Some(RetakeReason::HolderSilent));
            (self.was_away, self.holder_heartbeat) = (false, None);
            self.term = done.term;
        }
        if let Some(beat) = done.heartbeat
            && self.holder_heartbeat.is_none_or(|(before, _)| before != beat)
        {
            self.holder_heartbeat = Some((beat, now.boot));
        }
        // The same skew is reported once.
        if let Some(offset) = done.clock_offset
            && self.clock_offset.is_none_or(|was| offset.saturating_sub(was).abs() >= CLOCK_MOVED_MIN)
        {
            self.clock_offset = Some(offset);
        }
        // A journal that cannot be read is not known any more.
        (self.history, self.read_at) = (done.history, now.wall);
        let holder = self.history.as_ref().and_then(|h| h.holder.as_ref());
        if self.term.is_some_and(|term| holder.is_none_or(|h| h.node != self.node || h.term != term)) {
            self.term = None;
        }
        if self.history.is_none() {
            self.reading.note_failure(now.boot, backoff::read_backoff_max(self.retry_interval));
            self.journal_unreadable_since.get_or_insert(now.boot);
        } else {
            self.reading = Backoff::default();
            self.journal_unreadable_since = None;
        }
        match was {
            _ if done.failed => self.working.note_failure(now.boot, backoff::WORK_MAX),
            Some(ActiveWork::TakingOver | ActiveWork::Working) => {
                self.working = Backoff::default();
                if was == Some(ActiveWork::Working) && self.away_reason.is_none() {
                    self.stalls = 0;
                }
            }
            Some(ActiveWork::Reading) | None => {}
        }
    }

    /// Ends all waiting that was caused by a store or lease service that did not answer. An effect that failed for
    /// another cause fails again.
    fn retry_soon(&mut self, now: ClockReading) {
        let at = now.boot + self.spread;
        self.reading.shorten(at);
        self.working.shorten(at);
    }

    /// Leaves the role to other nodes for a while. Without a lease there is nothing to give up; then this node only
    /// waits.
    fn step_aside(&mut self, now: ClockReading, why: YieldReason) {
        let until = match why {
            YieldReason::Stalled { blocked } => {
                let pause = exponential_backoff(AWAY.0, self.stalls, AWAY.1);
                self.stalls = self.stalls.saturating_add(1);
                if blocked { Duration::MAX } else { now.boot + pause }
            }
            YieldReason::Crowded => {
                let slot = self.pending(now).map(|slot| slot.at);
                if self.role.lease == LeaseKind::None || slot.is_none() || self.offered_slot == slot {
                    return;
                }
                self.offered_slot = slot;
                now.boot + self.ask_interval * OFFER_ASKS
            }
        };
        self.away_reason = Some(AwayPeriod { why, until });
    }

    /// The reason why the role is left to other nodes now.
    fn away(&self, now: ClockReading) -> Option<YieldReason> {
        self.away_reason.filter(|away| now.boot < away.until).map(|away| away.why)
    }

    fn decide(&mut self, now: ClockReading, effects: &mut Vec<RoleEffect>) {
        if self.ended {
            return;
        }
        if self.stopping {
            self.shut_down(effects);
            return;
        }
        if !self.probing && now.boot >= self.next_probe {
            self.probing = true;
            effects.push(RoleEffect::Probe);
        }
        if self.away_reason.is_some_and(|away| now.boot >= away.until) {
            self.away_reason = None;
        }
        let state = self.elect(now, self.retake_reason(now));
        self.update_status(now, &state, effects);
        if self.must_give_up_role(now, &state) {
            self.give_up_role(&state, effects);
        }
        if self.asks_for_lease(now, &state) && !self.asking && !self.releasing && now.boot >= self.next_ask {
            self.asking = true;
            effects.push(RoleEffect::AskLease);
        }
        if self.run_requested {
            self.serve_run_request(now, effects);
        }
        if self.observe {
            self.observe_slots(now, &state, effects);
        }
        if self.busy.is_some() || self.releasing {
            return;
        }
        if let Some(effect) = self.next_work(now, &state) {
            self.takeover_reason =
                if let RoleEffect::TakeOver { reason: retake_reason } = effect { Some(retake_reason) } else { None };
            self.busy = Some(match effect {
                RoleEffect::TakeOver { .. } => ActiveWork::TakingOver,
                RoleEffect::ReadJournal => ActiveWork::Reading,
                _ => ActiveWork::Working,
            });
            effects.push(effect);
        }
    }

    /// The next effect on the journal.
    fn next_work(&self, now: ClockReading, state: &ElectionState) -> Option<RoleEffect> {
        let read = (now.boot >= self.reads_at(now)).then_some(RoleEffect::ReadJournal);
        let ElectionState::Active { .. } = state else {
            // A node that probes and `nodes` exclude needs no store; a node that never read the journal cannot tell
            // anything else.
            return read.filter(|_| !self.is_excluded());
        };
        if self.observe || now.boot < self.working.until || self.away(now).is_some() {
            return read;
        }
        if self.term.is_none() {
            return Some(RoleEffect::TakeOver { reason: self.retake_reason(now) });
        }
        self.pending(now).filter(|_| now.boot >= self.settled_at).map(RoleEffect::BackUp).or(read)
    }

    /// Starts a requested run as soon as nothing else is under way, if this node has the role.
    fn serve_run_request(&mut self, now: ClockReading, effects: &mut Vec<RoleEffect>) {
        // It is not clear yet whether this node has the role.
        let settling = self.is_settling()
            || matches!(self.elect(now, RetakeReason::ByHand), ElectionState::Candidate)
                && !matches!(self.lease, LeaseStatus::Taken(_));
        if settling && !self.is_excluded() {
            return;
        }
        if !matches!(self.elect(now, RetakeReason::ByHand), ElectionState::Active { .. }) || self.observe {
            self.run_requested = false;
            effects.push(RoleEffect::RefuseRuns);
        } else if self.busy.is_none() && !self.releasing {
            self.run_requested = false;
            self.busy = Some(ActiveWork::Working);
            effects.push(RoleEffect::BackUpNow);
        }
    }

    /// In observe mode: reports once per slot that it would be backed up.
    fn observe_slots(&mut self, now: ClockReading, state: &ElectionState, effects: &mut Vec<RoleEffect>) {
        let would = matches!(state, ElectionState::Active { .. }) || self.reported == Some(RoleStatus::Candidate);
        let slot = self.pending(now).filter(|slot| would && self.announced_slot != Some(slot.at));
        if let Some(slot) = slot {
            self.announced_slot = Some(slot.at);
            effects.push(RoleEffect::WouldBackUp(slot));
        }
    }

    fn shut_down(&mut self, effects: &mut Vec<RoleEffect>) {
        if self.run_requested {
            self.run_requested = false;
            effects.push(RoleEffect::RefuseRuns);
        }
        self.end_borrowers(effects);
        // A read guards nothing: a store that hangs must not keep the lease from the other node.
        if self.busy.is_some_and(|busy| busy != ActiveWork::Reading) {
            self.cancel(effects);
        } else if self.releasing || self.asking || self.borrowers > 0 {
            // The answer to the request is still to come.
        } else if let LeaseStatus::Mine(_) = self.lease {
            self.releasing = true;
            effects.push(RoleEffect::ReleaseLease);
        } else {
            self.ended = true;
            effects.push(RoleEffect::End);
        }
    }

    /// Whether the lease is to be given up. This is so if this node should not have the role; if its clock is wrong; if
    /// it could not evaluate its probes or read the journal for as long as a due slot is left to the last holder; or if
    /// it completes no run. Another node may be able to.
    fn must_give_up_role(&self, now: ClockReading, state: &ElectionState) -> bool {
        let LeaseStatus::Mine(_) = &self.lease else {
            return self.role.lease == LeaseKind::None && Self::must_stop_work(state);
        };
        let for_long = |since: Option<Duration>| since.is_some_and(|at| now.boot >= at + self.role.takeover_delay);
        let for_long = for_long(self.probes_unknown_since) || for_long(self.journal_unreadable_since);
        Self::must_stop_work(state) || Self::has_wrong_clock(state) || for_long || self.away(now).is_some()
    }

    /// Whether work must stop in this state. A pause lets work end, and an unknown state is covered by the lease.
    fn must_stop_work(state: &ElectionState) -> bool {
        matches!(state, ElectionState::Standby(_) | ElectionState::Cloned)
    }

    /// Whether this node's clock is too wrong to run slots. Waiting does not help, and another node's clock may be
    /// right.
    fn has_wrong_clock(state: &ElectionState) -> bool {
        matches!(state, ElectionState::Unknown(UnknownReason::Clock { .. }))
    }

    fn give_up_role(&mut self, state: &ElectionState, effects: &mut Vec<RoleEffect>) {
        if Self::must_stop_work(state) {
            self.end_borrowers(effects);
            self.cancel(effects);
        }
        if let LeaseStatus::Mine(_) = self.lease
            && self.busy.is_none()
            && self.borrowers == 0
            && !self.releasing
        {
            self.releasing = true;
            effects.push(RoleEffect::ReleaseLease);
        }
    }

    fn end_borrowers(&mut self, effects: &mut Vec<RoleEffect>) {
        if self.borrowers > 0 && !self.borrowers_told_to_end {
            self.borrowers_told_to_end = true;
            effects.push(RoleEffect::EndBorrowers);
        }
    }

    fn cancel(&mut self, effects: &mut Vec<RoleEffect>) {
        if self.busy == Some(ActiveWork::Working) && !self.cancelled {
            self.cancelled = true;
            effects.push(RoleEffect::Cancel);
        }
    }

    fn update_status(&mut self, now: ClockReading, state: &ElectionState, effects: &mut Vec<RoleEffect>) {
        let status = match (state, &self.lease) {
            (ElectionState::Candidate, LeaseStatus::Taken(by)) => {
                RoleStatus::Standby(StandbyReason::LeaseTaken(by.clone()))
            }
            (ElectionState::Candidate, LeaseStatus::Free) if self.observe => RoleStatus::Candidate,
            (ElectionState::Candidate, LeaseStatus::NotHeld) if let Some(why) = self.away(now) => RoleStatus::Away(why),
            // The status stays as it was until the lease has been asked for and the takeover is in the journal.
            (ElectionState::Candidate, _) => return,
            (ElectionState::Active { .. }, _) if self.term.is_none() && !self.observe => return,
            (ElectionState::Active { .. }, _) => RoleStatus::Active { term: self.term },
            (ElectionState::Unknown(_), _) if self.is_settling() => return,
            (ElectionState::Unknown(reason), _) => RoleStatus::Unknown(*reason),
            (ElectionState::Standby(reason), _) => RoleStatus::Standby(reason.clone()),
            (ElectionState::Conflict { holder }, _) => RoleStatus::Conflict(holder.clone()),
            (ElectionState::Paused(pause), _) => RoleStatus::Paused(pause.clone()),
            (ElectionState::Cloned, _) => RoleStatus::Cloned,
        };
        if self.reported.as_ref() != Some(&status) {
            if !matches!(status, RoleStatus::Conflict(_)) {
                // The heartbeat of an earlier conflict says nothing about the next one.
                self.holder_heartbeat = None;
            }
            self.reported = Some(status);
            effects.push(RoleEffect::ReportStatus);
        }
    }

    fn elect(&self, now: ClockReading, retake_reason: RetakeReason) -> ElectionState {
        let lease = match &self.lease {
            LeaseStatus::Mine(deadline) if deadline.passed(now) => LeaseView::Unreachable,
            LeaseStatus::Mine(deadline) => LeaseView::Held(deadline),
            // A lease that another process has is asked for again and again.
            LeaseStatus::NotHeld | LeaseStatus::Taken(_) | LeaseStatus::Free => LeaseView::Unasked,
            LeaseStatus::Unreachable => LeaseView::Unreachable,
        };
        let asked = ElectionInputs {
            role: &self.role,
            node: self.node,
            label: &self.label,
            now: now.wall,
            clock_offset: self.clock_offset,
            assessment: self.assessment.as_ref(),
            lease,
            history: self.history.as_ref(),
            plan: self.plan.as_ref(),
            retake_reason,
        };
        election::decide(asked).state
    }

    /// The reason for taking the role back from a node that took it.
    fn retake_reason(&self, now: ClockReading) -> RetakeReason {
        if self.was_away {
            RetakeReason::Returned
        } else if self.is_holder_silent(now) {
            RetakeReason::HolderSilent
        } else {
            RetakeReason::None
        }
    }

    /// Whether the holder lets its slots pass and its heartbeat has not changed for long enough. A slot that passed
    /// after the last read of the journal may be committed by now.
    fn is_holder_silent(&self, now: ClockReading) -> bool {
        let wait = self.role.takeover_after.saturating_mul(1 << self.retakes.min(16));
        if self.holder_heartbeat.is_none_or(|(_, since)| now.boot < since + wait) {
            return false;
        }
        let commits = self.history.as_ref().map(|history| history.commits.clone()).unwrap_or_default();
        self.plan.as_ref().is_some_and(|plan| !plan.missed(&commits, &[], self.read_at).slots.is_empty())
    }

    /// Whether the lease is to be asked for. A service that could not be reached is asked again, whatever this node
    /// does meanwhile.
    fn asks_for_lease(&self, now: ClockReading, state: &ElectionState) -> bool {
        match state {
            ElectionState::Candidate => self.away(now).is_none(),
            ElectionState::Active { .. } | ElectionState::Unknown(UnknownReason::Lease(_)) => {
                matches!(self.lease, LeaseStatus::Unreachable)
            }
            _ => false,
        }
    }

    fn is_excluded(&self) -> bool {
        matches!(
            election::eligibility(&self.role, &self.label, self.assessment.as_ref()),
            election::Eligibility::No(StandbyReason::NotListed)
        )
    }

    /// Whether evidence for the decision has not been gathered yet.
    fn is_settling(&self) -> bool {
        let unasked = self.role.eligible.is_some() && self.assessment.is_none();
        unasked || (self.history.is_none() && self.reading.failures == 0)
    }
}

#[cfg(test)]
mod tests;
