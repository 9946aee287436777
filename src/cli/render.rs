//! Reports as text for people: pure functions, a file per kind of report. [`layout`] breaks lines; the first line is
//! the verdict.
//!
//! Pure.

pub mod alert;
pub mod audited;
pub mod backup;
pub mod browse;
pub mod calendar;
pub mod check;
pub mod config;
pub mod daemon;
pub mod executed;
pub mod foreign;
pub mod journal;
pub mod layout;
pub mod notify;
pub mod operated;
pub mod pruned;
pub mod reason;
pub mod repaired;
pub mod restored;
pub mod run_reason;
pub mod setup;
pub mod snapshots;
pub mod status;
pub mod verified;
pub mod versioning;
pub mod warning;
pub mod whoami;

use jiff::{Timestamp, tz::TimeZone};

use self::layout::PageLayout;
use crate::ids::Digest;

/// The most single paths or objects that a report for people names; the rest is counted. `--json` has them all.
const NAMED_MAX: usize = 20;

/// The reader's time zone, time and page.
#[derive(Debug, Clone)]
pub struct RenderContext {
    /// The config's time zone.
    pub zone: TimeZone,
    /// The present.
    pub now: Timestamp,
    /// The width of the page.
    pub page: PageLayout,
}

/// The first characters of a snapshot's ID, which every command accepts.
pub fn short_id(id: Digest) -> String {
    let mut text = id.to_string();
    text.truncate(8);
    text
}

/// `and 7 more` below a list that was cut, or nothing.
fn more(shown: usize, total: u64) -> String {
    let rest = total.saturating_sub(shown as u64);
    if rest == 0 { String::new() } else { format!("  ... and {} more\n", super::units::count(rest)) }
}

#[cfg(test)]
pub(super) mod samples;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cut_list_says_how_much_is_missing() {
        assert_eq!(more(20, 20), "");
        assert_eq!(more(20, 1_020), "  ... and 1,000 more\n");
    }
}
