//! Other processes of this node that want something of one role's task: a run, or to work under its lease.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::message::DaemonResponse;
use crate::ids::RoleName;
use crate::job::cancel::CancelToken;
use crate::job::guard::BackupRequest;
use crate::job::progress::JobProgress;
use crate::job::report::RoleReport;
use crate::job::whoami::DaemonRoleStatus;
use crate::role::duty::RoleEvent;

/// What another process of this node wants of the role.
#[derive(Debug)]
pub(super) enum RoleCommand {
    /// A run.
    BackUp(RunRequest),
    /// To work under the lease, from now on. Told when something changes about it, gone when nobody listens.
    Enter { tell: mpsc::Sender<()> },
    /// How the lease stands.
    Lease { reply: oneshot::Sender<DaemonResponse> },
    /// Somebody who had entered has gone.
    Left,
    /// Another process of this node has appended to the journal.
    Look,
    /// How this node stands for the role.
    Stand { reply: oneshot::Sender<DaemonRoleStatus> },
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
    wanted: VecDeque<RunRequest>,
    guests: Vec<mpsc::Sender<()>>,
    /// How many guests the duty knows of.
    counted: usize,
    /// When guests that were told to end are not waited for any more, as boot time.
    patience: Option<Duration>,
}

impl RoleClients {
    /// Somebody wants a run.
    pub(super) fn want(&mut self, wanted: RunRequest) {
        self.wanted.push_back(wanted);
    }

    /// Whoever has waited longest for a run.
    pub(super) fn next(&mut self) -> Option<RunRequest> {
        self.wanted.pop_front()
    }

    /// Somebody works under the lease from now on.
    pub(super) fn enter(&mut self, guest: mpsc::Sender<()>) {
        self.guests.push(guest);
    }

    /// Tells the guests to end, and waits for them until then.
    pub(super) fn dismiss(&mut self, until: Duration) {
        self.patience = Some(until);
        for guest in &self.guests {
            // One that has not read the last word yet reads it now.
            let _ = guest.try_send(());
        }
    }

    /// When to look again, as boot time, whatever else happens.
    pub(super) fn patience(&self) -> Option<Duration> {
        self.patience
    }

    /// What the duty has to be told before anything else happens; `asked`: it knows that a run is wanted.
    pub(super) fn news(&mut self, role: &RoleName, now: Duration, asked: bool) -> Option<RoleEvent> {
        if self.patience.is_some_and(|patience| now >= patience) {
            tracing::warn!("role {role}: a process that works under this one's lease did not end");
            self.guests.clear();
        }
        self.guests.retain(|guest| !guest.is_closed());
        if self.guests.is_empty() {
            self.patience = None;
        }
        if self.counted != self.guests.len() {
            self.counted = self.guests.len();
            return Some(RoleEvent::Guests(self.counted));
        }
        (!self.wanted.is_empty() && !asked).then_some(RoleEvent::Wanted)
    }
}
