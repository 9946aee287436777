//! What a node keeps for itself about a repository: a cache, and its memory of the newest record that it saw.
//!
//! Losing it costs time. It is keyed by the repository's ID, so that two stores with a role of the same name do not
//! collide.

pub mod authors;
pub mod process_memory;
pub mod run_failure;
pub mod saved_state;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;

use crate::env::{Env, LockGuard};
use crate::ids::{KeyId, NodeId, RepoId};
use crate::job::local_state::authors::AuthorNotes;
use crate::job::local_state::authors::boot::BootAuthorNotes;
use crate::job::local_state::process_memory::ProcessMemory;
use crate::job::local_state::saved_state::SavedState;
use crate::journal::view::JournalView;
use crate::repo::reader::IndexCache;

/// Parent directory of these directories, below the state directory.
pub const REPOSITORIES: &str = "repositories";

/// Names of the copies of the repository's `format` and of the key slot that opened it.
const FORMAT_FILE: &str = "format";
const SLOT_OBJECT_FILE: &str = "key-slot";

/// Name of the lock of a scheduled command.
const COMMAND_LOCK: &str = "command";

/// Number of retries when a command finds its lock held only by a check, and the pause between them. A check takes
/// microseconds.
const LOOKS_MAX: u32 = 1000;
const LOOK_PAUSE: Duration = Duration::from_millis(5);

/// The local directory of one repository.
#[derive(Debug, Clone)]
pub struct LocalState {
    state_dir: PathBuf,
    dir: PathBuf,
    env: Env,
    repo: RepoId,
    memories: ProcessMemory,
}

/// Held while a run works on a repository on this host; the kernel releases it when the process dies.
#[derive(Debug)]
pub struct LocalLock {
    _held: Box<dyn LockGuard>,
}

/// Why a lock was not acquired.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another process has the lock.
    #[error("another run of this role is in progress on this node{}", pid.as_ref().map(|p| format!(" (process {p})")).unwrap_or_default())]
    Busy {
        /// The process that has the lock.
        pid: Option<String>,
    },
    /// The state directory cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// File or directory of the failed operation.
        path: PathBuf,
        /// Error of the operating system.
        error: io::Error,
    },
}

impl LocalState {
    /// The directory of repository `repo` below the node's state directory; it is created if it is missing.
    pub fn open(env: &Env, state_dir: &Path, repo: RepoId) -> Result<Self, LockError> {
        let local = Self::peek(env, state_dir, repo);
        let IndexCache { dir, .. } = local.index_cache();
        env.files.make_dir(&dir).map_err(|error| LockError::Io { path: dir, error })?;
        Ok(local)
    }

    /// The same for a command that only reads: it creates nothing, and the directory may be missing.
    pub fn peek(env: &Env, state_dir: &Path, repo: RepoId) -> Self {
        let dir = state_dir.join(REPOSITORIES).join(repo.to_string());
        Self { state_dir: state_dir.to_owned(), dir, env: env.clone(), repo, memories: ProcessMemory::default() }
    }

    /// Adds what this process remembers; it takes precedence over a file that remembers less.
    pub fn with_process_memory(self, memories: &ProcessMemory) -> Self {
        Self { memories: memories.clone(), ..self }
    }

    /// Cache of index objects.
    pub fn index_cache(&self) -> IndexCache {
        IndexCache { dir: self.dir.join("index"), env: self.env.clone() }
    }

    /// File that [`LocalState::save`] writes.
    pub fn saved_state_file(&self) -> PathBuf {
        self.dir.join("memory.json")
    }

    /// File of the tree cache.
    pub fn tree_cache(&self) -> PathBuf {
        self.dir.join("tree")
    }

    /// ID of the key slot that opened the repository last.
    pub fn last_key_slot(&self) -> Option<KeyId> {
        let bytes = self.env.files.read(&self.slot_file()).ok()?;
        String::from_utf8(bytes).ok()?.trim_end().parse().ok()
    }

    /// The same for a caller that opens a repository whose ID is not known yet.
    pub fn last_key_slot_of(env: &Env, state_dir: Option<&Path>) -> impl FnOnce(RepoId) -> Option<KeyId> {
        move |repo| Self::peek(env, state_dir?, repo).last_key_slot()
    }

    /// Remembers the key slot, so that the next open need not search for it.
    pub fn remember_slot(&self, slot: KeyId) -> io::Result<()> {
        if self.last_key_slot() == Some(slot) {
            return Ok(());
        }
        self.env.files.replace(&self.slot_file(), format!("{slot}\n").as_bytes())
    }

    /// Forgets the key slot, because its key is no longer valid; the next open searches for another.
    pub fn forget_slot(&self) -> io::Result<()> {
        self.env.files.replace(&self.slot_file(), b"\n")
    }

    /// The note on losses; `None`: there is none.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn loss_note<T: DeserializeOwned>(&self) -> io::Result<Option<T>> {
        self.env.read_json(&self.loss_file())
    }

    /// Writes or removes the note on losses. It is a hint: a loss that is not noted is found within a day.
    pub fn save_loss_note(&self, note: Option<&[u8]>) {
        let path = self.loss_file();
        let written = match note {
            Some(note) => self.env.files.replace(&path, note),
            None => self.env.files.remove(&path),
        };
        match written {
            Err(error) if error.kind() != io::ErrorKind::NotFound => tracing::debug!("{}: {error}", path.display()),
            _ => {}
        }
    }

    fn loss_file(&self) -> PathBuf {
        self.dir.join("loss.json")
    }

    /// Remembers what is needed to unlock the repository: its `format`, and the key slot that opened it. Both are in
    /// the store as well, and neither opens anything without the key.
    pub fn save_unlock_objects(&self, format: &[u8], slot: Option<&[u8]>) -> io::Result<()> {
        for (name, object) in [(FORMAT_FILE, Some(format)), (SLOT_OBJECT_FILE, slot)] {
            let path = self.dir.join(name);
            if let Some(object) = object
                && self.env.files.read(&path).ok().as_deref() != Some(object)
            {
                self.env.files.replace(&path, object)?;
            }
        }
        Ok(())
    }

    /// The repository's `format`, as this node read it last.
    pub fn format(&self) -> Option<Vec<u8>> {
        self.env.files.read(&self.dir.join(FORMAT_FILE)).ok()
    }

    /// The key slot that opened the repository last, as stored.
    pub fn slot_object(&self) -> Option<Vec<u8>> {
        self.env.files.read(&self.dir.join(SLOT_OBJECT_FILE)).ok()
    }

    fn slot_file(&self) -> PathBuf {
        self.dir.join("slot")
    }

    /// Notes of the processes of this node that append.
    pub fn authors(&self) -> AuthorNotes {
        AuthorNotes::new(self.dir.clone(), self.env.clone())
    }

    /// The same notes, in memory of this boot.
    ///
    /// # Errors
    /// This host has no such memory.
    pub fn boot_notes(&self) -> io::Result<BootAuthorNotes> {
        BootAuthorNotes::open(&self.env, &self.state_dir, self.repo)
    }

    /// Takes the lock without waiting.
    pub fn lock(&self) -> Result<LocalLock, LockError> {
        self.lock_named("lock")
    }

    /// Takes the lock of a scheduled command. The other lock is released while the command runs. Does not wait for
    /// another command. A check whether a command runs holds this lock for a moment, and does not count as a command.
    pub async fn lock_command(&self) -> Result<LocalLock, LockError> {
        let mut tries = LOOKS_MAX;
        loop {
            match self.lock_named(COMMAND_LOCK) {
                Err(LockError::Busy { .. }) if tries > 0 && !self.is_command_running()? => tries -= 1,
                lock => return lock,
            }
            self.env.sleep(LOOK_PAUSE).await;
        }
    }

    fn is_command_running(&self) -> Result<bool, LockError> {
        let path = self.dir.join(COMMAND_LOCK);
        self.env.files.is_locked(&path).map_err(|error| LockError::Io { path, error })
    }

    /// Whether no process of this node runs a scheduled command; `None`: unknown.
    pub fn is_without_command(&self) -> Option<bool> {
        // A command that has been running since before its lock file was deleted holds a lock on another file, and is
        // not seen.
        self.is_command_running().ok().map(|runs| !runs)
    }

    fn lock_named(&self, name: &str) -> Result<LocalLock, LockError> {
        let path = self.dir.join(name);
        match self.env.files.lock(&path) {
            Ok(Some(held)) => {
                held.write_pid();
                Ok(LocalLock { _held: held })
            }
            Ok(None) => Err(LockError::Busy { pid: self.lock_owner_pid(&path) }),
            Err(error) => Err(LockError::Io { path, error }),
        }
    }

    fn lock_owner_pid(&self, lock: &Path) -> Option<String> {
        let bytes = self.env.files.read(lock).unwrap_or_default();
        String::from_utf8(bytes).ok().filter(|pid| !pid.is_empty())
    }

    /// The state that `node` saved, or the default if it cannot be read: it is a cache. What another identity of this
    /// node saved about itself does not apply to `node`.
    pub fn load(&self, node: NodeId) -> SavedState {
        let stored = self.read();
        let memory = match self.memories.get(self.repo) {
            // The journal only grows, so the higher head is newer. The author notes in the directory are not the ones
            // that this state rests on.
            Some(known) if known.node == Some(node) && known.head() > stored.head() => {
                SavedState { notes: None, ..known }
            }
            _ => stored,
        };
        match memory.node {
            Some(was) if was != node => {
                let node = Some(node);
                SavedState { own: None, sighting: None, twin: None, announced: None, node, ..memory }
            }
            _ => SavedState { node: Some(node), ..memory },
        }
    }

    /// Saves again what this process remembers if the file remembers less: the state directory was deleted or set back.
    /// Returns whether that was so.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn rewrite_if_set_back(&self, node: NodeId) -> io::Result<bool> {
        let lost = self.memories.get(self.repo).is_some_and(|known| known.head() > self.read().head());
        if lost {
            self.save(&self.load(node))?;
        }
        Ok(lost)
    }

    /// The journal as this host saw it last.
    pub fn last_view(&self) -> Option<JournalView> {
        self.read().view
    }

    fn read(&self) -> SavedState {
        self.try_read().unwrap_or_else(|error| {
            tracing::warn!("this node's memory of the journal cannot be read; continuing without it: {error}");
            SavedState::default()
        })
    }

    fn try_read(&self) -> io::Result<SavedState> {
        Ok(self.env.read_json(&self.saved_state_file())?.unwrap_or_default())
    }

    /// Why the saved state cannot be read; `None`: it can, or there is none.
    pub fn read_error(&self) -> Option<io::Error> {
        self.try_read().err()
    }

    /// Saves the state. If this is interrupted the old state stays whole.
    pub fn save(&self, memory: &SavedState) -> io::Result<()> {
        let bytes = serde_json::to_vec(memory).map_err(io::Error::other)?;
        match self.env.files.replace(&self.saved_state_file(), &bytes) {
            // The state directory was deleted while this process runs.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.env.files.make_dir(&self.index_cache().dir)?;
                self.env.files.replace(&self.saved_state_file(), &bytes)?;
            }
            written => written?,
        }
        self.memories.set(self.repo, memory);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::ids::{Digest, Seq, Term};
    use crate::job::local_state::saved_state::OwnTakeover;
    use crate::journal::body::WriterNode;
    use crate::journal::view::JournalHead;

    #[test]
    fn one_run_at_a_time_and_a_damaged_memory_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let local = LocalState::open(&Env::host(), dir.path(), RepoId([1; 16])).unwrap();
        let lock = local.lock().unwrap();
        assert!(matches!(local.lock(), Err(LockError::Busy { pid: Some(_) })));
        drop(lock);
        local.lock().unwrap();
        let (me, other) = (NodeId([1; 16]), NodeId([2; 16]));
        let own = OwnTakeover { boot: Digest([4; 32]), takeover: Digest([5; 32]), term: Term(6) };
        let memory =
            SavedState { clean: Some(Digest([3; 32])), own: Some(own), node: Some(me), ..SavedState::default() };
        local.save(&memory).unwrap();
        assert_eq!(local.load(me), memory);
        let renewed = SavedState { own: None, node: Some(other), ..memory };
        assert_eq!(local.load(other), renewed, "the takeover was the former identity's");
        assert_eq!(local.last_key_slot(), None);
        local.remember_slot(KeyId([7; 8])).unwrap();
        assert_eq!(local.last_key_slot(), Some(KeyId([7; 8])));
        std::fs::write(local.saved_state_file(), b"{").unwrap();
        assert_eq!(local.load(me), SavedState { node: Some(me), ..SavedState::default() });
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_look_at_a_commands_lock_keeps_no_command_from_it() {
        let dir = tempfile::tempdir().unwrap();
        let local = LocalState::open(&Env::host(), dir.path(), RepoId([1; 16])).unwrap();
        assert_eq!(local.is_without_command(), None, "there is no lock yet");
        let lock = local.lock_command().await.unwrap();
        assert_eq!(local.is_without_command(), Some(false));
        assert!(matches!(local.lock_command().await, Err(LockError::Busy { pid: Some(_) })));
        drop(lock);
        assert_eq!(local.is_without_command(), Some(true));

        // A check that is held up while two others check.
        let looks =
            std::fs::File::open(dir.path().join("repositories").join(RepoId([1; 16]).to_string()).join(COMMAND_LOCK));
        let looks = looks.unwrap();
        looks.try_lock_shared().unwrap();
        assert_eq!(local.is_without_command(), Some(true));
        let (command, ()) = tokio::join!(local.lock_command(), async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(local.is_without_command(), Some(true), "no command runs");
            drop(looks);
        });
        command.unwrap();

        // Checks in a loop beside commands.
        let (over, looker) = (std::sync::atomic::AtomicBool::new(false), local.clone());
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !over.load(std::sync::atomic::Ordering::Relaxed) {
                        looker.is_without_command().unwrap();
                    }
                });
            }
            let commands = tokio::task::block_in_place(|| {
                tokio::runtime::Handle::current().block_on(async {
                    for n in 0..500 {
                        local.lock_command().await.map_err(|error| format!("command {n}: {error}"))?;
                    }
                    Ok::<(), String>(())
                })
            });
            over.store(true, std::sync::atomic::Ordering::Relaxed);
            commands.unwrap();
        });
    }

    /// A journal that ends with this record.
    fn seen(seq: u64) -> JournalView {
        let mut view = JournalView::empty("app".parse().unwrap(), RepoId([1; 16]));
        let node = WriterNode { id: NodeId([1; 16]), name: "east".to_owned() };
        view.head = Some(JournalHead { seq: Seq(seq), digest: Digest([9; 32]), node, time: Timestamp::UNIX_EPOCH });
        view
    }

    #[test]
    fn a_process_goes_on_with_what_it_remembered_where_its_directory_was_lost_or_set_back() {
        let (dir, me) = (tempfile::tempdir().unwrap(), NodeId([1; 16]));
        let memories = ProcessMemory::default();
        let local = LocalState::open(&Env::host(), dir.path(), RepoId([1; 16])).unwrap().with_process_memory(&memories);
        let own = Some(OwnTakeover { boot: Digest([4; 32]), takeover: Digest([5; 32]), term: Term(6) });
        let before = SavedState { view: Some(seen(3)), node: Some(me), notes: Some(7), ..SavedState::default() };
        local.save(&before).unwrap();
        let set_back = std::fs::read(local.saved_state_file()).unwrap();
        let now = SavedState { view: Some(seen(5)), own, ..before };
        local.save(&now).unwrap();
        assert!(!local.rewrite_if_set_back(me).unwrap());

        let recalled = SavedState { notes: None, ..now.clone() };
        std::fs::write(local.saved_state_file(), set_back).unwrap();
        assert_eq!(local.load(me), recalled, "the notes were set back as well");
        std::fs::remove_dir_all(dir.path()).unwrap();
        assert_eq!(local.load(me), recalled);
        assert!(local.rewrite_if_set_back(me).unwrap());
        let other = LocalState::peek(&Env::host(), dir.path(), RepoId([1; 16]));
        assert_eq!(other.load(me), recalled, "every process has it again");
        assert_eq!(local.load(NodeId([2; 16])).own, None, "it belongs to no other process");
        // What another process saved in the meantime is newer.
        let newer = SavedState { view: Some(seen(6)), ..now };
        other.save(&newer).unwrap();
        assert_eq!(local.load(me), newer);
        assert!(!local.rewrite_if_set_back(me).unwrap());
    }

    #[test]
    fn what_an_earlier_version_remembered_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let local = LocalState::open(&Env::host(), dir.path(), RepoId([1; 16])).unwrap();
        let mut value = serde_json::to_value(SavedState { view: Some(seen(3)), ..SavedState::default() }).unwrap();
        let fields = value.as_object_mut().unwrap();
        for new in ["judged", "notes", "sighting", "twin", "compared"] {
            fields.remove(new).unwrap();
        }
        fields.insert("suspected".to_owned(), 7.into());
        fields["view"]["writers"] = serde_json::json!({ "01": { "seq": 3, "instance": "0101010101010101" } });
        std::fs::write(local.saved_state_file(), serde_json::to_vec(&value).unwrap()).unwrap();
        assert_eq!(local.load(NodeId([1; 16])).settled(), Some(Seq(3)));
    }
}
