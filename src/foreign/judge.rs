//! Pure. The audit itself: from a listing to findings.

mod roles;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::chain::{ChainProblem, duplicity_times, find_chains};
use super::civil_time::{DAY, civil, month_start};
use super::file_kind::{FileKind, file_kind, is_archive, is_increment};
use super::listing::{BucketListing, VersionColumn};
use super::options::ForeignAuditOptions;
use super::report::{
    ByteRange, CALENDAR_SLOTS_MAX, FINDINGS_LISTED_MAX, FindingConfidence, ForeignAudit, ForeignFinding,
    ForeignFindingKind, ForeignNote, ForeignSeries, MISSED_NAMED_MAX, SlotMark, StereoEvidence,
};
use super::repository::RepositoryIndex;
use super::rhythm::{SlotRhythm, find_rhythm};
use super::role_slots::{RoleSlot, are_days, doubled_stretch, find_slots};
use super::series::{BackupSeries, SeriesEntry, find_series, fixed_directory};
use super::size_history::{EMPTY_MAX, SizeFinding, empty, frozen, shrunk};
use super::time_part::TimePrecision;
use super::twin::{SlotPair, sizes_move_together};
use super::twin_names::{TwinCandidate, common_name, middle_size};

/// A dated directory with more files than this is judged as a whole.
const SET_FILES_MAX: usize = 50;

/// Overwritten keys that are a habit, not an accident.
const OVERWRITTEN_MIN: usize = 3;

/// How many objects without a series are looked at beside a missed slot.
const UNJUDGED_LOOKED_AT: usize = 200;

/// How many moves are named.
const MOVES_NAMED_MAX: usize = 100;

/// Two writers that start together overwrite each other within this time, in seconds.
const OVERWRITTEN_SOON: i64 = 1_800;

/// A role that stopped longer ago than this may have been given up on purpose.
const GIVEN_UP: i64 = 120 * DAY;

/// Audits a listing.
pub(super) fn judge(listing: &BucketListing, options: &ForeignAuditOptions) -> ForeignAudit {
    let repositories = RepositoryIndex::find(listing);
    let skipped = |index: usize| {
        let key = listing.key(index);
        repositories.prefix_of(key).is_some() || duplicity_times(key).is_some()
    };
    let (series, placed) = find_series(listing, options.pattern.as_ref(), &skipped);
    let mut judge = Judge {
        listing,
        options,
        series,
        roles: Vec::new(),
        audit: ForeignAudit::default(),
        end: 0,
        unjudged: Vec::new(),
    };
    judge.add_totals();
    judge.find_unjudged(&placed, &skipped);
    let judged = judge.select();
    judge.find_overwritten(&judged);
    judge.find_roles(&judged);
    for found in repositories.count(listing) {
        if !found.snapshots.is_empty() {
            let name = format!("{}{} repository", found.report.prefix, found.report.program);
            judge.add_foreign_role(name, found.snapshots.clone());
        }
        judge.audit.repositories.push(found.report);
    }
    judge.judge_chains();
    judge.judge_roles();
    judge.finish()
}

/// Two series that store one content, how certain that is, and their common slots.
type FoundTwins = (TwinCandidate, FindingConfidence, Vec<SlotPair>);

/// The backups of one role, under one or several names.
struct JudgedRole {
    name: String,
    /// Its series. Empty for repositories, of which only the slots are known.
    series: Vec<usize>,
    hosts: Vec<String>,
    slots: Vec<RoleSlot>,
    rhythm: Option<SlotRhythm>,
    set: String,
}

struct Judge<'l> {
    listing: &'l BucketListing,
    options: &'l ForeignAuditOptions,
    series: Vec<BackupSeries>,
    roles: Vec<JudgedRole>,
    audit: ForeignAudit,
    /// The newest time in the listing.
    end: i64,
    /// Objects that belong to no series, by the time of writing.
    unjudged: Vec<(i64, u32)>,
}

impl Judge<'_> {
    fn add_totals(&mut self) {
        let mut span: Option<(i64, i64)> = None;
        for index in 0..self.listing.len() {
            let object = self.listing.object(index);
            self.audit.bytes = self.audit.bytes.saturating_add(object.size);
            let (first, last) = span.unwrap_or((object.modified, object.modified));
            span = Some((first.min(object.modified), last.max(object.modified)));
        }
        self.audit.objects = self.listing.len() as u64;
        self.audit.span = span.map(|(first, last)| (civil(first), civil(last)));
        if self.listing.versions == VersionColumn::Absent && !self.listing.is_empty() {
            self.audit.notes.push(ForeignNote::OverwrittenUnseen);
        }
    }

    /// Objects that belong to no series and to no repository.
    fn find_unjudged(&mut self, placed: &[bool], skipped: &dyn Fn(usize) -> bool) {
        self.unjudged = (0..self.listing.len())
            .filter(|index| !placed[*index] && !skipped(*index))
            .filter(|index| file_kind(self.listing.key(*index)) == FileKind::Content)
            .map(|index| (self.listing.object(index).modified, index as u32))
            .collect();
        self.unjudged.sort_unstable();
    }

    /// Which series are judged: the contents of each set of files, and of large sets their sum.
    fn select(&mut self) -> Vec<usize> {
        let mut sets: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (index, series) in self.series.iter().enumerate() {
            sets.entry(series.set_name().to_owned()).or_default().push(index);
        }
        let mut judged = Vec::new();
        for (set, members) in sets {
            let of =
                |kind: FileKind| members.iter().copied().filter(|index| self.series[*index].kind == kind).collect();
            let mut contents: Vec<usize> = of(FileKind::Content);
            if contents.is_empty() {
                contents = of(FileKind::Metadata);
            }
            if contents.is_empty() && self.listing.versions == VersionColumn::Present {
                // Of a key that is overwritten each time, the versions are the backups.
                contents = of(FileKind::LatestCopy);
            }
            if contents.len() > SET_FILES_MAX {
                contents = vec![self.sum_up(&set, &contents)];
            }
            judged.extend(contents);
        }
        judged
    }

    /// One series of the sums of many, which are the files of one dated directory.
    fn sum_up(&mut self, set: &str, members: &[usize]) -> usize {
        let mut sums: BTreeMap<i64, SeriesEntry> = BTreeMap::new();
        for entry in members.iter().flat_map(|index| &self.series[*index].entries) {
            let sum = sums.entry(entry.at).or_insert(SeriesEntry { size: 0, ..*entry });
            sum.size = sum.size.saturating_add(entry.size);
            sum.modified = sum.modified.max(entry.modified);
        }
        let first = &self.series[members[0]];
        self.series.push(BackupSeries {
            name: set.to_owned(),
            kind: FileKind::Content,
            precision: first.precision,
            trusts_modified: first.trusts_modified,
            entries: sums.into_values().collect(),
            overwritten: Vec::new(),
        });
        self.series.len() - 1
    }

    /// Keys of which two versions were written within a slot.
    fn find_overwritten(&mut self, judged: &[usize]) {
        for index in judged {
            let series = &self.series[*index];
            let times = series.times();
            let interval = super::rhythm::usual_gap(&times).unwrap_or(DAY);
            let pairs: Vec<SlotPair> = series
                .overwritten
                .iter()
                .filter(|(first, second)| second.modified - first.modified < interval / 2)
                .map(|(first, second)| SlotPair { first: *first, second: *second })
                .collect();
            let keys: BTreeSet<i64> = pairs.iter().map(|pair| pair.first.at).collect();
            if keys.len() < OVERWRITTEN_MIN {
                continue;
            }
            let together = sizes_move_together(&pairs, 1).filter(|confidence| *confidence > FindingConfidence::Ask);
            let close = pairs
                .iter()
                .filter(|pair| {
                    pair.first.size.abs_diff(pair.second.size) * 200 <= pair.first.size.max(pair.second.size)
                })
                .count();
            let soon =
                pairs.iter().filter(|pair| pair.second.modified - pair.first.modified <= OVERWRITTEN_SOON).count();
            let is_stereo = (together.is_some() || close * 10 >= pairs.len() * 8) && soon * 2 > pairs.len();
            let kind = if is_stereo { ForeignFindingKind::Stereo } else { ForeignFindingKind::Overwritten };
            let often = keys.len() * 2 >= times.len();
            let confidence = if often { FindingConfidence::Sure } else { FindingConfidence::Likely };
            let mut finding = self.stereo_finding(kind, confidence, StereoEvidence::TwoVersions, &pairs);
            finding.series.clone_from(&self.series[*index].name);
            finding.slots = keys.len() as u64;
            finding.surplus_guess = Some(pairs.iter().map(|pair| pair.first.size).sum());
            self.audit.findings.push(finding);
        }
    }

    /// What a finding of doubled slots says about bytes and days.
    fn stereo_finding(
        &self,
        kind: ForeignFindingKind,
        confidence: FindingConfidence,
        evidence: StereoEvidence,
        pairs: &[SlotPair],
    ) -> ForeignFinding {
        let sum = |size: fn(&SlotPair) -> u64| pairs.iter().map(size).fold(0, u64::saturating_add);
        let second = sum(|pair| pair.second.size);
        let surplus = ByteRange {
            min: sum(|pair| pair.first.size.min(pair.second.size)),
            max: sum(|pair| pair.first.size.max(pair.second.size)),
        };
        let times = || pairs.iter().map(|pair| pair.first.at.min(pair.second.at));
        let (since, last) = (times().min().unwrap_or(0), times().max().unwrap_or(0));
        let days = ((last - since) / DAY + 1).max(1) as u64;
        let month = |bytes: u64| (u128::from(bytes) * 30 / u128::from(days)) as u64;
        ForeignFinding {
            surplus: Some(surplus),
            surplus_month: Some(ByteRange { min: month(surplus.min), max: month(surplus.max) }),
            surplus_guess: Some(second),
            slots: pairs.len() as u64,
            evidence: Some(evidence),
            example: pairs
                .last()
                .map(|pair| self.listing.key(pair.second.object as usize).to_owned())
                .unwrap_or_default(),
            ..blank_finding(kind, confidence, String::new(), since)
        }
    }

    fn add_role(&mut self, members: Vec<usize>, labels: &HashMap<usize, (String, Option<usize>)>) {
        let all: Vec<&BackupSeries> = members.iter().map(|index| &self.series[*index]).collect();
        let slots = find_slots(&all);
        let times: Vec<i64> = slots.iter().map(|slot| slot.at).collect();
        let are_written = all.iter().all(|series| series.precision.is_none());
        let rhythm = find_rhythm(&times, are_days(&all), are_written);
        let (name, hosts) = if members.len() == 1 {
            (all[0].name.clone(), Vec::new())
        } else {
            let at = labels.get(&members[0]).and_then(|(_, at)| *at);
            let hosts: BTreeSet<String> =
                members.iter().filter_map(|index| labels.get(index)).map(|(label, _)| label.clone()).collect();
            (common_name(all[0], at), hosts.into_iter().collect())
        };
        let set = all[0].set_name().to_owned();
        self.roles.push(JudgedRole { name, series: members, hosts, slots, rhythm, set });
    }

    /// A role of which only the times of its snapshots are known.
    fn add_foreign_role(&mut self, name: String, entries: Vec<SeriesEntry>) {
        let series = BackupSeries {
            name: name.clone(),
            kind: FileKind::Metadata,
            precision: Some(TimePrecision::Second),
            trusts_modified: true,
            entries,
            overwritten: Vec::new(),
        };
        let slots = find_slots(&[&series]);
        let times: Vec<i64> = slots.iter().map(|slot| slot.at).collect();
        let rhythm = find_rhythm(&times, false, false);
        self.roles.push(JudgedRole { set: name.clone(), name, series: Vec::new(), hosts: Vec::new(), slots, rhythm });
    }

    fn judge_chains(&mut self) {
        for chains in find_chains(self.listing) {
            let name = format!("{}duplicity", chains.prefix);
            if let Some(problem) = chains.problem() {
                let (ChainProblem::TwoAtOnce { since, increments, object }
                | ChainProblem::Torn { since, increments, object }) = problem;
                let mut finding =
                    blank_finding(ForeignFindingKind::TwoChains, FindingConfidence::Sure, name.clone(), since);
                finding.slots = increments;
                self.listing.key(object as usize).clone_into(&mut finding.example);
                self.audit.findings.push(finding);
            }
            self.add_foreign_role(name, chains.entries());
        }
    }

    fn judge_roles(&mut self) {
        let last_of = |role: &JudgedRole| role.slots.last().map_or(i64::MIN, |slot| slot.at);
        let newest = self.roles.iter().map(last_of).max().unwrap_or(0);
        self.end = self.options.listed_at.unwrap_or(newest);
        let roles = std::mem::take(&mut self.roles);
        let mut missed: BTreeMap<(String, Vec<i64>), Vec<ForeignFinding>> = BTreeMap::new();
        let going_on = roles.iter().filter(|role| self.goes_on(role)).count();
        for role in &roles {
            self.judge_doubled(role);
            self.judge_sizes(role);
            if let Some((days, finding)) = self.judge_missed(role, &roles) {
                missed.entry((role.set.clone(), days)).or_default().push(finding);
            }
            let others_go_on = going_on > usize::from(self.goes_on(role)) || self.options.listed_at.is_some();
            if others_go_on && let Some((days, finding)) = self.judge_stopped(role, &roles) {
                missed.entry((format!("{}\u{1}stopped", role.set), vec![days])).or_default().push(finding);
            }
        }
        // Files of one set that miss the same slots are one finding.
        for ((set, _), mut findings) in missed {
            let count = findings.len();
            let mut finding = findings.swap_remove(0);
            if count > 1 {
                set.split('\u{1}').next().unwrap_or(&set).clone_into(&mut finding.series);
            }
            self.audit.findings.push(finding);
        }
        self.add_irregular(&roles);
        self.describe(&roles);
    }

    /// Whether a role has its newest backups.
    fn goes_on(&self, role: &JudgedRole) -> bool {
        let Some(rhythm) = &role.rhythm else { return false };
        let last = role.slots.last().map_or(i64::MIN, |slot| slot.at);
        rhythm.due_after(last, self.end, 2).len() < 2
    }

    /// Two backups a slot in one series.
    fn judge_doubled(&mut self, role: &JudgedRole) {
        let [index] = role.series[..] else { return };
        let series = &self.series[index];
        if role.rhythm.is_none() {
            return;
        }
        let pairs = doubled_stretch(&role.slots);
        if pairs.len() < 3 {
            return;
        }
        let Some(confidence) = sizes_move_together(&pairs, 1) else { return };
        let interval = role.rhythm.as_ref().map_or(DAY, |rhythm| rhythm.interval);
        let far =
            pairs.iter().filter(|pair| (pair.second.modified - pair.first.modified).abs() * 20 > interval).count();
        let from_the_beginning =
            role.slots.first().is_some_and(|slot| slot.at >= pairs[0].first.at.min(pairs[0].second.at));
        let confidence = if far * 2 > pairs.len() && from_the_beginning {
            // Two runs a day at odd hours look like this as well.
            FindingConfidence::Ask
        } else {
            confidence
        };
        let evidence = if series.precision.is_none() && self.listing.versions == VersionColumn::Present {
            StereoEvidence::TwoVersions
        } else {
            StereoEvidence::TwoPerSlot
        };
        let mut finding = self.stereo_finding(ForeignFindingKind::Stereo, confidence, evidence, &pairs);
        finding.series.clone_from(&role.name);
        self.audit.findings.push(finding);
    }

    fn judge_sizes(&mut self, role: &JudgedRole) {
        let mut found: BTreeMap<ForeignFindingKind, ForeignFinding> = BTreeMap::new();
        for index in &role.series {
            let series = &self.series[*index];
            if series.precision.is_none() && role.rhythm.is_none() {
                continue;
            }
            let sizes: Vec<u64> = series.entries.iter().map(|entry| entry.size).collect();
            let is_content = series.kind == FileKind::Content;
            let a_day = role.rhythm.as_ref().map_or(1, |rhythm| (DAY / rhythm.interval.max(1)).max(1)) as usize;
            // Asked only where it matters: it looks at all series.
            let is_main = sizes.iter().any(|size| *size <= EMPTY_MAX) && self.is_main_of_set(*index);
            let judged = [
                (ForeignFindingKind::Frozen, frozen(&sizes).filter(|_| is_content)),
                (ForeignFindingKind::Empty, empty(&sizes, is_content && is_main && is_archive(&series.name))),
                (
                    ForeignFindingKind::Shrunk,
                    shrunk(&sizes, a_day).filter(|_| is_content && !is_increment(&series.name)),
                ),
            ];
            for (kind, finding) in judged {
                let Some(size) = finding else { continue };
                let finding = self.size_finding(kind, &role.name, series, &sizes, size);
                let known = found.entry(kind).or_insert_with(|| finding.clone());
                if finding.slots > known.slots {
                    *known = finding;
                }
            }
        }
        if let (Some(frozen), Some(shrunk)) =
            (found.get(&ForeignFindingKind::Frozen), found.get(&ForeignFindingKind::Shrunk))
            && frozen.since == shrunk.since
        {
            // One event: the finding names both sizes.
            found.remove(&ForeignFindingKind::Shrunk);
        }
        self.audit.findings.extend(found.into_values());
    }

    fn size_finding(
        &self,
        kind: ForeignFindingKind,
        role: &str,
        series: &BackupSeries,
        sizes: &[u64],
        found: SizeFinding,
    ) -> ForeignFinding {
        let first = series.entries[found.start];
        let last = series.entries[found.end - 1];
        let is_over = found.end < sizes.len();
        ForeignFinding {
            until: is_over.then(|| civil(last.at).date()),
            slots: found.count as u64,
            sizes: Some((found.usual, sizes[found.start])),
            example: self.listing.key(first.object as usize).to_owned(),
            ..blank_finding(kind, found.confidence, role.to_owned(), first.at)
        }
    }

    /// Whether no other file of the same set is larger.
    fn is_main_of_set(&self, index: usize) -> bool {
        let set = self.series[index].set_name();
        let size = middle_size(&self.series[index]);
        self.series.iter().all(|other| other.set_name() != set || middle_size(other) <= size)
    }

    fn judge_missed(&self, role: &JudgedRole, roles: &[JudgedRole]) -> Option<(Vec<i64>, ForeignFinding)> {
        let rhythm = role.rhythm.as_ref()?;
        if rhythm.missed.is_empty() || is_optional(role, roles) {
            return None;
        }
        let names_months = role.series.iter().any(|index| self.series[*index].precision == Some(TimePrecision::Month));
        let shown = |at: i64| if names_months { month_start(at) } else { rhythm.shown(at) };
        let missed: Vec<i64> =
            rhythm.missed.iter().copied().filter(|at| !self.has_unjudged_near(role, *at, rhythm.interval)).collect();
        if missed.is_empty() {
            return None;
        }
        let days: Vec<i64> = missed.iter().map(|at| shown(*at)).collect();
        let had = role.slots.iter().filter(|slot| slot.at >= rhythm.judged_from).count();
        let share = days.len() as f64 / (days.len() + had) as f64;
        let confidence = if rhythm.is_short || rhythm.may_be_holidays() {
            FindingConfidence::Ask
        } else if share <= 0.25 && had >= 10 {
            FindingConfidence::Sure
        } else {
            FindingConfidence::Likely
        };
        let mut finding = blank_finding(ForeignFindingKind::Missed, confidence, role.name.clone(), days[0]);
        finding.until = days.last().map(|at| civil(*at).date());
        finding.slots = days.len() as u64;
        finding.missed = days.iter().take(MISSED_NAMED_MAX).map(|at| civil(*at)).collect();
        if let Some(entry) = role.slots.iter().rfind(|slot| slot.at < days[0]).and_then(|slot| slot.entries.first()) {
            self.listing.key(entry.object as usize).clone_into(&mut finding.example);
        }
        Some((days, finding))
    }

    /// Whether an object that belongs to no series was written in a slot of this role, beside its keys: its name has another
    /// form, or a wrong date.
    fn has_unjudged_near(&self, role: &JudgedRole, at: i64, interval: i64) -> bool {
        let plain = role.name.split('{').next().unwrap_or_default();
        let from = self.unjudged.partition_point(|(modified, _)| *modified < at - interval / 2);
        self.unjudged[from..]
            .iter()
            .take_while(|(modified, _)| *modified <= at + interval / 2)
            .take(UNJUDGED_LOOKED_AT)
            .any(|(_, index)| self.listing.key(*index as usize).starts_with(plain))
    }

    fn judge_stopped(&self, role: &JudgedRole, roles: &[JudgedRole]) -> Option<(i64, ForeignFinding)> {
        let rhythm = role.rhythm.as_ref()?;
        let last = role.slots.last()?;
        let due = rhythm.due_after(last.at, self.end, 10_000);
        let enough = if rhythm.interval >= 25 * DAY { 1 } else { 2 };
        if due.len() < enough {
            return None;
        }
        let confidence = if self.end - last.at > GIVEN_UP.max(4 * rhythm.interval) || has_successor(role, roles) {
            FindingConfidence::Ask
        } else if due.len() >= 3 && !rhythm.is_short {
            FindingConfidence::Sure
        } else if rhythm.interval >= 25 * DAY && due.len() < 2 {
            FindingConfidence::Ask
        } else {
            FindingConfidence::Likely
        };
        let first = rhythm.shown(due[0]);
        let mut finding = blank_finding(ForeignFindingKind::Stopped, confidence, role.name.clone(), first);
        finding.slots = due.len() as u64;
        if let Some(entry) = last.entries.first() {
            self.listing.key(entry.object as usize).clone_into(&mut finding.example);
        }
        Some((first, finding))
    }

    /// Series without a rhythm are not judged either.
    fn add_irregular(&mut self, roles: &[JudgedRole]) {
        for role in roles.iter().filter(|role| role.rhythm.is_none()) {
            let entries = role.slots.iter().flat_map(|slot| &slot.entries);
            self.unjudged.extend(entries.map(|entry| (entry.modified, entry.object)));
        }
    }

    /// What is known of each role, for the report and the calendar.
    fn describe(&mut self, roles: &[JudgedRole]) {
        for role in roles {
            let (Some(first), Some(last), Some(rhythm)) = (role.slots.first(), role.slots.last(), &role.rhythm) else {
                continue;
            };
            let mut marks: Vec<(i64, SlotMark)> = role
                .slots
                .iter()
                .map(|slot| (slot.at, if slot.entries.len() > 1 { SlotMark::Several } else { SlotMark::One }))
                .chain(rhythm.missed.iter().map(|at| (*at, SlotMark::Missed)))
                .chain(
                    rhythm
                        .due_after(last.at, self.end, CALENDAR_SLOTS_MAX)
                        .into_iter()
                        .map(|at| (at, SlotMark::Missed)),
                )
                .collect();
            marks.sort_unstable_by_key(|(at, _)| *at);
            let skip = marks.len().saturating_sub(CALENDAR_SLOTS_MAX);
            let bytes = role.slots.iter().flat_map(|slot| &slot.entries).map(|entry| entry.size);
            self.audit.series.push(ForeignSeries {
                name: role.name.clone(),
                hosts: role.hosts.clone(),
                backups: role.slots.iter().map(|slot| slot.entries.len() as u64).sum(),
                bytes: bytes.fold(0, u64::saturating_add),
                span: (civil(first.at), civil(last.at)),
                rhythm: rhythm.rhythm,
                slots: marks[skip..].iter().map(|(at, mark)| (civil(rhythm.shown(*at)), *mark)).collect(),
            });
        }
    }

    fn finish(mut self) -> ForeignAudit {
        let named: BTreeSet<String> = self.audit.series.iter().map(|series| series.name.clone()).collect();
        let mut moves = 0;
        self.audit.notes.retain(|note| match note {
            ForeignNote::Moved { series, .. } => {
                moves += 1;
                named.contains(series) && moves <= MOVES_NAMED_MAX
            }
            _ => true,
        });
        let bytes = self.unjudged.iter().map(|(_, index)| self.listing.object(*index as usize).size);
        let (objects, bytes) = (self.unjudged.len() as u64, bytes.fold(0, u64::saturating_add));
        if objects > 0 {
            self.audit.notes.push(ForeignNote::Unjudged { objects, bytes });
        }
        self.audit.findings.sort_by(|a, b| {
            b.confidence.cmp(&a.confidence).then(a.kind.cmp(&b.kind)).then_with(|| a.series.cmp(&b.series))
        });
        let mut counts: HashMap<ForeignFindingKind, usize> = HashMap::new();
        let before = self.audit.findings.len();
        self.audit.findings.retain(|finding| {
            let count = counts.entry(finding.kind).or_default();
            *count += 1;
            *count <= FINDINGS_LISTED_MAX
        });
        self.audit.unlisted = (before - self.audit.findings.len()) as u64;
        self.audit
    }
}

/// Whether another role begins where this one ends, with the same size or in the same directory: it may go on there.
fn has_successor(role: &JudgedRole, roles: &[JudgedRole]) -> bool {
    let (Some(last), Some(rhythm)) = (role.slots.last(), &role.rhythm) else { return false };
    let size = |slot: &RoleSlot| slot.entries.first().map_or(0, |entry| entry.size);
    roles.iter().any(|other| {
        let Some(first) = other.slots.first() else { return false };
        let begins = first.at > last.at && first.at - last.at <= rhythm.interval * 5 / 2;
        let is_alike = size(first).abs_diff(size(last)) * 5 <= size(last);
        begins && other.name != role.name && (is_alike || fixed_directory(&other.name) == fixed_directory(&role.name))
    })
}

/// Whether a file of a set is written only now and then: the others of its set are there far more often.
fn is_optional(role: &JudgedRole, roles: &[JudgedRole]) -> bool {
    let Some(first) = role.slots.first().map(|slot| slot.at) else { return true };
    let most = roles
        .iter()
        .filter(|other| other.set == role.set)
        .map(|other| other.slots.iter().filter(|slot| slot.at >= first).count())
        .max()
        .unwrap_or(0);
    role.slots.len() * 5 < most * 4
}

/// A finding with nothing but its kind.
fn blank_finding(
    kind: ForeignFindingKind,
    confidence: FindingConfidence,
    series: String,
    since: i64,
) -> ForeignFinding {
    ForeignFinding {
        kind,
        confidence,
        series,
        hosts: Vec::new(),
        evidence: None,
        since: Some(civil(since).date()),
        until: None,
        slots: 0,
        missed: Vec::new(),
        surplus: None,
        surplus_month: None,
        surplus_guess: None,
        sizes: None,
        example: String::new(),
    }
}
