//! When the controller asks to be woken.

use super::*;

/// Sleeps until each wake-up in turn; probes take two seconds, a read of the journal three. Returns the effects with
/// their times.
fn timetable(stage: &mut Stage, time: Duration) -> Vec<(u128, RoleEffect)> {
    let (start, end) = (stage.now.boot, stage.now.boot + time);
    let (mut probed, mut read_at): (Option<Duration>, Option<Duration>) = (None, None);
    let mut told = Vec::new();
    loop {
        let wakes = [Some(stage.duty.next_wake(stage.now)), probed, read_at];
        let next = wakes.into_iter().flatten().min().unwrap();
        assert!(next > stage.now.boot, "it wakes in the past");
        if next > end {
            return told;
        }
        // Just before the wake-up there is nothing to do, unless an event arrives.
        let early = next.saturating_sub(stage.now.boot).saturating_sub(Duration::from_millis(1));
        assert_eq!(stage.pass(early), [], "{:?} late", stage.now.boot);
        let mut effects = stage.pass(Duration::from_millis(1));
        if probed.is_some_and(|at| at <= stage.now.boot) {
            probed = None;
            effects.extend(stage.probes(ProbeAnswer::Yes));
        }
        if read_at.is_some_and(|at| at <= stage.now.boot) {
            read_at = None;
            effects.extend(stage.on(committed(ONE)));
        }
        for effect in effects {
            match effect {
                RoleEffect::Probe => probed = Some(stage.now.boot + Duration::from_secs(2)),
                RoleEffect::ReadJournal => read_at = Some(stage.now.boot + Duration::from_secs(3)),
                _ => {}
            }
            told.push((stage.now.boot.saturating_sub(start).as_millis(), effect));
        }
    }
}

#[test]
fn who_sleeps_until_it_is_woken_is_never_late() {
    let mut stage = Stage::new(|_| {});
    stage.begin(None);
    stage.on(committed(ONE));
    stage.wait(Duration::from_millis(700));
    let told = timetable(&mut stage, Duration::from_secs(125));
    let reads = |told: &[(u128, RoleEffect)]| {
        told.iter().filter(|t| t.1 == RoleEffect::ReadJournal).map(|t| t.0).collect::<Vec<_>>()
    };
    let probes: Vec<_> = told.iter().filter(|t| t.1 == RoleEffect::Probe).map(|t| t.0).take(3).collect();
    assert_eq!(probes, [4_300, 11_300, 18_300]);
    assert_eq!(reads(&told), [59_300, 122_300], "nothing is due");
    // Another process works under this role's lease.
    let mut stage = Stage::new(|_| {});
    stage.begin(None);
    stage.on(committed(ONE));
    stage.on(RoleEvent::Borrowers(1));
    assert_eq!(reads(&timetable(&mut stage, Duration::from_secs(25))), [10_000, 23_000]);
}

#[test]
fn a_lease_service_that_is_silent_is_asked_again_in_time() {
    let mut stage = Stage::new(|_| {});
    stage.apply(Some(holding(ME, 7)));
    stage.on(RoleEvent::LeaseUpdated(LeaseUpdate::Unreachable));
    assert_eq!(stage.duty.next_wake(stage.now), stage.now.boot + ASK / 4);
    assert!(stage.pass(ASK / 4).contains(&RoleEffect::AskLease));
    assert_eq!(stage.duty.next_wake(stage.now), stage.now.boot + ASK / 4 * 3, "it is being asked");
}

/// When a standby reads the journal, from ten past one on, while the journal shows this slot as the last.
fn looks(last_slot: &str, roles: usize, minutes: u64) -> Vec<u64> {
    let mut stage = Stage::new(|_| {});
    stage.duty.roles = roles;
    stage.on(RoleEvent::Tick);
    stage.probes(ProbeAnswer::No);
    let look = |stage: &mut Stage| {
        let history = ElectionHistory { commits: commits(last_slot), ..history(Some(holding(OTHER, 6))) };
        let journal =
            JournalUpdate { history: Some(history), term: None, failed: false, heartbeat: None, clock_offset: None };
        stage.on(RoleEvent::JournalUpdated(journal));
    };
    look(&mut stage);
    let (start, mut looks) = (stage.now.boot, Vec::new());
    while stage.now.boot < start + Duration::from_mins(minutes) {
        let wake = stage.duty.next_wake(stage.now);
        let effects = stage.pass(wake.saturating_sub(stage.now.boot));
        if effects.contains(&RoleEffect::ReadJournal) {
            looks.push(stage.now.boot.saturating_sub(start).as_secs());
            look(&mut stage);
        }
        if effects.contains(&RoleEffect::Probe) {
            stage.probes(ProbeAnswer::No);
        }
    }
    looks
}

#[test]
fn a_standby_looks_seldom_until_a_slot_is_due_and_then_often() {
    assert_eq!(looks(ONE, 1, 4), [60, 120, 180, 240], "nothing is due");
    assert_eq!(looks("2026-11-21T00:00:00Z", 1, 1), [10, 20, 30, 40, 50, 60], "the slot of one is not committed");
    let around_two: Vec<u64> = looks(ONE, 50, 51).into_iter().filter(|at| *at > 2_800).collect();
    assert_eq!(around_two[..4], [2_875, 3_000, 3_010, 3_020], "at two a slot is due, however many roles there are");
}

#[test]
fn a_hint_has_the_journal_read_at_once_and_once() {
    let mut stage = Stage::new(|_| {});
    stage.begin(None);
    stage.on(committed(ONE));
    assert_eq!(stage.on(RoleEvent::JournalHint), [RoleEffect::ReadJournal]);
    assert_eq!(stage.on(RoleEvent::JournalHint), [], "it is being read");
    let again = stage.on(committed(ONE));
    assert_eq!(again, [RoleEffect::ReadJournal], "what was appended since it began may not have been seen");
    assert_eq!(stage.on(committed(ONE)), []);
}
