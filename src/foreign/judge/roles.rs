//! Pure. Which series are one role: stored twice, continued under another name, taking turns.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{FoundTwins, Judge};
use crate::foreign::civil_time::{DAY, civil};
use crate::foreign::report::{
    ByteRange, FindingConfidence, ForeignFinding, ForeignFindingKind, ForeignNote, StereoEvidence,
};
use crate::foreign::rhythm::{find_rhythm, usual_gap};
use crate::foreign::role_slots::are_days;
use crate::foreign::series::BackupSeries;
use crate::foreign::twin::{SlotPair, TwinVerdict, compare_series};
use crate::foreign::twin_names::{NameRelation, TwinCandidate, WHOLE_CHUNK, common_name, find_candidates, middle_size};

impl Judge<'_> {
    /// Puts series together that are one role: stored twice, or continued under another name.
    pub(super) fn find_roles(&mut self, judged: &[usize]) {
        let candidates = find_candidates(&self.series, judged);
        let mut union = UnionFind::new(self.series.len());
        let mut labels: HashMap<usize, (String, Option<usize>)> = HashMap::new();
        let mut stereo: Vec<FoundTwins> = Vec::new();
        let mut apart: Vec<TwinCandidate> = Vec::new();
        for candidate in candidates {
            let (a, b) = (&self.series[candidate.first], &self.series[candidate.second]);
            let relation = candidate.relation(&self.series);
            let rivals = match candidate.names {
                2 => candidate.rivals.max(1000),
                WHOLE_CHUNK => candidate.rivals.max(10),
                _ => candidate.rivals,
            };
            match compare_series(a, b, rivals) {
                TwinVerdict::Stereo { confidence, pairs } => {
                    let confidence = match (relation, candidate.names) {
                        (NameRelation::OneWriter, _) | (_, 0) => continue,
                        (NameRelation::Undecided, _) => FindingConfidence::Ask,
                        (NameRelation::Writers, 2) if confidence < FindingConfidence::Sure => continue,
                        (NameRelation::Writers, 2) => FindingConfidence::Likely,
                        (NameRelation::Writers, _) => confidence,
                    };
                    stereo.push((candidate, confidence, pairs));
                }
                TwinVerdict::Apart if relation != NameRelation::Undecided && candidate.names < 2 => {
                    let is_continued = candidate.names == 0 || relation == NameRelation::Writers;
                    if is_continued {
                        apart.push(candidate);
                    }
                }
                _ => {}
            }
        }
        for (candidate, confidence, _) in &stereo {
            if *confidence > FindingConfidence::Ask {
                union.join(candidate.first, candidate.second);
            }
            self.note_labels(candidate, &mut labels);
        }
        self.join_continued(&apart, &mut union, &mut labels);
        self.join_renamed(judged, &mut union);
        self.add_stereo_findings(stereo, &mut union);
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for index in judged {
            groups.entry(union.root(*index)).or_default().push(*index);
        }
        for members in groups.into_values() {
            self.add_role(members, &labels);
        }
    }

    fn note_labels(&self, candidate: &TwinCandidate, labels: &mut HashMap<usize, (String, Option<usize>)>) {
        let (first, second) = candidate.labels(&self.series);
        labels.entry(candidate.first).or_insert((first, candidate.at.map(|at| at.0)));
        labels.entry(candidate.second).or_insert((second, candidate.at.map(|at| at.1)));
    }

    /// Joins series of which one begins where the other ends, or that take turns.
    fn join_continued(
        &mut self,
        apart: &[TwinCandidate],
        union: &mut UnionFind,
        labels: &mut HashMap<usize, (String, Option<usize>)>,
    ) {
        let mut joined: Vec<(f64, usize, TwinCandidate, i64)> = Vec::new();
        for candidate in apart {
            if let Some((distance, at)) = self.continuation(candidate) {
                let from = if self.series[candidate.first].entries[0].at <= self.series[candidate.second].entries[0].at
                {
                    candidate.first
                } else {
                    candidate.second
                };
                joined.push((distance, from, *candidate, at));
            }
        }
        joined.sort_by(|a, b| a.0.total_cmp(&b.0));
        let mut continued = BTreeSet::new();
        for (_, from, candidate, at) in joined {
            let to = if from == candidate.first { candidate.second } else { candidate.first };
            if !continued.insert((from, 0)) | !continued.insert((to, 1)) {
                continue;
            }
            union.join(from, to);
            self.note_labels(&candidate, labels);
            let (first, second) = candidate.labels(&self.series);
            let (old, new) = if from == candidate.first { (first, second) } else { (second, first) };
            self.audit.notes.push(ForeignNote::Moved {
                series: common_name(
                    &self.series[from],
                    candidate.at.map(|(first, second)| if from == candidate.first { first } else { second }),
                ),
                from: old,
                to: new,
                on: civil(at).date(),
            });
        }
    }

    /// Joins series of one directory of which one begins in the slot after the other's last one, with the same size: the
    /// program was given another name, or another extension.
    fn join_renamed(&mut self, judged: &[usize], union: &mut UnionFind) {
        let mut by_directory: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for index in judged.iter().filter(|index| self.series[**index].entries.len() >= 3) {
            let name = &self.series[*index].name;
            let directory = self.series[*index].directory().unwrap_or_default();
            by_directory.entry(directory.to_owned()).or_default().push(*index);
            // A directory of another name beside it, with the same in it.
            if let Some((parent, own)) = directory.rsplit_once('/') {
                by_directory
                    .entry(format!("{parent}/\u{1}{}", &name[parent.len() + 1 + own.len()..]))
                    .or_default()
                    .push(*index);
            }
        }
        for members in by_directory.into_values().filter(|members| (2..=64).contains(&members.len())) {
            for old in &members {
                for new in members.iter().filter(|new| *new != old) {
                    if union.root(*old) != union.root(*new) && self.is_renamed(*old, *new) {
                        union.join(*old, *new);
                    }
                }
            }
        }
    }

    fn is_renamed(&self, old: usize, new: usize) -> bool {
        let (old, new) = (&self.series[old], &self.series[new]);
        let Some(interval) = usual_gap(&old.times()) else { return false };
        let (Some(end), Some(begin)) = (old.entries.last(), new.entries.first()) else { return false };
        let difference = size_difference(old, new);
        let step = begin.at - end.at;
        let tolerance = if old.set_name().split('/').count() == new.set_name().split('/').count() { 0.2 } else { 0.05 };
        step * 2 > interval && step * 2 < interval * 5 && difference <= tolerance
    }

    /// How different the sizes are where one series goes on for the other, and when the second one began; `None` if it does
    /// not.
    fn continuation(&self, candidate: &TwinCandidate) -> Option<(f64, i64)> {
        let (mut a, mut b) = (&self.series[candidate.first], &self.series[candidate.second]);
        if a.entries.first()?.at > b.entries.first()?.at {
            (a, b) = (b, a);
        }
        let (old, new) = (a.times(), b.times());
        let interval = usual_gap(&old).or_else(|| usual_gap(&new))?;
        let (end, begin) = (*old.last()?, *new.first()?);
        let difference = size_difference(a, b);
        let few = candidate.rivals <= 28;
        let tolerance = match candidate.rivals {
            0..=1 => 0.7,
            2..=28 => 0.2,
            _ => 0.03,
        };
        let follows = begin + 2 * interval > end && begin - end <= 15 * interval.max(DAY);
        let takes_turns = few && begin < end && old.len().min(new.len()) >= 2 && difference <= 0.15;
        if takes_turns && begin + 2 * interval <= end {
            let mut all: Vec<i64> = old.iter().chain(&new).copied().collect();
            all.sort_unstable();
            all.dedup();
            let together = find_rhythm(&all, are_days(&[a, b]), a.precision.is_none())?;
            let alone = find_rhythm(&old, are_days(&[a]), false).map_or(usize::MAX, |rhythm| rhythm.missed.len());
            return (together.missed.len() < alone).then_some((difference, begin));
        }
        (follows && difference <= tolerance && old.len() >= 2 && new.len() >= 2).then_some((difference, begin))
    }

    /// One finding for each group of series that store one content; groups with the same names are one.
    fn add_stereo_findings(&mut self, stereo: Vec<FoundTwins>, union: &mut UnionFind) {
        let mut groups: BTreeMap<(usize, bool), Vec<FoundTwins>> = BTreeMap::new();
        for found in stereo {
            let asks = found.1 == FindingConfidence::Ask;
            let key = if asks {
                (found.0.first * 1_000_003 + found.0.second, true)
            } else {
                (union.root(found.0.first), false)
            };
            groups.entry(key).or_default().push(found);
        }
        let mut merged: BTreeMap<(Vec<String>, String), ForeignFinding> = BTreeMap::new();
        for group in groups.into_values() {
            let mut hosts = BTreeSet::new();
            let mut pairs: BTreeMap<i64, SlotPair> = BTreeMap::new();
            let mut confidence = FindingConfidence::Ask;
            let (mut total_min, mut total_max, mut guess) = (0_u64, 0_u64, 0_u64);
            let single = group.len() == 1;
            for (candidate, certain, found) in &group {
                let (first, second) = candidate.labels(&self.series);
                hosts.insert(first);
                hosts.insert(second);
                confidence = confidence.max(*certain);
                let swap = self.series[candidate.first].entries[0].at > self.series[candidate.second].entries[0].at;
                for pair in found {
                    let pair = if swap { SlotPair { first: pair.second, second: pair.first } } else { *pair };
                    pairs.entry(pair.first.at.min(pair.second.at)).or_insert(pair);
                    total_min = total_min.saturating_add(pair.first.size.min(pair.second.size));
                    total_max = total_max.saturating_add(pair.first.size.max(pair.second.size));
                    guess = guess.saturating_add(pair.second.size);
                }
            }
            let (candidate, ..) = &group[0];
            let pairs: Vec<SlotPair> = pairs.into_values().collect();
            let mut finding =
                self.stereo_finding(ForeignFindingKind::Stereo, confidence, StereoEvidence::TwinSeries, &pairs);
            if !single {
                // Of three writers two are too many: each pair counts, less what is counted twice.
                let writers = hosts.len().max(2) as u64;
                let count = group.len() as u64;
                let share = |bytes: u64| (u128::from(bytes) * u128::from(writers - 1) / u128::from(count)) as u64;
                finding.surplus = Some(ByteRange { min: share(total_min), max: share(total_max) });
                finding.surplus_guess = Some(share(guess));
            }
            finding.series = common_name(&self.series[candidate.first], candidate.at.map(|at| at.0));
            finding.hosts = hosts.into_iter().collect();
            let last_pair = pairs.iter().map(|pair| pair.first.at).max().unwrap_or(0);
            let last = [candidate.first, candidate.second]
                .iter()
                .filter_map(|index| self.series[*index].entries.last())
                .map(|entry| entry.at)
                .max()
                .unwrap_or(0);
            if last - last_pair > 3 * DAY {
                finding.until = Some(civil(last_pair).date());
            }
            let set =
                finding.series.rfind("{date}").map_or(finding.series.clone(), |at| finding.series[..at].to_owned());
            match merged.entry((finding.hosts.clone(), set)) {
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(finding);
                }
                std::collections::btree_map::Entry::Occupied(mut place) => {
                    let known = place.get_mut();
                    let add = |a: Option<ByteRange>, b: Option<ByteRange>| {
                        Some(ByteRange { min: a?.min + b?.min, max: a?.max + b?.max })
                    };
                    known.surplus = add(known.surplus, finding.surplus);
                    known.surplus_month = add(known.surplus_month, finding.surplus_month);
                    known.surplus_guess = known.surplus_guess.zip(finding.surplus_guess).map(|(a, b)| a + b);
                    known.since = known.since.min(finding.since);
                    known.slots = known.slots.max(finding.slots);
                    known.confidence = known.confidence.max(finding.confidence);
                }
            }
        }
        self.audit.findings.extend(merged.into_values());
    }
}

/// How far the usual sizes of two series are from each other, in logarithms.
fn size_difference(a: &BackupSeries, b: &BackupSeries) -> f64 {
    let size = |series| (middle_size(series).max(1) as f64).ln();
    (size(a) - size(b)).abs()
}

/// Sets of series that are one role.
struct UnionFind {
    parents: Vec<usize>,
}

impl UnionFind {
    fn new(count: usize) -> Self {
        Self { parents: (0..count).collect() }
    }

    fn root(&mut self, index: usize) -> usize {
        let mut at = index;
        while self.parents[at] != at {
            self.parents[at] = self.parents[self.parents[at]];
            at = self.parents[at];
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[a.max(b)] = a.min(b);
    }
}
