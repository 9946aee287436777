//! Disks in memory. They outlive the processes that write on them; locks do not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::tasks::Process;
use runner::env::{Files, Held};

/// A host's disk. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Disk(Arc<Mutex<Content>>);

#[derive(Debug, Default)]
struct Content {
    files: BTreeMap<PathBuf, Vec<u8>>,
    dirs: BTreeSet<PathBuf>,
    /// Each with the number of the handle that has it.
    locks: BTreeMap<PathBuf, u64>,
    handles: u64,
    is_full: bool,
}

impl Content {
    /// A file can be made there.
    fn check_room(&self, path: &Path) -> io::Result<()> {
        if self.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.check_dir(path.parent().unwrap_or(Path::new("")))
    }

    fn check_dir(&self, dir: &Path) -> io::Result<()> {
        let is_root = dir.parent().is_none();
        if is_root || self.dirs.contains(dir) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

impl Disk {
    /// Everything is lost.
    pub fn wipe(&self) {
        let mut content = self.content();
        content.files.clear();
        content.dirs.clear();
    }

    /// Becomes what `other` is now, as a cloned machine's disk does. A backup of a disk is a copy, too.
    pub fn copy(&self, other: &Disk) {
        let (files, dirs) = {
            let there = other.content();
            (there.files.clone(), there.dirs.clone())
        };
        let mut content = self.content();
        (content.files, content.dirs) = (files, dirs);
    }

    /// From now on nothing can be written, or it can again.
    pub fn fill_up(&self, is_full: bool) {
        self.content().is_full = is_full;
    }

    /// The kernel lets go what a dead process had locked.
    pub fn let_go(&self) {
        self.content().locks.clear();
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A disk, as one process has it.
#[derive(Debug)]
pub struct HostFiles {
    process: Process,
    disk: Disk,
}

impl HostFiles {
    /// For this process of the disk's host.
    pub fn new(process: Process, disk: Disk) -> Self {
        Self { process, disk }
    }

    /// A process that was killed has no destructors: what they would write now is not written.
    fn content(&self) -> io::Result<MutexGuard<'_, Content>> {
        if !self.process.is_alive() {
            return Err(io::Error::other("this process was killed"));
        }
        Ok(self.disk.content())
    }
}

impl Files for HostFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.content()?.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut content = self.content()?;
        content.check_room(path)?;
        content.files.insert(path.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.replace(path, bytes)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut content = self.content()?;
        content.check_room(path)?;
        content.files.entry(path.to_owned()).or_default().extend_from_slice(bytes);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let removed = self.content()?.files.remove(path);
        removed.map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let content = self.content()?;
        content.check_dir(dir)?;
        let paths = content.files.keys().chain(&content.dirs).filter(|path| path.parent() == Some(dir));
        let names: BTreeSet<String> =
            paths.filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned())).collect();
        Ok(names.into_iter().collect())
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        let mut content = self.content()?;
        if content.is_full && !content.dirs.contains(dir) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        content.dirs.extend(dir.ancestors().filter(|dir| dir.parent().is_some()).map(Path::to_owned));
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Held>>> {
        let mut content = self.content()?;
        content.check_dir(path.parent().unwrap_or(Path::new("")))?;
        if content.locks.contains_key(path) {
            return Ok(None);
        }
        content.handles += 1;
        let handle = content.handles;
        content.locks.insert(path.to_owned(), handle);
        content.files.entry(path.to_owned()).or_default();
        let (disk, process) = (self.disk.clone(), self.process.clone());
        Ok(Some(Box::new(Lock { disk, process, path: path.to_owned(), handle })))
    }
}

#[derive(Debug)]
struct Lock {
    disk: Disk,
    process: Process,
    path: PathBuf,
    handle: u64,
}

impl Held for Lock {
    fn sign(&self) {
        if self.process.is_alive() {
            let process = format!("{}\n", self.process.life);
            self.disk.content().files.insert(self.path.clone(), process.into_bytes());
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // The next process may have it already.
        let mut content = self.disk.content();
        if content.locks.get(&self.path) == Some(&self.handle) {
            content.locks.remove(&self.path);
        }
    }
}
