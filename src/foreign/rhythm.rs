//! Pure. The rhythm of a series, and the slots that it missed.
//!
//! The rhythm is the median distance of the newest slots. What is older than the last change to wider distances was thinned by
//! retention, and is not judged. Weekdays and hours at which there never is a backup are no gaps.

use super::civil_time::{DAY, HOUR, civil, day_number, weekday_of};
use super::report::SeriesRhythm;

/// How many distances from the newest on make the rhythm.
const RECENT: usize = 7;

/// So many distances older than a hole say whether it is one.
const BEHIND_A_HOLE: usize = 7;

/// How many slots a rhythm needs.
const SLOTS_MIN: usize = 4;

/// More missed slots than this share of the expected ones are no rhythm.
const MISSED_SHARE_MAX: f64 = 0.5;

/// A rhythm, and what it says about the slots.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SlotRhythm {
    pub(super) rhythm: SeriesRhythm,
    /// The usual distance, in seconds.
    pub(super) interval: i64,
    /// Slots without a backup between the first judged slot and the last one.
    pub(super) missed: Vec<i64>,
    /// The first slot that was judged: older ones were thinned.
    pub(super) judged_from: i64,
    /// Whether the rhythm was told by few slots.
    pub(super) is_short: bool,
    /// For each weekday whether there is a slot on it.
    weekdays: [bool; 7],
    /// Whether the slots are days.
    is_by_day: bool,
    /// What is subtracted from a time so that a night's slots fall on one day.
    day_offset: i64,
}

impl SlotRhythm {
    /// Slots that were due between the last backup and `until`, oldest first. The one that is just due is not counted.
    pub(super) fn due_after(&self, last: i64, until: i64, limit: usize) -> Vec<i64> {
        let mut due = Vec::new();
        let is_monthly = is_month_like(self.interval);
        let mut steps = 1;
        let mut at = if is_monthly { months_later(last, 1) } else { last + self.interval };
        while at + self.interval / 2 <= until && due.len() < limit {
            let day = day_number(at - self.day_offset);
            if self.interval >= 6 * DAY || self.weekdays[weekday_of(day) as usize] {
                due.push(at);
            }
            steps += 1;
            at = if is_monthly { months_later(last, steps) } else { at + self.interval };
        }
        due
    }

    /// The slot's time as a reader knows it: its day, or its time.
    pub(super) fn shown(&self, at: i64) -> i64 {
        if self.is_by_day { (at - self.day_offset).div_euclid(DAY) * DAY } else { at }
    }

    /// Whether all that was missed is one or more whole weeks of a series that has none at weekends: holidays look like that.
    pub(super) fn may_be_holidays(&self) -> bool {
        let expected = self.weekdays.iter().filter(|expected| **expected).count();
        let days: Vec<i64> = self.missed.iter().map(|at| day_number(at - self.day_offset)).collect();
        let (Some(first), Some(last)) = (days.first(), days.last()) else { return false };
        let is_one_stretch =
            (*first..=*last).all(|day| days.binary_search(&day).is_ok() || !self.weekdays[weekday_of(day) as usize]);
        self.is_by_day && expected == 5 && days.len() >= expected && is_one_stretch
    }
}

fn median(values: &mut [i64]) -> i64 {
    values.sort_unstable();
    values[values.len() / 2]
}

/// The median distance of slots, from the newest on.
pub(super) fn usual_gap(slots: &[i64]) -> Option<i64> {
    let gaps: Vec<i64> = slots.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > 0).collect();
    let recent = gaps.len().saturating_sub(RECENT);
    (!gaps.is_empty()).then(|| median(&mut gaps[recent..].to_vec()))
}

/// The rhythm of slots, which are sorted and distinct. `names_day_only`: they are days, not times.
/// `are_written`: they are times of writing, as the keys have none; then other files look like backups as well, and a rhythm
/// must show in the time of day too.
pub(super) fn find_rhythm(slots: &[i64], names_day_only: bool, are_written: bool) -> Option<SlotRhythm> {
    if slots.len() < SLOTS_MIN {
        return None;
    }
    let interval = usual_gap(slots)?;
    let start = thinned_until(slots, interval);
    let slots = &slots[start..];
    if slots.len() < SLOTS_MIN {
        return None;
    }
    let day_offset = if names_day_only { 0 } else { night_offset(slots) };
    if are_written && !is_scheduled(slots, interval) {
        return None;
    }
    if (20 * HOUR..13 * DAY / 2).contains(&interval) {
        by_weekday(slots, day_offset).or_else(|| by_distance(slots, interval, day_offset))
    } else {
        by_distance(slots, interval, day_offset)
    }
}

/// Whether times of writing come from a schedule: at one time of day, or at a fixed distance.
fn is_scheduled(slots: &[i64], interval: i64) -> bool {
    let gaps = slots.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / interval as f64);
    let (count, even) = gaps
        .fold((0, 0), |(count, even), gap| (count + 1, even + usize::from((gap - gap.round().max(1.0)).abs() <= 0.2)));
    if interval < 20 * HOUR {
        return even * 10 >= count * 8 && slots.len() >= 8;
    }
    let mut times: Vec<i64> = slots.iter().map(|at| at.rem_euclid(DAY)).collect();
    times.sort_unstable();
    let wanted = slots.len() * 3 / 4 + 1;
    // Few times may be near each other by chance.
    let window = if slots.len() < 10 { HOUR } else { 3 * HOUR };
    let narrow = (0..times.len()).any(|first| {
        let last = (first + wanted - 1) % times.len();
        (times[last] - times[first]).rem_euclid(DAY) <= window && wanted <= times.len()
    });
    narrow && even * 10 >= count * 8
}

/// The index of the first slot that was not thinned. Behind a hole there are usual distances again; behind the step of a
/// retention there are only wide ones.
fn thinned_until(slots: &[i64], interval: i64) -> usize {
    let is_usual: Vec<bool> = slots.windows(2).map(|pair| (pair[1] - pair[0]) * 2 < interval * 3).collect();
    for index in (0..is_usual.len()).rev().filter(|index| !is_usual[*index]) {
        let older = &is_usual[index.saturating_sub(BEHIND_A_HOLE)..index];
        let usual = older.iter().filter(|usual| **usual).count();
        if usual * 2 < older.len() || usual == 0 {
            return index + 1;
        }
    }
    0
}

/// What to subtract from times so that backups of one night fall on one day: the boundary is put half a day from their usual
/// time of day.
fn night_offset(slots: &[i64]) -> i64 {
    let mut hours = [0_usize; 24];
    for slot in slots {
        hours[slot.rem_euclid(DAY).div_euclid(HOUR) as usize] += 1;
    }
    let around = |hour: usize| (0..9).map(|step| hours[(hour + 20 + step) % 24]).sum::<usize>();
    let busiest = (0..24).max_by_key(|hour| (around(*hour), hours[*hour])).unwrap_or(0) as i64;
    // The boundary stands at `busiest + 12 h`; the day is the one on which the busiest hour falls.
    match busiest {
        0..=11 => (busiest + 12) * HOUR - DAY,
        _ => (busiest - 12) * HOUR,
    }
}

/// Backups on certain weekdays: daily, on workdays, on Tuesdays and Fridays.
fn by_weekday(slots: &[i64], day_offset: i64) -> Option<SlotRhythm> {
    let day_of = |at: i64| day_number(at - day_offset);
    let mut days: Vec<i64> = slots.iter().map(|at| day_of(*at)).collect();
    days.dedup();
    let (first, last) = (*days.first()?, *days.last()?);
    let present = |day: i64| days.binary_search(&day).is_ok();
    let mut weekdays = [false; 7];
    let mut expected_from = [first; 7];
    for weekday in 0..7 {
        let all: Vec<i64> = (first..=last).filter(|day| weekday_of(*day) == weekday).collect();
        let had: Vec<i64> = all.iter().copied().filter(|day| present(*day)).collect();
        let at = weekday as usize;
        let Some(first_had) = had.first() else {
            // One weekend without a backup says nothing; another day that is missing once is a gap.
            weekdays[at] = all.len() < 2 && weekday < 5;
            continue;
        };
        expected_from[at] = *first_had;
        let since = all.iter().filter(|day| *day >= first_had).count();
        weekdays[at] = since < 3 || had.len() * 3 > since;
        let quiet = all.iter().rev().take_while(|day| !present(**day)).count();
        if quiet >= 3 && quiet * 2 > since {
            weekdays[at] = false;
        }
    }
    let expected = |day: &i64| {
        let weekday = weekday_of(*day) as usize;
        weekdays[weekday] && *day >= expected_from[weekday]
    };
    let due: Vec<i64> = (first..=last).filter(expected).collect();
    let missed: Vec<i64> = due.iter().copied().filter(|day| !present(*day)).collect();
    let unexpected = days.iter().filter(|day| !weekdays[weekday_of(**day) as usize]).count();
    let irregular = missed.len() as f64 > due.len() as f64 * MISSED_SHARE_MAX * 0.6;
    if due.len() < SLOTS_MIN || irregular || unexpected * 4 > days.len() {
        return None;
    }
    // Every second day looks like half of each weekday.
    let each_half = (0..7).all(|weekday| {
        let all = (first..=last).filter(|day| weekday_of(*day) == weekday);
        let (count, had) = all.fold((0, 0), |(count, had), day| (count + 1, had + usize::from(present(day))));
        count < 2 || (had * 4 >= count && had * 4 <= count * 3)
    });
    if each_half {
        return None;
    }
    let count = weekdays.iter().filter(|expected| **expected).count() as i64;
    let middle = median_time_of_day(slots, day_offset);
    Some(SlotRhythm {
        rhythm: if count == 7 { SeriesRhythm::Days(1) } else { SeriesRhythm::Seconds(7 * DAY / count.max(1)) },
        interval: DAY,
        missed: missed.into_iter().map(|day| day * DAY + day_offset + middle).collect(),
        judged_from: slots[0],
        is_short: days.len() < 8,
        weekdays,
        is_by_day: true,
        day_offset,
    })
}

fn median_time_of_day(slots: &[i64], day_offset: i64) -> i64 {
    let mut times: Vec<i64> = slots.iter().map(|at| (at - day_offset).rem_euclid(DAY)).collect();
    median(&mut times)
}

/// Backups at a fixed distance.
fn by_distance(slots: &[i64], interval: i64, day_offset: i64) -> Option<SlotRhythm> {
    let gaps: Vec<i64> = slots.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let steps = |gap: i64| (gap as f64 / interval as f64).round().max(1.0);
    let tolerance = if interval >= 25 * DAY { 0.2 } else { 0.3 };
    let single = gaps.iter().filter(|gap| (**gap as f64 / interval as f64 - 1.0).abs() <= tolerance).count();
    let fitting = gaps
        .iter()
        .filter(|gap| (**gap as f64 / interval as f64 - steps(**gap)).abs() <= tolerance * steps(**gap).sqrt())
        .count();
    if single * 2 <= gaps.len() || fitting * 10 < gaps.len() * 8 {
        return None;
    }
    let weekdays = busy_weekdays(slots, day_offset);
    let hours = busy_hours(slots);
    let mut missed = Vec::new();
    for pair in slots.windows(2) {
        let count = steps(pair[1] - pair[0]) as i64;
        if count > 10_000 {
            return None;
        }
        for step in 1..count {
            let at = if is_month_like(interval) {
                months_later(pair[0], step)
            } else {
                pair[0] + (pair[1] - pair[0]) * step / count
            };
            let is_busy = interval >= 13 * DAY / 2
                || (weekdays[weekday_of(day_number(at - day_offset)) as usize]
                    && (interval > 6 * HOUR || hours[at.rem_euclid(DAY).div_euclid(HOUR) as usize]));
            if is_busy && !(interval <= HOUR && is_skipped_hour(at)) {
                missed.push(at);
            }
        }
    }
    if missed.len() as f64 > (slots.len() + missed.len()) as f64 * MISSED_SHARE_MAX {
        return None;
    }
    let days = interval as f64 / DAY as f64;
    let months = days / 30.44;
    let rhythm = if months >= 0.85 {
        SeriesRhythm::Months(months.round() as u16)
    } else if days >= 0.85 {
        SeriesRhythm::Days(days.round() as u16)
    } else {
        SeriesRhythm::Seconds(interval)
    };
    Some(SlotRhythm {
        rhythm,
        interval,
        missed,
        judged_from: slots[0],
        is_short: slots.len() < 6,
        weekdays,
        is_by_day: days >= 0.85,
        day_offset,
    })
}

/// Whether a local time may be one that the change to summer time leaves out: between 1 and 4 o'clock on a Sunday in March.
fn is_skipped_hour(at: i64) -> bool {
    let time = civil(at);
    time.month() == 3 && weekday_of(day_number(at)) == 6 && (1..=3).contains(&time.hour())
}

/// Weekdays on which there are backups; all of them if there are less than two weeks.
fn busy_weekdays(slots: &[i64], day_offset: i64) -> [bool; 7] {
    let mut busy = [false; 7];
    let mut days: Vec<i64> = slots.iter().map(|at| day_number(at - day_offset)).collect();
    days.dedup();
    for day in &days {
        busy[weekday_of(*day) as usize] = true;
    }
    let span = days.last().unwrap_or(&0) - days.first().unwrap_or(&0);
    if span < 13 { [true; 7] } else { busy }
}

/// Hours at which there are backups; all of them if there are less than three days.
fn busy_hours(slots: &[i64]) -> [bool; 24] {
    let mut counts = [0_usize; 24];
    for at in slots {
        counts[at.rem_euclid(DAY).div_euclid(HOUR) as usize] += 1;
    }
    let days = (slots[slots.len() - 1] - slots[0]) / DAY;
    if days < 3 {
        return [true; 24];
    }
    counts.map(|count| count as i64 * 3 >= days)
}

/// Whether a distance is about a month.
fn is_month_like(interval: i64) -> bool {
    (27 * DAY..34 * DAY).contains(&interval)
}

/// The same day some months later; the last day of a month stays the last one.
fn months_later(at: i64, months: i64) -> i64 {
    let start = civil(at);
    let date = start.date();
    let later = date.saturating_add(jiff::Span::new().months(months));
    let later = if date == date.last_of_month() { later.last_of_month() } else { later };
    super::civil_time::seconds(later.to_datetime(start.time()))
}
