//! `audit --bucket` and `--listing`.

use jiff::civil::DateTime;
use serde_json::{Map, Value, json};

use super::document;
use crate::cli::render::foreign::{
    self, ForeignAuditResult, UnreadParts, is_sick, note, often, sentence, stopped, unread, verdict,
};
use crate::foreign::report::{
    ByteRange, FindingConfidence, ForeignAudit, ForeignFinding, ForeignFindingKind, ForeignNote, ForeignRepository,
    ForeignSeries,
};

/// The document.
pub fn report(result: &ForeignAuditResult) -> String {
    let audit = &result.audit;
    let notes = audit.notes.iter().map(note_value).chain(unread_values(&result.unread));
    document(json!({
        "source": result.source,
        "objects": audit.objects,
        "bytes": audit.bytes,
        "span": audit.span.map(|(first, last)| json!({ "first": time(first), "last": time(last) })),
        "sick": audit.is_sick(),
        "verdict": verdict(audit),
        "facts": facts(audit),
        "findings": audit.findings.iter().map(|found| finding(found, audit)).collect::<Vec<_>>(),
        "unlisted_findings": audit.unlisted,
        "series": audit.series.iter().map(series).collect::<Vec<_>>(),
        "repositories": audit.repositories.iter().map(repository).collect::<Vec<_>>(),
        "notes": notes.collect::<Vec<_>>(),
    }))
}

/// The time of a key or of the listing. It has no zone: a key's time is the writer's.
fn time(time: DateTime) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S").to_string()
}

/// The few facts that a check needs, of the findings that are sure or likely. What does not apply is left out.
fn facts(audit: &ForeignAudit) -> Value {
    let mut facts = Map::new();
    let sick = || audit.findings.iter().filter(|found| is_sick(found));
    let of = |kind: ForeignFindingKind| sick().find(|found| found.kind == kind);
    if let Some(stereo) = of(ForeignFindingKind::Stereo) {
        facts.insert("hosts".to_owned(), json!(stereo.hosts));
        facts.insert("slots".to_owned(), json!(stereo.slots));
        if let Some(bytes) = stereo.surplus_guess {
            facts.insert("waste_bytes".to_owned(), json!(bytes));
        }
    }
    // What has stopped or is missing has its own days.
    let dated = foreign::VERDICT_ORDER.into_iter().skip(2).find_map(of);
    if let Some(since) = dated.and_then(|found| found.since) {
        facts.insert("since".to_owned(), json!(since));
    }
    let missed = sick().filter(|found| found.kind == ForeignFindingKind::Missed).flat_map(|found| &found.missed);
    let mut missed: Vec<_> = missed.map(|slot| slot.date()).collect();
    missed.sort_unstable();
    missed.dedup();
    if !missed.is_empty() {
        facts.insert("missed".to_owned(), json!(missed));
    }
    let stopped = stopped(audit);
    if !stopped.is_empty() {
        facts.insert("stopped".to_owned(), json!(stopped));
    }
    let moved = audit.notes.iter().find_map(|note| match note {
        ForeignNote::Moved { on, .. } => Some(on),
        ForeignNote::OverwrittenUnseen | ForeignNote::Unjudged { .. } => None,
    });
    if let Some(moved) = moved {
        facts.insert("moved".to_owned(), json!(moved));
    }
    Value::Object(facts)
}

fn finding(finding: &ForeignFinding, audit: &ForeignAudit) -> Value {
    json!({
        "kind": kind(finding.kind),
        "confidence": confidence(finding.confidence),
        "role": finding.series,
        "hosts": finding.hosts,
        "since": finding.since,
        "until": finding.until,
        "slots": finding.slots,
        "missed": finding.missed.iter().map(|slot| time(*slot)).collect::<Vec<_>>(),
        "surplus_bytes": finding.surplus.map(range),
        "surplus_bytes_month": finding.surplus_month.map(range),
        "surplus_guess": finding.surplus_guess,
        "sizes": finding.sizes.map(|(usual, found)| json!({ "usual": usual, "found": found })),
        "example": finding.example,
        "text": sentence(finding, audit),
        "hint": foreign::remedy(finding.kind),
    })
}

fn range(range: ByteRange) -> Value {
    json!({ "min": range.min, "max": range.max })
}

fn kind(kind: ForeignFindingKind) -> &'static str {
    match kind {
        ForeignFindingKind::Stereo => "stereo",
        ForeignFindingKind::Missed => "missed",
        ForeignFindingKind::Stopped => "stopped",
        ForeignFindingKind::Frozen => "frozen",
        ForeignFindingKind::Empty => "empty",
        ForeignFindingKind::Shrunk => "shrunk",
        ForeignFindingKind::Overwritten => "overwritten",
        ForeignFindingKind::TwoChains => "two_chains",
    }
}

fn confidence(confidence: FindingConfidence) -> &'static str {
    match confidence {
        FindingConfidence::Sure => "sure",
        FindingConfidence::Likely => "likely",
        FindingConfidence::Ask => "ask",
    }
}

fn series(series: &ForeignSeries) -> Value {
    let (first, last) = series.span;
    json!({
        "name": series.name, "hosts": series.hosts, "backups": series.backups, "bytes": series.bytes,
        "first": time(first), "last": time(last), "rhythm": often(series.rhythm),
    })
}

fn repository(repository: &ForeignRepository) -> Value {
    json!({
        "program": repository.program, "prefix": repository.prefix, "objects": repository.objects,
        "bytes": repository.bytes, "snapshots": repository.snapshots, "newest": repository.newest.map(time),
    })
}

fn note_value(told: &ForeignNote) -> Value {
    let mut value = match told {
        ForeignNote::Moved { series, from, to, on } => {
            json!({ "kind": "moved", "role": series, "from": from, "to": to, "on": on })
        }
        ForeignNote::OverwrittenUnseen => json!({ "kind": "overwritten_unseen" }),
        ForeignNote::Unjudged { objects, bytes } => json!({ "kind": "unjudged", "objects": objects, "bytes": bytes }),
    };
    value["text"] = json!(note(told));
    value
}

fn unread_values(parts: &UnreadParts) -> Vec<Value> {
    unread(parts).into_iter().map(|text| json!({ "kind": "unread", "text": text })).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples;

    #[test]
    fn every_kind_has_its_fields() {
        let document: Value = serde_json::from_str(&report(&samples::foreign_audit())).unwrap();
        insta::assert_json_snapshot!("foreign", document);
        let empty = ForeignAuditResult {
            source: "-".to_owned(),
            audit: ForeignAudit::default(),
            unread: UnreadParts::default(),
        };
        let document: Value = serde_json::from_str(&report(&empty)).unwrap();
        assert_eq!((&document["verdict"], &document["facts"]), (&json!("CLEAN"), &json!({})));
    }
}
