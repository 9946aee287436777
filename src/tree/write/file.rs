//! Writes a regular file under a temporary name until it is complete.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::meta::MetadataHandle;
use super::{AttachPath as _, ExistingObject, RestoreTarget, WriteError};
use crate::repo::entry::{ManifestEntry, TreePath};

/// A file under its temporary name. Dropping it before [`RestoreTarget::finish_file`] removes it.
#[derive(Debug)]
pub struct NewFile {
    path: TreePath,
    dir: Arc<OwnedFd>,
    temporary: String,
    file: Option<File>,
    /// Where the furthest write ended, which is the size so far.
    end: AtomicU64,
    /// The file has more data than there was free space when it was begun. It must not use up the space of the other
    /// files.
    may_not_fit: bool,
}

/// Free space that a file too large for the target leaves to other files, in bytes: more than is written at the same
/// time.
const SPACE_LEFT: u64 = 32 << 20;

/// The size of the block in which holes are made.
const BLOCK: u64 = 4096;

/// Free space for this user on the file system of `fd`, in bytes.
pub(super) fn free_bytes(fd: impl AsFd) -> rustix::io::Result<u64> {
    let space = rustix::fs::fstatvfs(fd)?;
    let free = if rustix::process::geteuid().is_root() { space.f_bfree } else { space.f_bavail };
    Ok(free.saturating_mul(space.f_frsize))
}

/// The runs of `bytes`, which belong at `offset`, that are not blocks of zeros.
fn nonzero_runs(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (u64, &[u8])> {
    let mut at = 0;
    let block_end = move |at: usize| {
        let position = offset + at as u64;
        let end = (position / BLOCK + 1) * BLOCK - offset;
        bytes.len().min(usize::try_from(end).unwrap_or(usize::MAX))
    };
    let is_zero = |part: &[u8]| part.iter().all(|&b| b == 0);
    std::iter::from_fn(move || {
        while at < bytes.len() && is_zero(&bytes[at..block_end(at)]) {
            at = block_end(at);
        }
        let start = at;
        while at < bytes.len() && !is_zero(&bytes[at..block_end(at)]) {
            at = block_end(at);
        }
        (start < at).then(|| (offset + start as u64, &bytes[start..at]))
    })
}

impl NewFile {
    /// Writes `bytes` at `offset`. Ranges that are never written stay holes.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        self.file().write_all_at(bytes, offset).at_path(&self.path)?;
        self.end.fetch_max(offset + bytes.len() as u64, Ordering::AcqRel);
        Ok(())
    }

    /// Like [`NewFile::write_at`], but blocks of zeros stay holes.
    pub fn write_data_at(&self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        nonzero_runs(offset, bytes).try_for_each(|(offset, part)| self.write_at(offset, part))
    }

    /// Fails if other files would soon run out of space because of this file.
    pub fn check_free_space(&self) -> Result<(), WriteError> {
        if self.may_not_fit && free_bytes(self.file()).at_path(&self.path)? < SPACE_LEFT {
            return Err(Errno::NOSPC).at_path(&self.path);
        }
        Ok(())
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("only finish_file takes it, and that consumes self")
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // After the rename this name is free, and another process cannot have guessed it.
        if !self.temporary.is_empty() {
            let _ = rustix::fs::unlinkat(&*self.dir, self.temporary.as_str(), AtFlags::empty());
        }
    }
}

impl RestoreTarget {
    /// Begins a regular file that gets `data_bytes` of data. Until it is finished nothing changes at `path`.
    pub fn create_file(&self, path: &TreePath, data_bytes: u64) -> Result<NewFile, WriteError> {
        let dir = self.parent_of(path)?;
        // If the free space is unknown, the file is written as far as possible.
        let may_not_fit = data_bytes > SPACE_LEFT && free_bytes(&*dir).is_ok_and(|free| free < data_bytes);
        let temporary = self.temporary_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*dir, temporary.as_str(), flags, Mode::RUSR | Mode::WUSR).at_path(path)?;
        Ok(NewFile { path: path.clone(), dir, temporary, file: Some(fd.into()), end: AtomicU64::new(0), may_not_fit })
    }

    /// Sets the file's size and metadata and renames it to its path. An existing object is replaced, unless it is a
    /// directory.
    pub fn finish_file(&self, mut new: NewFile, entry: &ManifestEntry) -> Result<(), WriteError> {
        if *new.end.get_mut() != entry.kind.size() {
            new.file().set_len(entry.kind.size()).at_path(&new.path)?;
        }
        // A stat costs less than setting an owner that the file has already.
        let found = ExistingObject::from(rustix::fs::fstat(new.file()).at_path(&new.path)?);
        self.apply(MetadataHandle::Open(new.file().as_fd()), entry, &found);
        if let Some(file) = new.file.take() {
            // Network file systems report a full disk only here.
            nix::unistd::close(file).map_err(|e| Errno::from_raw_os_error(e as i32)).at_path(&new.path)?;
        }
        rustix::fs::renameat(&*new.dir, new.temporary.as_str(), &*new.dir, new.path.name()).at_path(&new.path)?;
        new.temporary.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_of_zeros_are_left_out_and_nothing_else() {
        let mut bytes = vec![0; 5 * 4096];
        bytes[4096 + 7] = 1;
        bytes[2 * 4096] = 2;
        bytes[5 * 4096 - 1] = 3;
        let runs = |offset: u64, bytes: &[u8]| {
            nonzero_runs(offset, bytes).map(|(at, part)| (at, part.len())).collect::<Vec<_>>()
        };
        assert_eq!(runs(0, &bytes), [(4096, 8192), (4 * 4096, 4096)]);
        // Blocks are aligned to the file, not to the buffer.
        assert_eq!(runs(8192 - 10, &bytes), [(8192, 8192), (24_576, 4086)]);
        assert_eq!(runs(5, &[0; 100]), []);
        assert_eq!(runs(5, &[]), []);
        assert_eq!(runs(5, &[1; 9000]), [(5, 9000)]);
    }
}
