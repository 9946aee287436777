//! `backup`: one session of one role, from the journal's head to the record that commits it.
//!
//! Order, and nothing of it is optional: read the head; take the role over (or go on under this node's own takeover); look what
//! the store has; put packs, then index objects, then the record, by compare-and-set on the head. Whatever goes wrong before
//! the record leaves garbage for a prune, never a snapshot that is not whole.

mod dump;
mod feed;
mod finish;
mod known;
mod packer;
mod pipeline;
mod plan;
mod stock;
mod worker;

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use tokio::runtime::Handle;

use crate::config::{Dump, RoleSettings, TakeoverTrust};
use crate::env::Env;
use crate::ids::{ChunkId, IndexId, InstanceId, PackId};
pub use crate::job::backup::dump::DumpError;
use crate::job::backup::known::Blocks;
use crate::job::backup::pipeline::{Gathered, Input, gather};
use crate::job::backup::stock::{Ledger, Orphans, Stock};
use crate::job::cache::{Bound, CacheError, CacheReader, CacheWriter};
use crate::job::cancel::Cancel;
use crate::job::local::{self, Local, LocalLock, LockError, Memory, Own};
use crate::job::progress::{Phase, Progress};
use crate::job::report::{ByteCounts, FileCounts};
use crate::job::repository::Repository;
use crate::journal::log::{AppendError, Journal, JournalError};
use crate::journal::record::{Body, Changes, Cost, NodeRef, SnapshotBody, TakeoverWhy};
use crate::journal::state::{Holder, Snapshot, View};
use crate::repo::crypto::Keys;
use crate::repo::entry::{Nanos, TreePath};
use crate::repo::format::ChunkerParams;
use crate::repo::index::{INDEX_OBJECT_CHUNKS, encode_index};
use crate::repo::names;
use crate::repo::pack::{self, PackTable};
use crate::repo::reader::{Reader, RepoError, load_index};
use crate::role::election::{History, Holding, Pause};
use crate::role::permit::{Candidacy, Permit};
use crate::store::proof::{self, ProofFailure};
use crate::store::{Store, StoreError, list_all};
use crate::tree::exclude::{BadPattern, Exclude};
use crate::tree::names::Names;
use crate::tree::problem::Problem;
use crate::tree::roots::Roots;
use crate::tree::scan::{Options, ScanError, scan};

/// Trailers of packs that a broken run left, fetched at once.
const ORPHAN_FETCHES: usize = 8;

/// How much of a pack's end is fetched to find its trailer; a longer one takes a second request.
const TRAILER_GUESS: u64 = 64 << 10;

/// How often a commit is tried again after operators' acts were appended meanwhile.
const COMMIT_ATTEMPTS: u32 = 16;

/// How long a commit waits for a lease service that cannot be reached. After that the run is over; what it uploaded is found by
/// the next.
const COMMIT_PATIENCE: Duration = Duration::from_mins(15);

/// How often it looks meanwhile.
const PERMIT_POLL: Duration = Duration::from_millis(100);

/// Why a backup committed nothing.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// An operator stopped it.
    #[error("interrupted")]
    Interrupted,
    /// Another part of the run failed; that part tells why.
    #[error("stopped by another failure")]
    Stopped,
    /// A source.
    #[error("{0}")]
    Scan(#[from] ScanError),
    /// A pattern of `exclude`.
    #[error("{0}")]
    Pattern(#[from] BadPattern),
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// What is stored.
    #[error("{0}")]
    Repo(#[from] RepoError),
    /// The tree cache; it has been dropped.
    #[error("{0}")]
    Cache(#[from] CacheError),
    /// The journal cannot be read.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// The record was not appended, or nobody knows.
    #[error("{0}")]
    Append(#[from] AppendError),
    /// The store does not keep its promise.
    #[error("the store no longer refuses what it must refuse: {0}")]
    Proof(#[from] ProofFailure),
    /// The local state.
    #[error("{0}")]
    Lock(#[from] LockError),
    /// The local state.
    #[error("{}: {error}", path.display())]
    State {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A source that had files is empty now.
    #[error("{} is empty, and held {before} entries in the newest snapshot", source_path.display())]
    EmptySource {
        /// Which.
        source_path: TreePath,
        /// How many it had.
        before: u64,
    },
    /// A dump.
    #[error("dump {name:?}: {error}")]
    Dump {
        /// Its name.
        name: String,
        /// Why.
        error: DumpError,
    },
    /// A prune came between the start of this run and its end.
    #[error("what this run counted on was pruned meanwhile; run it again")]
    Pruned,
    /// A bug.
    #[error("internal error: {0}")]
    Internal(String),
}

/// What all parts of a run share.
#[derive(Debug)]
pub(crate) struct Shared {
    keys: Keys,
    chunker: ChunkerParams,
    env: Env,
    names: Names,
    roots: Arc<Roots>,
    stop: Cancel,
    failed: AtomicBool,
    progress: Arc<Progress>,
    counts: worker::Counts,
}

impl Shared {
    /// The wall clock now: what is looked at from here on was seen at this time or later.
    fn seen(&self) -> Nanos {
        Nanos(self.env.clock.now().as_nanosecond())
    }

    fn failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }

    /// Fails if there is no point in going on.
    fn check(&self) -> Result<(), BackupError> {
        match (self.stop.is_cancelled(), self.failed()) {
            (true, _) => Err(BackupError::Interrupted),
            (_, true) => Err(BackupError::Stopped),
            _ => Ok(()),
        }
    }
}

/// Who runs it, and with what.
#[derive(Debug, Clone)]
pub struct Runner {
    /// Clock and randomness.
    pub env: Env,
    /// This node.
    pub node: NodeRef,
    /// This process.
    pub instance: InstanceId,
    /// Where this node keeps what it remembers.
    pub state_dir: PathBuf,
    /// An operator's interrupt.
    pub cancel: Cancel,
    /// How far it is.
    pub progress: Arc<Progress>,
}

/// What a run is asked to do beyond the role's settings.
#[derive(Debug, Clone, Default)]
pub struct Ask {
    /// The slot it is for.
    pub slot: Option<Timestamp>,
    /// Read every file, whatever the cache says.
    pub rehash: bool,
    /// Places that are never part of a backup: a store inside a source would grow by itself with each run.
    pub own_places: Vec<PathBuf>,
}

/// A committed backup.
#[derive(Debug)]
pub struct Committed {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The one before.
    pub previous: Option<Snapshot>,
    /// Whether this run appended a takeover.
    pub takeover: bool,
    /// Counts.
    pub files: FileCounts,
    /// Counts; `uploaded` counts packs and index objects.
    pub bytes: ByteCounts,
    /// What went wrong with single paths.
    pub problems: Vec<Problem>,
    /// How many there were.
    pub problem_count: u64,
}

/// A role's journal as it is now, with the lock of this host's other runs held, before anything is decided.
#[derive(Debug)]
pub struct Opening<'a> {
    runner: &'a Runner,
    repository: &'a Repository,
    journal: Journal,
    local: Local,
    lock: LocalLock,
    memory: Memory,
    view: View,
    started: Duration,
}

impl<'a> Opening<'a> {
    /// Takes the lock and reads the journal on from what this node knew.
    pub async fn open(runner: &'a Runner, repository: &'a Repository) -> Result<Self, BackupError> {
        let started = runner.env.clock.boottime();
        let keys = repository.keys.clone();
        let local = Local::open(&runner.state_dir, keys.repo())?;
        let lock = local.lock()?;
        let memory = local.load();
        let (store, env) = (repository.store.clone(), runner.env.clone());
        let journal = Journal::new(store, keys, env, runner.node.clone(), runner.instance);
        let view = journal.read(memory.view.as_ref()).await?;
        Ok(Self { runner, repository, journal, local, lock, memory, view, started })
    }

    /// Reads the journal on.
    pub async fn refresh(&mut self) -> Result<(), BackupError> {
        self.view = self.journal.read(Some(&self.view)).await?;
        Ok(())
    }

    /// The journal.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What the election wants to know of it.
    pub fn history(&self) -> History {
        history(&self.view, &self.memory)
    }

    /// Backs the role up, as the node that the election named.
    pub async fn back_up(
        self,
        role: &RoleSettings,
        candidacy: &Candidacy,
        ask: &Ask,
    ) -> Result<Committed, BackupError> {
        let session = self.take(candidacy).await?;
        match session.back_up(role, ask).await {
            Err(BackupError::Cache(error)) => {
                // The cache is of no more use; everything else is still good.
                tracing::warn!("{error}; reading everything again");
                let path = session.local.tree_cache();
                std::fs::remove_file(&path).map_err(|error| BackupError::State { path, error })?;
                session.back_up(role, ask).await
            }
            result => result,
        }
    }

    /// Goes on under this node's own takeover, if that is still the newest and of this boot; else takes the role over.
    pub(crate) async fn take(self, candidacy: &Candidacy) -> Result<Session<'a>, BackupError> {
        let Self { runner, repository, journal, local, lock, mut memory, view, started } = self;
        let probe = names::probe(repository.role());
        proof::check(repository.store.as_ref(), &probe, &runner.env).await?;
        let boot = local::boot();
        let own = memory.own.filter(|own| Some(own.boot) == boot);
        let holder = view.state.holder.clone();
        let inherited = holder.as_ref().filter(|h| own.is_some_and(|own| own.takeover == h.takeover));
        let (permit, view, takeover) = if let Some(holder) = inherited {
            (candidacy.permit(holder.term, holder.takeover), view, false)
        } else {
            let why = match &holder {
                None => TakeoverWhy::First,
                Some(h) if h.node.id == runner.node.id => TakeoverWhy::Restart,
                Some(_) => TakeoverWhy::Moved,
            };
            let (permit, view) = journal.take_over(&view, candidacy, why).await?;
            (permit, view, true)
        };
        memory.own = boot.map(|boot| Own { boot, takeover: permit.takeover(), term: permit.term() });
        memory.view = Some(view.clone());
        let session =
            Session { runner, repository, journal, local, _lock: lock, memory, permit, view, takeover, started };
        session.remember(&session.memory)?;
        Ok(session)
    }
}

/// What the election wants to know of a journal, and of what this node remembers of itself.
pub fn history(view: &View, memory: &Memory) -> History {
    let holding = |h: &Holder| Holding {
        node: h.node.id,
        label: h.node.name.clone(),
        term: h.term,
        since: h.time,
        by_operator: h.why == TakeoverWhy::Operator,
    };
    let paused = view.state.paused.as_ref().map(|p| Pause {
        by: p.node.name.clone(),
        since: p.time,
        until: p.until,
        why: p.why.clone(),
    });
    History {
        holder: view.state.holder.as_ref().map(holding),
        own_term: memory.own.map(|own| own.term),
        last_slot: view.state.last_slot,
        paused,
    }
}

/// A role taken over, with the lock of this host's other runs held.
pub(crate) struct Session<'a> {
    runner: &'a Runner,
    repository: &'a Repository,
    journal: Journal,
    local: Local,
    _lock: LocalLock,
    memory: Memory,
    permit: Permit,
    view: View,
    takeover: bool,
    started: Duration,
}

impl Session<'_> {
    /// What lets it write.
    pub(crate) fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Appends a record of its own.
    pub(crate) async fn append(&mut self, body: Body, slot: Option<Timestamp>) -> Result<(), BackupError> {
        self.view = self.append_to(self.view.clone(), &body, slot).await?;
        self.remember(&Memory { view: Some(self.view.clone()), ..self.memory.clone() })
    }

    /// Who took the role over meanwhile, if anybody did.
    pub(crate) async fn overtaken(&self) -> Result<Option<Holder>, JournalError> {
        let now = self.journal.read(Some(&self.view)).await?;
        Ok(now.state.holder.filter(|holder| holder.takeover != self.permit.takeover()))
    }

    fn remember(&self, memory: &Memory) -> Result<(), BackupError> {
        self.local.save(memory).map_err(|error| BackupError::State { path: self.local.tree_cache(), error })
    }

    async fn back_up(&self, role: &RoleSettings, ask: &Ask) -> Result<Committed, BackupError> {
        let base = self.view.state.snapshots.last();
        let unfinished = self.memory.clean.is_none() || self.memory.clean != base.map(|b| b.id);
        // From here on something may be left in the store that no record names.
        self.remember(&Memory { clean: None, ..self.memory.clone() })?;
        let progress = &self.runner.progress;
        progress.enter(Phase::Backup);
        progress.total_bytes.store(base.map_or(0, |b| b.bytes), Ordering::Relaxed);

        let cache = if ask.rehash { None } else { self.cache(base).await? };
        let gathered = self.gather(role, base, cache, unfinished, ask).await?;
        refuse_empty(role, &gathered)?;
        progress.enter(Phase::Commit);
        let indexes = self.put_indexes(&gathered.packs).await?;
        self.commit(base, gathered, indexes, ask.slot).await
    }

    /// This node's cache, if the journal has the snapshot that it was made with. True: that is the newest one.
    async fn cache(&self, base: Option<&Snapshot>) -> Result<Option<(CacheReader, bool)>, BackupError> {
        let (Some(base), Some(cache)) = (base, CacheReader::open(&self.local.tree_cache())) else { return Ok(None) };
        let bound = cache.bound();
        if bound.repo != self.repository.keys.repo() || bound.seq > base.seq {
            return Ok(None);
        }
        if bound.snapshot == base.id {
            return Ok(Some((cache, true)));
        }
        let known = self.journal.record(bound.seq).await?;
        Ok(known.is_some_and(|(_, digest)| digest == bound.snapshot).then_some((cache, false)))
    }

    async fn gather(
        &self,
        role: &RoleSettings,
        base: Option<&Snapshot>,
        cache: Option<(CacheReader, bool)>,
        unfinished: bool,
        ask: &Ask,
    ) -> Result<Gathered, BackupError> {
        let mut exclude = role.exclude.clone();
        exclude.extend(ask.own_places.iter().map(|path| literal_pattern(path)));
        let scan = scan(Options {
            sources: role.sources.clone(),
            exclude: Exclude::new(&exclude)?,
            one_file_system: role.one_file_system,
            exclude_caches: role.exclude_caches,
            exclude_larger_than: role.exclude_larger_than,
        })?;
        let shared = Arc::new(Shared {
            keys: self.repository.keys.clone(),
            chunker: self.repository.format.chunker,
            env: self.runner.env.clone(),
            names: Names::new(),
            roots: scan.roots(),
            stop: self.runner.cancel.clone(),
            failed: AtomicBool::new(false),
            progress: self.runner.progress.clone(),
            counts: worker::Counts::default(),
        });
        let (store, keys) = (self.repository.store.clone(), self.repository.keys.clone());
        let (index_ids, index_dir) = (self.view.state.indexes.clone(), self.local.index_dir());
        let load = {
            let (store, keys) = (store.clone(), keys.clone());
            move || {
                let (store, keys, ids, dir) = (store.clone(), keys.clone(), index_ids.clone(), index_dir.clone());
                async move {
                    let index = load_index(store.as_ref(), &keys, &ids, Some(&dir)).await?;
                    let orphans =
                        if unfinished { find_orphans(store.as_ref(), &keys, &index).await? } else { Vec::new() };
                    Ok::<_, BackupError>(Stock { index: Arc::new(index), orphans: Orphans::new(orphans) })
                }
            }
        };
        let current = cache.as_ref().is_some_and(|(_, current)| *current);
        let stock = if base.is_some() && !current { Some(load().await?) } else { None };
        let reader = stock.as_ref().map(|s| Reader::new(store.clone(), keys.clone(), s.index.clone()));
        let nodes = cache.as_ref().filter(|_| current).and_then(|(c, _)| c.nodes()).unwrap_or_default();
        let cache_writer = CacheWriter::create(&self.local.tree_cache())
            .inspect_err(|error| tracing::warn!("the tree cache cannot be written: {error}"))
            .ok();
        let dumps: BTreeMap<String, Dump> = role.dumps.clone();
        let environment = self.environment(ask.slot);
        let root = base.map(|b| b.root);
        let trust_mtime = role.takeover_trust == TakeoverTrust::Mtime && !ask.rehash;
        let handle = Handle::current();
        // The pipeline blocks; a blocking thread may, and a runtime's may not.
        tokio::task::spawn_blocking(move || {
            let ledger = Ledger::new(nodes.into_iter().collect::<HashSet<ChunkId>>(), stock, {
                let handle = handle.clone();
                move || handle.block_on(load())
            });
            let known = cache.map_or(Blocks::None, |(reader, _)| Blocks::Cache(Box::new(reader)));
            let manifest = reader
                .as_ref()
                .zip(root)
                .map(|(reader, root)| Blocks::Manifest(Box::new(reader.manifest(root)), handle.clone()));
            gather(Input {
                shared,
                store,
                scan,
                ledger: &ledger,
                cache: known,
                base: manifest,
                trust_mtime,
                dumps: dumps.iter().map(|(name, dump)| (name.as_str(), dump)).collect(),
                environment,
                cache_writer,
                handle: handle.clone(),
            })
            .map(|gathered| {
                let packs = gathered.packs.into_iter().chain(ledger.used_orphans()).collect();
                Gathered { packs, ..gathered }
            })
        })
        .await
        .map_err(|e| BackupError::Internal(e.to_string()))?
    }

    fn environment(&self, slot: Option<Timestamp>) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("RUNNER_NODE", self.runner.node.name.clone()),
            ("RUNNER_ROLE", self.repository.role().to_string()),
            ("RUNNER_TERM", self.permit.term().to_string()),
        ];
        variables.extend(slot.map(|slot| ("RUNNER_SLOT", slot.to_string())));
        variables
    }

    /// Puts the index of this run's packs, in objects of bounded size.
    async fn put_indexes(&self, packs: &[PackTable]) -> Result<Vec<IndexId>, BackupError> {
        let mut ids = Vec::new();
        let mut rest = packs;
        while !rest.is_empty() {
            let mut chunks = 0;
            let fits = rest.iter().take_while(|table| {
                let before = chunks;
                chunks += table.frames.iter().map(|f| f.chunks.len()).sum::<usize>();
                before == 0 || chunks <= INDEX_OBJECT_CHUNKS
            });
            let (part, more) = rest.split_at(fits.count());
            let id = IndexId(self.runner.env.random_bytes());
            let object: Bytes = encode_index(&self.repository.keys, id, self.runner.env.random_bytes(), part);
            Progress::add(&self.runner.progress.bytes_uploaded, object.len() as u64);
            self.repository.store.put(&names::index(self.repository.role(), id), object).await?;
            ids.push(id);
            rest = more;
        }
        Ok(ids)
    }

    async fn commit(
        &self,
        base: Option<&Snapshot>,
        gathered: Gathered,
        indexes: Vec<IndexId>,
        slot: Option<Timestamp>,
    ) -> Result<Committed, BackupError> {
        let Gathered { root, nodes, tally, removed, changed_set, cache, .. } = gathered;
        let files = FileCounts { removed, ..tally.files };
        let shared = &self.runner.progress;
        let bytes = ByteCounts {
            source: tally.source_bytes,
            read: gathered.read_bytes,
            new: gathered.new_bytes,
            uploaded: shared.bytes_uploaded.load(Ordering::Relaxed),
        };
        let elapsed = self.runner.env.clock.boottime().saturating_sub(self.started);
        let body = Body::Snapshot(SnapshotBody {
            root,
            indexes,
            entries: tally.entries,
            files: tally.regular,
            bytes: tally.source_bytes,
            changes: Changes {
                new: files.new,
                changed: files.changed,
                unchanged: files.unchanged,
                removed: files.removed,
                unreadable: files.unreadable,
            },
            changed_set: self.repository.keys.chunk_id(&changed_set),
            cost: Cost {
                read_bytes: bytes.read,
                new_bytes: bytes.new,
                uploaded_bytes: bytes.uploaded,
                duration_ms: elapsed.as_millis() as u64,
            },
        });
        if self.runner.cancel.is_cancelled() {
            return Err(BackupError::Interrupted);
        }
        let view = self.append_to(self.view.clone(), &body, slot).await?;
        let snapshot = view.state.snapshots.last().cloned().expect("a snapshot was just appended");
        self.keep_cache(cache, &snapshot, &nodes);
        self.remember(&Memory { view: Some(view), clean: Some(snapshot.id), ..self.memory.clone() })
            // It is committed; a memory that cannot be written costs the next run time.
            .unwrap_or_else(|error| tracing::warn!("the local state cannot be written: {error}"));
        Ok(Committed {
            snapshot,
            previous: base.cloned(),
            takeover: self.takeover,
            files,
            bytes,
            problems: tally.problems,
            problem_count: tally.problem_count,
        })
    }

    /// Appends the record. What others append meanwhile without taking over is looked at, and then it is tried again.
    async fn append_to(&self, mut view: View, body: &Body, slot: Option<Timestamp>) -> Result<View, BackupError> {
        for _ in 0..COMMIT_ATTEMPTS {
            self.await_permit().await?;
            match self.journal.append(&self.permit, &view, body.clone(), slot).await {
                Err(AppendError::Moved(now)) => {
                    // What this run refers to must still be what the journal vouches for.
                    if !self.view.state.indexes.iter().all(|id| now.state.indexes.contains(id)) {
                        return Err(BackupError::Pruned);
                    }
                    view = *now;
                }
                result => return Ok(result?),
            }
        }
        Err(AppendError::Moved(Box::new(view)).into())
    }

    /// A commit waits while it cannot be told who has the lease, but not for ever, and not for one that is lost.
    async fn await_permit(&self) -> Result<(), BackupError> {
        let clock = &self.runner.env.clock;
        let (deadline, started) = (self.permit.deadline(), clock.boottime());
        while deadline.passed(clock.moment()) {
            let waited = clock.boottime().saturating_sub(started);
            if deadline.is_ended() || waited >= COMMIT_PATIENCE {
                return Err(AppendError::Expired.into());
            }
            if self.runner.cancel.is_cancelled() {
                return Err(BackupError::Interrupted);
            }
            tokio::time::sleep(PERMIT_POLL).await;
        }
        Ok(())
    }

    fn keep_cache(&self, cache: Option<CacheWriter>, snapshot: &Snapshot, nodes: &[ChunkId]) {
        let bound = Bound { repo: self.repository.keys.repo(), seq: snapshot.seq, snapshot: snapshot.id };
        if let Some(Err(error)) = cache.map(|cache| cache.finish(bound, nodes)) {
            tracing::warn!("the tree cache cannot be written: {error}");
        }
    }
}

/// The gitignore pattern that means exactly this path.
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

/// An empty source where there were files is an unmounted volume until somebody says otherwise.
fn refuse_empty(role: &RoleSettings, gathered: &Gathered) -> Result<(), BackupError> {
    let emptied = gathered.sources.iter().find(|(_, found, before)| *found <= 1 && *before > 1);
    match emptied {
        Some((path, _, before)) if !role.allow_empty => {
            Err(BackupError::EmptySource { source_path: path.clone(), before: before - 1 })
        }
        _ => Ok(()),
    }
}

/// Packs that are in the store and in no index: what a broken run left. Listed after the head was read, so that none of them can have
/// been deleted by a prune that the head knows of. One that cannot be read is left alone.
async fn find_orphans(
    store: &dyn Store,
    keys: &Keys,
    index: &crate::repo::index::Index,
) -> Result<Vec<PackTable>, BackupError> {
    let known: HashSet<PackId> = index.packs().iter().map(|p| p.id).collect();
    let listed = list_all(store, &names::packs_prefix(keys.role())).await?;
    let orphans = listed
        .into_iter()
        .filter_map(|object| Some((names::parse_pack(keys.role(), &object.key)?, object)))
        .filter(|(id, _)| !known.contains(id));
    let tables: Vec<Option<PackTable>> = stream::iter(orphans)
        .map(|(id, object)| async move { read_table(store, keys, id, &object.key, object.size).await })
        .buffered(ORPHAN_FETCHES)
        .try_collect()
        .await?;
    Ok(tables.into_iter().flatten().collect())
}

async fn read_table(
    store: &dyn Store,
    keys: &Keys,
    id: PackId,
    key: &str,
    size: u64,
) -> Result<Option<PackTable>, StoreError> {
    let head = store.get_range(key, 0..pack::HEADER_LEN as u64).await?;
    let Ok(salt) = pack::open_header(keys, &head) else { return Ok(None) };
    let mut tail = store.get_range(key, size.saturating_sub(TRAILER_GUESS)..size).await?;
    let footer = tail.len().saturating_sub(pack::FOOTER_LEN);
    let Ok(len) = pack::trailer_len(&tail[footer..]) else { return Ok(None) };
    let whole = (len + pack::FOOTER_LEN) as u64;
    if whole > size {
        return Ok(None);
    }
    if whole > tail.len() as u64 {
        tail = store.get_range(key, size - whole..size).await?;
    }
    let Some(start) = tail.len().checked_sub(len + pack::FOOTER_LEN) else { return Ok(None) };
    Ok(pack::open_trailer(keys, id, salt, &tail[start..start + len]).ok())
}
