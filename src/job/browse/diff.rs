//! `diff`: compares two manifests. Nodes with the same ID are equal, and are not read.

use std::cmp::Ordering;
use std::collections::VecDeque;

use super::path_after_subtree;
use crate::ids::ChunkId;
use crate::job::browse::error::{BrowseError, ItemCallback};
use crate::job::browse::path_hint::not_found;
use crate::job::report::browse::{DiffChange, DiffLine};
use crate::repo::entry::{ManifestEntry, TreePath};
use crate::repo::manifest::ManifestWalk;
use crate::repo::reader::{RepositoryReadError, RepositoryReader};
use crate::tree::compare::{self, path_change};

/// Passes the differences between two manifests at and below `path` to `each`, in path order.
///
/// # Errors
/// Neither manifest contains `path`.
pub async fn diff(
    reader: &RepositoryReader,
    [before, after]: [ChunkId; 2],
    path: &TreePath,
    each: ItemCallback<'_, DiffLine>,
) -> Result<(), BrowseError> {
    if !path.as_bytes().is_empty() && !is_in(reader, before, path).await? && !is_in(reader, after, path).await? {
        return Err(not_found(reader, after, path).await);
    }
    let (mut a, mut b) = (DiffSide::new(reader, before, path), DiffSide::new(reader, after, path));
    loop {
        a.settle();
        b.settle();
        let order = match (a.batch.front(), b.batch.front()) {
            (Some(x), Some(y)) => x.path.cmp(&y.path),
            (Some(x), None) if b.is_beyond(&x.path) => Ordering::Less,
            (None, Some(y)) if a.is_beyond(&y.path) => Ordering::Greater,
            (Some(_), None) => {
                b.open().await?;
                continue;
            }
            (None, Some(_)) => {
                a.open().await?;
                continue;
            }
            (None, None) => {
                if !open_one(&mut a, &mut b).await? {
                    return Ok(());
                }
                continue;
            }
        };
        let old = if order.is_le() { a.batch.pop_front() } else { None };
        let new = if order.is_ge() { b.batch.pop_front() } else { None };
        if let Some(line) = line(old.as_ref(), new.as_ref()) {
            each(&line)?;
        }
    }
}

async fn is_in(reader: &RepositoryReader, root: ChunkId, path: &TreePath) -> Result<bool, RepositoryReadError> {
    let mut cursor = super::ManifestCursor::new(reader, root);
    cursor.seek(path);
    Ok(cursor.next().await?.is_some_and(|entry| entry.path.starts_with(path)))
}

/// Reads or skips the next node of the sides that have no entries left. `false` at the end of both.
async fn open_one(a: &mut DiffSide<'_>, b: &mut DiffSide<'_>) -> Result<bool, RepositoryReadError> {
    match (a.next_node(), b.next_node()) {
        (None, None) => return Ok(false),
        (Some(x), Some(y)) if x == y => {
            a.walk.skip();
            b.walk.skip();
        }
        (Some(_), None) => a.open().await?,
        (None, Some(_)) => b.open().await?,
        (Some(_), Some(_)) => {
            // The side that starts earlier has entries that the other one lacks; of two nodes with the same start the
            // larger one may contain the smaller one. A root, of which nothing is known, comes first.
            let key =
                |side: &DiffSide<'_>| side.walk.next_node().map(|n| (n.first.clone(), std::cmp::Reverse(n.entries)));
            if key(a) <= key(b) { a.open().await? } else { b.open().await? }
        }
    }
    Ok(true)
}

/// One of the two manifests.
struct DiffSide<'a> {
    reader: &'a RepositoryReader,
    walk: ManifestWalk,
    batch: VecDeque<ManifestEntry>,
    from: &'a TreePath,
    /// The first path after the requested part.
    end: Option<TreePath>,
    ended: bool,
}

impl<'a> DiffSide<'a> {
    fn new(reader: &'a RepositoryReader, root: ChunkId, path: &'a TreePath) -> Self {
        let walk = ManifestWalk::new(root);
        Self { reader, walk, batch: VecDeque::new(), from: path, end: path_after_subtree(path), ended: false }
    }

    /// Skips what is before and after the requested part.
    fn settle(&mut self) {
        if self.batch.is_empty() {
            self.walk.seek(self.from);
            let first = self.walk.next_node().map(|node| &node.first);
            self.ended |= first.zip(self.end.as_ref()).is_some_and(|(first, end)| first >= end);
        }
    }

    fn next_node(&self) -> Option<ChunkId> {
        if self.ended { None } else { self.walk.wanted_chunk() }
    }

    /// Whether all remaining entries are after `path`.
    fn is_beyond(&self, path: &TreePath) -> bool {
        self.next_node().is_none() || self.walk.next_node().is_some_and(|node| node.first > *path)
    }

    /// Reads the next node.
    async fn open(&mut self) -> Result<(), RepositoryReadError> {
        let Some(chunk) = self.next_node() else { return Ok(()) };
        let bytes = self.reader.chunk(&chunk).await?;
        let given = self.walk.provide_chunk(&bytes).map_err(|error| RepositoryReadError::Manifest { chunk, error })?;
        if let Some(entries) = given {
            self.batch = entries.into();
            let before = self.batch.partition_point(|entry| entry.path < *self.from);
            self.batch.drain(..before);
            if let Some(end) = &self.end {
                let wanted = self.batch.partition_point(|entry| entry.path < *end);
                self.ended |= wanted < self.batch.len();
                self.batch.truncate(wanted);
            }
        }
        Ok(())
    }
}

fn line(old: Option<&ManifestEntry>, new: Option<&ManifestEntry>) -> Option<DiffLine> {
    let change = match path_change(old, new)? {
        compare::PathChange::New => DiffChange::New,
        compare::PathChange::Removed => DiffChange::Removed,
        compare::PathChange::Changed { content: true, .. } => DiffChange::Content,
        compare::PathChange::Changed { .. } => DiffChange::Metadata,
        compare::PathChange::Unchanged => return None,
    };
    let size = |entry: Option<&ManifestEntry>| entry.map_or(0, |entry| entry.kind.size());
    let path = old.or(new)?.path.clone();
    Some(DiffLine { path, change, size_before: size(old), size_after: size(new) })
}
