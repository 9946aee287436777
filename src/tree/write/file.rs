//! A regular file that is being written: under a temporary name until it is complete.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::meta::Held;
use super::{At as _, Found, Target, WriteError};
use crate::repo::entry::{Entry, TreePath};

/// A file under its temporary name. Dropped before [`Target::finish_file`], it is removed.
#[derive(Debug)]
pub struct NewFile {
    path: TreePath,
    dir: Arc<OwnedFd>,
    temporary: String,
    file: Option<File>,
    /// Where the furthest write ended, which is the size so far.
    end: AtomicU64,
}

impl NewFile {
    /// Writes `bytes` at `offset`. What is never written stays a hole.
    pub fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), WriteError> {
        self.file().write_all_at(bytes, offset).at(&self.path)?;
        self.end.fetch_max(offset + bytes.len() as u64, Ordering::AcqRel);
        Ok(())
    }

    fn file(&self) -> &File {
        self.file.as_ref().expect("only finish_file takes it, and that consumes self")
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        // After the rename there is nothing under this name, and no other process can have guessed it.
        if !self.temporary.is_empty() {
            let _ = rustix::fs::unlinkat(&*self.dir, self.temporary.as_str(), AtFlags::empty());
        }
    }
}

impl Target {
    /// Begins a regular file. Until it is finished nothing changes at `path`.
    pub fn create_file(&self, path: &TreePath) -> Result<NewFile, WriteError> {
        let dir = self.parent_of(path)?;
        let temporary = self.temporary_name();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*dir, temporary.as_str(), flags, Mode::RUSR | Mode::WUSR).at(path)?;
        Ok(NewFile { path: path.clone(), dir, temporary, file: Some(fd.into()), end: AtomicU64::new(0) })
    }

    /// Gives the file its size and metadata and puts it in the place of whatever had its name, unless that is a directory.
    pub fn finish_file(&self, mut new: NewFile, entry: &Entry) -> Result<(), WriteError> {
        if *new.end.get_mut() != entry.kind.size() {
            new.file().set_len(entry.kind.size()).at(&new.path)?;
        }
        // To look costs less than to set an owner that it has already.
        let found = Found::from(rustix::fs::fstat(new.file()).at(&new.path)?);
        self.apply(Held::Open(new.file().as_fd()), entry, &found);
        if let Some(file) = new.file.take() {
            // Network file systems report a full disk only here.
            nix::unistd::close(file).map_err(|e| Errno::from_raw_os_error(e as i32)).at(&new.path)?;
        }
        rustix::fs::renameat(&*new.dir, new.temporary.as_str(), &*new.dir, new.path.name()).at(&new.path)?;
        new.temporary.clear();
        Ok(())
    }
}
