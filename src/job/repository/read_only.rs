//! A role's repository opened for reading: by a node of the role, or by a host that has only the store and the key.

use std::collections::HashSet;
use std::path::Path;

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::env::Env;
use crate::ids::{Digest, InstanceId, NodeId, PackId, RoleName, Seq};
use crate::job::local_state::LocalState;
use crate::job::report::snapshot::SnapshotInfo;
use crate::job::repository::open::Repository;
use crate::journal::body::WriterNode;
use crate::journal::error::JournalError;
use crate::journal::reader::Journal;
use crate::journal::record::Record;
use crate::journal::state::Snapshot;
use crate::journal::view::{FoldError, JournalView};
use crate::repo::loss::{LossLog, PackLosses};
use crate::repo::reader::{IndexCache, RepositoryReadError, RepositoryReader, load_index};
use crate::store::LargeReadLock;

/// Number of records that are fetched ahead.
const RECORDS_AHEAD: usize = 16;

/// How the end of a journal is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalEndLookup {
    /// By a listing and a request for the record after the last one.
    Probe,
    /// By a listing only, for a caller that asks again if it matters: if listings lag, the result may be slightly old.
    ListOnly,
}

/// What is at one number of a journal.
#[derive(Debug, Clone)]
pub enum JournalEntry {
    /// A record and its digest.
    Record(Digest, Box<Record>),
    /// A repair declared the number void: whatever is there has no meaning.
    Void {
        /// The void number.
        seq: Seq,
        /// The number of the repair's record.
        by: Seq,
        /// What the store has at that number.
        content: VoidContent,
    },
    /// A record that is missing or unusable, and that no repair has declared void.
    Lost {
        /// Number of the record.
        seq: Seq,
        /// What is wrong with the record.
        error: JournalError,
    },
}

/// What the store has at a void number.
#[derive(Debug, Clone)]
pub enum VoidContent {
    /// No object.
    Absent,
    /// A record.
    Record,
    /// An object that is no record: a repair's placeholder, or what it found.
    Unusable(JournalError),
}

/// A repository, and its journal as of now.
#[derive(Debug, Clone)]
pub struct ReadOnlyRepository {
    /// The repository.
    pub repository: Repository,
    /// Its journal.
    pub journal: Journal,
    /// State of the journal at its end.
    pub view: JournalView,
    /// The store lacks something of the journal that this node has seen before.
    pub rolled_back: Option<JournalError>,
    /// From this record on the journal cannot be read; `view` ends before it.
    pub damaged: Option<JournalError>,
    /// This node's cache of index objects, if it has one.
    pub index_cache: Option<IndexCache>,
    /// Losses that readers of this repository met.
    pub losses: LossLog,
}

impl ReadOnlyRepository {
    /// Opens the journal as of now.
    pub async fn open(repository: Repository, env: &Env, state_dir: Option<&Path>) -> Result<Self, JournalError> {
        Self::read(repository, env, state_dir, JournalEndLookup::Probe).await
    }

    /// Reads the journal on from what this node remembers in `state_dir`, if anything. Creates nothing there.
    ///
    /// A store that was rolled back, or whose newest records are damaged, is read as far as possible: it may be all
    /// that is left. [`ReadOnlyRepository::rolled_back`] and [`ReadOnlyRepository::damaged`] tell, and the caller must
    /// report it.
    pub async fn read(
        repository: Repository,
        env: &Env,
        state_dir: Option<&Path>,
        reading: JournalEndLookup,
    ) -> Result<Self, JournalError> {
        let local = state_dir.map(|dir| LocalState::peek(env, dir, repository.keys.repo()));
        let known = local.as_ref().and_then(LocalState::last_view);
        let journal = read_only_journal(&repository, env);
        // A reader that remembers nothing would take the end of an incomplete listing for the journal's end.
        let reading = if known.is_some() { reading } else { JournalEndLookup::Probe };
        let read = async |known| match reading {
            JournalEndLookup::Probe => journal.read(known).await,
            JournalEndLookup::ListOnly => journal.read_listed(known).await,
        };
        let (read, rolled_back) = match read(known.as_ref()).await {
            Err(error @ JournalError::RolledBack { .. }) => (read(None).await, Some(error)),
            read => (read, None),
        };
        let (view, damaged) = match read {
            Ok(view) => (view, None),
            Err(error) => match error.unusable_record().and_then(|seq| seq.0.checked_sub(1)).map(Seq) {
                // If that cannot be read either, the first error is reported.
                Some(seq) => (Box::pin(view_before(&journal, seq, &error)).await?, Some(error)),
                None => return Err(error),
            },
        };
        let index_cache = local.map(|local| local.index_cache()).filter(|index_cache| index_cache.dir.is_dir());
        let losses = LossLog::default();
        Ok(Self { repository, journal, view, rolled_back, damaged, index_cache, losses })
    }

    /// Why the content shown may be incomplete. A rolled back store comes first, because a person or an intruder caused
    /// it.
    pub fn doubt(&self) -> Option<&JournalError> {
        self.rolled_back.as_ref().or(self.damaged.as_ref())
    }

    /// The role that the repository belongs to.
    pub fn role(&self) -> &RoleName {
        self.repository.role()
    }

    /// The live snapshots, oldest first.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.view.state.snapshots
    }

    /// The entries at the newest `last` numbers of the journal, oldest first.
    ///
    /// # Errors
    /// The store does not answer, or the journal continues under a key that is not available.
    pub async fn records(&self, last: u64) -> Result<Vec<JournalEntry>, JournalError> {
        let head = self.view.head.as_ref().map_or(0, |head| head.seq.0);
        let repairs = self.journal.repairs(&self.view).await?;
        let repairs = &repairs;
        let turn = &LargeReadLock::default();
        stream::iter((head.saturating_sub(last) + 1..=head).map(Seq))
            .map(|seq| async move {
                let read = self.journal.read_record_ahead(seq, turn).await;
                if let Some(by) = repairs.voided_by(seq) {
                    let content = match read {
                        Ok(None) => VoidContent::Absent,
                        Ok(Some(_)) => VoidContent::Record,
                        Err(error) if error.unusable_record().is_some() => VoidContent::Unusable(error),
                        Err(error) => return Err(error),
                    };
                    return Ok(JournalEntry::Void { seq, by, content });
                }
                match read.and_then(|record| record.ok_or(JournalError::Hole(seq))) {
                    Ok((record, digest)) if record.seq == seq => Ok(JournalEntry::Record(digest, Box::new(record))),
                    Ok((Record { seq: found, .. }, _)) => {
                        let error = JournalError::Fold { seq, error: FoldError::Number { found } };
                        Ok(JournalEntry::Lost { seq, error })
                    }
                    Err(error) if error.unusable_record().is_some() => Ok(JournalEntry::Lost { seq, error }),
                    Err(error) => Err(error),
                }
            })
            .buffered(RECORDS_AHEAD)
            .try_collect()
            .await
    }

    /// A reader of everything that the journal names.
    pub async fn reader(&self) -> Result<RepositoryReader, RepositoryReadError> {
        let (store, keys) = (&self.repository.store, &self.repository.keys);
        let index = load_index(store.as_ref(), keys, &self.view.state.indexes, self.index_cache.as_ref()).await?;
        Ok(RepositoryReader::new(store.clone(), keys.clone(), index.into()).with_loss_log(&self.losses))
    }
}

impl ReadOnlyRepository {
    /// The losses that readers met, without packs that a prune has removed in the meantime.
    pub async fn losses_met(&self) -> PackLosses {
        let mut met = self.losses.snapshot();
        if met.is_empty() {
            return met;
        }
        let newer = self.journal.read(Some(&self.view)).await.ok();
        if let Some(view) = newer.filter(|view| view.state.indexes != self.view.state.indexes)
            && let Ok(reader) = (Self { view, ..self.clone() }).reader().await
        {
            let named: HashSet<PackId> = reader.index().packs().iter().map(|pack| pack.id).collect();
            met.retain(|pack| named.contains(pack));
        }
        met
    }
}

/// The journal up to record `until`, or up to the last earlier record that this key can read. In a journal that
/// continues under a newer key, checkpoints come first, and each shows no more than that. Records under an older
/// generation than the key's prove nothing without a newer record that continues them.
async fn view_before(journal: &Journal, mut until: Seq, error: &JournalError) -> Result<JournalView, JournalError> {
    let mut is_cut = false;
    loop {
        match journal.read_until(until).await {
            Ok(view) if view.generation() < journal.generation() => {
                return Err(JournalError::Unverified(Box::new(error.clone())));
            }
            Ok(view) => return Ok(view),
            Err(JournalError::Rotated { seq, .. }) if (Seq::FIRST..=until).contains(&seq) => until = Seq(seq.0 - 1),
            // Many consecutive objects are no records; the ones before them may be.
            Err(other) if other.unusable_record().is_some() && !is_cut => {
                let end = Box::pin(journal.sound_end()).await.map_err(|_| error.clone())?;
                if end == Seq(0) || end >= until {
                    return Err(error.clone());
                }
                (until, is_cut) = (end, true);
            }
            Err(_) => return Err(error.clone()),
        }
    }
}

/// The journal for reading only, without the identity of a writer.
pub(crate) fn read_only_journal(repository: &Repository, env: &Env) -> Journal {
    let no_writer = WriterNode { id: NodeId([0; NodeId::LEN]), name: String::new() };
    let (store, keys) = (repository.store.clone(), repository.keys.clone());
    let journal = Journal::new(store, keys, env.clone(), no_writer, InstanceId([0; InstanceId::LEN]));
    journal.created(repository.format.created)
}

/// The part of a snapshot that is known without opening it.
pub fn snapshot_info(role: &RoleName, snapshot: &Snapshot) -> SnapshotInfo {
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
        unreadable: changes.unreadable,
        empty: snapshot.empty.as_ref().map(|empty| empty.len() as u64),
    }
}
