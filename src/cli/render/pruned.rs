//! `prune`. Pure.

use super::{RenderContext, short_id};
use crate::cli::units::{bytes, counted, minute};
use crate::ids::RoleName;
use crate::job::report::pruned::{KeepReason, PruneReport, RetentionRule, RetentionVerdict};

/// What was pruned or, on a dry run, what would be.
pub fn report(report: &PruneReport, dry_run: bool, view: &RenderContext) -> String {
    let gone = report.snapshots.iter().filter(|verdict| !verdict.kept).count() as u64;
    let kept = report.snapshots.len() as u64 - gone;
    let verb = if dry_run { "would be " } else { "" };
    let snapshots = format!("{} {verb}kept, {gone} {verb}forgotten", counted(kept, "snapshot", "snapshots"));
    let mut out = view.page.wrap(&format!("{}: ", report.role), 2, &snapshots);
    if dry_run {
        out += &verdicts(&report.snapshots, view);
    }
    let swept = &report.swept;
    let packs = match report.packs_condemned {
        0 if swept.packs + swept.indexes + swept.waiting > 0 => String::new(),
        0 => "nothing to free".to_owned(),
        n => {
            let anew = match report.packs_repacked {
                0 => String::new(),
                n => format!(", {n} of them after what is needed was written anew"),
            };
            let (packs, of_them) = (counted(n, "pack", "packs"), if n == 1 { "is" } else { "are" });
            format!("{packs} of {} {of_them} needed no more{anew}", bytes(report.bytes_freed))
        }
    };
    let unused = match report.bytes_unused {
        0 => String::new(),
        n => format!("{} that nothing needs stay, which is less than 'max_unused'", bytes(n)),
    };
    let versions = if report.is_versioned && report.packs_condemned + swept.packs > 0 {
        "deleting only marks them, since the bucket keeps versions: its lifecycle rule frees them"
    } else {
        ""
    };
    let said: Vec<&str> =
        [packs.as_str(), unused.as_str(), versions].into_iter().filter(|text| !text.is_empty()).collect();
    if !said.is_empty() {
        out += &view.page.wrap("  ", 2, &said.join("; "));
    }
    if report.packs_lost > 0 {
        let lost = counted(report.packs_lost, "pack is", "packs are");
        let text = format!(
            "WARNING: {lost} missing in the store or of the wrong length, and snapshots need their content: nothing \
             is moved out of them. The next backup stores again what its sources have."
        );
        out += &view.page.wrap("  ", 2, &text);
    }
    let deleted: Vec<String> = [(swept.packs, "pack", "packs"), (swept.indexes, "index object", "index objects")]
        .into_iter()
        .filter(|(n, ..)| !dry_run && *n > 0)
        .map(|(n, one, many)| counted(n, one, many))
        .collect();
    if !deleted.is_empty() {
        out += &view.page.wrap("  ", 2, &format!("deleted: {}", deleted.join(" and ")));
    }
    if !dry_run && swept.waiting > 0 {
        let waiting = counted(swept.waiting, "pack waits", "packs wait");
        let text = format!("{waiting} until 'prune_grace' is over: the next prune after that deletes what waits");
        out += &view.page.wrap("  ", 2, &text);
    }
    out
}

/// The message that this node did not prune.
pub fn refused(role: &RoleName, why: &str, view: &RenderContext) -> String {
    view.page.wrap_advised(&format!("{role}: "), 2, &format!("not pruned — {why}"))
}

fn verdicts(verdicts: &[RetentionVerdict], view: &RenderContext) -> String {
    let rows = verdicts.iter().map(|verdict| {
        [
            if verdict.kept { "keep" } else { "forget" }.to_owned(),
            short_id(verdict.snapshot),
            minute(verdict.time, &view.zone),
            verdict.node.clone(),
            reasons(verdict),
        ]
    });
    let text = view.page.table(["", "ID", "TIME", "NODE", "WHY"], [false; 5], rows);
    let lines: Vec<String> = text.lines().map(|line| format!("  {line}\n")).collect();
    lines.concat()
}

fn reasons(verdict: &RetentionVerdict) -> String {
    if verdict.kept && verdict.reasons.is_empty() {
        return "the next run goes on from it".to_owned();
    }
    let names: Vec<String> = verdict.reasons.iter().copied().map(reason).collect();
    names.join(", ")
}

fn reason(reason: KeepReason) -> String {
    format!("{}{}", if reason.oldest { "oldest " } else { "" }, rule(reason.rule))
}

/// The rule's key in the config.
pub fn rule(rule: RetentionRule) -> &'static str {
    match rule {
        RetentionRule::Last => "last",
        RetentionRule::Hourly => "hourly",
        RetentionRule::Daily => "daily",
        RetentionRule::Weekly => "weekly",
        RetentionRule::Monthly => "monthly",
        RetentionRule::Yearly => "yearly",
        RetentionRule::Within => "within",
        RetentionRule::Future => "future",
        RetentionRule::Complete => "complete",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::render::samples;
    use crate::ids::Digest;
    use crate::job::report::pruned::{RetentionRule, SweepCounts};

    fn verdict(n: u8, time: &str, rules: &[RetentionRule]) -> RetentionVerdict {
        RetentionVerdict {
            snapshot: Digest([n; 32]),
            time: samples::at(time),
            node: "app01".to_owned(),
            kept: !rules.is_empty(),
            reasons: rules.iter().map(|&rule| KeepReason { rule, oldest: rule == RetentionRule::Yearly }).collect(),
        }
    }

    #[test]
    fn it_says_what_goes_and_why_the_rest_stays() {
        let pruned = PruneReport {
            role: "app".parse().unwrap(),
            snapshots: vec![
                verdict(0x11, "2026-01-01T00:00:00Z", &[RetentionRule::Yearly]),
                verdict(0x22, "2026-11-18T01:00:00Z", &[]),
                RetentionVerdict { kept: true, ..verdict(0x3f, "2026-11-20T01:00:00Z", &[]) },
                verdict(0x44, "2026-11-20T01:00:00Z", &[RetentionRule::Last, RetentionRule::Daily]),
            ],
            packs_condemned: 4,
            packs_repacked: 1,
            bytes_freed: 62 << 20,
            bytes_unused: 3 << 20,
            packs_lost: 1,
            swept: SweepCounts { packs: 7, indexes: 1, waiting: 4 },
            is_versioned: false,
        };
        let versioned = PruneReport { is_versioned: true, ..pruned.clone() };
        let said = report(&versioned, false, &samples::view());
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(said.contains("only marks them"), "{said}");
        let text = [report(&pruned, true, &samples::view()), report(&pruned, false, &samples::view())].concat();
        samples::assert_fits(|view| report(&pruned, true, view));
        samples::assert_fits(|view| report(&pruned, false, view));
        insta::assert_snapshot!(text);
    }
}
