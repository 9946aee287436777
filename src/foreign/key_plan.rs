//! Pure. What each number in the keys of one shape means.
//!
//! All keys of a shape are looked at together: a number is a month only if it is between 1 and 12 in each of them. Where
//! several readings are possible, the times of writing decide, if they are times of backups and not of one big copy.

use std::collections::HashSet;
use std::hash::BuildHasher;

use super::calendar_word;
use super::civil_time::{DAY, civil, day_number, weekday_of};
use super::column_stats::{ColumnStats, DISTINCT_MAX, valid_ymd};
use super::key_token::{KeyToken, TokenKind};
use super::time_part::{KeyPlan, TimePart, TimeParts, TimePrecision, TokenRole, key_time};

/// One key of a shape, with when it was written.
#[derive(Debug, Clone, Copy)]
pub(super) struct ShapeMember<'k> {
    pub(super) key: &'k str,
    pub(super) modified: i64,
}

/// How many members are compared with their times of writing.
const SAMPLE: usize = 256;

/// Makes the plan of one shape.
pub(super) fn plan_shape(members: &[ShapeMember<'_>], hasher: &impl BuildHasher) -> KeyPlan {
    let mut tokens = Vec::new();
    let mut columns: Vec<Option<ColumnStats>> = Vec::new();
    let mut count = 0;
    for member in members {
        super::key_token::tokenize(member.key, &mut tokens);
        if columns.is_empty() {
            columns = tokens.iter().map(|token| is_variable(token.kind).then(ColumnStats::new)).collect();
        }
        count += 1;
        for (token, column) in tokens.iter().zip(&mut columns) {
            let Some(column) = column else { continue };
            match token.kind {
                TokenKind::Number => column.add_number(token.text(member.key)),
                _ => column.add_text(token.text(member.key), hasher),
            }
        }
    }
    let step = members.len().div_ceil(SAMPLE).max(1);
    let sample: Vec<SampledKey<'_>> = members
        .iter()
        .step_by(step)
        .map(|member| {
            super::key_token::tokenize(member.key, &mut tokens);
            SampledKey { key: member.key, tokens: tokens.clone(), modified: member.modified }
        })
        .collect();
    let Some(first) = sample.first() else { return KeyPlan { roles: Vec::new(), main_time: None } };
    let days: HashSet<i64> = sample.iter().map(|key| day_number(key.modified)).collect();
    let trusts_modified = sample.len() < 3 || days.len() >= 3.min(sample.len());
    let roles = vec![TokenRole::Name; first.tokens.len()];
    let mut planner =
        Planner { columns, count, sample: &sample, trusts_modified, roles, groups: 0, calendar: Vec::new() };
    planner.find_dates();
    planner.complete_dates();
    planner.find_lone_parts();
    planner.name_the_rest();
    planner.finish()
}

fn is_variable(kind: TokenKind) -> bool {
    matches!(kind, TokenKind::Number | TokenKind::Random | TokenKind::CalendarWord)
}

struct SampledKey<'k> {
    key: &'k str,
    tokens: Vec<KeyToken>,
    modified: i64,
}

impl SampledKey<'_> {
    fn text(&self, index: usize) -> &str {
        self.tokens[index].text(self.key)
    }

    fn number(&self, index: usize) -> i64 {
        self.text(index).parse().unwrap_or(-1)
    }
}

struct Planner<'s, 'k> {
    columns: Vec<Option<ColumnStats>>,
    count: usize,
    sample: &'s [SampledKey<'k>],
    trusts_modified: bool,
    roles: Vec<TokenRole>,
    groups: u8,
    /// For each group whether it names a day.
    calendar: Vec<bool>,
}

/// Tokens and the parts that they are.
type Reading = Vec<(usize, TimePart)>;

impl Planner<'_, '_> {
    fn len(&self) -> usize {
        self.roles.len()
    }

    fn kind(&self, index: usize) -> Option<TokenKind> {
        self.sample[0].tokens.get(index).map(|token| token.kind)
    }

    fn text(&self, index: usize) -> &str {
        if index < self.len() { self.sample[0].text(index) } else { "" }
    }

    fn number(&self, index: usize) -> Option<&ColumnStats> {
        if self.kind(index) != Some(TokenKind::Number) || self.roles[index] != TokenRole::Name {
            return None;
        }
        self.columns[index].as_ref()
    }

    fn word(&self, index: usize) -> Option<&ColumnStats> {
        if self.kind(index) != Some(TokenKind::CalendarWord) || self.roles[index] != TokenRole::Name {
            return None;
        }
        self.columns[index].as_ref()
    }

    /// The number behind one separator, or behind one of these letters.
    fn after(&self, index: usize, letters: &str) -> Option<usize> {
        let between = self.text(index + 1);
        let joins = match self.kind(index + 1)? {
            TokenKind::Separator => !matches!(between, "/" | "=" | "+") || letters.contains('/') && between == "/",
            TokenKind::Word => between.len() == 1 && letters.contains(between),
            _ => false,
        };
        (joins && self.kind(index + 2) == Some(TokenKind::Number)).then_some(index + 2)
    }

    /// The share of the sample whose time, so read, is near the time of writing.
    fn agreement(&self, reading: &[(usize, TimePart)]) -> f64 {
        let near = self.sample.iter().filter(|key| Self::is_near(key, reading)).count();
        near as f64 / self.sample.len() as f64
    }

    fn read(key: &SampledKey<'_>, reading: &[(usize, TimePart)]) -> Option<(i64, TimePrecision)> {
        let mut parts = TimeParts::default();
        for (index, part) in reading {
            parts.add(*part, key.text(*index))?;
        }
        parts.finish()
    }

    fn is_near(key: &SampledKey<'_>, reading: &[(usize, TimePart)]) -> bool {
        Self::read(key, reading).is_some_and(|(time, precision)| {
            let length = match precision {
                TimePrecision::Year => 366 * DAY,
                TimePrecision::Month => 31 * DAY,
                TimePrecision::Week => 7 * DAY,
                _ => DAY,
            };
            (time - 2 * DAY..time + length + 2 * DAY).contains(&key.modified)
        })
    }

    /// The span that a reading gives the sample. Wrong readings scatter.
    fn spread(&self, reading: &[(usize, TimePart)]) -> i64 {
        let times = || self.sample.iter().filter_map(|key| Self::read(key, reading)).map(|(time, _)| time);
        times().max().unwrap_or(i64::MAX).saturating_sub(times().min().unwrap_or(0))
    }

    /// The best of several readings, all of which are possible.
    fn best(&self, readings: Vec<Reading>) -> Option<Reading> {
        let judged =
            readings.into_iter().filter(|reading| self.sample.iter().all(|key| Self::read(key, reading).is_some()));
        let judged: Vec<(f64, i64, Reading)> =
            judged.map(|reading| (self.agreement(&reading), self.spread(&reading), reading)).collect();
        let trusted = self.trusts_modified && judged.iter().any(|(agreement, ..)| *agreement >= 0.5);
        judged
            .into_iter()
            .min_by(|(agreement_a, spread_a, _), (agreement_b, spread_b, _)| {
                let by_agreement = if trusted { agreement_b.total_cmp(agreement_a) } else { std::cmp::Ordering::Equal };
                by_agreement.then(spread_a.cmp(spread_b))
            })
            .map(|(_, _, reading)| reading)
    }

    fn claim(&mut self, reading: Reading, group: u8) {
        for (index, part) in reading {
            self.roles[index] = TokenRole::Time(part, group);
        }
    }

    fn new_group(&mut self, names_day: bool) -> u8 {
        self.groups += 1;
        self.calendar.push(names_day);
        self.groups - 1
    }

    fn find_dates(&mut self) {
        let mut index = 0;
        while index < self.len() {
            if let Some((reading, names_day, has_time)) = self.date_at(index) {
                let last = reading.iter().map(|(index, _)| *index).max().unwrap_or(index);
                let group = self.new_group(names_day);
                self.claim(reading, group);
                let end = if has_time {
                    self.zone_after(last, group)
                } else if names_day {
                    self.time_after(last, group)
                } else {
                    last
                };
                index = end + 1;
            } else {
                index += 1;
            }
        }
    }

    /// The date that begins with this token: its parts, whether it names a day, and whether it has a time of day.
    fn date_at(&self, index: usize) -> Option<(Reading, bool, bool)> {
        if let Some(reading) = self.date_with_month_word(index) {
            return Some((reading, true, false));
        }
        let column = self.number(index)?;
        let one = |part| vec![(index, part)];
        let epoch = |min: u64, factor: u64| column.within(min * factor, 2_200_000_000 * factor);
        if column.ymd14 {
            return Some((one(TimePart::YmdSecond14), true, true));
        }
        if column.is_len(17) && valid_ymd(column.min / 1_000_000_000) && valid_ymd(column.max / 1_000_000_000) {
            return Some((one(TimePart::YmdMillis17), true, true));
        }
        if column.ymd12 {
            return Some((one(TimePart::YmdMinute12), true, true));
        }
        if column.ymd10 {
            return Some((one(TimePart::YmdHour10), true, true));
        }
        let not_constant = !column.is_constant() || self.count < 3;
        for (len, factor, part) in [
            (10, 1, TimePart::EpochSeconds),
            (13, 1_000, TimePart::EpochMillis),
            (16, 1_000_000, TimePart::EpochMicros),
            (19, 1_000_000_000, TimePart::EpochNanos),
        ] {
            if column.is_len(len) && not_constant && epoch(900_000_000, factor) {
                return Some((one(part), true, true));
            }
        }
        if column.is_len(8) {
            let mut readings = Vec::new();
            if column.ymd8 {
                return Some((one(TimePart::Ymd8), true, false));
            }
            if column.dmy8 {
                readings.push(one(TimePart::Dmy8));
            }
            if column.mdy8 {
                readings.push(one(TimePart::Mdy8));
            }
            if let Some(best) = self.best(readings) {
                return Some((best, true, false));
            }
            let minutes = one(TimePart::EpochMinutes);
            if not_constant && column.within(20_000_000, 40_000_000) && self.agreement(&minutes) >= 0.9 {
                return Some((minutes, true, true));
            }
        }
        if column.years {
            return self.date_with_year(index);
        }
        self.date_with_year_behind(index).or_else(|| self.short_date(index))
    }

    /// `2026-10-01`, `2026/10/01`, `2026-1001`, `2026-10`, `2026-W45`, `2026W45`, and a year alone.
    fn date_with_year(&self, year: usize) -> Option<(Reading, bool, bool)> {
        let start = (year, TimePart::Year4);
        if let Some(week) = self.week_after(year) {
            return Some((vec![start, (week, TimePart::Week)], true, false));
        }
        if let Some(month) = self.after(year, "/y") {
            if self.number(month).is_some_and(|column| column.month_day4 && (self.count < 3 || !column.is_constant())) {
                let reading = vec![start, (month, TimePart::MonthDay4)];
                if self.best(vec![reading.clone()]).is_some() {
                    return Some((reading, true, false));
                }
            }
            if self.number(month).is_some_and(|column| column.months) {
                if let Some(day) =
                    self.after(month, "/m").filter(|day| self.number(*day).is_some_and(|column| column.days))
                {
                    let ymd = vec![start, (month, TimePart::Month), (day, TimePart::Day)];
                    let mut readings = vec![ymd];
                    if self.number(day).is_some_and(|column| column.months) {
                        readings.push(vec![start, (month, TimePart::Day), (day, TimePart::Month)]);
                    }
                    // Year, day and month in this order are written by no program; only if the other reading is impossible.
                    if let Some(best) = readings.into_iter().find(|reading| self.best(vec![reading.clone()]).is_some())
                    {
                        return Some((best, true, false));
                    }
                }
                return Some((vec![start, (month, TimePart::Month)], false, false));
            }
        }
        let column = self.number(year)?;
        let is_directory = self.text(year + 1) == "/" && (year == 0 || self.text(year - 1) == "/");
        (!column.is_constant() || is_directory).then(|| (vec![start], false, false))
    }

    /// The week's number behind a year: `-W45`, `W45`, `/week45`, `_KW_45`.
    fn week_after(&self, index: usize) -> Option<usize> {
        let mut word = index + 1;
        if self.kind(word) == Some(TokenKind::Separator) {
            word += 1;
        }
        let is_week = matches!(self.text(word).to_ascii_lowercase().as_str(), "w" | "week" | "kw" | "wk" | "woche");
        let mut number = word + 1;
        if self.kind(number) == Some(TokenKind::Separator) {
            number += 1;
        }
        let fits = self.number(number).is_some_and(|column| column.len_max <= 2 && column.within(1, 53));
        (is_week && fits).then_some(number)
    }

    /// `01.10.2026`, `10-01-2026`, `01102026` is above.
    fn date_with_year_behind(&self, first: usize) -> Option<(Reading, bool, bool)> {
        let column = self.number(first).filter(|column| column.days)?;
        let second = self.after(first, "/")?;
        let middle = self.number(second).filter(|column| column.days)?;
        let year = self.after(second, "/").filter(|year| self.number(*year).is_some_and(|column| column.years))?;
        let mut readings = Vec::new();
        let start = (year, TimePart::Year4);
        if middle.months {
            readings.push(vec![(first, TimePart::Day), (second, TimePart::Month), start]);
        }
        if column.months {
            readings.push(vec![(first, TimePart::Month), (second, TimePart::Day), start]);
        }
        self.best(readings).map(|best| (best, true, false))
    }

    /// `01-Oct-2026`, `Oct-01-2026`, `01Oct2026`, `2026-Oct-01`.
    fn date_with_month_word(&self, index: usize) -> Option<Reading> {
        let step = |from: usize| {
            let skip = usize::from(self.kind(from + 1) == Some(TokenKind::Separator) && self.text(from + 1) != "/");
            from + 1 + skip
        };
        let second = step(index);
        let third = step(second);
        let is_day = |at| self.number(at).is_some_and(|column| column.days);
        let is_year = |at| self.number(at).is_some_and(|column| column.years);
        let is_month = |at| self.word(at).is_some_and(|column| column.month_words);
        let (day, month, year) = if is_day(index) && is_month(second) && is_year(third) {
            (index, second, third)
        } else if is_month(index) && is_day(second) && is_year(third) {
            (second, index, third)
        } else if is_year(index) && is_month(second) && is_day(third) {
            (third, second, index)
        } else {
            return None;
        };
        let reading = vec![(year, TimePart::Year4), (month, TimePart::MonthWord), (day, TimePart::Day)];
        self.sample.iter().all(|key| Self::read(key, &reading).is_some()).then_some(reading)
    }

    /// Dates with a year of two digits: `261001`, `26-10-01`, `01.10.26`, and `202610`. The times of writing must agree,
    /// because other numbers look like that too.
    fn short_date(&self, index: usize) -> Option<(Reading, bool, bool)> {
        let column = self.number(index)?;
        let varies = self.count < 3 || !column.is_constant();
        let mut readings = Vec::new();
        if column.is_len(6) && varies {
            let one = |part| vec![(index, part)];
            if column.ymd6 {
                readings.push(one(TimePart::Ymd6));
            }
            if column.dmy6 {
                readings.push(one(TimePart::Dmy6));
            }
            if column.mdy6 {
                readings.push(one(TimePart::Mdy6));
            }
            if column.ym6 && readings.is_empty() {
                return Some((one(TimePart::Ym6), false, false));
            }
        } else if column.is_len(2) {
            let middle_at = self.after(index, "")?;
            let last_at = self.after(middle_at, "")?;
            let (middle, last) = (self.number(middle_at)?, self.number(last_at)?);
            if !middle.is_len(2) || !last.is_len(2) || self.text(index + 1) != self.text(middle_at + 1) {
                return None;
            }
            let three = |parts: [TimePart; 3]| vec![(index, parts[0]), (middle_at, parts[1]), (last_at, parts[2])];
            if middle.months && last.days {
                readings.push(three([TimePart::Year2, TimePart::Month, TimePart::Day]));
            }
            if column.days && middle.months {
                readings.push(three([TimePart::Day, TimePart::Month, TimePart::Year2]));
            }
            if column.months && middle.days {
                readings.push(three([TimePart::Month, TimePart::Day, TimePart::Year2]));
            }
        }
        let best = self.best(readings)?;
        let agrees = self.agreement(&best) >= 0.6;
        let is_refuted = self.trusts_modified && self.agreement(&best) < 0.15;
        let plausible = !is_refuted && self.count >= 3 && self.spread(&best) < 20 * 366 * DAY;
        (agrees || plausible).then_some((best, true, false))
    }

    /// The time of day behind a date. Returns the last token of both.
    fn time_after(&mut self, date: usize, group: u8) -> usize {
        let Some(start) = self.after(date, "Tth/").or_else(|| self.after(date, "/Tt")) else {
            return self.zone_after(date, group);
        };
        match self.time_at(start) {
            Some(reading) => {
                let last = reading.iter().map(|(index, _)| *index).max().unwrap_or(start);
                self.claim(reading, group);
                self.join_letters(date, last, group);
                self.zone_after(last, group)
            }
            None => date,
        }
    }

    fn time_at(&self, start: usize) -> Option<Reading> {
        let column = self.number(start)?;
        if column.time6 {
            return Some(vec![(start, TimePart::Time6)]);
        }
        if column.time4 && !column.years {
            return Some(vec![(start, TimePart::HourMinute4)]);
        }
        if !column.hours {
            return None;
        }
        let sixty = |at: usize| self.number(at).is_some_and(|column| column.sixties && column.len_min == 2);
        let minute = self.after(start, "hH").filter(|at| sixty(*at));
        let Some(minute) = minute else {
            let is_h = matches!(self.text(start + 1), "h" | "H" | "hrs" | "Uhr");
            return (is_h || self.hour_agrees(start)).then(|| vec![(start, TimePart::Hour)]);
        };
        let mut reading = vec![(start, TimePart::Hour), (minute, TimePart::Minute)];
        if let Some(second) = self.after(minute, "mM").filter(|at| sixty(*at)) {
            reading.push((second, TimePart::Second));
        }
        Some(reading)
    }

    /// Whether a number is the hour at which the key was written, give or take a fixed difference of zones.
    fn hour_agrees(&self, index: usize) -> bool {
        let Some(column) = self.number(index).filter(|column| column.hours && column.distinct.len() >= 3) else {
            return false;
        };
        let mut differences = [0_usize; 24];
        for key in self.sample {
            let hour = key.modified.div_euclid(3_600) - key.number(index);
            differences[hour.rem_euclid(24) as usize] += 1;
        }
        let most = (0..24).map(|at| differences[at] + differences[(at + 1) % 24]).max().unwrap_or(0);
        self.trusts_modified && column.distinct.len() >= 3 && most * 10 >= self.sample.len() * 8
    }

    /// Single letters between the numbers of a time (`T`, `h`, `m`) belong to it.
    fn join_letters(&mut self, from: usize, to: usize, group: u8) {
        for index in from..=to {
            if self.kind(index) == Some(TokenKind::Word) && self.text(index).len() == 1 {
                self.roles[index] = TokenRole::Time(TimePart::Nothing, group);
            }
        }
    }

    /// Fractions of a second and a zone behind a time: `.123`, `Z`, `m`, `UTC`, `+0200`.
    fn zone_after(&mut self, last: usize, group: u8) -> usize {
        let nothing = TokenRole::Time(TimePart::Nothing, group);
        let mut last = last;
        let fraction = matches!(self.text(last + 1), "." | ",").then_some(last + 2);
        if let Some(at) = fraction
            && self.number(at).is_some_and(|column| {
                matches!(column.len_max, 3 | 6 | 9)
                    && column.len_min == column.len_max
                    && column.distinct.len() * 2 > self.count
            })
        {
            self.roles[at] = nothing;
            last = at;
        }
        if self.kind(last + 1) == Some(TokenKind::Word)
            && matches!(
                self.text(last + 1),
                "Z" | "z" | "UTC" | "GMT" | "CET" | "CEST" | "h" | "m" | "s" | "Uhr" | "hrs"
            )
        {
            self.roles[last + 1] = nothing;
            last += 1;
        }
        if self.text(last + 1) == "+" && self.number(last + 2).is_some_and(|column| column.len_max <= 4) {
            self.roles[last + 2] = nothing;
            last += 2;
            if self.text(last + 1) == ":" && self.number(last + 2).is_some_and(|column| column.sixties) {
                self.roles[last + 2] = nothing;
                last += 2;
            }
        }
        last
    }

    /// Parts of a date that stand apart: `2026/10/shop-01.sql`, `2026/shop-10-01.sql`, `2026-10-01/shop-0100.sql`.
    fn complete_dates(&mut self) {
        for group in 0..self.groups {
            let reading = self.reading_of(group);
            let Some(last) = reading.iter().map(|(index, _)| *index).max() else { continue };
            let Some((_, precision)) = Self::read(&self.sample[0], &reading) else { continue };
            match precision {
                TimePrecision::Month | TimePrecision::Year => self.complete_day(group, &reading, last, precision),
                TimePrecision::Day => self.complete_time(group, last),
                _ => {}
            }
        }
    }

    fn complete_day(&mut self, group: u8, reading: &Reading, last: usize, precision: TimePrecision) {
        for index in last + 1..self.len() {
            let Some(column) = self.number(index) else { continue };
            let mut longer = reading.clone();
            let is_named = index >= 2
                && self.text(index - 1) == "="
                && matches!(self.text(index - 2), "month" | "mon" | "m" | "day" | "d");
            if precision == TimePrecision::Month {
                if !column.days || (self.count >= 3 && column.distinct.len() < 3 && !is_named) {
                    continue;
                }
                longer.push((index, TimePart::Day));
            } else if let Some(day) = self.after(index, "/").filter(|_| column.months)
                && self.number(day).is_some_and(|column| column.days)
            {
                longer.extend([(index, TimePart::Month), (day, TimePart::Day)]);
            } else if column.month_day4 && !column.is_constant() {
                longer.push((index, TimePart::MonthDay4));
            } else if column.months && (!column.is_constant() || is_named) {
                longer.push((index, TimePart::Month));
            } else {
                continue;
            }
            let possible = self.sample.iter().all(|key| Self::read(key, &longer).is_some());
            if possible && (!self.trusts_modified || self.agreement(&longer) >= 0.7) {
                let end = longer.iter().map(|(index, _)| *index).max().unwrap_or(index);
                self.claim(longer, group);
                self.calendar[usize::from(group)] = true;
                self.time_after(end, group);
                return;
            }
        }
    }

    fn complete_time(&mut self, group: u8, last: usize) {
        for index in last + 1..self.len() {
            let before = self.text(index - 1);
            let opens = matches!(before, "/" | "-" | "_" | "." | "T");
            let Some(column) = self.number(index).filter(|_| opens) else { continue };
            if column.time6 && (column.distinct.len() >= 3 || self.count < 3) {
                self.claim(vec![(index, TimePart::Time6)], group);
                self.zone_after(index, group);
                return;
            }
            let clock = self.time_at(index).filter(|reading| reading.len() >= 3 && before == "/");
            if let Some(reading) = clock {
                let end = reading.iter().map(|(index, _)| *index).max().unwrap_or(index);
                self.claim(reading, group);
                self.join_letters(index, end, group);
                self.zone_after(end, group);
                return;
            }
        }
    }

    /// Names of weekdays beside a date, and what names a rotation: the day of the month, the weekday, the hour.
    fn find_lone_parts(&mut self) {
        let main = self.main_group();
        for index in 0..self.len() {
            if self.word(index).is_some_and(|column| !column.is_constant()) {
                self.judge_calendar_word(index, main);
            }
        }
        if main.is_some_and(|group| self.calendar[usize::from(group)]) || !self.trusts_modified {
            return;
        }
        for index in 0..self.len() {
            let Some(column) = self.number(index) else { continue };
            let distinct = column.distinct.len();
            let near = |value: fn(i64) -> i64| {
                let agreeing = self.sample.iter().filter(|key| {
                    let day = day_number(key.modified);
                    (day - 1..=day + 1).any(|day| value(day * DAY) == key.number(index))
                });
                agreeing.count() * 10 >= self.sample.len() * 9
            };
            let is_day = column.days && distinct >= 5 && near(|at| i64::from(civil(at).day()));
            let is_month = column.months && distinct >= 3 && near(|at| i64::from(civil(at).month()));
            let is_weekday = column.within(0, 7)
                && distinct >= 5
                && (near(|at| weekday_of(day_number(at)) + 1) || near(|at| (weekday_of(day_number(at)) + 1) % 7));
            let is_year_day =
                column.within(1, 366) && distinct >= 5 && near(|at| i64::from(civil(at).date().day_of_year()));
            let is_week =
                column.within(1, 53) && distinct >= 3 && near(|at| i64::from(civil(at).date().iso_week_date().week()));
            if is_day || is_month || is_weekday || is_year_day || is_week || self.hour_agrees(index) {
                let group = self.new_group(false);
                self.roles[index] = TokenRole::Time(TimePart::Nothing, group);
            }
        }
    }

    /// A word that may name a weekday or a month does so if the dates agree.
    fn judge_calendar_word(&mut self, index: usize, main: Option<u8>) {
        let agreeing = self.sample.iter().filter(|key| {
            let of_key = main.and_then(|group| key_time(key.key, &key.tokens, &self.roles, group));
            let day = day_number(
                of_key.filter(|(_, precision)| *precision >= TimePrecision::Day).map_or(key.modified, |(time, _)| time),
            );
            let word = key.text(index);
            (day - 1..=day + 1).any(|day| {
                let weekday = calendar_word::weekday(word).is_some_and(|weekday| i64::from(weekday) == weekday_of(day));
                let month = calendar_word::month(word)
                    .is_some_and(|month| i64::from(month) == i64::from(civil(day * DAY).month()));
                weekday || month
            })
        });
        if agreeing.count() * 10 >= self.sample.len() * 8 {
            let group = main.unwrap_or_else(|| self.new_group(false));
            self.roles[index] = TokenRole::Time(TimePart::Nothing, group);
        }
    }

    /// Versions, parts, and numbers that mean nothing.
    fn name_the_rest(&mut self) {
        for index in 0..self.len() {
            if self.kind(index) == Some(TokenKind::PartLetters) {
                self.roles[index] = TokenRole::Part;
                continue;
            }
            if self.roles[index] != TokenRole::Name || self.columns[index].is_none() {
                continue;
            }
            self.roles[index] = self.role_of_rest(index);
        }
    }

    fn role_of_rest(&self, index: usize) -> TokenRole {
        let Some(column) = &self.columns[index] else { return TokenRole::Name };
        if self.is_part(index) {
            return TokenRole::Part;
        }
        if self.is_version(index, column.is_constant()) {
            return TokenRole::Version;
        }
        if column.is_constant() {
            return TokenRole::Name;
        }
        if self.kind(index) == Some(TokenKind::Random) && column.distinct.len() > 3 && self.comes_and_goes(index) {
            return TokenRole::Nonce;
        }
        // Names come again, counters do not. A sequence behind the date tells runs of a day apart.
        let repeats = column.distinct.len() * 3 <= self.count;
        if !repeats || column.distinct.len() >= DISTINCT_MAX || self.is_sequence(index) {
            return TokenRole::Nonce;
        }
        TokenRole::Name
    }

    /// `.part001`, `.vol3`, `.001`, `_2of5`.
    fn is_part(&self, index: usize) -> bool {
        if self.kind(index) != Some(TokenKind::Number) {
            return false;
        }
        let is_last = index + 1 == self.len();
        let mut before = index.saturating_sub(1);
        let dotted = index > 0 && self.text(before) == ".";
        if self.kind(before) == Some(TokenKind::Separator) {
            before = before.saturating_sub(1);
        }
        let word = self.text(before).to_ascii_lowercase();
        let named = matches!(word.as_str(), "part" | "vol" | "volume" | "split" | "chunk" | "piece" | "seg" | "disc");
        let in_file = !(index..self.len()).any(|at| self.text(at) == "/");
        let counted = matches!(self.text(index + 1), "of") || (index >= 1 && self.text(index - 1) == "of");
        let zip = is_last && word == "z" && self.columns[index].as_ref().is_some_and(|column| column.is_len(2));
        let numbered = is_last && dotted && self.columns[index].as_ref().is_some_and(|column| column.is_len(3));
        (named && in_file) || counted || zip || numbered
    }

    /// Whether the values of a random token replace each other: each is there for less than half of the time.
    fn comes_and_goes(&self, index: usize) -> bool {
        let mut spans: std::collections::HashMap<&str, (i64, i64)> = std::collections::HashMap::new();
        for key in self.sample {
            let span = spans.entry(key.text(index)).or_insert((key.modified, key.modified));
            *span = (span.0.min(key.modified), span.1.max(key.modified));
        }
        let first = spans.values().map(|(first, _)| *first).min().unwrap_or(0);
        let last = spans.values().map(|(_, last)| *last).max().unwrap_or(0);
        let mut lengths: Vec<i64> = spans.values().map(|(first, last)| last - first).collect();
        lengths.sort_unstable();
        self.trusts_modified && lengths[lengths.len() / 2] * 2 < last - first
    }

    /// A number of `v1.2`, `1.2.3`. Four numbers are an address. Of a version that never changes only three numbers are one.
    fn is_version(&self, index: usize, is_constant: bool) -> bool {
        if self.kind(index) != Some(TokenKind::Number) {
            return false;
        }
        let is_number = |at: usize| self.kind(at) == Some(TokenKind::Number);
        let mut start = index;
        while start >= 2 && self.text(start - 1) == "." && is_number(start - 2) {
            start -= 2;
        }
        let mut count = 1;
        let mut end = start;
        while self.text(end + 1) == "." && is_number(end + 2) {
            end += 2;
            count += 1;
        }
        let word = if start == 0 { String::new() } else { self.text(start - 1).to_ascii_lowercase() };
        let is_named = matches!(word.as_str(), "v" | "version" | "ver" | "release" | "rev" | "build");
        count == 3 || (is_named && count <= 3 && !is_constant)
    }

    /// A small number directly behind the date, which counts the runs of a day: `2026-10-01-2`.
    fn is_sequence(&self, index: usize) -> bool {
        let follows_time = index >= 2
            && self.kind(index - 1) == Some(TokenKind::Separator)
            && self.text(index - 1) != "/"
            && matches!(self.roles[index - 2], TokenRole::Time(..));
        let word = if index == 0 { String::new() } else { self.text(index - 1).to_ascii_lowercase() };
        let is_named = matches!(word.as_str(), "seq" | "run" | "no" | "nr" | "try" | "attempt");
        self.kind(index) == Some(TokenKind::Number) && (follows_time || is_named)
    }

    fn precision(&self, group: u8) -> Option<TimePrecision> {
        let first = &self.sample[0];
        key_time(first.key, &first.tokens, &self.roles, group).map(|(_, precision)| precision)
    }

    fn is_constant(&self, group: u8) -> bool {
        self.roles.iter().zip(&self.columns).all(|(role, column)| {
            !matches!(role, TokenRole::Time(part, of) if *of == group && *part != TimePart::Nothing)
                || column.as_ref().is_none_or(ColumnStats::is_constant)
        })
    }

    /// The time that counts: one that varies, the most exact one, the last of several such.
    fn main_group(&self) -> Option<u8> {
        let named = (0..self.groups).filter_map(|group| Some((group, self.precision(group)?)));
        let rank = |(group, precision): &(u8, TimePrecision)| {
            let varies = !self.is_constant(*group) || self.count < 3;
            (varies, !self.trusts_modified || self.follows_writing(*group), *precision, *group)
        };
        named.max_by_key(rank).map(|(group, _)| group)
    }

    /// Whether a time is near the time of writing in most keys.
    fn follows_writing(&self, group: u8) -> bool {
        self.agreement(&self.reading_of(group)) >= 0.5
    }

    /// The parts of a time.
    fn reading_of(&self, group: u8) -> Reading {
        let parts = self.roles.iter().enumerate().filter_map(|(index, role)| match role {
            TokenRole::Time(part, of) if *of == group => Some((index, *part)),
            _ => None,
        });
        parts.collect()
    }

    fn finish(mut self) -> KeyPlan {
        let main_time = self.main_group();
        // A time that does not move with the backups is a name: the date of a contract, of a data set.
        let main_follows = main_time.is_some_and(|group| self.follows_writing(group));
        for group in 0..self.groups {
            if Some(group) == main_time || self.count < 3 || self.precision(group).is_none() {
                continue;
            }
            let is_elsewhere = self.trusts_modified && main_follows && !self.follows_writing(group);
            if self.is_constant(group) || is_elsewhere {
                for role in &mut self.roles {
                    if matches!(role, TokenRole::Time(_, of) if *of == group) {
                        *role = TokenRole::Name;
                    }
                }
            }
        }
        KeyPlan { roles: self.roles, main_time }
    }
}
