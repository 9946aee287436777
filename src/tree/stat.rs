//! What `statx(2)` says about one object.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{AtFlags, Statx, StatxFlags};

use crate::repo::entry::UnixNanos;
use crate::tree::flags::FileFlags;

/// What kind of object stands under a name.
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
    /// Something that Linux has no name for: a damaged file system.
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

/// The metadata of one object, as far as one call tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// What it is.
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
    /// When content or metadata last changed; nobody can set it.
    pub ctime: UnixNanos,
    /// The file system it is on. Not stable over reboots; on overlayfs files may differ from their directory.
    pub dev: u64,
    /// The number within the file system.
    pub ino: u64,
    /// How many names it has.
    pub nlink: u32,
    /// Major and minor number, if it is a device.
    pub rdev: (u32, u32),
    /// Allocated space in units of 512 bytes.
    pub blocks: u64,
    /// The flags that are part of it.
    pub flags: FileFlags,
}

/// Never mount anything just to look at it.
const FLAGS: AtFlags = AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::NO_AUTOMOUNT);

/// Which object of the file system something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ObjectId {
    /// The file system.
    pub dev: u64,
    /// The inode.
    pub ino: u64,
}

impl Stat {
    /// Of `name` in the directory `dir`; of a symbolic link itself.
    pub fn at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Self> {
        Ok(Self::from(&rustix::fs::statx(dir, name, FLAGS, StatxFlags::BASIC_STATS)?))
    }

    /// Of an open object.
    pub fn of(fd: impl AsFd) -> io::Result<Self> {
        let flags = FLAGS.union(AtFlags::EMPTY_PATH);
        Ok(Self::from(&rustix::fs::statx(fd.as_fd(), c"", flags, StatxFlags::BASIC_STATS)?))
    }

    /// Which object of the file system it is, whatever its name.
    pub fn object(&self) -> ObjectId {
        ObjectId { dev: self.dev, ino: self.ino }
    }

    /// Whether it has other names, here or elsewhere. A directory has none: what counts as its links are those below it.
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
