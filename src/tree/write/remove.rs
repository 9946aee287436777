//! Lists and removes objects below the target.

use std::mem::MaybeUninit;
use std::os::fd::AsFd as _;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir};
use rustix::io::Errno;

use super::{AttachPath as _, RestoreTarget, WriteError, WriteErrorKind};
use crate::repo::entry::TreePath;

/// The result of a removal.
#[derive(Debug, Default)]
pub struct RemovalReport {
    /// Number of files, directories, links and other objects that were removed.
    pub count: u64,
    /// Whether an object below was kept on purpose, so that the directories above it stay too.
    pub kept: bool,
    /// What could not be removed, at most `FAILURES_MAX`.
    pub failures: Vec<WriteError>,
}

/// The most failures that one removal names: enough to see the reason.
const FAILURES_MAX: usize = 100;

/// The size of the buffer for raw directory entries.
const LISTING_BUFFER: usize = 32 * 1024;

impl RestoreTarget {
    /// The names in a directory, each with whether it is a directory, in descending order, so that popping from the end
    /// gives ascending order.
    pub fn list(&self, path: &TreePath) -> Result<Vec<(Vec<u8>, bool)>, WriteError> {
        let dir = self.resolver.dir(path).at_path(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = rustix::fs::openat(&*dir, ".", flags, Mode::empty()).at_path(path)?;
        let mut names = Vec::new();
        let mut buffer = vec![MaybeUninit::uninit(); LISTING_BUFFER];
        let mut listing = RawDir::new(&open, &mut buffer);
        while let Some(item) = listing.next() {
            let item = item.at_path(path)?;
            let name = item.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let kind = match item.file_type() {
                // Some file systems do not report the type.
                FileType::Unknown => match rustix::fs::statat(&*dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode),
                    Err(Errno::NOENT) => continue,
                    Err(e) => return Err(e).at_path(path),
                },
                known => known,
            };
            names.push((name.to_vec(), kind == FileType::Directory));
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names)
    }

    /// Whether the directory has no entry.
    pub fn is_empty_dir(&self, path: &TreePath) -> Result<bool, WriteError> {
        Ok(self.list(path)?.is_empty())
    }

    /// Removes an object that is not a directory.
    pub fn unlink(&self, path: &TreePath) -> Result<(), WriteError> {
        let dir = self.parent_of(path)?;
        rustix::fs::unlinkat(&*dir, path.name(), AtFlags::empty()).at_path(path)
    }

    /// Removes a directory that has no entry.
    pub fn remove_empty_dir(&self, path: &TreePath) -> Result<(), WriteError> {
        let dir = self.parent_of(path)?;
        self.resolver.forget(path);
        rustix::fs::unlinkat(&*dir, path.name(), AtFlags::REMOVEDIR).at_path(path)
    }

    /// Removes the object at `path` with everything below, except what `keep` (path, is it a directory) keeps and what
    /// lies on another file system. With `dry` it only counts.
    pub fn remove(&self, path: &TreePath, keep: &dyn Fn(&TreePath, bool) -> bool, dry: bool) -> RemovalReport {
        let mut removed = RemovalReport::default();
        match self.stat(path) {
            Ok(None) => {}
            Ok(Some(found)) if found.is_dir() => self.remove_dir(path, keep, dry, &mut removed),
            Ok(Some(_)) => self.remove_one(path, false, keep, dry, &mut removed),
            Err(e) => removed.fail(e),
        }
        removed
    }

    fn remove_dir(
        &self,
        top: &TreePath,
        keep: &dyn Fn(&TreePath, bool) -> bool,
        dry: bool,
        removed: &mut RemovalReport,
    ) {
        struct Open {
            path: TreePath,
            rest: Vec<(Vec<u8>, bool)>,
            /// Whether an object was kept, and how many failures there were, before this directory was entered. The
            /// directory is empty at its end if neither increased.
            kept: bool,
            failures: usize,
        }
        let enter = |path: TreePath, removed: &mut RemovalReport| -> Option<Open> {
            if keep(&path, true) {
                removed.kept = true;
                return None;
            }
            let mounted = |path: &TreePath| {
                let dir = self.parent_of(path)?;
                self.resolver.is_mount_point(dir.as_fd(), path.name()).at_path(path)
            };
            let listed = mounted(&path).and_then(|mounted| {
                let kind = WriteErrorKind::MountPoint;
                if mounted { Err(WriteError { path: path.clone(), kind }) } else { self.list(&path) }
            });
            match listed {
                Ok(rest) => {
                    let kept = std::mem::take(&mut removed.kept);
                    Some(Open { path, rest, kept, failures: removed.failures.len() })
                }
                Err(e) => {
                    removed.fail(e);
                    None
                }
            }
        };
        let mut stack: Vec<Open> = enter(top.clone(), removed).into_iter().collect();
        while let Some(open) = stack.last_mut() {
            if let Some((name, is_dir)) = open.rest.pop() {
                let Some(path) = open.path.join(&name) else { continue };
                if is_dir {
                    stack.extend(enter(path, removed));
                } else {
                    self.remove_one(&path, false, keep, dry, removed);
                }
                continue;
            }
            let Some(done) = stack.pop() else { break };
            if !removed.kept && removed.failures.len() == done.failures {
                self.remove_one(&done.path, true, &|_, _| false, dry, removed);
            }
            removed.kept |= done.kept;
        }
    }

    fn remove_one(
        &self,
        path: &TreePath,
        is_dir: bool,
        keep: &dyn Fn(&TreePath, bool) -> bool,
        dry: bool,
        removed: &mut RemovalReport,
    ) {
        if keep(path, is_dir) {
            removed.kept = true;
            return;
        }
        let flags = if is_dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        let done = if dry {
            Ok(())
        } else {
            self.parent_of(path).and_then(|dir| rustix::fs::unlinkat(&*dir, path.name(), flags).at_path(path))
        };
        if is_dir {
            self.resolver.forget(path);
        }
        match done {
            Ok(()) => removed.count += 1,
            Err(e) if e.kind == WriteErrorKind::NotFound => {}
            Err(e) => removed.fail(e),
        }
    }
}

impl RemovalReport {
    fn fail(&mut self, e: WriteError) {
        // A failure that is not named still keeps the directories above from being removed: they are not empty.
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(e);
        }
    }
}
