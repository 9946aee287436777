//! Compares the changes that snapshots report with the changes that really happened. Pure.
//!
//! A run that compares with stale data reports the same changes again and again. One such run looks normal, so the
//! sequence is judged. The journal does not record whether content was new, only the number of new bytes, which
//! includes the manifest nodes that any change rewrites. For a few small files the root of the manifest decides: a root
//! that is new in the sequence is a real change, while a comparison with stale data reports the same root again.

use std::collections::VecDeque;

use jiff::Timestamp;

use crate::ids::{ChunkId, Digest};
use crate::job::report::audited::{AuditFinding, AuditNote, SnapshotStreak};
use crate::journal::body::{ChangeCounts, SnapshotBody};

/// From this number on, consecutive snapshots with the same changed set are reported.
const SAME_MIN: u64 = 3;

/// Number of a sequence's last roots that are remembered: enough to recognize a few nodes that run in turns, each with
/// its own file times.
const ROOTS_MAX: usize = 64;

/// A single changed file is not reported.
const EVERYTHING_FILES_MIN: u64 = 2;

/// Limit of an entry's size in the manifest, without its chunks.
const ENTRY_BYTES_MAX: u64 = 1024;

/// Minimum ratio of a chunk's size to its reference in the manifest: 32 bytes for at least 256 KiB.
const CHUNK_TO_LIST: u64 = 8192;

/// The identity of a snapshot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SnapshotRoot {
    /// The time of the snapshot.
    pub(crate) time: Timestamp,
    /// The root of its manifest.
    pub(crate) root: ChunkId,
    /// The ID of the snapshot.
    pub(crate) id: Digest,
}

/// Consecutive snapshots that report the same changes.
#[derive(Debug)]
struct RepeatedChanges {
    changed_set: ChunkId,
    streak: SnapshotStreak,
    /// Each of them has new content.
    has_new_content: bool,
    /// Their last roots, and the root before the first of them.
    roots: VecDeque<ChunkId>,
}

/// Follows the snapshots, in the journal's order.
#[derive(Debug)]
pub(crate) struct RepetitionDetector {
    since: Timestamp,
    /// The root of the previous snapshot.
    root: Option<ChunkId>,
    same: Option<RepeatedChanges>,
    everything: Option<SnapshotStreak>,
    findings: Vec<AuditFinding>,
    notes: Vec<AuditNote>,
}

impl RepetitionDetector {
    /// Begins after a snapshot with this root; sequences that ended before `since` are not reported.
    pub(crate) fn new(since: Timestamp, root: Option<ChunkId>) -> Self {
        Self { since, root, same: None, everything: None, findings: Vec::new(), notes: Vec::new() }
    }

    /// Adds the next snapshot.
    pub(crate) fn add_snapshot(&mut self, seen: SnapshotRoot, body: &SnapshotBody) {
        self.same(seen, body);
        self.everything(seen, body);
        self.root = Some(seen.root);
    }

    fn same(&mut self, seen: SnapshotRoot, body: &SnapshotBody) {
        let continues =
            reported(&body.changes) > 0 && self.same.as_ref().is_some_and(|same| same.changed_set == body.changed_set);
        if !continues {
            self.end_same();
        }
        if reported(&body.changes) == 0 {
            return;
        }
        let same_tree = self.root == Some(seen.root);
        let Some(same) = &mut self.same else {
            let (changed_set, streak) = (body.changed_set, SnapshotStreak::first(seen, body));
            let roots = self.root.into_iter().chain([seen.root]).collect();
            self.same = Some(RepeatedChanges { changed_set, streak, has_new_content: true, roots });
            return;
        };
        same.has_new_content &= !same_tree && (surely_new(body) || !same.roots.contains(&seen.root));
        same.streak.add(seen, body, same_tree);
        if same.roots.len() == ROOTS_MAX {
            same.roots.pop_front();
        }
        same.roots.push_back(seen.root);
    }

    fn everything(&mut self, seen: SnapshotRoot, body: &SnapshotBody) {
        let ChangeCounts { new, changed, .. } = body.changes;
        let same_tree = self.root == Some(seen.root);
        let all = new == 0 && changed >= body.files && body.files >= EVERYTHING_FILES_MIN;
        // If the content is smaller than the manifest may be, nothing can be concluded.
        let nothing_new =
            same_tree || (body.cost.new_bytes <= list_bytes_max(body) && body.bytes > 2 * list_bytes_max(body));
        if !(all && nothing_new && self.root.is_some()) {
            self.end_everything();
            return;
        }
        match &mut self.everything {
            Some(streak) => streak.add(seen, body, same_tree),
            None => {
                self.everything = Some(SnapshotStreak {
                    same_tree,
                    new_bytes: body.cost.new_bytes,
                    ..SnapshotStreak::first(seen, body)
                });
            }
        }
    }

    fn end_same(&mut self) {
        let Some(RepeatedChanges { streak, has_new_content: real, .. }) = self.same.take() else { return };
        if streak.runs < SAME_MIN || streak.last < self.since {
            return;
        }
        // A database in one file changes every night, which is normal.
        if real {
            self.notes.push(AuditNote::SameFiles(streak));
        } else {
            self.findings.push(AuditFinding::SameChanges(streak));
        }
    }

    fn end_everything(&mut self) {
        self.findings.extend(
            self.everything.take().filter(|streak| streak.last >= self.since).map(AuditFinding::EverythingChanged),
        );
    }

    /// The findings and notes.
    pub(crate) fn finish(mut self) -> (Vec<AuditFinding>, Vec<AuditNote>) {
        self.end_same();
        self.end_everything();
        (self.findings, self.notes)
    }
}

impl SnapshotStreak {
    fn first(seen: SnapshotRoot, body: &SnapshotBody) -> Self {
        let (first, changes) = (seen.time, reported(&body.changes));
        // The first of equal runs may have been correct.
        Self { first, last: first, snapshot: seen.id, runs: 1, changes, new_bytes: 0, same_tree: true }
    }

    fn add(&mut self, seen: SnapshotRoot, body: &SnapshotBody, same_tree: bool) {
        self.last = seen.time;
        self.snapshot = seen.id;
        self.runs += 1;
        self.changes = reported(&body.changes);
        self.new_bytes += body.cost.new_bytes;
        self.same_tree &= same_tree;
    }
}

fn reported(changes: &ChangeCounts) -> u64 {
    changes.new + changes.changed + changes.removed
}

/// Upper limit of the size of a completely rewritten manifest.
fn list_bytes_max(body: &SnapshotBody) -> u64 {
    body.entries.saturating_mul(ENTRY_BYTES_MAX).saturating_add(body.bytes / CHUNK_TO_LIST)
}

fn surely_new(body: &SnapshotBody) -> bool {
    body.cost.new_bytes > list_bytes_max(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::body::RunCost;

    const MIB: u64 = 1 << 20;

    /// A snapshot of 10 files, one MiB each.
    fn snapshot(root: u8, set: u8, changed: u64, new_bytes: u64) -> SnapshotBody {
        SnapshotBody {
            root: ChunkId([root; 32]),
            indexes: Vec::new(),
            entries: 11,
            files: 10,
            bytes: 10 * MIB,
            changes: ChangeCounts { changed, unchanged: 11 - changed, ..ChangeCounts::default() },
            changed_set: ChunkId([set; 32]),
            cost: RunCost { new_bytes, ..RunCost::default() },
            empty: None,
        }
    }

    /// The findings and notes for these snapshots, one an hour: `same 3`, `files 5`, `all 1`.
    fn told(since: i64, bodies: &[SnapshotBody]) -> Vec<String> {
        let at = |hour: i64| Timestamp::from_second(hour * 3600).unwrap();
        let mut sequence = RepetitionDetector::new(at(since), None);
        for (hour, body) in (0..).zip(bodies) {
            sequence.add_snapshot(SnapshotRoot { time: at(hour), root: body.root, id: Digest([hour as u8; 32]) }, body);
        }
        let (findings, notes) = sequence.finish();
        let finding = |finding| match finding {
            AuditFinding::SameChanges(s) => {
                format!("same {} of {}{}", s.runs, s.changes, if s.same_tree { ", one tree" } else { "" })
            }
            AuditFinding::EverythingChanged(s) => format!("all {}", s.runs),
            other => panic!("{other:?}"),
        };
        let note = |note| match note {
            AuditNote::SameFiles(s) => format!("files {}, {} MiB", s.runs, s.new_bytes / MIB),
            other @ (AuditNote::Paused { .. } | AuditNote::Amended { .. } | AuditNote::Incomplete(_)) => {
                panic!("{other:?}")
            }
        };
        findings.into_iter().map(finding).chain(notes.into_iter().map(note)).collect()
    }

    #[test]
    fn a_hash_store_that_is_never_written_back_shows_itself() {
        let run = snapshot(1, 7, 9, 0);
        assert_eq!(told(0, &vec![run.clone(); 2]), [""; 0]);
        assert_eq!(told(0, &vec![run.clone(); 5]), ["same 5 of 9, one tree"]);
        // The same holds if the index was lost and everything is stored again each time.
        assert_eq!(told(0, &vec![snapshot(1, 7, 9, 9 * MIB); 4]), ["same 4 of 9, one tree"]);
        // Two nodes in turns whose copies have different times.
        let turns: Vec<_> = (0..6).map(|n| snapshot(n % 2, 7, 4, 2_000)).collect();
        assert_eq!(told(0, &turns), ["same 6 of 4"]);
        assert_eq!(told(6, &turns), [""; 0], "it ended before the time in question");
        assert_eq!(told(5, &turns), ["same 6 of 4"]);
    }

    #[test]
    fn quiet_nights_and_other_changes_end_it() {
        let quiet = snapshot(1, 0, 0, 0);
        assert_eq!(told(0, &vec![quiet.clone(); 30]), [""; 0]);
        let busy = |root| snapshot(root, 7, 2, 1_000);
        assert_eq!(told(0, &[busy(1), busy(2), quiet, busy(3), busy(4)]), [""; 0]);
        assert_eq!(told(0, &[busy(1), busy(2), snapshot(3, 8, 2, 1_000), busy(4)]), [""; 0]);
    }

    #[test]
    fn a_database_that_changes_every_night_is_only_noted() {
        let nights: Vec<_> = (0..30).map(|n| snapshot(n, 7, 1, MIB)).collect();
        assert_eq!(told(0, &nights), ["files 30, 29 MiB"]);
        let mut idle = nights.clone();
        (idle[10].cost.new_bytes, idle[10].root) = (500, idle[8].root);
        assert_eq!(
            told(0, &idle),
            ["same 30 of 1"],
            "one of them brought nothing and reported it as changed all the same"
        );
    }

    #[test]
    fn a_few_small_files_that_change_each_time_are_only_noted() {
        let tiny = |n: u8| SnapshotBody { bytes: 30, files: 3, entries: 4, ..snapshot(n, 7, 3, 700) };
        let runs: Vec<_> = (1..20).map(tiny).collect();
        assert_eq!(told(0, &runs), ["files 19, 0 MiB"]);
        // Beside a GiB that does not change.
        let beside: Vec<_> = runs.iter().map(|run| SnapshotBody { bytes: 1 << 30, files: 10, ..run.clone() }).collect();
        assert_eq!(told(0, &beside), ["files 19, 0 MiB"]);
        let mut again = runs;
        again[9].root = again[4].root;
        assert_eq!(told(0, &again), ["same 19 of 3"], "a tree that was there before, reported as changed");
    }

    #[test]
    fn everything_changed_and_nothing_new() {
        let before = snapshot(1, 1, 1, MIB);
        assert_eq!(told(0, &[before.clone(), snapshot(2, 2, 10, 3_000)]), ["all 1"], "only times differ");
        assert_eq!(told(0, &[before.clone(), snapshot(1, 2, 11, 0), snapshot(1, 3, 11, 0)]), ["all 2"]);
        assert_eq!(told(0, &[before.clone(), snapshot(2, 2, 10, 10 * MIB)]), [""; 0], "all of it is new");
        assert_eq!(told(0, &[before.clone(), snapshot(2, 2, 9, 3_000)]), [""; 0]);
        assert_eq!(told(0, &[snapshot(2, 2, 10, 3_000)]), [""; 0], "compared with what is not known");
        let small = |root, new| SnapshotBody { bytes: 900, ..snapshot(root, root, 10, new) };
        assert_eq!(told(0, &[small(1, 0), small(2, 1_800)]), [""; 0], "as small as the list of files");
    }
}
