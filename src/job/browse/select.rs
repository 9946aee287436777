//! Finds the snapshot that a selector names: by a prefix of its ID, by its position from the newest, or by a time.
//! Pure.

use std::fmt;

use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::ids::Digest;
use crate::journal::state::Snapshot;

/// Minimum length of an ID prefix.
const ID_CHARS_MIN: usize = 4;

/// The most candidates that an error lists.
const CANDIDATES_MAX: usize = 10;

/// Why a selector names no snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// The selector has no known form.
    #[error(
        "{0:?} names no snapshot: expected latest, latest~2, at least {ID_CHARS_MIN} characters of an ID, 2026-11-20, \
         2026-11-20T15:00 or \"2h ago\""
    )]
    Syntax(String),
    /// The role has no snapshots.
    #[error("there are no snapshots yet")]
    NoSnapshots,
    /// No snapshot has this ID prefix.
    #[error("no snapshot has an ID that starts with {0}")]
    NoSuchId(String),
    /// Several snapshots have this ID prefix.
    #[error("{prefix} is the start of several IDs: {}", CandidateList(candidates))]
    Ambiguous {
        /// The given prefix.
        prefix: String,
        /// The matching snapshots with their times.
        candidates: Vec<(Digest, Timestamp)>,
    },
    /// There are fewer snapshots than the selector counts back.
    #[error("there is no {selector}: only {count} snapshots are there")]
    TooFewSnapshots {
        /// The given selector.
        selector: String,
        /// The number of snapshots.
        count: usize,
    },
    /// No snapshot is that old.
    #[error("no snapshot is from {selector} or before; the oldest is {} from {}", ShortId(oldest), time.strftime("%Y-%m-%d %H:%M UTC"))]
    NoneBefore {
        /// The given selector.
        selector: String,
        /// The oldest snapshot.
        oldest: Digest,
        /// Its time.
        time: Timestamp,
    },
}

/// Whether `selector` has the form of an ID.
pub fn is_id(selector: &str) -> bool {
    let text = selector.trim();
    text.len() >= ID_CHARS_MIN && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The ID, if `selector` is a complete ID.
pub fn whole_id(selector: &str) -> Option<Digest> {
    selector.trim().to_ascii_lowercase().parse().ok()
}

/// Displays a prefix of an ID that is unique enough, and that is accepted as a selector.
struct ShortId<'a>(&'a Digest);

impl fmt::Display for ShortId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        f.write_str(text.get(..12).unwrap_or(&text))
    }
}

struct CandidateList<'a>(&'a [(Digest, Timestamp)]);

impl fmt::Display for CandidateList<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, (id, time)) in self.0.iter().take(CANDIDATES_MAX).enumerate() {
            write!(f, "{}{} from {time:.0}", if n == 0 { "" } else { ", " }, ShortId(id))?;
        }
        match self.0.len().saturating_sub(CANDIDATES_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// The one of `snapshots` (oldest first) that `selector` names. Days are those of `zone`.
///
/// # Errors
/// The selector names none or several of them, or has no known form.
pub fn select<'a>(
    snapshots: &'a [Snapshot],
    selector: &str,
    zone: &TimeZone,
    now: Timestamp,
) -> Result<&'a Snapshot, SelectError> {
    let meaning =
        SnapshotSelector::of(selector.trim(), zone, now).ok_or_else(|| SelectError::Syntax(selector.to_owned()))?;
    let Some(oldest) = snapshots.first() else { return Err(SelectError::NoSnapshots) };
    match meaning {
        SnapshotSelector::FromNewest(n) => {
            let at = snapshots.len().checked_sub(1).and_then(|last| last.checked_sub(n));
            at.map(|at| &snapshots[at])
                .ok_or_else(|| SelectError::TooFewSnapshots { selector: selector.to_owned(), count: snapshots.len() })
        }
        SnapshotSelector::Id(prefix) => {
            let fits: Vec<&Snapshot> = snapshots.iter().filter(|s| s.id.to_string().starts_with(&prefix)).collect();
            match fits[..] {
                [] => Err(SelectError::NoSuchId(prefix)),
                [one] => Ok(one),
                _ => Err(SelectError::Ambiguous { prefix, candidates: fits.iter().map(|s| (s.id, s.time)).collect() }),
            }
        }
        // By position, not by time: if clocks disagree, the journal's order decides.
        SnapshotSelector::Before(end) => snapshots.iter().rfind(|s| s.time < end).ok_or_else(|| {
            SelectError::NoneBefore { selector: selector.to_owned(), oldest: oldest.id, time: oldest.time }
        }),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum SnapshotSelector {
    /// This number of snapshots before the newest.
    FromNewest(usize),
    /// A prefix of an ID.
    Id(String),
    /// The newest snapshot before this time.
    Before(Timestamp),
}

impl SnapshotSelector {
    fn of(text: &str, zone: &TimeZone, now: Timestamp) -> Option<Self> {
        if let Some(rest) = text.strip_prefix("latest") {
            return match rest.strip_prefix('~') {
                None => rest.is_empty().then_some(SnapshotSelector::FromNewest(0)),
                Some(n) => n.parse().ok().map(SnapshotSelector::FromNewest),
            };
        }
        if let Some(span) = text.strip_suffix(" ago") {
            let span = SignedDuration::try_from(humantime::parse_duration(span).ok()?).ok()?;
            return Self::until(now.checked_sub(span).ok()?);
        }
        if is_id(text) {
            return Some(SnapshotSelector::Id(text.to_ascii_lowercase()));
        }
        if let Ok(instant) = text.parse() {
            return Self::until(instant);
        }
        if text.contains(':') {
            let time: DateTime = text.parse().ok()?;
            return Self::until(zone.to_ambiguous_timestamp(time).compatible().ok()?);
        }
        let day: Date = text.parse().ok()?;
        let next = day.tomorrow().ok()?.to_zoned(zone.clone()).ok()?;
        Some(SnapshotSelector::Before(next.timestamp()))
    }

    fn until(instant: Timestamp) -> Option<Self> {
        Some(SnapshotSelector::Before(instant.checked_add(SignedDuration::from_nanos(1)).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ChunkId, NodeId, Seq, Term};
    use crate::journal::body::{ChangeCounts, RunCost, WriterNode};

    fn snapshot(n: u8, id: [u8; 3], time: &str) -> Snapshot {
        let mut digest = [n; 32];
        digest[..3].copy_from_slice(&id);
        Snapshot {
            id: Digest(digest),
            seq: Seq(u64::from(n)),
            term: Term(1),
            node: WriterNode { id: NodeId([1; 16]), name: "east".to_owned() },
            time: time.parse().unwrap(),
            slot: None,
            root: ChunkId([n; 32]),
            entries: 1,
            files: 1,
            bytes: 1,
            changes: ChangeCounts::default(),
            cost: RunCost::default(),
            empty: None,
        }
    }

    fn some() -> Vec<Snapshot> {
        vec![
            snapshot(1, [0xab, 0xcd, 0x01], "2026-11-18T01:00:00Z"),
            snapshot(2, [0xab, 0xcd, 0x02], "2026-11-19T01:00:00Z"),
            // 23:30 on the 20th in Berlin, the 20th in UTC as well.
            snapshot(3, [0x12, 0x34, 0x56], "2026-11-20T22:30:00Z"),
            // The 21st in Berlin, still the 20th in UTC.
            snapshot(4, [0x98, 0x76, 0x54], "2026-11-20T23:30:00Z"),
        ]
    }

    fn number(selector: &str) -> Result<u64, SelectError> {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let now = "2026-11-21T09:00:00Z".parse().unwrap();
        select(&some(), selector, &zone, now).map(|s| s.seq.0)
    }

    #[test]
    fn by_place_from_the_newest() {
        assert_eq!((number("latest"), number("latest~0"), number("latest~3")), (Ok(4), Ok(4), Ok(1)));
        assert_eq!(number("latest~4"), Err(SelectError::TooFewSnapshots { selector: "latest~4".to_owned(), count: 4 }));
    }

    #[test]
    fn by_the_start_of_an_id() {
        assert_eq!((number("1234"), number("ABCD01"), number(&some()[3].id.to_string())), (Ok(3), Ok(1), Ok(4)));
        assert_eq!(number("1235"), Err(SelectError::NoSuchId("1235".to_owned())));
        let Err(SelectError::Ambiguous { candidates, .. }) = number("abcd") else { panic!("two fit") };
        assert_eq!(candidates.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [some()[0].id, some()[1].id]);
        let text = number("abcd").unwrap_err().to_string();
        assert!(text.contains(&some()[1].id.to_string()[..12]) && text.contains("2026-11-19T01:00:00Z"), "{text}");
    }

    #[test]
    fn a_whole_id_is_no_start_of_one() {
        let id = some()[0].id;
        let text = id.to_string();
        assert_eq!((whole_id(&text), whole_id(&format!(" {} ", text.to_uppercase()))), (Some(id), Some(id)));
        assert_eq!((whole_id(&text[..63]), whole_id(&format!("{text}0")), whole_id("latest")), (None, None, None));
    }

    #[test]
    fn by_a_day_of_the_configs_zone() {
        assert_eq!((number("2026-11-20"), number("2026-11-21"), number("2026-11-19")), (Ok(3), Ok(4), Ok(2)));
        assert!(matches!(number("2026-11-17"), Err(SelectError::NoneBefore { oldest, .. }) if oldest == some()[0].id));
    }

    #[test]
    fn by_a_moment() {
        assert_eq!(
            (number("2026-11-20T23:29"), number("2026-11-20T23:30"), number("2026-11-21 00:30")),
            (Ok(2), Ok(3), Ok(4))
        );
        assert_eq!((number("2026-11-20T23:29:59Z"), number("2026-11-20T23:30:00Z")), (Ok(3), Ok(4)));
        // The present is 09:00; nine and a half hours before is exactly the time of the newest snapshot.
        assert_eq!((number("1m ago"), number("9h 30m ago"), number("9h 31m ago")), (Ok(4), Ok(4), Ok(3)));
        assert_eq!((number("1d ago"), number("2d ago")), (Ok(2), Ok(2)));
    }

    #[test]
    fn what_says_nothing_is_refused() {
        for nothing in ["", "abc", "latest~", "latest~x", "latests", "yesterday", "2026-13-01", "2h", "x ago", "ab-cd"]
        {
            assert_eq!(number(nothing), Err(SelectError::Syntax(nothing.to_owned())), "{nothing}");
        }
        let none = select(&[], "latest", &TimeZone::UTC, Timestamp::UNIX_EPOCH);
        assert_eq!(none.err(), Some(SelectError::NoSnapshots));
    }
}
