//! Finds snapshots that lack files that could not be read. Pure.

use jiff::Timestamp;

use crate::ids::{Digest, SourceMark};
use crate::job::report::audited::{AuditFinding, AuditNote, IncompleteStreak};
use crate::journal::state::Snapshot;

/// Takes snapshots one by one, in the journal's order.
#[derive(Debug)]
pub(crate) struct CompletenessCheck {
    since: Timestamp,
    /// The incomplete snapshots since the last complete one.
    open: Option<IncompleteStreak>,
    past: Vec<IncompleteStreak>,
}

impl CompletenessCheck {
    /// Begins a check from `since` on, after these live snapshots.
    pub(crate) fn new(since: Timestamp, before: &[Snapshot]) -> Self {
        let mut completeness = Self { since, open: None, past: Vec::new() };
        for snapshot in before {
            completeness.add_snapshot(snapshot.time, snapshot.id, snapshot.changes.unreadable);
        }
        completeness
    }

    /// Adds the next snapshot, with the number of its unreadable entries.
    pub(crate) fn add_snapshot(&mut self, time: Timestamp, id: Digest, unreadable: u64) {
        match (&mut self.open, unreadable) {
            (open, 0) => self.past.extend(open.take().filter(|open| open.last >= self.since)),
            (Some(open), _) => {
                (open.last, open.snapshot, open.unreadable) = (time, id, unreadable);
                open.runs += 1;
            }
            (None, _) => {
                self.open = Some(IncompleteStreak { first: time, last: time, snapshot: id, runs: 1, unreadable });
            }
        }
    }

    /// An incomplete newest snapshot is a finding however old it is, because a restore takes it by default.
    pub(crate) fn finish(self) -> (Option<AuditFinding>, Vec<AuditNote>) {
        (self.open.map(AuditFinding::Incomplete), self.past.into_iter().map(AuditNote::Incomplete).collect())
    }
}

/// Consecutive snapshots of which some sources are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EmptySourceStreak {
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
    pub(crate) snapshot: Digest,
    pub(crate) runs: u64,
    /// The empty sources of the last snapshot.
    pub(crate) marks: Vec<SourceMark>,
}

impl EmptySourceStreak {
    /// The streak after the next snapshot. It ends with a snapshot that has no empty source, or of which this is
    /// unknown.
    pub(crate) fn after(
        before: Option<Self>,
        time: Timestamp,
        id: Digest,
        empty: Option<&[SourceMark]>,
    ) -> Option<Self> {
        let marks = empty.filter(|marks| !marks.is_empty())?.to_vec();
        let (first, runs) = before.map_or((time, 1), |before| (before.first, before.runs + 1));
        Some(Self { first, last: time, snapshot: id, runs, marks })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(60 * minute).unwrap()
    }

    fn verdict(since: i64, unreadable: &[u64]) -> (Option<(u64, u64)>, Vec<u64>) {
        let mut completeness = CompletenessCheck::new(at(since), &[]);
        for (n, unreadable) in (0..).zip(unreadable) {
            completeness.add_snapshot(at(n), Digest([u8::try_from(n).unwrap(); 32]), *unreadable);
        }
        let (finding, notes) = completeness.finish();
        let finding = finding.map(|finding| match finding {
            AuditFinding::Incomplete(open) => (open.runs, open.unreadable),
            other => panic!("{other:?}"),
        });
        let runs = |note| match note {
            AuditNote::Incomplete(past) => past.runs,
            other => panic!("{other:?}"),
        };
        (finding, notes.into_iter().map(runs).collect())
    }

    #[test]
    fn a_source_is_empty_until_a_snapshot_has_some_of_it_or_does_not_say() {
        let after = |all: &[Option<&[u8]>]| {
            (0..).zip(all).fold(None, |before, (n, marks)| {
                let marks = marks.map(|marks| marks.iter().map(|mark| SourceMark([*mark; 8])).collect::<Vec<_>>());
                EmptySourceStreak::after(before, at(n), Digest([7; 32]), marks.as_deref())
            })
        };
        let told = |all| after(all).map(|bare: EmptySourceStreak| (bare.first, bare.last, bare.runs, bare.marks.len()));
        assert_eq!(told(&[]), None);
        assert_eq!(told(&[Some(&[]), Some(&[1]), Some(&[1, 2])]), Some((at(1), at(2), 2, 2)));
        assert_eq!(told(&[Some(&[1]), Some(&[])]), None);
        assert_eq!(told(&[Some(&[1]), None]), None, "an older version made the newest one");
    }

    #[test]
    fn the_newest_snapshot_is_a_finding_and_what_a_complete_one_followed_is_a_note() {
        assert_eq!(verdict(0, &[0, 0]), (None, vec![]));
        assert_eq!(verdict(0, &[0, 3, 5]), (Some((2, 5)), vec![]));
        assert_eq!(verdict(0, &[1, 0, 3, 5, 0]), (None, vec![1, 2]));
        assert_eq!(verdict(0, &[1, 0, 3]), (Some((1, 3)), vec![1]));
        assert_eq!(verdict(2, &[1, 0, 3, 0]), (None, vec![1]), "what was before is not asked for");
        assert_eq!(verdict(9, &[1, 2]), (Some((2, 2)), vec![]), "nothing came after it");
    }
}
