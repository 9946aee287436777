//! `journal show`: the table.

use super::{View, short, table};
use crate::cli::units::{minute, time};
use crate::job::report::snapshot::JournalLine;

/// Oldest first.
pub fn lines(lines: &[JournalLine], view: &View) -> String {
    if lines.is_empty() {
        return "the journal is empty\n".to_owned();
    }
    let rows = lines.iter().map(|line| {
        let mut what = line.kind.clone();
        if !line.detail.is_empty() {
            what += &format!(" ({})", line.detail);
        }
        if let Some(slot) = line.slot {
            what += &format!(", slot {}", minute(slot, &view.zone));
        }
        [
            line.seq.to_string(),
            time(line.time, &view.zone),
            line.node.clone(),
            line.term.to_string(),
            short(line.digest),
            what,
        ]
    });
    table(["SEQ", "TIME", "NODE", "TERM", "DIGEST", "WHAT"], [true, false, false, true, false, false], rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples;
    use crate::ids::{Seq, Term};

    #[test]
    fn one_line_a_record() {
        let line = |seq, kind: &str, detail: &str, slot| JournalLine {
            seq: Seq(seq),
            digest: samples::digest(seq as u8),
            kind: kind.to_owned(),
            term: Term(2),
            node: "app01".to_owned(),
            time: samples::at("2026-11-20T01:00:02Z"),
            slot,
            detail: detail.to_owned(),
        };
        let all =
            [line(9, "takeover", "moved", None), line(10, "snapshot", "", Some(samples::at("2026-11-20T01:00:00Z")))];
        insta::assert_snapshot!(lines(&all, &samples::view()));
        insta::assert_snapshot!(lines(&[], &samples::view()), @"the journal is empty");
    }
}
