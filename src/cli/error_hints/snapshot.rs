//! Errors of the commands that read a snapshot.

use std::io;

use crate::cli::error_hints::policy::{CommandPolicy, ErrorPolicy, failed, hinted};
use crate::cli::exit::ExitKind;
use crate::cli::render::browse::escaped;
use crate::job::browse::error::{BrowseError, PathHint};
use crate::job::browse::select::SelectError;
use crate::job::restore::error::RestoreError;
use crate::job::restore::source::SourceErrorKind;
use crate::repo::entry::EntryKind;

impl CommandPolicy for SelectError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            SelectError::Syntax(_) => hinted(ExitKind::Usage, "'runner snapshots ROLE' lists what there is."),
            SelectError::Ambiguous { .. } => failed("give more characters of the ID."),
            SelectError::NoSnapshots => failed("'runner backup ROLE' makes the first one."),
            SelectError::NoSuchId(_) | SelectError::TooFewSnapshots { .. } | SelectError::NoneBefore { .. } => {
                failed("'runner snapshots ROLE' lists what there is.")
            }
        }
    }
}

/// Similar paths that may have been meant are part of the hint.
impl CommandPolicy for BrowseError {
    fn policy(&self) -> ErrorPolicy {
        let advice = match self {
            BrowseError::NotFound { hint: Some(PathHint::Near(path)), .. } => {
                format!("did you mean {}?", path.display())
            }
            BrowseError::NotFound { hint: Some(PathHint::Link { at, target }), .. } => {
                format!("{} is a symbolic link to {}: look there.", at.display(), escaped(target))
            }
            BrowseError::NotFound { hint: None, .. } => {
                "'runner find ROLE NAME --snapshot all' looks for it everywhere.".to_owned()
            }
            BrowseError::NotAFile { kind: EntryKind::Dir, .. } => "'runner ls' lists what is in it.".to_owned(),
            BrowseError::NotAFile { .. } => "'runner restore --path' writes it back.".to_owned(),
            BrowseError::Unsound { .. } => "'runner verify ROLE' names everything that is damaged.".to_owned(),
            BrowseError::Pattern { .. } => return hinted(ExitKind::Usage, "write it as in a .gitignore file."),
            BrowseError::Repo(error) => return error.policy(),
            BrowseError::Output(error) => return error.policy(),
        };
        failed(advice)
    }
}

impl CommandPolicy for RestoreError {
    fn policy(&self) -> ErrorPolicy {
        match self {
            RestoreError::Target(error) => match error.source.kind() {
                io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => {
                    failed("there is a file in its place or on the path to it: name a directory with --target.")
                }
                io::ErrorKind::PermissionDenied => {
                    failed("run it as root (sudo runner …), or choose a directory that this user may write to.")
                }
                _ => failed("choose another directory with --target."),
            },
            RestoreError::Write { .. } => failed(
                "make room or choose another --target, then run it again: what is complete is not fetched again.",
            ),
            RestoreError::Source(source) if source.kind == SourceErrorKind::Unavailable => {
                failed("run it again when the store answers: what is complete is not fetched again.")
            }
            RestoreError::Source(_) | RestoreError::Unsorted { .. } => {
                failed("'runner verify ROLE' names what is damaged; an older --snapshot may be whole.")
            }
            RestoreError::Pattern { .. } => failed("write it as in a .gitignore file."),
            RestoreError::Broken(_) => failed("run it again with -vv and report what it logs."),
        }
    }
}
