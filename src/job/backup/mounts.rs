//! Detects unmounted volumes below the sources. If a directory was a mount point and is an empty directory of the
//! parent file system now, its content is not removed: it could not be read. Pure.
//!
//! A manifest does not record file systems, so each node remembers the mount points that it saw. A node that never saw
//! one treats the directory as empty.

use std::collections::BTreeSet;

use crate::repo::entry::TreePath;

/// Limit of remembered mount points.
const MOUNTS_MAX: usize = 1024;

/// Known and present mount points during a walk.
#[derive(Debug, Default)]
pub(crate) struct MountTracker {
    /// Mount points that this node saw before, and that the walk has not reached.
    known: BTreeSet<TreePath>,
    /// Directories where a volume is mounted, or should be.
    found: BTreeSet<TreePath>,
    /// The directories from the source to the current position, each with its file system.
    ancestors: Vec<(TreePath, u64)>,
    /// The last directory, if a volume was mounted there before and none is now, until an entry is found in it.
    empty_mount: Option<TreePath>,
}

impl MountTracker {
    /// Starts with the mount points that this node saw before.
    pub(crate) fn new(known: impl IntoIterator<Item = TreePath>) -> Self {
        Self { known: known.into_iter().collect(), ..Self::default() }
    }

    /// The walk found this directory, on the file system `dev`.
    pub(crate) fn enter_dir(&mut self, path: &TreePath, dev: u64) {
        while self.ancestors.pop_if(|(dir, _)| !path.starts_with(dir)).is_some() {}
        let was_mounted = self.known.remove(path);
        match self.ancestors.last() {
            Some((_, above)) if *above != dev => drop(self.found.insert(path.clone())),
            Some(_) if was_mounted => self.empty_mount = Some(path.clone()),
            // The mount of a source itself is not tracked: an empty source is reported anyway.
            _ => {}
        }
        self.ancestors.push((path.clone(), dev));
    }

    /// Called before the walk proceeds to `next`, or at its end. Returns the directory where a volume was mounted and
    /// nothing is now.
    pub(crate) fn missing_mount(&mut self, next: Option<&TreePath>) -> Option<TreePath> {
        let bare = self.empty_mount.take()?;
        next.is_none_or(|next| !next.starts_with(&bare)).then_some(bare)
    }

    /// Keeps a mount point, so that the next run expects it as well.
    pub(crate) fn keep(&mut self, path: TreePath) {
        self.found.insert(path);
    }

    /// Directories where volumes are mounted, or should be, including those that the walk did not reach.
    pub(crate) fn finish(self) -> Vec<TreePath> {
        self.found.into_iter().chain(self.known).take(MOUNTS_MAX).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    /// The results of a walk over these directories; each directory has the number of its file system.
    fn walk(known: &[&str], found: &[(&str, Option<u64>)]) -> (Vec<TreePath>, Vec<TreePath>) {
        let mut mounts = MountTracker::new(known.iter().map(|p| path(p)));
        let mut bare = Vec::new();
        for (at, dev) in found {
            bare.extend(mounts.missing_mount(Some(&path(at))));
            if let Some(dev) = dev {
                mounts.enter_dir(&path(at), *dev);
            }
        }
        bare.extend(mounts.missing_mount(None));
        for dir in &bare {
            mounts.keep(dir.clone());
        }
        (bare, mounts.finish())
    }

    #[test]
    fn a_volume_that_left_an_empty_directory_is_told_and_looked_for_again() {
        let mounted = [("s", Some(1)), ("s/a", Some(1)), ("s/v", Some(2)), ("s/v/d", Some(2)), ("s/v/f", None)];
        assert_eq!(walk(&[], &mounted), (vec![], vec![path("s/v")]));
        let gone = [("s", Some(1)), ("s/a", Some(1)), ("s/v", Some(1)), ("s/w", None)];
        assert_eq!(walk(&["s/v"], &gone), (vec![path("s/v")], vec![path("s/v")]));
        assert_eq!(walk(&["s/v"], &gone[..3]), (vec![path("s/v")], vec![path("s/v")]), "the last of all");
        assert_eq!(walk(&[], &gone), (vec![], vec![]), "a node that never saw it");
    }

    #[test]
    fn a_directory_with_something_in_it_is_what_it_is() {
        let used = [("s", Some(1)), ("s/v", Some(1)), ("s/v/f", None), ("s/w", Some(1))];
        assert_eq!(walk(&["s/v"], &used), (vec![], vec![]));
        let other = [("s", Some(1)), ("s/v", Some(3)), ("s/v-", None)];
        assert_eq!(walk(&["s/v"], &other), (vec![], vec![path("s/v")]), "an empty volume is one");
    }

    #[test]
    fn what_the_walk_did_not_get_to_is_not_forgotten_and_a_source_is_no_volume() {
        let cut = [("s", Some(1)), ("t", Some(2)), ("t/x", Some(2))];
        assert_eq!(walk(&["s/v", "t"], &cut), (vec![], vec![path("s/v")]));
        let nested = [("s", Some(1)), ("s/v", Some(2)), ("s/v/w", Some(2)), ("s/x", Some(1))];
        assert_eq!(walk(&["s/v", "s/v/w"], &nested), (vec![path("s/v/w")], vec![path("s/v"), path("s/v/w")]));
    }
}
