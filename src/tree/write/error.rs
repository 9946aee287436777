//! Errors of writing to a restore target.

use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::repo::entry::TreePath;

/// Why the target itself cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("target {}: {source}", path.display())]
pub struct TargetError {
    /// The target's path.
    pub path: PathBuf,
    /// The system's error.
    pub source: io::Error,
}

/// Why something could not be written below the target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {kind}", path.display())]
pub struct WriteError {
    /// The path concerned, below the target.
    pub path: TreePath,
    /// The cause.
    pub kind: WriteErrorKind,
}

/// The kinds of [`WriteError`]; they carry the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WriteErrorKind {
    /// No space, no inodes, or a quota. A smaller file may still fit.
    #[error("no space left in the target")]
    NoSpace,
    /// The target is mounted read-only: nothing can be written.
    #[error("the target is read-only")]
    ReadOnly,
    /// This user lacks the permission.
    #[error("permission denied")]
    Denied,
    /// A symbolic link or another non-directory stands where a directory is needed.
    #[error("a symbolic link or another non-directory is where a directory is needed")]
    Blocked,
    /// A directory that is not empty stands where another type of object is to be written.
    #[error("a directory that is not empty is in its place")]
    NotEmpty,
    /// Another process replaced the object, or gave it a further name, during the restore.
    #[error("it was changed during the restore")]
    Changed,
    /// A file system is mounted at the path; its content is left alone.
    #[error("a file system is mounted there")]
    MountPoint,
    /// The path does not exist.
    #[error("not found")]
    NotFound,
    /// Anything else.
    #[error("{}", io::Error::from(*.0))]
    Other(Errno),
}

impl WriteErrorKind {
    /// Whether every further write will fail for the same reason.
    pub fn is_fatal(self) -> bool {
        matches!(self, Self::ReadOnly)
    }
}

impl From<Errno> for WriteErrorKind {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace,
            Errno::ROFS => Self::ReadOnly,
            Errno::ACCESS | Errno::PERM => Self::Denied,
            Errno::LOOP | Errno::NOTDIR => Self::Blocked,
            Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR => Self::NotEmpty,
            Errno::BUSY => Self::MountPoint,
            Errno::NOENT => Self::NotFound,
            other => Self::Other(other),
        }
    }
}

/// Adds the path to a system error.
pub(crate) trait AttachPath<T> {
    fn at_path(self, path: &TreePath) -> Result<T, WriteError>;
}

impl<T> AttachPath<T> for rustix::io::Result<T> {
    fn at_path(self, path: &TreePath) -> Result<T, WriteError> {
        self.map_err(|errno| WriteError { path: path.clone(), kind: errno.into() })
    }
}

impl<T> AttachPath<T> for io::Result<T> {
    fn at_path(self, path: &TreePath) -> Result<T, WriteError> {
        self.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO)).at_path(path)
    }
}
