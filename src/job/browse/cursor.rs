//! Walks a manifest entry by entry, and skips forward to any path.

use std::collections::VecDeque;

use crate::ids::ChunkId;
use crate::repo::entry::{ManifestEntry, TreePath};
use crate::repo::reader::{ManifestReader, RepositoryReadError, RepositoryReader};

/// A position in a manifest.
#[derive(Debug)]
pub struct ManifestCursor<'a> {
    manifest: ManifestReader<'a>,
    batch: VecDeque<ManifestEntry>,
    from: TreePath,
}

impl<'a> ManifestCursor<'a> {
    /// A cursor before the first entry.
    pub fn new(reader: &'a RepositoryReader, root: ChunkId) -> Self {
        Self { manifest: reader.manifest(root), batch: VecDeque::new(), from: TreePath::default() }
    }

    /// The next entry; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<ManifestEntry>, RepositoryReadError> {
        loop {
            if let Some(entry) = self.batch.pop_front() {
                return Ok(Some(entry));
            }
            let Some(batch) = self.manifest.next_batch().await? else { return Ok(None) };
            self.batch = batch.into();
            self.drop_before();
        }
    }

    /// Moves forward to `path`, or to the first entry after it.
    pub fn seek(&mut self, path: &TreePath) {
        self.from = path.clone();
        self.drop_before();
        if self.batch.is_empty() {
            self.manifest.seek(path);
        }
    }

    fn drop_before(&mut self) {
        let before = self.batch.partition_point(|entry| entry.path < self.from);
        self.batch.drain(..before);
    }
}

/// The first path that can come after everything below `path`; `None`: nothing comes after the root.
pub fn path_after_subtree(path: &TreePath) -> Option<TreePath> {
    let bytes = path.as_bytes();
    // Descendants follow after a slash, which sorts first; the smallest other byte of a name is 1.
    (!bytes.is_empty())
        .then(|| TreePath::new([bytes, b"\x01"].concat()).expect("a sound name stays one with a byte more"))
}

/// The snapshot's sources and dumps: the entries without a parent entry. One descent into the manifest for each.
pub async fn source_roots(reader: &RepositoryReader, root: ChunkId) -> Result<Vec<TreePath>, RepositoryReadError> {
    let mut cursor = ManifestCursor::new(reader, root);
    let mut roots = Vec::new();
    while let Some(entry) = cursor.next().await? {
        let after = path_after_subtree(&entry.path);
        roots.push(entry.path);
        match after {
            Some(path) => cursor.seek(&path),
            None => break,
        }
    }
    Ok(roots)
}

/// Replaces a path above sources, which no snapshot contains itself, by these sources.
pub fn expand_to_roots(paths: &[TreePath], roots: &[TreePath]) -> Vec<TreePath> {
    let mut expanded = Vec::with_capacity(paths.len());
    for path in paths {
        let below: Vec<&TreePath> = roots.iter().filter(|root| *root != path && root.starts_with(path)).collect();
        match below[..] {
            [] => expanded.push(path.clone()),
            _ => expanded.extend(below.into_iter().cloned()),
        }
    }
    expanded
}
