//! The steps before a role does any work: eligibility, the lease, the state of the journal, and the permit. A run that
//! is not admitted ends with a reason.

pub(crate) mod author_check;
pub mod guard;
pub mod lease;
pub mod role_journal;
pub(crate) mod session;
