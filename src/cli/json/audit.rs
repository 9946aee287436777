//! `audit`.

use serde_json::{Value, json};

use super::{document, utc};
use crate::cli::render::audited::RoleAuditResult;
use crate::job::report::audited::{AuditFinding, AuditNote, IncompleteStreak, SnapshotStreak};

/// The document: each role with its findings, or with the error that prevented its audit.
pub fn report(all: &[RoleAuditResult]) -> String {
    document(json!({ "roles": all.iter().map(role).collect::<Vec<_>>() }))
}

fn role(audited: &RoleAuditResult) -> Value {
    let mut value = json!({
        "role": audited.role, "since": utc(audited.since), "records": null, "slots": null, "nodes": [], "findings": [],
        "finding_count": 0, "notes": [], "error": null,
    });
    match &audited.result {
        Ok(audit) => {
            value["records"] = json!(audit.records);
            value["slots"] = json!(audit.slots);
            value["nodes"] = json!(audit.nodes);
            value["findings"] = audit.findings.iter().map(finding).collect();
            value["finding_count"] = json!(audit.finding_count);
            value["notes"] = audit.notes.iter().map(note).collect();
        }
        Err(why) => value["error"] = json!(why),
    }
    value
}

fn finding(finding: &AuditFinding) -> Value {
    match finding {
        AuditFinding::Failed(run) => {
            let mut value = super::whoami::last_run(run);
            value["kind"] = json!("failed");
            value
        }
        AuditFinding::StateUnwritable { why } => json!({ "kind": "state_unwritable", "detail": why }),
        AuditFinding::Missed { first, last, count, attempts } => json!({
            "kind": "missed", "first": utc(*first), "last": utc(*last), "count": count, "attempts": attempts,
        }),
        AuditFinding::ScheduleMissing { last } => json!({ "kind": "schedule_missing", "last": utc(*last) }),
        AuditFinding::Late { slot, commit } => json!({ "kind": "late", "slot": utc(*slot), "commit": commit }),
        AuditFinding::Duplicate { slot, commits } => {
            json!({ "kind": "duplicate", "slot": utc(*slot), "commits": commits })
        }
        AuditFinding::Hole { record } => json!({ "kind": "hole", "record": record }),
        AuditFinding::Broken { record, what } => json!({ "kind": "broken", "record": record, "what": what }),
        AuditFinding::SameChanges(streak) => self::streak("same_changes", streak),
        AuditFinding::EverythingChanged(streak) => self::streak("everything_changed", streak),
        AuditFinding::Future { count, latest, nodes, reader } => json!({
            "kind": "future", "count": count, "latest": utc(*latest), "nodes": nodes,
            "clock": if *reader { "reader" } else { "writer" },
        }),
        AuditFinding::Backdated { count, by, nodes } => json!({
            "kind": "backdated", "count": count, "by_seconds": by.as_secs(), "nodes": nodes,
        }),
        AuditFinding::Incomplete(open) => incomplete(open),
        AuditFinding::EmptySources { first, last, snapshot, runs, empty } => json!({
            "kind": "empty_source", "first": utc(*first), "last": utc(*last), "snapshot": snapshot, "runs": runs,
            "sources": super::paths(&empty.named), "unnamed": empty.unnamed,
        }),
        AuditFinding::Flapping { first, last, count, nodes } => json!({
            "kind": "flapping", "first": utc(*first), "last": utc(*last), "count": count, "nodes": nodes,
        }),
        AuditFinding::PausedTooLong { since, by, why } => {
            json!({ "kind": "paused_too_long", "since": utc(*since), "by": by, "why": why })
        }
    }
}

fn note(note: &AuditNote) -> Value {
    match note {
        AuditNote::Paused { first, last, count, by, why } => json!({
            "kind": "paused", "first": utc(*first), "last": utc(*last), "count": count, "by": by, "why": why,
        }),
        AuditNote::Amended { count, latest, by } => json!({
            "kind": "amended", "count": count, "latest": utc(*latest), "by": by,
        }),
        AuditNote::Incomplete(past) => incomplete(past),
        AuditNote::SameFiles(streak) => self::streak("same_files", streak),
    }
}

fn incomplete(streak: &IncompleteStreak) -> Value {
    json!({
        "kind": "incomplete", "first": utc(streak.first), "last": utc(streak.last), "snapshot": streak.snapshot,
        "runs": streak.runs, "unreadable": streak.unreadable,
    })
}

fn streak(kind: &str, streak: &SnapshotStreak) -> Value {
    json!({
        "kind": kind, "first": utc(streak.first), "last": utc(streak.last), "snapshot": streak.snapshot,
        "runs": streak.runs, "changes": streak.changes, "new_bytes": streak.new_bytes, "same_tree": streak.same_tree,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples;

    #[test]
    fn every_kind_and_a_role_that_cannot_be_told() {
        let audit = samples::audit();
        let (role, since) = (audit.role.clone(), audit.since);
        let all = [
            RoleAuditResult { role: role.clone(), since, result: Ok(audit) },
            RoleAuditResult { role, since, result: Err("connection refused".to_owned()) },
        ];
        let document: Value = serde_json::from_str(&report(&all)).unwrap();
        assert_eq!(document["schema"], 1);
        insta::assert_json_snapshot!("audit", document);
    }
}
