//! Reads files: small ones whole into shared frames, large ones cut into chunks. Each chunk gets its ID, is claimed in
//! the dedup index, and compressed if it is new. Several workers run at the same time; each has a frame of its own.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender};
use fastcdc::v2020::FastCDC;

use crate::ids::ChunkId;
use crate::job::backup::dedup_index::DedupIndex;
use crate::job::backup::entry_decision::EntryDecision;
use crate::job::backup::packer::PackerInput;
use crate::job::backup::shared::PipelineContext;
use crate::job::error::BackupError;
use crate::job::node::progress::JobProgress;
use crate::job::node::stall::RunActivity;
use crate::repo::entry::{EntryKind, Extent, ManifestEntry, TreePath, UnixNanos};
use crate::repo::file_layout::FileLayout;
use crate::repo::format::ChunkerParams;
use crate::repo::pack::{ChunkEntry, FRAME_TARGET_BYTES, FrameCompressor, PackedFrame};
use crate::tree::compare::CachedStat;
use crate::tree::problem::{PathProblem, PathProblemKind};
use crate::tree::read::{self, OpenFile, ReadEntry};
use crate::tree::scan::ScannedEntry;
use crate::tree::stat::{FileType, ObjectId};

/// Number of times that a file is read again if it changes while it is read; then the last content is used.
pub(crate) const CHANGED_RETRIES: u32 = 3;

/// The most bytes of one read: a source with 64 KiB/s gives them in a quarter of a minute.
const READ_BYTES_MAX: usize = 1 << 20;

/// Results of this total size are sent before their batch is complete: attributes, paths and extents may be large.
const DONE_WEIGHT_MAX: usize = 4 << 20;

/// An entry that a worker has to process.
#[derive(Debug)]
pub(crate) struct PendingEntry {
    pub(crate) scanned: ScannedEntry,
    pub(crate) decision: EntryDecision,
    /// The entry in the newest snapshot.
    pub(crate) base: Option<Arc<ManifestEntry>>,
}

/// The result of processing one entry; `entry` is `None` if it could not be read.
#[derive(Debug, Default)]
pub(crate) struct EntryResult {
    pub(crate) entry: Option<Arc<ManifestEntry>>,
    pub(crate) local: Option<CachedStat>,
    pub(crate) base: Option<Arc<ManifestEntry>>,
    pub(crate) problems: Vec<PathProblem>,
    /// The file that was opened for the entry; `None` if none was opened.
    pub(crate) object: Option<ObjectId>,
    /// The path, if it is the first name of a hard-linked file and no longer leads to the file that the walk saw: later
    /// names cannot refer to it.
    pub(crate) lost_first_name: Option<TreePath>,
    /// For a further hard link, the scanned entry: it may have to become the first name.
    pub(crate) hard_link: Option<Box<ScannedEntry>>,
    /// Whether the entry is taken from the newest snapshot because the file could not be read.
    pub(crate) kept: bool,
}

impl EntryResult {
    /// The result for an entry with a problem; `saw` is its type in the walk, `None` if the walk could not see it. An
    /// unreadable entry stays in the snapshot as it was last read, if it still stands for itself: a hard link may refer
    /// to another file by now, and a directory needs its content.
    pub(crate) fn problem(problem: PathProblem, base: Option<Arc<ManifestEntry>>, saw: Option<FileType>) -> Self {
        let unreadable = matches!(problem.kind, PathProblemKind::Unreadable(_));
        let fits = |entry: &Arc<ManifestEntry>| match (&entry.kind, saw) {
            (EntryKind::Hardlink { .. }, _) => false,
            (_, None) => true,
            (kind, Some(saw)) => matches!(kind, EntryKind::Dir) == (saw == FileType::Dir),
        };
        let entry = base.clone().filter(|entry| unreadable && fits(entry));
        let kept = entry.is_some();
        Self { entry, base, kept, problems: vec![problem], ..Self::default() }
    }

    /// The result for an entry whose content is known.
    pub(crate) fn completed(done: ReadEntry, base: Option<Arc<ManifestEntry>>, seen: UnixNanos) -> Self {
        let local = CachedStat::from_stat(&done.stat, seen);
        let (object, problems) = (Some(done.stat.object()), done.problem.into_iter().collect());
        Self { entry: Some(Arc::new(done.entry)), local, base, problems, object, ..Self::default() }
    }

    /// Approximate size in bytes, without content.
    fn weight(&self) -> usize {
        let Some(entry) = &self.entry else { return size_of::<Self>() };
        let xattrs: usize = entry.xattrs.iter().map(|x| x.name.len() + x.value.len()).sum();
        let extents = match &entry.kind {
            EntryKind::File { extents: Some(extents), .. } => size_of_val(&extents[..]),
            _ => 0,
        };
        size_of::<Self>() + entry.path.as_bytes().len() + xattrs + extents
    }

    /// Sets [`EntryResult::lost_first_name`] if this entry does not describe the hard-linked file that the walk saw: it
    /// was removed meanwhile, cannot be read, or another file has its name now.
    pub(crate) fn first_of(mut self, scanned: &ScannedEntry) -> Self {
        let stat = &scanned.stat;
        if stat.has_more_names() && self.object != Some(stat.object()) {
            self.lost_first_name = Some(scanned.path.clone());
        }
        self
    }
}

/// A task for a worker, with the channel for its results.
#[derive(Debug)]
pub(crate) enum WorkerTask {
    /// Neighbouring entries in path order. The results come in parts, one for each entry.
    Entries(Vec<PendingEntry>, Sender<Result<Vec<EntryResult>, BackupError>>),
    /// One segment of a large file.
    Segment(FileSegment, Sender<Result<SegmentResult, BackupError>>),
}

/// A part of a large file's content that is chunked independently.
#[derive(Debug)]
pub(crate) struct FileSegment {
    pub(crate) content: Arc<FileContent>,
    pub(crate) start: u64,
    pub(crate) len: u64,
}

/// The result of a segment.
#[derive(Debug)]
pub(crate) struct SegmentResult {
    pub(crate) chunks: Vec<ChunkId>,
    /// An error of the file, not of the store.
    pub(crate) error: Option<io::Error>,
}

/// The content of an open file: all of it, or the extents of a sparse file without its holes.
#[derive(Debug)]
pub(crate) struct FileContent {
    pub(crate) file: OpenFile,
    pub(crate) extents: Option<Vec<Extent>>,
    layout: FileLayout,
    len: u64,
}

impl FileContent {
    /// The present content of a file.
    ///
    /// # Errors
    /// The file has more data than allowed ([`read::DATA_MAX`]), or its holes keep changing.
    pub(crate) fn of(file: OpenFile) -> io::Result<Self> {
        Self::within(file, read::EXTENTS_MAX, read::DATA_MAX)
    }

    fn within(file: OpenFile, extents_max: usize, data_max: u64) -> io::Result<Self> {
        let extents = file.extents(extents_max)?;
        let size = file.stat().size;
        let len = extents.as_ref().map_or(size, |e| e.iter().map(|e| e.len).sum());
        if len > data_max {
            return Err(read::too_much_data_error());
        }
        let layout = FileLayout::of(size, extents.as_deref(), len).map_err(io::Error::other)?;
        Ok(Self { file, extents, layout, len })
    }

    /// Length in bytes without holes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Fills `buffer` from `at`; less only if the file ends too early.
    fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        let mut filled = 0;
        for (offset, part) in self.layout.spans(at..at + buffer.len() as u64) {
            let want = part.len();
            let got = self.file.read_at(&mut buffer[part], offset)?;
            filled += got;
            if got < want {
                break;
            }
        }
        Ok(filled)
    }

    /// Size and extents of the content that was read, which has `len` bytes. A file that was truncated meanwhile ends
    /// there; its holes stay holes.
    fn measure(self, len: u64) -> (u64, Option<Vec<Extent>>) {
        let Some(mut extents) = self.extents else { return (len, None) };
        if len >= self.len {
            return (self.file.stat().size, Some(extents));
        }
        let mut left = len;
        extents.retain_mut(|extent| {
            extent.len = extent.len.min(left);
            left -= extent.len;
            extent.len > 0
        });
        (extents.last().map_or(0, |last| last.offset + last.len), Some(extents))
    }
}

/// The result of reading a file.
struct FileReadResult {
    chunks: Vec<ChunkId>,
    len: u64,
    /// The file was written to meanwhile.
    changed: bool,
}

/// Computes chunk IDs, claims chunks, and collects new ones into frames.
pub(crate) struct ChunkWriter<'a> {
    shared: &'a PipelineContext,
    ledger: &'a DedupIndex<'a>,
    packer: Sender<PackerInput>,
    wrap: fn(PackedFrame) -> PackerInput,
    compressor: FrameCompressor,
    frame: Vec<u8>,
    chunks: Vec<ChunkEntry>,
}

impl<'a> ChunkWriter<'a> {
    pub(crate) fn new(
        shared: &'a PipelineContext,
        ledger: &'a DedupIndex<'a>,
        packer: Sender<PackerInput>,
        wrap: fn(PackedFrame) -> PackerInput,
    ) -> Self {
        let (frame, chunks) = (Vec::with_capacity(FRAME_TARGET_BYTES), Vec::new());
        Self { shared, ledger, packer, wrap, compressor: FrameCompressor::default(), frame, chunks }
    }

    /// Stores a chunk unless the repository has it; returns its ID.
    pub(crate) fn store(&mut self, content: &[u8]) -> Result<ChunkId, BackupError> {
        let id = self.shared.keys.chunk_id(content);
        if self.ledger.claim(&id)? {
            self.make_room(content.len())?;
            self.frame.extend_from_slice(content);
            self.added(id, content.len())?;
        }
        Ok(id)
    }

    /// Closes the frame if `len` more bytes would make it too large.
    fn make_room(&mut self, len: usize) -> Result<(), BackupError> {
        if !self.frame.is_empty() && self.frame.len() + len > FRAME_TARGET_BYTES { self.flush() } else { Ok(()) }
    }

    /// Adds the last `len` bytes of the frame as a new chunk.
    fn added(&mut self, id: ChunkId, len: usize) -> Result<(), BackupError> {
        self.chunks.push(ChunkEntry { id, len: len as u32 });
        self.shared.counts.new_bytes.fetch_add(len as u64, Ordering::Relaxed);
        if self.frame.len() >= FRAME_TARGET_BYTES { self.flush() } else { Ok(()) }
    }

    /// Sends the open frame to the packer.
    pub(crate) fn flush(&mut self) -> Result<(), BackupError> {
        if self.chunks.is_empty() {
            return Ok(());
        }
        let memory = self.shared.buffers.frame();
        let packed = self.compressor.pack_into(memory, &self.frame, std::mem::take(&mut self.chunks));
        self.frame.clear();
        self.packer.send((self.wrap)(packed)).map_err(|_| BackupError::Stopped)
    }
}

/// One worker.
pub(crate) struct ReadWorker<'a> {
    storer: ChunkWriter<'a>,
    shared: &'a PipelineContext,
    /// Buffer in which large content is cut: twice the largest chunk, so that each refill gives at least one chunk.
    window: Vec<u8>,
}

impl<'a> ReadWorker<'a> {
    pub(crate) fn new(shared: &'a PipelineContext, ledger: &'a DedupIndex<'a>, packer: Sender<PackerInput>) -> Self {
        Self { storer: ChunkWriter::new(shared, ledger, packer, PackerInput::Data), shared, window: Vec::new() }
    }

    /// Works until the task queue is closed.
    pub(crate) fn run(mut self, tasks: &Receiver<WorkerTask>) -> Result<(), BackupError> {
        for task in tasks {
            if self.shared.stop.is_cancelled() {
                return Err(BackupError::Interrupted);
            }
            // A closed channel means that the run has failed already.
            match task {
                WorkerTask::Entries(todos, reply) => self.entries(todos, &reply),
                WorkerTask::Segment(segment, reply) => {
                    let _ = reply.send(self.segment(&segment));
                }
            }
        }
        self.storer.flush()
    }

    fn entries(&mut self, todos: Vec<PendingEntry>, reply: &Sender<Result<Vec<EntryResult>, BackupError>>) {
        let mut part = Vec::with_capacity(todos.len());
        let mut weight = 0;
        for todo in todos {
            match self.entry(todo) {
                Ok(done) => {
                    weight += done.weight();
                    part.push(done);
                }
                Err(error) => {
                    let _ = reply.send(Err(error));
                    return;
                }
            }
            if weight > DONE_WEIGHT_MAX {
                weight = 0;
                if reply.send(Ok(std::mem::take(&mut part))).is_err() {
                    return;
                }
            }
        }
        let _ = reply.send(Ok(part));
    }

    fn entry(&mut self, todo: PendingEntry) -> Result<EntryResult, BackupError> {
        let PendingEntry { scanned, decision, base } = todo;
        match decision {
            EntryDecision::Keep(entry) => Ok(self.known(entry, scanned, base)),
            EntryDecision::Link(target) => {
                let owner = self.shared.names.owner(&scanned.stat);
                let (path, mtime) = (scanned.path.clone(), scanned.stat.mtime);
                let entry =
                    ManifestEntry { path, kind: EntryKind::Hardlink { target }, owner, mtime, xattrs: Vec::new() };
                Ok(self.known(Arc::new(entry), scanned, base))
            }
            EntryDecision::Trust(kind) => Ok(self.trust(&scanned, kind, base)?.first_of(&scanned)),
            EntryDecision::Describe => Ok(self.describe(&scanned, base).first_of(&scanned)),
            EntryDecision::Read => Ok(self.read(&scanned.path, base)?.first_of(&scanned)),
        }
    }

    /// The result for an entry for which nothing is opened.
    fn known(&self, entry: Arc<ManifestEntry>, scanned: ScannedEntry, base: Option<Arc<ManifestEntry>>) -> EntryResult {
        let local = CachedStat::from_stat(&scanned.stat, self.shared.observed_at());
        let further = matches!(entry.kind, EntryKind::Hardlink { .. }).then(|| Box::new(scanned));
        EntryResult { entry: Some(entry), local, base, hard_link: further, ..EntryResult::default() }
    }

    /// The result for a file whose content is trusted by size and time, if the path still leads to the file that the
    /// walk saw.
    fn trust(
        &mut self,
        scanned: &ScannedEntry,
        kind: EntryKind,
        base: Option<Arc<ManifestEntry>>,
    ) -> Result<EntryResult, BackupError> {
        let seen = self.shared.observed_at();
        match read::read_entry(&self.shared.roots, scanned, &self.shared.names) {
            Ok(completed) if scanned.stat.unchanged_in(&completed.stat) => {
                let entry = ManifestEntry { kind, ..completed.entry };
                Ok(EntryResult::completed(ReadEntry { entry, ..completed }, base, seen))
            }
            Ok(_) => self.read(&scanned.path, base),
            Err(problem) => Ok(EntryResult::problem(problem, base, Some(scanned.stat.kind))),
        }
    }

    fn describe(&self, scanned: &ScannedEntry, base: Option<Arc<ManifestEntry>>) -> EntryResult {
        let seen = self.shared.observed_at();
        match read::read_entry(&self.shared.roots, scanned, &self.shared.names) {
            Ok(completed) => EntryResult::completed(completed, base, seen),
            Err(problem) => EntryResult::problem(problem, base, Some(scanned.stat.kind)),
        }
    }

    /// Whether the repository has the content of an entry, as far as is known.
    pub(crate) fn has(&self, entry: &ManifestEntry) -> bool {
        self.storer.ledger.has_all(entry.kind.chunks())
    }

    /// Turns a further hard link into the first name.
    pub(crate) fn read_as_first_name(
        &mut self,
        scanned: &ScannedEntry,
        base: Option<Arc<ManifestEntry>>,
    ) -> Result<EntryResult, BackupError> {
        if scanned.stat.kind == FileType::File {
            self.read(&scanned.path, base)
        } else {
            Ok(self.describe(scanned, base))
        }
    }

    /// Reads a file, and reads it again if it changes meanwhile.
    pub(crate) fn read(
        &mut self,
        path: &TreePath,
        base: Option<Arc<ManifestEntry>>,
    ) -> Result<EntryResult, BackupError> {
        for attempt in 0..=CHANGED_RETRIES {
            let seen = self.shared.observed_at();
            self.shared.progress.begin(RunActivity::Reading(path.clone()));
            let file = match read::open_file(&self.shared.roots, path) {
                Ok(file) => file,
                Err(problem) => return Ok(EntryResult::problem(problem, base, Some(FileType::File))),
            };
            let completed = file.to_entry(path, &self.shared.names);
            let last = attempt == CHANGED_RETRIES;
            let content = match FileContent::of(file) {
                Ok(content) => content,
                Err(error) => {
                    let problem = PathProblem::io(path.clone(), &error);
                    return Ok(EntryResult::problem(problem, base, Some(FileType::File)));
                }
            };
            let small = content.len() < u64::from(self.shared.chunker.average) && content.extents.is_none();
            let result = if small { self.read_small(&content.file)? } else { self.all_segments(&content)? };
            let read = match result {
                Ok(read) => read,
                Err(error) => {
                    let problem = PathProblem::io(path.clone(), &error);
                    return Ok(EntryResult::problem(problem, base, Some(FileType::File)));
                }
            };
            if read.changed && !last {
                continue;
            }
            let (size, extents) = content.measure(read.len);
            let mut done = EntryResult::completed(completed, base, seen);
            if let Some(entry) = done.entry.as_mut() {
                Arc::make_mut(entry).kind = EntryKind::File { size, extents, chunks: read.chunks };
            }
            if read.changed {
                // The content that was read may never have existed as a whole, so the next run must read the file
                // again.
                done.local = None;
                done.problems.push(PathProblem { path: path.clone(), kind: PathProblemKind::Changed });
            }
            return Ok(done);
        }
        unreachable!("the last attempt returns")
    }

    /// Reads a small file directly into the frame.
    fn read_small(&mut self, file: &OpenFile) -> Result<io::Result<FileReadResult>, BackupError> {
        self.storer.make_room(file.stat().size as usize)?;
        let start = self.storer.frame.len();
        let whole = match file.read_whole(&mut self.storer.frame) {
            Ok(whole) => whole,
            Err(error) => return Ok(Err(error)),
        };
        if whole.unsized_content {
            return self.unsized_content(file);
        }
        self.shared.read(whole.len as u64);
        let mut chunks = Vec::new();
        if whole.len > 0 {
            let id = self.shared.keys.chunk_id(&self.storer.frame[start..]);
            chunks.push(id);
            if self.storer.ledger.claim(&id)? {
                self.storer.added(id, whole.len)?;
            } else {
                self.storer.frame.truncate(start);
            }
        }
        Ok(Ok(FileReadResult { chunks, len: whole.len as u64, changed: whole.changed }))
    }

    /// Reads a file that reports size zero but has content.
    fn unsized_content(&mut self, file: &OpenFile) -> Result<io::Result<FileReadResult>, BackupError> {
        let (chunks, len) = match self.stream(&mut file.sequential_reader())? {
            Ok(read) => read,
            Err(error) => return Ok(Err(error)),
        };
        Ok(file.changed().map(|changed| FileReadResult { chunks, len, changed }))
    }

    /// Reads a large file from start to end.
    fn all_segments(&mut self, content: &FileContent) -> Result<io::Result<FileReadResult>, BackupError> {
        let total = content.len();
        let mut chunks = Vec::new();
        let mut len = 0;
        while len < total {
            let part = self.shared.chunker.segment.min(total - len);
            let mut got = 0;
            let start = len;
            let mut read = |buffer: &mut [u8], offset: u64| content.read_at(buffer, start + offset);
            if let Err(error) = self.chunk(&mut read, part, &mut chunks, &mut got)? {
                return Ok(Err(error));
            }
            len += got;
            if got < part {
                break;
            }
        }
        Ok(content.file.changed().map(|changed| FileReadResult { chunks, len, changed: changed || len < total }))
    }

    fn segment(&mut self, segment: &FileSegment) -> Result<SegmentResult, BackupError> {
        let mut chunks = Vec::new();
        let mut got = 0;
        let mut read = |buffer: &mut [u8], offset: u64| segment.content.read_at(buffer, segment.start + offset);
        let error = match self.chunk(&mut read, segment.len, &mut chunks, &mut got)? {
            Ok(()) if got < segment.len => Some(io::ErrorKind::UnexpectedEof.into()),
            Ok(()) => None,
            Err(error) => Some(error),
        };
        Ok(SegmentResult { chunks, error })
    }

    /// Cuts up to `len` bytes from `read(buffer, offset)` into chunks and stores them.
    fn chunk(
        &mut self,
        read: &mut dyn FnMut(&mut [u8], u64) -> io::Result<usize>,
        len: u64,
        chunks: &mut Vec<ChunkId>,
        got: &mut u64,
    ) -> Result<io::Result<()>, BackupError> {
        let ChunkerParams { min, average, max, .. } = self.shared.chunker;
        let max = max as usize;
        let mut window = std::mem::take(&mut self.window);
        window.resize(2 * max, 0);
        let (mut from, mut filled, mut ended) = (0, 0, false);
        let result = loop {
            if !ended && filled - from < max {
                window.copy_within(from..filled, 0);
                filled -= from;
                from = 0;
                let failed = loop {
                    let room = usize::try_from(len - *got).unwrap_or(usize::MAX).min(window.len() - filled);
                    // In small reads, so that a slow source shows progress.
                    let want = room.min(READ_BYTES_MAX);
                    match read(&mut window[filled..filled + want], *got) {
                        Ok(n) => {
                            filled += n;
                            *got += n as u64;
                            self.shared.read(n as u64);
                            ended = n < want || *got == len;
                            if ended || filled == window.len() {
                                break None;
                            }
                        }
                        Err(error) => break Some(error),
                    }
                };
                if let Some(error) = failed {
                    break Ok(Err(error));
                }
            }
            if from == filled {
                break Ok(Ok(()));
            }
            if self.shared.stop.is_cancelled() {
                break Err(BackupError::Interrupted);
            }
            let rest = &window[from..filled];
            let cdc = FastCDC::new(rest, min as usize, average as usize, max);
            let (_, end) = cdc.cut(0, rest.len());
            match self.storer.store(&rest[..end]) {
                Ok(id) => chunks.push(id),
                Err(error) => break Err(error),
            }
            from += end;
        };
        self.window = window;
        result
    }

    /// Stores a stream of unknown length, segment by segment; returns its chunks and its length.
    pub(crate) fn stream(&mut self, source: &mut dyn io::Read) -> Result<io::Result<(Vec<ChunkId>, u64)>, BackupError> {
        let mut chunks = Vec::new();
        let mut total = 0;
        loop {
            let mut got = 0;
            let mut read = |buffer: &mut [u8], _| {
                let mut filled = 0;
                while filled < buffer.len() {
                    match source.read(&mut buffer[filled..]) {
                        Ok(0) => break,
                        Ok(n) => {
                            filled += n;
                            self.shared.progress.step();
                        }
                        Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                        Err(e) => return Err(e),
                    }
                }
                Ok(filled)
            };
            let part = self.shared.chunker.segment;
            match self.chunk(&mut read, part, &mut chunks, &mut got)? {
                Ok(()) if got < part => return Ok(Ok((chunks, total + got))),
                Ok(()) => total += got,
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    /// Sends the last frame to the packer.
    pub(crate) fn finish(mut self) -> Result<(), BackupError> {
        self.storer.flush()
    }
}

impl PipelineContext {
    fn read(&self, bytes: u64) {
        self.counts.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        JobProgress::add(&self.progress.bytes_read, bytes);
    }
}

#[cfg(test)]
pub(crate) mod tests;
