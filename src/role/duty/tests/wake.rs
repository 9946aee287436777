//! When it is to be woken.

use super::*;

/// Sleeps until it is woken, again and again; probes take two seconds, a look into the journal three. What it did, and when.
fn timetable(stage: &mut Stage, time: Duration) -> Vec<(u128, Effect)> {
    let (start, end) = (stage.now.boot, stage.now.boot + time);
    let (mut probed, mut read_at): (Option<Duration>, Option<Duration>) = (None, None);
    let mut told = Vec::new();
    loop {
        let wakes = [Some(stage.duty.wake(stage.now)), probed, read_at];
        let next = wakes.into_iter().flatten().min().unwrap();
        assert!(next > stage.now.boot, "it wakes in the past");
        if next > end {
            return told;
        }
        // A moment before there is nothing to do, unless somebody comes with news.
        let early = next.saturating_sub(stage.now.boot).saturating_sub(Duration::from_millis(1));
        assert_eq!(stage.pass(early), [], "{:?} late", stage.now.boot);
        let mut effects = stage.pass(Duration::from_millis(1));
        if probed.is_some_and(|at| at <= stage.now.boot) {
            probed = None;
            effects.extend(stage.probes(Answer::Yes));
        }
        if read_at.is_some_and(|at| at <= stage.now.boot) {
            read_at = None;
            effects.extend(stage.on(committed(ONE)));
        }
        for effect in effects {
            match effect {
                Effect::Probe => probed = Some(stage.now.boot + Duration::from_secs(2)),
                Effect::Read => read_at = Some(stage.now.boot + Duration::from_secs(3)),
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
    let told = timetable(&mut stage, Duration::from_secs(25));
    let (probe, read) = (Effect::Probe, Effect::Read);
    assert_eq!(told, [(4_300, probe), (9_300, read), (11_300, probe), (18_300, probe), (22_300, read)]);
}

#[test]
fn a_lease_service_that_is_silent_is_asked_again_in_time() {
    let mut stage = Stage::new(|_| {});
    stage.apply(Some(holding(ME, 7)));
    stage.on(Event::Lease(LeaseAnswer::Unreachable));
    assert_eq!(stage.duty.wake(stage.now), stage.now.boot + ASK / 4);
    assert!(stage.pass(ASK / 4).contains(&Effect::AskLease));
    assert_eq!(stage.duty.wake(stage.now), stage.now.boot + ASK / 4 * 3, "it is being asked");
}
