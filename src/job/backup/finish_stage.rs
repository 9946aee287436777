//! The last stage of the pipeline: takes results in path order, compares them with the newest snapshot, writes the
//! manifest and the cache, and counts.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::ids::ChunkId;
use crate::job::backup::shared::PipelineContext;
use crate::job::backup::tree_cache::CacheWriter;
use crate::job::backup::walk_stage::{LargeFile, PendingResult};
use crate::job::backup::worker::{ChunkWriter, EntryResult, ReadWorker};
use crate::job::error::BackupError;
use crate::job::node::progress::JobProgress;
use crate::job::report::{FileCounts, PROBLEMS_MAX};
use crate::repo::entry::{EntryKind, TreePath};
use crate::repo::manifest::{ManifestChunkSink, ManifestWriter};
use crate::tree::compare::{self, PathChange};
use crate::tree::problem::{PathProblem, PathProblemKind};
use crate::tree::stat::FileType;

/// Counts of the finish stage.
#[derive(Debug, Default)]
pub(crate) struct BackupStats {
    pub(crate) files: FileCounts,
    /// Entries of the manifest.
    pub(crate) entries: u64,
    /// Regular files among them.
    pub(crate) regular: u64,
    /// Bytes of those files.
    pub(crate) source_bytes: u64,
    /// Entries that are not directories: a snapshot without any is empty.
    pub(crate) content: u64,
    /// Symbolic links among them.
    pub(crate) links: u64,
    /// BLAKE3 over paths and kinds of entries that are new or changed, or were removed before they were read.
    pub(crate) changed_set: blake3::Hasher,
    pub(crate) problems: Vec<PathProblem>,
    pub(crate) problem_count: u64,
    /// The first path that could not be read, even if `problems` has no room for it.
    pub(crate) first_unread: Option<PathProblem>,
}

/// A finished manifest.
pub(crate) struct FinishedManifest {
    pub(crate) root: ChunkId,
    /// All chunks of the manifest itself.
    pub(crate) nodes: Vec<ChunkId>,
    pub(crate) stats: Box<BackupStats>,
    /// The cache under its temporary name; `None` if it could not be written.
    pub(crate) cache: Option<CacheWriter>,
}

/// Stores the chunks of the manifest and collects their IDs.
struct ManifestSink<'a> {
    storer: ChunkWriter<'a>,
    ids: Vec<ChunkId>,
}

impl ManifestChunkSink for ManifestSink<'_> {
    type Error = BackupError;
    fn put(&mut self, bytes: Vec<u8>) -> Result<ChunkId, BackupError> {
        let id = self.storer.store(&bytes)?;
        self.ids.push(id);
        Ok(id)
    }
}

/// The finish stage.
pub(crate) struct FinishStage<'a> {
    shared: &'a PipelineContext,
    manifest: ManifestWriter<ManifestSink<'a>>,
    /// Reads files again that changed while they were read.
    worker: ReadWorker<'a>,
    cache: Option<CacheWriter>,
    stats: BackupStats,
    /// First names that no longer lead to the file that the walk saw, with the name that replaces each.
    lost_firsts: HashMap<TreePath, Option<TreePath>>,
    /// First names that stay as they were last read.
    kept_firsts: HashSet<TreePath>,
}

impl<'a> FinishStage<'a> {
    pub(crate) fn new(
        shared: &'a PipelineContext,
        storer: ChunkWriter<'a>,
        worker: ReadWorker<'a>,
        cache: Option<CacheWriter>,
    ) -> Self {
        let manifest = ManifestWriter::new(ManifestSink { storer, ids: Vec::new() });
        let (lost_firsts, kept_firsts) = (HashMap::new(), HashSet::new());
        Self { shared, manifest, worker, cache, stats: BackupStats::default(), lost_firsts, kept_firsts }
    }

    /// Takes all results until the channel is closed.
    pub(crate) fn run(mut self, slots: &Receiver<PendingResult>) -> Result<FinishedManifest, BackupError> {
        for slot in slots {
            match slot {
                PendingResult::Ready(done) => done.into_iter().try_for_each(|d| self.add_result(d))?,
                PendingResult::Pending(answer, mut left) => {
                    while left > 0 {
                        let part = answer.recv().map_err(|_| BackupError::Stopped)??;
                        left = left.saturating_sub(part.len());
                        part.into_iter().try_for_each(|d| self.add_result(d))?;
                    }
                }
                PendingResult::Large(large) => {
                    let done = self.large(*large)?;
                    self.add_result(done)?;
                }
            }
        }
        self.shared.check()?;
        self.worker.finish()?;
        let (root, entries, mut nodes) = self.manifest.finish()?;
        nodes.storer.flush()?;
        self.stats.entries = entries;
        Ok(FinishedManifest { root, nodes: nodes.ids, stats: Box::new(self.stats), cache: self.cache })
    }

    /// Joins the segments of a large file; if the file changed meanwhile, it is read again from the start.
    fn large(&mut self, large: LargeFile) -> Result<EntryResult, BackupError> {
        let LargeFile { scanned, base, completed, content, segments, seen } = large;
        let mut all = Vec::new();
        let mut error = None;
        for _ in 0..content.len().div_ceil(self.shared.chunker.segment) {
            let answer = segments.recv().map_err(|_| BackupError::Stopped)?;
            let segment = answer.recv().map_err(|_| BackupError::Stopped)??;
            all.extend(segment.chunks);
            error = segment.error;
            if error.is_some() {
                break;
            }
        }
        // The remaining segments need not be read.
        drop(segments);
        let end_of_file = error.as_ref().is_some_and(|e| e.kind() == std::io::ErrorKind::UnexpectedEof);
        if end_of_file || content.file.changed().unwrap_or(true) {
            return Ok(self.worker.read(&scanned.path, base)?.first_of(&scanned));
        }
        if let Some(error) = error {
            let problem = PathProblem::io(scanned.path.clone(), &error);
            return Ok(EntryResult::problem(problem, base, Some(FileType::File)).first_of(&scanned));
        }
        let mut done = EntryResult::completed(completed, base, seen).first_of(&scanned);
        if let Some(entry) = &mut done.entry
            && let EntryKind::File { chunks, .. } = &mut Arc::make_mut(entry).kind
        {
            *chunks = all;
        }
        Ok(done)
    }

    /// Repairs a hard link whose first name no longer led to the file when it was read: the first such link gets the
    /// content, and later ones refer to it.
    fn repair_link(&mut self, mut done: EntryResult) -> Result<EntryResult, BackupError> {
        if let Some(lost) = done.lost_first_name.take() {
            if done.kept {
                self.kept_firsts.insert(lost.clone());
            }
            self.lost_firsts.insert(lost, None);
        }
        let (Some(entry), Some(scanned)) = (&mut done.entry, &done.hard_link) else { return Ok(done) };
        let EntryKind::Hardlink { target } = &entry.kind else { return Ok(done) };
        match self.lost_firsts.get_mut(target) {
            None => {}
            Some(Some(instead)) => Arc::make_mut(entry).kind = EntryKind::Hardlink { target: instead.clone() },
            Some(none) => {
                let mut instead = self.worker.read_as_first_name(scanned, done.base.take())?;
                // It is as unreadable as the first name, and is kept if the first name was kept.
                if let (None, Some(base), Some(problem)) = (&instead.entry, &instead.base, instead.problems.first())
                    && matches!(problem.kind, PathProblemKind::Unreadable(_))
                    && matches!(&base.kind, EntryKind::Hardlink { target } if self.kept_firsts.contains(target))
                {
                    (instead.entry, instead.kept) = (Some(Arc::clone(base)), true);
                }
                if instead.object == Some(scanned.stat.object()) {
                    *none = Some(scanned.path.clone());
                }
                return Ok(instead);
            }
        }
        Ok(done)
    }

    fn add_result(&mut self, done: EntryResult) -> Result<(), BackupError> {
        let done = self.repair_link(done)?;
        let mut unreadable = false;
        for problem in done.problems {
            self.stats.problem_count += 1;
            if matches!(problem.kind, PathProblemKind::Unreadable(_)) {
                self.stats.files.unreadable += 1;
                unreadable = true;
                self.stats.first_unread.get_or_insert_with(|| problem.clone());
            }
            if self.stats.problems.len() < PROBLEMS_MAX {
                self.stats.problems.push(problem);
            }
        }
        let Some(entry) = done.entry.filter(|entry| !done.kept || self.worker.has(entry)) else {
            // The file is gone, unless it only cannot be read; then it was counted as unreadable.
            if let Some(base) = done.base.filter(|_| !unreadable) {
                self.stats.files.removed += 1;
                self.stats.changed_set.update(base.path.as_bytes()).update(b"\0");
            }
            return Ok(());
        };
        // An unchanged entry is the same object as the known one.
        let same = done.base.as_ref().is_some_and(|base| Arc::ptr_eq(base, &entry));
        let change =
            if same { Some(PathChange::Unchanged) } else { compare::path_change(done.base.as_deref(), Some(&entry)) };
        match change {
            // It is counted as unreadable too.
            _ if done.kept => self.stats.files.kept += 1,
            Some(PathChange::New) => self.stats.files.new += 1,
            Some(PathChange::Unchanged) => self.stats.files.unchanged += 1,
            _ => self.stats.files.changed += 1,
        }
        if !matches!(entry.kind, EntryKind::Dir) {
            self.stats.content += 1;
            self.stats.links += u64::from(matches!(entry.kind, EntryKind::Symlink { .. }));
        }
        if !done.kept && !same && done.base.as_deref() != Some(&entry) {
            let mark: &[u8] = if done.base.is_some() { b"\0M" } else { b"\0A" };
            self.stats.changed_set.update(entry.path.as_bytes()).update(mark);
        }
        if let EntryKind::File { size, .. } = &entry.kind {
            self.stats.regular += 1;
            self.stats.source_bytes += size;
            JobProgress::add(&self.shared.progress.files, 1);
        }
        JobProgress::add(&self.shared.progress.entries, 1);
        if let Some(cache) = &mut self.cache
            && let Err(error) = cache.push(Arc::clone(&entry), done.local)
        {
            // Without the cache the next run reads more, which is no reason to fail this run.
            tracing::warn!("the tree cache cannot be written: {error}");
            self.cache = None;
        }
        self.manifest.push(entry)
    }
}

#[cfg(test)]
mod tests;
