//! Repositories that earlier versions made are read, verified and restored by this one.
//!
//! Each folder of `tests/old/` is one: a directory store, its key file and passphrase, and for each snapshot what find(1) and
//! sha256sum(1) said of the source when it was made (`tests/old/make`).

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use runner::config::KeySource;
use runner::env::Env;
use runner::job::inside::Archive;
use runner::job::progress::Progress;
use runner::job::repository::Repository;
use runner::job::restore::{RepositorySource, RestoreOptions, restore};
use runner::job::verify::verify;
use runner::repo::entry::Kind;
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

#[tokio::test]
async fn every_snapshot_comes_back_as_it_was() {
    let env = Env::host();
    for path in repositories() {
        let repository = Repository::open(store(&path), &"app".parse().unwrap(), &key(&path)).await.unwrap();
        let archive = Archive::open(repository, &env, None).await.unwrap();
        let expected = expected(&path);
        assert_eq!(archive.snapshots().len(), expected.len());
        let nodes: Vec<&str> = archive.snapshots().iter().map(|s| s.node.name.as_str()).collect();
        assert_eq!(nodes, ["east", "east", "west"], "{}", path.display());
        for (number, snapshot) in archive.snapshots().iter().enumerate() {
            let target = tempfile::tempdir().unwrap();
            let source = RepositorySource::open(archive.clone(), snapshot.root).await.unwrap();
            let entries = Box::new(source.entries(&[]));
            let options = RestoreOptions {
                target: target.path().join("t"),
                roots: source.roots().await.unwrap(),
                numeric_ids: true,
                ..RestoreOptions::default()
            };
            let report =
                restore(Arc::new(source), entries, options, Arc::new(Progress::default()), &env).await.unwrap();
            assert!(report.is_success(), "{report:?}");
            let found = describe(&target.path().join("t/srv/app"));
            let text = |bytes: &[u8]| bytes.escape_ascii().to_string().replace("\\n", "\n");
            assert_eq!(text(&found), text(&expected[number]), "{} snapshot {}", path.display(), number + 1);
        }
        // What a restore may not be allowed to set, or a file system may not have.
        let reader = archive.reader().await.unwrap();
        let root = archive.snapshots()[0].root;
        let entry = async |name: &str| {
            let path = runner::repo::entry::TreePath::new(format!("srv/app/{name}")).unwrap();
            reader.entry(root, &path).await.unwrap().unwrap()
        };
        assert_eq!(entry("deep/numbers").await.xattrs[0].value, b"kept");
        assert!(matches!(entry("sparse").await.kind, Kind::File { extents: Some(_), size: 1_048_576, .. }));
    }
}

#[tokio::test]
async fn they_verify_with_the_key_file_and_with_the_passphrase() {
    for path in repositories() {
        for key in [key(&path), KeySource::PassphraseFile(path.join("passphrase"))] {
            let (progress, env) = (Progress::default(), Env::host());
            let role = "app".parse().unwrap();
            let report = verify(store(&path), &role, &key, 100, &|_| None, &progress, &env).await.unwrap();
            assert!(report.damages.is_empty(), "{}: {:?}", path.display(), report.damages);
            assert_eq!((report.checked.records, report.checked.snapshots, report.checked.unreferenced), (5, 3, 0));
        }
    }
}
