//! `verify`.

use super::{NAMED_MAX, more, short, wrap};
use crate::cli::units::{bytes, count, counted, duration};
use crate::job::report::verified::{Damage, VerifyReport};

/// The most files that a text names below one damage.
const LOST_NAMED_MAX: usize = 10;

/// The verdict, what was looked at, then each damage with the files it costs.
pub fn report(report: &VerifyReport) -> String {
    let verdict = match report.damage_count {
        0 => "no damage found".to_owned(),
        n => {
            format!("DAMAGED: {}", counted(n, "object is not what it should be", "objects are not what they should be"))
        }
    };
    let n = &report.checked;
    let depth = match report.read_percent {
        0 => "content not read; --read-data does that".to_owned(),
        100 => format!("all content read, {}", bytes(n.bytes_read)),
        percent => format!("{percent} % of them read, {}", bytes(n.bytes_read)),
    };
    let mut out = wrap(
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
    for damage in report.damages.iter().take(NAMED_MAX) {
        out += &self::damage(damage);
    }
    out += &more(report.damages.len().min(NAMED_MAX), report.damage_count);
    if report.damage_count > 0 {
        out += &wrap(
            "  ",
            2,
            "To do: keep the store as it is, restore the files named above from an older snapshot or from the source, \
             and look at the disk or the bucket.",
        );
    }
    out
}

fn damage(damage: &Damage) -> String {
    let mut out = format!("  {}: {}\n", damage.object, damage.what);
    if damage.affected_count == 0 {
        return out + "    no file of a snapshot needs it\n";
    }
    for affected in damage.affected.iter().take(LOST_NAMED_MAX) {
        out += &format!("    lost: {} in {}\n", affected.path.display(), short(affected.snapshot));
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
    use crate::job::report::verified::{Affected, VerifyCounts};
    use crate::repo::entry::TreePath;

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
            },
            read_percent: 0,
            duration: Duration::from_secs(12),
            damages: Vec::new(),
            damage_count: 0,
        };
        let part = VerifyReport { read_percent: 10, ..clean.clone() };
        let lost = |n: usize| Affected {
            snapshot: samples::digest(0x3f),
            path: TreePath::new(format!("srv/app/file-{n:02}")).unwrap(),
        };
        let damaged = VerifyReport {
            read_percent: 100,
            damages: vec![
                Damage {
                    object: "app/packs/3f/3f2a91c0c0c0c0c0c0c0c0c0c0c0c0c0".to_owned(),
                    what: "frame 3 does not decrypt".to_owned(),
                    affected: (0..30).map(lost).collect(),
                    affected_count: 412,
                },
                Damage {
                    object: "app/packs/40/402a91c0c0c0c0c0c0c0c0c0c0c0c0c0".to_owned(),
                    what: "missing".to_owned(),
                    affected: Vec::new(),
                    affected_count: 0,
                },
            ],
            damage_count: 2,
            ..clean.clone()
        };
        insta::assert_snapshot!([clean, part, damaged].map(|r| report(&r)).join("\n"));
    }
}
