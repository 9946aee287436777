//! What stands before any work of a role: eligibility, the lease, the state of the journal, and the permit. A run that is not
//! admitted leaves with a reason.

pub mod error;
pub mod guard;
pub mod session;
