//! `repair`: restores what a store lost from what is left, and names what cannot be restored.
//!
//! The plan comes first, changes nothing, and is all that a dry run does: opening the repository ([`recovery`]), the
//! journal ([`crate::journal::salvage`]), the index, and the losses of each snapshot. It is then applied in the order
//! of every writer: `format` and key slot, packs, index objects, and last one record, a takeover at the number after
//! the last, by compare-and-set. So a repair fences every other writer and can be fenced itself, and an interrupted
//! repair can be run again. Nothing is deleted, and only unreadable objects are overwritten.

pub mod error;
mod index;
mod losses;
pub mod recovery;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use self::index::IndexPlan;
use self::recovery::{RecoveredRepository, RecoveryInputs};
use crate::config::RoleSettings;
use crate::env::Env;
use crate::ids::{ChunkId, IndexId, InstanceId, KeyId};
use crate::job::backup::pack_writer::PackWriter;
use crate::job::local_state::LocalState;
use crate::job::operate::require_eligible;
use crate::job::repair::error::RepairError;
use crate::job::report::repaired::{FormatSource, RepairFinding, RepairReport};
use crate::job::repository::init::error::InitError;
use crate::journal::draft::check_understood;

use crate::job::repository::init::new_object::put_new;
use crate::job::repository::open::{OpenError, Repository, list_key_slots};
use crate::job::repository::read_only::{ReadOnlyRepository, read_only_journal};
use crate::journal::body::WriterNode;
use crate::journal::error::{AppendError, JournalError};
use crate::journal::reader::Journal;
use crate::journal::repair::{SalvageProgress, WrongRotationCopy};
use crate::journal::state::{JournalState, Snapshot};
use crate::repo::format::JournalLocation;
use crate::repo::index::{count_fitting_packs, encode_index};
use crate::repo::loss::LossLog;
use crate::repo::object_keys;
use crate::repo::pack::{ChunkEntry, PackTable};
use crate::repo::reader::RepositoryReader;
use crate::role::election;
use crate::role::probe::ProbeAssessment;
use crate::store::{Store, proof};

/// How long a repair retries while other nodes append.
const PATIENCE: Duration = Duration::from_mins(5);

/// Inputs of a repair.
#[derive(Debug, Clone)]
pub struct RepairRequest<'a> {
    /// What is needed to open the repository.
    pub inputs: RecoveryInputs<'a>,
    /// This node.
    pub node: WriterNode,
    /// This process.
    pub instance: InstanceId,
    /// The role's settings.
    pub role: &'a RoleSettings,
    /// What the probes said; `None` if they were not asked.
    pub assessment: Option<&'a ProbeAssessment>,
    /// Repairs even if the probes do not say that this node is active.
    pub force: bool,
    /// Writes the key slot that this node remembers to the store again.
    pub key_slot: bool,
    /// Reads every pack, whatever its size.
    pub read_data: bool,
}

/// What is lost and what has to be done; making the plan changes nothing.
struct RepairPlan {
    recovered: RecoveredRepository,
    journal: Journal,
    mending: SalvageProgress,
    index: IndexPlan,
    copy: Option<WrongRotationCopy>,
    /// The key slots in the store, with the error of each unreadable one.
    keys: Vec<(KeyId, Option<String>)>,
}

/// What a repair has written so far, so that a retry does not write it again.
#[derive(Debug, Default)]
struct RepairProgress {
    /// `format`, the key slot and the copies of index objects.
    entry_objects: bool,
    /// The numbers of lost records are occupied.
    occupied: bool,
    /// The moved chunks, and the tables of the packs that hold them.
    moved: (Vec<ChunkId>, Vec<PackTable>),
    /// The tables in new index objects, and these objects.
    listed: (Vec<PackTable>, Vec<IndexId>),
}

impl RepairPlan {
    async fn make(store: Arc<dyn Store>, by: &RepairRequest<'_>) -> Result<Self, RepairError> {
        let step = by.inputs;
        let entered = recovery::open_damaged(store, step).await?;
        let repository = &entered.repository;
        // A repository that differs from the one this node knows is repaired only after an operator has accepted it.
        if let Some(known) = step.place.differing_repository(step.env, step.state_dir, repository) {
            let (role, found) = (step.role.clone(), repository.keys.repo());
            return Err(OpenError::Another { role, store: step.place.store().to_owned(), known, found }.into());
        }
        repository.store.measure_clock_offset().await;
        let journal = step.journal_access.journal(repository, step.env, &by.node, by.instance)?;
        let local = step.state_dir.map(|dir| LocalState::peek(step.env, dir, repository.keys.repo()));
        let known = local.as_ref().and_then(LocalState::last_view);
        let mending = journal.start_salvage(known.as_ref()).await?;
        let (index_cache, more) = (local.as_ref().map(LocalState::index_cache), mending.salvaged.may_lack_indexes());
        let index =
            index::plan(repository, &mending.salvaged.view.state, index_cache.as_ref(), more, by.read_data).await?;
        let copy = journal.wrong_copy(&mending.salvaged.view.state).await?;
        let keys = list_key_slots(repository.store.as_ref(), step.role).await?.found.into_iter();
        let keys = keys.map(|found| (found.id, found.slot.err().map(|error| error.to_string()))).collect();
        Ok(Self { recovered: entered, journal, mending, index, copy, keys })
    }

    /// Extends the plan by the records appended since; only those are read. `None`: the plan has to be made anew.
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

    /// Whether a record has to be appended.
    fn needs_record(&self) -> bool {
        let mended = &self.mending.salvaged;
        !mended.is_sound() || !mended.remembered_snapshots.is_empty() || self.index.changes(&mended.view.state)
    }

    /// `None`: a record was appended meanwhile, or a lost object is back.
    async fn apply(
        &self,
        by: &RepairRequest<'_>,
        forced: bool,
        written: &mut RepairProgress,
    ) -> Result<Option<RepairReport>, RepairError> {
        let (repository, env, mended) = (&self.recovered.repository, by.inputs.env, &self.mending.salvaged);
        let (store, role) = (repository.store.as_ref(), repository.role());
        if self.needs_record() {
            check_understood(&mended.view)?;
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

    /// Writes `format` and the key slot.
    async fn write_entry_objects(&self, by: &RepairRequest<'_>) -> Result<(), RepairError> {
        let repository = &self.recovered.repository;
        let (store, role) = (repository.store.as_ref(), repository.role());
        if let Some((id, object)) = self.recovered.slot.as_ref().filter(|_| by.key_slot) {
            let key = object_keys::key(role, *id);
            // The object is named after its content, so an object with other content is damaged.
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
            // The object in the store is unusable.
            store.put(&key, Bytes::from(object)).await?;
        }
        Ok(())
    }
}

/// Finds out what is lost, and changes nothing.
///
/// # Errors
/// The repository cannot be opened, or the store does not answer.
pub async fn dry_run(store: Arc<dyn Store>, by: &RepairRequest<'_>) -> Result<RepairReport, RepairError> {
    Ok(Box::pin(RepairPlan::make(store, by)).await?.report(by))
}

/// Repairs what can be repaired.
///
/// # Errors
/// No record was appended, or it is unknown whether it was.
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
        // If other nodes keep appending, only their records are read, which is far less than reading everything again.
        plan = if let Some(plan) = Box::pin(plan.extend()).await? {
            plan
        } else {
            written = RepairProgress::default();
            Box::pin(RepairPlan::make(Arc::clone(&store), by)).await?
        };
    }
}

/// What is left of a damaged repository.
#[derive(Debug)]
pub struct SalvagedRepository {
    /// The repository, with what is left of its journal.
    pub archive: ReadOnlyRepository,
    /// Snapshots that are known only from unverified records: the holder of a former key can have made them up.
    pub unvouched: Vec<Snapshot>,
    /// The index objects that those records name.
    indexes: Vec<IndexId>,
    /// Lost records may have named further index objects.
    more: bool,
}

impl SalvagedRepository {
    /// A reader of everything that is left; for a snapshot that is not vouched for, also of the index objects that
    /// unverified records name.
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

/// Opens what is left of a repository for reading: writes nothing, neither to the store nor to this node's state.
///
/// # Errors
/// The repository cannot be opened, or the store does not answer.
pub async fn open_salvaged(store: Arc<dyn Store>, step: RecoveryInputs<'_>) -> Result<SalvagedRepository, RepairError> {
    let RecoveredRepository { repository, .. } = recovery::open_damaged(store, step).await?;
    let journal = read_only_journal(&repository, step.env);
    let local = step.state_dir.map(|dir| LocalState::peek(step.env, dir, repository.keys.repo()));
    let known = local.as_ref().and_then(LocalState::last_view);
    let mended = Box::pin(journal.salvage_readable(known.as_ref())).await?;
    let index_cache = local.map(|local| local.index_cache()).filter(|index_cache| index_cache.dir.is_dir());
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
        index_cache,
        losses: LossLog::default(),
    };
    Ok(SalvagedRepository { archive, unvouched, indexes, more })
}

/// Writes these chunks to new packs.
async fn move_chunks(
    repository: &Repository,
    reader: &RepositoryReader,
    chunks: &[ChunkId],
    env: &Env,
) -> Result<Vec<PackTable>, RepairError> {
    let mut writer = PackWriter::new(repository, env, None);
    for &id in chunks {
        let bytes = reader.chunk(&id).await.map_err(RepairError::Read)?;
        writer.push(ChunkEntry { id, len: bytes.len() as u32 }, &bytes).await?;
    }
    Ok(writer.finish().await?)
}

#[cfg(test)]
mod tests;
