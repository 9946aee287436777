//! The data ranges of a sparse file, in a bounded number of runs. Pure.
//!
//! What a file reports of itself is bounded before it is used: neither the number of its holes nor its size decides how
//! much memory its description takes, or how many calls are made. If a file has more runs than are kept, the smallest
//! holes are filled, and the large ones stay.

use crate::repo::entry::Extent;

/// The most data runs that are kept of one file: 16 MiB of memory.
pub const EXTENTS_MAX: usize = 1 << 20;

/// The smallest possible hole: the block size of most file systems.
const GRAIN_MIN: u64 = 4096;

/// The data runs of one file, added in ascending order.
#[derive(Debug)]
pub(super) struct DataRuns {
    list: Vec<Extent>,
    max: usize,
    /// Holes shorter than this are filled, and data is searched at this distance. 0: each hole is kept.
    grain: u64,
    /// Number of runs added since `grain` was last set.
    added: usize,
    size: u64,
}

impl DataRuns {
    /// For a file of `size` bytes, at most `max` (at least 2) runs.
    pub(super) fn new(size: u64, max: usize) -> Self {
        Self { list: Vec::new(), max, grain: 0, added: 0, size }
    }

    /// Adds the data from `start` to `end`. Returns the offset to search from next.
    pub(super) fn add(&mut self, start: u64, end: u64) -> u64 {
        if self.added >= self.max {
            self.coarsen();
        }
        self.added += 1;
        let end = end.max(self.grid_after(start)).min(self.size);
        self.push(Extent { offset: start, len: end - start });
        end
    }

    /// The extents. `None` if there is no hole.
    pub(super) fn finish(self) -> Option<Vec<Extent>> {
        let whole = Extent { offset: 0, len: self.size };
        (self.list != [whole]).then_some(self.list)
    }

    /// The first multiple of the grain after `start`; 0 while each hole is kept.
    fn grid_after(&self, start: u64) -> u64 {
        start.checked_div(self.grain).map_or(0, |cell| (cell + 1).saturating_mul(self.grain))
    }

    fn push(&mut self, next: Extent) {
        match self.list.last_mut() {
            Some(last) if next.offset - (last.offset + last.len) < self.grain.max(1) => {
                last.len = next.offset + next.len - last.offset;
            }
            _ => self.list.push(next),
        }
    }

    /// Doubles the grain until half of the room is free, so that the cost is spread over the runs that follow.
    fn coarsen(&mut self) {
        loop {
            self.grain = self.grain.max(GRAIN_MIN).saturating_mul(2);
            for run in std::mem::take(&mut self.list) {
                self.push(run);
            }
            if self.list.len() <= self.max / 2 {
                break;
            }
        }
        self.added = self.list.len();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn runs(size: u64, max: usize, data: &[(u64, u64)]) -> Option<Vec<(u64, u64)>> {
        let mut runs = DataRuns::new(size, max);
        let mut at = 0;
        for &(start, end) in data.iter().filter(|(_, end)| *end <= size) {
            if end > at {
                at = runs.add(start.max(at), end);
            }
        }
        runs.finish().map(|all| all.into_iter().map(|e| (e.offset, e.offset + e.len)).collect())
    }

    #[test]
    fn each_hole_is_kept_where_there_is_room() {
        assert_eq!(runs(100, 4, &[(0, 10), (20, 30), (90, 100)]), Some(vec![(0, 10), (20, 30), (90, 100)]));
        assert_eq!(runs(100, 4, &[(0, 100)]), None, "no hole");
        assert_eq!(runs(100, 4, &[]), Some(vec![]), "nothing but a hole");
    }

    #[test]
    fn the_smallest_holes_are_filled_first_and_a_large_one_never_is() {
        let block = 4096;
        let mut data: Vec<_> = (0..100).map(|i| (2 * i * block, (2 * i + 1) * block)).collect();
        data.push((1 << 60, (1 << 60) + block));
        let kept = runs(i64::MAX as u64, 16, &data).unwrap();
        let total: u64 = kept.iter().map(|(start, end)| end - start).sum();
        assert!(kept.len() <= 16 && total < 256 * block, "{kept:?}");
    }

    /// Data in every other block of a file of 2^63 bytes: the number of calls stays within the number of steps.
    #[test]
    fn how_often_a_file_is_asked_does_not_depend_on_its_size() {
        let (size, max) = (i64::MAX as u64, 64);
        let mut runs = DataRuns::new(size, max);
        let (mut at, mut asked) = (0, 0);
        while at < size {
            asked += 1;
            assert!(asked < 64 * max, "at {at}");
            let start = at.next_multiple_of(8192).min(size - 1);
            at = runs.add(start, (start + 4096).min(size));
        }
    }

    proptest! {
        #[test]
        fn all_data_is_in_them(max in 2..9usize, steps in prop::collection::vec((0..9u64, 1..9u64), 0..60)) {
            let mut at = 0;
            let data: Vec<_> = steps.iter().map(|(hole, len)| {
                let start = at + hole * 4096;
                at = start + len * 4096;
                (start, at)
            }).collect();
            let size = at + 4096;
            let kept = runs(size, max, &data).unwrap_or(vec![(0, size)]);
            prop_assert!(kept.len() <= max, "{kept:?}");
            prop_assert!(kept.windows(2).all(|w| w[0].1 < w[1].0) && kept.iter().all(|(a, b)| a < b && *b <= size));
            for (start, end) in data {
                prop_assert!(kept.iter().any(|(a, b)| *a <= start && end <= *b), "{start}..{end} in {kept:?}");
            }
        }
    }
}
