//! `journal show`: the table. Pure.

use super::browse::escaped;
use super::{RenderContext, short_id};
use crate::cli::units::{counted, minute, time};
use crate::ids::Seq;
use crate::job::repository::read_only::{JournalEntry, VoidContent};
use crate::journal::body::{RecordBody, TakeoverReason};
use crate::journal::record::Record;

/// The table, oldest record first.
pub fn lines(lines: &[JournalEntry], view: &RenderContext) -> String {
    if lines.is_empty() {
        return "the journal is empty\n".to_owned();
    }
    let bare = |seq: Seq, what| [seq.to_string(), String::new(), String::new(), String::new(), String::new(), what];
    let rows = lines.iter().map(|line| match line {
        JournalEntry::Record(digest, record) => [
            record.seq.to_string(),
            time(record.time, &view.zone),
            record.node.name.clone(),
            record.term.to_string(),
            short_id(*digest),
            what(record, view),
        ],
        JournalEntry::Void { seq, by, content } => {
            bare(*seq, format!("void, by the repair of record {by}: {}", void(content)))
        }
        JournalEntry::Lost { seq, .. } => {
            bare(*seq, "lost: no usable record, and no repair has declared it void".to_owned())
        }
    });
    view.page.table(["SEQ", "TIME", "NODE", "TERM", "DIGEST", "WHAT"], [true, false, false, true, false, false], rows)
}

fn void(content: &VoidContent) -> &'static str {
    match content {
        VoidContent::Absent => "nothing is there",
        VoidContent::Record => "the record there does not count",
        VoidContent::Unusable(_) => "the object there is no usable record",
    }
}

fn what(record: &Record, view: &RenderContext) -> String {
    let slot = || record.slot.map(|t| format!(", slot {}", minute(t, &view.zone))).unwrap_or_default();
    match &record.body {
        RecordBody::Takeover(takeover) => {
            let why = match takeover.why {
                TakeoverReason::First => "no node had it before",
                TakeoverReason::Moved => "another node had it",
                TakeoverReason::Restart => "same node, new run",
                TakeoverReason::Operator => "by an operator",
                TakeoverReason::Fallback => "no eligible node ran the slot",
                TakeoverReason::Adopt => "the journal was adopted",
                TakeoverReason::Repair => "a repair",
            };
            let void = match takeover.void.len() as u64 {
                0 => String::new(),
                n => format!(", {} lost", counted(n, "record is", "records are")),
            };
            let lost = takeover.lost.map(|lost| format!(", records {} to {} are lost", lost.from, lost.to));
            format!("takeover: {why}{void}{}", lost.unwrap_or_default())
        }
        RecordBody::Snapshot(snapshot) => {
            format!("snapshot: {}{}", counted(snapshot.files, "file", "files"), slot())
        }
        RecordBody::Begin(_) => format!("begin of a guarded command{}", slot()),
        RecordBody::End(end) => {
            let stopped = match (end.stopped, end.timed_out) {
                (_, true) => ", stopped after its --timeout",
                (true, false) => ", stopped",
                (false, false) => "",
            };
            let signal = end.signal.map(|signal| format!(" (signal {signal})")).unwrap_or_default();
            format!("end of a guarded command: exit {}{signal}{stopped}{}", end.exit, slot())
        }
        RecordBody::Pause(pause) => {
            let until = pause.until.map(|t| format!(" until {}", minute(t, &view.zone))).unwrap_or_default();
            let why = pause.why.as_deref().map(|why| format!(": {}", escaped(why.as_bytes()))).unwrap_or_default();
            format!("paused{until}{why}")
        }
        RecordBody::Clone(clone) => format!("this node exists twice: it did not start process {}", clone.other),
        RecordBody::Resume => "resumed".to_owned(),
        RecordBody::Amend(_) => "dates after this one were replaced by the present".to_owned(),
        RecordBody::Prune(prune) => format!(
            "prune: {} forgotten, {} condemned",
            counted(prune.forgotten.len() as u64, "snapshot", "snapshots"),
            counted(prune.packs.len() as u64, "pack", "packs")
        ),
        RecordBody::Swept(_) => "the condemned packs are deleted".to_owned(),
        RecordBody::Rotate(rotate) => format!("key rotated: generation {} from here on", rotate.generation),
        RecordBody::Unknown { kind, .. } => format!("{kind}: not known to this version"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples;
    use crate::ids::{ChunkId, InstanceId, KeyGeneration, NodeId, RepoId, Seq, Term};
    use crate::journal::body::{ChangeCounts, PauseBody, RunCost, SnapshotBody, TakeoverBody, WriterNode};
    use crate::journal::error::JournalError;

    #[test]
    fn one_line_a_record() {
        let line = |seq, slot, body| {
            let record = Record {
                role: samples::app(),
                repo: RepoId([0x5a; 16]),
                seq: Seq(seq),
                term: Term(2),
                takeover: None,
                node: WriterNode { id: NodeId([1; 16]), name: "app01".to_owned() },
                instance: InstanceId([2; 8]),
                time: samples::at("2026-11-20T01:00:02Z"),
                store_time: None,
                slot,
                last_slot: None,
                schedule: None,
                prev: None,
                body,
                state: None,
                generation: KeyGeneration::FIRST,
            };
            JournalEntry::Record(samples::digest(seq as u8), Box::new(record))
        };
        let void = |seq, content| JournalEntry::Void { seq: Seq(seq), by: Seq(18), content };
        let snapshot = SnapshotBody {
            root: ChunkId([0; 32]),
            indexes: Vec::new(),
            entries: 127_036,
            files: 118_015,
            bytes: 9_000_000_000,
            changes: ChangeCounts::default(),
            changed_set: ChunkId([0; 32]),
            cost: RunCost::default(),
            empty: None,
        };
        let all = [
            line(9, None, RecordBody::Takeover(TakeoverBody::new(TakeoverReason::Moved))),
            line(10, Some(samples::at("2026-11-20T01:00:00Z")), RecordBody::Snapshot(snapshot)),
            line(11, None, RecordBody::Pause(PauseBody { until: None, why: Some("disk swap".to_owned()) })),
            line(12, None, RecordBody::Resume),
            line(13, None, RecordBody::Unknown { kind: "freeze".to_owned(), body: serde_json::Value::Null }),
            void(14, VoidContent::Absent),
            void(15, VoidContent::Record),
            void(16, VoidContent::Unusable(JournalError::Hole(Seq(16)))),
            JournalEntry::Lost { seq: Seq(17), error: JournalError::Hole(Seq(17)) },
        ];
        samples::assert_fits(|view| lines(&all, view));
        insta::assert_snapshot!(lines(&all, &samples::view()));
        insta::assert_snapshot!(lines(&[], &samples::view()), @"the journal is empty");
    }
}
