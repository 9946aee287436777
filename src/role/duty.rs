//! One role on one long-running node: what to do next, from what was seen. Pure: it is told events with the time at which
//! they happened, and answers with effects that somebody else performs.
//!
//! The invariants that live here: a role's journal is worked on by one effect at a time; nothing is started on an answer that
//! was not a clear yes; a lease is given up only when the work that it guarded has ended; and whoever stops for good stops
//! its work first.
//!
//! What the election cannot see in one look is remembered here: whether this node's eligibility has gone and come back since
//! another node took the role, since when the probes cannot tell, and when this node took the role over, so that a due slot is
//! not run on a machine that is still finding its feet.

mod attention;
mod backoff;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

pub use self::attention::{READ_INTERVAL, READ_INTERVAL_IDLE};
use self::backoff::{AWAY, Backoff, OFFER_ASKS, doubled};
use super::election::{
    self, History, Holding, Inputs, LeaseView, Occasion, Pause, StandbyReason, State, UnknownReason,
};
use super::lease::LeaseHolder;
use super::permit::Deadline;
use super::probe::{Answer, Assessment};
use super::slot::{Plan, Slot};
use crate::config::{Lease, RoleSettings};
use crate::ids::{Digest, NodeId, Term};
use crate::moment::Moment;

/// How often the probes are asked. An event of the machine makes it sooner.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(5);

/// A clock that differs from what it was by less than this is where it was: the store's time comes in whole seconds.
const CLOCK_MOVED_MIN: SignedDuration = SignedDuration::from_secs(10);

/// The longest that nothing is looked at: time may be set, and leases pass without an event.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// What has happened.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "one at a time is made, handed over and taken apart")]
pub enum Event {
    /// The time that [`Duty::wake`] named has come, or any other.
    Tick,
    /// Something on this machine changed that the probes may see.
    Changed,
    /// The probes answered; `None`: the role has none.
    Assessed(Option<Assessment>),
    /// The lease may have come free.
    LeaseHint,
    /// The journal may have a new record.
    JournalHint,
    /// The lease service answered.
    Lease(LeaseAnswer),
    /// Another process has the lease now.
    LeaseLost(Option<LeaseHolder>),
    /// The lease was given up.
    Released,
    /// Work on the journal ended.
    Journal(Journal),
    /// The store answers again, after it did not.
    StoreAnswered,
    /// The run that was started leaves the role to another node; [`Event::Journal`] follows.
    Yielded(Yield),
    /// What was left behind by a run that was stalled goes on.
    Unblocked,
    /// Somebody asks for a run now.
    Wanted,
    /// So many other processes of this node work under this one's lease now.
    Guests(usize),
    /// This node stops working for the role.
    Stop,
}

/// Why a node leaves a role that it may have to another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Yield {
    /// Its run made no progress, and was ended.
    Stalled {
        /// Something of it cannot be ended: it waits for the kernel. A further run would wait as well.
        blocked: bool,
    },
    /// Its run has waited for longer than `missed_after` until others end.
    Crowded,
}

/// What asking for the lease came to.
#[derive(Debug)]
pub enum LeaseAnswer {
    /// This process holds it, until then; the deadline moves while it is renewed.
    Held(Deadline),
    /// Another process holds it.
    Taken(Option<LeaseHolder>),
    /// Nobody does: only somebody who observes is told this.
    Free,
    /// It cannot be told.
    Unreachable,
}

/// What work on the journal came to.
#[derive(Debug)]
pub struct Journal {
    /// What it says now; `None`: it could not be read.
    pub history: Option<History>,
    /// The term under which this process works now.
    pub term: Option<Term>,
    /// Whether what was tried is to be tried again.
    pub failed: bool,
    /// What changes while the holder works without a lease; `None`: nobody looked.
    pub beat: Option<Digest>,
    /// The store's clock minus this node's; `None`: the store has not told.
    pub clock_offset: Option<SignedDuration>,
}

/// What is to be done. Each effect is answered by the event of the same matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Ask the probes: [`Event::Assessed`].
    Probe,
    /// Ask for the lease: [`Event::Lease`].
    AskLease,
    /// Give the lease up: [`Event::Released`].
    ReleaseLease,
    /// Read the journal on: [`Event::Journal`].
    Read,
    /// Append a takeover, or go on under this node's own: [`Event::Journal`].
    TakeOver {
        /// What speaks for it where another node took the role meanwhile.
        occasion: Occasion,
    },
    /// Back up for this slot: [`Event::Journal`].
    BackUp(Slot),
    /// Say that this slot would be backed up now; no answer is awaited.
    WouldBackUp(Slot),
    /// Do the run that was wanted: [`Event::Journal`].
    BackUpNow,
    /// Tell whoever wanted a run that this node does not work for the role; no answer is awaited.
    RefuseWanted,
    /// End the work that is under way; its own event tells when it has.
    Cancel,
    /// Tell the processes that work under this one's lease to end; they are gone when [`Event::Guests`] says so.
    Dismiss,
    /// This node stands differently than before; no answer is awaited.
    Tell,
    /// All work has ended and nothing is held: nothing more comes.
    End,
}

#[derive(Debug)]
enum Held {
    /// Nobody asked, or it was given up.
    No,
    Mine(Deadline),
    Taken(Option<LeaseHolder>),
    Free,
    Unreachable,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Busy {
    Reading,
    TakingOver,
    Working,
}

/// How a node stands for a role, in words that last longer than the proof that goes with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stand {
    /// It works for the role; without a term: it would, and only observes.
    Active {
        /// Its term.
        term: Option<Term>,
    },
    /// It would take a lease that nobody holds, and only observes.
    Candidate,
    /// It should not.
    Standby(StandbyReason),
    /// It cannot tell.
    Unknown(UnknownReason),
    /// Another node took the role while this one was eligible as well.
    Conflict(Holding),
    /// A person said that nobody runs it.
    Paused(Pause),
    /// This node exists twice.
    Cloned,
    /// It has left the role to another node for a while.
    Away(Yield),
}

/// What a [`Duty`] is about.
#[derive(Debug)]
pub struct Terms {
    /// The role.
    pub role: RoleSettings,
    /// This node.
    pub node: NodeId,
    /// Its label.
    pub label: String,
    /// The role's schedule, if it has one.
    pub plan: Option<Plan>,
    /// How many roles this process has.
    pub roles: usize,
    /// How often the lease is asked for while another process has it.
    pub ask_interval: Duration,
    /// The pause after its service did not answer.
    pub retry_interval: Duration,
    /// Asks and decides, and takes nothing.
    pub observe: bool,
}

/// A role that is left to other nodes.
#[derive(Debug, Clone, Copy)]
struct Away {
    why: Yield,
    /// As boot time.
    until: Duration,
}

/// The machine.
#[derive(Debug)]
pub struct Duty {
    role: RoleSettings,
    node: NodeId,
    label: String,
    plan: Option<Plan>,
    roles: usize,
    ask_interval: Duration,
    retry_interval: Duration,
    observe: bool,
    assessment: Option<Assessment>,
    untold_since: Option<Duration>,
    /// Since when the journal cannot be read.
    blind_since: Option<Duration>,
    history: Option<History>,
    /// When it was read.
    read_at: Timestamp,
    clock_offset: Option<SignedDuration>,
    /// The last event's time.
    last: Option<Moment>,
    lease: Held,
    term: Option<Term>,
    /// The probes said no since this node last had the role.
    was_away: bool,
    /// The boot time before which a slot that another node did not run is left alone.
    settled: Duration,
    busy: Option<Busy>,
    probing: bool,
    asking: bool,
    releasing: bool,
    cancelled: bool,
    wanted: bool,
    guests: usize,
    dismissed: bool,
    stopping: bool,
    ended: bool,
    next_probe: Duration,
    next_ask: Duration,
    /// When the journal was read last, as boot time; `None`: it is to be read at once.
    last_read: Option<Duration>,
    /// A hint came while something was under way.
    hinted: bool,
    reading: Backoff,
    working: Backoff,
    /// How much later than others this one goes on when the store answers again.
    spread: Duration,
    away: Option<Away>,
    /// Runs in a row that were stalled.
    stalls: u32,
    /// The slot for which the role was offered to other nodes: once is enough, or two that are crowded hand it back and forth.
    offered: Option<Timestamp>,
    would: Option<Timestamp>,
    /// The holder's beat, and the boot time at which it changed last.
    beat: Option<(Digest, Duration)>,
    /// How often this node took the role from a silent one: each time it waits twice as long.
    retakes: u32,
    /// What speaks for the takeover that is under way.
    taking: Option<Occasion>,
    told: Option<Stand>,
}

impl Duty {
    /// Before anything has happened.
    pub fn new(terms: Terms) -> Self {
        let Terms { role, node, label, plan, roles, ask_interval, retry_interval, observe } = terms;
        let spread = backoff::spread(&role.name, node);
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
            untold_since: None,
            blind_since: None,
            history: None,
            read_at: Timestamp::MIN,
            clock_offset: None,
            last: None,
            lease: Held::No,
            term: None,
            was_away: false,
            settled: Duration::ZERO,
            busy: None,
            probing: false,
            asking: false,
            releasing: false,
            cancelled: false,
            wanted: false,
            guests: 0,
            dismissed: false,
            stopping: false,
            ended: false,
            next_probe: Duration::ZERO,
            next_ask: Duration::ZERO,
            last_read: None,
            hinted: false,
            reading: Backoff::default(),
            working: Backoff::default(),
            spread,
            away: None,
            stalls: 0,
            offered: None,
            would: None,
            beat: None,
            retakes: 0,
            taking: None,
            told: None,
        }
    }

    /// How this node stands, as last told.
    pub fn stand(&self) -> Option<&Stand> {
        self.told.as_ref()
    }

    /// Whether it has been told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether a run is wanted that has neither begun nor been refused.
    pub fn is_wanted(&self) -> bool {
        self.wanted
    }

    /// Whether another process of this node may work under this one's lease.
    pub fn takes_guests(&self) -> bool {
        self.term.is_some() && !self.dismissed && !self.stopping && matches!(self.told, Some(Stand::Active { .. }))
    }

    /// The newest answer of the probes.
    pub fn assessment(&self) -> Option<&Assessment> {
        self.assessment.as_ref()
    }

    /// Takes note of an event, and says what follows.
    pub fn on(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        // The clock was set, or the machine was stopped: what the store says of time, and of other nodes, is asked for at once.
        if self.last.replace(now).is_some_and(|last| now.apart(last) >= CLOCK_MOVED_MIN) {
            self.last_read = None;
        }
        self.note(now, event);
        let mut effects = Vec::new();
        self.decide(now, &mut effects);
        effects
    }

    /// When to come back with a tick, as boot time.
    pub fn wake(&self, now: Moment) -> Duration {
        let in_time = |at: Option<Timestamp>| {
            let left = at.map_or(SignedDuration::MAX, |at| at.duration_since(now.wall));
            now.boot.saturating_add(Duration::try_from(left).unwrap_or_default())
        };
        let due = self.plan.as_ref().and_then(|plan| plan.next(now.wall)).map(|slot| slot.starts);
        let paused = self.history.as_ref().and_then(|h| h.paused.as_ref()).and_then(|p| p.until);
        let timers = [
            (!self.probing && !self.stopping).then_some(self.next_probe),
            (!self.asking && !self.stopping && self.role.lease != Lease::None).then_some(self.next_ask),
            (self.busy.is_none() && !self.stopping).then_some(self.reads_at(now)),
            Some(self.working.until),
            self.away.map(|away| away.until),
            Some(self.settled),
            Some(in_time(due)),
            Some(in_time(paused)),
        ];
        let next = timers.into_iter().flatten().filter(|at| *at > now.boot).min();
        next.unwrap_or(Duration::MAX).min(now.boot + IDLE_MAX)
    }

    fn note(&mut self, now: Moment, event: Event) {
        match event {
            Event::Tick => {}
            Event::Changed => self.next_probe = now.boot,
            Event::Assessed(assessment) => {
                self.probing = false;
                self.next_probe = now.boot + PROBE_INTERVAL;
                match assessment.as_ref().map(|a| a.answer) {
                    Some(Answer::Unknown) => {
                        self.untold_since.get_or_insert(now.boot);
                    }
                    answer => {
                        self.untold_since = None;
                        self.was_away |= answer == Some(Answer::No);
                    }
                }
                self.assessment = assessment;
            }
            Event::LeaseHint => {
                self.next_ask = now.boot;
            }
            Event::JournalHint => {
                self.last_read = None;
                // What is under way may have looked before.
                self.hinted = self.busy.is_some();
            }
            Event::Lease(answer) => {
                self.asking = false;
                let silent = matches!(answer, LeaseAnswer::Unreachable);
                if !silent && matches!(self.lease, Held::Unreachable) {
                    self.come_back(now);
                }
                self.next_ask = now.boot + if silent { self.retry_interval } else { self.ask_interval };
                self.lease = match answer {
                    LeaseAnswer::Held(deadline) => Held::Mine(deadline),
                    LeaseAnswer::Taken(by) => Held::Taken(by),
                    LeaseAnswer::Free => Held::Free,
                    LeaseAnswer::Unreachable => Held::Unreachable,
                };
            }
            Event::LeaseLost(to) => {
                self.lease = Held::Taken(to);
                self.term = None;
            }
            Event::Released => {
                (self.releasing, self.lease, self.term) = (false, Held::No, None);
                // Whoever waits for it goes first.
                self.next_ask = now.boot + self.ask_interval;
            }
            Event::Journal(done) => self.note_journal(now, done),
            Event::StoreAnswered => self.come_back(now),
            Event::Yielded(why) => self.leave(now, why),
            Event::Unblocked => {
                if let Some(Away { why: Yield::Stalled { blocked: true }, .. }) = self.away {
                    self.away = Some(Away { why: Yield::Stalled { blocked: false }, until: now.boot + AWAY.0 });
                }
            }
            Event::Wanted => {
                self.wanted = true;
                // Whoever asks answers for it.
                self.away = None;
            }
            Event::Guests(guests) => {
                self.guests = guests;
                self.dismissed &= guests > 0;
            }
            Event::Stop => self.stopping = true,
        }
    }

    fn note_journal(&mut self, now: Moment, done: Journal) {
        let was = self.busy.take();
        self.cancelled = false;
        self.last_read = (!std::mem::take(&mut self.hinted)).then_some(now.boot);
        if done.term.is_some() {
            if self.term != done.term {
                let moved = self.history.as_ref().and_then(|h| h.holder.as_ref()).is_some_and(|h| h.node != self.node);
                self.settled = if moved { now.boot + self.role.takeover_delay } else { now.boot };
            }
            self.retakes += u32::from(self.taking == Some(Occasion::Silent));
            (self.was_away, self.beat) = (false, None);
            self.term = done.term;
        }
        if let Some(beat) = done.beat
            && self.beat.is_none_or(|(before, _)| before != beat)
        {
            self.beat = Some((beat, now.boot));
        }
        // The same skew is told once.
        if let Some(offset) = done.clock_offset
            && self.clock_offset.is_none_or(|was| offset.saturating_sub(was).abs() >= CLOCK_MOVED_MIN)
        {
            self.clock_offset = Some(offset);
        }
        // What cannot be read is not known any more.
        (self.history, self.read_at) = (done.history, now.wall);
        let holder = self.history.as_ref().and_then(|h| h.holder.as_ref());
        if self.term.is_some_and(|term| holder.is_none_or(|h| h.node != self.node || h.term != term)) {
            self.term = None;
        }
        if self.history.is_none() {
            self.reading.failed(now.boot, backoff::read_max(self.retry_interval));
            self.blind_since.get_or_insert(now.boot);
        } else {
            self.reading = Backoff::default();
            self.blind_since = None;
        }
        match was {
            _ if done.failed => self.working.failed(now.boot, backoff::WORK_MAX),
            Some(Busy::TakingOver | Busy::Working) => {
                self.working = Backoff::default();
                if was == Some(Busy::Working) && self.away.is_none() {
                    self.stalls = 0;
                }
            }
            Some(Busy::Reading) | None => {}
        }
    }

    /// Ends all waiting that has the store's, or the lease service's, silence as its cause. What failed for another cause fails again.
    fn come_back(&mut self, now: Moment) {
        let at = now.boot + self.spread;
        self.reading.cut(at);
        self.working.cut(at);
    }

    /// Leaves the role to other nodes for a while. Where no lease says who has it there is nothing to give; then this node only waits.
    fn leave(&mut self, now: Moment, why: Yield) {
        let until = match why {
            Yield::Stalled { blocked } => {
                let pause = doubled(AWAY.0, self.stalls, AWAY.1);
                self.stalls = self.stalls.saturating_add(1);
                if blocked { Duration::MAX } else { now.boot + pause }
            }
            Yield::Crowded => {
                let slot = self.pending(now).map(|slot| slot.at);
                if self.role.lease == Lease::None || slot.is_none() || self.offered == slot {
                    return;
                }
                self.offered = slot;
                now.boot + self.ask_interval * OFFER_ASKS
            }
        };
        self.away = Some(Away { why, until });
    }

    /// Why the role is left to other nodes now.
    fn away(&self, now: Moment) -> Option<Yield> {
        self.away.filter(|away| now.boot < away.until).map(|away| away.why)
    }

    fn decide(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        if self.ended {
            return;
        }
        if self.stopping {
            self.wind_up(effects);
            return;
        }
        if !self.probing && now.boot >= self.next_probe {
            self.probing = true;
            effects.push(Effect::Probe);
        }
        if self.away.is_some_and(|away| now.boot >= away.until) {
            self.away = None;
        }
        let state = self.state(now, self.occasion(now));
        self.tell(now, &state, effects);
        if self.gives_up(now, &state) {
            self.give_up(&state, effects);
        }
        if self.asks_for_lease(now, &state) && !self.asking && !self.releasing && now.boot >= self.next_ask {
            self.asking = true;
            effects.push(Effect::AskLease);
        }
        if self.wanted {
            self.serve(now, effects);
        }
        if self.observe {
            self.watch_slots(now, &state, effects);
        }
        if self.busy.is_some() || self.releasing {
            return;
        }
        if let Some(effect) = self.work(now, &state) {
            self.taking = if let Effect::TakeOver { occasion } = effect { Some(occasion) } else { None };
            self.busy = Some(match effect {
                Effect::TakeOver { .. } => Busy::TakingOver,
                Effect::Read => Busy::Reading,
                _ => Busy::Working,
            });
            effects.push(effect);
        }
    }

    /// What to do with the journal now.
    fn work(&self, now: Moment, state: &State) -> Option<Effect> {
        let read = (now.boot >= self.reads_at(now)).then_some(Effect::Read);
        let State::Active { .. } = state else {
            // A node that probes and list exclude needs no store; one that never read the journal cannot tell anything else.
            return read.filter(|_| !self.is_excluded());
        };
        if self.observe || now.boot < self.working.until || self.away(now).is_some() {
            return read;
        }
        if self.term.is_none() {
            return Some(Effect::TakeOver { occasion: self.occasion(now) });
        }
        self.pending(now).filter(|_| now.boot >= self.settled).map(Effect::BackUp).or(read)
    }

    /// A run that somebody wants starts as soon as nothing else goes on, if this node has the role.
    fn serve(&mut self, now: Moment, effects: &mut Vec<Effect>) {
        // It is not clear yet whether it has.
        let settling = self.is_settling()
            || matches!(self.state(now, Occasion::ByHand), State::Candidate) && !matches!(self.lease, Held::Taken(_));
        if settling && !self.is_excluded() {
            return;
        }
        if !matches!(self.state(now, Occasion::ByHand), State::Active { .. }) || self.observe {
            self.wanted = false;
            effects.push(Effect::RefuseWanted);
        } else if self.busy.is_none() && !self.releasing {
            self.wanted = false;
            self.busy = Some(Busy::Working);
            effects.push(Effect::BackUpNow);
        }
    }

    /// Whoever only observes says once for each slot what it would do.
    fn watch_slots(&mut self, now: Moment, state: &State, effects: &mut Vec<Effect>) {
        let would = matches!(state, State::Active { .. }) || self.told == Some(Stand::Candidate);
        let slot = self.pending(now).filter(|slot| would && self.would != Some(slot.at));
        if let Some(slot) = slot {
            self.would = Some(slot.at);
            effects.push(Effect::WouldBackUp(slot));
        }
    }

    fn wind_up(&mut self, effects: &mut Vec<Effect>) {
        if self.wanted {
            self.wanted = false;
            effects.push(Effect::RefuseWanted);
        }
        self.dismiss(effects);
        // A read guards nothing: a store that hangs must not keep the lease from the other node.
        if self.busy.is_some_and(|busy| busy != Busy::Reading) {
            self.cancel(effects);
        } else if self.releasing || self.asking || self.guests > 0 {
            // Its answer comes.
        } else if let Held::Mine(_) = self.lease {
            self.releasing = true;
            effects.push(Effect::ReleaseLease);
        } else {
            self.ended = true;
            effects.push(Effect::End);
        }
    }

    /// Whether the lease goes to whoever wants it: this node should not have it, does not know the time, has
    /// not been able to ask its probes or to read the journal for as long as a due slot is left to the node that had the role last, or
    /// gets no run done. Another one may be able to.
    fn gives_up(&self, now: Moment, state: &State) -> bool {
        let Held::Mine(_) = &self.lease else { return self.role.lease == Lease::None && Self::loses_work(state) };
        let for_long = |since: Option<Duration>| since.is_some_and(|at| now.boot >= at + self.role.takeover_delay);
        let for_long = for_long(self.untold_since) || for_long(self.blind_since);
        Self::loses_work(state) || Self::has_no_time(state) || for_long || self.away(now).is_some()
    }

    /// A state in which work must not go on. A pause lets it end, and what cannot be told is the lease's business.
    fn loses_work(state: &State) -> bool {
        matches!(state, State::Standby(_) | State::Cloned)
    }

    /// A state in which this node runs no slots, however long it waits. Another one may know what time it is.
    fn has_no_time(state: &State) -> bool {
        matches!(state, State::Unknown(UnknownReason::Clock { .. }))
    }

    fn give_up(&mut self, state: &State, effects: &mut Vec<Effect>) {
        if Self::loses_work(state) {
            self.dismiss(effects);
            self.cancel(effects);
        }
        if let Held::Mine(_) = self.lease
            && self.busy.is_none()
            && self.guests == 0
            && !self.releasing
        {
            self.releasing = true;
            effects.push(Effect::ReleaseLease);
        }
    }

    fn dismiss(&mut self, effects: &mut Vec<Effect>) {
        if self.guests > 0 && !self.dismissed {
            self.dismissed = true;
            effects.push(Effect::Dismiss);
        }
    }

    fn cancel(&mut self, effects: &mut Vec<Effect>) {
        if self.busy == Some(Busy::Working) && !self.cancelled {
            self.cancelled = true;
            effects.push(Effect::Cancel);
        }
    }

    fn tell(&mut self, now: Moment, state: &State, effects: &mut Vec<Effect>) {
        let stand = match (state, &self.lease) {
            (State::Candidate, Held::Taken(by)) => Stand::Standby(StandbyReason::LeaseTaken(by.clone())),
            (State::Candidate, Held::Free) if self.observe => Stand::Candidate,
            (State::Candidate, Held::No) if let Some(why) = self.away(now) => Stand::Away(why),
            // It stands as it did until the lease has been asked for, and the takeover is in the journal.
            (State::Candidate, _) => return,
            (State::Active { .. }, _) if self.term.is_none() && !self.observe => return,
            (State::Active { .. }, _) => Stand::Active { term: self.term },
            (State::Unknown(_), _) if self.is_settling() => return,
            (State::Unknown(reason), _) => Stand::Unknown(*reason),
            (State::Standby(reason), _) => Stand::Standby(reason.clone()),
            (State::Conflict { holder }, _) => Stand::Conflict(holder.clone()),
            (State::Paused(pause), _) => Stand::Paused(pause.clone()),
            (State::Cloned, _) => Stand::Cloned,
        };
        if self.told.as_ref() != Some(&stand) {
            if !matches!(stand, Stand::Conflict(_)) {
                // What it was in an earlier conflict says nothing about the next.
                self.beat = None;
            }
            self.told = Some(stand);
            effects.push(Effect::Tell);
        }
    }

    fn state(&self, now: Moment, occasion: Occasion) -> State {
        let lease = match &self.lease {
            Held::Mine(deadline) if deadline.passed(now) => LeaseView::Unreachable,
            Held::Mine(deadline) => LeaseView::Held(deadline),
            // A lease that was taken is asked for again and again.
            Held::No | Held::Taken(_) | Held::Free => LeaseView::Unasked,
            Held::Unreachable => LeaseView::Unreachable,
        };
        let asked = Inputs {
            role: &self.role,
            node: self.node,
            label: &self.label,
            now: now.wall,
            clock_offset: self.clock_offset,
            assessment: self.assessment.as_ref(),
            lease,
            history: self.history.as_ref(),
            plan: self.plan.as_ref(),
            occasion,
        };
        election::decide(asked).state
    }

    /// What speaks for taking the role back from a node that took it.
    fn occasion(&self, now: Moment) -> Occasion {
        if self.was_away {
            Occasion::Returned
        } else if self.is_silent(now) {
            Occasion::Silent
        } else {
            Occasion::None
        }
    }

    /// Whether the node that took the role lets its slots pass, and its beat has not changed for long enough. A slot that passed
    /// after the journal was read may well be committed by now.
    fn is_silent(&self, now: Moment) -> bool {
        let wait = self.role.takeover_after.saturating_mul(1 << self.retakes.min(16));
        if self.beat.is_none_or(|(_, since)| now.boot < since + wait) {
            return false;
        }
        let commits = self.history.as_ref().map(|history| history.commits.clone()).unwrap_or_default();
        self.plan.as_ref().is_some_and(|plan| !plan.missed(&commits, &[], self.read_at).slots.is_empty())
    }

    /// Whether the lease is to be asked for; a service that could not be reached is asked again, whatever this node does meanwhile.
    fn asks_for_lease(&self, now: Moment, state: &State) -> bool {
        match state {
            State::Candidate => self.away(now).is_none(),
            State::Active { .. } | State::Unknown(UnknownReason::Lease(_)) => matches!(self.lease, Held::Unreachable),
            _ => false,
        }
    }

    fn is_excluded(&self) -> bool {
        matches!(
            election::eligibility(&self.role, &self.label, self.assessment.as_ref()),
            election::Eligibility::No(StandbyReason::NotListed)
        )
    }

    /// Whether what it would stand on has not been asked for yet.
    fn is_settling(&self) -> bool {
        let unasked = self.role.eligible.is_some() && self.assessment.is_none();
        unasked || (self.history.is_none() && self.reading.failures == 0)
    }
}

#[cfg(test)]
mod tests;
