//! What the target has at a path before a restore writes there.

use rustix::fs::{FileType, Stat};

use crate::repo::entry::UnixNanos;

/// The metadata of an object that exists below the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExistingObject {
    /// The type of the object.
    pub kind: FileType,
    /// The size in bytes.
    pub size: u64,
    /// When the content last changed.
    pub mtime: UnixNanos,
    /// The low 12 bits of the mode.
    pub mode: u16,
    /// The numeric owner.
    pub uid: u32,
    /// The numeric group.
    pub gid: u32,
    /// Device and inode number: equal for two names of one file.
    pub inode: (u64, u64),
    /// The link count; for a directory it includes its subdirectories.
    pub names: u64,
    /// Major and minor number of a device file.
    pub device: (u32, u32),
}

impl ExistingObject {
    /// Whether the object has further names: a change under this name is a change under those too, wherever they are.
    pub fn has_more_names(&self) -> bool {
        self.names > 1 && !self.is_dir()
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }
}

impl From<Stat> for ExistingObject {
    fn from(s: Stat) -> Self {
        Self {
            kind: FileType::from_raw_mode(s.st_mode),
            size: s.st_size as u64,
            mtime: UnixNanos::new(s.st_mtime as _, s.st_mtime_nsec as _),
            mode: (s.st_mode & 0o7777) as u16,
            uid: s.st_uid,
            gid: s.st_gid,
            inode: (s.st_dev as _, s.st_ino as _),
            names: s.st_nlink as _,
            device: (rustix::fs::major(s.st_rdev as _), rustix::fs::minor(s.st_rdev as _)),
        }
    }
}
