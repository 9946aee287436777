//! What may be wrong with one path of a tree while the rest of it is fine.

use std::io;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::repo::entry::TreePath;

/// Something about one path that a person should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathProblem {
    /// Which path.
    pub path: TreePath,
    /// What.
    pub kind: PathProblemKind,
}

/// The kinds of [`PathProblem`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathProblemKind {
    /// It could not be read, and is not in the snapshot (or only by name). Counts as unreadable: exit 6.
    Unreadable(String),
    /// It kept changing while it was read; the snapshot has what was read last.
    Changed,
    /// It went away, or became something else, between the listing and the read.
    Vanished,
    /// A socket: nothing to back up.
    Socket,
    /// An attribute (ACL, extended attribute) could not be read; the content is there.
    Attribute(String),
}

impl PathProblem {
    /// What it means that `path` could not be opened, listed or read.
    pub fn io(path: TreePath, error: &io::Error) -> Self {
        // A path is resolved without following links: that there is one now, or a file where a directory was, means
        // that what was listed is gone.
        let gone = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].map(Some).contains(&Errno::from_io_error(error));
        let kind = if gone { PathProblemKind::Vanished } else { PathProblemKind::Unreadable(error.to_string()) };
        Self { path, kind }
    }
}
