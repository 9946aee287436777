//! The manifest: the sorted list of entries of a snapshot, as a tree of content-addressed chunks.
//!
//! Entries are cut into segments, the references to segments into pages, and so on until one page is left: the root.
//! Each cut depends only on the content next to it (a hash of the entry's path, or the referenced ID), so that the same
//! entries give the same root on every node, and one changed file rewrites one segment and the pages above it.
//!
//! Pure.

use std::borrow::Borrow;
use std::sync::Arc;

use crate::ids::ChunkId;
use crate::repo::codec::{ByteReader, DecodeError, decode_error, put_bytes, put_varint};
use crate::repo::entry::{ManifestEntry, TreePath};
use crate::repo::segment;

/// A segment or page ends where the low bits of the hash are zero, on average after this many more items.
const CUT_AVERAGE: u32 = 32;

/// …but not before it has this many, so that each level is at least eight times smaller than the one below,
const ITEMS_MIN: usize = 8;

/// …and at this many items at the latest, so that the memory of a reader is bounded.
const ITEMS_MAX: usize = 256;

/// A segment also ends after the entry that brings it to this many chunks: about 130 KiB of IDs.
const SEGMENT_CHUNKS_MAX: usize = 4096;

/// The deepest manifest accepted: 8 to the power of 20 segments are more than there can be files.
const DEPTH_MAX: u8 = 20;

const TAG_SEGMENT: u8 = b'S';
const TAG_PAGE: u8 = b'P';

/// A page's reference to a segment or to a page below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestNodeRef {
    /// The ID of its chunk.
    pub id: ChunkId,
    /// Number of its entries, all levels below included.
    pub entries: u64,
    /// The path of its first entry.
    pub first: TreePath,
}

/// A decoded chunk of a manifest: a segment or a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManifestNode {
    /// The entries of a segment.
    Segment(Vec<ManifestEntry>),
    /// References to nodes one level below.
    Page {
        /// 1 for a page of segments.
        level: u8,
        /// The references in path order.
        refs: Vec<ManifestNodeRef>,
    },
}

/// Decodes a chunk of a manifest, and checks everything that can be checked without its neighbours.
pub fn decode(bytes: &[u8]) -> Result<ManifestNode, DecodeError> {
    let mut reader = ByteReader::new(bytes);
    match reader.u8()? {
        TAG_SEGMENT => {
            let entries = segment::decode(&mut reader, ITEMS_MAX)?;
            reader.finish()?;
            Ok(ManifestNode::Segment(entries))
        }
        TAG_PAGE => {
            let level = reader.u8()?;
            if level == 0 || level > DEPTH_MAX {
                return decode_error("a page of an impossible level");
            }
            let count = reader.count(ChunkId::LEN + 2)?;
            let mut refs: Vec<ManifestNodeRef> = Vec::with_capacity(count);
            for _ in 0..count {
                let id = ChunkId(reader.array()?);
                let entries = reader.varint()?;
                let Some(first) = TreePath::new(reader.bytes()?) else { return decode_error("an unsound path") };
                if refs.last().is_some_and(|before| before.first >= first) {
                    return decode_error("references out of order");
                }
                refs.push(ManifestNodeRef { id, entries, first });
            }
            if refs.is_empty() || refs.len() > ITEMS_MAX {
                return decode_error("a page without references, or with too many");
            }
            reader.finish()?;
            Ok(ManifestNode::Page { level, refs })
        }
        _ => decode_error("neither a segment nor a page of a manifest"),
    }
}

fn encode_page(level: u8, refs: &[ManifestNodeRef]) -> Vec<u8> {
    let mut out = vec![TAG_PAGE, level];
    put_varint(&mut out, refs.len() as u64);
    for r in refs {
        out.extend_from_slice(&r.id.0);
        put_varint(&mut out, r.entries);
        put_bytes(&mut out, r.first.as_bytes());
    }
    out
}

/// Encodes a segment.
fn encode_segment<E: Borrow<ManifestEntry>>(entries: &[E]) -> Vec<u8> {
    let mut out = vec![TAG_SEGMENT];
    segment::encode(entries, &mut out);
    out
}

fn is_cut(hash: [u8; 4]) -> bool {
    u32::from_le_bytes(hash).is_multiple_of(CUT_AVERAGE)
}

fn path_hash(path: &TreePath) -> [u8; 4] {
    let hash = blake3::hash(path.as_bytes());
    hash.as_bytes()[..4].try_into().expect("a hash has 32 bytes")
}

/// Stores encoded segments and pages and returns their IDs.
pub trait ManifestChunkSink {
    /// The error of storing a chunk.
    type Error;

    /// Stores one chunk of the manifest and returns its ID.
    fn put(&mut self, bytes: Vec<u8>) -> Result<ChunkId, Self::Error>;
}

/// Builds a manifest from entries in path order. Holds one segment in memory, and one page for each level.
#[derive(Debug)]
pub struct ManifestWriter<S> {
    sink: S,
    segment: Vec<Arc<ManifestEntry>>,
    segment_chunks: usize,
    segment_held: usize,
    levels: Vec<Vec<ManifestNodeRef>>,
}

impl<S: ManifestChunkSink> ManifestWriter<S> {
    /// A manifest without entries, whose chunks go to `sink`.
    pub fn new(sink: S) -> Self {
        Self { sink, segment: Vec::new(), segment_chunks: 0, segment_held: 0, levels: vec![Vec::new()] }
    }

    /// Appends an entry; its path must sort after all before.
    ///
    /// # Errors
    /// The errors of the sink.
    ///
    /// # Panics
    /// If the path does not sort after the last one: the order of the walk is an invariant, and a manifest in another
    /// order could not be read.
    pub fn push(&mut self, entry: impl Into<Arc<ManifestEntry>>) -> Result<(), S::Error> {
        let entry = entry.into();
        if let Some(last) = self.segment.last() {
            assert!(last.path < entry.path, "{:?} does not sort after {:?}", entry.path, last.path);
        }
        self.segment_chunks += entry.kind.chunks().len();
        self.segment_held += segment::decoded_weight(&entry);
        let len = self.segment.len() + 1;
        let full =
            len >= ITEMS_MAX || self.segment_chunks >= SEGMENT_CHUNKS_MAX || self.segment_held >= segment::HELD_MAX;
        let ends = full || (len >= ITEMS_MIN && is_cut(path_hash(&entry.path)));
        self.segment.push(entry);
        if ends {
            self.end_segment()?;
        }
        Ok(())
    }

    fn end_segment(&mut self) -> Result<(), S::Error> {
        let bytes = encode_segment(&self.segment);
        let first = self.segment.first().map_or_else(TreePath::default, |e| e.path.clone());
        let entries = self.segment.len() as u64;
        self.segment.clear();
        self.segment_chunks = 0;
        self.segment_held = 0;
        let id = self.sink.put(bytes)?;
        self.push_ref(0, ManifestNodeRef { id, entries, first })
    }

    fn push_ref(&mut self, level: usize, node: ManifestNodeRef) -> Result<(), S::Error> {
        if self.levels.len() == level {
            self.levels.push(Vec::new());
        }
        let hash = node.id.0[..4].try_into().expect("an ID has 32 bytes");
        self.levels[level].push(node);
        let len = self.levels[level].len();
        if len >= ITEMS_MAX || (len >= ITEMS_MIN && is_cut(hash)) { self.end_page(level) } else { Ok(()) }
    }

    fn end_page(&mut self, level: usize) -> Result<(), S::Error> {
        let refs = std::mem::take(&mut self.levels[level]);
        let bytes = encode_page(level as u8 + 1, &refs);
        let entries = refs.iter().map(|r| r.entries).sum();
        let first = refs.into_iter().next().map(|r| r.first).unwrap_or_default();
        let id = self.sink.put(bytes)?;
        self.push_ref(level + 1, ManifestNodeRef { id, entries, first })
    }

    /// Writes the remaining segment and pages and returns the root, the number of entries, and the sink.
    ///
    /// # Errors
    /// The errors of the sink.
    pub fn finish(mut self) -> Result<(ChunkId, u64, S), S::Error> {
        if !self.segment.is_empty() || self.levels.iter().all(Vec::is_empty) {
            self.end_segment()?;
        }
        let mut level = 0;
        loop {
            let is_top = self.levels[level + 1..].iter().all(Vec::is_empty);
            match &self.levels[level][..] {
                // A single reference with nothing above it: the node it refers to is the root.
                [only] if is_top => return Ok((only.id, only.entries, self.sink)),
                [] => {}
                _ => self.end_page(level)?,
            }
            level += 1;
        }
    }
}

/// Walks a manifest from its root without reading by itself: it names the chunk it needs, and the caller provides it.
///
/// Checks what one chunk alone cannot show: levels, counts, and the order across segments. [`ManifestWalk::seek`] skips
/// everything before a path, without reading it.
#[derive(Debug)]
pub struct ManifestWalk {
    /// Nodes still to visit, the next one last, each with the level that its parent expects (`None` for the root).
    stack: Vec<(ManifestNodeRef, Option<u8>)>,
    last: Option<TreePath>,
}

impl ManifestWalk {
    /// Starts at the root.
    pub fn new(root: ChunkId) -> Self {
        let root = ManifestNodeRef { id: root, entries: 0, first: TreePath::default() };
        Self { stack: vec![(root, None)], last: None }
    }

    /// The chunk to pass to [`ManifestWalk::provide_chunk`] next; `None` at the end.
    pub fn wanted_chunk(&self) -> Option<ChunkId> {
        self.stack.last().map(|(node, _)| node.id)
    }

    /// The chunks that will be wanted after this one, as far as known, for prefetching.
    pub fn upcoming_chunks(&self) -> impl Iterator<Item = ChunkId> {
        self.stack.iter().rev().map(|(node, _)| node.id)
    }

    /// What is known of the next node. If its ID is the same as in another manifest, its content is too.
    pub fn next_node(&self) -> Option<&ManifestNodeRef> {
        self.stack.last().filter(|(_, level)| level.is_some()).map(|(node, _)| node)
    }

    /// Skips the next node, with everything below it.
    pub fn skip(&mut self) {
        self.stack.pop();
    }

    /// Skips nodes that lie wholly before `path`. Entries before it may still come.
    pub fn seek(&mut self, path: &TreePath) {
        // A node ends before the first path of the next one.
        while let [.., (after, Some(_)), (_, Some(_))] = &self.stack[..] {
            if after.first <= *path {
                self.stack.pop();
            } else {
                return;
            }
        }
    }

    /// Takes the wanted chunk; returns its entries if it is a segment.
    pub fn provide_chunk(&mut self, bytes: &[u8]) -> Result<Option<Vec<ManifestEntry>>, DecodeError> {
        let Some((expected, level)) = self.stack.pop() else { return decode_error("a chunk that was not requested") };
        match decode(bytes)? {
            ManifestNode::Segment(entries) => {
                if level.is_some_and(|l| l != 0 || entries.len() as u64 != expected.entries || entries.is_empty()) {
                    return decode_error("a segment that does not match its page");
                }
                if let Some(first) = entries.first() {
                    if level.is_some() && first.path != expected.first {
                        return decode_error("a segment that does not match its page");
                    }
                    if self.last.as_ref().is_some_and(|last| *last >= first.path) {
                        return decode_error("segments out of order");
                    }
                }
                self.last = entries.last().map(|e| e.path.clone()).or(self.last.take());
                Ok(Some(entries))
            }
            ManifestNode::Page { level: found, refs } => {
                let total: u64 = refs.iter().fold(0, |sum, r| sum.saturating_add(r.entries));
                let fits =
                    level.is_none_or(|l| l == found && total == expected.entries && refs[0].first == expected.first);
                if !fits {
                    return decode_error("a page that does not match the page above");
                }
                self.stack.extend(refs.into_iter().rev().map(|r| (r, Some(found - 1))));
                Ok(None)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;
    use crate::repo::codec::tests::assert_strict;
    use crate::repo::crypto::tests::keys;
    use crate::repo::crypto::{Cipher, DerivedKeys};
    use crate::repo::entry::{EntryKind, OwnerAndMode, UnixNanos, Xattr};
    use crate::repo::segment::tests::segments;

    #[derive(Debug)]
    struct Chunks(DerivedKeys, HashMap<ChunkId, Vec<u8>>);

    impl ManifestChunkSink for Chunks {
        type Error = Infallible;
        fn put(&mut self, bytes: Vec<u8>) -> Result<ChunkId, Infallible> {
            let id = self.0.chunk_id(&bytes);
            self.1.insert(id, bytes);
            Ok(id)
        }
    }

    fn entry(n: usize, size: u64) -> ManifestEntry {
        ManifestEntry {
            path: TreePath::new(format!("srv/app/{:02}/file-{n:06}", n / 1000)).unwrap(),
            kind: EntryKind::File { size, extents: None, chunks: vec![ChunkId([n as u8; 32])] },
            owner: OwnerAndMode { mode: 0o644, ..OwnerAndMode::default() },
            mtime: UnixNanos(1_700_000_000_000_000_000 + n as i128),
            xattrs: Vec::new(),
        }
    }

    fn write(entries: &[ManifestEntry]) -> (ChunkId, HashMap<ChunkId, Vec<u8>>) {
        let mut writer = ManifestWriter::new(Chunks(keys(Cipher::None), HashMap::new()));
        for e in entries {
            writer.push(e.clone()).unwrap();
        }
        let (root, count, sink) = writer.finish().unwrap();
        assert_eq!(count, entries.len() as u64);
        (root, sink.1)
    }

    fn read(root: ChunkId, chunks: &HashMap<ChunkId, Vec<u8>>, from: Option<&TreePath>) -> (Vec<ManifestEntry>, usize) {
        let mut walk = ManifestWalk::new(root);
        let (mut all, mut reads) = (Vec::new(), 0);
        loop {
            if let Some(path) = from {
                walk.seek(path);
            }
            let Some(id) = walk.wanted_chunk() else { return (all, reads) };
            reads += 1;
            if let Some(entries) = walk.provide_chunk(&chunks[&id]).unwrap() {
                all.extend(entries);
            }
        }
    }

    #[test]
    fn what_was_written_is_read_whatever_the_size() {
        for len in [0, 1, 7, 8, 9, 300, 5000] {
            let entries: Vec<ManifestEntry> = (0..len).map(|n| entry(n, 10)).collect();
            let (root, chunks) = write(&entries);
            assert_eq!(read(root, &chunks, None).0, entries, "{len} entries");
        }
    }

    #[test]
    fn entries_with_large_attributes_are_cut_where_a_reader_wants_it() {
        let value = vec![7; 1 << 20];
        let large = |n| ManifestEntry {
            xattrs: vec![Xattr { name: b"user.x".to_vec(), value: value.clone() }],
            ..entry(n, 10)
        };
        let entries: Vec<ManifestEntry> = (0..40).map(large).collect();
        let (root, chunks) = write(&entries);
        assert_eq!(read(root, &chunks, None).0, entries);
    }

    #[test]
    fn the_same_entries_have_the_same_root_and_one_change_rewrites_little() {
        let entries: Vec<ManifestEntry> = (0..20_000).map(|n| entry(n, 10)).collect();
        let (root, chunks) = write(&entries);
        assert_eq!(write(&entries).0, root);
        let mut changed = entries.clone();
        changed[7777] = entry(7777, 11);
        let (other, after) = write(&changed);
        assert_ne!(root, other);
        let rewritten = after.keys().filter(|id| !chunks.contains_key(*id)).count();
        assert!(rewritten <= 6, "{rewritten} of {} chunks rewritten", chunks.len());
        let mut fewer = entries.clone();
        fewer.remove(123);
        let rewritten = write(&fewer).1.keys().filter(|id| !chunks.contains_key(*id)).count();
        assert!(rewritten <= 10, "{rewritten} chunks rewritten by a removal");
    }

    #[test]
    fn seeking_reads_a_path_and_not_the_tree() {
        let entries: Vec<ManifestEntry> = (0..20_000).map(|n| entry(n, 10)).collect();
        let (root, chunks) = write(&entries);
        let wanted = &entries[15_000].path;
        let mut walk = ManifestWalk::new(root);
        let mut reads = 0;
        loop {
            walk.seek(wanted);
            reads += 1;
            let id = walk.wanted_chunk().unwrap();
            if let Some(found) = walk.provide_chunk(&chunks[&id]).unwrap() {
                assert!(found.iter().any(|e| e.path == *wanted));
                break;
            }
        }
        assert!(reads <= 5, "{reads} reads");
        let (tail, _) = read(root, &chunks, Some(wanted));
        assert_eq!(tail.last(), entries.last());
        assert!(tail.iter().any(|e| e.path == *wanted));
    }

    #[test]
    fn chunks_that_do_not_belong_together_are_refused() {
        let entries: Vec<ManifestEntry> = (0..300).map(|n| entry(n, 10)).collect();
        let (root, chunks) = write(&entries);
        let other: Vec<ManifestEntry> = (0..300).map(|n| entry(n + 5000, 10)).collect();
        let (other_root, other_chunks) = write(&other);
        let mut walk = ManifestWalk::new(root);
        assert_eq!(walk.provide_chunk(&chunks[&root]), Ok(None));
        let mut stray = ManifestWalk::new(other_root);
        stray.provide_chunk(&other_chunks[&other_root]).unwrap();
        assert!(walk.provide_chunk(&other_chunks[&stray.wanted_chunk().unwrap()]).is_err());
        assert!(decode(b"").is_err() && decode(b"X").is_err() && decode(b"P\x01\x00").is_err());
    }

    /// Random subsets of many entries, each in one of three versions.
    fn lists() -> impl Strategy<Value = Vec<ManifestEntry>> {
        let list = prop::collection::btree_map(0..2000usize, 0..3u64, 0..700);
        list.prop_map(|list| list.into_iter().map(|(n, size)| entry(n, size)).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_page_has_one_encoding_and_no_lie_passes(
            refs in prop::collection::btree_map("[a-z]{1,9}(/[a-z]{1,3})?", (any::<[u8; 32]>(), any::<u64>()), 1..6), level in 1..=DEPTH_MAX,
        ) {
            let node = |(first, (id, entries)): (&String, &([u8; 32], u64))| {
                ManifestNodeRef { id: ChunkId(*id), entries: *entries, first: TreePath::new(first.as_str()).unwrap() }
            };
            let mut refs: Vec<ManifestNodeRef> = refs.iter().map(node).collect();
            refs.sort_by(|a, b| a.first.cmp(&b.first));
            let bytes = encode_page(level, &refs);
            prop_assert_eq!(&decode(&bytes), &Ok(ManifestNode::Page { level, refs }));
            assert_strict(&bytes, |bytes| match decode(bytes)? {
                ManifestNode::Page { level, refs } => Ok(encode_page(level, &refs)),
                ManifestNode::Segment(_) => panic!("a page became a segment"),
            });
        }

        #[test]
        fn entries_of_every_kind_are_read_back(entries in segments()) {
            let (root, chunks) = write(&entries);
            prop_assert_eq!(read(root, &chunks, None).0, entries);
        }

        /// The root depends on the list alone, and not on how it was built.
        #[test]
        fn two_roots_are_equal_where_the_lists_are(a in lists(), b in lists(), edits in prop::collection::vec((any::<prop::sample::Index>(), 0..4u64), 0..3)) {
            let (root, chunks) = write(&a);
            let (back, reads) = read(root, &chunks, None);
            prop_assert_eq!(&back, &a);
            prop_assert_eq!(reads, chunks.len(), "each part is read once, and there is none besides");
            prop_assert_eq!(write(&back).0, root);
            // A list with a small change.
            let mut edited = a.clone();
            for (at, size) in edits.iter().filter(|_| !a.is_empty()) {
                let at = at.index(edited.len());
                match size {
                    3 => { edited.remove(at); }
                    size => edited[at].kind = EntryKind::File { size: *size, extents: None, chunks: Vec::new() },
                }
                if edited.is_empty() {
                    break;
                }
            }
            for other in [b, edited] {
                prop_assert_eq!(write(&other).0 == root, other == a);
            }
        }

        /// After a seek to any path, no entry from there on is missing, and what lies wholly before it is not read.
        #[test]
        fn seeking_leaves_out_nothing_that_is_wanted(entries in lists(), n in 0..2100usize) {
            let (root, chunks) = write(&entries);
            let from = entry(n, 0).path;
            let (tail, _) = read(root, &chunks, Some(&from));
            let wanted = |list: &[ManifestEntry]| list.iter().filter(|e| e.path >= from).cloned().collect::<Vec<_>>();
            prop_assert_eq!(wanted(&tail), wanted(&entries));
            prop_assert!(tail.len() - wanted(&tail).len() < ITEMS_MAX, "one segment at the most");
        }
    }
}
