//! Other processes of this node that want something of one role's task: a run, or to work under its lease.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::protocol::DaemonResponse;
use crate::ids::RoleName;
use crate::job::admission::guard::BackupRequest;
use crate::job::node::cancel::CancelToken;
use crate::job::node::progress::JobProgress;
use crate::job::report::RoleReport;
use crate::job::whoami::DaemonRoleStatus;
use crate::role::controller::RoleEvent;

/// What another process of this node wants of the role.
#[derive(Debug)]
pub(super) enum RoleCommand {
    /// A run.
    BackUp(RunRequest),
    /// To work under the lease, from now on. Told when something changes about it, gone when nobody listens.
    BorrowLease { tell: mpsc::Sender<()> },
    /// How the lease stands.
    Lease { reply: oneshot::Sender<DaemonResponse> },
    /// Somebody who had entered has gone.
    BorrowerLeft,
    /// Another process of this node has appended to the journal.
    ReadJournal,
    /// How this node stands for the role.
    Status { reply: oneshot::Sender<DaemonRoleStatus> },
}

/// A run that somebody wants.
#[derive(Debug)]
pub(super) struct RunRequest {
    pub(super) request: BackupRequest,
    /// Set when nobody waits for it any more.
    pub(super) cancel: CancelToken,
    pub(super) progress: Arc<JobProgress>,
    pub(super) reply: oneshot::Sender<RunReply>,
}

/// How a run that somebody wanted ended.
#[derive(Debug)]
pub(super) struct RunReply {
    pub(super) report: RoleReport,
    /// The exit code, where the report alone does not tell it.
    pub(super) exit: Option<u8>,
}

/// Those that wait, and those that work under the lease.
#[derive(Debug, Default)]
pub(super) struct RoleClients {
    run_requests: VecDeque<RunRequest>,
    borrowers: Vec<mpsc::Sender<()>>,
    /// How many guests the duty knows of.
    borrowers_reported: usize,
    /// When guests that were told to end are not waited for any more, as boot time.
    borrowers_deadline: Option<Duration>,
}

impl RoleClients {
    /// Somebody wants a run.
    pub(super) fn queue_run(&mut self, wanted: RunRequest) {
        self.run_requests.push_back(wanted);
    }

    /// Whoever has waited longest for a run.
    pub(super) fn next_run(&mut self) -> Option<RunRequest> {
        self.run_requests.pop_front()
    }

    /// Somebody works under the lease from now on.
    pub(super) fn add_borrower(&mut self, guest: mpsc::Sender<()>) {
        self.borrowers.push(guest);
    }

    /// Tells the guests to end, and waits for them until then.
    pub(super) fn end_borrowers(&mut self, until: Duration) {
        self.borrowers_deadline = Some(until);
        for guest in &self.borrowers {
            // One that has not read the last word yet reads it now.
            let _ = guest.try_send(());
        }
    }

    /// When to look again, as boot time, whatever else happens.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.borrowers_deadline
    }

    /// What the duty has to be told before anything else happens; `asked`: it knows that a run is wanted.
    pub(super) fn next_event(&mut self, role: &RoleName, now: Duration, asked: bool) -> Option<RoleEvent> {
        if self.borrowers_deadline.is_some_and(|patience| now >= patience) {
            tracing::warn!("role {role}: a process that works under this one's lease did not end");
            self.borrowers.clear();
        }
        self.borrowers.retain(|guest| !guest.is_closed());
        if self.borrowers.is_empty() {
            self.borrowers_deadline = None;
        }
        if self.borrowers_reported != self.borrowers.len() {
            self.borrowers_reported = self.borrowers.len();
            return Some(RoleEvent::Borrowers(self.borrowers_reported));
        }
        (!self.run_requests.is_empty() && !asked).then_some(RoleEvent::RunRequested)
    }
}
