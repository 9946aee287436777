//! What restores that were interrupted left behind: found by name, and removed where no other restore can be at work on it.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{AttachPath as _, RestoreTarget, WriteError};
use crate::repo::entry::{TreePath, UnixNanos};
use crate::tree::temporary;

/// Tries to get the lock back that the kernel drops when it is to become another one, and the pause between.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// Locks the target for as long as the descriptor is open, as one of several restores that may be at work on it. The second value
/// tells whether it is the only one. `None`: the file system has no such locks.
pub(super) fn lock(root: &OwnedFd) -> Option<(OwnedFd, bool)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::openat(root, ".", flags, Mode::empty()).ok()?;
    lock_shared(&dir)?;
    let alone = rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive).is_ok();
    lock_shared(&dir)?;
    Some((dir, alone))
}

fn lock_shared(dir: &OwnedFd) -> Option<()> {
    for _ in 0..LOCK_TRIES {
        match rustix::fs::flock(dir, FlockOperation::NonBlockingLockShared) {
            Ok(()) => return Some(()),
            Err(Errno::WOULDBLOCK) => std::thread::sleep(LOCK_PAUSE),
            Err(_) => return None,
        }
    }
    None
}

impl RestoreTarget {
    /// Whether what is left of other restores may be removed.
    pub fn may_clear_leftovers(&self) -> bool {
        self.alone_since.is_some()
    }

    /// Removes what an interrupted restore left at `path`, and nothing else; `false`: it is not that.
    pub fn remove_leftover(&self, path: &TreePath) -> Result<bool, WriteError> {
        let Some(since) = self.alone_since else { return Ok(false) };
        if !temporary::is_unfinished(path.name()) || self.is_temporary(path.name()) {
            return Ok(false);
        }
        let dir = self.parent_of(path)?;
        let stat = rustix::fs::statat(dir.as_fd(), path.name(), AtFlags::SYMLINK_NOFOLLOW).at_path(path)?;
        // A restore that began after this one is at work on what changed since.
        let changed = UnixNanos::new(stat.st_ctime as _, stat.st_ctime_nsec as _);
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory || changed >= since {
            return Ok(false);
        }
        rustix::fs::unlinkat(dir.as_fd(), path.name(), AtFlags::empty()).at_path(path)?;
        Ok(true)
    }
}
