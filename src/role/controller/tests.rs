//! Scenarios of one role on one node, event by event. Pure.

mod away;
mod wake;

use proptest::prelude::*;

use super::read_interval::{READ_INTERVAL, READ_INTERVAL_IDLE};
use super::*;
use crate::config::{FallbackSettings, KeySource, LeaseUnreachablePolicy, Probe, Schedule};
use crate::ids::InstanceId;
use crate::role::candidacy::LeaseGrant;
use crate::role::probe::{ProbeDetail, ProbeResult, ProbeSubject};
use crate::role::slot::Slot;
use crate::role::slot_commits::SlotCommits;

const ME: NodeId = NodeId([1; 16]);
const OTHER: NodeId = NodeId([2; 16]);
/// Longer than any scenario: whether a lease has expired is the permit's concern.
const TTL: Duration = Duration::from_hours(10);
const ASK: Duration = Duration::from_secs(5);

/// A node's controller, and the time.
struct Stage {
    duty: RoleController,
    now: ClockReading,
}

impl Stage {
    /// A role with a slot every hour, at ten minutes past one.
    fn new(change: impl FnOnce(&mut RoleSettings)) -> Self {
        let probe = Probe::Vip { address: "192.0.2.1".parse().unwrap(), interface: None };
        let mut role = RoleSettings {
            eligible: Some(probe),
            lease: LeaseKind::Bucket,
            schedule: Some(Schedule::Every(Duration::from_hours(1))),
            ..RoleSettings::new("app".parse().unwrap(), KeySource::None, vec!["/srv".into()])
        };
        change(&mut role);
        let plan = SlotSchedule::new(&role, &jiff::tz::TimeZone::UTC).unwrap();
        let (label, ask_interval, retry_interval) = ("east".into(), ASK, ASK / 4);
        let roles = 1;
        let terms = RoleParams { role, node: ME, label, plan, roles, ask_interval, retry_interval, observe: false };
        let now = ClockReading { boot: Duration::from_hours(5), wall: at("2026-11-21T01:10:00Z") };
        Self { duty: RoleController::new(terms), now }
    }

    /// A role without a lease that has taken over, and backs up slot [`ONE`].
    fn backing_up_without_lease() -> Self {
        let mut stage = Self::new(|role| role.lease = LeaseKind::None);
        stage.on(RoleEvent::Tick);
        stage.probes(ProbeAnswer::Yes);
        assert_eq!(stage.on(read(None)), [RoleEffect::TakeOver { reason: RetakeReason::None }]);
        assert!(stage.on(taken(7)).contains(&RoleEffect::BackUp(slot(ONE))));
        stage
    }

    fn on(&mut self, event: RoleEvent) -> Vec<RoleEffect> {
        self.duty.on_event(self.now, event)
    }

    /// Time passes without a tick.
    fn wait(&mut self, time: Duration) {
        self.now.boot += time;
        self.now.wall += time;
    }

    fn pass(&mut self, time: Duration) -> Vec<RoleEffect> {
        self.wait(time);
        self.on(RoleEvent::Tick)
    }

    fn probes(&mut self, answer: ProbeAnswer) -> Vec<RoleEffect> {
        let evidence = ProbeResult {
            subject: ProbeSubject::Vip("192.0.2.1".parse().unwrap()),
            answer,
            detail: ProbeDetail::Absent,
            latency: Duration::ZERO,
            answered_at: self.now.boot,
            fallback: false,
        };
        let fallback = self.duty.role.fallback.as_ref().map(|_| ProbeAnswer::Yes);
        self.on(RoleEvent::Assessed(Some(ProbeAssessment { answer, fallback, results: vec![evidence] })))
    }

    fn grant(&mut self) -> (Deadline, Vec<RoleEffect>) {
        let deadline = Deadline::granted(LeaseGrant { asked: self.now, ttl: TTL });
        let effects = self.on(RoleEvent::LeaseUpdated(LeaseUpdate::Held(deadline.clone())));
        (deadline, effects)
    }

    /// From the start to the request for the lease, with a journal whose newest takeover is this.
    fn apply(&mut self, holder: Option<TakeoverInfo>) {
        assert_eq!(self.on(RoleEvent::Tick), [RoleEffect::Probe, RoleEffect::ReadJournal]);
        assert_eq!(self.probes(ProbeAnswer::Yes), []);
        assert_eq!(self.on(read(holder)), [RoleEffect::AskLease]);
    }

    /// From the start to the first run.
    fn begin(&mut self, holder: Option<TakeoverInfo>) -> Vec<RoleEffect> {
        self.apply(holder);
        let (_, effects) = self.grant();
        assert_eq!(effects, [RoleEffect::TakeOver { reason: RetakeReason::None }]);
        self.on(taken(7))
    }
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn holding(node: NodeId, term: u64) -> TakeoverInfo {
    let label = if node == ME { "east" } else { "west" }.into();
    TakeoverInfo { node, label, term: Term(term), since: Timestamp::UNIX_EPOCH, handed_over: None, stood_in: false }
}

fn commits(slot: &str) -> SlotCommits {
    SlotCommits::new([at(slot)], None)
}

fn history(holder: Option<TakeoverInfo>) -> ElectionHistory {
    let own_term = holder.as_ref().map(|_| Term(1));
    ElectionHistory { holder, own_term, commits: commits("2026-11-21T00:00:00Z"), paused: None, cloned: false }
}

fn read(holder: Option<TakeoverInfo>) -> RoleEvent {
    RoleEvent::JournalUpdated(JournalUpdate {
        history: Some(history(holder)),
        term: None,
        failed: false,
        heartbeat: None,
        clock_offset: None,
    })
}

fn taken(term: u64) -> RoleEvent {
    let history = Some(history(Some(holding(ME, term))));
    RoleEvent::JournalUpdated(JournalUpdate {
        history,
        term: Some(Term(term)),
        failed: false,
        heartbeat: None,
        clock_offset: None,
    })
}

/// The result of a run that committed the slot.
fn committed(slot: &str) -> RoleEvent {
    let history = ElectionHistory { commits: commits(slot), ..history(Some(holding(ME, 7))) };
    RoleEvent::JournalUpdated(JournalUpdate {
        history: Some(history),
        term: Some(Term(7)),
        failed: false,
        heartbeat: None,
        clock_offset: None,
    })
}

fn slot(text: &str) -> Slot {
    Slot { at: at(text), starts: at(text) }
}

const ONE: &str = "2026-11-21T01:00:00Z";

#[test]
fn from_the_first_question_to_the_first_run_and_the_next() {
    let mut stage = Stage::new(|_| {});
    assert_eq!(
        stage.begin(None),
        [RoleEffect::ReportStatus, RoleEffect::BackUp(slot(ONE))],
        "the slot that is due, once"
    );
    assert_eq!(stage.duty.status(), Some(&RoleStatus::Active { term: Some(Term(7)) }));
    assert_eq!(stage.on(committed(ONE)), []);
    let wake = stage.duty.next_wake(stage.now);
    assert!(wake > stage.now.boot && wake <= stage.now.boot + IDLE_MAX);
    assert_eq!(stage.pass(Duration::from_mins(49)), [RoleEffect::Probe, RoleEffect::ReadJournal]);
    stage.on(committed(ONE));
    stage.probes(ProbeAnswer::Yes);
    let effects = stage.pass(Duration::from_mins(1));
    assert_eq!(effects, [RoleEffect::Probe, RoleEffect::BackUp(slot("2026-11-21T02:00:00Z"))]);
}

#[test]
fn another_nodes_lease_is_asked_for_again_and_a_hint_makes_it_sooner() {
    let mut stage = Stage::new(|_| {});
    stage.on(RoleEvent::Tick);
    stage.probes(ProbeAnswer::Yes);
    assert_eq!(stage.on(read(Some(holding(OTHER, 6)))), [RoleEffect::AskLease]);
    let west = LeaseHolder { node: OTHER, label: "west".into(), instance: InstanceId([1; 8]) };
    assert_eq!(stage.on(RoleEvent::LeaseUpdated(LeaseUpdate::Taken(Some(west)))), [RoleEffect::ReportStatus]);
    assert!(matches!(stage.duty.status(), Some(RoleStatus::Standby(StandbyReason::LeaseTaken(Some(_))))));
    assert_eq!(stage.pass(ASK.checked_sub(Duration::from_millis(1)).unwrap()), []);
    assert!(stage.pass(Duration::from_millis(1)).contains(&RoleEffect::AskLease));
    stage.on(RoleEvent::LeaseUpdated(LeaseUpdate::Taken(None)));
    assert_eq!(stage.on(RoleEvent::LeaseHint), [RoleEffect::AskLease]);
    assert_eq!(stage.on(RoleEvent::LeaseHint), [], "one question at a time");
    let (_, effects) = stage.grant();
    assert_eq!(effects, [RoleEffect::TakeOver { reason: RetakeReason::None }]);
    assert_eq!(stage.on(taken(7)), [RoleEffect::ReportStatus], "the due slot waits for this node to settle");
    assert_eq!(stage.pass(Duration::from_secs(59)), [RoleEffect::ReadJournal], "the probes have not answered yet");
    stage.on(read(Some(holding(ME, 7))));
    let effects = stage.pass(Duration::from_secs(1));
    assert!(effects.contains(&RoleEffect::BackUp(slot(ONE))), "takeover_delay is a minute: {effects:?}");
}

#[test]
fn work_ends_before_the_lease_is_given_up() {
    let mut stage = Stage::new(|_| {});
    stage.begin(None);
    assert_eq!(stage.probes(ProbeAnswer::No), [RoleEffect::ReportStatus, RoleEffect::Cancel]);
    assert_eq!(stage.pass(PROBE_INTERVAL), [RoleEffect::Probe], "told once");
    let ended = JournalUpdate {
        history: Some(history(Some(holding(ME, 7)))),
        term: None,
        failed: true,
        heartbeat: None,
        clock_offset: None,
    };
    assert_eq!(stage.on(RoleEvent::JournalUpdated(ended)), [RoleEffect::ReleaseLease]);
    assert_eq!(stage.on(RoleEvent::Released), []);
    assert_eq!(stage.probes(ProbeAnswer::No), []);
    assert!(
        stage
            .pass(Duration::from_mins(1))
            .iter()
            .all(|effect| matches!(effect, RoleEffect::Probe | RoleEffect::ReadJournal))
    );
}

#[test]
fn guests_end_before_the_lease_is_given_up_as_well() {
    let mut stage = Stage::new(|_| {});
    stage.begin(None);
    stage.on(committed(ONE));
    assert!(stage.duty.lends_lease());
    assert!(!stage.duty.is_stopping());
    assert_eq!(stage.on(RoleEvent::Borrowers(2)), []);
    assert_eq!(stage.on(RoleEvent::Stop), [RoleEffect::EndBorrowers]);
    assert!(stage.duty.is_stopping() && !stage.duty.lends_lease());
    assert_eq!(stage.on(RoleEvent::Borrowers(1)), []);
    assert_eq!(stage.on(RoleEvent::Borrowers(0)), [RoleEffect::ReleaseLease]);
    assert_eq!(stage.on(RoleEvent::Released), [RoleEffect::End]);
    assert_eq!(stage.on(RoleEvent::Tick), []);
}

#[test]
fn guests_are_taken_again_by_who_has_the_role_again() {
    let mut stage = Stage::new(|_| {});
    assert!(!stage.duty.lends_lease(), "nothing is known");
    stage.begin(None);
    stage.on(committed(ONE));
    stage.on(RoleEvent::Borrowers(1));
    assert_eq!(stage.probes(ProbeAnswer::No), [RoleEffect::ReportStatus, RoleEffect::EndBorrowers]);
    assert!(!stage.duty.lends_lease());
    assert_eq!(stage.on(RoleEvent::Borrowers(0)), [RoleEffect::ReleaseLease]);
    stage.on(RoleEvent::Released);
    stage.pass(ASK);
    assert_eq!(stage.probes(ProbeAnswer::Yes), [RoleEffect::AskLease]);
    let (_, effects) = stage.grant();
    assert_eq!(effects, [RoleEffect::TakeOver { reason: RetakeReason::Returned }]);
    assert!(!stage.duty.lends_lease(), "its permit is not there yet");
    stage.on(taken(8));
    assert!(stage.duty.lends_lease());
}

#[test]
fn a_term_that_is_not_the_newest_is_not_ones_own_any_more() {
    for newest in [holding(OTHER, 7), holding(OTHER, 8), holding(ME, 8)] {
        let mut stage = Stage::new(|_| {});
        stage.begin(None);
        stage.on(committed(ONE));
        let effects = stage.on(read(Some(newest)));
        assert!(effects.contains(&RoleEffect::TakeOver { reason: RetakeReason::None }), "{effects:?}");
        assert!(!stage.duty.lends_lease());
    }
}

#[test]
fn who_stops_ends_its_work_first() {
    let mut stage = Stage::new(|_| {});
    stage.begin(None);
    assert_eq!(stage.on(RoleEvent::Stop), [RoleEffect::Cancel]);
    assert_eq!(stage.on(RoleEvent::Tick), []);
    assert_eq!(stage.on(read(None)), [RoleEffect::ReleaseLease]);
    assert_eq!(stage.on(RoleEvent::Released), [RoleEffect::End]);

    let mut idle = Stage::new(|_| {});
    idle.on(RoleEvent::Tick);
    assert_eq!(idle.on(RoleEvent::Stop), [RoleEffect::End], "the journal is being read, which guards nothing");
}

#[test]
fn what_cannot_be_told_starts_nothing_and_keeps_the_lease_for_a_while() {
    let mut stage = Stage::new(|_| {});
    stage.begin(None);
    stage.on(committed(ONE));
    assert_eq!(stage.probes(ProbeAnswer::Unknown), [RoleEffect::ReportStatus]);
    assert_eq!(stage.duty.status(), Some(&RoleStatus::Unknown(UnknownReason::Probes)));
    let effects = stage.pass(Duration::from_secs(55));
    assert!(!effects.contains(&RoleEffect::ReleaseLease), "{effects:?}");
    let effects = stage.pass(Duration::from_secs(5));
    assert!(!effects.contains(&RoleEffect::ReleaseLease), "the journal is being read");
    assert_eq!(stage.on(read(Some(holding(ME, 7)))), [RoleEffect::ReleaseLease], "takeover_delay is over");
}

#[test]
fn a_journal_that_cannot_be_read_is_left_to_who_can() {
    let mut stage = Stage::new(|_| {});
    stage.begin(None);
    stage.on(committed(ONE));
    let unread = || {
        RoleEvent::JournalUpdated(JournalUpdate {
            history: None,
            term: None,
            failed: true,
            heartbeat: None,
            clock_offset: None,
        })
    };
    stage.pass(READ_INTERVAL_IDLE);
    assert_eq!(stage.on(unread()), [RoleEffect::ReportStatus]);
    assert_eq!(stage.duty.status(), Some(&RoleStatus::Unknown(UnknownReason::Journal)));
    let mut released = Duration::ZERO;
    for second in 1..=70 {
        let effects = stage.pass(Duration::from_secs(1));
        if effects.contains(&RoleEffect::ReleaseLease) {
            released = Duration::from_secs(second);
            break;
        }
        if effects.contains(&RoleEffect::ReadJournal) {
            assert!(!stage.on(unread()).contains(&RoleEffect::ReleaseLease), "takeover_delay is a minute");
        }
    }
    assert!(released >= Duration::from_mins(1), "{released:?}");
    assert_eq!(stage.on(RoleEvent::Released), []);
    let effects = stage.pass(Duration::from_secs(30));
    assert!(!effects.contains(&RoleEffect::AskLease), "what it cannot read it does not take");
}

#[test]
fn a_lease_service_that_cannot_be_reached_is_asked_again_and_again() {
    for continues in [false, true] {
        let mut stage = Stage::new(|role| {
            if continues {
                role.on_lease_unreachable = LeaseUnreachablePolicy::HolderContinues;
            }
        });
        stage.apply(Some(holding(ME, 7)));
        let effects = stage.on(RoleEvent::LeaseUpdated(LeaseUpdate::Unreachable));
        if continues {
            assert_eq!(effects, [RoleEffect::TakeOver { reason: RetakeReason::None }], "it had the newest term");
            assert_eq!(stage.on(taken(7)), [RoleEffect::ReportStatus, RoleEffect::BackUp(slot(ONE))]);
        } else {
            assert_eq!(effects, [RoleEffect::ReportStatus]);
            assert_eq!(stage.duty.status(), Some(&RoleStatus::Unknown(UnknownReason::Lease(LeaseKind::Bucket))));
        }
        let effects = stage.pass(ASK / 4);
        assert!(effects.contains(&RoleEffect::AskLease), "{effects:?}");
        let (_, effects) = stage.grant();
        assert_eq!(effects.contains(&RoleEffect::TakeOver { reason: RetakeReason::None }), !continues, "{effects:?}");
    }
}

#[test]
fn who_stands_in_does_it_for_the_slot_that_waited() {
    let mut stage = Stage::new(|role| {
        let probe = role.eligible.clone().unwrap();
        role.fallback = Some(FallbackSettings { probe, after: Duration::from_mins(15) });
    });
    assert_eq!(stage.on(RoleEvent::Tick), [RoleEffect::Probe, RoleEffect::ReadJournal]);
    stage.probes(ProbeAnswer::No);
    assert_eq!(stage.on(read(Some(holding(OTHER, 6)))), [RoleEffect::ReportStatus]);
    let from = Some(at("2026-11-21T01:15:00Z"));
    assert_eq!(stage.duty.status(), Some(&RoleStatus::Standby(StandbyReason::Fallback { from })));
    assert!(stage.pass(Duration::from_mins(4)).contains(&RoleEffect::Probe));
    stage.probes(ProbeAnswer::No);
    stage.on(read(Some(holding(OTHER, 6))));
    assert!(stage.pass(Duration::from_mins(1)).contains(&RoleEffect::AskLease));
    assert_eq!(stage.grant().1, [], "the journal is being read");
    assert_eq!(stage.on(read(Some(holding(OTHER, 6)))), [RoleEffect::TakeOver { reason: RetakeReason::Returned }]);
    let effects = stage.on(taken(7));
    assert!(
        !effects.contains(&RoleEffect::BackUp(slot(ONE))),
        "another node had it: it has takeover_delay to show itself"
    );
    assert!(stage.pass(Duration::from_mins(1)).contains(&RoleEffect::BackUp(slot(ONE))));
    assert!(stage.on(committed(ONE)).contains(&RoleEffect::ReleaseLease), "nothing is due any more");
}

#[test]
fn who_gave_the_lease_up_lets_others_ask_first() {
    let mut stage = Stage::new(|_| {});
    assert!(stage.duty.assessment().is_none());
    stage.begin(None);
    assert_eq!(stage.duty.assessment().map(|a| a.answer), Some(ProbeAnswer::Yes));
    stage.on(committed(ONE));
    assert_eq!(stage.probes(ProbeAnswer::No), [RoleEffect::ReportStatus, RoleEffect::ReleaseLease]);
    stage.on(RoleEvent::Released);
    let asks = |effects: Vec<RoleEffect>| effects.contains(&RoleEffect::AskLease);
    assert!(!asks(stage.probes(ProbeAnswer::Yes)));
    assert!(!asks(stage.pass(ASK.saturating_sub(Duration::from_millis(1)))));
    assert!(asks(stage.pass(Duration::from_millis(1))));
}

#[test]
fn without_a_lease_work_ends_when_the_probes_say_no() {
    let mut stage = Stage::backing_up_without_lease();
    assert_eq!(stage.on(RoleEvent::Borrowers(1)), []);
    assert_eq!(stage.probes(ProbeAnswer::No), [RoleEffect::ReportStatus, RoleEffect::EndBorrowers, RoleEffect::Cancel]);
}

#[test]
fn a_takeover_under_way_is_let_end() {
    let mut stage = Stage::new(|_| {});
    stage.apply(None);
    let (_, effects) = stage.grant();
    assert_eq!(effects, [RoleEffect::TakeOver { reason: RetakeReason::None }]);
    assert_eq!(stage.probes(ProbeAnswer::No), [RoleEffect::ReportStatus], "it is one record, and nothing to call off");
    assert_eq!(stage.on(taken(7)), [RoleEffect::ReleaseLease]);
}

#[test]
fn a_lease_that_is_not_renewed_in_time_is_not_ones_own_any_more() {
    let mut stage = Stage::new(|_| {});
    stage.begin(None);
    stage.on(committed(ONE));
    assert_eq!(stage.duty.status(), Some(&RoleStatus::Active { term: Some(Term(7)) }));
    stage.pass(TTL);
    assert_eq!(stage.duty.status(), Some(&RoleStatus::Unknown(UnknownReason::Lease(LeaseKind::Bucket))));
}

#[test]
fn a_node_that_lost_the_lease_is_stopped_by_its_permit_and_releases_nothing() {
    let mut stage = Stage::new(|_| {});
    stage.begin(None);
    let other = LeaseHolder { node: OTHER, label: "west".into(), instance: InstanceId([2; 8]) };
    assert_eq!(stage.on(RoleEvent::LeaseLost(Some(other))), [RoleEffect::ReportStatus]);
    assert_eq!(stage.probes(ProbeAnswer::No), [RoleEffect::ReportStatus]);
    assert_eq!(stage.on(read(Some(holding(OTHER, 8)))), []);
}

#[test]
fn a_node_that_is_not_listed_leaves_the_store_alone() {
    let mut stage = Stage::new(|role| role.nodes = Some(vec!["west".into()]));
    assert_eq!(stage.on(RoleEvent::Tick), [RoleEffect::Probe, RoleEffect::ReportStatus]);
    assert_eq!(stage.pass(Duration::from_mins(1)), []);
    assert_eq!(stage.on(RoleEvent::RunRequested), [RoleEffect::RefuseRuns]);
}

#[test]
fn a_pause_keeps_the_lease_and_starts_nothing() {
    let mut stage = Stage::new(|_| {});
    stage.apply(None);
    stage.grant();
    let pause =
        RolePause { by: "west".into(), since: stage.now.wall, until: Some(at("2026-11-21T01:30:00Z")), why: None };
    let paused = ElectionHistory { paused: Some(pause), ..history(Some(holding(ME, 7))) };
    let journal = || JournalUpdate {
        history: Some(paused.clone()),
        term: Some(Term(7)),
        failed: false,
        heartbeat: None,
        clock_offset: None,
    };
    assert_eq!(stage.on(RoleEvent::JournalUpdated(journal())), [RoleEffect::ReportStatus]);
    assert_eq!(stage.pass(Duration::from_mins(19)), [RoleEffect::Probe, RoleEffect::ReadJournal]);
    assert_eq!(stage.on(RoleEvent::JournalUpdated(journal())), []);
    assert_eq!(
        stage.pass(Duration::from_mins(1)),
        [RoleEffect::ReportStatus, RoleEffect::BackUp(slot(ONE))],
        "it is over by itself"
    );
}

#[test]
fn a_run_that_failed_is_tried_again_later_and_later() {
    let mut stage = Stage::new(|_| {});
    stage.begin(None);
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let failed = JournalUpdate {
            history: Some(history(Some(holding(ME, 7)))),
            term: None,
            failed: true,
            heartbeat: None,
            clock_offset: None,
        };
        let before = stage.now.boot;
        let mut effects = stage.on(RoleEvent::JournalUpdated(failed));
        while !effects.contains(&RoleEffect::BackUp(slot(ONE))) {
            if effects.contains(&RoleEffect::ReadJournal) {
                stage.on(read(Some(holding(ME, 7))));
            }
            effects = stage.pass(Duration::from_millis(500));
        }
        pauses.push(stage.now.boot.saturating_sub(before).as_millis());
    }
    assert_eq!(pauses[..6], [1_000, 2_000, 4_000, 8_000, 16_000, 32_000], "neither sooner nor later");
    assert_eq!(pauses[10..], [300_000, 300_000]);
}

#[test]
fn without_a_lease_only_a_node_that_was_away_takes_the_role_back() {
    let mut stage = Stage::new(|role| role.lease = LeaseKind::None);
    stage.on(RoleEvent::Tick);
    stage.probes(ProbeAnswer::Yes);
    assert_eq!(stage.on(read(Some(holding(ME, 6)))), [RoleEffect::TakeOver { reason: RetakeReason::None }]);
    stage.on(taken(7));
    stage.on(committed(ONE));
    stage.pass(READ_INTERVAL);
    assert_eq!(stage.on(read(Some(holding(OTHER, 8)))), [RoleEffect::ReportStatus]);
    assert!(matches!(stage.duty.status(), Some(RoleStatus::Conflict(_))), "both are eligible");
    stage.pass(Duration::from_hours(1));
    assert_eq!(stage.on(read(Some(holding(OTHER, 8)))), [], "a new slot is no occasion for who is there all the time");
    assert_eq!(stage.probes(ProbeAnswer::No), [RoleEffect::ReportStatus]);
    assert_eq!(stage.probes(ProbeAnswer::Yes), [RoleEffect::TakeOver { reason: RetakeReason::Returned }]);
}

#[test]
fn a_silent_node_loses_the_role_to_one_that_is_there_all_the_time() {
    let mut stage = Stage::new(|role| role.lease = LeaseKind::None);
    stage.on(RoleEvent::Tick);
    stage.probes(ProbeAnswer::Yes);
    let beat = |stage: &mut Stage, beat| {
        let mut journal = JournalUpdate {
            history: None,
            term: None,
            failed: false,
            heartbeat: Some(Digest([beat; 32])),
            clock_offset: None,
        };
        journal.history = Some(history(Some(holding(OTHER, 8))));
        stage.on(RoleEvent::JournalUpdated(journal))
    };
    assert_eq!(beat(&mut stage, 1), [RoleEffect::ReportStatus], "conflict");
    // A slot is missed at half past; the holder still works on a long one.
    for n in 2..20 {
        stage.pass(Duration::from_mins(5));
        assert_eq!(beat(&mut stage, n), []);
    }
    let wait = Duration::from_mins(15);
    stage.pass(wait.saturating_sub(Duration::from_secs(1)));
    assert_eq!(beat(&mut stage, 19), []);
    assert_eq!(stage.pass(Duration::from_secs(1)), [RoleEffect::TakeOver { reason: RetakeReason::HolderSilent }]);
    stage.on(taken(9));
    assert_eq!(stage.duty.retakes, 1);
    // The other node takes the role back, and falls silent again.
    assert_eq!(beat(&mut stage, 30), [RoleEffect::ReportStatus], "conflict");
    stage.pass(Duration::from_hours(2));
    assert_eq!(beat(&mut stage, 31), []);
    let wait = Duration::from_mins(30);
    stage.pass(wait.saturating_sub(Duration::from_secs(1)));
    assert_eq!(beat(&mut stage, 31), [], "this time it waits for half an hour");
    assert_eq!(stage.pass(Duration::from_secs(1)), [RoleEffect::TakeOver { reason: RetakeReason::HolderSilent }]);
}

#[test]
fn a_clock_that_went_wrong_leaves_the_role_to_another_node_until_it_is_right() {
    let at_offset = |offset, slot| {
        let history = ElectionHistory { commits: commits(slot), ..history(Some(holding(ME, 7))) };
        let clock_offset = Some(SignedDuration::from_secs(offset));
        RoleEvent::JournalUpdated(JournalUpdate {
            history: Some(history),
            term: None,
            failed: false,
            heartbeat: None,
            clock_offset,
        })
    };
    for offset in [3600, -3600] {
        let mut stage = Stage::new(|_| {});
        stage.begin(None);
        assert_eq!(stage.on(at_offset(-1, ONE)), []);
        stage.now.wall = stage.now.wall.checked_sub(SignedDuration::from_secs(offset)).unwrap();
        // A slot that only this clock calls due is refused by the run itself, which checks the store's clock.
        let due = if offset > 0 { "2026-11-21T00:00:00Z" } else { "2026-11-21T02:00:00Z" };
        let next = RoleEffect::BackUp(slot(due));
        assert_eq!(stage.on(RoleEvent::Tick), [next], "a clock that was set is looked after at once");
        assert_eq!(stage.on(at_offset(offset, ONE)), [RoleEffect::ReportStatus, RoleEffect::ReleaseLease]);
        let off = RoleStatus::Unknown(UnknownReason::Clock { offset: SignedDuration::from_secs(offset) });
        assert_eq!(stage.duty.status(), Some(&off));
        stage.on(RoleEvent::Released);
        for n in 0..3 {
            let effects = stage.pass(Duration::from_secs(10));
            assert!(
                effects.iter().all(|e| matches!(e, RoleEffect::Probe | RoleEffect::ReadJournal)),
                "it asks for nothing: {effects:?}"
            );
            stage.probes(ProbeAnswer::Yes);
            assert_eq!(stage.on(at_offset(offset - n, ONE)), [], "told once");
        }
        stage.now.wall = stage.now.wall.checked_add(SignedDuration::from_secs(offset)).unwrap();
        assert_eq!(stage.on(RoleEvent::Tick), [RoleEffect::ReadJournal]);
        assert_eq!(stage.on(at_offset(0, ONE)), [RoleEffect::AskLease]);
    }
}

#[test]
fn a_slot_that_passed_since_the_journal_was_read_is_not_yet_a_silent_holder() {
    let mut stage = Stage::new(|role| {
        role.lease = LeaseKind::None;
        role.takeover_after = Duration::from_secs(5);
    });
    stage.on(RoleEvent::Tick);
    stage.probes(ProbeAnswer::Yes);
    let look = |stage: &mut Stage, last_slot: &str| {
        let history = ElectionHistory { commits: commits(last_slot), ..history(Some(holding(OTHER, 8))) };
        let beat = Some(Digest([1; 32]));
        stage.on(RoleEvent::JournalUpdated(JournalUpdate {
            history: Some(history),
            term: None,
            failed: false,
            heartbeat: beat,
            clock_offset: None,
        }))
    };
    assert_eq!(
        look(&mut stage, "2026-11-21T00:00:00Z"),
        [RoleEffect::ReportStatus],
        "conflict; the slot of one is due"
    );
    // The slot's time is over at half past. The holder may have committed it a second before.
    stage.pass(Duration::from_mins(20).saturating_sub(Duration::from_secs(2)));
    assert_eq!(look(&mut stage, "2026-11-21T00:00:00Z"), []);
    assert_eq!(stage.pass(Duration::from_secs(9)), [], "who knows");
    assert_eq!(stage.pass(Duration::from_secs(1)), [RoleEffect::ReadJournal]);
    assert_eq!(look(&mut stage, "2026-11-21T01:00:00Z"), [], "so it was");
    stage.pass(Duration::from_hours(1));
    assert_eq!(look(&mut stage, "2026-11-21T01:00:00Z"), [RoleEffect::TakeOver { reason: RetakeReason::HolderSilent }]);
}

#[test]
fn a_requested_run_is_started_or_refused() {
    let mut stage = Stage::new(|_| {});
    stage.on(RoleEvent::Tick);
    assert!(!stage.duty.is_run_requested());
    assert_eq!(stage.on(RoleEvent::RunRequested), [], "it is not clear yet");
    assert!(stage.duty.is_run_requested());
    stage.probes(ProbeAnswer::Yes);
    assert_eq!(stage.on(read(None)), [RoleEffect::AskLease]);
    let (_, effects) = stage.grant();
    assert_eq!(effects, [RoleEffect::BackUpNow], "a run takes the role over by itself");
    assert!(!stage.duty.is_run_requested());
    assert_eq!(stage.on(RoleEvent::RunRequested), [], "one at a time");
    assert!(stage.on(committed(ONE)).contains(&RoleEffect::BackUpNow));
    stage.on(committed(ONE));
    stage.probes(ProbeAnswer::No);
    assert_eq!(stage.on(RoleEvent::RunRequested), [RoleEffect::RefuseRuns]);
}

#[test]
fn who_observes_asks_and_takes_nothing() {
    let mut stage = Stage::new(|_| {});
    stage.duty.observe = true;
    stage.apply(None);
    let effects = stage.on(RoleEvent::LeaseUpdated(LeaseUpdate::Free));
    assert_eq!(effects, [RoleEffect::ReportStatus, RoleEffect::WouldBackUp(slot(ONE))]);
    assert_eq!(stage.duty.status(), Some(&RoleStatus::Candidate));
    assert_eq!(stage.pass(Duration::from_secs(1)), [], "said once");
}

/// What may happen next, including the answers to effects that are under way.
#[derive(Debug, Clone, Copy)]
enum World {
    Pass(u16),
    Probes(u8),
    Answer(u8),
    Hint,
    Lost,
    Wanted,
    Guests(u8),
    Stop,
}

fn world() -> impl Strategy<Value = World> {
    prop_oneof![
        6 => (1u16..2000).prop_map(World::Pass),
        4 => (0u8..3).prop_map(World::Probes),
        10 => any::<u8>().prop_map(World::Answer),
        1 => Just(World::Hint),
        1 => Just(World::Lost),
        2 => Just(World::Wanted),
        1 => (0u8..3).prop_map(World::Guests),
        1 => Just(World::Stop),
    ]
}

proptest! {
    /// In any order of events: one effect at a time, nothing without a yes, and everything that was begun ends before
    /// the lease is given up and before the end.
    #[test]
    fn in_every_order(steps in prop::collection::vec(world(), 1..200), exclusive: bool) {
        let mut stage = Stage::new(|role| if !exclusive { role.lease = LeaseKind::None });
        let (mut probing, mut asking, mut releasing, mut busy) = (false, false, false, None);
        let (mut says, mut held, mut guests, mut ended, mut stopped) = (None, false, 0, false, false);
        let mut events = vec![RoleEvent::Tick];
        for step in steps {
            match step {
                World::Pass(ms) => {
                    let time = Duration::from_millis(u64::from(ms) * 10);
                    stage.now.boot += time;
                    stage.now.wall += time;
                    events.push(RoleEvent::Tick);
                }
                World::Probes(answer) if probing => {
                    probing = false;
                    let answer = [ProbeAnswer::Yes, ProbeAnswer::No, ProbeAnswer::Unknown][usize::from(answer)];
                    says = Some(answer);
                    let evidence = Vec::new();
                    events.push(RoleEvent::Assessed(Some(ProbeAssessment { answer, fallback: None, results: evidence })));
                }
                World::Answer(n) if asking && n % 2 == 0 => {
                    asking = false;
                    held = n % 4 == 0;
                    let deadline = Deadline::granted(LeaseGrant { asked: stage.now, ttl: TTL });
                    let answer = match n % 8 {
                        0 | 4 => LeaseUpdate::Held(deadline),
                        2 => LeaseUpdate::Taken(None),
                        _ => LeaseUpdate::Unreachable,
                    };
                    events.push(RoleEvent::LeaseUpdated(answer));
                }
                World::Answer(n) if releasing && n % 2 == 1 => {
                    (releasing, held) = (false, false);
                    events.push(RoleEvent::Released);
                }
                World::Answer(n) if busy.is_some() => {
                    busy = None;
                    let holder = [None, Some(holding(ME, 7)), Some(holding(OTHER, 8))][usize::from(n % 3)].clone();
                    let term = (n % 3 == 1).then_some(Term(7));
                    let history = (n % 5 > 0).then(|| history(holder));
                    events.push(RoleEvent::JournalUpdated(JournalUpdate { term, failed: history.is_none() || n % 7 == 0, history, heartbeat: None, clock_offset: None }));
                }
                World::Hint => events.push(RoleEvent::LeaseHint),
                World::Lost if held && !releasing => {
                    held = false;
                    events.push(RoleEvent::LeaseLost(None));
                }
                World::Wanted => events.push(RoleEvent::RunRequested),
                World::Guests(n) if held || n == 0 => {
                    guests = usize::from(n);
                    events.push(RoleEvent::Borrowers(guests));
                }
                World::Stop => events.push(RoleEvent::Stop),
                _ => {}
            }
            for event in events.drain(..) {
                stopped |= matches!(event, RoleEvent::Stop);
                for effect in stage.duty.on_event(stage.now, event) {
                    prop_assert!(!ended, "{effect:?} after the end");
                    match effect {
                        RoleEffect::Probe => prop_assert!(!std::mem::replace(&mut probing, true)),
                        RoleEffect::AskLease => {
                            prop_assert!(!std::mem::replace(&mut asking, true) && !releasing && exclusive && !stopped);
                        }
                        RoleEffect::ReadJournal | RoleEffect::TakeOver { .. } | RoleEffect::BackUp(_) | RoleEffect::BackUpNow => {
                            prop_assert!(busy.replace(effect).is_none(), "{effect:?} beside other work");
                            prop_assert!(!stopped && !releasing);
                            if effect != RoleEffect::ReadJournal {
                                prop_assert_eq!(says, Some(ProbeAnswer::Yes));
                                prop_assert!(held || !exclusive, "{:?} without the lease", effect);
                            }
                        }
                        RoleEffect::ReleaseLease => {
                            prop_assert!(!std::mem::replace(&mut releasing, true) && held);
                            prop_assert!(matches!(busy, None | Some(RoleEffect::ReadJournal)), "work goes on under it");
                            prop_assert_eq!(guests, 0);
                        }
                        RoleEffect::Cancel => prop_assert!(busy.is_some()),
                        RoleEffect::EndBorrowers => prop_assert!(guests > 0),
                        RoleEffect::End => {
                            ended = true;
                            prop_assert!(matches!(busy, None | Some(RoleEffect::ReadJournal)));
                            prop_assert!(!held && !releasing && !asking && guests == 0);
                        }
                        RoleEffect::RefuseRuns | RoleEffect::ReportStatus | RoleEffect::WouldBackUp(_) => {}
                    }
                }
            }
            let wake = stage.duty.next_wake(stage.now);
            prop_assert!(wake > stage.now.boot && wake <= stage.now.boot + IDLE_MAX);
        }
    }
}
