//! `audit`: what a role's own journal tells of the past weeks. Slots without a commit, with more than one, or late; holes and
//! breaks; runs that report the same changes again and again; takeovers back and forth.
//!
//! It only looks. The journal is read as `verify` reads it, from a checkpoint before the time in question; the judgement is pure
//! and takes the records one by one, so that memory grows with the slots and not with the journal.

pub(crate) mod account;
pub(crate) mod changes;
pub(crate) mod completeness;
pub(crate) mod ledger;
pub(crate) mod pauses;
pub(crate) mod takeovers;

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::config::RoleSettings;
use crate::job::audit::account::{Account, Period};
use crate::job::audit::ledger::Ledger;
use crate::job::report::audited::{Finding, RoleAudit};
use crate::job::repository::Repository;
use crate::job::verify::found::Found;
use crate::job::verify::{Remembered, VerifyError, history};
use crate::journal::record::Record;
use crate::journal::state::State;
use crate::role::slot::Plan;
use crate::store::Store;

/// How much earlier than asked the journal is entered: clocks differ, and what a run is compared with came before it.
const LEAD: SignedDuration = SignedDuration::from_hours(1);

/// Judges one role's journal. `plan` is its schedule, if it has one.
///
/// # Errors
/// What keeps it from telling anything. What is wrong with the journal is in the report.
pub async fn audit(
    store: Arc<dyn Store>,
    role: &RoleSettings,
    plan: Option<&Plan>,
    (since, now): (Timestamp, Timestamp),
    remembered: Remembered<'_>,
) -> Result<RoleAudit, VerifyError> {
    let repository = Repository::open(store, &role.name, &role.key).await?;
    let known = remembered(repository.keys.repo());
    let mut found = Found::default();
    let extent = history::extent(&repository, known.as_ref()).await?;
    let entered = since.checked_sub(LEAD).unwrap_or(Timestamp::MIN);
    let from = history::checkpoint_before(&repository, &extent, entered).await?;
    let mut account = Account::new(plan, Period { since, now }, from.as_ref(), repository.format.created);
    let mut each = |record: &Record, digest| account.take(record, digest);
    let read = history::read(&repository, known.as_ref(), &extent, from, &mut found, &mut each).await?;
    let audit = account.finish(role.name.clone(), found.into_damages());
    Ok(RoleAudit { records: read.records, ..audit })
}

/// Slots with more than one commit, the last of them in the time from `since` on, as far as a state tells.
pub(crate) fn duplicates(state: &State, since: Timestamp) -> Vec<Finding> {
    Ledger::of_state(state, None).duplicates(since)
}

#[cfg(test)]
mod tests;
