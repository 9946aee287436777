//! When a role is left to other nodes, and when a failed effect is repeated. Pure.

use super::*;

const STALLED: YieldReason = YieldReason::Stalled { blocked: false };

/// The result of a failed run.
fn failed() -> RoleEvent {
    let history = Some(history(Some(holding(ME, 7))));
    RoleEvent::JournalUpdated(JournalUpdate { history, term: None, failed: true, heartbeat: None, clock_offset: None })
}

/// The result of a failed read of the journal.
fn unread() -> RoleEvent {
    RoleEvent::JournalUpdated(JournalUpdate {
        history: None,
        term: None,
        failed: true,
        heartbeat: None,
        clock_offset: None,
    })
}

/// A node whose run for the slot has begun.
fn running() -> Stage {
    let mut stage = Stage::new(|_| {});
    let effects = stage.begin(None);
    assert!(effects.contains(&RoleEffect::BackUp(slot(ONE))), "{effects:?}");
    stage
}

#[test]
fn a_stalled_run_gives_the_role_up_and_another_node_has_time_to_take_it() {
    let mut stage = running();
    assert_eq!(stage.on(RoleEvent::Yielded(STALLED)), [], "the run has not ended yet");
    assert_eq!(stage.on(failed()), [RoleEffect::ReleaseLease]);
    assert_eq!(stage.on(RoleEvent::Released), [RoleEffect::ReportStatus]);
    assert_eq!(stage.duty.status(), Some(&RoleStatus::Away(STALLED)));
    let wait = AWAY.0.saturating_sub(Duration::from_secs(1));
    assert!(!stage.pass(wait).contains(&RoleEffect::AskLease));
    assert!(!stage.on(RoleEvent::LeaseHint).contains(&RoleEffect::AskLease), "whatever the lease service tells");
    assert!(stage.pass(Duration::from_secs(1)).contains(&RoleEffect::AskLease), "no other node did it");
}

#[test]
fn each_further_stall_in_a_row_keeps_it_away_for_longer() {
    let mut stage = running();
    let mut pauses = Vec::new();
    for _ in 0..8 {
        stage.on(RoleEvent::Yielded(STALLED));
        stage.on(failed());
        stage.on(RoleEvent::Released);
        let away = stage.duty.away_reason.unwrap().until;
        pauses.push(away.saturating_sub(stage.now.boot).as_secs() / 60);
        let pause = away.saturating_sub(stage.now.boot);
        stage.pass(pause);
        stage.grant();
        stage.on(taken(7));
    }
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
    stage.on(committed(ONE));
    assert_eq!(stage.duty.stalls, 0, "a run that ends well ends the row");
}

#[test]
fn what_the_kernel_holds_is_waited_for_and_a_person_is_not() {
    let mut stage = running();
    stage.on(RoleEvent::Yielded(YieldReason::Stalled { blocked: true }));
    stage.on(failed());
    stage.on(RoleEvent::Released);
    assert!(!stage.pass(Duration::from_hours(30)).contains(&RoleEffect::AskLease), "a further run would hang as well");
    stage.on(RoleEvent::Unblocked);
    assert!(!stage.pass(Duration::from_secs(1)).contains(&RoleEffect::AskLease));
    assert!(stage.pass(AWAY.0).contains(&RoleEffect::AskLease));

    let mut stage = running();
    stage.on(RoleEvent::Yielded(YieldReason::Stalled { blocked: true }));
    stage.on(failed());
    stage.on(RoleEvent::Released);
    stage.wait(ASK);
    assert!(stage.on(RoleEvent::RunRequested).contains(&RoleEffect::AskLease));
}

#[test]
fn a_role_that_waits_in_line_is_offered_once_for_each_slot() {
    let mut stage = running();
    stage.on(RoleEvent::Yielded(YieldReason::Crowded));
    let idle = || {
        RoleEvent::JournalUpdated(JournalUpdate {
            history: Some(history(Some(holding(ME, 7)))),
            term: None,
            failed: false,
            heartbeat: None,
            clock_offset: None,
        })
    };
    assert_eq!(stage.on(idle()), [RoleEffect::ReleaseLease]);
    assert_eq!(stage.on(RoleEvent::Released), [RoleEffect::ReportStatus]);
    assert_eq!(stage.duty.status(), Some(&RoleStatus::Away(YieldReason::Crowded)));
    assert!(!stage.pass(ASK * (OFFER_ASKS - 1)).contains(&RoleEffect::AskLease));
    assert!(stage.pass(ASK).contains(&RoleEffect::AskLease), "no other node wants it");
    stage.grant();
    assert!(stage.on(taken(7)).contains(&RoleEffect::BackUp(slot(ONE))));
    stage.on(RoleEvent::Yielded(YieldReason::Crowded));
    let effects = stage.on(idle());
    assert!(
        !effects.contains(&RoleEffect::ReleaseLease) && effects.contains(&RoleEffect::BackUp(slot(ONE))),
        "{effects:?}"
    );
    // The next slot.
    stage.pass(Duration::from_hours(1));
    stage.on(RoleEvent::Yielded(YieldReason::Crowded));
    assert!(stage.on(idle()).contains(&RoleEffect::ReleaseLease));
}

#[test]
fn without_a_lease_it_only_waits() {
    let mut stage = Stage::backing_up_without_lease();
    stage.on(RoleEvent::Yielded(STALLED));
    let run = RoleEffect::BackUp(slot(ONE));
    assert!(!stage.on(failed()).contains(&run));
    assert_eq!(stage.pass(Duration::from_secs(30)), [RoleEffect::Probe, RoleEffect::ReadJournal]);
    assert!(!stage.on(read(Some(holding(ME, 7)))).contains(&run));
    assert!(stage.pass(AWAY.0).contains(&run));
}

#[test]
fn a_store_that_answers_again_is_asked_at_once_whatever_was_waited_for() {
    let mut stage = Stage::new(|_| {});
    stage.on(RoleEvent::Tick);
    stage.probes(ProbeAnswer::Yes);
    let longest = backoff::read_backoff_max(ASK / 4);
    for _ in 0..12 {
        stage.on(unread());
        let wait = stage.duty.reading.until.saturating_sub(stage.now.boot);
        assert!(wait <= longest, "{wait:?}");
        stage.pass(wait);
    }
    stage.on(unread());
    assert_eq!(stage.duty.reading.until, stage.now.boot + longest);
    stage.on(RoleEvent::StoreAnswered);
    let wait = stage.duty.next_wake(stage.now).saturating_sub(stage.now.boot);
    assert!(wait <= backoff::RETURN_SPREAD, "{wait:?}");
    assert!(stage.pass(stage.duty.spread).contains(&RoleEffect::ReadJournal));
}

#[test]
fn a_lease_service_that_answers_again_ends_the_wait_of_what_failed() {
    let mut stage = running();
    for _ in 0..9 {
        stage.on(failed());
        let wait = stage.duty.working.until.saturating_sub(stage.now.boot);
        assert!(stage.pass(wait).contains(&RoleEffect::BackUp(slot(ONE))));
    }
    stage.on(failed());
    assert_eq!(stage.duty.working.until, stage.now.boot + backoff::WORK_MAX);
    stage.on(RoleEvent::LeaseUpdated(LeaseUpdate::Unreachable));
    stage.wait(ASK);
    stage.grant();
    assert!(stage.duty.working.until <= stage.now.boot + backoff::RETURN_SPREAD);
}
