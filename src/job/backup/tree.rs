//! The content of a run: the role's sources, walked and read by the pipeline, and its dumps.

use std::collections::{BTreeMap, HashSet};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use tokio::runtime::Handle;
use tracing::Span;

use crate::config::{DumpSettings, RoleSettings, TakeoverTrust};
use crate::ids::ChunkId;
use crate::job::admission::session::RoleSession;
use crate::job::backup::dedup_index::{DedupIndex, IndexLoadOptions, IndexLoader};
use crate::job::backup::entry_stream::EntryBlocks;
use crate::job::backup::mounts::MountTracker;
use crate::job::backup::pipeline::{self, PipelineInput, PipelineOutput};
use crate::job::backup::request::BackupOptions;
use crate::job::backup::shared::{BufferPool, PipelineContext, WorkerCounters};
use crate::job::backup::tree_cache::{CacheReader, CacheWriter};
use crate::job::error::BackupError;
use crate::job::node::stall::RunActivity;
use crate::journal::state::Snapshot;
use crate::repo::entry::TreePath;
use crate::repo::reader::RepositoryReader;
use crate::tree::exclude::ExcludePatterns;
use crate::tree::owner_names::OwnerNames;
use crate::tree::scan::{ScanOptions, scan};

/// Stores the new content of the role's sources and dumps.
pub(in crate::job) async fn gather(
    session: &RoleSession<'_>,
    role: &RoleSettings,
    base: Option<&Snapshot>,
    survey: IndexLoadOptions,
    ask: &BackupOptions,
) -> Result<PipelineOutput, BackupError> {
    let cache = if ask.rehash { None } else { cache(session, base).await? };
    let mut exclude = role.exclude.clone();
    exclude.extend(ask.own_places.iter().map(|path| literal_pattern(path)));
    let exclude = ExcludePatterns::new(&exclude)?;
    let node_context = session.node_context();
    let options = ScanOptions {
        sources: role.sources.clone(),
        exclude: exclude.clone(),
        one_file_system: role.one_file_system,
        exclude_caches: role.exclude_caches,
        exclude_larger_than: role.exclude_larger_than,
    };
    if let Some(source) = options.sources.first().and_then(|path| tree_path(path)) {
        node_context.progress.begin(RunActivity::Walking(source));
    }
    // Opening a source may already hang.
    let opened = node_context.progress.enter_uninterruptible();
    let scan = node_context.env.blocking(move || (scan(options), drop(opened)).0).await;
    let scan = scan.ok_or_else(|| BackupError::Internal("opening the sources panicked".to_owned()))??;
    let shared = Arc::new(PipelineContext {
        keys: session.repository().keys.clone(),
        chunker: session.repository().format.chunker,
        env: node_context.env.clone(),
        names: OwnerNames::new(),
        roots: scan.roots(),
        stop: node_context.cancel.clone(),
        failed: AtomicBool::new(false),
        progress: node_context.progress.clone(),
        counts: WorkerCounters::default(),
        buffers: BufferPool::default(),
        stall_timeout: role.stall_timeout,
        presence: node_context.progress.enter_uninterruptible(),
    });
    let (store, keys) = (session.repository().store.clone(), session.repository().keys.clone());
    let current = cache.as_ref().is_some_and(|(_, current)| *current);
    // A tree cache from before the newest snapshot does not know its packs either.
    let compare = survey.compare.or_else(|| (!current).then(|| survey.known.clone()));
    let index_loader = IndexLoader::new(session, IndexLoadOptions { compare, ..survey });
    let known_chunks =
        if base.is_some() && index_loader.compares_with_store() { Some(index_loader.load().await?) } else { None };
    let reader =
        known_chunks.as_ref().filter(|_| !current).map(|s| RepositoryReader::new(store.clone(), keys, s.index.clone()));
    let nodes = cache.as_ref().filter(|_| current).and_then(|(c, _)| c.nodes()).unwrap_or_default();
    let cache_writer = CacheWriter::create(&session.tree_cache())
        .inspect_err(|error| tracing::warn!("the tree cache cannot be written: {error}"))
        .ok();
    let dumps: BTreeMap<String, DumpSettings> = role.dumps.clone();
    let environment = node_context.probe_context(role, Some(session.permit().term()), ask.slot).variables();
    let root = base.map(|b| b.root);
    let allow_empty = role.allow_empty;
    // With `one_file_system` nothing below a mount point is wanted, and with `allow_empty` an empty source is; then no
    // mount can be missed.
    let missed = !allow_empty && !role.one_file_system;
    let mounts = MountTracker::new(session.saved_state().mounts.iter().filter(|_| missed).cloned());
    let trust_mtime = role.takeover_trust == TakeoverTrust::Mtime && !ask.rehash;
    let handle = Handle::current();
    // The pipeline blocks, which a blocking thread may do and a worker of the runtime may not.
    let fields = Span::current();
    tokio::task::spawn_blocking(move || {
        let _fields = fields.entered();
        let ledger = DedupIndex::new(nodes.into_iter().collect::<HashSet<ChunkId>>(), known_chunks, {
            let handle = handle.clone();
            move || handle.block_on(index_loader.load())
        });
        let known = cache.map_or(EntryBlocks::None, |(reader, _)| EntryBlocks::Cache(Box::new(reader)));
        let manifest = reader
            .as_ref()
            .zip(root)
            .map(|(reader, root)| EntryBlocks::Manifest(Box::new(reader.manifest(root)), handle.clone()));
        pipeline::gather(PipelineInput {
            shared,
            store,
            scan,
            ledger: &ledger,
            cache: known,
            base: manifest,
            trust_mtime,
            dumps: dumps.iter().map(|(name, dump)| (name.as_str(), dump)).collect(),
            environment,
            allow_empty,
            exclude,
            mounts,
            cache_writer,
            handle: handle.clone(),
        })
        .map(|gathered| {
            let packs = gathered.packs.into_iter().chain(ledger.used_orphans()).collect();
            PipelineOutput { packs, ..gathered }
        })
    })
    .await
    .map_err(|e| BackupError::Internal(e.to_string()))?
}

fn tree_path(path: &Path) -> Option<TreePath> {
    TreePath::new(path.as_os_str().as_bytes().strip_prefix(b"/")?)
}

/// This node's tree cache, if the journal has the snapshot that it was made with. Also returns whether that is the
/// newest snapshot.
async fn cache(session: &RoleSession<'_>, base: Option<&Snapshot>) -> Result<Option<(CacheReader, bool)>, BackupError> {
    let (Some(base), Some(cache)) = (base, CacheReader::open(&session.tree_cache())) else { return Ok(None) };
    let bound = cache.bound();
    if bound.repo != session.repository().keys.repo() || bound.seq > base.seq {
        return Ok(None);
    }
    if bound.snapshot == base.id {
        return Ok(Some((cache, true)));
    }
    let vouched = session.state().snapshots.iter().any(|snapshot| snapshot.id == bound.snapshot);
    let vouched = vouched
        || match session.record_digest(bound.seq).await {
            Ok(known) => known == Some(bound.snapshot),
            // A repair may have declared the record void; damage that no repair names has already ended the reading of
            // the journal.
            Err(error) if error.unusable_record().is_some() => false,
            Err(error) => return Err(error.into()),
        };
    Ok(vouched.then_some((cache, false)))
}

/// The gitignore pattern that matches exactly this path.
fn literal_pattern(path: &Path) -> String {
    let mut pattern = String::new();
    for c in path.to_string_lossy().chars() {
        if "\\*?[]! #".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}
