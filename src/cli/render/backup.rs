//! `backup`: one paragraph per role. Pure.

use super::{NAMED_MAX, RenderContext, more, run_reason, short_id};
use crate::cli::units::{bytes, count, counted, duration, minute};
use crate::job::report::{ADVICE, FileCounts, LossReport, PathProblem, PathProblemKind, RoleReport, RunOutcome};
use crate::repo::entry::TreePath;
use crate::text;

/// The report on one role.
pub fn role(report: &RoleReport, view: &RenderContext) -> String {
    let mut out = verdict(report, view);
    if report.takeover
        && let Some(term) = report.term
    {
        out += &format!("  took the role over: term {term}\n");
    }
    if let Some(todo) = hint(report, view) {
        out += &view.page.row("  ", 2, &todo);
    }
    if report.problems.iter().any(is_denied) {
        out += &view.page.row("  ", 2, &format!("{ADVICE}run it as a user who may read them, usually root."));
    }
    out += &empty_sources(report, view);
    out += &report.loss.as_ref().map(|lost| loss(lost, view)).unwrap_or_default();
    out + &problems(report, view)
}

/// The first sentence, with the verdict.
fn verdict(report: &RoleReport, view: &RenderContext) -> String {
    let name = &report.role;
    let reason = reason_text(report, view);
    let reason = reason.as_deref();
    let id = report.snapshot.map(short_id).unwrap_or_default();
    let text = match report.outcome {
        RunOutcome::Committed => {
            let first = if report.previous.is_none() { " (first backup)" } else { "" };
            format!("committed {id}{first} — {}", changes(report))
        }
        RunOutcome::Unchanged => {
            let since = report.previous.map(|t| format!(" since {}", minute(t, &view.zone))).unwrap_or_default();
            format!("nothing changed{since}, committed {id} ({} of data uploaded)", none_is_zero(report.bytes.new))
        }
        RunOutcome::Standby => format!("standby — skipped: {}", reason.unwrap_or("another node is active")),
        RunOutcome::Skipped => format!("skipped — {}", reason.unwrap_or("nothing is due")),
        RunOutcome::Unknown => format!("unknown — {}", reason.unwrap_or("cannot tell who is active")),
        RunOutcome::Fenced => {
            let reason = reason.unwrap_or("another node took the role over");
            format!("fenced — nothing committed: {}", reason.strip_prefix("fenced: ").unwrap_or(reason))
        }
        RunOutcome::Failed => format!("FAILED — nothing committed: {}", reason.unwrap_or("no reason given")),
    };
    view.page.wrap_advised(&format!("{name}: "), 2, &text)
}

/// The text of the reason, if there is one.
fn reason_text(report: &RoleReport, view: &RenderContext) -> Option<String> {
    report.reason.as_ref().map(|reason| run_reason::text(&report.role, reason, &view.zone))
}

fn none_is_zero(n: u64) -> String {
    if n == 0 { "0 bytes".to_owned() } else { bytes(n) }
}

/// The changes of a commit, in one sentence.
fn changes(report: &RoleReport) -> String {
    let files = &report.files;
    let mut parts =
        vec![format!("{} new", counted(files.new, "entry", "entries")), format!("{} changed", count(files.changed))];
    if files.removed > 0 {
        parts.push(format!("{} removed", count(files.removed)));
    }
    parts.push(format!("{} unchanged", count(files.unchanged)));
    format!(
        "{}; {} read, {} uploaded in {}",
        parts.join(", "),
        bytes(report.bytes.read),
        bytes(report.bytes.uploaded),
        duration(report.duration)
    )
}

/// A hint for an outcome that is not the usual one.
fn hint(report: &RoleReport, view: &RenderContext) -> Option<String> {
    let role = &report.role;
    // The hint of the reason itself is better than one for every outcome of that kind.
    let is_advised = reason_text(report, view).is_some_and(|reason| text::advised(&reason).is_some());
    match report.outcome {
        RunOutcome::Committed | RunOutcome::Unchanged if report.files.unreadable > 0 => Some(incomplete(&report.files)),
        RunOutcome::Unknown | RunOutcome::Fenced if is_advised => None,
        RunOutcome::Unknown => Some(format!(
            "{ADVICE}'runner whoami {role}' shows what cannot be told. Running the backup again is safe: what was \
             committed is found and not repeated."
        )),
        RunOutcome::Fenced => Some(format!("{ADVICE}'runner whoami {role}' shows which node has the role now.")),
        _ => None,
    }
}

/// Whether this user is not allowed to read the path.
fn is_denied(problem: &PathProblem) -> bool {
    matches!(&problem.kind, PathProblemKind::Unreadable(why) if why.starts_with("Permission denied"))
}

/// What a snapshot lacks: files that could not be read in this run, and were not read by an earlier one either.
fn incomplete(files: &FileCounts) -> String {
    let FileCounts { unreadable, kept, .. } = *files;
    let (is, missing) = (|n| if n == 1 { "is" } else { "are" }, unreadable.saturating_sub(kept));
    let what = match (kept, missing) {
        (0, n) => format!("{} missing in this snapshot", is(n)),
        (n, 0) => format!("{} in this snapshot as last read", is(n)),
        (kept, missing) => format!(
            "of those {} {} in this snapshot as last read, and {} {} missing",
            count(kept),
            is(kept),
            count(missing),
            is(missing)
        ),
    };
    let joint = if kept > 0 && missing > 0 { "; " } else { " and " };
    format!("INCOMPLETE: {} could not be read{joint}{what}.", counted(unreadable, "file", "files"))
}

/// Sources without a file, and a snapshot without content. They are reported even if the rest made a snapshot.
fn empty_sources(report: &RoleReport, view: &RenderContext) -> String {
    let line = |path: &TreePath| view.page.wrap("  ", 2, &format!("WARNING: {} holds no file.", path.display()));
    let sources: String = report.empty_sources.iter().map(line).collect();
    let whole = "WARNING: the snapshot has no content: it holds only empty files, links and special files.";
    if report.has_no_content() { sources + &view.page.wrap("  ", 2, whole) } else { sources }
}

/// The content that the store had lost: what is stored again, and what is not.
fn loss(loss: &LossReport, view: &RenderContext) -> String {
    let packs = counted(loss.packs, "pack", "packs");
    let healed = match loss.healed_bytes {
        0 => String::new(),
        n => format!(": {} were stored again from the sources", bytes(n)),
    };
    let missing = match loss.missing_files {
        Some(0) => ". Nothing of any snapshot is missing.".to_owned(),
        Some(n) => format!(
            ". WARNING: {} of earlier snapshots cannot be restored, because this node no longer has the content \
             either. {ADVICE}'runner verify' names them all.",
            counted(n, "file", "files")
        ),
        None => ". WARNING: it could not be determined which files of earlier snapshots lack it.".to_owned(),
    };
    let mut out = view.page.wrap("  ", 2, &format!("the store had lost {packs}, in whole or in part{healed}{missing}"));
    for file in loss.missing.iter().take(NAMED_MAX) {
        out += &view.page.row(
            &format!("    lost: {}", file.path.display()),
            6,
            &format!("in {}", short_id(file.snapshot)),
        );
    }
    let named = loss.missing.len().min(NAMED_MAX) as u64;
    if let Some(rest) = loss.missing_files.and_then(|n| n.checked_sub(named)).filter(|n| *n > 0) {
        out += &format!("    lost: {} more\n", count(rest));
    }
    out
}

/// The problems with single paths, the worst first.
fn problems(report: &RoleReport, view: &RenderContext) -> String {
    // Sockets are common and not missed in a backup, so their number is enough.
    let (sockets, mut sorted): (Vec<&PathProblem>, Vec<&PathProblem>) =
        report.problems.iter().partition(|p| p.kind == PathProblemKind::Socket);
    sorted.sort_by_key(|p| rank(&p.kind));
    let mut out = String::new();
    for problem in sorted.iter().take(NAMED_MAX) {
        let what = match &problem.kind {
            PathProblemKind::Unreadable(why) => format!("not read: {why}"),
            PathProblemKind::Changed => "kept changing while it was read; the last read is saved".to_owned(),
            PathProblemKind::Vanished => "disappeared before it was read".to_owned(),
            PathProblemKind::Attribute(why) => format!("saved, but not all of its attributes: {why}"),
            PathProblemKind::Socket => "a socket, left out".to_owned(),
        };
        out += &view.page.row(&format!("  {}:", problem.path.display()), 4, &what);
    }
    if !sockets.is_empty() {
        out += &format!("  {} left out\n", counted(sockets.len() as u64, "socket", "sockets"));
    }
    out + &more(sorted.len().min(NAMED_MAX) + sockets.len(), report.problem_count)
}

fn rank(kind: &PathProblemKind) -> u8 {
    match kind {
        PathProblemKind::Unreadable(_) => 0,
        PathProblemKind::Changed => 1,
        PathProblemKind::Vanished => 2,
        PathProblemKind::Attribute(_) => 3,
        PathProblemKind::Socket => 4,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::cli::render::samples;
    use crate::job::report::{ByteCounts, MissingFile, RunReason};

    fn with(outcome: RunOutcome, reason: Option<&str>) -> RoleReport {
        RoleReport { outcome, reason: reason.map(|text| RunReason::Text(text.to_owned())), ..samples::backup() }
    }

    #[test]
    fn every_outcome_in_plain_words() {
        let view = samples::view();
        let unchanged = RoleReport {
            bytes: ByteCounts { source: 9_000_000_000, read: 0, new: 0, uploaded: 1_900 },
            files: FileCounts { unchanged: 118_015, ..FileCounts::default() },
            takeover: true,
            ..with(RunOutcome::Unchanged, None)
        };
        let first = RoleReport {
            previous: None,
            files: FileCounts { new: 118_015, ..FileCounts::default() },
            bytes: ByteCounts { source: 9_000_000_000, read: 9_000_000_000, new: 0, uploaded: 3_100_000_000 },
            duration: Duration::from_secs(200),
            ..samples::backup()
        };
        let empty = "/srv/app is empty, the last snapshot has 118,015 files in it: is the volume mounted? \
                     If it is right, set allow_empty = true for this role";
        let all = [
            samples::backup(),
            first,
            unchanged,
            with(RunOutcome::Standby, Some("vip 10.0.0.50 is not on this node")),
            with(RunOutcome::Skipped, Some("the slot 2026-11-20 02:00 +01:00 is committed already")),
            with(RunOutcome::Unknown, Some("command /usr/local/bin/is-primary timed out after 10 s")),
            with(RunOutcome::Fenced, Some("app02 took the role over with term 8")),
            with(RunOutcome::Failed, Some(empty)),
        ];
        insta::assert_snapshot!(all.iter().map(|r| role(r, &view)).collect::<Vec<_>>().join("\n"));
    }

    #[test]
    fn what_a_snapshot_lacks_is_told_from_what_it_has_of_old() {
        let said = |unreadable, kept| {
            let files = FileCounts { unreadable, kept, ..samples::backup().files };
            role(&RoleReport { files, ..samples::backup() }, &samples::view()).lines().skip(2).collect::<String>()
        };
        insta::assert_snapshot!([said(1, 0), said(5, 5), said(7, 5)].join("\n"));
    }

    #[test]
    fn a_source_without_a_file_is_named_beside_a_commit() {
        let empty_sources = vec![TreePath::new("srv/uploads").unwrap()];
        insta::assert_snapshot!(role(&RoleReport { empty_sources, ..samples::backup() }, &samples::view()));
    }

    #[test]
    fn what_was_lost_is_told_with_what_is_missing_still() {
        let with = |loss| role(&RoleReport { loss: Some(loss), ..samples::backup() }, &samples::view());
        let healed = LossReport { packs: 2, healed_bytes: 31 << 20, missing_files: Some(0), missing: Vec::new() };
        let file = |n: usize| MissingFile {
            snapshot: samples::digest(0x3f),
            path: TreePath::new(format!("srv/app/file-{n:02}")).unwrap(),
        };
        let missing = LossReport { missing_files: Some(412), missing: (0..100).map(file).collect(), ..healed.clone() };
        let untold = LossReport { packs: 1, healed_bytes: 0, missing_files: None, missing: Vec::new() };
        let text = [healed, missing, untold].map(with).join("\n");
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn problems_are_named_up_to_a_limit_the_worst_first() {
        let path = |n: usize| TreePath::new(format!("srv/app/file-{n:02}")).unwrap();
        let many = |from, kind: PathProblemKind| {
            (from..from + 30).map(move |n| PathProblem { path: path(n), kind: kind.clone() })
        };
        let mut problems: Vec<PathProblem> =
            many(0, PathProblemKind::Socket).chain(many(30, PathProblemKind::Vanished)).collect();
        problems.push(PathProblem { path: path(98), kind: PathProblemKind::Changed });
        problems
            .push(PathProblem { path: path(99), kind: PathProblemKind::Unreadable("Permission denied".to_owned()) });
        let mut report = RoleReport { problem_count: 5032, problems, ..samples::backup() };
        report.files.unreadable = 1;
        insta::assert_snapshot!(role(&report, &samples::view()));
    }
}
