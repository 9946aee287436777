//! What repairs said of the records before them: which are lost, and from where on readers pass over them. Pure.
//!
//! The invariant that lives here: a node that has seen a repair has its term, so a repair forgives a lost record only
//! to nodes that remember nothing from after that repair.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, Seq, Term};
use crate::journal::body::LostTail;

/// Number of repairs that a state keeps, the newest.
const REPAIRS_KEPT: usize = 16;

/// What a repair said of the records before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairEntry {
    /// The number of its record.
    pub seq: Seq,
    /// Its term.
    pub term: Term,
    /// Numbers whose records are lost.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub void: Vec<Seq>,
    /// The lost end of the journal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lost: Option<LostTail>,
}

impl RepairEntry {
    /// Whether the repair calls a record lost for a node that remembers it as the newest one: its number, its digest,
    /// and the term `seen` of that node.
    pub fn covers(&self, seq: Seq, digest: Digest, seen: Term) -> bool {
        let at_end = |lost: LostTail| (lost.from..=lost.to).contains(&seq) && (seq < lost.to || digest == lost.digest);
        seen < self.term && (self.void.contains(&seq) || self.lost.is_some_and(at_end))
    }
}

/// The repairs of a journal: the only place that tells which numbers are void.
///
/// The invariant that lives here: a number that a repair has called void says nothing, whatever its object is: missing,
/// the repair's placeholder, unreadable bytes, a record that came back, or not an object. A reader of single numbers
/// asks first, and does not use the object of a void number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RepairHistory {
    /// The repairs, the newest first.
    all: Vec<RepairEntry>,
}

impl RepairHistory {
    /// The first repair that called this number void: the number of its record.
    pub fn voided_by(&self, seq: Seq) -> Option<Seq> {
        self.all.iter().rev().find(|repair| repair.void.contains(&seq)).map(|repair| repair.seq)
    }

    /// Whether a repair called this number void.
    pub fn is_void(&self, seq: Seq) -> bool {
        self.voided_by(seq).is_some()
    }

    /// Whether one of them calls a record lost for a node that remembers it: [`RepairEntry::covers`].
    pub fn covers(&self, seq: Seq, digest: Digest, seen: Term) -> bool {
        self.all.iter().any(|repair| repair.covers(seq, digest, seen))
    }

    /// The newest repair at which reading continues if record `unusable` cannot be used: that number is void, or
    /// follows a void number whose object was used although it does not count. `None`: the record is lost, and no
    /// repair names it.
    pub(super) fn resume_point(&self, unusable: Seq) -> Option<Seq> {
        let before = Seq(unusable.0.saturating_sub(1));
        let names = |repair: &&RepairEntry| {
            repair.seq > unusable && repair.void.contains(&unusable)
                || repair.seq >= unusable && repair.void.contains(&before)
        };
        self.all.iter().find(names).map(|repair| repair.seq)
    }

    /// The repairs, the newest first.
    pub fn iter(&self) -> impl Iterator<Item = &RepairEntry> {
        self.all.iter()
    }

    /// The number of the oldest known repair's record.
    pub(super) fn oldest(&self) -> Option<Seq> {
        self.all.last().map(|repair| repair.seq)
    }

    /// Adds a repair if it is older than the others. False: it is not.
    pub(super) fn add_older(&mut self, repair: RepairEntry) -> bool {
        let is_older = self.all.last().is_none_or(|last| repair.seq < last.seq);
        if is_older {
            self.all.push(repair);
        }
        is_older
    }

    /// Adds the repairs that a state remembers, if they are older. Returns whether still older ones may exist.
    pub(super) fn add_remembered(&mut self, remembered: &[RepairEntry]) -> bool {
        let mut added = 0;
        for repair in remembered.iter().rev() {
            added += usize::from(self.add_older(repair.clone()));
        }
        added > 0 && remembered.len() >= REPAIRS_KEPT
    }
}

/// Adds the newest repair to those that a state keeps.
pub(super) fn add(repaired: &mut Vec<RepairEntry>, newest: RepairEntry) {
    repaired.push(newest);
    let too_many = repaired.len().saturating_sub(REPAIRS_KEPT);
    repaired.drain(..too_many);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repair_forgives_what_it_names_to_who_has_not_seen_it() {
        let digest = Digest([1; 32]);
        let lost = LostTail { from: Seq(8), to: Seq(9), digest };
        let repaired = RepairEntry { seq: Seq(8), term: Term(5), void: vec![Seq(3)], lost: Some(lost) };
        assert!(repaired.covers(Seq(3), Digest([2; 32]), Term(4)));
        assert!(repaired.covers(Seq(8), Digest([2; 32]), Term(4)), "the digest of that record is unknown");
        assert!(repaired.covers(Seq(9), digest, Term(4)));
        assert!(!repaired.covers(Seq(9), Digest([2; 32]), Term(4)), "another history");
        assert!(!repaired.covers(Seq(9), digest, Term(5)), "a store that was set back to this repair");
        for seq in [4, 7, 10] {
            assert!(!repaired.covers(Seq(seq), digest, Term(4)), "{seq}");
        }
        let mut kept = Vec::new();
        for seq in 1..40 {
            add(&mut kept, RepairEntry { seq: Seq(seq), ..repaired.clone() });
        }
        assert_eq!((kept.len(), kept[0].seq), (REPAIRS_KEPT, Seq(24)));
    }
}
