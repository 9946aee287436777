//! Walks the entries in path order, compares each with what the target has, and passes the remaining work on.
//!
//! This stage makes the directories and deletes surplus objects; everything else is left to the writers.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustix::fs::SeekFrom;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{Receiver, Sender};

use super::plan::BATCH_ITEMS;
use super::select::{EntrySelection, EntrySelector};
use super::shared::{FileChunk, FileJob, FileState, PendingDir, RestoreContext, WriteBatch, WriteJob};
use crate::ids::ChunkId;
use crate::job::node::progress::JobProgress;
use crate::job::report::restored::RestoreProblemKind;
use crate::job::restore::error::RestoreError;
use crate::job::restore::options::OverwritePolicy;
use crate::job::restore::source::ChunkLocation;
use crate::repo::entry::{EntryKind, ManifestEntry, TreePath};
use crate::repo::file_layout::FileLayout;
use crate::tree::temporary;
use crate::tree::write::{ExistingObject, MetadataKind, WriteErrorKind};

/// Limit of [`TargetInspector::leaders`]. Hard links beyond it become separate files, and the report says so.
const LEADERS_MAX: usize = 65_536;

/// The block size of nearly every file system; holes consist of such blocks.
const BLOCK: usize = 4096;

/// Mode of directories that have no entry in the manifest.
const IMPLIED_MODE: u16 = 0o755;

/// Mode of directories until their content is complete: other users cannot look in meanwhile.
const PRIVATE_MODE: u16 = 0o700;

/// Inspects all entries; returns the requested paths that no entry matched.
pub(super) fn run(
    shared: &RestoreContext,
    fresh: bool,
    mut entries: Receiver<Vec<ManifestEntry>>,
    batches: Sender<WriteBatch>,
    runtime: &Handle,
) -> Vec<TreePath> {
    let mut inspector = TargetInspector {
        shared,
        selector: EntrySelector::new(&shared.scope),
        fresh,
        levels: Vec::new(),
        above: Vec::new(),
        last: None,
        leaf: None,
        blocked: None,
        leaders: HashMap::new(),
        batch: WriteBatch::default(),
        items: 0,
        batches,
        runtime,
    };
    while let Some(some) = entries.blocking_recv() {
        for entry in some {
            if shared.is_stopped() {
                return Vec::new();
            }
            inspector.entry(entry);
        }
    }
    inspector.finish()
}

struct TargetInspector<'a> {
    shared: &'a RestoreContext,
    selector: EntrySelector,
    fresh: bool,
    /// The directories from the target's root to the current position of the walk.
    levels: Vec<DirLevel>,
    /// Directories above the selection, in case they must be made.
    above: Vec<ManifestEntry>,
    last: Option<TreePath>,
    /// The last entry that is not a directory: nothing can be below it.
    leaf: Option<TreePath>,
    /// A directory that could not be made, and why: everything below fails.
    blocked: Option<(TreePath, RestoreProblemKind)>,
    /// First name outside of the selection → the selected name that got its content.
    leaders: HashMap<TreePath, TreePath>,
    batch: WriteBatch,
    items: usize,
    batches: Sender<WriteBatch>,
    runtime: &'a Handle,
}

struct DirLevel {
    dir: Arc<PendingDir>,
    /// With `delete`: names in the directory that the walk has not passed yet; the next one is last.
    listing: Vec<(Vec<u8>, bool)>,
}

/// Whether the directory existed, and its device and inode if they are known.
enum MadeDir {
    New(Option<(u64, u64)>),
    Existed(Option<(u64, u64)>),
}

type InspectResult<T> = Result<T, RestoreProblemKind>;

impl TargetInspector<'_> {
    fn entry(&mut self, entry: ManifestEntry) {
        if self.last.as_ref().is_some_and(|last| *last >= entry.path) {
            return self.shared.stop(RestoreError::Unsorted { path: entry.path });
        }
        self.last = Some(entry.path.clone());
        JobProgress::add(&self.shared.progress.entries, 1);
        let is_dir = matches!(entry.kind, EntryKind::Dir);
        let below_leaf = self.leaf.as_ref().is_some_and(|leaf| entry.path.starts_with(leaf));
        if !below_leaf {
            self.leaf = (!is_dir).then(|| entry.path.clone());
        }
        match self.selector.select(&self.shared.scope, &entry.path, is_dir) {
            EntrySelection::Excluded => return,
            EntrySelection::Above => {
                if is_dir && !below_leaf {
                    self.above.retain(|above| entry.path.starts_with(&above.path));
                    self.above.push(entry);
                }
                return;
            }
            EntrySelection::Selected => {}
        }
        let path = entry.path.clone();
        let done = if below_leaf {
            Err(RestoreProblemKind::Unsound("it lies below an entry that is no directory"))
        } else if let Some((_, why)) = self.blocked.as_ref().filter(|(blocked, _)| path.starts_with(blocked)) {
            Err(why.clone())
        } else {
            self.selected(entry)
        };
        if let Err(problem) = done {
            if is_dir && !below_leaf {
                self.blocked = Some((path.clone(), problem.clone()));
            }
            self.shared.fail(&path, &problem);
        }
    }

    fn selected(&mut self, entry: ManifestEntry) -> InspectResult<()> {
        while self.levels.last().is_some_and(|level| !entry.path.starts_with(&level.dir.path)) {
            self.leave_level();
        }
        if entry.path.as_bytes().is_empty() {
            if !matches!(entry.kind, EntryKind::Dir) {
                return Err(RestoreProblemKind::Unsound("the root is no directory"));
            }
            self.enter_root(Some(entry));
            return Ok(());
        }
        let dir = self.parent(&entry.path)?;
        self.delete_before(entry.path.name());
        match entry.kind {
            EntryKind::Dir => self.directory(entry, dir),
            EntryKind::File { .. } => self.file(entry, dir),
            EntryKind::Hardlink { .. } => self.hardlink(entry, dir),
            EntryKind::Symlink { .. }
            | EntryKind::Fifo
            | EntryKind::CharDevice { .. }
            | EntryKind::BlockDevice { .. } => self.node(entry, dir),
        }
    }

    // Directories.

    fn enter_root(&mut self, entry: Option<ManifestEntry>) {
        let kept = self.shared.options.overwrite == OverwritePolicy::Never && !self.fresh;
        let counted = entry.is_some();
        let entry = entry.filter(|_| !kept);
        let dir = PendingDir { path: TreePath::default(), entry, inode: None, above: None, fresh: self.fresh };
        if counted {
            self.shared.count(|c| c.directories += 1);
        }
        self.enter(dir);
    }

    /// The parent directory of the entry at `path`, made if it is missing.
    fn parent(&mut self, path: &TreePath) -> InspectResult<Arc<PendingDir>> {
        if self.levels.is_empty() {
            self.enter_root(None);
        }
        let parent = path.parent().unwrap_or_default();
        loop {
            let here = Arc::clone(&self.levels.last().expect("the root is entered above and left last").dir);
            if here.path == parent {
                return Ok(here);
            }
            // The next component of the path towards the entry.
            let below = &parent.as_bytes()[here.path.as_bytes().len()..];
            let name = below.split(|&b| b == b'/').find(|name| !name.is_empty()).unwrap_or_default();
            let next = here.path.join(name).ok_or(RestoreProblemKind::Unsound("a name is impossible"))?;
            let entry = self.above.iter().position(|above| above.path == next).map(|i| self.above.swap_remove(i));
            let mode = if entry.is_some() { PRIVATE_MODE } else { IMPLIED_MODE };
            match self.make(&next, &here, mode, false) {
                Ok(MadeDir::New(inode)) => {
                    self.enter(PendingDir { path: next, entry, inode, above: Some(here), fresh: true });
                }
                Ok(MadeDir::Existed(inode)) => {
                    self.enter(PendingDir { path: next, entry: None, inode, above: Some(here), fresh: false });
                }
                Err(problem) => {
                    self.blocked = Some((next, problem.clone()));
                    return Err(problem);
                }
            }
        }
    }

    fn directory(&mut self, entry: ManifestEntry, above: Arc<PendingDir>) -> InspectResult<()> {
        let path = entry.path.clone();
        let made = self.make(&path, &above, PRIVATE_MODE, true)?;
        let (fresh, inode) = match made {
            MadeDir::New(inode) => (true, inode),
            MadeDir::Existed(inode) => (false, inode),
        };
        let entry = (fresh || self.shared.options.overwrite != OverwritePolicy::Never).then_some(entry);
        self.shared.count(|c| c.directories += 1);
        self.enter(PendingDir { path, entry, inode, above: Some(above), fresh });
        Ok(())
    }

    /// Makes a directory unless it exists. Another object at its path is removed if `replace` is set.
    fn make(&self, path: &TreePath, above: &PendingDir, mode: u16, replace: bool) -> InspectResult<MadeDir> {
        let (target, dry) = (&self.shared.target, self.shared.options.dry_run);
        if target.is_anchored(path) {
            return Ok(MadeDir::Existed(None));
        }
        if dry && above.fresh {
            return Ok(MadeDir::New(None));
        }
        let new = || match target.stat(path)?.filter(ExistingObject::is_dir) {
            Some(found) => Ok(MadeDir::New(Some(found.inode))),
            None => Err(RestoreProblemKind::Write(WriteErrorKind::Changed)),
        };
        if !dry && target.make_dir(path, mode)? {
            return new();
        }
        match target.stat(path)? {
            None if dry => Ok(MadeDir::New(None)),
            None => Err(RestoreProblemKind::Write(WriteErrorKind::NotFound)),
            Some(found) if found.is_dir() => {
                if !dry && replace {
                    target.make_writable(path, &found)?;
                }
                Ok(MadeDir::Existed(Some(found.inode)))
            }
            Some(_) if !replace || self.shared.options.overwrite == OverwritePolicy::Never => {
                Err(RestoreProblemKind::Write(WriteErrorKind::Blocked))
            }
            Some(_) if dry => Ok(MadeDir::New(None)),
            Some(_) => {
                target.unlink(path)?;
                target.make_dir(path, mode)?;
                new()
            }
        }
    }

    fn enter(&mut self, dir: PendingDir) {
        let mut listing = Vec::new();
        let delete = self.shared.options.delete && self.shared.scope.may_delete_at(&dir.path);
        let clear = !self.shared.options.dry_run && self.shared.target.may_clear_leftovers();
        if !dir.fresh && (delete || clear) {
            match self.shared.target.list(&dir.path) {
                Ok(names) => listing = names,
                Err(e) if delete => self.shared.fail(&dir.path, &RestoreProblemKind::Delete(e.kind)),
                // A directory that may not be listed may still be writable.
                Err(_) => {}
            }
            if clear {
                listing.retain(|(name, is_dir)| *is_dir || !clear_leftover(self.shared, &dir.path, name));
            }
            if !delete {
                listing = Vec::new();
            }
        }
        self.levels.push(DirLevel { dir: Arc::new(dir), listing });
    }

    fn leave_level(&mut self) {
        self.delete_rest();
        if let Some(level) = self.levels.pop() {
            level.dir.leave(self.shared);
        }
    }

    /// Deletes the names before `name` that the snapshot does not have.
    fn delete_before(&mut self, name: &[u8]) {
        let Some(level) = self.levels.last_mut() else { return };
        while let Some((there, _)) = level.listing.last()
            && there.as_slice() <= name
        {
            let Some((there, is_dir)) = level.listing.pop() else { return };
            if there != name {
                delete(self.shared, &level.dir.path, &there, is_dir);
            }
        }
    }

    fn delete_rest(&mut self) {
        let Some(level) = self.levels.last_mut() else { return };
        while let Some((there, is_dir)) = level.listing.pop() {
            delete(self.shared, &level.dir.path, &there, is_dir);
        }
    }

    // Everything else.

    /// What the target has at the entry's path, and whether it is a directory that has to be removed. `None`: it stays
    /// as it is.
    fn look(&self, path: &TreePath, dir: &PendingDir) -> InspectResult<Option<(Option<ExistingObject>, bool)>> {
        let found = if dir.fresh { None } else { self.shared.target.stat(path)? };
        let Some(there) = found else { return Ok(Some((None, false))) };
        if self.shared.options.overwrite == OverwritePolicy::Never {
            self.shared.count(|c| c.skipped += 1);
            return Ok(None);
        }
        if there.is_dir() {
            let may_go = self.shared.options.delete && self.shared.scope.may_delete_at(path);
            if !may_go && !self.shared.target.is_empty_dir(path)? {
                return Err(RestoreProblemKind::Write(WriteErrorKind::NotEmpty));
            }
            return Ok(Some((None, true)));
        }
        Ok(Some((Some(there), false)))
    }

    fn node(&mut self, entry: ManifestEntry, dir: Arc<PendingDir>) -> InspectResult<()> {
        if let Some((found, obstacle)) = self.look(&entry.path, &dir)? {
            self.push(WriteJob::Node { entry, found, obstacle, dir });
        }
        Ok(())
    }

    fn hardlink(&mut self, entry: ManifestEntry, dir: Arc<PendingDir>) -> InspectResult<()> {
        let EntryKind::Hardlink { target } = &entry.kind else { return Ok(()) };
        if *target >= entry.path || target.as_bytes().is_empty() {
            return Err(RestoreProblemKind::Unsound("a further name stands before the first one"));
        }
        let first = if self.shared.scope.selects(target) { Some(target) } else { self.leaders.get(target) };
        let first = match first {
            Some(first) if !self.is_kept_and_different(target, first)? => first.clone(),
            _ => return self.promote_link(target.clone(), entry, dir),
        };
        if let Some((_, obstacle)) = self.look(&entry.path, &dir)? {
            self.push(WriteJob::Link { entry, first, obstacle, dir });
        }
        Ok(())
    }

    /// With [`OverwritePolicy::Never`]: whether the first name is a file of the target with other content. A link to it
    /// would have the wrong content.
    fn is_kept_and_different(&self, target: &TreePath, first: &TreePath) -> InspectResult<bool> {
        if self.shared.options.overwrite != OverwritePolicy::Never {
            return Ok(false);
        }
        // It does not exist: it is being restored.
        let Some(found) = self.shared.target.stat(first)? else { return Ok(false) };
        let original = self.original(target)?;
        let same = match &original.kind {
            EntryKind::File { size, .. } => found.is_file() && (found.size, found.mtime) == (*size, original.mtime),
            _ => !found.is_dir() && !found.is_file(),
        };
        Ok(!same)
    }

    /// The first name is not restored, so this name gets the content, and later names become links to it.
    fn promote_link(&mut self, target: TreePath, entry: ManifestEntry, dir: Arc<PendingDir>) -> InspectResult<()> {
        let original = self.original(&target)?;
        if self.leaders.len() < LEADERS_MAX {
            self.leaders.insert(target, entry.path.clone());
        } else {
            let why = "too many hard links whose first name is not restored";
            self.shared.target.note_trouble(MetadataKind::Hardlink, &entry.path, why);
        }
        let entry = ManifestEntry { path: entry.path, ..original };
        match entry.kind {
            EntryKind::File { .. } => self.file(entry, dir),
            _ => self.node(entry, dir),
        }
    }

    fn original(&self, target: &TreePath) -> InspectResult<ManifestEntry> {
        let found = self.runtime.block_on(self.shared.source.entry(target));
        match found {
            Ok(Some(entry)) if !matches!(entry.kind, EntryKind::Dir | EntryKind::Hardlink { .. }) => Ok(entry),
            Ok(_) => Err(RestoreProblemKind::Unsound("the first name is not in it")),
            Err(e) => {
                self.shared.stop(RestoreError::Source(e));
                Err(RestoreProblemKind::FirstName(target.clone()))
            }
        }
    }

    fn file(&mut self, entry: ManifestEntry, dir: Arc<PendingDir>) -> InspectResult<()> {
        let Some((found, obstacle)) = self.look(&entry.path, &dir)? else {
            self.skip_bytes(&entry);
            return Ok(());
        };
        let found = found.filter(ExistingObject::is_file);
        // A file with further names, in the tree or elsewhere, is left alone or replaced, never changed in place.
        let replace = match &found {
            Some(found) if found.has_more_names() => self.shared.target.metadata_differ(&entry, found)?,
            _ => false,
        };
        if let Some(found) = &found
            && !replace
            && self.shared.options.overwrite == OverwritePolicy::IfChanged
            && (found.size, found.mtime) == (entry.kind.size(), entry.mtime)
        {
            self.skip_bytes(&entry);
            self.shared.count(|c| c.trusted += 1);
            self.push(WriteJob::Metadata { entry, inode: found.inode, dir });
            return Ok(());
        }
        let mut content = 0;
        for chunk in entry.kind.chunks() {
            content += u64::from(self.locate(chunk).ok_or(RestoreProblemKind::Missing(*chunk))?.len);
        }
        let layout = FileLayout::new(&entry.kind, content).map_err(RestoreProblemKind::Unsound)?;
        if !self.shared.options.dry_run && self.shared.has_no_space_for(&entry.path, content) {
            return Err(RestoreProblemKind::Write(WriteErrorKind::NoSpace));
        }
        let equal = match &found {
            Some(found) => {
                // An unreadable file is replaced.
                let old = self.shared.target.open_file(&entry.path, Some(found)).ok();
                let equal = old.as_ref().map(|old| self.compare(&entry, &layout, old, found)).unwrap_or_default();
                let whole = found.size == entry.kind.size() && !equal.contains(&false);
                if whole && !replace && old.is_some_and(|old| holes_are_empty(&layout, &old)) {
                    self.skip_bytes(&entry);
                    self.push(WriteJob::Metadata { entry, inode: found.inode, dir });
                    return Ok(());
                }
                equal
            }
            None => Vec::new(),
        };
        self.pieces(entry, layout, obstacle, dir, &equal);
        Ok(())
    }

    /// For each chunk, whether the existing file has it at its place.
    fn compare(&self, entry: &ManifestEntry, layout: &FileLayout, old: &File, found: &ExistingObject) -> Vec<bool> {
        let mut buffer = Vec::new();
        let mut at = 0;
        let equal = |chunk: &ChunkId| {
            let Some(place) = self.shared.source.locate(chunk) else { return false };
            let range = at..at + u64::from(place.len);
            at = range.end;
            // A chunk beyond the end of the existing file differs without being read.
            let fits = layout.spans(range.clone()).all(|(offset, part)| offset + part.len() as u64 <= found.size);
            fits && {
                buffer.resize(place.len as usize, 0);
                let read =
                    layout.spans(range).try_for_each(|(offset, part)| old.read_exact_at(&mut buffer[part], offset));
                read.is_ok() && self.shared.source.chunk_id(&buffer) == *chunk
            }
        };
        entry.kind.chunks().iter().map(equal).collect()
    }

    /// Cuts a file into pieces: a batch ends before the chunk whose frame no longer fits into it.
    fn pieces(
        &mut self,
        entry: ManifestEntry,
        layout: FileLayout,
        obstacle: bool,
        dir: Arc<PendingDir>,
        equal: &[bool],
    ) {
        let file = Arc::new(FileJob {
            entry,
            layout,
            obstacle,
            state: Mutex::new(FileState { dir: Some(dir), ..FileState::default() }),
            pieces: AtomicUsize::new(1),
        });
        let mut parts = Vec::new();
        let mut at = 0;
        for (i, chunk) in file.entry.kind.chunks().iter().enumerate() {
            if self.shared.is_stopped() {
                return;
            }
            let Some(place) = self.shared.source.locate(chunk) else {
                // The chunk was known a moment ago; the index was read again in between.
                file.fail(RestoreProblemKind::Missing(*chunk));
                break;
            };
            let reused = equal.get(i).copied().unwrap_or(false);
            if self.items >= BATCH_ITEMS || (!reused && !self.batch.frames.fits(&place)) {
                if !parts.is_empty() {
                    file.pieces.fetch_add(1, Ordering::Relaxed);
                    self.batch
                        .jobs
                        .push(WriteJob::Piece { file: Arc::clone(&file), parts: std::mem::take(&mut parts) });
                }
                self.flush();
            }
            if !reused {
                self.batch.frames.add(&place);
            }
            self.items += 1;
            parts.push(FileChunk { chunk: *chunk, at, len: place.len, place: (!reused).then_some(place) });
            at += u64::from(place.len);
        }
        self.push(WriteJob::Piece { file, parts });
    }

    fn locate(&self, chunk: &ChunkId) -> Option<ChunkLocation> {
        self.shared.source.locate(chunk).or_else(|| self.runtime.block_on(self.shared.relocate(chunk, None)))
    }

    fn skip_bytes(&self, entry: &ManifestEntry) {
        JobProgress::add(&self.shared.progress.files, 1);
        JobProgress::add(&self.shared.progress.bytes_read, entry.kind.size());
    }

    fn push(&mut self, job: WriteJob) {
        self.batch.jobs.push(job);
        self.items += 1;
        if self.items >= BATCH_ITEMS {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if self.batch.jobs.is_empty() {
            return;
        }
        let next = WriteBatch { number: self.batch.number + 1, ..WriteBatch::default() };
        let batch = std::mem::replace(&mut self.batch, next);
        self.items = 0;
        // A closed queue means that the restore has ended; the stage that ended it recorded the error.
        let _ = self.batches.blocking_send(batch);
    }

    fn finish(mut self) -> Vec<TreePath> {
        while !self.levels.is_empty() {
            self.leave_level();
        }
        self.flush();
        self.selector.unmatched(&self.shared.scope)
    }
}

/// Removes a file that an interrupted restore left. `false` if the name is something else, or the file stays.
fn clear_leftover(shared: &RestoreContext, dir: &TreePath, name: &[u8]) -> bool {
    if !temporary::is_unfinished(name) {
        return false;
    }
    let Some(path) = dir.join(name) else { return false };
    if shared.scope.excludes(&path, false) {
        return false;
    }
    match shared.target.remove_leftover(&path) {
        Ok(removed) => {
            shared.count(|c| c.leftovers += u64::from(removed));
            removed
        }
        Err(e) => {
            shared.fail(&path, &RestoreProblemKind::Delete(e.kind));
            false
        }
    }
}

fn delete(shared: &RestoreContext, dir: &TreePath, name: &[u8], is_dir: bool) {
    if let Some(path) = dir.join(name)
        && !shared.is_stopped()
        && !shared.target.is_temporary(name)
        && !shared.scope.excludes(&path, is_dir)
    {
        shared.remove(&path);
    }
}

/// Whether the holes of the file hold no data. Where a hole shares a block with data, zeros are accepted.
fn holes_are_empty(layout: &FileLayout, old: &File) -> bool {
    layout.holes().all(|hole| {
        let from = hole.start.next_multiple_of(BLOCK as u64).min(hole.end);
        let to = (hole.end - hole.end % BLOCK as u64).max(from);
        let hollow = from == to
            || match rustix::fs::seek(old, SeekFrom::Data(from)) {
                Ok(data) => data >= to,
                Err(e) => e == rustix::io::Errno::NXIO,
            };
        let zeros = |edge: Range<u64>| {
            let mut bytes = [1; BLOCK];
            let bytes = &mut bytes[..(edge.end - edge.start) as usize];
            old.read_exact_at(bytes, edge.start).is_ok() && bytes.iter().all(|&b| b == 0)
        };
        hollow && zeros(hole.start..from) && zeros(to..hole.end)
    })
}
