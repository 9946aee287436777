//! The restore as a whole, over a repository in memory and real directories.

mod existing;
mod fake;
mod fresh;
mod hostile;
mod limits;
mod property;

use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

use fake::{Fake, List};

use super::*;
use crate::job::report::restored::RestoreCounts;
use crate::repo::entry::{EntryKind, Extent, OwnerAndMode, UnixNanos, Xattr};

fn path(text: impl Into<Vec<u8>>) -> TreePath {
    TreePath::new(text).unwrap()
}

/// Builder of a snapshot for the tests.
#[derive(Default)]
struct Snapshot {
    entries: Vec<ManifestEntry>,
    fake: Fake,
}

const MTIME: UnixNanos = UnixNanos(1_600_000_000_123_456_789);

impl Snapshot {
    fn new() -> Self {
        Self::default()
    }

    fn entry(mut self, at: impl Into<Vec<u8>>, kind: EntryKind) -> Self {
        let mode = if matches!(kind, EntryKind::Dir) { 0o755 } else { 0o644 };
        let (uid, gid) = (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw());
        let owner = OwnerAndMode { mode, uid, gid, ..OwnerAndMode::default() };
        self.entries.push(ManifestEntry { path: path(at), kind, owner, mtime: MTIME, xattrs: Vec::new() });
        self
    }

    fn dir(self, at: impl Into<Vec<u8>>) -> Self {
        self.entry(at, EntryKind::Dir)
    }

    fn file(mut self, at: impl Into<Vec<u8>>, content: &[u8]) -> Self {
        let chunks = self.fake.store(content);
        self.entry(at, EntryKind::File { size: content.len() as u64, extents: None, chunks })
    }

    fn sparse(mut self, at: &str, size: u64, extents: &[(u64, &[u8])]) -> Self {
        let content: Vec<u8> = extents.iter().flat_map(|(_, bytes)| bytes.iter().copied()).collect();
        let chunks = self.fake.store(&content);
        let extents = extents.iter().map(|&(offset, bytes)| Extent { offset, len: bytes.len() as u64 }).collect();
        self.entry(at, EntryKind::File { size, extents: Some(extents), chunks })
    }

    fn symlink(self, at: &str, target: &str) -> Self {
        self.entry(at, EntryKind::Symlink { target: target.into() })
    }

    fn hardlink(self, at: &str, first: &str) -> Self {
        self.entry(at, EntryKind::Hardlink { target: path(first) })
    }

    /// Changes the entry that was added last.
    fn with(mut self, change: impl FnOnce(&mut ManifestEntry)) -> Self {
        change(self.entries.last_mut().unwrap());
        self
    }

    fn xattr(self, name: &str, value: &[u8]) -> Self {
        let xattr = Xattr { name: name.into(), value: value.to_vec() };
        self.with(|e| e.xattrs.push(xattr))
    }

    /// Builds the source, with the entries in path order.
    fn build(mut self) -> Arc<Fake> {
        self.entries.sort_by(|a, b| a.path.cmp(&b.path));
        self.build_as_is()
    }

    fn build_as_is(mut self) -> Arc<Fake> {
        self.fake.seal();
        self.fake.entries = self.entries;
        Arc::new(self.fake)
    }
}

/// Pseudo-random bytes without repetition.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn into(target: &Path) -> RestoreOptions {
    RestoreOptions { target: target.to_owned(), roots: vec![path("")], ..RestoreOptions::default() }
}

async fn try_run(fake: &Arc<Fake>, options: RestoreOptions) -> Result<RestoreReport, RestoreError> {
    let source: Arc<dyn SnapshotSource> = Arc::<Fake>::clone(fake);
    let entries = Box::new(List::new(fake.entries.clone()));
    restore(source, entries, options, Arc::default(), &Env::host()).await
}

async fn run(fake: &Arc<Fake>, options: RestoreOptions) -> RestoreReport {
    try_run(fake, options).await.unwrap()
}

fn as_path(bytes: &[u8]) -> &Path {
    Path::new(std::ffi::OsStr::from_bytes(bytes))
}

/// Every path below `root` with type, content, mode and time.
fn look(root: &Path) -> BTreeMap<TreePath, String> {
    let mut seen = BTreeMap::new();
    let mut inodes = BTreeMap::<u64, TreePath>::new();
    let mut todo = vec![TreePath::default()];
    while let Some(dir) = todo.pop() {
        let names = std::fs::read_dir(root.join(as_path(dir.as_bytes()))).unwrap();
        let mut names: Vec<_> = names.map(|n| dir.join(n.unwrap().file_name().as_bytes()).unwrap()).collect();
        names.sort_by(|a, b| b.cmp(a));
        todo.extend(names);
        while let Some(next) = todo.pop() {
            let full = root.join(as_path(next.as_bytes()));
            let meta = std::fs::symlink_metadata(&full).unwrap();
            let kind = meta.file_type();
            let what = if kind.is_dir() {
                "dir".to_owned()
            } else if kind.is_symlink() {
                format!("-> {}", std::fs::read_link(&full).unwrap().display())
            } else if kind.is_fifo() {
                "fifo".to_owned()
            } else {
                blake3::hash(&std::fs::read(&full).unwrap()).to_hex().to_string()
            };
            let first = inodes.entry(meta.ino()).or_insert_with(|| next.clone()).clone();
            let link = if first == next { String::new() } else { format!(" = {}", first.display()) };
            let mode = if kind.is_symlink() { 0 } else { meta.mode() & 0o7777 };
            let time = UnixNanos::new(meta.mtime(), meta.mtime_nsec() as u32).0;
            seen.insert(next.clone(), format!("{what} {mode:o} {time}{link}"));
            if kind.is_dir() {
                todo.push(next);
                break;
            }
        }
    }
    seen
}

/// What [`look`] must return after the restore of these entries.
fn expected(fake: &Fake) -> BTreeMap<TreePath, String> {
    let by_path: BTreeMap<_, _> = fake.entries.iter().map(|e| (e.path.clone(), e)).collect();
    let describe = |e: &ManifestEntry| {
        let what = match &e.kind {
            EntryKind::Dir => "dir".to_owned(),
            EntryKind::Symlink { target } => format!("-> {}", String::from_utf8_lossy(target)),
            EntryKind::Fifo => "fifo".to_owned(),
            kind => blake3::hash(&fake.content(kind)).to_hex().to_string(),
        };
        let mode = if matches!(e.kind, EntryKind::Symlink { .. }) { 0 } else { e.owner.mode };
        format!("{what} {mode:o} {}", e.mtime.0)
    };
    let mut all = BTreeMap::new();
    for e in fake.entries.iter().filter(|e| !e.path.as_bytes().is_empty()) {
        let text = match &e.kind {
            EntryKind::Hardlink { target } => format!("{} = {}", describe(by_path[target]), target.display()),
            _ => describe(e),
        };
        all.insert(e.path.clone(), text);
    }
    all
}

fn assert_restored(fake: &Fake, root: &Path) {
    let (seen, expected) = (look(root), expected(fake));
    for (path, text) in &expected {
        assert_eq!(seen.get(path), Some(text), "{path:?}");
    }
    for path in seen.keys() {
        assert!(expected.contains_key(path), "{path:?} is too much");
    }
}

fn counts(restored: u64, unchanged: u64, directories: u64) -> RestoreCounts {
    RestoreCounts { restored, unchanged, directories, ..RestoreCounts::default() }
}

fn problems(report: &RestoreReport) -> Vec<String> {
    report.problems.iter().map(|p| format!("{}: {}", p.path.display(), p.kind)).collect()
}
