//! One task of a walker: list a directory, read the metadata of its entries, leave out what is excluded.

use std::ffi::CStr;
use std::io;
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::fs::{Mode, OFlags, openat};

use super::listing::{BUFFER_LEN, DirListing, EntryTypeHint};
use super::queue::{TaskOutput, TaskScope};
use super::{ScanItem, ScanOptions, ScannedEntry, SkipReason};
use crate::repo::entry::TreePath;
use crate::tree::problem::{PathProblem, PathProblemKind};
use crate::tree::roots::{LIST, READ, SourceRoots};
use crate::tree::stat::{FileType, Stat};
use crate::tree::temporary;

/// Number of entries in one task. A larger directory is split, so that both walkers can work on it, and so that it does
/// not come as one result.
const PIECE_LEN: usize = 512;

/// A task ends early when its results weigh this much: paths may be very long.
const PIECE_WEIGHT: usize = 256 << 10;

/// The longest path of a directory that is listed, in bytes. Each entry repeats its directory's path, each directory
/// above is held with its own, and nested directories take next to no space on disk. With this limit the deepest tree
/// takes at most 64 MiB.
const DIR_PATH_MAX: usize = 16 << 10;

/// A cache directory contains a file of this name…
const CACHE_TAG: &CStr = c"CACHEDIR.TAG";

/// …that begins with this signature (<https://bford.info/cachedir/>).
const CACHE_SIGNATURE: &[u8; 43] = b"Signature: 8a477f597d28d172789f06886806bc55";

/// A task of a walker.
#[derive(Debug)]
pub(super) enum WalkTask {
    /// The source with this index.
    Root(usize),
    /// A directory to list.
    Dir(DirTask),
    /// Some entries of a listed directory, whose metadata is to be read.
    Entries(Arc<ListedDir>, Range<usize>),
}

/// A directory to list. Its path is built only when the task runs, because many tasks may wait.
#[derive(Debug)]
pub(super) struct DirTask {
    parent: Arc<TreePath>,
    /// `None`: the parent itself, which is a source.
    name: Option<Box<[u8]>>,
    /// The device number of its source.
    root_dev: u64,
}

/// A directory whose names have been read.
#[derive(Debug)]
pub(super) struct ListedDir {
    path: Arc<TreePath>,
    names: DirListing,
    root_dev: u64,
}

/// What a walker needs, and the buffers it keeps between tasks.
pub(super) struct TreeWalker<'a> {
    options: &'a ScanOptions,
    roots: &'a SourceRoots,
    buffer: Vec<MaybeUninit<u8>>,
    /// The names of the last small directory, kept to reuse the memory.
    names: DirListing,
}

/// The output of one task, collected in order.
#[derive(Default)]
struct TaskOutputs {
    done: Vec<TaskOutput<WalkTask, ScanItem>>,
    push_item: Vec<ScanItem>,
    weight: usize,
    weight_total: usize,
    /// Whether there is a further task among the output.
    branched: bool,
}

impl TaskOutputs {
    fn found(&mut self, found: ScanItem) {
        let weight = size_of::<ScanItem>() + found.path().as_bytes().len();
        self.weight += weight;
        self.weight_total += weight;
        self.push_item.push(found);
    }

    fn problem(&mut self, path: TreePath, error: &io::Error) {
        self.found(ScanItem::Problem(PathProblem::io(path, error)));
    }

    fn push_task(&mut self, work: WalkTask) {
        self.branched = true;
        self.flush();
        self.done.push(TaskOutput::Task(work));
    }

    fn flush(&mut self) {
        if !self.push_item.is_empty() {
            self.done.push(TaskOutput::Results(std::mem::take(&mut self.push_item), std::mem::take(&mut self.weight)));
        }
    }

    fn finish(mut self) -> Vec<TaskOutput<WalkTask, ScanItem>> {
        self.flush();
        self.done
    }
}

impl<'a> TreeWalker<'a> {
    pub(super) fn new(options: &'a ScanOptions, roots: &'a SourceRoots) -> Self {
        Self { options, roots, buffer: vec![MaybeUninit::uninit(); BUFFER_LEN], names: DirListing::default() }
    }

    pub(super) fn run_task(&mut self, work: WalkTask, want: TaskScope) -> Vec<TaskOutput<WalkTask, ScanItem>> {
        let mut parts = TaskOutputs::default();
        match work {
            WalkTask::Root(index) => self.root(index, &mut parts),
            WalkTask::Dir(dir) => self.dir(dir, want, &mut parts),
            WalkTask::Entries(listed, range) => match self.roots.open_at(&listed.path, LIST) {
                Ok(fd) => {
                    if let Some(rest) = self.scan_entries(fd.as_fd(), &listed, range, want, &mut parts) {
                        parts.push_task(WalkTask::Entries(listed, rest));
                    }
                }
                Err(e) => parts.problem(TreePath::clone(&listed.path), &e),
            },
        }
        parts.finish()
    }

    fn root(&self, index: usize, parts: &mut TaskOutputs) {
        let root = &self.roots.all()[index];
        let (path, stat) = (root.path.clone(), root.stat);
        if self.push_object(path.clone(), stat, parts) {
            parts.push_task(WalkTask::Dir(DirTask { parent: Arc::new(path), name: None, root_dev: stat.dev }));
        }
    }

    fn dir(&mut self, dir: DirTask, want: TaskScope, parts: &mut TaskOutputs) {
        let DirTask { parent, name, root_dev } = dir;
        let path = match name {
            Some(name) => Arc::new(parent.join(&name).expect("it was joined before")),
            None => parent,
        };
        if path.as_bytes().len() > DIR_PATH_MAX {
            let kind = PathProblemKind::Unreadable(format!("its path has more than {DIR_PATH_MAX} bytes"));
            return parts.found(ScanItem::Problem(PathProblem { path: TreePath::clone(&path), kind }));
        }
        let fd = match self.roots.open_at(&path, LIST) {
            Ok(fd) => fd,
            Err(e) => return parts.problem(TreePath::clone(&path), &e),
        };
        if let Err(e) = self.names.read(fd.as_fd(), &mut self.buffer) {
            // The names that were listed before the error are still backed up.
            parts.problem(TreePath::clone(&path), &e);
        }
        // The operator named the source to be backed up, so a cache tag that a program wrote there is ignored.
        let is_source = self.roots.all().iter().any(|root| root.path == *path);
        if self.options.exclude_caches && !is_source && self.names.contains(CACHE_TAG) && is_cache(fd.as_fd()) {
            self.names.keep_only(CACHE_TAG);
        }
        let len = self.names.len();
        let mut listed = ListedDir { path, names: std::mem::take(&mut self.names), root_dev };
        if len <= PIECE_LEN {
            let rest = self.scan_entries(fd.as_fd(), &listed, 0..len, want, parts);
            match rest {
                Some(rest) => parts.push_task(WalkTask::Entries(Arc::new(listed), rest)),
                None => self.names = std::mem::take(&mut listed.names),
            }
        } else {
            let listed = Arc::new(listed);
            for start in (0..len).step_by(PIECE_LEN) {
                parts.push_task(WalkTask::Entries(listed.clone(), start..len.min(start + PIECE_LEN)));
            }
        }
    }

    /// Reads the metadata of the entries of `range`. Returns those that are left: when the results have become too
    /// heavy, or behind the first directory if no more is wanted.
    fn scan_entries(
        &self,
        fd: BorrowedFd<'_>,
        listed: &ListedDir,
        range: Range<usize>,
        want: TaskScope,
        parts: &mut TaskOutputs,
    ) -> Option<Range<usize>> {
        for index in range.clone() {
            if parts.weight_total >= PIECE_WEIGHT || (want == TaskScope::UpToFirstTask && parts.branched) {
                return Some(index..range.end);
            }
            self.entry(fd, listed, index, parts);
        }
        None
    }

    fn entry(&self, fd: BorrowedFd<'_>, listed: &ListedDir, index: usize, parts: &mut TaskOutputs) {
        let (name, hint) = listed.names.get(index);
        if hint != EntryTypeHint::Dir && temporary::is_unfinished(name.to_bytes()) {
            return;
        }
        let Some(path) = listed.path.join(name.to_bytes()) else {
            let kind = PathProblemKind::Unreadable(format!("the file system lists an impossible name, {name:?}"));
            return parts.found(ScanItem::Problem(PathProblem { path: TreePath::clone(&listed.path), kind }));
        };
        // Before the metadata is read: an excluded file that vanishes is no problem to report.
        if hint != EntryTypeHint::Unknown && self.options.exclude.excludes(&path, hint == EntryTypeHint::Dir) {
            return;
        }
        let stat = match Stat::at(fd, name) {
            Ok(stat) => stat,
            Err(e) => return parts.problem(path, &e),
        };
        let is_dir = stat.kind == FileType::Dir;
        if is_dir != (hint == EntryTypeHint::Dir) && self.options.exclude.excludes(&path, is_dir) {
            return;
        }
        // Only directories: on overlayfs a file may show the device of a lower layer.
        let elsewhere = is_dir && self.options.one_file_system && stat.dev != listed.root_dev;
        if self.push_object(path, stat, parts) && !elsewhere {
            let name = Some(name.to_bytes().into());
            parts.push_task(WalkTask::Dir(DirTask { parent: listed.path.clone(), name, root_dev: listed.root_dev }));
        }
    }

    /// Adds an object, or the reason why it is left out. Returns whether it is a directory to descend into.
    fn push_object(&self, path: TreePath, stat: Stat, parts: &mut TaskOutputs) -> bool {
        let larger = self.options.exclude_larger_than.is_some_and(|limit| stat.size > limit);
        parts.found(match stat.kind {
            FileType::Socket => ScanItem::Skipped { path, why: SkipReason::Socket },
            FileType::File if larger => ScanItem::Skipped { path, why: SkipReason::Larger { size: stat.size } },
            FileType::Unknown => {
                let kind = PathProblemKind::Unreadable("it is of no type that Linux knows".to_owned());
                ScanItem::Problem(PathProblem { path, kind })
            }
            _ => ScanItem::Entry(ScannedEntry { path, stat }),
        });
        stat.kind == FileType::Dir
    }
}

/// Whether the directory's tag is a regular file with the signature. A tag that cannot be read does not exclude
/// anything.
fn is_cache(dir: BorrowedFd<'_>) -> bool {
    let flags = READ | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let Ok(fd) = openat(dir, CACHE_TAG, flags, Mode::empty()) else { return false };
    let regular = Stat::of(&fd).is_ok_and(|s| s.kind == FileType::File);
    let mut start = [0; CACHE_SIGNATURE.len()];
    regular && rustix::io::read(&fd, &mut start).is_ok_and(|n| n == start.len()) && start == *CACHE_SIGNATURE
}
