//!
//! Pure.
use super::*;
use crate::ids::RoleName;

fn role() -> RoleName {
    "app".parse().unwrap()
}

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_second(minutes * 60).unwrap()
}

fn event(kind: AlertKind, minutes: i64) -> AlertEvent {
    AlertEvent::new(kind, role(), "east".to_owned(), at(minutes))
}

fn standby(sign: u64) -> ReporterStatus {
    ReporterStatus::Standby { holder_newest: sign, is_holder_alive: false }
}

/// What is reported, and when, if the event is raised every minute from `from` to `to`.
fn told(
    ledger: &mut AlertLedger,
    kind: AlertKind,
    watcher: ReporterStatus,
    from: i64,
    to: i64,
) -> Vec<(i64, AlertPhase)> {
    (from..to).filter_map(|m| Some((m, ledger.raise(event(kind, m), watcher, at(m))?.phase))).collect()
}

#[test]
fn what_lasts_is_told_once_again_after_a_day_and_once_when_it_is_over() {
    let mut ledger = AlertLedger::default();
    let day = 24 * 60;
    assert_eq!(
        told(&mut ledger, AlertKind::Failed, ReporterStatus::Holder, 0, 2 * day + 5),
        [(0, AlertPhase::Begun), (day, AlertPhase::Lasts), (2 * day, AlertPhase::Lasts)]
    );
    let over = ledger.resolve(&role(), AlertKind::Failed, &[], "west", at(3 * day));
    assert_eq!(over.len(), 1);
    assert_eq!((over[0].phase, over[0].since, over[0].event.node.as_str()), (AlertPhase::Over, at(0), "west"));
    assert_eq!(ledger.resolve(&role(), AlertKind::Failed, &[], "west", at(3 * day)), [], "once");
    assert_eq!(
        told(&mut ledger, AlertKind::Failed, ReporterStatus::Holder, 0, 1),
        [(0, AlertPhase::Begun)],
        "a new one is a new one"
    );
}

#[test]
fn what_happened_once_is_told_once_for_each() {
    let mut ledger = AlertLedger::default();
    let duplicate = |slot: i64| AlertEvent { mark: at(slot).to_string(), ..event(AlertKind::Duplicate, slot) };
    for _ in 0..3 {
        ledger.raise(duplicate(1), ReporterStatus::Holder, at(1));
    }
    assert!(ledger.raise(duplicate(2), ReporterStatus::Holder, at(2)).is_some(), "of another slot");
    assert!(ledger.raise(duplicate(2), ReporterStatus::Holder, at(60 * 24 * 5)).is_none(), "not again after a day");
    assert_eq!(
        ledger.resolve(&role(), AlertKind::Duplicate, &[], "east", at(3)),
        [],
        "it has happened, nothing ends it"
    );
    assert!(ledger.raise(duplicate(1), ReporterStatus::Holder, at(4)).is_none(), "and it is remembered as told");
}

#[test]
fn a_standby_waits_for_a_sign_of_life_of_the_holder() {
    let mut ledger = AlertLedger::default();
    assert_eq!(told(&mut ledger, AlertKind::Missed, standby(7), 0, 2), []);
    assert_eq!(told(&mut ledger, AlertKind::Missed, standby(8), 2, 4), [], "it wrote something");
    let vouched = ReporterStatus::Standby { holder_newest: 8, is_holder_alive: true };
    assert_eq!(told(&mut ledger, AlertKind::Missed, vouched, 4, 60), [], "it has the lease");
    // The holder was last vouched for at 59.
    assert_eq!(told(&mut ledger, AlertKind::Missed, standby(8), 60, 70), [(61, AlertPhase::Begun)]);
    assert_eq!(
        ledger.resolve(&role(), AlertKind::Missed, &[], "west", at(80)).len(),
        1,
        "the node that reported it reports its end"
    );
}

#[test]
fn of_a_pair_that_lives_only_the_holder_tells() {
    let (mut holder, mut other) = (AlertLedger::default(), AlertLedger::default());
    assert_eq!(told(&mut holder, AlertKind::Anomaly, ReporterStatus::Holder, 0, 60), [(0, AlertPhase::Begun)]);
    assert_eq!(
        told(&mut other, AlertKind::Anomaly, standby(7), 0, 24 * 60),
        [],
        "the writer of a record was alive then"
    );
    assert_eq!(
        other.resolve(&role(), AlertKind::Anomaly, &[], "west", at(70)),
        [],
        "a node that did not report it does not report its end"
    );
}

#[test]
fn what_happens_to_a_node_itself_it_tells_itself() {
    for kind in [
        AlertKind::Failed,
        AlertKind::Fenced,
        AlertKind::Conflict,
        AlertKind::Clone,
        AlertKind::ClockOff,
        AlertKind::Takeover,
    ] {
        assert_eq!(told(&mut AlertLedger::default(), kind, standby(7), 0, 5), [(0, AlertPhase::Begun)], "{kind:?}");
    }
}

#[test]
fn it_outlives_its_process() {
    let mut ledger = AlertLedger::default();
    told(&mut ledger, AlertKind::Failed, ReporterStatus::Holder, 0, 1);
    ledger.enqueue("document", &["command"], at(30));
    let mut read: AlertLedger = serde_json::from_str(&serde_json::to_string(&ledger).unwrap()).unwrap();
    assert_eq!(read, ledger);
    assert_eq!(told(&mut read, AlertKind::Failed, ReporterStatus::Holder, 1, 60), []);
    assert_eq!(serde_json::from_str::<AlertLedger>("{}").unwrap(), AlertLedger::default());
}

#[test]
fn a_letter_is_tried_by_one_process_at_a_time_and_not_for_ever() {
    let mut ledger = AlertLedger::default();
    let messages = ledger.enqueue("document", &["command", "webhook"], at(30));
    assert_eq!(messages.len(), 2);
    assert_eq!(ledger.claim(&["command", "webhook"], at(1), at(31)), [], "another process sends them");
    ledger.note_delivered(messages[0].id);
    ledger.unclaim(&[messages[1].id], at(2));
    let claimed = ledger.claim(&["command", "webhook"], at(2), at(32));
    assert_eq!(claimed.iter().map(|l| l.id).collect::<Vec<_>>(), [messages[1].id]);
    let pauses: Vec<u64> = std::iter::from_fn(|| ledger.note_failed(messages[1].id)).map(|p| p.as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60]);
    assert_eq!(ledger.claim(&["command", "webhook"], at(99), at(100)), [], "given up");
    let gone = ledger.enqueue("document", &["webhook"], at(0));
    assert_eq!(ledger.claim(&["command"], at(1), at(2)), [], "that channel is no longer configured");
    assert_eq!(ledger.note_failed(gone[0].id), None);
}

#[test]
fn the_outbox_is_bounded() {
    let mut ledger = AlertLedger::default();
    for n in 0..OUTBOX_MAX + 3 {
        ledger.enqueue(&n.to_string(), &["command"], at(0));
    }
    let left = ledger.claim(&["command"], at(0), at(1));
    assert_eq!((left.len(), left[0].document.as_str()), (OUTBOX_MAX, "3"), "the oldest are dropped");
}

#[test]
fn what_was_noted_while_the_clock_was_ahead_holds_nothing_up() {
    let (year, day) = (365 * 24 * 60, 24 * 60);
    let mut ledger = AlertLedger::default();
    assert!(ledger.raise(event(AlertKind::Missed, year), ReporterStatus::Holder, at(year)).is_some());
    assert!(
        ledger.raise(event(AlertKind::Missed, day), ReporterStatus::Holder, at(day)).is_none(),
        "a clock that steps tells nothing twice"
    );
    let again = ledger.raise(event(AlertKind::Missed, 2 * day), ReporterStatus::Holder, at(2 * day)).unwrap();
    assert_eq!(again.phase, AlertPhase::Lasts, "a day after the clock was right again");
    // A holder whose last sign of life is dated then is not waited for until that time.
    assert!(ledger.raise(event(AlertKind::PausedTooLong, year), standby(3), at(year)).is_none());
    assert!(ledger.raise(event(AlertKind::PausedTooLong, day), standby(3), at(day)).is_none());
    assert!(ledger.raise(event(AlertKind::PausedTooLong, day), standby(3), at(day + 2)).is_some());
    // A message that a process claimed then is free.
    let [message] = &ledger.enqueue("{}", &["webhook"], at(year + 30))[..] else { panic!("one message") };
    assert_eq!(
        ledger.claim(&["webhook"], at(day), at(day + 30)),
        [OutboxMessage { claimed: at(day + 30), ..message.clone() }]
    );
    assert_eq!(ledger.claim(&["webhook"], at(day + 1), at(day + 31)), []);
}

#[test]
fn what_waits_behind_a_slow_server_stays_the_process_s_own() {
    let mut ledger = AlertLedger::default();
    let until = |minutes| at(minutes).checked_add(CLAIM).unwrap();
    let id = ledger.enqueue("x", &["ops"], until(0))[0].id;
    ledger.renew_claims(&[id], at(10), until(10));
    assert_eq!(ledger.outbox[0].claimed, until(0), "more than half of it is left: the file is not written for this");
    ledger.renew_claims(&[id], at(20), until(20));
    assert_eq!(ledger.claim(&["ops"], at(40), until(40)), [], "another process does not send it a second time");
    assert_eq!(ledger.claim(&["ops"], at(51), until(51)).len(), 1, "a process that is gone does not keep it");
}
