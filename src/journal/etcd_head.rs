//! A journal whose head is in a register, because the store ignores conditions. [`head_state`] judges how the two
//! agree.
//!
//! The invariants: the register alone decides which writer appends, by comparing the whole record before. The winner,
//! or the next appender, puts the record into the store. Only then does a node act on it or report it. Nothing else
//! writes records into the store, so the store has the same journal, and all that a restore needs.

use std::time::Duration;

use bytes::Bytes;

use crate::ids::{Seq, Term};
use crate::journal::body::{RecordBody, TakeoverBody, TakeoverReason};
use crate::journal::draft::{RESOLVE_LIMIT, RESOLVE_PAUSE, RecordDraft, check_understood};
use crate::journal::error::{AppendError, HeadConflict, JournalError};
use crate::journal::head_state::{self, HeadState};
use crate::journal::reader::Journal;
use crate::journal::record::Record;
use crate::journal::register::{CasOutcome, EtcdHead, RegisterError, RegisterValue};
use crate::journal::view::JournalView;
use crate::repo::object_keys;
use crate::store::{PutOutcome, StoreError, StoreErrorKind, put_idempotent};

/// How long a reader retries copying a missing record into the store; the appender retries too.
const COPY_LIMIT: Duration = Duration::from_secs(5);

/// Number of times that an adoption is tried again while the register changes.
const ADOPT_ATTEMPTS: u32 = 16;

/// Result of an adoption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdoptOutcome {
    /// The head was sound: nothing was written.
    Unneeded(Box<JournalView>),
    /// The journal continues from the store's last record.
    Adopted {
        /// The conflict before.
        was: HeadConflict,
        /// The journal after the adoption.
        view: Box<JournalView>,
    },
}

/// The head and the store, read one after the other.
struct HeadComparison {
    reading: RegisterValue,
    /// The view that the two show together.
    view: JournalView,
    conflict: Option<HeadConflict>,
}

impl Journal {
    /// Reads to the head. The store has the head when this returns.
    pub(super) async fn read_with_head(
        &self,
        etcd_head: &EtcdHead,
        known: Option<&JournalView>,
    ) -> Result<JournalView, JournalError> {
        let HeadComparison { view, conflict, .. } = self.compare_head(etcd_head, known).await?;
        conflict.map_or(Ok(view), |conflict| Err(JournalError::HeadConflict(conflict)))
    }

    async fn compare_head(
        &self,
        etcd_head: &EtcdHead,
        known: Option<&JournalView>,
    ) -> Result<HeadComparison, JournalError> {
        // All that the store had before the register was read, the register had too.
        let mut floor = Seq(0);
        loop {
            let reading = etcd_head.register.read().await?;
            let view = self.read_store(known).await?;
            let store = view.head.as_ref().map_or(Seq(0), |head| head.seq);
            let clusters = (reading.cluster, etcd_head.cluster);
            let (view, conflict) = match head_state::judge_head(&view, reading.value.as_deref(), clusters, &self.keys)?
            {
                HeadState::InSync => (view, None),
                HeadState::HeadAhead(after) => {
                    let object = reading.value.as_ref().expect("a head that is ahead is there");
                    self.copy_to_store(view.next_seq(), object, COPY_LIMIT).await?;
                    (*after, None)
                }
                HeadState::HeadBehind(head) if head >= floor => {
                    floor = store;
                    continue;
                }
                HeadState::HeadBehind(head) => (view, Some(HeadConflict::Behind { head, store })),
                HeadState::Conflicted(conflict) => (view, Some(conflict)),
            };
            return Ok(HeadComparison { reading, view, conflict });
        }
    }

    /// Swaps the record into the register until an answer tells which record has the number, and copies it to the
    /// store. True: this record. False: another writer's.
    pub(super) async fn cas_until_known(
        &self,
        etcd_head: &EtcdHead,
        seq: Seq,
        before: &Bytes,
        object: &Bytes,
    ) -> Result<bool, AppendError> {
        // A record after the head that was read: another node was faster, or another cluster continues this journal.
        if self.read_object(seq).await.map_err(JournalError::Store)?.is_some() {
            return Ok(false);
        }
        let started = self.env.clock.boottime();
        let (mut pause, mut doubt) = (RESOLVE_PAUSE.0, false);
        loop {
            let why = match etcd_head.register.compare_and_swap(Some(before), object.clone()).await {
                Ok(CasOutcome::Swapped) => break,
                // No earlier swap of this append can have taken effect.
                Ok(CasOutcome::Mismatch(_)) if !doubt => return Ok(false),
                Ok(CasOutcome::Mismatch(now)) => match self.is_own_record(seq, object, now.as_ref()).await {
                    Ok(Some(true)) => break,
                    Ok(Some(false)) => return Ok(false),
                    Ok(None) => "etcd no longer has the head that the record was to follow".to_owned(),
                    Err(error) => error.to_string(),
                },
                Ok(CasOutcome::Unknown { why }) => {
                    doubt = true;
                    why
                }
                Err(error) if !doubt => return Err(AppendError::Register { seq, error }),
                Err(error) => error.to_string(),
            };
            if self.env.clock.boottime().saturating_sub(started) >= RESOLVE_LIMIT {
                return Err(AppendError::Unknown { seq, why });
            }
            self.env.sleep(pause).await;
            pause = (pause * 2).min(RESOLVE_PAUSE.1);
        }
        #[cfg(feature = "planted")]
        if crate::planted::is(crate::planted::PlantedBug::NotMirrored) {
            return Ok(true);
        }
        // From here on the record is in the journal, whichever node copies it to the store.
        let copied = self.copy_to_store(seq, object, RESOLVE_LIMIT).await;
        copied.map(|()| true).map_err(|error| AppendError::Unknown { seq, why: error.to_string() })
    }

    /// Whether `object` became record `seq`, now that the register no longer has the record before. `None`: unknown.
    async fn is_own_record(&self, seq: Seq, object: &Bytes, now: Option<&Bytes>) -> Result<Option<bool>, StoreError> {
        if now == Some(object) {
            return Ok(Some(true));
        }
        // A writer that continued from it has copied it to the store first.
        if let Some(there) = self.read_object(seq).await? {
            return Ok(Some(there == *object));
        }
        let now = now.and_then(|now| Record::decode(now, Some(&self.keys)).ok());
        Ok(now.filter(|record| record.seq == seq).map(|_| false))
    }

    /// Copies a record from the register to the store until the store has it.
    async fn copy_to_store(&self, seq: Seq, object: &Bytes, limit: Duration) -> Result<(), JournalError> {
        let started = self.env.clock.boottime();
        let (mut pause, mut doubt) = (RESOLVE_PAUSE.0, false);
        loop {
            let doubted = doubt;
            let error = match self.try_copy_to_store(seq, object, &mut doubt).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // One put without an answer may take longer than `limit`, and be the only one that is missing.
            let last = doubted || !doubt;
            if last && self.env.clock.boottime().saturating_sub(started) >= limit {
                return Err(error);
            }
            self.env.sleep(pause).await;
            pause = (pause * 2).min(RESOLVE_PAUSE.1);
        }
    }

    /// One try of [`Journal::copy_to_store`]. `doubt`: a put of this process had no answer, so the object may be
    /// visible and not yet durable.
    async fn try_copy_to_store(&self, seq: Seq, object: &Bytes, doubt: &mut bool) -> Result<(), JournalError> {
        let key = object_keys::record(self.keys.role(), seq);
        if self.is_copied(seq, object).await? && !*doubt {
            return Ok(());
        }
        // A store that respects the condition only sometimes still gains a guard.
        let put = put_idempotent(self.store.as_ref(), &key, object.clone()).await;
        let answered = matches!(put, Ok(PutOutcome::Created | PutOutcome::Exists));
        *doubt |= !answered;
        if self.is_copied(seq, object).await? && answered {
            return Ok(());
        }
        let (kind, detail) = match put? {
            PutOutcome::Unknown { why } => (StoreErrorKind::Unreachable, why),
            PutOutcome::Created | PutOutcome::Exists => {
                (StoreErrorKind::Other, "the object was put and is missing".to_owned())
            }
        };
        Err(StoreError::new(kind, &self.store.describe(), Some(&key), detail).into())
    }

    async fn is_copied(&self, seq: Seq, object: &Bytes) -> Result<bool, JournalError> {
        match self.read_object(seq).await? {
            Some(there) if there == *object => Ok(true),
            Some(_) => Err(JournalError::HeadConflict(HeadConflict::Other(seq))),
            None => Ok(false),
        }
    }

    /// Whether the register, if there is one, has the head of this view.
    pub(super) async fn is_head_in_store(&self, view: &JournalView) -> Result<bool, JournalError> {
        let Some(etcd_head) = self.etcd_head.as_ref() else { return Ok(true) };
        let reading = etcd_head.register.read().await?;
        let clusters = (reading.cluster, etcd_head.cluster);
        let head_state = head_state::judge_head(view, reading.value.as_deref(), clusters, &self.keys)?;
        Ok(matches!(head_state, HeadState::InSync))
    }

    /// The conflict between the head and `view`, for a command that only looks. `None`: no conflict is visible.
    pub async fn check_head(&self, view: &JournalView) -> Result<Option<HeadConflict>, RegisterError> {
        let Some(etcd_head) = self.etcd_head.as_ref() else { return Ok(None) };
        let reading = etcd_head.register.read().await?;
        let clusters = (reading.cluster, etcd_head.cluster);
        Ok(match head_state::judge_head(view, reading.value.as_deref(), clusters, &self.keys) {
            Ok(HeadState::Conflicted(conflict)) => Some(conflict),
            Ok(HeadState::HeadBehind(head)) => Some(HeadConflict::Behind { head, store: Seq(view.next_seq().0 - 1) }),
            // `HeadAhead`: records were appended after the store was read.
            Ok(HeadState::InSync | HeadState::HeadAhead(_)) | Err(_) => None,
        })
    }

    /// Lets the journal continue from the store's last record, by a takeover that becomes the head. Does nothing if the
    /// head is sound.
    ///
    /// # Errors
    /// The store lost records, or head or store cannot be read or written.
    pub async fn adopt(&self, known: Option<&JournalView>) -> Result<AdoptOutcome, AppendError> {
        let etcd_head = self.etcd_head.as_ref().expect("only a journal in a register is adopted");
        let mut own: Option<(Bytes, HeadConflict)> = None;
        let mut refused: Option<(Option<Bytes>, RegisterError)> = None;
        let mut why = "the head of the journal changes all the time".to_owned();
        let mut last = Seq(0);
        for _ in 0..ADOPT_ATTEMPTS {
            let HeadComparison { reading, view, conflict } = self.compare_head(etcd_head, known).await?;
            let Some(conflict) = conflict else {
                // An earlier swap without an answer may have taken effect.
                let was = own.filter(|(object, _)| reading.value.as_ref() == Some(object)).map(|(_, was)| was);
                let view = Box::new(view);
                return Ok(was.map_or_else(
                    || AdoptOutcome::Unneeded(view.clone()),
                    |was| AdoptOutcome::Adopted { was, view: view.clone() },
                ));
            };
            // The swap was refused, and the register has the same value as before.
            if let Some((before, error)) = refused.take()
                && before == reading.value
            {
                return Err(AppendError::Register { seq: last, error });
            }
            check_understood(&view)?;
            let takeover = TakeoverBody { cluster: Some(reading.cluster), ..TakeoverBody::new(TakeoverReason::Adopt) };
            let term = Term(view.term().0 + 1);
            let before = reading.value.clone().unwrap_or_default();
            let (record, object) = self.compose(
                &view,
                &before,
                RecordDraft { term, takeover: None, body: RecordBody::Takeover(takeover), slot: None },
            )?;
            last = record.seq;
            match etcd_head.register.compare_and_swap(reading.value.as_ref(), object.clone()).await {
                Ok(CasOutcome::Swapped | CasOutcome::Mismatch(_)) => {}
                Ok(CasOutcome::Unknown { why: no_answer }) => {
                    why = no_answer;
                    self.env.sleep(RESOLVE_PAUSE.0).await;
                }
                // No earlier swap of this adoption is under way.
                Err(error) if own.is_none() => {
                    why = error.to_string();
                    refused = Some((reading.value.clone(), error));
                }
                Err(error) => why = error.to_string(),
            }
            own = Some((object, conflict));
        }
        Err(AppendError::Unknown { seq: last, why })
    }
}
