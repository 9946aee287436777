//! Whether this node exists twice: a machine that was cloned, state directory included, has the same node ID and the
//! same permit, so neither the fence nor the machine's fingerprint tells the two apart. Pure.
//!
//! Each process has a random ID, and notes it in its node's state directory before it appends a record. A record with
//! this node's ID by a process that is not noted there has two possible causes: a copy of the directory is in use on
//! another machine, or the directory was set back to an earlier state. The same notes are kept in memory for this boot,
//! and are not set back with the directory: a process that wrote after those notes began, and is not among them, runs
//! on another machine. If the notes in memory are missing or incomplete, nothing is concluded. Records are judged once,
//! when they are first seen: the notes about older ones may be gone.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::{InstanceId, Seq};

/// The most processes of one node that a view keeps: those that wrote last.
const AUTHORS_MAX: usize = 16;

/// The second record by an unknown process counts only if it is at most this many records, and this long, after the
/// first.
const SIGHTING_RECORDS_MAX: u64 = 64;
const SIGHTING_AGE_MAX: SignedDuration = SignedDuration::from_hours(24 * 30);

/// The newest record that one process wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessAuthor {
    /// The record's number.
    pub seq: Seq,
    /// The process that wrote it.
    pub instance: InstanceId,
}

/// Adds a node's newest record to `authors`, which are sorted by their records.
pub fn add_author(authors: &mut Vec<ProcessAuthor>, newest: ProcessAuthor) {
    authors.retain(|author| author.instance != newest.instance);
    authors.push(newest);
    let surplus = authors.len().saturating_sub(AUTHORS_MAX);
    authors.drain(..surplus);
}

/// A record with this node's ID by a process that is not noted in this node's state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneSighting {
    /// The record's number.
    pub seq: Seq,
    /// The process that wrote it.
    pub instance: InstanceId,
    /// The newest record at the time of the sighting.
    #[serde(default)]
    pub head: Seq,
    /// The mark of the notes in memory by which the record was judged; `None` if the notes were not complete, or an
    /// earlier version wrote this.
    #[serde(default)]
    pub mark: Option<u64>,
    /// When this node saw the record.
    pub at: Timestamp,
}

/// What is known when records are judged.
#[derive(Debug, Clone, Copy)]
pub struct CloneEvidence<'a> {
    /// The processes that wrote with this node's ID.
    pub authors: &'a [ProcessAuthor],
    /// The processes of this node that wrote since record `judged`: complete, except for what is lost when the state
    /// directory is set back.
    pub own: &'a [InstanceId],
    /// The processes of this machine in this boot.
    pub boot: &'a [InstanceId],
    /// The mark since which `boot` is complete; `None` if it is not complete.
    pub mark: Option<u64>,
    /// The newest record.
    pub head: Seq,
    /// Records up to this one were judged before.
    pub judged: Seq,
    /// The last sighting.
    pub before: Option<CloneSighting>,
    /// This node's wall clock.
    pub now: Timestamp,
}

/// The verdict on the records since the last judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CloneSuspicion {
    /// All records are this node's own.
    None,
    /// All records are this machine's own, and its state directory was set back after this record was written.
    SetBack(Seq),
    /// A process that this node does not know wrote a record. The sighting is to be remembered.
    First(CloneSighting),
    /// The records agree with the sighting that is remembered.
    Known,
    /// A second node has this ID, and this process belongs to it.
    Clone(InstanceId),
}

/// Judges the newest record that no process of this node wrote.
pub fn detect_clone(evidence: CloneEvidence<'_>) -> CloneSuspicion {
    let CloneEvidence { authors, own, boot, mark, head, judged, before, now } = evidence;
    #[cfg(feature = "planted")]
    let (judged, head) = if crate::planted::is(crate::planted::PlantedBug::OldRecordsAreJudged) {
        (Seq(0), Seq(0))
    } else {
        (judged, head)
    };
    let is_unknown = |author: &&ProcessAuthor| author.seq > judged && !own.contains(&author.instance);
    let is_foreign = |author: &&ProcessAuthor| is_unknown(author) && !boot.contains(&author.instance);
    let Some(&ProcessAuthor { seq, instance }) = authors.iter().rfind(is_foreign) else {
        return authors
            .iter()
            .rfind(is_unknown)
            .map_or(CloneSuspicion::None, |author| CloneSuspicion::SetBack(author.seq));
    };
    let first = CloneSuspicion::First(CloneSighting { seq, instance, head, mark, at: now });
    let Some(before) = before else { return first };
    if seq <= before.seq {
        return CloneSuspicion::Known;
    }
    if !is_same_boot(before.mark, mark) {
        return first;
    }
    // The process that wrote this record had read the previous one, so it began the record after that. A record with
    // this number may have been on its way since before a reboot; any later one was begun while these notes were kept.
    if seq.0 <= before.head.0.saturating_add(1) {
        return CloneSuspicion::Known;
    }
    let age = now.duration_since(before.at).abs();
    let is_near = seq.0.saturating_sub(before.seq.0) <= SIGHTING_RECORDS_MAX && age <= SIGHTING_AGE_MAX;
    if instance == before.instance || is_near { CloneSuspicion::Clone(instance) } else { first }
}

/// Whether two sightings were judged by the same complete notes of one boot. An unknown mark equals nothing.
pub fn is_same_boot(before: Option<u64>, now: Option<u64>) -> bool {
    before.is_some() && before == now
}

/// Whether `found`, the last writer of an object that only this node writes, is not a process of this node. `own`: the
/// processes of this node that may have written; `None` if they are not known.
pub fn is_foreign_process(found: Option<InstanceId>, own: Option<&[InstanceId]>) -> bool {
    found.zip(own).is_some_and(|(found, own)| !own.contains(&found))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The marks of the notes in memory of two boots.
    const BOOT: Option<u64> = Some(1);
    const NEXT_BOOT: Option<u64> = Some(2);

    fn by(seq: u64, instance: u8) -> ProcessAuthor {
        ProcessAuthor { seq: Seq(seq), instance: InstanceId([instance; 8]) }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    fn twin(instance: u8) -> CloneSuspicion {
        CloneSuspicion::Clone(InstanceId([instance; 8]))
    }

    /// A node whose state directory knows the processes 1 and 2, and whose memory of this boot knows 2 and 3.
    #[derive(Clone)]
    struct Judge {
        judged: u64,
        before: Option<CloneSighting>,
        mark: Option<u64>,
        now: i64,
    }

    impl Judge {
        fn new() -> Self {
            Self { judged: 4, before: None, mark: BOOT, now: 0 }
        }

        /// Judges these records, the newest last, and remembers them.
        fn see(&mut self, authors: &[ProcessAuthor]) -> CloneSuspicion {
            let [one, two, three] = [1, 2, 3].map(|n| InstanceId([n; 8]));
            let suspicion = detect_clone(CloneEvidence {
                authors,
                own: &[one, two],
                boot: &[two, three],
                mark: self.mark,
                head: authors.last().map_or(Seq(self.judged), |newest| newest.seq),
                judged: Seq(self.judged),
                before: self.before,
                now: at(self.now),
            });
            self.judged = authors.last().map_or(self.judged, |newest| newest.seq.0.max(self.judged));
            if let CloneSuspicion::First(sighting) = suspicion {
                self.before = Some(sighting);
            }
            suspicion
        }

        #[track_caller]
        fn sees_first(&mut self, authors: &[ProcessAuthor], seq: u64) {
            assert!(matches!(self.see(authors), CloneSuspicion::First(sighting) if sighting.seq == Seq(seq)));
        }
    }

    #[test]
    fn a_stranger_with_this_nodes_id_is_a_twin_when_it_writes_again() {
        let mut judge = Judge::new();
        assert_eq!(judge.see(&[]), CloneSuspicion::None);
        assert_eq!(judge.see(&[by(5, 2)]), CloneSuspicion::None);
        judge.sees_first(&[by(5, 2), by(6, 9)], 6);
        assert_eq!(judge.see(&[by(5, 2), by(6, 9)]), CloneSuspicion::None, "it was judged");
        assert_eq!(
            judge.see(&[by(6, 9), by(7, 1)]),
            CloneSuspicion::None,
            "a machine that was set back goes on by itself"
        );
        assert_eq!(
            judge.see(&[by(6, 9), by(7, 1), by(8, 7), by(9, 1)]),
            twin(7),
            "its next process, among own records"
        );
    }

    #[test]
    fn what_was_seen_before_says_nothing() {
        // The writers of these records are no longer known.
        let mut judge = Judge { judged: 9, ..Judge::new() };
        assert_eq!(judge.see(&[by(3, 8), by(9, 9)]), CloneSuspicion::None);
        assert_eq!(judge.see(&[by(3, 8), by(9, 9), by(10, 1)]), CloneSuspicion::None);
    }

    #[test]
    fn a_state_directory_that_is_set_back_within_one_boot_again_and_again_is_no_twin() {
        let mut judge = Judge::new();
        judge.sees_first(&[by(5, 9)], 5);
        let kept = judge.clone();
        for seq in [7, 9, 20] {
            assert_eq!(
                judge.see(&[by(5, 9), by(seq, 3)]),
                CloneSuspicion::SetBack(Seq(seq)),
                "process 3 is this machine's"
            );
            judge = kept.clone();
        }
        assert_eq!(
            judge.see(&[by(5, 9), by(7, 8), by(9, 3)]),
            twin(8),
            "and a process of a clone is not among its own records"
        );
    }

    #[test]
    fn without_complete_notes_in_memory_nothing_is_concluded() {
        for (first, second) in [(None, None), (BOOT, None), (None, BOOT), (BOOT, NEXT_BOOT)] {
            let mut judge = Judge { mark: first, ..Judge::new() };
            judge.sees_first(&[by(5, 9)], 5);
            judge.mark = second;
            judge.sees_first(&[by(7, 8)], 7);
            if second.is_none() {
                judge.sees_first(&[by(9, 8)], 9);
            }
        }
    }

    #[test]
    fn a_machine_that_is_set_back_again_and_again_is_no_twin() {
        let mut judge = Judge::new();
        for n in 1..9 {
            // The state directory is restored as it was a day ago, with its suspicion.
            let seq = 10 * n;
            judge.mark = Some(n);
            judge.sees_first(&[by(seq, 100 + n as u8)], seq);
            judge.now += 86_400;
        }
        let mut far = Judge::new();
        far.sees_first(&[by(5, 9)], 5);
        far.sees_first(&[by(6 + SIGHTING_RECORDS_MAX, 8)], 6 + SIGHTING_RECORDS_MAX);
        far.now += SIGHTING_AGE_MAX.as_secs() + 1;
        far.sees_first(&[by(9 + SIGHTING_RECORDS_MAX, 7)], 9 + SIGHTING_RECORDS_MAX);
    }

    #[test]
    fn an_append_that_was_under_way_is_no_twin_and_the_next_one_is() {
        for instance in [9, 8] {
            let mut judge = Judge::new();
            judge.sees_first(&[by(5, 9), by(6, 1)], 5);
            assert_eq!(judge.see(&[by(7, instance)]), CloneSuspicion::Known, "it follows the earlier records");
            assert_eq!(judge.see(&[by(8, instance)]), twin(instance), "it follows the later records");
        }
        let mut judge = Judge::new();
        judge.sees_first(&[by(5, 9)], 5);
        assert_eq!(judge.see(&[by(900, 9)]), twin(9), "one process is near, however far it is");
    }

    #[test]
    fn authors_are_few_and_the_newest_stays() {
        let mut authors = Vec::new();
        (1..=200).for_each(|n| add_author(&mut authors, by(n, n as u8)));
        add_author(&mut authors, by(201, 190));
        assert_eq!(authors.len(), AUTHORS_MAX);
        assert_eq!((authors[0], authors[AUTHORS_MAX - 1]), (by(185, 185), by(201, 190)));
    }

    #[test]
    fn a_stranger_is_one_only_where_it_is_known_who_is_none() {
        let own = [InstanceId([1; 8])];
        let found = |instance| Some(InstanceId([instance; 8]));
        assert!(!is_foreign_process(None, Some(&own)));
        assert!(!is_foreign_process(found(1), Some(&own)));
        assert!(!is_foreign_process(found(9), None));
        assert!(is_foreign_process(found(9), Some(&own)));
    }
}
