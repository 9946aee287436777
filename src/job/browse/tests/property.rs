//! Compares any two manifests: the reported lines are the differences, each path once and in order, and every entry of
//! both sides is accounted for.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::env::Env;
use crate::ids::{ChunkId, PackId};
use crate::job::browse::error::BrowseError;
use crate::job::report::browse::{DiffChange, DiffLine};
use crate::repo::crypto::tests::keys;
use crate::repo::crypto::{Cipher, DerivedKeys};
use crate::repo::entry::{EntryKind, ManifestEntry, OwnerAndMode, TreePath, UnixNanos};
use crate::repo::index::ChunkIndex;
use crate::repo::manifest::{ManifestChunkSink, ManifestWriter};
use crate::repo::object_keys;
use crate::repo::pack::{ChunkEntry, FrameCompressor, PackBuilder};
use crate::repo::reader::RepositoryReader;
use crate::store::Store;
use crate::store::memory::MemoryStore;
use crate::tree::compare;

/// Paths of three depths, each with an entry of one of several versions.
type List = BTreeMap<TreePath, ManifestEntry>;

fn path_of(n: usize) -> TreePath {
    let text = match n % 40 {
        0 => format!("srv/{:02}", n / 400),
        1 => format!("srv/{:02}-{n}", n / 400),
        _ => format!("srv/{:02}/{}/f{n}", n / 400, n % 3),
    };
    TreePath::new(text).unwrap()
}

fn entry(n: usize, version: u8) -> ManifestEntry {
    let kind = match version {
        1 => EntryKind::File { size: 2, extents: None, chunks: vec![ChunkId([2; 32])] },
        2 => EntryKind::Dir,
        _ => EntryKind::File { size: 1, extents: None, chunks: vec![ChunkId([1; 32])] },
    };
    // Two versions have the same content and different metadata.
    let owner = OwnerAndMode { mode: if version == 3 { 0o600 } else { 0o644 }, ..OwnerAndMode::default() };
    ManifestEntry { path: path_of(n), kind, owner, mtime: UnixNanos(n as i128), xattrs: Vec::new() }
}

fn list(versions: &BTreeMap<usize, u8>) -> List {
    versions.iter().map(|(n, version)| (path_of(*n), entry(*n, *version))).collect()
}

/// Two lists, different or similar; long ones have manifests of several levels.
fn lists() -> impl Strategy<Value = [List; 2]> {
    let any_list = |len| prop::collection::btree_map(0..2000usize, 0..4u8, 0..len);
    let stretch =
        (0..2000usize, 0..2000usize).prop_map(|(from, len)| (from..(from + len).min(2000)).map(|n| (n, 0)).collect());
    let base = prop_oneof![any_list(900), any_list(20), stretch];
    let edits = prop::collection::btree_map(0..2000usize, prop::option::of(0..4u8), 0..5);
    let near = (base.clone(), edits).prop_map(|(before, edits)| {
        let mut after: BTreeMap<usize, u8> = before.clone();
        for (n, edit) in edits {
            match edit {
                Some(version) => after.insert(n, version),
                None => after.remove(&n),
            };
        }
        [before, after]
    });
    let unlike = (base.clone(), base).prop_map(|(before, after)| [before, after]);
    prop_oneof![3 => near, 1 => unlike].prop_map(|lists| lists.map(|versions| list(&versions)))
}

/// Chunks for the next pack.
struct Packing {
    keys: DerivedKeys,
    compressor: FrameCompressor,
    pack: PackBuilder,
}

impl ManifestChunkSink for Packing {
    type Error = Infallible;
    fn put(&mut self, bytes: Vec<u8>) -> Result<ChunkId, Infallible> {
        let id = self.keys.chunk_id(&bytes);
        self.pack.push(self.compressor.pack(&bytes, vec![ChunkEntry { id, len: bytes.len() as u32 }]));
        Ok(id)
    }
}

/// A repository with nothing but these manifests.
async fn stored(lists: &[List; 2]) -> (RepositoryReader, [ChunkId; 2]) {
    let (keys, store) = (keys(Cipher::None), MemoryStore::new(&Env::host()));
    let mut index = ChunkIndex::default();
    let mut roots = [ChunkId([0; 32]); 2];
    for (number, list) in (0..).zip(lists) {
        let pack = PackBuilder::new(&keys, PackId([number; 16]), [number; 32]);
        let packing = Packing { keys: keys.clone(), compressor: FrameCompressor::default(), pack };
        let mut manifest = ManifestWriter::new(packing);
        for entry in list.values() {
            let Ok(()) = manifest.push(entry.clone());
        }
        let Ok((root, count, packing)) = manifest.finish();
        assert_eq!(count, list.len() as u64);
        let (bytes, table) = packing.pack.finish();
        store.put(&object_keys::pack(keys.role(), table.id), bytes).await.unwrap();
        index.add(&table);
        roots[usize::from(number)] = root;
    }
    index.sort();
    (RepositoryReader::new(Arc::new(store), keys, Arc::new(index)), roots)
}

/// The differences at and below `path`, found by looking up each path on both sides.
fn model([before, after]: &[List; 2], path: &TreePath) -> Vec<DiffLine> {
    let mut all: Vec<&TreePath> = before.keys().chain(after.keys()).filter(|p| p.starts_with(path)).collect();
    all.sort();
    all.dedup();
    let line = |path: &TreePath| {
        let (old, new) = (before.get(path), after.get(path));
        let change = match (old, new) {
            (Some(_), None) => DiffChange::Removed,
            (None, _) => DiffChange::New,
            (Some(old), Some(new)) if old.kind != new.kind => DiffChange::Content,
            (Some(old), Some(new)) if old != new => DiffChange::Metadata,
            _ => return None,
        };
        let size = |entry: Option<&ManifestEntry>| entry.map_or(0, |entry| entry.kind.size());
        Some(DiffLine { path: path.clone(), change, size_before: size(old), size_after: size(new) })
    };
    all.into_iter().filter_map(line).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_diff_is_what_a_look_at_each_path_tells(lists in lists(), within in prop::option::of((0..2000usize, 0..3usize))) {
        // A path that may exist, its directory, or the one above.
        let within = within.map(|(n, up)| (0..up).fold(path_of(n), |path, _| path.parent().unwrap()));
        let path = within.unwrap_or_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (told, read) = runtime.block_on(async {
            let (reader, roots) = stored(&lists).await;
            let mut lines = Vec::new();
            let mut each = |line: &DiffLine| {
                lines.push(line.clone());
                Ok(())
            };
            let result = diff(&reader, roots, &path, &mut each).await;
            assert_eq!(roots[0] == roots[1], lists[0] == lists[1]);
            (result.map(|()| lines), reads(&reader))
        });
        let is_there = path.as_bytes().is_empty() || lists.iter().any(|list| list.keys().any(|p| p.starts_with(&path)));
        match told {
            Ok(lines) => {
                prop_assert!(is_there);
                prop_assert_eq!(lines, model(&lists, &path));
            }
            Err(BrowseError::NotFound { .. }) => prop_assert!(!is_there),
            Err(error) => panic!("{error}"),
        }
        if lists[0] == lists[1] && path.as_bytes().is_empty() {
            prop_assert_eq!(read, 0);
        }
    }

    /// The counts of new, changed, removed and unchanged paths add up to both sides, without double counting.
    #[test]
    fn every_path_of_both_sides_is_accounted_for(lists in lists()) {
        let [before, after] = &lists;
        let mut counts = [0; 4];
        for path in before.keys().chain(after.keys().filter(|path| !before.contains_key(path))) {
            let (old, new) = (before.get(path), after.get(path));
            let number = match compare::path_change(old, new).unwrap() {
                compare::PathChange::New => 0,
                compare::PathChange::Changed { content, metadata } => {
                    prop_assert!(content || metadata);
                    1
                }
                compare::PathChange::Unchanged => 2,
                compare::PathChange::Removed => 3,
            };
            counts[number] += 1;
            prop_assert_eq!(number == 2, old == new);
        }
        let [new, changed, unchanged, removed] = counts;
        prop_assert_eq!((new + changed + unchanged, changed + unchanged + removed), (after.len(), before.len()));
        prop_assert_eq!(new + changed + removed, model(&lists, &TreePath::default()).len());
    }
}
