//! The byte layout of a manifest segment: entries in columns, so that similar values are next to each other and
//! compress well.
//!
//! `docs/FORMAT.md` has the layout; the columns are read in the order in which they are written here. Chunk IDs come
//! last: they do not compress, and a reader of only the metadata can stop before them.
//!
//! Pure.

use std::borrow::Borrow;
use std::collections::BTreeMap;

use crate::ids::ChunkId;
use crate::repo::codec::{ByteReader, DecodeError, decode_error, put_bytes, put_signed, put_varint};
use crate::repo::entry::{
    EntryKind, Extent, ManifestEntry, OwnerAndMode, TreePath, UnixNanos, Xattr, common_prefix_len,
};

/// A segment ends after the entry that brings its entries to this much memory ([`decoded_weight`]), and a reader
/// refuses a segment that continues. Columns store each distinct value once, so without a limit a few bytes could
/// decode to gigabytes.
pub(crate) const HELD_MAX: usize = 16 << 20;

/// The memory of an attribute besides its bytes.
const XATTR_HELD: usize = 64;

/// Number of extents of a file that are not counted: earlier writers had no more than this.
const EXTENTS_UNCOUNTED: usize = 1 << 16;

/// The memory of each extent beyond them.
const EXTENT_HELD: usize = 16;

/// The part of [`HELD_MAX`] that an entry takes: values that entries may share in the stored form, and the extents of a
/// file with very many holes.
pub(crate) fn decoded_weight(entry: &ManifestEntry) -> usize {
    let xattrs: usize = entry.xattrs.iter().map(|x| XATTR_HELD + x.name.len() + x.value.len()).sum();
    let extents = match &entry.kind {
        EntryKind::File { extents: Some(extents), .. } => extents.len().saturating_sub(EXTENTS_UNCOUNTED) * EXTENT_HELD,
        _ => 0,
    };
    entry.path.as_bytes().len() + entry.owner.user.len() + entry.owner.group.len() + xattrs + extents
}

const FILE: u8 = 0;
const SPARSE: u8 = 1;
const HARDLINK: u8 = 2;
const DIR: u8 = 3;
const SYMLINK: u8 = 4;
const FIFO: u8 = 5;
const CHAR_DEVICE: u8 = 6;
const BLOCK_DEVICE: u8 = 7;

fn kind_code(kind: &EntryKind) -> u8 {
    match kind {
        EntryKind::File { extents: None, .. } => FILE,
        EntryKind::File { extents: Some(_), .. } => SPARSE,
        EntryKind::Hardlink { .. } => HARDLINK,
        EntryKind::Dir => DIR,
        EntryKind::Symlink { .. } => SYMLINK,
        EntryKind::Fifo => FIFO,
        EntryKind::CharDevice { .. } => CHAR_DEVICE,
        EntryKind::BlockDevice { .. } => BLOCK_DEVICE,
    }
}

/// The distinct values in order, and for each entry the index of its value.
fn distinct_values<T: Ord>(values: impl Iterator<Item = T>) -> (Vec<T>, Vec<usize>) {
    let mut numbers = BTreeMap::new();
    let mut order = Vec::new();
    for value in values {
        let next = numbers.len();
        order.push(*numbers.entry(value).or_insert(next));
    }
    let mut by_number: Vec<(usize, T)> = numbers.into_iter().map(|(value, number)| (number, value)).collect();
    by_number.sort_by_key(|(number, _)| *number);
    (by_number.into_iter().map(|(_, value)| value).collect(), order)
}

/// Appends the columns of `entries`.
pub(crate) fn encode<E: Borrow<ManifestEntry>>(entries: &[E], out: &mut Vec<u8>) {
    let entries = || entries.iter().map(Borrow::borrow);
    put_varint(out, entries().count() as u64);
    let mut before: &[u8] = b"";
    for e in entries() {
        let path = e.path.as_bytes();
        let shared = common_prefix_len(path, before);
        put_varint(out, shared as u64);
        put_bytes(out, &path[shared..]);
        before = path;
    }
    out.extend(entries().map(|e| kind_code(&e.kind)));

    let (owners, numbers) = distinct_values(entries().map(|e| &e.owner));
    put_varint(out, owners.len() as u64);
    for owner in owners {
        put_varint(out, u64::from(owner.mode));
        put_varint(out, u64::from(owner.uid));
        put_varint(out, u64::from(owner.gid));
        put_bytes(out, owner.user.as_bytes());
        put_bytes(out, owner.group.as_bytes());
    }
    for n in numbers {
        put_varint(out, n as u64);
    }

    let (attributes, numbers) = distinct_values(entries().map(|e| &e.xattrs));
    put_varint(out, attributes.len() as u64);
    for set in attributes {
        put_varint(out, set.len() as u64);
        for xattr in set {
            put_bytes(out, &xattr.name);
            put_bytes(out, &xattr.value);
        }
    }
    for n in numbers {
        put_varint(out, n as u64);
    }

    let mut second = 0i64;
    for e in entries() {
        let (seconds, _) = e.mtime.seconds_and_nanos();
        put_signed(out, seconds.wrapping_sub(second));
        second = seconds;
    }
    for e in entries() {
        put_varint(out, u64::from(e.mtime.seconds_and_nanos().1));
    }

    for e in entries() {
        match &e.kind {
            EntryKind::File { size, extents, chunks } => {
                put_varint(out, *size);
                put_varint(out, chunks.len() as u64);
                if let Some(extents) = extents {
                    put_varint(out, extents.len() as u64);
                    let mut end = 0;
                    for extent in extents {
                        put_varint(out, extent.offset - end);
                        put_varint(out, extent.len);
                        end = extent.offset + extent.len;
                    }
                }
            }
            EntryKind::Hardlink { target } => put_bytes(out, target.as_bytes()),
            EntryKind::Symlink { target } => put_bytes(out, target),
            EntryKind::CharDevice { major, minor } | EntryKind::BlockDevice { major, minor } => {
                put_varint(out, u64::from(*major));
                put_varint(out, u64::from(*minor));
            }
            EntryKind::Dir | EntryKind::Fifo => {}
        }
    }
    for chunk in entries().flat_map(|e| e.kind.chunks()) {
        out.extend_from_slice(&chunk.0);
    }
}

/// Reads one number for each entry, each below `limit`.
fn read_numbers(reader: &mut ByteReader<'_>, count: usize, limit: usize) -> Result<Vec<usize>, DecodeError> {
    (0..count)
        .map(|_| match usize::try_from(reader.varint()?) {
            Ok(n) if n < limit => Ok(n),
            _ => decode_error("a number beyond its table"),
        })
        .collect()
}

/// Decodes and checks a segment: paths ascend; every column is complete; every count is right; there are at most
/// `limit` entries, within [`HELD_MAX`], and no table has more values than there are entries.
pub(crate) fn decode(reader: &mut ByteReader<'_>, limit: usize) -> Result<Vec<ManifestEntry>, DecodeError> {
    let count = reader.count(6)?;
    if count > limit {
        return decode_error("more entries than a segment may have");
    }
    let paths = decode_paths(reader, count)?;
    let kinds = reader.take(count)?;

    let owner_count = reader.count(5)?;
    if owner_count > count {
        return decode_error("more owners than entries");
    }
    let mut owners = Vec::with_capacity(owner_count);
    for _ in 0..owner_count {
        let Ok(mode) = u16::try_from(reader.varint()?) else { return decode_error("a mode over 16 bits") };
        let (uid, gid) = (reader.u32()?, reader.u32()?);
        let name = |reader: &mut ByteReader<'_>| match std::str::from_utf8(reader.bytes()?) {
            Ok(name) => Ok(name.into()),
            Err(_) => decode_error("an owner's name that is no UTF-8"),
        };
        owners.push(OwnerAndMode { mode, uid, gid, user: name(reader)?, group: name(reader)? });
    }
    let owner_numbers = read_numbers(reader, count, owners.len())?;

    let set_count = reader.count(1)?;
    if set_count > count {
        return decode_error("more sets of attributes than entries");
    }
    let mut sets = Vec::with_capacity(set_count);
    for _ in 0..set_count {
        let len = reader.count(2)?;
        let mut set = Vec::with_capacity(len);
        for _ in 0..len {
            set.push(Xattr { name: reader.bytes()?.to_vec(), value: reader.bytes()?.to_vec() });
        }
        sets.push(set);
    }
    let set_numbers = read_numbers(reader, count, sets.len())?;

    let mut seconds = Vec::with_capacity(count);
    let mut second = 0i64;
    for _ in 0..count {
        second = second.wrapping_add(reader.signed()?);
        seconds.push(second);
    }
    let mut mtimes = Vec::with_capacity(count);
    for second in seconds {
        match reader.u32()? {
            nanos if nanos < 1_000_000_000 => mtimes.push(UnixNanos::new(second, nanos)),
            _ => return decode_error("nanoseconds over a second"),
        }
    }

    let mut total = 0;
    let mut entries = Vec::with_capacity(count);
    let mut chunk_counts = Vec::with_capacity(count);
    for (n, path) in paths.into_iter().enumerate() {
        let (kind, chunks) = decode_kind(reader, kinds[n], &path)?;
        chunk_counts.push(chunks);
        if total >= HELD_MAX {
            return decode_error("entries that take more memory than a segment's may");
        }
        let entry = ManifestEntry {
            path,
            kind,
            owner: owners[owner_numbers[n]].clone(),
            mtime: mtimes[n],
            xattrs: sets[set_numbers[n]].clone(),
        };
        total += decoded_weight(&entry);
        entries.push(entry);
    }
    for (entry, count) in entries.iter_mut().zip(chunk_counts) {
        if let EntryKind::File { chunks, .. } = &mut entry.kind {
            let Some(len) = count.checked_mul(ChunkId::LEN) else { return decode_error("a count beyond the end") };
            let ids = reader.take(len)?;
            *chunks = ids.chunks_exact(ChunkId::LEN).filter_map(ChunkId::from_slice).collect();
        }
    }
    Ok(entries)
}

fn decode_paths(reader: &mut ByteReader<'_>, count: usize) -> Result<Vec<TreePath>, DecodeError> {
    let mut paths: Vec<TreePath> = Vec::with_capacity(count);
    let mut total = 0;
    for _ in 0..count {
        if total >= HELD_MAX {
            return decode_error("entries that take more memory than a segment's may");
        }
        let before = paths.last().map_or(&b""[..], |p| p.as_bytes());
        let shared = match usize::try_from(reader.varint()?) {
            Ok(n) if n <= before.len() => n,
            _ => return decode_error("a path longer shared than it is"),
        };
        let rest = reader.bytes()?;
        if before.get(shared).is_some_and(|b| rest.first() == Some(b)) {
            return decode_error("a path that shares more than it says");
        }
        let Some(path) = TreePath::new([&before[..shared], rest].concat()) else {
            return decode_error("an unsound path");
        };
        if paths.last().is_some_and(|last| *last >= path) {
            return decode_error("paths out of order");
        }
        total += path.as_bytes().len();
        paths.push(path);
    }
    Ok(paths)
}

fn decode_kind(reader: &mut ByteReader<'_>, code: u8, path: &TreePath) -> Result<(EntryKind, usize), DecodeError> {
    let kind = match code {
        FILE | SPARSE => {
            let size = reader.varint()?;
            let Ok(count) = usize::try_from(reader.varint()?) else { return decode_error("a count beyond the end") };
            if count > reader.remaining() / ChunkId::LEN {
                return decode_error("a count beyond the end");
            }
            let extents = if code == SPARSE { Some(decode_extents(reader, size)?) } else { None };
            return Ok((EntryKind::File { size, extents, chunks: Vec::new() }, count));
        }
        HARDLINK => {
            let Some(target) = TreePath::new(reader.bytes()?) else { return decode_error("an unsound link target") };
            if target >= *path {
                return decode_error("a hard link to a later name");
            }
            EntryKind::Hardlink { target }
        }
        DIR => EntryKind::Dir,
        SYMLINK => EntryKind::Symlink { target: reader.bytes()?.to_vec() },
        FIFO => EntryKind::Fifo,
        CHAR_DEVICE => EntryKind::CharDevice { major: reader.u32()?, minor: reader.u32()? },
        BLOCK_DEVICE => EntryKind::BlockDevice { major: reader.u32()?, minor: reader.u32()? },
        _ => return decode_error("an unknown kind of entry"),
    };
    Ok((kind, 0))
}

fn decode_extents(reader: &mut ByteReader<'_>, size: u64) -> Result<Vec<Extent>, DecodeError> {
    let count = reader.count(2)?;
    let mut extents = Vec::with_capacity(count);
    let mut end = 0u64;
    for n in 0..count {
        let gap = reader.varint()?;
        let len = reader.varint()?;
        let offset = end.checked_add(gap);
        let Some((offset, stop)) = offset.and_then(|o| Some((o, o.checked_add(len)?))) else {
            return decode_error("an extent beyond its file");
        };
        if len == 0 || stop > size || (gap == 0 && n > 0) {
            return decode_error("an extent beyond its file");
        }
        extents.push(Extent { offset, len });
        end = stop;
    }
    Ok(extents)
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::repo::codec::tests::{LIES, with_number};

    fn kinds() -> impl Strategy<Value = EntryKind> {
        let chunks = || prop::collection::vec(any::<[u8; 32]>().prop_map(ChunkId), 0..3);
        prop_oneof![
            (any::<u64>(), chunks()).prop_map(|(size, chunks)| EntryKind::File { size, extents: None, chunks }),
            (chunks(), prop::collection::vec((1u64..1000, 1u64..1000), 0..4)).prop_map(|(chunks, gaps)| {
                let mut end = 0;
                let mut extents = Vec::new();
                for (gap, len) in gaps {
                    extents.push(Extent { offset: end + gap, len });
                    end += gap + len;
                }
                EntryKind::File { size: end + 5, extents: Some(extents), chunks }
            }),
            Just(EntryKind::Dir),
            Just(EntryKind::Fifo),
            Just(EntryKind::Hardlink { target: TreePath::default() }),
            prop::collection::vec(any::<u8>(), 0..20).prop_map(|target| EntryKind::Symlink { target }),
            any::<(u32, u32)>().prop_map(|(major, minor)| EntryKind::CharDevice { major, minor }),
            any::<(u32, u32)>().prop_map(|(major, minor)| EntryKind::BlockDevice { major, minor }),
        ]
    }

    /// Up to 30 entries of every kind, in path order.
    pub(crate) fn segments() -> impl Strategy<Value = Vec<ManifestEntry>> {
        let name = prop::collection::vec((1u8..=255).prop_filter("no separator", |b| *b != b'/' && *b != b'.'), 1..4);
        let path = prop::collection::vec(name, 1..4).prop_map(|c| TreePath::new(c.join(&b'/')).unwrap());
        let xattr = (prop::collection::vec(any::<u8>(), 1..5), prop::collection::vec(any::<u8>(), 0..5))
            .prop_map(|(name, value)| Xattr { name, value });
        let entry = (path, kinds(), any::<(u16, u32, u32)>(), "[a-z]{0,3}", any::<i64>(), 0u32..1_000_000_000, {
            prop::collection::vec(xattr, 0..2)
        });
        prop::collection::vec(entry, 0..30).prop_map(|entries| {
            let mut entries: Vec<ManifestEntry> = entries
                .into_iter()
                .map(|(path, kind, (mode, uid, gid), user, seconds, nanos, xattrs)| ManifestEntry {
                    path,
                    kind,
                    owner: OwnerAndMode { mode, uid, gid, group: user.as_str().into(), user: user.into() },
                    mtime: UnixNanos::new(seconds, nanos),
                    xattrs,
                })
                .collect();
            entries.sort_by(|a, b| a.path.cmp(&b.path));
            entries.dedup_by(|a, b| a.path == b.path);
            entries
        })
    }

    fn decode_all(bytes: &[u8]) -> Result<Vec<ManifestEntry>, DecodeError> {
        let mut reader = ByteReader::new(bytes);
        let entries = decode(&mut reader, 256)?;
        reader.finish()?;
        Ok(entries)
    }

    fn entry(path: String) -> ManifestEntry {
        ManifestEntry {
            path: TreePath::new(path).unwrap(),
            kind: EntryKind::Fifo,
            owner: OwnerAndMode::default(),
            mtime: UnixNanos(0),
            xattrs: Vec::new(),
        }
    }

    #[test]
    fn a_few_bytes_cannot_stand_for_gigabytes() {
        let over = |e: Result<_, DecodeError>| e.unwrap_err().what.contains("more memory");
        let of = |one: &dyn Fn(usize) -> ManifestEntry, count: usize| {
            let mut out = Vec::new();
            encode(&(0..count).map(one).collect::<Vec<_>>(), &mut out);
            decode_all(&out)
        };
        // A megabyte that all entries share: sixteen of them are the limit.
        let large = "x".repeat(1 << 20);
        let path = |n: usize| entry(format!("{large}{n:03}"));
        let owner = |n: usize| ManifestEntry {
            owner: OwnerAndMode { user: large.as_str().into(), ..OwnerAndMode::default() },
            ..entry(format!("{n:03}"))
        };
        let value = || vec![Xattr { name: b"user.x".to_vec(), value: large.clone().into_bytes() }];
        let xattr = |n: usize| ManifestEntry { xattrs: value(), ..entry(format!("{n:03}")) };
        let empty = vec![Xattr { name: Vec::new(), value: Vec::new() }; (1 << 20) / XATTR_HELD];
        let empties = |n: usize| ManifestEntry { xattrs: empty.clone(), ..entry(format!("{n:03}")) };
        for one in [&path as &dyn Fn(usize) -> ManifestEntry, &owner, &xattr, &empties] {
            assert_eq!(of(one, 16).unwrap().len(), 16);
            assert!(over(of(one, 17)));
        }
        let small = |n: usize| entry(format!("{n:03}"));
        assert_eq!(of(&small, 256).unwrap().len(), 256);
        assert!(of(&small, 257).is_err());
    }

    /// An empty set of attributes takes one stored byte, and such bytes compress a thousandfold.
    #[test]
    fn a_table_has_no_more_in_it_than_there_are_entries() {
        let decode = |owners: u64, sets: u64| {
            let mut out = vec![1, 0, 1, b'a', FIFO];
            put_varint(&mut out, owners);
            (0..owners).for_each(|_| out.extend_from_slice(&[0; 5]));
            out.push(0);
            put_varint(&mut out, sets);
            (0..sets).for_each(|_| out.push(0));
            out.extend_from_slice(&[0; 3]);
            decode_all(&out).map_err(|error| error.what)
        };
        assert_eq!(decode(1, 1).unwrap(), [entry("a".to_owned())]);
        assert_eq!(decode(2, 1), Err("more owners than entries"));
        assert_eq!(decode(1, 1 << 20), Err("more sets of attributes than entries"));
    }

    proptest! {
        #[test]
        fn segments_round_trip(entries in segments()) {
            let mut out = Vec::new();
            encode(&entries, &mut out);
            prop_assert_eq!(decode_all(&out), Ok(entries));
        }

        #[test]
        fn damage_is_an_error_or_another_segment_but_never_a_panic(entries in segments(), at: prop::sample::Index, to: u8) {
            let mut out = Vec::new();
            encode(&entries, &mut out);
            let at = at.index(out.len());
            prop_assert!(decode_all(&out[..at]).is_err());
            // A wrong count, and any other byte.
            let lies = LIES.map(|lie| with_number(&out, at, lie));
            out[at] = to;
            for damaged in [out].iter().chain(&lies) {
                if let Ok(other) = decode_all(damaged) {
                    // Accepted bytes are canonical enough to be encoded again.
                    let mut again = Vec::new();
                    encode(&other, &mut again);
                    prop_assert_eq!(decode_all(&again), Ok(other));
                }
            }
        }
    }
}
