//! Clients of one role's task: other processes of this node that request a run, or borrow its lease.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::protocol::{DaemonResponse, RunReply};
use crate::ids::RoleName;
use crate::job::backup::request::BackupRequest;
use crate::job::node::progress::JobProgress;
use crate::job::whoami::daemon_answer::DaemonRoleStatus;
use crate::role::controller::RoleEvent;

/// A command from another process of this node.
#[derive(Debug)]
pub(super) enum RoleCommand {
    /// Requests a run.
    BackUp(RunRequest),
    /// Registers a lease borrower. `tell` signals each change of the lease, and is closed when the borrower
    /// disconnects.
    BorrowLease { tell: mpsc::Sender<()> },
    /// Requests the state of the lease.
    Lease { reply: oneshot::Sender<DaemonResponse> },
    /// A borrower has disconnected.
    BorrowerLeft,
    /// Another process of this node has appended to the journal.
    ReadJournal,
    /// Requests this node's status for the role.
    Status { reply: oneshot::Sender<DaemonRoleStatus> },
}

/// A requested run.
#[derive(Debug)]
pub(super) struct RunRequest {
    pub(super) request: BackupRequest,
    /// Set when the client has disconnected.
    pub(super) cancel: CancellationToken,
    pub(super) progress: Arc<JobProgress>,
    pub(super) reply: oneshot::Sender<RunReply>,
}

/// The run requests that wait, and the lease borrowers.
#[derive(Debug, Default)]
pub(super) struct RoleClients {
    run_requests: VecDeque<RunRequest>,
    borrowers: Vec<mpsc::Sender<()>>,
    /// Number of borrowers that the role controller knows of.
    borrowers_reported: usize,
    /// Boot time after which borrowers that were asked to end are no longer waited for.
    borrowers_deadline: Option<Duration>,
}

impl RoleClients {
    /// Queues a run request.
    pub(super) fn queue_run(&mut self, wanted: RunRequest) {
        self.run_requests.push_back(wanted);
    }

    /// Takes the oldest run request.
    pub(super) fn next_run(&mut self) -> Option<RunRequest> {
        self.run_requests.pop_front()
    }

    /// Adds a lease borrower.
    pub(super) fn add_borrower(&mut self, borrower: mpsc::Sender<()>) {
        self.borrowers.push(borrower);
    }

    /// Asks the borrowers to end, and waits for them until the boot time `until`.
    pub(super) fn end_borrowers(&mut self, until: Duration) {
        self.borrowers_deadline = Some(until);
        for borrower in &self.borrowers {
            // If the channel is full, the borrower has an unread signal already, which is enough.
            let _ = borrower.try_send(());
        }
    }

    /// Boot time at which the task must check the borrowers again.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.borrowers_deadline
    }

    /// The next event for the role controller; `asked` tells that it knows of a run request already.
    pub(super) fn next_event(&mut self, role: &RoleName, now: Duration, asked: bool) -> Option<RoleEvent> {
        if self.borrowers_deadline.is_some_and(|patience| now >= patience) {
            tracing::warn!("role {role}: a process that works under this daemon's lease did not end");
            self.borrowers.clear();
        }
        self.borrowers.retain(|borrower| !borrower.is_closed());
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
