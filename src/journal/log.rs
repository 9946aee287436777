//! Reading a journal from the store and appending to it: the adapter around [`View`].
//!
//! The invariant: a record is created at exactly the number after the head that its writer had read, by a conditional put
//! that is never retried blindly. Whoever loses reads what is there and decides again; whoever does not know keeps putting the
//! same bytes until the number is occupied, and never calls that a failure. Where the store keeps no conditions a register takes their
//! place; [`super::seat`] is about that.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use crate::env::Env;
use crate::ids::{Digest, InstanceId, Seq, Term};
use crate::journal::record::{self, Body, CloneBody, NodeRef, PauseBody, Record, RecordError, Takeover, TakeoverWhy};
use crate::journal::register::RegisterError;
use crate::journal::seat::{self, Seat, SeatError};
use crate::journal::standing::Rift;
use crate::journal::state::{FoldError, Head, Holder, View};
use crate::repo::crypto::Keys;
use crate::repo::names;
use crate::role::permit::{Candidacy, Permit};
use crate::store::{LIST_PAGE_MAX, PutOutcome, Store, StoreError};

/// Records fetched at once while a journal is read.
const READ_AHEAD: usize = 16;

/// How long an append of unknown outcome is pursued before it is given up as unknown.
pub(super) const RESOLVE_LIMIT: Duration = Duration::from_mins(1);

/// The pause before an append of unknown outcome is looked at again; doubled each time up to the second value.
pub(super) const RESOLVE_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Why a journal cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// The store.
    #[error("the journal cannot be read: {0}")]
    Store(#[from] StoreError),
    /// One record.
    #[error("journal record {seq} {error}")]
    Record {
        /// Which.
        seq: Seq,
        /// Why.
        error: RecordError,
    },
    /// A record that does not follow.
    #[error("journal record {seq} {error}")]
    Fold {
        /// Which.
        seq: Seq,
        /// Why.
        error: FoldError,
    },
    /// A number below the head that is empty.
    #[error("journal record {0} is missing, although later ones are there")]
    Hole(Seq),
    /// The store no longer holds what this node has seen in it.
    #[error(
        "this node has seen journal record {seq} as {seen}, and the store no longer has it: it was rolled back, or its newest records were removed"
    )]
    RolledBack {
        /// Which.
        seq: Seq,
        /// What it was.
        seen: Digest,
    },
    /// This process cannot write to where the journal is.
    #[error(transparent)]
    Seat(#[from] SeatError),
    /// The register that has the journal's head.
    #[error("the head of the journal cannot be read: {0}")]
    Register(#[from] RegisterError),
    /// The head and the store do not fit together.
    #[error("nothing is written to this journal: {0}")]
    Rift(Rift),
}

/// Why a record was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A newer takeover exists. Nothing was committed, and nothing ever will be under this permit.
    #[error("fenced: node {} took the role over with term {}", .0.node.name, .0.term)]
    Fenced(Box<Holder>),
    /// Something else was appended meanwhile, and the permit still holds: decide again on this view.
    #[error("the journal moved on meanwhile")]
    Moved(Box<View>),
    /// It may be in the journal, or get there still. Nothing may be cleaned up.
    #[error("whether journal record {seq} was written cannot be told: {why}")]
    Unknown {
        /// Which.
        seq: Seq,
        /// What came instead of an answer.
        why: String,
    },
    /// The permit's deadline has passed.
    #[error("the permit has expired")]
    Expired,
    /// The journal has records of a newer version.
    #[error("the journal has records of a kind that this version does not know ({0}). Update runner on this node")]
    NotUnderstood(String),
    /// The journal cannot be read.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// The store refused.
    #[error("journal record {seq} was not written: {error}")]
    Store {
        /// Which.
        seq: Seq,
        /// Why.
        error: StoreError,
    },
    /// Etcd would not take it, or nothing after it.
    #[error("journal record {seq} was not written: with {bytes} bytes it is too large for a journal in etcd")]
    TooLarge {
        /// Which.
        seq: Seq,
        /// Its length.
        bytes: usize,
    },
    /// The register refused.
    #[error("journal record {seq} was not written: {error}")]
    Register {
        /// Which.
        seq: Seq,
        /// Why.
        error: RegisterError,
    },
}

/// What may be appended without a permit: what operators do, and what a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Nobody runs the role.
    Pause(PauseBody),
    /// That is over.
    Resume,
    /// This node exists twice.
    Clone(CloneBody),
}

/// A role's journal in its store.
#[derive(Debug, Clone)]
pub struct Journal {
    pub(super) store: Arc<dyn Store>,
    pub(super) keys: Keys,
    pub(super) env: Env,
    node: NodeRef,
    instance: InstanceId,
    /// Where it is decided who appends; `None`: in the store.
    seat: Option<Seat>,
}

impl Journal {
    /// The journal of the repository that `keys` belong to, written as this node and process. Where it lives in a register this
    /// reads what is in the store, and must not append.
    pub fn new(store: Arc<dyn Store>, keys: Keys, env: Env, node: NodeRef, instance: InstanceId) -> Self {
        Self { store, keys, env, node, instance, seat: None }
    }

    /// With its head in a register.
    pub fn seated(self, seat: Seat) -> Self {
        Self { seat: Some(seat), ..self }
    }

    /// Where its head is, if that is not the store.
    pub(super) fn seat(&self) -> Option<&Seat> {
        self.seat.as_ref()
    }

    /// Who writes here.
    pub fn node(&self) -> &NodeRef {
        &self.node
    }

    /// One record's object, if the number is occupied.
    pub async fn object(&self, seq: Seq) -> Result<Option<Bytes>, StoreError> {
        match self.store.get(&names::record(self.keys.role(), seq)).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// One record and its digest, if the number is occupied.
    pub async fn record(&self, seq: Seq) -> Result<Option<(Record, Digest)>, JournalError> {
        let Some(object) = self.object(seq).await? else { return Ok(None) };
        let record = Record::decode(&object, Some(&self.keys)).map_err(|error| JournalError::Record { seq, error })?;
        Ok(Some((record, record::digest(&object))))
    }

    /// Reads on from what this node knew (`None`: from nothing) to the head. What it shows is in the store.
    ///
    /// # Errors
    /// [`JournalError::RolledBack`] if the store no longer has the record that was known.
    pub async fn read(&self, known: Option<&View>) -> Result<View, JournalError> {
        match &self.seat {
            Some(seat) => self.read_settled(seat, known).await,
            None => self.read_store(known).await,
        }
    }

    /// Reads on to the last record that the store has.
    pub(super) async fn read_store(&self, known: Option<&View>) -> Result<View, JournalError> {
        let start = self.check_known(known).await?;
        let mut head = self.find_head(start.and_then(|view| view.head.as_ref()).map_or(0, |head| head.seq.0)).await?;
        while self.lists_after(Seq(head)).await? {
            // Either it was appended just now, or a record is gone: going on would fork the history at its number.
            let next = Seq(head).next();
            if self.object(next).await?.is_none() {
                return Err(JournalError::Hole(next));
            }
            head = self.find_head(next.0).await?;
        }
        // What an older version read past, this one may understand: its view shows that the history is the same, and no more.
        self.fold(start.filter(|view| view.understood()), Seq(head)).await
    }

    /// Reads up to record `until`, whatever comes after it: for a journal whose newest records are damaged.
    pub async fn read_until(&self, until: Seq) -> Result<View, JournalError> {
        self.fold(None, until).await
    }

    async fn check_known<'a>(&self, known: Option<&'a View>) -> Result<Option<&'a View>, JournalError> {
        let Some((view, head)) = known.and_then(|view| Some((view, view.head.as_ref()?))) else { return Ok(None) };
        self.known(head).await?;
        Ok(Some(view))
    }

    /// The object of a record that was seen, if the store still has it.
    pub(super) async fn known(&self, head: &Head) -> Result<Bytes, JournalError> {
        let found = self.object(head.seq).await?.filter(|object| record::digest(object) == head.digest);
        found.ok_or(JournalError::RolledBack { seq: head.seq, seen: head.digest })
    }

    /// The highest occupied number, by doubling from one that is known to be occupied and bisecting.
    async fn find_head(&self, known: u64) -> Result<u64, JournalError> {
        let mut occupied = known;
        let mut step = 1;
        let mut empty = loop {
            let probe = occupied + step;
            if self.object(Seq(probe)).await?.is_none() {
                break probe;
            }
            occupied = probe;
            step *= 2;
        };
        while empty - occupied > 1 {
            let middle = occupied + (empty - occupied) / 2;
            if self.object(Seq(middle)).await?.is_some() {
                occupied = middle;
            } else {
                empty = middle;
            }
        }
        Ok(occupied)
    }

    /// Whether the store lists records after `head`. A listing may lack what is there, but shows nothing that never was. What is no
    /// record has no number that could be missing.
    async fn lists_after(&self, head: Seq) -> Result<bool, StoreError> {
        let role = self.keys.role();
        let (prefix, mut last) = (names::journal_prefix(role), names::record(role, head));
        loop {
            let page = self.store.list(&prefix, Some(&last), LIST_PAGE_MAX).await?;
            if page.objects.iter().any(|object| names::parse_record(role, &object.key).is_some()) {
                return Ok(true);
            }
            match page.objects.last() {
                Some(object) if page.truncated => last.clone_from(&object.key),
                _ => return Ok(false),
            }
        }
    }

    /// The view at `head`: from `start`, or from the newest checkpoint that is nearer.
    async fn fold(&self, start: Option<&View>, head: Seq) -> Result<View, JournalError> {
        let known = start.and_then(|v| v.head.as_ref()).map_or(0, |h| h.seq.0);
        let mut checkpoint = head.0 - head.0 % record::CHECKPOINT_EVERY;
        let mut view = loop {
            if let Some(view) = start.filter(|_| known + 1 >= checkpoint) {
                break view.clone();
            }
            if checkpoint == 0 {
                break View::empty(self.keys.role().clone(), self.keys.repo());
            }
            if let Some(view) = self.checkpoint(Seq(checkpoint)).await? {
                break view;
            }
            // It would have been too large.
            checkpoint -= record::CHECKPOINT_EVERY;
        };
        let first = view.next_seq().0;
        let mut objects = stream::iter((first..=head.0).map(Seq))
            .map(|seq| async move { Ok::<_, JournalError>((seq, self.object(seq).await?)) })
            .buffered(READ_AHEAD);
        while let Some((seq, object)) = objects.try_next().await? {
            let object = object.ok_or(JournalError::Hole(seq))?;
            let record =
                Record::decode(&object, Some(&self.keys)).map_err(|error| JournalError::Record { seq, error })?;
            view.apply(&record, record::digest(&object)).map_err(|error| JournalError::Fold { seq, error })?;
        }
        Ok(view)
    }

    async fn checkpoint(&self, seq: Seq) -> Result<Option<View>, JournalError> {
        let (record, _) = self.record(seq).await?.ok_or(JournalError::Hole(seq))?;
        let view = View::before_checkpoint(&record);
        if let Some(view) = &view
            && (view.role != *self.keys.role() || view.repo != self.keys.repo() || record.seq != seq)
        {
            let error = FoldError::Foreign { role: view.role.clone(), repo: view.repo };
            return Err(JournalError::Fold { seq, error });
        }
        Ok(view)
    }

    /// Appends a takeover, so that no older permit can append any more, and returns the permit that it gives.
    pub async fn take_over(
        &self,
        view: &View,
        candidacy: &Candidacy,
        why: TakeoverWhy,
    ) -> Result<(Permit, View), AppendError> {
        let term = Term(view.term().0 + 1);
        #[cfg(feature = "planted")]
        let again = view.state.holder.as_ref().is_some_and(|holder| holder.node == self.node);
        #[cfg(feature = "planted")]
        let again = again && crate::planted::is(crate::planted::Bug::TermStartsAgain);
        #[cfg(feature = "planted")]
        let term = if again { Term(1) } else { term };
        let before = view.state.holder.as_ref().map(|h| h.takeover);
        let view = match self.create(view, term, None, Body::Takeover(Takeover::new(why)), None).await {
            // Another node was faster: it has the role now.
            Err(AppendError::Moved(now)) => match now.state.holder.clone().filter(|h| Some(h.takeover) != before) {
                Some(holder) => return Err(AppendError::Fenced(Box::new(holder))),
                None => return Err(AppendError::Moved(now)),
            },
            result => result?,
        };
        let digest = view.head.as_ref().expect("a record was just appended").digest;
        Ok((candidacy.permit(term, digest), view))
    }

    /// Appends a record under a permit.
    pub async fn append(
        &self,
        permit: &Permit,
        view: &View,
        body: Body,
        slot: Option<Timestamp>,
    ) -> Result<View, AppendError> {
        if permit.deadline().passed(self.env.clock.moment()) {
            return Err(AppendError::Expired);
        }
        fence(permit, view)?;
        match self.create(view, permit.term(), Some(permit.takeover()), body, slot).await {
            Err(AppendError::Moved(now)) => {
                fence(permit, &now)?;
                Err(AppendError::Moved(now))
            }
            other => other,
        }
    }

    /// Appends what needs no permit and changes no term.
    pub async fn note(&self, view: &View, act: Act) -> Result<View, AppendError> {
        let body = match act {
            Act::Pause(body) => Body::Pause(body),
            Act::Resume => Body::Resume,
            Act::Clone(body) => Body::Clone(body),
        };
        self.create(view, view.term(), None, body, None).await
    }

    /// Creates the record after `view`'s head.
    async fn create(
        &self,
        view: &View,
        term: Term,
        takeover: Option<Digest>,
        body: Body,
        slot: Option<Timestamp>,
    ) -> Result<View, AppendError> {
        understand(view)?;
        // The last record is looked at once more: a store that was rolled back would accept the same number twice.
        let before = match &view.head {
            Some(head) => self.known(head).await?,
            None => Bytes::new(),
        };
        let (record, object) = self.compose(view, &before, term, takeover, body, slot)?;
        let seq = record.seq;
        let ours = match &self.seat {
            Some(seat) => self.swap_until_known(seat, seq, &before, &object).await?,
            None => self.put_until_known(seq, &object).await?,
        };
        if !ours {
            return Err(AppendError::Moved(Box::new(self.read(Some(view)).await?)));
        }
        let mut after = view.clone();
        after
            .apply(&record, record::digest(&object))
            .map_err(|error| AppendError::Journal(JournalError::Fold { seq, error }))?;
        Ok(after)
    }

    /// The record after `view`'s head, which is compared with `before`, and its object.
    pub(super) fn compose(
        &self,
        view: &View,
        before: &Bytes,
        term: Term,
        takeover: Option<Digest>,
        body: Body,
        slot: Option<Timestamp>,
    ) -> Result<(Record, Bytes), AppendError> {
        let seq = view.next_seq();
        let now = self.env.clock.now();
        let mut record = Record {
            role: view.role.clone(),
            repo: view.repo,
            seq,
            term,
            takeover,
            node: self.node.clone(),
            instance: self.instance,
            time: now,
            store_time: self.store.clock_offset().and_then(|offset| now.checked_add(offset).ok()),
            slot,
            last_slot: view.state.last_slot,
            prev: view.head.as_ref().map(|head| head.digest),
            body,
            state: seq.0.is_multiple_of(record::CHECKPOINT_EVERY).then(|| view.state.clone()),
        };
        let mut object = record.encode(&self.keys);
        if self.seat.is_some() && !seat::fits(before.len(), object.len()) && record.state.is_some() {
            // A checkpoint merely saves reading what comes before it.
            record.state = None;
            object = record.encode(&self.keys);
        }
        if self.seat.is_some() && !seat::fits(before.len(), object.len()) {
            return Err(AppendError::TooLarge { seq, bytes: object.len() });
        }
        Ok((record, Bytes::from(object)))
    }

    /// Puts the object until its number is occupied, for good. True: by our bytes. False: by others.
    async fn put_until_known(&self, seq: Seq, object: &Bytes) -> Result<bool, AppendError> {
        let key = names::record(self.keys.role(), seq);
        let started = self.env.clock.boottime();
        let (mut pause, mut doubt, mut seen) = (RESOLVE_PAUSE.0, false, false);
        loop {
            let put = self.store.put_if_absent(&key, object.clone()).await;
            let (answered, mut why) = match put {
                Ok(PutOutcome::Created) => return Ok(true),
                Ok(PutOutcome::Exists) => {
                    (true, "the number is occupied, and what stands there cannot be read".to_owned())
                }
                Ok(PutOutcome::Unknown { why }) => (false, why),
                // A definite refusal tells nothing about an earlier put of ours that may be in flight.
                Err(error) if !doubt => return Err(AppendError::Store { seq, error }),
                Err(error) => (false, error.to_string()),
            };
            doubt = true;
            match self.object(seq).await {
                Ok(Some(there)) if there != *object => return Ok(false),
                // Whole bytes: our own lost success is a success.
                Ok(Some(_)) if answered => return Ok(true),
                // They may be seen and not yet durable. A put that finds them there says so; one is sent whatever time it is.
                Ok(Some(_)) if !seen => {
                    seen = true;
                    continue;
                }
                Ok(Some(_)) => {}
                #[cfg(feature = "planted")]
                Ok(None) if crate::planted::is(crate::planted::Bug::UnknownIsFailure) => {
                    use crate::store::StoreErrorKind::Unreachable;
                    let error = StoreError::new(Unreachable, "planted", Some(&key), why);
                    return Err(AppendError::Store { seq, error });
                }
                #[cfg(feature = "planted")]
                Ok(None) if crate::planted::is(crate::planted::Bug::UnknownIsCleanedUp) => {
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

/// Nobody appends to what it cannot read.
pub(super) fn understand(view: &View) -> Result<(), AppendError> {
    if view.understood() {
        return Ok(());
    }
    let kinds = view.unknown_kinds.iter().chain(view.state.unknown.keys()).cloned().collect::<Vec<_>>();
    Err(AppendError::NotUnderstood(kinds.join(", ")))
}

/// Whether the newest takeover is still the permit's own.
fn fence(permit: &Permit, view: &View) -> Result<(), AppendError> {
    #[cfg(feature = "planted")]
    if crate::planted::is(crate::planted::Bug::CommitWithoutCompare) {
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
