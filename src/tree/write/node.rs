//! Writes what is neither a regular file nor a directory: links, pipes, devices.

use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::meta::{MetadataKind, is_of_kind};
use super::{AttachPath as _, ExistingObject, RestoreTarget, WriteError, WriteErrorKind};
use crate::repo::entry::{EntryKind, ManifestEntry, TreePath};

/// The result of writing one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceOutcome {
    /// The entry was created, or replaced an existing object.
    Created,
    /// The entry existed; some of its metadata were set.
    MetadataUpdated,
    /// The entry existed and was equal.
    Unchanged,
    /// This user may not create it; noted as [`MetadataKind::Device`].
    NotAllowed,
}

impl RestoreTarget {
    /// Whether the existing object is already the link, pipe or device that the entry describes, apart from its
    /// metadata.
    pub fn is_same_node(&self, entry: &ManifestEntry, found: &ExistingObject) -> Result<bool, WriteError> {
        if !is_of_kind(found, &entry.kind) {
            return Ok(false);
        }
        Ok(match &entry.kind {
            EntryKind::Symlink { target } => {
                let dir = self.parent_of(&entry.path)?;
                let there = rustix::fs::readlinkat(&*dir, entry.path.name(), Vec::new()).at_path(&entry.path)?;
                there.as_bytes() == target
            }
            EntryKind::Fifo | EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. } => true,
            EntryKind::File { .. } | EntryKind::Dir | EntryKind::Hardlink { .. } => false,
        })
    }

    /// Creates the symbolic link, pipe or device. An existing object of that name is replaced, unless it is a
    /// directory.
    pub fn place_node(
        &self,
        entry: &ManifestEntry,
        found: Option<&ExistingObject>,
    ) -> Result<PlaceOutcome, WriteError> {
        let path = &entry.path;
        if let Some(found) = found
            && self.is_same_node(entry, found)?
            // An object with further names elsewhere is replaced, so that they do not change with it.
            && !(found.has_more_names() && self.metadata_differ(entry, found)?)
        {
            let touched = self.set_metadata(entry, Some(found.inode))?;
            return Ok(if touched { PlaceOutcome::MetadataUpdated } else { PlaceOutcome::Unchanged });
        }
        let dir = self.parent_of(path)?;
        let dir = dir.as_fd();
        let temporary = self.temporary_name();
        match make_node(dir, &temporary, &entry.kind) {
            Ok(()) => {}
            Err(errno @ Errno::PERM)
                if matches!(entry.kind, EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. }) =>
            {
                self.note_trouble(MetadataKind::Device, path, &std::io::Error::from(errno).to_string());
                return Ok(PlaceOutcome::NotAllowed);
            }
            Err(errno) => return Err(errno).at_path(path),
        }
        let placed = self
            .set_metadata_of_new(dir, &temporary, entry)
            .and_then(|()| rustix::fs::renameat(dir, temporary.as_str(), dir, path.name()).at_path(path));
        if placed.is_err() {
            let _ = rustix::fs::unlinkat(dir, temporary.as_str(), AtFlags::empty());
        }
        placed.map(|()| PlaceOutcome::Created)
    }

    /// Makes the entry's path a further name of the file at `first`. An existing object of that name is replaced,
    /// unless it is a directory. With `checked`, a file in another directory must have the entry's owner: a user who
    /// may write there, and not here, may have put another file in its place.
    pub fn link(&self, first: &TreePath, entry: &ManifestEntry, checked: bool) -> Result<PlaceOutcome, WriteError> {
        let path = &entry.path;
        let from = self.stat(first)?.ok_or(Errno::NOENT).at_path(first)?;
        if self.stat(path)?.is_some_and(|there| there.inode == from.inode) {
            return Ok(PlaceOutcome::Unchanged);
        }
        let (from_dir, dir) = (self.parent_of(first)?, self.parent_of(path)?);
        let temporary = self.temporary_name();
        // Without AT_SYMLINK_FOLLOW the link itself gets the second name.
        rustix::fs::linkat(&*from_dir, first.name(), &*dir, temporary.as_str(), AtFlags::empty()).at_path(path)?;
        let placed = self
            .is_of_owner(dir.as_fd(), &temporary, entry, checked && first.parent() != path.parent())
            .and_then(|()| rustix::fs::renameat(&*dir, temporary.as_str(), &*dir, path.name()).at_path(path));
        if placed.is_err() {
            let _ = rustix::fs::unlinkat(&*dir, temporary.as_str(), AtFlags::empty());
        }
        placed.map(|()| PlaceOutcome::Created)
    }
}

impl RestoreTarget {
    fn is_of_owner(
        &self,
        dir: BorrowedFd<'_>,
        name: &str,
        entry: &ManifestEntry,
        checked: bool,
    ) -> Result<(), WriteError> {
        // If owners cannot be set there is nothing to compare.
        if !checked || self.metadata_failures().iter().any(|trouble| trouble.kind == MetadataKind::Owner) {
            return Ok(());
        }
        let found =
            ExistingObject::from(rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).at_path(&entry.path)?);
        let same = (found.uid, found.gid) == self.ids.resolve(&entry.owner);
        if same { Ok(()) } else { Err(WriteError { path: entry.path.clone(), kind: WriteErrorKind::Changed }) }
    }
}

fn make_node(dir: BorrowedFd<'_>, name: &str, kind: &EntryKind) -> rustix::io::Result<()> {
    let mode = Mode::RUSR | Mode::WUSR;
    match kind {
        EntryKind::Symlink { target } => rustix::fs::symlinkat(target.as_slice(), dir, name),
        EntryKind::Fifo => rustix::fs::mknodat(dir, name, FileType::Fifo, mode, 0),
        EntryKind::CharDevice { major, minor } => {
            rustix::fs::mknodat(dir, name, FileType::CharacterDevice, mode, rustix::fs::makedev(*major, *minor))
        }
        EntryKind::BlockDevice { major, minor } => {
            rustix::fs::mknodat(dir, name, FileType::BlockDevice, mode, rustix::fs::makedev(*major, *minor))
        }
        EntryKind::File { .. } | EntryKind::Dir | EntryKind::Hardlink { .. } => Err(Errno::INVAL),
    }
}
