//! A store in a directory: `file:///path`. One object is one file.
//!
//! The invariants that live here: a name appears only when the bytes behind it are durable; it appears at once and
//! whole; and when a call has returned, the name is durable too, with every directory above it. So: temporary file,
//! fsync, `rename` (or `link`, which never replaces), fsync of the directory. Without the last step a power cut takes
//! back a journal record that a node has already acted upon.
//!
//! A directory whose objects [`Store::replace`] changes also has a lock file, see `dir/replace.rs`.
//!
//! The root itself is never created by a write: an unmounted disk must not become a new, empty store. Each call opens
//! it anew, compares it with the directory that was opened first, and works below its descriptor, where no link is
//! followed (`dir/open_dir.rs`).

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;
use parking_lot::{Mutex, MutexGuard};
use rustix::fs::{AtFlags, FileType};
use rustix::io::Errno;
use tokio::sync::{Semaphore, oneshot};

mod clock;
pub mod file_system;
mod inodes;
mod list;
pub mod open_dir;
mod replace;
mod sandbox;

use self::clock::DirClock;
use self::file_system::{FileSystem, HostFileSystem, WritableFile};
use self::open_dir::{FileAt, OpenDir};
use super::{
    LIST_PAGE_MAX, ListPage, ObjectVersion, PutOutcome, PutPause, RANGE_BYTES_MAX, ReplaceOutcome, SizeLimit, Store,
    StoreCapabilities, StoreError, StoreErrorKind, key,
};
use crate::clock_reading::ClockReading;
use crate::env::Env;

/// How many times a put is tried, each time with a new temporary file, when an fsync fails. The second try is for a
/// passing fault; if it fails too, the operator must look at the disk.
const SYNC_ATTEMPTS: usize = 2;

/// How many directories are remembered as durable; a repository has some 260 for each role. Beyond it all are dropped,
/// which costs an fsync each.
const DURABLE_DIRS_MAX: usize = 65_536;

/// How long a measurement of the file system's clock is valid. The host's clock drifts less than a millisecond in this
/// time.
const CLOCK_AGE_MAX: Duration = Duration::from_mins(1);

/// A store in a directory.
#[derive(Debug, Clone)]
pub struct DirStore(Arc<DirStoreInner>);

#[derive(Debug)]
struct DirStoreInner {
    name: String,
    root: PathBuf,
    /// Device and inode number of the root at the first open.
    root_id: (u64, u64),
    disk: Arc<dyn FileSystem>,
    env: Env,
    /// Directories whose own names this process has made durable, relative to the root. A directory that exists is not
    /// necessarily durable: another writer may have made it a moment ago, or died before its fsync.
    durable_dirs: Mutex<HashSet<PathBuf>>,
    /// The file system's clock, measured with the newest file of this process.
    clock: Mutex<Option<DirClock>>,
    turns: Arc<Semaphore>,
}

/// The most requests at a time. On a server that hangs each blocks its thread for ever; the whole process has a few
/// hundred threads.
const BLOCKED_MAX: usize = 64;

impl DirStore {
    /// Opens a store in an existing directory.
    ///
    /// # Errors
    /// [`StoreErrorKind::NoSuchStore`] if the directory does not exist.
    pub fn open(root: &Path, env: &Env) -> Result<Self, StoreError> {
        Self::with_disk(root, env, Arc::new(HostFileSystem))
    }

    /// Opens a store in a directory, making it with its parents if it is missing. For `init` alone.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn create(root: &Path, env: &Env) -> Result<Self, StoreError> {
        let missing: Vec<&Path> =
            root.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
        for dir in missing.into_iter().rev() {
            let made = FileAt::of(dir).and_then(|at| make_dir_durable(&HostFileSystem, &at));
            made.map_err(|e| io_error(&name_of(root), None, &e))?;
        }
        Self::open(root, env)
    }

    /// [`DirStore::open`] with a [`FileSystem`] of the caller's between the store and the kernel.
    ///
    /// # Errors
    /// As for [`DirStore::open`].
    pub fn with_disk(root: &Path, env: &Env, disk: Arc<dyn FileSystem>) -> Result<Self, StoreError> {
        let name = name_of(root);
        let root_id = open_root(root, &name)?.1;
        let (root, env) = (root.to_owned(), env.clone());
        let (durable_dirs, clock) = (Mutex::default(), Mutex::default());
        let turns = Arc::new(Semaphore::new(BLOCKED_MAX));
        Ok(Self(Arc::new(DirStoreInner { name, root, root_id, disk, env, durable_dirs, clock, turns })))
    }

    /// Runs file work in a thread that may block.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DirStoreInner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let done = self.blocking_once(work).await;
        done.unwrap_or_else(|why| Err(StoreError::new(StoreErrorKind::Other, &self.0.name, None, why)))
    }

    /// Like `blocking`, for work that must not be repeated. The outer error means that the work broke off and its
    /// effect is unknown.
    async fn blocking_once<T: Send + 'static>(
        &self,
        work: impl FnOnce(&DirStoreInner) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Result<T, StoreError>, String> {
        let inner = Arc::clone(&self.0);
        // The work itself holds the permit, not its caller: if the work hangs, the caller gives up and the thread stays
        // busy.
        let turn = Arc::clone(&inner.turns).acquire_owned().await;
        tokio::task::spawn_blocking(move || (work(&inner), turn).0).await.map_err(|e| e.to_string())
    }
}

/// The detail of the error for a key where a directory is.
const IN_ITS_PLACE: &str = "a directory is in its place";

/// The scheme at the beginning of a directory store's name.
const SCHEME: &str = "file://";

/// The most that is read of the list of mounts; a host with thousands of mounts has a megabyte.
const MOUNTINFO_MAX: u64 = 16 << 20;

fn name_of(root: &Path) -> String {
    format!("{SCHEME}{}", root.display())
}

/// Opens the root, and returns its identity.
fn open_root(root: &Path, name: &str) -> Result<(OpenDir, (u64, u64)), StoreError> {
    let no_store = |why: &str| StoreError::new(StoreErrorKind::NoSuchStore, name, None, why);
    let opened = OpenDir::root(root).and_then(|root| root.id().map(|id| (root, id)));
    opened.map_err(|e| match e.kind() {
        ErrorKind::NotFound => no_store(""),
        ErrorKind::NotADirectory => no_store("not a directory"),
        _ => io_error(name, None, &e),
    })
}

fn make_dir_durable(disk: &dyn FileSystem, dir: &FileAt) -> io::Result<()> {
    match disk.make_dir(dir) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e),
        _ => disk.sync_dir(dir.dir()),
    }
}

#[async_trait]
impl Store for DirStore {
    fn describe(&self) -> String {
        self.0.name.clone()
    }

    fn capabilities(&self) -> StoreCapabilities {
        StoreCapabilities { put_if_absent: true, replace: true, has_finite_space: true }
    }

    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError> {
        let key = key.to_owned();
        self.blocking(move |inner| inner.put(&key, &body)).await
    }

    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
        let key = key.to_owned();
        let put = self.blocking_once(move |inner| inner.put_if_absent(&key, &body, None)).await;
        put.unwrap_or_else(|why| Ok(PutOutcome::Unknown { why }))
    }

    async fn put_if_absent_paused(&self, key: &str, body: Bytes, hold: PutPause) -> Result<PutOutcome, StoreError> {
        let key = key.to_owned();
        let put = self.blocking_once(move |inner| inner.put_if_absent(&key, &body, Some(hold))).await;
        put.unwrap_or_else(|why| Ok(PutOutcome::Unknown { why }))
    }

    async fn replace(&self, key: &str, body: Bytes, expected: &ObjectVersion) -> Result<ReplaceOutcome, StoreError> {
        let (key, expected) = (key.to_owned(), expected.clone());
        let replaced = self.blocking_once(move |inner| inner.replace(&key, &body, &expected)).await;
        replaced.unwrap_or_else(|why| Ok(ReplaceOutcome::Unknown { why }))
    }

    async fn get(&self, key: &str, limit: SizeLimit) -> Result<Bytes, StoreError> {
        let key = key.to_owned();
        self.blocking(move |inner| inner.read(&key, limit)).await
    }

    async fn get_versioned(&self, key: &str, limit: SizeLimit) -> Result<(Bytes, ObjectVersion), StoreError> {
        match self.get(key, limit).await {
            Ok(body) => {
                let version = ObjectVersion::of_content(&body);
                Ok((body, version))
            }
            Err(error) if error.is_not_an_object() => {
                let key = key.to_owned();
                let there = self.blocking(move |inner| inner.version(&key)).await?;
                Err(error.with_version(there))
            }
            Err(error) => Err(error),
        }
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let key = key.to_owned();
        self.blocking(move |inner| inner.read_range(&key, range)).await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError> {
        let (prefix, after) = (prefix.to_owned(), after.map(str::to_owned));
        self.blocking(move |inner| {
            key::check_prefix(&inner.name, &prefix)?;
            let page = list::list(&inner.root()?, &prefix, after.as_deref(), limit.clamp(1, LIST_PAGE_MAX));
            page.map_err(|e| inner.error(&prefix, &e))
        })
        .await
    }

    async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        let keys = keys.to_vec();
        self.blocking(move |inner| inner.delete(&keys)).await
    }

    /// Measures by the date of a file that is made and removed again. Fails silently if the directory is not writable.
    async fn measure_clock_offset(&self) {
        let asked = self.blocking(|inner| {
            inner.ask_time();
            Ok(())
        });
        // If the measurement fails, the offset stays unknown.
        let _ = asked.await;
    }

    fn clock_offset(&self) -> Option<SignedDuration> {
        Some((*self.0.clock())?.offset(self.0.env.clock.moment()))
    }
}

/// Why an attempt of a put failed.
enum PutAttemptError {
    /// Writing or fsync failed: a new attempt uses a new name.
    Retry(io::Error),
    /// A second attempt would not help.
    Final(StoreError),
}

impl DirStoreInner {
    fn error(&self, key: &str, e: &io::Error) -> StoreError {
        io_error(&self.name, Some(key), e)
    }

    /// A reader finds no object there, and a writer cannot put one.
    fn is_directory_error(&self, key: &str) -> StoreError {
        StoreError::new(StoreErrorKind::NotAnObject, &self.name, Some(key), IN_ITS_PLACE)
    }

    /// Opens the root, and checks that it still is the directory that was opened first.
    fn root(&self) -> Result<OpenDir, StoreError> {
        match open_root(&self.root, &self.name)? {
            (root, id) if id == self.root_id => Ok(root),
            _ => {
                let why = "another directory is in its place: a disk may have been mounted or unmounted";
                Err(StoreError::new(StoreErrorKind::NoSuchStore, &self.name, None, why))
            }
        }
    }

    /// The location of `key`: `None` if not even its directory exists.
    fn find(root: &OpenDir, key: &str) -> io::Result<Option<FileAt>> {
        let (parent, name) = split_key(key);
        match root.dir(parent) {
            Ok(dir) => Ok(Some(FileAt::new(Arc::new(dir), name))),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Opens the object `key`; also returns its length.
    fn open(&self, key: &str) -> Result<(File, u64), StoreError> {
        key::check(&self.name, key)?;
        let opened = self.root()?.file(key).and_then(|file| file.metadata().map(|meta| (file, meta.len())));
        opened.map_err(|e| match e.kind() {
            // A directory, or a path below a file: on S3 there would simply be no such object.
            ErrorKind::NotFound | ErrorKind::IsADirectory | ErrorKind::NotADirectory => {
                StoreError::new(StoreErrorKind::NotFound, &self.name, Some(key), "")
            }
            _ => self.error(key, &e),
        })
    }

    fn read(&self, key: &str, limit: SizeLimit) -> Result<Bytes, StoreError> {
        let (file, len) = self.open(key)?;
        limit.check(&self.name, key, len)?;
        let mut body = Vec::with_capacity(len as usize);
        // The file may grow meanwhile.
        file.take(limit.bytes() + 1).read_to_end(&mut body).map_err(|e| self.error(key, &e))?;
        limit.check(&self.name, key, body.len() as u64)?;
        Ok(body.into())
    }

    fn read_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let (file, len) = self.open(key)?;
        let Some(len) = range.end.min(len).checked_sub(range.start) else { return Ok(Bytes::new()) };
        SizeLimit::range(RANGE_BYTES_MAX).check(&self.name, key, len)?;
        let mut buffer = vec![0; len as usize];
        file.read_exact_at(&mut buffer, range.start).map_err(|e| self.error(key, &e))?;
        Ok(buffer.into())
    }

    fn durable_dirs(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        // The set stays consistent if another thread panics.
        self.durable_dirs.lock()
    }

    fn clock(&self) -> MutexGuard<'_, Option<DirClock>> {
        // The value is replaced as a whole, so it stays consistent.
        self.clock.lock()
    }

    fn ask_time(&self) {
        let before = self.env.clock.moment();
        let known = *self.clock();
        if known.is_some_and(|clock| clock.age(before) < CLOCK_AGE_MAX && clock.offset(before).is_zero()) {
            return;
        }
        let Ok(root) = self.root() else { return };
        let temp = FileAt::new(Arc::new(root), self.temp_name());
        let Ok(mut file) = self.disk.create(&temp) else { return };
        // Some file systems set a file's date only when it is written.
        if file.write_all(b"\n").is_ok() {
            self.note_time(file.as_ref(), before);
        }
        drop(file);
        self.discard(&temp);
    }

    /// Records the clock from the date of a file that this process has written since `before`.
    fn note_time(&self, file: &dyn WritableFile, before: ClockReading) {
        if let Ok(modified) = file.modified() {
            *self.clock() = Some(DirClock::read(before, modified, self.env.clock.moment()));
        }
    }

    fn temp_name(&self) -> String {
        format!("{}{}", key::TEMP_PREFIX, hex::encode(self.env.random_bytes::<16>()))
    }

    /// The location of `key`, after its directory and every one above it exist and are durable.
    fn make_parent_dirs(&self, key: &str) -> Result<FileAt, StoreError> {
        key::check(&self.name, key)?;
        let root = Arc::new(self.root()?);
        let placed = self.make_parents(&root, key).or_else(|e| {
            // Another process removed an empty directory that this one remembers.
            if e.kind() != ErrorKind::NotFound {
                return Err(e);
            }
            self.durable_dirs().clear();
            self.make_parents(&root, key)
        });
        placed.map_err(|e| self.error(key, &e))
    }

    fn make_parents(&self, root: &Arc<OpenDir>, key: &str) -> io::Result<FileAt> {
        let (parent, name) = split_key(key);
        if parent.is_empty() {
            return Ok(FileAt::new(Arc::clone(root), name));
        }
        let ends = parent.match_indices('/').map(|(at, _)| at).chain([parent.len()]);
        for dir in ends.map(|end| &parent[..end]) {
            if self.durable_dirs().contains(Path::new(dir)) {
                continue;
            }
            let (above, name) = split_key(dir);
            let above = if above.is_empty() { Arc::clone(root) } else { Arc::new(root.dir(above)?) };
            make_dir_durable(&*self.disk, &FileAt::new(above, name))?;
            let mut known = self.durable_dirs();
            if known.len() >= DURABLE_DIRS_MAX {
                known.clear();
            }
            known.insert(dir.into());
        }
        Ok(FileAt::new(Arc::new(root.dir(parent)?), name))
    }

    /// Writes a durable temporary file beside `at`, or leaves none at all.
    fn write_temp(
        &self,
        key: &str,
        at: &FileAt,
        body: &[u8],
        hold: Option<PutPause>,
    ) -> Result<FileAt, PutAttemptError> {
        let before = self.env.clock.moment();
        let temp = at.beside(self.temp_name());
        let mut file = self.disk.create(&temp).map_err(|e| PutAttemptError::Final(self.error(key, &e)))?;
        if let Some(hold) = hold {
            wait_for_release(hold.begin());
        }
        match file.write_all(body).and_then(|()| file.sync()) {
            Ok(()) => {
                self.note_time(file.as_ref(), before);
                Ok(temp)
            }
            Err(e) => {
                self.discard(&temp);
                Err(PutAttemptError::Retry(e))
            }
        }
    }

    /// Removes a temporary file. One that stays behind is ignored by every listing.
    fn discard(&self, temp: &FileAt) {
        if let Err(e) = self.disk.remove(temp) {
            tracing::debug!(path = %temp.path().display(), error = %e, "a temporary file stays behind");
        }
    }

    fn put(&self, key: &str, body: &[u8]) -> Result<(), StoreError> {
        let attempt = || {
            let at = self.make_parent_dirs(key).map_err(PutAttemptError::Final)?;
            let temp = self.write_temp(key, &at, body, None)?;
            let renamed = self.lock_if_replaced(key, &at).and_then(|lock| {
                let renamed = self.disk.rename(&temp, &at).map_err(|e| match e.kind() {
                    ErrorKind::IsADirectory => self.is_directory_error(key),
                    _ => self.error(key, &e),
                });
                drop(lock);
                renamed
            });
            if let Err(e) = renamed {
                self.discard(&temp);
                return Err(PutAttemptError::Final(e));
            }
            self.disk.sync_dir(at.dir()).map_err(PutAttemptError::Retry)
        };
        self.with_attempts(key, attempt)
    }

    fn put_if_absent(&self, key: &str, body: &[u8], hold: Option<PutPause>) -> Result<PutOutcome, StoreError> {
        let mut hold = hold;
        let (at, temp) = self.with_attempts(key, || {
            let at = self.make_parent_dirs(key).map_err(PutAttemptError::Final)?;
            self.write_temp(key, &at, body, hold.take()).map(|temp| (at, temp))
        })?;
        let linked = match self.disk.link(&temp, &at) {
            Err(e) if cannot_link(&e) => match self.disk.rename_new(&temp, &at) {
                Err(e) if cannot_rename_new(&e) => {
                    self.discard(&temp);
                    let detail =
                        "this file system has neither link(2) nor renameat2(RENAME_NOREPLACE): it can hold no journal";
                    return Err(StoreError::new(StoreErrorKind::Unsupported, &self.name, Some(key), detail));
                }
                Ok(()) => Ok(()),
                // The temporary file is gone: a network file system sent the rename twice, and the first one took
                // effect.
                Err(e) if errno(&e) == Some(Errno::NOENT) => {
                    return Ok(PutOutcome::Unknown { why: format!("rename: {e}") });
                }
                Err(e) => {
                    self.discard(&temp);
                    Err(e)
                }
            },
            linked => {
                self.discard(&temp);
                linked
            }
        };
        let outcome = match linked {
            Ok(()) => PutOutcome::Created,
            Err(e) if e.kind() == ErrorKind::AlreadyExists && is_dir(&at) => return Err(self.is_directory_error(key)),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => PutOutcome::Exists,
            Err(e) if is_refusal(&e) => return Err(self.error(key, &e)),
            // On a network file system perhaps only the answer was lost.
            Err(e) => return Ok(PutOutcome::Unknown { why: e.to_string() }),
        };
        // Also after `Exists`: the caller will act on the existing object, and its writer may not have synced it yet.
        match self.disk.sync_dir(at.dir()) {
            Ok(()) => Ok(outcome),
            Err(e) => Ok(PutOutcome::Unknown { why: format!("fsync of the directory: {e}") }),
        }
    }

    fn with_attempts<T>(
        &self,
        key: &str,
        mut attempt: impl FnMut() -> Result<T, PutAttemptError>,
    ) -> Result<T, StoreError> {
        let mut left = SYNC_ATTEMPTS;
        loop {
            left -= 1;
            match attempt() {
                Ok(value) => return Ok(value),
                Err(PutAttemptError::Final(e)) => return Err(e),
                Err(PutAttemptError::Retry(e)) => {
                    let error = self.error(key, &e);
                    if left == 0 || matches!(error.kind, StoreErrorKind::NoSpace | StoreErrorKind::ReadOnly) {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
        key::check_batch(&self.name, keys)?;
        let root = self.root()?;
        let mut touched = HashSet::new();
        let mut first_error = None;
        for key in keys {
            match self.delete_one(&root, key) {
                Ok(true) => {
                    touched.insert(split_key(key).0);
                }
                Ok(false) => {}
                Err(e) => {
                    first_error.get_or_insert(e);
                }
            }
        }
        for dir in touched {
            let synced = root.dir(dir).and_then(|dir| self.disk.sync_dir(&dir));
            synced.map_err(|e| io_error(&self.name, None, &e))?;
        }
        first_error.map_or(Ok(()), Err)
    }

    /// Deletes one object; returns whether it existed.
    fn delete_one(&self, root: &OpenDir, key: &str) -> Result<bool, StoreError> {
        let Some(at) = Self::find(root, key).map_err(|e| self.error(key, &e))? else { return Ok(false) };
        let lock = self.lock_if_replaced(key, &at)?;
        let removed = self.disk.remove(&at);
        drop(lock);
        match removed {
            Ok(()) => Ok(true),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(false),
            Err(e) => Err(self.error(key, &e)),
        }
    }
}

/// The folder of `path`, without a slash at its end, and the name in it.
fn split_key(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// Waits for the release on a thread that may block. A dropped sender releases, too.
fn wait_for_release(release: oneshot::Receiver<()>) {
    let _ = release.blocking_recv();
}

fn is_dir(at: &FileAt) -> bool {
    let stat = rustix::fs::statat(at.dir(), at.name(), AtFlags::SYMLINK_NOFOLLOW);
    stat.is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn errno(e: &io::Error) -> Option<Errno> {
    Errno::from_io_error(e)
}

fn cannot_link(e: &io::Error) -> bool {
    matches!(errno(e), Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS))
}

fn cannot_rename_new(e: &io::Error) -> bool {
    matches!(errno(e), Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL))
}

/// Whether an error of `link(2)` means that the name was certainly not made. Also used for a rename, except for
/// `ENOENT`.
fn is_refusal(e: &io::Error) -> bool {
    matches!(
        errno(e),
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS | Errno::NOSPC | Errno::DQUOT | Errno::NOENT | Errno::MLINK)
    )
}

fn io_error(store: &str, key: Option<&str>, e: &io::Error) -> StoreError {
    // From an open without following links: a link, a socket, a FIFO, a device.
    if matches!(errno(e), Some(Errno::LOOP | Errno::NXIO)) || e.kind() == ErrorKind::InvalidInput && errno(e).is_none()
    {
        let what = if errno(e) == Some(Errno::LOOP) { "a symbolic link" } else { "not a regular file" };
        let detail = format!("{what} is in its place; no object of the store is read or written through one");
        return StoreError::new(StoreErrorKind::NotAnObject, store, key, detail);
    }
    // Something of another type is in the place of an object or a folder of the store. Some of these errors have no
    // kernel error number.
    match e.kind() {
        ErrorKind::NotADirectory => {
            let detail = "something that is no directory is where a directory of the store should be";
            return StoreError::new(StoreErrorKind::NotAnObject, store, key, detail);
        }
        ErrorKind::IsADirectory => return StoreError::new(StoreErrorKind::NotAnObject, store, key, IN_ITS_PLACE),
        _ => {}
    }
    let kind = match errno(e) {
        Some(Errno::NOSPC | Errno::DQUOT) => StoreErrorKind::NoSpace,
        Some(Errno::ACCESS | Errno::PERM) => StoreErrorKind::Denied,
        Some(Errno::ROFS) => StoreErrorKind::ReadOnly,
        Some(Errno::IO | Errno::REMOTEIO | Errno::UCLEAN) => StoreErrorKind::DiskFault,
        Some(Errno::NAMETOOLONG) => StoreErrorKind::Invalid,
        // Network file systems, and those in user space (`NOTCONN`) whose server is gone.
        Some(
            Errno::TIMEDOUT
            | Errno::HOSTDOWN
            | Errno::HOSTUNREACH
            | Errno::NETUNREACH
            | Errno::NETDOWN
            | Errno::CONNREFUSED
            | Errno::CONNRESET
            | Errno::CONNABORTED
            | Errno::NOTCONN
            | Errno::SHUTDOWN
            | Errno::STALE
            // A lease on the file that its holder does not release.
            | Errno::AGAIN,
        ) => StoreErrorKind::Unreachable,
        _ => StoreErrorKind::Other,
    };
    if errno(e) == Some(Errno::NOSPC) && are_inodes_used_up(store) {
        return StoreError::new(kind, store, key, format!("{e}: {}", inodes::TOLD));
    }
    if kind == StoreErrorKind::ReadOnly && is_read_only_here_alone(store) {
        return StoreError::new(kind, store, key, format!("{e}, {}", sandbox::TOLD));
    }
    StoreError::new(kind, store, key, e.to_string())
}

/// `false` if it cannot be determined.
fn are_inodes_used_up(store: &str) -> bool {
    let root = store.strip_prefix(SCHEME);
    root.is_some_and(|root| rustix::fs::statvfs(root).is_ok_and(|fs| inodes::are_used_up(&fs)))
}

/// `false` if it cannot be determined.
fn is_read_only_here_alone(store: &str) -> bool {
    let Some(root) = store.strip_prefix(SCHEME).and_then(|root| Path::new(root).canonicalize().ok()) else {
        return false;
    };
    crate::file::read(Path::new("/proc/self/mountinfo"), MOUNTINFO_MAX)
        .is_ok_and(|mountinfo| sandbox::is_read_only_here_alone(&mountinfo, &root))
}
