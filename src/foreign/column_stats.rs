//! Pure. What the values of one token are, over all keys of a shape.

use std::collections::HashSet;
use std::hash::BuildHasher;

use super::calendar_word;
use super::civil_time::seconds_of_date;

/// How many values of a number are told apart.
pub(super) const DISTINCT_MAX: usize = 65_536;

/// Values of one token over all members.
#[derive(Debug, Default)]
pub(super) struct ColumnStats {
    pub(super) len_min: usize,
    pub(super) len_max: usize,
    pub(super) min: u64,
    pub(super) max: u64,
    pub(super) distinct: HashSet<u64>,
    pub(super) months: bool,
    pub(super) days: bool,
    pub(super) hours: bool,
    pub(super) sixties: bool,
    pub(super) years: bool,
    pub(super) ymd8: bool,
    pub(super) dmy8: bool,
    pub(super) mdy8: bool,
    pub(super) ymd6: bool,
    pub(super) dmy6: bool,
    pub(super) mdy6: bool,
    pub(super) ym6: bool,
    pub(super) time6: bool,
    pub(super) time4: bool,
    pub(super) month_day4: bool,
    pub(super) ymd10: bool,
    pub(super) ymd12: bool,
    pub(super) ymd14: bool,
    pub(super) weekdays: bool,
    pub(super) month_words: bool,
}

pub(super) fn valid_ymd(value: u64) -> bool {
    let value = value as i64;
    seconds_of_date(value / 10_000, value / 100 % 100, value % 100).is_some()
}

fn valid_ymd_order(year: u64, month: u64, day: u64) -> bool {
    seconds_of_date(year as i64, month as i64, day as i64).is_some()
}

fn valid_time6(value: u64) -> bool {
    value / 10_000 < 24 && value / 100 % 100 < 60 && value % 100 <= 60
}

fn valid_time4(value: u64) -> bool {
    value / 100 < 24 && value % 100 < 60
}

impl ColumnStats {
    pub(super) fn new() -> Self {
        Self {
            len_min: usize::MAX,
            min: u64::MAX,
            months: true,
            days: true,
            hours: true,
            sixties: true,
            years: true,
            ymd8: true,
            dmy8: true,
            mdy8: true,
            ymd6: true,
            dmy6: true,
            mdy6: true,
            ym6: true,
            time6: true,
            time4: true,
            month_day4: true,
            ymd10: true,
            ymd12: true,
            ymd14: true,
            weekdays: true,
            month_words: true,
            ..Self::default()
        }
    }

    pub(super) fn add_number(&mut self, text: &str) {
        let len = text.len();
        let value = text.parse().unwrap_or(u64::MAX);
        self.add_value(len, value);
        let short = len <= 2;
        self.months &= short && (1..=12).contains(&value);
        self.days &= short && (1..=31).contains(&value);
        self.hours &= short && value < 24;
        self.sixties &= short && value <= 60;
        self.years &= len == 4 && (1990..=2099).contains(&value);
        self.time4 &= len == 4 && valid_time4(value);
        self.month_day4 &= len == 4 && valid_ymd_order(2024, value / 100, value % 100);
        let six = len == 6;
        self.ymd6 &= six && valid_ymd_order(2000 + value / 10_000, value / 100 % 100, value % 100);
        self.dmy6 &= six && valid_ymd_order(2000 + value % 100, value / 100 % 100, value / 10_000);
        self.mdy6 &= six && valid_ymd_order(2000 + value % 100, value / 10_000, value / 100 % 100);
        self.ym6 &= six && valid_ymd_order(value / 100, value % 100, 1);
        self.time6 &= six && valid_time6(value);
        let eight = len == 8;
        self.ymd8 &= eight && valid_ymd(value);
        self.dmy8 &= eight && valid_ymd_order(value % 10_000, value / 10_000 % 100, value / 1_000_000);
        self.mdy8 &= eight && valid_ymd_order(value % 10_000, value / 1_000_000, value / 10_000 % 100);
        self.ymd10 &= len == 10 && valid_ymd(value / 100) && value % 100 < 24;
        self.ymd12 &= len == 12 && valid_ymd(value / 10_000) && valid_time4(value % 10_000);
        self.ymd14 &= len == 14 && valid_ymd(value / 1_000_000) && valid_time6(value % 1_000_000);
    }

    pub(super) fn add_text(&mut self, text: &str, hasher: &impl BuildHasher) {
        self.weekdays &= calendar_word::weekday(text).is_some();
        self.month_words &= calendar_word::month(text).is_some();
        self.add_value(text.len(), hasher.hash_one(text.to_ascii_lowercase()));
    }

    pub(super) fn add_value(&mut self, len: usize, value: u64) {
        self.len_min = self.len_min.min(len);
        self.len_max = self.len_max.max(len);
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        if self.distinct.len() < DISTINCT_MAX {
            self.distinct.insert(value);
        }
    }

    pub(super) fn is_constant(&self) -> bool {
        self.distinct.len() <= 1
    }

    pub(super) fn is_len(&self, len: usize) -> bool {
        self.len_min == len && self.len_max == len
    }

    pub(super) fn within(&self, min: u64, max: u64) -> bool {
        self.min >= min && self.max <= max
    }
}
