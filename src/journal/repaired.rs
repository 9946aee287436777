//! What a repair said of the records before it: which are lost, and from where on readers pass them over. Pure.
//!
//! The invariant that lives here: who has seen a repair has its term, so what that repair forgives is forgiven to nobody who remembers
//! something from after it.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, Seq, Term};

/// How many repairs a state remembers, the newest.
const REPAIRS_KEPT: usize = 16;

/// The end of a journal that a store lost, as a node remembers it. Its numbers are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostEnd {
    /// The first number that is lost.
    pub from: Seq,
    /// The last.
    pub to: Seq,
    /// The digest of the record that had the last.
    pub digest: Digest,
}

/// What a repair said of the records before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Repaired {
    /// The number of its record.
    pub seq: Seq,
    /// Its term.
    pub term: Term,
    /// Numbers whose records are lost.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub void: Vec<Seq>,
    /// The end that the store lost.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lost: Option<LostEnd>,
}

impl Repaired {
    /// Whether it says to somebody whose newest record, of term `seen`, had this number and digest, that this record is lost.
    pub fn covers(&self, seq: Seq, digest: Digest, seen: Term) -> bool {
        let at_end = |lost: LostEnd| (lost.from..=lost.to).contains(&seq) && (seq < lost.to || digest == lost.digest);
        seen < self.term && (self.void.contains(&seq) || self.lost.is_some_and(at_end))
    }
}

/// Remembers one more.
pub(super) fn add(repaired: &mut Vec<Repaired>, newest: Repaired) {
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
        let lost = LostEnd { from: Seq(8), to: Seq(9), digest };
        let repaired = Repaired { seq: Seq(8), term: Term(5), void: vec![Seq(3)], lost: Some(lost) };
        assert!(repaired.covers(Seq(3), Digest([2; 32]), Term(4)));
        assert!(repaired.covers(Seq(8), Digest([2; 32]), Term(4)), "nobody knows what that one was");
        assert!(repaired.covers(Seq(9), digest, Term(4)));
        assert!(!repaired.covers(Seq(9), Digest([2; 32]), Term(4)), "another history");
        assert!(!repaired.covers(Seq(9), digest, Term(5)), "a store that was set back to this repair");
        for seq in [4, 7, 10] {
            assert!(!repaired.covers(Seq(seq), digest, Term(4)), "{seq}");
        }
        let mut kept = Vec::new();
        for seq in 1..40 {
            add(&mut kept, Repaired { seq: Seq(seq), ..repaired.clone() });
        }
        assert_eq!((kept.len(), kept[0].seq), (REPAIRS_KEPT, Seq(24)));
    }
}
