//! The promises of one journal, checked from outside: what `runner journal show --json` prints is read with nothing of the
//! code under test. What each check is for stands beside it; DESIGN and FORMAT call these the invariants of a role.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::cli::TestNode;

/// A journal that keeps its promises, summed up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CheckedJournal {
    /// The committed slots in order, each with the label of the node that committed it.
    pub slots: Vec<(String, String)>,
    /// The labels of the nodes that took the role over, in order.
    pub takeovers: Vec<String>,
    /// All records.
    pub records: usize,
}

impl CheckedJournal {
    /// The slots of an `every` of whole seconds that passed without a commit between the first and the last committed one.
    pub fn missed_slots(&self, every: i64) -> Vec<i64> {
        let committed: BTreeSet<i64> = self.slots.iter().map(|(slot, _)| seconds(slot)).collect();
        let (Some(first), Some(last)) = (committed.first(), committed.last()) else { return Vec::new() };
        let missed = |slot: &i64| !committed.contains(slot);
        (0..=(last - first) / every).map(|n| first + n * every).filter(missed).collect()
    }

    /// How many slots this node committed.
    pub fn commits_by(&self, node: &str) -> usize {
        self.slots.iter().filter(|(_, by)| by == node).count()
    }
}

fn seconds(time: &str) -> i64 {
    time.parse::<jiff::Timestamp>().expect("a slot is a time").as_second()
}

/// Reads the whole journal as this node sees it and checks it; fails with everything that is broken.
#[track_caller]
pub fn check_journal(node: &TestNode, role: &str) -> CheckedJournal {
    let document = node.run(["journal", "show", role, "--last", "1000000", "--json"]).expect(0).json();
    let records = document["records"].as_array().expect("records");
    check_records(records).unwrap_or_else(|broken| panic!("{}\n{}", broken.join("\n"), table(records)))
}

/// The slots of an `every` of whole seconds that `audit` calls missed, as this node sees it. Fails when it finds anything that may
/// not be.
#[track_caller]
pub fn missed_by_audit(node: &TestNode, role: &str, every: i64) -> BTreeSet<i64> {
    missed_by_audit_but(node, role, every, &[])
}

/// As [`missed_by_audit`], where findings of these kinds may be true as well.
pub fn missed_by_audit_but(node: &TestNode, role: &str, every: i64, also: &[&str]) -> BTreeSet<i64> {
    let run = node.run(["audit", role, "--json"]);
    assert!(matches!(run.code, Some(0 | 7)), "{}", run.stderr);
    let document = run.json();
    let findings = document["roles"][0]["findings"].as_array().expect("findings");
    let second = |text: &Value| seconds(text.as_str().expect("a time"));
    let mut missed = BTreeSet::new();
    for finding in findings {
        match finding["kind"].as_str().expect("a kind") {
            "missed" => missed.extend((second(&finding["first"])..=second(&finding["last"])).step_by(every as usize)),
            // So it is where nodes are not spared: many takeovers, and changes that are alike.
            "late" | "flapping" | "same_changes" => {}
            kind if also.contains(&kind) => {}
            other => panic!("{other}: {finding}"),
        }
    }
    missed
}

/// Clocks may be so many seconds apart.
const CLOCKS_APART_MAX: i64 = 300;

/// Checks records, oldest first; `Err` says of each broken promise which one and where.
pub fn check_records(records: &[Value]) -> Result<CheckedJournal, Vec<String>> {
    let mut broken = Vec::new();
    let mut kept = CheckedJournal { records: records.len(), ..CheckedJournal::default() };
    let (mut term, mut taker) = (0, None);
    let mut committed: BTreeMap<String, u64> = BTreeMap::new();
    let mut last_slot = None;
    for (n, record) in records.iter().enumerate() {
        let (seq, kind) = (record["seq"].as_u64().unwrap_or(0), record["kind"].as_str().unwrap_or(""));
        let mut breaks = |what: String| broken.push(format!("record {seq} ({kind}): {what}"));
        // One lineage: every number is there, once.
        if seq != n as u64 + 1 {
            breaks(format!("its place is {}", n + 1));
        }
        // Terms never go back, and only a takeover makes the next one.
        let now = record["term"].as_u64().unwrap_or(0);
        let expected = if kind == "takeover" { term + 1 } else { term };
        if now != expected {
            breaks(format!("term {now}, not {expected}"));
        }
        term = now;
        let node = &record["node"]["id"];
        let label = record["node"]["name"].as_str().unwrap_or("").to_owned();
        if kind == "takeover" {
            taker = Some(node);
            kept.takeovers.push(label.clone());
        } else if !matches!(kind, "pause" | "resume" | "clone") && taker != Some(node) {
            // Fencing: who writes is who took this term. Operators' acts, and what a clone says of itself, need none.
            breaks(format!("by {label}, who has not taken term {now}"));
        }
        let commits = kind == "snapshot" || (kind == "end" && record["body"]["exit"] == 0);
        let Some(slot) = record["slot"].as_str().filter(|_| commits) else { continue };
        // At most one commit a slot, and none for a slot that is over: a later one may come first where a clock is ahead.
        if let Some(first) = committed.insert(slot.to_owned(), seq) {
            breaks(format!("slot {slot} was committed by record {first}"));
        }
        let at = seconds(slot);
        if let Some(last) = last_slot.filter(|last| *last > at + CLOCKS_APART_MAX) {
            breaks(format!("slot {slot} comes after one of {last} s"));
        }
        last_slot = Some(last_slot.map_or(at, |last: i64| last.max(at)));
        kept.slots.push((slot.to_owned(), label));
    }
    if broken.is_empty() { Ok(kept) } else { Err(broken) }
}

fn table(records: &[Value]) -> String {
    let line = |r: &Value| format!("{} term {} {} {} slot {}", r["seq"], r["term"], r["kind"], r["node"], r["slot"]);
    records.iter().map(line).collect::<Vec<_>>().join("\n")
}
