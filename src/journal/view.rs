//! Folding records into a view: what is live, which node writes, which slots are committed. Pure; the same records give
//! the same view on every node.
//!
//! The promises "one lineage" and "terms never go back" are checked here for everything that is read: a record that
//! does not follow the record before it is refused, whichever node wrote it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{Digest, IndexId, KeyGeneration, NodeId, RepoId, RoleName, Seq, Term};
use crate::journal::body::{PruneBody, RecordBody, TakeoverReason, WriterNode};
use crate::journal::record::Record;
use crate::journal::record_date::{self, RecordDate};
use crate::journal::repair_history;
use crate::journal::rotation::RotationState;
use crate::journal::state::{
    COMMAND_SLOTS_KEPT, CondemnedObjects, JournalPause, JournalState, RoleHolder, RunningCommand, Snapshot,
};
use crate::role::clock_tolerance;
use crate::role::clone_detection::{self, ProcessAuthor};
use crate::role::slot_commits::SlotCommits;

/// The newest record of a journal, as the next one must continue it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalHead {
    /// The number of the record.
    pub seq: Seq,
    /// The digest of the record.
    pub digest: Digest,
    /// The node that wrote it.
    pub node: WriterNode,
    /// When it was written, by the writer's clock.
    pub time: Timestamp,
}

/// A journal as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalView {
    /// The role.
    pub role: RoleName,
    /// The repository.
    pub repo: RepoId,
    /// The newest record; `None` while there is none.
    pub head: Option<JournalHead>,
    /// What the records add up to.
    pub state: JournalState,
    /// Kinds of records that this version does not know, and passed over.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unknown_kinds: Vec<String>,
    /// Each node's last processes with their newest records, of those records that were read one by one. Operators'
    /// acts are left out: they may come from any machine, by processes that this node's state directory has never seen.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub authors: BTreeMap<NodeId, Vec<ProcessAuthor>>,
    /// When the repository was created, as its `format` says; `None`: the reader did not provide it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub created: Option<Timestamp>,
    /// The newest pause that is over, from its begin to its end, as far as records were read one by one. Pauses without
    /// a moment between them are one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub past_pause: Option<JournalPause>,
    /// The guarded command that began last, until its end or a takeover, as far as records were read one by one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub running: Option<RunningCommand>,
    /// The dates of records, the newest record last, and each later than that of the next. Every date that was ever in
    /// the future is here, unless a later record has a later date. As far as records were read one by one, and not
    /// amended.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub dates: Vec<RecordDate>,
}

/// Why a record does not follow the one before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// It belongs to another role or repository.
    #[error("belongs to role {role}, repository {repo}")]
    Foreign {
        /// The value in the record.
        role: RoleName,
        /// The value in the record.
        repo: RepoId,
    },
    /// Its number is not the next.
    #[error("has number {found}")]
    Number {
        /// The value in the record.
        found: Seq,
    },
    /// Its `prev` is not the digest of the record before.
    #[error("does not continue the record before it")]
    Chain,
    /// A takeover's term is not the next, or another record's term is not the holder's.
    #[error("has term {found} after term {before}")]
    Term {
        /// The value in the record.
        found: Term,
        /// The holder's term.
        before: Term,
    },
    /// It was written under a permit that a newer takeover had ended: the fence was broken.
    #[error("was written under a takeover that is not the newest")]
    Fence,
    /// It is of another generation of the repository key than the journal has at this number.
    #[error("is of generation {found} of the repository key, after generation {now}")]
    Generation {
        /// The generation of the record, or the one that it begins.
        found: KeyGeneration,
        /// The generation of the journal at this number.
        now: KeyGeneration,
    },
    /// Its checkpoint is not the state that the records before it add up to.
    #[error("carries a state that the records before it do not add up to")]
    Checkpoint,
}

impl JournalView {
    /// A journal without records.
    pub fn empty(role: RoleName, repo: RepoId) -> Self {
        let (state, authors) = (JournalState::default(), BTreeMap::new());
        let (created, past_pause, running, dates) = (None, None, None, Vec::new());
        Self { role, repo, head: None, state, unknown_kinds: Vec::new(), authors, created, past_pause, running, dates }
    }

    /// The number of the next record.
    pub fn next_seq(&self) -> Seq {
        self.head.as_ref().map_or(Seq::FIRST, |head| head.seq.next())
    }

    /// The holder's term; 0 before the first takeover.
    pub fn term(&self) -> Term {
        self.state.holder.as_ref().map_or(Term(0), |holder| holder.term)
    }

    /// The generation of the repository key that the next record is written under.
    pub fn generation(&self) -> KeyGeneration {
        self.state.rotated.map_or(KeyGeneration::FIRST, |rotated| rotated.generation)
    }

    /// Refuses a record of an older generation, whatever state it carries.
    pub(crate) fn refuse_older(&self, record: &Record) -> Result<(), FoldError> {
        let (found, now) = (record.generation, self.generation());
        if found < now { Err(FoldError::Generation { found, now }) } else { Ok(()) }
    }

    /// Whether this program knows every kind of record and every field of the state; otherwise it must not append.
    pub fn is_understood(&self) -> bool {
        self.unknown_kinds.is_empty() && self.state.unknown.is_empty()
    }

    /// The committed slots that the state keeps.
    pub fn commits(&self) -> SlotCommits {
        #[cfg(feature = "planted")]
        if self.forgets_slot() {
            return SlotCommits::new([], self.created_at());
        }
        let JournalState { schedule, snapshots, amended_slots, .. } = &self.state;
        SlotCommits::new(self.state.slots(), self.created_at())
            .with_amended(amended_slots.iter().copied())
            .with_oldest(self.state.remembered_from())
            .with_schedule(*schedule, snapshots.last().map(|snapshot| snapshot.time))
    }

    /// When the repository was created, if that is known, as amended.
    pub fn created_at(&self) -> Option<Timestamp> {
        self.created.map(|created| self.state.created_at(created))
    }

    /// Whether the planted bug is active that forgets slots, and the newest record is a takeover.
    #[cfg(feature = "planted")]
    fn forgets_slot(&self) -> bool {
        let newest = self.head.as_ref().map(|head| head.seq);
        crate::planted::is(crate::planted::PlantedBug::SlotIsNotLookedUp)
            && self.state.holder.as_ref().is_some_and(|holder| Some(holder.seq) == newest)
    }

    /// The view before `record`, if that carries a state: reading can begin there, without the records before it.
    pub fn before_checkpoint(record: &Record) -> Option<JournalView> {
        let state = record.state.clone()?;
        let before = record.seq.0.checked_sub(1).filter(|&seq| seq > 0)?;
        let head = JournalHead { seq: Seq(before), digest: record.prev?, node: record.node.clone(), time: record.time };
        let (role, repo) = (record.role.clone(), record.repo);
        Some(JournalView { head: Some(head), state, ..JournalView::empty(role, repo) })
    }

    /// Adds the next record, whose object has this digest.
    pub fn apply(&mut self, record: &Record, digest: Digest) -> Result<(), FoldError> {
        if record.role != self.role || record.repo != self.repo {
            return Err(FoldError::Foreign { role: record.role.clone(), repo: record.repo });
        }
        if record.seq != self.next_seq() {
            return Err(FoldError::Number { found: record.seq });
        }
        if record.prev != self.head.as_ref().map(|head| head.digest) {
            return Err(FoldError::Chain);
        }
        self.refuse_older(record)?;
        if record.body.as_repair().is_some() {
            // The state of a repair comes from a node that read every record.
            let state = record.state.as_ref().ok_or(FoldError::Checkpoint)?;
            if record.generation > self.generation() {
                // No rotation record precedes it: a holder of the older key may have written the records before it.
                *self = JournalView { head: self.head.take(), ..JournalView::empty(self.role.clone(), self.repo) };
            } else if record.term <= self.term() {
                return Err(FoldError::Term { found: record.term, before: self.term() });
            }
            self.state.clone_from(state);
        } else if let Some(state) = record.state.as_ref().filter(|state| **state != self.state) {
            if !state.is_consistent_with(&self.state) {
                return Err(FoldError::Checkpoint);
            }
            // A reader that begins at this checkpoint knows only its state.
            self.state.clone_from(state);
        }
        let (found, now) = (record.generation, self.generation());
        if found != now {
            return Err(FoldError::Generation { found, now });
        }
        self.apply_term(record)?;
        self.follow_command(record);
        if let (Some(holder), Some(end)) = (&mut self.state.holder, record.command_end()) {
            holder.command = Some(end);
        }
        match &record.body {
            RecordBody::Takeover(takeover) => {
                let before = self.state.holder.take();
                let own = before.as_ref().filter(|holder| holder.node.id == record.node.id);
                let handed_over = match takeover.why {
                    TakeoverReason::Operator => Some(record.written_at()),
                    _ => own.and_then(|holder| holder.handed_over),
                };
                self.state.cluster = takeover.cluster.or(self.state.cluster);
                let command = before.and_then(|holder| holder.command);
                self.state.holder = Some(RoleHolder {
                    command,
                    term: record.term,
                    takeover: digest,
                    seq: record.seq,
                    node: record.node.clone(),
                    instance: record.instance,
                    time: record.time,
                    store_time: record.store_time,
                    why: takeover.why,
                    handed_over,
                });
                if let Some(repair) = record.repair_entry() {
                    repair_history::add(&mut self.state.repaired, repair);
                }
            }
            RecordBody::Snapshot(body) => {
                self.state.indexes.extend_from_slice(&body.indexes);
                self.state.commit_slot(record.slot, record.schedule);
                self.state.snapshots.push(Snapshot {
                    id: digest,
                    seq: record.seq,
                    term: record.term,
                    node: record.node.clone(),
                    time: record.written_at(),
                    slot: record.slot,
                    root: body.root,
                    entries: body.entries,
                    files: body.files,
                    bytes: body.bytes,
                    changes: body.changes,
                    cost: body.cost,
                    empty: body.empty.clone(),
                });
            }
            RecordBody::End(body) if body.is_success() => {
                self.state.commit_slot(record.slot, record.schedule);
                self.state.command_slots.extend(record.slot);
                while self.state.command_slots.len() > COMMAND_SLOTS_KEPT {
                    self.state.command_slots.pop_front();
                }
            }
            RecordBody::Begin(_) | RecordBody::End(_) => {}
            RecordBody::Clone(_) => {
                self.state.clones.insert(record.node.id);
            }
            RecordBody::Pause(body) => {
                let time = record.written_at();
                self.end_pause(time);
                self.state.paused =
                    Some(JournalPause { node: record.node.clone(), time, until: body.until, why: body.why.clone() });
            }
            RecordBody::Resume => self.end_pause(record.written_at()),
            RecordBody::Amend(_) => self.amend(record.written_at()),
            RecordBody::Prune(body) => self.prune(record, body),
            RecordBody::Rotate(body) if body.generation != now.next() => {
                return Err(FoldError::Generation { found: body.generation, now });
            }
            RecordBody::Rotate(body) => {
                self.state.rotated = Some(RotationState { generation: body.generation, seq: record.seq });
            }
            RecordBody::Swept(body) => self.state.condemned.retain(|condemned| !body.prunes.contains(&condemned.seq)),
            RecordBody::Unknown { kind, .. } => {
                if !self.unknown_kinds.contains(kind) {
                    self.unknown_kinds.push(kind.clone());
                }
            }
        }
        if !record.body.is_by_operator() {
            let authors = self.authors.entry(record.node.id).or_default();
            clone_detection::add_author(authors, ProcessAuthor { seq: record.seq, instance: record.instance });
        }
        record_date::add_date(&mut self.dates, record);
        self.head = Some(JournalHead { seq: record.seq, digest, node: record.node.clone(), time: record.time });
        Ok(())
    }

    /// Applies an operator's amendment at `present`: all later dates come from a wrong clock.
    fn amend(&mut self, present: Timestamp) {
        self.state.amend(present);
        if let Some(running) =
            self.running.as_mut().filter(|running| clock_tolerance::is_in_future(running.time, present))
        {
            running.time = present;
        }
    }

    /// Keeps which command runs. A holder that a takeover ended can no longer record an end, nor can a process that
    /// died before the next begin.
    fn follow_command(&mut self, record: &Record) {
        match &record.body {
            RecordBody::Begin(_) => {
                let time = record.written_at();
                let (node, instance, slot) = (record.node.clone(), record.instance, record.slot);
                self.running = Some(RunningCommand { node, instance, time, slot });
            }
            RecordBody::End(_) => {
                self.running = self.running.take().filter(|running| running.instance != record.instance);
            }
            RecordBody::Takeover(_) => self.running = None,
            _ => {}
        }
    }

    /// Ends a pause at `time`, if there is one and it has not ended before.
    fn end_pause(&mut self, time: Timestamp) {
        let Some(paused) = self.state.paused.take() else { return };
        let end = paused.until.map_or(time, |until| until.min(time));
        // A pause whose end lies after the begin of the next was ended by another clock.
        let meets = |until: Timestamp| until >= paused.time && !clock_tolerance::is_in_future(until, paused.time);
        let before = self.past_pause.take().filter(|past| past.until.is_some_and(meets));
        let since = before.map_or(paused.time, |past| past.time.min(paused.time));
        self.past_pause = Some(JournalPause { time: since, until: Some(end), ..paused });
    }

    fn prune(&mut self, record: &Record, body: &PruneBody) {
        let state = &mut self.state;
        let forgotten: BTreeSet<Digest> = body.forgotten.iter().copied().collect();
        let gone = state.snapshots.iter().filter(|snapshot| forgotten.contains(&snapshot.id));
        let slots: Vec<Timestamp> = gone.filter_map(|snapshot| snapshot.slot).collect();
        state.add_past_slots(slots);
        state.snapshots.retain(|snapshot| !forgotten.contains(&snapshot.id));
        let named: BTreeSet<IndexId> = body.indexes.iter().copied().collect();
        let replaced = state.indexes.iter().filter(|id| !named.contains(id)).copied();
        let indexes: Vec<IndexId> = replaced.chain(body.strays.iter().copied()).collect();
        let time = record.written_at();
        if !(body.packs.is_empty() && indexes.is_empty()) {
            state.condemned.push(CondemnedObjects { seq: record.seq, time, packs: body.packs.clone(), indexes });
        }
        state.indexes.clone_from(&body.indexes);
        state.pruned = Some(time);
    }

    fn apply_term(&self, record: &Record) -> Result<(), FoldError> {
        let before = self.term();
        let wrong = Err(FoldError::Term { found: record.term, before });
        match (&record.body, record.takeover) {
            (RecordBody::Takeover(_), _) if before.0.checked_add(1) != Some(record.term.0) => wrong,
            (RecordBody::Takeover(_), _) => Ok(()),
            // Operators' acts and the note of a clone need no permit, and change no term.
            (RecordBody::Pause(_) | RecordBody::Resume | RecordBody::Clone(_) | RecordBody::Amend(_), None)
                if record.term == before =>
            {
                Ok(())
            }
            // A newer version may have kinds that need no permit; terms still never go back.
            (RecordBody::Unknown { .. }, None) if record.term >= before => Ok(()),
            _ if record.term != before => wrong,
            (_, takeover) if takeover != self.state.holder.as_ref().map(|h| h.takeover) => Err(FoldError::Fence),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
