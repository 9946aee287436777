//! Options of a restore.

use std::path::PathBuf;

use crate::repo::entry::TreePath;

/// What happens to a file that exists in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OverwritePolicy {
    /// Its content is compared, whatever its size and time are.
    #[default]
    Always,
    /// Equal size and modification time: its content counts as equal without being read.
    IfChanged,
    /// It stays as it is, including its metadata.
    Never,
}

/// What to restore and how.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// The directory into which the tree is restored.
    pub target: PathBuf,
    /// Restores to the original place: `target` is `/`. The path to each of the `roots` may lead through symbolic links
    /// of root or of this user, as for a backup.
    pub in_place: bool,
    /// The sources of the snapshot. Directories above them are made if they are missing and otherwise left as they are,
    /// and [`RestoreOptions::delete`] works below them only.
    pub roots: Vec<TreePath>,
    /// Restores only these paths and what is below them; empty: everything.
    pub paths: Vec<TreePath>,
    /// Leaves these paths alone, in the snapshot and in the target: gitignore syntax, a leading `/` is the root of the
    /// tree.
    pub exclude: Vec<String>,
    /// Removes what the snapshot does not have, below [`RestoreOptions::roots`] and [`RestoreOptions::paths`].
    pub delete: bool,
    /// What happens to files that exist in the target.
    pub overwrite: OverwritePolicy,
    /// Changes nothing and fetches nothing; counts what would be done.
    pub dry_run: bool,
    /// Sets owners by number even if this host knows the name.
    pub numeric_ids: bool,
}
