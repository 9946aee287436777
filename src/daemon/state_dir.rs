//! The state directory under a daemon that goes on for months: it may be deleted, set back or replaced beneath it. The daemon is the
//! one that knows better: it writes its identity and its memories again, and makes its socket again. Where the directory says that
//! this is another node by now there would be two on one machine, and it stops.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use super::DaemonError;
use super::socket::{DaemonSocket, SocketContext, SocketError};
use crate::env::Env;
use crate::ids::NodeId;
use crate::job::node::local_state::{LocalState, LockError, ProcessMemory, REPOSITORIES};
use crate::role::identity::{self, IdentityCheck, IdentityError};

/// How often it is looked at: a small file is read. Meanwhile other processes ask the daemon who this node is.
pub(super) const INTERVAL: Duration = Duration::from_secs(2);

/// For so long an identity that cannot be written again is tried: a disk may be full for a moment, or be mounted again.
const PATIENCE: Duration = Duration::from_mins(1);

/// What the daemon keeps in it.
pub(super) struct StateDirMonitor {
    pub(super) dir: PathBuf,
    pub(super) node: NodeId,
    pub(super) env: Env,
    /// What the roles' tasks remember.
    pub(super) memories: ProcessMemory,
    pub(super) reception: SocketContext,
    pub(super) socket: DaemonSocket,
    /// The directories whose files are not looked at one by one, by device and number. Where these are others, those are.
    pub(super) seen: Vec<Option<(u64, u64)>>,
    /// What was wrong with it when it was last looked at, and since when, as boot time.
    pub(super) trouble: Option<(String, Duration)>,
}

impl StateDirMonitor {
    /// Puts right what can be.
    ///
    /// # Errors
    /// The daemon cannot go on as this node.
    pub(super) fn check(&mut self) -> Result<(), DaemonError> {
        match identity::ensure_identity(&self.dir, self.node) {
            Ok(IdentityCheck::There) => {}
            Ok(IdentityCheck::Restored) => {
                tracing::error!(
                    "the state directory {} lost this node's identity while this daemon ran; it is written again, as node {}. What \
                     deletes files there should be found: caches are lost each time",
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
            // Whether it is there cannot be told.
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
        match self.socket.ensure_bound(&self.reception) {
            Ok(false) => {}
            Ok(true) => tracing::warn!("the daemon's socket was gone; it is made again"),
            Err(error @ SocketError::Busy { .. }) => return Err(error.into()),
            Err(error) => {
                self.note_trouble(&error);
                return Ok(());
            }
        }
        self.trouble = None;
        Ok(())
    }

    /// Says what is wrong, once, and returns for how long it has been.
    fn note_trouble(&mut self, error: &dyn std::fmt::Display) -> Duration {
        let (now, text) = (self.env.clock.boottime(), error.to_string());
        if self.trouble.as_ref().is_none_or(|(was, _)| *was != text) {
            tracing::error!("{text}");
        }
        let since = self.trouble.take().map_or(now, |(_, since)| since);
        self.trouble = Some((text, since));
        now.saturating_sub(since)
    }

    /// Other processes of this node go on under the takeovers that the daemon remembers.
    fn restore_memories(&self) {
        for repo in self.memories.repositories() {
            let restored = LocalState::open(&self.env, &self.dir, repo).map(|local| {
                let local = local.with_process_memory(&self.memories);
                // A process that has the lock is about to remember more.
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
            tracing::warn!("what was remembered of repository {repo} is not written again: {failed}");
        }
    }
}
