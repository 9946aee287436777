//! Pure. `--pattern`: how the keys of backups are made, as the user says it.

use super::civil_time::seconds_of_date;
use super::time_part::TimePrecision;

/// A pattern of keys, such as `{host}/{date}.tar.gz`.
///
/// `{host}` and `{name}` stand for a name without `/`, `{date}` and `{time}` for digits with separators, `{*}` for anything
/// that means nothing. Other text stands for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPattern {
    pieces: Vec<PatternPiece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum PatternPiece {
    Text(String),
    Name,
    Date,
    Anything,
}

/// Why a pattern is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyPatternError {
    /// A name in braces is not known.
    #[error("{{{0}}} is no placeholder")]
    Placeholder(String),
    /// A brace is not closed.
    #[error("a brace is not closed")]
    Unclosed,
    /// Nothing in it says when a backup was made.
    #[error("it has no {{date}}")]
    NoDate,
    /// Two placeholders with nothing between: where one ends cannot be known.
    #[error("two placeholders stand side by side")]
    Adjacent,
}

/// A key that fits a pattern.
pub(super) struct PatternMatch {
    pub(super) name: String,
    pub(super) time: Option<i64>,
    pub(super) precision: TimePrecision,
}

impl KeyPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A placeholder is not known, there is no date, or two placeholders stand side by side.
    pub fn parse(text: &str) -> Result<Self, KeyPatternError> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let Some(start) = rest.find('{') else {
                pieces.push(PatternPiece::Text(rest.to_owned()));
                break;
            };
            if start > 0 {
                pieces.push(PatternPiece::Text(rest[..start].to_owned()));
            }
            let end = rest[start..].find('}').ok_or(KeyPatternError::Unclosed)? + start;
            let piece = match &rest[start + 1..end] {
                "host" | "name" | "role" => PatternPiece::Name,
                "date" | "time" => PatternPiece::Date,
                "*" | "id" => PatternPiece::Anything,
                other => return Err(KeyPatternError::Placeholder(other.to_owned())),
            };
            if start == 0 && pieces.last().is_some_and(|last| !matches!(last, PatternPiece::Text(_))) {
                return Err(KeyPatternError::Adjacent);
            }
            pieces.push(piece);
            rest = &rest[end + 1..];
        }
        if !pieces.contains(&PatternPiece::Date) {
            return Err(KeyPatternError::NoDate);
        }
        Ok(Self { pieces })
    }

    /// The series and the time of a key, if it fits.
    pub(super) fn match_key(&self, key: &str) -> Option<PatternMatch> {
        let mut values = Vec::new();
        if !fit(&self.pieces, key, &mut values) {
            return None;
        }
        let mut name = String::new();
        let mut digits = String::new();
        let mut values = values.into_iter();
        for piece in &self.pieces {
            match piece {
                PatternPiece::Text(text) => name.push_str(text),
                PatternPiece::Name => name.push_str(values.next()?),
                PatternPiece::Date => {
                    digits.extend(values.next()?.chars().filter(char::is_ascii_digit));
                    name.push_str("{date}");
                }
                PatternPiece::Anything => {
                    values.next()?;
                    name.push_str("{id}");
                }
            }
        }
        let (time, precision) = time_of_digits(&digits)?;
        Some(PatternMatch { name, time: Some(time), precision })
    }
}

/// Whether the pieces fit the text; collects what the placeholders stand for, in their order. The shortest that fits is taken.
fn fit<'k>(pieces: &[PatternPiece], text: &'k str, values: &mut Vec<&'k str>) -> bool {
    let Some((first, rest)) = pieces.split_first() else { return text.is_empty() };
    if let PatternPiece::Text(literal) = first {
        return text.strip_prefix(literal.as_str()).is_some_and(|text| fit(rest, text, values));
    }
    let allowed = |letter: char| match first {
        PatternPiece::Date => letter.is_ascii_digit() || "-_:.T Z/h+".contains(letter),
        PatternPiece::Name => letter != '/',
        _ => true,
    };
    let known = values.len();
    for (at, letter) in text.char_indices() {
        if !allowed(letter) {
            return false;
        }
        let end = at + letter.len_utf8();
        values.truncate(known);
        values.push(&text[..end]);
        // Of a date the longest is meant: a shorter one fits only by accident.
        let date_goes_on =
            matches!(first, PatternPiece::Date) && text[end..].starts_with(|next: char| next.is_ascii_digit());
        if !date_goes_on && fit(rest, &text[end..], values) {
            return true;
        }
    }
    false
}

/// Year, month and day, with hours, minutes and seconds if there are digits for them; or seconds or milliseconds since 1970.
fn time_of_digits(digits: &str) -> Option<(i64, TimePrecision)> {
    let number = |from: usize, to: usize| digits.get(from..to).and_then(|text| text.parse::<i64>().ok());
    let date = || seconds_of_date(number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let hour = || number(8, 10).filter(|hour| *hour < 24);
    match digits.len() {
        8 => Some((date()?, TimePrecision::Day)),
        12 => Some((date()? + hour()? * 3_600 + number(10, 12)? * 60, TimePrecision::Minute)),
        14 => Some((date()? + hour()? * 3_600 + number(10, 12)? * 60 + number(12, 14)?, TimePrecision::Second)),
        10 if date().is_some() && hour().is_some() => Some((date()? + hour()? * 3_600, TimePrecision::Hour)),
        10 | 13 => Some((number(0, 10)?, TimePrecision::Second)),
        _ => None,
    }
}
