//! `whoami` and `status` as a document.

use serde_json::{Value, json};

use super::{document, seconds, snapshot, utc};
use crate::config::LeaseKind;
use crate::job::health;
use crate::job::report::run_summary::{RunStep, RunSummary};
use crate::job::report::whoami::{
    EtcdHealth, EtcdState, MissedCause, PeerPresence, RoleInfo, RoleWarning, StateReason, StoreStatus, WhoamiReport,
};
use crate::journal::future_dates::WrongClock;
use crate::repo::format::JournalLocation;

/// `whoami`.
pub fn report(report: &WhoamiReport) -> String {
    document(json!({ "node": report.node, "roles": report.roles.iter().map(whoami_role).collect::<Vec<_>>() }))
}

fn whoami_role(role: &RoleInfo) -> Value {
    let evidence: Vec<Value> = role
        .evidence
        .iter()
        .map(|e| {
            json!({
                "probe": e.probe, "answer": e.answer, "detail": e.detail, "latency_seconds": seconds(e.latency),
                "age_seconds": seconds(e.age), "fallback": e.fallback,
            })
        })
        .collect();
    let peers: Vec<Value> = role
        .peers
        .iter()
        .map(|PeerPresence { node, seen, lease, .. }| {
            json!({
                "id": node.id, "name": node.name, "version": node.version, "config_hash": node.config_hash,
                "last_seen": utc(*seen), "lease": lease.map(lease_name),
            })
        })
        .collect();
    let (status, error) = match &role.store.status {
        StoreStatus::Ok => ("ok", None),
        StoreStatus::NotInitialised => ("not_initialised", None),
        StoreStatus::Gone => ("gone", None),
        StoreStatus::Failed(why) => ("failed", Some(why)),
    };
    let reason = match role.reason {
        StateReason::AlwaysActive => "always_active",
        StateReason::NotListed => "not_listed",
        StateReason::ProbesYes => "probes_yes",
        StateReason::ProbesNo => "probes_no",
        StateReason::ProbesUnknown => "probes_unknown",
        StateReason::StandsIn => "stands_in",
        StateReason::Fallback { .. } => "fallback",
        StateReason::JournalUnread => "journal_unread",
        StateReason::LeaseHeld => "lease_held",
        StateReason::LeaseFreeMine => "lease_free_mine",
        StateReason::LeaseFree { .. } => "lease_free",
        StateReason::LeaseTaken { .. } => "lease_taken",
        StateReason::LeaseUnread => "lease_unread",
        StateReason::ClockOff => "clock_off",
        StateReason::HandedOver { .. } => "handed_over",
        StateReason::Paused { .. } => "paused",
        StateReason::TakenOver { .. } => "taken_over",
        StateReason::Cloned => "cloned",
        StateReason::Daemon { .. } => "daemon",
    };
    let warnings: Vec<Value> = role.warnings.iter().map(warning).collect();
    json!({
        "role": role.role, "state": role.state, "reason": reason, "evidence": evidence, "term": role.term,
        "last_backup": role.last_backup.as_ref().map(snapshot), "next_slot": role.next_slot.map(utc),
        "last_run": role.last_run.as_ref().map(last_run), "slots": role.slots,
        "store": {
            "url": role.store.url, "status": status, "error": error, "journal": role.store.journal.map(home),
            "clock_offset_seconds": role.store.clock_offset_seconds,
        },
        "etcd": role.etcd.as_ref().map(etcd), "peers": peers, "warnings": warnings,
    })
}

/// How a run ended.
pub(super) fn last_run(run: &RunSummary) -> Value {
    json!({
        "node": run.node, "outcome": run.outcome, "time": utc(run.time), "slot": run.slot.map(utc),
        "error": Some(&run.error).filter(|error| !error.is_empty()), "step": run.step, "failures": run.failures,
    })
}

fn warning(warning: &RoleWarning) -> Value {
    let mut value = match warning {
        RoleWarning::SlotsMissed { first, last, count, cause: missed } => {
            let (cause, by) = match missed {
                MissedCause::NotEligible => ("not_eligible", None),
                MissedCause::NotListed => ("not_listed", None),
                MissedCause::ClockOff => ("clock_off", None),
                MissedCause::HeldBy(by) => ("held", Some(by)),
                MissedCause::ActiveHere => ("active_here", None),
                MissedCause::Failing => ("failing", None),
                MissedCause::Daemon(_) => ("daemon", None),
                MissedCause::Running { .. } => ("running", None),
                MissedCause::ProbesUnknown(_) => ("probes_unknown", None),
                MissedCause::LeaseFree => ("lease_free", None),
                MissedCause::HasRole(by) => ("has_role", Some(by)),
                MissedCause::NotSeen => ("not_seen", None),
            };
            let (first, last) = (utc(*first), utc(*last));
            let mut value = json!({
                "kind": "slots_missed", "first": first, "last": last, "count": count, "cause": cause, "held_by": by,
            });
            if let MissedCause::ProbesUnknown(Some(why)) = missed {
                value["detail"] = json!(why);
            }
            if let MissedCause::Running { node, since, is_command, gone } = missed {
                value["running"] = json!({ "node": node, "since": utc(*since), "command": is_command, "gone": gone });
            }
            value
        }
        RoleWarning::RunFailed(run) => {
            let kind = match run.step {
                RunStep::Run => "run_failed",
                RunStep::Takeover => "takeover_failed",
                RunStep::Command => "command_failed",
            };
            let slot = run.slot.map(utc);
            json!({ "kind": kind, "node": run.node, "time": utc(run.time), "slot": slot, "detail": run.error })
        }
        RoleWarning::NoRepository => json!({ "kind": "no_repository" }),
        RoleWarning::NoSnapshot { since } => json!({ "kind": "no_snapshot", "since": since.map(utc) }),
        RoleWarning::ScheduleMissing { last } => json!({ "kind": "schedule_missing", "last": utc(*last) }),
        RoleWarning::Paused { by, since, until, why, too_long } => json!({
            "kind": if *too_long { "paused_too_long" } else { "paused" }, "node": by, "since": utc(*since),
            "until": until.map(utc), "detail": why,
        }),
        RoleWarning::Exposed(exposure) => {
            json!({ "kind": "exposed", "path": exposure.path.display().to_string(), "detail": exposure.to_string() })
        }
        RoleWarning::ClockOff(seconds) => json!({ "kind": "clock_off", "seconds": seconds }),
        RoleWarning::StoreUnreadable { why } => json!({ "kind": "store_unreadable", "detail": why }),
        RoleWarning::JournalHead { lost, why } => json!({ "kind": "journal_head", "lost": lost, "detail": why }),
        RoleWarning::Unread { what, why, .. } => json!({ "kind": "unread", "what": what, "detail": why }),
        RoleWarning::StoreRolledBack => json!({ "kind": "store_rolled_back" }),
        RoleWarning::RecordsLost { first, count } => json!({ "kind": "records_lost", "first": first, "count": count }),
        RoleWarning::Drift { node, version, config } => {
            json!({ "kind": "drift", "node": node, "version": version, "config": config })
        }
        RoleWarning::LeaseDrift { node, theirs, own } => {
            json!({ "kind": "lease_drift", "node": node, "theirs": lease_name(*theirs), "own": lease_name(*own) })
        }
        RoleWarning::FutureDates(future) => {
            let clock = match future.clock {
                WrongClock::Writer => "writer",
                WrongClock::Reader | WrongClock::LikelyReader => "reader",
                WrongClock::Unclear => "unclear",
            };
            let node = future.node.as_ref().map(|node| &node.name);
            json!({ "kind": "future", "count": future.count, "latest": utc(future.latest), "node": node, "clock": clock })
        }
        RoleWarning::NoContent => json!({ "kind": "no_content" }),
        RoleWarning::EmptySources(empty) => {
            json!({ "kind": "empty_source", "sources": super::paths(&empty.named), "unnamed": empty.unnamed })
        }
        RoleWarning::Incomplete { unreadable } => json!({ "kind": "incomplete", "unreadable": unreadable }),
        RoleWarning::Lost { packs, files, by, time } => {
            json!({ "kind": "lost", "packs": packs, "files": files, "node": by, "time": utc(*time) })
        }
        RoleWarning::Twin { other } => json!({ "kind": "twin", "instance": other }),
        RoleWarning::OnlyNode => json!({ "kind": "only_node" }),
        RoleWarning::FormerNodes { count } => json!({ "kind": "former_nodes", "count": count }),
        RoleWarning::AnotherRepository { known, found } => {
            json!({ "kind": "another_repository", "known": known, "found": found })
        }
        RoleWarning::RepositoryGone { repository } => json!({ "kind": "repository_gone", "repository": repository }),
        RoleWarning::LeaseUnread { why } => json!({ "kind": "lease_unread", "detail": why }),
        RoleWarning::DaemonSilent => json!({ "kind": "daemon_silent" }),
        RoleWarning::StateUnwritable { why, .. } => json!({ "kind": "state_unwritable", "detail": why }),
    };
    value["severity"] = json!(health::severity(warning));
    value
}

/// The config's word for a lease.
fn lease_name(lease: LeaseKind) -> &'static str {
    match lease {
        LeaseKind::Etcd => "etcd",
        LeaseKind::Bucket => "bucket",
        LeaseKind::None => "none",
    }
}

/// Where a journal lives; `format` names the cluster.
fn home(home: JournalLocation) -> &'static str {
    match home {
        JournalLocation::Bucket => "bucket",
        JournalLocation::Etcd { .. } => "etcd",
    }
}

fn etcd(etcd: &EtcdState) -> Value {
    let mut state = json!({ "endpoints": etcd.endpoints, "holder": etcd.holder });
    // Elsewhere etcd shows its IDs in hexadecimal, and they are too large for numbers in JSON.
    let more = match &etcd.status {
        EtcdHealth::Ok { endpoint, member, leader, raft_term, version, nodes, .. } => json!({
            "status": "ok", "error": null, "endpoint": endpoint, "member": format!("{member:x}"),
            "leader": (*leader != 0).then(|| format!("{leader:x}")), "raft_term": raft_term, "version": version,
            "nodes": nodes,
        }),
        EtcdHealth::Failed(why) => json!({ "status": "failed", "error": why }),
    };
    if let (Value::Object(state), Value::Object(more)) = (&mut state, more) {
        state.extend(more);
    }
    state
}
