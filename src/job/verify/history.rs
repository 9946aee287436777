//! Checks the journal, from its first record or a checkpoint on: MAC, chain, fold, checkpoints. `audit` reads it the
//! same way.
//!
//! After a damaged record the rest is still worth checking, so the fold resumes at the next sound record, from the
//! state known before (and at the next checkpoint from the checkpoint's state). Each damage is reported once; that the
//! record after a lost one does not continue it is not reported.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;

use super::damage_log::DamageLog;
use crate::ids::{Digest, Seq, Term};
use crate::job::report::verified::DamageKind;
use crate::job::repository::open::Repository;
use crate::job::verify::error::{MISSING, VerifyError, each_listed, object_trouble};
use crate::journal::body::{RecordBody, TakeoverReason};
use crate::journal::emptied;
use crate::journal::error::JournalError;
use crate::journal::record::{self, Record, RecordError};
use crate::journal::repair_history::{RepairEntry, RepairHistory};
use crate::journal::rotation::RotationState;
use crate::journal::state::{JournalState, RoleHolder};
use crate::journal::view::{FoldError, JournalHead, JournalView};
use crate::journal::void_numbers::{FetchedRecords, VOID_MAX, repairs_to};
use crate::repo::crypto::DerivedKeys;
use crate::repo::object_keys;
use crate::store::{SizeLimit, StoreErrorKind};

/// Records that are fetched at the same time.
const READ_AHEAD: usize = 16;

/// The end of the journal, as listed by the store or remembered by this node.
pub(crate) struct JournalExtent {
    last: u64,
    /// Number of listed objects that are not records.
    foreign_objects: u64,
    /// A number far beyond the others under which an object exists.
    far: Option<Seq>,
    /// The repairs in the journal.
    repairs: RepairHistory,
    /// Records that were read to find the repairs.
    fetched: FetchedRecords,
}

/// The content of the journal.
pub(crate) struct JournalHistory {
    /// Number of records that were read.
    pub(crate) records: u64,
    /// The state after all readable records.
    pub(crate) state: JournalState,
    /// Number of listed objects that are not records.
    pub(crate) foreign_objects: u64,
}

/// Finds the end of the journal.
pub(crate) async fn find_extent(
    repository: &Repository,
    known: Option<&JournalView>,
) -> Result<JournalExtent, VerifyError> {
    let (mut last, mut strangers, mut far) = (0, 0, None);
    // The newest record that this node saw existed, whatever the listing shows.
    let seen = known.and_then(|view| view.head.as_ref()).map_or(0, |head| head.seq.0);
    let prefix = object_keys::journal_prefix(repository.role());
    each_listed(repository.store.as_ref(), &prefix, |object| match parse_seq(&object.key[prefix.len()..]) {
        // A planted object with a huge number must not make the reader look at all numbers before it.
        Some(seq) if seq - 1 > last.max(seen) + VOID_MAX as u64 => far = far.or(Some(Seq(seq))),
        Some(seq) => last = last.max(seq),
        None => strangers += 1,
    })
    .await?;
    last = last.max(seen);
    // The first record existed.
    if last == 0 && Box::pin(emptied::is_emptied(repository.store.as_ref(), &repository.keys)).await? {
        last = 1;
    }
    let (repairs, fetched) = repairs_to(repository.store.as_ref(), &repository.keys, Seq::FIRST, Seq(last)).await?;
    Ok(JournalExtent { last, foreign_objects: strangers, far, repairs, fetched })
}

/// The view before the newest checkpoint that was written before `time`, from which the reading can begin. `None`:
/// begin at the first record.
pub(crate) async fn checkpoint_before(
    repository: &Repository,
    extent: &JournalExtent,
    time: Timestamp,
) -> Result<Option<JournalView>, VerifyError> {
    let keys = &repository.keys;
    // Only the regular checkpoints are tried: reading a few more records costs less than looking for a nearer one.
    for number in (1..=extent.last / record::CHECKPOINT_EVERY).rev() {
        let seq = Seq(number * record::CHECKPOINT_EVERY);
        if extent.repairs.is_void(seq) {
            continue;
        }
        // An unusable checkpoint is skipped here; the reading from an earlier one reports it.
        let Ok(object) = get_record(repository, seq).await? else { continue };
        let Ok(record) = Record::decode(&object, Some(keys)) else { continue };
        if record.is_at(seq, keys) && record.time.max(record.written_at()) < time {
            return Ok(JournalView::before_checkpoint(&record));
        }
    }
    Ok(None)
}

/// The object of a record, or what is wrong with it.
async fn get_record(repository: &Repository, seq: Seq) -> Result<Result<Bytes, String>, VerifyError> {
    match repository.store.get(&object_keys::record(repository.role(), seq), SizeLimit::RECORD).await {
        Ok(object) => Ok(Ok(object)),
        Err(error) => object_trouble(error).map(Err),
    }
}

/// The same for reading ahead; `None` for a large record.
async fn prefetch_record(repository: &Repository, seq: Seq) -> Result<Option<Result<Bytes, String>>, VerifyError> {
    match repository.store.get(&object_keys::record(repository.role(), seq), SizeLimit::RECORD_AHEAD).await {
        Ok(object) => Ok(Some(Ok(object))),
        Err(error) if error.kind == StoreErrorKind::TooLarge => Ok(None),
        Err(error) => object_trouble(error).map(|what| Some(Err(what))),
    }
}

/// Reads the journal, from the view `from` if there is one. `each` is called with the usable records in their order.
pub(crate) async fn read(
    repository: &Repository,
    known: Option<&JournalView>,
    extent: &JournalExtent,
    from: Option<JournalView>,
    found: &mut DamageLog,
    each: &mut (dyn FnMut(&Record, Digest) + Send),
) -> Result<JournalHistory, VerifyError> {
    let first = from.as_ref().map_or(Seq::FIRST, JournalView::next_seq);
    let keys = &repository.keys;
    let (repairs, fetched) = (&extent.repairs, &extent.fetched);
    let mut fold = JournalFold::new(keys, known, from, found, each);
    fold.repairs.extend(repairs.iter().cloned());
    let mut objects = stream::iter((first.0..=extent.last).map(Seq).filter(|seq| !repairs.is_void(*seq)))
        .map(|seq| {
            let there = fetched.get(seq).cloned();
            async move {
                let object = match there {
                    Some(object) => Some(Ok(object)),
                    None => prefetch_record(repository, seq).await?,
                };
                Ok::<_, VerifyError>((seq, object))
            }
        })
        .buffered(READ_AHEAD);
    while let Some((seq, object)) = objects.try_next().await? {
        fold.pass_over(seq);
        let object = match object {
            Some(object) => object,
            None => get_record(repository, seq).await?,
        };
        fold.add_record(seq, object)?;
    }
    drop(objects);
    // A listing may lag behind new records.
    let mut next = Seq(extent.last + 1);
    loop {
        match get_record(repository, next).await? {
            Err(what) if what == MISSING => break,
            object => fold.add_record(next, object)?,
        }
        next = next.next();
    }
    let (view, records) = fold.finish();
    if let Some(far) = extent.far {
        let key = object_keys::record(repository.role(), far);
        found.damage(DamageKind::Record, key, "lies far beyond the journal's end: runner did not write it there");
    }
    let given = keys.generation();
    if let Some(RotationState { seq, generation }) = view.state.rotated.filter(|now| now.generation > given) {
        return Err(VerifyError::Rotated(JournalError::Rotated { seq: seq.next(), generation, given }));
    }
    if view.generation() < given {
        let error = JournalError::OlderThanKey { now: view.generation(), given };
        found.damage(DamageKind::Record, object_keys::journal_prefix(repository.role()), &error.to_string());
    }
    if !view.is_understood() {
        let kinds = view.unknown_kinds.iter().chain(view.state.unknown.keys()).cloned().collect::<Vec<_>>();
        return Err(VerifyError::NotUnderstood(kinds.join(", ")));
    }
    Ok(JournalHistory { records, state: view.state, foreign_objects: extent.foreign_objects })
}

/// The number in the last part of a record's key.
fn parse_seq(name: &str) -> Option<u64> {
    let sound = name.len() == 16 && name.bytes().all(|b| b.is_ascii_digit());
    sound.then(|| name.parse().ok()).flatten().filter(|&seq| seq > 0)
}

struct JournalFold<'a> {
    keys: &'a DerivedKeys,
    /// The newest record that this node saw; `known_term` is its term.
    known: Option<&'a JournalHead>,
    known_term: Term,
    /// What is wrong with the record now under its number.
    other: Option<String>,
    /// The last usable record.
    last_good: Seq,
    found: &'a mut DamageLog,
    each: &'a mut (dyn FnMut(&Record, Digest) + Send),
    view: JournalView,
    records: u64,
    /// The previous record was unusable, so the next one cannot be compared with it.
    gap: bool,
    /// The state is incomplete until the next checkpoint.
    partial: bool,
    /// Damaged records; a later record may declare the damage as known.
    damages: Vec<(Seq, String)>,
    repairs: Vec<RepairEntry>,
}

impl<'a> JournalFold<'a> {
    fn new(
        keys: &'a DerivedKeys,
        known: Option<&'a JournalView>,
        from: Option<JournalView>,
        found: &'a mut DamageLog,
        each: &'a mut (dyn FnMut(&Record, Digest) + Send),
    ) -> Self {
        let view = from.unwrap_or_else(|| JournalView::empty(keys.role().clone(), keys.repo()));
        let known_term = known.map_or(Term(0), JournalView::term);
        let known = known.and_then(|view| view.head.as_ref());
        let (other, last_good) = (None, Seq(0));
        Self {
            keys,
            known,
            known_term,
            other,
            last_good,
            found,
            each,
            view,
            records: 0,
            gap: false,
            partial: false,
            damages: Vec::new(),
            repairs: Vec::new(),
        }
    }

    /// Called before record `next`: the skipped numbers before it are void.
    fn pass_over(&mut self, next: Seq) {
        if self.view.next_seq() != next && !self.gap {
            (self.gap, self.partial) = (true, true);
        }
    }

    fn add_record(&mut self, seq: Seq, object: Result<Bytes, String>) -> Result<(), VerifyError> {
        let object = match object {
            Ok(object) => object,
            Err(what) => {
                self.broken(seq, &what);
                return Ok(());
            }
        };
        self.records += 1;
        let digest = record::digest(&object);
        if let Some(known) = self.known
            && known.seq == seq
            && known.digest != digest
        {
            self.other = Some(format!("differs from the record that this node saw there ({})", known.digest));
        }
        match Record::decode(&object, Some(self.keys)) {
            Ok(record) => self.apply(seq, &record, digest),
            Err(error @ RecordError::Newer(_)) => return Err(VerifyError::Newer { seq, error }),
            // A record of a generation that no record begins is damaged.
            Err(RecordError::Rotated(generation)) if generation <= self.view.generation() => {
                let given = self.keys.generation();
                return Err(VerifyError::Rotated(JournalError::Rotated { seq, generation, given }));
            }
            Err(error) => self.broken(seq, &error.to_string()),
        }
        Ok(())
    }

    fn apply(&mut self, seq: Seq, record: &Record, digest: Digest) {
        if let Err(error) = self.view.refuse_older(record) {
            return self.broken(seq, &error.to_string());
        }
        if self.gap {
            self.resume_at(seq, record);
        } else if self.partial
            && let Some(state) = &record.state
        {
            self.view.state = state.clone();
            self.partial = false;
        }
        match self.view.apply(record, digest) {
            Ok(()) => {
                self.gap = false;
                self.last_good = seq;
                if record.body.as_repair().is_some() {
                    self.partial = false;
                    self.repairs.extend(self.view.state.repaired.last().cloned());
                }
                (self.each)(record, digest);
            }
            Err(error @ (FoldError::Foreign { .. } | FoldError::Number { .. })) => {
                self.broken(seq, &error.to_string());
            }
            Err(error) => {
                self.damage(seq, &error.to_string());
                self.resume_at(seq, record);
                self.gap = self.view.apply(record, digest).is_err();
                (self.each)(record, digest);
            }
        }
    }

    /// Resumes the fold at this record, as if everything before it were in order.
    fn resume_at(&mut self, seq: Seq, record: &Record) {
        let before = self.view.term();
        if record.term < before {
            self.damage(seq, &FoldError::Term { found: record.term, before }.to_string());
        }
        self.partial = record.state.is_none();
        if let Some(state) = &record.state {
            self.view.state = state.clone();
        } else {
            // The holder before this record, according to the record itself.
            let (term, takeover) = match record.body {
                RecordBody::Takeover(_) => (Term(record.term.0.saturating_sub(1)), None),
                _ => (record.term, record.takeover),
            };
            self.view.state.holder = Some(RoleHolder {
                term,
                takeover: takeover.unwrap_or(Digest([0; Digest::LEN])),
                seq,
                node: record.node.clone(),
                instance: record.instance,
                time: record.time,
                why: TakeoverReason::Moved,
                command: None,
                store_time: None,
                handed_over: None,
            });
        }
        if record.generation > self.view.generation() {
            self.view.state.rotated = Some(RotationState { generation: record.generation, seq });
        }
        self.view.head = record.prev.filter(|_| seq > Seq::FIRST).map(|digest| JournalHead {
            seq: Seq(seq.0 - 1),
            digest,
            node: record.node.clone(),
            time: record.time,
        });
    }

    /// Records an unusable record.
    fn broken(&mut self, seq: Seq, what: &str) {
        self.damage(seq, what);
        self.gap = true;
        self.partial = true;
    }

    fn damage(&mut self, seq: Seq, what: &str) {
        self.damages.push((seq, what.to_owned()));
    }

    /// Reports the damages, without those that a repair has named.
    fn finish(mut self) -> (JournalView, u64) {
        if let Some((what, known)) = self.other.take().zip(self.known)
            && !self.repairs.iter().any(|repaired| repaired.covers(known.seq, known.digest, self.known_term))
        {
            self.damages.push((known.seq, what));
        }
        for (seq, what) in self.damages {
            let is_seen_end = self.known.is_some_and(|known| known.seq >= seq) && seq > self.last_good;
            let named = |repaired: &RepairEntry| {
                let at_end = repaired.lost.is_some_and(|lost| (lost.from..=lost.to).contains(&seq));
                repaired.void.contains(&seq) || is_seen_end && at_end && self.known_term < repaired.term
            };
            if self.repairs.iter().any(named) {
                continue;
            }
            let number = self.found.damage(DamageKind::Record, object_keys::record(self.keys.role(), seq), &what);
            // The record may have named index objects.
            self.found.lose_index(number);
        }
        (self.view, self.records)
    }
}
