//! A journal whose head is in a register, because the store ignores conditions: the adapter around [`head_state`].
//!
//! The invariants: the register alone decides who appends, by comparing the whole record before; whoever won, or whoever comes next and
//! means to append, puts the record into the store; and only then may anybody act on it or report it. Nothing else writes
//! records into the store, so that what is there is the same journal, and all that a restore needs.

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

/// How long somebody who found a record missing in the store tries to put it there. Whoever appended it is at it as well.
const MIRROR_LIMIT: Duration = Duration::from_secs(5);

/// How often a journal is adopted anew while its register changes.
const ADOPT_ATTEMPTS: u32 = 16;

/// What adopting a journal came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdoptOutcome {
    /// There was no need.
    Unneeded(Box<JournalView>),
    /// It goes on from the store's last record.
    Adopted {
        /// What was wrong.
        was: HeadConflict,
        /// The journal now.
        view: Box<JournalView>,
    },
}

/// A head and a store that were read one after the other.
struct HeadComparison {
    reading: RegisterValue,
    /// What the two show together.
    view: JournalView,
    rift: Option<HeadConflict>,
}

impl Journal {
    /// Reads on to the head, which is in the store when this returns.
    pub(super) async fn read_with_head(
        &self,
        seat: &EtcdHead,
        known: Option<&JournalView>,
    ) -> Result<JournalView, JournalError> {
        let HeadComparison { view, rift, .. } = self.compare_head(seat, known).await?;
        rift.map_or(Ok(view), |rift| Err(JournalError::HeadConflict(rift)))
    }

    async fn compare_head(&self, seat: &EtcdHead, known: Option<&JournalView>) -> Result<HeadComparison, JournalError> {
        // What the store had before the register was read, the register had too.
        let mut floor = Seq(0);
        loop {
            let reading = seat.register.read().await?;
            let view = self.read_store(known).await?;
            let store = view.head.as_ref().map_or(Seq(0), |head| head.seq);
            let clusters = (reading.cluster, seat.cluster);
            let (view, rift) = match head_state::judge_head(&view, reading.value.as_deref(), clusters, &self.keys)? {
                HeadState::InSync => (view, None),
                HeadState::HeadAhead(after) => {
                    let object = reading.value.as_ref().expect("a head that is ahead is there");
                    self.copy_to_store(view.next_seq(), object, MIRROR_LIMIT).await?;
                    (*after, None)
                }
                HeadState::HeadBehind(head) if head >= floor => {
                    floor = store;
                    continue;
                }
                HeadState::HeadBehind(head) => (view, Some(HeadConflict::Behind { head, store })),
                HeadState::Conflicted(rift) => (view, Some(rift)),
            };
            return Ok(HeadComparison { reading, view, rift });
        }
    }

    /// Swaps the record in until it is known whose the number is, and puts it into the store. True: it is ours. False: others'.
    pub(super) async fn cas_until_known(
        &self,
        seat: &EtcdHead,
        seq: Seq,
        before: &Bytes,
        object: &Bytes,
    ) -> Result<bool, AppendError> {
        // A record beyond the head that was read: another node was faster, or another cluster goes on with this journal.
        if self.read_object(seq).await.map_err(JournalError::Store)?.is_some() {
            return Ok(false);
        }
        let started = self.env.clock.boottime();
        let (mut pause, mut doubt) = (RESOLVE_PAUSE.0, false);
        loop {
            let why = match seat.register.compare_and_swap(Some(before), object.clone()).await {
                Ok(CasOutcome::Swapped) => break,
                // Nothing of ours was under way.
                Ok(CasOutcome::Mismatch(_)) if !doubt => return Ok(false),
                Ok(CasOutcome::Mismatch(now)) => match self.is_own_record(seq, object, now.as_ref()).await {
                    Ok(Some(true)) => break,
                    Ok(Some(false)) => return Ok(false),
                    Ok(None) => "etcd no longer has the head that it was to follow".to_owned(),
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
        // From here on it is in the journal, whoever puts it into the store.
        let mirrored = self.copy_to_store(seq, object, RESOLVE_LIMIT).await;
        mirrored.map(|()| true).map_err(|error| AppendError::Unknown { seq, why: error.to_string() })
    }

    /// Whether `object` became record `seq`, now that the register has something else than the record before. `None`: that cannot be
    /// told.
    async fn is_own_record(&self, seq: Seq, object: &Bytes, now: Option<&Bytes>) -> Result<Option<bool>, StoreError> {
        if now == Some(object) {
            return Ok(Some(true));
        }
        // Whoever went on from it has put it into the store first.
        if let Some(there) = self.read_object(seq).await? {
            return Ok(Some(there == *object));
        }
        let now = now.and_then(|now| Record::decode(now, Some(&self.keys)).ok());
        Ok(now.filter(|record| record.seq == seq).map(|_| false))
    }

    /// Puts a record that is in the register into the store until it is there.
    async fn copy_to_store(&self, seq: Seq, object: &Bytes, limit: Duration) -> Result<(), JournalError> {
        let started = self.env.clock.boottime();
        let (mut pause, mut doubt) = (RESOLVE_PAUSE.0, false);
        loop {
            let doubted = doubt;
            let error = match self.try_copy_to_store(seq, object, &mut doubt).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            // One put without an answer may take longer than that, and be all that was missing.
            let last = doubted || !doubt;
            if last && self.env.clock.boottime().saturating_sub(started) >= limit {
                return Err(error);
            }
            self.env.sleep(pause).await;
            pause = (pause * 2).min(RESOLVE_PAUSE.1);
        }
    }

    /// `doubt`: a put of this process's was not answered, so that what is seen may not be durable until another one is.
    async fn try_copy_to_store(&self, seq: Seq, object: &Bytes, doubt: &mut bool) -> Result<(), JournalError> {
        let key = object_keys::record(self.keys.role(), seq);
        if self.is_copied(seq, object).await? && !*doubt {
            return Ok(());
        }
        // Even a condition that is kept now and then is one more guard.
        let put = put_idempotent(self.store.as_ref(), &key, object.clone()).await;
        let answered = matches!(put, Ok(PutOutcome::Created | PutOutcome::Exists));
        *doubt |= !answered;
        if self.is_copied(seq, object).await? && answered {
            return Ok(());
        }
        let (kind, detail) = match put? {
            PutOutcome::Unknown { why } => (StoreErrorKind::Unreachable, why),
            PutOutcome::Created | PutOutcome::Exists => {
                (StoreErrorKind::Other, "it was put and is not there".to_owned())
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

    /// Whether the register, if the head is in one, has the head of this view.
    pub(super) async fn is_head_in_store(&self, view: &JournalView) -> Result<bool, JournalError> {
        let Some(seat) = self.etcd_head.as_ref() else { return Ok(true) };
        let reading = seat.register.read().await?;
        let clusters = (reading.cluster, seat.cluster);
        let standing = head_state::judge_head(view, reading.value.as_deref(), clusters, &self.keys)?;
        Ok(matches!(standing, HeadState::InSync))
    }

    /// What is wrong with the head, for somebody who only looks and has read `view`. `None`: nothing that a look shows.
    pub async fn check_head(&self, view: &JournalView) -> Result<Option<HeadConflict>, RegisterError> {
        let Some(seat) = self.etcd_head.as_ref() else { return Ok(None) };
        let reading = seat.register.read().await?;
        let clusters = (reading.cluster, seat.cluster);
        Ok(match head_state::judge_head(view, reading.value.as_deref(), clusters, &self.keys) {
            Ok(HeadState::Conflicted(rift)) => Some(rift),
            Ok(HeadState::HeadBehind(head)) => Some(HeadConflict::Behind { head, store: Seq(view.next_seq().0 - 1) }),
            // The last: records were appended after the store was read.
            Ok(HeadState::InSync | HeadState::HeadAhead(_)) | Err(_) => None,
        })
    }

    /// Lets the journal go on from the store's last record, by a takeover that becomes the head; nothing if the head is sound.
    ///
    /// # Errors
    /// The store lost records, or head or store cannot be read or written.
    pub async fn adopt(&self, known: Option<&JournalView>) -> Result<AdoptOutcome, AppendError> {
        let seat = self.etcd_head.as_ref().expect("only a journal in a register is adopted");
        let mut ours: Option<(Bytes, HeadConflict)> = None;
        let mut refused: Option<(Option<Bytes>, RegisterError)> = None;
        let mut why = "its head changes all the time".to_owned();
        let mut last = Seq(0);
        for _ in 0..ADOPT_ATTEMPTS {
            let HeadComparison { reading, view, rift } = self.compare_head(seat, known).await?;
            let Some(rift) = rift else {
                // A swap without an answer may have been it.
                let was = ours.filter(|(object, _)| reading.value.as_ref() == Some(object)).map(|(_, was)| was);
                let view = Box::new(view);
                return Ok(was.map_or_else(
                    || AdoptOutcome::Unneeded(view.clone()),
                    |was| AdoptOutcome::Adopted { was, view: view.clone() },
                ));
            };
            // It was refused, and what was there before is there still.
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
            match seat.register.compare_and_swap(reading.value.as_ref(), object.clone()).await {
                Ok(CasOutcome::Swapped | CasOutcome::Mismatch(_)) => {}
                Ok(CasOutcome::Unknown { why: silence }) => {
                    why = silence;
                    self.env.sleep(RESOLVE_PAUSE.0).await;
                }
                // No earlier one of ours is under way.
                Err(error) if ours.is_none() => {
                    why = error.to_string();
                    refused = Some((reading.value.clone(), error));
                }
                Err(error) => why = error.to_string(),
            }
            ours = Some((object, rift));
        }
        Err(AppendError::Unknown { seq: last, why })
    }
}
