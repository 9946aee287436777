//! `restore`. Pure.

use super::{NAMED_MAX, RenderContext, more, short_id};
use crate::cli::units::{bytes, count, counted, duration, minute};
use crate::job::report::ADVICE;
use crate::job::report::restored::{RestoreProblemKind, RestoreReport, RestoredSnapshot};
use crate::repo::entry::TreePath;
use crate::tree::write::{MetadataFailure, MetadataKind};

/// The report: the verdict, the time and amount, and what could not be restored.
pub fn report(restored: &RestoredSnapshot, view: &RenderContext) -> String {
    let (snapshot, report) = (&restored.snapshot, &restored.report);
    let n = &report.counts;
    let done = n.restored + n.touched + n.unchanged + n.skipped + n.deleted + n.failed + n.directories;
    if done == 0 && !report.unmatched.is_empty() {
        let paths: Vec<String> = report.unmatched.iter().map(TreePath::display).collect();
        let (of, role) = (short_id(snapshot.id), &snapshot.role);
        let what = format!("nothing restored: snapshot {of} does not hold {}", paths.join(", "));
        let hint = format!("{ADVICE}'runner find {role} NAME --snapshot all' looks for it in every snapshot.");
        return view.page.wrap(&format!("{role}: "), 2, &what) + &view.page.row("  ", 2, &hint);
    }
    let target = restored.target.as_ref().map_or_else(|| "in place".to_owned(), |t| format!("to {}", t.display()));
    let verb = match (report.dry_run, report.is_success()) {
        (true, _) => "would restore",
        (false, true) => "restored",
        (false, false) => "INCOMPLETE: restored",
    };
    let mut out = view.page.wrap(
        &format!("{}: ", snapshot.role),
        2,
        &format!(
            "{verb} {} of {} by {} {target} — {}; {}",
            short_id(snapshot.id),
            minute(snapshot.time, &view.zone),
            snapshot.node,
            entries(report),
            data(report)
        ),
    );
    if snapshot.unreadable > 0 {
        out += &view.page.wrap(
            "  ",
            2,
            &format!("THE SNAPSHOT IS INCOMPLETE: {}.", super::snapshots::unread(snapshot.unreadable)),
        );
    }
    if !restored.is_vouched_for {
        let what = "THE JOURNAL DOES NOT CONFIRM THIS SNAPSHOT: only a record from before a rotation of the \
                    repository key names it, and no record after the rotation continues it. A former holder of the \
                    key could have forged it. Trust it only if you noted its whole ID before.";
        out += &view.page.wrap("  ", 2, what);
    }
    if let Some(empty @ 1..) = snapshot.empty {
        out += &view.page.wrap(
            "  ",
            2,
            &format!("NOT ALL SOURCES ARE IN THE SNAPSHOT: {}.", super::snapshots::empty(empty)),
        );
    }
    for path in &report.unmatched {
        out += &view.page.row(&format!("  {}:", path.display()), 4, "not in this snapshot");
    }
    for problem in report.problems.iter().take(NAMED_MAX) {
        out += &view.page.row(&format!("  {}:", problem.path.display()), 4, &why(&problem.kind));
    }
    out += &more(report.problems.len().min(NAMED_MAX), report.counts.failed);
    let is_lost =
        |kind: &RestoreProblemKind| matches!(kind, RestoreProblemKind::Missing(_) | RestoreProblemKind::Damaged { .. });
    if report.problems.iter().any(|problem| is_lost(&problem.kind)) {
        let role = &snapshot.role;
        // A repair that does not read the packs sees no damage inside one of the right size.
        let is_damaged = |kind: &RestoreProblemKind| matches!(kind, RestoreProblemKind::Damaged { .. });
        let depth = if report.problems.iter().any(|problem| is_damaged(&problem.kind)) { " --read-data" } else { "" };
        let hint = format!("{ADVICE}'runner repair {role} --dry-run{depth}' tells what comes back.");
        out += &view.page.row("  ", 2, &hint);
    }
    if n.trusted > 0 {
        let files = counted(n.trusted, "file", "files");
        out +=
            &view.page.wrap("  ", 2, &format!("{files} with equal size and time not read: their content is trusted."));
    }
    if n.leftovers > 0 {
        let files = counted(n.leftovers, "file", "files");
        out += &view.page.wrap("  ", 2, &format!("{files} of an interrupted restore removed."));
    }
    for trouble in &report.metadata {
        out += &view.page.wrap("  ", 2, &metadata_problem(trouble));
    }
    out
}

/// Why something was not restored. Only the start of a chunk's ID is shown, which is enough to compare it with another
/// line.
fn why(kind: &RestoreProblemKind) -> String {
    match kind {
        RestoreProblemKind::Missing(chunk) => format!("chunk {chunk:.8} is missing from the repository"),
        RestoreProblemKind::Damaged { chunk, detail } => format!("chunk {chunk:.8} is damaged: {detail}"),
        kind => kind.to_string(),
    }
}

fn entries(report: &RestoreReport) -> String {
    let n = &report.counts;
    let written = if report.dry_run { "to write" } else { "written" };
    let mut parts = vec![format!("{} {written}", count(n.restored))];
    for (n, what) in [
        (n.touched, if report.dry_run { "to correct" } else { "corrected" }),
        (n.unchanged, "already right"),
        (n.skipped, "left alone"),
        (n.deleted, if report.dry_run { "to delete" } else { "deleted" }),
        (n.failed, "FAILED"),
    ] {
        if n > 0 {
            parts.push(format!("{} {what}", count(n)));
        }
    }
    parts.push(counted(n.directories, "directory", "directories"));
    parts.join(", ")
}

fn data(report: &RestoreReport) -> String {
    let b = &report.bytes;
    if report.dry_run {
        return format!("{} of data", bytes(b.written));
    }
    let reused = if b.reused > 0 { format!(" ({} of it was there)", bytes(b.reused)) } else { String::new() };
    format!("{} written{reused}, {} downloaded in {}", bytes(b.written), bytes(b.fetched), duration(report.duration))
}

/// One line per kind of problem: a line per file would bury the rest.
fn metadata_problem(trouble: &MetadataFailure) -> String {
    let (what, root) = match trouble.kind {
        MetadataKind::Owner => ("owner not set", true),
        MetadataKind::Mode => ("permissions not set", true),
        MetadataKind::Acl => ("ACL not set", false),
        MetadataKind::Capability => ("file capabilities not set", true),
        MetadataKind::Xattr => ("extended attributes not set", false),
        MetadataKind::Time => ("modification time not set", false),
        MetadataKind::Device => ("device node not made", true),
        MetadataKind::Hardlink => ("hard link written as a separate file", false),
        MetadataKind::Flags => ("file flags (chattr) not set", true),
    };
    format!(
        "{what}: {}, first {} ({}).{}",
        counted(trouble.count, "entry", "entries"),
        trouble.first.display(),
        trouble.error,
        if root { " Root may do it." } else { "" }
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::render::samples;
    use crate::ids::ChunkId;
    use crate::job::report::restored::{RestoreBytes, RestoreCounts, RestoreProblem, RestoreProblemKind};

    fn sample() -> RestoredSnapshot {
        RestoredSnapshot {
            snapshot: samples::snapshot(0x3f, "2026-11-20T01:00:00Z"),
            target: Some("/mnt/restore".into()),
            salvage: false,
            is_vouched_for: true,
            report: RestoreReport {
                counts: RestoreCounts { restored: 118_015, directories: 9_021, ..RestoreCounts::default() },
                bytes: RestoreBytes { reused: 0, written: 9_000_000_000, fetched: 3_000_000_000 },
                duration: Duration::from_secs(95),
                ..RestoreReport::default()
            },
        }
    }

    #[test]
    fn fresh_existing_dry_and_incomplete() {
        let mut existing = RestoredSnapshot { target: None, ..sample() };
        existing.report.counts = RestoreCounts {
            restored: 4,
            touched: 3,
            unchanged: 118_000,
            skipped: 2,
            deleted: 5,
            ..sample().report.counts
        };
        existing.report.bytes = RestoreBytes { written: 4_404_019, fetched: 1_153_434, reused: 2_000_000 };
        let mut dry = existing.clone();
        dry.report.dry_run = true;
        let path = TreePath::new("srv/app/x").unwrap();
        let mut incomplete = sample();
        let trouble =
            |kind, error: &str| MetadataFailure { kind, count: 118_015, first: path.clone(), error: error.to_owned() };
        incomplete.report.metadata = vec![
            trouble(MetadataKind::Owner, "Operation not permitted"),
            trouble(MetadataKind::Xattr, "Not supported"),
        ];
        incomplete.report.counts.failed = 31;
        incomplete.report.problems =
            vec![RestoreProblem { path, kind: RestoreProblemKind::Missing(ChunkId([0x3f; 32])) }];
        incomplete.report.unmatched = vec![TreePath::new("srv/nowhere").unwrap()];
        let view = samples::view();
        samples::assert_fits(|view| report(&incomplete, view));
        insta::assert_snapshot!([sample(), existing, dry, incomplete].map(|r| report(&r, &view)).join("\n"));
    }
}
