//! What the records up to some point add up to: what is live, which node writes, which slots are committed. Pure.
//!
//! No time that a record says is made a maximum: a clock that was wrong once would have an effect for ever. What was last is last by the
//! order of the records.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{ChunkId, ClusterId, Digest, IndexId, InstanceId, NodeId, PackId, ScheduleId, Seq, SourceMark, Term};
use crate::journal::body::{ChangeCounts, EndBody, RunCost, TakeoverReason, WriterNode};
use crate::journal::repair_history::RepairEntry;
use crate::journal::rotation::RotationState;
use crate::role::clock_tolerance;
use crate::role::slot_commits::ScheduleInForce;

/// How many slots of forgotten snapshots are remembered.
pub(super) const PAST_SLOTS_KEPT: usize = 64;

/// How many slots of guarded commands are remembered, the newest by the order of their records: a clock that is ahead needs as many
/// slots of real time to push the others out.
pub(super) const COMMAND_SLOTS_KEPT: usize = 64;

/// How many slots of amended commits are remembered, those that were amended last.
pub(super) const AMENDED_SLOTS_KEPT: usize = 256;

/// Who may write: the newest takeover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleHolder {
    /// The fencing token.
    pub term: Term,
    /// The digest of the takeover record.
    pub takeover: Digest,
    /// Its number.
    pub seq: Seq,
    /// Who.
    pub node: WriterNode,
    /// Which process.
    pub instance: InstanceId,
    /// When, by that node's clock.
    pub time: Timestamp,
    /// When, by the store's clock, if that node saw it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub store_time: Option<Timestamp>,
    /// Why.
    pub why: TakeoverReason,
    /// How the guarded command for a slot ended that ended last, whoever held the role then. It stands here because versions that do not know
    /// it pass over it here; they leave it out of the states that they write.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub command: Option<CommandEnd>,
    /// When an operator gave the role to that node, by the store's clock if it saw that, else by its own. It stays while no other node takes
    /// the role, however often processes of that node take it over from each other.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub handed_over: Option<Timestamp>,
}

/// How a guarded command for a slot ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandEnd {
    /// The number of the record of its end.
    pub seq: Seq,
    /// On which node.
    pub node: WriterNode,
    /// When, by the store's clock if that node saw it, else by the node's.
    pub time: Timestamp,
    /// For which slot.
    pub slot: Timestamp,
    /// How.
    pub end: EndBody,
}

/// One live snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The digest of its record.
    pub id: Digest,
    /// The number of its record.
    pub seq: Seq,
    /// The fencing token it was written under.
    pub term: Term,
    /// Who wrote it.
    pub node: WriterNode,
    /// When, by the store's clock if the writer saw it, else by the writer's; what an operator amended is dated at that act.
    pub time: Timestamp,
    /// The slot it is for.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slot: Option<Timestamp>,
    /// The manifest.
    pub root: ChunkId,
    /// Entries of the manifest.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// Bytes of those files.
    pub bytes: u64,
    /// What changed against the snapshot before.
    pub changes: ChangeCounts,
    /// What the run cost.
    pub cost: RunCost,
    /// The sources and dumps that held no file; `None`: not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub empty: Option<Vec<SourceMark>>,
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalPause {
    /// On which node it was said.
    pub node: WriterNode,
    /// When, by the store's clock if that node saw it, else by the node's.
    pub time: Timestamp,
    /// Until when; `None`: until a resume.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<Timestamp>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
}

/// A guarded command that was begun, and of whose end the journal shows nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningCommand {
    /// On which node.
    pub node: WriterNode,
    /// By which process.
    pub instance: InstanceId,
    /// When it was begun, by the store's clock if that node saw it, else by the node's.
    pub time: Timestamp,
    /// For which slot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slot: Option<Timestamp>,
}

/// What a prune condemned: nothing refers to it any more, and after a grace for those who still read it is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CondemnedObjects {
    /// The number of the prune's record.
    pub seq: Seq,
    /// When, by the store's clock if the writer saw it, else by the writer's.
    pub time: Timestamp,
    /// Packs.
    pub packs: Vec<PackId>,
    /// Index objects.
    pub indexes: Vec<IndexId>,
}

/// What the records up to some point add up to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JournalState {
    /// Who may write.
    pub holder: Option<RoleHolder>,
    /// The slot that was committed last, by the order of the records. Not the latest: a clock may have been wrong.
    pub last_slot: Option<Timestamp>,
    /// The live snapshots, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// The index objects that together locate every chunk of them.
    pub indexes: Vec<IndexId>,
    /// An operator's pause, until another one's resume.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub paused: Option<JournalPause>,
    /// Nodes that exist twice. Whoever has such an ID does not work until it has another.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub clones: BTreeSet<NodeId>,
    /// The etcd cluster that has the head, if it is not the one that `format` names.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cluster: Option<ClusterId>,
    /// What prunes condemned and no sweep has deleted yet.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub condemned: Vec<CondemnedObjects>,
    /// When the newest prune was, by the same clock as snapshots.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pruned: Option<Timestamp>,
    /// The newest committed slots of forgotten snapshots: the last ones are counted, whatever was kept.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub past_slots: BTreeSet<Timestamp>,
    /// The slots that guarded commands committed last, by the order of their records.
    #[serde(skip_serializing_if = "VecDeque::is_empty", default)]
    pub command_slots: VecDeque<Timestamp>,
    /// The schedule that slots were committed by last, where records say which.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub schedule: Option<ScheduleInForce>,
    /// What repairs said is lost, the newest of them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub repaired: Vec<RepairEntry>,
    /// When an operator amended last what was dated beyond that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub amended: Option<Timestamp>,
    /// The slots of amended commits, in the order in which they were amended. Each stays committed, and closes no other.
    #[serde(skip_serializing_if = "VecDeque::is_empty", default)]
    pub amended_slots: VecDeque<Timestamp>,
    /// The newest rotation of the repository key; `None`: everything is written under the first.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rotated: Option<RotationState>,
    /// What a newer version keeps here. It is carried along, and keeps this version from appending.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

impl JournalState {
    /// Every committed slot that is remembered, in no order.
    pub fn slots(&self) -> impl Iterator<Item = Timestamp> {
        let live = self.snapshots.iter().filter_map(|snapshot| snapshot.slot);
        live.chain(self.past_slots.iter().copied()).chain(self.command_slots.iter().copied()).chain(self.last_slot)
    }

    /// From when on every committed slot is remembered; `None`: always.
    pub(super) fn remembered_from(&self) -> Option<Timestamp> {
        let past = self.past_slots.first().filter(|_| self.past_slots.len() >= PAST_SLOTS_KEPT);
        let commands = self.command_slots.iter().min().filter(|_| self.command_slots.len() >= COMMAND_SLOTS_KEPT);
        past.max(commands).copied()
    }

    /// When a slot was committed last, by a snapshot that is still there or by a guarded command; `None`: the role has no schedule, or had
    /// one so long ago that retention has forgotten what it made.
    pub fn last_scheduled(&self) -> Option<Timestamp> {
        let snapshots = self.snapshots.iter().filter(|snapshot| snapshot.slot.is_some()).map(|snapshot| snapshot.time);
        snapshots.chain(self.command_slots.iter().copied()).max()
    }

    /// Remembers slots that were committed by records which are no more.
    pub(super) fn add_past_slots(&mut self, slots: impl IntoIterator<Item = Timestamp>) {
        self.past_slots.extend(slots);
        while self.past_slots.len() > PAST_SLOTS_KEPT {
            self.past_slots.pop_first();
        }
    }

    /// A record commits its slot, if it has one.
    pub(super) fn commit_slot(&mut self, slot: Option<Timestamp>, schedule: Option<ScheduleId>) {
        if let Some(slot) = slot {
            self.last_slot = Some(slot);
            self.schedule = ScheduleInForce::after(self.schedule, schedule, slot);
        }
    }

    /// When a repository was made whose `format` says `created`: an amended date is that of the act.
    pub fn created_at(&self, created: Timestamp) -> Timestamp {
        self.amended.filter(|present| clock_tolerance::is_in_future(created, *present)).unwrap_or(created)
    }

    /// Takes back what was dated beyond `present`: it is dated then, and its slots count as the newest of none. What was committed
    /// stays committed.
    pub(super) fn amend(&mut self, present: Timestamp) {
        let is_future = |at: &Timestamp| clock_tolerance::is_in_future(*at, present);
        let amend = |at: &mut Timestamp| *at = if is_future(at) { present } else { *at };
        self.amended = Some(present);
        let taken: BTreeSet<Timestamp> = self.slots().filter(is_future).collect();
        self.amended_slots.extend(taken);
        while self.amended_slots.len() > AMENDED_SLOTS_KEPT {
            self.amended_slots.pop_front();
        }
        self.amend_snapshots(present);
        self.past_slots.retain(|slot| !is_future(slot));
        self.command_slots.retain(|slot| !is_future(slot));
        self.last_slot = self
            .last_slot
            .filter(|slot| !is_future(slot))
            .or_else(|| self.slots().filter(|slot| !is_future(slot)).max());
        if let Some(holder) = &mut self.holder {
            amend(&mut holder.time);
            holder.command.iter_mut().for_each(|command| amend(&mut command.time));
            holder.store_time.iter_mut().chain(&mut holder.handed_over).for_each(amend);
        }
        self.paused.iter_mut().for_each(|paused| amend(&mut paused.time));
        self.condemned.iter_mut().for_each(|condemned| amend(&mut condemned.time));
        self.pruned.iter_mut().for_each(amend);
        if let Some(schedule) = &mut self.schedule {
            schedule.since = schedule.since.filter(|slot| !is_future(slot));
        }
    }

    /// A snapshot that is dated anew lies between its neighbours in the journal: it must not seem older than what it came after.
    fn amend_snapshots(&mut self, present: Timestamp) {
        let is_future = |at: &Timestamp| clock_tolerance::is_in_future(*at, present);
        let (mut next, mut amended) = (None, BTreeSet::new());
        for snapshot in self.snapshots.iter_mut().rev() {
            snapshot.slot = snapshot.slot.filter(|slot| !is_future(slot));
            if is_future(&snapshot.time) {
                snapshot.time = next.map_or(present, |next| present.min(next));
                amended.insert(snapshot.seq);
            } else {
                next = Some(snapshot.time);
            }
        }
        let mut before = Timestamp::MIN;
        for snapshot in &mut self.snapshots {
            if amended.contains(&snapshot.seq) {
                snapshot.time = snapshot.time.max(before);
            }
            before = snapshot.time;
        }
    }

    /// Whether this is the state of a checkpoint that the records before it add up to, if those are `folded`. A checkpoint may leave out
    /// what the version that wrote it did not know; a reader goes on from what it says.
    pub(super) fn is_consistent_with(&self, folded: &JournalState) -> bool {
        let mut folded = folded.clone();
        if self.command_slots.is_empty() {
            folded.command_slots.clear();
        }
        if self.schedule.is_none() {
            folded.schedule = None;
        }
        // Versions that keep no amended slots dated amended snapshots at the act, whatever came after them.
        if self.amended.is_none() && folded.amended.take().is_some() {
            folded.amended_slots.clear();
            for (snapshot, told) in folded.snapshots.iter_mut().zip(&self.snapshots) {
                snapshot.time = told.time;
            }
        }
        // They say of no source that it was empty.
        for (snapshot, told) in folded.snapshots.iter_mut().zip(&self.snapshots) {
            if told.empty.is_none() {
                snapshot.empty = None;
            }
        }
        // They dated a pause by the node's clock alone.
        if let (Some(paused), Some(told)) = (&mut folded.paused, &self.paused) {
            paused.time = told.time;
        }
        if let (Some(holder), Some(told)) = (&mut folded.holder, &self.holder) {
            // They keep no end of a command.
            if told.command.is_none() {
                holder.command = None;
            }
            // They did not keep that an operator handed the role over; where this began after that, it is not known here.
            (holder.store_time, holder.handed_over) = (told.store_time, told.handed_over);
        }
        *self == folded
    }
}
