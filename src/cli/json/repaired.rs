//! `repair`.

use serde_json::{Value, json};

use super::{document, snapshot};
use crate::job::report::repaired::{FormatSource, RepairFinding, RepairReport, SnapshotLoss};

/// The document of a repair that was done or, on a dry run, would be.
pub fn report(report: &RepairReport) -> String {
    let keys = report.keys.iter().map(|(id, what)| json!({ "id": id, "damaged": what }));
    document(json!({
        "role": report.role, "dry_run": report.dry_run,
        "findings": report.findings.iter().map(finding).collect::<Vec<_>>(),
        "keys": keys.collect::<Vec<_>>(),
        "snapshots": report.snapshots.iter().map(loss).collect::<Vec<_>>(),
        "lost_count": report.lost_files(), "content_read": report.read_data,
        "record": report.record.map(|(seq, term)| json!({ "seq": seq, "term": term })),
    }))
}

fn finding(finding: &RepairFinding) -> Value {
    match finding {
        RepairFinding::Format { what, source } => {
            let source = match source {
                FormatSource::Memory => "memory",
                FormatSource::Journal => "journal",
            };
            json!({ "kind": "format", "what": what, "source": source })
        }
        RepairFinding::KeySlot { id, put_back } => json!({ "kind": "key", "id": id, "put_back": put_back }),
        RepairFinding::Record { seq, what, known } => {
            json!({ "kind": "record", "seq": seq, "what": what, "known": known })
        }
        RepairFinding::End { from, to } => json!({ "kind": "end", "from": from, "to": to }),
        RepairFinding::Rotation(generation) => json!({ "kind": "rotation", "generation": generation }),
        RepairFinding::RotationCopy { object, what } => {
            json!({ "kind": "rotation_copy", "object": object, "what": what })
        }
        RepairFinding::Unvouched { from, to, snapshots } => {
            json!({ "kind": "unvouched", "from": from, "to": to, "snapshots": snapshots })
        }
        RepairFinding::Snapshot(id) => json!({ "kind": "snapshot", "id": id }),
        RepairFinding::Index { id, what, copy } => json!({ "kind": "index", "id": id, "what": what, "copy": copy }),
        RepairFinding::Listed { packs, chunks } => json!({ "kind": "listed", "packs": packs, "chunks": chunks }),
        RepairFinding::Pack { id, what, moved } => json!({ "kind": "pack", "id": id, "what": what, "moved": moved }),
    }
}

fn loss(loss: &SnapshotLoss) -> Value {
    let lost: Vec<Value> =
        loss.lost.iter().map(|entry| json!({ "path": entry.path.display(), "entries": entry.entries })).collect();
    json!({ "snapshot": snapshot(&loss.info), "lost": lost, "lost_count": loss.lost_count })
}
