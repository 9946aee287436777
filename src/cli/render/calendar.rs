//! `--calendar`: the days of the last year in a terminal, a column a week and a row a weekday. Marks, not colours, tell
//! the days apart. Pure.

use std::collections::BTreeMap;

use jiff::ToSpan as _;
use jiff::civil::{Date, Weekday};

use super::layout::PageLayout;

/// What a day of a calendar shows. The worst of several slots of a day is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CalendarMark {
    /// A backup.
    One,
    /// Several backups for one slot.
    Several,
    /// No backup although one was expected.
    Missed,
}

impl CalendarMark {
    fn sign(self) -> char {
        match self {
            Self::One => '█',
            Self::Several => '2',
            Self::Missed => '×',
        }
    }
}

/// The sign of a day on which none was expected.
const NONE_EXPECTED: char = '·';

/// What the signs mean.
const LEGEND: &str = "█ one, 2 several, × missed, · none expected";

/// The most weeks: a year and the week that has begun.
const WEEKS_MAX: usize = 53;

/// The columns of a weekday's name, with the indent before and the blank behind it.
const LABEL_COLUMNS: usize = 6;

/// The rows, with the names of some.
const WEEKDAYS: [(Weekday, &str); 7] = [
    (Weekday::Monday, "Mon"),
    (Weekday::Tuesday, ""),
    (Weekday::Wednesday, "Wed"),
    (Weekday::Thursday, ""),
    (Weekday::Friday, "Fri"),
    (Weekday::Saturday, ""),
    (Weekday::Sunday, "Sun"),
];

/// The calendar of these slots, with as many of the last weeks as fit, ending with the week of `until`.
pub fn calendar(slots: impl IntoIterator<Item = (Date, CalendarMark)>, until: Date, page: PageLayout) -> String {
    let mut days: BTreeMap<Date, CalendarMark> = BTreeMap::new();
    for (day, mark) in slots {
        let shown = days.entry(day).or_insert(mark);
        *shown = (*shown).max(mark);
    }
    let room = page.columns().saturating_sub(LABEL_COLUMNS).clamp(1, WEEKS_MAX);
    let Ok(last_monday) = until.checked_sub(i64::from(until.weekday().to_monday_zero_offset()).days()) else {
        return String::new();
    };
    let monday = |week: usize| last_monday.checked_sub(((room - 1 - week) as i64 * 7).days()).ok();
    let mondays: Vec<Date> = (0..room).filter_map(monday).collect();
    let mut out = format!("  {}\n", months(&mondays));
    for (offset, (_, name)) in (0..).zip(WEEKDAYS) {
        let mut line = format!("  {name:<4}");
        for monday in &mondays {
            let day = monday.checked_add(i64::from(offset).days()).ok().filter(|day| *day <= until);
            let shown = day.map(|day| days.get(&day).map_or(NONE_EXPECTED, |mark| mark.sign()));
            line.push(shown.unwrap_or(' '));
        }
        out += line.trim_end();
        out.push('\n');
    }
    out + &page.wrap("  ", 2, LEGEND)
}

/// The months above the weeks in which they begin. One whose name the next would meet has none.
fn months(mondays: &[Date]) -> String {
    let begins = |week: &usize| *week == 0 || mondays[week - 1].month() != mondays[*week].month();
    let weeks: Vec<usize> = (0..mondays.len()).filter(begins).collect();
    let mut line = String::new();
    for (at, week) in weeks.iter().enumerate() {
        let end = weeks.get(at + 1).map_or(mondays.len() + 1, |next| *next);
        if end - week >= MONTH_COLUMNS {
            let column = LABEL_COLUMNS - 2 + week;
            line += &" ".repeat(column.saturating_sub(line.len()));
            line += &mondays[*week].strftime("%b").to_string();
        }
    }
    line
}

/// The columns of a month's name and the blank behind it.
const MONTH_COLUMNS: usize = 4;

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn year() -> Vec<(Date, CalendarMark)> {
        let days = (0..400).map(|back| date(2026, 11, 28).checked_sub(back.days()).unwrap());
        days.filter(|day| day.weekday() != Weekday::Sunday)
            .map(|day| match (day.month(), day.day()) {
                (10, 9..=11) => (day, CalendarMark::Missed),
                (11, 10..) => (day, CalendarMark::Several),
                _ => (day, CalendarMark::One),
            })
            .collect()
    }

    #[test]
    fn a_year_fits_and_a_narrow_page_shows_less_of_it() {
        for columns in [80, 40, 20] {
            let shown = calendar(year(), date(2026, 11, 28), PageLayout::terminal(columns));
            assert!(shown.lines().all(|line| line.chars().count() <= columns), "{shown}");
        }
        insta::assert_snapshot!(calendar(year(), date(2026, 11, 28), PageLayout::FILE));
        insta::assert_snapshot!(calendar(year(), date(2026, 11, 28), PageLayout::terminal(40)));
    }

    #[test]
    fn the_worst_of_a_day_is_shown() {
        let day = date(2026, 11, 28);
        let marks = [(day, CalendarMark::One), (day, CalendarMark::Missed), (day, CalendarMark::Several)];
        assert!(calendar(marks, day, PageLayout::FILE).contains("·×\n"));
        assert!(!calendar([], Date::MIN, PageLayout::FILE).is_empty());
    }
}
