//! Writing a tree below one directory, and nowhere else.
//!
//! Every name is resolved from the target's own descriptor without following a single symbolic link, and no path has a
//! `..` ([`TreePath`] cannot hold one). Without that a snapshot with `a -> /etc` and `a/passwd` would write outside of
//! the target. What is created appears under a temporary name and is renamed when it is complete, so that an
//! interrupted restore leaves no half file under a real name.

pub(crate) mod deferred_flags;
pub(crate) mod error;
pub(crate) mod existing;
mod file;
mod leftovers;
mod meta;
pub(crate) mod metadata_failures;
mod node;
mod owner;
mod remove;
mod resolver;
mod target;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use crate::env::Env;
use crate::repo::entry::{TreePath, UnixNanos};
use crate::tree::temporary;

use self::error::AttachPath;

pub use self::error::{TargetError, WriteError, WriteErrorKind};
pub use self::existing::ExistingObject;
pub use self::target::RestoreTarget;
pub use file::NewFile;
pub use meta::{MetadataFailure, MetadataKind};
pub use node::PlaceOutcome;
pub use owner::OwnerResolver;
pub use remove::RemovalReport;

impl RestoreTarget {
    /// Opens the target directory. With `create` it is made with its parents if it is missing; without, a missing
    /// target counts as empty. The second value tells whether it is new or empty. The path to the target may contain
    /// symbolic links, because the operator chose it.
    pub fn open(path: &Path, create: bool, ids: OwnerResolver, env: &Env) -> Result<(Self, bool), TargetError> {
        let fail = |source| TargetError { path: path.to_owned(), source };
        let open = || {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)
        };
        let root = match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound && create => {
                std::fs::create_dir_all(path).map_err(fail)?;
                Some(open().map_err(fail)?)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            other => Some(other.map_err(fail)?),
        };
        let started = UnixNanos(env.clock.now().as_nanosecond());
        let (lock, alone) = root.as_ref().filter(|_| create).and_then(leftovers::lock).unzip();
        let target = Self {
            path: path.to_owned(),
            resolver: resolver::DirResolver::new(root),
            temporary_prefix: temporary::prefix(env.random_bytes::<8>()),
            temporary_count: AtomicU64::new(0),
            ids,
            troubles: meta::MetadataFailures::default(),
            flagged: meta::DeferredFlags::default(),
            _lock: lock,
            alone_since: alone.unwrap_or(false).then_some(started),
        };
        let empty = match target.is_empty_dir(&TreePath::default()) {
            Err(e) if e.kind == WriteErrorKind::NotFound => true,
            // A user who may not list the directory may still be able to write below it.
            Err(_) => false,
            Ok(empty) => empty,
        };
        Ok((target, empty))
    }

    /// For a restore in place: lets the path to `path` contain links that belong to root or to this user. If it leads
    /// nowhere, or through a link of another user, nothing changes: what is missing is made, and a link is an error.
    pub fn anchor(&mut self, path: &TreePath) {
        // The write that needs this path will fail at the same place and report it.
        let _ = self.resolver.anchor(path);
    }

    /// Whether `path` is a directory that [`RestoreTarget::anchor`] accepted.
    pub fn is_anchored(&self, path: &TreePath) -> bool {
        self.resolver.leads_to_anchor(path)
    }

    /// The target's path as the operator named it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The metadata that could not be set so far, one item for each kind.
    pub fn metadata_failures(&self) -> Vec<MetadataFailure> {
        self.troubles.list()
    }

    /// The metadata of the object at `path`; a symbolic link is not followed.
    pub fn stat(&self, path: &TreePath) -> Result<Option<ExistingObject>, WriteError> {
        let found = match path.parent() {
            None => self.resolver.root().and_then(|root| rustix::fs::statat(root, "", AtFlags::EMPTY_PATH)),
            Some(parent) => match self.resolver.dir(&parent) {
                Ok(dir) => rustix::fs::statat(&*dir, path.name(), AtFlags::SYMLINK_NOFOLLOW),
                Err(e) => Err(e),
            },
        };
        match found {
            Ok(stat) => Ok(Some(stat.into())),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e).at_path(path),
        }
    }

    /// Makes a directory; `false` if the path exists already. Only its owner may enter it until its metadata are set.
    pub fn make_dir(&self, path: &TreePath, mode: u16) -> Result<bool, WriteError> {
        let dir = self.parent_of(path)?;
        match rustix::fs::mkdirat(&*dir, path.name(), Mode::from_raw_mode(u32::from(mode))) {
            Ok(()) => Ok(true),
            Err(Errno::EXIST) => Ok(false),
            Err(e) => Err(e).at_path(path),
        }
    }

    /// Gives the owner of an existing directory write permission, if the owner is this user and lacks it. The
    /// directory's real mode is set later with its metadata.
    pub fn make_writable(&self, path: &TreePath, found: &ExistingObject) -> Result<(), WriteError> {
        let uid = rustix::process::geteuid();
        if uid.is_root() || found.uid != uid.as_raw() || found.mode & 0o700 == 0o700 {
            return Ok(());
        }
        let dir = self.resolver.dir(path).at_path(path)?;
        if ExistingObject::from(rustix::fs::fstat(&*dir).at_path(path)?).inode != found.inode {
            return Err(WriteError { path: path.clone(), kind: WriteErrorKind::Changed });
        }
        rustix::fs::chmod(meta::proc_path(&*dir), Mode::from_raw_mode(u32::from(found.mode | 0o700))).at_path(path)
    }

    /// Free space for this user in the directory of `path`, in bytes.
    pub fn free_bytes(&self, path: &TreePath) -> Result<u64, WriteError> {
        let dir = self.parent_of(path)?;
        file::free_bytes(&*dir).at_path(path)
    }

    /// Opens an existing regular file for reading. Fails if it is of another type, or not the object `expected`.
    pub fn open_file(&self, path: &TreePath, expected: Option<&ExistingObject>) -> Result<std::fs::File, WriteError> {
        let dir = self.parent_of(path)?;
        // If a pipe or a device has taken its place, the open must not block.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&*dir, path.name(), flags, Mode::empty()).at_path(path)?;
        let found = ExistingObject::from(rustix::fs::fstat(&fd).at_path(path)?);
        if !found.is_file() {
            return Err(Errno::INVAL).at_path(path);
        }
        if expected.is_some_and(|expected| expected.inode != found.inode) {
            return Err(WriteError { path: path.clone(), kind: WriteErrorKind::Changed });
        }
        Ok(fd.into())
    }

    fn parent_of(&self, path: &TreePath) -> Result<Arc<OwnedFd>, WriteError> {
        // The target itself has no parent directory in which it could be created, replaced or removed.
        let parent = path.parent().ok_or(Errno::INVAL).at_path(path)?;
        self.resolver.dir(&parent).at_path(path)
    }

    fn temporary_name(&self) -> String {
        format!("{}{:x}", self.temporary_prefix, self.temporary_count.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether `name` is a temporary name of this process.
    pub fn is_temporary(&self, name: &[u8]) -> bool {
        name.starts_with(self.temporary_prefix.as_bytes())
    }
}
