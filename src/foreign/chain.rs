//! Pure. duplicity's chains: a full backup and the increments that join it.
//!
//! An increment names when it begins and when it ends; it joins the backup that ended when it begins. Two writers in one
//! prefix make two chains side by side, and an increment whose beginning is missing cannot be restored.
//! Names: duplicity's `duplicity/file_naming.py`.

use std::collections::{BTreeMap, BTreeSet};

use super::civil_time::seconds_of_date;
use super::listing::BucketListing;
use super::series::SeriesEntry;

/// One backup of duplicity: its volumes and manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct ChainLink {
    /// The end of the backup before, for an increment.
    from: Option<i64>,
    entry: SeriesEntry,
}

/// The chains of one prefix.
#[derive(Debug, Clone, Default)]
pub(super) struct DuplicityChains {
    /// The prefix of its keys.
    pub(super) prefix: String,
    links: BTreeMap<(i64, Option<i64>), ChainLink>,
}

/// What is wrong with the chains of a prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChainProblem {
    /// Two chains grow at the same time.
    TwoAtOnce { since: i64, increments: u64, object: u32 },
    /// Increments whose beginning is missing.
    Torn { since: i64, increments: u64, object: u32 },
}

/// The prefix and the times of a file of duplicity, if it is one: an increment has two.
pub(super) fn duplicity_times(key: &str) -> Option<(&str, Option<i64>, i64)> {
    let at = key.rfind("duplicity-").filter(|at| *at == 0 || !key.as_bytes()[at - 1].is_ascii_alphanumeric())?;
    let prefix = &key[..at];
    let name = &key[at + "duplicity-".len()..];
    if let Some(rest) = name.strip_prefix("full.").or_else(|| name.strip_prefix("full-signatures.")) {
        return Some((prefix, None, duplicity_time(rest.split('.').next()?)?));
    }
    let rest = name.strip_prefix("inc.").or_else(|| name.strip_prefix("new-signatures."))?;
    let mut parts = rest.split('.');
    let from = duplicity_time(parts.next()?)?;
    (parts.next()? == "to").then_some(())?;
    Some((prefix, Some(from), duplicity_time(parts.next()?)?))
}

/// `20261001T010000Z`.
fn duplicity_time(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| text.get(from..to).and_then(|part| part.parse::<i64>().ok());
    if text.len() < 15 || text.as_bytes().get(8) != Some(&b'T') {
        return None;
    }
    let date = seconds_of_date(number(0, 4)?, number(4, 6)?, number(6, 8)?)?;
    Some(date + number(9, 11)? * 3_600 + number(11, 13)? * 60 + number(13, 15)?)
}

/// The chains of each prefix in a listing.
pub(super) fn find_chains(listing: &BucketListing) -> Vec<DuplicityChains> {
    let mut found: BTreeMap<&str, DuplicityChains> = BTreeMap::new();
    for index in 0..listing.len() {
        let Some((prefix, from, at)) = duplicity_times(listing.key(index)) else { continue };
        let object = listing.object(index);
        if !object.is_latest {
            continue;
        }
        let chains = found
            .entry(prefix)
            .or_insert_with(|| DuplicityChains { prefix: prefix.to_owned(), ..DuplicityChains::default() });
        let link = chains.links.entry((at, from)).or_insert(ChainLink {
            from,
            entry: SeriesEntry { at, modified: object.modified, size: 0, object: index as u32 },
        });
        link.entry.size = link.entry.size.saturating_add(object.size);
    }
    found.into_values().collect()
}

impl DuplicityChains {
    /// Its backups, oldest first.
    pub(super) fn entries(&self) -> Vec<SeriesEntry> {
        self.links.values().map(|link| link.entry).collect()
    }

    /// What is wrong with them.
    pub(super) fn problem(&self) -> Option<ChainProblem> {
        // The chain to which each backup belongs, by its end; a chain is named after its first backup.
        let mut chain_of: BTreeMap<i64, i64> = BTreeMap::new();
        let mut forked: Vec<ChainLink> = Vec::new();
        let mut torn: Vec<ChainLink> = Vec::new();
        let mut joined: BTreeSet<i64> = BTreeSet::new();
        // For each chain its first and its last backup.
        let mut spans: BTreeMap<i64, (i64, i64, Vec<ChainLink>)> = BTreeMap::new();
        for link in self.links.values() {
            let at = link.entry.at;
            let Some(from) = link.from else {
                chain_of.entry(at).or_insert(at);
                spans.entry(at).or_insert((at, at, Vec::new()));
                continue;
            };
            let Some(chain) = chain_of.get(&from).copied() else {
                torn.push(*link);
                chain_of.insert(at, at);
                continue;
            };
            if !joined.insert(from) {
                forked.push(*link);
            }
            chain_of.insert(at, chain);
            let span = spans.entry(chain).or_insert((chain, at, Vec::new()));
            span.1 = span.1.max(at);
            span.2.push(*link);
        }
        if let Some(first) = torn.first() {
            let (since, object) = (first.entry.at, first.entry.object);
            return Some(ChainProblem::Torn { since, increments: torn.len() as u64, object });
        }
        // A chain that grows after the next one began: the newer one should have been continued.
        let was_forked = !forked.is_empty();
        let mut late: Vec<ChainLink> = forked;
        let starts: Vec<i64> = spans.keys().copied().collect();
        for (start, _, links) in spans.values() {
            if let Some(next) = starts.iter().find(|next| *next > start) {
                late.extend(links.iter().filter(|link| link.from.is_some_and(|from| from > *next)));
                let crossing =
                    links.iter().filter(|link| link.entry.at > *next && link.from.is_some_and(|from| from <= *next));
                if spans.get(next).is_some_and(|(_, last, _)| last > next) && late.is_empty() {
                    late.extend(crossing);
                }
            }
        }
        let first = late.iter().min_by_key(|link| link.entry.at)?;
        (late.len() >= 2 || was_forked).then_some(ChainProblem::TwoAtOnce {
            since: first.entry.at,
            increments: late.len() as u64,
            object: first.entry.object,
        })
    }
}
