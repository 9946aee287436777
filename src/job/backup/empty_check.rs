//! Decides whether an empty result can be intended: a source without files is probably an unmounted volume, and a
//! snapshot without files is not a backup, unless the config allows it. Pure.

use crate::job::error::BackupError;
use crate::repo::entry::{EntryKind, ManifestEntry, TreePath};
use crate::tree::problem::PathProblem;

/// Counts of one source, now and in the newest snapshot. The source itself is an entry too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SourceCount {
    pub(crate) path: TreePath,
    /// Entries that exist, or are kept because they could not be read.
    pub(crate) entries: u64,
    /// Those of `entries` that are not directories.
    pub(crate) files: u64,
    pub(crate) entries_before: u64,
    pub(crate) files_before: u64,
    /// Something of the source could not be read, so it may not be empty.
    pub(crate) unread: bool,
}

impl SourceCount {
    pub(crate) fn new(path: TreePath) -> Self {
        Self { path, entries: 0, files: 0, entries_before: 0, files_before: 0, unread: false }
    }

    /// Counts of a dump. If the role may not be empty, an empty dump has failed before.
    pub(crate) fn of_dump(entry: &ManifestEntry) -> Self {
        let printed = matches!(entry.kind, EntryKind::File { size: 1.., .. });
        Self { entries: 1, files: u64::from(printed), ..Self::new(entry.path.clone()) }
    }

    fn is_empty(&self) -> bool {
        self.files == 0 && !self.unread
    }

    /// The source had files and has none, or had directories and has nothing: the mount points stay when volumes are
    /// unmounted.
    /// volumes go.
    fn was_emptied(&self) -> bool {
        self.is_empty() && (self.files_before > 0 || self.entries <= 1 && self.entries_before > 1)
    }
}

/// Counts of all sources and dumps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ContentTotals {
    /// Entries that are not directories.
    pub(crate) content: u64,
    /// Symbolic links among them.
    pub(crate) links: u64,
    /// Bytes of the regular files among them, as they were read.
    pub(crate) bytes: u64,
    /// The role has no snapshot yet.
    pub(crate) first: bool,
    pub(crate) unreadable: u64,
    /// One of the problems.
    pub(crate) problem: Option<PathProblem>,
}

/// Refuses an unintended empty result; returns the sources without files.
///
/// # Errors
/// A source lost all its files, or there is nothing to store: no entry, or in a first snapshot nothing but empty files,
/// pipes and devices. Links count as content.
pub(crate) fn check_not_empty(
    allow_empty: bool,
    sources: &[SourceCount],
    found: &ContentTotals,
) -> Result<Vec<TreePath>, BackupError> {
    let empty = || sources.iter().filter(|source| source.is_empty()).map(|source| source.path.clone()).collect();
    if allow_empty {
        return Ok(empty());
    }
    if let Some(source) = sources.iter().find(|source| source.was_emptied()) {
        let before = source.files_before.max(1);
        return Err(BackupError::EmptySource { source_path: source.path.clone(), before });
    }
    match found {
        ContentTotals { content: count @ 1.., bytes: 0, links: 0, first: true, unreadable: 0, .. } => {
            Err(BackupError::NoContent { count: *count })
        }
        ContentTotals { content: 1.., .. } => Ok(empty()),
        ContentTotals { unreadable: count @ 1.., problem, .. } => {
            Err(BackupError::NothingRead { count: *count, problem: problem.clone() })
        }
        ContentTotals { .. } => Err(BackupError::Nothing { sources: empty() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::problem::PathProblemKind;

    fn source(name: &str, (entries, files): (u64, u64), (entries_before, files_before): (u64, u64)) -> SourceCount {
        let path = TreePath::new(name).unwrap();
        SourceCount { path, entries, files, entries_before, files_before, unread: false }
    }

    /// The message about these sources, and the number of sources that are recorded as empty if the role may be empty.
    fn said(sources: &[SourceCount], found: &ContentTotals) -> (String, usize) {
        let strict =
            check_not_empty(false, sources, found).map_or_else(|e| e.to_string(), |empty| format!("{empty:?}"));
        (strict, check_not_empty(true, sources, found).unwrap().len())
    }

    fn content(content: u64) -> ContentTotals {
        ContentTotals { content, bytes: content, ..ContentTotals::default() }
    }

    #[test]
    fn a_first_snapshot_of_names_alone_is_refused_unless_there_are_links() {
        let one = [source("a", (3, 2), (0, 0))];
        let names = ContentTotals { content: 2, first: true, ..ContentTotals::default() };
        let refused = "there is nothing to store: all that was found is 2 empty files, pipes or devices";
        assert_eq!(said(&one, &names).0, refused);
        for found in [
            ContentTotals { bytes: 1, ..names.clone() },
            ContentTotals { links: 1, ..names.clone() },
            ContentTotals { first: false, ..names.clone() },
            ContentTotals { unreadable: 1, ..names.clone() },
        ] {
            assert_eq!(said(&one, &found), ("[]".to_owned(), 0), "{found:?}");
        }
        assert!(check_not_empty(true, &one, &names).is_ok());
    }

    #[test]
    fn a_snapshot_without_a_file_is_refused_the_first_time_and_every_time() {
        for before in [(0, 0), (1, 0)] {
            let one = [source("srv/app", (1, 0), before)];
            let nothing = "there is nothing to store: /srv/app holds no file that is not excluded";
            assert_eq!(said(&one, &content(0)), (nothing.to_owned(), 1));
        }
        let two = [source("a", (3, 0), (0, 0)), source("b", (1, 0), (0, 0))];
        let nothing = "there is nothing to store: /a, /b hold no file that is not excluded";
        assert_eq!(said(&two, &content(0)), (nothing.to_owned(), 2), "directories are nothing to restore");
    }

    #[test]
    fn one_empty_source_of_several_is_named_and_a_dump_is_content() {
        let two = [source("a", (1, 0), (0, 0)), source("b", (2, 1), (0, 0))];
        assert_eq!(said(&two, &content(1)), ("[/a]".to_owned(), 1));
        assert_eq!(said(&two[..1], &content(1)), ("[/a]".to_owned(), 1), "beside a dump");
        assert_eq!(said(&[], &content(1)), ("[]".to_owned(), 0), "dumps alone");
    }

    #[test]
    fn a_source_that_lost_its_files_is_refused_also_where_the_mount_points_stay() {
        for now in [(1, 0), (4, 0)] {
            let two = [source("a", now, (9, 5)), source("b", (2, 1), (2, 1))];
            assert_eq!(said(&two, &content(1)).0, "/a holds no file, and held 5 in the newest snapshot");
        }
        let dirs = [source("a", (1, 0), (3, 0)), source("b", (2, 1), (2, 1))];
        assert!(check_not_empty(false, &dirs, &content(1)).is_err(), "the directories went");
    }

    #[test]
    fn what_could_not_be_read_is_not_called_empty() {
        let blind = SourceCount { unread: true, ..source("a", (1, 0), (9, 5)) };
        let other = source("b", (2, 1), (2, 1));
        assert_eq!(said(&[blind.clone(), other], &ContentTotals { unreadable: 1, ..content(1) }), ("[]".to_owned(), 0));
        let kind = PathProblemKind::Unreadable("Permission denied".to_owned());
        let problem = PathProblem { path: TreePath::new("a").unwrap(), kind };
        let found = ContentTotals { unreadable: 2, problem: Some(problem), ..ContentTotals::default() };
        let refused = "nothing could be read, and 2 paths could not: /a: Permission denied";
        assert_eq!(said(&[blind], &found).0, refused);
    }
}
