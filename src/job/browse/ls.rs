//! `ls`: the entries of a directory, or all entries below it.

use super::{ManifestCursor, path_after_subtree};
use crate::ids::ChunkId;
use crate::job::browse::error::{BrowseError, ItemCallback};
use crate::job::browse::path_hint::not_found;
use crate::repo::entry::{EntryKind, ManifestEntry, TreePath};
use crate::repo::reader::RepositoryReader;

/// Passes the entries of the directory `path`, or all below it, to `each` in path order; if `path` is not a directory,
/// the entry itself. The root and other directories above the sources contain the sources.
pub async fn ls(
    reader: &RepositoryReader,
    root: ChunkId,
    path: &TreePath,
    recursive: bool,
    each: ItemCallback<'_, ManifestEntry>,
) -> Result<(), BrowseError> {
    let mut cursor = ManifestCursor::new(reader, root);
    cursor.seek(path);
    let mut next = cursor.next().await?;
    match &next {
        Some(entry) if entry.path == *path => {
            if !matches!(entry.kind, EntryKind::Dir) {
                return Ok(each(entry)?);
            }
            next = cursor.next().await?;
        }
        Some(entry) if entry.path.starts_with(path) => {}
        None if path.as_bytes().is_empty() => {}
        _ => return Err(not_found(reader, root, path).await),
    }
    while let Some(entry) = next.filter(|entry| entry.path.starts_with(path)) {
        each(&entry)?;
        if !recursive
            && matches!(entry.kind, EntryKind::Dir)
            && let Some(beyond) = path_after_subtree(&entry.path)
        {
            cursor.seek(&beyond);
        }
        next = cursor.next().await?;
    }
    Ok(())
}
