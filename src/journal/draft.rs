//! A record before it is sent: composed on a view, whether the store or etcd decides about it.

use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;

use crate::ids::{Digest, Term};
use crate::journal::body::RecordBody;
use crate::journal::error::AppendError;
use crate::journal::reader::Journal;
use crate::journal::record::{self, Record};
use crate::journal::view::JournalView;
use crate::journal::{future_dates, register};
use crate::store::SizeLimit;

/// How long an append of unknown outcome is retried before it is reported as unknown.
pub(super) const RESOLVE_LIMIT: Duration = Duration::from_mins(1);

/// The pause before the next try of an append of unknown outcome; doubled each time up to the second value.
pub(super) const RESOLVE_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The parts of a record that its writer decides; the rest follows from the journal.
#[derive(Debug)]
pub(super) struct RecordDraft {
    pub(super) term: Term,
    pub(super) takeover: Option<Digest>,
    pub(super) body: RecordBody,
    pub(super) slot: Option<Timestamp>,
}

impl Journal {
    /// The record after the head of `view`, and its object. `before` is the object of that head.
    pub(super) fn compose(
        &self,
        view: &JournalView,
        before: &Bytes,
        RecordDraft { term, takeover, body, slot }: RecordDraft,
    ) -> Result<(Record, Bytes), AppendError> {
        let seq = view.next_seq();
        let now = self.env.clock.now();
        let clock_offset = self.store.clock_offset();
        let doubt = future_dates::clock_doubt(view, self.node.id, now, clock_offset);
        if let Some(news) = self.env.clock_doubts.record(&view.role, doubt) {
            tracing::warn!("role {}: {}", view.role, news.with_hint());
        }
        let is_repair = body.as_repair().is_some();
        // The record of a rotation authenticates all records before it, and so does the record after it. Each of the
        // two may be lost, so both carry the state.
        let head = view.head.as_ref().map(|head| head.seq);
        let is_rotation = matches!(body, RecordBody::Rotate(_))
            || head.is_some() && view.state.rotated.map(|rotated| rotated.seq) == head;
        let is_checkpoint = is_repair || is_rotation || record::is_checkpoint(seq, &view.state);
        let mut record = Record {
            role: view.role.clone(),
            repo: view.repo,
            seq,
            term,
            takeover,
            node: self.node.clone(),
            instance: self.instance,
            time: now,
            store_time: clock_offset.and_then(|offset| now.checked_add(offset).ok()),
            slot,
            last_slot: view.state.last_slot,
            schedule: slot.and(self.schedule),
            prev: view.head.as_ref().map(|head| head.digest),
            body,
            state: is_checkpoint.then(|| view.state.clone()),
            generation: self.keys.generation(),
        };
        record.add_rotation_proof(&self.keys);
        let mut object = record.encode(&self.keys);
        if self.etcd_head.is_some()
            && !register::fits_register(before.len(), object.len())
            && record.state.is_some()
            && !is_repair
        {
            // A checkpoint only saves reading the records before it.
            record.state = None;
            record.add_rotation_proof(&self.keys);
            object = record.encode(&self.keys);
        }
        // A reader refuses larger objects.
        let is_readable = object.len() as u64 <= SizeLimit::RECORD.bytes();
        if !is_readable || self.etcd_head.is_some() && !register::fits_register(before.len(), object.len()) {
            return Err(AppendError::TooLarge { seq, bytes: object.len() });
        }
        Ok((record, Bytes::from(object)))
    }
}

/// Refuses a view with records that this version does not know: nothing is appended to it.
pub(crate) fn check_understood(view: &JournalView) -> Result<(), AppendError> {
    if view.is_understood() {
        return Ok(());
    }
    let kinds = view.unknown_kinds.iter().chain(view.state.unknown.keys()).cloned().collect::<Vec<_>>();
    Err(AppendError::NotUnderstood(kinds.join(", ")))
}
