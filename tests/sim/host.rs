//! What a host gives to the program: stands in for `runner::env` until that has these traits.

use std::fmt::Debug;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use jiff::Timestamp;
pub use runner::env::Random;
use runner::moment::Moment;

/// Everything of one host.
#[derive(Debug, Clone)]
pub struct Env {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub tasks: Arc<dyn Tasks>,
    pub files: Arc<dyn Files>,
}

/// Its clocks.
pub trait Clock: Debug + Send + Sync {
    /// Wall time.
    fn now(&self) -> Timestamp;

    /// Time since boot.
    fn boottime(&self) -> Duration;

    /// New at each boot.
    fn boot_id(&self) -> Option<[u8; 32]>;

    /// Both clocks at once.
    fn moment(&self) -> Moment {
        Moment { boot: self.boottime(), wall: self.now() }
    }
}

/// What runs on it.
pub trait Tasks: Debug + Send + Sync {
    /// So much boot time of this host.
    fn sleep(&self, time: Duration) -> BoxFuture<'static, ()>;

    /// Goes on whatever becomes of the handle.
    fn spawn(&self, task: BoxFuture<'static, ()>) -> Box<dyn Abort>;

    /// For work that blocks.
    fn blocking(&self, work: Box<dyn FnOnce() + Send>) -> BoxFuture<'static, ()>;
}

/// Ends a task.
pub trait Abort: Debug + Send + Sync {
    /// Soon.
    fn abort(&self);
}

/// Small files below one state directory.
pub trait Files: Debug + Send + Sync {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;
    /// Durable and whole.
    fn replace(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    fn list(&self, dir: &Path) -> io::Result<Vec<String>>;
    fn make_dir(&self, dir: &Path) -> io::Result<()>;
    /// `None`: somebody has it. It is let go with the handle.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Held>>>;
}

/// A lock that is held.
pub trait Held: Debug + Send + Sync {
    /// Writes down who has it.
    fn sign(&self);
}
