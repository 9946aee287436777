//! What the records up to some point add up to: what is live, which node writes, which slots are committed. Pure.
//!
//! No time that a record says is made a maximum: a clock that was wrong once would have an effect for ever. What was
//! last is last by the order of the records.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{ChunkId, ClusterId, Digest, IndexId, InstanceId, NodeId, PackId, ScheduleId, Seq, SourceMark, Term};
use crate::journal::body::{ChangeCounts, EndBody, RunCost, TakeoverReason, WriterNode};
use crate::journal::repair_history::RepairEntry;
use crate::journal::rotation::RotationState;
use crate::role::clock_tolerance;
use crate::role::slot_commits::ScheduleInForce;

/// Number of slots of forgotten snapshots that a state keeps.
pub(super) const PAST_SLOTS_KEPT: usize = 64;

/// Number of slots of guarded commands that a state keeps, the newest by the order of their records: a clock that is
/// ahead needs as many slots of real time to push the others out.
pub(super) const COMMAND_SLOTS_KEPT: usize = 64;

/// Number of slots of amended commits that a state keeps, those that were amended last.
pub(super) const AMENDED_SLOTS_KEPT: usize = 256;

/// The node that may write: the newest takeover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleHolder {
    /// The fencing token.
    pub term: Term,
    /// The digest of the takeover record.
    pub takeover: Digest,
    /// Its number.
    pub seq: Seq,
    /// The node.
    pub node: WriterNode,
    /// The process.
    pub instance: InstanceId,
    /// When it took over, by that node's clock.
    pub time: Timestamp,
    /// When it took over, by the store's clock, if the node saw it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub store_time: Option<Timestamp>,
    /// The reason.
    pub why: TakeoverReason,
    /// How the guarded command for a slot ended that ended last, under any holder. The field is part of the holder
    /// because versions that do not know it ignore it here; they leave it out of the states that they write.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub command: Option<CommandEnd>,
    /// When an operator gave the role to that node, by the store's clock if the node saw it, else by its own. The field
    /// stays while no other node takes the role, also if processes of that node take over from each other.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub handed_over: Option<Timestamp>,
}

/// How a guarded command for a slot ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandEnd {
    /// The number of the record of its end.
    pub seq: Seq,
    /// The node.
    pub node: WriterNode,
    /// When, by the store's clock if the node saw it, else by the node's.
    pub time: Timestamp,
    /// The slot.
    pub slot: Timestamp,
    /// The end.
    pub end: EndBody,
}

/// One live snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The digest of its record.
    pub id: Digest,
    /// The number of its record.
    pub seq: Seq,
    /// The fencing token under which it was written.
    pub term: Term,
    /// The node that wrote it.
    pub node: WriterNode,
    /// When, by the store's clock if the writer saw it, else by the writer's; an amended snapshot has the time of the
    /// amendment.
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
    /// The sources and dumps that held no file; `None`: unknown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub empty: Option<Vec<SourceMark>>,
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalPause {
    /// The node on which the operator paused the role.
    pub node: WriterNode,
    /// When, by the store's clock if the node saw it, else by the node's.
    pub time: Timestamp,
    /// When it ends; `None`: at a resume.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<Timestamp>,
    /// The reason.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
}

/// A guarded command that began and whose end the journal does not show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunningCommand {
    /// The node.
    pub node: WriterNode,
    /// The process.
    pub instance: InstanceId,
    /// When it began, by the store's clock if the node saw it, else by the node's.
    pub time: Timestamp,
    /// The slot.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub slot: Option<Timestamp>,
}

/// Objects that a prune condemned: no record refers to them, and they are deleted after a grace for restores that still
/// read them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CondemnedObjects {
    /// The number of the prune's record.
    pub seq: Seq,
    /// When, by the store's clock if the writer saw it, else by the writer's.
    pub time: Timestamp,
    /// The packs.
    pub packs: Vec<PackId>,
    /// The index objects.
    pub indexes: Vec<IndexId>,
}

/// What the records up to some point add up to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JournalState {
    /// The node that may write.
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
    /// IDs of nodes that exist twice. A node with such an ID does not work until it has another.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub clones: BTreeSet<NodeId>,
    /// The etcd cluster that has the head, if it is not the one that `format` names.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cluster: Option<ClusterId>,
    /// Objects that prunes condemned and no sweep has deleted yet.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub condemned: Vec<CondemnedObjects>,
    /// When the newest prune ran, by the same clock as for snapshots.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pruned: Option<Timestamp>,
    /// The newest committed slots of forgotten snapshots. Retention does not remove them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub past_slots: BTreeSet<Timestamp>,
    /// The slots that guarded commands committed last, by the order of their records.
    #[serde(skip_serializing_if = "VecDeque::is_empty", default)]
    pub command_slots: VecDeque<Timestamp>,
    /// The schedule by which slots were committed last, if records say which.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub schedule: Option<ScheduleInForce>,
    /// The newest repairs, and what they said is lost.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub repaired: Vec<RepairEntry>,
    /// When an operator last amended dates that were later than that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub amended: Option<Timestamp>,
    /// The slots of amended commits, in the order in which they were amended. Each stays committed, and closes no other
    /// slot.
    #[serde(skip_serializing_if = "VecDeque::is_empty", default)]
    pub amended_slots: VecDeque<Timestamp>,
    /// The newest rotation of the repository key; `None`: all records are of the first generation.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rotated: Option<RotationState>,
    /// Fields of a newer version. They are kept, and prevent this version from appending.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

impl JournalState {
    /// Every committed slot that the state keeps, in no order.
    pub fn slots(&self) -> impl Iterator<Item = Timestamp> {
        let live = self.snapshots.iter().filter_map(|snapshot| snapshot.slot);
        live.chain(self.past_slots.iter().copied()).chain(self.command_slots.iter().copied()).chain(self.last_slot)
    }

    /// From when on the state keeps every committed slot; `None`: from the start.
    pub(super) fn remembered_from(&self) -> Option<Timestamp> {
        let past = self.past_slots.first().filter(|_| self.past_slots.len() >= PAST_SLOTS_KEPT);
        let commands = self.command_slots.iter().min().filter(|_| self.command_slots.len() >= COMMAND_SLOTS_KEPT);
        past.max(commands).copied()
    }

    /// When a slot was committed last, by a snapshot that is still live or by a guarded command; `None`: the role has
    /// no schedule, or had one so long ago that retention has forgotten its snapshots.
    pub fn last_scheduled(&self) -> Option<Timestamp> {
        let snapshots = self.snapshots.iter().filter(|snapshot| snapshot.slot.is_some()).map(|snapshot| snapshot.time);
        snapshots.chain(self.command_slots.iter().copied()).max()
    }

    /// Adds slots that were committed by records which the state no longer shows.
    pub(super) fn add_past_slots(&mut self, slots: impl IntoIterator<Item = Timestamp>) {
        self.past_slots.extend(slots);
        while self.past_slots.len() > PAST_SLOTS_KEPT {
            self.past_slots.pop_first();
        }
    }

    /// Commits the slot of a record, if it has one.
    pub(super) fn commit_slot(&mut self, slot: Option<Timestamp>, schedule: Option<ScheduleId>) {
        if let Some(slot) = slot {
            self.last_slot = Some(slot);
            self.schedule = ScheduleInForce::after(self.schedule, schedule, slot);
        }
    }

    /// When a repository was created whose `format` says `created`: an amended date is that of the amendment.
    pub fn created_at(&self, created: Timestamp) -> Timestamp {
        self.amended.filter(|present| clock_tolerance::is_in_future(created, *present)).unwrap_or(created)
    }

    /// Replaces every date after `present` by `present`; slots after it no longer count as the newest. What was
    /// committed stays committed.
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

    /// An amended snapshot lies between its neighbours in the journal: it must not seem older than one before it.
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

    /// Whether this is the state of a checkpoint if the records before it add up to `folded`. A checkpoint may lack
    /// what the version that wrote it did not know; a reader continues from the checkpoint.
    pub(super) fn is_consistent_with(&self, folded: &JournalState) -> bool {
        let mut folded = folded.clone();
        if self.command_slots.is_empty() {
            folded.command_slots.clear();
        }
        if self.schedule.is_none() {
            folded.schedule = None;
        }
        // Versions that keep no amended slots dated amended snapshots at the amendment, whatever followed them.
        if self.amended.is_none() && folded.amended.take().is_some() {
            folded.amended_slots.clear();
            for (snapshot, stored) in folded.snapshots.iter_mut().zip(&self.snapshots) {
                snapshot.time = stored.time;
            }
        }
        // They do not store which sources were empty.
        for (snapshot, stored) in folded.snapshots.iter_mut().zip(&self.snapshots) {
            if stored.empty.is_none() {
                snapshot.empty = None;
            }
        }
        // They dated a pause by the node's clock alone.
        if let (Some(paused), Some(stored)) = (&mut folded.paused, &self.paused) {
            paused.time = stored.time;
        }
        if let (Some(holder), Some(stored)) = (&mut folded.holder, &self.holder) {
            // They do not keep the end of a command.
            if stored.command.is_none() {
                holder.command = None;
            }
            // They did not keep when an operator handed the role over; a view that began after that does not know it.
            (holder.store_time, holder.handed_over) = (stored.store_time, stored.handed_over);
        }
        *self == folded
    }
}
