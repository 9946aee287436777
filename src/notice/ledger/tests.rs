use super::*;
use crate::ids::RoleName;

fn role() -> RoleName {
    "app".parse().unwrap()
}

fn at(minutes: i64) -> Timestamp {
    Timestamp::from_second(minutes * 60).unwrap()
}

fn event(kind: Kind, minutes: i64) -> Event {
    Event::new(kind, role(), "east".to_owned(), at(minutes))
}

fn standby(sign: u64) -> Watcher {
    Watcher::Standby { sign, vouched: false }
}

/// What raising it every minute from `from` to `to` tells, and when.
fn told(ledger: &mut Ledger, kind: Kind, watcher: Watcher, from: i64, to: i64) -> Vec<(i64, Phase)> {
    (from..to).filter_map(|m| Some((m, ledger.raise(event(kind, m), watcher, at(m))?.phase))).collect()
}

#[test]
fn what_lasts_is_told_once_again_after_a_day_and_once_when_it_is_over() {
    let mut ledger = Ledger::default();
    let day = 24 * 60;
    assert_eq!(
        told(&mut ledger, Kind::Failed, Watcher::Holder, 0, 2 * day + 5),
        [(0, Phase::Begun), (day, Phase::Lasts), (2 * day, Phase::Lasts)]
    );
    let over = ledger.settle(&role(), Kind::Failed, &[], "west", at(3 * day));
    assert_eq!(over.len(), 1);
    assert_eq!((over[0].phase, over[0].since, over[0].event.node.as_str()), (Phase::Over, at(0), "west"));
    assert_eq!(ledger.settle(&role(), Kind::Failed, &[], "west", at(3 * day)), [], "once");
    assert_eq!(told(&mut ledger, Kind::Failed, Watcher::Holder, 0, 1), [(0, Phase::Begun)], "a new one is a new one");
}

#[test]
fn what_happened_once_is_told_once_for_each() {
    let mut ledger = Ledger::default();
    let duplicate = |slot: i64| Event { mark: at(slot).to_string(), ..event(Kind::Duplicate, slot) };
    for _ in 0..3 {
        ledger.raise(duplicate(1), Watcher::Holder, at(1));
    }
    assert!(ledger.raise(duplicate(2), Watcher::Holder, at(2)).is_some(), "of another slot");
    assert!(ledger.raise(duplicate(2), Watcher::Holder, at(60 * 24 * 5)).is_none(), "not again after a day");
    assert_eq!(ledger.settle(&role(), Kind::Duplicate, &[], "east", at(3)), [], "it has happened, nothing ends it");
    assert!(ledger.raise(duplicate(1), Watcher::Holder, at(4)).is_none(), "and it is remembered as told");
}

#[test]
fn a_standby_waits_for_a_sign_of_life_of_the_holder() {
    let mut ledger = Ledger::default();
    assert_eq!(told(&mut ledger, Kind::Missed, standby(7), 0, 2), []);
    assert_eq!(told(&mut ledger, Kind::Missed, standby(8), 2, 4), [], "it wrote something");
    let vouched = Watcher::Standby { sign: 8, vouched: true };
    assert_eq!(told(&mut ledger, Kind::Missed, vouched, 4, 60), [], "it has the lease");
    // Last vouched for at 59.
    assert_eq!(told(&mut ledger, Kind::Missed, standby(8), 60, 70), [(61, Phase::Begun)]);
    assert_eq!(ledger.settle(&role(), Kind::Missed, &[], "west", at(80)).len(), 1, "who told it tells that it is over");
}

#[test]
fn of_a_pair_that_lives_only_the_holder_tells() {
    let (mut holder, mut other) = (Ledger::default(), Ledger::default());
    assert_eq!(told(&mut holder, Kind::Anomaly, Watcher::Holder, 0, 60), [(0, Phase::Begun)]);
    assert_eq!(told(&mut other, Kind::Anomaly, standby(7), 0, 24 * 60), [], "whoever wrote a record lived then");
    assert_eq!(other.settle(&role(), Kind::Anomaly, &[], "west", at(70)), [], "who did not tell it says nothing");
}

#[test]
fn what_happens_to_a_node_itself_it_tells_itself() {
    for kind in [Kind::Failed, Kind::Fenced, Kind::Conflict, Kind::Clone, Kind::ClockOff, Kind::Takeover] {
        assert_eq!(told(&mut Ledger::default(), kind, standby(7), 0, 5), [(0, Phase::Begun)], "{kind:?}");
    }
}

#[test]
fn it_outlives_its_process() {
    let mut ledger = Ledger::default();
    told(&mut ledger, Kind::Failed, Watcher::Holder, 0, 1);
    ledger.post("document", &["command"], at(30));
    let mut read: Ledger = serde_json::from_str(&serde_json::to_string(&ledger).unwrap()).unwrap();
    assert_eq!(read, ledger);
    assert_eq!(told(&mut read, Kind::Failed, Watcher::Holder, 1, 60), []);
    assert_eq!(serde_json::from_str::<Ledger>("{}").unwrap(), Ledger::default());
}

#[test]
fn a_letter_is_tried_by_one_process_at_a_time_and_not_for_ever() {
    let mut ledger = Ledger::default();
    let letters = ledger.post("document", &["command", "webhook"], at(30));
    assert_eq!(letters.len(), 2);
    assert_eq!(ledger.claim(&["command", "webhook"], at(1), at(31)), [], "somebody sees to them");
    ledger.delivered(letters[0].id);
    ledger.release(&[letters[1].id], at(2));
    let claimed = ledger.claim(&["command", "webhook"], at(2), at(32));
    assert_eq!(claimed.iter().map(|l| l.id).collect::<Vec<_>>(), [letters[1].id]);
    let pauses: Vec<u64> = std::iter::from_fn(|| ledger.failed(letters[1].id)).map(|p| p.as_secs()).collect();
    assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60]);
    assert_eq!(ledger.claim(&["command", "webhook"], at(99), at(100)), [], "given up");
    let gone = ledger.post("document", &["webhook"], at(0));
    assert_eq!(ledger.claim(&["command"], at(1), at(2)), [], "nobody is told that way any more");
    assert_eq!(ledger.failed(gone[0].id), None);
}

#[test]
fn the_outbox_is_bounded() {
    let mut ledger = Ledger::default();
    for n in 0..OUTBOX_MAX + 3 {
        ledger.post(&n.to_string(), &["command"], at(0));
    }
    let left = ledger.claim(&["command"], at(0), at(1));
    assert_eq!((left.len(), left[0].document.as_str()), (OUTBOX_MAX, "3"), "the oldest are dropped");
}

#[test]
fn what_was_noted_while_the_clock_was_ahead_holds_nothing_up() {
    let (year, day) = (365 * 24 * 60, 24 * 60);
    let mut ledger = Ledger::default();
    assert!(ledger.raise(event(Kind::Missed, year), Watcher::Holder, at(year)).is_some());
    assert!(
        ledger.raise(event(Kind::Missed, day), Watcher::Holder, at(day)).is_none(),
        "a clock that steps tells nothing twice"
    );
    let again = ledger.raise(event(Kind::Missed, 2 * day), Watcher::Holder, at(2 * day)).unwrap();
    assert_eq!(again.phase, Phase::Lasts, "a day after the clock was right again");
    // A holder whose last sign of life was seen then is not waited for until that time.
    assert!(ledger.raise(event(Kind::PausedTooLong, year), standby(3), at(year)).is_none());
    assert!(ledger.raise(event(Kind::PausedTooLong, day), standby(3), at(day)).is_none());
    assert!(ledger.raise(event(Kind::PausedTooLong, day), standby(3), at(day + 2)).is_some());
    // A letter that a process took then is free.
    let [letter] = &ledger.post("{}", &["webhook"], at(year + 30))[..] else { panic!("one letter") };
    assert_eq!(ledger.claim(&["webhook"], at(day), at(day + 30)), [Letter { claimed: at(day + 30), ..letter.clone() }]);
    assert_eq!(ledger.claim(&["webhook"], at(day + 1), at(day + 31)), []);
}
