//! One guarded backup: back up if this node is active for the role, else end quietly.

use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tracing::{Instrument as _, error_span};

use crate::config::{RoleSettings, Settings, StoreUrl};
use crate::env::Env;
use crate::job::admission::guard::{
    Admission, AdmittedRun, BeginCallback, Precheck, RoleGuard, held_elsewhere, lease_lost, precheck, release,
    run_probes, until_cancelled,
};
use crate::job::admission::role_journal::RoleJournal;
use crate::job::backup::hooks::HookRunner;
use crate::job::backup::outcome::CommittedBackup;
use crate::job::backup::request::{BackupOptions, BackupRequest};
use crate::job::error::{BackupError, GuardError};
use crate::job::node::context::NodeContext;
use crate::job::node::heartbeat::{self, Heartbeat};
use crate::job::node::stall;
use crate::job::node::watchdog::{WatchedRun, run_watched};
use crate::job::report::{ByteCounts, NoCommitReason, RoleReport, RunOutcome};
use crate::journal::error::AppendError;
use crate::repo::pack::PACK_TARGET_BYTES;
use crate::role::candidacy::Candidacy;
use crate::role::lease::keep_alive::LostTo;
use crate::store::counting::RequestCounts;
use crate::store::{Store, StoreError};

impl<'a> RoleGuard<'a> {
    /// Backs up until it is done, or until `lost` reports that another process has the lease.
    pub async fn back_up(
        &self,
        opening: RoleJournal<'a>,
        candidacy: &Candidacy,
        ask: &BackupOptions,
        lost: impl Future<Output = LostTo>,
    ) -> Result<RoleReport, GuardError> {
        let start_by = self.plan.as_ref().and_then(|plan| Some(plan.start_by(plan.slot_at(ask.slot?)?)));
        let cause = heartbeat::HeartbeatSlot { slot: ask.slot, start_by };
        let _beat = Heartbeat::start(self.node_context, self.role, self.repository, cause);
        let mut work = Box::pin(opening.back_up(self.role, candidacy, ask));
        let (result, lost_to) = tokio::select! {
            biased;
            result = &mut work => (result, None),
            to = lost => {
                self.node_context.cancel.cancel();
                ((&mut work).await, Some(to))
            }
        };
        drop(work);
        match (result, lost_to) {
            (Ok(done), _) => Ok(report_of_commit(self.role, done, ask.slot)),
            (Err(BackupError::Interrupted | BackupError::Append(AppendError::Expired)), Some(to)) => {
                // The new holder of the lease may not have appended anything yet; the journal tells whether this run is
                // fenced.
                let opening = RoleJournal::open(self.node_context, self.repository).await?;
                match opening.view().state.holder.clone().filter(|holder| holder.node.id != self.node_context.node.id) {
                    Some(holder) => Err(BackupError::Append(AppendError::Fenced(Box::new(holder))).into()),
                    None => Ok(RoleReport::without_commit(self.role.name.clone(), NoCommitReason::LeaseLost(to))),
                }
            }
            (Err(error), _) => Err(error.into()),
        }
    }
}

impl RoleJournal<'_> {
    /// Backs the role up, as the node that won the election.
    pub async fn back_up(
        self,
        role: &RoleSettings,
        candidacy: &Candidacy,
        ask: &BackupOptions,
    ) -> Result<CommittedBackup, BackupError> {
        let node_context = self.node_context();
        let session = self.take_over(candidacy).await?;
        let hooks = HookRunner::new(node_context, role);
        let (term, deadline) = (session.permit().term(), session.permit().deadline());
        let run = async {
            hooks.on_takeover(term, deadline, &node_context.cancel).await;
            let Some(around) = hooks.open(term, ask.slot).await? else {
                return session.back_up_or_abandon(role, ask).await;
            };
            let result = match around.run_before(deadline).await {
                Ok(()) => session.back_up_or_abandon(role, ask).await,
                Err(error) => Err(error),
            };
            around.run_after(&result).await;
            result
        };
        run.instrument(
            error_span!("run", role = %role.name, term = term.0, slot = ask.slot.map(tracing::field::display)),
        )
        .await
    }
}

/// Maximum number of decisions of one run. Each one after the first follows a record that another process appended
/// before this run could.
const DECISIONS_MAX: u32 = 4;

/// Backs up `role` if this node is active for it. The store is connected to only if the probes do not rule this node
/// out, so a standby whose disk is not mounted stands by like any other.
pub async fn backup(
    node_context: &NodeContext,
    settings: &Settings,
    role: &RoleSettings,
    connect: impl AsyncFnOnce() -> Result<Arc<dyn Store>, StoreError>,
    request: BackupRequest,
    begins: BeginCallback<'_>,
) -> Result<RoleReport, GuardError> {
    // The child token is set by an interrupt of the operator, by the loss of the lease, and by a stall.
    let node_context = &NodeContext { cancel: node_context.cancel.child_token(), ..node_context.clone() };
    let work = back_up(node_context, settings, role, connect, request, begins);
    run_result(run_watched(node_context, stall_limit(role, settings), &|_| {}, work).await)
}

/// How long a run of this role may go without progress.
pub(crate) fn stall_limit(role: &RoleSettings, settings: &Settings) -> Duration {
    stall::stall_limit(role.stall_timeout, settings.store.limit_upload, PACK_TARGET_BYTES)
}

/// The result of a watched run. A run that completed keeps its result even if it was reported as stalled, and so does
/// an error that settles what became of the record.
pub(crate) fn run_result<T>(watched: WatchedRun<Result<T, GuardError>>) -> Result<T, GuardError> {
    let knows = |error: &GuardError| {
        let GuardError::Backup(BackupError::Append(error)) = error else { return false };
        matches!(error, AppendError::Unknown { .. } | AppendError::Fenced(_))
    };
    match (watched.done, watched.stall) {
        (Some(Ok(done)), _) => Ok(done),
        (Some(Err(error)), stall) if stall.is_none() || knows(&error) => Err(error),
        (_, Some(stall)) => Err(BackupError::Stalled(stall).into()),
        (_, None) => unreachable!("only a run that stalled is not waited for"),
    }
}

pub(crate) async fn back_up(
    node_context: &NodeContext,
    settings: &Settings,
    role: &RoleSettings,
    connect: impl AsyncFnOnce() -> Result<Arc<dyn Store>, StoreError>,
    request: BackupRequest,
    begins: BeginCallback<'_>,
) -> Result<RoleReport, GuardError> {
    let started = node_context.env.clock.boottime();
    let ended_early = |report: Box<RoleReport>| {
        let duration = node_context.env.clock.boottime().saturating_sub(started);
        Ok(RoleReport { duration, ..*report })
    };
    let approach = match precheck(node_context, settings, role, connect, request.scheduled).await? {
        Ok(approach) => approach,
        Err(refused) => return ended_early(refused),
    };
    let Precheck { repository, plan, mut assessment, counters } = approach;
    let scheduled = request.scheduled;
    let stays = request.retake_reason();
    // Without probes only the journal says which node has the role, as for a command.
    if stays.is_some()
        && role.eligible.is_none()
        && let Some(refused) = held_elsewhere(node_context, role, &repository).await?
    {
        return ended_early(refused);
    }
    let guard = RoleGuard { node_context, role, repository: &repository, plan, scheduled, retake_reason: stays };
    let mut decisions = 0;
    let report = loop {
        let admitted = match Box::pin(guard.admit(assessment)).await? {
            Admission::Refused(refused) => break *refused,
            Admission::Active(admitted) => admitted,
        };
        let AdmittedRun { opening, candidacy, slot, keep_alive } = *admitted;
        let slot = slot.map(|slot| slot.at);
        let holder = opening.view().state.holder.as_ref().filter(|holder| holder.node.id != node_context.node.id);
        if let Some(holder) = holder
            && slot.is_none()
            && role.eligible.is_none()
            && decisions == 0
        {
            tracing::warn!(
                "role {}: node {} had the role last, and this run takes it over. hint: --require-active leaves the \
                 role there",
                role.name,
                holder.node.name
            );
        }
        begins(opening.view(), slot);
        let ask = BackupOptions { slot, rehash: request.rehash, own_places: own_paths(node_context, settings) };
        let done = Box::pin(guard.back_up(opening, &candidacy, &ask, lease_lost(keep_alive.as_ref()))).await;
        release(keep_alive).await;
        decisions += 1;
        match done {
            // Another process wrote first, without a takeover: the slot may be committed by now, or the role paused.
            Err(GuardError::Backup(BackupError::Append(AppendError::Moved(_)))) if decisions < DECISIONS_MAX => {
                assessment =
                    until_cancelled(node_context, async { Ok(run_probes(node_context, role, slot).await) }).await?;
            }
            done => break done?,
        }
    };
    let duration = node_context.env.clock.boottime().saturating_sub(started);
    Ok(with_measurements(report, duration, &counters.snapshot(), &node_context.env))
}

/// Completes a report with the run's duration, its requests, and the doubt about the clock that dated its records.
pub fn with_measurements(report: RoleReport, duration: Duration, counts: &RequestCounts, env: &Env) -> RoleReport {
    let wrote = report.snapshot.is_some() || report.takeover;
    let clock_doubt = env.clock_doubts.of(&report.role).filter(|_| wrote);
    let uploaded = if report.snapshot.is_some() { counts.bytes_up } else { report.bytes.uploaded };
    let bytes = ByteCounts { uploaded, ..report.bytes };
    RoleReport { duration, requests: counts.requests(), bytes, clock_doubt, ..report }
}

/// Paths of this node's own data: a store in a directory, and the state directory. Both may lie inside a source.
pub fn own_paths(node_context: &NodeContext, settings: &Settings) -> Vec<PathBuf> {
    let store = match &settings.store.url {
        StoreUrl::Dir(path) => Some(path.clone()),
        StoreUrl::S3 { .. } => None,
    };
    store.into_iter().chain([node_context.state_dir.clone()]).filter(|path| path.is_absolute()).collect()
}

fn report_of_commit(role: &RoleSettings, done: CommittedBackup, slot: Option<Timestamp>) -> RoleReport {
    let unchanged = done.previous.as_ref().is_some_and(|p| p.root == done.snapshot.root);
    RoleReport {
        outcome: if unchanged { RunOutcome::Unchanged } else { RunOutcome::Committed },
        snapshot: Some(done.snapshot.id),
        previous: done.previous.map(|p| p.time),
        term: Some(done.snapshot.term),
        slot,
        takeover: done.takeover,
        files: done.files,
        bytes: done.bytes,
        problems: done.problems,
        problem_count: done.problem_count,
        empty_sources: done.empty_sources,
        loss: done.loss,
        ..RoleReport::nothing(role.name.clone(), RunOutcome::Committed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Seq;
    use crate::job::node::stall::RunStall;

    #[test]
    fn what_is_known_of_a_commit_is_not_hidden_by_a_stall() {
        let stall = || Some(RunStall { silent: Duration::from_mins(15), last: None, store_error: None });
        let settled = |done| run_result(WatchedRun { done, stall: stall() }).map_err(|error| error.to_string());
        assert_eq!(settled(Some(Ok(7))), Ok(7), "it is committed");
        let unknown = AppendError::Unknown { seq: Seq(3), why: "no answer".to_owned() };
        let text = unknown.to_string();
        assert_eq!(settled(Some(Err(BackupError::Append(unknown).into()))), Err(text));
        let stalled = Err("made no progress for 15m: it waited for the store".to_owned());
        assert_eq!(settled(Some(Err(BackupError::Interrupted.into()))), stalled);
        assert_eq!(settled(None), stalled);
    }
}
