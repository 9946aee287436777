//! `find`: entries by name or path, in one snapshot or in all. What snapshots have in common and matches nothing is read once.

use std::collections::HashSet;

use super::{Each, InsideError};
use crate::ids::ChunkId;
use crate::job::report::inside::Found;
use crate::journal::state::Snapshot;
use crate::repo::entry::{Entry, Kind};
use crate::repo::manifest::ManifestWalk;
use crate::repo::reader::{Reader, RepoError};
use crate::tree::exclude::Exclude;

/// Parts of manifests that are remembered as having no hit: 32 MiB of IDs, parts of some thirty million entries.
const BARREN_MAX: usize = 1 << 20;

/// Gives every entry whose name or path matches `pattern` (gitignore syntax), snapshot by snapshot.
pub async fn find(
    reader: &Reader,
    snapshots: &[Snapshot],
    pattern: &str,
    each: Each<'_, Found>,
) -> Result<(), InsideError> {
    let pattern = Pattern::new(pattern)?;
    let mut barren = HashSet::new();
    for snapshot in snapshots {
        search(reader, snapshot, &pattern, &mut barren, each).await?;
    }
    Ok(())
}

struct Pattern(Exclude);

impl Pattern {
    fn new(pattern: &str) -> Result<Self, InsideError> {
        // Here these are no comment and no exception, but the beginning of a name.
        let plain = if pattern.starts_with(['#', '!']) { format!("\\{pattern}") } else { pattern.to_owned() };
        let bad = |why| InsideError::Pattern { pattern: pattern.to_owned(), why };
        Exclude::new(&[plain]).map(Self).map_err(|e| bad(e.why))
    }

    fn matches(&self, entry: &Entry) -> bool {
        !entry.path.as_bytes().is_empty() && self.0.excludes(&entry.path, matches!(entry.kind, Kind::Dir))
    }
}

/// A part of a manifest that is being read.
struct Open {
    id: ChunkId,
    /// Parts that come after it.
    rest: usize,
    hit: bool,
}

async fn search(
    reader: &Reader,
    snapshot: &Snapshot,
    pattern: &Pattern,
    barren: &mut HashSet<ChunkId>,
    each: Each<'_, Found>,
) -> Result<(), InsideError> {
    let mut walk = ManifestWalk::new(snapshot.root);
    let mut open: Vec<Open> = Vec::new();
    while let Some(id) = walk.wants() {
        if barren.contains(&id) {
            walk.skip();
        } else {
            let rest = walk.wants_soon().count() - 1;
            let bytes = reader.chunk(&id).await?;
            let given = walk.give(&bytes).map_err(|error| RepoError::Manifest { chunk: id, error })?;
            let mut hit = false;
            for entry in given.into_iter().flatten().filter(|entry| pattern.matches(entry)) {
                hit = true;
                each(&Found { snapshot: snapshot.id, entry })?;
            }
            open.push(Open { id, rest, hit });
        }
        let left = walk.wants_soon().count();
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
