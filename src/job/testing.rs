//! A role with real parts for the tests of `job`: a tree in a temporary directory, a store in memory, the backup job.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::config::{KeySource, RoleSettings};
use crate::env::Env;
use crate::ids::{InstanceId, KeyId, NodeId};
use crate::job::admission::role_journal::RoleJournal;
use crate::job::backup::outcome::CommittedBackup;
use crate::job::backup::request::BackupOptions;
use crate::job::local_state::process_memory::ProcessMemory;
use crate::job::local_state::run_failure::RunFailure;
use crate::job::node::context::{NodeContext, NodeInputs};
use crate::job::node::leases::LeaseSessions;
use crate::job::operate::OperatorContext;
use crate::job::report::RunOutcome;
use crate::job::report::run_summary::RunStep;
use crate::job::repository::init::init;
use crate::job::repository::journal_access::JournalAccess;
use crate::job::repository::open::Repository;
use crate::job::repository::read_only::ReadOnlyRepository;
use crate::journal::body::WriterNode;
use crate::repo::entry::TreePath;
use crate::repo::keyslot::KeyWrapping;
use crate::repo::object_keys;
use crate::role::candidacy::Candidacy;
use crate::role::election::{ElectionHistory, ElectionInputs, ElectionState, LeaseView, RetakeReason, decide};
use crate::store::Store;
use crate::store::memory::MemoryStore;

pub(crate) struct JobFixture {
    pub(crate) env: Env,
    pub(crate) dir: tempfile::TempDir,
    pub(crate) memory: MemoryStore,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) role: RoleSettings,
    pub(crate) repository: Repository,
    pub(crate) node: NodeId,
}

impl JobFixture {
    /// An empty repository of role `app`, with `DIR/src` as its only source and a key file.
    pub(crate) async fn new() -> Self {
        let (env, dir) = (Env::host(), tempfile::tempdir().unwrap());
        let memory = MemoryStore::new(&env);
        let store: Arc<dyn Store> = Arc::new(memory.clone());
        let src = dir.path().join("src");
        std::fs::create_dir(&src).unwrap();
        let key = KeySource::KeyFile(dir.path().join("key"));
        let role = RoleSettings::new("app".parse().unwrap(), key, vec![src]);
        let (repository, _) =
            init(store.clone(), &role.name, &role.key, &JournalAccess::default(), &env).await.unwrap();
        Self { env, dir, memory, store, role, repository, node: NodeId([1; 16]) }
    }

    /// Does what a writer with access to the store and without a key can do: plants `count` slots for unknown
    /// passphrases, each as costly to try as this program's own, and older than the existing ones.
    pub(crate) fn plant_slots(&self, count: usize) {
        let own: Vec<(String, Bytes)> =
            self.memory.objects().into_iter().filter(|(key, _)| key.contains("/keys/")).collect();
        for n in 0..count {
            let kind = serde_json::to_string(&KeyWrapping::PASSPHRASE).unwrap();
            let wrapped = "00".repeat(48);
            let slot = format!("{{\"v\":1,\"kind\":{kind},\"salt\":\"{n:064x}\",\"wrapped\":\"{wrapped}\"}}\n");
            let id = KeyId::from_slice(&blake3::hash(slot.as_bytes()).as_bytes()[..KeyId::LEN]).unwrap();
            self.memory.tamper(&object_keys::key(&self.role.name, id), Some(slot.into()));
        }
        for (key, object) in own {
            self.memory.tamper(&key, Some(object));
        }
    }

    /// Sets the creation time of the repository.
    pub(crate) fn made_at(&mut self, at: Timestamp) {
        self.repository.format.created = at;
        let object = self.repository.format.encode(&self.repository.keys);
        self.memory.tamper(&object_keys::format(&self.role.name), Some(object.into()));
    }

    pub(crate) fn src(&self) -> &Path {
        &self.role.sources[0]
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    /// Writes a file of the source, and the directories above it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.src().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    /// The path of a file of the source in a snapshot.
    pub(crate) fn path(&self, name: &str) -> TreePath {
        let path = if name.is_empty() { self.src().to_owned() } else { self.src().join(name) };
        TreePath::new(&path.as_os_str().as_bytes()[1..]).unwrap()
    }

    /// A path of a snapshot below the source, for messages and golden texts.
    pub(crate) fn below(&self, path: &TreePath) -> String {
        path.display().replacen(&self.path("").display(), "", 1)
    }

    pub(crate) async fn backup(&self) -> CommittedBackup {
        self.backup_by(&self.node_context()).await
    }

    /// The node that runs the fixture's backups.
    pub(crate) fn node_context(&self) -> NodeContext {
        NodeContext {
            env: self.env.clone(),
            node: WriterNode { id: self.node, name: "east".to_owned() },
            instance: InstanceId([1; 8]),
            state_dir: self.state_dir(),
            cancel: CancellationToken::new(),
            progress: Arc::default(),
            config_hash: String::new(),
            memory: ProcessMemory::default(),
            inputs: NodeInputs::default(),
            leases: LeaseSessions::default(),
        }
    }

    /// Node `n` as an operator changes the role on it, without a state directory.
    pub(crate) fn operator(&self, n: u8, name: &str) -> OperatorContext<'_> {
        OperatorContext {
            node: WriterNode { id: NodeId([n; 16]), name: name.to_owned() },
            instance: InstanceId([n; 8]),
            env: &self.env,
            state_dir: None,
            journal_access: JournalAccess::default(),
        }
    }

    pub(crate) async fn backup_by(&self, node_context: &NodeContext) -> CommittedBackup {
        self.backup_as(node_context, &BackupOptions::default()).await
    }

    pub(crate) async fn backup_as(&self, node_context: &NodeContext, ask: &BackupOptions) -> CommittedBackup {
        let role = &RoleSettings { eligible: None, ..self.role.clone() };
        let opening = RoleJournal::open(node_context, &self.repository).await.unwrap();
        Box::pin(opening.back_up(role, &self.candidacy(), ask)).await.unwrap()
    }

    /// A won election for the fixture's node, whatever its probes would say.
    pub(crate) fn candidacy(&self) -> Candidacy {
        let history = ElectionHistory::default();
        let role = &RoleSettings { eligible: None, ..self.role.clone() };
        let retake_reason = RetakeReason::ByHand;
        let inputs = ElectionInputs {
            role,
            node: self.node,
            label: "east",
            now: self.env.clock.now(),
            clock_offset: None,
            assessment: None,
            lease: LeaseView::Unasked,
            history: Some(&history),
            plan: None,
            retake_reason,
        };
        let ElectionState::Active { candidacy, .. } = decide(inputs).state else { panic!("always active") };
        candidacy
    }

    /// The repository as seen by a host that has only the store and the key.
    pub(crate) async fn archive(&self) -> ReadOnlyRepository {
        let nowhere = self.dir.path().join("nowhere");
        let archive = ReadOnlyRepository::open(self.repository.clone(), &self.env, Some(&nowhere)).await.unwrap();
        assert!(!nowhere.exists(), "reading creates nothing");
        archive
    }
}

/// A failed run that is not counted yet.
pub(crate) fn failure(error: &str) -> RunFailure {
    RunFailure {
        outcome: RunOutcome::Failed,
        step: RunStep::Run,
        time: Timestamp::UNIX_EPOCH,
        slot: None,
        error: error.to_owned(),
        failures: 0,
        after: None,
    }
}

/// Bytes without repetition.
pub(crate) fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}
