//! `repair`. Pure.

use super::{NAMED_MAX, RenderContext, more, short_id};
use crate::cli::units::{count, counted, minute};
use crate::job::report::ADVICE;
use crate::job::report::repaired::{FormatSource, RepairFinding, RepairReport, SnapshotLoss};

/// The most entries that a text names below one snapshot.
const LOST_NAMED_MAX: usize = 10;

/// The report: the verdict, what is lost and what happens to it, then each snapshot that cannot be restored whole.
pub fn report(report: &RepairReport, view: &RenderContext) -> String {
    let lost = report.lost_files();
    let whole = report.snapshots.iter().filter(|snapshot| snapshot.lost_count == 0).count();
    let snapshots = format!("{whole} of {}", counted(report.snapshots.len() as u64, "snapshot", "snapshots"));
    let mended = report.findings.len() as u64 - u64::from(report.unwritten_slot().is_some());
    let verdict = match (mended, lost) {
        (0, _) if report.unwritten_slot().is_some() => "a key slot is lost, and stays so".to_owned(),
        (0, 0) => "nothing to repair".to_owned(),
        (0, _) => "nothing more to repair".to_owned(),
        (n, _) if report.dry_run => format!("{} would be repaired", counted(n, "loss", "losses")),
        (n, _) => format!("{} repaired", counted(n, "loss", "losses")),
    };
    let record = report.record.map(|(seq, term)| format!("; record {seq} says so, with term {term} of this node"));
    let depth = if report.read_data { "all content read" } else { "content not read; --read-data does that" };
    let whole = format!("{verdict}{} — {snapshots} can be restored whole ({depth})", record.unwrap_or_default());
    let mut out = view.page.wrap(&format!("{}: ", report.role), 2, &whole);
    for finding in report.findings.iter().take(NAMED_MAX) {
        out += &view.page.wrap("  ", 4, &text(report, finding));
    }
    out += &more(report.findings.len().min(NAMED_MAX), report.findings.len() as u64);
    let is_asked = report.findings.iter().any(|finding| matches!(finding, RepairFinding::KeySlot { .. }));
    if is_asked || report.keys.iter().any(|(_, what)| what.is_some()) {
        out += &view.page.wrap("  ", 4, &keys(report));
    }
    for snapshot in report.snapshots.iter().filter(|snapshot| snapshot.lost_count > 0).take(NAMED_MAX) {
        out += &loss(snapshot, view);
    }
    let todo = advice(report);
    if !todo.is_empty() {
        out += &view.page.row("  ", 2, &format!("{ADVICE}{todo}"));
    }
    out
}

fn text(report: &RepairReport, finding: &RepairFinding) -> String {
    let role = &report.role;
    let will = |done: &'static str, would: &'static str| if report.dry_run { would } else { done };
    match finding {
        RepairFinding::Format { what, source } => format!(
            "{role}/format {what}: it {} {}",
            will("is made anew", "would be made anew"),
            match source {
                FormatSource::Memory => "from this node's copy",
                FormatSource::Journal => "from the key and the journal",
            }
        ),
        RepairFinding::KeySlot { id, put_back } => format!(
            "key slot {id} is missing or damaged: {}",
            match (put_back, report.dry_run) {
                (true, false) => "it is written again from this node's copy",
                (true, true) => "it would be written again from this node's copy",
                (false, _) => "this node has a copy of it, which --key-slot writes again",
            }
        ),
        RepairFinding::Record { seq, what, known } => format!(
            "journal record {seq} {what}: it {} void. {}",
            will("is", "would be"),
            if *known {
                "Its content is known from later records or from this node's memory"
            } else {
                "Its content is lost; if it was a snapshot, the snapshot is lost. hint: run the repair first on a \
                 node that remembers the record: it can bring it back"
            }
        ),
        RepairFinding::End { from, to } if from == to => {
            format!(
                "journal record {from}, which this node has seen, is lost: its content is known from this node's memory"
            )
        }
        RepairFinding::End { from, to } => format!(
            "journal records {from} to {to}, which this node has seen, are lost: their content is known from this \
             node's memory"
        ),
        RepairFinding::Rotation(generation) => format!(
            "the record of the rotation to generation {generation} of the repository key is lost, and so are the \
             records after it: the journal {} under that generation. {ADVICE}run the repair first on a node that \
             remembers those records: it can bring them back",
            will("continues", "would continue")
        ),
        RepairFinding::RotationCopy { object, what } => {
            format!("{object} {what}: the copy {} from the record", will("is written again", "would be written again"))
        }
        RepairFinding::Unvouched { from, to, snapshots } => {
            let records = if from == to {
                format!(
                    "journal record {from} is of an older generation of the repository key, and no record of the \
                     newest generation confirms it"
                )
            } else {
                format!(
                    "journal records {from} to {to} are of an older generation of the repository key, and no record \
                     of the newest generation confirms them"
                )
            };
            let named: Vec<String> = snapshots.iter().take(NAMED_MAX).map(ToString::to_string).collect();
            let more = snapshots.len().saturating_sub(named.len());
            let lost = match snapshots.len() {
                0 => String::new(),
                _ => format!(
                    ". With {} {} left out: {}{}. {ADVICE}run the repair first on a node that remembers them: it can \
                     bring them back. 'runner restore {role} --salvage --snapshot ID' writes one whose whole ID you \
                     noted before",
                    if from == to { "it" } else { "them" },
                    will("are", "would be"),
                    named.join(", "),
                    if more > 0 { format!(" and {more} more") } else { String::new() }
                ),
            };
            format!("{records}: a former holder of the key could have put other records there{lost}")
        }
        RepairFinding::Snapshot(id) => {
            format!("snapshot {} {} in the journal again", short_id(*id), will("is", "would be"))
        }
        RepairFinding::Index { id, what, copy: true } => {
            format!(
                "index object {id} {what}: it {} from this node's copy",
                will("is written again", "would be written again")
            )
        }
        RepairFinding::Index { id, what, copy: false } => {
            format!(
                "index object {id} {what}: what snapshots need of it {} from the packs",
                will("is listed anew", "would be listed anew")
            )
        }
        RepairFinding::Listed { packs, chunks } => format!(
            "{} with {} {} anew",
            counted(*packs, "pack", "packs"),
            counted(*chunks, "chunk", "chunks"),
            will("listed", "would be listed")
        ),
        RepairFinding::Pack { id, what, moved } => format!(
            "pack {id} {what}: the index {} it{}",
            will("no longer lists", "would no longer list"),
            match moved {
                0 => String::new(),
                n => format!(
                    ", and {} of it {} elsewhere",
                    counted(*n, "chunk", "chunks"),
                    will("moved", "would be moved")
                ),
            }
        ),
    }
}

fn keys(report: &RepairReport) -> String {
    let one = |(id, what): &(_, Option<String>)| match what {
        None => format!("{id}"),
        Some(what) => format!("{id} ({what})"),
    };
    match report.keys.len() {
        0 => "the store has no key slot".to_owned(),
        _ => format!("the store has these key slots: {}", report.keys.iter().map(one).collect::<Vec<_>>().join(", ")),
    }
}

fn loss(loss: &SnapshotLoss, view: &RenderContext) -> String {
    let info = &loss.info;
    let lost = counted(loss.lost_count, "entry", "entries");
    let text = format!("{} of {}: {lost} cannot be restored", short_id(info.id), minute(info.time, &view.zone));
    let mut out = view.page.wrap("  ", 4, &text);
    for entry in loss.lost.iter().take(LOST_NAMED_MAX) {
        let path = entry.path.display();
        out += &match entry.entries {
            1 => format!("    lost: {path}\n"),
            n => format!("    lost: {} from {path} on\n", counted(n, "entry", "entries")),
        };
    }
    let named: u64 = loss.lost.iter().take(LOST_NAMED_MAX).map(|entry| entry.entries).sum();
    let rest = loss.lost_count.saturating_sub(named);
    if rest > 0 {
        out += &format!("    lost: {} more\n", count(rest));
    }
    out
}

fn advice(report: &RepairReport) -> String {
    let role = &report.role;
    let newest = report.snapshots.last().is_some_and(|snapshot| snapshot.lost_count > 0);
    let older = report.snapshots.iter().rev().skip(1).any(|snapshot| snapshot.lost_count > 0);
    let mut todo = Vec::new();
    if report.dry_run && !report.findings.is_empty() {
        todo.push(format!("find out what happened to the store, then run 'runner repair {role}'."));
    }
    if report.unwritten_slot().is_some() {
        todo.push(format!(
            "'runner repair {role} --key-slot' writes the key slot again; without it this key does not open the \
             repository. Do not run it if the slot was removed on purpose."
        ));
    }
    if newest {
        todo.push(format!("'runner backup {role}' stores again what the sources still have."));
    }
    if older {
        todo.push(
            "'runner restore --salvage' writes what is whole of an older snapshot, and names the rest.".to_owned(),
        );
    }
    todo.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples;
    use crate::ids::{IndexId, KeyGeneration, KeyId, PackId, Seq, Term};
    use crate::job::report::repaired::LostEntry;
    use crate::repo::entry::TreePath;

    #[test]
    fn what_is_lost_and_what_becomes_of_it() {
        let entry = |n: u64| LostEntry { path: TreePath::new(format!("srv/app/file-{n}")).unwrap(), entries: 1 };
        let loss = |id: u8, lost_count: u64| SnapshotLoss {
            info: samples::snapshot(id, "2026-11-20T01:00:00Z"),
            lost: (0..lost_count.min(30)).map(entry).collect(),
            lost_count,
        };
        let missing = || "is missing".to_owned();
        let found = RepairReport {
            role: samples::app(),
            dry_run: true,
            findings: vec![
                RepairFinding::Format { what: missing(), source: FormatSource::Memory },
                RepairFinding::Format { what: missing(), source: FormatSource::Journal },
                RepairFinding::KeySlot { id: KeyId([1; 8]), put_back: false },
                RepairFinding::Record { seq: Seq(7), what: missing(), known: true },
                RepairFinding::Record { seq: Seq(8), what: missing(), known: false },
                RepairFinding::End { from: Seq(9), to: Seq(9) },
                RepairFinding::End { from: Seq(9), to: Seq(11) },
                RepairFinding::Rotation(KeyGeneration(1)),
                RepairFinding::RotationCopy {
                    object: "app/rotated/0000000000000006".to_owned(),
                    what: "is not the copy of journal record 6 that it should be".to_owned(),
                },
                RepairFinding::Unvouched {
                    from: Seq(1),
                    to: Seq(6),
                    snapshots: vec![samples::digest(0x40), samples::digest(0x41)],
                },
                RepairFinding::Unvouched { from: Seq(1), to: Seq(1), snapshots: Vec::new() },
                RepairFinding::Snapshot(samples::digest(0x3f)),
                RepairFinding::Index { id: IndexId([2; 16]), what: missing(), copy: true },
                RepairFinding::Index { id: IndexId([3; 16]), what: missing(), copy: false },
                RepairFinding::Listed { packs: 2, chunks: 140 },
                RepairFinding::Pack { id: PackId([4; 16]), what: "has 7 bytes instead of 9".to_owned(), moved: 3 },
            ],
            keys: vec![(KeyId([5; 8]), None), (KeyId([6; 8]), Some("key slot is damaged".to_owned()))],
            snapshots: vec![loss(0x3f, 0), loss(0x40, 31), loss(0x41, 1)],
            read_data: false,
            record: None,
        };
        let done = RepairReport { dry_run: false, read_data: true, record: Some((Seq(12), Term(4))), ..found.clone() };
        let sound = RepairReport { findings: Vec::new(), snapshots: vec![loss(0x3f, 0)], ..found.clone() };
        let text = [&found, &done, &sound].map(|found| report(found, &samples::view())).concat();
        samples::assert_fits(|view| report(&done, view));
        insta::assert_snapshot!(text);
    }
}
