//! Hints for a path that is not in the snapshot: what is there, and which name is similar.

use crate::ids::ChunkId;
use crate::job::browse::cursor::{ManifestCursor, path_after_subtree};
use crate::job::browse::error::{BrowseError, PathHint};
use crate::repo::entry::{EntryKind, ManifestEntry, TreePath};
use crate::repo::reader::{RepositoryReadError, RepositoryReader};

/// The most names of a directory that are compared with a missing one.
const NEAR_NAMES_MAX: usize = 4096;

/// The error for a missing `path`, with what may have been meant.
pub(crate) async fn not_found(reader: &RepositoryReader, root: ChunkId, path: &TreePath) -> BrowseError {
    match path_hint(reader, root, path).await {
        Ok(hint) => BrowseError::NotFound { path: path.clone(), hint },
        Err(error) => error.into(),
    }
}

pub(crate) async fn path_hint(
    reader: &RepositoryReader,
    root: ChunkId,
    path: &TreePath,
) -> Result<Option<PathHint>, RepositoryReadError> {
    let mut parent = TreePath::default();
    for name in path.components() {
        let Some(next) = parent.join(name) else { return Ok(None) };
        let mut cursor = ManifestCursor::new(reader, root);
        cursor.seek(&next);
        match cursor.next().await? {
            Some(ManifestEntry { path, kind: EntryKind::Symlink { target }, .. }) if path == next => {
                return Ok(Some(PathHint::Link { at: next, target }));
            }
            Some(entry) if entry.path.starts_with(&next) => parent = next,
            _ => return similar_name(reader, root, &parent, name).await,
        }
    }
    Ok(None)
}

/// The name in `parent` that `name` may have been meant to be.
async fn similar_name(
    reader: &RepositoryReader,
    root: ChunkId,
    parent: &TreePath,
    name: &[u8],
) -> Result<Option<PathHint>, RepositoryReadError> {
    let mut cursor = ManifestCursor::new(reader, root);
    cursor.seek(parent);
    let depth = parent.components().count();
    let mut names: Vec<(String, TreePath)> = Vec::new();
    while names.len() < NEAR_NAMES_MAX
        && let Some(entry) = cursor.next().await?
        && entry.path.starts_with(parent)
    {
        let Some(name) = entry.path.components().nth(depth) else { continue };
        let Some(child) = parent.join(name) else { continue };
        if let Some(next) = path_after_subtree(&child) {
            cursor.seek(&next);
        }
        names.push((String::from_utf8_lossy(name).into_owned(), child));
    }
    let wanted = String::from_utf8_lossy(name);
    let found = crate::config::value::nearest(&wanted, names.iter().map(|(name, _)| name.as_str()));
    let found = found.and_then(|found| names.iter().find(|(name, _)| name == found));
    Ok(found.map(|(_, path)| PathHint::Near(path.clone())))
}
