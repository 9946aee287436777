//! `verify`. Pure.

use super::layout::PageLayout;
use super::{NAMED_MAX, more, short_id};
use crate::cli::units::{bytes, count, counted, duration};
use crate::job::report::ADVICE;
use crate::job::report::verified::{DamageKind, DamagedObject, VerifyReport};

/// The most files that a text names below one damage.
const LOST_NAMED_MAX: usize = 10;

/// The report: the verdict, what was checked, then each damage with the files that it affects.
pub fn report(report: &VerifyReport, page: PageLayout) -> String {
    let verdict = match report.damage_count {
        0 => "no damage found".to_owned(),
        n => {
            format!("DAMAGED: {}", counted(n, "object is missing or damaged", "objects are missing or damaged"))
        }
    };
    let n = &report.checked;
    let depth = match report.read_percent {
        0 => "content not read; --read-data does that".to_owned(),
        100 => format!("all content read, {}", bytes(n.bytes_read)),
        percent => format!("{percent} % of them read, {}", bytes(n.bytes_read)),
    };
    let mut out = page.wrap(
        &format!("{}: ", report.role),
        2,
        &format!(
            "{verdict} — checked {}, {}, {} in {} ({depth}) in {}",
            counted(n.records, "record", "records"),
            counted(n.snapshots, "snapshot", "snapshots"),
            counted(n.chunks, "chunk", "chunks"),
            counted(n.packs, "pack", "packs"),
            duration(report.duration)
        ),
    );
    // If an index is missing, what it names counts as unreferenced, too.
    if n.unreferenced > 0 && report.damage_count == 0 {
        let garbage = counted(n.unreferenced, "object that nothing refers to", "objects that nothing refers to");
        out += &page.wrap(
            "  ",
            2,
            &format!("{garbage}. Interrupted runs leave such objects, and so does the removal of the newest records."),
        );
    }
    for damage in report.damages.iter().take(NAMED_MAX) {
        out += &self::damage(damage, page);
    }
    out += &more(report.damages.len().min(NAMED_MAX), report.damage_count);
    if report.damage_count > 0 {
        out += &page.wrap(
            &format!("  {ADVICE}"),
            2,
            "keep the store as it is, and look at the disk or the bucket. The next backup stores again what is lost and \
             still in the sources; restore the rest from another snapshot or from another copy. \
             'runner repair ROLE --dry-run' says what comes back.",
        );
    }
    out
}

fn damage(damage: &DamagedObject, page: PageLayout) -> String {
    let mut out = page.row(&format!("  {}:", damage.object), 4, &damage.what);
    match (damage.kind, damage.affected_count) {
        (DamageKind::Format, _) => out += &page.wrap("    ", 6, "nothing else can be checked or read without it"),
        (DamageKind::Key, _) => {
            out += &page.wrap("    ", 6, "a node that has its secret needs another key to open the repository");
        }
        (DamageKind::Record, _) => {
            out += &page.wrap("    ", 6, "the journal cannot be trusted from this record on");
        }
        (DamageKind::RotationCopy, _) => {
            out += &page.wrap("    ", 6, "it is needed only where the record of the rotation is lost");
        }
        (DamageKind::Index | DamageKind::Pack, 0) => out += &page.wrap("    ", 6, "no file of a snapshot needs it"),
        (DamageKind::Index | DamageKind::Pack, _) => {}
    }
    for affected in damage.affected.iter().take(LOST_NAMED_MAX) {
        out += &page.row(
            &format!("    lost: {}", affected.path.display()),
            6,
            &format!("in {}", short_id(affected.snapshot)),
        );
    }
    let rest = damage.affected_count.saturating_sub(damage.affected.len().min(LOST_NAMED_MAX) as u64);
    if rest > 0 {
        out += &format!("    lost: {} more\n", count(rest));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::render::samples;
    use crate::job::report::verified::{AffectedFile, VerifyCounts};
    use crate::repo::entry::TreePath;
    use crate::repo::loss::PackLosses;

    #[test]
    fn clean_and_damaged() {
        let clean = VerifyReport {
            role: samples::app(),
            checked: VerifyCounts {
                records: 214,
                snapshots: 30,
                indexes: 31,
                packs: 1_204,
                chunks: 130_511,
                bytes_read: 3_100_000_000,
                unreferenced: 0,
            },
            read_percent: 0,
            duration: Duration::from_secs(12),
            damages: Vec::new(),
            damage_count: 0,
            losses: PackLosses::default(),
        };
        let checked = VerifyCounts { unreferenced: 2, ..clean.checked };
        let part = VerifyReport { read_percent: 10, checked, ..clean.clone() };
        let lost = |n: usize| AffectedFile {
            snapshot: samples::digest(0x3f),
            path: TreePath::new(format!("srv/app/file-{n:02}")).unwrap(),
        };
        let damaged = VerifyReport {
            read_percent: 100,
            damages: vec![
                DamagedObject {
                    kind: DamageKind::Pack,
                    object: "app/packs/3f/3f2a91c0c0c0c0c0c0c0c0c0c0c0c0c0".to_owned(),
                    what: "frame 3 does not decrypt".to_owned(),
                    affected: (0..30).map(lost).collect(),
                    affected_count: 412,
                },
                DamagedObject {
                    kind: DamageKind::Pack,
                    object: "app/packs/40/402a91c0c0c0c0c0c0c0c0c0c0c0c0c0".to_owned(),
                    what: "missing".to_owned(),
                    affected: Vec::new(),
                    affected_count: 0,
                },
                DamagedObject {
                    kind: DamageKind::Record,
                    object: "app/journal/0000000000000007".to_owned(),
                    what: "is missing".to_owned(),
                    affected: Vec::new(),
                    affected_count: 0,
                },
            ],
            damage_count: 3,
            ..clean.clone()
        };
        samples::assert_fits(|view| report(&damaged, view.page));
        insta::assert_snapshot!([clean, part, damaged].map(|r| report(&r, PageLayout::FILE)).join("\n"));
    }
}
