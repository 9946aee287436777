//! Leftovers of interrupted restores: recognised by name, and removed if no other restore can be at work on them.

use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;

use super::{AttachPath as _, RestoreTarget, WriteError};
use crate::repo::entry::{TreePath, UnixNanos};
use crate::tree::temporary;

/// How many times the lock is tried again, and the pause between. The kernel drops a lock while it converts it into
/// another one.
const LOCK_TRIES: u32 = 50;
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// Locks the target, shared with other restores, for as long as the descriptor is open. The second value tells whether
/// no other restore holds the lock. `None`: the file system has no such locks.
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
    /// Whether leftovers of other restores may be removed.
    pub fn may_clear_leftovers(&self) -> bool {
        self.alone_since.is_some()
    }

    /// Removes a leftover of an interrupted restore at `path`; `false` if the object is something else.
    pub fn remove_leftover(&self, path: &TreePath) -> Result<bool, WriteError> {
        let Some(since) = self.alone_since else { return Ok(false) };
        if !temporary::is_unfinished(path.name()) || self.is_temporary(path.name()) {
            return Ok(false);
        }
        let dir = self.parent_of(path)?;
        let stat = rustix::fs::statat(dir.as_fd(), path.name(), AtFlags::SYMLINK_NOFOLLOW).at_path(path)?;
        // An object that changed since this restore began may belong to a restore that began later.
        let changed = UnixNanos::new(stat.st_ctime as _, stat.st_ctime_nsec as _);
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory || changed >= since {
            return Ok(false);
        }
        rustix::fs::unlinkat(dir.as_fd(), path.name(), AtFlags::empty()).at_path(path)?;
        Ok(true)
    }
}
