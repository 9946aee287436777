//! Finds where a journal ends by listings that start far apart. Pure: it says after which record to list, and is given
//! the result.
//!
//! A page shows many records at once, so a journal of thousands of them is searched in a handful of requests: by
//! strides that grow until nothing is listed, then by halving what is left, in pages.

/// Factor by which each stride is longer than the one before.
const GROWTH: u64 = 4;

/// Result of a listing after some record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListedRecords {
    /// No record.
    Nothing,
    /// Records up to this one, which was the last of all.
    End(u64),
    /// Records up to this one, and there are more.
    Part(u64),
}

/// A search for the last record of a journal without gaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadSearch {
    /// The highest number that is known to be occupied, or 0.
    occupied: u64,
    /// No number above this one is occupied.
    empty: Option<u64>,
    /// The most records that one listing may show.
    page: u64,
    stride: u64,
    list_after: u64,
}

impl HeadSearch {
    /// A search from record `known`, or 0, by listings of up to `page` records. The first listing is after that record.
    pub fn new(known: u64, page: u64) -> Self {
        Self { occupied: known, empty: None, page, stride: GROWTH * page, list_after: known }
    }

    /// After which record to list next.
    pub fn after(&self) -> u64 {
        self.list_after
    }

    /// Takes the result of the listing after [`HeadSearch::after`]; `Some`: the last record, or 0.
    pub fn add_listing(&mut self, listed: ListedRecords) -> Option<u64> {
        match listed {
            ListedRecords::End(last) => return Some(last),
            ListedRecords::Part(last) => self.occupied = last,
            // Also if a record disappeared since it was seen.
            ListedRecords::Nothing if self.list_after <= self.occupied => return Some(self.occupied),
            ListedRecords::Nothing => self.empty = Some(self.list_after),
        }
        self.list_after = match self.empty {
            None => {
                let far = self.occupied.saturating_add(self.stride);
                self.stride = self.stride.saturating_mul(GROWTH);
                far
            }
            Some(empty) => {
                let pages = empty.saturating_sub(self.occupied).div_ceil(self.page);
                self.occupied + pages / 2 * self.page
            }
        };
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: u64 = 1000;

    /// The last record that is found in a journal of so many, listed by so many at once, and in how many listings.
    fn search(known: u64, head: u64, page: u64) -> (u64, u32) {
        let mut search = HeadSearch::new(known, PAGE);
        for listings in 1..10_000 {
            let after = search.after();
            let listed = match head.saturating_sub(after) {
                0 => ListedRecords::Nothing,
                more if more <= page => ListedRecords::End(head),
                _ => ListedRecords::Part(after + page),
            };
            if let Some(found) = search.add_listing(listed) {
                return (found, listings);
            }
        }
        panic!("no end");
    }

    #[test]
    fn a_long_journal_takes_a_handful_of_listings() {
        assert_eq!((search(0, 0, PAGE), search(7, 7, PAGE), search(0, PAGE, PAGE)), ((0, 1), (7, 1), (PAGE, 1)));
        let most = |heads: std::ops::RangeInclusive<u64>| heads.map(|head| search(0, head, PAGE).1).max().unwrap();
        assert_eq!((most(1..=1000), most(1001..=10_000), most(10_001..=100_000)), (1, 8, 14));
        assert_eq!(
            (9_000..9_999).map(|known| search(known, 10_000, PAGE).1).max(),
            Some(1),
            "a reader that is not far behind"
        );
    }

    proptest! {
        #[test]
        fn the_last_record_is_found(head in 0..5_000_000u64, behind in 0..5_000_000u64, page in 1..=PAGE) {
            // A server may show fewer at once than it was asked for.
            let (page, head) = if page == PAGE { (page, head) } else { (page, head % (100 * page)) };
            prop_assert_eq!(search(head.saturating_sub(behind), head, page).0, head);
        }

        /// Records that go away meanwhile, or listings that lag, do not keep it going.
        #[test]
        fn any_listings_come_to_an_end(known in 0..1000u64, told in prop::collection::vec(any::<Option<u16>>(), 0..40)) {
            let mut search = HeadSearch::new(known, PAGE);
            for more in told {
                let last = search.after().saturating_add(1 + u64::from(more.unwrap_or_default()));
                let listed = more.map_or(ListedRecords::Nothing, |_| ListedRecords::Part(last));
                if let Some(head) = search.add_listing(listed) {
                    prop_assert!(head >= known);
                    return Ok(());
                }
            }
            // From here on the listings show nothing.
            let ended = (0..64).any(|_| search.add_listing(ListedRecords::Nothing).is_some_and(|head| head >= known));
            prop_assert!(ended);
        }
    }
}
