//! `restore`.

use super::{NAMED_MAX, View, more, short, wrap};
use crate::cli::units::{bytes, count, counted, duration, minute};
use crate::job::report::restored::{RestoreReport, UnsetKind};

/// The verdict, what it took, what could not be done.
pub fn report(report: &RestoreReport, view: &View) -> String {
    let snapshot = &report.snapshot;
    let target = report.target.as_ref().map_or_else(|| "in place".to_owned(), |t| format!("to {}", t.display()));
    let verb = match (report.dry_run, report.problem_count) {
        (true, _) => "would restore",
        (false, 0) => "restored",
        (false, _) => "INCOMPLETE: restored",
    };
    let mut out = wrap(
        &format!("{}: ", snapshot.role),
        2,
        &format!(
            "{verb} {} of {} by {} {target} — {}; {}",
            short(snapshot.id),
            minute(snapshot.time, &view.zone),
            snapshot.node,
            entries(report),
            data(report)
        ),
    );
    for unset in &report.unset {
        let what = match unset.kind {
            UnsetKind::Owner => "the owner",
            UnsetKind::Mode => "the permissions",
            UnsetKind::Time => "the modification time",
            UnsetKind::Xattr => "extended attributes",
            UnsetKind::Device => "the device node",
        };
        out += &wrap(
            "  ",
            2,
            &format!(
                "not set: {what} of {}, the first {} ({}). Run as root to set it.",
                counted(unset.count, "entry", "entries"),
                unset.first.display(),
                unset.why
            ),
        );
    }
    if report.problem_count > 0 {
        out += &format!("  {} could not be restored:\n", counted(report.problem_count, "path", "paths"));
    }
    for problem in report.problems.iter().take(NAMED_MAX) {
        out += &format!("  {}: {}\n", problem.path.display(), problem.why);
    }
    out + &more(report.problems.len().min(NAMED_MAX), report.problem_count)
}

fn entries(report: &RestoreReport) -> String {
    let n = &report.entries;
    let mut parts = vec![format!("{} created", count(n.created))];
    for (n, what) in
        [(n.updated, "updated"), (n.unchanged, "already right"), (n.kept, "left as they are"), (n.deleted, "deleted")]
    {
        if n > 0 {
            parts.push(format!("{} {what}", count(n)));
        }
    }
    parts.join(", ")
}

fn data(report: &RestoreReport) -> String {
    let b = &report.bytes;
    if report.dry_run {
        return format!("{} of {} to write", bytes(b.written), bytes(b.total));
    }
    format!(
        "{} of {} written, {} downloaded in {}",
        bytes(b.written),
        bytes(b.total),
        bytes(b.downloaded),
        duration(report.duration)
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::render::samples;
    use crate::job::report::restored::{RestoreBytes, RestoreCounts, RestoreProblem, Unset};
    use crate::repo::entry::TreePath;

    fn sample() -> RestoreReport {
        RestoreReport {
            snapshot: samples::snapshot(0x3f, "2026-11-20T01:00:00Z"),
            target: Some("/mnt/restore".into()),
            dry_run: false,
            entries: RestoreCounts { created: 118_015, ..RestoreCounts::default() },
            bytes: RestoreBytes { total: 9_000_000_000, reused: 0, written: 9_000_000_000, downloaded: 3_000_000_000 },
            requests: 1_500,
            duration: Duration::from_secs(95),
            unset: Vec::new(),
            problems: Vec::new(),
            problem_count: 0,
        }
    }

    #[test]
    fn fresh_existing_dry_and_incomplete() {
        let existing = RestoreReport {
            target: None,
            entries: RestoreCounts { created: 1, updated: 3, unchanged: 118_000, kept: 2, deleted: 5 },
            bytes: RestoreBytes { written: 4_404_019, downloaded: 1_153_434, ..sample().bytes },
            ..sample()
        };
        let dry = RestoreReport { dry_run: true, ..existing.clone() };
        let path = TreePath::new("srv/app/x").unwrap();
        let incomplete = RestoreReport {
            unset: vec![Unset {
                kind: UnsetKind::Owner,
                count: 118_015,
                first: path.clone(),
                why: "Operation not permitted".to_owned(),
            }],
            problems: vec![RestoreProblem { path, why: "No space left on device".to_owned() }],
            problem_count: 31,
            ..sample()
        };
        let view = samples::view();
        let all = [sample(), existing, dry, incomplete].map(|r| report(&r, &view));
        insta::assert_snapshot!(all.join("\n"));
    }
}
