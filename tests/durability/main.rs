//! Power cuts. A disk that forgets whatever no fsync covered stands under the real jobs; their story is cut after every single
//! change that they made to it, and what is left must keep the promises: the journal reads, every snapshot that it names
//! restores, every snapshot whose backup had returned is there, and the next run goes on.
//!
//! SIGKILL (`tests/kill/`) cannot show this: the page cache survives the process.

#[path = "../support/mod.rs"]
mod support;

#[path = "../support/crash_disk.rs"]
mod crash_disk;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use std::{fs, io};

use crash_disk::{CrashFileSystem, UnsyncedChanges};
use futures_util::{StreamExt as _, stream};
use support::compare::assert_same;
use support::tree::TreeRng;
use tokio_util::sync::CancellationToken;

use runner::config::{KeySource, RetentionPolicy, RoleSettings, Settings, StoreUrl};
use runner::env::Env;
use runner::ids::{Digest, InstanceId, NodeId};
use runner::job::backup::request::BackupRequest;
use runner::job::backup::run;
use runner::job::local_state::process_memory::ProcessMemory;
use runner::job::node::context::{NodeContext, NodeInputs};
use runner::job::node::leases::LeaseSessions;
use runner::job::node::progress::JobProgress;
use runner::job::prune::{self, PruneOutcome};
use runner::job::report::{RoleReport, RunOutcome};
use runner::job::repository::init::init;
use runner::job::repository::journal_access::JournalAccess;
use runner::job::repository::open::{OpenError, Repository};
use runner::job::repository::read_only::ReadOnlyRepository;
use runner::job::restore::options::RestoreOptions;
use runner::job::restore::{RepositorySource, restore};
use runner::job::verify::verify;
use runner::journal::body::WriterNode;
use runner::journal::state::Snapshot;
use runner::store::Store;
use runner::store::dir::DirStore;
use runner::store::dir::file_system::{FileSystem, WritableFile};
use runner::store::dir::open_dir::{FileAt, OpenDir};

/// Wrecks that are looked at at once.
const AT_ONCE: usize = 4;

/// Before the first key is written `init` only tries the store out, and every wreck looks the same to the next `init`: this
/// share of them is begun anew.
const PROOF_STRIDE: usize = 40;

/// How many snapshots the prune leaves.
const KEPT: usize = 2;

/// What happened, and how far the disk was after each step.
struct Story {
    dir: tempfile::TempDir,
    disk: Arc<CrashFileSystem>,
    settings: Settings,
    env: Env,
    /// Changes of the disk when `init` had returned.
    born: usize,
    /// And when each backup had.
    returned: Vec<usize>,
    /// Their snapshots.
    snapshots: Vec<Digest>,
    /// And when the prune began, which leaves two of them.
    pruned: Option<usize>,
}

impl Story {
    /// Two nodes, four runs: the first, one with an addition, one on the other node after a change, and back without any; then a
    /// prune that leaves the last two and writes a pack anew, and one more run.
    async fn tell() -> Self {
        let mut story = Self::begin();
        let (src, disk) = (story.src(), story.disk.clone());
        init(story.store(&disk), &story.role().name, &story.role().key, &JournalAccess::default(), &story.env)
            .await
            .unwrap();
        story.born = disk.ops();
        story.keep();

        let mut dice = TreeRng::new(9);
        fs::write(src.join("a"), dice.prose(300)).unwrap();
        fs::create_dir(src.join("sub")).unwrap();
        fs::write(src.join("sub/large"), dice.noise(1_500_000)).unwrap();
        story.chapter("east", RunOutcome::Committed).await;
        fs::write(src.join("sub/added"), dice.noise(5000)).unwrap();
        story.chapter("east", RunOutcome::Committed).await;
        fs::write(src.join("a"), dice.prose(400)).unwrap();
        fs::remove_file(src.join("sub/added")).unwrap();
        story.chapter("west", RunOutcome::Committed).await;
        story.chapter("east", RunOutcome::Unchanged).await;
        story.prune("east").await;
        story.chapter("west", RunOutcome::Unchanged).await;
        story
    }

    /// Forgets all but two snapshots, and frees what they alone needed.
    async fn prune(&mut self, node: &str) {
        self.pruned = Some(self.disk.ops());
        let keep = Some(RetentionPolicy { last: KEPT as u32, ..RetentionPolicy::default() });
        let role = RoleSettings { keep, max_unused: 0, prune_grace: Duration::ZERO, ..self.role().clone() };
        let (runner, store) = (self.runner(node, &self.path("states")), self.store(&self.disk));
        let pruned = Box::pin(prune::run(&runner, &self.settings, &role, async || Ok(store))).await.unwrap();
        let PruneOutcome::Done(report) = pruned else { panic!("{pruned:?}") };
        assert!(report.packs_repacked > 0 && report.swept.packs > report.packs_repacked, "{report:?}");
    }

    /// A source, a store and nothing in them.
    fn begin() -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["src", "store", "states"] {
            fs::create_dir(dir.path().join(name)).unwrap();
        }
        let (src, store) = (dir.path().join("src"), dir.path().join("store"));
        let key = KeySource::KeyFile(dir.path().join("key"));
        let url = StoreUrl::Dir(store.clone());
        let settings = Settings::for_flags(&[src], url, "app".parse().unwrap(), key).unwrap();
        Self {
            dir,
            disk: CrashFileSystem::over(&store),
            settings,
            env: Env::host(),
            born: 0,
            returned: Vec::new(),
            snapshots: Vec::new(),
            pruned: None,
        }
    }

    /// One run, and everything as it was then.
    async fn chapter(&mut self, node: &str, outcome: RunOutcome) {
        let disk = self.disk.clone();
        let report = self.run(node, self.store(&disk), &self.path("states")).await;
        assert_eq!(report.outcome, outcome, "{report:?}");
        self.returned.push(self.disk.ops());
        self.snapshots.push(report.snapshot.unwrap());
        self.keep();
    }

    async fn run(&self, node: &str, store: Arc<dyn Store>, states: &Path) -> RoleReport {
        let (runner, request) = (self.runner(node, states), BackupRequest::default());
        let done = run::backup(&runner, &self.settings, self.role(), async || Ok(store), request, &|_, _| ()).await;
        done.unwrap_or_else(|e| panic!("{node}: {e}"))
    }

    fn runner(&self, node: &str, states: &Path) -> NodeContext {
        let state_dir = states.join(node);
        fs::create_dir_all(&state_dir).unwrap();
        NodeContext {
            env: self.env.clone(),
            node: WriterNode { id: NodeId([node.as_bytes()[0]; 16]), name: node.to_owned() },
            instance: InstanceId(self.env.random_bytes()),
            state_dir,
            cancel: CancellationToken::new(),
            progress: Arc::default(),
            config_hash: String::new(),
            memory: ProcessMemory::default(),
            inputs: NodeInputs::default(),
            leases: LeaseSessions::default(),
        }
    }

    /// Copies source and states, as of now.
    fn keep(&self) {
        copy(&self.src(), &self.path(&format!("src-{}", self.returned.len())));
        copy(&self.path("states"), &self.path(&format!("states-{}", self.returned.len())));
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn src(&self) -> PathBuf {
        self.path("src")
    }

    fn role(&self) -> &RoleSettings {
        self.settings.roles.values().next().unwrap()
    }

    /// The story's store; each process opens it for itself.
    fn store(&self, disk: &Arc<CrashFileSystem>) -> Arc<dyn Store> {
        Arc::new(DirStore::with_disk(&self.path("store"), &self.env, disk.clone()).unwrap())
    }

    /// Cuts the story after `cut` changes and checks what is left.
    async fn check(&self, cut: usize, survival: UnsyncedChanges) {
        let place = tempfile::tempdir().unwrap();
        let wreck = place.path().join("store");
        fs::create_dir(&wreck).unwrap();
        self.disk.materialise(cut, survival, &wreck);
        // What comes after the cut is not cut again.
        let disk = CrashFileSystem::over(&wreck);
        let store: Arc<dyn Store> = Arc::new(DirStore::with_disk(&wreck, &self.env, disk).unwrap());
        let what = format!("cut after {cut} of {} changes, {survival:?}", self.disk.ops());

        let role = self.role();
        match Repository::open(store.clone(), &role.name, &role.key).await {
            Ok(repository) => {
                let returned = self.returned.iter().filter(|ops| **ops <= cut).count();
                let found = self.check_snapshots(&repository, place.path(), &what).await;
                let least = if self.pruned.is_some_and(|began| cut > began) { KEPT.min(returned) } else { returned };
                assert!(
                    (least..=self.returned.len()).contains(&found),
                    "{what}: {returned} backups had returned, and there are {found} snapshots"
                );
            }
            Err(OpenError::NoRepository { .. }) => {
                assert!(cut < self.born, "{what}: init had returned, and there is no repository");
                let only_tried = !wreck.join("app/keys").exists();
                if only_tried && !cut.is_multiple_of(PROOF_STRIDE) {
                    return;
                }
                init(store.clone(), &role.name, &role.key, &JournalAccess::default(), &self.env)
                    .await
                    .unwrap_or_else(|e| panic!("{what}: the next init: {e}"));
            }
            Err(e) => panic!("{what}: {e}"),
        }

        // The next run: of a node that remembers what it did before the cut, or of one that remembers nothing.
        let states = place.path().join("states");
        let remembered = self.returned.iter().filter(|ops| **ops <= cut).count();
        match cut % 3 {
            0 => copy(&self.path(&format!("states-{remembered}")), &states),
            _ => fs::create_dir(&states).unwrap(),
        }
        let node = ["east", "west"][cut % 2];
        let report = self.run(node, store.clone(), &states).await;
        assert!(matches!(report.outcome, RunOutcome::Committed | RunOutcome::Unchanged), "{what}: {report:?}");
        let repository = Repository::open(store.clone(), &role.name, &role.key).await.unwrap();
        let archive = ReadOnlyRepository::open(repository, &self.env, None).await.unwrap();
        let last = archive.snapshots().last().unwrap();
        assert_eq!(report.snapshot, Some(last.id), "{what}");
        assert_same(&self.src(), &self.restore(&archive, last, &place.path().join("next"), &what).await);

        let report = verify(store, &role.name, &role.key, 100, &|_| None, &JobProgress::default(), &self.env).await;
        let report = report.unwrap_or_else(|e| panic!("{what}: verify: {e}"));
        assert_eq!(report.damage_count, 0, "{what}: {:?}", report.damages);
    }

    /// Restores every snapshot that the journal names, and compares it with the source of then. Returns how many there are.
    async fn check_snapshots(&self, repository: &Repository, place: &Path, what: &str) -> usize {
        let archive = ReadOnlyRepository::open(repository.clone(), &self.env, None).await;
        let archive = archive.unwrap_or_else(|e| panic!("{what}: the journal: {e}"));
        assert!(archive.damaged.is_none() && archive.rolled_back.is_none(), "{what}: {archive:?}");
        for snapshot in archive.snapshots() {
            let number = 1 + self.snapshots.iter().position(|id| *id == snapshot.id).expect("it was told of");
            let restored = self.restore(&archive, snapshot, &place.join(number.to_string()), what).await;
            assert_same(&self.path(&format!("src-{number}")), &restored);
        }
        archive.snapshots().len()
    }

    async fn restore(&self, archive: &ReadOnlyRepository, snapshot: &Snapshot, target: &Path, what: &str) -> PathBuf {
        let failed = |e: &dyn std::fmt::Display| -> ! { panic!("{what}: snapshot {}: {e}", snapshot.seq) };
        let source = RepositorySource::open(archive.clone(), snapshot.root).await.unwrap_or_else(|e| failed(&e));
        let roots = source.roots().await.unwrap_or_else(|e| failed(&e));
        let options = RestoreOptions { target: target.to_owned(), roots, ..RestoreOptions::default() };
        let entries = Box::new(source.entries(&[]));
        let report = restore(Arc::new(source), entries, options, Arc::default(), &self.env).await;
        let report = report.unwrap_or_else(|e| failed(&e));
        assert!(report.is_success(), "{what}: {report:?}");
        target.join(self.src().strip_prefix("/").unwrap())
    }

    async fn check_all(&self, survival: impl Fn(usize) -> UnsyncedChanges) {
        stream::iter(0..=self.disk.ops()).for_each_concurrent(AT_ONCE, |cut| self.check(cut, survival(cut))).await;
    }
}

/// Copies a tree with its times.
fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_after_any_change_takes_back_nothing_that_was_promised() {
    let story = Story::tell().await;
    assert!(story.disk.ops() - story.born > 100, "{} changes: the disk is not in the way", story.disk.ops());
    story.check_all(|_| UnsyncedChanges::Strict).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn neither_does_one_that_leaves_some_of_what_was_not_yet_durable() {
    let story = Story::tell().await;
    story.check_all(|cut| UnsyncedChanges::Partly { seed: cut as u64 * 7919 + 1 }).await;
}

/// A disk that says that directories are durable, and does nothing.
#[derive(Debug)]
struct Lazy(Arc<CrashFileSystem>);

impl FileSystem for Lazy {
    fn create(&self, at: &FileAt) -> io::Result<Box<dyn WritableFile>> {
        self.0.create(at)
    }
    fn link(&self, from: &FileAt, to: &FileAt) -> io::Result<()> {
        self.0.link(from, to)
    }
    fn rename(&self, from: &FileAt, to: &FileAt) -> io::Result<()> {
        self.0.rename(from, to)
    }
    fn rename_new(&self, from: &FileAt, to: &FileAt) -> io::Result<()> {
        self.0.rename_new(from, to)
    }
    fn remove(&self, at: &FileAt) -> io::Result<()> {
        self.0.remove(at)
    }
    fn make_dir(&self, at: &FileAt) -> io::Result<()> {
        self.0.make_dir(at)
    }
    fn sync_dir(&self, _: &OpenDir) -> io::Result<()> {
        Ok(())
    }
    fn lock(&self, at: &FileAt, make: bool) -> io::Result<fs::File> {
        self.0.lock(at, make)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_leaves_out_its_fsyncs_would_be_found_out() {
    let story = Story::begin();
    fs::write(story.src().join("a"), "content").unwrap();
    let lazy = Arc::new(Lazy(story.disk.clone()));
    let store = || Arc::new(DirStore::with_disk(&story.path("store"), &story.env, lazy.clone()).unwrap());
    let role = story.role();
    init(store(), &role.name, &role.key, &JournalAccess::default(), &story.env).await.unwrap();
    let report = story.run("east", store(), &story.path("states")).await;
    assert_eq!(report.outcome, RunOutcome::Committed, "it works as long as the power is there");
    let wreck = story.path("wreck");
    fs::create_dir(&wreck).unwrap();
    story.disk.materialise(story.disk.ops(), UnsyncedChanges::Strict, &wreck);
    let store = Arc::new(DirStore::open(&wreck, &story.env).unwrap());
    let opened = Repository::open(store, &role.name, &role.key).await;
    assert!(matches!(opened, Err(OpenError::NoRepository { .. })), "{opened:?}");
}
