//! Lets a journal continue that lost records. [`JournalSalvager`] finds what is left.
//!
//! The invariants: before a repair is appended, every number that it calls lost is occupied, so that no writer that was
//! away since then can take one. The repair itself is a takeover at the number after the last, which fences like any
//! other. It carries the state that is left, whatever its number is, and readers that meet a lost record continue from
//! there.

use std::collections::BTreeSet;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;

use crate::ids::{Digest, RepoId, RoleName, Seq};
use crate::journal::body::{RecordBody, TakeoverBody, TakeoverReason};
use crate::journal::draft::check_understood;
use crate::journal::emptied;
use crate::journal::error::{AppendError, JournalError};
use crate::journal::permit::Permit;
use crate::journal::reader::Journal;
use crate::journal::record::{self, Record, RecordError};
use crate::journal::rotation::RotationState;
use crate::journal::salvage::{JournalSalvager, LostRecord, SalvagedJournal};
use crate::journal::state::JournalState;
use crate::journal::view::JournalView;
use crate::journal::void_numbers::{self, VOID_MAX};
use crate::repo::{mac_line, object_keys};
use crate::role::candidacy::Candidacy;
use crate::store::{
    LIST_PAGE_MAX, LargeReadLock, ObjectMeta, PutOutcome, SizeLimit, StoreError, StoreErrorKind,
    get_with_large_read_lock, list_filtered, put_idempotent,
};

/// Records fetched at once.
const READ_AHEAD: usize = 16;

/// The most copies of rotations that are listed: as many as there can be generations.
const COPIES_MAX: usize = 64;

/// Number of times that the placeholder for a lost number is put while no answer comes.
const FILL_ATTEMPTS: u32 = 5;

/// The most records missing in a listing that are asked for one by one.
const GAPS_ASKED_MAX: usize = 16;

/// Why a journal cannot be salvaged.
#[derive(Debug, thiserror::Error)]
pub enum SalvageError {
    /// The store failed.
    #[error("the journal cannot be read: {0}")]
    Store(#[from] StoreError),
    /// A record is of a newer version.
    #[error("journal record {seq} {error}")]
    Newer {
        /// The number of the record.
        seq: Seq,
        /// The error.
        error: RecordError,
    },
    /// The journal continues under a newer key: a record that an old key does not open is not lost.
    #[error(transparent)]
    Rotated(JournalError),
    /// More records are lost than one repair can name.
    #[error(
        "more than {VOID_MAX} of the {last} records of the journal are lost: the store is an old copy, or another \
         program wrote {key}"
    )]
    TooMany {
        /// The last occupied number.
        last: Seq,
        /// Its key.
        key: String,
    },
}

/// What is left of a journal, and up to which record it was read.
#[derive(Debug, Clone)]
pub struct SalvageProgress {
    /// What is left.
    pub salvaged: SalvagedJournal,
    salvager: JournalSalvager,
    last: Seq,
}

/// An object at the key of the copy of a rotation's record that is not that copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongRotationCopy {
    /// Its key.
    pub key: String,
    /// What is wrong with it.
    pub what: String,
    /// The right copy.
    pub object: Bytes,
}

/// The object that a repair puts at an empty number whose record is lost. It is not a record, and is the same on every
/// node.
#[derive(Serialize)]
struct VoidPlaceholder<'a> {
    v: u32,
    role: &'a RoleName,
    repo: RepoId,
    seq: Seq,
    lost: bool,
}

impl Journal {
    fn void_placeholder(&self, seq: Seq) -> Bytes {
        let placeholder =
            VoidPlaceholder { v: record::VERSION, role: self.keys.role(), repo: self.keys.repo(), seq, lost: true };
        Bytes::from(mac_line::seal(&serde_json::to_vec(&placeholder).expect("plain data becomes JSON"), &self.keys))
    }

    /// Reads every record, and returns what is left; `known` is what this node remembers.
    ///
    /// # Errors
    /// The store does not answer, a newer version wrote here, or more is lost than one repair can name.
    pub async fn salvage(&self, known: Option<&JournalView>) -> Result<SalvagedJournal, SalvageError> {
        Ok(self.start_salvage(known).await?.salvaged)
    }

    /// [`Journal::salvage`] for reading only: if more is lost than one repair can name, what is before that.
    ///
    /// # Errors
    /// The store does not answer, a newer version wrote here, or nothing is left.
    pub async fn salvage_readable(&self, known: Option<&JournalView>) -> Result<SalvagedJournal, SalvageError> {
        match Box::pin(self.salvage(known)).await {
            Err(error @ SalvageError::TooMany { .. }) => match Box::pin(self.sound_end()).await? {
                Seq(0) if known.is_none() => Err(error),
                end => Ok(Box::pin(self.start_salvage_to(known, Some(end))).await?.salvaged),
            },
            salvaged => salvaged,
        }
    }

    /// [`Journal::salvage`] with the progress from which [`Journal::continue_salvage`] continues.
    ///
    /// # Errors
    /// As [`Journal::salvage`].
    pub async fn start_salvage(&self, known: Option<&JournalView>) -> Result<SalvageProgress, SalvageError> {
        Box::pin(self.start_salvage_to(known, None)).await
    }

    /// [`Journal::start_salvage`] up to record `end`, ignoring all records after it.
    async fn start_salvage_to(
        &self,
        known: Option<&JournalView>,
        end: Option<Seq>,
    ) -> Result<SalvageProgress, SalvageError> {
        let progress = self.salvage_with(known, end).await?;
        let knows_rotation = known.is_some_and(|known| known.generation() == self.keys.generation());
        if knows_rotation || !progress.salvaged.is_partial && progress.salvaged.unstarted_generation.is_none() {
            return Ok(progress);
        }
        // The copy of the rotation's record has what a node would remember that has seen the record.
        match self.rotation_copy().await? {
            Some(view) => self.salvage_with(Some(&view), end).await,
            None => Ok(progress),
        }
    }

    /// The last record that can be used before more than [`VOID_MAX`] numbers in a row have none. Records after those
    /// are not part of this journal: any writer to the store can put objects there.
    ///
    /// # Errors
    /// The store does not answer, or a newer version wrote here.
    pub async fn sound_end(&self) -> Result<Seq, SalvageError> {
        let (mut end, large_read_lock) = (Seq(0), &LargeReadLock::default());
        let mut records = stream::iter((1..).map(Seq))
            .map(|seq| async move { Ok::<_, SalvageError>((seq, self.read_usable(seq, large_read_lock).await?)) })
            .buffered(READ_AHEAD);
        while let Some((seq, record)) = records.try_next().await? {
            if record.is_ok() {
                end = seq;
            } else if seq.0 - end.0 > VOID_MAX as u64 {
                break;
            }
        }
        Ok(end)
    }

    /// Reads what was appended since. `None`: what must be repaired may have changed, and the salvage starts again.
    ///
    /// # Errors
    /// The store does not answer, or a newer version wrote here.
    pub async fn continue_salvage(&self, before: &SalvageProgress) -> Result<Option<SalvageProgress>, SalvageError> {
        let (mut salvager, mut last, large_read_lock) =
            (before.salvager.clone(), before.last, LargeReadLock::default());
        loop {
            let seq = last.next();
            match self.read_usable(seq, &large_read_lock).await? {
                Ok(record) => salvager.add(seq, Ok(record)),
                Err(lost) if lost.missing => break,
                Err(_) => return Ok(None),
            }
            last = seq;
        }
        let salvaged = salvager.clone().finish(|seq| record::digest(&self.void_placeholder(seq)));
        let is_news = last > before.last && salvaged.continues(&before.salvaged);
        Ok(is_news.then_some(SalvageProgress { salvaged, salvager, last }))
    }

    /// The journal up to the rotation that begins the newest generation, from the copy of the rotation's record.
    async fn rotation_copy(&self) -> Result<Option<JournalView>, StoreError> {
        if self.keys.generation().is_first() {
            return Ok(None);
        }
        let (role, store) = (self.keys.role(), self.store.as_ref());
        let prefix = object_keys::rotations_prefix(role);
        let copy = |object: ObjectMeta| object_keys::parse_rotation(role, &object.key);
        let mut copies = list_filtered(store, &prefix, COPIES_MAX, copy).await?.found;
        copies.sort_unstable();
        for seq in copies.into_iter().rev() {
            let object = match store.get(&object_keys::rotation(role, seq), SizeLimit::RECORD).await {
                Ok(object) => object,
                Err(error) if error.is_not_found() || error.concerns_one_object() => continue,
                Err(error) => return Err(error),
            };
            let Ok(record) = Record::decode(&object, Some(&self.keys)) else { continue };
            let begins = matches!(&record.body, RecordBody::Rotate(body) if body.generation == self.keys.generation());
            let own = record.is_at(seq, &self.keys);
            let Some(mut view) = JournalView::before_checkpoint(&record).filter(|_| begins && own) else { continue };
            if view.apply(&record, record::digest(&object)).is_ok() {
                return Ok(Some(view));
            }
        }
        Ok(None)
    }

    /// Writes a copy of a rotation's record. With the copy, [`Journal::salvage`] needs only the store and the key.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn save_rotation_copy(&self, seq: Seq) -> Result<(), StoreError> {
        let Some(object) = self.read_object(seq).await? else { return Ok(()) };
        let (role, key) = (self.keys.role(), object_keys::rotation(self.keys.role(), seq));
        match put_idempotent(self.store.as_ref(), &key, object.clone()).await {
            Err(error) if error.kind == StoreErrorKind::Denied => Ok(()),
            Ok(PutOutcome::Exists) => {
                if let Some(what) = self.compare_rotation_copy(seq, &object).await? {
                    tracing::warn!("{key} {what}: 'runner repair {role}' writes the copy again");
                }
                Ok(())
            }
            Ok(PutOutcome::Unknown { why }) => {
                tracing::warn!("it is unknown whether the copy of journal record {seq} was written: {why}");
                Ok(())
            }
            put => put.map(|_: PutOutcome| ()),
        }
    }

    /// The object at the key of the copy of the newest rotation's record, if it is another object. A store may have no
    /// copy: its policy forbade it, or the rotation was made by a version from before the copies.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn wrong_copy(&self, state: &JournalState) -> Result<Option<WrongRotationCopy>, StoreError> {
        let Some(RotationState { generation, seq }) = state.rotated else { return Ok(None) };
        let object = match self.read_object(seq).await {
            Ok(Some(object)) => object,
            Ok(None) => return Ok(None),
            Err(error) if error.concerns_one_object() => return Ok(None),
            Err(error) => return Err(error),
        };
        // If the rotation's record is lost, this is the record before it.
        let body = Record::decode(&object, Some(&self.keys)).map(|record| record.body);
        if !matches!(body, Ok(RecordBody::Rotate(body)) if body.generation == generation) {
            return Ok(None);
        }
        let what = self.compare_rotation_copy(seq, &object).await?;
        Ok(what.map(|what| WrongRotationCopy { key: object_keys::rotation(self.keys.role(), seq), what, object }))
    }

    /// What is wrong with the copy of record `seq`, whose object is `object`; `None`: there is no copy, or the right
    /// one.
    async fn compare_rotation_copy(&self, seq: Seq, object: &Bytes) -> Result<Option<String>, StoreError> {
        match self.store.get(&object_keys::rotation(self.keys.role(), seq), SizeLimit::RECORD).await {
            Ok(copy) => {
                Ok((copy != *object).then(|| format!("is not the copy of journal record {seq} that it should be")))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) if error.concerns_one_object() => Ok(Some(format!("cannot be read ({})", error.detail))),
            Err(error) => Err(error),
        }
    }

    /// The last occupied number.
    async fn last_occupied(&self) -> Result<Seq, SalvageError> {
        let listed = self.listed_numbers().await?;
        let mut last = listed.last().copied().unwrap_or(Seq(0));
        // A listing may lag.
        while self.is_occupied(last.next()).await? {
            last = last.next();
        }
        if last.0.saturating_sub(listed.len() as u64) > VOID_MAX as u64 {
            return Err(SalvageError::TooMany { last, key: object_keys::record(self.keys.role(), last) });
        }
        Ok(last)
    }

    async fn salvage_with(
        &self,
        known: Option<&JournalView>,
        end: Option<Seq>,
    ) -> Result<SalvageProgress, SalvageError> {
        let mut last = match end {
            Some(end) => end,
            None => self.last_occupied().await?,
        };
        // There was a first record: it is lost, and this node does not know how many followed it.
        if last == Seq(0) && known.is_none() && emptied::is_emptied(self.store.as_ref(), &self.keys).await? {
            last = Seq::FIRST;
        }
        let (repairs, fetched) = void_numbers::repairs_to(self.store.as_ref(), &self.keys, Seq::FIRST, last).await?;
        let large_read_lock = LargeReadLock::default();
        let usable = async |seq| match (repairs.voided_by(seq), fetched.get(seq)) {
            (Some(by), _) => {
                Ok(Err(LostRecord { seq, what: format!("is void by record {by}"), found: None, missing: false }))
            }
            (None, Some(object)) => self.decode_usable(seq, object),
            (None, None) => self.read_usable(seq, &large_read_lock).await,
        };
        let mut salvager =
            JournalSalvager::new(self.keys.role().clone(), self.keys.repo(), known, self.keys.generation())
                .with_repairs(&repairs);
        let mut records = stream::iter((1..=last.0).map(Seq))
            .map(|seq| async move { Ok::<_, SalvageError>((seq, usable(seq).await?)) })
            .buffered(READ_AHEAD);
        while let Some((seq, record)) = records.try_next().await? {
            salvager.add(seq, record);
        }
        drop(records);
        let salvaged = salvager.clone().finish(|seq| record::digest(&self.void_placeholder(seq)));
        // A record that an old key does not open is not lost.
        if let Err(error @ JournalError::Rotated { .. }) = self.check_generation(&salvaged.view) {
            return Err(SalvageError::Rotated(error));
        }
        if end.is_none() && salvaged.lost_records.len() > VOID_MAX {
            return Err(SalvageError::TooMany { last, key: object_keys::record(self.keys.role(), last) });
        }
        Ok(SalvageProgress { salvaged, salvager, last })
    }

    async fn listed_numbers(&self) -> Result<BTreeSet<Seq>, StoreError> {
        let role = self.keys.role();
        let record = |object: ObjectMeta| object_keys::parse_record(role, &object.key);
        let listed = list_filtered(self.store.as_ref(), &object_keys::journal_prefix(role), usize::MAX, record).await?;
        Ok(listed.found.into_iter().collect())
    }

    /// The record, or why there is none. Large records are read one after the other, under `large_read_lock`.
    async fn read_usable(
        &self,
        seq: Seq,
        large_read_lock: &LargeReadLock,
    ) -> Result<Result<(Record, Digest), LostRecord>, SalvageError> {
        let lost = |what: String, missing| Ok(Err(LostRecord { seq, what, found: None, missing }));
        let (key, limits) = (object_keys::record(self.keys.role(), seq), (SizeLimit::RECORD_AHEAD, SizeLimit::RECORD));
        match get_with_large_read_lock(self.store.as_ref(), &key, limits, large_read_lock).await {
            Ok((object, _guard)) => self.decode_usable(seq, &object),
            Err(error) if error.is_not_found() => lost("is missing".to_owned(), true),
            Err(error) if error.concerns_one_object() => lost(error.detail, false),
            Err(error) => Err(error.into()),
        }
    }

    fn decode_usable(&self, seq: Seq, object: &Bytes) -> Result<Result<(Record, Digest), LostRecord>, SalvageError> {
        let digest = record::digest(object);
        match Record::decode(object, Some(&self.keys)) {
            Ok(record) => Ok(Ok((record, digest))),
            Err(error @ RecordError::Newer(_)) => Err(SalvageError::Newer { seq, error }),
            Err(error) => Ok(Err(LostRecord { seq, what: error.to_string(), found: Some(digest), missing: false })),
        }
    }

    /// Occupies every empty number that `salvaged` calls lost: this precedes [`Journal::repair`]. False: an object came
    /// back at one of them.
    ///
    /// # Errors
    /// The store fails, or it is unknown whether a number is occupied.
    pub async fn fill_void_numbers(&self, salvaged: &SalvagedJournal) -> Result<bool, AppendError> {
        check_understood(&salvaged.view)?;
        for lost in &salvaged.lost_records {
            if !self.fill_void_number(lost).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Appends a repair: the records that `salvaged` calls lost are lost, and `state` is what is left. It fences like
    /// every takeover. [`Journal::fill_void_numbers`] occupies the numbers before.
    ///
    /// # Errors
    /// [`AppendError::Moved`]: something was appended since it was read.
    pub async fn repair(
        &self,
        salvaged: &SalvagedJournal,
        state: JournalState,
        candidacy: &Candidacy,
        forced: bool,
    ) -> Result<(Permit, JournalView), AppendError> {
        let mut view = JournalView { state, ..salvaged.view.clone() };
        if view.generation() < self.keys.generation() {
            // The key proves a rotation whose record is lost.
            let seq = salvaged.view.head.as_ref().map_or(Seq(0), |head| head.seq);
            view.state.rotated = Some(RotationState { generation: self.keys.generation(), seq });
        }
        check_understood(&view)?;
        let void = salvaged.lost_records.iter().map(|lost| lost.seq).collect();
        let takeover =
            TakeoverBody { forced, void, lost: salvaged.lost_tail, ..TakeoverBody::new(TakeoverReason::Repair) };
        self.take_over_as(&view, candidacy, takeover).await
    }

    /// Occupies a lost number that is empty. False: another object is there by now.
    async fn fill_void_number(&self, lost: &LostRecord) -> Result<bool, AppendError> {
        let (seq, key) = (lost.seq, object_keys::record(self.keys.role(), lost.seq));
        let placeholder = self.void_placeholder(seq);
        let failed = |error| AppendError::Store { seq, error };
        if !lost.missing {
            // An object that can be read stays, as evidence.
            return match lost.found {
                Some(_) => Ok(true),
                None => self.store.put(&key, placeholder).await.map_err(failed).map(|()| true),
            };
        }
        let mut last = String::new();
        for _ in 0..FILL_ATTEMPTS {
            match put_idempotent(self.store.as_ref(), &key, placeholder.clone()).await.map_err(failed)? {
                PutOutcome::Created => return Ok(true),
                PutOutcome::Exists => {
                    let there = self.read_object(seq).await.map_err(failed)?;
                    // A record that came back, or that a writer put there that was away.
                    return Ok(there.is_some_and(|there| there == placeholder));
                }
                PutOutcome::Unknown { why } => last = why,
            }
        }
        Err(AppendError::Unknown { seq, why: last })
    }

    /// The newest numbers that this view has read and the store no longer has. One request lists them. The first
    /// `GAPS_ASKED_MAX` that are not listed are asked for one by one, because a listing may lag; the rest counts as
    /// lost only if all of those are. Void numbers are not counted.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn missing_records(&self, view: &JournalView) -> Result<Vec<Seq>, StoreError> {
        let Some(head) = view.head.as_ref() else { return Ok(Vec::new()) };
        let role = self.keys.role();
        let first = head.seq.0.saturating_sub(LIST_PAGE_MAX as u64 / 2);
        let (prefix, after) = (object_keys::journal_prefix(role), object_keys::record(role, Seq(first)));
        let page = self.store.list(&prefix, Some(&after), LIST_PAGE_MAX).await?;
        let listed: BTreeSet<Seq> =
            page.objects.iter().filter_map(|object| object_keys::parse_record(role, &object.key)).collect();
        // A page with other objects shows fewer records.
        let shown = if page.truncated { listed.last().copied().unwrap_or(Seq(0)) } else { head.seq };
        let mut missing: Vec<Seq> =
            (first + 1..=head.seq.min(shown).0).map(Seq).filter(|seq| !listed.contains(seq)).collect();
        if !missing.is_empty() {
            let repairs = self.repairs(view).await?;
            missing.retain(|seq| !repairs.is_void(*seq));
        }
        let rest = missing.split_off(missing.len().min(GAPS_ASKED_MAX));
        let asked = stream::iter(missing).map(async |seq| Ok::<_, StoreError>((seq, self.is_occupied(seq).await?)));
        let asked: Vec<(Seq, bool)> = asked.buffered(GAPS_ASKED_MAX).try_collect().await?;
        let is_lag = asked.iter().any(|(_, is_there)| *is_there);
        let mut gone: Vec<Seq> = asked.into_iter().filter(|(_, is_there)| !is_there).map(|(seq, _)| seq).collect();
        gone.extend(rest.into_iter().filter(|_| !is_lag));
        Ok(gone)
    }
}

#[cfg(test)]
pub(super) mod tests;
