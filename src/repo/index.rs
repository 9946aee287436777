//! The index: maps each chunk to its pack, its frame and its offset in the frame.
//!
//! An index object lists the tables of the packs that one session wrote (or adopted); the index of the repository is
//! the union of the objects that the journal names. In memory it is one sorted list: 48 bytes a chunk, whatever the
//! number of index objects.
//!
//! Pure.

use std::cmp::Reverse;
use std::collections::HashSet;

use bytes::Bytes;

use crate::ids::{ChunkId, IndexId, KeyGeneration, PackId};
use crate::repo::codec::{ByteReader, DecodeError, decode_error, put_varint};
use crate::repo::crypto::{DerivedKeys, SALT_LEN, Salt, SealedPart};
use crate::repo::header::{self, HeaderError};
use crate::repo::pack::PackTable;

/// An index object is closed when its packs list this many chunks: about 9 MiB, so that it can be held in memory and
/// sent again.
pub const INDEX_OBJECT_CHUNKS: usize = 1 << 18;

/// How many of `packs`, from the first on, fit into one index object; at least one.
pub fn count_fitting_packs(packs: &[PackTable]) -> usize {
    let mut chunks = 0;
    let fits = packs.iter().take_while(|pack| {
        let before = chunks;
        chunks += pack.chunks();
        before == 0 || chunks <= INDEX_OBJECT_CHUNKS
    });
    fits.count()
}

const MAGIC: &[u8; 4] = b"RUNI";

/// Seals the tables of some packs as one index object.
pub fn encode_index(keys: &DerivedKeys, id: IndexId, salt: [u8; SALT_LEN], packs: &[PackTable]) -> Bytes {
    // Usually large enough: the buffer may be large, and would grow by doubling.
    let mut data = Vec::with_capacity(packs.iter().map(|pack| 1024 + pack.chunks() * (ChunkId::LEN + 4)).sum());
    let salt = keys.salt(salt);
    header::put(&mut data, *MAGIC, keys.cipher(), salt);
    put_varint(&mut data, packs.len() as u64);
    for pack in packs {
        data.extend_from_slice(&pack.id.0);
        if !salt.generation.is_first() {
            put_varint(&mut data, u64::from(pack.salt.generation.0));
        }
        data.extend_from_slice(&pack.salt.bytes);
        pack.encode(&mut data);
    }
    keys.object_sealer(id.0, salt).seal(SealedPart::Index, &mut data, header::LEN);
    Bytes::from(data)
}

/// The tables in an index object.
pub fn decode_index(keys: &DerivedKeys, id: IndexId, object: &[u8]) -> Result<Vec<PackTable>, DecodeError> {
    let (salt, sealed) = match header::take(object, *MAGIC, keys) {
        Ok(taken) => taken,
        Err(HeaderError::Short) => return decode_error("shorter than a header"),
        Err(HeaderError::Magic) => return decode_error("does not start like an index"),
        Err(HeaderError::Version) => return decode_error("another format version or cipher"),
        Err(HeaderError::Generation) => return decode_error("a later generation of the repository key sealed it"),
    };
    let Ok(plain) = keys.object_sealer(id.0, salt).open(SealedPart::Index, sealed) else {
        return decode_error("does not open: it is damaged, or belongs elsewhere");
    };
    decode_tables(&plain, salt.generation)
}

/// The tables in the plain content of an index object that this generation sealed. For fuzzing, which cannot produce a
/// valid seal.
pub fn decode_tables(plain: &[u8], sealed_by: KeyGeneration) -> Result<Vec<PackTable>, DecodeError> {
    let mut reader = ByteReader::new(plain);
    let count = reader.count(PackId::LEN + SALT_LEN + 1)?;
    let mut packs = Vec::with_capacity(count);
    for _ in 0..count {
        let id = PackId(reader.array()?);
        let generation = match sealed_by {
            KeyGeneration::FIRST => KeyGeneration::FIRST,
            _ => KeyGeneration(u16::try_from(reader.varint()?).unwrap_or(u16::MAX)),
        };
        if generation > sealed_by {
            return decode_error("a pack of a later generation of the repository key than its own");
        }
        let salt = Salt { generation, bytes: reader.array()? };
        packs.push(PackTable::decode(id, salt, &mut reader)?);
    }
    reader.finish()?;
    Ok(packs)
}

/// The location of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexedFrame {
    /// The offset in the pack, in bytes.
    pub offset: u64,
    /// The length in the pack, in bytes.
    pub stored_len: u32,
    /// The length of the plain content.
    pub raw_len: u32,
    /// Whether the content is compressed.
    pub compressed: bool,
}

/// The location of a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexedChunk {
    /// The ID of the pack.
    pub pack: PackId,
    /// The number of the frame in the pack.
    pub frame: u32,
    /// The offset in the frame's plain content.
    pub offset: u32,
    /// The length of the chunk's plain content.
    pub len: u32,
}

/// The data of one pack that a reader needs.
#[derive(Debug, Clone)]
pub struct IndexedPack {
    /// The pack's ID.
    pub id: PackId,
    /// The salt of the pack's key.
    pub salt: Salt,
    /// The frames in order.
    pub frames: Vec<IndexedFrame>,
    /// Only the sound frames of a damaged pack were added.
    pub is_damaged: bool,
}

#[derive(Debug, Clone, Copy)]
struct IndexRow {
    id: ChunkId,
    pack: u32,
    frame: u32,
    offset: u32,
    len: u32,
}

/// All chunks that a set of index objects lists.
#[derive(Debug, Default)]
pub struct ChunkIndex {
    packs: Vec<IndexedPack>,
    rows: Vec<IndexRow>,
    sorted: bool,
}

impl ChunkIndex {
    /// Adds a pack. Call [`ChunkIndex::sort`] after the last one.
    pub fn add(&mut self, table: &PackTable) {
        self.add_frames(table, false, |_| true);
    }

    /// Adds the frames of a damaged pack for which `passes` is true. A chunk is looked up there only if no sound pack
    /// has it.
    pub fn add_damaged(&mut self, table: &PackTable, passes: impl Fn(u32) -> bool) {
        self.add_frames(table, true, passes);
    }

    fn add_frames(&mut self, table: &PackTable, is_damaged: bool, passes: impl Fn(u32) -> bool) {
        let pack = self.packs.len() as u32;
        let mut frames = Vec::with_capacity(table.frames.len());
        for (number, (offset, frame)) in table.offsets().zip(&table.frames).enumerate() {
            let mut at = 0;
            let is_whole = passes(number as u32);
            self.rows.reserve(frame.chunks.len());
            for chunk in &frame.chunks {
                if is_whole {
                    self.rows.push(IndexRow { id: chunk.id, pack, frame: number as u32, offset: at, len: chunk.len });
                }
                at += chunk.len;
            }
            frames.push(IndexedFrame {
                offset,
                stored_len: frame.stored_len,
                raw_len: at,
                compressed: frame.compressed,
            });
        }
        self.packs.push(IndexedPack { id: table.id, salt: table.salt, frames, is_damaged });
        self.sorted = false;
    }

    /// Makes all added chunks available to lookups. A chunk in several packs is found in the one added last, because
    /// lost chunks are stored again in a pack that a later index object lists.
    pub fn sort(&mut self) {
        let place =
            |row: &IndexRow| (self.packs[row.pack as usize].is_damaged, Reverse(row.pack), row.frame, row.offset);
        self.rows.sort_unstable_by(|a, b| a.id.cmp(&b.id).then_with(|| place(a).cmp(&place(b))));
        self.rows.dedup_by_key(|row| row.id);
        self.packs.shrink_to_fit();
        self.sorted = true;
    }

    fn row(&self, id: &ChunkId) -> Option<&IndexRow> {
        debug_assert!(self.sorted || self.rows.is_empty(), "sort after the last add");
        self.rows.binary_search_by(|row| row.id.cmp(id)).ok().map(|at| &self.rows[at])
    }

    /// Whether the index has the chunk.
    pub fn contains(&self, id: &ChunkId) -> bool {
        self.row(id).is_some()
    }

    /// Whether a sound pack has the chunk.
    pub fn is_in_sound_pack(&self, id: &ChunkId) -> bool {
        self.row(id).is_some_and(|row| !self.packs[row.pack as usize].is_damaged)
    }

    /// The location of the chunk, and the pack that contains it.
    pub fn find(&self, id: &ChunkId) -> Option<(IndexedChunk, &IndexedPack)> {
        self.row(id).map(|row| {
            let pack = &self.packs[row.pack as usize];
            (IndexedChunk { pack: pack.id, frame: row.frame, offset: row.offset, len: row.len }, pack)
        })
    }

    /// The position of the chunk among all chunks of the index, in the order of their IDs.
    pub fn position(&self, id: &ChunkId) -> Option<usize> {
        self.rows.binary_search_by(|row| row.id.cmp(id)).ok()
    }

    /// The packs, in the order in which they were added.
    pub fn packs(&self) -> &[IndexedPack] {
        &self.packs
    }

    /// The packs in which at least one chunk is looked up. The chunks of the other packs are all found elsewhere.
    pub fn packs_in_use(&self) -> HashSet<PackId> {
        self.rows.iter().map(|row| self.packs[row.pack as usize].id).collect()
    }

    /// Number of chunks in the index.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether the index has no chunks.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::repo::codec::tests::assert_strict;
    use crate::repo::crypto::tests::{keys, rotated};
    use crate::repo::crypto::{Cipher, TAG_LEN};
    use crate::repo::pack::tests::tables;
    use crate::repo::pack::{ChunkEntry, FrameEntry};

    fn table(pack: u8, chunks: &[(u8, u32)]) -> PackTable {
        let chunk = |&(id, len): &(u8, u32)| ChunkEntry { id: ChunkId([id; 32]), len };
        let frames = chunks
            .chunks(2)
            .map(|c| FrameEntry { stored_len: 100, compressed: true, chunks: c.iter().map(chunk).collect() })
            .collect();
        PackTable { id: PackId([pack; 16]), salt: [pack; 32].into(), frames }
    }

    #[test]
    fn an_index_object_reads_back_and_shows_every_damage() {
        for cipher in [Cipher::Aes256GcmSiv, Cipher::None] {
            let keys = keys(cipher);
            let packs = [table(1, &[(1, 10), (2, 20), (3, 30)]), table(2, &[])];
            let id = IndexId([4; 16]);
            let object = encode_index(&keys, id, [8; 32], &packs);
            assert_eq!(decode_index(&keys, id, &object).unwrap(), packs);
            assert!(decode_index(&keys, IndexId([5; 16]), &object).is_err(), "under another name");
            for at in 0..object.len() {
                let mut flipped = object.to_vec();
                flipped[at] ^= 0x10;
                assert!(decode_index(&keys, id, &flipped).is_err());
                assert!(decode_index(&keys, id, &object[..at]).is_err());
            }
        }
    }

    #[test]
    fn an_index_of_a_later_generation_lists_packs_of_all_before_it() {
        let old = keys(Cipher::Aes256GcmSiv);
        let (_, new) = rotated(&old);
        let (id, mut packs) = (IndexId([4; 16]), [table(1, &[(1, 10), (2, 20)]), table(2, &[(3, 30)])]);
        packs[1].salt = new.salt([2; 32]);
        let object = encode_index(&new, id, [8; 32], &packs);
        assert_eq!(decode_index(&new, id, &object), Ok(packs.to_vec()));
        assert!(decode_index(&old, id, &object).is_err(), "the old key");
        assert_eq!(object[4..8], [2, 1, 1, 0], "to older versions it is a newer one");
        let first = encode_index(&old, id, [8; 32], &packs[..1]);
        assert_eq!(decode_index(&new, id, &first), Ok(packs[..1].to_vec()));
        packs[0].salt.generation = KeyGeneration(2);
        let object = encode_index(&new, id, [8; 32], &packs);
        assert!(decode_index(&new, id, &object).is_err(), "a generation that is not there yet");
    }

    #[test]
    fn chunks_are_found_where_they_are() {
        let mut index = ChunkIndex::default();
        index.add(&table(1, &[(3, 30), (1, 10), (2, 20)]));
        index.add(&table(2, &[(2, 20), (9, 5)]));
        index.sort();
        let place = |pack: u8, frame, offset, len| Some(IndexedChunk { pack: PackId([pack; 16]), frame, offset, len });
        let find = |id: u8| index.find(&ChunkId([id; 32])).map(|(place, _)| place);
        assert_eq!(find(1), place(1, 0, 30, 10));
        assert_eq!(find(2), place(2, 0, 0, 20), "the last pack that has it");
        assert_eq!(find(3), place(1, 0, 0, 30));
        assert_eq!(find(9), place(2, 0, 20, 5));
        assert_eq!(find(7), None);
        let (place, pack) = index.find(&ChunkId([3; 32])).unwrap();
        let frame = pack.frames[place.frame as usize];
        assert_eq!((frame.offset, frame.raw_len), (40, 40));
        assert_eq!(index.len(), 4);
        assert_eq!(index.packs_in_use(), HashSet::from([PackId([1; 16]), PackId([2; 16])]));
    }

    #[test]
    fn of_a_damaged_pack_only_that_is_found_that_no_other_has() {
        let mut index = ChunkIndex::default();
        index.add(&table(1, &[(3, 30), (1, 10), (2, 20)]));
        index.add_damaged(&table(2, &[(7, 10), (3, 30), (2, 20), (9, 5)]), |frame| frame == 1);
        index.sort();
        let find =
            |id: u8| index.find(&ChunkId([id; 32])).map(|(place, _)| (place.pack.0[0], place.frame, place.offset));
        assert_eq!([2, 3, 7, 9].map(find), [Some((1, 1, 0)), Some((1, 0, 0)), None, Some((2, 1, 20))]);
        assert_eq!([2, 7, 9].map(|id| index.is_in_sound_pack(&ChunkId([id; 32]))), [true, false, false]);
        index.add(&table(3, &[(1, 10), (2, 20), (3, 30), (9, 5)]));
        index.sort();
        assert_eq!(index.packs_in_use(), HashSet::from([PackId([3; 16])]), "of the others nothing is needed");
    }

    /// The plain content of an index object.
    fn plain(packs: &[PackTable]) -> Vec<u8> {
        let object = encode_index(&keys(Cipher::None), IndexId([4; 16]), [8; 32], packs);
        object[header::LEN..object.len() - TAG_LEN].to_vec()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        #[test]
        fn an_index_has_one_encoding_and_no_lie_passes(packs in prop::collection::vec(tables(), 0..3)) {
            let bytes = plain(&packs);
            prop_assert_eq!(&decode_tables(&bytes, KeyGeneration::FIRST), &Ok(packs));
            assert_strict(&bytes, |bytes| decode_tables(bytes, KeyGeneration::FIRST).map(|packs| plain(&packs)));
        }

        /// With any packs, added in any order, each chunk is found in a pack that lists it.
        #[test]
        fn every_chunk_is_found_where_some_pack_has_it(mut packs in prop::collection::vec(tables(), 0..6), again: u8) {
            // Chunks that several packs have, at different offsets.
            let shared: Vec<ChunkEntry> = packs.iter().flat_map(|p| &p.frames).flat_map(|f| &f.chunks).step_by(3).copied().collect();
            let frame = FrameEntry { stored_len: 9, compressed: false, chunks: shared.iter().take(4).copied().collect() };
            packs.push(PackTable { id: PackId([again; 16]), salt: [0; 32].into(), frames: vec![frame] });
            let mut index = ChunkIndex::default();
            for pack in &packs {
                index.add(pack);
            }
            index.sort();
            let mut places = std::collections::BTreeMap::<ChunkId, Vec<_>>::new();
            for pack in &packs {
                let mut start = 40;
                for (number, frame) in (0..).zip(&pack.frames) {
                    let mut offset = 0;
                    for chunk in &frame.chunks {
                        let place = IndexedChunk { pack: pack.id, frame: number, offset, len: chunk.len };
                        places.entry(chunk.id).or_default().push((place, start));
                        offset += chunk.len;
                    }
                    start += u64::from(frame.stored_len);
                }
            }
            prop_assert_eq!(index.len(), places.len());
            for (number, (id, places)) in places.iter().enumerate() {
                let (place, pack) = index.find(id).unwrap();
                let last = places.iter().filter(|(place, _)| place.pack == places[places.len() - 1].0.pack);
                let expected = last.clone().next();
                prop_assert_eq!(Some(&(place, pack.frames[place.frame as usize].offset)), expected, "the last that was added");
                prop_assert_eq!(index.position(id), Some(number));
                prop_assert!(index.contains(id));
            }
            prop_assert!(!index.contains(&ChunkId([0x5a; 32])));
        }
    }
}
