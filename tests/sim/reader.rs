//! A reader of repositories that are not encrypted, written from docs/FORMAT.md and sharing nothing with the program: what it cannot
//! restore is lost, whatever the program says.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;

/// An ID in hex.
pub type Id = String;

/// Header of packs and index objects, in bytes.
const HEADER: usize = 40;

/// What stands after each sealed part, in bytes.
const TAG: usize = 16;

type Read<T> = Result<T, String>;

/// Content by path.
pub type Files = BTreeMap<Vec<u8>, Bytes>;

/// A file's path, size and chunks.
type Listed = (Vec<u8>, u64, Vec<Id>);

/// Where a chunk is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkPosition {
    pub pack: Id,
    frame: usize,
    offset: usize,
    stored: usize,
    compressed: bool,
    raw: usize,
    at: usize,
    len: usize,
}

/// What one index object says, chunk by chunk.
pub type Table = Arc<Vec<(Id, ChunkPosition)>>;

/// Reads one repository. What never changes under its name is kept.
#[derive(Debug)]
pub struct FormatReader {
    chunk_key: [u8; 32],
    tables: HashMap<Id, Table>,
    frames: HashMap<(Id, usize), Bytes>,
}

impl FormatReader {
    /// With the key that stands in the clear in `format`.
    pub fn new(format: &[u8]) -> Self {
        let line = format.split(|byte| *byte == b'\n').next().expect("a line");
        let format: serde_json::Value = serde_json::from_slice(line).expect("format is JSON");
        assert_eq!(format["cipher"], "none");
        let key = hex::decode(format["clear_key"].as_str().expect("a key")).expect("hex");
        let chunk_key = blake3::derive_key("runner 2026-11-21 v1 chunk id", &key);
        Self { chunk_key, tables: HashMap::new(), frames: HashMap::new() }
    }

    /// What an index object says.
    pub fn table(&mut self, id: &Id, object: Option<&Bytes>) -> Read<Table> {
        let object = object.ok_or_else(|| format!("index {id} is not there"))?;
        if let Some(table) = self.tables.get(id) {
            return Ok(Arc::clone(table));
        }
        let table = Arc::new(tables(object).ok_or_else(|| format!("index {id} cannot be read"))?);
        self.tables.insert(id.clone(), Arc::clone(&table));
        Ok(table)
    }

    /// The tree of a snapshot, file by file, and what was needed for it; `object` gives packs.
    pub fn tree(
        &mut self,
        root: &str,
        index: &HashMap<Id, ChunkPosition>,
        object: &dyn Fn(&str) -> Option<Bytes>,
    ) -> Read<(Files, Vec<ChunkPosition>)> {
        let (mut files, mut places, mut open) = (BTreeMap::new(), Vec::new(), vec![root.to_owned()]);
        while let Some(id) = open.pop() {
            let node = self.chunk(&id, index, object, &mut places)?;
            let bad = || format!("node {id} of a manifest cannot be read");
            match node.first() {
                Some(b'P') => open.extend(page(&node[1..]).ok_or_else(bad)?),
                Some(b'S') => {
                    for (path, size, chunks) in segment(&node[1..]).ok_or_else(bad)? {
                        let mut content = Vec::new();
                        for chunk in chunks {
                            content.extend_from_slice(&self.chunk(&chunk, index, object, &mut places)?);
                        }
                        if content.len() as u64 != size {
                            return Err(format!("a file of {size} bytes has {}", content.len()));
                        }
                        files.insert(path, Bytes::from(content));
                    }
                }
                _ => return Err(bad()),
            }
        }
        Ok((files, places))
    }

    fn chunk(
        &mut self,
        id: &str,
        index: &HashMap<Id, ChunkPosition>,
        object: &dyn Fn(&str) -> Option<Bytes>,
        places: &mut Vec<ChunkPosition>,
    ) -> Read<Bytes> {
        let place = index.get(id).ok_or_else(|| format!("chunk {id} is in no index"))?;
        places.push(place.clone());
        let pack = object(&place.pack).ok_or_else(|| format!("pack {} is not there", place.pack))?;
        let kept = (place.pack.clone(), place.frame);
        let frame = if let Some(frame) = self.frames.get(&kept) {
            frame.clone()
        } else {
            let frame = frame(place, &pack).ok_or_else(|| format!("pack {} cannot be read", place.pack))?;
            self.frames.insert(kept, frame.clone());
            frame
        };
        let content = frame.slice(place.at..place.at + place.len);
        if hex::encode(blake3::keyed_hash(&self.chunk_key, &content).as_bytes()) != id {
            return Err(format!("chunk {id} in pack {} has content that does not match its name", place.pack));
        }
        Ok(content)
    }
}

fn frame(place: &ChunkPosition, pack: &Bytes) -> Option<Bytes> {
    let sealed = pack.get(place.offset..place.offset + place.stored)?;
    let plain = &sealed[..sealed.len().checked_sub(TAG)?];
    let content = if place.compressed { zstd::bulk::decompress(plain, place.raw).ok()? } else { plain.to_vec() };
    (content.len() == place.raw).then(|| content.into())
}

fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (head, rest) = bytes.split_at_checked(count)?;
    *bytes = rest;
    Some(head)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 127) << shift;
        if byte < 128 {
            return Some(value);
        }
    }
    None
}

fn count(bytes: &mut &[u8]) -> Option<usize> {
    varint(bytes).map(|n| n as usize)
}

fn tables(object: &[u8]) -> Option<Vec<(Id, ChunkPosition)>> {
    let mut plain = object.get(HEADER..object.len().checked_sub(TAG)?)?;
    let plain = &mut plain;
    let mut found = Vec::new();
    for _ in 0..count(plain)? {
        let pack = hex::encode(take(plain, 16)?);
        take(plain, 32)?;
        let mut frames = Vec::new();
        let mut offset = HEADER;
        for frame in 0..count(plain)? {
            let stored = count(plain)?;
            let compressed = take(plain, 1)?[0] == 1;
            frames.push((frame, offset, stored, compressed, count(plain)?));
            offset += stored;
        }
        let mut places = Vec::new();
        for (frame, offset, stored, compressed, chunks) in frames {
            let first = places.len();
            let mut at = 0;
            for _ in 0..chunks {
                let len = count(plain)?;
                places.push(ChunkPosition { pack: pack.clone(), frame, offset, stored, compressed, raw: 0, at, len });
                at += len;
            }
            places[first..].iter_mut().for_each(|place| place.raw = at);
        }
        for place in places {
            found.push((hex::encode(take(plain, 32)?), place));
        }
    }
    plain.is_empty().then_some(found)
}

fn page(mut bytes: &[u8]) -> Option<Vec<Id>> {
    let bytes = &mut bytes;
    take(bytes, 1)?;
    let mut children = Vec::new();
    for _ in 0..count(bytes)? {
        children.push(hex::encode(take(bytes, 32)?));
        varint(bytes)?;
        let first = count(bytes)?;
        take(bytes, first)?;
    }
    bytes.is_empty().then_some(children)
}

/// Path, size and chunks of each file. Nothing but plain files without attributes is in these trees.
fn segment(mut bytes: &[u8]) -> Option<Vec<Listed>> {
    let bytes = &mut bytes;
    let n = count(bytes)?;
    let mut paths: Vec<Vec<u8>> = Vec::new();
    for _ in 0..n {
        let shared = count(bytes)?;
        let rest = count(bytes)?;
        let mut path = match paths.last() {
            Some(before) => before.get(..shared)?.to_vec(),
            None => Vec::new(),
        };
        path.extend_from_slice(take(bytes, rest)?);
        paths.push(path);
    }
    let kinds = take(bytes, n)?;
    for _ in 0..count(bytes)? {
        for _ in 0..3 {
            varint(bytes)?;
        }
        for _ in 0..2 {
            let name = count(bytes)?;
            take(bytes, name)?;
        }
    }
    for _ in 0..n {
        varint(bytes)?;
    }
    let lists = count(bytes)?;
    for _ in 0..lists {
        if varint(bytes)? != 0 {
            return None;
        }
    }
    // Attributes, seconds, nanoseconds.
    for _ in 0..3 * n {
        varint(bytes)?;
    }
    let mut details = Vec::new();
    for kind in kinds {
        if *kind != 0 {
            return None;
        }
        details.push((varint(bytes)?, count(bytes)?));
    }
    let mut files = Vec::new();
    for (path, (size, chunks)) in paths.into_iter().zip(details) {
        let ids: Option<Vec<Id>> = (0..chunks).map(|_| Some(hex::encode(take(bytes, 32)?))).collect();
        files.push((path, size, ids?));
    }
    bytes.is_empty().then_some(files)
}
