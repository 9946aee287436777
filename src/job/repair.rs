//! `repair`: what a store lost comes back from what is left, or is named.
//!
//! A plan first, which changes nothing and is all that a dry run does: the way in ([`recovery`]), the journal ([`crate::journal::salvage`]), the
//! index, and what of each snapshot is lost. Then it is applied in the order of every writer: what leads in, packs, index objects, and
//! last one record, a takeover at the number after the last, by compare-and-set. So a repair fences whoever else writes, is fenced
//! itself, and one that was cut short is done again. Nothing is deleted, and nothing is overwritten but objects that cannot be read.

mod index;
mod losses;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::index::IndexPlan;
use self::recovery::{RecoveredRepository, RecoveryInputs};
use crate::config::RoleSettings;
use crate::env::Env;
use crate::ids::{ChunkId, IndexId, InstanceId, KeyId, PackId, RoleName};
use crate::job::backup::BackupError;
use crate::job::browse::{ReadOnlyRepository, read_only_journal};
use crate::job::node::local_state::LocalState;
use crate::job::operate::{OperateError, require_eligible};
use crate::job::report::repaired::{FormatSource, RepairFinding, RepairReport};
use crate::job::repository::init::{InitError, put_new};
use crate::job::repository::open::{OpenError, Repository, list_key_slots};
use crate::journal::log::{self, AppendError, Journal, JournalError};
use crate::journal::record::WriterNode;
use crate::journal::register::RegisterError;
use crate::journal::repair::{SalvageError, SalvageProgress, WrongRotationCopy};
use crate::journal::state::{JournalState, Snapshot};
use crate::repo::format::JournalLocation;
use crate::repo::index::{count_fitting_packs, encode_index};
use crate::repo::loss::LossLog;
use crate::repo::object_keys;
use crate::repo::pack::{ChunkEntry, FrameCompressor, PackBuilder, PackTable};
use crate::repo::reader::{RepositoryReadError, RepositoryReader};
use crate::role::election;
use crate::role::probe::ProbeAssessment;
use crate::store::proof::{self, ProofFailure};
use crate::store::{Store, StoreError};

/// How long a repair goes on while others append.
const PATIENCE: Duration = Duration::from_mins(5);

/// A frame of moved chunks is closed when it has so many bytes.
const FRAME_BYTES: usize = 2 << 20;

/// Why nothing was repaired.
#[derive(Debug, thiserror::Error)]
pub enum RepairError {
    /// There is no way in.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The journal cannot be told, or is not one.
    #[error("{0}")]
    Mend(#[from] SalvageError),
    /// Where the journal is.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// Others appended all the time.
    #[error("records were appended for {} s, each before the repair could be", .0.as_secs())]
    Busy(Duration),
    /// The record that says what is lost.
    #[error("{0}")]
    Append(#[from] AppendError),
    /// This node would have the role and not work for it.
    #[error("{0}")]
    Operate(#[from] OperateError),
    /// Etcd.
    #[error("{0}")]
    Register(#[from] RegisterError),
    /// `format` says where the journal is, and is lost.
    #[error("`format` of role {0} is lost, the config says that the journal is in etcd, and etcd has no head of it")]
    NoHead(RoleName),
    /// What could give the key was not tried in whole.
    #[error(
        "`format` of role {role} is lost or of no use, and {untried} of its key slots were not tried: there are too many"
    )]
    UntriedSlots {
        /// Which role.
        role: RoleName,
        /// How many.
        untried: usize,
    },
    /// The store cannot hold the journal that `format` said it holds.
    #[error(
        "`format` of role {role} is lost, no etcd has the head of its journal, and the store cannot hold it: {failure}"
    )]
    Proof {
        /// Which role.
        role: RoleName,
        /// How the store failed.
        failure: ProofFailure,
    },
    /// A part of the way in could not be written.
    #[error("{0}")]
    Put(InitError),
    /// What was to be moved cannot be read.
    #[error("{0}")]
    Read(RepositoryReadError),
    /// Tables of packs.
    #[error("{0}")]
    Packs(#[from] BackupError),
}

/// Who repairs, and what was asked for.
#[derive(Debug, Clone)]
pub struct RepairRequest<'a> {
    /// The way in.
    pub inputs: RecoveryInputs<'a>,
    /// This node.
    pub node: WriterNode,
    /// This process.
    pub instance: InstanceId,
    /// The role's settings.
    pub role: &'a RoleSettings,
    /// What the probes said.
    pub assessment: Option<&'a ProbeAssessment>,
    /// Also where they do not say that this node is active.
    pub force: bool,
    /// Write the key slot again that this node remembers.
    pub key_slot: bool,
    /// Read every pack, whatever its size.
    pub read_data: bool,
}

/// What is lost and what is to be done; nothing is changed yet.
struct RepairPlan {
    recovered: RecoveredRepository,
    journal: Journal,
    mending: SalvageProgress,
    index: IndexPlan,
    copy: Option<WrongRotationCopy>,
    /// The key slots that there are, and what is wrong with each.
    keys: Vec<(KeyId, Option<String>)>,
}

/// What a repair has written already: nothing of it is written again when it has to try again.
#[derive(Debug, Default)]
struct RepairProgress {
    /// What leads in, and copies of index objects.
    entry_objects: bool,
    /// The numbers that are lost are occupied.
    occupied: bool,
    /// The chunks that were moved, and the tables of the packs that have them.
    moved: (Vec<ChunkId>, Vec<PackTable>),
    /// The tables that were listed in index objects, and those.
    listed: (Vec<PackTable>, Vec<IndexId>),
}

impl RepairPlan {
    async fn make(store: Arc<dyn Store>, by: &RepairRequest<'_>) -> Result<Self, RepairError> {
        let step = by.inputs;
        let entered = recovery::open_damaged(store, step).await?;
        let repository = &entered.repository;
        // What an operator has not accepted is not repaired in the place of what this node knows.
        if let Some(known) = step.place.differing_repository(step.env, step.state_dir, repository) {
            let (role, found) = (step.role.clone(), repository.keys.repo());
            return Err(OpenError::Another { role, store: step.place.store().to_owned(), known, found }.into());
        }
        repository.store.measure_clock_offset().await;
        let journal = step.seats.journal(repository, step.env, &by.node, by.instance)?;
        let local = step.state_dir.map(|dir| LocalState::peek(step.env, dir, repository.keys.repo()));
        let known = local.as_ref().and_then(LocalState::last_view);
        let mending = journal.start_salvage(known.as_ref()).await?;
        let (shelf, more) = (local.as_ref().map(LocalState::index_cache), mending.salvaged.may_lack_indexes());
        let index = index::plan(repository, &mending.salvaged.view.state, shelf.as_ref(), more, by.read_data).await?;
        let copy = journal.wrong_copy(&mending.salvaged.view.state).await?;
        let keys = list_key_slots(repository.store.as_ref(), step.role).await?.found.into_iter();
        let keys = keys.map(|found| (found.id, found.slot.err().map(|error| error.to_string()))).collect();
        Ok(Self { recovered: entered, journal, mending, index, copy, keys })
    }

    /// The plan with what was appended since, which is all that is read. `None`: it is to be made anew.
    async fn extend(self) -> Result<Option<Self>, RepairError> {
        let Some(mending) = self.journal.continue_salvage(&self.mending).await? else { return Ok(None) };
        let index = self.index.extend(&self.recovered.repository, &mending.salvaged.view.state).await?;
        Ok(index.map(|index| Self { mending, index, ..self }))
    }

    fn report(&self, by: &RepairRequest<'_>) -> RepairReport {
        let (entered, mended) = (&self.recovered, &self.mending.salvaged);
        let mut findings = Vec::new();
        findings.extend(entered.format.clone().map(|(what, source)| RepairFinding::Format { what, source }));
        findings.extend(entered.slot.as_ref().map(|(id, _)| RepairFinding::KeySlot { id: *id, put_back: by.key_slot }));
        for lost in &mended.lost_records {
            findings.push(RepairFinding::Record { seq: lost.seq, what: lost.what.clone(), known: !mended.is_partial });
        }
        findings.extend(mended.lost_tail.map(|lost| RepairFinding::End { from: lost.from, to: lost.to }));
        findings.extend(mended.unstarted_generation.map(RepairFinding::Rotation));
        findings.extend(
            self.copy
                .clone()
                .map(|WrongRotationCopy { key: object, what, .. }| RepairFinding::RotationCopy { object, what }),
        );
        findings.extend(mended.unverified.as_ref().map(|all| RepairFinding::Unvouched {
            from: all.from,
            to: all.to,
            snapshots: all.snapshots.iter().map(|snapshot| snapshot.id).collect(),
        }));
        findings.extend(mended.remembered_snapshots.iter().copied().map(RepairFinding::Snapshot));
        findings.extend(self.index.findings.iter().cloned());
        RepairReport {
            role: by.inputs.role.clone(),
            dry_run: true,
            findings,
            keys: self.keys.clone(),
            snapshots: self.index.losses().to_vec(),
            read_data: by.read_data,
            record: None,
        }
    }

    /// Whether the journal is to say something.
    fn needs_record(&self) -> bool {
        let mended = &self.mending.salvaged;
        !mended.is_sound() || !mended.remembered_snapshots.is_empty() || self.index.changes(&mended.view.state)
    }

    /// `None`: something was appended meanwhile, or came back.
    async fn apply(
        &self,
        by: &RepairRequest<'_>,
        forced: bool,
        written: &mut RepairProgress,
    ) -> Result<Option<RepairReport>, RepairError> {
        let (repository, env, mended) = (&self.recovered.repository, by.inputs.env, &self.mending.salvaged);
        let (store, role) = (repository.store.as_ref(), repository.role());
        if self.needs_record() {
            log::check_understood(&mended.view)?;
        }
        if !written.entry_objects {
            self.write_entry_objects(by).await?;
            for (id, object) in &self.index.copies {
                store.put(&object_keys::index(role, *id), object.clone()).await?;
            }
            written.entry_objects = true;
        }
        let mut report = RepairReport { dry_run: false, ..self.report(by) };
        if let Some((id, _)) = self.recovered.slot.as_ref().filter(|_| by.key_slot) {
            report.keys.retain(|(other, _)| other != id);
            report.keys.push((*id, None));
        }
        if !self.needs_record() {
            return Ok(Some(report));
        }
        if written.moved.0 != self.index.moved {
            let tables = move_chunks(repository, self.index.reader(), &self.index.moved, env).await?;
            written.moved = (self.index.moved.clone(), tables);
        }
        let tables: Vec<PackTable> = self.index.listed.iter().chain(&written.moved.1).cloned().collect();
        if written.listed.0 != tables {
            let (mut indexes, mut rest) = (Vec::new(), tables.as_slice());
            while !rest.is_empty() {
                let (part, more) = rest.split_at(count_fitting_packs(rest));
                let id = IndexId(env.random_bytes());
                store
                    .put(&object_keys::index(role, id), encode_index(&repository.keys, id, env.random_bytes(), part))
                    .await?;
                indexes.push(id);
                rest = more;
            }
            written.listed = (tables, indexes);
        }
        if !written.occupied && !self.journal.fill_void_numbers(mended).await? {
            return Ok(None);
        }
        written.occupied = true;
        let indexes = self.index.kept.iter().chain(&written.listed.1).copied().collect();
        let state = JournalState { indexes, ..mended.view.state.clone() };
        match self.journal.repair(mended, state, &election::operator_candidacy(by.role), forced).await {
            Ok((permit, view)) => {
                report.record = view.head.map(|head| (head.seq, permit.term()));
                Ok(Some(report))
            }
            Err(AppendError::Moved(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What leads into the repository.
    async fn write_entry_objects(&self, by: &RepairRequest<'_>) -> Result<(), RepairError> {
        let repository = &self.recovered.repository;
        let (store, role) = (repository.store.as_ref(), repository.role());
        if let Some((id, object)) = self.recovered.slot.as_ref().filter(|_| by.key_slot) {
            let key = object_keys::key(role, *id);
            // It is named after what it holds: what stands there is damaged.
            let is_damaged = match put_new(store, &key, object.to_vec()).await {
                Ok(ours) => !ours,
                Err(InitError::Store(error)) if error.is_not_an_object() => true,
                Err(error) => return Err(RepairError::Put(error)),
            };
            if is_damaged {
                store.put(&key, object.clone()).await?;
            }
        }
        if let Some(WrongRotationCopy { key, object, .. }) = &self.copy {
            store.put(key, object.clone()).await?;
        }
        let Some((what, source)) = &self.recovered.format else { return Ok(()) };
        if *source == FormatSource::Journal && repository.format.journal == JournalLocation::Bucket {
            let proved = proof::prove(store, &object_keys::probe(role), by.inputs.env).await;
            if let Err(failure) = proved {
                return Err(RepairError::Proof { role: role.clone(), failure });
            }
        }
        let (key, object) = (object_keys::format(role), repository.format.encode(&repository.keys));
        if what == index::MISSING {
            put_new(store, &key, object).await.map_err(RepairError::Put)?;
        } else {
            // What stands there is of no use to anybody.
            store.put(&key, Bytes::from(object)).await?;
        }
        Ok(())
    }
}

/// Looks what is lost, and changes nothing.
///
/// # Errors
/// There is no way in, or the store does not answer.
pub async fn dry_run(store: Arc<dyn Store>, by: &RepairRequest<'_>) -> Result<RepairReport, RepairError> {
    Ok(Box::pin(RepairPlan::make(store, by)).await?.report(by))
}

/// Repairs what can be.
///
/// # Errors
/// Nothing is in the journal then, or it cannot be told whether it is.
pub async fn repair(store: Arc<dyn Store>, by: &RepairRequest<'_>) -> Result<RepairReport, RepairError> {
    let clock = &by.inputs.env.clock;
    let started = clock.boottime();
    let mut plan = Box::pin(RepairPlan::make(Arc::clone(&store), by)).await?;
    let mut written = RepairProgress::default();
    loop {
        let forced = if plan.needs_record() {
            require_eligible(by.role, &by.node.name, by.assessment, by.force)?
        } else {
            false
        };
        if let Some(report) = Box::pin(plan.apply(by, forced, &mut written)).await? {
            return Ok(report);
        }
        if clock.boottime().saturating_sub(started) >= PATIENCE {
            return Err(RepairError::Busy(PATIENCE));
        }
        // A journal that others append to all the time is no reason to look at everything again: what they append is far less.
        plan = if let Some(plan) = Box::pin(plan.extend()).await? {
            plan
        } else {
            written = RepairProgress::default();
            Box::pin(RepairPlan::make(Arc::clone(&store), by)).await?
        };
    }
}

/// What is left of a repository.
#[derive(Debug)]
pub struct SalvagedRepository {
    /// The repository, with what is left of its journal.
    pub archive: ReadOnlyRepository,
    /// Snapshots that only records tell of which nothing vouches for: a former key holder can have made them up.
    pub unvouched: Vec<Snapshot>,
    /// The index objects that those name.
    indexes: Vec<IndexId>,
    /// What the journal lost may have named further index objects.
    more: bool,
}

impl SalvagedRepository {
    /// A reader of all that there is; for a snapshot that nothing vouches for also by what such records name.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn reader(&self, is_vouched_for: bool) -> Result<RepositoryReader, RepairError> {
        let mut state = self.archive.view.state.clone();
        if !is_vouched_for {
            state.indexes.splice(0..0, self.indexes.iter().copied());
        }
        index::reader(&self.archive.repository, &state, self.archive.index_cache.as_ref(), self.more).await
    }
}

/// What is left of a repository, for whoever only reads: nothing is written, neither to the store nor to this node's state.
///
/// # Errors
/// There is no way in, or the store does not answer.
pub async fn open_salvaged(store: Arc<dyn Store>, step: RecoveryInputs<'_>) -> Result<SalvagedRepository, RepairError> {
    let RecoveredRepository { repository, .. } = recovery::open_damaged(store, step).await?;
    let journal = read_only_journal(&repository, step.env);
    let local = step.state_dir.map(|dir| LocalState::peek(step.env, dir, repository.keys.repo()));
    let known = local.as_ref().and_then(LocalState::last_view);
    let mended = Box::pin(journal.salvage_readable(known.as_ref())).await?;
    let shelf = local.map(|local| local.index_cache()).filter(|shelf| shelf.dir.is_dir());
    if mended.view.state.snapshots.is_empty()
        && mended.unverified.is_none()
        && let Some(lost) = mended.lost_records.first().filter(|lost| lost.missing)
    {
        return Err(JournalError::Hole(lost.seq).into());
    }
    let more = mended.may_lack_indexes();
    let (unvouched, indexes) = mended.unverified.map(|all| (all.snapshots, all.indexes)).unwrap_or_default();
    let archive = ReadOnlyRepository {
        repository,
        journal,
        view: mended.view,
        rolled_back: None,
        damaged: None,
        index_cache: shelf,
        losses: LossLog::default(),
    };
    Ok(SalvagedRepository { archive, unvouched, indexes, more })
}

/// Packs these chunks anew.
async fn move_chunks(
    repository: &Repository,
    reader: &RepositoryReader,
    chunks: &[ChunkId],
    env: &Env,
) -> Result<Vec<PackTable>, RepairError> {
    let (store, keys, role) = (repository.store.as_ref(), &repository.keys, repository.role());
    let builder = || PackBuilder::new(keys, PackId(env.random_bytes()), env.random_bytes());
    let (mut tables, mut compressor) = (Vec::new(), FrameCompressor::default());
    let (mut pack, mut content, mut entries) = (builder(), Vec::new(), Vec::new());
    for (number, &id) in chunks.iter().enumerate() {
        let bytes = reader.chunk(&id).await.map_err(RepairError::Read)?;
        content.extend_from_slice(&bytes);
        entries.push(ChunkEntry { id, len: bytes.len() as u32 });
        let is_last = number + 1 == chunks.len();
        if content.len() >= FRAME_BYTES || is_last {
            pack.push(compressor.pack(&content, std::mem::take(&mut entries)));
            content.clear();
        }
        if pack.is_full() || is_last {
            let (object, table) = std::mem::replace(&mut pack, builder()).finish();
            store.put(&object_keys::pack(role, table.id), object).await?;
            tables.push(table);
        }
    }
    Ok(tables)
}

pub mod recovery;
#[cfg(test)]
mod tests;
