//! What `init` and the keys' verbs report.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::config::{JournalPlacement, KeySource};
use crate::ids::{KeyGeneration, KeyId, NodeId, RepoId, RoleName};

/// What `init` came to, role by role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitReport {
    /// The roles that were asked for, in their order.
    pub roles: Vec<InitRoleReport>,
    /// The ID of the node that this one has become.
    pub new_identity: Option<NodeId>,
}

/// One role's repository after `init`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitRoleReport {
    /// Which role.
    pub role: RoleName,
    /// The store, as it describes itself.
    pub store: String,
    /// The repository.
    pub repository: RepoId,
    /// `false`: it was there already, complete and with the same parameters.
    pub created: bool,
    /// Where the journal lives; never `Auto`.
    pub journal: JournalPlacement,
    /// How many rounds of racing puts the store passed; 0 when nothing was created.
    pub proof_rounds: u32,
    /// How the repository key is unlocked.
    pub key: KeySource,
    /// This run created the key file that `key` names.
    pub key_file_created: bool,
    /// Every node reaches the store, whatever it is mounted on: it is no directory.
    pub shared: bool,
}

/// What a change of the key slots came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyReport {
    /// Which role.
    pub role: RoleName,
    /// What was done.
    pub change: KeyChange,
    /// The generation of the repository key that this command knows as the newest.
    pub generation: KeyGeneration,
    /// The slots that unlock the repository now.
    pub slots: Vec<KeySlotInfo>,
    /// So many more were not looked at.
    pub passed_over: usize,
}

/// What was done about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChange {
    /// Nothing: they are listed.
    None,
    /// The repository key was written to this file.
    Exported(PathBuf),
    /// A slot was added.
    Added(KeyId),
    /// A slot was removed.
    Removed(KeyId),
    /// There is a new repository key.
    Rotated(KeyRotation),
}

/// What a rotation came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRotation {
    /// The generation that everything is written under from now on.
    pub generation: KeyGeneration,
    /// Nothing was changed.
    pub dry_run: bool,
    /// An earlier one was cut short, and is finished now.
    pub finished: bool,
    /// The slots that give it.
    pub written: Vec<KeyId>,
    /// The slots that are removed, or would be.
    pub removed: Vec<KeyId>,
    /// The slots that the store does not let go: they give what was written before.
    pub left: Vec<KeyId>,
    /// The key file that was made.
    pub created_file: Option<PathBuf>,
}

impl KeyRotation {
    /// One to this generation, of which no more is known.
    pub fn of(generation: KeyGeneration) -> Self {
        let (written, removed, left) = (Vec::new(), Vec::new(), Vec::new());
        Self { generation, dry_run: false, finished: false, written, removed, left, created_file: None }
    }
}

/// One way to unlock a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySlotInfo {
    /// Its name in the store.
    pub id: KeyId,
    /// The newest generation of the repository key that it gives.
    pub generation: KeyGeneration,
    /// What it takes.
    pub kind: KeySlotKind,
    /// When it was written, by the store's clock.
    pub written: Timestamp,
    /// This one opened the repository for this command.
    pub opened: bool,
    /// Why nobody can use it.
    pub problem: Option<String>,
}

/// What a key slot takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySlotKind {
    /// A key file.
    KeyFile,
    /// A passphrase.
    Passphrase,
    /// Nobody knows: it is damaged, or newer than this program.
    Unreadable,
}
