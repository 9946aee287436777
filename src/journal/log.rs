//! Reading a journal from the store and appending to it: the adapter around [`JournalView`].
//!
//! The invariant: a record is created at exactly the number after the head that its writer had read, by a conditional put
//! that is never retried blindly. Whoever loses reads what is there and decides again; whoever does not know keeps putting the
//! same bytes until the number is occupied, and never calls that a failure. Where the store keeps no conditions a register takes their
//! place; [`crate::journal::etcd_head`] is about that.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use crate::env::Env;
use crate::ids::{Digest, InstanceId, KeyGeneration, ScheduleId, Seq, Term};
use crate::journal::etcd_head::{self, EtcdHead};
use crate::journal::head_search::{HeadSearch, ListedRecords};
use crate::journal::record::{
    self, AmendBody, CloneBody, PauseBody, Record, RecordBody, RecordError, TakeoverBody, TakeoverReason, WriterNode,
};
use crate::journal::rotation::RotationState;
use crate::journal::state::{FoldError, JournalHead, JournalView};
use crate::journal::{emptied, future_dates};
use crate::repo::crypto::DerivedKeys;
use crate::repo::object_keys;
use crate::role::permit::{Candidacy, Deadline, Permit};
use crate::store::{
    LIST_PAGE_MAX, LargeReadLock, PutOutcome, SizeLimit, Store, StoreError, StoreErrorKind, get_with_large_read_lock,
    incomplete_listing_error,
};

pub use crate::journal::error::{AppendError, JournalError, RecordReplacement};

/// Records fetched at once while a journal is read.
const READ_AHEAD: usize = 16;

/// How long an append of unknown outcome is pursued before it is given up as unknown.
pub(super) const RESOLVE_LIMIT: Duration = Duration::from_mins(1);

/// The pause before an append of unknown outcome is looked at again; doubled each time up to the second value.
pub(super) const RESOLVE_PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// What its writer puts into a record; the rest follows from the journal.
#[derive(Debug)]
pub(super) struct RecordDraft {
    pub(super) term: Term,
    pub(super) takeover: Option<Digest>,
    pub(super) body: RecordBody,
    pub(super) slot: Option<Timestamp>,
}

/// What may be appended without a permit: what operators do, and what a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnfencedAction {
    /// Nobody runs the role.
    Pause(PauseBody),
    /// That is over.
    Resume,
    /// This node exists twice.
    Clone(CloneBody),
    /// What is dated beyond now was dated by a wrong clock.
    Amend,
}

/// A role's journal in its store.
#[derive(Debug, Clone)]
pub struct Journal {
    pub(super) store: Arc<dyn Store>,
    pub(super) keys: DerivedKeys,
    pub(super) env: Env,
    node: WriterNode,
    instance: InstanceId,
    /// Where it is decided who appends; `None`: in the store.
    etcd_head: Option<EtcdHead>,
    /// When the repository was made, where that is known.
    with_created: Option<Timestamp>,
    /// The schedule that the slots of what it writes are of.
    schedule: Option<ScheduleId>,
}

impl Journal {
    /// The journal of the repository that `keys` belong to, written as this node and process. Where it lives in a register this
    /// reads what is in the store, and must not append.
    pub fn new(store: Arc<dyn Store>, keys: DerivedKeys, env: Env, node: WriterNode, instance: InstanceId) -> Self {
        Self { store, keys, env, node, instance, etcd_head: None, with_created: None, schedule: None }
    }

    /// Of a repository that was made then: what it shows says so.
    pub fn created(self, at: Timestamp) -> Self {
        Self { with_created: Some(at), ..self }
    }

    /// Written by somebody whose slots are of this schedule.
    pub fn with_schedule(self, schedule: Option<ScheduleId>) -> Self {
        Self { schedule, ..self }
    }

    /// With its head in a register.
    pub fn with_etcd_head(self, seat: EtcdHead) -> Self {
        Self { etcd_head: Some(seat), ..self }
    }

    /// Where its head is, if that is not the store.
    pub(super) fn seat(&self) -> Option<&EtcdHead> {
        self.etcd_head.as_ref()
    }

    /// The newest generation of the repository key that its keys give.
    pub fn generation(&self) -> KeyGeneration {
        self.keys.generation()
    }

    /// Who writes here.
    pub fn node(&self) -> &WriterNode {
        &self.node
    }

    /// One record's object, if the number is occupied.
    pub async fn read_object(&self, seq: Seq) -> Result<Option<Bytes>, StoreError> {
        match self.store.get(&object_keys::record(self.keys.role(), seq), SizeLimit::RECORD).await {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether there is anything under this number, be it a record or not.
    pub(super) async fn is_occupied(&self, seq: Seq) -> Result<bool, StoreError> {
        match self.read_object(seq).await {
            Ok(object) => Ok(object.is_some()),
            Err(e) if e.is_not_an_object() => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// [`Journal::read_object`] for a reader of the record: what has its name and is no object is a record that cannot be
    /// read.
    pub(super) async fn read_usable_object(&self, seq: Seq) -> Result<Option<Bytes>, JournalError> {
        self.read_object(seq).await.map_err(|e| unreadable_error(seq, e))
    }

    /// The same while others are read as well, of which there may be many: `None` for a large one.
    pub(super) async fn read_usable_object_ahead(&self, seq: Seq) -> Result<Option<Option<Bytes>>, JournalError> {
        match self.store.get(&object_keys::record(self.keys.role(), seq), SizeLimit::RECORD_AHEAD).await {
            Ok(bytes) => Ok(Some(Some(bytes))),
            Err(e) if e.is_not_found() => Ok(Some(None)),
            Err(e) if e.kind == StoreErrorKind::TooLarge => Ok(None),
            Err(e) => Err(unreadable_error(seq, e)),
        }
    }

    /// One record and its digest, if the number is occupied.
    pub async fn read_record(&self, seq: Seq) -> Result<Option<(Record, Digest)>, JournalError> {
        self.read_record_ahead(seq, &LargeReadLock::default()).await
    }

    /// The same while others are read as well, of which there may be many: the large ones come one after the other, under `turn`.
    pub(crate) async fn read_record_ahead(
        &self,
        seq: Seq,
        turn: &LargeReadLock,
    ) -> Result<Option<(Record, Digest)>, JournalError> {
        let (key, limits) = (object_keys::record(self.keys.role(), seq), (SizeLimit::RECORD_AHEAD, SizeLimit::RECORD));
        let (object, _turn) = match get_with_large_read_lock(self.store.as_ref(), &key, limits, turn).await {
            Ok(read) => read,
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) => return Err(unreadable_error(seq, e)),
        };
        let record = Record::decode(&object, Some(&self.keys))
            .map_err(|error| JournalError::from_record_error(seq, error, self.keys.generation()))?;
        Ok(Some((record, record::digest(&object))))
    }

    /// Reads on from what this node knew (`None`: from nothing) to the head. What it shows is in the store.
    ///
    /// # Errors
    /// [`JournalError::RolledBack`] if the store no longer has the record that was known.
    pub async fn read(&self, known: Option<&JournalView>) -> Result<JournalView, JournalError> {
        let view = match &self.etcd_head {
            Some(seat) => Box::pin(self.read_with_head(seat, known)).await,
            None => Box::pin(self.read_store(known)).await,
        }?;
        self.check_generation(&view)?;
        Ok(view)
    }

    /// Whether these keys are those that the journal is written under: neither is there more than they give, nor less than they
    /// prove that there was.
    pub(super) fn check_generation(&self, view: &JournalView) -> Result<(), JournalError> {
        let (now, given) = (view.generation(), self.keys.generation());
        match view.state.rotated {
            Some(RotationState { seq, generation }) if now > given => {
                Err(JournalError::Rotated { seq: seq.next(), generation, given })
            }
            _ if now < given => Err(JournalError::OlderThanKey { now, given }),
            _ => Ok(()),
        }
    }

    /// Reads on as far as the store lists, for whoever only looks. A listing may lag, so this is the journal as of now or a moment ago,
    /// and never older than what was known. What it shows is in the store.
    ///
    /// # Errors
    /// As [`Journal::read`].
    pub async fn read_listed(&self, known: Option<&JournalView>) -> Result<JournalView, JournalError> {
        let start = self.check_known(known).await?;
        let head = self.find_listed(seq_of(start)).await?;
        let view = Box::pin(self.read_to(start, head, record::CHECKPOINT_STEP)).await?;
        match self.check_generation(&view) {
            // What a listing lacks may be the rotation.
            Err(JournalError::OlderThanKey { .. }) => self.read(known).await,
            checked => checked.map(|()| view),
        }
    }

    /// [`Journal::read`] for whoever looks again and again, in one request while nothing is new: it asks for the record after the newest
    /// known one. With `verify` it asks for that one as well, as whoever appends does: a store that was rolled back is noticed then.
    ///
    /// # Errors
    /// As [`Journal::read`].
    pub async fn poll(&self, known: Option<&JournalView>, verify: bool) -> Result<JournalView, JournalError> {
        // What an older version read past, this one may understand.
        let Some(view) = known.filter(|view| view.is_understood()) else { return self.read(known).await };
        if let Some(head) = view.head.as_ref().filter(|_| verify)
            && let Err(error) = self.read_known_head(head).await
        {
            return if error.is_rolled_back() { self.read(known).await } else { Err(error) };
        }
        if self.is_occupied(view.next_seq()).await? || !self.is_head_in_store(view).await? {
            return self.read(known).await;
        }
        self.check_generation(view)?;
        Ok(view.clone())
    }

    /// Whether `view`, which was the journal a moment ago, still is, and the newer one if not.
    ///
    /// # Errors
    /// As [`Journal::read`].
    pub async fn refresh(&self, view: JournalView) -> Result<JournalView, JournalError> {
        if self.etcd_head.is_none() && !self.is_occupied(view.next_seq()).await? {
            return Ok(view);
        }
        self.read(Some(&view)).await
    }

    /// Reads on to the last record that the store has.
    pub(super) async fn read_store(&self, known: Option<&JournalView>) -> Result<JournalView, JournalError> {
        let start = self.check_known(known).await?;
        let mut head = self.find_listed(seq_of(start)).await?;
        // A listing may lack what is there, and a record may have been appended just now.
        while self.is_occupied(head.next()).await? {
            head = self.find_listed(self.find_head(head.next()).await?).await?;
        }
        Box::pin(self.read_to(start, head, record::CHECKPOINT_EVERY)).await
    }

    /// [`Journal::fold`] up to what was listed.
    async fn read_to(
        &self,
        start: Option<&JournalView>,
        head: Seq,
        behind_max: u64,
    ) -> Result<JournalView, JournalError> {
        if head == Seq(0) && start.is_none() && Box::pin(emptied::is_emptied(self.store.as_ref(), &self.keys)).await? {
            return Err(JournalError::Hole(Seq::FIRST));
        }
        let read = Box::pin(self.fold(start, head, behind_max)).await;
        if let Some(unusable) = read.as_ref().err().and_then(JournalError::unusable_record) {
            // What was listed may be far beyond the journal's end: whoever wants what is left must hear where that is.
            let end = self.find_head(seq_of(start)).await?;
            // A void number of which nothing is there is no end.
            if end < unusable && !self.is_void_below(end.next(), head).await? {
                return Err(JournalError::Hole(end.next()));
            }
        }
        read
    }

    /// Reads up to record `until`, whatever comes after it: for a journal whose newest records are damaged.
    pub async fn read_until(&self, until: Seq) -> Result<JournalView, JournalError> {
        Box::pin(self.fold(None, until, 0)).await
    }

    /// What this node knew, if it is still there; nothing if a repair says that it is lost.
    async fn check_known<'a>(&self, known: Option<&'a JournalView>) -> Result<Option<&'a JournalView>, JournalError> {
        let Some((view, head)) = known.and_then(|view| Some((view, view.head.as_ref()?))) else { return Ok(None) };
        match self.read_known_head(head).await {
            Ok(_) => Ok(Some(view)),
            Err(gone @ JournalError::RolledBack { .. }) => {
                let head_now = self.find_listed(Seq(0)).await?;
                let now = match Box::pin(self.fold(None, head_now, 0)).await {
                    Ok(now) => now,
                    // Whether a repair tells of it is not known.
                    Err(error @ JournalError::Store(_)) => return Err(error),
                    Err(_) => return Err(gone),
                };
                let forgiven = self.repairs(&now).await?.covers(head.seq, head.digest, view.term());
                if now.generation() >= view.generation() && forgiven { Ok(None) } else { Err(gone) }
            }
            Err(error) => Err(error),
        }
    }

    /// The object of a record that was seen, if the store still has it.
    pub(super) async fn read_known_head(&self, head: &JournalHead) -> Result<Bytes, JournalError> {
        let instead = match self.read_usable_object(head.seq).await {
            Ok(Some(object)) if record::digest(&object) == head.digest => return Ok(object),
            Ok(Some(object)) => match Record::decode(&object, Some(&self.keys)) {
                Err(error @ RecordError::Damaged(_)) => RecordReplacement::Damaged(error),
                Ok(_) | Err(_) => RecordReplacement::Another,
            },
            Ok(None) => RecordReplacement::Nothing,
            Err(JournalError::Record { error, .. }) => RecordReplacement::Damaged(error),
            Err(error) => return Err(error),
        };
        Err(JournalError::RolledBack { seq: head.seq, seen: head.digest, instead })
    }

    /// The last record that the store lists after `known`, which is there.
    async fn find_listed(&self, known: Seq) -> Result<Seq, StoreError> {
        let mut search = HeadSearch::new(known.0, LIST_PAGE_MAX as u64);
        loop {
            let listed = self.list_after(Seq(search.after())).await?;
            if let Some(head) = search.add_listing(listed) {
                return Ok(Seq(head));
            }
        }
    }

    /// The records that one page of a listing shows after `seq`. What is no record has no number.
    async fn list_after(&self, seq: Seq) -> Result<ListedRecords, StoreError> {
        let role = self.keys.role();
        let (prefix, mut last) = (object_keys::journal_prefix(role), object_keys::record(role, seq));
        loop {
            let page = self.store.list(&prefix, Some(&last), LIST_PAGE_MAX).await?;
            let shown =
                page.objects.iter().filter_map(|object| object_keys::parse_record(role, &object.key)).next_back();
            match (shown, page.objects.last()) {
                (Some(shown), _) if page.truncated => return Ok(ListedRecords::Part(shown.0)),
                (Some(shown), _) => return Ok(ListedRecords::End(shown.0)),
                (None, Some(object)) if page.truncated => last.clone_from(&object.key),
                (None, None) if page.truncated => return Err(incomplete_listing_error(self.store.as_ref(), &prefix)),
                (None, _) => return Ok(ListedRecords::Nothing),
            }
        }
    }

    /// The highest occupied number, by doubling from one that is known to be occupied and bisecting.
    async fn find_head(&self, known: Seq) -> Result<Seq, StoreError> {
        let mut occupied = known.0;
        let mut step = 1;
        let mut empty = loop {
            let probe = occupied + step;
            if !self.is_occupied(Seq(probe)).await? {
                break probe;
            }
            occupied = probe;
            step *= 2;
        };
        while empty - occupied > 1 {
            let middle = occupied + (empty - occupied) / 2;
            if self.is_occupied(Seq(middle)).await? {
                occupied = middle;
            } else {
                empty = middle;
            }
        }
        Ok(Seq(occupied))
    }

    /// The view at `head`, beyond records of which a later repair says that they are lost.
    async fn fold(&self, start: Option<&JournalView>, head: Seq, behind_max: u64) -> Result<JournalView, JournalError> {
        let mut read = self.fold_sound(start, head, behind_max).await;
        let mut from = Seq(0);
        while let Some(unusable) = read.as_ref().err().and_then(JournalError::unusable_record) {
            let Some(after) = self.view_at_next_repair(unusable, head).await? else { break };
            // Terms never go back, and neither do repairs.
            if start.is_some_and(|start| start.term() > after.term()) || after.next_seq() <= from {
                break;
            }
            from = after.next_seq();
            read = self.fold_further(after, head, &BTreeMap::new()).await;
        }
        read
    }

    /// The view at `head`: from `start` if it is at most so many records behind, otherwise from the newest checkpoint that is nearer.
    async fn fold_sound(
        &self,
        start: Option<&JournalView>,
        head: Seq,
        behind_max: u64,
    ) -> Result<JournalView, JournalError> {
        // What an older version read past, this one may understand: its view shows that the history is the same, and no more.
        // An older version did not take down all that a state has now, either; it did not take down when the repository was made.
        let start = start.filter(|view| view.is_understood() && view.created.is_some() >= self.with_created.is_some());
        let known = seq_of(start).0;
        let mut fetched = BTreeMap::new();
        let mut at = head.0 - head.0 % record::CHECKPOINT_STEP;
        let view = loop {
            if let Some(view) = start.filter(|_| head.0 <= known + behind_max || at <= known + 1) {
                break view.clone();
            }
            if at == 0 {
                break JournalView::empty(self.keys.role().clone(), self.keys.repo());
            }
            let object = self.read_usable_object(Seq(at)).await?.ok_or(JournalError::Hole(Seq(at)))?;
            match self.before_checkpoint(Seq(at), &object) {
                // Where that generation begins is told by what is before it.
                Err(JournalError::Rotated { .. }) => {}
                read => {
                    let view = read?;
                    fetched.insert(at, object);
                    if let Some(view) = view {
                        break view;
                    }
                }
            }
            // It would have been too large, or an older version had no others; so were those between the ones that always have it, then.
            at -= if at.is_multiple_of(record::CHECKPOINT_EVERY) {
                record::CHECKPOINT_EVERY
            } else {
                record::CHECKPOINT_STEP
            };
        };
        self.fold_further(view, head, &fetched).await
    }

    /// Reads on from `view` to `head`; some objects are there already.
    async fn fold_further(
        &self,
        mut view: JournalView,
        head: Seq,
        fetched: &BTreeMap<u64, Bytes>,
    ) -> Result<JournalView, JournalError> {
        let first = view.next_seq().0;
        let mut objects = stream::iter(first..=head.0)
            .map(|seq| async move {
                let object = match fetched.get(&seq) {
                    Some(object) => Some(Some(object.clone())),
                    None => self.read_usable_object_ahead(Seq(seq)).await?,
                };
                Ok::<_, JournalError>((Seq(seq), object))
            })
            .buffered(READ_AHEAD);
        while let Some((seq, object)) = objects.try_next().await? {
            let object = match object {
                Some(object) => object,
                None => self.read_usable_object(seq).await?,
            };
            let object = object.ok_or(JournalError::Hole(seq))?;
            let record = Record::decode(&object, Some(&self.keys)).map_err(|error| match error {
                // One that no record begins is damage, whatever the object says of itself.
                RecordError::Rotated(found) if found > view.generation() => JournalError::Record { seq, error },
                error => JournalError::from_record_error(seq, error, self.keys.generation()),
            })?;
            view.apply(&record, record::digest(&object)).map_err(|error| JournalError::Fold { seq, error })?;
        }
        view.created = self.with_created.or(view.created);
        Ok(view)
    }

    /// The view before record `seq`, if that carries a state.
    fn before_checkpoint(&self, seq: Seq, object: &Bytes) -> Result<Option<JournalView>, JournalError> {
        let record = Record::decode(object, Some(&self.keys))
            .map_err(|error| JournalError::from_record_error(seq, error, self.keys.generation()))?;
        let view = JournalView::before_checkpoint(&record);
        if let Some(view) = &view
            && (view.role != *self.keys.role() || view.repo != self.keys.repo() || record.seq != seq)
        {
            let error = FoldError::Foreign { role: view.role.clone(), repo: view.repo };
            return Err(JournalError::Fold { seq, error });
        }
        Ok(view)
    }

    /// Appends a takeover, so that no older permit can append any more, and returns the permit that it gives. A candidacy that
    /// is over by then is refused: whoever got the lease after it has the role.
    pub async fn take_over(
        &self,
        view: &JournalView,
        candidacy: &Candidacy,
        why: TakeoverReason,
    ) -> Result<(Permit, JournalView), AppendError> {
        self.take_over_as(view, candidacy, TakeoverBody::new(why)).await
    }

    /// The same with more to say of it.
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
        let digest = view.head.as_ref().expect("a record was just appended").digest;
        Ok((candidacy.permit(term, digest), view))
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

    /// Appends what needs no permit and changes no term.
    pub async fn append_unfenced(&self, view: &JournalView, act: UnfencedAction) -> Result<JournalView, AppendError> {
        let body = match act {
            UnfencedAction::Pause(body) => RecordBody::Pause(body),
            UnfencedAction::Resume => RecordBody::Resume,
            UnfencedAction::Clone(body) => RecordBody::Clone(body),
            UnfencedAction::Amend => RecordBody::Amend(AmendBody {}),
        };
        self.append_draft(view, RecordDraft { term: view.term(), takeover: None, body, slot: None }, None).await
    }

    /// Creates the record after `view`'s head, unless `deadline` has passed when all is ready.
    async fn append_draft(
        &self,
        view: &JournalView,
        draft: RecordDraft,
        deadline: Option<&Deadline>,
    ) -> Result<JournalView, AppendError> {
        check_understood(view)?;
        // The last record is looked at once more: a store that was rolled back would accept the same number twice.
        let before = match &view.head {
            Some(head) => self.read_known_head(head).await?,
            None => Bytes::new(),
        };
        // How the record is dated rests on it, and whether the date is doubted.
        self.store.measure_clock_offset().await;
        let (record, object) = self.compose(view, &before, draft)?;
        let seq = record.seq;
        // Before it is written: what does not follow is no failure to tell afterwards.
        let mut after = view.clone();
        let folded = after
            .apply(&record, record::digest(&object))
            .map_err(|error| AppendError::Journal(JournalError::Fold { seq, error }));
        // Folding first would hide that nothing was compared.
        #[cfg(feature = "planted")]
        let (folded, late) = match folded {
            Err(error) if crate::planted::is(crate::planted::PlantedBug::CommitWithoutCompare) => (Ok(()), Err(error)),
            folded => (folded, Ok(())),
        };
        folded?;
        if deadline.is_some_and(|deadline| deadline.passed(self.env.clock.moment())) {
            return Err(AppendError::Expired);
        }
        let ours = match &self.etcd_head {
            Some(seat) => self.cas_until_known(seat, seq, &before, &object).await?,
            None => self.put_until_known(seq, &object).await?,
        };
        if !ours {
            return Err(AppendError::Moved(Box::new(match self.read(Some(view)).await {
                // What is left of a journal is less than it was: what was appended to the whole need not follow from it.
                Err(error) if record.body.as_repair().is_some() && error.unusable_record().is_some() => view.clone(),
                read => read?,
            })));
        }
        #[cfg(feature = "planted")]
        late?;
        Ok(after)
    }

    /// The record after `view`'s head, which is compared with `before`, and its object.
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
        // A rotation's record vouches for all before it, and so does the one after it: each may be lost.
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
            && !etcd_head::fits_register(before.len(), object.len())
            && record.state.is_some()
            && !is_repair
        {
            // A checkpoint merely saves reading what comes before it.
            record.state = None;
            record.add_rotation_proof(&self.keys);
            object = record.encode(&self.keys);
        }
        // What no reader would take.
        let is_readable = object.len() as u64 <= SizeLimit::RECORD.bytes();
        if !is_readable || self.etcd_head.is_some() && !etcd_head::fits_register(before.len(), object.len()) {
            return Err(AppendError::TooLarge { seq, bytes: object.len() });
        }
        Ok((record, Bytes::from(object)))
    }

    /// Puts the object until its number is occupied, for good. True: by our bytes. False: by others.
    async fn put_until_known(&self, seq: Seq, object: &Bytes) -> Result<bool, AppendError> {
        let key = object_keys::record(self.keys.role(), seq);
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
            match self.read_object(seq).await {
                Ok(Some(there)) if there != *object => return Ok(false),
                Err(error) if error.is_not_an_object() => return Ok(false),
                // Whole bytes: our own lost success is a success.
                Ok(Some(_)) if answered => return Ok(true),
                // They may be seen and not yet durable. A put that finds them there says so; one is sent whatever time it is.
                Ok(Some(_)) if !seen => {
                    seen = true;
                    continue;
                }
                Ok(Some(_)) => {}
                #[cfg(feature = "planted")]
                Ok(None) if crate::planted::is(crate::planted::PlantedBug::UnknownIsFailure) => {
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

/// The number of a view's newest record, or 0.
fn seq_of(view: Option<&JournalView>) -> Seq {
    view.and_then(|view| view.head.as_ref()).map_or(Seq(0), |head| head.seq)
}

/// An error about record `seq`: what is no object is a damaged record.
fn unreadable_error(seq: Seq, error: StoreError) -> JournalError {
    if error.is_not_an_object() {
        let error = RecordError::Damaged(format!("{}: {}", error.kind, error.detail));
        return JournalError::Record { seq, error };
    }
    JournalError::Store(error)
}

/// Nobody appends to what it cannot read.
pub(crate) fn check_understood(view: &JournalView) -> Result<(), AppendError> {
    if view.is_understood() {
        return Ok(());
    }
    let kinds = view.unknown_kinds.iter().chain(view.state.unknown.keys()).cloned().collect::<Vec<_>>();
    Err(AppendError::NotUnderstood(kinds.join(", ")))
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
