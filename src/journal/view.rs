//! Folding records into a view: what is live, which node writes, which slots are committed. Pure; the same records give the same view on
//! every node.
//!
//! The promises "one lineage" and "terms never go back" are checked here for everything that is read: a record that does not follow the
//! record before it is refused, whichever node wrote it.

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
    /// Its number.
    pub seq: Seq,
    /// Its digest.
    pub digest: Digest,
    /// Who wrote it.
    pub node: WriterNode,
    /// When, by the writer's clock.
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
    /// What it all adds up to.
    pub state: JournalState,
    /// Kinds of records that were read past without being understood.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unknown_kinds: Vec<String>,
    /// Each node's last processes by their newest records, of those that were read one by one. Operators' acts are left out: they may
    /// come from anywhere, by processes that this node's state directory has never seen.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub authors: BTreeMap<NodeId, Vec<ProcessAuthor>>,
    /// When the repository was made, as its `format` says; `None`: whoever read this did not say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub created: Option<Timestamp>,
    /// The newest pause that is over, from its begin to its end, as far as records were read one by one. Pauses that leave no moment
    /// between them are one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub past_pause: Option<JournalPause>,
    /// The guarded command that was begun last, until its end or a takeover, as far as records were read one by one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub running: Option<RunningCommand>,
    /// The dates of records, the newest record's last and each later than that of the next: what was ever dated beyond the present is
    /// here, or something that was written later and is dated later still. As far as records were read one by one, and not amended.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub dates: Vec<RecordDate>,
}

/// A record that does not follow the one before.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// Of another role or repository.
    #[error("belongs to role {role}, repository {repo}")]
    Foreign {
        /// What it says.
        role: RoleName,
        /// What it says.
        repo: RepoId,
    },
    /// Not the next number.
    #[error("says it is number {found}")]
    Number {
        /// What it says.
        found: Seq,
    },
    /// Not chained to the record before.
    #[error("does not continue the record before it")]
    Chain,
    /// A takeover whose term is not the next, or another record whose term is not the holder's.
    #[error("has term {found} after term {before}")]
    Term {
        /// What it says.
        found: Term,
        /// The holder's.
        before: Term,
    },
    /// Written under a permit that a newer takeover had ended: the fence was broken.
    #[error("was written under a takeover that is not the newest")]
    Fence,
    /// Of another generation of the repository key than everything is written under by then.
    #[error("is of generation {found} of the repository key, after generation {now}")]
    Generation {
        /// What it is of, or begins.
        found: KeyGeneration,
        /// The one that counts.
        now: KeyGeneration,
    },
    /// Its checkpoint is not what the records before it add up to.
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

    /// The number that the next record gets.
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

    /// Refuses a record of an older generation, whatever state it brings along.
    pub(crate) fn refuse_older(&self, record: &Record) -> Result<(), FoldError> {
        let (found, now) = (record.generation, self.generation());
        if found < now { Err(FoldError::Generation { found, now }) } else { Ok(()) }
    }

    /// Whether this program understands everything that the journal says; else it must not append.
    pub fn is_understood(&self) -> bool {
        self.unknown_kinds.is_empty() && self.state.unknown.is_empty()
    }

    /// The committed slots, as far as they are remembered.
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

    /// When the repository was made, where that is known, as amended.
    pub fn created_at(&self) -> Option<Timestamp> {
        self.created.map(|created| self.state.created_at(created))
    }

    /// Whether the newest record is a takeover, and the bug is planted that forgets slots then.
    #[cfg(feature = "planted")]
    fn forgets_slot(&self) -> bool {
        let newest = self.head.as_ref().map(|head| head.seq);
        crate::planted::is(crate::planted::PlantedBug::SlotIsNotLookedUp)
            && self.state.holder.as_ref().is_some_and(|holder| Some(holder.seq) == newest)
    }

    /// Starts at a checkpoint, without the records before it: the view before `record`.
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
            // What is left was told by whoever read all of it.
            let state = record.state.as_ref().ok_or(FoldError::Checkpoint)?;
            if record.generation > self.generation() {
                // No rotation led here: a holder of the key of before may have written what comes before it.
                *self = JournalView { head: self.head.take(), ..JournalView::empty(self.role.clone(), self.repo) };
            } else if record.term <= self.term() {
                return Err(FoldError::Term { found: record.term, before: self.term() });
            }
            self.state.clone_from(state);
        } else if let Some(state) = record.state.as_ref().filter(|state| **state != self.state) {
            if !state.is_consistent_with(&self.state) {
                return Err(FoldError::Checkpoint);
            }
            // Whoever begins here knows no more than this.
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
                if let Some(said) = record.repair_entry() {
                    repair_history::add(&mut self.state.repaired, said);
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

    /// An operator said at `present` that what is dated beyond it was dated by a wrong clock.
    fn amend(&mut self, present: Timestamp) {
        self.state.amend(present);
        if let Some(running) =
            self.running.as_mut().filter(|running| clock_tolerance::is_in_future(running.time, present))
        {
            running.time = present;
        }
    }

    /// Keeps which command runs. A holder that a takeover ended cannot record an end any more, nor can a process that died before the
    /// next begin.
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

    /// A pause, if there is one, is over at `time`, if it was not before.
    fn end_pause(&mut self, time: Timestamp) {
        let Some(paused) = self.state.paused.take() else { return };
        let end = paused.until.map_or(time, |until| until.min(time));
        // One whose end lies beyond the begin of the next was ended by another clock.
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
            // Operators' acts, and what a clone says of itself, need no permit, and change no term.
            (RecordBody::Pause(_) | RecordBody::Resume | RecordBody::Clone(_) | RecordBody::Amend(_), None)
                if record.term == before =>
            {
                Ok(())
            }
            // What a newer version does without a permit is for it to judge; terms still never go back.
            (RecordBody::Unknown { .. }, None) if record.term >= before => Ok(()),
            _ if record.term != before => wrong,
            (_, takeover) if takeover != self.state.holder.as_ref().map(|h| h.takeover) => Err(FoldError::Fence),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
