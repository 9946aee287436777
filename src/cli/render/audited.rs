//! `audit`: the verdict on each role, the statuses of its slots, and each finding with its evidence. Pure.

use jiff::Timestamp;

use super::browse::escaped;
use super::calendar::{CalendarMark, calendar};
use super::warning::instant;
use super::{NAMED_MAX, RenderContext, more, short_id};
use crate::cli::units::{bytes, count, counted, duration, minute, time};
use crate::ids::RoleName;
use crate::job::report::audited::{
    AuditFinding, AuditNote, AuditReport, AuditedSlot, CommitInfo, IncompleteStreak, SlotAttempt, SlotCounts,
    SnapshotStreak,
};

/// The audit of one role, or the reason why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleAuditResult {
    /// The role.
    pub role: RoleName,
    /// The begin of the audited period.
    pub since: Timestamp,
    /// The audit, or the error that prevented it.
    pub result: Result<AuditReport, String>,
}

/// The report: one paragraph per role.
pub fn report(all: &[RoleAuditResult], view: &RenderContext) -> String {
    all.iter().map(|audited| role(audited, view)).collect::<Vec<_>>().join("\n")
}

/// The report, with a calendar below each role that has a schedule.
pub fn report_with_calendars(all: &[RoleAuditResult], view: &RenderContext) -> String {
    let of = |audited: &RoleAuditResult| role(audited, view) + &role_calendar(audited, view);
    all.iter().map(of).collect::<Vec<_>>().join("\n")
}

fn role_calendar(audited: &RoleAuditResult, view: &RenderContext) -> String {
    let Ok(AuditReport { slots: Some(_), calendar: slots, .. }) = &audited.result else { return String::new() };
    let day = |time: Timestamp| time.to_zoned(view.zone.clone()).date();
    let mark = |mark: AuditedSlot| match mark {
        AuditedSlot::Committed => CalendarMark::One,
        AuditedSlot::Duplicated => CalendarMark::Several,
        AuditedSlot::Missed => CalendarMark::Missed,
    };
    calendar(slots.iter().map(|(slot, found)| (day(*slot), mark(*found))), day(view.now), view.page)
}

fn role(audited: &RoleAuditResult, view: &RenderContext) -> String {
    let (role, since) = (&audited.role, minute(audited.since, &view.zone));
    let audit = match &audited.result {
        Ok(audit) => audit,
        Err(why) => return view.page.wrap_advised(&format!("{role}: "), 2, &format!("CANNOT TELL: {why}")),
    };
    let verdict = match audit.finding_count {
        0 => "no findings".to_owned(),
        n => counted(n, "finding", "findings").to_uppercase(),
    };
    let read = counted(audit.records, "record", "records");
    let mut out = view.page.wrap(&format!("{role}: "), 2, &format!("{verdict} since {since} ({read} read)"));
    out += &view.page.wrap(
        "  slots      ",
        13,
        &audit.slots.map_or_else(|| "no schedule".to_owned(), |slots| self::slots(&slots)),
    );
    if !audit.nodes.is_empty() {
        let nodes: Vec<String> = audit
            .nodes
            .iter()
            .map(|node| match node.attempts {
                0 => format!("{} ({})", node.node, counted(node.commits, "commit", "commits")),
                n => format!(
                    "{} ({}, {} begun)",
                    node.node,
                    counted(node.commits, "commit", "commits"),
                    counted(n, "command", "commands")
                ),
            })
            .collect();
        out += &view.page.wrap("  nodes      ", 13, &nodes.join(", "));
    }
    for finding in audit.findings.iter().take(NAMED_MAX) {
        let (word, text) = self::finding(role, finding, view);
        out += &view.page.wrap(&format!("  {word:<10} "), 13, &text);
    }
    out += &more(audit.findings.len().min(NAMED_MAX), audit.finding_count);
    for note in audit.notes.iter().take(NAMED_MAX) {
        out += &view.page.wrap("  note       ", 13, &self::note(note, view));
    }
    out += &more(audit.notes.len().min(NAMED_MAX), audit.notes.len() as u64);
    out
}

fn slots(counts: &SlotCounts) -> String {
    let mut text = format!(
        "{} expected: {} committed, {} missed",
        count(counts.expected),
        count(counts.committed),
        count(counts.missed)
    );
    for (n, words) in [
        (counts.late, "late"),
        (counts.paused, "in a pause"),
        (counts.open, "with time left"),
        (counts.unplanned, "committed by another schedule"),
    ] {
        if n > 0 {
            text += &format!(", {} {words}", count(n));
        }
    }
    text
}

fn finding(role: &RoleName, finding: &AuditFinding, view: &RenderContext) -> (&'static str, String) {
    match finding {
        AuditFinding::Failed(run) => ("FAILED", super::warning::failed(run, view)),
        AuditFinding::StateUnwritable { why } => ("STATE", super::warning::state_unwritable(why, false)),
        AuditFinding::Missed { first, last, count, attempts } => {
            ("MISSED", missed(*first, *last, *count, attempts, view))
        }
        AuditFinding::ScheduleMissing { last } => ("SCHEDULE", super::warning::schedule_missing(role, *last, view)),
        AuditFinding::Late { slot, commit } => {
            let began = time(commit.began, &view.zone);
            ("LATE", format!("the slot {} was begun at {began}; {}", instant(*slot, view), by(commit, view)))
        }
        AuditFinding::Duplicate { slot, commits } => {
            let all: Vec<String> = commits.iter().map(|commit| by(commit, view)).collect();
            ("DUPLICATE", format!("the slot {} has more than one commit: {}", instant(*slot, view), all.join("; ")))
        }
        AuditFinding::Hole { record } => ("HOLE", format!("{record} is gone")),
        AuditFinding::Broken { record, what } => ("BROKEN", format!("{record}: {what}")),
        AuditFinding::SameChanges(streak) => ("SAME", same(streak, view)),
        AuditFinding::EverythingChanged(streak) => (
            "ALL",
            format!(
                "{} reported every file as changed, but brought no new content; the last is {} from {}",
                counted(streak.runs, "run", "runs"),
                short_id(streak.snapshot),
                minute(streak.last, &view.zone)
            ),
        ),
        AuditFinding::Future { count: n, latest, nodes, reader } => (
            "FUTURE",
            format!(
                "{} beyond the present, up to {}{}: {}",
                counted(*n, "date lies", "dates lie"),
                minute(*latest, &view.zone),
                if nodes.is_empty() { String::new() } else { format!(", by {}", nodes.join(", ")) },
                if *reader {
                    "this node's clock is probably behind. hint: compare it with another clock first"
                } else {
                    "a clock was wrong"
                }
            ),
        ),
        AuditFinding::Backdated { count: n, by, nodes } => (
            "BACKDATED",
            format!(
                "{} earlier than a record before it, by up to {}, by {}: a clock was behind then, or ahead before",
                counted(*n, "record is dated", "records are dated"),
                duration(by.unsigned_abs()),
                nodes.join(", ")
            ),
        ),
        AuditFinding::Incomplete(open) => ("INCOMPLETE", format!("the newest snapshot: {}", incomplete(open, view))),
        AuditFinding::EmptySources { first, last, snapshot, runs, empty } => (
            "EMPTY",
            format!(
                "{}: no file was there when {} made, from {} to {}, the last {}",
                super::warning::empty_sources(empty),
                counted(*runs, "snapshot was", "snapshots were"),
                minute(*first, &view.zone),
                minute(*last, &view.zone),
                short_id(*snapshot)
            ),
        ),
        AuditFinding::Flapping { first, last, count: n, nodes } => (
            "FLAPPING",
            format!(
                "{} takeovers from {} to {}, by {}{}",
                count(*n),
                minute(*first, &view.zone),
                minute(*last, &view.zone),
                nodes.join(", "),
                match nodes.len() {
                    1 =>
                        ": its state directory is not kept, it restarts again and again, or several machines have \
                         this name",
                    _ => "",
                }
            ),
        ),
        AuditFinding::PausedTooLong { since, by, why } => {
            let why = why.as_deref().map(|why| format!(": {}", escaped(why.as_bytes()))).unwrap_or_default();
            let since = minute(*since, &view.zone);
            ("PAUSED", format!("since {since} on {by}, for more than a day and without an end{why}"))
        }
    }
}

fn missed(first: Timestamp, last: Timestamp, n: u64, attempts: &[SlotAttempt], view: &RenderContext) -> String {
    if attempts.is_empty() {
        return format!("{} no run in time", slot_or_slots(first, last, n, view));
    }
    let tries: Vec<String> = attempts
        .iter()
        .map(|attempt| {
            let end = match attempt.end {
                None => "no end recorded".to_owned(),
                Some(end) if end.stopped => "stopped before its end".to_owned(),
                Some(end) => format!("exit code {}", end.exit),
            };
            format!("{} (term {}) at {}, {end}", attempt.node, attempt.term, time(attempt.began, &view.zone))
        })
        .collect();
    let tried = counted(attempts.len() as u64, "attempt", "attempts");
    format!("{} {tried} and no commit: {}", slot_or_slots(first, last, n, view), tries.join("; "))
}

/// `the slot … had`, `3 slots from … to … had`.
fn slot_or_slots(first: Timestamp, last: Timestamp, n: u64, view: &RenderContext) -> String {
    let (first, last) = (instant(first, view), instant(last, view));
    if n == 1 { format!("the slot {first} had") } else { format!("{} slots from {first} to {last} had", count(n)) }
}

fn by(commit: &CommitInfo, view: &RenderContext) -> String {
    format!(
        "committed at {} by {} (term {}, record {})",
        time(commit.time, &view.zone),
        commit.node,
        commit.term,
        commit.seq
    )
}

fn same(streak: &SnapshotStreak, view: &RenderContext) -> String {
    let tree = if streak.same_tree { ", although the tree is the same" } else { "" };
    format!(
        "{} one after the other reported the same {}{tree}; {} of new content in all but the first, the last is {} \
         from {}",
        counted(streak.runs, "run", "runs"),
        counted(streak.changes, "change", "changes"),
        bytes(streak.new_bytes),
        short_id(streak.snapshot),
        minute(streak.last, &view.zone)
    )
}

fn incomplete(streak: &IncompleteStreak, view: &RenderContext) -> String {
    let last = minute(streak.last, &view.zone);
    let runs = match streak.runs {
        1 => format!("{} from {last}", short_id(streak.snapshot)),
        n => {
            format!(
                "{n} runs from {} to {last}, the last {}",
                minute(streak.first, &view.zone),
                short_id(streak.snapshot)
            )
        }
    };
    format!("{runs}, could not read {}", counted(streak.unreadable, "file", "files"))
}

fn note(note: &AuditNote, view: &RenderContext) -> String {
    match note {
        AuditNote::Paused { first, last, count, by, why } => {
            let why = why.as_deref().map(|why| format!(": {}", escaped(why.as_bytes()))).unwrap_or_default();
            format!("{} no run, as the role was paused on {by}{why}", slot_or_slots(*first, *last, *count, view))
        }
        AuditNote::Amended { count: n, latest, by } => format!(
            "{}, up to {}; amended on {by}",
            counted(*n, "record was dated beyond the present", "records were dated beyond the present"),
            minute(*latest, &view.zone)
        ),
        AuditNote::Incomplete(past) => format!("{}; a complete snapshot followed", incomplete(past, view)),
        AuditNote::SameFiles(streak) => {
            format!("{}; each brought new content: probably files that always change", same(streak, view))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples;

    #[test]
    fn every_kind_is_told_within_80_columns() {
        let clean = AuditReport {
            role: "mail".parse().unwrap(),
            slots: None,
            nodes: Vec::new(),
            findings: Vec::new(),
            finding_count: 0,
            notes: Vec::new(),
            ..samples::audit()
        };
        let since = clean.since;
        let failed = "s3://backups/prod: cannot be reached: orders-db/format (connection refused). hint: check the network and [store] endpoint, then try again: it is safe.";
        let all = [
            RoleAuditResult { role: samples::app(), since, result: Ok(samples::audit()) },
            RoleAuditResult { role: clean.role.clone(), since, result: Ok(clean) },
            RoleAuditResult { role: "orders-db".parse().unwrap(), since, result: Err(failed.to_owned()) },
        ];
        samples::assert_fits(|view| report(&all, view));
        insta::assert_snapshot!(report(&all, &samples::view()));
    }

    #[test]
    fn a_calendar_stands_below_a_role_with_a_schedule() {
        let audit = samples::audit();
        let (role, since) = (audit.role.clone(), audit.since);
        let clean = AuditReport { findings: Vec::new(), finding_count: 0, notes: Vec::new(), ..audit };
        let unscheduled = AuditReport { slots: None, ..clean.clone() };
        let all = [clean, unscheduled].map(|audit| RoleAuditResult { role: role.clone(), since, result: Ok(audit) });
        samples::assert_fits(|view| report_with_calendars(&all, view));
        insta::assert_snapshot!(report_with_calendars(&all, &samples::view()));
    }
}
