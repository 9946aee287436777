//! A role's repository, opened to be read: by a node of the role, or by a host that has nothing but the store and the key.

use std::collections::HashSet;
use std::path::Path;

use futures_util::{StreamExt, TryStreamExt, stream};

use crate::env::Env;
use crate::ids::{Digest, InstanceId, NodeId, PackId, RoleName, Seq};
use crate::job::node::local_state::LocalState;
use crate::job::report::snapshot::SnapshotInfo;
use crate::job::repository::open::Repository;
use crate::journal::log::{Journal, JournalError};
use crate::journal::record::{Record, WriterNode};
use crate::journal::state::{FoldError, JournalView, Snapshot};
use crate::repo::loss::{LossLog, PackLosses};
use crate::repo::reader::{IndexCache, RepositoryReadError, RepositoryReader, load_index};
use crate::store::LargeReadLock;

/// Records fetched at once.
const RECORDS_AHEAD: usize = 16;

/// How the end of a journal is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JournalEndLookup {
    /// With a last request for the record after it.
    Probe,
    /// By listing alone, for somebody who asks again if it matters: where listings lag it may be the journal of a moment ago.
    ListOnly,
}

/// What a number of a journal has.
#[derive(Debug, Clone)]
pub enum JournalEntry {
    /// A record and its digest.
    Record(Digest, Box<Record>),
    /// A repair called it void: whatever stands there says nothing.
    Void {
        /// The number.
        seq: Seq,
        /// The number of the repair's record.
        by: Seq,
        /// What stands there.
        stands: VoidContent,
    },
    /// A record that cannot be used, and that no repair has named.
    Lost {
        /// Its number.
        seq: Seq,
        /// What is wrong with it.
        error: JournalError,
    },
}

/// What stands at a number that is void.
#[derive(Debug, Clone)]
pub enum VoidContent {
    /// Nothing.
    Absent,
    /// A record.
    Record,
    /// What is none: a repair's placeholder, or what it found.
    Unusable(JournalError),
}

/// A repository and its journal as of now.
#[derive(Debug, Clone)]
pub struct ReadOnlyRepository {
    /// The repository.
    pub repository: Repository,
    /// Its journal.
    pub journal: Journal,
    /// What the journal says.
    pub view: JournalView,
    /// What this node saw of the journal is no longer in the store.
    pub rolled_back: Option<JournalError>,
    /// From this record on the journal cannot be read; the view is the one before it.
    pub damaged: Option<JournalError>,
    /// Where this node keeps index objects, if it keeps any.
    pub index_cache: Option<IndexCache>,
    /// What its readers met that is lost.
    pub losses: LossLog,
}

impl ReadOnlyRepository {
    /// The journal as of now.
    pub async fn open(repository: Repository, env: &Env, state_dir: Option<&Path>) -> Result<Self, JournalError> {
        Self::read(repository, env, state_dir, JournalEndLookup::Probe).await
    }

    /// Reads the journal on from what this node remembers of it, if it remembers anything in `state_dir`. Makes nothing
    /// there.
    ///
    /// A store that was rolled back, or whose newest records are damaged, is read as far as it goes: it may be all that is
    /// left. [`ReadOnlyRepository::rolled_back`] and [`ReadOnlyRepository::damaged`] tell, and it is for the caller to say so.
    pub async fn read(
        repository: Repository,
        env: &Env,
        state_dir: Option<&Path>,
        reading: JournalEndLookup,
    ) -> Result<Self, JournalError> {
        let local = state_dir.map(|dir| LocalState::peek(env, dir, repository.keys.repo()));
        let known = local.as_ref().and_then(LocalState::last_view);
        let journal = read_only_journal(&repository, env);
        // Who knows nothing would take the end of a short listing for the journal's.
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
                // If that cannot be read either, the first error is the one to tell.
                Some(seq) => (Box::pin(view_before(&journal, seq, &error)).await?, Some(error)),
                None => return Err(error),
            },
        };
        let shelf = local.map(|local| local.index_cache()).filter(|shelf| shelf.dir.is_dir());
        let losses = LossLog::default();
        Ok(Self { repository, journal, view, rolled_back, damaged, index_cache: shelf, losses })
    }

    /// Why what it shows may not be all that there was, or is. A store that was rolled back comes first: somebody did that.
    pub fn doubt(&self) -> Option<&JournalError> {
        self.rolled_back.as_ref().or(self.damaged.as_ref())
    }

    /// Which role.
    pub fn role(&self) -> &RoleName {
        self.repository.role()
    }

    /// The live snapshots, oldest first.
    pub fn snapshots(&self) -> &[Snapshot] {
        &self.view.state.snapshots
    }

    /// What the newest `last` numbers of the journal have, oldest first.
    ///
    /// # Errors
    /// The store does not answer, or the journal goes on under a key that is not at hand.
    pub async fn records(&self, last: u64) -> Result<Vec<JournalEntry>, JournalError> {
        let head = self.view.head.as_ref().map_or(0, |head| head.seq.0);
        let repairs = self.journal.repairs(&self.view).await?;
        let repairs = &repairs;
        let turn = &LargeReadLock::default();
        stream::iter((head.saturating_sub(last) + 1..=head).map(Seq))
            .map(|seq| async move {
                let read = self.journal.read_record_ahead(seq, turn).await;
                if let Some(by) = repairs.voided_by(seq) {
                    let stands = match read {
                        Ok(None) => VoidContent::Absent,
                        Ok(Some(_)) => VoidContent::Record,
                        Err(error) if error.unusable_record().is_some() => VoidContent::Unusable(error),
                        Err(error) => return Err(error),
                    };
                    return Ok(JournalEntry::Void { seq, by, stands });
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
    /// What its readers met that is lost, without what a prune moved away meanwhile.
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

/// The journal up to record `until`, or to the last one before it that this key gives: of a journal that goes on under a newer one, checkpoints
/// come first, and each shows no more than that. What was written under an older generation than the key's proves nothing without a newer
/// record that continues it.
async fn view_before(journal: &Journal, mut until: Seq, error: &JournalError) -> Result<JournalView, JournalError> {
    let mut is_cut = false;
    loop {
        match journal.read_until(until).await {
            Ok(view) if view.generation() < journal.generation() => {
                return Err(JournalError::Unvouched(Box::new(error.clone())));
            }
            Ok(view) => return Ok(view),
            Err(JournalError::Rotated { seq, .. }) if (Seq::FIRST..=until).contains(&seq) => until = Seq(seq.0 - 1),
            // Many in a row are not records: what is before them may be.
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

/// The journal for somebody who only reads: nobody's name is needed.
pub(crate) fn read_only_journal(repository: &Repository, env: &Env) -> Journal {
    let nobody = WriterNode { id: NodeId([0; NodeId::LEN]), name: String::new() };
    let (store, keys) = (repository.store.clone(), repository.keys.clone());
    let journal = Journal::new(store, keys, env.clone(), nobody, InstanceId([0; InstanceId::LEN]));
    journal.created(repository.format.created)
}

/// What is known of a snapshot without opening it.
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
