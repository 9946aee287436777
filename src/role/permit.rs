//! Proof, in types, that the election agreed.

use std::time::Duration;

use crate::ids::{Digest, RoleName, Term};

/// The election's word that this node may take over a role now. Only the role room makes one.
#[derive(Debug, Clone)]
pub struct Candidacy {
    role: RoleName,
    deadline: Option<Duration>,
}

impl Candidacy {
    /// `deadline`: the boot time at which work must have stopped; `None` where only the journal excludes others.
    pub(in crate::role) fn new(role: RoleName, deadline: Option<Duration>) -> Self {
        Self { role, deadline }
    }

    /// The role it is about.
    pub fn role(&self) -> &RoleName {
        &self.role
    }

    /// The permit that the takeover record with this digest gives. The journal calls it when that record is in.
    pub fn permit(&self, term: Term, takeover: Digest) -> Permit {
        Permit { role: self.role.clone(), term, takeover, deadline: self.deadline }
    }
}

/// What work that may change the repository must show: role, digest of the takeover record, deadline. Bound to the
/// record, not to its number: the same number in another history is another permit.
#[derive(Debug, Clone)]
pub struct Permit {
    role: RoleName,
    term: Term,
    takeover: Digest,
    deadline: Option<Duration>,
}

impl Permit {
    /// The role it is for.
    pub fn role(&self) -> &RoleName {
        &self.role
    }

    /// The fencing token.
    pub fn term(&self) -> Term {
        self.term
    }

    /// The takeover record it is bound to.
    pub fn takeover(&self) -> Digest {
        self.takeover
    }

    /// Whether the deadline has passed at this boot time.
    pub fn expired(&self, boottime: Duration) -> bool {
        self.deadline.is_some_and(|deadline| boottime >= deadline)
    }
}
