//! `prune`.

use serde_json::{Value, json};

use super::{document, utc};
use crate::cli::render::pruned::rule;
use crate::job::report::RoleReport;
use crate::job::report::pruned::{PruneReport, RetentionVerdict};

/// The document of a prune that was done or, on a dry run, would be.
pub fn report(report: &PruneReport, dry_run: bool) -> String {
    document(json!({
        "role": report.role, "dry_run": dry_run, "outcome": "pruned", "reason": null,
        "snapshots": report.snapshots.iter().map(verdict).collect::<Vec<_>>(),
        "packs": {
            "condemned": report.packs_condemned, "repacked": report.packs_repacked, "deleted": report.swept.packs,
            "waiting": report.swept.waiting, "lost": report.packs_lost,
        },
        "bytes": { "freed": report.bytes_freed, "unused": report.bytes_unused },
    }))
}

/// The document of a prune that this node refused.
pub fn refused(report: &RoleReport, why: &str) -> String {
    document(json!({ "role": report.role, "dry_run": false, "outcome": report.outcome, "reason": why }))
}

fn verdict(verdict: &RetentionVerdict) -> Value {
    let reasons: Vec<Value> =
        verdict.reasons.iter().map(|reason| json!({ "rule": rule(reason.rule), "oldest": reason.oldest })).collect();
    json!({
        "id": verdict.snapshot, "time": utc(verdict.time), "node": verdict.node, "kept": verdict.kept, "reasons": reasons,
    })
}
