//! Reports as text for people: pure functions, a file per kind of report. Lines fit 80 columns where the words in them
//! allow it; the first line is the verdict.

pub mod audited;
pub mod backup;
pub mod check;
pub mod config;
pub mod daemon;
pub mod executed;
pub mod inside;
pub mod journal;
pub mod notice;
pub mod operated;
pub mod pruned;
pub mod reason;
pub mod repaired;
pub mod restored;
pub mod setup;
pub mod snapshots;
pub mod status;
pub mod verified;
pub mod warning;
pub mod whoami;

use jiff::{Timestamp, tz::TimeZone};

use crate::ids::Digest;
use crate::text;

/// The width that texts are made for.
const WIDTH: usize = 80;

/// The most single paths or objects that a report for people names; the rest is counted. `--json` has them all.
const NAMED_MAX: usize = 20;

/// From where a reader looks at times.
#[derive(Debug, Clone)]
pub struct View {
    /// The config's time zone.
    pub zone: TimeZone,
    /// Now.
    pub now: Timestamp,
}

/// The first characters of a snapshot's ID, which every command accepts.
pub fn short(id: Digest) -> String {
    let mut text = id.to_string();
    text.truncate(8);
    text
}

/// `text` in lines of at most [`WIDTH`], the first after `first`, the others indented by `indent`. Words longer than that
/// stay whole, so that paths can be copied. Ends with a newline.
fn wrap(first: &str, indent: usize, text: &str) -> String {
    let mut out = String::from(first);
    let mut column = first.chars().count();
    let mut fresh = true;
    for word in glued(text) {
        let len = word.chars().count();
        if !fresh && column + 1 + len > WIDTH {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent));
            column = indent;
        } else if !fresh {
            out.push(' ');
            column += 1;
        }
        out.push_str(&word);
        column += len;
        fresh = false;
    }
    out.push('\n');
    out
}

/// The words of `text`, a number together with its unit.
fn glued(text: &str) -> Vec<String> {
    const UNITS: [&str; 14] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "bytes", "ms", "s", "min", "h", "d", "%"];
    let mut words: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        let bare = word.trim_end_matches([',', ';', '.', ')']);
        match words.last_mut() {
            Some(number) if UNITS.contains(&bare) && number.ends_with(|c: char| c.is_ascii_digit()) => {
                number.push(' ');
                number.push_str(word);
            }
            _ => words.push(word.to_owned()),
        }
    }
    words
}

/// `and 7 more` below a list that was cut, or nothing.
fn more(shown: usize, total: u64) -> String {
    let rest = total.saturating_sub(shown as u64);
    if rest == 0 { String::new() } else { format!("  ... and {} more\n", super::units::count(rest)) }
}

/// A table without lines; `right` says which columns are numbers.
fn table<const N: usize>(header: [&str; N], right: [bool; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    // Never by the terminal: the same output in a pipe, and a line stays a line for grep.
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(header);
    // A row is a line, whatever stands in its cells.
    table.add_rows(rows.into_iter().map(|row| row.map(|cell| text::line(&cell).into_owned())));
    for (i, (column, right)) in table.column_iter_mut().zip(right).enumerate() {
        column.set_padding((0, if i + 1 == N { 0 } else { 2 }));
        if right {
            column.set_cell_alignment(comfy_table::CellAlignment::Right);
        }
    }
    let mut shown = table.trim_fmt();
    shown.push('\n');
    shown
}

#[cfg(test)]
pub(super) mod samples;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrapped_lines_fit_and_lose_no_word() {
        let text = "word ".repeat(60);
        let wrapped = wrap("app: ", 2, &text);
        assert!(wrapped.lines().all(|l| l.chars().count() <= WIDTH));
        assert_eq!(wrapped.split_whitespace().count(), 61);
        assert_eq!(glued("a 4.2 MiB, 1 file"), ["a", "4.2 MiB,", "1", "file"], "a number keeps its unit");
        assert_eq!(wrap("", 2, &"x".repeat(100)), format!("{}\n", "x".repeat(100)), "a path stays whole");
    }

    #[test]
    fn a_cut_list_says_how_much_is_missing() {
        assert_eq!(more(20, 20), "");
        assert_eq!(more(20, 1_020), "  ... and 1,000 more\n");
    }
}
