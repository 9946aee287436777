//! Pure. The slots of a role: the backups of all its series, those of one slot together.

use super::civil_time::DAY;
use super::series::{BackupSeries, SeriesEntry};
use super::time_part::TimePrecision;
use super::twin::SlotPair;

/// A slot, with its backups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RoleSlot {
    pub(super) at: i64,
    pub(super) entries: Vec<SeriesEntry>,
}

/// Two times are of one slot if they are nearer than this part of the distances around.
const NEAR: i64 = 4;

/// How many distances on each side are looked at.
const AROUND: usize = 3;

/// Whether the slots of these series are days, as their keys name no time.
pub(super) fn are_days(series: &[&BackupSeries]) -> bool {
    series.iter().any(|series| series.precision == Some(TimePrecision::Day))
}

/// The time of an entry that orders it among the others of its series: of several on one day, when they were written.
fn order_time(entry: &SeriesEntry, by_writing: bool) -> i64 {
    if by_writing { entry.modified } else { entry.at }
}

/// The slots of a role, oldest first.
pub(super) fn find_slots(series: &[&BackupSeries]) -> Vec<RoleSlot> {
    let days = are_days(series);
    let several_a_day = days
        && series.iter().any(|series| {
            let same = series.entries.windows(2).filter(|pair| pair[0].at == pair[1].at).count();
            same * 2 > series.entries.len()
        });
    let by_writing = several_a_day && series.iter().all(|series| series.trusts_modified);
    let mut entries: Vec<SeriesEntry> = series.iter().flat_map(|series| series.entries.iter().copied()).collect();
    entries.sort_unstable_by_key(|entry| (order_time(entry, by_writing), entry.modified, entry.object));
    if days && !by_writing {
        return entries
            .chunk_by(|a, b| a.at.div_euclid(DAY) == b.at.div_euclid(DAY))
            .map(|chunk| RoleSlot { at: chunk[0].at.div_euclid(DAY) * DAY, entries: chunk.to_vec() })
            .collect();
    }
    let times: Vec<i64> = entries.iter().map(|entry| order_time(entry, by_writing)).collect();
    let gaps: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mut slots: Vec<RoleSlot> = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let joins = index > 0 && is_near(&gaps, index - 1);
        match slots.last_mut() {
            Some(slot) if joins => slot.entries.push(*entry),
            _ => slots.push(RoleSlot { at: times[index], entries: vec![*entry] }),
        }
    }
    slots
}

/// Whether a distance is small against the largest ones on both sides.
fn is_near(gaps: &[i64], index: usize) -> bool {
    let largest = |gaps: &[i64]| gaps.iter().copied().max();
    let before = largest(&gaps[index.saturating_sub(AROUND)..index]);
    let after = largest(&gaps[index + 1..gaps.len().min(index + 1 + AROUND)]);
    let around = match (before, after) {
        (Some(before), Some(after)) => before.min(after),
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => return gaps[index] == 0,
    };
    gaps[index] * NEAR < around
}

/// The slots that have two backups, and go on so: from the first to the last of a stretch of which seven of ten have two.
pub(super) fn doubled_stretch(slots: &[RoleSlot]) -> Vec<SlotPair> {
    let doubled: Vec<usize> =
        slots.iter().enumerate().filter(|(_, slot)| slot.entries.len() == 2).map(|(index, _)| index).collect();
    let mut best: &[usize] = &[];
    let mut start = 0;
    while start < doubled.len() {
        let mut end = start;
        while end + 1 < doubled.len() && doubled[end + 1] - doubled[end] <= 3 {
            end += 1;
        }
        let stretch = &doubled[start..=end];
        let length = stretch[stretch.len() - 1] - stretch[0] + 1;
        if stretch.len() >= 3 && stretch.len() * 10 >= length * 7 && stretch.len() > best.len() {
            best = stretch;
        }
        start = end + 1;
    }
    best.iter().map(|index| SlotPair { first: slots[*index].entries[0], second: slots[*index].entries[1] }).collect()
}
