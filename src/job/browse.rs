//! Read-only commands on snapshots: `snapshots`, `ls`, `cat`, `find`, `diff`, `journal show`. They write neither to the
//! store nor to this node's state directory.
//!
//! Manifests are entered at the requested path; even in a tree of millions of entries only the few chunks on the way
//! there are read.

mod cat;
mod cursor;
mod diff;
mod find;
mod ls;
pub mod select;
#[cfg(test)]
mod tests;

use std::io;

pub use cat::cat;
pub use cursor::{ManifestCursor, expand_to_roots, path_after_subtree, source_roots};
pub use diff::diff;
pub use find::find;
pub use ls::ls;

use crate::ids::ChunkId;
use crate::repo::entry::{EntryKind, ManifestEntry, TreePath};
use crate::repo::reader::{RepositoryReadError, RepositoryReader};

/// Called with each item of a listing. An error ends the listing.
pub type ItemCallback<'a, T> = &'a mut (dyn FnMut(&T) -> io::Result<()> + Send);

/// Why a command on a snapshot failed.
#[derive(Debug, thiserror::Error)]
pub enum BrowseError {
    /// The repository cannot be read.
    #[error("{0}")]
    Repo(#[from] RepositoryReadError),
    /// The snapshot has no such path.
    #[error("{}: not in this snapshot", path.display())]
    NotFound {
        /// The requested path.
        path: TreePath,
        /// What may have been meant.
        hint: Option<PathHint>,
    },
    /// The path is not a regular file.
    #[error("{}: {}, not a file", path.display(), name_of(kind))]
    NotAFile {
        /// The requested path.
        path: TreePath,
        /// The kind of its entry.
        kind: EntryKind,
    },
    /// An entry contradicts itself.
    #[error("{}: the manifest is not sound: {why}", path.display())]
    Unsound {
        /// The path of the entry.
        path: TreePath,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The pattern is not valid.
    #[error("pattern {pattern:?}: {why}")]
    Pattern {
        /// The pattern as given.
        pattern: String,
        /// What is wrong with it.
        why: String,
    },
    /// Writing the output failed.
    #[error("{0}")]
    Output(#[from] io::Error),
}

/// What may have been meant by a path that does not exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathHint {
    /// A similar path exists.
    Near(TreePath),
    /// A symbolic link is on the way; links are not followed.
    Link {
        /// The path of the link.
        at: TreePath,
        /// The target of the link.
        target: Vec<u8>,
    },
}

fn name_of(kind: &EntryKind) -> &'static str {
    match kind {
        EntryKind::File { .. } | EntryKind::Hardlink { .. } => "a file",
        EntryKind::Dir => "a directory",
        EntryKind::Symlink { .. } => "a symbolic link",
        EntryKind::Fifo => "a pipe",
        EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. } => "a device",
    }
}

/// The most names of a directory that are compared with a missing one.
const NEAR_NAMES_MAX: usize = 4096;

/// The error for a missing `path`, with what may have been meant.
async fn not_found(reader: &RepositoryReader, root: ChunkId, path: &TreePath) -> BrowseError {
    match path_hint(reader, root, path).await {
        Ok(hint) => BrowseError::NotFound { path: path.clone(), hint },
        Err(error) => error.into(),
    }
}

async fn path_hint(
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
