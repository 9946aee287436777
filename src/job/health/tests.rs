//!
//! Pure.
use std::time::Duration;

use jiff::tz::TimeZone;

use super::*;
use crate::config::{KeySource, LeaseKind, RoleSettings, Schedule};
use crate::ids::{InstanceId, NodeId, RepoId, Seq};
use crate::job::report::RunOutcome;
use crate::job::report::run_summary::RunStep;

use crate::job::report::whoami::ProbeVerdict;
use crate::journal::body::WriterNode;

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_second(minutes * 60).unwrap()
}

/// A slot every hour, to be started within half an hour.
fn plan() -> SlotSchedule {
    let mut role = RoleSettings::new("app".parse().unwrap(), KeySource::None, Vec::new());
    role.schedule = Some(Schedule::Every(Duration::from_hours(1)));
    SlotSchedule::new(&role, &TimeZone::UTC).unwrap().unwrap()
}

fn paused(minute: i64, until: Option<i64>) -> JournalPause {
    let node = WriterNode { id: NodeId([1; 16]), name: "east".to_owned() };
    JournalPause { node, time: at(minute), until: until.map(at), why: None }
}

fn failure(minute: i64, after: Option<u64>) -> RunSummary {
    RunSummary {
        node: "east".to_owned(),
        outcome: RunOutcome::Failed,
        step: RunStep::Run,
        time: at(minute),
        slot: None,
        error: "dump app.sql: exit code 1".to_owned(),
        failures: 1,
        after,
    }
}

/// A command for the slot at this minute that ended a minute later with this exit code.
fn command(slot: i64, exit: u8) -> CommandEnd {
    let node = WriterNode { id: NodeId([1; 16]), name: "east".to_owned() };
    let end = EndBody { exit, ..EndBody::default() };
    CommandEnd { seq: Seq(9), node, time: at(slot + 1), slot: at(slot), end }
}

/// A role that was created in the first minute and has a commit for the slot of 10:00, seen at 10:10.
struct Scene {
    past: RoleHistory,
    failures: Vec<RunSummary>,
    now: i64,
    state: RoleState,
    reason: StateReason,
    store: StoreStatus,
    scheduled: bool,
    offset: Option<i64>,
    unread: bool,
    seen: Vec<RoleWarning>,
    daemon: Option<&'static str>,
    evidence: Vec<ProbeReport>,
}

impl Scene {
    fn new(change: impl FnOnce(&mut Self)) -> Self {
        let past = RoleHistory {
            commits: SlotCommits::new([at(600)], Some(at(1))),
            snapshot: Some((7, at(601))),
            ..RoleHistory::default()
        };
        let mut scene = Self {
            past,
            failures: Vec::new(),
            now: 610,
            state: RoleState::Standby,
            reason: StateReason::ProbesNo,
            store: StoreStatus::Ok,
            scheduled: true,
            offset: Some(0),
            unread: false,
            seen: Vec::new(),
            daemon: None,
            evidence: Vec::new(),
        };
        change(&mut scene);
        scene
    }

    fn judged(&self) -> Vec<RoleWarning> {
        let plan = plan();
        health_warnings(&HealthFacts {
            now: at(self.now),
            state: self.state,
            reason: &self.reason,
            evidence: &self.evidence,
            plan: Some(&plan).filter(|_| self.scheduled),
            clock_offset_seconds: self.offset,
            store: &self.store,
            rolled_back: false,
            past: Some(&self.past).filter(|_| !self.unread),
            failures: &self.failures,
            daemon: self.daemon,
            observed: &self.seen,
        })
    }

    /// The worst severity, by warnings and by state.
    fn worst(&self) -> Option<Severity> {
        self.judged().iter().map(severity).max().max(of_state(self.state))
    }
}

fn never(past: &mut RoleHistory) {
    *past = RoleHistory { commits: SlotCommits::new([], Some(at(601))), ..RoleHistory::default() };
}

#[test]
fn a_role_that_is_backed_up_has_nothing_to_look_after() {
    assert_eq!(Scene::new(|_| ()).judged(), []);
    assert_eq!(Scene::new(|s| s.scheduled = false).judged(), []);
}

#[test]
fn a_role_that_never_committed_is_a_warning_at_once_and_critical_when_a_slot_has_passed() {
    let scene = |now| {
        Scene::new(|s| {
            never(&mut s.past);
            s.now = now;
        })
    };
    assert_eq!(scene(602).judged(), [RoleWarning::NoSnapshot { since: Some(at(601)) }]);
    assert_eq!(scene(690).worst(), Some(Severity::Warning), "the first slot after it was made still has time");
    let [
        RoleWarning::SlotsMissed { first, last, count: 1, cause: MissedCause::NotEligible },
        RoleWarning::NoSnapshot { .. },
    ] = scene(691).judged()[..]
    else {
        panic!("{:?}", scene(691).judged())
    };
    assert_eq!((first, last), (at(660), at(660)));
    let by_hand = Scene::new(|s| {
        never(&mut s.past);
        s.scheduled = false;
    });
    assert_eq!(by_hand.worst(), Some(Severity::Warning));
    let by_command = Scene::new(|s| s.past.snapshot = None);
    assert_eq!(by_command.judged(), [], "its slots are committed by a command");
}

#[test]
fn a_failure_is_critical_until_something_is_committed_by_any_node() {
    let scene = |run: RunSummary| Scene::new(|s| s.failures = vec![run]).judged();
    assert_eq!(scene(failure(605, Some(7))), [RoleWarning::RunFailed(failure(605, Some(7)))]);
    assert_eq!(scene(failure(605, Some(6))), [], "the clock of the node that failed may be ahead");
    assert_eq!(scene(failure(590, None)), []);
    assert!(matches!(scene(failure(605, None))[..], [RoleWarning::RunFailed(_)]));
    let two = Scene::new(|s| s.failures = vec![failure(605, Some(7)), failure(607, Some(7)), failure(606, Some(7))]);
    assert_eq!(two.judged(), [RoleWarning::RunFailed(failure(607, Some(7)))], "the newest");
    let unread = Scene::new(|s| {
        (s.unread, s.store, s.state) = (true, StoreStatus::Failed("gone".to_owned()), RoleState::Unknown);
        s.failures = vec![failure(605, Some(6))];
    });
    assert_eq!(unread.worst(), Some(Severity::Critical), "that something was committed since is not known");
}

#[test]
fn a_pause_is_a_warning_within_its_time_and_critical_when_it_was_forgotten() {
    let scene = |until, now| {
        Scene::new(|s| {
            (s.past.paused, s.now, s.state) = (Some(paused(605, until)), now, RoleState::Paused);
            s.past.pauses.begin(&paused(605, until));
        })
    };
    let day = 24 * 60;
    assert_eq!(scene(None, 604 + day).worst(), Some(Severity::Warning), "no slot in it was missed");
    assert_eq!(scene(None, 605 + day).worst(), Some(Severity::Critical));
    assert_eq!(scene(Some(9000), 605 + day).worst(), Some(Severity::Warning), "it was said for how long");
    let over = scene(Some(700), 800).judged();
    let [RoleWarning::SlotsMissed { first, .. }] = over[..] else { panic!("{over:?}") };
    assert_eq!(first, at(720), "the slot of 11:00 lay in the pause");
}

#[test]
fn what_was_missed_before_a_pause_or_after_it_stays_missed() {
    let mut view = JournalView::empty("app".parse().unwrap(), RepoId([1; 16]));
    view.state.last_slot = Some(at(600));
    (view.past_pause, view.state.paused) = (Some(paused(700, Some(800))), Some(paused(1000, None)));
    let past = RoleHistory::of(&view);
    let missed: Vec<i64> = past.missed(&plan(), None, at(1100)).iter().map(|slot| slot.at.as_second() / 60).collect();
    assert_eq!(missed, [660, 780, 840, 900, 960], "720 and 1020 were excused; a run for 780 could begin at 800");
}

#[test]
fn a_daemon_is_asked_after_only_where_none_answers_and_nothing_else_explains_it() {
    let cause = |change: fn(&mut Scene)| {
        let scene = Scene::new(|s| {
            (s.now, s.state, s.reason) = (700, RoleState::Active, StateReason::ProbesYes);
            change(s);
        });
        let found = scene.judged();
        found.into_iter().find_map(|found| match found {
            RoleWarning::SlotsMissed { cause, .. } => Some(cause),
            _ => None,
        })
    };
    let says = || Some(MissedCause::Daemon("words".to_owned()));
    assert_eq!(cause(|_| ()), Some(MissedCause::ActiveHere));
    assert_eq!(cause(|s| s.daemon = Some("words")), says());
    assert_eq!(
        cause(|s| (s.state, s.reason) = (RoleState::Unknown, StateReason::Daemon { why: "words".to_owned() })),
        says()
    );
    let unwritable = |stands_by| RoleWarning::StateUnwritable { why: "full".to_owned(), stands_by };
    assert_eq!(severity(&unwritable(false)), Severity::Critical);
    assert_eq!(severity(&unwritable(true)), Severity::Warning);
    assert_eq!(
        cause(|s| s.seen = vec![RoleWarning::StateUnwritable { why: "full".to_owned(), stands_by: false }]),
        Some(MissedCause::Failing)
    );
}

#[test]
fn whatever_a_node_sees_of_why_nothing_runs_is_the_cause_of_missed_slots() {
    let cause = |state, reason: StateReason, change: fn(&mut Scene)| {
        let scene = Scene::new(|s| {
            (s.now, s.state, s.reason) = (700, state, reason);
            change(s);
        });
        scene.judged().into_iter().find_map(|found| match found {
            RoleWarning::SlotsMissed { cause, .. } => Some(cause),
            _ => None,
        })
    };
    let unknown = |s: &mut Scene| {
        let said = |probe: &str, answer, detail: &str, fallback| ProbeReport {
            probe: probe.to_owned(),
            answer,
            detail: detail.to_owned(),
            latency: Duration::ZERO,
            age: Duration::ZERO,
            fallback,
        };
        s.evidence = vec![
            said("vip 10.0.0.50", ProbeVerdict::Yes, "on eth0", false),
            said("command /stands-in", ProbeVerdict::Unknown, "exit 2", true),
            said("command /gone", ProbeVerdict::Unknown, "cannot be run", false),
        ];
    };
    let probes = Some(MissedCause::ProbesUnknown(Some("command /gone: cannot be run".to_owned())));
    assert_eq!(cause(RoleState::Unknown, StateReason::ProbesUnknown, unknown), probes);
    let free = || StateReason::LeaseFree { last: Some("east".to_owned()) };
    assert_eq!(cause(RoleState::Standby, free(), |_| ()), Some(MissedCause::LeaseFree));
    let failed: fn(&mut Scene) = |s| s.failures = vec![failure(650, Some(7))];
    assert_eq!(cause(RoleState::Standby, free(), failed), Some(MissedCause::Failing));
    let handed = StateReason::HandedOver { to: "west".to_owned(), until: at(900) };
    assert_eq!(cause(RoleState::Standby, handed, |_| ()), Some(MissedCause::HasRole("west".to_owned())));
}

#[test]
fn a_command_without_an_end_is_the_cause_from_its_slot_on_until_that_is_committed_or_a_run_failed() {
    let cause = |slot: i64, change: &dyn Fn(&mut Scene)| {
        let scene = Scene::new(|s| {
            s.now = 730;
            let node = WriterNode { id: NodeId([1; 16]), name: "east".to_owned() };
            let running = RunningCommand { node, instance: InstanceId([1; 8]), time: at(661), slot: Some(at(slot)) };
            s.past.running = Some(running);
            change(s);
        });
        let found = scene.judged();
        found.into_iter().find_map(|found| match found {
            RoleWarning::SlotsMissed { cause, .. } => Some(cause),
            _ => None,
        })
    };
    let is = |gone| Some(MissedCause::Running { node: "east".to_owned(), since: at(661), is_command: true, gone });
    let running = is(false);
    assert_eq!(cause(660, &|_| ()), running, "from a node whose probes say no");
    assert_eq!(cause(660, &|s| s.past.running_ended = true), is(true));
    let held = StateReason::LeaseTaken { by: Some("east".to_owned()) };
    assert_eq!(cause(660, &|s| s.reason = held.clone()), running);
    assert_eq!(cause(660, &|s| (s.state, s.daemon) = (RoleState::Active, Some("words"))), running);
    assert_eq!(cause(600, &|_| ()), Some(MissedCause::NotEligible), "a later run committed its slot");
    assert_eq!(cause(780, &|_| ()), Some(MissedCause::NotEligible), "what was missed was missed before it");
    let after = failure(700, Some(7));
    assert_eq!(cause(660, &|s| s.failures = vec![after.clone()]), Some(MissedCause::NotEligible));
    let before = failure(650, Some(7));
    assert_eq!(cause(660, &|s| s.failures = vec![before.clone()]), running);
}

#[test]
fn a_backup_that_is_under_way_is_not_missed_before_the_next_slot_and_is_the_cause_then() {
    let judged = |now: i64, slot: i64| {
        let run = RunningBackup { node: "east".to_owned(), slot: at(slot), since: at(slot + 1) };
        Scene::new(|s| (s.now, s.past.under_way) = (now, vec![run])).judged()
    };
    assert_eq!(judged(719, 660), [], "it was begun in time");
    let running = MissedCause::Running { node: "east".to_owned(), since: at(661), is_command: false, gone: false };
    let expected = RoleWarning::SlotsMissed { first: at(660), last: at(660), count: 1, cause: running };
    assert_eq!(judged(720, 660), [expected], "the next one has come");
    let other = judged(719, 720);
    assert!(matches!(other[..], [RoleWarning::SlotsMissed { cause: MissedCause::NotEligible, .. }]), "{other:?}");
    let command = Scene::new(|s| {
        let node = WriterNode { id: NodeId([1; 16]), name: "east".to_owned() };
        s.now = 719;
        s.past.running =
            Some(RunningCommand { node, instance: InstanceId([1; 8]), time: at(661), slot: Some(at(660)) });
    });
    assert_eq!(command.judged(), [], "and so was this");
}

#[test]
fn a_role_that_has_lost_its_schedule_is_a_warning_and_one_that_never_had_any_is_none() {
    let scene = |scheduled, last| Scene::new(|s| (s.scheduled, s.past.scheduled) = (scheduled, last)).judged();
    assert_eq!(scene(false, Some(at(601))), [RoleWarning::ScheduleMissing { last: at(601) }]);
    assert_eq!(severity(&RoleWarning::ScheduleMissing { last: at(601) }), Severity::Warning);
    assert_eq!((scene(false, None), scene(true, Some(at(601)))), (vec![], vec![]));
}

#[test]
fn the_worst_comes_first_and_each_cause_is_named() {
    let drift = RoleWarning::LeaseDrift { node: "west".to_owned(), theirs: LeaseKind::Etcd, own: LeaseKind::Bucket };
    let scene = Scene::new(|s| {
        s.now = 700;
        (s.offset, s.seen) = (Some(-400), vec![RoleWarning::DaemonSilent, drift.clone()]);
        s.failures = vec![failure(650, Some(7))];
        (s.state, s.reason) = (RoleState::Active, StateReason::ProbesYes);
    });
    let found = scene.judged();
    assert!(found.is_sorted_by_key(|warning| Reverse(severity(warning))), "{found:?}");
    let [
        RoleWarning::RunFailed(_),
        RoleWarning::SlotsMissed { cause, .. },
        third,
        RoleWarning::ClockOff(-400),
        RoleWarning::DaemonSilent,
    ] = &found[..]
    else {
        panic!("{found:?}")
    };
    assert_eq!((cause, third), (&MissedCause::Failing, &drift));
    for (store, expected) in [
        (StoreStatus::Failed("no such directory".to_owned()), Severity::Warning),
        (StoreStatus::NotInitialised, Severity::Critical),
    ] {
        let scene = Scene::new(|s| (s.store, s.unread) = (store, true));
        assert_eq!(scene.worst(), Some(expected));
    }
    let hour = 3600;
    for (offset, now) in [(-hour, 670), (hour, 550)] {
        let scene = Scene::new(|s| (s.offset, s.now, s.reason) = (Some(offset), now, StateReason::ClockOff));
        assert_eq!(scene.judged(), [RoleWarning::ClockOff(offset)], "slots are counted by the store's clock");
    }
    assert_eq!(Scene::new(|s| s.state = RoleState::Unknown).worst(), Some(Severity::Unknown));
    assert_eq!(Scene::new(|s| s.state = RoleState::Conflict).worst(), Some(Severity::Critical));
}

#[test]
fn a_command_that_failed_is_critical_at_once_and_on_every_node_until_its_slot_is_committed() {
    let scene = |last: CommandEnd, change: &dyn Fn(&mut Scene)| {
        let scene = Scene::new(|s| {
            (s.past.command, s.now) = (Some(last), 662);
            change(s);
        });
        let failed = scene.judged().into_iter().filter_map(|found| match found {
            RoleWarning::RunFailed(run) => Some((run.node, run.step, run.slot, run.error)),
            _ => None,
        });
        (scene.worst(), failed.collect::<Vec<_>>())
    };
    let told = |error: &str| vec![("east".to_owned(), RunStep::Command, Some(at(660)), error.to_owned())];
    let (worst, failed) = scene(command(660, 3), &|_| ());
    assert_eq!((worst, failed), (Some(Severity::Critical), told("ended with exit code 3")), "no slot was missed yet");
    let active = |s: &mut Scene| (s.state, s.reason) = (RoleState::Active, StateReason::ProbesYes);
    assert_eq!(scene(command(660, 3), &active).0, Some(Severity::Critical));
    assert_eq!(scene(command(660, 3), &|s| s.scheduled = false).0, Some(Severity::Critical));
    let with = |change: &dyn Fn(&mut EndBody)| {
        let mut last = command(660, 0);
        change(&mut last.end);
        scene(last, &|_| ()).1
    };
    assert_eq!(with(&|end| (end.exit, end.signal) = (137, Some(9))), told("was ended by signal 9"));
    let timed_out = told("took longer than its --timeout, and was ended by signal 15");
    assert_eq!(
        with(&|end| (end.exit, end.signal, end.stopped, end.timed_out) = (143, Some(15), true, true)),
        timed_out
    );
    let stopped = told("was stopped, because its node was no longer active, and ended with exit code 0");
    assert_eq!(with(&|end| end.stopped = true), stopped, "it was not done");
    assert_eq!(with(&|end| end.exit = 137), told("ended with exit code 137"), "as older versions recorded it");
    // Conditions that end the warning.
    let none = (None, Vec::new());
    assert_eq!(scene(command(660, 0), &|_| ()), none);
    assert_eq!(scene(command(600, 3), &|s| s.now = 610), none, "a backup has committed its slot");
    let later = |s: &mut Scene| s.past.commits = SlotCommits::new([at(720)], Some(at(1)));
    assert_eq!(scene(command(660, 3), &|s| (later(s), s.now = 721).0), none, "or a later one");
    let by_hand = scene(command(660, 3), &|s| s.past.snapshot = Some((11, at(662))));
    assert_eq!(by_hand.0, Some(Severity::Critical), "a run by hand commits no slot");
}

#[test]
fn a_good_command_ends_a_failure_that_came_before_it_and_the_newest_failure_is_the_last_run() {
    let failed = |last: CommandEnd, run: RunSummary| {
        let judged = Scene::new(|s| (s.past.command, s.failures, s.now) = (Some(last), vec![run], 662)).judged();
        let step = |found: &RoleWarning| match found {
            RoleWarning::RunFailed(run) => Some(run.step),
            _ => None,
        };
        judged.iter().filter_map(step).collect::<Vec<_>>()
    };
    assert_eq!(failed(command(600, 0), failure(605, Some(8))), [], "record 9 committed after record 8");
    assert_eq!(failed(command(600, 0), failure(605, Some(9))), [RunStep::Run]);
    assert_eq!(failed(command(660, 3), failure(605, Some(7))), [RunStep::Command, RunStep::Run]);
    assert_eq!(failed(command(660, 3), failure(662, Some(9))), [RunStep::Run, RunStep::Command]);
}
