//! Directories and files below a store's root, by descriptor. The path to the root is the operator's, and may contain
//! links; the content below can be written by every user with access to the store. So no link below the root is
//! followed, and no open can block: the type of a file is checked before it is read.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A FIFO is opened without waiting, a terminal does not become this process's, and a link is an error.
const CAREFUL: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

const BENEATH: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS);

/// An open directory. Operations work on this directory even if its path leads elsewhere meanwhile.
#[derive(Debug)]
pub struct OpenDir {
    fd: OwnedFd,
    path: PathBuf,
    openat2: bool,
}

/// A name in an open directory.
#[derive(Debug, Clone)]
pub struct FileAt {
    dir: Arc<OpenDir>,
    name: OsString,
}

impl OpenDir {
    /// Opens the directory at `path`. Links are followed: the operator chose the path.
    ///
    /// # Errors
    /// The directory does not exist, or may not be entered.
    pub fn root(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // The dot makes the kernel mount a file system that is mounted on demand.
        let fd = rustix::fs::openat(CWD, path.join("."), flags, Mode::empty())?;
        Ok(Self { fd, path: path.to_owned(), openat2: has_openat2() })
    }

    #[cfg(test)]
    pub(super) fn without_openat2(mut self) -> Self {
        self.openat2 = false;
        self
    }

    /// The path at the time of the open, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode number.
    ///
    /// # Errors
    /// The metadata cannot be read.
    pub fn id(&self) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::fstat(&self.fd)?;
        Ok((stat.st_dev, stat.st_ino))
    }

    /// Opens the directory at `path` below this one; an empty path is this one.
    ///
    /// # Errors
    /// `ELOOP` if a component is a link.
    pub fn dir(&self, path: &str) -> io::Result<Self> {
        let path = path.trim_end_matches('/');
        let fd = if path.is_empty() {
            rustix::fs::openat(&self.fd, ".", DIRECTORY, Mode::empty())?
        } else {
            self.open(path, DIRECTORY)?
        };
        Ok(Self { fd, path: self.path.join(path), openat2: self.openat2 })
    }

    /// Opens the regular file at `path` below this directory for reading.
    ///
    /// # Errors
    /// `ELOOP` if a component is a link; [`ErrorKind::IsADirectory`] for a directory; [`ErrorKind::InvalidInput`] for
    /// anything else that is no regular file.
    pub fn file(&self, path: &str) -> io::Result<File> {
        require_regular(self.open(path, OFlags::RDONLY | CAREFUL)?.into())
    }

    /// The directory opened for listing or `fsync(2)`.
    ///
    /// # Errors
    /// The directory may not be read.
    pub fn readable(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.fd, ".", flags, Mode::empty())?)
    }

    fn open(&self, path: &str, flags: OFlags) -> io::Result<OwnedFd> {
        if self.openat2 {
            // Otherwise the link itself would be opened, and fail as no directory.
            let flags = flags.difference(OFlags::NOFOLLOW);
            return Ok(rustix::fs::openat2(&self.fd, path, flags, Mode::empty(), BENEATH)?);
        }
        let mut at: Option<OwnedFd> = None;
        let mut components = path.split('/').peekable();
        while let Some(name) = components.next() {
            let from = at.as_ref().map_or(self.fd.as_fd(), AsFd::as_fd);
            let flags = if components.peek().is_some() { DIRECTORY } else { flags };
            at = Some(match rustix::fs::openat(from, name, flags, Mode::empty()) {
                Err(Errno::NOTDIR) if is_link(from, name) => return Err(Errno::LOOP.into()),
                opened => opened?,
            });
        }
        at.ok_or_else(|| ErrorKind::InvalidInput.into())
    }
}

impl AsFd for OpenDir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl FileAt {
    /// `name`, one component, in `dir`.
    pub fn new(dir: Arc<OpenDir>, name: impl Into<OsString>) -> Self {
        Self { dir, name: name.into() }
    }

    /// The file that `path` names. Links in its directory part are followed, a link at its end is not.
    ///
    /// # Errors
    /// The directory does not exist, or `path` does not end in a name.
    pub fn of(path: &Path) -> io::Result<Self> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(ErrorKind::InvalidInput.into());
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        Ok(Self::new(Arc::new(OpenDir::root(parent)?), name))
    }

    /// Another name in the same directory.
    pub fn beside(&self, name: impl Into<OsString>) -> Self {
        Self { dir: Arc::clone(&self.dir), name: name.into() }
    }

    /// The directory that contains the name.
    pub fn dir(&self) -> &OpenDir {
        &self.dir
    }

    /// The name in its directory.
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// The path at the time the directory was opened, for messages.
    pub fn path(&self) -> PathBuf {
        self.dir.path.join(&self.name)
    }

    /// Opens the file with `flags`, and with `mode` if it is created. It must be a regular file; a link is not
    /// followed.
    ///
    /// # Errors
    /// As for [`OpenDir::file`].
    pub fn open(&self, flags: OFlags, mode: Mode) -> io::Result<File> {
        require_regular(rustix::fs::openat(&self.dir.fd, &self.name, flags | CAREFUL, mode)?.into())
    }
}

/// Returns `file` if it is a regular file.
fn require_regular(file: File) -> io::Result<File> {
    let kind = file.metadata()?.file_type();
    if kind.is_file() {
        Ok(file)
    } else if kind.is_dir() {
        Err(ErrorKind::IsADirectory.into())
    } else {
        Err(io::Error::new(ErrorKind::InvalidInput, "not a regular file"))
    }
}

fn is_link(dir: BorrowedFd<'_>, name: &str) -> bool {
    let stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Symlink)
}

/// Whether the kernel has `openat2`. Kernels before 5.6 and some container filters do not; every component is then
/// opened on its own.
fn has_openat2() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| rustix::fs::openat2(CWD, ".", DIRECTORY, Mode::empty(), BENEATH).is_ok())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn errno(e: &io::Error) -> Option<Errno> {
        Errno::from_io_error(e)
    }

    #[test]
    fn no_link_is_followed_and_nothing_is_waited_for_in_either_way() {
        let base = tempfile::tempdir().unwrap();
        let real = base.path().join("real");
        std::fs::create_dir_all(real.join("a/b")).unwrap();
        std::fs::write(real.join("a/b/file"), "x").unwrap();
        symlink("b", real.join("a/dir")).unwrap();
        symlink("b/file", real.join("a/link")).unwrap();
        symlink("/nowhere", real.join("a/dangling")).unwrap();
        nix::unistd::mkfifo(&real.join("a/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(real.join("a/socket")).unwrap();
        // The root may be a link.
        symlink(&real, base.path().join("root")).unwrap();
        let root = || OpenDir::root(&base.path().join("root")).unwrap();
        for root in [root(), root().without_openat2()] {
            assert!(root.file("a/b/file").is_ok());
            assert!(root.dir("a/b/").is_ok() && root.dir("").is_ok());
            for link in ["a/link", "a/dir/file", "a/dangling"] {
                assert_eq!(errno(&root.file(link).unwrap_err()), Some(Errno::LOOP), "{link}");
            }
            assert_eq!(errno(&root.dir("a/dir").unwrap_err()), Some(Errno::LOOP));
            assert_eq!(root.file("a/fifo").unwrap_err().kind(), ErrorKind::InvalidInput);
            assert_eq!(errno(&root.file("a/socket").unwrap_err()), Some(Errno::NXIO));
            assert_eq!(root.file("a/b").unwrap_err().kind(), ErrorKind::IsADirectory);
            assert_eq!(root.file("a/none").unwrap_err().kind(), ErrorKind::NotFound);
            assert_eq!(root.file("a/b/file/below").unwrap_err().kind(), ErrorKind::NotADirectory);

            let at = FileAt::new(Arc::new(root.dir("a").unwrap()), "dangling");
            let made = at.open(OFlags::RDWR | OFlags::CREATE, Mode::RUSR).unwrap_err();
            assert_eq!(errno(&made), Some(Errno::LOOP), "nothing is made through a link");
            let fifo = at.beside("fifo").open(OFlags::RDWR, Mode::empty()).unwrap_err();
            assert_eq!(fifo.kind(), ErrorKind::InvalidInput);
        }
    }
}
