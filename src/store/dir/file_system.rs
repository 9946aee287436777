//! The interface under the directory store. Everything that changes the file system, and its locks, goes through
//! [`FileSystem`], so that a test can intercept it and check what would be left if the power failed after any one of
//! these steps.

use std::fmt::Debug;
use std::fs::{File, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;

use jiff::Timestamp;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::open_dir::{FileAt, OpenDir};

/// The changes that a directory store makes. Each works in an open directory and follows no link.
pub trait FileSystem: Debug + Send + Sync {
    /// Creates a file that must not exist yet, mode 0600.
    fn create(&self, at: &FileAt) -> io::Result<Box<dyn WritableFile>>;

    /// A second name for a file, `link(2)`; fails with `AlreadyExists` if the name is taken.
    fn link(&self, from: &FileAt, to: &FileAt) -> io::Result<()>;

    /// `rename(2)`, replacing what is at `to`.
    fn rename(&self, from: &FileAt, to: &FileAt) -> io::Result<()>;

    /// `renameat2(2)` with `RENAME_NOREPLACE`; fails with `AlreadyExists` if the name is taken.
    fn rename_new(&self, from: &FileAt, to: &FileAt) -> io::Result<()>;

    /// `unlink(2)`.
    fn remove(&self, at: &FileAt) -> io::Result<()>;

    /// `mkdir(2)`, mode 0700; fails with `AlreadyExists` if the name is taken.
    fn make_dir(&self, at: &FileAt) -> io::Result<()>;

    /// `fsync(2)` of a directory: the names in it are durable afterwards.
    fn sync_dir(&self, dir: &OpenDir) -> io::Result<()>;

    /// Takes the exclusive `flock(2)` of the file `at`, without waiting; `WouldBlock` while another process has it.
    /// With `make` a missing file is made, mode 0600, else it is `NotFound`. Closing the file releases the lock, and so
    /// does the kernel when the process dies.
    fn lock(&self, at: &FileAt, make: bool) -> io::Result<File>;
}

/// A file being written.
pub trait WritableFile: Send {
    /// Appends all of `bytes`.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// `fdatasync(2)`: what was written is durable afterwards. After an error the kernel may have dropped the pages and
    /// marked them clean, so a second try on the same file would report a false success.
    fn sync(&mut self) -> io::Result<()>;

    /// The file's modification time by the file system's clock; on a network file system the server's.
    fn modified(&self) -> io::Result<Timestamp> {
        Err(ErrorKind::Unsupported.into())
    }
}

/// The real file system.
#[derive(Debug, Clone, Copy)]
pub struct HostFileSystem;

impl FileSystem for HostFileSystem {
    fn create(&self, at: &FileAt) -> io::Result<Box<dyn WritableFile>> {
        Ok(Box::new(at.open(OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL, Mode::RUSR | Mode::WUSR)?))
    }

    fn link(&self, from: &FileAt, to: &FileAt) -> io::Result<()> {
        Ok(rustix::fs::linkat(from.dir(), from.name(), to.dir(), to.name(), AtFlags::empty())?)
    }

    fn rename(&self, from: &FileAt, to: &FileAt) -> io::Result<()> {
        Ok(rustix::fs::renameat(from.dir(), from.name(), to.dir(), to.name())?)
    }

    fn rename_new(&self, from: &FileAt, to: &FileAt) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(from.dir(), from.name(), to.dir(), to.name(), RenameFlags::NOREPLACE)?)
    }

    fn remove(&self, at: &FileAt) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(at.dir(), at.name(), AtFlags::empty())?)
    }

    fn make_dir(&self, at: &FileAt) -> io::Result<()> {
        Ok(rustix::fs::mkdirat(at.dir(), at.name(), Mode::RWXU)?)
    }

    fn sync_dir(&self, dir: &OpenDir) -> io::Result<()> {
        Ok(rustix::fs::fsync(dir.readable()?)?)
    }

    fn lock(&self, at: &FileAt, make: bool) -> io::Result<File> {
        let file = match open_lock(at, make) {
            Err(e) if is_no_file(&e) && remove_non_file(at)? => open_lock(at, true)?,
            opened => opened?,
        };
        file.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => ErrorKind::WouldBlock.into(),
            TryLockError::Error(e) => e,
        })?;
        // Another process may have removed the file between the two steps; the next caller would lock a different file.
        let locked = file.metadata()?;
        match rustix::fs::statat(at.dir(), at.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) if (locked.dev(), locked.ino()) == (there.st_dev, there.st_ino) => Ok(file),
            Err(e) if io::Error::from(e).kind() != ErrorKind::NotFound => Err(e.into()),
            _ => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

fn open_lock(at: &FileAt, make: bool) -> io::Result<File> {
    // Opened for writing, although nothing is written: NFS gives no exclusive lock otherwise.
    let make = if make { OFlags::CREATE } else { OFlags::empty() };
    at.open(OFlags::RDWR | make, Mode::RUSR | Mode::WUSR)
}

/// Whether the error means that a FIFO, a link, a socket, a device or a directory is there.
fn is_no_file(e: &io::Error) -> bool {
    matches!(Errno::from_io_error(e), Some(Errno::LOOP | Errno::NXIO | Errno::NODEV))
        || matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::IsADirectory)
}

/// Removes an object that is no file from the place of a lock file, so that the file can be made. `false` if this file
/// system has no lock on directories; that lock keeps this call from removing a file that another process has just
/// made.
fn remove_non_file(at: &FileAt) -> io::Result<bool> {
    let dir = File::from(at.dir().readable()?);
    match dir.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(ErrorKind::WouldBlock.into()),
        Err(TryLockError::Error(_)) => return Ok(false),
    }
    let kind = match rustix::fs::statat(at.dir(), at.name(), AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
        Err(Errno::NOENT) => return Ok(true),
        Err(e) => return Err(e.into()),
    };
    let flags = match kind {
        FileType::RegularFile => return Ok(true),
        FileType::Directory => AtFlags::REMOVEDIR,
        _ => AtFlags::empty(),
    };
    match rustix::fs::unlinkat(at.dir(), at.name(), flags) {
        Ok(()) => {
            tracing::warn!(path = %at.path().display(), "something in the place of a lock file was no file, and is \
                                                         removed");
            Ok(true)
        }
        // A directory that is not empty stays: its content does not belong to the store.
        Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
        Err(e) => Err(e.into()),
    }
}

impl WritableFile for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        Write::write_all(self, bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn modified(&self) -> io::Result<Timestamp> {
        Timestamp::try_from(self.metadata()?.modified()?).map_err(io::Error::other)
    }
}
