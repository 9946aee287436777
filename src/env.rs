//! What the host gives: clocks, random numbers, tasks that run beside and wait, and small files. What elects, journals, commits and
//! prunes asks for them here and nowhere else, so that all of it can be run on one seed: under simulated clocks, in an order of
//! its tasks that the seed chooses, with a host that stops, crashes and comes back.

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

use crate::clock_doubt::ClockDoubts;
use crate::clock_reading::ClockReading;
use crate::file;
pub use crate::file::boot::BootDir;

/// What this process was given in its environment under this name. Nothing else in the program asks for it.
pub fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// All that this process was given in its environment.
pub fn variables() -> BTreeMap<OsString, OsString> {
    std::env::vars_os().collect()
}

/// The host's two clocks.
pub trait Clock: Debug + Send + Sync {
    /// Wall time. It may jump; never measure with it.
    fn now(&self) -> Timestamp;

    /// Time since boot, suspend included (`CLOCK_BOOTTIME`). Measures durations and deadlines.
    fn boottime(&self) -> Duration;

    /// Which boot of the machine this is: a clone has another one, whatever else it copied. `None` where it cannot be told.
    fn boot_id(&self) -> Option<[u8; 32]> {
        None
    }

    /// Both clocks at once.
    fn moment(&self) -> ClockReading {
        ClockReading { boot: self.boottime(), wall: self.now() }
    }
}

/// A source of random bytes that cannot repeat in a cloned machine.
pub trait RandomSource: Debug + Send + Sync {
    /// Fills `buffer` with unpredictable bytes.
    fn fill(&self, buffer: &mut [u8]);
}

/// What runs beside, and what waits.
pub trait AsyncRuntime: Debug + Send + Sync {
    /// Resolves when so much time has passed on this host.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;

    /// Starts a task. It goes on whatever becomes of the handle.
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Box<dyn AbortableTask>;

    /// Does work that blocks where that holds up nothing else.
    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;
}

/// A task that can be ended from outside.
pub trait AbortableTask: Debug + Send + Sync {
    /// Drops it at the place where it waits; nothing if it has ended.
    fn abort(&self);
}

/// Small files of this node. Paths are absolute.
pub trait NodeFiles: Debug + Send + Sync {
    /// Reads a whole file of at most [`FILE_BYTES_MAX`].
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Replaces what a file holds: after a crash it is the old content or the new one. One process at a time.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Writes a file that may be lost or damaged by a crash.
    fn write(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Adds to the end of a file, made if it is missing. What several processes add at the same time does not mix, and it stays
    /// when the machine dies after this.
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// The names of what is in a directory.
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;

    /// Makes a directory for this user alone, and those above it.
    fn make_dir(&self, dir: &Path) -> io::Result<()>;

    /// Takes the lock of this name without waiting; `None`: somebody has it.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn LockGuard>>>;

    /// Whether the lock of this name is held. Two calls at once do not see each other; [`NodeFiles::lock`] may see one, for a moment.
    fn is_locked(&self, path: &Path) -> io::Result<bool>;

    /// A directory in memory for what concerns the state directory at `state_dir` and is of this boot of the machine alone.
    fn boot_dir(&self, state_dir: &Path) -> io::Result<BootDir>;
}

/// A lock, until it is dropped.
pub trait LockGuard: Debug + Send + Sync {
    /// Leaves this process's number in the file, for whoever finds it locked and says so. Nothing relies on it.
    fn write_pid(&self);
}

/// The host, passed to whoever needs it.
#[derive(Debug, Clone)]
pub struct Env {
    /// The clocks.
    pub clock: Arc<dyn Clock>,
    /// The random numbers.
    pub random: Arc<dyn RandomSource>,
    /// What runs beside.
    pub runtime: Arc<dyn AsyncRuntime>,
    /// The small files.
    pub files: Arc<dyn NodeFiles>,
    /// What speaks against the wall clock, as those found who date records by it.
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

    /// What a small file of JSON holds; `None`: there is none.
    ///
    /// # Errors
    /// It cannot be read, or is not what was written there.
    pub fn read_json<T: DeserializeOwned>(&self, path: &Path) -> io::Result<Option<T>> {
        match self.files.read(path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits.
    pub async fn sleep(&self, time: Duration) {
        self.runtime.sleep(time).await;
    }

    /// What `work` comes to within `limit`; `None`: it was dropped unfinished.
    pub async fn timeout<T>(&self, limit: Duration, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            done = work => Some(done),
            () = self.sleep(limit) => None,
        }
    }

    /// Starts `work` beside.
    pub fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> TaskHandle<T> {
        let (tell, told) = oneshot::channel();
        let handle = self.runtime.spawn(Box::pin(async move {
            // Whoever started it may not want to know.
            let _ = tell.send(work.await);
        }));
        TaskHandle { handle, result: told }
    }

    /// Does `work`, which blocks, where that holds up nothing else; `None`: it panicked.
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

/// A task that was started; it goes on without this.
#[derive(Debug)]
pub struct TaskHandle<T> {
    handle: Box<dyn AbortableTask>,
    result: oneshot::Receiver<T>,
}

impl<T> TaskHandle<T> {
    /// Ends it where it waits.
    pub fn abort(&self) {
        self.handle.abort();
    }

    /// What it came to; `None`: it was aborted, or panicked.
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

/// The kernel's `getrandom(2)`, asked at each use: a generator with state in the process would repeat itself in a
/// cloned virtual machine, the kernel's is reseeded.
#[derive(Debug, Clone, Copy)]
pub struct HostRandom;

impl RandomSource for HostRandom {
    fn fill(&self, buffer: &mut [u8]) {
        // It fails only where the system call does not exist, and nothing secret can be made there.
        getrandom::fill(buffer).expect("the kernel gives random bytes");
    }
}

/// The tasks of the runtime that this is called in.
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
            // What a panic leaves undone shows in what the work did not tell.
            let _ = running.await;
        })
    }
}

impl AbortableTask for tokio::task::AbortHandle {
    fn abort(&self) {
        tokio::task::AbortHandle::abort(self);
    }
}

/// The most bytes of a file that is read as a whole: a kept index object has at most so many, and all else is small.
pub const FILE_BYTES_MAX: u64 = 64 << 20;

/// The file system.
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
