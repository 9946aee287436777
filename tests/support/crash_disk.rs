//! A disk that can lose power: it passes every change through to a real directory, writes each down, and can lay out what would
//! be on the disk if the power had failed after any one of them. Nothing survives but what an fsync covered: a file's
//! content by an fsync of the file, a name by an fsync of the directory it is in.
//!
//! Include it with `#[path = "../support/crash_disk.rs"] mod crash_disk;`.

#![allow(unreachable_pub, dead_code, reason = "each test that includes this uses a part of it")]

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use parking_lot::Mutex;

use runner::store::dir::file_system::{FileSystem, HostFileSystem, WritableFile};
use runner::store::dir::open_dir::{FileAt, OpenDir};

/// What happens to changes that no fsync covered.
#[derive(Debug, Clone, Copy)]
pub enum UnsyncedChanges {
    /// They are all gone.
    Strict,
    /// Each survives or not, file contents also in part, as the seed has it.
    Partly {
        /// Equal seeds give equal wrecks.
        seed: u64,
    },
}

/// The disk. Everything below `root` when it is made counts as durable.
#[derive(Debug)]
pub struct CrashFileSystem {
    root: PathBuf,
    baseline: DiskModel,
    log: Arc<Mutex<Vec<DiskOp>>>,
}

#[derive(Debug, Clone)]
enum DiskOp {
    Create { path: PathBuf, file: FileNo },
    Write { file: FileNo, bytes: Vec<u8> },
    SyncFile { file: FileNo },
    Link { from: PathBuf, to: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
    MakeDir { path: PathBuf },
    SyncDir { path: PathBuf },
}

/// The n-th file that was created through this disk.
type FileNo = usize;

impl CrashFileSystem {
    /// The disk over an existing directory.
    pub fn over(root: &Path) -> Arc<Self> {
        let mut baseline = DiskModel::default();
        baseline.load(root, Path::new(""));
        Arc::new(Self { root: root.to_owned(), baseline, log: Arc::default() })
    }

    /// How many changes have been made; a cut is a number from 0 to this.
    pub fn ops(&self) -> usize {
        self.log.lock().len()
    }

    /// Lays out in `target`, a directory that exists and is empty, what a power cut after the first `cut` changes leaves.
    pub fn materialise(&self, cut: usize, survival: UnsyncedChanges, target: &Path) {
        let mut model = self.baseline.clone();
        for op in &self.log.lock()[..cut] {
            model.apply(op);
        }
        let mut luck = match survival {
            UnsyncedChanges::Strict => None,
            UnsyncedChanges::Partly { seed } => Some(CrashRng(seed)),
        };
        model.lay_out(DiskModel::ROOT, target, &mut luck);
    }

    fn relative(&self, path: &Path) -> PathBuf {
        path.strip_prefix(&self.root).expect("changes are made below the root").to_owned()
    }

    /// Makes a change and writes it down if it succeeded, under one lock so that the order is the true one.
    fn change<T>(
        &self,
        make: impl FnOnce() -> io::Result<T>,
        op: impl FnOnce(&[DiskOp]) -> DiskOp,
    ) -> io::Result<(T, FileNo)> {
        let mut log = self.log.lock();
        let value = make()?;
        let file = files(&log);
        let op = op(&log);
        log.push(op);
        Ok((value, file))
    }
}

fn files(log: &[DiskOp]) -> FileNo {
    log.iter().filter(|op| matches!(op, DiskOp::Create { .. })).count()
}

impl FileSystem for CrashFileSystem {
    fn create(&self, at: &FileAt) -> io::Result<Box<dyn WritableFile>> {
        let relative = self.relative(&at.path());
        let (inner, file) =
            self.change(|| HostFileSystem.create(at), |log| DiskOp::Create { path: relative, file: files(log) })?;
        Ok(Box::new(CrashFile { inner, file, log: Arc::clone(&self.log) }))
    }

    fn link(&self, from: &FileAt, to: &FileAt) -> io::Result<()> {
        let op = DiskOp::Link { from: self.relative(&from.path()), to: self.relative(&to.path()) };
        self.change(|| HostFileSystem.link(from, to), |_| op).map(drop)
    }

    fn rename(&self, from: &FileAt, to: &FileAt) -> io::Result<()> {
        let op = DiskOp::Rename { from: self.relative(&from.path()), to: self.relative(&to.path()) };
        self.change(|| HostFileSystem.rename(from, to), |_| op).map(drop)
    }

    fn rename_new(&self, from: &FileAt, to: &FileAt) -> io::Result<()> {
        let op = DiskOp::Rename { from: self.relative(&from.path()), to: self.relative(&to.path()) };
        self.change(|| HostFileSystem.rename_new(from, to), |_| op).map(drop)
    }

    fn remove(&self, at: &FileAt) -> io::Result<()> {
        let op = DiskOp::Remove { path: self.relative(&at.path()) };
        self.change(|| HostFileSystem.remove(at), |_| op).map(drop)
    }

    fn make_dir(&self, at: &FileAt) -> io::Result<()> {
        let op = DiskOp::MakeDir { path: self.relative(&at.path()) };
        self.change(|| HostFileSystem.make_dir(at), |_| op).map(drop)
    }

    fn sync_dir(&self, dir: &OpenDir) -> io::Result<()> {
        let op = DiskOp::SyncDir { path: self.relative(dir.path()) };
        self.change(|| Ok(()), |_| op).map(drop)
    }

    /// A lock is no change; the file that it makes is one.
    fn lock(&self, at: &FileAt, make: bool) -> io::Result<fs::File> {
        if !make || at.path().exists() {
            return HostFileSystem.lock(at, make);
        }
        let relative = self.relative(&at.path());
        let made =
            self.change(|| HostFileSystem.lock(at, make), |log| DiskOp::Create { path: relative, file: files(log) });
        made.map(|(lock, _)| lock)
    }
}

struct CrashFile {
    inner: Box<dyn WritableFile>,
    file: FileNo,
    log: Arc<Mutex<Vec<DiskOp>>>,
}

impl WritableFile for CrashFile {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut log = self.log.lock();
        self.inner.write_all(bytes)?;
        log.push(DiskOp::Write { file: self.file, bytes: bytes.to_vec() });
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.log.lock().push(DiskOp::SyncFile { file: self.file });
        Ok(())
    }
}

type Ino = usize;

/// What is in the page cache, and what of it is on the platter.
#[derive(Debug, Clone)]
struct DiskModel {
    nodes: Vec<DiskNode>,
    files: HashMap<FileNo, Ino>,
}

#[derive(Debug, Clone)]
enum DiskNode {
    File { cached: Vec<u8>, durable: Vec<u8> },
    Dir { cached: BTreeMap<OsString, Ino>, durable: BTreeMap<OsString, Ino>, pending: Vec<DirChange> },
}

/// One change of a directory; a rename within it takes one name and gives another in one step.
#[derive(Debug, Clone)]
struct DirChange {
    taken: Option<OsString>,
    given: Option<(OsString, Ino)>,
}

impl DirChange {
    fn apply(&self, names: &mut BTreeMap<OsString, Ino>) {
        if let Some(name) = &self.taken {
            names.remove(name);
        }
        if let Some((name, ino)) = &self.given {
            names.insert(name.clone(), *ino);
        }
    }
}

impl Default for DiskModel {
    fn default() -> Self {
        Self { nodes: vec![DiskNode::empty_dir()], files: HashMap::new() }
    }
}

impl DiskNode {
    fn empty_dir() -> Self {
        DiskNode::Dir { cached: BTreeMap::new(), durable: BTreeMap::new(), pending: Vec::new() }
    }
}

impl DiskModel {
    const ROOT: Ino = 0;

    fn load(&mut self, from: &Path, relative: &Path) {
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let path = relative.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                let ino = self.add(DiskNode::empty_dir());
                self.name(&path, ino);
                self.load(&entry.path(), &path);
            } else {
                let content = fs::read(entry.path()).unwrap();
                let ino = self.add(DiskNode::File { cached: content.clone(), durable: content });
                self.name(&path, ino);
            }
        }
        self.sync_dir(relative);
    }

    fn add(&mut self, node: DiskNode) -> Ino {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn find(&self, path: &Path) -> Ino {
        path.iter().fold(Self::ROOT, |at, name| match &self.nodes[at] {
            DiskNode::Dir { cached, .. } => cached[name],
            DiskNode::File { .. } => panic!("{} leads through a file", path.display()),
        })
    }

    fn change(&mut self, dir: &Path, change: DirChange) {
        let ino = self.find(dir);
        let DiskNode::Dir { cached, pending, .. } = &mut self.nodes[ino] else { panic!("{} is a file", dir.display()) };
        change.apply(cached);
        pending.push(change);
    }

    fn name(&mut self, path: &Path, ino: Ino) {
        let given = Some((path.file_name().unwrap().to_owned(), ino));
        self.change(path.parent().unwrap(), DirChange { taken: None, given });
    }

    fn unname(&mut self, path: &Path) {
        let taken = Some(path.file_name().unwrap().to_owned());
        self.change(path.parent().unwrap(), DirChange { taken, given: None });
    }

    fn sync_dir(&mut self, path: &Path) {
        let ino = self.find(path);
        let DiskNode::Dir { cached, durable, pending } = &mut self.nodes[ino] else {
            panic!("{} is a file", path.display())
        };
        durable.clone_from(cached);
        pending.clear();
    }

    fn apply(&mut self, op: &DiskOp) {
        match op {
            DiskOp::Create { path, file } => {
                let ino = self.add(DiskNode::File { cached: Vec::new(), durable: Vec::new() });
                self.files.insert(*file, ino);
                self.name(path, ino);
            }
            DiskOp::Write { file, bytes } => {
                let DiskNode::File { cached, .. } = &mut self.nodes[self.files[file]] else {
                    unreachable!("files are files")
                };
                cached.extend_from_slice(bytes);
            }
            DiskOp::SyncFile { file } => {
                let DiskNode::File { cached, durable } = &mut self.nodes[self.files[file]] else {
                    unreachable!("files are files")
                };
                durable.clone_from(cached);
            }
            DiskOp::Link { from, to } => self.name(to, self.find(from)),
            DiskOp::Rename { from, to } if from.parent() == to.parent() => {
                let given = Some((to.file_name().unwrap().to_owned(), self.find(from)));
                let taken = Some(from.file_name().unwrap().to_owned());
                self.change(to.parent().unwrap(), DirChange { taken, given });
            }
            DiskOp::Rename { from, to } => {
                self.name(to, self.find(from));
                self.unname(from);
            }
            DiskOp::Remove { path } => self.unname(path),
            DiskOp::MakeDir { path } => {
                let ino = self.add(DiskNode::empty_dir());
                self.name(path, ino);
            }
            DiskOp::SyncDir { path } => self.sync_dir(path),
        }
    }

    fn lay_out(&self, ino: Ino, at: &Path, luck: &mut Option<CrashRng>) {
        match &self.nodes[ino] {
            DiskNode::File { cached, durable } => {
                let content = match luck {
                    Some(luck) if cached != durable => match luck.below(3) {
                        0 => &cached[..],
                        // Torn: the beginning of what was written.
                        1 => &cached[..luck.below(cached.len() as u64 + 1) as usize],
                        _ => &durable[..],
                    },
                    _ => &durable[..],
                };
                fs::write(at, content).unwrap();
            }
            DiskNode::Dir { durable, pending, .. } => {
                let mut names = durable.clone();
                if let Some(luck) = luck {
                    for change in pending {
                        if luck.below(2) == 0 {
                            change.apply(&mut names);
                        }
                    }
                }
                for (name, ino) in names {
                    let path = at.join(name);
                    if matches!(self.nodes[ino], DiskNode::Dir { .. }) {
                        fs::create_dir(&path).unwrap();
                    }
                    self.lay_out(ino, &path, luck);
                }
            }
        }
    }
}

/// Numbers from a seed (splitmix64).
struct CrashRng(u64);

impl CrashRng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}
