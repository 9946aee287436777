//! Watches the state directory under a daemon that runs for months: it may be deleted, set back or replaced. What the
//! daemon remembers is newer, so it writes its identity and its saved states again, and creates its socket again. If
//! the directory has another node's identity, two nodes would run on one machine, and the daemon stops.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use super::DaemonError;
use super::socket::{DaemonSocket, SocketContext, SocketError};
use crate::env::Env;
use crate::ids::NodeId;
use crate::job::local_state::process_memory::ProcessMemory;
use crate::job::local_state::{LocalState, LockError, REPOSITORIES};
use crate::role::identity::{self, IdentityCheck, IdentityError};

/// Interval between checks; each reads a small file. Meanwhile other processes ask the daemon for the node's ID.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);

/// How long the daemon tries to write a lost identity again: a disk may be full or unmounted for a moment.
const PATIENCE: Duration = Duration::from_mins(1);

/// The state directory as the daemon watches it.
pub(super) struct StateDirMonitor {
    pub(super) dir: PathBuf,
    pub(super) node: NodeId,
    pub(super) env: Env,
    /// The saved states of the roles' tasks.
    pub(super) memories: ProcessMemory,
    pub(super) socket_context: SocketContext,
    pub(super) socket: DaemonSocket,
    /// Device and inode of the directories whose files are not checked one by one. If a directory is another one, so
    /// are its files.
    pub(super) seen: Vec<Option<(u64, u64)>>,
    /// The error of the last check, and since when, as boot time.
    pub(super) trouble: Option<(String, Duration)>,
}

impl StateDirMonitor {
    /// Checks the directory, and repairs what can be repaired.
    ///
    /// # Errors
    /// The daemon cannot continue as this node.
    pub(super) fn check(&mut self) -> Result<(), DaemonError> {
        match identity::ensure_identity(&self.dir, self.node) {
            Ok(IdentityCheck::There) => {}
            Ok(IdentityCheck::Restored) => {
                tracing::error!(
                    "the state directory {} lost this node's identity while this daemon ran; it is written again, as \
                     node {}. hint: find out what deletes files there; caches are lost each time",
                    self.dir.display(),
                    self.node
                );
            }
            Err(error @ IdentityError::Lost { .. }) => {
                if self.note_trouble(&error) >= PATIENCE {
                    return Err(error.into());
                }
                return Ok(());
            }
            Err(error @ IdentityError::Replaced { .. }) => return Err(error.into()),
            // It is unknown whether the identity is there.
            Err(error) => {
                self.note_trouble(&error);
                return Ok(());
            }
        }
        let dirs = [self.dir.clone(), self.dir.join(REPOSITORIES)];
        let found = dirs.iter().map(|dir| std::fs::metadata(dir).ok().map(|meta| (meta.dev(), meta.ino()))).collect();
        if self.seen != found {
            self.restore_memories();
            self.seen = found;
        }
        match self.socket.ensure_bound(&self.socket_context) {
            Ok(false) => {}
            Ok(true) => tracing::warn!("the daemon's socket was missing; it is made again"),
            Err(error @ SocketError::Busy { .. }) => return Err(error.into()),
            Err(error) => {
                self.note_trouble(&error);
                return Ok(());
            }
        }
        self.trouble = None;
        Ok(())
    }

    /// Logs an error once, and returns how long it has lasted.
    fn note_trouble(&mut self, error: &dyn std::fmt::Display) -> Duration {
        let (now, text) = (self.env.clock.boottime(), error.to_string());
        if self.trouble.as_ref().is_none_or(|(was, _)| *was != text) {
            tracing::error!("{text}");
        }
        let since = self.trouble.take().map_or(now, |(_, since)| since);
        self.trouble = Some((text, since));
        now.saturating_sub(since)
    }

    /// Writes the saved states again, because other processes of this node continue under the takeovers in them.
    fn restore_memories(&self) {
        for repo in self.memories.repositories() {
            let restored = LocalState::open(&self.env, &self.dir, repo).map(|local| {
                let local = local.with_process_memory(&self.memories);
                // A process that has the lock is about to save something newer.
                match local.lock() {
                    Ok(_lock) => local.rewrite_if_set_back(self.node).map(|_| ()),
                    Err(LockError::Busy { .. }) => Ok(()),
                    Err(LockError::Io { error, .. }) => Err(error),
                }
            });
            let failed = match restored {
                Ok(Err(error)) => error.to_string(),
                Ok(Ok(())) => continue,
                Err(error) => error.to_string(),
            };
            tracing::warn!("the notes on repository {repo} cannot be written again: {failed}");
        }
    }
}
