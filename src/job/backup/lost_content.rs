//! Determines which indexed content the store has lost, from a complete listing. Pure.
//!
//! Lost content does not count as stored: the run reads the files that need it again, and puts their content into new
//! packs.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use crate::ids::{ChunkId, PackId};
use crate::job::local_state::saved_state::IndexComparison;
use crate::repo::index::ChunkIndex;
use crate::repo::loss::PackLosses;
use crate::repo::pack::PackTable;

const DAY_SECONDS: i64 = 24 * 60 * 60;

/// Whether a comparison is due: on the first run of each day (UTC), and after the index was replaced.
pub(crate) fn is_comparison_due(before: Option<&IndexComparison>, pruned: Option<Timestamp>, now: Timestamp) -> bool {
    let day = |time: Timestamp| time.as_second().div_euclid(DAY_SECONDS);
    before.is_none_or(|before| day(before.at) != day(now) || before.pruned != pruned)
}

/// What a listing says of an indexed pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PackListing {
    /// The pack is listed with its expected size.
    Whole,
    /// The pack is listed with this other size.
    WrongSize(u64),
    /// The pack is not listed.
    Missing,
}

/// Judges a pack of `len` bytes by its listed size.
pub(crate) fn check_listing(len: u64, shown: Option<u64>) -> PackListing {
    match shown {
        Some(size) if size == len => PackListing::Whole,
        Some(size) => PackListing::WrongSize(size),
        None => PackListing::Missing,
    }
}

/// The frames of a pack that do not end within its first `size` bytes.
pub(crate) fn truncated_frames(table: &PackTable, size: u64) -> BTreeSet<u32> {
    let ends = table.offsets().zip(&table.frames).map(|(offset, frame)| offset + u64::from(frame.stored_len));
    (0..).zip(ends).filter(|(_, end)| *end > size).map(|(number, _)| number).collect()
}

/// The lost content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct LostContent {
    /// Packs with lost content.
    pub(crate) packs: BTreeSet<PackId>,
    /// Those of them with the expected size, so that only reading shows the loss.
    pub(crate) damaged: BTreeSet<PackId>,
    /// The chunks of these packs that no sound pack has, with their pack and length. A chunk that the index still finds
    /// is readable, and is stored again if its source still has it.
    pub(crate) chunks: HashMap<ChunkId, (PackId, u32)>,
}

impl LostContent {
    /// Adds the remaining frames of a damaged pack to the index, and records the pack.
    pub(crate) fn add_damaged_pack(&mut self, index: &mut ChunkIndex, table: &PackTable, frames: &BTreeSet<u32>) {
        index.add_damaged(table, |frame| !frames.contains(&frame));
        self.packs.insert(table.id);
        let chunks = table.frames.iter().flat_map(|frame| &frame.chunks);
        self.chunks.extend(chunks.map(|chunk| (chunk.id, (table.id, chunk.len))));
    }

    /// Called with the complete index: removes the chunks that a sound pack has too, and then the packs without lost
    /// chunks.
    pub(crate) fn drop_recovered(&mut self, index: &ChunkIndex) {
        self.chunks.retain(|id, _| !index.is_in_sound_pack(id));
        let packs: BTreeSet<PackId> = self.chunks.values().map(|(pack, _)| *pack).collect();
        self.packs.retain(|pack| packs.contains(pack));
        self.damaged.retain(|pack| packs.contains(pack));
    }
}

/// What a run did about lost content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HealingSummary {
    /// Packs with lost content.
    pub(crate) packs: BTreeSet<PackId>,
    /// Those of them for which only reading shows the loss.
    pub(crate) damaged: BTreeSet<PackId>,
    /// Number of chunks that were stored again.
    pub(crate) chunks: u64,
    /// Bytes of these chunks, before compression.
    pub(crate) bytes: u64,
    /// Chunks that were not stored again, and that no pack has.
    pub(crate) gone: Vec<ChunkId>,
}

impl HealingSummary {
    /// `stored`: whether this run stored the chunk, or found it in an orphan.
    pub(crate) fn of(lost: &LostContent, index: &ChunkIndex, stored: impl Fn(&ChunkId) -> bool) -> Self {
        let mut healing = Self { packs: lost.packs.clone(), damaged: lost.damaged.clone(), ..Self::default() };
        for (id, (_, len)) in &lost.chunks {
            if stored(id) {
                healing.chunks += 1;
                healing.bytes += u64::from(*len);
            } else if !index.contains(id) {
                healing.gone.push(*id);
            }
        }
        healing.gone.sort_unstable();
        healing
    }

    /// The packs for a loss note, and whether the note omits some.
    pub(crate) fn losses(&self) -> (PackLosses, bool) {
        let mut losses = PackLosses::default();
        for pack in &self.packs {
            if self.damaged.contains(pack) {
                losses.add_damaged(*pack);
            } else {
                losses.add_missing(*pack);
            }
        }
        let more = losses.packs() < self.packs.len() as u64;
        (losses, more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::pack::{ChunkEntry, FrameEntry};

    /// A pack with a frame for each of these lists of chunks.
    fn table(pack: u8, frames: &[&[u8]]) -> PackTable {
        let entry = |chunk: &u8| ChunkEntry { id: ChunkId([*chunk; 32]), len: 10 };
        let frame = |chunks: &&[u8]| FrameEntry {
            stored_len: 100,
            compressed: true,
            chunks: chunks.iter().map(entry).collect(),
        };
        PackTable { id: PackId([pack; 16]), salt: [0; 32].into(), frames: frames.iter().map(frame).collect() }
    }

    #[test]
    fn a_comparison_is_due_once_a_day_and_after_each_prune() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let before = IndexComparison { at: at("2026-11-20T01:00:00Z"), pruned: None, note: None };
        assert!(is_comparison_due(None, None, at("2026-11-20T01:00:00Z")), "a memory that was lost costs a listing");
        for (now, due) in [
            ("2026-11-20T01:00:01Z", false),
            ("2026-11-20T23:59:59Z", false),
            ("2026-11-21T00:00:00Z", true),
            ("2026-11-19T23:00:00Z", true),
        ] {
            assert_eq!(is_comparison_due(Some(&before), None, at(now)), due, "{now}");
        }
        let pruned = Some(at("2026-11-20T02:00:00Z"));
        assert!(is_comparison_due(Some(&before), pruned, at("2026-11-20T03:00:00Z")));
        assert!(!is_comparison_due(Some(&IndexComparison { pruned, ..before }), pruned, at("2026-11-20T03:00:00Z")));
    }

    #[test]
    fn a_pack_is_whole_only_with_its_size() {
        assert_eq!(check_listing(240, Some(240)), PackListing::Whole);
        assert_eq!(check_listing(240, Some(239)), PackListing::WrongSize(239));
        assert_eq!(check_listing(240, Some(241)), PackListing::WrongSize(241));
        assert_eq!(check_listing(240, None), PackListing::Missing);
        let table = table(1, &[&[1], &[2]]);
        for (size, frames) in [(0, vec![0, 1]), (139, vec![0, 1]), (140, vec![1]), (239, vec![1]), (240, vec![])] {
            assert_eq!(truncated_frames(&table, size), frames.into_iter().collect(), "{size}");
        }
    }

    #[test]
    fn a_chunk_is_lost_only_if_no_other_pack_has_it() {
        let (mut index, mut lost) = (ChunkIndex::default(), LostContent::default());
        index.add(&table(1, &[&[1]]));
        lost.add_damaged_pack(&mut index, &table(2, &[&[1, 2], &[3]]), &[0].into());
        lost.add_damaged_pack(&mut index, &table(3, &[&[4]]), &[0].into());
        index.add(&table(4, &[&[4, 5]]));
        index.sort();
        lost.drop_recovered(&index);
        assert_eq!(lost.packs, [PackId([2; 16])].into(), "of 3 another pack has everything");
        let chunk = |n| (ChunkId([n; 32]), (PackId([2; 16]), 10));
        assert_eq!(lost.chunks, [2, 3].map(chunk).into(), "the second can be read, and is stored again");
        let has = [1, 2, 3, 4, 5].map(|n| index.contains(&ChunkId([n; 32])));
        assert_eq!(has, [true, false, true, true, true]);
        let healed = |stored: &[u8]| HealingSummary::of(&lost, &index, |id| stored.contains(&id.0[0]));
        let came_to = |stored: &[u8]| {
            let HealingSummary { chunks, bytes, gone, .. } = healed(stored);
            (chunks, bytes, gone)
        };
        let gone = vec![ChunkId([2; 32])];
        assert_eq!([&[2, 3][..], &[2], &[3]].map(came_to), [(2, 20, vec![]), (1, 10, vec![]), (1, 10, gone)]);
        assert_eq!(healed(&[]).losses(), (PackLosses { missing: lost.packs.clone(), ..PackLosses::default() }, false));
    }
}
