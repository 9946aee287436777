//! The repository that is damaged.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use runner::config::{KeySource, LeaseKind, RetentionPolicy, RoleSettings, Settings, StoreUrl};
use runner::env::Env;
use runner::ids::{InstanceId, NodeId};
use runner::job::admission::role_journal::RoleJournal;
use runner::job::backup::request::BackupOptions;
use runner::job::local_state::process_memory::ProcessMemory;
use runner::job::node::context::{NodeContext, NodeInputs};
use runner::job::node::leases::LeaseSessions;
use runner::job::node::progress::JobProgress;
use runner::job::prune::{self, PruneOutcome};
use runner::job::report::verified::VerifyReport;
use runner::job::repository::init::init;
use runner::job::repository::journal_access::JournalAccess;
use runner::job::repository::open::Repository;
pub(crate) use runner::job::verify::error::VerifyError;
use runner::job::verify::verify;
use runner::journal::body::WriterNode;
use runner::journal::reader::Journal;
use runner::journal::view::JournalView;
use runner::repo::entry::ManifestEntry;
use runner::repo::keyslot::{KeySlot, SlotSecret};
use runner::repo::object_keys;
use runner::repo::reader::{RepositoryReadError, RepositoryReader, load_index};
use runner::role::election::{ElectionInputs, ElectionState, LeaseView, RetakeReason, decide};
use runner::store::Store;
use runner::store::memory::MemoryStore;

/// Entries with their content.
pub(crate) type Content = Vec<(ManifestEntry, Vec<u8>)>;

/// What reading a snapshot came to.
#[derive(Debug)]
pub(crate) enum Read {
    Content(Content),
    Refused(#[allow(dead_code, reason = "for messages")] String),
}

pub(crate) struct Rig {
    pub(crate) env: Env,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) memory: MemoryStore,
    pub(crate) role: RoleSettings,
    /// What each snapshot holds.
    pub(crate) content: Vec<Content>,
    /// The journal as it was before any damage.
    pub(crate) view: JournalView,
}

fn settings(name: &str, key: KeySource, source: &Path) -> RoleSettings {
    RoleSettings::new(name.parse().unwrap(), key, vec![source.to_owned()])
}

/// Bytes that do not compress.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

impl Rig {
    /// Two nodes, two terms, three snapshots.
    pub(crate) async fn new(encrypted: bool) -> Self {
        let (env, dir) = (Env::host(), tempfile::tempdir().unwrap());
        let source = dir.path().join("s");
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("a"), noise(1, 30)).unwrap();
        std::fs::write(source.join("b"), "the same words, ".repeat(9)).unwrap();
        std::fs::write(source.join("empty"), "").unwrap();
        std::fs::hard_link(source.join("a"), source.join("link")).unwrap();
        symlink("b", source.join("symlink")).unwrap();
        let sparse = std::fs::File::create(source.join("sparse")).unwrap();
        sparse.set_len(1 << 20).unwrap();
        sparse.write_all_at(b"in the middle", 512 << 10).unwrap();
        sparse.sync_all().unwrap();

        let key = if encrypted { KeySource::KeyFile(dir.path().join("key")) } else { KeySource::None };
        let memory = MemoryStore::new(&env);
        let role = settings("app", key, &source);
        Box::pin(init(Arc::new(memory.clone()), &role.name, &role.key, &JournalAccess::default(), &env)).await.unwrap();
        let mut rig = Self {
            view: JournalView::empty(role.name.clone(), runner::ids::RepoId([0; 16])),
            env,
            dir,
            memory,
            role,
            content: Vec::new(),
        };
        if encrypted {
            // A slot that this test's key does not open.
            let keys = rig.open().await.unwrap().keys;
            let slot = KeySlot::wrap(&SlotSecret::generate(&rig.env), keys.keyring(), keys.repo(), &rig.env).unwrap();
            rig.memory.tamper(&object_keys::key(&rig.role.name, slot.id()), Some(Bytes::from(slot.encode())));
        }
        Box::pin(rig.back_up(1)).await;
        std::fs::write(source.join("b"), noise(2, 20)).unwrap();
        Box::pin(rig.back_up(1)).await;
        std::fs::write(source.join("c"), noise(3, 25)).unwrap();
        Box::pin(rig.back_up(2)).await;

        rig.reread().await;
        assert_eq!((rig.view.term().0, rig.view.state.snapshots.len()), (2, 3));
        rig.content = rig.read_all().await;
        rig
    }

    /// The same after a prune and one more run: the oldest snapshot is forgotten, one index object stands for those before, and
    /// what only that snapshot needed is condemned and still there.
    pub(crate) async fn pruned(encrypted: bool) -> Self {
        let mut rig = Self::new(encrypted).await;
        let nowhere = StoreUrl::Dir(rig.dir.path().join("nowhere"));
        let settings = Settings::for_flags(&rig.role.sources, nowhere, rig.role.name.clone(), rig.role.key.clone());
        let keep = Some(RetentionPolicy { last: 2, ..RetentionPolicy::default() });
        let role = RoleSettings { keep, max_unused: 0, lease: LeaseKind::None, ..rig.role.clone() };
        let (runner, store): (_, Arc<dyn Store>) = (rig.runner(2), Arc::new(rig.memory.clone()));
        let pruned = Box::pin(prune::run(&runner, &settings.unwrap(), &role, async || Ok(store))).await.unwrap();
        let PruneOutcome::Done(report) = pruned else { panic!("{pruned:?}") };
        assert!(report.packs_repacked > 0 && report.swept.waiting == report.packs_condemned, "{report:?}");
        std::fs::write(rig.role.sources[0].join("d"), noise(4, 25)).unwrap();
        Box::pin(rig.back_up(2)).await;
        rig.reread().await;
        rig.content = rig.read_all().await;
        assert_eq!((rig.content.len(), rig.view.state.indexes.len(), rig.view.state.condemned.len()), (3, 2, 1));
        rig
    }

    /// Whether a prune condemned this object: nobody needs it any more.
    pub(crate) fn is_condemned(&self, key: &str) -> bool {
        let role = &self.role.name;
        self.view.state.condemned.iter().any(|condemned| {
            condemned.packs.iter().any(|id| object_keys::pack(role, *id) == key)
                || condemned.indexes.iter().any(|id| object_keys::index(role, *id) == key)
        })
    }

    /// Everything of every snapshot, while nothing is damaged.
    async fn read_all(&self) -> Vec<Content> {
        let whole = |read| match read {
            Read::Content(content) => content,
            Read::Refused(why) => panic!("{why}"),
        };
        self.read().await.into_iter().map(whole).collect()
    }

    /// Reads the journal as it is now.
    pub(crate) async fn reread(&mut self) {
        let repository = self.open().await.unwrap();
        self.view = self.journal(&repository).read(None).await.unwrap();
    }

    /// The objects of another role in the same store, under the same key file.
    pub(crate) async fn other_role(&self) -> BTreeMap<String, Bytes> {
        let role = settings("db", self.role.key.clone(), &self.role.sources[0]);
        let memory = MemoryStore::new(&self.env);
        Box::pin(init(Arc::new(memory.clone()), &role.name, &role.key, &JournalAccess::default(), &self.env))
            .await
            .unwrap();
        let (env, dir) = (self.env.clone(), tempfile::tempdir().unwrap());
        let other = Self { env, dir, memory, role, content: Vec::new(), view: self.view.clone() };
        Box::pin(other.back_up(1)).await;
        other.memory.objects()
    }

    pub(crate) async fn open(&self) -> Result<Repository, runner::job::repository::open::OpenError> {
        Repository::open(Arc::new(self.memory.clone()), &self.role.name, &self.role.key).await
    }

    fn journal(&self, repository: &Repository) -> Journal {
        let node = WriterNode { id: NodeId([9; 16]), name: "reader".to_owned() };
        Journal::new(repository.store.clone(), repository.keys.clone(), self.env.clone(), node, InstanceId([9; 8]))
    }

    fn runner(&self, node: u8) -> NodeContext {
        let (id, name) = (NodeId([node; 16]), format!("n{node}"));
        NodeContext {
            env: self.env.clone(),
            state_dir: self.dir.path().join(&name),
            node: WriterNode { id, name },
            instance: InstanceId([node; 8]),
            cancel: CancellationToken::new(),
            progress: Arc::default(),
            config_hash: String::new(),
            memory: ProcessMemory::default(),
            inputs: NodeInputs::default(),
            leases: LeaseSessions::default(),
        }
    }

    /// One run of a node.
    pub(crate) async fn back_up(&self, node: u8) {
        let runner = self.runner(node);
        let repository = self.open().await.unwrap();
        let opening = RoleJournal::open(&runner, &repository).await.unwrap();
        let history = opening.history();
        let inputs = ElectionInputs {
            role: &self.role,
            node: runner.node.id,
            label: "",
            now: self.env.clock.now(),
            clock_offset: None,
            assessment: None,
            lease: LeaseView::Unasked,
            history: Some(&history),
            plan: None,
            retake_reason: RetakeReason::ByHand,
        };
        let ElectionState::Active { candidacy, .. } = decide(inputs).state else {
            panic!("by hand it is always active")
        };
        Box::pin(opening.back_up(&self.role, &candidacy, &BackupOptions::default())).await.unwrap();
    }

    /// As a host sees it that has nothing but the store and the key.
    pub(crate) async fn verify(&self, percent: u8) -> Result<VerifyReport, VerifyError> {
        self.verify_remembering(percent, None).await
    }

    /// As a node sees it that remembers the journal.
    pub(crate) async fn verify_remembering(
        &self,
        percent: u8,
        view: Option<JournalView>,
    ) -> Result<VerifyReport, VerifyError> {
        let store: Arc<dyn Store> = Arc::new(self.memory.clone());
        let (progress, remembered) = (JobProgress::default(), move |_| view.clone());
        verify(store, &self.role.name, &self.role.key, percent, &remembered, &progress, &self.env).await
    }

    /// Reads everything of every snapshot that the journal shows; nothing where there is no way in.
    pub(crate) async fn read(&self) -> Vec<Read> {
        let Ok(repository) = self.open().await else { return Vec::new() };
        let Ok(view) = self.journal(&repository).read(None).await else { return Vec::new() };
        let (store, keys) = (repository.store.clone(), repository.keys.clone());
        let Ok(index) = load_index(store.as_ref(), &keys, &view.state.indexes, None).await else { return Vec::new() };
        let reader = RepositoryReader::new(store, keys, Arc::new(index));
        let mut all = Vec::new();
        for snapshot in &view.state.snapshots {
            all.push(match content(&reader, snapshot.root).await {
                Ok(content) => Read::Content(content),
                Err(error) => Read::Refused(error.to_string()),
            });
        }
        all
    }
}

async fn content(reader: &RepositoryReader, root: runner::ids::ChunkId) -> Result<Content, RepositoryReadError> {
    let mut manifest = reader.manifest(root);
    let mut all = Vec::new();
    while let Some(entries) = manifest.next_batch().await? {
        for entry in entries {
            let mut bytes = Vec::new();
            for chunk in entry.kind.chunks() {
                bytes.extend_from_slice(&reader.chunk(chunk).await?);
            }
            all.push((entry, bytes));
        }
    }
    Ok(all)
}
