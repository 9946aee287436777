//! Disks in memory. They outlive the processes that write on them; locks do not.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::tasks::SimProcess;
use runner::env::{BootDir, LockGuard, NodeFiles};

/// Below this the files are in memory.
const MEMORY: &str = "/memory";

/// A host's disk, and its file system in memory. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct SimDisk(Arc<Mutex<DiskContent>>);

#[derive(Debug, Default)]
struct DiskContent {
    files: BTreeMap<PathBuf, Vec<u8>>,
    dirs: BTreeSet<PathBuf>,
    /// Each with the number of the handle that has it.
    locks: BTreeMap<PathBuf, u64>,
    handles: u64,
    is_full: bool,
    is_memory_full: bool,
}

fn is_memory(path: &Path) -> bool {
    path.starts_with(MEMORY)
}

impl DiskContent {
    fn is_full(&self, path: &Path) -> bool {
        if is_memory(path) { self.is_memory_full } else { self.is_full }
    }

    /// What is in memory, or on the disk, goes.
    fn drop_all(&mut self, memory: bool) {
        self.files.retain(|path, _| is_memory(path) != memory);
        self.dirs.retain(|path| is_memory(path) != memory);
    }

    /// A file can be made there.
    fn check_room(&self, path: &Path) -> io::Result<()> {
        if self.is_full(path) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.check_dir(path.parent().unwrap_or(Path::new("")))
    }

    fn check_dir(&self, dir: &Path) -> io::Result<()> {
        let is_root = dir.parent().is_none();
        if is_root || self.dirs.contains(dir) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

impl SimDisk {
    /// Everything on it is lost.
    pub fn wipe(&self) {
        self.content().drop_all(false);
    }

    /// Everything in memory is lost.
    pub fn forget(&self) {
        self.content().drop_all(true);
    }

    /// Becomes what `other` is now, as a cloned machine's disk does. A backup of a disk is a copy, too. What is in memory is not copied.
    pub fn copy(&self, other: &SimDisk) {
        let (mut files, mut dirs) = {
            let there = other.content();
            (there.files.clone(), there.dirs.clone())
        };
        files.retain(|path, _| !is_memory(path));
        dirs.retain(|path| !is_memory(path));
        let mut content = self.content();
        content.drop_all(false);
        content.files.extend(files);
        content.dirs.extend(dirs);
    }

    /// From now on nothing can be written on it, or it can again.
    pub fn fill_up(&self, is_full: bool) {
        self.content().is_full = is_full;
    }

    /// The same in memory.
    pub fn fill_memory(&self, is_full: bool) {
        self.content().is_memory_full = is_full;
    }

    /// The kernel lets go what a dead process had locked.
    pub fn let_go(&self) {
        self.content().locks.clear();
    }

    fn content(&self) -> MutexGuard<'_, DiskContent> {
        self.0.lock()
    }
}

/// A disk, as one process has it.
#[derive(Debug)]
pub struct SimFiles {
    process: SimProcess,
    disk: SimDisk,
}

impl SimFiles {
    /// For this process of the disk's host.
    pub fn new(process: SimProcess, disk: SimDisk) -> Self {
        Self { process, disk }
    }

    /// A process that was killed has no destructors: what they would write now is not written.
    fn content(&self) -> io::Result<MutexGuard<'_, DiskContent>> {
        if !self.process.is_alive() {
            return Err(io::Error::other("this process was killed"));
        }
        Ok(self.disk.content())
    }
}

impl NodeFiles for SimFiles {
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
        if content.is_full(dir) && !content.dirs.contains(dir) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        content.dirs.extend(dir.ancestors().filter(|dir| dir.parent().is_some()).map(Path::to_owned));
        Ok(())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn LockGuard>>> {
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
        Ok(Some(Box::new(SimFileLock { disk, process, path: path.to_owned(), handle })))
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        let content = self.content()?;
        content.files.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(content.locks.contains_key(path))
    }

    fn boot_dir(&self, state_dir: &Path) -> io::Result<BootDir> {
        let dir = Path::new(MEMORY).join(state_dir.strip_prefix("/").unwrap_or(state_dir));
        self.make_dir(&dir)?;
        Ok(BootDir::at(dir))
    }
}

#[derive(Debug)]
struct SimFileLock {
    disk: SimDisk,
    process: SimProcess,
    path: PathBuf,
    handle: u64,
}

impl LockGuard for SimFileLock {
    fn write_pid(&self) {
        if self.process.is_alive() {
            let process = format!("{}\n", self.process.life);
            self.disk.content().files.insert(self.path.clone(), process.into_bytes());
        }
    }
}

impl Drop for SimFileLock {
    fn drop(&mut self) {
        // The next process may have it already.
        let mut content = self.disk.content();
        if content.locks.get(&self.path) == Some(&self.handle) {
            content.locks.remove(&self.path);
        }
    }
}
