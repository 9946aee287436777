//! The steps before a role does any work: eligibility, the lease, the state of the journal, and the permit. A run that
//! is not admitted ends with a reason.

pub mod error;
pub mod guard;
pub(crate) mod session;
