//! `whoami`, for people and for monitoring. Pure.

use super::browse::escaped;
use super::{RenderContext, short_id, warning};
use crate::cli::units::{count, counted, duration, minute, relative};
use crate::job::health;
use crate::job::report::ADVICE;
use crate::job::report::audited::SlotCounts;
use crate::job::report::whoami::{
    EtcdHealth, EtcdState, PeerPresence, ProbeVerdict, RoleInfo, RoleState, StateReason, StoreStatus, WhoamiReport,
};
use crate::repo::format::JournalLocation;

/// The whole report.
pub fn report(report: &WhoamiReport, view: &RenderContext) -> String {
    let node = &report.node;
    let id = node.id.map_or_else(
        || "no ID yet".to_owned(),
        |id| format!("ID {}", id.to_string().chars().take(8).collect::<String>()),
    );
    let text = format!("node {} ({id}), runner {}, config {}", node.hostname, node.version, node.config_hash);
    let mut out = view.page.wrap("", 2, &text);
    for role in &report.roles {
        out += "\n";
        out += &self::role(role, view);
    }
    out
}

fn role(role: &RoleInfo, view: &RenderContext) -> String {
    let mut out = format!("{}: {}\n", role.role, state_word(role.state).to_uppercase());
    out += &view.page.wrap("  ", 2, &why(role, view));
    for evidence in &role.evidence {
        let answer = match evidence.answer {
            ProbeVerdict::Yes => "yes",
            ProbeVerdict::No => "no",
            ProbeVerdict::Unknown => "unknown",
        };
        let detail = if evidence.detail.is_empty() { String::new() } else { format!(" — {}", evidence.detail) };
        let age = match evidence.age.as_secs() {
            0 => "just now".to_owned(),
            _ => relative(view.now - evidence.age, view.now),
        };
        let fallback = if evidence.fallback { "fallback " } else { "" };
        let text = format!("{fallback}{}{detail} (took {}, {age})", evidence.probe, duration(evidence.latency));
        out += &view.page.wrap(&format!("  {answer:<7} "), 10, &text);
    }
    out += &view.page.wrap("  term    ", 10, &fence(role));
    out += &view.page.wrap("  last    ", 10, &last(role, view));
    if let Some(slots) = &role.slots {
        out += &view.page.wrap("  slots   ", 10, &self::slots(&slots.counts));
    }
    out += &view.page.wrap("  next    ", 10, &next(role, view));
    out += &view.page.wrap("  store   ", 10, &store(role));
    if let Some(etcd) = &role.etcd {
        out += &view.page.wrap("  etcd    ", 10, &self::etcd(etcd));
    }
    for PeerPresence { node, seen, .. } in &role.peers {
        let text = format!(
            "{}: seen {}, runner {}, config {}",
            node.name,
            relative(*seen, view.now),
            node.version,
            node.config_hash
        );
        out += &view.page.wrap("  peer    ", 10, &text);
    }
    for found in &role.warnings {
        let severity = warning::severity(health::severity(found));
        out += &view.page.wrap_advised(&format!("  {severity} "), 10, &warning::text(&role.role, found, view));
    }
    out
}

/// The next slot, and the node that will run it as things are.
fn next(role: &RoleInfo, view: &RenderContext) -> String {
    let Some(slot) = role.next_slot else {
        let why = if role.state == RoleState::Paused { "none while the pause lasts" } else { "no schedule" };
        return why.to_owned();
    };
    let by = match (role.state, &role.reason) {
        (RoleState::Active, _) if role.has_daemon => ", here, by the daemon".to_owned(),
        (RoleState::Active, _) => ", here, if a timer or cron runs it: no daemon answers on this node".to_owned(),
        (RoleState::Paused, _) => ", when the pause is over".to_owned(),
        (_, StateReason::LeaseTaken { by: Some(by) } | StateReason::LeaseFree { last: Some(by) }) => {
            format!(", on {by}")
        }
        (RoleState::Standby, _) => ", on the node that is active then, if one is".to_owned(),
        (RoleState::Unknown | RoleState::Conflict, _) => String::new(),
    };
    format!("{} ({}){by}", minute(slot, &view.zone), relative(slot, view.now))
}

pub(super) fn state_word(state: RoleState) -> &'static str {
    match state {
        RoleState::Active => "active",
        RoleState::Standby => "standby",
        RoleState::Unknown => "unknown",
        RoleState::Conflict => "conflict",
        RoleState::Paused => "paused",
    }
}

/// The reason of the state, in one sentence with its evidence.
pub(super) fn why(role: &RoleInfo, view: &RenderContext) -> String {
    match &role.reason {
        StateReason::AlwaysActive => {
            "Backups run here: the role has no probe and no lease, so every node that is asked to is active.".to_owned()
        }
        StateReason::Daemon { why } => {
            format!("No backups here: the daemon of this node says: {}.", escaped(why.as_bytes()))
        }
        StateReason::NotListed => "No backups here: 'nodes' in the config does not name this node.".to_owned(),
        StateReason::ProbesYes => "Backups run here: the probes say yes.".to_owned(),
        StateReason::ProbesNo => {
            "No backups here: the probes say no. If another node is active, it makes them.".to_owned()
        }
        StateReason::ProbesUnknown => {
            "No backups here: the probes cannot tell. Unknown is not yes, so nothing starts until they can.".to_owned()
        }
        StateReason::StandsIn => {
            "Backups run here: no eligible node ran the slot that is due, and this one stands in.".to_owned()
        }
        StateReason::Fallback { from: None } => {
            "No backups here: the probes do not say yes. If no eligible node runs a slot, this one stands in."
                .to_owned()
        }
        StateReason::Fallback { from: Some(from) } => format!(
            "No backups here for now: a slot is due that no eligible node has run. This one stands in from {} ({}) on.",
            minute(*from, &view.zone),
            relative(*from, view.now)
        ),
        StateReason::JournalUnread => {
            "No backups here for now: the journal, which says who has the role, cannot be read or was rolled back. \
             Unknown is not yes, so nothing starts until that is resolved."
                .to_owned()
        }
        StateReason::LeaseHeld => "Backups run here: a process on this node holds the lease.".to_owned(),
        StateReason::LeaseFreeMine => {
            "Backups run here: no node holds the lease between runs, and this one had the role last.".to_owned()
        }
        StateReason::LeaseFree { last: Some(last) } => format!(
            "No backups here for now: no node holds the lease between runs, and {last} had the role last. If it does not \
             run the next slot, this node takes over."
        ),
        StateReason::LeaseFree { last: None } if role.store.status == StoreStatus::NotInitialised => {
            "No backups here: the store has no repository of this role.".to_owned()
        }
        StateReason::LeaseFree { last: None } => {
            "No node has had the role yet: the first node that runs a backup takes it.".to_owned()
        }
        StateReason::LeaseTaken { by: Some(by) } => format!("No backups here: {by} holds the lease."),
        StateReason::LeaseTaken { by: None } => {
            "No backups here: another node holds the lease; which one cannot be read.".to_owned()
        }
        StateReason::LeaseUnread => {
            "No backups here: the holder of the lease cannot be read. Unknown is not yes, so nothing starts until it can."
                .to_owned()
        }
        StateReason::ClockOff => {
            "No slots are run here: this node's clock differs from the store's, so it cannot tell which one is due. \
             Another node may take the role."
                .to_owned()
        }
        StateReason::HandedOver { to, until } => format!(
            "No backups here: an operator gave the role to {to}. If it does not run, this node may take it back from {} \
             on.",
            minute(*until, &view.zone)
        ),
        StateReason::Paused { by, since, until, why } => {
            let until = until.map_or("until 'runner resume'".to_owned(), |until| {
                format!("until {} ({})", minute(until, &view.zone), relative(until, view.now))
            });
            let why = why.as_deref().map(|why| format!(": {}", escaped(why.as_bytes()))).unwrap_or_default();
            format!("No backups anywhere: paused on {by} at {} {until}{why}.", minute(*since, &view.zone))
        }
        StateReason::Cloned => format!("No backups here: {}.", super::reason::CLONED),
        StateReason::TakenOver { by, term } => format!(
            "No backups here: the probes say yes, but {by} took the role over with term {term}. Two nodes believe \
             they are active. {ADVICE}find out which one should be."
        ),
    }
}

fn fence(role: &RoleInfo) -> String {
    let term = &role.term;
    let mine = term.mine.map_or_else(|| "none of this node's".to_owned(), |t| format!("this node's is {t}"));
    let current = match (term.current, &term.holder) {
        (None, _) if matches!(role.store.status, StoreStatus::Ok | StoreStatus::NotInitialised) => {
            "the journal has none yet".to_owned()
        }
        (None, _) => "the journal's is not known".to_owned(),
        (Some(t), None) => format!("the journal's is {t}"),
        (Some(t), Some(holder)) => format!("the journal's is {t}, held by {holder}"),
    };
    format!("{mine}; {current}")
}

fn last(role: &RoleInfo, view: &RenderContext) -> String {
    match (&role.last_backup, &role.store.status) {
        (Some(s), _) => format!(
            "{} ({}), {} by {}, {}",
            minute(s.time, &view.zone),
            relative(s.time, view.now),
            short_id(s.id),
            s.node,
            counted(s.files, "file", "files")
        ),
        (None, StoreStatus::Failed(_) | StoreStatus::Gone) => "not known".to_owned(),
        (None, _) => "no snapshot yet".to_owned(),
    }
}

/// `9 of the last 10 committed, 1 missed`.
fn slots(counts: &SlotCounts) -> String {
    if counts.expected == 0 {
        return "none has been due yet".to_owned();
    }
    let mut text = format!("{} of the last {} committed", count(counts.committed), count(counts.expected));
    for (n, word) in
        [(counts.missed, "missed"), (counts.late, "late"), (counts.paused, "in a pause"), (counts.open, "open")]
    {
        if n > 0 {
            text += &format!(", {} {word}", count(n));
        }
    }
    text
}

fn etcd(etcd: &EtcdState) -> String {
    match &etcd.status {
        EtcdHealth::Ok { endpoint, member, leader, raft_term, version, nodes, .. } => {
            let leader = match leader {
                0 => "NO LEADER".to_owned(),
                leader if leader == member => "the leader".to_owned(),
                leader => format!("the leader is {leader:x}"),
            };
            let holder = etcd.holder.as_ref().map(|holder| format!("; {holder} holds the lease")).unwrap_or_default();
            let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
            let alive = if names.is_empty() { String::new() } else { format!("; alive: {}", names.join(", ")) };
            format!("{endpoint}: {version}, member {member:x}, {leader}, raft term {raft_term}{holder}{alive}")
        }
        EtcdHealth::Failed(why) => format!("CANNOT BE REACHED: {why}"),
    }
}

fn store(role: &RoleInfo) -> String {
    match &role.store.status {
        StoreStatus::Ok => {
            let etcd = matches!(role.store.journal, Some(JournalLocation::Etcd { .. }));
            format!("{}: readable{}", role.store.url, if etcd { "; the journal's head is in etcd" } else { "" })
        }
        StoreStatus::NotInitialised => {
            format!("{}: no repository of this role", role.store.url)
        }
        StoreStatus::Gone => format!("{}: THE REPOSITORY IS GONE", role.store.url),
        StoreStatus::Failed(why) => format!("{}: CANNOT BE READ: {why}", role.store.url),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples::{self, active, all, blind, missed};
    use crate::ids::Term;
    use crate::job::report::whoami::{RoleWarning, StoreState, TermInfo};

    #[test]
    fn every_state_is_explained_within_80_columns() {
        let conflict = RoleInfo {
            state: RoleState::Conflict,
            reason: StateReason::TakenOver { by: "app02".to_owned(), term: Term(8) },
            evidence: active().evidence[..1].to_vec(),
            term: TermInfo { mine: Some(Term(7)), current: Some(Term(8)), holder: Some("app02".to_owned()) },
            warnings: vec![
                missed("2026-11-19T01:00:00Z", 1),
                RoleWarning::StoreRolledBack,
                RoleWarning::FutureDates(samples::future()),
                RoleWarning::JournalHead { lost: true, why: "etcd has no head of this journal".to_owned() },
            ],
            ..active()
        };
        let fresh = RoleInfo {
            state: RoleState::Active,
            reason: StateReason::AlwaysActive,
            evidence: Vec::new(),
            term: TermInfo::default(),
            last_backup: None,
            slots: None,
            store: StoreState { status: StoreStatus::NotInitialised, ..active().store },
            ..active()
        };
        let mut standby = RoleInfo { state: RoleState::Standby, reason: StateReason::ProbesNo, ..active() };
        standby.evidence.truncate(1);
        standby.evidence[0].answer = ProbeVerdict::No;
        standby.evidence[0].detail = "on no interface of this node".to_owned();
        let unlisted = RoleInfo { reason: StateReason::NotListed, evidence: Vec::new(), ..standby.clone() };
        let unread = RoleInfo { reason: StateReason::JournalUnread, evidence: active().evidence, ..blind() };
        let skewed = RoleInfo {
            state: RoleState::Unknown,
            reason: StateReason::ClockOff,
            evidence: Vec::new(),
            store: StoreState { clock_offset_seconds: Some(3600), ..active().store },
            warnings: vec![RoleWarning::ClockOff(3600)],
            ..active()
        };
        let roles = vec![active(), standby, unlisted, fresh, conflict, blind(), unread, skewed];
        let whoami = all(roles);
        samples::assert_fits(|view| report(&whoami, view));
        let text = report(&whoami, &samples::view());
        insta::assert_snapshot!(text);
    }

    #[test]
    fn a_node_that_exists_twice_is_told_what_to_do() {
        let text = report(&all(vec![samples::cloned()]), &samples::view());
        assert!(text.lines().all(|l| l.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn etcd_is_shown_where_the_lease_is_there() {
        let status = |member, leader| EtcdHealth::Ok {
            endpoint: "https://etcd2:2379".to_owned(),
            member,
            leader,
            raft_term: 12,
            version: "3.4.23".to_owned(),
            nodes: Vec::new(),
            unread: None,
        };
        let with = |status: EtcdHealth, holder: Option<&str>| {
            let endpoints = vec!["https://etcd1:2379".to_owned(), "https://etcd2:2379".to_owned()];
            let etcd = EtcdState { endpoints, status, holder: holder.map(str::to_owned) };
            let role = RoleInfo { etcd: Some(etcd), evidence: Vec::new(), peers: Vec::new(), ..active() };
            let text = self::role(&role, &samples::view());
            text[text.find("  etcd").unwrap()..].to_owned()
        };
        let silent = EtcdHealth::Failed("etcd: https://etcd1:2379: no answer within 500ms".to_owned());
        let text = [
            with(status(0x8e9e_05c5_2164_694d, 0x8e9e_05c5_2164_694d), Some("app02")),
            with(status(0x8e9e_05c5_2164_694d, 0x91bc_3c39_8fb3_c146), None),
            with(status(1, 0), None),
            with(silent, None),
        ]
        .concat();
        insta::assert_snapshot!(text, @r"
        etcd    https://etcd2:2379: 3.4.23, member 8e9e05c52164694d, the leader, raft
                term 12; app02 holds the lease
        etcd    https://etcd2:2379: 3.4.23, member 8e9e05c52164694d, the leader is
                91bc3c398fb3c146, raft term 12
        etcd    https://etcd2:2379: 3.4.23, member 1, NO LEADER, raft term 12
        etcd    CANNOT BE REACHED: etcd: https://etcd1:2379: no answer within 500ms
        ");
    }
}
