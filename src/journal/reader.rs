//! Reading what the store has of a journal: its objects, where they end, and the view that they add up to.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use crate::env::Env;
use crate::ids::{Digest, InstanceId, KeyGeneration, ScheduleId, Seq};
use crate::journal::body::WriterNode;
use crate::journal::error::{JournalError, RecordReplacement};
use crate::journal::head_search::{HeadSearch, ListedRecords};
use crate::journal::record::{self, Record, RecordError};
use crate::journal::register::EtcdHead;
use crate::journal::repair_history::RepairHistory;
use crate::journal::rotation::RotationState;
use crate::journal::view::{FoldError, JournalHead, JournalView};
use crate::journal::{emptied, void_numbers};
use crate::repo::crypto::DerivedKeys;
use crate::repo::object_keys;
use crate::store::{
    LIST_PAGE_MAX, LargeReadLock, SizeLimit, Store, StoreError, StoreErrorKind, get_with_large_read_lock,
    incomplete_listing_error,
};

/// Records fetched at once while a journal is read.
const READ_AHEAD: usize = 16;

/// A role's journal in its store.
#[derive(Debug, Clone)]
pub struct Journal {
    pub(super) store: Arc<dyn Store>,
    pub(super) keys: DerivedKeys,
    pub(super) env: Env,
    pub(super) node: WriterNode,
    pub(super) instance: InstanceId,
    /// The register that decides which writer appends; `None`: the store does.
    pub(super) etcd_head: Option<EtcdHead>,
    /// When the repository was created, if that is known.
    with_created: Option<Timestamp>,
    /// The schedule that the slots of its records belong to.
    pub(super) schedule: Option<ScheduleId>,
}

impl Journal {
    /// The journal of the repository that `keys` belong to, written as this node and process. Where the head is in a
    /// register, a journal without [`Journal::with_etcd_head`] reads what the store has, and must not append.
    pub fn new(store: Arc<dyn Store>, keys: DerivedKeys, env: Env, node: WriterNode, instance: InstanceId) -> Self {
        Self { store, keys, env, node, instance, etcd_head: None, with_created: None, schedule: None }
    }

    /// With the time when the repository was created, which its views show.
    pub fn created(self, at: Timestamp) -> Self {
        Self { with_created: Some(at), ..self }
    }

    /// With the schedule that the slots of its records belong to.
    pub fn with_schedule(self, schedule: Option<ScheduleId>) -> Self {
        Self { schedule, ..self }
    }

    /// With its head in a register.
    pub fn with_etcd_head(self, head: EtcdHead) -> Self {
        Self { etcd_head: Some(head), ..self }
    }

    /// The newest generation of the repository key that the keys give.
    pub fn generation(&self) -> KeyGeneration {
        self.keys.generation()
    }

    /// The node that writes with this journal.
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

    /// Whether the number is occupied, by a record or by anything else.
    pub(super) async fn is_occupied(&self, seq: Seq) -> Result<bool, StoreError> {
        match self.read_object(seq).await {
            Ok(object) => Ok(object.is_some()),
            Err(e) if e.is_not_an_object() => Ok(true),
            Err(e) => Err(e),
        }
    }

    /// [`Journal::read_object`] for a reader of the record: a key that is not an object is a record that cannot be
    /// read.
    pub(super) async fn read_usable_object(&self, seq: Seq) -> Result<Option<Bytes>, JournalError> {
        self.read_object(seq).await.map_err(|e| unreadable_error(seq, e))
    }

    /// The same while many records are read at once: `None` for a large one.
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

    /// The same while many records are read at once: large ones are read one after the other, under `large_read_lock`.
    pub(crate) async fn read_record_ahead(
        &self,
        seq: Seq,
        large_read_lock: &LargeReadLock,
    ) -> Result<Option<(Record, Digest)>, JournalError> {
        let (key, limits) = (object_keys::record(self.keys.role(), seq), (SizeLimit::RECORD_AHEAD, SizeLimit::RECORD));
        let (object, _guard) = match get_with_large_read_lock(self.store.as_ref(), &key, limits, large_read_lock).await
        {
            Ok(read) => read,
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) => return Err(unreadable_error(seq, e)),
        };
        let record = Record::decode(&object, Some(&self.keys))
            .map_err(|error| JournalError::from_record_error(seq, error, self.keys.generation()))?;
        Ok(Some((record, record::digest(&object))))
    }

    /// Whether the journal is written under the newest generation of these keys. A newer one in the journal means that
    /// the keys are old; an older one means that the journal lost the rotation that the keys prove.
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

    /// Reads on to the last record that the store has.
    pub(super) async fn read_store(&self, known: Option<&JournalView>) -> Result<JournalView, JournalError> {
        let start = self.check_known(known).await?;
        let mut head = self.find_listed(seq_of(start)).await?;
        // A listing may lag, and a record may have been appended just now.
        while self.is_occupied(head.next()).await? {
            head = self.find_listed(self.find_head(head.next()).await?).await?;
        }
        Box::pin(self.read_to(start, head, record::CHECKPOINT_EVERY)).await
    }

    /// [`Journal::fold`] up to what was listed.
    pub(super) async fn read_to(
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
            // A listed number may be far beyond the end of the journal. The error must name the end, for a reader that
            // wants what is before it.
            let end = self.find_head(seq_of(start)).await?;
            // A void number that is empty is not an end.
            if end < unusable && !void_numbers::is_void_below(self.store.as_ref(), &self.keys, end.next(), head).await?
            {
                return Err(JournalError::Hole(end.next()));
            }
        }
        read
    }

    /// Reads up to record `until` and ignores all that follows: for a journal whose newest records are damaged.
    pub async fn read_until(&self, until: Seq) -> Result<JournalView, JournalError> {
        Box::pin(self.fold(None, until, 0)).await
    }

    /// The view that this node knew, if the store still has its head; `None` if a repair says that this head is lost.
    pub(super) async fn check_known<'a>(
        &self,
        known: Option<&'a JournalView>,
    ) -> Result<Option<&'a JournalView>, JournalError> {
        let Some((view, head)) = known.and_then(|view| Some((view, view.head.as_ref()?))) else { return Ok(None) };
        match self.read_known_head(head).await {
            Ok(_) => Ok(Some(view)),
            Err(gone @ JournalError::RolledBack { .. }) => {
                let head_now = self.find_listed(Seq(0)).await?;
                let now = match Box::pin(self.fold(None, head_now, 0)).await {
                    Ok(now) => now,
                    // Whether a repair names it is not known.
                    Err(error @ JournalError::Store(_)) => return Err(error),
                    Err(_) => return Err(gone),
                };
                let forgiven = self.repairs(&now).await?.covers(head.seq, head.digest, view.term());
                if now.generation() >= view.generation() && forgiven { Ok(None) } else { Err(gone) }
            }
            Err(error) => Err(error),
        }
    }

    /// All repairs of the journal that `view` shows. While they are few, no request is needed.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn repairs(&self, view: &JournalView) -> Result<RepairHistory, StoreError> {
        void_numbers::repairs_of(self.store.as_ref(), &self.keys, view).await
    }

    /// The object of a record that this node has seen, if the store still has it.
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
    pub(super) async fn find_listed(&self, known: Seq) -> Result<Seq, StoreError> {
        let mut search = HeadSearch::new(known.0, LIST_PAGE_MAX as u64);
        loop {
            let listed = self.list_after(Seq(search.after())).await?;
            if let Some(head) = search.add_listing(listed) {
                return Ok(Seq(head));
            }
        }
    }

    /// The records that one page of a listing shows after `seq`. A key that is not a record's has no number.
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

    /// The highest occupied number, found by doubling the distance from `known`, which is occupied, and bisecting.
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

    /// The view at `head`. It passes over records that a later repair calls lost.
    async fn fold(&self, start: Option<&JournalView>, head: Seq, behind_max: u64) -> Result<JournalView, JournalError> {
        let mut read = self.fold_sound(start, head, behind_max).await;
        let mut from = Seq(0);
        while let Some(unusable) = read.as_ref().err().and_then(JournalError::unusable_record) {
            let Some(after) =
                void_numbers::view_at_next_repair(self.store.as_ref(), &self.keys, unusable, head).await?
            else {
                break;
            };
            // Terms never go back, and neither do repairs.
            if start.is_some_and(|start| start.term() > after.term()) || after.next_seq() <= from {
                break;
            }
            from = after.next_seq();
            read = self.fold_further(after, head, &BTreeMap::new()).await;
        }
        read
    }

    /// The view at `head`: from `start` if that is at most `behind_max` records behind, otherwise from the newest
    /// checkpoint that is nearer.
    async fn fold_sound(
        &self,
        start: Option<&JournalView>,
        head: Seq,
        behind_max: u64,
    ) -> Result<JournalView, JournalError> {
        // A view that passed over unknown kinds shows that the history is the same, and no more: this version may know
        // these kinds. A view of an older version may also lack what a state has now; such a version did not keep when
        // the repository was created.
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
                // The records before it show where that generation begins.
                Err(JournalError::Rotated { .. }) => {}
                read => {
                    let view = read?;
                    fetched.insert(at, object);
                    if let Some(view) = view {
                        break view;
                    }
                }
            }
            // The state would have been too large here, or an older version wrote no state here. Then the numbers
            // between the multiples of CHECKPOINT_EVERY have none either.
            at -= if at.is_multiple_of(record::CHECKPOINT_EVERY) {
                record::CHECKPOINT_EVERY
            } else {
                record::CHECKPOINT_STEP
            };
        };
        self.fold_further(view, head, &fetched).await
    }

    /// Reads from `view` to `head`; some objects are `fetched` already.
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
                // A generation that no record begins is damage, whatever the object says of itself.
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
}

/// The number of a view's newest record, or 0.
pub(super) fn seq_of(view: Option<&JournalView>) -> Seq {
    view.and_then(|view| view.head.as_ref()).map_or(Seq(0), |head| head.seq)
}

/// An error about record `seq`: a key that is not an object is a damaged record.
fn unreadable_error(seq: Seq, error: StoreError) -> JournalError {
    if error.is_not_an_object() {
        let error = RecordError::Damaged(format!("{}: {}", error.kind, error.detail));
        return JournalError::Record { seq, error };
    }
    JournalError::Store(error)
}
