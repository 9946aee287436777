//! Decides which entries stay in a snapshot although they could not be read: everything that the newest snapshot has
//! below a directory that cannot be listed. It is not known to be removed, so it counts neither as removed nor as lost.
//! Pure.

use crate::repo::entry::{EntryKind, ManifestEntry, TreePath};
use crate::tree::exclude::ExcludePatterns;

/// What happens to an entry of the newest snapshot that the walk did not find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AbsentEntryOutcome {
    /// The walk would have found it: it was removed, or is excluded now.
    Gone,
    /// It could not be looked for, and stays as it is.
    Kept {
        /// The directory above it was counted instead of it.
        counted: bool,
    },
    /// It could not be looked for, and cannot stay, because the file that it refers to may have changed.
    Lost {
        /// The directory above it was counted instead of it.
        counted: bool,
    },
}

/// A directory that was not listed completely.
#[derive(Debug)]
struct UnlistedDir {
    dir: TreePath,
    /// Its newest child that was listed. Below this child the walk is complete.
    child: Option<TreePath>,
    /// Not all its entries stay as they were, so a hard link in it may refer to a missing file.
    partial: bool,
    /// The directory itself is counted as unreadable, in place of the first entry below it.
    counted: bool,
    /// The excluded path that the entries being judged lie below.
    excluded: Option<TreePath>,
}

/// The directories that could not be listed and that the walk is still inside of, the outermost first.
#[derive(Debug)]
pub(crate) struct UnreadableDirs {
    exclude: ExcludePatterns,
    dirs: Vec<UnlistedDir>,
}

impl UnreadableDirs {
    /// No directories yet. `exclude`: excluded entries do not stay.
    pub(crate) fn new(exclude: ExcludePatterns) -> Self {
        Self { exclude, dirs: Vec::new() }
    }

    /// The walk could not read `path`, or not list it. `kept`: its own entry stays, and counts.
    pub(crate) fn problem(&mut self, path: &TreePath, kept: bool) {
        self.leave(path);
        if self.dirs.last().is_none_or(|last| last.dir != *path) {
            let dir = path.clone();
            self.dirs.push(UnlistedDir { dir, child: None, partial: false, counted: !kept, excluded: None });
        }
    }

    /// The walk found `path`.
    pub(crate) fn found(&mut self, path: &TreePath) {
        if self.dirs.is_empty() {
            return;
        }
        self.leave(path);
        if let Some(last) = self.dirs.last_mut()
            && last.child.as_ref().is_none_or(|child| !path.starts_with(child))
            && let Some(child) = child_above(&last.dir, path)
        {
            (last.child, last.partial) = (Some(child), true);
        }
    }

    /// Judges an `entry` that the walk has passed without finding it. `stored`: whether its content is in the
    /// repository.
    pub(crate) fn judge_absent(
        &mut self,
        entry: &ManifestEntry,
        stored: impl FnOnce(&ManifestEntry) -> bool,
    ) -> AbsentEntryOutcome {
        self.leave(&entry.path);
        let Some(last) = self.dirs.last_mut() else { return AbsentEntryOutcome::Gone };
        let below = |dir: &Option<TreePath>| dir.as_ref().is_some_and(|dir| entry.path.starts_with(dir));
        if entry.path == last.dir || below(&last.child) || below(&last.excluded) {
            return AbsentEntryOutcome::Gone;
        }
        let is_dir = matches!(entry.kind, EntryKind::Dir);
        if self.exclude.excludes(&entry.path, is_dir) {
            (last.excluded, last.partial) = (Some(entry.path.clone()), true);
            return AbsentEntryOutcome::Gone;
        }
        let counted = std::mem::take(&mut last.counted);
        let whole = match &entry.kind {
            // Hard links whose first name lies below the same directory stay as they were.
            EntryKind::Hardlink { target } => !last.partial && target.starts_with(&last.dir),
            _ => stored(entry),
        };
        last.partial |= !whole;
        if whole { AbsentEntryOutcome::Kept { counted } } else { AbsentEntryOutcome::Lost { counted } }
    }

    /// Whether the walk is not inside of such a directory.
    pub(crate) fn is_clear(&self) -> bool {
        self.dirs.is_empty()
    }

    /// Removes the directories that the walk has left.
    fn leave(&mut self, path: &TreePath) {
        while self.dirs.pop_if(|last| !path.starts_with(&last.dir)).is_some() {}
    }
}

/// The child of `dir` that is `path` or an ancestor of it.
fn child_above(dir: &TreePath, path: &TreePath) -> Option<TreePath> {
    let name = path.components().nth(dir.components().count())?;
    dir.join(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ChunkId;
    use crate::repo::entry::{OwnerAndMode, UnixNanos};

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn entry(at: &str, kind: EntryKind) -> ManifestEntry {
        ManifestEntry { path: path(at), kind, owner: OwnerAndMode::default(), mtime: UnixNanos(0), xattrs: Vec::new() }
    }

    fn file(at: &str) -> ManifestEntry {
        entry(at, EntryKind::File { size: 3, extents: None, chunks: vec![ChunkId([1; 32])] })
    }

    fn link(at: &str, target: &str) -> ManifestEntry {
        entry(at, EntryKind::Hardlink { target: path(target) })
    }

    const KEPT: AbsentEntryOutcome = AbsentEntryOutcome::Kept { counted: false };
    const LOST: AbsentEntryOutcome = AbsentEntryOutcome::Lost { counted: false };

    fn unread(exclude: &[&str]) -> UnreadableDirs {
        UnreadableDirs::new(ExcludePatterns::new(exclude).unwrap())
    }

    #[test]
    fn what_lies_below_stays_and_what_lies_beside_is_gone() {
        let mut unread = unread(&[]);
        unread.found(&path("s"));
        assert_eq!(unread.judge_absent(&file("s/a"), |_| true), AbsentEntryOutcome::Gone);
        unread.problem(&path("s/d"), false);
        assert_eq!(
            unread.judge_absent(&file("s/d/1"), |_| true),
            AbsentEntryOutcome::Kept { counted: true },
            "the directory stands for it"
        );
        assert_eq!(unread.judge_absent(&entry("s/d/sub", EntryKind::Dir), |_| true), KEPT);
        assert_eq!(unread.judge_absent(&file("s/d/sub/2"), |_| true), KEPT);
        assert_eq!(unread.judge_absent(&file("s/d-"), |_| true), AbsentEntryOutcome::Gone);
        assert_eq!(unread.judge_absent(&file("s/d/3"), |_| true), AbsentEntryOutcome::Gone, "the walk is past it");
    }

    #[test]
    fn of_a_directory_that_was_listed_in_part_the_walk_knows_what_is_below_its_children() {
        let mut unread = unread(&[]);
        unread.problem(&path("s/d"), false);
        unread.found(&path("s/d/b"));
        unread.found(&path("s/d/b/x"));
        assert_eq!(unread.judge_absent(&file("s/d/b/y"), |_| true), AbsentEntryOutcome::Gone);
        unread.problem(&path("s/d/b/z"), true);
        assert_eq!(unread.judge_absent(&file("s/d/b/z/1"), |_| true), KEPT, "unless that cannot be listed itself");
        assert_eq!(unread.judge_absent(&file("s/d/b/zz"), |_| true), AbsentEntryOutcome::Gone);
        assert_eq!(unread.judge_absent(&file("s/d/c"), |_| true), AbsentEntryOutcome::Kept { counted: true });
        // A path that was a directory and is a file now has no entries below it.
        unread.found(&path("s/d/f"));
        assert_eq!(unread.judge_absent(&file("s/d/f/1"), |_| true), AbsentEntryOutcome::Gone);
    }

    #[test]
    fn what_is_excluded_by_now_does_not_stay() {
        let mut unread = unread(&["secret/"]);
        unread.problem(&path("s/d"), true);
        assert_eq!(unread.judge_absent(&entry("s/d/secret", EntryKind::Dir), |_| true), AbsentEntryOutcome::Gone);
        assert_eq!(unread.judge_absent(&file("s/d/secret/key"), |_| true), AbsentEntryOutcome::Gone);
        assert_eq!(unread.judge_absent(&file("s/d/secret-"), |_| true), KEPT);
        assert_eq!(
            unread.judge_absent(&link("s/d/x", "s/d/secret/key"), |_| true),
            LOST,
            "its first name does not stay"
        );
    }

    #[test]
    fn nothing_stays_that_refers_to_what_may_be_something_else() {
        let mut unread = unread(&[]);
        unread.problem(&path("s/d"), true);
        assert_eq!(unread.judge_absent(&link("s/d/a", "s/a"), |_| true), LOST);
        unread.problem(&path("s/e"), true);
        assert_eq!(unread.judge_absent(&file("s/e/a"), |_| true), KEPT);
        assert_eq!(unread.judge_absent(&link("s/e/b", "s/e/a"), |_| true), KEPT);
        assert_eq!(unread.judge_absent(&file("s/e/c"), |_| false), LOST, "its content is not in the repository");
        assert_eq!(unread.judge_absent(&link("s/e/d", "s/e/c"), |_| true), LOST);
    }

    #[test]
    fn the_root_is_a_directory_like_any_other() {
        let mut unread = unread(&[]);
        unread.problem(&TreePath::default(), false);
        unread.found(&path("a"));
        unread.found(&path("a/b"));
        assert_eq!(unread.judge_absent(&file("a/c"), |_| true), AbsentEntryOutcome::Gone);
        assert_eq!(unread.judge_absent(&file("b"), |_| true), AbsentEntryOutcome::Kept { counted: true });
    }
}
