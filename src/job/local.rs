//! What a node keeps for itself about a repository: a cache, and the memory of the newest record it saw.
//!
//! Losing it costs time. It is keyed by the repository's ID, so that two stores with a role of the same name do not meet.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::env::{Env, Held};
use crate::ids::{Digest, InstanceId, KeyId, NodeId, RepoId, Seq, Term};
use crate::job::presence::Announced;
use crate::journal::state::View;
use crate::repo::reader::Shelf;

/// How many of a node's processes are remembered: those that wrote since the journal was last read are looked for among them.
const INSTANCES_KEPT: usize = 512;

/// The local directory of one repository.
#[derive(Debug, Clone)]
pub struct Local {
    dir: PathBuf,
    env: Env,
}

/// What is remembered between runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// The journal as it was last seen: a store that shows less has been rolled back.
    pub view: Option<View>,
    /// The takeover that successive runs of this node inherit.
    pub own: Option<Own>,
    /// The snapshot after whose commit nothing was left unfinished in the store. Anything else, and the next run looks for
    /// packs that a broken run left.
    pub clean: Option<Digest>,
    /// The node that remembers this: after it got a new identity, `own` is another's.
    #[serde(default)]
    pub node: Option<NodeId>,
    /// The first record that was written with this node's ID by nobody it knows.
    #[serde(default)]
    pub suspected: Option<Seq>,
    /// What the other nodes were told of this one.
    #[serde(default)]
    pub announced: Option<Announced>,
}

/// A takeover of this node's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// The boot it was made in: a clone of this machine has another.
    pub boot: Digest,
    /// The digest of its record.
    pub takeover: Digest,
    /// Its term.
    pub term: Term,
}

/// Held while a run works on a repository on this host; the kernel lets go of it when the process dies.
#[derive(Debug)]
pub struct LocalLock {
    _held: Box<dyn Held>,
}

/// Why a lock was not given.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has it.
    #[error("another run of this role is going on on this node{}", pid.as_ref().map(|p| format!(" (process {p})")).unwrap_or_default())]
    Busy {
        /// Which.
        pid: Option<String>,
    },
    /// The state directory.
    #[error("{}: {error}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Local {
    /// The directory of repository `repo` below the node's state directory; made if it is missing.
    pub fn open(env: &Env, state_dir: &Path, repo: RepoId) -> Result<Self, LockError> {
        let local = Self::peek(env, state_dir, repo);
        let Shelf { dir, .. } = local.shelf();
        env.files.make_dir(&dir).map_err(|error| LockError::Io { path: dir, error })?;
        Ok(local)
    }

    /// The same for somebody who only looks: makes nothing, and it may well not be there.
    pub fn peek(env: &Env, state_dir: &Path, repo: RepoId) -> Self {
        Self { dir: state_dir.join("repositories").join(repo.to_string()), env: env.clone() }
    }

    /// Where index objects are kept.
    pub fn shelf(&self) -> Shelf {
        Shelf { dir: self.dir.join("index"), env: self.env.clone() }
    }

    /// What is remembered by [`Local::save`].
    pub fn memory_file(&self) -> PathBuf {
        self.dir.join("memory.json")
    }

    /// The cache of the tree as this node saw it.
    pub fn tree_cache(&self) -> PathBuf {
        self.dir.join("tree")
    }

    /// The key slot that opened the repository last.
    pub fn slot(&self) -> Option<KeyId> {
        let bytes = self.env.files.read(&self.slot_file()).ok()?;
        String::from_utf8(bytes).ok()?.trim_end().parse().ok()
    }

    /// The same, for whoever is about to open a repository whose ID it does not know yet.
    pub fn slot_of(env: &Env, state_dir: Option<&Path>) -> impl FnOnce(RepoId) -> Option<KeyId> {
        move |repo| Self::peek(env, state_dir?, repo).slot()
    }

    /// Remembers it, so that the next one to open it need not look for it.
    pub fn remember_slot(&self, slot: KeyId) -> io::Result<()> {
        if self.slot() == Some(slot) {
            return Ok(());
        }
        self.env.files.replace(&self.slot_file(), format!("{slot}\n").as_bytes())
    }

    fn slot_file(&self) -> PathBuf {
        self.dir.join("slot")
    }

    /// Notes that this process may write as this node. Whoever writes without it is taken for a twin.
    pub fn enlist(&self, instance: InstanceId) -> io::Result<()> {
        self.env.files.append(&self.instances_file(), format!("{instance}\n").as_bytes())
    }

    /// The processes that may have written as this node, of which only the newest are kept.
    pub fn instances(&self) -> Vec<InstanceId> {
        let bytes = self.env.files.read(&self.instances_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).lines().filter_map(|line| line.parse().ok()).collect()
    }

    /// Forgets the oldest of them. With the lock held; a process that enlists at this very moment may be lost, and is then suspected once.
    pub fn trim_instances(&self, instances: &[InstanceId]) -> io::Result<()> {
        if instances.len() <= 2 * INSTANCES_KEPT {
            return Ok(());
        }
        let newest = &instances[instances.len() - INSTANCES_KEPT..];
        let mut lines = newest.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        lines.push('\n');
        self.env.files.replace(&self.instances_file(), lines.as_bytes())
    }

    fn instances_file(&self) -> PathBuf {
        self.dir.join("instances")
    }

    /// Takes the lock, without waiting.
    pub fn lock(&self) -> Result<LocalLock, LockError> {
        self.lock_named("lock")
    }

    /// Takes the lock of a scheduled command, without waiting: the other one is given back while the command runs.
    pub fn lock_command(&self) -> Result<LocalLock, LockError> {
        self.lock_named("command")
    }

    fn lock_named(&self, name: &str) -> Result<LocalLock, LockError> {
        let path = self.dir.join(name);
        match self.env.files.lock(&path) {
            Ok(Some(held)) => {
                held.sign();
                Ok(LocalLock { _held: held })
            }
            Ok(None) => Err(LockError::Busy { pid: self.signature(&path) }),
            Err(error) => Err(LockError::Io { path, error }),
        }
    }

    fn signature(&self, lock: &Path) -> Option<String> {
        let bytes = self.env.files.read(lock).unwrap_or_default();
        String::from_utf8(bytes).ok().filter(|pid| !pid.is_empty())
    }

    /// What `node` remembered; nothing where it cannot be read: it is a cache. What another identity of this node remembered of
    /// itself is none of its own.
    pub fn load(&self, node: NodeId) -> Memory {
        let memory = self.read();
        match memory.node {
            Some(was) if was != node => {
                Memory { own: None, suspected: None, announced: None, node: Some(node), ..memory }
            }
            _ => Memory { node: Some(node), ..memory },
        }
    }

    /// The journal as this host saw it last.
    pub fn last_view(&self) -> Option<View> {
        self.read().view
    }

    fn read(&self) -> Memory {
        let bytes = self.env.files.read(&self.memory_file()).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }

    /// Remembers. The old memory stays whole if this is cut short.
    pub fn save(&self, memory: &Memory) -> io::Result<()> {
        let bytes = serde_json::to_vec(memory).map_err(io::Error::other)?;
        self.env.files.replace(&self.memory_file(), &bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_run_at_a_time_and_a_damaged_memory_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let local = Local::open(&Env::host(), dir.path(), RepoId([1; 16])).unwrap();
        let lock = local.lock().unwrap();
        assert!(matches!(local.lock(), Err(LockError::Busy { pid: Some(_) })));
        drop(lock);
        local.lock().unwrap();
        let (me, other) = (NodeId([1; 16]), NodeId([2; 16]));
        let own = Own { boot: Digest([4; 32]), takeover: Digest([5; 32]), term: Term(6) };
        let memory = Memory { clean: Some(Digest([3; 32])), own: Some(own), node: Some(me), ..Memory::default() };
        local.save(&memory).unwrap();
        assert_eq!(local.load(me), memory);
        let renewed = Memory { own: None, node: Some(other), ..memory };
        assert_eq!(local.load(other), renewed, "the takeover was the former identity's");
        assert_eq!(local.slot(), None);
        local.remember_slot(KeyId([7; 8])).unwrap();
        assert_eq!(local.slot(), Some(KeyId([7; 8])));
        std::fs::write(local.memory_file(), b"{").unwrap();
        assert_eq!(local.load(me), Memory { node: Some(me), ..Memory::default() });
    }
}
