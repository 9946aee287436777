//! The tree cache: what this node saw of its own files when it made a snapshot, so that the next run reads only changed
//! files.
//!
//! One file: a header, then compressed blocks of entries with the data that only this node has (inode and ctime), each
//! with a checksum, then an end mark. The cache is bound to the digest of the snapshot's record. It is dropped if that
//! record is not in the journal, or if any part of it is damaged.

use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::file;
use crate::ids::{ChunkId, Digest, RepoId, Seq};
use crate::job::error::CacheError;
use crate::repo::codec::{ByteReader, decode_error, put_varint};
use crate::repo::entry::{ManifestEntry, UnixNanos};
use crate::repo::{DecodeError, segment};
use crate::tree::compare::CachedStat;

/// Entries of one block.
const BLOCK_ENTRIES: usize = 1024;

/// The largest block that a reader accepts, in bytes: the number of a file's chunks is limited too.
const BLOCK_BYTES_MAX: u32 = 1 << 28;

const MAGIC: &[u8; 8] = b"RUNTREE1";
const CHECKSUM_LEN: usize = 16;

/// zstd's fastest level: the file is read back from the page cache within seconds of CPU time.
const LEVEL: i32 = 1;

/// The snapshot to which a cache belongs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheSnapshot {
    /// ID of the repository.
    pub repo: RepoId,
    /// The number of the snapshot's record.
    pub seq: Seq,
    /// The record's digest: the snapshot.
    pub snapshot: Digest,
}

/// An entry with this node's data about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedEntry {
    /// The entry of the manifest.
    pub entry: Arc<ManifestEntry>,
    /// Inode and ctime on this node; `None` for entries that do not come from the tree.
    pub local: Option<CachedStat>,
}

/// Writes a cache under a temporary name; [`CacheWriter::finish`] replaces the old one.
pub struct CacheWriter {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    entries: Vec<Arc<ManifestEntry>>,
    held: usize,
    locals: Vec<Option<CachedStat>>,
    /// The plain content of the block being built.
    plain: Vec<u8>,
    zstd: zstd::bulk::Compressor<'static>,
}

impl std::fmt::Debug for CacheWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheWriter").field("path", &self.path).finish_non_exhaustive()
    }
}

impl CacheWriter {
    /// Starts a cache that [`CacheWriter::finish`] puts at `path`.
    pub fn create(path: &Path) -> io::Result<Self> {
        let temporary = path.with_extension("new");
        // A process left over from an earlier run may still write to its own temporary file.
        match std::fs::remove_file(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        let mut file = BufWriter::with_capacity(1 << 18, file);
        // The header is written at the end: before the commit the snapshot has no digest.
        file.write_all(&[0; HEADER_LEN])?;
        Ok(Self {
            path: path.to_owned(),
            temporary,
            file,
            entries: Vec::new(),
            held: 0,
            locals: Vec::new(),
            plain: Vec::new(),
            zstd: zstd::bulk::Compressor::new(LEVEL)?,
        })
    }

    /// Adds the next entry in path order.
    pub fn push(&mut self, entry: Arc<ManifestEntry>, local: Option<CachedStat>) -> io::Result<()> {
        self.held += segment::decoded_weight(&entry);
        self.entries.push(entry);
        self.locals.push(local);
        if self.entries.len() == BLOCK_ENTRIES || self.held >= segment::HELD_MAX { self.end_block() } else { Ok(()) }
    }

    fn end_block(&mut self) -> io::Result<()> {
        let plain = &mut self.plain;
        plain.clear();
        segment::encode(&self.entries, plain);
        for local in &self.locals {
            let Some(local) = local else {
                plain.push(0);
                continue;
            };
            plain.push(1);
            put_varint(plain, local.ino);
            plain.extend_from_slice(&local.ctime.0.to_le_bytes());
        }
        let packed = self.zstd.compress(plain)?;
        self.file.write_all(&(packed.len() as u32).to_le_bytes())?;
        self.file.write_all(&(plain.len() as u32).to_le_bytes())?;
        self.file.write_all(&checksum(&packed))?;
        self.file.write_all(&packed)?;
        self.entries.clear();
        self.held = 0;
        self.locals.clear();
        Ok(())
    }

    /// Completes the cache, binds it to a snapshot and replaces the old one. `nodes` are the chunks of the snapshot's
    /// manifest itself.
    pub fn finish(mut self, bound: CacheSnapshot, nodes: &[ChunkId]) -> io::Result<()> {
        if !self.entries.is_empty() {
            self.end_block()?;
        }
        self.file.write_all(&[0; 8 + CHECKSUM_LEN])?;
        let nodes_at = self.file.stream_position()?;
        let nodes: Vec<u8> = nodes.iter().flat_map(|id| id.0).collect();
        self.file.write_all(&nodes)?;
        self.file.write_all(&checksum(&nodes))?;
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.write_all_at(&header(bound, nodes_at), 0)?;
        file.sync_data()?;
        std::fs::rename(&self.temporary, &self.path)
    }
}

const HEADER_LEN: usize = 8 + 16 + 8 + 32 + 8 + CHECKSUM_LEN;

fn header(bound: CacheSnapshot, nodes_at: u64) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&bound.repo.0);
    out.extend_from_slice(&bound.seq.0.to_le_bytes());
    out.extend_from_slice(&bound.snapshot.0);
    out.extend_from_slice(&nodes_at.to_le_bytes());
    let sum = checksum(&out);
    out.extend_from_slice(&sum);
    out
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_LEN] {
    blake3::hash(bytes).as_bytes()[..CHECKSUM_LEN].try_into().expect("a hash is longer than a checksum")
}

/// Reads a cache block by block.
pub struct CacheReader {
    file: BufReader<File>,
    bound: CacheSnapshot,
    nodes_at: u64,
    done: bool,
    zstd: zstd::bulk::Decompressor<'static>,
}

impl std::fmt::Debug for CacheReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CacheReader").field("bound", &self.bound).finish_non_exhaustive()
    }
}

impl CacheReader {
    /// Opens the cache at `path`; `None` if there is none, or none that this version can read.
    pub fn open(path: &Path) -> Option<Self> {
        let mut file = BufReader::with_capacity(1 << 18, file::open_own(path).ok()?);
        let mut head = [0; HEADER_LEN];
        file.read_exact(&mut head).ok()?;
        let mut reader = ByteReader::new(&head[8..]);
        let bound = CacheSnapshot {
            repo: RepoId(reader.array().ok()?),
            seq: Seq(u64::from_le_bytes(reader.array().ok()?)),
            snapshot: Digest(reader.array().ok()?),
        };
        let nodes_at = u64::from_le_bytes(reader.array().ok()?);
        let zstd = zstd::bulk::Decompressor::new().ok()?;
        (header(bound, nodes_at) == head).then_some(Self { file, bound, nodes_at, done: false, zstd })
    }

    /// The snapshot to which the cache belongs.
    pub fn bound(&self) -> CacheSnapshot {
        self.bound
    }

    /// The chunks of the snapshot's manifest itself; `None` if they cannot be read.
    pub fn nodes(&self) -> Option<Vec<ChunkId>> {
        let file = self.file.get_ref();
        let len = file.metadata().ok()?.len().checked_sub(self.nodes_at)?;
        let mut bytes = vec![0; usize::try_from(len).ok()?];
        file.read_exact_at(&mut bytes, self.nodes_at).ok()?;
        let (nodes, sum) = bytes.split_at_checked(bytes.len().checked_sub(CHECKSUM_LEN)?)?;
        let sound = checksum(nodes) == sum && nodes.len().is_multiple_of(ChunkId::LEN);
        sound.then(|| nodes.chunks_exact(ChunkId::LEN).filter_map(ChunkId::from_slice).collect())
    }

    /// The next block; `None` at the end.
    pub fn next_block(&mut self) -> Result<Option<Vec<CachedEntry>>, CacheError> {
        if self.done {
            return Ok(None);
        }
        let mut head = [0; 8 + CHECKSUM_LEN];
        self.file.read_exact(&mut head)?;
        let mut reader = ByteReader::new(&head);
        let packed_len = u32::from_le_bytes(reader.array()?);
        let plain_len = u32::from_le_bytes(reader.array()?);
        let sum: [u8; CHECKSUM_LEN] = reader.array()?;
        if packed_len == 0 {
            self.done = true;
            return Ok(None);
        }
        if packed_len > BLOCK_BYTES_MAX || plain_len > BLOCK_BYTES_MAX {
            return Ok(decode_error("a block over the limit")?);
        }
        let mut packed = vec![0; packed_len as usize];
        self.file.read_exact(&mut packed)?;
        if checksum(&packed) != sum {
            return Ok(decode_error("a block whose checksum does not fit")?);
        }
        let plain = self.zstd.decompress(&packed, plain_len as usize)?;
        Ok(Some(decode_block(&plain)?))
    }
}

/// Decodes the plain content of a block. For fuzzing, which does not get past the checksum.
pub fn decode_block(plain: &[u8]) -> Result<Vec<CachedEntry>, DecodeError> {
    let mut reader = ByteReader::new(plain);
    let entries = segment::decode(&mut reader, BLOCK_ENTRIES)?;
    let mut block = Vec::with_capacity(entries.len());
    for entry in entries {
        let local = match reader.u8()? {
            0 => None,
            1 => {
                let ino = reader.varint()?;
                Some(CachedStat { ino, ctime: UnixNanos(i128::from_le_bytes(reader.array()?)) })
            }
            _ => return decode_error("an unknown mark"),
        };
        block.push(CachedEntry { entry: Arc::new(entry), local });
    }
    reader.finish()?;
    Ok(block)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::entry::{EntryKind, OwnerAndMode, TreePath};

    fn cached(n: usize) -> CachedEntry {
        let entry = ManifestEntry {
            path: TreePath::new(format!("a/{n:05}")).unwrap(),
            kind: EntryKind::Dir,
            owner: OwnerAndMode::default(),
            mtime: UnixNanos(n as i128),
            xattrs: Vec::new(),
        };
        let local = (!n.is_multiple_of(3)).then_some(CachedStat { ino: n as u64, ctime: UnixNanos(-5) });
        CachedEntry { entry: Arc::new(entry), local }
    }

    fn read(path: &Path) -> Result<Vec<CachedEntry>, CacheError> {
        let mut all = Vec::new();
        let Some(mut reader) = CacheReader::open(path) else { return Ok(all) };
        while let Some(block) = reader.next_block()? {
            all.extend(block);
        }
        Ok(all)
    }

    #[test]
    fn it_reads_back_and_no_damage_passes_for_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tree");
        let bound = CacheSnapshot { repo: RepoId([1; 16]), seq: Seq(4), snapshot: Digest([2; 32]) };
        let all: Vec<CachedEntry> = (0..2500).map(cached).collect();
        let mut writer = CacheWriter::create(&path).unwrap();
        for c in &all {
            writer.push(c.entry.clone(), c.local).unwrap();
        }
        let nodes = [ChunkId([5; 32]), ChunkId([6; 32])];
        writer.finish(bound, &nodes).unwrap();
        assert_eq!(CacheReader::open(&path).unwrap().bound(), bound);
        assert_eq!(CacheReader::open(&path).unwrap().nodes().unwrap(), nodes);
        assert_eq!(read(&path).unwrap(), all);
        let good = std::fs::read(&path).unwrap();
        for at in (0..good.len()).step_by(7) {
            let mut flipped = good.clone();
            flipped[at] ^= 4;
            std::fs::write(&path, &flipped).unwrap();
            let found = CacheReader::open(&path).and_then(|c| c.nodes());
            assert!(found.is_none_or(|n| n == nodes), "byte {at}");
            let damaged = read(&path);
            assert!(
                damaged.as_ref().is_err() || damaged.as_ref().is_ok_and(|c| c.is_empty() || *c == all),
                "byte {at}"
            );
            std::fs::write(&path, &good[..at]).unwrap();
            let cut = CacheReader::open(&path);
            assert!(cut.is_none_or(|c| c.nodes().is_none()), "cut at {at}");
        }
    }
}
