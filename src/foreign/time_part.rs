//! Pure. The parts of a time in a key, and what they say together.

use super::calendar_word;
use super::civil_time::{seconds_of_date, week_start};
use super::key_token::KeyToken;

/// What a token contributes to the key's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TimePart {
    Year4,
    Year2,
    Month,
    MonthWord,
    Day,
    MonthDay4,
    Week,
    Hour,
    Minute,
    Second,
    HourMinute4,
    Time6,
    Ymd8,
    Dmy8,
    Mdy8,
    Ymd6,
    Dmy6,
    Mdy6,
    Ym6,
    YmdHour10,
    YmdMinute12,
    YmdSecond14,
    YmdMillis17,
    EpochSeconds,
    EpochMillis,
    EpochMicros,
    EpochNanos,
    EpochMinutes,
    /// Belongs to a time, and adds nothing: a weekday's name, a zone, fractions of a second.
    Nothing,
}

/// How exact a time is that a key names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum TimePrecision {
    Year,
    Month,
    Week,
    Day,
    Hour,
    Minute,
    Second,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TokenRole {
    /// It belongs to the series' name.
    Name,
    /// Part of the time number `u8`.
    Time(TimePart, u8),
    /// It differs from backup to backup and means nothing: a counter, a container's ID.
    Nonce,
    /// A version.
    Version,
    /// The number of a part of one backup.
    Part,
}

/// The plan of a shape.
#[derive(Debug, Clone)]
pub(super) struct KeyPlan {
    pub(super) roles: Vec<TokenRole>,
    /// The time that counts, of several that the keys name.
    pub(super) main_time: Option<u8>,
}

/// The time of one key, as its plan reads it.
pub(super) fn key_time(key: &str, tokens: &[KeyToken], roles: &[TokenRole], group: u8) -> Option<(i64, TimePrecision)> {
    let mut parts = TimeParts::default();
    for (token, role) in tokens.iter().zip(roles) {
        if let TokenRole::Time(part, of) = role
            && *of == group
        {
            parts.add(*part, token.text(key))?;
        }
    }
    parts.finish()
}

/// What the parts of a time have named so far.
#[derive(Debug, Default)]
pub(super) struct TimeParts {
    year: Option<i64>,
    month: Option<i64>,
    day: Option<i64>,
    week: Option<i64>,
    hour: Option<i64>,
    minute: Option<i64>,
    second: Option<i64>,
    epoch: Option<i64>,
    epoch_precision: Option<TimePrecision>,
}

impl TimeParts {
    pub(super) fn add(&mut self, part: TimePart, text: &str) -> Option<()> {
        if part == TimePart::Nothing {
            return Some(());
        }
        if part == TimePart::MonthWord {
            self.month = Some(i64::from(calendar_word::month(text)?));
            return Some(());
        }
        let value: i64 = text.parse().ok()?;
        match part {
            TimePart::Year4 => self.year = Some(value),
            TimePart::Year2 => self.year = Some(2000 + value),
            TimePart::Month => self.month = Some(value),
            TimePart::Day => self.day = Some(value),
            TimePart::Week => self.week = Some(value),
            TimePart::Hour => self.hour = Some(value),
            TimePart::Minute => self.minute = Some(value),
            TimePart::Second => self.second = Some(value),
            TimePart::MonthDay4 => self.set_date(None, value / 100, value % 100),
            TimePart::HourMinute4 => self.set_time4(value),
            TimePart::Time6 => self.set_time6(value),
            TimePart::Ymd8 => self.set_date(Some(value / 10_000), value / 100 % 100, value % 100),
            TimePart::Dmy8 => self.set_date(Some(value % 10_000), value / 10_000 % 100, value / 1_000_000),
            TimePart::Mdy8 => self.set_date(Some(value % 10_000), value / 1_000_000, value / 10_000 % 100),
            TimePart::Ymd6 => self.set_date(Some(2000 + value / 10_000), value / 100 % 100, value % 100),
            TimePart::Dmy6 => self.set_date(Some(2000 + value % 100), value / 100 % 100, value / 10_000),
            TimePart::Mdy6 => self.set_date(Some(2000 + value % 100), value / 10_000, value / 100 % 100),
            TimePart::Ym6 => (self.year, self.month) = (Some(value / 100), Some(value % 100)),
            TimePart::YmdHour10 => {
                self.set_date(Some(value / 1_000_000), value / 10_000 % 100, value / 100 % 100);
                self.hour = Some(value % 100);
            }
            TimePart::YmdMinute12 => {
                self.set_date(Some(value / 100_000_000), value / 1_000_000 % 100, value / 10_000 % 100);
                self.set_time4(value % 10_000);
            }
            TimePart::YmdSecond14 => self.set_date_time14(value),
            TimePart::YmdMillis17 => self.set_date_time14(value / 1_000),
            TimePart::EpochSeconds => self.set_epoch(value, TimePrecision::Second),
            TimePart::EpochMillis => self.set_epoch(value / 1_000, TimePrecision::Second),
            TimePart::EpochMicros => self.set_epoch(value / 1_000_000, TimePrecision::Second),
            TimePart::EpochNanos => self.set_epoch(value / 1_000_000_000, TimePrecision::Second),
            TimePart::EpochMinutes => self.set_epoch(value * 60, TimePrecision::Minute),
            TimePart::Nothing | TimePart::MonthWord => {}
        }
        Some(())
    }

    fn set_date(&mut self, year: Option<i64>, month: i64, day: i64) {
        self.year = year.or(self.year);
        (self.month, self.day) = (Some(month), Some(day));
    }

    fn set_time4(&mut self, value: i64) {
        (self.hour, self.minute) = (Some(value / 100), Some(value % 100));
    }

    fn set_time6(&mut self, value: i64) {
        self.set_time4(value / 100);
        self.second = Some(value % 100);
    }

    fn set_date_time14(&mut self, value: i64) {
        let date = value / 1_000_000;
        self.set_date(Some(date / 10_000), date / 100 % 100, date % 100);
        self.set_time6(value % 1_000_000);
    }

    fn set_epoch(&mut self, seconds: i64, precision: TimePrecision) {
        (self.epoch, self.epoch_precision) = (Some(seconds), Some(precision));
    }

    pub(super) fn finish(&self) -> Option<(i64, TimePrecision)> {
        if let (Some(epoch), Some(precision)) = (self.epoch, self.epoch_precision) {
            return Some((epoch, precision));
        }
        let year = self.year?;
        if let Some(week) = self.week {
            return Some((week_start(year, week)?, TimePrecision::Week));
        }
        let Some(month) = self.month else { return Some((seconds_of_date(year, 1, 1)?, TimePrecision::Year)) };
        let Some(day) = self.day else { return Some((seconds_of_date(year, month, 1)?, TimePrecision::Month)) };
        let date = seconds_of_date(year, month, day)?;
        let Some(hour) = self.hour else { return Some((date, TimePrecision::Day)) };
        let (minute, second) = (self.minute.unwrap_or(0), self.second.unwrap_or(0));
        let precision = match (self.minute, self.second) {
            (_, Some(_)) => TimePrecision::Second,
            (Some(_), None) => TimePrecision::Minute,
            (None, None) => TimePrecision::Hour,
        };
        Some((date + hour * 3_600 + minute * 60 + second, precision))
    }
}
