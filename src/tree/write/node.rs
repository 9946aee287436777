//! Everything that is neither a regular file nor a directory: links, pipes, devices.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::meta::MetaKind;
use super::{At as _, Found, Target, WriteError};
use crate::repo::entry::{Entry, Kind, TreePath};

/// What became of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It was made, or replaced what was there.
    Made,
    /// It was there; some of its metadata were set.
    Touched,
    /// It was there and equal.
    Unchanged,
    /// It cannot be made by this user; noted as [`MetaKind::Device`].
    NotAllowed,
}

impl Target {
    /// Whether what is there is already the link, pipe or device that the entry describes, whatever its metadata.
    pub fn is_same_node(&self, entry: &Entry, found: &Found) -> Result<bool, WriteError> {
        Ok(match &entry.kind {
            Kind::Symlink { target } => {
                found.kind == FileType::Symlink && {
                    let dir = self.parent_of(&entry.path)?;
                    let there = rustix::fs::readlinkat(&*dir, entry.path.name(), Vec::new()).at(&entry.path)?;
                    there.as_bytes() == target
                }
            }
            Kind::Fifo => found.kind == FileType::Fifo,
            Kind::CharDevice { major, minor } => {
                found.kind == FileType::CharacterDevice && found.device == (*major, *minor)
            }
            Kind::BlockDevice { major, minor } => {
                found.kind == FileType::BlockDevice && found.device == (*major, *minor)
            }
            Kind::File { .. } | Kind::Dir | Kind::Hardlink { .. } => false,
        })
    }

    /// Makes the symbolic link, pipe or device in the place of whatever has its name, unless that is a directory.
    pub fn place_node(&self, entry: &Entry, found: Option<&Found>) -> Result<Placed, WriteError> {
        let path = &entry.path;
        if let Some(found) = found
            && self.is_same_node(entry, found)?
        {
            return Ok(if self.set_metadata(entry)? { Placed::Touched } else { Placed::Unchanged });
        }
        let dir = self.parent_of(path)?;
        let dir = dir.as_fd();
        let temporary = self.temporary_name();
        match make_node(dir, &temporary, &entry.kind) {
            Ok(()) => {}
            Err(errno @ Errno::PERM) if matches!(entry.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. }) => {
                self.note_trouble(MetaKind::Device, path, &std::io::Error::from(errno).to_string());
                return Ok(Placed::NotAllowed);
            }
            Err(errno) => return Err(errno).at(path),
        }
        let placed = self
            .set_metadata_at(dir, temporary.as_bytes(), entry)
            .and_then(|_| rustix::fs::renameat(dir, temporary.as_str(), dir, path.name()).at(path));
        if placed.is_err() {
            let _ = rustix::fs::unlinkat(dir, temporary.as_str(), AtFlags::empty());
        }
        placed.map(|()| Placed::Made)
    }

    /// Makes `path` a further name of the file at `first`, in the place of whatever has that name, unless that is a
    /// directory.
    pub fn link(&self, first: &TreePath, path: &TreePath) -> Result<Placed, WriteError> {
        let from = self.stat(first)?.ok_or(Errno::NOENT).at(first)?;
        if self.stat(path)?.is_some_and(|there| there.inode == from.inode) {
            return Ok(Placed::Unchanged);
        }
        let (from_dir, dir) = (self.parent_of(first)?, self.parent_of(path)?);
        let temporary = self.temporary_name();
        // Without AT_SYMLINK_FOLLOW the link itself gets the second name.
        rustix::fs::linkat(&*from_dir, first.name(), &*dir, temporary.as_str(), AtFlags::empty()).at(path)?;
        let placed = rustix::fs::renameat(&*dir, temporary.as_str(), &*dir, path.name()).at(path);
        if placed.is_err() {
            let _ = rustix::fs::unlinkat(&*dir, temporary.as_str(), AtFlags::empty());
        }
        placed.map(|()| Placed::Made)
    }
}

fn make_node(dir: BorrowedFd<'_>, name: &str, kind: &Kind) -> rustix::io::Result<()> {
    let mode = Mode::RUSR | Mode::WUSR;
    match kind {
        Kind::Symlink { target } => rustix::fs::symlinkat(target.as_slice(), dir, name),
        Kind::Fifo => rustix::fs::mknodat(dir, name, FileType::Fifo, mode, 0),
        Kind::CharDevice { major, minor } => {
            rustix::fs::mknodat(dir, name, FileType::CharacterDevice, mode, rustix::fs::makedev(*major, *minor))
        }
        Kind::BlockDevice { major, minor } => {
            rustix::fs::mknodat(dir, name, FileType::BlockDevice, mode, rustix::fs::makedev(*major, *minor))
        }
        Kind::File { .. } | Kind::Dir | Kind::Hardlink { .. } => Err(Errno::INVAL),
    }
}
