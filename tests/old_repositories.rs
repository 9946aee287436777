//! Repositories that earlier versions made are read, verified and restored by this one, and it goes on from them.
//!
//! Each folder of `tests/old/` is one: a directory store, its key file and passphrase, and for each snapshot what find(1) and
//! sha256sum(1) said of the source when it was made (`tests/old/make`).

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use tokio_util::sync::CancellationToken;

use runner::config::{KeySource, RetentionPolicy, RoleSettings, Settings, StoreUrl};
use runner::env::Env;
use runner::ids::{ChunkId, InstanceId, NodeId};
use runner::job::audit::audit;
use runner::job::backup::request::BackupRequest;
use runner::job::backup::run;
use runner::job::local_state::process_memory::ProcessMemory;
use runner::job::node::context::{NodeContext, NodeInputs};
use runner::job::node::leases::LeaseSessions;
use runner::job::node::progress::JobProgress;
use runner::job::prune::{self, PruneOutcome};
use runner::job::report::RunOutcome;
use runner::job::repository::open::Repository;
use runner::job::repository::read_only::ReadOnlyRepository;
use runner::job::restore::options::RestoreOptions;
use runner::job::restore::{RepositorySource, restore};
use runner::job::verify::verify;
use runner::journal::body::WriterNode;
use runner::repo::entry::{EntryKind, TreePath};
use runner::store::Store;
use runner::store::dir::DirStore;

fn repositories() -> Vec<PathBuf> {
    let old = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/old");
    let entries = fs::read_dir(old).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<PathBuf> = entries.filter(|path| path.join("store").is_dir()).collect();
    all.sort();
    assert!(!all.is_empty());
    all
}

fn store(repository: &Path) -> Arc<dyn Store> {
    Arc::new(DirStore::open(&repository.join("store"), &Env::host()).unwrap())
}

fn key(repository: &Path) -> KeySource {
    KeySource::KeyFile(repository.join("key"))
}

/// What the source was, from the oldest snapshot on.
fn expected(repository: &Path) -> Vec<Vec<u8>> {
    let files = (1..).map(|n| repository.join(format!("snapshot-{n}.txt")));
    files.map_while(|path| fs::read(path).ok()).collect()
}

/// A tree in the words of `tests/old/make`.
fn describe(root: &Path) -> Vec<u8> {
    let mut lines = Vec::new();
    let mut pending = vec![root.to_owned()];
    while let Some(path) = pending.pop() {
        let meta = fs::symlink_metadata(&path).unwrap();
        let mode = format!("{:o}", meta.permissions().mode() & 0o7777);
        let kind = meta.file_type();
        let (letter, mode, detail, names, hash) = if kind.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            ("d", mode, Vec::new(), 1, String::new())
        } else if kind.is_symlink() {
            let target = fs::read_link(&path).unwrap().as_os_str().as_bytes().to_owned();
            ("l", String::new(), target, 1, String::new())
        } else if kind.is_fifo() {
            ("p", mode, Vec::new(), 1, String::new())
        } else {
            let hash = hex::encode(digest(&SHA256, &fs::read(&path).unwrap()));
            ("f", mode, meta.size().to_string().into_bytes(), meta.nlink(), hash)
        };
        let mut line = path.strip_prefix(root).unwrap().as_os_str().as_bytes().to_owned();
        line.extend(format!("|{letter}|{mode}|{}.{:09}0|", meta.mtime(), meta.mtime_nsec()).bytes());
        line.extend(detail);
        line.extend(format!("|{names}|{hash}\n").bytes());
        lines.push(line);
    }
    lines.sort();
    lines.concat()
}

async fn open(path: &Path) -> ReadOnlyRepository {
    let repository = Repository::open(store(path), &"app".parse().unwrap(), &key(path)).await.unwrap();
    ReadOnlyRepository::open(repository, &Env::host(), None).await.unwrap()
}

/// Restores one snapshot into `target` and compares it with what the source was.
async fn assert_restores(archive: &ReadOnlyRepository, root: ChunkId, target: &Path, expected: &[u8], what: &str) {
    let source = RepositorySource::open(archive.clone(), root).await.unwrap();
    let entries = Box::new(source.entries(&[]));
    let roots = source.roots().await.unwrap();
    let options = RestoreOptions { target: target.to_owned(), roots, numeric_ids: true, ..RestoreOptions::default() };
    let report =
        restore(Arc::new(source), entries, options, Arc::new(JobProgress::default()), &Env::host()).await.unwrap();
    assert!(report.is_success(), "{report:?}");
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string().replace("\\n", "\n");
    assert_eq!(text(&describe(&target.join("srv/app"))), text(expected), "{what}");
}

async fn assert_verifies(path: &Path, key: &KeySource, snapshots: u64) {
    let (progress, env, role) = (JobProgress::default(), Env::host(), "app".parse().unwrap());
    let report = verify(store(path), &role, key, 100, &|_| None, &progress, &env).await.unwrap();
    assert!(report.damages.is_empty(), "{}: {:?}", path.display(), report.damages);
    let records = fs::read_dir(path.join("store/app/journal")).unwrap().count() as u64;
    let checked = report.checked;
    assert_eq!((checked.records, checked.snapshots, checked.unreferenced), (records, snapshots, 0));
}

#[tokio::test]
async fn every_snapshot_comes_back_as_it_was() {
    for path in repositories() {
        let archive = open(&path).await;
        let expected = expected(&path);
        assert_eq!(archive.snapshots().len(), expected.len());
        let nodes: Vec<&str> = archive.snapshots().iter().map(|s| s.node.name.as_str()).collect();
        assert_eq!(nodes, ["east", "east", "west"], "{}", path.display());
        for (number, snapshot) in archive.snapshots().iter().enumerate() {
            let target = tempfile::tempdir().unwrap();
            let what = format!("{} snapshot {}", path.display(), number + 1);
            assert_restores(&archive, snapshot.root, &target.path().join("t"), &expected[number], &what).await;
        }
        // What a restore may not be allowed to set, or a file system may not have.
        let reader = archive.reader().await.unwrap();
        let root = archive.snapshots()[0].root;
        let entry = async |name: &str| {
            let path = TreePath::new(format!("srv/app/{name}")).unwrap();
            reader.entry(root, &path).await.unwrap().unwrap()
        };
        assert_eq!(entry("deep/numbers").await.xattrs[0].value, b"kept");
        assert!(matches!(entry("sparse").await.kind, EntryKind::File { extents: Some(_), size: 1_048_576, .. }));
    }
}

#[tokio::test]
async fn they_verify_with_the_key_file_and_with_the_passphrase() {
    for path in repositories() {
        for key in [key(&path), KeySource::PassphraseFile(path.join("passphrase"))] {
            assert_verifies(&path, &key, 3).await;
        }
    }
}

#[tokio::test]
async fn their_journals_pass_the_audit_and_tell_what_was_pruned() {
    let condemned = async |path: &Path| open(path).await.view.state.condemned.len();
    let mut all = 0;
    for path in repositories() {
        let role = RoleSettings::new("app".parse().unwrap(), key(&path), vec!["/srv/app".into()]);
        let period = ("2026-11-01T00:00:00Z".parse().unwrap(), Env::host().clock.now());
        let report = audit(store(&path), &role, None, period, &|_| None).await.unwrap();
        assert_eq!(report.findings, [], "{}", path.display());
        all += condemned(&path).await;
    }
    assert_eq!(all, 1, "one of them was left in the middle of a sweep");
}

/// What runs a node of its own.
fn runner(state_dir: &Path) -> NodeContext {
    NodeContext {
        env: Env::host(),
        node: WriterNode { id: NodeId([8; 16]), name: "north".to_owned() },
        instance: InstanceId(Env::host().random_bytes()),
        state_dir: state_dir.to_owned(),
        cancel: CancellationToken::new(),
        progress: Arc::default(),
        config_hash: String::new(),
        memory: ProcessMemory::default(),
        inputs: NodeInputs::default(),
        leases: LeaseSessions::default(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_of_today_goes_on_from_them_and_prunes_them() {
    for old in repositories() {
        let dir = tempfile::tempdir().unwrap();
        let status = std::process::Command::new("cp").arg("-a").arg(&old).arg(dir.path().join("copy")).status();
        assert!(status.unwrap().success());
        let (copy, place) = (dir.path().join("copy"), dir.path().join("t"));
        fs::create_dir(dir.path().join("state")).unwrap();
        let expected = expected(&old);
        let newest = expected.last().unwrap();
        let before = open(&copy).await;
        assert_restores(&before, before.snapshots()[2].root, &place, newest, "before").await;

        // The same tree elsewhere: it is a new source, and no new content.
        let runner = runner(&dir.path().join("state"));
        let (url, source) = (StoreUrl::Dir(copy.join("store")), place.join("srv/app"));
        let settings = Settings::for_flags(std::slice::from_ref(&source), url, "app".parse().unwrap(), key(&copy));
        let settings = settings.unwrap();
        let role = settings.roles.values().next().unwrap();
        let connect = async || Ok(store(&copy));
        let done = run::backup(&runner, &settings, role, connect, BackupRequest::default(), &|_, _| ()).await;
        let report = done.unwrap();
        assert_eq!(report.outcome, RunOutcome::Committed, "{report:?}");
        let after = open(&copy).await;
        let chunks = async |archive: &ReadOnlyRepository, root: ChunkId, path: &Path| {
            let path = path.join("deep/numbers");
            let path = TreePath::new(&path.as_os_str().as_bytes()[1..]).unwrap();
            archive.reader().await.unwrap().entry(root, &path).await.unwrap().unwrap().kind.chunks().to_vec()
        };
        let was = chunks(&before, before.snapshots()[2].root, Path::new("/srv/app")).await;
        assert!(!was.is_empty());
        assert_eq!(chunks(&after, after.snapshots()[3].root, &source).await, was);
        assert_verifies(&copy, &key(&copy), 4).await;

        // Two go, the sweep that died is finished, and what stays is as it was.
        let keep = Some(RetentionPolicy { last: 2, ..RetentionPolicy::default() });
        let role = RoleSettings { keep, max_unused: 0, prune_grace: Duration::ZERO, ..role.clone() };
        let pruned = Box::pin(prune::run(&runner, &settings, &role, async || Ok(store(&copy)))).await.unwrap();
        let PruneOutcome::Done(report) = pruned else { panic!("{pruned:?}") };
        assert!(report.swept.packs > 0 && report.swept.waiting == 0, "{report:?}");
        let left = open(&copy).await;
        assert!(left.view.state.condemned.is_empty());
        assert_eq!(left.snapshots(), &after.snapshots()[2..]);
        assert_restores(&left, left.snapshots()[0].root, &dir.path().join("again"), newest, "after").await;
        assert_verifies(&copy, &key(&copy), 2).await;
    }
}
