//! Pure. Series: keys that differ only in their time are the backups of one series.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use super::civil_time::DAY;
use super::file_kind::{FileKind, file_kind};
use super::key_plan::{ShapeMember, plan_shape};
use super::key_token::{KeyToken, hash_shape, tokenize};
use super::listing::{BucketListing, VersionColumn};
use super::pattern::KeyPattern;
use super::time_part::{KeyPlan, TimePrecision, TokenRole, key_time};

/// One backup of a series: an object, or the parts of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SeriesEntry {
    /// The slot: what the key says, or when it was written.
    pub(super) at: i64,
    /// When it was written.
    pub(super) modified: i64,
    /// Bytes.
    pub(super) size: u64,
    /// The object, or the first of its parts.
    pub(super) object: u32,
}

/// Keys that differ only in their time, in IDs and in versions.
#[derive(Debug, Clone)]
pub(super) struct BackupSeries {
    /// The keys, with `{date}`, `{id}`, `{version}` and `{part}` for what varies.
    pub(super) name: String,
    /// What the files are.
    pub(super) kind: FileKind,
    /// How exact the time in the keys is. Without one, the times of writing are the slots.
    pub(super) precision: Option<TimePrecision>,
    /// Whether the times of writing are times of backups, as far as the keys tell.
    pub(super) trusts_modified: bool,
    /// Sorted by `at`.
    pub(super) entries: Vec<SeriesEntry>,
    /// Keys of which two versions were written, with both: older first.
    pub(super) overwritten: Vec<(SeriesEntry, SeriesEntry)>,
}

/// Shapes with fewer keys are not looked at.
const SHAPE_MIN: usize = 3;

impl BackupSeries {
    /// The part of the name that all files of one backup share: the dated directory, or the name up to the date.
    pub(super) fn set_name(&self) -> &str {
        if let Some(at) = self.name.rfind("{date}") {
            let end = at + "{date}".len();
            return self.name[end..].find('/').map_or(&self.name[..end], |slash| &self.name[..=end + slash]);
        }
        let file = self.name.rfind('/').map_or(0, |slash| slash + 1);
        self.name[file..].find('.').map_or(self.name.as_str(), |dot| &self.name[..file + dot])
    }

    /// The directory of the keys, as far as it never varies.
    pub(super) fn directory(&self) -> Option<&str> {
        fixed_directory(&self.name)
    }

    /// The slots, oldest first.
    pub(super) fn times(&self) -> Vec<i64> {
        self.entries.iter().map(|entry| entry.at).collect()
    }

    /// Whether the keys name the time of day.
    pub(super) fn names_time_of_day(&self) -> bool {
        self.precision.is_some_and(|precision| precision >= TimePrecision::Hour)
    }
}

/// The directory of a name, as far as no placeholder stands in it.
pub(super) fn fixed_directory(name: &str) -> Option<&str> {
    name.split('{').next().unwrap_or_default().rsplit_once('/').map(|(directory, _)| directory)
}

/// Puts the objects into series, and says for each object whether it is in one. `skipped` says which objects are none of a
/// series: those of repositories.
pub(super) fn find_series(
    listing: &BucketListing,
    pattern: Option<&KeyPattern>,
    skipped: &dyn Fn(usize) -> bool,
) -> (Vec<BackupSeries>, Vec<bool>) {
    let placed = vec![false; listing.len()];
    let mut builder = SeriesBuilder { listing, by_name: HashMap::new(), series: Vec::new(), placed };
    if let Some(pattern) = pattern {
        for index in (0..listing.len()).filter(|index| !skipped(*index)) {
            if let Some(matched) = pattern.match_key(listing.key(index)) {
                builder.add(index, &matched.name, matched.time.map(|at| (at, matched.precision)));
            }
        }
        return builder.finish();
    }
    let hasher = RandomState::new();
    let mut tokens = Vec::new();
    let mut shapes: Vec<(u64, u32)> = Vec::with_capacity(listing.len());
    for index in (0..listing.len()).filter(|index| !skipped(*index)) {
        let key = listing.key(index);
        tokenize(key, &mut tokens);
        let mut shape = hasher.build_hasher();
        hash_shape(key, &tokens, &mut shape);
        shapes.push((shape.finish(), index as u32));
    }
    shapes.sort_unstable();
    for shape in shapes.chunk_by(|a, b| a.0 == b.0) {
        if shape.len() >= SHAPE_MIN {
            builder.add_shape(shape, &hasher, &mut tokens);
        }
    }
    builder.finish()
}

struct SeriesBuilder<'l> {
    listing: &'l BucketListing,
    by_name: HashMap<String, usize>,
    series: Vec<BackupSeries>,
    /// For each object whether it is in a series.
    placed: Vec<bool>,
}

impl SeriesBuilder<'_> {
    fn add_shape(&mut self, shape: &[(u64, u32)], hasher: &RandomState, tokens: &mut Vec<KeyToken>) {
        let listing = self.listing;
        let members: Vec<ShapeMember<'_>> = shape
            .iter()
            .map(|(_, index)| {
                let index = *index as usize;
                ShapeMember { key: listing.key(index), modified: listing.object(index).modified }
            })
            .collect();
        let plan = plan_shape(&members, hasher);
        let mut name = String::new();
        for ((_, index), member) in shape.iter().zip(&members) {
            tokenize(member.key, tokens);
            let time = plan.main_time.and_then(|group| key_time(member.key, tokens, &plan.roles, group));
            write_name(member.key, tokens, &plan, &mut name);
            self.add(*index as usize, &name, time);
        }
    }

    fn add(&mut self, index: usize, name: &str, time: Option<(i64, TimePrecision)>) {
        let object = self.listing.object(index);
        self.placed[index] = true;
        let at = match time {
            Some((at, precision)) if precision >= TimePrecision::Day => at,
            // A month or a week names no day: the day of writing does, if it is within.
            Some((at, precision)) => {
                let length = match precision {
                    TimePrecision::Week => 7,
                    TimePrecision::Month => 31,
                    _ => 366,
                };
                if (at - DAY..at + (length + 2) * DAY).contains(&object.modified) { object.modified } else { at }
            }
            None => object.modified,
        };
        let place = if let Some(place) = self.by_name.get(name) {
            *place
        } else {
            self.by_name.insert(name.to_owned(), self.series.len());
            self.series.push(BackupSeries {
                name: name.to_owned(),
                kind: file_kind(name),
                precision: time.map(|(_, precision)| precision),
                trusts_modified: true,
                entries: Vec::new(),
                overwritten: Vec::new(),
            });
            self.series.len() - 1
        };
        let series = &mut self.series[place];
        series.precision = series.precision.min(time.map(|(_, precision)| precision));
        series.entries.push(SeriesEntry { at, modified: object.modified, size: object.size, object: index as u32 });
    }

    fn finish(mut self) -> (Vec<BackupSeries>, Vec<bool>) {
        for series in &mut self.series {
            if self.listing.versions == VersionColumn::Present {
                join_versions(series, self.listing);
            }
            series.entries.sort_unstable_by_key(|entry| (entry.at, entry.modified, entry.object));
            if series.name.contains("{part}") {
                join_parts(series);
            }
            let days = |of: fn(&SeriesEntry) -> i64| {
                let mut days: Vec<i64> = series.entries.iter().map(|entry| of(entry).div_euclid(DAY)).collect();
                days.sort_unstable();
                days.dedup();
                days.len()
            };
            series.trusts_modified = days(|entry| entry.modified) * 2 >= days(|entry| entry.at);
        }
        // The shapes come in the order of a random hash.
        self.series.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        (self.series, self.placed)
    }
}

/// Writes the name of a key's series.
fn write_name(key: &str, tokens: &[KeyToken], plan: &KeyPlan, name: &mut String) {
    name.clear();
    // The time that the last token belonged to, and where its text ends: separators within one time are left out.
    let mut within: Option<(u8, usize)> = None;
    for (token, role) in tokens.iter().zip(&plan.roles) {
        let placeholder = match role {
            TokenRole::Name => {
                name.push_str(token.text(key));
                continue;
            }
            TokenRole::Time(_, group) => {
                if let Some((last, end)) = within
                    && last == *group
                    && name.len() - end <= 1
                {
                    name.truncate(end);
                } else {
                    name.push_str("{date}");
                }
                within = Some((*group, name.len()));
                continue;
            }
            TokenRole::Nonce => "{id}",
            TokenRole::Version => "{version}",
            TokenRole::Part => "{part}",
        };
        if placeholder == "{version}" && name.ends_with("{version}.") {
            name.pop();
        } else {
            name.push_str(placeholder);
        }
    }
}

/// Parts with one time are one backup.
fn join_parts(series: &mut BackupSeries) {
    let mut joined: Vec<SeriesEntry> = Vec::with_capacity(series.entries.len());
    for entry in &series.entries {
        match joined.last_mut() {
            Some(last)
                if last.at == entry.at || (series.precision.is_none() && entry.modified - last.modified < 3_600) =>
            {
                last.size = last.size.saturating_add(entry.size);
                last.modified = last.modified.max(entry.modified);
            }
            _ => joined.push(*entry),
        }
    }
    series.entries = joined;
}

/// Several versions of a key. If the keys name the day, each key is one backup, and what was overwritten is kept apart. If they
/// do not, each version is a backup: a rotation.
fn join_versions(series: &mut BackupSeries, listing: &BucketListing) {
    if series.precision.is_none_or(|precision| precision < TimePrecision::Day) {
        return;
    }
    let mut by_key: HashMap<&str, Vec<SeriesEntry>> = HashMap::new();
    for entry in &series.entries {
        by_key.entry(listing.key(entry.object as usize)).or_default().push(*entry);
    }
    let mut entries = Vec::with_capacity(by_key.len());
    for mut versions in by_key.into_values() {
        versions.sort_unstable_by_key(|entry| (entry.modified, entry.object));
        let latest = versions.iter().find(|entry| listing.object(entry.object as usize).is_latest);
        // A key whose newest version is a delete marker has no backup any more.
        let Some(latest) = latest.copied() else { continue };
        entries.push(latest);
        for pair in versions.windows(2) {
            series.overwritten.push((pair[0], pair[1]));
        }
    }
    series.overwritten.sort_unstable_by_key(|(first, _)| (first.at, first.modified, first.object));
    series.entries = entries;
}
