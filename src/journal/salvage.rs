//! What is left of a journal that lost records. Pure.
//!
//! The fold continues at the next record that can be used, from the state before the loss. A later record that carries
//! the whole state, or this node's memory, restores what the lost records said. What nothing restores is named as lost.
//! Nothing is invented here: a snapshot is restored only as some record or memory has it, what was condemned stays
//! condemned, and a slot that a later record calls committed is not committed again.
//!
//! After a rotation of the repository key a MAC of an older generation proves nothing by itself: a holder of the old
//! key makes such MACs. A record of an older generation counts if the chain of digests links it to one of the newest
//! generation, to the record that begins that generation, or to a record that this node remembers. The others are
//! [`UnverifiedRecords`]: they are named, and are not part of what is left.

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
    /// Why it cannot be used.
    pub what: String,
    /// The digest of the object under its number; `None`: there is no object, or none that can be read.
    pub found: Option<Digest>,
    /// The number is empty.
    pub missing: bool,
}

/// What is left of a journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SalvagedJournal {
    /// The journal as far as it is known; its head is the last occupied number.
    pub view: JournalView,
    /// Lost records that no repair has named.
    pub lost_records: Vec<LostRecord>,
    /// Number of lost records that earlier repairs have named.
    pub named_before: u64,
    /// Part of what the lost records said is unknown: neither a later record nor this node's memory has it.
    pub is_partial: bool,
    /// The end of the journal that the store lost, if this node remembers it.
    pub lost_tail: Option<LostTail>,
    /// Snapshots that only this node remembers.
    pub remembered_snapshots: Vec<Digest>,
    /// The generation of the repository key that the given key has, if no record begins it.
    pub unstarted_generation: Option<KeyGeneration>,
    /// Records that a former key holder may have written.
    pub unverified: Option<UnverifiedRecords>,
}

impl SalvagedJournal {
    /// Whether what must be repaired is the same as `before`, which this continues: records were appended, none of them
    /// is lost, and none repairs, forgets or condemns anything.
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

    /// Whether the lost records may have named further index objects.
    pub fn may_lack_indexes(&self) -> bool {
        self.is_partial || !self.remembered_snapshots.is_empty()
    }

    /// Whether no record is lost.
    pub fn is_sound(&self) -> bool {
        self.lost_records.is_empty() && self.lost_tail.is_none() && self.unstarted_generation.is_none()
    }
}

/// Records of older generations of the repository key that neither the newest generation nor this node's memory
/// authenticates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnverifiedRecords {
    /// The first number.
    pub from: Seq,
    /// The last number.
    pub to: Seq,
    /// The snapshots that only these records name.
    pub snapshots: Vec<Snapshot>,
    /// The index objects that only these records name.
    pub indexes: Vec<IndexId>,
}

/// No valid record has a term from here on: no journal has so many takeovers.
const TERM_MAX: Term = Term(u64::MAX / 2);

/// The verified part of the journal, while later records wait for a record that authenticates them.
#[derive(Debug, Clone)]
struct VerifiedPrefix {
    view: JournalView,
    swept: BTreeSet<Seq>,
    repairs: usize,
}

/// Salvages a journal, record by record.
#[derive(Debug, Clone)]
pub struct JournalSalvager {
    known: Option<JournalView>,
    view: JournalView,
    void: Vec<LostRecord>,
    /// The record before was lost, so the next one cannot be checked against it.
    gap: bool,
    /// Part of the state is unknown.
    partial: bool,
    /// The store has the record that this node remembers.
    is_known_there: bool,
    repairs: Vec<RepairEntry>,
    good: HashSet<Digest>,
    swept: BTreeSet<Seq>,
    last: Seq,
    /// The newest generation that the given key has.
    newest: KeyGeneration,
    /// Digests of the records that this node remembers.
    remembered: HashSet<Digest>,
    verified: Option<Box<VerifiedPrefix>>,
    /// The unverified records after `verified`.
    waiting: Vec<(Seq, Digest)>,
    unverified: Option<UnverifiedRecords>,
    /// The holder with the highest term in the unverified records: later terms continue from it.
    overtaken: Option<RoleHolder>,
    /// Digests of the unverified records that were dropped.
    dropped: Vec<Digest>,
}

impl JournalSalvager {
    /// Starts with no records; `known` is what this node remembers, `newest` the newest generation that the given key
    /// has.
    pub fn new(role: RoleName, repo: RepoId, known: Option<&JournalView>, newest: KeyGeneration) -> Self {
        let known = known.filter(|view| view.head.is_some() && view.is_understood() && view.repo == repo);
        Self {
            newest,
            remembered: known.map(remembered_digests).unwrap_or_default(),
            verified: None,
            waiting: Vec::new(),
            unverified: None,
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

    /// With the repairs that are known before the first record is added.
    pub fn with_repairs(mut self, repairs: &RepairHistory) -> Self {
        self.repairs.extend(repairs.iter().cloned());
        self
    }

    /// Adds the record with this number, or why there is none.
    pub fn add(&mut self, seq: Seq, object: Result<(Record, Digest), LostRecord>) {
        self.last = seq;
        match object {
            Ok((record, digest)) => {
                let is_verified = self.is_verified(&record, digest);
                if is_verified && record.body.as_repair().is_some() && self.verified.is_some() {
                    // A repair says what is left, and authenticates no record before it.
                    self.drop_waiting();
                    self.gap = true;
                }
                let is_doubtful = self.verified.is_some();
                if let Err(error) = self.take_record(seq, &record, digest, is_verified) {
                    self.add_lost(LostRecord { seq, what: error.to_string(), found: Some(digest), missing: false });
                    // The record before it is not the one that it continues. Readers still stop here, until a repair
                    // names that one.
                    if is_verified && is_doubtful {
                        let _ = self.take_record(seq, &record, digest, is_verified);
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

    /// Whether only a holder of the newest key can have written the record, or this node has seen it.
    fn is_verified(&self, record: &Record, digest: Digest) -> bool {
        // The proof of a rotation was checked when the record was decoded: the given key has the generation.
        let begins = matches!(&record.body, RecordBody::Rotate(body) if body.generation == self.newest);
        record.generation == self.newest || begins || self.remembered.contains(&digest)
    }

    fn take_record(&mut self, seq: Seq, record: &Record, digest: Digest, is_verified: bool) -> Result<(), FoldError> {
        if !is_verified && self.verified.is_none() {
            let (view, swept, repairs) = (self.view.clone(), self.swept.clone(), self.repairs.len());
            self.verified = Some(Box::new(VerifiedPrefix { view, swept, repairs }));
        }
        self.apply(seq, record, digest)?;
        if !is_verified {
            self.waiting.push((seq, digest));
            return Ok(());
        }
        self.verified = None;
        self.waiting.clear();
        if record.state.is_some() {
            // The state includes what the records before said. A repair left it out.
            self.unverified = None;
            self.overtaken = None;
            let known = std::mem::take(&mut self.dropped);
            if record.body.as_repair().is_none() {
                self.good.extend(known);
            }
        }
        Ok(())
    }

    /// Drops the records that wait: no later record can authenticate them.
    fn drop_waiting(&mut self) {
        let Some(prefix) = self.verified.take() else { return };
        let VerifiedPrefix { view, swept, repairs } = *prefix;
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
        let all = self.unverified.get_or_insert_with(|| UnverifiedRecords {
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

    /// What is left. `placeholder` is the digest of the object that will occupy a number without a readable object.
    pub fn finish(mut self, placeholder: impl Fn(Seq) -> Digest) -> SalvagedJournal {
        if self.verified.is_some() {
            let end = self.view.head.take();
            self.drop_waiting();
            self.view.head = end;
        }
        let (overtaken, newest) = (self.overtaken.take(), self.newest);
        let seen = self.known.as_ref().and_then(|known| known.head.as_ref()).map_or(Seq(0), |head| head.seq);
        let mut salvaged = self.into_salvaged(placeholder);
        salvaged.unstarted_generation = Some(newest).filter(|newest| *newest > salvaged.view.generation());
        if let Some(all) = &mut salvaged.unverified {
            let state = &salvaged.view.state;
            if seen >= all.to {
                // This node remembers the journal of that time: a snapshot that it does not know is not of this
                // journal.
                all.snapshots.clear();
                all.indexes.clear();
            }
            all.snapshots.retain(|snapshot| !state.snapshots.iter().any(|known| known.id == snapshot.id));
            all.indexes.retain(|id| !state.indexes.contains(id));
        }
        if let Some(holder) = overtaken.filter(|holder| holder.term > salvaged.view.term()) {
            salvaged.view.state.holder = Some(holder);
        }
        salvaged
    }

    fn into_salvaged(mut self, placeholder: impl Fn(Seq) -> Digest) -> SalvagedJournal {
        if let Some(newest) = self.void.last().filter(|lost| lost.seq == self.last) {
            let digest = newest.found.unwrap_or_else(|| placeholder(newest.seq));
            let unknown = || (WriterNode { id: NodeId([0; NodeId::LEN]), name: String::new() }, Timestamp::UNIX_EPOCH);
            let (node, time) = self.view.head.as_ref().map_or_else(unknown, |head| (head.node.clone(), head.time));
            self.view.head = Some(JournalHead { seq: newest.seq, digest, node, time });
        }
        let named = |seq: Seq| self.repairs.iter().any(|repair| repair.void.contains(&seq));
        let (before, void): (Vec<LostRecord>, Vec<LostRecord>) = self.void.drain(..).partition(|lost| named(lost.seq));
        let mut salvaged = SalvagedJournal {
            view: self.view,
            named_before: before.len() as u64,
            is_partial: self.partial,
            lost_records: void,
            lost_tail: None,
            remembered_snapshots: Vec::new(),
            unstarted_generation: None,
            unverified: self.unverified.take(),
        };
        let Some(known) = self.known.as_ref().filter(|_| !self.is_known_there) else { return salvaged };
        let Some(head) = &known.head else { return salvaged };
        let seen = known.term();
        if self.repairs.iter().any(|repair| repair.covers(head.seq, head.digest, seen)) {
            return salvaged;
        }
        if !salvaged.lost_records.iter().any(|lost| lost.seq == head.seq) {
            let from = if head.seq > self.last { self.last.next() } else { head.seq };
            salvaged.lost_tail = Some(LostTail { from, to: head.seq, digest: head.digest });
        }
        restore_remembered(&mut salvaged, known, self.last, &self.good, &self.swept);
        salvaged
    }
}

/// The digests of records that a view contains.
fn remembered_digests(view: &JournalView) -> HashSet<Digest> {
    let snapshots = view.state.snapshots.iter().map(|snapshot| snapshot.id);
    let holder = view.state.holder.iter().map(|holder| holder.takeover);
    snapshots.chain(holder).chain(view.head.iter().map(|head| head.digest)).collect()
}

/// Continues the fold at this record, as if all records before it were in order.
fn resume_fold_at(view: &mut JournalView, seq: Seq, record: &Record) -> Result<(), FoldError> {
    let before = view.term();
    if record.term < before {
        return Err(FoldError::Term { found: record.term, before });
    }
    if let Some(state) = record.state.as_ref().filter(|_| record.body.as_repair().is_none()) {
        view.state.clone_from(state);
    } else if record.body.as_repair().is_none() {
        // The holder before this record, as the record itself shows.
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
        // A lost record committed the slot.
        if let Some(slot) = record.last_slot.filter(|slot| view.state.last_slot != Some(*slot)) {
            view.state.last_slot = Some(slot);
            view.state.add_past_slots([slot]);
        }
    }
    if record.generation > view.generation() {
        // A lost record began the generation.
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

/// Adds what this node remembers of lost records. Numbers after the store's `last` are replaced by the number of the
/// repair, `last` plus one: they are used again.
fn restore_remembered(
    salvaged: &mut SalvagedJournal,
    known: &JournalView,
    last: Seq,
    good: &HashSet<Digest>,
    swept: &BTreeSet<Seq>,
) {
    let is_end = known.head.as_ref().is_some_and(|head| head.seq >= last);
    let moved = |seq: Seq| seq.min(last.next());
    let is_void = |seq: Seq| seq > last || salvaged.lost_records.iter().any(|lost| lost.seq == seq);
    let condemned: Vec<CondemnedObjects> = known
        .state
        .condemned
        .iter()
        .filter(|c| is_void(c.seq) && !swept.contains(&c.seq))
        .map(|c| CondemnedObjects { seq: moved(c.seq), ..c.clone() })
        .collect();
    // The lost records continue the store's last one: no takeover came in between.
    let takeover = |view: &JournalView| view.state.holder.as_ref().map(|holder| holder.takeover);
    let is_same_line = is_end && takeover(known) == takeover(&salvaged.view);
    let live = |id: Digest| known.state.snapshots.iter().any(|snapshot| snapshot.id == id);
    let state = &mut salvaged.view.state;
    if is_same_line {
        // Lost prunes forgot the other snapshots.
        state.snapshots.retain(|snapshot| live(snapshot.id));
        state.paused.clone_from(&known.state.paused);
        if let (Some(holder), Some(was)) = (&mut state.holder, &known.state.holder) {
            holder.command.clone_from(&was.command);
        }
    }
    let there: HashSet<Digest> = state.snapshots.iter().map(|snapshot| snapshot.id).collect();
    // A snapshot whose record is whole was forgotten by a prune.
    let lost =
        known.state.snapshots.iter().filter(|snapshot| !there.contains(&snapshot.id) && !good.contains(&snapshot.id));
    for snapshot in lost {
        salvaged.remembered_snapshots.push(snapshot.id);
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
    // One entry for each number: a sweep names entries by it.
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
    // This node's memory includes what lost records up to `seen` said.
    let seen = known.head.as_ref().map_or(Seq(0), |head| head.seq);
    salvaged.is_partial &= salvaged.lost_records.iter().any(|lost| lost.seq > seen);
}
