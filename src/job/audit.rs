//! `audit`: examines a role's own journal for the past weeks. Findings are slots without a commit, with more than one,
//! or late; holes and breaks; runs that report the same changes again and again; takeovers back and forth.
//!
//! It changes nothing. The journal is read as `verify` reads it, from a checkpoint before the period; the judgement is
//! pure and takes the records one by one, so that memory grows with the slots and not with the journal.

pub(crate) mod account;
pub(crate) mod completeness;
pub(crate) mod flapping;
pub(crate) mod ledger;
pub(crate) mod repetition;

use std::path::Path;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use crate::config::RoleSettings;
use crate::env::Env;
use crate::ids::NodeId;
use crate::job::audit::account::{AuditPeriod, JournalAudit};
use crate::job::audit::completeness::EmptySourceStreak;
use crate::job::audit::ledger::SlotLedger;
use crate::job::backup::empty_sources;
use crate::job::health::RunningBackup;
use crate::job::local_state::run_failure::{self, RunFailure};
use crate::job::node::presence::{self, LivePeers};
use crate::job::node::run_failure_file::RunFailureFile;
use crate::job::report::audited::{AuditFinding, AuditReport};
use crate::job::report::run_summary::RunSummary;
use crate::job::repository::open::Repository;
use crate::job::verify::damage_log::DamageLog;
use crate::job::verify::error::VerifyError;
use crate::job::verify::{RememberedView, history};
use crate::journal::body::WriterNode;
use crate::journal::record::Record;
use crate::journal::state::JournalState;
use crate::role::slot::SlotSchedule;
use crate::store::Store;

/// How much earlier than the period the reading begins: clocks differ, and the first runs are compared with earlier
/// ones.
const LEAD: SignedDuration = SignedDuration::from_hours(1);

/// Judges one role's journal. `plan` is its schedule, if it has one.
///
/// # Errors
/// An error that prevents the audit. Damage of the journal is in the report.
pub async fn audit(
    store: Arc<dyn Store>,
    role: &RoleSettings,
    plan: Option<&SlotSchedule>,
    (since, now): (Timestamp, Timestamp),
    remembered: RememberedView<'_>,
) -> Result<AuditReport, VerifyError> {
    audit_here(store, role, plan, (since, now), remembered, None).await
}

/// The node that runs the audit: it knows of runs that left no trace in the journal.
#[derive(Debug, Clone, Copy)]
pub struct AuditingNode<'a> {
    /// Clock, file system and randomness of the host.
    pub env: &'a Env,
    /// This node's state directory, if it has one.
    pub state_dir: Option<&'a Path>,
    /// This node's ID; `None`: it never took part in the role.
    pub node: Option<NodeId>,
    /// This node's label.
    pub label: &'a str,
    /// The last failed run as reported by the daemon, which may not have been able to write it to disk.
    pub reported_failure: Option<&'a RunFailure>,
    /// Why the state directory is not writable.
    pub unwritable: Option<&'a str>,
}

impl AuditingNode<'_> {
    /// Whether this node holds the role. If its ID is unknown, the label decides.
    fn holds(&self, state: &JournalState) -> bool {
        let is_own = |node: &WriterNode| self.node.map_or(node.name == self.label, |own| node.id == own);
        state.holder.as_ref().is_some_and(|holder| is_own(&holder.node))
    }
}

/// As [`audit`], with the failed runs that the `looker` knows of, both its own and those reported by other nodes: the
/// present is judged as `whoami` judges it.
///
/// # Errors
/// The errors of [`audit`].
pub async fn audit_here(
    store: Arc<dyn Store>,
    role: &RoleSettings,
    plan: Option<&SlotSchedule>,
    (since, now): (Timestamp, Timestamp),
    remembered: RememberedView<'_>,
    looker: Option<AuditingNode<'_>>,
) -> Result<AuditReport, VerifyError> {
    let repository = Repository::open(store, &role.name, &role.key).await?;
    let known = remembered(repository.keys.repo());
    let mut found = DamageLog::default();
    let extent = history::find_extent(&repository, known.as_ref()).await?;
    let entered = since.checked_sub(LEAD).unwrap_or(Timestamp::MIN);
    let from = history::checkpoint_before(&repository, &extent, entered).await?;
    let mut account = JournalAudit::new(plan, AuditPeriod { since, now }, from.as_ref(), repository.format.created);
    let mut each = |record: &Record, digest| account.add_record(record, digest);
    let read = history::read(&repository, known.as_ref(), &extent, from, &mut found, &mut each).await?;
    account.scheduled(read.state.last_scheduled());
    if let Some(looker) = looker {
        let (failures, under_way) = unrecorded(&repository, &looker, now).await;
        account.add_unrecorded_runs(failures, under_way.as_ref());
    }
    let unwritable = looker.filter(|looker| looker.holds(&read.state)).and_then(|looker| looker.unwritable);
    let unwritable = unwritable.map(|why| AuditFinding::StateUnwritable { why: why.to_owned() });
    let empty = account.empty_sources.take().and_then(|EmptySourceStreak { first, last, snapshot, runs, marks }| {
        let empty = empty_sources::empty_sources(Some(&marks), role, &repository.keys)?;
        Some(AuditFinding::EmptySources { first, last, snapshot, runs, empty })
    });
    let seen = unwritable.into_iter().chain(empty);
    let audit = account.finish(role.name.clone(), seen, found.into_damages());
    Ok(AuditReport { records: read.records, ..audit })
}

/// The failed runs and the running backups that the looker knows of.
async fn unrecorded(
    repository: &Repository,
    looker: &AuditingNode<'_>,
    now: Timestamp,
) -> (Vec<RunSummary>, Option<RunningBackup>) {
    let role = repository.role();
    let kept = looker.state_dir.and_then(|dir| RunFailureFile::at(looker.env, dir, role).load());
    let own = kept.into_iter().chain(looker.reported_failure.cloned()).max_by_key(|failure| failure.time);
    let me = looker.node.unwrap_or(NodeId([0; NodeId::LEN]));
    let told = presence::read_live_peers(repository, me, now).await.unwrap_or_else(|error| {
        tracing::warn!("role {role}: it is unknown whether runs of other nodes failed or are still running: {error}");
        LivePeers::default()
    });
    (run_failure::known_failures(own, looker.label, &told.peers, Some(&repository.keys)), told.under_way)
}

/// Slots with more than one commit, the last of them at or after `since`, as far as the state has them.
pub(crate) fn duplicates(state: &JournalState, since: Timestamp) -> Vec<AuditFinding> {
    SlotLedger::of_state(state, None).duplicates(since)
}

#[cfg(test)]
mod tests;
