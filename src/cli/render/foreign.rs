//! `audit --bucket` and `--listing`: what a listing says about backups that another program made. Pure.

use std::collections::BTreeMap;

use jiff::civil::{Date, DateTime};

use super::calendar::{CalendarMark, calendar};
use super::layout::PageLayout;
use super::{NAMED_MAX, more};
use crate::cli::units::{bytes, count, counted};
use crate::foreign::format::UnreadLine;
use crate::foreign::report::{
    FindingConfidence, ForeignAudit, ForeignFinding, ForeignFindingKind, ForeignNote, ForeignRepository, ForeignSeries,
    SeriesRhythm, SlotMark, StereoEvidence,
};
use crate::text::ADVICE;

/// The most missed days or times that a sentence names.
const MISSED_NAMED_MAX: usize = 10;

/// The most hosts that a sentence names.
const HOSTS_NAMED_MAX: usize = 6;

/// The audit of a listing, and what was left out of the listing.
#[derive(Debug, Clone, PartialEq)]
pub struct ForeignAuditResult {
    /// The bucket's URL or the file's name.
    pub source: String,
    /// The audit.
    pub audit: ForeignAudit,
    /// What was left out.
    pub unread: UnreadParts,
}

/// What a listing has and an audit does not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UnreadParts {
    /// Number of lines that were not understood.
    pub lines: u64,
    /// The first of them.
    pub first_line: Option<UnreadLine>,
    /// Number of folders whose content is not listed.
    pub folders: u64,
    /// Number of directories and files that could not be read.
    pub path_count: u64,
    /// The first of them, each with its error.
    pub paths: Vec<String>,
}

/// The order in which a verdict names what is wrong.
pub const VERDICT_ORDER: [ForeignFindingKind; 8] = [
    ForeignFindingKind::Stopped,
    ForeignFindingKind::Missed,
    ForeignFindingKind::Stereo,
    ForeignFindingKind::Overwritten,
    ForeignFindingKind::Frozen,
    ForeignFindingKind::Empty,
    ForeignFindingKind::Shrunk,
    ForeignFindingKind::TwoChains,
];

/// The word for a kind.
pub fn word(kind: ForeignFindingKind) -> &'static str {
    match kind {
        ForeignFindingKind::Stopped => "STOPPED",
        ForeignFindingKind::Missed => "MISSED",
        ForeignFindingKind::Stereo => "STEREO",
        ForeignFindingKind::Overwritten => "OVERWRITTEN",
        ForeignFindingKind::Frozen => "FROZEN",
        ForeignFindingKind::Empty => "EMPTY",
        ForeignFindingKind::Shrunk => "SHRUNK",
        ForeignFindingKind::TwoChains => "TWO CHAINS",
    }
}

/// Whether a finding fails the check.
pub fn is_sick(finding: &ForeignFinding) -> bool {
    finding.confidence >= FindingConfidence::Likely
}

/// The verdict in one line: `STOPPED + STEREO`, or `CLEAN`.
pub fn verdict(audit: &ForeignAudit) -> String {
    let has = |kind: &ForeignFindingKind| audit.findings.iter().any(|found| found.kind == *kind && is_sick(found));
    let words: Vec<&str> = VERDICT_ORDER.iter().filter(|kind| has(kind)).map(|kind| word(*kind)).collect();
    if words.is_empty() { "CLEAN".to_owned() } else { words.join(" + ") }
}

/// The report, with a calendar of each series if it is asked for.
pub fn report(result: &ForeignAuditResult, has_calendar: bool, page: PageLayout) -> String {
    let audit = &result.audit;
    let mut out = page.wrap(&format!("{}: ", result.source), 2, &summary(audit));
    for finding in audit.findings.iter().take(NAMED_MAX) {
        let label = if is_sick(finding) { word(finding.kind) } else { "ask" };
        out += &page.wrap(&format!("  {label:<11} "), 14, &sentence(finding, audit));
        out += &page.wrap("  example     ", 14, &finding.example);
    }
    out += &more(audit.findings.len().min(NAMED_MAX), audit.findings.len() as u64 + audit.unlisted);
    for repository in audit.repositories.iter().take(NAMED_MAX) {
        out += &page.wrap("  repository  ", 14, &self::repository(repository));
    }
    out += &more(audit.repositories.len().min(NAMED_MAX), audit.repositories.len() as u64);
    for note in audit.notes.iter().take(NAMED_MAX).map(note).chain(unread(&result.unread)) {
        out += &page.wrap("  note        ", 14, &note);
    }
    out += &more(audit.notes.len().min(NAMED_MAX), audit.notes.len() as u64);
    for kind in VERDICT_ORDER {
        if audit.findings.iter().any(|finding| finding.kind == kind) {
            out += &page.wrap(&format!("  {ADVICE}"), 4, remedy(kind));
        }
    }
    if has_calendar {
        out += &calendars(audit, page);
    }
    out
}

fn summary(audit: &ForeignAudit) -> String {
    if audit.objects == 0 {
        return "there is nothing: no object is listed".to_owned();
    }
    let objects = counted(audit.objects, "object", "objects");
    let span = audit.span.map(|(first, last)| format!(", written from {} to {}", first.date(), last.date()));
    let verdict = match (audit.is_sick(), audit.findings.is_empty(), audit.series.is_empty()) {
        (false, true, true) if audit.repositories.is_empty() => "NOTHING TO JUDGE".to_owned(),
        (false, false, _) => "CLEAN, with questions".to_owned(),
        _ => verdict(audit),
    };
    let series = counted(audit.series.len() as u64, "series", "series");
    format!("{verdict}: {series} of backups, {objects}, {}{}", bytes(audit.bytes), span.unwrap_or_default())
}

/// A finding as a sentence.
pub fn sentence(finding: &ForeignFinding, audit: &ForeignAudit) -> String {
    let series = audit.series.iter().find(|series| series.name == finding.series);
    let name = &finding.series;
    let text = match finding.kind {
        ForeignFindingKind::Stereo => stereo(finding, series),
        ForeignFindingKind::Missed => missed(finding, series),
        ForeignFindingKind::Stopped => {
            let since = since(finding, "the backup of ", " and ");
            format!(
                "{name}: {since}what should have followed are not there, while other series go on; {} so far",
                slots(finding)
            )
        }
        ForeignFindingKind::Frozen => format!(
            "{name}: all {} backups{} have the same size to the byte{}: the source is probably empty or old",
            count(finding.slots),
            period(finding),
            sizes(finding, ", ", "; before, a usual one had ")
        ),
        ForeignFindingKind::Empty => {
            let (backups, has) = backups(finding);
            format!("{name}: {backups} {has} no content{}", sizes(finding, ": ", " instead of "))
        }
        ForeignFindingKind::Shrunk => {
            let (backups, has) = backups(finding);
            format!("{name}: {backups} {has} less than half of the usual size{}", sizes(finding, ": ", " instead of "))
        }
        ForeignFindingKind::Overwritten => format!(
            "{name}: within {} a key was written more than once{}, with contents that differ in size; a reader gets the last one",
            slots(finding),
            period(finding)
        ),
        ForeignFindingKind::TwoChains => format!(
            "{name}: increments of more than one chain are mixed{}, in {}: a restore needs one whole chain",
            period(finding),
            slots(finding)
        ),
    };
    match finding.confidence {
        FindingConfidence::Sure => format!("{text}."),
        FindingConfidence::Likely => format!("{text}. This is likely, not certain."),
        FindingConfidence::Ask => format!("{text}. Is this intended? The listing does not tell."),
    }
}

fn stereo(finding: &ForeignFinding, series: Option<&ForeignSeries>) -> String {
    let how_often = series.map(|series| format!(" {}", often(series.rhythm))).unwrap_or_default();
    let period = period(finding);
    let name = &finding.series;
    let what = match (finding.evidence, finding.hosts.len()) {
        (Some(StereoEvidence::TwoVersions), _) => {
            format!(
                "two versions of each key of {name} are written{how_often}{period}: two writers overwrite each other"
            )
        }
        (_, 0 | 1) => format!("{name} is stored twice{how_often}{period}, by writers that its keys do not name"),
        (_, 2) => format!("{} both store {name}{how_often}{period}", names(&finding.hosts)),
        (_, _) => format!("{} all store {name}{how_often}{period}", names(&finding.hosts)),
    };
    let surplus = match (finding.surplus_guess, finding.surplus) {
        (Some(guess), _) => Some(bytes(guess)),
        (None, Some(range)) => Some(range_of(range.min, range.max)),
        (None, None) => None,
    };
    let surplus = surplus.map(|surplus| format!(", {surplus} stored twice")).unwrap_or_default();
    let month = finding.surplus_month.map(|range| format!(", {} a month", range_of(range.min, range.max)));
    format!("{what}: {}{surplus}{}", slots(finding), month.unwrap_or_default())
}

fn missed(finding: &ForeignFinding, series: Option<&ForeignSeries>) -> String {
    let name = &finding.series;
    let is_within_days = series.is_some_and(|series| matches!(series.rhythm, SeriesRhythm::Seconds(..86_400)));
    let shown = |slot: &DateTime| {
        if is_within_days { slot.strftime("%Y-%m-%d %H:%M").to_string() } else { slot.date().to_string() }
    };
    let named: Vec<String> = finding.missed.iter().take(MISSED_NAMED_MAX).map(shown).collect();
    let rest = finding.slots.saturating_sub(named.len() as u64);
    let named = if rest > 0 { format!("{} and {} more", named.join(", "), count(rest)) } else { names(&named) };
    let often = series.map(|series| format!(", where there is one {}", often(series.rhythm)));
    format!(
        "{name}: no backup of {named}, and later ones are there: {} missed{}",
        slots(finding),
        often.unwrap_or_default()
    )
}

/// `a`, `a and b`, `a, b and c`.
fn names(names: &[String]) -> String {
    match names {
        [] => "nothing".to_owned(),
        [one] => one.clone(),
        names if names.len() > HOSTS_NAMED_MAX + 4 => {
            format!("{} and {} more", names[..HOSTS_NAMED_MAX].join(", "), names.len() - HOSTS_NAMED_MAX)
        }
        [names @ .., last] => format!("{} and {last}", names.join(", ")),
    }
}

fn slots(finding: &ForeignFinding) -> String {
    counted(finding.slots, "slot", "slots")
}

/// The backups of the finding with their days, and the verb for them.
fn backups(finding: &ForeignFinding) -> (String, &'static str) {
    let backups = counted(finding.slots, "backup", "backups");
    (format!("{backups}{}", period(finding)), if finding.slots == 1 { "has" } else { "have" })
}

fn period(finding: &ForeignFinding) -> String {
    match (finding.since, finding.until) {
        (Some(since), Some(until)) if since == until => format!(" on {since}"),
        (Some(since), Some(until)) => format!(" from {since} to {until}"),
        (Some(since), None) => format!(" since {since}"),
        (None, Some(until)) => format!(" until {until}"),
        (None, None) => String::new(),
    }
}

fn since(finding: &ForeignFinding, before: &str, after: &str) -> String {
    finding.since.map(|since| format!("{before}{since}{after}")).unwrap_or_default()
}

fn sizes(finding: &ForeignFinding, before: &str, between: &str) -> String {
    let text = |(usual, found): (u64, u64)| format!("{before}{}{between}{}", bytes(found), bytes(usual));
    finding.sizes.map(text).unwrap_or_default()
}

fn range_of(min: u64, max: u64) -> String {
    let (low, high) = (bytes(min), bytes(max));
    if low == high { low } else { format!("{low} to {high}") }
}

/// `every day`.
pub fn often(rhythm: SeriesRhythm) -> String {
    match rhythm {
        SeriesRhythm::Seconds(86_400) | SeriesRhythm::Days(1) => "every day".to_owned(),
        SeriesRhythm::Seconds(604_800) | SeriesRhythm::Days(7) => "every week".to_owned(),
        SeriesRhythm::Seconds(3600) => "every hour".to_owned(),
        SeriesRhythm::Seconds(seconds) if seconds % 3600 == 0 => format!("every {} hours", seconds / 3600),
        SeriesRhythm::Seconds(seconds) if seconds % 60 == 0 => format!("every {} minutes", seconds / 60),
        SeriesRhythm::Seconds(seconds) => format!("every {seconds} seconds"),
        SeriesRhythm::Days(days) => format!("every {days} days"),
        SeriesRhythm::Months(1) => "every month".to_owned(),
        SeriesRhythm::Months(months) => format!("every {months} months"),
    }
}

/// What to do.
pub fn remedy(kind: ForeignFindingKind) -> &'static str {
    match kind {
        ForeignFindingKind::Stereo => {
            "let only the active node run it: 'runner is-active ROLE &&' before the command, or 'runner exec ROLE -- COMMAND'. Delete nothing \
             before it is known which copies are whole."
        }
        ForeignFindingKind::Missed => {
            "look at the logs of those days on each node that may run it; a gap at a failover means that neither node ran it."
        }
        ForeignFindingKind::Stopped => {
            "look at its timer, its credentials and its log on each node, and run it once by hand."
        }
        ForeignFindingKind::Frozen => {
            "restore the newest one and look at what is in it; then at what is mounted where it reads."
        }
        ForeignFindingKind::Empty => {
            "look at the exit code of the program that writes it: a pipe hides that a dump failed."
        }
        ForeignFindingKind::Shrunk => "restore the newest one and compare it with the source.",
        ForeignFindingKind::Overwritten => "find the second writer, and let keys name the time and the host.",
        ForeignFindingKind::TwoChains => "give each writer a prefix of its own, and make a full backup there.",
    }
}

fn repository(repository: &ForeignRepository) -> String {
    let place = if repository.prefix.is_empty() { "the whole bucket" } else { &repository.prefix };
    let snapshots =
        repository.snapshots.map(|n| format!(", {}", counted(n, "snapshot", "snapshots"))).unwrap_or_default();
    let newest =
        repository.newest.map(|at| format!(", the newest from {}", at.strftime("%Y-%m-%d %H:%M"))).unwrap_or_default();
    let objects = counted(repository.objects, "object", "objects");
    format!(
        "{place} is a repository of {}: {objects}, {}{snapshots}{newest}",
        repository.program,
        bytes(repository.bytes)
    )
}

/// A note in words.
pub fn note(note: &ForeignNote) -> String {
    match note {
        ForeignNote::Moved { series, from, to, on } => format!("{series}: stored by {to} instead of {from} since {on}"),
        ForeignNote::OverwrittenUnseen => {
            "keys that were overwritten cannot be seen: the listing has one entry a key. Versions are listed by 'aws s3api \
             list-object-versions', and by --bucket with the right s3:ListBucketVersions"
                .to_owned()
        }
        ForeignNote::Unjudged { objects, bytes: n } => {
            let objects = counted(*objects, "object", "objects");
            format!("{objects} ({}) in no series: too few, or without a rhythm", bytes(*n))
        }
    }
}

/// What was left out, in words.
pub fn unread(unread: &UnreadParts) -> Vec<String> {
    let mut notes = Vec::new();
    if let Some(first) = &unread.first_line {
        notes.push(format!("{} not understood, the first is {first}", counted(unread.lines, "line was", "lines were")));
    }
    if unread.folders > 0 {
        let folders = counted(unread.folders, "folder is", "folders are");
        notes.push(format!("{folders} listed without content: list with --recursive"));
    }
    if unread.path_count > 0 {
        let paths = counted(unread.path_count, "path", "paths");
        let rest = unread.path_count - unread.paths.len() as u64;
        let rest = if rest > 0 { format!("; and {} more", count(rest)) } else { String::new() };
        notes.push(format!(
            "{paths} could not be read, so backups may be there that are not counted: {}{rest}",
            unread.paths.join("; ")
        ));
    }
    notes
}

/// Whether so much was left out that an audit without findings is not clean.
pub fn is_doubtful(unread: &UnreadParts) -> bool {
    unread.path_count > 0
}

fn calendars(audit: &ForeignAudit, page: PageLayout) -> String {
    let mut out = String::new();
    let until = audit.span.map(|(_, last)| last.date());
    for series in audit.series.iter().take(NAMED_MAX) {
        let newest = series.slots.last().map(|(slot, _)| slot.date());
        let Some(until) = until.into_iter().chain(newest).max() else { continue };
        let often = often(series.rhythm);
        out += "\n";
        out +=
            &page.wrap("", 2, &format!("{}, {often}, {}:", series.name, counted(series.backups, "backup", "backups")));
        out += &calendar(series.slots.iter().map(|(slot, mark)| (slot.date(), mark_of(*mark))), until, page);
    }
    out + &more(audit.series.len().min(NAMED_MAX), audit.series.len() as u64)
}

fn mark_of(mark: SlotMark) -> CalendarMark {
    match mark {
        SlotMark::One => CalendarMark::One,
        SlotMark::Several => CalendarMark::Several,
        SlotMark::Missed => CalendarMark::Missed,
    }
}

/// The stopped series under short names, each with the day of the first backup that is not there.
pub fn stopped(audit: &ForeignAudit) -> BTreeMap<String, Date> {
    let mut stopped = BTreeMap::new();
    for finding in audit.findings.iter().filter(|found| found.kind == ForeignFindingKind::Stopped && is_sick(found)) {
        let Some(since) = finding.since else { continue };
        let short = short_name(&finding.series);
        let name = if stopped.contains_key(short) { &finding.series } else { short };
        stopped.insert(name.to_owned(), since);
    }
    stopped
}

/// What a person calls a series: the last folder of its keys without placeholders, else the name before the first one.
fn short_name(series: &str) -> &str {
    let (folders, file) = series.rsplit_once('/').unwrap_or(("", series));
    let folder = folders.rsplit('/').find(|part| !part.is_empty() && !part.contains('{'));
    let of_file = || file.split('{').next().unwrap_or_default().trim_end_matches(['-', '_', '.']);
    folder.or_else(|| Some(of_file()).filter(|name| !name.is_empty())).unwrap_or(series)
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;
    use crate::cli::render::samples;

    #[test]
    fn every_kind_is_told_and_fits() {
        let result = samples::foreign_audit();
        samples::assert_fits(|view| report(&result, true, view.page));
        insta::assert_snapshot!(report(&result, true, PageLayout::FILE));
        insta::assert_snapshot!(report(&result, false, PageLayout::terminal(40)));
    }

    #[test]
    fn clean_nothing_and_only_questions() {
        let audit = samples::foreign_audit().audit;
        let said = |audit: ForeignAudit| {
            let result = ForeignAuditResult { source: "-".to_owned(), audit, unread: UnreadParts::default() };
            report(&result, false, PageLayout::FILE)
        };
        let clean = ForeignAudit {
            findings: Vec::new(),
            unlisted: 0,
            notes: Vec::new(),
            repositories: Vec::new(),
            ..audit.clone()
        };
        let questions = ForeignAudit {
            findings: vec![ForeignFinding { confidence: FindingConfidence::Ask, ..audit.findings[0].clone() }],
            ..clean.clone()
        };
        let unjudged = ForeignAudit { series: Vec::new(), ..clean.clone() };
        let all = [clean, questions, unjudged, ForeignAudit::default()].map(said);
        insta::assert_snapshot!(all.join("\n"));
    }

    #[test]
    fn the_verdict_is_in_one_order_and_names_what_is_sure_or_likely() {
        let audit = samples::foreign_audit().audit;
        assert_eq!(verdict(&audit), "STOPPED + MISSED + STEREO + OVERWRITTEN + FROZEN + EMPTY + SHRUNK");
        assert_eq!(verdict(&ForeignAudit::default()), "CLEAN");
        assert_eq!(stopped(&audit), BTreeMap::from([("mail".to_owned(), date(2026, 11, 20))]));
        for (series, short) in
            [("prod/mail/mail-{date}.tgz", "mail"), ("db-{date}.sql", "db"), ("{date}.zip", "{date}.zip")]
        {
            assert_eq!(short_name(series), short);
        }
    }
}
