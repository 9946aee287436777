//! Problems that concern one path of a tree while the rest of the backup goes on.

use std::io;

use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::repo::entry::TreePath;

/// A problem with one path that a person should know of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathProblem {
    /// The path concerned.
    pub path: TreePath,
    /// What happened to it.
    pub kind: PathProblemKind,
}

/// The kinds of [`PathProblem`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PathProblemKind {
    /// The path could not be read, and is missing in the snapshot or there without content. Counts as unreadable: exit
    /// 6.
    Unreadable(String),
    /// The file kept changing while it was read; the snapshot has what was read last.
    Changed,
    /// The path went away, or its type changed, between the listing and the read.
    Vanished,
    /// A socket: there is nothing to back up.
    Socket,
    /// An attribute (ACL, extended attribute) could not be read; the content is there.
    Attribute(String),
}

impl PathProblem {
    /// The problem that an I/O error means when `path` could not be opened, listed or read.
    pub fn io(path: TreePath, error: &io::Error) -> Self {
        // Paths are resolved without following links. A link now, or a file where a directory was, means that the
        // listed object is gone.
        let gone = [Errno::NOENT, Errno::NOTDIR, Errno::LOOP].map(Some).contains(&Errno::from_io_error(error));
        let kind = if gone { PathProblemKind::Vanished } else { PathProblemKind::Unreadable(error.to_string()) };
        Self { path, kind }
    }
}
