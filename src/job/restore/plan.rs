//! Decides which frames a batch of work needs, and which requests fetch them. Pure.

use std::collections::BTreeMap;

use crate::ids::PackId;
use crate::job::restore::source::ChunkLocation;

/// Limit of plain bytes that a batch needs at once. Several batches are in memory at the same time, see
/// [`super::FETCH_AHEAD`]; together they stay within about 64 MiB.
pub(super) const BATCH_BYTES: u64 = 8 << 20;

/// The assumed plain size of a frame. The real size is known only after the fetch.
const FRAME_BYTES: u64 = 2 << 20;

/// Chunks and entries of one batch: bounds the memory where there is little to fetch.
pub(super) const BATCH_ITEMS: usize = 4096;

/// Two frames of a pack with at most this many bytes between them are fetched with one request: at 100 MB/s that costs
/// less than a second request over the shortest network.
const GAP_MAX: u64 = 128 << 10;

/// Plain bytes of frames that are kept for later batches: similar files often lie near each other, and two workers
/// packed their frames in turns. Most of the kept frames belong to batches that are not yet written anyway.
pub(super) const KEPT_BYTES: u64 = 32 << 20;

/// A frame by pack and number.
pub(super) type FrameKey = (PackId, u32);

/// One request: frames of one pack, ascending and close together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FrameRequest {
    pub(super) pack: PackId,
    pub(super) frames: Vec<u32>,
}

/// The frames that a batch needs.
#[derive(Debug, Default)]
pub(super) struct FrameSet {
    frames: BTreeMap<FrameKey, StoredFrame>,
    plain_bytes: u64,
}

#[derive(Debug)]
struct StoredFrame {
    offset: u64,
    len: u32,
    plain: u64,
}

impl FrameSet {
    /// Whether the chunk's frame is in the set, or still fits into it.
    pub(super) fn fits(&self, place: &ChunkLocation) -> bool {
        self.frames.is_empty()
            || self.frames.contains_key(&(place.pack, place.frame))
            || self.plain_bytes + plain_bytes(place) <= BATCH_BYTES
    }

    /// Adds the chunk's frame.
    pub(super) fn add(&mut self, place: &ChunkLocation) {
        let plain = plain_bytes(place);
        let stored = self.frames.entry((place.pack, place.frame)).or_insert(StoredFrame {
            offset: place.stored_offset,
            len: place.stored_len,
            plain: 0,
        });
        self.plain_bytes += plain.saturating_sub(stored.plain);
        stored.plain = stored.plain.max(plain);
    }

    /// Removes the frames for which `is_there` returns true; its second argument is the assumed plain size.
    pub(super) fn leave_out(&mut self, mut is_there: impl FnMut(FrameKey, u64) -> bool) {
        self.frames.retain(|&key, stored| !is_there(key, stored.plain));
        self.plain_bytes = self.frames.values().map(|stored| stored.plain).sum();
    }

    /// Stored size of the frame in bytes.
    pub(super) fn stored_len(&self, key: FrameKey) -> u64 {
        self.frames.get(&key).map_or(0, |stored| stored.len.into())
    }

    /// Stored size of all frames in bytes.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.frames.values().map(|stored| u64::from(stored.len)).sum()
    }

    /// The requests that fetch all frames.
    pub(super) fn requests(&self) -> Vec<FrameRequest> {
        let mut requests: Vec<FrameRequest> = Vec::new();
        let mut end = 0;
        for (&(pack, frame), stored) in &self.frames {
            match requests.last_mut() {
                Some(last) if last.pack == pack && stored.offset.checked_sub(end).is_some_and(|gap| gap <= GAP_MAX) => {
                    last.frames.push(frame);
                }
                _ => requests.push(FrameRequest { pack, frames: vec![frame] }),
            }
            end = stored.offset + u64::from(stored.len);
        }
        requests
    }
}

fn plain_bytes(place: &ChunkLocation) -> u64 {
    FRAME_BYTES.max(place.stored_len.into()).max(u64::from(place.offset_in_frame) + u64::from(place.len))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(pack: u8, frame: u32, stored_offset: u64, stored_len: u32) -> ChunkLocation {
        ChunkLocation { pack: PackId([pack; 16]), frame, offset_in_frame: 0, len: 10, stored_offset, stored_len }
    }

    fn requests(places: &[ChunkLocation]) -> Vec<(u8, Vec<u32>)> {
        let mut set = FrameSet::default();
        for place in places {
            set.add(place);
        }
        set.requests().into_iter().map(|r| (r.pack.0[0], r.frames)).collect()
    }

    #[test]
    fn neighbours_share_a_request() {
        let far = 300 + GAP_MAX + 1;
        let places = [place(1, 2, 200, 100), place(1, 0, 0, 100), place(1, 1, 100, 100), place(1, 9, far, 5)];
        assert_eq!(requests(&places), [(1, vec![0, 1, 2]), (1, vec![9])]);
        assert_eq!(requests(&[place(1, 0, 0, 100), place(2, 1, 100, 100)]), [(1, vec![0]), (2, vec![1])]);
        assert_eq!(requests(&[place(1, 0, 0, 100), place(1, 2, 100 + GAP_MAX, 1)]), [(1, vec![0, 2])]);
    }

    #[test]
    fn a_frame_is_counted_once_and_room_is_bounded() {
        let mut set = FrameSet::default();
        for _ in 0..100 {
            set.add(&place(1, 0, 0, 100));
        }
        assert_eq!((set.plain_bytes, set.stored_bytes()), (FRAME_BYTES, 100));
        for frame in 1.. {
            let next = place(1, frame, 0, 100);
            if !set.fits(&next) {
                break;
            }
            set.add(&next);
        }
        assert_eq!(set.frames.len() as u64, BATCH_BYTES / FRAME_BYTES);
        assert!(set.fits(&place(1, 0, 0, 100)), "what is here fits always");
    }

    #[test]
    fn a_frame_beyond_every_bound_still_has_its_batch() {
        assert!(FrameSet::default().fits(&place(1, 0, 0, u32::MAX)));
    }
}
