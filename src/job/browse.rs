//! Read-only commands on snapshots: `snapshots`, `ls`, `cat`, `find`, `diff`, `journal show`. They write neither to the
//! store nor to this node's state directory.
//!
//! Manifests are entered at the requested path; even in a tree of millions of entries only the few chunks on the way
//! there are read.

mod cat;
mod cursor;
mod diff;
pub mod error;
mod find;
mod ls;
pub(crate) mod path_hint;
pub mod select;
#[cfg(test)]
mod tests;

pub use cat::cat;
pub use cursor::{ManifestCursor, expand_to_roots, path_after_subtree, source_roots};
pub use diff::diff;
pub use find::find;
pub use ls::ls;
