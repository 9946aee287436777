//! The protocol of the daemon's socket: lines of JSON, beginning with a request. Both ends are the same program on the
//! same host; a line that is not understood ends the connection.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, RoleName};
use crate::job::backup::request::BackupRequest;
use crate::job::node::progress::ProgressCounts;
use crate::job::report::RoleReport;
use crate::job::whoami::daemon_answer::DaemonRoleStatus;
use crate::role::candidacy::LeaseGrant;
use crate::role::lease::LeaseHolder;

/// Version of the protocol.
pub(super) const VERSION: u32 = 1;

/// Maximum length of a line: a report names at most a thousand problems.
pub(super) const LINE_MAX: usize = 16 << 20;

/// A request.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DaemonRequest {
    pub(super) v: u32,
    #[serde(flatten)]
    pub(super) ask: DaemonRequestKind,
}

/// Kinds of requests.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(super) enum DaemonRequestKind {
    /// Runs a backup now. Answers: progress, then a report. Disconnecting ends the run.
    Backup { role: RoleName, request: BackupRequest },
    /// Asks for this node's ID.
    Node,
    /// Asks for this node's status for each role.
    #[serde(rename = "stands")]
    RoleStatuses,
    /// Borrows the daemon's lease until disconnecting. There is an answer to this line, and to each empty line after
    /// it.
    Lease { role: RoleName },
    /// Has the daemon read the journal now: another process of this node has appended to it. No answer.
    Look { role: RoleName },
}

/// The daemon's answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DaemonResponse {
    /// Progress of the run.
    Progress(ProgressCounts),
    /// Result of the run. `exit` is given if the report alone does not determine the exit code.
    Report { report: Box<RoleReport>, exit: Option<u8> },
    /// ID of this node, as the daemon uses it.
    Node(NodeId),
    /// Status for each role.
    #[serde(rename = "stands")]
    RoleStatuses(BTreeMap<RoleName, DaemonRoleStatus>),
    /// The lease is held, and the borrower may work under it.
    Held(LeaseGrant),
    /// Another process holds the lease.
    Taken(Option<LeaseHolder>),
    /// The state of the lease is unknown, or the lease cannot be lent now.
    Unknown { why: String },
    /// The lease has changed: request again at once. Sent without a request.
    Changed,
    /// The daemon's config has no such role, or the request is of another version.
    Refused { why: String },
}
