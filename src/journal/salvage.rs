//! What is left of a journal of which records are lost. Pure.
//!
//! The fold is taken up again at the next record that can be used, from what was known before; a later record that carries the whole
//! state, or what this node remembers, brings back what the lost ones said. What nothing brings back is named as lost. Nothing here
//! invents: a snapshot comes back only as somebody saw it, what was condemned stays condemned, and a slot that a later record calls
//! committed is not committed again.
//!
//! After a rotation of the repository key a MAC of an older generation proves nothing by itself: a holder of the old key makes such MACs.
//! A record of an older generation counts if the chain of digests ties it to one of the newest generation, to the record that begins it,
//! or to a record that this node remembers. The others are [`UnverifiedRecords`]: they are named, and are no part of what is left.

use std::collections::{BTreeSet, HashSet};

use jiff::Timestamp;

use crate::ids::{Digest, IndexId, KeyGeneration, NodeId, RepoId, RoleName, Seq, Term};
use crate::journal::body::{LostTail, RecordBody, TakeoverReason, WriterNode};
use crate::journal::record::Record;
use crate::journal::repair_history::{RepairEntry, RepairHistory};
use crate::journal::rotation::RotationState;
use crate::journal::state::{CondemnedObjects, RoleHolder, Snapshot};
use crate::journal::view::{FoldError, JournalHead, JournalView};

/// A record that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LostRecord {
    /// Its number.
    pub seq: Seq,
    /// What is wrong with it.
    pub what: String,
    /// The digest of what stands there; `None`: nothing, or nothing that can be read.
    pub found: Option<Digest>,
    /// Nothing stands there.
    pub missing: bool,
}

/// What is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SalvagedJournal {
    /// The journal as far as it can be told; its head is the last number that is occupied.
    pub view: JournalView,
    /// Records that are lost, and that no repair has named before.
    pub lost_records: Vec<LostRecord>,
    /// Records that an earlier repair has named.
    pub named_before: u64,
    /// What they said is not known in whole: nothing later says it, and this node does not remember it.
    pub is_partial: bool,
    /// The end that the store lost, where this node remembers it.
    pub lost_tail: Option<LostTail>,
    /// Snapshots that only this node remembers.
    pub remembered_snapshots: Vec<Digest>,
    /// The generation of the repository key that the key at hand gives, where no record begins it.
    pub unstarted_generation: Option<KeyGeneration>,
    /// Records of which nothing shows that they are not a former key holder's.
    pub unverified: Option<UnverifiedRecords>,
}

impl SalvagedJournal {
    /// Whether what is to be repaired is the same as it was `before`, of which this is the continuation: records were appended, and
    /// none of them repairs, forgets or condemns anything, nor is lost.
    pub fn continues(&self, before: &Self) -> bool {
        let (now, was) = (&self.view.state, &before.view.state);
        let here: HashSet<Digest> = now.snapshots.iter().map(|snapshot| snapshot.id).collect();
        let indexes: HashSet<IndexId> = now.indexes.iter().copied().collect();
        self.lost_records == before.lost_records
            && self.may_lack_indexes() == before.may_lack_indexes()
            && self.unstarted_generation == before.unstarted_generation
            && self.unverified == before.unverified
            && self.view.generation() == before.view.generation()
            && self.view.is_understood()
            && now.repaired == was.repaired
            && now.condemned == was.condemned
            && was.snapshots.iter().all(|snapshot| here.contains(&snapshot.id))
            && was.indexes.iter().all(|id| indexes.contains(id))
    }

    /// Whether what the journal lost may have named further index objects.
    pub fn may_lack_indexes(&self) -> bool {
        self.is_partial || !self.remembered_snapshots.is_empty()
    }

    /// Whether every record is there.
    pub fn is_sound(&self) -> bool {
        self.lost_records.is_empty() && self.lost_tail.is_none() && self.unstarted_generation.is_none()
    }
}

/// Records of older generations of the repository key that nothing of the newest one vouches for, nor this node's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnverifiedRecords {
    /// The first.
    pub from: Seq,
    /// The last.
    pub to: Seq,
    /// The snapshots that they tell of, and that are not known otherwise.
    pub snapshots: Vec<Snapshot>,
    /// The index objects that they name, and that are not known otherwise.
    pub indexes: Vec<IndexId>,
}

/// Terms from here on are nobody's: no journal has so many takeovers.
const TERM_MAX: Term = Term(u64::MAX / 2);

/// What is sure, while records after it wait for one that vouches for them.
#[derive(Debug, Clone)]
struct VerifiedPrefix {
    view: JournalView,
    swept: BTreeSet<Seq>,
    repairs: usize,
}

/// Takes the records one after the other.
#[derive(Debug, Clone)]
pub struct JournalSalvager {
    known: Option<JournalView>,
    view: JournalView,
    void: Vec<LostRecord>,
    /// The record before was lost, so the next one cannot be held against it.
    gap: bool,
    /// Something is missing from the state.
    partial: bool,
    /// What this node remembers is in the store.
    is_known_there: bool,
    repairs: Vec<RepairEntry>,
    good: HashSet<Digest>,
    swept: BTreeSet<Seq>,
    last: Seq,
    /// The newest generation that the key at hand gives.
    newest: KeyGeneration,
    /// Digests of records that this node remembers.
    remembered: HashSet<Digest>,
    verified: Option<Box<VerifiedPrefix>>,
    /// The records since then.
    waiting: Vec<(Seq, Digest)>,
    unvouched: Option<UnverifiedRecords>,
    /// The holder with the highest term that such records tell of: terms go on from there.
    overtaken: Option<RoleHolder>,
    /// Their digests.
    dropped: Vec<Digest>,
}

impl JournalSalvager {
    /// From nothing; `known` is what this node remembers, `newest` the generation that the key at hand gives.
    pub fn new(role: RoleName, repo: RepoId, known: Option<&JournalView>, newest: KeyGeneration) -> Self {
        let known = known.filter(|view| view.head.is_some() && view.is_understood() && view.repo == repo);
        Self {
            newest,
            remembered: known.map(remembered_digests).unwrap_or_default(),
            verified: None,
            waiting: Vec::new(),
            unvouched: None,
            overtaken: None,
            dropped: Vec::new(),
            known: known.cloned(),
            view: JournalView::empty(role, repo),
            void: Vec::new(),
            gap: false,
            partial: false,
            is_known_there: known.is_none(),
            repairs: Vec::new(),
            good: HashSet::new(),
            swept: BTreeSet::new(),
            last: Seq(0),
        }
    }

    /// With the repairs that are known before anything is taken.
    pub fn with_repairs(mut self, repairs: &RepairHistory) -> Self {
        self.repairs.extend(repairs.iter().cloned());
        self
    }

    /// The record with this number, or why there is none.
    pub fn add(&mut self, seq: Seq, object: Result<(Record, Digest), LostRecord>) {
        self.last = seq;
        match object {
            Ok((record, digest)) => {
                let vouched = self.is_verified(&record, digest);
                if vouched && record.body.as_repair().is_some() && self.verified.is_some() {
                    // It says what is left, and vouches for nothing else.
                    self.drop_waiting();
                    self.gap = true;
                }
                let is_doubtful = self.verified.is_some();
                if let Err(error) = self.take_record(seq, &record, digest, vouched) {
                    self.add_lost(LostRecord { seq, what: error.to_string(), found: Some(digest), missing: false });
                    // What stands before it is not what it continues. Readers stop here all the same, until a repair names it.
                    if vouched && is_doubtful {
                        let _ = self.take_record(seq, &record, digest, vouched);
                    }
                }
            }
            Err(lost) => self.add_lost(lost),
        }
    }

    fn add_lost(&mut self, lost: LostRecord) {
        self.drop_waiting();
        self.gap = true;
        self.partial = true;
        self.void.push(lost);
    }

    /// Whether nobody but a holder of the newest key made it, or this node has seen it.
    fn is_verified(&self, record: &Record, digest: Digest) -> bool {
        // The proof of a rotation was checked when it was read: the key at hand knows the generation.
        let begins = matches!(&record.body, RecordBody::Rotate(body) if body.generation == self.newest);
        record.generation == self.newest || begins || self.remembered.contains(&digest)
    }

    fn take_record(&mut self, seq: Seq, record: &Record, digest: Digest, vouched: bool) -> Result<(), FoldError> {
        if !vouched && self.verified.is_none() {
            let (view, swept, repairs) = (self.view.clone(), self.swept.clone(), self.repairs.len());
            self.verified = Some(Box::new(VerifiedPrefix { view, swept, repairs }));
        }
        self.apply(seq, record, digest)?;
        if !vouched {
            self.waiting.push((seq, digest));
            return Ok(());
        }
        self.verified = None;
        self.waiting.clear();
        if record.state.is_some() {
            // What the ones before said is known. A repair left it out.
            self.unvouched = None;
            self.overtaken = None;
            let known = std::mem::take(&mut self.dropped);
            if record.body.as_repair().is_none() {
                self.good.extend(known);
            }
        }
        Ok(())
    }

    /// Nothing can vouch any more for the records that wait for it.
    fn drop_waiting(&mut self) {
        let Some(sure) = self.verified.take() else { return };
        let VerifiedPrefix { view, swept, repairs } = *sure;
        let dropped = std::mem::replace(&mut self.view, view);
        self.swept = swept;
        self.repairs.truncate(repairs);
        let waiting = std::mem::take(&mut self.waiting);
        let (Some((from, _)), Some((to, _))) = (waiting.first(), waiting.last()) else { return };
        self.partial = true;
        for (_, digest) in &waiting {
            self.good.remove(digest);
            self.dropped.push(*digest);
        }
        let all = self.unvouched.get_or_insert_with(|| UnverifiedRecords {
            from: *from,
            to: *to,
            snapshots: Vec::new(),
            indexes: Vec::new(),
        });
        all.to = *to;
        let is_new = |snapshot: &Snapshot| !all.snapshots.iter().any(|there| there.id == snapshot.id);
        let snapshots: Vec<Snapshot> = dropped.state.snapshots.into_iter().filter(is_new).collect();
        all.snapshots.extend(snapshots);
        let indexes: Vec<IndexId> = dropped.state.indexes.into_iter().filter(|id| !all.indexes.contains(id)).collect();
        all.indexes.extend(indexes);
        let higher = |holder: &RoleHolder| {
            holder.term < TERM_MAX && self.overtaken.as_ref().is_none_or(|there| there.term < holder.term)
        };
        self.overtaken = dropped.state.holder.filter(higher).or(self.overtaken.take());
    }

    fn apply(&mut self, seq: Seq, record: &Record, digest: Digest) -> Result<(), FoldError> {
        let is_repair = record.body.as_repair().is_some();
        let view = &mut self.view;
        if record.role != view.role || record.repo != view.repo {
            return Err(FoldError::Foreign { role: record.role.clone(), repo: record.repo });
        }
        if record.seq != seq {
            return Err(FoldError::Number { found: record.seq });
        }
        view.refuse_older(record)?;
        if self.gap {
            resume_fold_at(view, seq, record)?;
        } else if self.partial
            && let Some(state) = &record.state
        {
            view.state.clone_from(state);
        }
        view.apply(record, digest)?;
        self.gap = false;
        self.partial &= record.state.is_none();
        self.good.insert(digest);
        match &record.body {
            RecordBody::Swept(body) => self.swept.extend(&body.prunes),
            _ if is_repair => self.repairs.extend(self.view.state.repaired.last().cloned()),
            _ => {}
        }
        if let Some(known) = &self.known
            && known.head.as_ref().is_some_and(|head| head.seq == seq && head.digest == digest)
        {
            self.view.state.clone_from(&known.state);
            self.is_known_there = true;
            self.partial = false;
        }
        Ok(())
    }

    /// What is left. `filler` is the digest of what will stand where nothing can be read.
    pub fn finish(mut self, filler: impl Fn(Seq) -> Digest) -> SalvagedJournal {
        if self.verified.is_some() {
            let end = self.view.head.take();
            self.drop_waiting();
            self.view.head = end;
        }
        let (overtaken, newest) = (self.overtaken.take(), self.newest);
        let seen = self.known.as_ref().and_then(|known| known.head.as_ref()).map_or(Seq(0), |head| head.seq);
        let mut mended = self.into_salvaged(filler);
        mended.unstarted_generation = Some(newest).filter(|newest| *newest > mended.view.generation());
        if let Some(all) = &mut mended.unverified {
            let state = &mended.view.state;
            if seen >= all.to {
                // What was there then is remembered: others are nobody's.
                all.snapshots.clear();
                all.indexes.clear();
            }
            all.snapshots.retain(|snapshot| !state.snapshots.iter().any(|known| known.id == snapshot.id));
            all.indexes.retain(|id| !state.indexes.contains(id));
        }
        if let Some(holder) = overtaken.filter(|holder| holder.term > mended.view.term()) {
            mended.view.state.holder = Some(holder);
        }
        mended
    }

    fn into_salvaged(mut self, filler: impl Fn(Seq) -> Digest) -> SalvagedJournal {
        if let Some(newest) = self.void.last().filter(|lost| lost.seq == self.last) {
            let digest = newest.found.unwrap_or_else(|| filler(newest.seq));
            let nobody = || (WriterNode { id: NodeId([0; NodeId::LEN]), name: String::new() }, Timestamp::UNIX_EPOCH);
            let (node, time) = self.view.head.as_ref().map_or_else(nobody, |head| (head.node.clone(), head.time));
            self.view.head = Some(JournalHead { seq: newest.seq, digest, node, time });
        }
        let named = |seq: Seq| self.repairs.iter().any(|repair| repair.void.contains(&seq));
        let (before, void): (Vec<LostRecord>, Vec<LostRecord>) = self.void.drain(..).partition(|lost| named(lost.seq));
        let mut mended = SalvagedJournal {
            view: self.view,
            named_before: before.len() as u64,
            is_partial: self.partial,
            lost_records: void,
            lost_tail: None,
            remembered_snapshots: Vec::new(),
            unstarted_generation: None,
            unverified: self.unvouched.take(),
        };
        let Some(known) = self.known.as_ref().filter(|_| !self.is_known_there) else { return mended };
        let Some(head) = &known.head else { return mended };
        let seen = known.term();
        if self.repairs.iter().any(|repair| repair.covers(head.seq, head.digest, seen)) {
            return mended;
        }
        if !mended.lost_records.iter().any(|lost| lost.seq == head.seq) {
            let from = if head.seq > self.last { self.last.next() } else { head.seq };
            mended.lost_tail = Some(LostTail { from, to: head.seq, digest: head.digest });
        }
        restore_remembered(&mut mended, known, self.last, &self.good, &self.swept);
        mended
    }
}

/// The digests of records that a view has seen, as far as it says.
fn remembered_digests(view: &JournalView) -> HashSet<Digest> {
    let snapshots = view.state.snapshots.iter().map(|snapshot| snapshot.id);
    let holder = view.state.holder.iter().map(|holder| holder.takeover);
    snapshots.chain(holder).chain(view.head.iter().map(|head| head.digest)).collect()
}

/// Takes the fold up again at this record, as if everything before it were in order.
fn resume_fold_at(view: &mut JournalView, seq: Seq, record: &Record) -> Result<(), FoldError> {
    let before = view.term();
    if record.term < before {
        return Err(FoldError::Term { found: record.term, before });
    }
    if let Some(state) = record.state.as_ref().filter(|_| record.body.as_repair().is_none()) {
        view.state.clone_from(state);
    } else if record.body.as_repair().is_none() {
        // Whoever held the role before this record, as the record itself tells.
        let (term, takeover) = match record.body {
            RecordBody::Takeover(_) => (Term(record.term.0.saturating_sub(1)), None),
            _ => (record.term, record.takeover),
        };
        let command = view.state.holder.take().and_then(|holder| holder.command);
        view.state.holder = Some(RoleHolder {
            term,
            takeover: takeover.unwrap_or(Digest([0; Digest::LEN])),
            seq: Seq(seq.0.saturating_sub(1)),
            node: record.node.clone(),
            instance: record.instance,
            time: record.time,
            why: TakeoverReason::Moved,
            command,
            store_time: None,
            handed_over: None,
        });
        // A lost record committed it.
        if let Some(slot) = record.last_slot.filter(|slot| view.state.last_slot != Some(*slot)) {
            view.state.last_slot = Some(slot);
            view.state.add_past_slots([slot]);
        }
    }
    if record.generation > view.generation() {
        // A lost record began it.
        view.state.rotated = Some(RotationState { generation: record.generation, seq: Seq(seq.0.saturating_sub(1)) });
    }
    view.head = record.prev.filter(|_| seq > Seq::FIRST).map(|digest| JournalHead {
        seq: Seq(seq.0 - 1),
        digest,
        node: record.node.clone(),
        time: record.time,
    });
    Ok(())
}

/// Adds what this node remembers of records that are lost. What it says of numbers beyond the store's `last` is moved to the number of
/// the repair, `last` plus one: those are used again.
fn restore_remembered(
    mended: &mut SalvagedJournal,
    known: &JournalView,
    last: Seq,
    good: &HashSet<Digest>,
    swept: &BTreeSet<Seq>,
) {
    let is_end = known.head.as_ref().is_some_and(|head| head.seq >= last);
    let moved = |seq: Seq| seq.min(last.next());
    let is_void = |seq: Seq| seq > last || mended.lost_records.iter().any(|lost| lost.seq == seq);
    let condemned: Vec<CondemnedObjects> = known
        .state
        .condemned
        .iter()
        .filter(|c| is_void(c.seq) && !swept.contains(&c.seq))
        .map(|c| CondemnedObjects { seq: moved(c.seq), ..c.clone() })
        .collect();
    // The store's lineage ends where the lost one goes on: no takeover came in between.
    let takeover = |view: &JournalView| view.state.holder.as_ref().map(|holder| holder.takeover);
    let is_same_line = is_end && takeover(known) == takeover(&mended.view);
    let live = |id: Digest| known.state.snapshots.iter().any(|snapshot| snapshot.id == id);
    let state = &mut mended.view.state;
    if is_same_line {
        // Lost prunes forgot the others.
        state.snapshots.retain(|snapshot| live(snapshot.id));
        state.paused.clone_from(&known.state.paused);
        if let (Some(holder), Some(was)) = (&mut state.holder, &known.state.holder) {
            holder.command.clone_from(&was.command);
        }
    }
    let there: HashSet<Digest> = state.snapshots.iter().map(|snapshot| snapshot.id).collect();
    // One whose record is whole was forgotten by a prune.
    let lost =
        known.state.snapshots.iter().filter(|snapshot| !there.contains(&snapshot.id) && !good.contains(&snapshot.id));
    for snapshot in lost {
        mended.remembered_snapshots.push(snapshot.id);
        state.snapshots.push(Snapshot { seq: moved(snapshot.seq), ..snapshot.clone() });
    }
    state.snapshots.sort_by_key(|snapshot| snapshot.seq);
    let slots: Vec<Timestamp> = known.state.slots().filter(|slot| !state.slots().any(|there| there == *slot)).collect();
    state.add_past_slots(slots);
    if is_end {
        state.last_slot = known.state.last_slot.or(state.last_slot);
        state.schedule = known.state.schedule.or(state.schedule);
        state.pruned = known.state.pruned.or(state.pruned);
    }
    state.clones.extend(known.state.clones.iter().copied());
    let generation = |rotated: Option<RotationState>| rotated.map(|rotated| rotated.generation);
    if generation(known.state.rotated) > generation(state.rotated) {
        state.rotated = known.state.rotated.map(|rotated| RotationState { seq: moved(rotated.seq), ..rotated });
    }
    state.cluster = state.cluster.or(known.state.cluster);
    // One entry a number: a sweep names them by it.
    for condemned in condemned {
        match state.condemned.iter_mut().find(|there| there.seq == condemned.seq) {
            Some(there) => {
                there.packs.extend(condemned.packs);
                there.indexes.extend(condemned.indexes);
            }
            None => state.condemned.push(condemned),
        }
    }
    let gone: HashSet<_> = state.condemned.iter().flat_map(|c| &c.indexes).copied().collect();
    let further = known.state.indexes.iter().filter(|id| !state.indexes.contains(id)).copied().collect::<Vec<_>>();
    state.indexes.extend(further);
    state.indexes.retain(|id| !gone.contains(id));
    if known.term() > state.holder.as_ref().map_or(Term(0), |holder| holder.term)
        && let Some(holder) = &known.state.holder
    {
        state.holder = Some(RoleHolder { seq: moved(holder.seq), ..holder.clone() });
    }
    if let Some(command) = state.holder.as_mut().and_then(|holder| holder.command.as_mut()) {
        command.seq = moved(command.seq);
    }
    // What this node remembers has what they said.
    let seen = known.head.as_ref().map_or(Seq(0), |head| head.seq);
    mended.is_partial &= mended.lost_records.iter().any(|lost| lost.seq > seen);
}
