//! Pure. What the sizes of one series say: frozen, empty, shrunk.

use super::report::FindingConfidence;

/// A backup that is not larger than this has no content.
pub(super) const EMPTY_MAX: u64 = 64;

/// So many equal sizes, one after the other, are a finding.
const FROZEN_MIN: usize = 5;

/// So many backups are the week that a size is compared with.
const WEEK: usize = 7;

/// A run of backups with something wrong: indices into the series, the end excluded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SizeFinding {
    pub(super) start: usize,
    pub(super) end: usize,
    /// Number of backups concerned.
    pub(super) count: usize,
    /// The usual size before.
    pub(super) usual: u64,
    pub(super) confidence: FindingConfidence,
}

/// So many backups are the month that a size is compared with.
const MONTH: usize = 31;

fn median(sizes: &[u64]) -> u64 {
    let mut sorted = sizes.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len() / 2).copied().unwrap_or(0)
}

/// The size varied from backup to backup, and then is the same to the byte. A source that often stays the same is not meant.
pub(super) fn frozen(sizes: &[u64]) -> Option<SizeFinding> {
    let mut found = None;
    let mut start = 0;
    while start < sizes.len() {
        let end = start + sizes[start..].iter().take_while(|size| **size == sizes[start]).count();
        let run = end - start;
        let is_last = end == sizes.len();
        let before = &sizes[..start];
        if run >= FROZEN_MIN && sizes[start] > EMPTY_MAX && before.len() >= 4 {
            let changes = before.windows(2).filter(|pair| pair[0] != pair[1]).count();
            let steady = longest_equal_run(before);
            let lively = changes * 10 >= (before.len() - 1) * 7;
            let after = &sizes[end..];
            let lively_after = after.len() < 4 || longest_equal_run(after) * 2 <= run;
            if lively && run > steady * 2 && lively_after {
                let distinct = before.iter().collect::<std::collections::BTreeSet<_>>().len();
                let confidence = match (is_last, run, distinct) {
                    (true, 7.., 4..) => FindingConfidence::Sure,
                    (_, _, 3..) => FindingConfidence::Likely,
                    _ => FindingConfidence::Ask,
                };
                let usual = median(&before[before.len().saturating_sub(WEEK)..]);
                found = Some(SizeFinding { start, end, count: run, usual, confidence });
            }
        }
        start = end;
    }
    found
}

fn longest_equal_run(sizes: &[u64]) -> usize {
    sizes.chunk_by(|a, b| a == b).map(<[u64]>::len).max().unwrap_or(0)
}

/// Backups without content, in a series that has some. `must_have_content`: the name says that there is some.
pub(super) fn empty(sizes: &[u64], must_have_content: bool) -> Option<SizeFinding> {
    let is_empty = |size: &u64| *size <= EMPTY_MAX;
    let count = sizes.iter().filter(|size| is_empty(size)).count();
    let full: Vec<u64> = sizes.iter().copied().filter(|size| !is_empty(size)).collect();
    let start = sizes.iter().position(is_empty)?;
    let end = sizes.iter().rposition(is_empty)? + 1;
    let usual = median(&full);
    let confidence = if full.is_empty() {
        if !must_have_content || count < 3 {
            return None;
        }
        FindingConfidence::Likely
    } else if usual >= 1024 || (must_have_content && usual > 4 * EMPTY_MAX) {
        FindingConfidence::Sure
    } else {
        return None;
    };
    Some(SizeFinding { start, end, count, usual, confidence })
}

/// Backups that lost more than half of their size against the week before, in a series whose size was steady.
///
/// `a_day`: how many backups a day has; a loss must last a day. A loss that comes back each week or month is a pattern of the source: a full backup and its increments.
pub(super) fn shrunk(sizes: &[u64], a_day: usize) -> Option<SizeFinding> {
    let mut drops: Vec<(usize, usize, u64)> = Vec::new();
    let mut index = WEEK.min(sizes.len()).min(5);
    while index < sizes.len() {
        let before = &sizes[index.saturating_sub(WEEK)..index];
        let usual = median(before);
        let steady = before.iter().filter(|size| size.abs_diff(usual) * 4 <= usual).count();
        // Lower than all of the last month, but for one.
        let mut lowest: Vec<u64> = sizes[index.saturating_sub(MONTH)..index].to_vec();
        lowest.sort_unstable();
        let is_lower = sizes[index] * 4 < lowest[1] * 3;
        if usual > 1024
            && sizes[index] * 2 < usual
            && is_lower
            && sizes[index] > EMPTY_MAX
            && steady * 7 >= before.len() * 6
        {
            let low = sizes[index..].iter().take_while(|size| **size * 3 < usual * 2).count();
            if low >= a_day {
                drops.push((index, index + low, usual));
            }
            index += low + 1;
        } else {
            index += 1;
        }
    }
    let (start, end, usual) = *drops.last()?;
    let lasts = end == sizes.len();
    // Sizes as low as these before the drop: it is a pattern.
    let low_before = sizes[..start].iter().filter(|size| **size * 3 < usual * 2).count();
    if drops.len() > 2
        || (drops.len() == 2 && !lasts)
        || low_before * 10 > start
        || (!lasts && low_after(sizes, end, usual))
    {
        return None;
    }
    // A rise by the same factor before it: what shrank was the exception.
    let first = &sizes[..start.min(WEEK)];
    let was_small = first.iter().filter(|size| **size * 3 < usual * 2).count() * 2 > first.len();
    let now = median(&sizes[start..end]);
    if was_small && sizes[..start].len() > WEEK {
        return None;
    }
    let confidence = if lasts && end - start == 1 && a_day == 1 && sizes.len() < 12 {
        // The last one of a few may not be complete yet.
        FindingConfidence::Ask
    } else if lasts && end - start >= 3 && now * 2 < usual {
        FindingConfidence::Sure
    } else {
        FindingConfidence::Likely
    };
    Some(SizeFinding { start, end, count: end - start, usual, confidence })
}

/// Whether sizes as low as a drop's come again after it.
fn low_after(sizes: &[u64], end: usize, usual: u64) -> bool {
    sizes[end..].iter().filter(|size| **size * 3 < usual * 2).count() >= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn growing(count: u64) -> Vec<u64> {
        (0..count).map(|night| 1_000_000 + night * 1_117).collect()
    }

    #[test]
    fn equal_sizes_after_variation_are_frozen() {
        let mut sizes = growing(20);
        sizes.extend([1_050_000; 8]);
        let found = frozen(&sizes).unwrap();
        assert_eq!((found.start, found.end, found.confidence), (20, 28, FindingConfidence::Sure));
        assert_eq!(frozen(&[5_000; 30]), None, "a fixed image never varied");
        assert_eq!(frozen(&growing(30)), None);
        let weekly: Vec<u64> = (0..40).map(|night| 1_000_000 + night / 7 * 1_117).collect();
        assert_eq!(frozen(&weekly), None, "a source that changes once a week");
    }

    #[test]
    fn small_files_that_always_were_small_are_not_empty() {
        assert_eq!(empty(&[7; 20], false), None);
        assert_eq!(empty(&[20; 20], true).unwrap().confidence, FindingConfidence::Likely);
        let mut sizes = growing(10);
        sizes[6] = 20;
        let found = empty(&sizes, true).unwrap();
        assert_eq!((found.start, found.count, found.confidence), (6, 1, FindingConfidence::Sure));
    }

    #[test]
    fn a_loss_of_half_is_seen_and_a_cycle_is_not() {
        let mut sizes = growing(20);
        sizes.extend([300_000, 301_000, 302_000]);
        assert_eq!(shrunk(&sizes, 1).unwrap().start, 20);
        let cycle: Vec<u64> = (0..35).map(|night| if night % 7 == 0 { 5_000_000 } else { 200_000 + night }).collect();
        assert_eq!(shrunk(&cycle, 1), None);
        let weekends: Vec<u64> = (0..35).map(|day| if day % 7 >= 5 { 100_000 } else { 500_000 + day }).collect();
        assert_eq!(shrunk(&weekends, 1), None);
    }
}
