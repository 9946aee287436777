//! Pure. Two series that may be one backup stored twice.
//!
//! Names alone decide nothing: shards and roles have twin names. What decides are sizes that move together from slot to slot:
//! equal within half a percent, or changes that correlate (Pearson's coefficient, made comparable over lengths by Fisher's
//! transformation). Sizes that never vary are no evidence.

use super::civil_time::DAY;
use super::report::FindingConfidence;
use super::rhythm::usual_gap;
use super::series::{BackupSeries, SeriesEntry};

/// Sizes are equal within this share.
const SIZE_TOLERANCE: f64 = 0.005;

/// A change from slot to slot beyond this (in logarithms) is a full backup among increments, or another content.
const JUMP: f64 = 0.4;

/// Changes of one content differ by no more than this from one writer to the other. Servers that share their traffic have
/// sizes that correlate as well, and differ by more.
const RESIDUAL_MAX: f64 = 0.006;

/// So many common slots are needed.
const COMMON_MIN: usize = 3;

/// Below this size, in bytes, a file says too little to be compared.
const COMPARED_MIN: u64 = 1024;

/// Two backups in one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SlotPair {
    pub(super) first: SeriesEntry,
    pub(super) second: SeriesEntry,
}

/// What a comparison of two series says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TwinVerdict {
    /// Both store one content.
    Stereo { confidence: FindingConfidence, pairs: Vec<SlotPair> },
    /// They have no slots, or only few, in common.
    Apart,
    /// Both have backups in the same slots, of different contents, or it cannot be told.
    Unrelated,
}

/// Which time of entries is comparable between two series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimeBase {
    Key,
    Modified,
}

fn time_base(a: &BackupSeries, b: &BackupSeries) -> TimeBase {
    if a.names_time_of_day() && b.names_time_of_day() {
        TimeBase::Key
    } else if a.trusts_modified && b.trusts_modified {
        TimeBase::Modified
    } else {
        TimeBase::Key
    }
}

fn sorted_by(series: &BackupSeries, base: TimeBase) -> Vec<(i64, SeriesEntry)> {
    let mut entries: Vec<(i64, SeriesEntry)> = series
        .entries
        .iter()
        .map(|entry| (if base == TimeBase::Key { entry.at } else { entry.modified }, *entry))
        .collect();
    entries.sort_unstable_by_key(|(at, entry)| (*at, entry.object));
    entries
}

/// Compares two series. `rivals`: how many comparisons of this kind are made; the more, the stronger the evidence must be.
pub(super) fn compare_series(a: &BackupSeries, b: &BackupSeries, rivals: usize) -> TwinVerdict {
    let base = time_base(a, b);
    let (left, right) = (sorted_by(a, base), sorted_by(b, base));
    let gap = |entries: &[(i64, SeriesEntry)]| {
        let mut times: Vec<i64> = entries.iter().map(|(at, _)| *at).collect();
        times.dedup();
        usual_gap(&times)
    };
    let Some(interval) = gap(&left).into_iter().chain(gap(&right)).min() else {
        return TwinVerdict::Apart;
    };
    let interval = if base == TimeBase::Key && !a.names_time_of_day() { interval.max(DAY) } else { interval };
    // Half a distance is where two that take turns stand: a little less is asked for.
    let pairs = pair_up(&left, &right, interval * 2 / 5);
    if pairs.len() < COMMON_MIN {
        return TwinVerdict::Apart;
    }
    let (first, last) = (pairs[0].first.at, pairs[pairs.len() - 1].first.at);
    let within = |entries: &[SeriesEntry]| {
        entries.iter().filter(|entry| entry.at + interval / 2 >= first && entry.at - interval / 2 <= last).count()
    };
    let all = within(&a.entries).max(within(&b.entries));
    if pairs.len() * 2 < all && pairs.len() < 8 {
        return TwinVerdict::Apart;
    }
    match sizes_move_together(&pairs, rivals) {
        Some(confidence) => TwinVerdict::Stereo { confidence, pairs },
        None => TwinVerdict::Unrelated,
    }
}

/// Entries of both that are nearer to each other than `limit`; each is paired once, with the nearest.
fn pair_up(left: &[(i64, SeriesEntry)], right: &[(i64, SeriesEntry)], limit: i64) -> Vec<SlotPair> {
    let mut pairs = Vec::new();
    let mut next = 0;
    for (index, (at, entry)) in left.iter().enumerate() {
        while next + 1 < right.len() && (right[next + 1].0 - at).abs() <= (right[next].0 - at).abs() {
            next += 1;
        }
        let Some((other_at, other)) = right.get(next) else { break };
        let distance = (other_at - at).abs();
        let is_nearer_to_next = left.get(index + 1).is_some_and(|(later, _)| (later - other_at).abs() < distance);
        if distance < limit && !is_nearer_to_next {
            pairs.push(SlotPair { first: *entry, second: *other });
            next += 1;
        }
        if next >= right.len() {
            break;
        }
    }
    pairs
}

/// Whether the sizes of pairs are those of one content, and how certain that is.
pub(super) fn sizes_move_together(pairs: &[SlotPair], rivals: usize) -> Option<FindingConfidence> {
    let compared: Vec<&SlotPair> =
        pairs.iter().filter(|pair| pair.first.size.min(pair.second.size) >= COMPARED_MIN).collect();
    if compared.len() < COMMON_MIN
        || !varies(&compared, |pair| pair.first.size)
        || !varies(&compared, |pair| pair.second.size)
    {
        return None;
    }
    let left: Vec<f64> = compared.iter().map(|pair| (pair.first.size as f64).ln()).collect();
    let right: Vec<f64> = compared.iter().map(|pair| (pair.second.size as f64).ln()).collect();
    let near = |a: f64, b: f64, tolerance: f64| (a - b).abs() <= tolerance;
    let close = left.iter().zip(&right).filter(|(a, b)| near(**a, **b, SIZE_TOLERANCE)).count();
    let is_close = close * 10 >= left.len() * 9;
    let days: Vec<i64> = compared.iter().map(|pair| pair.first.at.div_euclid(DAY)).collect();
    let now = Movement::of(&left, &right, &days);
    let strong = now.certainty() >= needed_certainty(rivals);
    if is_close {
        return confidence_of_close(&now, &left, &right, rivals);
    }
    let ratio_is_fixed = spread_of_difference(&left, &right) <= 0.5 * deviation(&left).max(0.002);
    if strong && now.correlation >= 0.85 && now.count >= 6 && ratio_is_fixed && now.residual <= RESIDUAL_MAX {
        let is_long = now.count >= 10 && now.correlation >= 0.95;
        return Some(if is_long { FindingConfidence::Sure } else { FindingConfidence::Likely });
    }
    if let Some(confidence) = shifted(&left, &right, &days, &now, rivals) {
        return Some(confidence);
    }
    let hint = now.correlation >= 0.6 && now.count >= 10 && now.certainty() >= needed_certainty(rivals);
    hint.then_some(FindingConfidence::Ask)
}

/// The sizes are equal within the tolerance; their changes say whether that is chance.
fn confidence_of_close(now: &Movement, left: &[f64], right: &[f64], rivals: usize) -> Option<FindingConfidence> {
    let wide = range(left) >= 4.0 * spread_of_difference(left, right) && range(left) >= 0.002;
    if now.count >= 4 && now.correlation >= 0.7 && (now.certainty() >= 1.5 || wide) {
        let sure = left.len() >= 5 && (rivals <= 16 || now.certainty() >= needed_certainty(rivals));
        return Some(if sure { FindingConfidence::Sure } else { FindingConfidence::Likely });
    }
    if (now.correlation >= 0.3 && now.certainty() >= 1.6) || (left.len() < 8 && wide) {
        let believed = rivals <= 16 || now.certainty() >= needed_certainty(rivals);
        return Some(if believed { FindingConfidence::Likely } else { FindingConfidence::Ask });
    }
    if now.count >= 8 && now.correlation < 0.3 {
        // Equal by chance, as the shards of one cluster are.
        return (rivals <= 4 && wide).then_some(FindingConfidence::Ask);
    }
    (rivals <= 16).then_some(FindingConfidence::Ask)
}

/// The second series has the sizes of the first one a slot later, or earlier.
fn shifted(left: &[f64], right: &[f64], days: &[i64], now: &Movement, rivals: usize) -> Option<FindingConfidence> {
    let count = left.len() - 1;
    if count < 7 {
        return None;
    }
    let later = (&left[..count], &right[1..]);
    let earlier = (&left[1..], &right[..count]);
    for (a, b) in [later, earlier] {
        let moved = Movement::of(a, b, &days[..count]);
        let tight = spread_of_difference(a, b) * 2.0 <= spread_of_difference(left, right);
        let strong = moved.certainty() >= needed_certainty(rivals) + 0.5;
        if moved.correlation >= 0.9 && moved.correlation >= now.correlation + 0.3 && tight && strong {
            return Some(FindingConfidence::Likely);
        }
    }
    None
}

/// How many standard deviations from chance a correlation must be, if this many are computed.
fn needed_certainty(rivals: usize) -> f64 {
    (2.0 * (1000.0 * rivals.max(1) as f64).ln()).sqrt() - 0.7
}

/// Whether sizes differ from slot to slot, as those of a living source do.
fn varies(pairs: &[&SlotPair], size: impl Fn(&SlotPair) -> u64) -> bool {
    let changes = pairs.windows(2).filter(|pair| size(pair[0]) != size(pair[1])).count();
    let mut sizes: Vec<u64> = pairs.iter().map(|pair| size(pair)).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes.len() >= 3 && changes * 5 >= (pairs.len() - 1) * 2
}

/// How the changes of two series from slot to slot go together.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Movement {
    /// Number of changes that were compared.
    count: usize,
    correlation: f64,
    /// How far the changes differ, as a standard deviation of logarithms.
    residual: f64,
}

impl Movement {
    /// `days`: the day of each slot, to leave out what each week repeats.
    fn of(left: &[f64], right: &[f64], days: &[i64]) -> Self {
        let mut changes: Vec<(i64, f64, f64)> = left
            .windows(2)
            .zip(right.windows(2))
            .zip(days.windows(2))
            .map(|((a, b), day)| (day[1].rem_euclid(7), a[1] - a[0], b[1] - b[0]))
            .filter(|(_, a, b)| a.abs() <= JUMP && b.abs() <= JUMP)
            .collect();
        if changes.len() >= 21 {
            remove_weekly_pattern(&mut changes);
        }
        let count = changes.len();
        let (a, b): (Vec<f64>, Vec<f64>) = changes.into_iter().map(|(_, a, b)| (a, b)).unzip();
        Self { count, correlation: correlation(&a, &b), residual: spread_of_difference(&a, &b) }
    }

    /// Distance from chance, in standard deviations (Fisher's transformation).
    fn certainty(&self) -> f64 {
        if self.count <= 3 {
            return 0.0;
        }
        self.correlation.clamp(-0.999_999, 0.999_999).atanh() * ((self.count - 3) as f64).sqrt()
    }
}

fn remove_weekly_pattern(changes: &mut [(i64, f64, f64)]) {
    for weekday in 0..7 {
        let of_day: Vec<(f64, f64)> =
            changes.iter().filter(|(day, ..)| *day == weekday).map(|(_, a, b)| (*a, *b)).collect();
        if of_day.len() < 2 {
            continue;
        }
        let count = of_day.len() as f64;
        let mean_a = of_day.iter().map(|(a, _)| a).sum::<f64>() / count;
        let mean_b = of_day.iter().map(|(_, b)| b).sum::<f64>() / count;
        for (_, a, b) in changes.iter_mut().filter(|(day, ..)| *day == weekday) {
            *a -= mean_a;
            *b -= mean_b;
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn deviation(values: &[f64]) -> f64 {
    let middle = mean(values);
    mean(&values.iter().map(|value| (value - middle).powi(2)).collect::<Vec<_>>()).sqrt()
}

fn range(values: &[f64]) -> f64 {
    let max = values.iter().copied().fold(f64::MIN, f64::max);
    let min = values.iter().copied().fold(f64::MAX, f64::min);
    max - min
}

fn spread_of_difference(a: &[f64], b: &[f64]) -> f64 {
    deviation(&a.iter().zip(b).map(|(a, b)| a - b).collect::<Vec<_>>())
}

/// Pearson's coefficient; 0 if one of them does not vary.
fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let (deviation_a, deviation_b) = (deviation(a), deviation(b));
    if a.len() < 2 || deviation_a < 1e-9 || deviation_b < 1e-9 {
        return 0.0;
    }
    let (mean_a, mean_b) = (mean(a), mean(b));
    let covariance = mean(&a.iter().zip(b).map(|(a, b)| (a - mean_a) * (b - mean_b)).collect::<Vec<_>>());
    covariance / (deviation_a * deviation_b)
}
