//! A one-shot run: what a process does around one guarded run, from cron, a timer or a shell. A node's daemon does the
//! backup in its place.
//!
//! A node that stands by may be the only one that is still alive. So its scheduled runs look at the journal for missed
//! slots, although they have nothing to back up; and a run that failed publishes that to the other nodes.

use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;

use crate::config::{RoleSettings, Settings};
use crate::daemon::client::{ClientError, DaemonClient};
use crate::ids::{NodeId, RoleName};
use crate::job::admission::guard;
use crate::job::backup::hooks::HookRunner;
use crate::job::backup::request::BackupRequest;
use crate::job::backup::run;
use crate::job::error::{BackupError, GuardError};
use crate::job::node::context::NodeContext;
use crate::job::report::{NoCommitReason, RoleReport, RunOutcome};
use crate::journal::error::AppendError;
use crate::journal::view::JournalView;
use crate::outage::no_answer_text;
use crate::store::{Store, StoreError};

/// How long the store may take for what follows a run. The run's result does not depend on it.
const FOLLOW_UP_PATIENCE: Duration = Duration::from_secs(5);

/// Where a one-shot backup runs.
#[derive(Debug)]
pub enum BackupPlace {
    /// In the daemon of this node, because it has the role's lease.
    Daemon(DaemonClient),
    /// In this process.
    ThisProcess,
}

/// Why it is not known where a one-shot backup runs.
#[derive(Debug, thiserror::Error)]
pub enum BackupPlaceError {
    /// There may be a daemon, and it cannot be connected to.
    #[error(transparent)]
    Daemon(#[from] ClientError),
    /// The daemon has no slot to run the backup for.
    #[error("role {role} has no schedule")]
    NoSchedule {
        /// Role that has no schedule.
        role: RoleName,
    },
}

impl BackupPlace {
    /// The place for this request. A daemon backs up what its config names, so a backup of other sources
    /// (`has_own_sources`) runs in this process, and no daemon is looked for.
    ///
    /// # Errors
    /// The daemon cannot be connected to, or the request names a slot and the role has none.
    pub async fn find(
        runtime_dir: &Path,
        role: &RoleSettings,
        request: BackupRequest,
        has_own_sources: bool,
    ) -> Result<Self, BackupPlaceError> {
        if has_own_sources {
            return Ok(Self::ThisProcess);
        }
        match DaemonClient::find(runtime_dir).await? {
            Some(_) if request.scheduled && role.schedule.is_none() => {
                Err(BackupPlaceError::NoSchedule { role: role.name.clone() })
            }
            Some(daemon) => Ok(Self::Daemon(daemon)),
            None => Ok(Self::ThisProcess),
        }
    }
}

/// Connects to the role's store.
pub type ConnectStore<'c, 'f> = &'c (dyn Fn() -> BoxFuture<'f, Result<Arc<dyn Store>, StoreError>> + Send + Sync + 'c);

/// What a one-shot run reports while it goes on.
pub trait OneshotObserver: Send + Sync {
    /// It is certain that a run begins. The journal is that before the run.
    fn run_begins(&self, view: &JournalView, slot: Option<Timestamp>);

    /// The run ended without an error.
    fn run_ended(&self, report: &RoleReport);

    /// The run ended with an error.
    fn run_failed(&self, error: &GuardError);

    /// Whether missed slots are reported to anyone.
    fn reports_missed_slots(&self) -> bool;

    /// The journal, in which missed slots can be seen.
    fn journal_read(&self, view: &JournalView);

    /// The journal could not be read for missed slots.
    fn journal_unread(&self, why: &str);
}

/// What follows a one-shot run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OneshotFollowUp {
    /// The failure is published to the other nodes.
    pub publish_failure: bool,
    /// The journal is read for missed slots.
    pub check_missed_slots: bool,
}

impl OneshotFollowUp {
    /// After a run without an error.
    pub fn of_outcome(scheduled: bool, report: &RoleReport) -> Self {
        #[cfg(feature = "planted")]
        let scheduled = scheduled && !crate::planted::is(crate::planted::PlantedBug::StandbyIgnoresMissedSlots);
        Self { publish_failure: false, check_missed_slots: scheduled && is_idle(report) }
    }

    /// After a run with an error.
    pub fn of_error(error: &GuardError) -> Self {
        Self::of_failure(error.is_run_failure())
    }

    /// After a run of an active node. `publish_failure`: it failed, and the journal does not show it.
    pub fn of_failure(publish_failure: bool) -> Self {
        Self { publish_failure, check_missed_slots: false }
    }
}

/// Whether a run found nothing to do for this node.
fn is_idle(report: &RoleReport) -> bool {
    let is_left_alone =
        |reason: &NoCommitReason| matches!(reason, NoCommitReason::Paused(_) | NoCommitReason::AlreadyRunning { .. });
    matches!(report.outcome, RunOutcome::Standby | RunOutcome::Unknown)
        || report.no_commit_reason().is_some_and(is_left_alone)
}

/// Whether a run found that the role belongs to another node.
fn is_elsewhere(done: &Result<RoleReport, GuardError>, node: NodeId) -> bool {
    match done {
        Ok(report) => match report.no_commit_reason() {
            Some(NoCommitReason::Standby(reason, _)) => reason.is_elsewhere(node),
            _ => report.outcome == RunOutcome::Standby,
        },
        Err(error) => matches!(error, GuardError::Backup(BackupError::Append(AppendError::Fenced(_)))),
    }
}

/// Backs the role up if this node is active for it: hooks that a killed run left open are closed before, and `on_lost`
/// runs afterwards if another node has the role.
///
/// # Errors
/// The run failed.
pub fn back_up<'a, 'f: 'a>(
    node_context: &'a NodeContext,
    settings: &'a Settings,
    role: &'a RoleSettings,
    connect: ConnectStore<'a, 'f>,
    request: BackupRequest,
    observer: &'a dyn OneshotObserver,
) -> BoxFuture<'a, Result<RoleReport, GuardError>> {
    Box::pin(async move {
        let hooks = HookRunner::new(node_context, role);
        hooks.recover().await;
        let begins = |view: &JournalView, slot| observer.run_begins(view, slot);
        let done =
            Box::pin(run::backup(node_context, settings, role, async move || connect().await, request, &begins)).await;
        node_context.leases.close().await;
        let next = match &done {
            Ok(report) => {
                observer.run_ended(report);
                OneshotFollowUp::of_outcome(request.scheduled, report)
            }
            Err(error) => {
                observer.run_failed(error);
                OneshotFollowUp::of_error(error)
            }
        };
        if is_elsewhere(&done, node_context.node.id) {
            hooks.on_lost(role.hooks.timeout).await;
        }
        follow_up(node_context, role, connect, observer, next).await;
        done
    })
}

/// Does what follows a one-shot run.
pub async fn follow_up(
    node_context: &NodeContext,
    role: &RoleSettings,
    connect: ConnectStore<'_, '_>,
    observer: &dyn OneshotObserver,
    next: OneshotFollowUp,
) {
    let env = &node_context.env;
    let connected: OnceLock<Arc<dyn Store>> = OnceLock::new();
    let connect = async move |connected: &OnceLock<Arc<dyn Store>>| -> Result<Arc<dyn Store>, GuardError> {
        let store = connect().await?;
        Ok(Arc::clone(connected.get_or_init(|| store)))
    };
    let unanswered = || {
        let attempt_error = connected.get().and_then(|store| store.last_attempt_error());
        format!("the store: {}", no_answer_text(FOLLOW_UP_PATIENCE, attempt_error.as_deref()))
    };
    if next.publish_failure {
        // Nothing depends on it, and a store that did not take the run may not take this either.
        let publish = async {
            let store = connect(&connected).await?;
            guard::announce(node_context, role, async move || Ok(store)).await
        };
        let error = match env.timeout(FOLLOW_UP_PATIENCE, Box::pin(publish)).await {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(error.to_string()),
            None => Some(unanswered()),
        };
        if let Some(error) = error {
            tracing::debug!("the failure cannot be published to the other nodes: {error}");
        }
    }
    if next.check_missed_slots && observer.reports_missed_slots() {
        let read = async {
            let store = connect(&connected).await?;
            guard::read_view(node_context, role, async move || Ok(store)).await
        };
        match env.timeout(FOLLOW_UP_PATIENCE, Box::pin(read)).await {
            Some(Ok(view)) => observer.journal_read(&view),
            Some(Err(error)) => observer.journal_unread(&error.to_string()),
            None => observer.journal_unread(&unanswered()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;
    use crate::config::{KeySource, Schedule};
    use crate::daemon::socket;
    use crate::job::local_state::LockError;
    use crate::role::election::{RolePause, StandbyReason};

    fn report(outcome: RunOutcome) -> RoleReport {
        RoleReport::nothing("app".parse().unwrap(), outcome)
    }

    fn without_commit(reason: NoCommitReason) -> RoleReport {
        RoleReport::without_commit("app".parse().unwrap(), reason)
    }

    #[test]
    fn only_a_scheduled_run_that_had_nothing_to_do_checks_missed_slots() {
        let checks = |scheduled, report: RoleReport| {
            let next = OneshotFollowUp::of_outcome(scheduled, &report);
            assert!(!next.publish_failure);
            next.check_missed_slots
        };
        let pause = RolePause { by: "east".to_owned(), since: Timestamp::UNIX_EPOCH, until: None, why: None };
        assert!(checks(true, without_commit(NoCommitReason::HeldBy { holder: "west".to_owned() })));
        assert!(checks(true, report(RunOutcome::Unknown)));
        assert!(checks(true, without_commit(NoCommitReason::Paused(pause))));
        assert!(checks(true, without_commit(NoCommitReason::AlreadyRunning { pid: None })));
        assert!(!checks(true, without_commit(NoCommitReason::NothingDue)));
        assert!(!checks(true, report(RunOutcome::Committed)), "it has read the journal itself");
        assert!(!checks(false, report(RunOutcome::Standby)), "a person sees the outcome");
    }

    #[test]
    fn only_a_failed_run_is_published() {
        let next = |error: BackupError| OneshotFollowUp::of_error(&GuardError::Backup(error));
        let published = OneshotFollowUp { publish_failure: true, check_missed_slots: false };
        assert_eq!(next(BackupError::Pruned), published);
        let ended = OneshotFollowUp { publish_failure: false, check_missed_slots: false };
        assert_eq!(next(BackupError::Interrupted), ended);
        assert_eq!(next(BackupError::Lock(LockError::Busy { pid: None })), ended);
    }

    #[tokio::test]
    async fn the_daemon_of_this_node_backs_up_the_sources_of_its_config() {
        let dir = tempfile::tempdir().unwrap();
        let mut role = RoleSettings::new("app".parse().unwrap(), KeySource::None, vec!["/srv".into()]);
        let slot = BackupRequest { scheduled: true, ..BackupRequest::default() };
        let find = async |role: &RoleSettings, request, has_own_sources| {
            BackupPlace::find(dir.path(), role, request, has_own_sources).await
        };
        assert!(matches!(find(&role, slot, false).await, Ok(BackupPlace::ThisProcess)), "the run itself refuses");
        let _listener = UnixListener::bind(socket::socket_path(dir.path())).unwrap();
        assert!(matches!(find(&role, slot, true).await, Ok(BackupPlace::ThisProcess)));
        assert!(matches!(find(&role, slot, false).await, Err(BackupPlaceError::NoSchedule { .. })));
        assert!(matches!(find(&role, BackupRequest::default(), false).await, Ok(BackupPlace::Daemon(_))));
        role.schedule = Some(Schedule::Every(Duration::from_hours(1)));
        assert!(matches!(find(&role, slot, false).await, Ok(BackupPlace::Daemon(_))));
    }

    #[test]
    fn a_role_is_elsewhere_only_if_another_node_is_known_to_have_it() {
        let node = NodeId([1; 16]);
        assert!(is_elsewhere(&Ok(report(RunOutcome::Standby)), node));
        assert!(!is_elsewhere(&Ok(report(RunOutcome::Unknown)), node));
        let free = NoCommitReason::Standby(StandbyReason::LeaseTaken(None), Vec::new());
        assert_eq!(is_elsewhere(&Ok(without_commit(free)), node), StandbyReason::LeaseTaken(None).is_elsewhere(node));
        assert!(!is_elsewhere(&Err(GuardError::Backup(BackupError::Interrupted)), node));
    }
}
