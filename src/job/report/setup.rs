//! What `init` and the `key` commands report.

use std::path::PathBuf;

use jiff::Timestamp;

use crate::config::{JournalPlacement, KeySource};
use crate::ids::{KeyGeneration, KeyId, NodeId, RepoId, RoleName};

/// Result of `init` for all roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitReport {
    /// The requested roles, in their order.
    pub roles: Vec<InitRoleReport>,
    /// The new ID of this node, if it got one.
    pub new_identity: Option<NodeId>,
}

/// One role's repository after `init`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitRoleReport {
    /// Name of the role.
    pub role: RoleName,
    /// Description of the store.
    pub store: String,
    /// ID of the repository.
    pub repository: RepoId,
    /// `false`: the repository existed already, complete and with the same parameters.
    pub created: bool,
    /// Place of the journal's head; never `Auto`.
    pub journal: JournalPlacement,
    /// Number of proof rounds of racing puts that the store passed; 0 if nothing was created.
    pub proof_rounds: u32,
    /// How the repository key is unlocked.
    pub key: KeySource,
    /// Whether this run created the key file that `key` names.
    pub key_file_created: bool,
    /// Whether all nodes reach the store independently of mounts: it is not a directory.
    pub shared: bool,
}

/// Result of a command on key slots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyReport {
    /// Name of the role.
    pub role: RoleName,
    /// What was done.
    pub change: KeyChange,
    /// The newest generation of the repository key that this command knows.
    pub generation: KeyGeneration,
    /// The slots that unlock the repository.
    pub slots: Vec<KeySlotInfo>,
    /// Number of further slots that were not read.
    pub passed_over: usize,
}

/// The change of the keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChange {
    /// No change: the slots are listed.
    None,
    /// The repository key was written to this file.
    Exported(PathBuf),
    /// A slot was added.
    Added(KeyId),
    /// A slot was removed.
    Removed(KeyId),
    /// The repository key was rotated.
    Rotated(KeyRotation),
}

/// Result of a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRotation {
    /// The generation of everything written from now on.
    pub generation: KeyGeneration,
    /// Whether this was a dry run, which changes nothing.
    pub dry_run: bool,
    /// Whether an earlier, interrupted rotation was finished.
    pub finished: bool,
    /// The slots that hold the new key.
    pub written: Vec<KeyId>,
    /// The slots that were removed, or would be.
    pub removed: Vec<KeyId>,
    /// The old slots that the store did not delete: they still open what was written before.
    pub left: Vec<KeyId>,
    /// The key file that was created.
    pub created_file: Option<PathBuf>,
}

impl KeyRotation {
    /// A rotation to this generation without further details.
    pub fn of(generation: KeyGeneration) -> Self {
        let (written, removed, left) = (Vec::new(), Vec::new(), Vec::new());
        Self { generation, dry_run: false, finished: false, written, removed, left, created_file: None }
    }
}

/// A key slot of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySlotInfo {
    /// ID of the slot.
    pub id: KeyId,
    /// The newest generation of the repository key in the slot.
    pub generation: KeyGeneration,
    /// The kind of secret that opens it.
    pub kind: KeySlotKind,
    /// When it was written, by the store's clock.
    pub written: Timestamp,
    /// Whether this slot opened the repository for this command.
    pub opened: bool,
    /// Why the slot is unusable.
    pub problem: Option<String>,
}

/// The kind of secret that opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySlotKind {
    /// A key file.
    KeyFile,
    /// A passphrase.
    Passphrase,
    /// Unknown: the slot is damaged, or newer than this program.
    Unreadable,
}
