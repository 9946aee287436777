//! The metadata of one object, from `statx(2)`.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Statx, StatxFlags};

use crate::repo::entry::UnixNanos;
use crate::tree::flags::FileFlags;

/// The type of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A socket.
    Socket,
    /// A type that Linux does not define: a damaged file system.
    Unknown,
}

impl From<rustix::fs::FileType> for FileType {
    fn from(kind: rustix::fs::FileType) -> Self {
        use rustix::fs::FileType as F;
        match kind {
            F::RegularFile => Self::File,
            F::Directory => Self::Dir,
            F::Symlink => Self::Symlink,
            F::Fifo => Self::Fifo,
            F::CharacterDevice => Self::CharDevice,
            F::BlockDevice => Self::BlockDevice,
            F::Socket => Self::Socket,
            F::Unknown => Self::Unknown,
        }
    }
}

/// The metadata of one object, as far as one call returns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// The type of the object.
    pub kind: FileType,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u16,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Size in bytes; of a symbolic link the length of its target.
    pub size: u64,
    /// When the content last changed.
    pub mtime: UnixNanos,
    /// When content or metadata last changed; a user program cannot set it.
    pub ctime: UnixNanos,
    /// The device number of its file system. Not stable over reboots; on overlayfs files may differ from their
    /// directory.
    pub dev: u64,
    /// The inode number within the file system.
    pub ino: u64,
    /// Number of names (hard links) of the object.
    pub nlink: u32,
    /// Major and minor number, if it is a device.
    pub rdev: (u32, u32),
    /// Allocated space in units of 512 bytes.
    pub blocks: u64,
    /// The file flags that are part of an entry.
    pub flags: FileFlags,
}

/// Reading metadata must never mount a file system.
const FLAGS: AtFlags = AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::NO_AUTOMOUNT);

/// Identifies an object of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectId {
    /// The device number of the file system.
    pub dev: u64,
    /// The inode number.
    pub ino: u64,
}

impl Stat {
    /// The metadata of `name` in the directory `dir`; of a symbolic link itself, not of its target.
    pub fn at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Self> {
        Ok(Self::from(&rustix::fs::statx(dir, name, FLAGS, StatxFlags::BASIC_STATS)?))
    }

    /// The metadata of an open object.
    pub fn of(fd: impl AsFd) -> io::Result<Self> {
        let flags = FLAGS.union(AtFlags::EMPTY_PATH);
        Ok(Self::from(&rustix::fs::statx(fd.as_fd(), c"", flags, StatxFlags::BASIC_STATS)?))
    }

    /// The identity of the object, independent of its name.
    pub fn object(&self) -> ObjectId {
        ObjectId { dev: self.dev, ino: self.ino }
    }

    /// Whether the object has further names, here or elsewhere. Always false for a directory, whose link count counts
    /// its subdirectories.
    pub fn has_more_names(&self) -> bool {
        self.nlink > 1 && self.kind != FileType::Dir
    }

    /// Whether `other`, taken later, shows the same object with the same content: it was not written to in between.
    pub fn unchanged_in(&self, other: &Stat) -> bool {
        let of = |s: &Stat| (s.kind, s.dev, s.ino, s.size, s.mtime, s.ctime);
        of(self) == of(other)
    }
}

impl From<&Statx> for Stat {
    fn from(x: &Statx) -> Self {
        Self {
            kind: rustix::fs::FileType::from_raw_mode(x.stx_mode.into()).into(),
            mode: x.stx_mode & 0o7777,
            uid: x.stx_uid,
            gid: x.stx_gid,
            size: x.stx_size,
            mtime: UnixNanos::new(x.stx_mtime.tv_sec, x.stx_mtime.tv_nsec),
            ctime: UnixNanos::new(x.stx_ctime.tv_sec, x.stx_ctime.tv_nsec),
            dev: rustix::fs::makedev(x.stx_dev_major, x.stx_dev_minor),
            ino: x.stx_ino,
            nlink: x.stx_nlink,
            rdev: (x.stx_rdev_major, x.stx_rdev_minor),
            blocks: x.stx_blocks,
            flags: FileFlags::of_statx(x.stx_attributes),
        }
    }
}
