//! The first stage of the pipeline: merges the walk with this node's cache and the newest snapshot, decides about each
//! entry, and sends it to the workers if it has to be read. One thread, in path order.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::job::backup::dedup_index::DedupIndex;
use crate::job::backup::dump::keep_time;
use crate::job::backup::empty_check::SourceCount;
use crate::job::backup::entry_decision::{EntryDecision, KnownEntry, decide};
use crate::job::backup::entry_stream::EntryStream;
use crate::job::backup::mounts::MountTracker;
use crate::job::backup::shared::PipelineContext;
use crate::job::backup::tree_cache::CachedEntry;
use crate::job::backup::unreadable::{AbsentEntryOutcome, UnreadableDirs};
use crate::job::backup::worker::{EntryResult, FileContent, FileSegment, PendingEntry, SegmentResult, WorkerTask};
use crate::job::error::BackupError;
use crate::job::node::progress::JobProgress;
use crate::job::node::stall::RunActivity;
use crate::repo::entry::{EntryKind, ManifestEntry, TreePath};
use crate::repo::pack::FRAME_TARGET_BYTES;
use crate::tree::problem::{PathProblem, PathProblemKind};
use crate::tree::read::{self, ReadEntry};
use crate::tree::scan::{ScanItem, ScannedEntry, SkipReason, TreeScan};
use crate::tree::stat::{FileType, ObjectId};

/// The most entries of one worker task.
const BATCH_ENTRIES: usize = 1024;

/// Segments of one large file that are in progress or wait for the finish stage. A file may claim any number of
/// segments.
const SEGMENTS_AHEAD: usize = 64;

/// The problem of a directory in which a volume was mounted.
const NOT_MOUNTED: &str = "not mounted: another file system was here at the last backup, and the directory is empty. Mount it; if it is gone for \
                           good, remove the directory, or set allow_empty = true for one run";

/// A result for the finish stage, in path order.
pub(crate) enum PendingResult {
    /// Results that are complete.
    Ready(Vec<EntryResult>),
    /// The results of a worker, which come in parts, and their number.
    Pending(Receiver<Result<Vec<EntryResult>, BackupError>>, usize),
    /// A large file whose segments are read by workers.
    Large(Box<LargeFile>),
}

/// A large file in progress.
pub(crate) struct LargeFile {
    pub(crate) scanned: ScannedEntry,
    pub(crate) base: Option<Arc<ManifestEntry>>,
    pub(crate) completed: ReadEntry,
    pub(crate) content: Arc<FileContent>,
    /// The results of its segments, in order.
    pub(crate) segments: Receiver<Receiver<Result<SegmentResult, BackupError>>>,
    pub(crate) seen: crate::repo::entry::UnixNanos,
}

/// Counts of the walk stage.
#[derive(Debug, Default)]
pub(crate) struct WalkStats {
    /// Entries of the newest snapshot that no longer exist.
    pub(crate) removed: u64,
    /// BLAKE3 over the paths of the removed entries.
    pub(crate) removed_set: blake3::Hasher,
    /// Entries of the newest snapshot below directories that could not be listed, without those that a problem names.
    pub(crate) unreadable: u64,
    /// Directories where volumes are mounted, or should be.
    pub(crate) mounts: Vec<TreePath>,
}

/// The channels to the next stages.
pub(crate) struct StageOutputs {
    pub(crate) tasks: Sender<WorkerTask>,
    pub(crate) results: Sender<PendingResult>,
}

/// The walk stage.
pub(crate) struct WalkStage<'a> {
    pub(crate) shared: &'a PipelineContext,
    pub(crate) ledger: &'a DedupIndex<'a>,
    pub(crate) outputs: StageOutputs,
    /// This node's cache.
    pub(crate) cache: EntryStream<'a>,
    /// The newest snapshot, if the cache is of an older one.
    pub(crate) base: Option<EntryStream<'a>>,
    pub(crate) trust_mtime: bool,
    /// Entries that do not come from the tree, in descending path order: the next one is last.
    pub(crate) extra: Vec<EntryResult>,
    pub(crate) sources: Vec<SourceCount>,
    pub(crate) stats: WalkStats,
    pub(crate) batch: Vec<PendingEntry>,
    pub(crate) batch_bytes: u64,
    pub(crate) first_names: HashMap<ObjectId, TreePath>,
    pub(crate) unread: UnreadableDirs,
    pub(crate) mounts: MountTracker,
}

impl WalkStage<'_> {
    /// Walks to the end.
    pub(crate) fn run(mut self, scan: TreeScan) -> Result<(WalkStats, Vec<SourceCount>), BackupError> {
        let progress = Arc::clone(&self.shared.progress);
        progress.total_grows.store(true, Ordering::Relaxed);
        for found in scan.flatten() {
            self.shared.check()?;
            self.unmounted(Some(found.path()))?;
            self.extras_before(Some(found.path()))?;
            self.shared.progress.step();
            match found {
                ScanItem::Entry(scanned) => {
                    if scanned.stat.kind == FileType::Dir {
                        self.shared.progress.begin(RunActivity::Walking(scanned.path.clone()));
                        self.mounts.enter_dir(&scanned.path, scanned.stat.dev);
                    }
                    self.entry(scanned)?;
                }
                ScanItem::Skipped { path, why: SkipReason::Socket } => {
                    self.problem(PathProblem { path, kind: PathProblemKind::Socket })?;
                }
                // Excluded by the config.
                ScanItem::Skipped { .. } => {}
                ScanItem::Problem(problem) => self.problem(problem)?,
            }
        }
        self.unmounted(None)?;
        self.extras_before(None)?;
        self.skip_base(None)?;
        self.end_batch()?;
        progress.total_grows.store(false, Ordering::Relaxed);
        let mounts = self.mounts.finish();
        Ok((WalkStats { mounts, ..self.stats }, self.sources))
    }

    fn extras_before(&mut self, path: Option<&TreePath>) -> Result<(), BackupError> {
        let due = |done: &EntryResult| match (&done.entry, path) {
            (Some(entry), Some(path)) => entry.path < *path,
            _ => true,
        };
        while self.extra.last().is_some_and(due) {
            self.end_batch()?;
            let Some(mut done) = self.extra.pop() else { return Ok(()) };
            if let Some(entry) = &mut done.entry {
                done.base = self.known(&entry.path)?.1;
                if let Some(base) = &done.base {
                    keep_time(Arc::make_mut(entry), base);
                }
            }
            self.send(PendingResult::Ready(vec![done]))?;
        }
        Ok(())
    }

    /// The entries of the cache and of the newest snapshot for this path. Entries of the snapshot before it are counted
    /// as removed, or kept unread.
    fn known(&mut self, path: &TreePath) -> Result<(Option<CachedEntry>, Option<Arc<ManifestEntry>>), BackupError> {
        let base = self.skip_base(Some(path))?;
        if self.base.is_none() {
            let entry = base.as_ref().map(|c| Arc::clone(&c.entry));
            return Ok((base, entry));
        }
        let cached = loop {
            match self.cache.next_if(|c| c.entry.path <= *path)? {
                Some(c) if c.entry.path == *path => break Some(c),
                Some(_) => {}
                None => break None,
            }
        };
        Ok((cached, base.map(|c| c.entry)))
    }

    fn skip_base(&mut self, path: Option<&TreePath>) -> Result<Option<CachedEntry>, BackupError> {
        let mut kept = Vec::new();
        let found = loop {
            let stream = self.base.as_mut().unwrap_or(&mut self.cache);
            let Some(c) = stream.next_if(|c| path.is_none_or(|p| c.entry.path <= *p))? else { break None };
            let file = u64::from(!matches!(c.entry.kind, EntryKind::Dir));
            if let Some(source) = self.source(&c.entry.path) {
                source.entries_before += 1;
                source.files_before += file;
            }
            if path == Some(&c.entry.path) {
                break Some(c);
            }
            match self.judge_absent(&c)? {
                AbsentEntryOutcome::Gone => {
                    self.stats.removed += 1;
                    self.stats.removed_set.update(c.entry.path.as_bytes()).update(b"\0");
                }
                AbsentEntryOutcome::Lost { counted } => self.stats.unreadable += u64::from(!counted),
                AbsentEntryOutcome::Kept { counted } => {
                    self.stats.unreadable += u64::from(!counted);
                    if let Some(source) = self.source(&c.entry.path) {
                        source.entries += 1;
                        source.files += file;
                    }
                    kept.push(self.kept(c));
                    if kept.len() >= BATCH_ENTRIES {
                        self.end_batch()?;
                        self.send(PendingResult::Ready(std::mem::take(&mut kept)))?;
                        self.shared.check()?;
                    }
                }
            }
        };
        if !kept.is_empty() {
            self.end_batch()?;
            self.send(PendingResult::Ready(kept))?;
        }
        Ok(found)
    }

    /// Judges an entry of the newest snapshot that the walk did not find.
    fn judge_absent(&mut self, known: &CachedEntry) -> Result<AbsentEntryOutcome, BackupError> {
        // If the cache is of the newest snapshot, the journal vouches for all its chunks, unless this run compared the
        // index with the store.
        let index = match self.ledger.compared_index() {
            Some(index) => Some(index),
            None if self.base.is_some() && !self.unread.is_clear() => Some(self.ledger.known_chunks()?.index.as_ref()),
            None => None,
        };
        let stored =
            |entry: &ManifestEntry| index.is_none_or(|index| entry.kind.chunks().iter().all(|id| index.contains(id)));
        Ok(self.unread.judge_absent(&known.entry, stored))
    }

    /// The result for an entry that stays as it was last read. Its cached data stay valid.
    fn kept(&self, known: CachedEntry) -> EntryResult {
        let local = known.local.filter(|_| self.base.is_none());
        EntryResult {
            base: Some(Arc::clone(&known.entry)),
            entry: Some(known.entry),
            local,
            kept: true,
            ..EntryResult::default()
        }
    }

    fn source(&mut self, path: &TreePath) -> Option<&mut SourceCount> {
        self.sources.iter_mut().find(|source| path.starts_with(&source.path))
    }

    fn problem(&mut self, problem: PathProblem) -> Result<(), BackupError> {
        // The entry of an unreadable directory came before its problem; for other entries this is the place in path
        // order.
        let base = self.known(&problem.path)?.1;
        self.end_batch()?;
        let (path, unreadable) = (problem.path.clone(), matches!(problem.kind, PathProblemKind::Unreadable(_)));
        let done = EntryResult::problem(problem, base, None);
        let kept = done.entry.as_ref().map(|entry| !matches!(entry.kind, EntryKind::Dir));
        if let Some(source) = self.source(&path).filter(|_| unreadable) {
            source.unread = true;
            source.entries += u64::from(kept.is_some());
            source.files += u64::from(kept == Some(true));
        }
        if unreadable {
            self.unread.problem(&path, kept.is_some());
        }
        self.send(PendingResult::Ready(vec![done]))
    }

    /// Called before the walk proceeds to `next`: reports the previous directory as unreadable if a volume is no longer
    /// mounted there.
    fn unmounted(&mut self, next: Option<&TreePath>) -> Result<(), BackupError> {
        let Some(path) = self.mounts.missing_mount(next) else { return Ok(()) };
        let stream = self.base.as_mut().unwrap_or(&mut self.cache);
        let had = Cell::new(false);
        stream.next_if(|known| {
            had.set(known.entry.path.starts_with(&path));
            false
        })?;
        if !had.get() {
            return Ok(());
        }
        self.mounts.keep(path.clone());
        self.problem(PathProblem { path, kind: PathProblemKind::Unreadable(NOT_MOUNTED.to_owned()) })
    }

    fn entry(&mut self, scanned: ScannedEntry) -> Result<(), BackupError> {
        let file = u64::from(scanned.stat.kind != FileType::Dir);
        if let Some(source) = self.source(&scanned.path) {
            source.entries += 1;
            source.files += file;
        }
        let (cached, base) = self.known(&scanned.path)?;
        self.unread.found(&scanned.path);
        let (object, many_names) = (scanned.stat.object(), scanned.stat.has_more_names());
        let known = KnownEntry {
            cached: cached.as_ref(),
            base: base.as_deref(),
            first_name: self.first_names.get(&object).filter(|_| many_names),
            trust_mtime: self.trust_mtime,
        };
        let decision = match self.ledger.compared_index() {
            Some(index) => decide(&scanned.stat, &known, &|id| index.is_in_sound_pack(id)),
            // The cache is of the newest snapshot, so the journal vouches for all its chunks.
            None if self.base.is_none() => decide(&scanned.stat, &known, &|_| true),
            None => {
                let known_chunks = self.ledger.known_chunks()?;
                decide(&scanned.stat, &known, &|id| known_chunks.index.contains(id))
            }
        };
        if many_names && !matches!(decision, EntryDecision::Link(_)) {
            self.first_names.entry(object).or_insert_with(|| scanned.path.clone());
        }
        let size = match &decision {
            EntryDecision::Read if scanned.stat.kind == FileType::File => scanned.stat.size,
            EntryDecision::Keep(entry) => entry.kind.size(),
            _ => 0,
        };
        JobProgress::add(&self.shared.progress.total_bytes, size);
        match &decision {
            EntryDecision::Read if scanned.stat.size >= u64::from(self.shared.chunker.average) => {
                return self.large(scanned, base);
            }
            EntryDecision::Read => self.batch_bytes += scanned.stat.size,
            EntryDecision::Keep(entry) => {
                self.shared.progress.bytes_read.fetch_add(entry.kind.size(), Ordering::Relaxed);
            }
            _ => {}
        }
        self.batch_bytes += scanned.path.as_bytes().len() as u64;
        self.batch.push(PendingEntry { scanned, decision, base });
        let full = self.batch.len() >= BATCH_ENTRIES || self.batch_bytes >= FRAME_TARGET_BYTES as u64;
        if full { self.end_batch() } else { Ok(()) }
    }

    fn end_batch(&mut self) -> Result<(), BackupError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        // The next batch has about the same length.
        let next = Vec::with_capacity(self.batch.len());
        let todos = std::mem::replace(&mut self.batch, next);
        self.batch_bytes = 0;
        let (reply, answer) = bounded(1);
        self.send(PendingResult::Pending(answer, todos.len()))?;
        self.outputs.tasks.send(WorkerTask::Entries(todos, reply)).map_err(|_| BackupError::Stopped)
    }

    fn large(&mut self, scanned: ScannedEntry, base: Option<Arc<ManifestEntry>>) -> Result<(), BackupError> {
        self.end_batch()?;
        let seen = self.shared.observed_at();
        let opened = read::open_file(&self.shared.roots, &scanned.path).and_then(|file| {
            let completed = file.to_entry(&scanned.path, &self.shared.names);
            let content = FileContent::of(file).map_err(|e| PathProblem::io(scanned.path.clone(), &e))?;
            Ok((completed, Arc::new(content)))
        });
        let (mut completed, content) = match opened {
            Ok(opened) => opened,
            Err(problem) => {
                let done = EntryResult::problem(problem, base, Some(FileType::File)).first_of(&scanned);
                return self.send(PendingResult::Ready(vec![done]));
            }
        };
        if let EntryKind::File { extents, .. } = &mut completed.entry.kind {
            extents.clone_from(&content.extents);
        }
        let (total, step) = (content.len(), self.shared.chunker.segment);
        let (answers, segments) = bounded(SEGMENTS_AHEAD);
        self.send(PendingResult::Large(Box::new(LargeFile {
            scanned,
            base,
            completed,
            content: content.clone(),
            segments,
            seen,
        })))?;
        let mut start = 0;
        while start < total {
            self.shared.check()?;
            let (reply, answer) = bounded(1);
            if answers.send(answer).is_err() {
                // The finish stage needs no more segments: the file is unreadable, or is read again from the start.
                return Ok(());
            }
            let segment = FileSegment { content: content.clone(), start, len: step.min(total - start) };
            self.outputs.tasks.send(WorkerTask::Segment(segment, reply)).map_err(|_| BackupError::Stopped)?;
            start += step;
        }
        Ok(())
    }

    fn send(&self, slot: PendingResult) -> Result<(), BackupError> {
        self.outputs.results.send(slot).map_err(|_| BackupError::Stopped)
    }
}

#[cfg(test)]
mod tests;
