//! Whether this node exists twice: a machine that was cloned, state directory included, has the same node ID and the same
//! permit, so neither the fence nor the machine's fingerprint tells the two apart. Pure.
//!
//! Each process has a random ID of its own, and notes it in its node's state directory before it appends a record. A record with
//! this node's ID by a process that is not noted there was written with a copy of that directory, or the directory was set back
//! and its node meets its own past. What tells the two apart is that a past ends. Records are judged once, when they are first
//! seen: what was noted about older ones may be gone, and says nothing.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::ids::{Digest, InstanceId, Seq};

/// How many of one node's processes a view keeps, those that wrote last.
const AUTHORS_MAX: usize = 16;

/// A second record by an unknown process counts only if it is at most so many records after the first, and so long.
const SIGHTING_RECORDS_MAX: u64 = 64;
const SIGHTING_AGE_MAX: SignedDuration = SignedDuration::from_hours(24 * 30);

/// For so long further records of one unknown process may be its past as well: an append that was under way when the state
/// directory was set back arrives late. It is far longer than an append is pursued.
const SIGHTING_SETTLES: SignedDuration = SignedDuration::from_mins(10);

/// The newest record that one process wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorship {
    /// Its number.
    pub seq: Seq,
    /// The process.
    pub instance: InstanceId,
}

/// Adds the newest record of a node to what is known of its `authors`, who are sorted by their records.
pub fn add_author(authors: &mut Vec<Authorship>, newest: Authorship) {
    authors.retain(|author| author.instance != newest.instance);
    authors.push(newest);
    let surplus = authors.len().saturating_sub(AUTHORS_MAX);
    authors.drain(..surplus);
}

/// A record with this node's ID by a process that this node did not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sighting {
    /// Its number.
    pub seq: Seq,
    /// The process that wrote it.
    pub instance: InstanceId,
    /// The boot in which this node saw it. A machine that is set back boots.
    pub boot: Option<Digest>,
    /// When it did.
    pub at: Timestamp,
}

/// What is known when records are judged.
#[derive(Debug, Clone, Copy)]
pub struct Evidence<'a> {
    /// The processes that wrote with this node's ID.
    pub authors: &'a [Authorship],
    /// The processes of this node that wrote since record `judged`, complete.
    pub own: &'a [InstanceId],
    /// Records up to this one were judged before.
    pub judged: Seq,
    /// What was seen last.
    pub before: Option<Sighting>,
    /// This boot.
    pub boot: Option<Digest>,
    /// This moment.
    pub now: Timestamp,
}

/// What is to be thought of the records since the last judgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Suspicion {
    /// They are this node's own.
    None,
    /// One was written by a process that this node does not know: to be remembered.
    First(Sighting),
    /// As was to be expected after what was seen before.
    Known,
    /// There is a second node with this ID, to which this process belongs.
    Twin(InstanceId),
}

/// Judges the newest record that no process of this node wrote.
pub fn judge(evidence: Evidence<'_>) -> Suspicion {
    let Evidence { authors, own, judged, before, boot, now } = evidence;
    #[cfg(feature = "planted")]
    let judged = if crate::planted::is(crate::planted::Bug::OldRecordsAreJudged) { Seq(0) } else { judged };
    let foreign = |author: &&Authorship| author.seq > judged && !own.contains(&author.instance);
    let Some(&Authorship { seq, instance }) = authors.iter().rfind(foreign) else { return Suspicion::None };
    let first = Suspicion::First(Sighting { seq, instance, boot, at: now });
    let Some(before) = before else { return first };
    let age = now.duration_since(before.at).abs();
    if seq <= before.seq || instance == before.instance && age < SIGHTING_SETTLES {
        return Suspicion::Known;
    }
    // A process of the past does not write again.
    let lives_on = instance == before.instance;
    let is_near = seq.0.saturating_sub(before.seq.0) <= SIGHTING_RECORDS_MAX && age <= SIGHTING_AGE_MAX;
    if lives_on || boot == before.boot && is_near { Suspicion::Twin(instance) } else { first }
}

/// Whether `found`, the process that wrote last where only this node writes, is none of this node's. `own`: those that may have written;
/// `None`: that is not known.
pub fn is_stranger(found: Option<InstanceId>, own: Option<&[InstanceId]>) -> bool {
    found.zip(own).is_some_and(|(found, own)| !own.contains(&found))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: Option<Digest> = Some(Digest([1; 32]));
    const NEXT_BOOT: Option<Digest> = Some(Digest([2; 32]));

    fn by(seq: u64, instance: u8) -> Authorship {
        Authorship { seq: Seq(seq), instance: InstanceId([instance; 8]) }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    /// A node whose processes are 1 and 2.
    struct Judge {
        judged: u64,
        before: Option<Sighting>,
        boot: Option<Digest>,
        now: i64,
    }

    impl Judge {
        fn new() -> Self {
            Self { judged: 4, before: None, boot: BOOT, now: 0 }
        }

        /// Sees these records, and remembers them.
        fn see(&mut self, authors: &[Authorship]) -> Suspicion {
            let own = [InstanceId([1; 8]), InstanceId([2; 8])];
            let (judged, before, boot, now) = (Seq(self.judged), self.before, self.boot, at(self.now));
            let suspicion = judge(Evidence { authors, own: &own, judged, before, boot, now });
            self.judged = authors.last().map_or(self.judged, |newest| newest.seq.0.max(self.judged));
            if let Suspicion::First(sighting) = suspicion {
                self.before = Some(sighting);
            }
            suspicion
        }

        #[track_caller]
        fn sees_first(&mut self, authors: &[Authorship], seq: u64) {
            assert!(matches!(self.see(authors), Suspicion::First(sighting) if sighting.seq == Seq(seq)));
        }
    }

    #[test]
    fn a_stranger_with_this_nodes_id_is_a_twin_when_it_writes_again() {
        let mut judge = Judge::new();
        assert_eq!(judge.see(&[]), Suspicion::None);
        assert_eq!(judge.see(&[by(5, 2)]), Suspicion::None);
        judge.sees_first(&[by(5, 2), by(6, 9)], 6);
        assert_eq!(judge.see(&[by(5, 2), by(6, 9)]), Suspicion::None, "it was judged");
        assert_eq!(judge.see(&[by(6, 9), by(7, 1)]), Suspicion::None, "a machine that was set back goes on by itself");
        let twin = |instance| Suspicion::Twin(InstanceId([instance; 8]));
        assert_eq!(
            judge.see(&[by(6, 9), by(7, 1), by(8, 7), by(9, 1)]),
            twin(7),
            "its next process, among own records"
        );
    }

    #[test]
    fn what_was_seen_before_says_nothing() {
        // Nothing is known any more of who wrote it.
        let mut judge = Judge { judged: 9, ..Judge::new() };
        assert_eq!(judge.see(&[by(3, 8), by(9, 9)]), Suspicion::None);
        assert_eq!(judge.see(&[by(3, 8), by(9, 9), by(10, 1)]), Suspicion::None);
    }

    #[test]
    fn a_machine_that_is_set_back_again_and_again_is_no_twin() {
        let mut judge = Judge::new();
        for n in 1..9 {
            // It comes back with what it remembered a day ago, its suspicion among that.
            let seq = 10 * n;
            judge.boot = Some(Digest([n as u8; 32]));
            judge.sees_first(&[by(seq, 100 + n as u8)], seq);
            judge.now += 86_400;
        }
        let mut far = Judge::new();
        far.sees_first(&[by(5, 9)], 5);
        far.sees_first(&[by(6 + SIGHTING_RECORDS_MAX, 8)], 6 + SIGHTING_RECORDS_MAX);
        far.now += SIGHTING_AGE_MAX.as_secs() + 1;
        far.sees_first(&[by(7 + SIGHTING_RECORDS_MAX, 7)], 7 + SIGHTING_RECORDS_MAX);
    }

    #[test]
    fn a_process_of_the_past_ends_and_one_of_a_twin_does_not() {
        let mut judge = Judge::new();
        judge.sees_first(&[by(5, 9)], 5);
        assert_eq!(judge.see(&[by(6, 9)]), Suspicion::Known, "its append was under way");
        judge.now += SIGHTING_SETTLES.as_secs();
        judge.boot = NEXT_BOOT;
        assert_eq!(judge.see(&[by(900, 9)]), Suspicion::Twin(InstanceId([9; 8])));
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
        assert!(!is_stranger(None, Some(&own)));
        assert!(!is_stranger(found(1), Some(&own)));
        assert!(!is_stranger(found(9), None));
        assert!(is_stranger(found(9), Some(&own)));
    }
}
