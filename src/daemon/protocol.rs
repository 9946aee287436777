//! What is said over the daemon's socket: lines of JSON, a question first. Both ends are the same program on the same host; a
//! line that is not understood ends the conversation.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{NodeId, RoleName};
use crate::job::admission::guard::BackupRequest;
use crate::job::node::progress::ProgressCounts;
use crate::job::report::RoleReport;
use crate::job::whoami::DaemonRoleStatus;
use crate::role::lease::LeaseHolder;
use crate::role::permit::LeaseGrant;

/// The version of these lines.
pub(super) const VERSION: u32 = 1;

/// The longest line that is read: a report names at most a thousand problems.
pub(super) const LINE_MAX: usize = 16 << 20;

/// The question.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DaemonRequest {
    pub(super) v: u32,
    #[serde(flatten)]
    pub(super) ask: DaemonRequestKind,
}

/// What is asked for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub(super) enum DaemonRequestKind {
    /// A run now. Answers: progress, then a report. Hanging up ends the run.
    Backup { role: RoleName, request: BackupRequest },
    /// Who this node is.
    Node,
    /// How it stands for each role.
    Stands,
    /// To work under the daemon's lease, until hanging up. An answer to this line, and to each empty line after it.
    Lease { role: RoleName },
    /// To look at the journal now: another process of this node has appended to it. No answer.
    Look { role: RoleName },
}

/// The daemon's lines.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum DaemonResponse {
    /// How far the run is.
    Progress(ProgressCounts),
    /// How it ended. `exit` is there where the report alone does not tell the exit code.
    Report { report: Box<RoleReport>, exit: Option<u8> },
    /// This node, as the daemon works as it.
    Node(NodeId),
    /// How it stands.
    Stands(BTreeMap<RoleName, DaemonRoleStatus>),
    /// The lease is held, and whoever asked may work under it.
    Held(LeaseGrant),
    /// Another process holds it.
    Taken(Option<LeaseHolder>),
    /// It cannot be told, or not now.
    Unknown { why: String },
    /// Something has changed about the lease: ask again at once. Comes unasked.
    Changed,
    /// There is no such role in the daemon's config, or the question is of another version.
    Refused { why: String },
}
