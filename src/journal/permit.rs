//! The proof without which nothing is appended: a takeover in the journal, and the deadline of the candidacy it came
//! from.
//!
//! The invariant that lives here: only the journal makes a [`Permit`], for the newest takeover of a view. It makes one
//! when that takeover was just appended ([`Journal::take_over`]), or is this node's own and still the newest
//! ([`Journal::resume`]).
//!
//! [`Journal::take_over`]: crate::journal::reader::Journal::take_over
//! [`Journal::resume`]: crate::journal::reader::Journal::resume
//!
//! Pure.

use crate::ids::{Digest, Term};
use crate::journal::state::RoleHolder;
use crate::role::candidacy::{Candidacy, Deadline};

/// What work that may change the repository must show: the digest of a takeover record, and a deadline. A permit is
/// bound to the record, not to its number: the same number in another history is another permit.
#[derive(Debug, Clone)]
pub struct Permit {
    term: Term,
    takeover: Digest,
    deadline: Deadline,
}

impl Permit {
    pub(in crate::journal) fn new(candidacy: &Candidacy, holder: &RoleHolder) -> Self {
        Self { term: holder.term, takeover: holder.takeover, deadline: candidacy.deadline().clone() }
    }

    /// The fencing token.
    pub fn term(&self) -> Term {
        self.term
    }

    /// The digest of the takeover record to which the permit is bound.
    pub fn takeover(&self) -> Digest {
        self.takeover
    }

    /// The deadline for work.
    pub fn deadline(&self) -> &Deadline {
        &self.deadline
    }
}
