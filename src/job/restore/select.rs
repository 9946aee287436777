//! Decides what of a snapshot is restored, and what of the target may be deleted. Pure.

use crate::job::restore::error::RestoreError;
use crate::job::restore::options::RestoreOptions;
use crate::repo::entry::TreePath;
use crate::tree::exclude::ExcludePatterns;

/// How one entry is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntrySelection {
    /// It is restored.
    Selected,
    /// It is an ancestor of something that may be restored: made if a descendant is restored, left alone if it exists.
    Above,
    /// It is left out.
    Excluded,
}

/// The operator's selection.
#[derive(Debug)]
pub(super) struct RestoreScope {
    roots: Vec<TreePath>,
    paths: Vec<TreePath>,
    exclude: ExcludePatterns,
}

impl RestoreScope {
    pub(super) fn new(options: &RestoreOptions) -> Result<Self, RestoreError> {
        let exclude = ExcludePatterns::new(&options.exclude)?;
        Ok(Self { roots: options.roots.clone(), paths: options.paths.clone(), exclude })
    }

    /// Whether the entry at `path`, which is not a directory, is restored. May be called in any order.
    pub(super) fn selects(&self, path: &TreePath) -> bool {
        self.select(path) == EntrySelection::Selected
            && !self.excludes(path, false)
            && !std::iter::successors(path.parent(), TreePath::parent).any(|dir| self.excludes(&dir, true))
    }

    /// Whether a pattern excludes this path itself, without regard to its ancestors.
    pub(super) fn excludes(&self, path: &TreePath, is_dir: bool) -> bool {
        self.exclude.excludes(path, is_dir)
    }

    /// Whether objects at or below `path` that the snapshot does not have may be deleted.
    pub(super) fn may_delete_at(&self, path: &TreePath) -> bool {
        within(&self.roots, path) && (self.paths.is_empty() || within(&self.paths, path))
    }

    fn select(&self, path: &TreePath) -> EntrySelection {
        let above = |all: &[TreePath]| all.iter().any(|one| one.starts_with(path));
        // Outside of every root: a file that the snapshot has besides its sources.
        let by_root = if above(&self.roots) && !within(&self.roots, path) {
            EntrySelection::Above
        } else {
            EntrySelection::Selected
        };
        match by_root {
            _ if self.paths.is_empty() || within(&self.paths, path) => by_root,
            _ if above(&self.paths) => EntrySelection::Above,
            _ => EntrySelection::Excluded,
        }
    }
}

fn within(all: &[TreePath], path: &TreePath) -> bool {
    all.iter().any(|one| path.starts_with(one))
}

/// Classifies the entries in path order.
#[derive(Debug)]
pub(super) struct EntrySelector {
    /// For each requested path, whether an entry matched it.
    matched: Vec<bool>,
    /// The last excluded directory: the entries below it come next.
    excluded: Option<TreePath>,
}

impl EntrySelector {
    pub(super) fn new(scope: &RestoreScope) -> Self {
        Self { matched: vec![false; scope.paths.len()], excluded: None }
    }

    pub(super) fn select(&mut self, scope: &RestoreScope, path: &TreePath, is_dir: bool) -> EntrySelection {
        for (asked, matched) in scope.paths.iter().zip(&mut self.matched) {
            *matched |= path == asked;
        }
        if self.excluded.as_ref().is_some_and(|dir| path.starts_with(dir)) {
            return EntrySelection::Excluded;
        }
        let verdict = scope.select(path);
        if verdict != EntrySelection::Excluded && scope.excludes(path, is_dir) {
            self.excluded = is_dir.then(|| path.clone());
            return EntrySelection::Excluded;
        }
        verdict
    }

    /// Requested paths that no entry matched.
    pub(super) fn unmatched(self, scope: &RestoreScope) -> Vec<TreePath> {
        scope.paths.iter().zip(self.matched).filter(|(_, matched)| !matched).map(|(path, _)| path.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::restore::options::RestoreOptions;

    fn path(text: &str) -> TreePath {
        TreePath::new(text).unwrap()
    }

    fn scope(roots: &[&str], paths: &[&str], exclude: &[&str]) -> RestoreScope {
        RestoreScope::new(&RestoreOptions {
            roots: roots.iter().map(|p| path(p)).collect(),
            paths: paths.iter().map(|p| path(p)).collect(),
            exclude: exclude.iter().map(|&p| p.to_owned()).collect(),
            ..RestoreOptions::default()
        })
        .unwrap()
    }

    fn verdicts<const N: usize>(scope: &RestoreScope, paths: [(&str, bool); N]) -> [EntrySelection; N] {
        let mut selector = EntrySelector::new(scope);
        paths.map(|(p, is_dir)| selector.select(scope, &path(p), is_dir))
    }

    #[test]
    fn what_is_above_a_root_is_not_the_snapshots() {
        use EntrySelection::{Above, Selected};
        let s = scope(&["srv/app"], &[], &[]);
        let entries = [("", true), ("srv", true), ("srv/app", true), ("srv/app/x", false), ("srv/app.sql", false)];
        assert_eq!(verdicts(&s, entries), [Above, Above, Selected, Selected, Selected]);
        assert!(s.may_delete_at(&path("srv/app")) && s.may_delete_at(&path("srv/app/x")));
        assert!(!s.may_delete_at(&path("srv")) && !s.may_delete_at(&path("")) && !s.may_delete_at(&path("srv/apples")));
    }

    #[test]
    fn paths_narrow_and_tell_what_they_missed() {
        use EntrySelection::{Above, Excluded, Selected};
        let s = scope(&["srv"], &["srv/a", "srv/no"], &[]);
        let mut selector = EntrySelector::new(&s);
        let entries = [("srv", true), ("srv/a", true), ("srv/a/b", false), ("srv/ab", false)];
        let verdicts = entries.map(|(p, is_dir)| selector.select(&s, &path(p), is_dir));
        assert_eq!(verdicts, [Above, Selected, Selected, Excluded]);
        assert_eq!(selector.unmatched(&s), [path("srv/no")]);
        assert!(s.may_delete_at(&path("srv/a")) && !s.may_delete_at(&path("srv")));
        assert!(!scope(&[], &["srv"], &[]).may_delete_at(&path("srv")), "without roots nothing is deleted");
    }

    #[test]
    fn what_is_below_an_excluded_directory_stays_out() {
        use EntrySelection::{Excluded, Selected};
        let s = scope(&[""], &[], &["*.tmp", "/srv/cache/", "!keep.tmp"]);
        let entries =
            [("a.tmp", false), ("keep.tmp", false), ("srv/cache", true), ("srv/cache/x", false), ("srv/cached", false)];
        assert_eq!(verdicts(&s, entries), [Excluded, Selected, Excluded, Excluded, Selected]);
        assert!(!s.selects(&path("srv/cache/deep/x")) && s.selects(&path("srv/x/y")));
        assert!(!s.selects(&TreePath::new(b"\xff.tmp".to_vec()).unwrap()), "names need not be UTF-8");
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let options = RestoreOptions { exclude: vec!["[z-a]".to_owned()], ..RestoreOptions::default() };
        let error = RestoreScope::new(&options).unwrap_err().to_string();
        assert!(error.contains("[z-a]"), "{error}");
    }
}
