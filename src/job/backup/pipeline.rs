//! The pipeline: walk → workers → packs → store, and results in path order → manifest. Threads do blocking work, tasks
//! wait for the network, and a bounded channel connects each two stages.
//!
//! Memory: two workers with a frame of 2 MiB each, its compressed form, and a window of 8 MiB; some frames in channels;
//! one growing pack and two being uploaded; the tables of the packs of one index object. In addition 36 bytes for each
//! new chunk.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use crossbeam_channel::bounded;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tracing::{Instrument as _, Span};

use crate::config::DumpSettings;
use crate::ids::{ChunkId, IndexId};
use crate::job::backup::dedup_index::DedupIndex;
use crate::job::backup::dump;
use crate::job::backup::empty_check::SourceCount;
use crate::job::backup::entry_stream::{EntryBlocks, EntryStream};
use crate::job::backup::finish_stage::{BackupStats, FinishStage, FinishedManifest};
use crate::job::backup::lost_content::HealingSummary;
use crate::job::backup::mounts::MountTracker;
use crate::job::backup::packer::{self, PackerInput, PackerOutput};
use crate::job::backup::shared::PipelineContext;
use crate::job::backup::tree_cache::CacheWriter;
use crate::job::backup::unreadable::UnreadableDirs;
use crate::job::backup::walk_stage::{StageOutputs, WalkStage, WalkStats};
use crate::job::backup::worker::{ChunkWriter, EntryResult, ReadWorker};
use crate::job::error::{BackupError, DumpError};
use crate::repo::entry::TreePath;
use crate::repo::pack::PackTable;
use crate::store::Store;
use crate::tree::exclude::ExcludePatterns;
use crate::tree::scan::TreeScan;

/// Threads that read and compress. More threads than cores only wait for each other.
const WORKERS: usize = 2;

/// Tasks that wait for a worker.
const TASKS_WAITING: usize = 8;

/// Results that wait for the finish stage. Each is a batch of entries, or an open large file.
const SLOTS_WAITING: usize = 32;

/// Frames that wait for the packer.
const FRAMES_WAITING: usize = 2;

/// Inputs of the pipeline.
pub(crate) struct PipelineInput<'a> {
    pub(crate) shared: Arc<PipelineContext>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) scan: TreeScan,
    pub(crate) ledger: &'a DedupIndex<'a>,
    pub(crate) cache: EntryBlocks<'a>,
    pub(crate) base: Option<EntryBlocks<'a>>,
    pub(crate) trust_mtime: bool,
    pub(crate) dumps: Vec<(&'a str, &'a DumpSettings)>,
    pub(crate) environment: Vec<(&'static str, String)>,
    /// Whether a dump may have no output.
    pub(crate) allow_empty: bool,
    /// Excluded entries are not kept when they cannot be read.
    pub(crate) exclude: ExcludePatterns,
    pub(crate) mounts: MountTracker,
    pub(crate) cache_writer: Option<CacheWriter>,
    pub(crate) handle: Handle,
}

/// Result of the pipeline. All packs are durable in the store.
pub(crate) struct PipelineOutput {
    pub(crate) root: ChunkId,
    pub(crate) nodes: Vec<ChunkId>,
    pub(crate) stats: Box<BackupStats>,
    /// Entries of the newest snapshot that no longer exist.
    pub(crate) removed: u64,
    /// BLAKE3 over all new, changed and removed entries.
    pub(crate) changed_set: [u8; 32],
    pub(crate) sources: Vec<SourceCount>,
    /// Index objects that were uploaded.
    pub(crate) indexes: Vec<IndexId>,
    /// Packs that none of these index objects lists.
    pub(crate) packs: Vec<PackTable>,
    pub(crate) cache: Option<CacheWriter>,
    /// What happened to content that the store had lost; `None`: the index was not compared with the store.
    pub(crate) healing: Option<HealingSummary>,
    /// Directories below the sources where volumes are mounted, or should be.
    pub(crate) mounts: Vec<TreePath>,
    /// Bytes read from files.
    pub(crate) read_bytes: u64,
    /// Bytes of new content, before compression.
    pub(crate) new_bytes: u64,
}

/// Runs the pipeline to its end. Blocks, so it needs a thread that may block.
pub(crate) fn gather(input: PipelineInput<'_>) -> Result<PipelineOutput, BackupError> {
    let shared = &*input.shared;
    let (task_out, task_in) = bounded(TASKS_WAITING);
    let (slot_out, slot_in) = bounded(SLOTS_WAITING);
    let (frame_out, frame_in) = bounded(FRAMES_WAITING);
    let (upload_out, upload_in) = mpsc::channel(1);
    let (turn_back, turns) = packer::upload_turns();
    let uploader = input
        .handle
        .spawn(packer::upload(input.shared.clone(), input.store.clone(), upload_in, turn_back).in_current_span());
    let (ledger, handle) = (input.ledger, &input.handle);
    // What the threads log has the fields of the run.
    let fields = &Span::current();
    let results = thread::scope(|scope| {
        let packer = scope
            .spawn(move || fields.in_scope(|| shared.noting(packer::build(shared, &frame_in, &turns, &upload_out))));
        let workers: Vec<_> = (0..WORKERS)
            .map(|_| {
                let (worker, tasks) = (ReadWorker::new(shared, ledger, frame_out.clone()), task_in.clone());
                scope.spawn(move || fields.in_scope(|| shared.noting(worker.run(&tasks))))
            })
            .collect();
        drop(task_in);
        let storer = ChunkWriter::new(shared, ledger, frame_out.clone(), PackerInput::Meta);
        let again = ReadWorker::new(shared, ledger, frame_out.clone());
        let finisher = FinishStage::new(shared, storer, again, input.cache_writer);
        let finisher = scope.spawn(move || fields.in_scope(|| shared.noting(finisher.run(&slot_in))));
        let worker = ReadWorker::new(shared, ledger, frame_out);
        let dumps = run_dumps(shared, worker, &input.dumps, &input.environment, input.allow_empty);
        let fed = shared.noting(dumps.and_then(|extra| {
            let dumps = extra.iter().filter_map(|done| done.entry.as_deref()).map(SourceCount::of_dump);
            let sources = shared.roots.paths().cloned().map(SourceCount::new).chain(dumps).collect();
            let feed = WalkStage {
                shared,
                ledger,
                outputs: StageOutputs { tasks: task_out, results: slot_out },
                cache: EntryStream::new(input.cache),
                base: input.base.map(EntryStream::new),
                trust_mtime: input.trust_mtime,
                extra,
                sources,
                stats: WalkStats::default(),
                batch: Vec::new(),
                batch_bytes: 0,
                first_names: HashMap::new(),
                unread: UnreadableDirs::new(input.exclude),
                mounts: input.mounts,
            };
            feed.run(input.scan)
        }));
        let workers = workers.into_iter().map(join).collect::<Vec<_>>();
        (fed, workers, join(finisher), join(packer))
    });
    let uploaded = handle.block_on(uploader).map_err(|e| BackupError::Internal(e.to_string())).flatten();
    let (fed, workers, finished, built) = results;
    // Of several errors the cause is returned, not a consequence in another stage.
    let mut errors = Vec::new();
    let fed = note(fed, &mut errors);
    for worker in workers {
        note(worker, &mut errors);
    }
    let finished = note(finished, &mut errors);
    let built = note(built, &mut errors);
    note(uploaded, &mut errors);
    match (first_cause(errors), fed, finished, built) {
        (None, Some((fed, sources)), Some(finished), Some(PackerOutput { indexes, packs })) => {
            let FinishedManifest { root, nodes, stats: mut tally, cache } = finished;
            tally.files.unreadable += fed.unreadable;
            let count = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
            let (read_bytes, new_bytes) = (count(&shared.counts.read_bytes), count(&shared.counts.new_bytes));
            let mut set = tally.changed_set.clone();
            let changed_set = *set.update(fed.removed_set.finalize().as_bytes()).finalize().as_bytes();
            let removed = fed.removed + tally.files.removed;
            Ok(PipelineOutput {
                root,
                nodes,
                stats: tally,
                removed,
                changed_set,
                sources,
                indexes,
                packs,
                cache,
                healing: ledger.healing(),
                mounts: fed.mounts,
                read_bytes,
                new_bytes,
            })
        }
        (Some(error), ..) => Err(error),
        (None, ..) => Err(BackupError::Stopped),
    }
}

fn join<T>(handle: thread::ScopedJoinHandle<'_, Result<T, BackupError>>) -> Result<T, BackupError> {
    handle.join().unwrap_or_else(|panic| {
        let words = panic.downcast_ref::<String>().map(String::as_str);
        let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a thread panicked");
        Err(BackupError::Internal(words.to_owned()))
    })
}

fn note<T>(result: Result<T, BackupError>, errors: &mut Vec<BackupError>) -> Option<T> {
    result.map_err(|e| errors.push(e)).ok()
}

fn first_cause(mut errors: Vec<BackupError>) -> Option<BackupError> {
    let cause = errors.iter().position(|e| !matches!(e, BackupError::Stopped)).unwrap_or(0);
    (!errors.is_empty()).then(|| errors.swap_remove(cause))
}

/// Dumps run before the walk: an application that freezes for its dump should not wait for the walk.
fn run_dumps(
    shared: &PipelineContext,
    mut worker: ReadWorker<'_>,
    dumps: &[(&str, &DumpSettings)],
    environment: &[(&str, String)],
    allow_empty: bool,
) -> Result<Vec<EntryResult>, BackupError> {
    let mut extra = Vec::new();
    for (name, dump) in dumps {
        let done = dump::run(shared, &mut worker, (name, dump), environment, allow_empty)?;
        let inside = |path: &TreePath| shared.roots.paths().any(|s| path.starts_with(s) || s.starts_with(path));
        if done.entry.as_ref().is_some_and(|e| inside(&e.path)) {
            return Err(BackupError::Dump { name: (*name).to_owned(), error: DumpError::Name });
        }
        extra.push(done);
    }
    worker.finish()?;
    extra.sort_by(|a, b| b.entry.as_ref().map(|e| &e.path).cmp(&a.entry.as_ref().map(|e| &e.path)));
    Ok(extra)
}

impl PipelineContext {
    /// Records that a stage failed, so that the other stages do not complete.
    fn noting<T>(&self, result: Result<T, BackupError>) -> Result<T, BackupError> {
        if result.is_err() {
            self.failed.store(true, Ordering::SeqCst);
        }
        result
    }
}
