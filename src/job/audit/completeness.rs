//! Snapshots that lack files that could not be read. Pure.

use jiff::Timestamp;

use crate::ids::Digest;
use crate::job::report::audited::{Finding, Incomplete, Note};
use crate::journal::state::Snapshot;

/// Takes snapshots one by one, in the journal's order.
#[derive(Debug)]
pub(crate) struct Completeness {
    since: Timestamp,
    /// The incomplete ones since the last complete one.
    open: Option<Incomplete>,
    past: Vec<Incomplete>,
}

impl Completeness {
    /// Of the time from `since` on, after these live snapshots.
    pub(crate) fn new(since: Timestamp, before: &[Snapshot]) -> Self {
        let mut completeness = Self { since, open: None, past: Vec::new() };
        for snapshot in before {
            completeness.take(snapshot.time, snapshot.id, snapshot.changes.unreadable);
        }
        completeness
    }

    /// The next snapshot, which could not read so many entries.
    pub(crate) fn take(&mut self, time: Timestamp, id: Digest, unreadable: u64) {
        match (&mut self.open, unreadable) {
            (open, 0) => self.past.extend(open.take().filter(|open| open.last >= self.since)),
            (Some(open), _) => {
                (open.last, open.snapshot, open.unreadable) = (time, id, unreadable);
                open.runs += 1;
            }
            (None, _) => self.open = Some(Incomplete { first: time, last: time, snapshot: id, runs: 1, unreadable }),
        }
    }

    /// The newest snapshot is a finding however old it is: it is what a restore takes.
    pub(crate) fn finish(self) -> (Option<Finding>, Vec<Note>) {
        (self.open.map(Finding::Incomplete), self.past.into_iter().map(Note::Incomplete).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(60 * minute).unwrap()
    }

    fn verdict(since: i64, unreadable: &[u64]) -> (Option<(u64, u64)>, Vec<u64>) {
        let mut completeness = Completeness::new(at(since), &[]);
        for (n, unreadable) in (0..).zip(unreadable) {
            completeness.take(at(n), Digest([u8::try_from(n).unwrap(); 32]), *unreadable);
        }
        let (finding, notes) = completeness.finish();
        let finding = finding.map(|finding| match finding {
            Finding::Incomplete(open) => (open.runs, open.unreadable),
            other => panic!("{other:?}"),
        });
        let runs = |note| match note {
            Note::Incomplete(past) => past.runs,
            other => panic!("{other:?}"),
        };
        (finding, notes.into_iter().map(runs).collect())
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
