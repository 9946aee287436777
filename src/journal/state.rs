//! Folding records into state: what is live, who writes, which slots are committed. Pure; the same records give the same state
//! on every node.
//!
//! No time that a record says is made a maximum: a clock that was wrong once would stay for ever. What was last is last by the order of
//! the records.
//!
//! The promises "one lineage" and "terms never go back" are checked here for everything that is read: a record that does
//! not follow is refused, whoever wrote it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{ChunkId, ClusterId, Digest, IndexId, InstanceId, NodeId, PackId, RepoId, RoleName, Seq, Term};
use crate::journal::record::{Body, Changes, Cost, NodeRef, PruneBody, Record, TakeoverWhy};
use crate::journal::repaired::{self, Repaired};
use crate::role::commits::{ScheduleInForce, SlotCommits};
use crate::role::present;
use crate::role::twin::{self, Authorship};

/// How many slots of forgotten snapshots are remembered.
const PAST_SLOTS_KEPT: usize = 64;

/// How many slots of guarded commands are remembered, the newest by the order of their records: a clock that is ahead needs as many
/// slots of real time to push the others out, and the oldest of those is closed by a later one then.
const COMMAND_SLOTS_KEPT: usize = 64;

/// How many slots of amended commits are remembered, those that were amended last.
const AMENDED_SLOTS_KEPT: usize = 256;

/// Who may write: the newest takeover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The fencing token.
    pub term: Term,
    /// The digest of the takeover record.
    pub takeover: Digest,
    /// Its number.
    pub seq: Seq,
    /// Who.
    pub node: NodeRef,
    /// Which process.
    pub instance: InstanceId,
    /// When, by that node's clock.
    pub time: Timestamp,
    /// Why.
    pub why: TakeoverWhy,
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
    pub node: NodeRef,
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
    pub changes: Changes,
    /// What the run cost.
    pub cost: Cost,
}

/// A pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// On which node it was said.
    pub node: NodeRef,
    /// When, by the store's clock if that node saw it, else by the node's.
    pub time: Timestamp,
    /// Until when; `None`: until a resume.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<Timestamp>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
}

/// What a prune condemned: nothing refers to it any more, and after a grace for those who still read it is deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condemned {
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
pub struct State {
    /// Who may write.
    pub holder: Option<Holder>,
    /// The slot that was committed last, by the order of the records. Not the latest: a clock may have been wrong.
    pub last_slot: Option<Timestamp>,
    /// The live snapshots, oldest first.
    pub snapshots: Vec<Snapshot>,
    /// The index objects that together locate every chunk of them.
    pub indexes: Vec<IndexId>,
    /// An operator's pause, until another one's resume.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub paused: Option<Paused>,
    /// Nodes that exist twice. Whoever has such an ID does not work until it has another.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub clones: BTreeSet<NodeId>,
    /// The etcd cluster that has the head, if it is not the one that `format` names.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cluster: Option<ClusterId>,
    /// What prunes condemned and no sweep has deleted yet.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub condemned: Vec<Condemned>,
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
    pub repaired: Vec<Repaired>,
    /// When an operator amended last what was dated beyond that.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub amended: Option<Timestamp>,
    /// The slots of amended commits, in the order in which they were amended. Each stays committed, and closes no other.
    #[serde(skip_serializing_if = "VecDeque::is_empty", default)]
    pub amended_slots: VecDeque<Timestamp>,
    /// What a newer version keeps here. It is carried along, and keeps this version from appending.
    #[serde(flatten)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

impl State {
    /// Every committed slot that is remembered, in no order.
    pub fn slots(&self) -> impl Iterator<Item = Timestamp> {
        let live = self.snapshots.iter().filter_map(|snapshot| snapshot.slot);
        live.chain(self.past_slots.iter().copied()).chain(self.command_slots.iter().copied()).chain(self.last_slot)
    }

    /// Remembers slots that were committed by records which are no more.
    pub(super) fn add_past_slots(&mut self, slots: impl IntoIterator<Item = Timestamp>) {
        self.past_slots.extend(slots);
        while self.past_slots.len() > PAST_SLOTS_KEPT {
            self.past_slots.pop_first();
        }
    }

    /// A record commits its slot, if it has one.
    fn committed(&mut self, record: &Record) {
        if let Some(slot) = record.slot {
            self.last_slot = Some(slot);
            self.schedule = ScheduleInForce::after(self.schedule, record.schedule, slot);
        }
    }

    /// When a repository was made whose `format` says `created`: an amended date is that of the act.
    pub fn born(&self, created: Timestamp) -> Timestamp {
        self.amended.filter(|present| present::is_beyond(created, *present)).unwrap_or(created)
    }

    /// Takes back what was dated beyond `present`: it is dated then, and its slots count as the newest of none. What was committed
    /// stays committed.
    fn amend(&mut self, present: Timestamp) {
        let is_future = |at: &Timestamp| present::is_beyond(*at, present);
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
        self.holder.iter_mut().for_each(|holder| amend(&mut holder.time));
        self.paused.iter_mut().for_each(|paused| amend(&mut paused.time));
        self.condemned.iter_mut().for_each(|condemned| amend(&mut condemned.time));
        self.pruned.iter_mut().for_each(amend);
        if let Some(schedule) = &mut self.schedule {
            schedule.since = schedule.since.filter(|slot| !is_future(slot));
        }
    }

    /// A snapshot that is dated anew lies between its neighbours in the journal: it must not seem older than what it came after.
    fn amend_snapshots(&mut self, present: Timestamp) {
        let is_future = |at: &Timestamp| present::is_beyond(*at, present);
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
    fn is_told_by(&self, folded: &State) -> bool {
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
        // They dated a pause by the node's clock alone.
        if let (Some(paused), Some(told)) = (&mut folded.paused, &self.paused) {
            paused.time = told.time;
        }
        *self == folded
    }
}

/// The newest record of a journal, as the next one must continue it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its number.
    pub seq: Seq,
    /// Its digest.
    pub digest: Digest,
    /// Who wrote it.
    pub node: NodeRef,
    /// When, by the writer's clock.
    pub time: Timestamp,
}

/// A journal as far as it was read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct View {
    /// The role.
    pub role: RoleName,
    /// The repository.
    pub repo: RepoId,
    /// The newest record; `None` while there is none.
    pub head: Option<Head>,
    /// What it all adds up to.
    pub state: State,
    /// Kinds of records that were read past without being understood.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unknown_kinds: Vec<String>,
    /// Each node's last processes by their newest records, of those that were read one by one. Operators' acts are left out: they may
    /// come from anywhere, by processes that this node's state directory has never seen.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub authors: BTreeMap<NodeId, Vec<Authorship>>,
    /// When the repository was made, as its `format` says; `None`: whoever read this did not say.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub created: Option<Timestamp>,
    /// The newest pause that is over, from its begin to its end, as far as records were read one by one. Pauses that leave no moment
    /// between them are one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub past_pause: Option<Paused>,
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
    /// Its checkpoint is not what the records before it add up to.
    #[error("carries a state that the records before it do not add up to")]
    Checkpoint,
}

impl View {
    /// A journal without records.
    pub fn empty(role: RoleName, repo: RepoId) -> Self {
        let (state, authors) = (State::default(), BTreeMap::new());
        let (created, past_pause) = (None, None);
        Self { role, repo, head: None, state, unknown_kinds: Vec::new(), authors, created, past_pause }
    }

    /// The number that the next record gets.
    pub fn next_seq(&self) -> Seq {
        self.head.as_ref().map_or(Seq::FIRST, |head| head.seq.next())
    }

    /// The holder's term; 0 before the first takeover.
    pub fn term(&self) -> Term {
        self.state.holder.as_ref().map_or(Term(0), |holder| holder.term)
    }

    /// Whether this program understands everything that the journal says; else it must not append.
    pub fn understood(&self) -> bool {
        self.unknown_kinds.is_empty() && self.state.unknown.is_empty()
    }

    /// The committed slots, as far as they are remembered.
    pub fn commits(&self) -> SlotCommits {
        #[cfg(feature = "planted")]
        if self.forgets_slot() {
            return SlotCommits::new([], self.born());
        }
        let State { schedule, snapshots, amended_slots, .. } = &self.state;
        SlotCommits::new(self.state.slots(), self.born())
            .with_amended(amended_slots.iter().copied())
            .by(*schedule, snapshots.last().map(|snapshot| snapshot.time))
    }

    /// When the repository was made, where that is known, as amended.
    pub fn born(&self) -> Option<Timestamp> {
        self.created.map(|created| self.state.born(created))
    }

    /// Whether the newest record is a takeover, and the bug is planted that forgets slots then.
    #[cfg(feature = "planted")]
    fn forgets_slot(&self) -> bool {
        let newest = self.head.as_ref().map(|head| head.seq);
        crate::planted::is(crate::planted::Bug::SlotIsNotLookedUp)
            && self.state.holder.as_ref().is_some_and(|holder| Some(holder.seq) == newest)
    }

    /// Starts at a checkpoint, without the records before it: the view before `record`.
    pub fn before_checkpoint(record: &Record) -> Option<View> {
        let state = record.state.clone()?;
        let before = record.seq.0.checked_sub(1).filter(|&seq| seq > 0)?;
        let head = Head { seq: Seq(before), digest: record.prev?, node: record.node.clone(), time: record.time };
        let (role, repo) = (record.role.clone(), record.repo);
        Some(View { head: Some(head), state, ..View::empty(role, repo) })
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
        if record.body.repair().is_some() {
            // What is left was told by whoever read all of it.
            let state = record.state.as_ref().ok_or(FoldError::Checkpoint)?;
            if record.term <= self.term() {
                return Err(FoldError::Term { found: record.term, before: self.term() });
            }
            self.state.clone_from(state);
        } else if let Some(state) = record.state.as_ref().filter(|state| **state != self.state) {
            if !state.is_told_by(&self.state) {
                return Err(FoldError::Checkpoint);
            }
            // Whoever begins here knows no more than this.
            self.state.clone_from(state);
        }
        self.apply_term(record)?;
        match &record.body {
            Body::Takeover(takeover) => {
                self.state.cluster = takeover.cluster.or(self.state.cluster);
                self.state.holder = Some(Holder {
                    term: record.term,
                    takeover: digest,
                    seq: record.seq,
                    node: record.node.clone(),
                    instance: record.instance,
                    time: record.time,
                    why: takeover.why,
                });
                if let Some(repair) = record.body.repair() {
                    let (void, lost) = (repair.void.clone(), repair.lost);
                    let said = Repaired { seq: record.seq, term: record.term, void, lost };
                    repaired::add(&mut self.state.repaired, said);
                }
            }
            Body::Snapshot(body) => {
                self.state.indexes.extend_from_slice(&body.indexes);
                self.state.committed(record);
                self.state.snapshots.push(Snapshot {
                    id: digest,
                    seq: record.seq,
                    term: record.term,
                    node: record.node.clone(),
                    time: record.store_time.unwrap_or(record.time),
                    slot: record.slot,
                    root: body.root,
                    entries: body.entries,
                    files: body.files,
                    bytes: body.bytes,
                    changes: body.changes,
                    cost: body.cost,
                });
            }
            Body::End(body) if body.exit == 0 && !body.stopped => {
                self.state.committed(record);
                self.state.command_slots.extend(record.slot);
                while self.state.command_slots.len() > COMMAND_SLOTS_KEPT {
                    self.state.command_slots.pop_front();
                }
            }
            Body::Begin(_) | Body::End(_) => {}
            Body::Clone(_) => {
                self.state.clones.insert(record.node.id);
            }
            Body::Pause(body) => {
                let time = record.store_time.unwrap_or(record.time);
                self.end_pause(time);
                self.state.paused =
                    Some(Paused { node: record.node.clone(), time, until: body.until, why: body.why.clone() });
            }
            Body::Resume => self.end_pause(record.store_time.unwrap_or(record.time)),
            Body::Amend(_) => self.state.amend(record.store_time.unwrap_or(record.time)),
            Body::Prune(body) => self.prune(record, body),
            Body::Swept(body) => self.state.condemned.retain(|condemned| !body.prunes.contains(&condemned.seq)),
            Body::Unknown { kind, .. } => {
                if !self.unknown_kinds.contains(kind) {
                    self.unknown_kinds.push(kind.clone());
                }
            }
        }
        if !record.body.is_operators() {
            let authors = self.authors.entry(record.node.id).or_default();
            twin::add_author(authors, Authorship { seq: record.seq, instance: record.instance });
        }
        self.head = Some(Head { seq: record.seq, digest, node: record.node.clone(), time: record.time });
        Ok(())
    }

    /// A pause, if there is one, is over at `time`, if it was not before.
    fn end_pause(&mut self, time: Timestamp) {
        let Some(paused) = self.state.paused.take() else { return };
        let end = paused.until.map_or(time, |until| until.min(time));
        // One whose end lies beyond the begin of the next was ended by another clock.
        let meets = |until: Timestamp| until >= paused.time && !present::is_beyond(until, paused.time);
        let before = self.past_pause.take().filter(|past| past.until.is_some_and(meets));
        let since = before.map_or(paused.time, |past| past.time.min(paused.time));
        self.past_pause = Some(Paused { time: since, until: Some(end), ..paused });
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
        let time = record.store_time.unwrap_or(record.time);
        if !(body.packs.is_empty() && indexes.is_empty()) {
            state.condemned.push(Condemned { seq: record.seq, time, packs: body.packs.clone(), indexes });
        }
        state.indexes.clone_from(&body.indexes);
        state.pruned = Some(time);
    }

    fn apply_term(&self, record: &Record) -> Result<(), FoldError> {
        let before = self.term();
        let wrong = Err(FoldError::Term { found: record.term, before });
        match (&record.body, record.takeover) {
            (Body::Takeover(_), _) if before.0.checked_add(1) != Some(record.term.0) => wrong,
            (Body::Takeover(_), _) => Ok(()),
            // Operators' acts, and what a clone says of itself, need no permit, and change no term.
            (Body::Pause(_) | Body::Resume | Body::Clone(_) | Body::Amend(_), None) if record.term == before => Ok(()),
            // What a newer version does without a permit is for it to judge; terms still never go back.
            (Body::Unknown { .. }, None) if record.term >= before => Ok(()),
            _ if record.term != before => wrong,
            (_, takeover) if takeover != self.state.holder.as_ref().map(|h| h.takeover) => Err(FoldError::Fence),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    mod story;

    use super::*;
    use crate::ids::{NodeId, ScheduleId};
    use crate::journal::record::{self, CloneBody, EndBody, PauseBody, RecordError, SnapshotBody, Takeover};
    use crate::repo::crypto::Cipher;
    use crate::repo::crypto::tests::keys;

    fn node(n: u8) -> NodeRef {
        NodeRef { id: NodeId([n; 16]), name: format!("node{n}") }
    }

    /// The record that continues `view`.
    pub(crate) fn next(view: &View, by: u8, body: Body) -> Record {
        let takeover = match body {
            Body::Takeover(_) => None,
            _ => view.state.holder.as_ref().map(|h| h.takeover),
        };
        let term = Term(view.term().0 + u64::from(takeover.is_none()));
        let checkpoint = record::is_checkpoint(view.next_seq(), &view.state);
        Record {
            role: view.role.clone(),
            repo: view.repo,
            seq: view.next_seq(),
            term,
            takeover,
            node: node(by),
            instance: InstanceId([by; 8]),
            time: Timestamp::UNIX_EPOCH,
            store_time: None,
            slot: None,
            last_slot: view.state.last_slot,
            schedule: None,
            prev: view.head.as_ref().map(|h| h.digest),
            body,
            state: checkpoint.then(|| view.state.clone()),
        }
    }

    pub(crate) fn takeover() -> Body {
        Body::Takeover(Takeover::new(TakeoverWhy::Moved))
    }

    fn snapshot(n: u8) -> Body {
        Body::Snapshot(SnapshotBody {
            root: ChunkId([n; 32]),
            indexes: vec![IndexId([n; 16])],
            entries: 3,
            files: 2,
            bytes: 10,
            changes: Changes::default(),
            changed_set: ChunkId([0; 32]),
            cost: Cost::default(),
        })
    }

    fn push(view: &mut View, record: &Record) -> Result<(), FoldError> {
        let object = record.encode(&keys(Cipher::None));
        let record = Record::decode(&object, Some(&keys(Cipher::None))).unwrap();
        view.apply(&record, record::digest(&object))
    }

    fn add(view: &mut View, by: u8, body: Body) {
        let record = next(view, by, body);
        push(view, &record).unwrap();
    }

    pub(crate) fn empty() -> View {
        View::empty("app".parse().unwrap(), RepoId([7; 16]))
    }

    #[test]
    fn a_stale_writer_is_refused_by_everybody_who_reads() {
        let mut view = empty();
        add(&mut view, 1, takeover());
        let before = view.clone();
        add(&mut view, 2, takeover());
        // The old writer's record, even if it takes the right number, chain and term.
        let mut stale = next(&view, 1, snapshot(1));
        stale.takeover = before.state.holder.as_ref().map(|h| h.takeover);
        assert_eq!(push(&mut view, &stale), Err(FoldError::Fence));
        stale.term = Term(1);
        assert_eq!(push(&mut view, &stale), Err(FoldError::Term { found: Term(1), before: Term(2) }));
        assert_eq!(push(&mut view, &next(&before, 1, snapshot(1))), Err(FoldError::Number { found: Seq(2) }));
        let mut jump = next(&view, 1, takeover());
        jump.term = Term(9);
        assert!(matches!(push(&mut view, &jump), Err(FoldError::Term { .. })));
        add(&mut view, 2, snapshot(1));
        assert_eq!(view.state.snapshots.len(), 1);
    }

    #[test]
    fn a_clone_says_so_of_itself_and_everybody_remembers() {
        let mut view = empty();
        add(&mut view, 1, takeover());
        let mut clone = next(&view, 2, Body::Clone(CloneBody { other: InstanceId([9; 8]) }));
        (clone.term, clone.takeover) = (Term(1), None);
        push(&mut view, &clone).unwrap();
        assert_eq!(view.state.clones, BTreeSet::from([NodeId([2; 16])]));
        assert_eq!(view.state.holder.as_ref().unwrap().node, node(1), "it changes nothing else");
        assert_eq!(view.authors[&NodeId([2; 16])].last().unwrap().seq, Seq(2));
    }

    #[test]
    fn a_checkpoint_stands_for_all_before_it() {
        let mut view = empty();
        let mut at_64 = None;
        add(&mut view, 1, takeover());
        while view.next_seq().0 <= 70 {
            let record = next(&view, 1, snapshot(view.next_seq().0 as u8));
            if record.seq.0 == 64 {
                at_64 = Some((record.clone(), view.clone()));
            }
            push(&mut view, &record).unwrap();
        }
        let (record, before) = at_64.unwrap();
        let from = View::before_checkpoint(&record).unwrap();
        assert_eq!(from.state, before.state);
        assert_eq!(from.next_seq(), before.next_seq());
        let mut lying = before.clone();
        let mut forged = record;
        forged.state.as_mut().unwrap().snapshots.pop();
        assert_eq!(push(&mut lying, &forged), Err(FoldError::Checkpoint));
    }

    #[test]
    fn an_unknown_kind_is_read_past_and_stops_appends() {
        let mut view = empty();
        add(&mut view, 1, takeover());
        let point = Body::Unknown { kind: "point".to_owned(), body: serde_json::json!({"id": 1}) };
        add(&mut view, 1, point);
        assert!(!view.understood());
        add(&mut view, 1, snapshot(3));
        assert_eq!(view.state.snapshots.len(), 1);
    }

    #[test]
    fn a_kind_of_a_later_version_needs_no_permit_and_still_takes_no_term_back() {
        let mut view = empty();
        add(&mut view, 1, takeover());
        add(&mut view, 2, takeover());
        for (term, sound) in [(1, false), (2, true), (3, true)] {
            let mut point = next(&view, 1, Body::Unknown { kind: "point".to_owned(), body: serde_json::Value::Null });
            (point.term, point.takeover) = (Term(term), None);
            let wrong = FoldError::Term { found: Term(term), before: Term(2) };
            assert_eq!(push(&mut view.clone(), &point), if sound { Ok(()) } else { Err(wrong) });
        }
    }

    #[test]
    fn what_operators_do_says_nothing_of_who_writes_where() {
        let mut view = empty();
        add(&mut view, 1, takeover());
        let authors = view.authors.clone();
        assert_eq!(authors.keys().collect::<Vec<_>>(), [&NodeId([1; 16])]);
        let pause = Body::Pause(PauseBody { until: None, why: None });
        for body in [pause, Body::Resume] {
            let mut record = next(&view, 2, body);
            (record.term, record.takeover) = (view.term(), None);
            push(&mut view, &record).unwrap();
        }
        for why in [TakeoverWhy::Operator, TakeoverWhy::Adopt] {
            add(&mut view, 2, Body::Takeover(Takeover::new(why)));
        }
        assert_eq!(view.authors, authors);
    }

    #[test]
    fn the_slots_of_what_is_forgotten_are_remembered_up_to_a_number() {
        let mut view = empty();
        add(&mut view, 1, takeover());
        let all = PAST_SLOTS_KEPT as i64 + 6;
        for n in 0..all {
            let mut record = next(&view, 1, snapshot(n as u8));
            record.slot = Some(slot(n));
            push(&mut view, &record).unwrap();
        }
        let ids: Vec<Digest> = view.state.snapshots.iter().map(|snapshot| snapshot.id).collect();
        // As many as are kept, and then more.
        for (forgotten, first) in [(&ids[..PAST_SLOTS_KEPT], 0), (&ids[PAST_SLOTS_KEPT..ids.len() - 1], 5)] {
            let (forgotten, indexes) = (forgotten.to_vec(), view.state.indexes.clone());
            add(&mut view, 1, Body::Prune(PruneBody { forgotten, indexes, packs: Vec::new(), strays: Vec::new() }));
            assert_eq!(view.state.past_slots.len(), PAST_SLOTS_KEPT);
            assert_eq!(view.state.past_slots.first(), Some(&slot(first)), "the oldest go first");
        }
        assert_eq!(view.state.snapshots.len(), 1);
    }

    fn slot(n: i64) -> Timestamp {
        Timestamp::from_second(n * 60).unwrap()
    }

    fn end(view: &View, n: i64) -> Record {
        let body = Body::End(EndBody { exit: 0, stopped: false, duration_ms: 1 });
        Record { slot: Some(slot(n)), schedule: Some(ScheduleId([1; 8])), ..next(view, 1, body) }
    }

    #[test]
    fn a_clock_that_was_ahead_takes_no_slot_from_those_that_are_right() {
        let (mut view, year) = (empty(), 365 * 24 * 60);
        add(&mut view, 1, takeover());
        for n in [60, year, 120] {
            let record = end(&view, n);
            push(&mut view, &record).unwrap();
            let commits = view.commits();
            assert!(commits.contains(slot(60)) && commits.is_closed(slot(60), slot(200)), "after {n}");
            assert!(!commits.is_closed(slot(180), slot(200)), "after {n}");
            assert_eq!(view.state.last_slot, Some(slot(n)), "the last by the order of the records");
        }
        assert_eq!(view.commits().newest(slot(200)), Some(slot(120)));
        let before = next(&view, 1, takeover()).last_slot;
        assert_eq!(before, Some(slot(120)), "nothing has kept the year");
        for n in 0..COMMAND_SLOTS_KEPT as i64 {
            let record = end(&view, 121 + n);
            push(&mut view, &record).unwrap();
        }
        assert_eq!(view.state.command_slots.len(), COMMAND_SLOTS_KEPT);
        assert!(!view.commits().contains(slot(year)), "the oldest record goes first, not the oldest slot");
    }

    #[test]
    fn a_state_of_an_older_version_is_gone_on_from_by_all_alike() {
        let mut view = empty();
        add(&mut view, 1, takeover());
        let record = end(&view, 60);
        push(&mut view, &record).unwrap();
        // An older version wrote the checkpoint.
        let mut old = next(&view, 1, snapshot(1));
        old.state = Some(State { command_slots: VecDeque::new(), schedule: None, ..view.state.clone() });
        let mut from = View::before_checkpoint(&old).unwrap();
        push(&mut from, &old).unwrap();
        push(&mut view, &old).unwrap();
        assert_eq!(view.state, from.state);
        assert!(view.commits().contains(slot(60)), "the last slot is known all the same");
        for view in [&mut view, &mut from] {
            let record = end(view, 120);
            push(view, &record).unwrap();
        }
        let mut new = next(&view, 1, snapshot(1));
        new.state = Some(view.state.clone());
        push(&mut from.clone(), &new).unwrap();
        new.state.as_mut().unwrap().command_slots.push_front(slot(7));
        assert_eq!(push(&mut view, &new), Err(FoldError::Checkpoint), "what is written is checked");
    }

    fn amend(view: &mut View, at: Timestamp) {
        let mut record = next(view, 2, Body::Amend(record::AmendBody {}));
        (record.term, record.takeover, record.time) = (view.term(), None, at);
        push(view, &record).unwrap();
    }

    #[test]
    fn an_amended_slot_stays_committed_and_its_snapshot_lies_between_its_neighbours() {
        let (mut view, year) = (empty(), 365 * 24 * 60);
        view.created = Some(slot(year));
        add(&mut view, 1, takeover());
        for (n, at) in [(1, 60), (2, year), (3, 120), (4, year + 60)] {
            let mut record = next(&view, 1, snapshot(n));
            (record.slot, record.time) = (Some(slot(at)), slot(at));
            push(&mut view, &record).unwrap();
        }
        amend(&mut view, slot(500));
        let times: Vec<Timestamp> = view.state.snapshots.iter().map(|snapshot| snapshot.time).collect();
        assert_eq!(times, [60, 120, 120, 500].map(slot), "none seems older or newer than what follows it");
        let commits = view.commits();
        assert_eq!((commits.newest(slot(3 * year)), commits.created()), (Some(slot(120)), Some(slot(500))));
        assert!(commits.contains(slot(year)) && commits.contains(slot(year + 60)), "what is committed stays so");
        assert!(!commits.is_closed(slot(year - 60), slot(3 * year)) && commits.is_closed(slot(90), slot(500)));

        // By a clock that was years behind: no slot is free, none is committed twice.
        let mut behind = empty();
        add(&mut behind, 1, takeover());
        let record = Record { time: slot(year), ..end(&behind, year) };
        push(&mut behind, &record).unwrap();
        amend(&mut behind, slot(10));
        let commits = behind.commits();
        assert!(commits.is_closed(slot(year), slot(year + 30)) && !commits.is_closed(slot(year + 60), slot(year + 60)));
    }

    #[test]
    fn what_an_older_version_made_of_an_amend_and_a_pause_is_gone_on_from() {
        let (mut view, year) = (empty(), 365 * 24 * 60);
        add(&mut view, 1, takeover());
        for (n, at) in [(1, year), (2, 120)] {
            let record = Record { time: slot(at), slot: Some(slot(at)), ..next(&view, 1, snapshot(n)) };
            push(&mut view, &record).unwrap();
        }
        amend(&mut view, slot(500));
        let pause = Body::Pause(PauseBody { until: None, why: None });
        let mut record = next(&view, 2, pause);
        (record.term, record.takeover, record.time) = (view.term(), None, slot(year));
        record.store_time = Some(slot(510));
        push(&mut view, &record).unwrap();
        assert_eq!(view.state.paused.as_ref().unwrap().time, slot(510), "by the store's clock");
        let mut old = State { amended: None, amended_slots: VecDeque::new(), ..view.state.clone() };
        old.snapshots[0].time = slot(500);
        old.paused.as_mut().unwrap().time = slot(year);
        let mut checkpoint = next(&view, 1, snapshot(3));
        checkpoint.state = Some(old.clone());
        push(&mut view.clone(), &checkpoint).unwrap();
        old.snapshots[0].slot = Some(slot(7));
        checkpoint.state = Some(old);
        assert_eq!(push(&mut view, &checkpoint), Err(FoldError::Checkpoint), "what else it says is checked");
    }

    #[test]
    fn a_pause_that_another_clock_ended_is_not_one_with_the_next() {
        let mut view = empty();
        add(&mut view, 1, takeover());
        let mut act = |minute: i64, body: Body| {
            let mut record = next(&view, 2, body);
            (record.term, record.takeover, record.time) = (view.term(), None, slot(minute));
            push(&mut view, &record).unwrap();
            view.past_pause.as_ref().map(|past| (past.time, past.until.unwrap()))
        };
        let pause = || Body::Pause(PauseBody { until: None, why: None });
        act(10, pause());
        assert_eq!(act(9_000, Body::Resume), Some((slot(10), slot(9_000))));
        act(500, pause());
        assert_eq!(act(510, Body::Resume), Some((slot(500), slot(510))));
    }

    #[test]
    fn the_newest_pause_that_is_over_is_remembered_whole() {
        let mut view = empty();
        add(&mut view, 1, takeover());
        let mut act = |second: i64, body: Body| {
            let mut record = next(&view, 2, body);
            (record.term, record.takeover, record.time) = (view.term(), None, Timestamp::from_second(second).unwrap());
            push(&mut view, &record).unwrap();
            let past = view.past_pause.as_ref().map(|past| (past.time.as_second(), past.until.unwrap().as_second()));
            (view.state.paused.is_some(), past)
        };
        let pause = |until: Option<i64>| {
            Body::Pause(PauseBody { until: until.map(|until| Timestamp::from_second(until).unwrap()), why: None })
        };
        assert_eq!(act(10, pause(None)), (true, None));
        assert_eq!(act(20, pause(Some(30))), (true, Some((10, 20))), "it is said again, with an end");
        assert_eq!(act(40, Body::Resume), (false, Some((10, 30))), "it was over before, and nothing lay between them");
        assert_eq!(act(50, pause(None)), (true, Some((10, 30))));
        assert_eq!(act(60, Body::Resume), (false, Some((50, 60))));
    }

    #[test]
    fn a_record_of_a_later_format_is_told_from_a_damaged_one() {
        let object = next(&empty(), 1, takeover()).encode(&keys(Cipher::None));
        let later = String::from_utf8(object).unwrap().replacen("\"v\":1", "\"v\":2", 1);
        assert_eq!(Record::decode(later.as_bytes(), None), Err(RecordError::Newer(2)));
    }

    #[test]
    fn a_number_without_a_successor_is_no_record() {
        let mut view = empty();
        let mut record = next(&view, 1, takeover());
        for (seq, sound) in [(0, false), (1, true), (Seq::MAX.0, true), (Seq::MAX.0 + 1, false), (u64::MAX, false)] {
            record.seq = Seq(seq);
            assert_eq!(Record::decode(&record.encode(&keys(Cipher::None)), None).is_ok(), sound, "{seq}");
        }
        record.seq = Seq::MAX;
        (record.prev, record.state) = (Some(Digest([1; 32])), Some(State::default()));
        let first = Record { seq: Seq::FIRST, ..record.clone() };
        assert_eq!(View::before_checkpoint(&first), None, "there is nothing before it");
        view = View::before_checkpoint(&record).unwrap();
        assert_eq!(view.apply(&record, Digest([2; 32])), Ok(()));
        assert_eq!(view.next_seq(), Seq(Seq::MAX.0 + 1));
    }

    #[test]
    fn a_record_is_json_that_anybody_can_read() {
        let mut view = empty();
        add(&mut view, 1, takeover());
        let object = next(&view, 1, snapshot(3)).encode(&keys(Cipher::None));
        let text = String::from_utf8(object).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!((&lines[0]["kind"], &lines[0]["seq"], &lines[0]["v"]), (&"snapshot".into(), &2.into(), &1.into()));
        assert!(lines[1]["mac"].is_string());
        for at in 0..text.len() {
            let mut flipped = text.clone().into_bytes();
            flipped[at] ^= 1;
            assert!(Record::decode(&flipped, Some(&keys(Cipher::None))).is_err(), "byte {at}");
        }
    }
}
