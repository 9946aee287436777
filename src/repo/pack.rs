//! Packs: the unit of upload. A header with the salt, sealed frames one after another, a sealed trailer that lists
//! them.
//!
//! ```text
//! "RUNP" version:u8 cipher:u8 generation:u16 salt:32   40 bytes
//! frame 0 … frame n-1                              sealed, back to back
//! trailer                                          sealed table of frames and chunks
//! trailer_len:u32le "RUNE"                         8 bytes
//! ```
//!
//! A frame is one chunk, or several small ones that were neighbours in path order, compressed together. The trailer
//! makes a pack that no index lists (left by an interrupted run) usable without reading its content.
//!
//! Pure.

use bytes::Bytes;

use crate::ids::{ChunkId, PackId};
use crate::repo::codec::{ByteReader, DecodeError, decode_error, put_varint};
use crate::repo::crypto::{Cipher, DerivedKeys, ObjectSealer, SALT_LEN, Salt, SealedPart, TAG_LEN};
use crate::repo::header::{self, HeaderError};

/// A pack is closed at this size, its table included. Larger packs mean fewer uploads, but a pack is held in memory
/// while it grows.
pub const PACK_TARGET_BYTES: usize = 16 << 20;

/// A frame is closed when its plain content has reached this size.
pub const FRAME_TARGET_BYTES: usize = 2 << 20;

/// The largest plain content of a frame that a reader accepts; writers stay far below.
pub const FRAME_BYTES_MAX: u32 = 1 << 30;

/// The longest sealed trailer that a reader accepts. The pack's last bytes state the length, and they are not
/// authenticated.
pub const TRAILER_BYTES_MAX: usize = 64 << 20;

/// Header length in bytes.
pub const HEADER_LEN: usize = header::LEN;

/// Footer length in bytes.
pub const FOOTER_LEN: usize = 8;

/// The size of a small chunk in a pack's table: its ID, and a length of two bytes.
const CHUNK_IN_TABLE: usize = ChunkId::LEN + 2;

const MAGIC_HEAD: &[u8; 4] = b"RUNP";
const MAGIC_FOOT: &[u8; 4] = b"RUNE";
const FLAG_ZSTD: u8 = 1;

/// The zstd level of frames: level 3 gives most of the gain at a third of the time of level 6.
pub const ZSTD_LEVEL: i32 = 3;

/// One chunk of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkEntry {
    /// The chunk's ID.
    pub id: ChunkId,
    /// The length of the plain content in bytes.
    pub len: u32,
}

/// One frame of a pack, as trailer and index list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameEntry {
    /// Length in the pack in bytes, tag included.
    pub stored_len: u32,
    /// Whether the sealed content is zstd-compressed.
    pub compressed: bool,
    /// The chunks, in their order in the plain content.
    pub chunks: Vec<ChunkEntry>,
}

impl FrameEntry {
    /// Length of the plain content.
    pub fn raw_len(&self) -> u64 {
        self.chunks.iter().map(|c| u64::from(c.len)).sum()
    }
}

/// The table of a pack: its frames and chunks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackTable {
    /// The pack's ID.
    pub id: PackId,
    /// The salt of the pack's key; the pack's header has it too.
    pub salt: Salt,
    /// The frames in order.
    pub frames: Vec<FrameEntry>,
}

impl PackTable {
    /// The offsets of the frames in the pack.
    pub fn offsets(&self) -> impl Iterator<Item = u64> {
        self.frames.iter().scan(HEADER_LEN as u64, |at, frame| {
            let start = *at;
            *at += u64::from(frame.stored_len);
            Some(start)
        })
    }

    /// Number of chunks in the pack.
    pub fn chunks(&self) -> usize {
        self.frames.iter().map(|frame| frame.chunks.len()).sum()
    }

    /// Length of the whole object in bytes.
    pub fn object_len(&self) -> u64 {
        let mut table = Vec::new();
        self.encode(&mut table);
        let frames: u64 = self.frames.iter().map(|f| u64::from(f.stored_len)).sum();
        frames + (HEADER_LEN + table.len() + TAG_LEN + FOOTER_LEN) as u64
    }

    /// Appends the table without ID and salt: frames, then the chunk lengths, then the chunk IDs.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.frames.len() as u64);
        for frame in &self.frames {
            put_varint(out, u64::from(frame.stored_len));
            out.push(if frame.compressed { FLAG_ZSTD } else { 0 });
            put_varint(out, frame.chunks.len() as u64);
        }
        let chunks = || self.frames.iter().flat_map(|f| &f.chunks);
        for chunk in chunks() {
            put_varint(out, u64::from(chunk.len));
        }
        for chunk in chunks() {
            out.extend_from_slice(&chunk.id.0);
        }
    }

    pub(crate) fn decode(id: PackId, salt: Salt, reader: &mut ByteReader<'_>) -> Result<Self, DecodeError> {
        let count = reader.count(3)?;
        let mut frames = Vec::with_capacity(count);
        let mut total = 0usize;
        for _ in 0..count {
            let stored_len = reader.u32()?;
            let compressed = match reader.u8()? {
                0 => false,
                FLAG_ZSTD => true,
                _ => return decode_error("an unknown frame flag"),
            };
            let chunks = reader.count(1 + ChunkId::LEN)?;
            total += chunks;
            if total > reader.remaining() / (1 + ChunkId::LEN) {
                return decode_error("a count beyond the end");
            }
            let chunks = vec![ChunkEntry { id: ChunkId([0; ChunkId::LEN]), len: 0 }; chunks];
            frames.push(FrameEntry { stored_len, compressed, chunks });
        }
        for frame in &mut frames {
            for chunk in &mut frame.chunks {
                chunk.len = reader.u32()?;
            }
            if frame.raw_len() > u64::from(FRAME_BYTES_MAX) {
                return decode_error("a frame over the limit");
            }
        }
        for chunk in frames.iter_mut().flat_map(|f| &mut f.chunks) {
            chunk.id = ChunkId(reader.array()?);
        }
        Ok(Self { id, salt, frames })
    }
}

/// A frame ready to be sealed, compressed if that made it smaller.
#[derive(Debug)]
pub struct PackedFrame {
    data: Vec<u8>,
    compressed: bool,
    chunks: Vec<ChunkEntry>,
}

/// Compresses frames; reuses zstd's working memory.
pub struct FrameCompressor {
    zstd: zstd::bulk::Compressor<'static>,
    /// A buffer for the worst case. It is never handed out, because many frames may be in flight.
    room: Vec<u8>,
}

impl std::fmt::Debug for FrameCompressor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Compressor")
    }
}

impl Default for FrameCompressor {
    fn default() -> Self {
        Self { zstd: zstd::bulk::Compressor::new(ZSTD_LEVEL).expect("zstd allocates its context"), room: Vec::new() }
    }
}

impl FrameCompressor {
    /// Compresses `content`, the concatenated chunks. Content that does not shrink is kept uncompressed.
    pub fn pack(&mut self, content: &[u8], chunks: Vec<ChunkEntry>) -> PackedFrame {
        self.pack_into(Vec::new(), content, chunks)
    }

    /// Like [`FrameCompressor::pack`], reusing the memory of a frame that [`PackBuilder::push`] returned.
    pub fn pack_into(&mut self, mut data: Vec<u8>, content: &[u8], chunks: Vec<ChunkEntry>) -> PackedFrame {
        debug_assert_eq!(content.len() as u64, chunks.iter().map(|c| u64::from(c.len)).sum::<u64>());
        self.room.clear();
        self.room.reserve(zstd::zstd_safe::compress_bound(content.len()));
        let compressed = self.zstd.compress_to_buffer(content, &mut self.room).is_ok_and(|len| len < content.len());
        data.clear();
        data.extend_from_slice(if compressed { &self.room } else { content });
        PackedFrame { data, compressed, chunks }
    }
}

/// Builds one pack in memory.
#[derive(Debug)]
pub struct PackBuilder {
    key: ObjectSealer,
    data: Vec<u8>,
    table: PackTable,
    /// The size of the table so far. Many small chunks take more space in it than in the frames.
    table_len: usize,
}

impl PackBuilder {
    /// An empty pack. ID and salt must be new random values.
    pub fn new(keys: &DerivedKeys, id: PackId, salt: [u8; SALT_LEN]) -> Self {
        Self::with_buffer(Vec::with_capacity(PACK_TARGET_BYTES + FRAME_TARGET_BYTES), keys, id, salt)
    }

    /// Like [`PackBuilder::new`], reusing the memory of another pack that is no longer needed.
    pub fn with_buffer(mut data: Vec<u8>, keys: &DerivedKeys, id: PackId, salt: [u8; SALT_LEN]) -> Self {
        data.clear();
        let salt = keys.salt(salt);
        header::put(&mut data, *MAGIC_HEAD, keys.cipher(), salt);
        Self {
            key: keys.object_sealer(id.0, salt),
            data,
            table: PackTable { id, salt, frames: Vec::new() },
            table_len: 0,
        }
    }

    /// Seals and appends one frame, and returns its memory for reuse.
    pub fn push(&mut self, mut frame: PackedFrame) -> Vec<u8> {
        // The frame's table stays in memory until the index object is full.
        frame.chunks.shrink_to_fit();
        let from = self.data.len();
        self.data.extend_from_slice(&frame.data);
        self.key.seal(SealedPart::Frame(self.table.frames.len() as u32), &mut self.data, from);
        let stored_len = (self.data.len() - from) as u32;
        self.table_len += frame.chunks.len() * CHUNK_IN_TABLE;
        self.table.frames.push(FrameEntry { stored_len, compressed: frame.compressed, chunks: frame.chunks });
        frame.data
    }

    /// Whether the pack has reached its target size.
    pub fn is_full(&self) -> bool {
        self.data.len() + self.table_len >= PACK_TARGET_BYTES
    }

    /// Whether the pack has no frame.
    pub fn is_empty(&self) -> bool {
        self.table.frames.is_empty()
    }

    /// Returns the whole object and its table.
    pub fn finish(mut self) -> (Bytes, PackTable) {
        let from = self.data.len();
        self.table.encode(&mut self.data);
        self.key.seal(SealedPart::Trailer, &mut self.data, from);
        let trailer_len = (self.data.len() - from) as u32;
        self.data.extend_from_slice(&trailer_len.to_le_bytes());
        self.data.extend_from_slice(MAGIC_FOOT);
        (Bytes::from(self.data), self.table)
    }
}

/// Why a pack, or a part of it, cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// The header or the footer is wrong.
    #[error("is no pack of this repository ({0})")]
    Shape(&'static str),
    /// A sealed frame does not open.
    #[error("frame {frame} {source}")]
    Frame {
        /// The number of the frame.
        frame: u32,
        /// The error of the seal.
        source: crate::repo::crypto::UnsealError,
    },
    /// The sealed content opens, but does not decompress to the stated length.
    #[error("frame {frame} does not decompress to its stated length")]
    Content {
        /// The number of the frame.
        frame: u32,
    },
    /// The trailer does not open or parse.
    #[error("its trailer is damaged ({0})")]
    Trailer(String),
}

/// The salt from a pack's header.
pub fn open_header(keys: &DerivedKeys, header: &[u8]) -> Result<Salt, PackError> {
    header::take(header, *MAGIC_HEAD, keys).map(|(salt, _)| salt).map_err(|error| {
        PackError::Shape(match error {
            HeaderError::Short => "it is shorter than a header",
            HeaderError::Magic => "it does not start like one",
            HeaderError::Version => "another format version or cipher",
            HeaderError::Generation => "a later generation of the repository key sealed it",
        })
    })
}

/// The length of the trailer, from the last [`FOOTER_LEN`] bytes of a pack.
pub fn trailer_len(footer: &[u8]) -> Result<usize, PackError> {
    match footer.split_at_checked(4) {
        Some((len, magic)) if magic == MAGIC_FOOT => {
            let len = u32::from_le_bytes(len.try_into().expect("split at four")) as usize;
            if len <= TRAILER_BYTES_MAX { Ok(len) } else { Err(PackError::Shape("its trailer is over the limit")) }
        }
        _ => Err(PackError::Shape("it does not end like one")),
    }
}

/// The table in a sealed trailer.
pub fn open_trailer(keys: &DerivedKeys, id: PackId, salt: Salt, sealed: &[u8]) -> Result<PackTable, PackError> {
    let plain = keys
        .object_sealer(id.0, salt)
        .open(SealedPart::Trailer, sealed)
        .map_err(|e| PackError::Trailer(e.to_string()))?;
    decode_trailer(id, salt, &plain).map_err(|e| PackError::Trailer(e.to_string()))
}

/// The table in the plain content of a trailer. For fuzzing, which cannot produce a valid seal.
pub fn decode_trailer(id: PackId, salt: impl Into<Salt>, plain: &[u8]) -> Result<PackTable, DecodeError> {
    let mut reader = ByteReader::new(plain);
    let table = PackTable::decode(id, salt.into(), &mut reader)?;
    reader.finish()?;
    Ok(table)
}

/// The plain content of a frame from its sealed bytes.
pub fn open_frame(
    key: &ObjectSealer,
    frame: u32,
    sealed: &[u8],
    compressed: bool,
    raw_len: usize,
) -> Result<Vec<u8>, PackError> {
    let plain = key.open(SealedPart::Frame(frame), sealed).map_err(|source| PackError::Frame { frame, source })?;
    let content = if compressed {
        zstd::bulk::decompress(&plain, raw_len).map_err(|_| PackError::Content { frame })?
    } else {
        plain
    };
    if content.len() == raw_len { Ok(content) } else { Err(PackError::Content { frame }) }
}

impl std::fmt::Display for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Cipher::Aes256GcmSiv => "AES-256-GCM-SIV",
            Cipher::None => "none",
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::repo::codec::tests::assert_strict;
    use crate::repo::crypto::tests::keys;

    /// Random tables whose frames a reader accepts.
    pub(crate) fn tables() -> impl Strategy<Value = PackTable> {
        let chunk = (any::<[u8; 32]>(), prop_oneof![0..5000u32, 0..=FRAME_BYTES_MAX / 4]);
        let chunk = chunk.prop_map(|(id, len)| ChunkEntry { id: ChunkId(id), len });
        let frame = (any::<u32>(), any::<bool>(), prop::collection::vec(chunk, 0..=4));
        let frame = frame.prop_map(|(stored_len, compressed, chunks)| FrameEntry { stored_len, compressed, chunks });
        let parts = (any::<[u8; 16]>(), any::<[u8; 32]>(), prop::collection::vec(frame, 0..5));
        parts.prop_map(|(id, salt, frames)| PackTable { id: PackId(id), salt: salt.into(), frames })
    }

    /// Reads everything in a pack, knowing only its ID.
    fn read(keys: &DerivedKeys, id: PackId, bytes: &[u8]) -> Result<(PackTable, Vec<Vec<u8>>), PackError> {
        let salt = open_header(keys, bytes)?;
        let key = keys.object_sealer(id.0, salt);
        let end = bytes.len().checked_sub(FOOTER_LEN).ok_or(PackError::Shape("short"))?;
        let start = end.checked_sub(trailer_len(&bytes[end..])?).ok_or(PackError::Shape("short"))?;
        let table = open_trailer(keys, id, salt, &bytes[start..end])?;
        let open = |(number, (offset, frame)): (usize, (u64, &FrameEntry))| {
            let sealed = &bytes[offset as usize..][..frame.stored_len as usize];
            open_frame(&key, number as u32, sealed, frame.compressed, frame.raw_len() as usize)
        };
        let frames = table.offsets().zip(&table.frames).enumerate().map(open).collect::<Result<_, _>>()?;
        Ok((table, frames))
    }

    fn sample(cipher: Cipher) -> (DerivedKeys, Bytes, PackTable) {
        let keys = keys(cipher);
        let mut pack = PackBuilder::new(&keys, PackId([5; 16]), [6; 32]);
        let mut compressor = FrameCompressor::default();
        let text = b"the same words ".repeat(50);
        let noise: Vec<u8> = (0..64u8).map(|i| i.wrapping_mul(197)).collect();
        let mut both = text.clone();
        both.extend_from_slice(&noise);
        let chunk = |b: &[u8]| ChunkEntry { id: keys.chunk_id(b), len: b.len() as u32 };
        pack.push(compressor.pack(&both, vec![chunk(&text), chunk(&noise)]));
        pack.push(compressor.pack(&noise, vec![chunk(&noise)]));
        let (bytes, table) = pack.finish();
        (keys, bytes, table)
    }

    #[test]
    fn a_pack_of_tiny_chunks_is_full_with_its_table() {
        let keys = keys(Cipher::None);
        let mut pack = PackBuilder::new(&keys, PackId([5; 16]), [6; 32]);
        let content = b"a file of 250 bytes".repeat(14)[..250].repeat(8000);
        while !pack.is_full() {
            let chunks = (0..8000u32).map(|n| ChunkEntry { id: keys.chunk_id(&n.to_be_bytes()), len: 250 }).collect();
            pack.push(FrameCompressor::default().pack(&content, chunks));
        }
        let len = pack.finish().0.len();
        assert!((PACK_TARGET_BYTES..PACK_TARGET_BYTES + FRAME_TARGET_BYTES).contains(&len), "{len}");
    }

    #[test]
    fn a_pack_reads_back_from_its_trailer_alone() {
        for cipher in [Cipher::Aes256GcmSiv, Cipher::None] {
            let (keys, bytes, table) = sample(cipher);
            let salt = open_header(&keys, &bytes).unwrap();
            let key = keys.object_sealer(table.id.0, salt);
            let end = bytes.len() - FOOTER_LEN;
            let len = trailer_len(&bytes[end..]).unwrap();
            assert_eq!(open_trailer(&keys, table.id, salt, &bytes[end - len..end]).unwrap(), table);
            assert_eq!(table.object_len(), bytes.len() as u64);
            assert!(table.frames[0].compressed && !table.frames[1].compressed, "noise is kept as it is");
            for (n, (offset, frame)) in table.offsets().zip(&table.frames).enumerate() {
                let sealed = &bytes[offset as usize..][..frame.stored_len as usize];
                let content = open_frame(&key, n as u32, sealed, frame.compressed, frame.raw_len() as usize).unwrap();
                let mut at = 0;
                for chunk in &frame.chunks {
                    assert_eq!(keys.chunk_id(&content[at..at + chunk.len as usize]), chunk.id);
                    at += chunk.len as usize;
                }
            }
        }
    }

    #[test]
    fn every_flipped_bit_and_every_cut_is_seen() {
        for cipher in [Cipher::Aes256GcmSiv, Cipher::None] {
            let (keys, bytes, table) = sample(cipher);
            let read = |bytes: &[u8]| read(&keys, table.id, bytes);
            assert_eq!(read(&bytes).unwrap().0, table);
            for at in 0..bytes.len() {
                let mut flipped = bytes.to_vec();
                flipped[at] ^= 1 << (at % 8);
                assert!(read(&flipped).is_err(), "byte {at}");
                assert!(read(&bytes[..at]).is_err(), "cut at {at}");
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_trailer_has_one_encoding_and_no_lie_passes(table in tables()) {
            let mut plain = Vec::new();
            table.encode(&mut plain);
            prop_assert_eq!(&decode_trailer(table.id, table.salt, &plain), &Ok(table.clone()));
            assert_strict(&plain, |bytes| {
                let table = decode_trailer(table.id, table.salt, bytes)?;
                assert!(table.frames.iter().all(|frame| frame.raw_len() <= u64::from(FRAME_BYTES_MAX)));
                let mut again = Vec::new();
                table.encode(&mut again);
                Ok(again)
            });
        }

        #[test]
        fn a_frame_is_read_up_to_its_limit(lens in prop::collection::vec(prop_oneof![0..=FRAME_BYTES_MAX / 2, any::<u32>()], 1..5)) {
            let chunks = lens.iter().map(|&len| ChunkEntry { id: ChunkId([1; 32]), len }).collect();
            let frame = FrameEntry { stored_len: 1, compressed: true, chunks };
            let mut plain = Vec::new();
            PackTable { id: PackId([1; 16]), salt: [2; 32].into(), frames: vec![frame.clone()] }.encode(&mut plain);
            let is_read = decode_trailer(PackId([1; 16]), [2; 32], &plain).is_ok();
            prop_assert_eq!(is_read, frame.raw_len() <= u64::from(FRAME_BYTES_MAX));
        }

        /// Frames of random chunks, some compressible and some not; then any one byte changed, or the pack truncated.
        #[test]
        fn whatever_is_packed_is_read_back(
            frames in prop::collection::vec(prop::collection::vec((0..400usize, any::<bool>(), any::<u8>()), 1..5), 0..5),
            cipher in prop::sample::select(vec![Cipher::Aes256GcmSiv, Cipher::None]),
            salt: [u8; 32], id: [u8; 16], at: prop::sample::Index, bit in 0..8u8,
        ) {
            let (keys, id) = (keys(cipher), PackId(id));
            let mut pack = PackBuilder::new(&keys, id, salt);
            let mut contents = Vec::new();
            for chunks in &frames {
                let mut content = Vec::new();
                let mut entries = Vec::new();
                for &(len, noisy, seed) in chunks {
                    let chunk: Vec<u8> = if noisy {
                        let mut bytes = vec![0; len];
                        blake3::Hasher::new().update(&[seed]).finalize_xof().fill(&mut bytes);
                        bytes
                    } else {
                        vec![seed; len]
                    };
                    entries.push(ChunkEntry { id: keys.chunk_id(&chunk), len: len as u32 });
                    content.extend_from_slice(&chunk);
                }
                pack.push(FrameCompressor::default().pack(&content, entries));
                contents.push(content);
            }
            let (bytes, table) = pack.finish();
            prop_assert_eq!(table.object_len(), bytes.len() as u64);
            prop_assert_eq!(read(&keys, id, &bytes), Ok((table, contents)));
            let at = at.index(bytes.len());
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 1 << bit;
            prop_assert!(read(&keys, id, &flipped).is_err());
            prop_assert!(read(&keys, id, &bytes[..at]).is_err());
        }
    }
}
