//! `whoami` and `status` as a document.

use serde_json::{Value, json};

use super::{document, seconds, snapshot, utc};
use crate::config::Lease;
use crate::job::health;
use crate::job::report::whoami::{
    EtcdState, EtcdStatus, MissedCause, PeerSeen, Reason, RoleStatus, RunSeen, Step, StoreStatus, Warning, WhoamiReport,
};
use crate::journal::future::WrongClock;
use crate::repo::format::JournalHome;

/// `whoami`.
pub fn report(report: &WhoamiReport) -> String {
    document(json!({ "node": report.node, "roles": report.roles.iter().map(whoami_role).collect::<Vec<_>>() }))
}

fn whoami_role(role: &RoleStatus) -> Value {
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
        .map(|PeerSeen { node, seen, lease, .. }| {
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
        Reason::AlwaysActive => "always_active",
        Reason::NotListed => "not_listed",
        Reason::ProbesYes => "probes_yes",
        Reason::ProbesNo => "probes_no",
        Reason::ProbesUnknown => "probes_unknown",
        Reason::StandsIn => "stands_in",
        Reason::Fallback { .. } => "fallback",
        Reason::JournalUnread => "journal_unread",
        Reason::LeaseHeld => "lease_held",
        Reason::LeaseFreeMine => "lease_free_mine",
        Reason::LeaseFree { .. } => "lease_free",
        Reason::LeaseTaken { .. } => "lease_taken",
        Reason::LeaseUnread => "lease_unread",
        Reason::ClockOff => "clock_off",
        Reason::HandedOver { .. } => "handed_over",
        Reason::Paused { .. } => "paused",
        Reason::TakenOver { .. } => "taken_over",
        Reason::Cloned => "cloned",
        Reason::Daemon { .. } => "daemon",
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
pub(super) fn last_run(run: &RunSeen) -> Value {
    json!({
        "node": run.node, "outcome": run.outcome, "time": utc(run.time), "slot": run.slot.map(utc),
        "error": Some(&run.error).filter(|error| !error.is_empty()), "step": run.step, "failures": run.failures,
    })
}

fn warning(warning: &Warning) -> Value {
    let mut value = match warning {
        Warning::SlotsMissed { first, last, count, cause: missed } => {
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
        Warning::RunFailed(run) => {
            let kind = match run.step {
                Step::Run => "run_failed",
                Step::Takeover => "takeover_failed",
                Step::Command => "command_failed",
            };
            let slot = run.slot.map(utc);
            json!({ "kind": kind, "node": run.node, "time": utc(run.time), "slot": slot, "detail": run.error })
        }
        Warning::NoRepository => json!({ "kind": "no_repository" }),
        Warning::NoSnapshot { since } => json!({ "kind": "no_snapshot", "since": since.map(utc) }),
        Warning::ScheduleMissing { last } => json!({ "kind": "schedule_missing", "last": utc(*last) }),
        Warning::Paused { by, since, until, why, too_long } => json!({
            "kind": if *too_long { "paused_too_long" } else { "paused" }, "node": by, "since": utc(*since),
            "until": until.map(utc), "detail": why,
        }),
        Warning::Exposed(exposure) => {
            json!({ "kind": "exposed", "path": exposure.path.display().to_string(), "detail": exposure.to_string() })
        }
        Warning::ClockOff(seconds) => json!({ "kind": "clock_off", "seconds": seconds }),
        Warning::StoreUnreadable { why } => json!({ "kind": "store_unreadable", "detail": why }),
        Warning::JournalHead { lost, why } => json!({ "kind": "journal_head", "lost": lost, "detail": why }),
        Warning::Unread { what, why, .. } => json!({ "kind": "unread", "what": what, "detail": why }),
        Warning::StoreRolledBack => json!({ "kind": "store_rolled_back" }),
        Warning::RecordsLost { first, count } => json!({ "kind": "records_lost", "first": first, "count": count }),
        Warning::Drift { node, version, config } => {
            json!({ "kind": "drift", "node": node, "version": version, "config": config })
        }
        Warning::LeaseDrift { node, theirs, own } => {
            json!({ "kind": "lease_drift", "node": node, "theirs": lease_name(*theirs), "own": lease_name(*own) })
        }
        Warning::FutureDates(future) => {
            let clock = match future.clock {
                WrongClock::Writer => "writer",
                WrongClock::Reader | WrongClock::LikelyReader => "reader",
                WrongClock::Unclear => "unclear",
            };
            let node = future.node.as_ref().map(|node| &node.name);
            json!({ "kind": "future", "count": future.count, "latest": utc(future.latest), "node": node, "clock": clock })
        }
        Warning::NoContent => json!({ "kind": "no_content" }),
        Warning::EmptySources(empty) => {
            json!({ "kind": "empty_source", "sources": super::paths(&empty.named), "unnamed": empty.unnamed })
        }
        Warning::Incomplete { unreadable } => json!({ "kind": "incomplete", "unreadable": unreadable }),
        Warning::Lost { packs, files, by, time } => {
            json!({ "kind": "lost", "packs": packs, "files": files, "node": by, "time": utc(*time) })
        }
        Warning::Twin { other } => json!({ "kind": "twin", "instance": other }),
        Warning::OnlyNode => json!({ "kind": "only_node" }),
        Warning::FormerNodes { count } => json!({ "kind": "former_nodes", "count": count }),
        Warning::AnotherRepository { known, found } => {
            json!({ "kind": "another_repository", "known": known, "found": found })
        }
        Warning::RepositoryGone { repository } => json!({ "kind": "repository_gone", "repository": repository }),
        Warning::LeaseUnread { why } => json!({ "kind": "lease_unread", "detail": why }),
        Warning::DaemonSilent => json!({ "kind": "daemon_silent" }),
        Warning::StateUnwritable { why, .. } => json!({ "kind": "state_unwritable", "detail": why }),
    };
    value["severity"] = json!(health::severity(warning));
    value
}

/// A lease in the config's word.
fn lease_name(lease: Lease) -> &'static str {
    match lease {
        Lease::Etcd => "etcd",
        Lease::Bucket => "bucket",
        Lease::None => "none",
    }
}

/// Where a journal lives; which cluster it is stands in `format`.
fn home(home: JournalHome) -> &'static str {
    match home {
        JournalHome::Bucket => "bucket",
        JournalHome::Etcd { .. } => "etcd",
    }
}

fn etcd(etcd: &EtcdState) -> Value {
    let mut state = json!({ "endpoints": etcd.endpoints, "holder": etcd.holder });
    // IDs of etcd are hexadecimal wherever else it shows them, and too large for numbers in JSON.
    let more = match &etcd.status {
        EtcdStatus::Ok { endpoint, member, leader, raft_term, version, nodes, .. } => json!({
            "status": "ok", "error": null, "endpoint": endpoint, "member": format!("{member:x}"),
            "leader": (*leader != 0).then(|| format!("{leader:x}")), "raft_term": raft_term, "version": version,
            "nodes": nodes,
        }),
        EtcdStatus::Failed(why) => json!({ "status": "failed", "error": why }),
    };
    if let (Value::Object(state), Value::Object(more)) = (&mut state, more) {
        state.extend(more);
    }
    state
}
