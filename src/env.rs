//! The interface to the host: clocks, random numbers, background tasks and timers, and small files. Election, journal,
//! commit and prune use the host only through it, so that all of them can be simulated from one seed: under simulated
//! clocks, in a task order that the seed chooses, with a host that stops, crashes and restarts.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tracing::Instrument as _;

use crate::clock_doubt::ClockDoubts;
use crate::clock_reading::ClockReading;
use crate::file;
pub use crate::file::boot::BootDir;

/// This process's environment variable `name`. The rest of the program reads the environment only through this
/// function.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// All environment variables of this process.
pub fn variables() -> BTreeMap<OsString, OsString> {
    std::env::vars_os().collect()
}

/// The host's two clocks.
pub trait Clock: Debug + Send + Sync {
    /// Wall time. It may jump; never measure with it.
    fn now(&self) -> Timestamp;

    /// Time since boot, suspend included (`CLOCK_BOOTTIME`). Used for durations and deadlines.
    fn boottime(&self) -> Duration;

    /// The ID of this boot of the machine. A cloned machine has another one, whatever else was copied. `None` if
    /// unknown.
    fn boot_id(&self) -> Option<[u8; 32]> {
        None
    }

    /// Reads both clocks.
    fn moment(&self) -> ClockReading {
        ClockReading { boot: self.boottime(), wall: self.now() }
    }
}

/// A source of random bytes that cannot repeat in a cloned machine.
pub trait RandomSource: Debug + Send + Sync {
    /// Fills `buffer` with unpredictable bytes.
    fn fill(&self, buffer: &mut [u8]);
}

/// Timers and background tasks.
pub trait AsyncRuntime: Debug + Send + Sync {
    /// Resolves after this time on this host's clock.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;

    /// Starts a task. It goes on if the handle is dropped.
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Box<dyn AbortableTask>;

    /// Runs blocking work in a thread where it delays no other task.
    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;
}

/// A task that can be aborted.
pub trait AbortableTask: Debug + Send + Sync {
    /// Drops the task at its current wait; does nothing if it has ended.
    fn abort(&self);
}

/// Small files of this node. Paths are absolute.
pub trait NodeFiles: Debug + Send + Sync {
    /// Reads a whole file of at most [`FILE_BYTES_MAX`].
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Replaces a file's content: after a crash it is the old content or the new one. Only one process may do so at a
    /// time.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Writes a file that may be lost or damaged by a crash.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Appends to a file, creating it if it is missing. Concurrent appends of several processes do not interleave, and
    /// the bytes are durable when this returns.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names of a directory's entries.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes a directory for this user alone, with its parents.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the lock at `path` without waiting; `None` if it is held.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn LockGuard>>>;

    /// Whether the lock at `path` is held. Two concurrent calls do not see each other; [`NodeFiles::lock`] may fail
    /// because of one, for a moment.
    fn is_locked(&self, path: &Path) -> io::Result<bool>;

    /// The directory in memory that belongs to the state directory at `state_dir` and lasts until the machine reboots.
    fn boot_dir(&self, state_dir: &Path) -> io::Result<BootDir>;
}

/// A lock that is held until the guard is dropped.
pub trait LockGuard: Debug + Send + Sync {
    /// Writes this process's ID into the file, for messages of a process that finds it locked. Nothing relies on it.
    fn write_pid(&self);
}

/// Access to the host, passed to each component that needs it.
#[derive(Debug, Clone)]
pub struct Env {
    /// The host's clocks.
    pub clock: Arc<dyn Clock>,
    /// The source of random bytes.
    pub random: Arc<dyn RandomSource>,
    /// Timers and background tasks.
    pub runtime: Arc<dyn AsyncRuntime>,
    /// The node's small files.
    pub files: Arc<dyn NodeFiles>,
    /// Evidence against the wall clock, as found by those who date records with it.
    pub clock_doubts: ClockDoubts,
}

impl Env {
    /// The real host.
    pub fn host() -> Self {
        Self {
            clock: Arc::new(HostClock),
            random: Arc::new(HostRandom),
            runtime: Arc::new(TokioRuntime),
            files: Arc::new(HostFiles),
            clock_doubts: ClockDoubts::default(),
        }
    }

    /// Reads a small JSON file; `None` if it does not exist.
    ///
    /// # Errors
    /// The file cannot be read, or does not parse.
    pub fn read_json<T: DeserializeOwned>(&self, path: &Path) -> io::Result<Option<T>> {
        match self.files.read(path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits for this time.
    pub async fn sleep(&self, time: Duration) {
        self.runtime.sleep(time).await;
    }

    /// The result of `work`, if it ends within `limit`; `None`: it was dropped unfinished.
    pub async fn timeout<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.sleep(limit) => None,
        }
    }

    /// Starts `work` as a background task. What it logs has the fields of what its starter logs.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> TaskHandle<T> {
        let (tell, told) = oneshot::channel();
        let work = async move {
            // The caller may have dropped the handle.
            let _ = tell.send(work.await);
        };
        let handle = self.runtime.spawn(Box::pin(work.in_current_span()));
        TaskHandle { handle, result: told }
    }

    /// Runs blocking `work` in a thread where it delays no other task; `None`: it panicked.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
        let (tell, told) = oneshot::channel();
        let work = move || {
            let _ = tell.send(work());
        };
        self.runtime.blocking(Box::new(work)).await;
        told.await.ok()
    }

    /// `N` random bytes.
    pub fn random_bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.random.fill(&mut bytes);
        bytes
    }
}

/// A handle on a background task; dropping it does not end the task.
#[derive(Debug)]
pub struct TaskHandle<T> {
    handle: Box<dyn AbortableTask>,
    result: oneshot::Receiver<T>,
}

impl<T> TaskHandle<T> {
    /// Aborts the task at its current wait.
    pub fn abort(&self) {
        self.handle.abort();
    }

    /// The task's result; `None`: it was aborted, or panicked.
    pub async fn join(self) -> Option<T> {
        self.result.await.ok()
    }
}

/// The kernel's clocks.
#[derive(Debug, Clone, Copy)]
pub struct HostClock;

impl Clock for HostClock {
    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    fn boottime(&self) -> Duration {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Duration::new(t.tv_sec.unsigned_abs(), t.tv_nsec as u32)
    }

    fn boot_id(&self) -> Option<[u8; 32]> {
        let id = file::read(Path::new("/proc/sys/kernel/random/boot_id"), 64).ok()?;
        Some(*blake3::hash(&id).as_bytes())
    }
}

/// The kernel's `getrandom(2)`, called at each use: a generator with its state in the process would repeat itself in a
/// cloned virtual machine, while the kernel's is reseeded.
#[derive(Debug, Clone, Copy)]
pub struct HostRandom;

impl RandomSource for HostRandom {
    fn fill(&self, buffer: &mut [u8]) {
        // Fails only if the system call does not exist; no secret can be made there.
        getrandom::fill(buffer).expect("the kernel gives random bytes");
    }
}

/// Tasks of the tokio runtime in which it is called.
#[derive(Debug, Clone, Copy)]
pub struct TokioRuntime;

impl AsyncRuntime for TokioRuntime {
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(time))
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) -> Box<dyn AbortableTask> {
        Box::new(tokio::spawn(task).abort_handle())
    }

    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()> {
        let running = tokio::task::spawn_blocking(work);
        Box::pin(async move {
            // A panic shows in the missing result of the work.
            let _ = running.await;
        })
    }
}

impl AbortableTask for tokio::task::AbortHandle {
    fn abort(&self) {
        tokio::task::AbortHandle::abort(self);
    }
}

/// The most bytes of a file that is read as a whole: the largest cached index object; all other files are small.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// The real file system.
#[derive(Debug, Clone, Copy)]
pub struct HostFiles;

impl NodeFiles for HostFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        file::read_own(path, FILE_BYTES_MAX)
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        file::replace(path, bytes)
    }

    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        file::write(path, bytes)
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        file::append(path, bytes)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<String>> {
        let names = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn make_dir(&self, dir: &Path) -> io::Result<()> {
        file::make_dir(dir)
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn LockGuard>>> {
        Ok(file::FileLock::try_take(path)?.map(|lock| -> Box<dyn LockGuard> { Box::new(lock) }))
    }

    fn is_locked(&self, path: &Path) -> io::Result<bool> {
        file::FileLock::is_taken(path)
    }

    fn boot_dir(&self, state_dir: &Path) -> io::Result<BootDir> {
        file::boot::open(state_dir)
    }
}

impl LockGuard for file::FileLock {
    fn write_pid(&self) {
        file::FileLock::write_pid(self);
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    /// A clock on which `step` passes between two readings of the time since boot.
    #[derive(Debug)]
    pub(crate) struct SteppingClock {
        inner: Arc<dyn Clock>,
        step: Duration,
        readings: AtomicU32,
    }

    impl SteppingClock {
        pub(crate) fn new(inner: Arc<dyn Clock>, step: Duration) -> Self {
            Self { inner, step, readings: AtomicU32::new(0) }
        }
    }

    impl Clock for SteppingClock {
        fn now(&self) -> Timestamp {
            self.inner.now()
        }

        fn boottime(&self) -> Duration {
            self.inner.boottime() + self.step * self.readings.fetch_add(1, Ordering::SeqCst)
        }

        fn boot_id(&self) -> Option<[u8; 32]> {
            self.inner.boot_id()
        }
    }
}
