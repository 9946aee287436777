//! `find`: entries by name or path, in one snapshot or in all. Nodes that several snapshots share and that contain no
//! match are read once.

use std::collections::HashSet;

use crate::ids::ChunkId;
use crate::job::browse::error::{BrowseError, ItemCallback};
use crate::job::report::browse::FindMatch;
use crate::journal::state::Snapshot;
use crate::repo::entry::{EntryKind, ManifestEntry};
use crate::repo::manifest::ManifestWalk;
use crate::repo::reader::{RepositoryReadError, RepositoryReader};
use crate::tree::exclude::ExcludePatterns;

/// Limit of remembered nodes without a match: 32 MiB of IDs, for about thirty million entries.
const BARREN_MAX: usize = 1 << 20;

/// Passes every entry whose name or path matches `pattern` (gitignore syntax) to `each`, snapshot by snapshot.
pub async fn find(
    reader: &RepositoryReader,
    snapshots: &[Snapshot],
    pattern: &str,
    each: ItemCallback<'_, FindMatch>,
) -> Result<(), BrowseError> {
    let pattern = NamePattern::new(pattern)?;
    let mut barren = HashSet::new();
    for snapshot in snapshots {
        search(reader, snapshot, &pattern, &mut barren, each).await?;
    }
    Ok(())
}

struct NamePattern(ExcludePatterns);

impl NamePattern {
    fn new(pattern: &str) -> Result<Self, BrowseError> {
        // Here these characters begin a name, not a comment or an exception.
        let plain = if pattern.starts_with(['#', '!']) { format!("\\{pattern}") } else { pattern.to_owned() };
        let bad = |why| BrowseError::Pattern { pattern: pattern.to_owned(), why };
        ExcludePatterns::new(&[plain]).map(Self).map_err(|e| bad(e.why))
    }

    fn matches(&self, entry: &ManifestEntry) -> bool {
        !entry.path.as_bytes().is_empty() && self.0.excludes(&entry.path, matches!(entry.kind, EntryKind::Dir))
    }
}

/// A manifest node whose descendants are being read.
struct OpenManifestNode {
    id: ChunkId,
    /// Number of chunks that come after it.
    rest: usize,
    hit: bool,
}

async fn search(
    reader: &RepositoryReader,
    snapshot: &Snapshot,
    pattern: &NamePattern,
    barren: &mut HashSet<ChunkId>,
    each: ItemCallback<'_, FindMatch>,
) -> Result<(), BrowseError> {
    let mut walk = ManifestWalk::new(snapshot.root);
    let mut open: Vec<OpenManifestNode> = Vec::new();
    while let Some(id) = walk.wanted_chunk() {
        if barren.contains(&id) {
            walk.skip();
        } else {
            let rest = walk.upcoming_chunks().count() - 1;
            let bytes = reader.chunk(&id).await?;
            let given =
                walk.provide_chunk(&bytes).map_err(|error| RepositoryReadError::Manifest { chunk: id, error })?;
            let mut hit = false;
            for entry in given.into_iter().flatten().filter(|entry| pattern.matches(entry)) {
                hit = true;
                each(&FindMatch { snapshot: snapshot.id, entry })?;
            }
            open.push(OpenManifestNode { id, rest, hit });
        }
        let left = walk.upcoming_chunks().count();
        while let Some(done) = open.pop_if(|part| part.rest >= left) {
            if !done.hit && barren.len() < BARREN_MAX {
                barren.insert(done.id);
            }
            if let Some(above) = open.last_mut() {
                above.hit |= done.hit;
            }
        }
    }
    Ok(())
}
