//! Looking inside snapshots: `snapshots`, `ls`, `cat`, `find`, `diff`. Nothing here writes, neither to the store nor to this
//! node's state directory.
//!
//! Manifests are entered where something is looked for; a tree of millions costs the few chunks on the way there.

mod archive;
mod cursor;

pub use archive::{Archive, ArchiveError, info};
pub use cursor::{Cursor, after, expand, roots};
