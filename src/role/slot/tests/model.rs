//! Slots and their statuses, against a model without arithmetic: it walks the clock minute by minute and reads the wall
//! clock.

use super::*;

/// A cron line and its meaning.
#[derive(Debug, Clone)]
struct Line {
    text: String,
    minutes: Vec<i8>,
    hours: Vec<i8>,
    day: Day,
}

#[derive(Debug, Clone, Copy)]
enum Day {
    Every,
    Sundays,
    /// The 28th or later.
    Late,
    First,
}

impl Line {
    fn matches(&self, civil: DateTime) -> bool {
        let day = match self.day {
            Day::Every => true,
            Day::Sundays => civil.weekday() == jiff::civil::Weekday::Sunday,
            Day::Late => civil.day() >= 28,
            Day::First => civil.day() == 1,
        };
        day && self.hours.contains(&civil.hour()) && self.minutes.contains(&civil.minute())
    }
}

fn lines() -> impl Strategy<Value = Line> {
    let minutes = prop_oneof![
        (0..60i8).prop_map(|m| (m.to_string(), vec![m])),
        Just(("*/15".to_owned(), vec![0, 15, 30, 45])),
        Just(("*/40".to_owned(), vec![0, 40])),
        Just(("20,35,50".to_owned(), vec![20, 35, 50])),
        Just(("*/5".to_owned(), (0..12).map(|n| 5 * n).collect())),
    ];
    let hours = prop_oneof![
        3 => (0..4i8).prop_map(|h| (h.to_string(), vec![h])),
        1 => Just(("*".to_owned(), (0..24).collect())),
        1 => Just(("1-3".to_owned(), vec![1, 2, 3])),
        1 => Just(("22,23,0".to_owned(), vec![22, 23, 0])),
    ];
    let days = [("* * *", Day::Every), ("* * SUN", Day::Sundays), ("28-31 * *", Day::Late), ("1 * *", Day::First)];
    let days = prop_oneof![3 => Just(days[0]), 1 => prop::sample::select(days.to_vec())];
    (minutes, hours, days).prop_map(|((m, minutes), (h, hours), (d, day))| {
        let text = format!("{m} {h} {d}");
        Line { text, minutes, hours, day }
    })
}

/// How far the model walks, before and after the moment in question.
const WALK: SignedDuration = SignedDuration::from_hours(96);

/// The matching minutes of the clock, by what the wall clock shows. A wall time that comes again does not match; one
/// that never comes fires as much later as it would have come.
fn by_the_wall(line: &Line, zone: &TimeZone, now: Timestamp) -> BTreeSet<Timestamp> {
    let minute = SignedDuration::from_mins(1);
    let mut slots = BTreeSet::new();
    // The walk begins a day earlier: what is repeated there was shown before.
    let from = now - WALK - SignedDuration::from_hours(24);
    let mut at = Timestamp::from_second(from.as_second().div_euclid(60) * 60).unwrap();
    let mut expected = zone.to_datetime(at);
    while at < now + WALK {
        let wall = zone.to_datetime(at);
        let mut late = at;
        // What the wall clock would show if it had not jumped.
        let mut missing = expected;
        while missing < wall {
            if line.matches(missing) {
                slots.insert(late);
            }
            missing += minute;
            late += minute;
        }
        if wall >= expected {
            if line.matches(wall) {
                slots.insert(at);
            }
            expected = wall + minute;
        }
        at += minute;
    }
    slots.split_off(&(now - WALK))
}

/// Every second of the clock that is a multiple of `every`.
fn by_the_second(every: i64, now: Timestamp) -> BTreeSet<Timestamp> {
    let seconds = (now - WALK).as_second()..(now + WALK).as_second();
    seconds.filter(|second| second % every == 0).map(|second| Timestamp::from_second(second).unwrap()).collect()
}

/// A question to the schedule.
#[derive(Debug, Clone)]
struct Question {
    jitter: i64,
    missed_after: i64,
    /// Minutes from the newest commit to now, and whether it was for the slot before then.
    committed: Option<(i64, bool)>,
    /// Minutes from now to a commit that a wrong clock wrote.
    poison: Option<i64>,
    /// Minutes from the making of the role to now.
    created: Option<i64>,
    /// The slot that a run is working on, counted from the newest backwards.
    running: Option<usize>,
    /// For a question around a turning point: which slot near this moment, whether its instant, start or limit, and how
    /// many nanoseconds later.
    turn: Option<(usize, u8, i64)>,
}

prop_compose! {
    fn question()(
        jitter in prop_oneof![Just(0), 0..4000i64], missed_after in 0..9000i64,
        committed in prop::option::weighted(0.8, (-2000..2400i64, any::<bool>())), running in prop::option::of(0..3usize),
        poison in prop::option::of(2500..2_000_000i64), created in prop::option::of(-2000..2400i64),
        turn in prop::option::weighted(0.7, (0..4usize, 0..3u8, -1..2i64)),
    ) -> Question {
        Question { jitter, missed_after, committed, poison, created, running, turn }
    }
}

/// Checks all answers of a schedule against the set of its slots around `near`.
fn assert_answers(plan: &mut SlotSchedule, slots: &BTreeSet<Timestamp>, near: Timestamp, question: &Question) {
    let seconds = SignedDuration::from_secs;
    (plan.offset, plan.missed_after) = (seconds(question.jitter), seconds(question.missed_after));
    let starts = |at: Timestamp| at + seconds(question.jitter);
    let all: Vec<Timestamp> = slots.iter().copied().collect();
    let turn = question.turn.and_then(|(which, of, nanos)| {
        let at = all.get((all.partition_point(|at| *at <= near) + which).checked_sub(2)?)?;
        let later = [0, question.jitter, question.jitter + question.missed_after][usize::from(of)];
        let turn = *at + seconds(later) + SignedDuration::from_nanos(nanos);
        (turn.duration_since(near).abs() < WALK / 2).then_some(turn)
    });
    let now = turn.unwrap_or(near);
    let started = all.partition_point(|at| starts(*at) <= now);
    let due = started.checked_sub(1).map(|n| all[n]);
    let next = all.get(started).copied();
    let is = |slot: Option<Slot>, expected: Option<Timestamp>| match expected {
        Some(at) => assert_eq!(slot, Some(Slot { at, starts: starts(at) })),
        // The slot is farther away than the model walks.
        None => assert!(slot.is_none_or(|slot| slot.at < near - WALK || slot.at >= near + WALK), "{slot:?}"),
    };
    is(plan.due(now), due);
    is(plan.next(now), next);

    // Each slot leads to its neighbours: none twice, none left out.
    for pair in all.windows(2).take(started + 8).skip(started.saturating_sub(8)) {
        let [a, b] = [pair[0], pair[1]].map(|at| Slot { at, starts: starts(at) });
        assert_eq!((plan.following(a), plan.preceding(b)), (Some(b), Some(a)));
    }

    let horizon = now + SignedDuration::from_mins(5);
    let committed = question.committed.map(|(minutes, of_a_slot)| {
        let at = now - SignedDuration::from_mins(minutes);
        let slot = slots.range(..=at).next_back().copied();
        if of_a_slot { slot.unwrap_or(at) } else { at }
    });
    let poison = question.poison.map(|minutes| now + SignedDuration::from_mins(minutes));
    let made = question.created.map(|minutes| now - SignedDuration::from_mins(minutes));
    let commits = SlotCommits::new(committed.into_iter().chain(poison), made);
    let newest = committed.filter(|at| starts(*at) <= now);
    let created = made.filter(|at| *at <= horizon);
    // The date of origin is wrong: the slot before the due one is the first that is owed.
    let lost = made.is_some() && created.is_none() && newest.is_none();
    let over = started.checked_sub(2).map(|n| all[n]);
    if lost && over.is_none() {
        // The slot is farther away than the model walks.
        return;
    }
    let is_closed = |at: Timestamp| committed == Some(at) || newest.is_some_and(|newest| newest >= at);
    let is_owed = |at: &Timestamp| {
        newest.is_none_or(|newest| *at > newest)
            && created.is_none_or(|made| starts(*at) > made)
            && (!lost || over.is_none_or(|over| *at >= over))
    };
    let is_known = newest.is_some() || created.is_some() || lost;
    let open = all.iter().copied().filter(|at| is_known && is_owed(at));
    let running = question.running.and_then(|back| started.checked_sub(1 + back)).map(|n| all[n]);
    let is_missed = |at: &Timestamp| {
        let next = slots.range(*at + SignedDuration::from_nanos(1)..).next().copied().map(starts);
        let over = next.is_some_and(|next| next <= now);
        over || running != Some(*at) && starts(*at) + seconds(question.missed_after) < now
    };
    let waiting = open.clone().next().filter(|at| starts(*at) <= now);
    let missed: Vec<Timestamp> =
        open.clone().filter(|at| starts(*at) <= now && !is_closed(*at)).filter(is_missed).collect();
    let instant = |slot: Option<Slot>| slot.map(|slot| slot.at);
    if is_known {
        assert_eq!(instant(plan.first_waiting(&commits, now)), waiting);
    } else {
        is(plan.first_waiting(&commits, now), due);
    }
    if newest.is_some() || due.is_some_and(is_closed) {
        assert_eq!(instant(plan.pending(&commits, now)), due.filter(|due| !is_closed(*due)));
    } else {
        is(plan.pending(&commits, now), due);
    }
    let told = plan.missed(&commits, running.as_slice(), now);
    let shown: Vec<Timestamp> = told.slots.iter().map(|slot| slot.at).collect();
    assert_eq!(shown, missed[..missed.len().min(MISSED_MAX)]);
    assert_eq!(told.more, missed.len() > MISSED_MAX);
    for (n, at) in all.iter().copied().enumerate().take(started + 2).skip(started.saturating_sub(4)) {
        let (slot, works) = (Slot { at, starts: starts(at) }, running == Some(at));
        let end = all.get(n + 1).copied().map_or(Timestamp::MAX, starts);
        let limit = if works { end } else { end.min(starts(at) + seconds(question.missed_after)) };
        let standing = plan.slot_status(slot, &commits, works, now);
        match standing {
            SlotStatus::Committed => assert!(is_closed(at)),
            SlotStatus::NotFinished => assert!(works && is_missed(&at)),
            SlotStatus::NotStarted => assert!(!works && is_missed(&at)),
            // The end of the last slot is farther away than the model walks.
            SlotStatus::Open { until } => assert!(!is_missed(&at) && (until == limit || end == Timestamp::MAX)),
        }
        assert_eq!(standing == SlotStatus::Committed, is_closed(at));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_cron_line_agrees_with_a_search_of_every_wall_clock_minute(
        line in lines(), zone in prop::sample::select(ZONES.to_vec()), year in 0..20i64, which in 0..3usize, seconds in -90_000..90_000i64,
        question in question(),
    ) {
        let mut plan = cron(&line.text, zone);
        let now = moment(&plan.zone, year, which, 0) + SignedDuration::from_secs(seconds);
        let slots = by_the_wall(&line, &plan.zone, now);
        assert_answers(&mut plan, &slots, now, &question);
    }

    #[test]
    fn every_agrees_with_counting_seconds(
        every in prop_oneof![1 => 20..300i64, 3 => 300..20_000i64, 1 => Just(86_400)], zone in prop::sample::select(ZONES.to_vec()),
        second in prop_oneof![-2_000_000_000..4_000_000_000i64, -9..9i64], nano in 0..1_000_000_000i64, question in question(),
    ) {
        let mut plan = plan_of(ScheduleRule::Every(every), zone);
        let now = Timestamp::from_second(second).unwrap() + SignedDuration::from_nanos(nano);
        let slots = by_the_second(every, now);
        assert_answers(&mut plan, &slots, now, &question);
    }
}
