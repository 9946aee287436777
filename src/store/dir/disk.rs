//! The seam under the directory store: everything that changes the file system, and its locks, goes through [`Disk`], so that a test can
//! stand in between and find out what would be left if the power failed after any one of these steps.

use std::fmt::Debug;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{CWD, RenameFlags};

/// The changes that a directory store makes. All paths are absolute or relative to the working directory.
pub trait Disk: Debug + Send + Sync {
    /// Creates a file that must not exist yet, mode 0600.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// A second name for a file, `link(2)`; fails with `AlreadyExists` if the name is taken.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// `rename(2)`, replacing what is at `to`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// `renameat2(2)` with `RENAME_NOREPLACE`; fails with `AlreadyExists` if the name is taken.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// `unlink(2)`.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// `mkdir(2)`, mode 0700; fails with `AlreadyExists` if the name is taken.
    fn make_dir(&self, path: &Path) -> io::Result<()>;

    /// `fsync(2)` of a directory: the names in it are durable afterwards.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Takes the exclusive `flock(2)` of the file at `path`, without waiting; `WouldBlock` while somebody else has it. With
    /// `make` a missing file is made, mode 0600, else it is `NotFound`. Closing the file gives the lock back, and so
    /// does the kernel when the process dies.
    fn lock(&self, path: &Path, make: bool) -> io::Result<File>;
}

/// A file being written.
pub trait DiskFile: Send {
    /// Appends all of `bytes`.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// `fdatasync(2)`: what was written is durable afterwards. After an error the kernel may have dropped the pages and call
    /// them clean, so a second try on the same file would lie.
    fn sync(&mut self) -> io::Result<()>;

    /// When the file system says that it was changed last: on a network file system by its server's clock.
    fn modified(&self) -> io::Result<Timestamp> {
        Err(ErrorKind::Unsupported.into())
    }
}

/// The kernel's.
#[derive(Debug, Clone, Copy)]
pub struct HostDisk;

impl Disk for HostDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Box::new(file))
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn make_dir(&self, path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path, make: bool) -> io::Result<File> {
        // Writable, although nothing is written: NFS gives no exclusive lock otherwise.
        let file = OpenOptions::new().read(true).write(true).create(make).truncate(false).mode(0o600).open(path)?;
        file.try_lock().map_err(|e| match e {
            TryLockError::WouldBlock => ErrorKind::WouldBlock.into(),
            TryLockError::Error(e) => e,
        })?;
        // Somebody may have tidied the file away between the two steps; the next one would lock another.
        let locked = file.metadata()?;
        match fs::metadata(path) {
            Ok(there) if (locked.dev(), locked.ino()) == (there.dev(), there.ino()) => Ok(file),
            Err(e) if e.kind() != ErrorKind::NotFound => Err(e),
            _ => Err(ErrorKind::WouldBlock.into()),
        }
    }
}

impl DiskFile for File {
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
