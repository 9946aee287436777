//! A role's repository, opened to be read: by a node of the role, or by a host that has nothing but the store and the key.

use std::path::{Path, PathBuf};

use crate::env::Env;
use crate::ids::{InstanceId, NodeId, RoleName};
use crate::job::local::Local;
use crate::job::report::snapshot::SnapshotInfo;
use crate::job::repository::Repository;
use crate::journal::log::{Journal, JournalError};
use crate::journal::record::NodeRef;
use crate::journal::state::{Snapshot, View};
use crate::repo::reader::{Reader, RepoError, load_index};

/// A repository and its journal as of now.
#[derive(Debug, Clone)]
pub struct Archive {
    /// The repository.
    pub repository: Repository,
    /// Its journal.
    pub journal: Journal,
    /// What the journal says.
    pub view: View,
    /// What this node saw of the journal is no longer in the store.
    pub rolled_back: Option<JournalError>,
    /// Where this node keeps index objects, if it keeps any.
    pub index_dir: Option<PathBuf>,
}

/// Why a snapshot cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// Index or manifest.
    #[error(transparent)]
    Repo(#[from] RepoError),
}

impl Archive {
    /// Reads the journal on from what this node remembers of it, if it remembers anything in `state_dir`. Makes nothing
    /// there.
    ///
    /// A store that was rolled back is read all the same: it may be all that is left. [`Archive::rolled_back`] tells.
    pub async fn open(repository: Repository, env: &Env, state_dir: Option<&Path>) -> Result<Self, ArchiveError> {
        let local = state_dir.map(|dir| Local::peek(dir, repository.keys.repo()));
        let known = local.as_ref().and_then(|local| local.load().view);
        let journal = reading_journal(&repository, env);
        let (view, rolled_back) = match journal.read(known.as_ref()).await {
            Err(error @ JournalError::RolledBack { .. }) => (journal.read(None).await?, Some(error)),
            result => (result?, None),
        };
        let index_dir = local.map(|local| local.index_dir()).filter(|dir| dir.is_dir());
        Ok(Self { repository, journal, view, rolled_back, index_dir })
    }

    /// Which role.
    pub fn role(&self) -> &RoleName {
        self.repository.role()
    }

    /// The live snapshots, oldest first.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.view.state.snapshots
    }

    /// A reader of everything that the journal names.
    pub async fn reader(&self) -> Result<Reader, RepoError> {
        let (store, keys) = (&self.repository.store, &self.repository.keys);
        let index = load_index(store.as_ref(), keys, &self.view.state.indexes, self.index_dir.as_deref()).await?;
        Ok(Reader::new(store.clone(), keys.clone(), index.into()))
    }
}

/// The journal for somebody who only reads: nobody's name is needed.
fn reading_journal(repository: &Repository, env: &Env) -> Journal {
    let nobody = NodeRef { id: NodeId([0; NodeId::LEN]), name: String::new() };
    let (store, keys) = (repository.store.clone(), repository.keys.clone());
    Journal::new(store, keys, env.clone(), nobody, InstanceId([0; InstanceId::LEN]))
}

/// What is known of a snapshot without opening it.
pub fn info(role: &RoleName, snapshot: &Snapshot) -> SnapshotInfo {
    let changes = &snapshot.changes;
    SnapshotInfo {
        id: snapshot.id,
        role: role.clone(),
        term: snapshot.term,
        node: snapshot.node.name.clone(),
        time: snapshot.time,
        slot: snapshot.slot,
        files: snapshot.files,
        bytes: snapshot.bytes,
        changed: changes.new + changes.changed + changes.removed,
    }
}
