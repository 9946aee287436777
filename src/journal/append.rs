//! Appending to a journal.
//!
//! The invariant: a record is created at exactly the number after the head that its writer had read, by a conditional
//! put that is never retried blindly. A writer that loses reads what is there and decides again. A writer without an
//! answer puts the same bytes until the number is occupied, and never calls that a failure. Where the store ignores
//! conditions, etcd decides instead: [`crate::journal::etcd_head`].

use bytes::Bytes;
use jiff::Timestamp;

use crate::ids::{Digest, Seq, Term};
use crate::journal::body::{AmendBody, CloneBody, PauseBody, RecordBody, TakeoverBody, TakeoverReason};
use crate::journal::draft::{RESOLVE_LIMIT, RESOLVE_PAUSE, RecordDraft, check_understood};
use crate::journal::error::{AppendError, JournalError};
use crate::journal::permit::Permit;
use crate::journal::reader::Journal;
use crate::journal::record;
use crate::journal::view::JournalView;
use crate::repo::object_keys;
use crate::role::candidacy::{Candidacy, Deadline};
use crate::store::PutOutcome;

/// The acts that need no permit: operators' acts, and a node's note about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnfencedAction {
    /// No node runs the role.
    Pause(PauseBody),
    /// Ends a pause.
    Resume,
    /// This node exists twice: a clone of it appends.
    Clone(CloneBody),
    /// All dates after now come from a wrong clock.
    Amend,
}

impl Journal {
    /// Appends a takeover, after which no older permit can append, and returns the permit that it gives. A candidacy
    /// whose deadline has passed is refused: another node may have the lease by then.
    pub async fn take_over(
        &self,
        view: &JournalView,
        candidacy: &Candidacy,
        why: TakeoverReason,
    ) -> Result<(Permit, JournalView), AppendError> {
        self.take_over_as(view, candidacy, TakeoverBody::new(why)).await
    }

    /// [`Journal::take_over`] with all fields of the record.
    pub async fn take_over_as(
        &self,
        view: &JournalView,
        candidacy: &Candidacy,
        takeover: TakeoverBody,
    ) -> Result<(Permit, JournalView), AppendError> {
        let term = Term(view.term().0 + 1);
        #[cfg(feature = "planted")]
        let again = view.state.holder.as_ref().is_some_and(|holder| holder.node == self.node);
        #[cfg(feature = "planted")]
        let again = again && crate::planted::is(crate::planted::PlantedBug::TermStartsAgain);
        #[cfg(feature = "planted")]
        let term = if again { Term(1) } else { term };
        let before = view.state.holder.as_ref().map(|h| h.takeover);
        let draft = RecordDraft { term, takeover: None, body: RecordBody::Takeover(takeover), slot: None };
        let view = match self.append_draft(view, draft, Some(candidacy.deadline())).await {
            // Another node was faster: it has the role now.
            Err(AppendError::Moved(now)) => match now.state.holder.clone().filter(|h| Some(h.takeover) != before) {
                Some(holder) => return Err(AppendError::Fenced(Box::new(holder))),
                None => return Err(AppendError::Moved(now)),
            },
            result => result?,
        };
        let holder = view.state.holder.as_ref().expect("a takeover was just appended");
        Ok((Permit::new(candidacy, holder), view))
    }

    /// The permit of `own`, a takeover that this node appended before, if that takeover is still the newest. `None`:
    /// another takeover followed, or `candidacy` rests on another reason than the takeover does. A node that stood in
    /// as a fallback and is eligible now takes the role over again, so that the other nodes see the reason.
    pub fn resume(&self, view: &JournalView, candidacy: &Candidacy, own: Digest) -> Option<Permit> {
        let holder = view.state.holder.as_ref().filter(|holder| holder.takeover == own)?;
        let is_of_this_node = holder.node.id == self.node.id;
        let is_same_reason = (holder.why == TakeoverReason::Fallback) == candidacy.stands_in();
        (is_of_this_node && is_same_reason).then(|| Permit::new(candidacy, holder))
    }

    /// Appends a record under a permit.
    pub async fn append(
        &self,
        permit: &Permit,
        view: &JournalView,
        body: RecordBody,
        slot: Option<Timestamp>,
    ) -> Result<JournalView, AppendError> {
        check_fence(permit, view)?;
        let draft = RecordDraft { term: permit.term(), takeover: Some(permit.takeover()), body, slot };
        match self.append_draft(view, draft, Some(permit.deadline())).await {
            Err(AppendError::Moved(now)) => {
                check_fence(permit, &now)?;
                Err(AppendError::Moved(now))
            }
            other => other,
        }
    }

    /// Appends a record that needs no permit and changes no term.
    pub async fn append_unfenced(&self, view: &JournalView, act: UnfencedAction) -> Result<JournalView, AppendError> {
        let body = match act {
            UnfencedAction::Pause(body) => RecordBody::Pause(body),
            UnfencedAction::Resume => RecordBody::Resume,
            UnfencedAction::Clone(body) => RecordBody::Clone(body),
            UnfencedAction::Amend => RecordBody::Amend(AmendBody {}),
        };
        self.append_draft(view, RecordDraft { term: view.term(), takeover: None, body, slot: None }, None).await
    }

    /// Creates the record after the head of `view`, unless `deadline` has passed when the record is ready.
    async fn append_draft(
        &self,
        view: &JournalView,
        draft: RecordDraft,
        deadline: Option<&Deadline>,
    ) -> Result<JournalView, AppendError> {
        check_understood(view)?;
        // The last record is read again: a store that was rolled back would accept the same number twice.
        let before = match &view.head {
            Some(head) => self.read_known_head(head).await?,
            None => Bytes::new(),
        };
        // The offset dates the record, and shows whether the date is in doubt.
        self.store.measure_clock_offset().await;
        let (record, object) = self.compose(view, &before, draft)?;
        let seq = record.seq;
        // Checked before the record is written: a record that does not follow must not be reported as a failure
        // afterwards.
        let mut after = view.clone();
        let folded = after
            .apply(&record, record::digest(&object))
            .map_err(|error| AppendError::Journal(JournalError::Fold { seq, error }));
        // Folding first would hide that the comparison is missing.
        #[cfg(feature = "planted")]
        let (folded, late) = match folded {
            Err(error) if crate::planted::is(crate::planted::PlantedBug::CommitWithoutCompare) => (Ok(()), Err(error)),
            folded => (folded, Ok(())),
        };
        folded?;
        if deadline.is_some_and(|deadline| deadline.passed(self.env.clock.moment())) {
            return Err(AppendError::Expired);
        }
        let is_own = match &self.etcd_head {
            Some(head) => self.cas_until_known(head, seq, &before, &object).await?,
            None => self.put_until_known(seq, &object).await?,
        };
        if !is_own {
            return Err(AppendError::Moved(Box::new(match self.read(Some(view)).await {
                // A salvaged journal is less than the whole one: a record that was appended to the whole need not
                // follow from it.
                Err(error) if record.body.as_repair().is_some() && error.unusable_record().is_some() => view.clone(),
                read => read?,
            })));
        }
        #[cfg(feature = "planted")]
        late?;
        Ok(after)
    }

    /// Puts the object until its number is occupied. True: by this object. False: by another writer's.
    async fn put_until_known(&self, seq: Seq, object: &Bytes) -> Result<bool, AppendError> {
        let key = object_keys::record(self.keys.role(), seq);
        let started = self.env.clock.boottime();
        let (mut pause, mut doubt, mut seen) = (RESOLVE_PAUSE.0, false, false);
        loop {
            let put = self.store.put_if_absent(&key, object.clone()).await;
            let (answered, mut why) = match put {
                Ok(PutOutcome::Created) => return Ok(true),
                Ok(PutOutcome::Exists) => (true, "the number is occupied by an object that cannot be read".to_owned()),
                Ok(PutOutcome::Unknown { why }) => (false, why),
                // A definite refusal proves nothing about an earlier put that may still be in flight.
                Err(error) if !doubt => return Err(AppendError::Store { seq, error }),
                Err(error) => (false, error.to_string()),
            };
            doubt = true;
            match self.read_object(seq).await {
                Ok(Some(there)) if there != *object => return Ok(false),
                Err(error) if error.is_not_an_object() => return Ok(false),
                // The bytes are whole: an earlier put took effect, and its answer was lost.
                Ok(Some(_)) if answered => return Ok(true),
                // The object may be visible and not yet durable. A put that finds it durable answers so; one more is
                // sent after the time limit too.
                Ok(Some(_)) if !seen => {
                    seen = true;
                    continue;
                }
                Ok(Some(_)) => {}
                #[cfg(feature = "planted")]
                Ok(None) if crate::planted::is(crate::planted::PlantedBug::UnknownIsFailure) => {
                    use crate::store::StoreError;
                    use crate::store::StoreErrorKind::Unreachable;
                    let error = StoreError::new(Unreachable, "planted", Some(&key), why);
                    return Err(AppendError::Store { seq, error });
                }
                #[cfg(feature = "planted")]
                Ok(None) if crate::planted::is(crate::planted::PlantedBug::UnknownIsCleanedUp) => {
                    return Err(AppendError::Unknown { seq, why });
                }
                Ok(None) => {}
                Err(error) => why = error.to_string(),
            }
            if self.env.clock.boottime().saturating_sub(started) >= RESOLVE_LIMIT {
                return Err(AppendError::Unknown { seq, why });
            }
            self.env.sleep(pause).await;
            pause = (pause * 2).min(RESOLVE_PAUSE.1);
        }
    }
}

/// Whether the newest takeover is still the permit's own.
fn check_fence(permit: &Permit, view: &JournalView) -> Result<(), AppendError> {
    #[cfg(feature = "planted")]
    if crate::planted::is(crate::planted::PlantedBug::CommitWithoutCompare) {
        return Ok(());
    }
    match &view.state.holder {
        Some(holder) if holder.takeover == permit.takeover() => Ok(()),
        Some(holder) => Err(AppendError::Fenced(Box::new(holder.clone()))),
        None => unreachable!("a permit comes from a takeover record, and views only grow"),
    }
}

#[cfg(test)]
mod tests;
