//! The protocol of the daemon's socket: lines of JSON, beginning with a request. Both ends are the same program on the
//! same host; a line that is not understood ends the connection. During an upgrade one end may be of the version before
//! or after this one, so the fields that both know keep their form, and new fields are optional.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::ids::{NodeId, RoleName};
use crate::job::backup::request::BackupRequest;
use crate::job::node::progress::ProgressCounts;
use crate::job::report::{RoleReport, RunReason};
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
    /// Result of the run.
    Report(RunReply),
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

/// Result of a requested run.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RunReply {
    /// The report. Its reason is text, because a client of an earlier version reads no other form.
    report: Box<RoleReport>,
    /// How the client exits, if the report alone does not determine it.
    exit: Option<FailureExit>,
    /// The reason, if the text of the report stands for another form; `None` also if this version does not know the
    /// form.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "known_reason")]
    reason: Option<RunReason>,
}

impl RunReply {
    /// The result; `reason_text` is the text of the report's reason.
    pub(super) fn new(report: RoleReport, exit: Option<FailureExit>, reason_text: Option<String>) -> Self {
        let reason = report.reason.filter(|reason| !matches!(reason, RunReason::Text(_)));
        let report = RoleReport { reason: reason_text.map(RunReason::Text), ..report };
        Self { report: Box::new(report), exit, reason }
    }

    /// The report with its reason, and how the client exits if the report alone does not determine it.
    pub(super) fn into_parts(self) -> (RoleReport, Option<FailureExit>) {
        let reason = self.reason.or(self.report.reason);
        (RoleReport { reason, ..*self.report }, self.exit)
    }
}

/// Reads a reason; `None` if it is one of a later version.
fn known_reason<'de, D: Deserializer<'de>>(reader: D) -> Result<Option<RunReason>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(reader)?).ok())
}

/// How the process that asked for a failed run exits. It is sent as the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "u8", from = "u8")]
pub enum FailureExit {
    /// The run failed.
    Failed,
    /// Wrong usage or config.
    Usage,
    /// This node is not active.
    NotActive,
    /// The result is unknown.
    Unknown,
    /// Another node took the role over.
    Fenced,
    /// The run was interrupted.
    Interrupted,
}

impl From<FailureExit> for u8 {
    fn from(exit: FailureExit) -> Self {
        match exit {
            FailureExit::Failed => 1,
            FailureExit::Usage => 2,
            FailureExit::NotActive => 3,
            FailureExit::Unknown => 4,
            FailureExit::Fenced => 5,
            FailureExit::Interrupted => 130,
        }
    }
}

impl From<u8> for FailureExit {
    /// An unknown code is a failure.
    fn from(code: u8) -> Self {
        match code {
            2 => Self::Usage,
            3 => Self::NotActive,
            4 => Self::Unknown,
            5 => Self::Fenced,
            130 => Self::Interrupted,
            _ => Self::Failed,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::{SignedDuration, Timestamp};
    use serde_json::json;

    use super::*;
    use crate::config::LeaseKind;
    use crate::ids::{InstanceId, Term};
    use crate::job::report::{NoCommitReason, RunOutcome};
    use crate::role::controller::{RoleStatus, YieldReason};
    use crate::role::election::{RolePause, StandbyReason, TakeoverInfo, UnknownReason};
    use crate::role::probe::{ProbeAnswer, ProbeDetail, ProbeResult, ProbeSubject};

    fn role() -> RoleName {
        "app".parse().unwrap()
    }

    fn sent(reply: RunReply) -> Value {
        serde_json::to_value(DaemonResponse::Report(reply)).unwrap()
    }

    fn received(line: &Value) -> (RoleReport, Option<FailureExit>) {
        let Ok(DaemonResponse::Report(reply)) = serde_json::from_str(&line.to_string()) else { panic!("{line}") };
        reply.into_parts()
    }

    fn takeover() -> TakeoverInfo {
        TakeoverInfo {
            node: NodeId([2; 16]),
            label: "west".to_owned(),
            term: Term(7),
            since: Timestamp::UNIX_EPOCH,
            handed_over: Some(Timestamp::UNIX_EPOCH),
            stood_in: false,
        }
    }

    /// Every reason, with every kind of evidence.
    fn reasons() -> Vec<RunReason> {
        let evidence = |subject, detail| ProbeResult {
            subject,
            answer: ProbeAnswer::No,
            detail,
            latency: Duration::from_millis(3),
            answered_at: Duration::from_secs(9),
            fallback: false,
        };
        let evidence = vec![
            evidence(ProbeSubject::Vip("192.0.2.1".parse().unwrap()), ProbeDetail::Absent),
            evidence(
                ProbeSubject::Command(vec!["/bin/false".to_owned()]),
                ProbeDetail::TimedOut { after: Duration::from_secs(10), line: None },
            ),
            evidence(
                ProbeSubject::Http("https://db.example:8008/primary".parse().unwrap()),
                ProbeDetail::Answered { status: 200, body: true },
            ),
            evidence(ProbeSubject::Mounted("/srv".into()), ProbeDetail::NotMounted),
            evidence(ProbeSubject::Unit("app.service".to_owned()), ProbeDetail::NotRun("no systemctl".to_owned())),
        ];
        let holder = LeaseHolder { node: NodeId([1; 16]), label: "east".to_owned(), instance: InstanceId([3; 8]) };
        let pause = RolePause {
            by: "east".to_owned(),
            since: Timestamp::UNIX_EPOCH,
            until: Some(Timestamp::UNIX_EPOCH),
            why: Some("a move".to_owned()),
        };
        let (slot, offset) = (Timestamp::UNIX_EPOCH, SignedDuration::from_mins(-6));
        let standby = [
            StandbyReason::NotListed,
            StandbyReason::NotEligible,
            StandbyReason::Fallback { from: Some(slot) },
            StandbyReason::LeaseTaken(Some(holder.clone())),
            StandbyReason::HandedOver { to: takeover(), until: slot },
        ];
        let unknown = [
            UnknownReason::Probes,
            UnknownReason::Journal,
            UnknownReason::Lease(LeaseKind::Bucket),
            UnknownReason::Clock { offset },
        ];
        let statuses = [
            RoleStatus::Active { term: Some(Term(7)) },
            RoleStatus::Candidate,
            RoleStatus::Standby(StandbyReason::NotListed),
            RoleStatus::Unknown(UnknownReason::Probes),
            RoleStatus::Conflict(takeover()),
            RoleStatus::Paused(pause.clone()),
            RoleStatus::Cloned,
            RoleStatus::Away(YieldReason::Stalled { blocked: true }),
            RoleStatus::Away(YieldReason::Crowded),
        ];
        let refused = |status| RunReason::Refused { status, evidence: evidence.clone() };
        let no_commit = [
            NoCommitReason::LeaseUnknown { lease: LeaseKind::Etcd, why: "no answer".to_owned() },
            NoCommitReason::Conflict { holder: "west".to_owned() },
            NoCommitReason::SlotCommitted { slot },
            NoCommitReason::NothingDue,
            NoCommitReason::CommandRunning { pid: Some("42".to_owned()) },
            NoCommitReason::AlreadyRunning { pid: None },
            NoCommitReason::HeldBy { holder: "west".to_owned() },
            NoCommitReason::Cloned,
            NoCommitReason::Paused(pause),
            NoCommitReason::LeaseLost(Some(holder)),
            NoCommitReason::ClockOff { offset },
        ];
        let standby = standby.map(|reason| NoCommitReason::Standby(reason, evidence.clone()));
        let unknown = unknown.map(|reason| NoCommitReason::Unknown(reason, evidence.clone()));
        let no_commit = standby.into_iter().chain(unknown).chain(no_commit).map(RunReason::NoCommit);
        no_commit.chain(statuses.map(Some).map(refused)).chain([refused(None)]).collect()
    }

    #[test]
    fn every_reason_arrives_as_it_was_sent_with_its_text_for_earlier_clients() {
        for reason in reasons() {
            let report =
                RoleReport { reason: Some(reason.clone()), ..RoleReport::nothing(role(), RunOutcome::Standby) };
            let line = sent(RunReply::new(report, None, Some("words".to_owned())));
            assert_eq!(line["report"]["report"]["reason"], "words", "{reason:?}");
            assert_eq!(received(&line).0.reason, Some(reason));
        }
    }

    #[test]
    fn the_text_stands_for_a_reason_of_another_version() {
        let report = RoleReport::without_commit(role(), NoCommitReason::NothingDue);
        let mut line = sent(RunReply::new(report, None, Some("words".to_owned())));
        let text = Some(RunReason::Text("words".to_owned()));
        line["report"]["reason"] = json!({ "no_commit": { "not_known_here": 3 } });
        assert_eq!(received(&line).0.reason, text, "of a later version");
        line["report"].as_object_mut().unwrap().remove("reason");
        assert_eq!(received(&line).0.reason, text, "of an earlier version");
    }

    #[test]
    fn an_error_is_sent_as_text_with_the_exit_code() {
        let text = Some(RunReason::Text("no space".to_owned()));
        let report = RoleReport { reason: text.clone(), ..RoleReport::nothing(role(), RunOutcome::Failed) };
        let line = sent(RunReply::new(report, Some(FailureExit::Interrupted), Some("no space".to_owned())));
        assert_eq!((&line["report"]["exit"], line["report"].get("reason")), (&json!(130), None));
        let (report, exit) = received(&line);
        assert_eq!((report.reason, exit), (text, Some(FailureExit::Interrupted)));
    }

    #[test]
    fn every_exit_keeps_its_code() {
        for code in [1, 2, 3, 4, 5, 130_u8] {
            assert_eq!(u8::from(FailureExit::from(code)), code);
        }
        assert_eq!(FailureExit::from(99), FailureExit::Failed);
    }
}
