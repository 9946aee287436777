//! One record: an act of a node on its role, readable with `jq`, chained to the one before, vouched for by a MAC.
//!
//! No file names and no content stand here: a record may be read by whoever can list the store.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{
    ChunkId, ClusterId, Digest, IndexId, InstanceId, KeyGeneration, NodeId, PackId, RepoId, RoleName, ScheduleId, Seq,
    SourceMark, Term,
};
use crate::journal::repair_history::LostTail;
use crate::journal::rotation::{self, RotateBody};
use crate::journal::state::JournalState;
use crate::repo::crypto::DerivedKeys;
use crate::repo::mac_line::{self, MacLineError};

/// The record version that this program writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// Every record whose number is a multiple of this carries the whole state before it, however large that is, but where etcd would not take it.
pub const CHECKPOINT_EVERY: u64 = 64;

/// No record carries a state whose number is not a multiple of this.
pub const CHECKPOINT_STEP: u64 = 8;

/// What a state at other multiples of [`CHECKPOINT_STEP`] may have for each record that it saves reading, in bytes. Records are never
/// deleted, so small states are repeated often and large ones rarely.
const CHECKPOINT_BYTES: u64 = 16 << 10;

/// Whether record `seq` carries the `state` before it.
pub fn is_checkpoint(seq: Seq, state: &JournalState) -> bool {
    let saved = 1 << seq.0.trailing_zeros().min(CHECKPOINT_EVERY.trailing_zeros());
    let fits = || serde_json::to_vec(state).is_ok_and(|state| state.len() as u64 <= saved * CHECKPOINT_BYTES);
    saved == CHECKPOINT_EVERY || saved >= CHECKPOINT_STEP && fits()
}

/// The node that wrote a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterNode {
    /// Its random ID.
    pub id: NodeId,
    /// Its label: the hostname, or what `--node` said. Never a key.
    pub name: String,
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The role.
    pub role: RoleName,
    /// The repository.
    pub repo: RepoId,
    /// Its place.
    pub seq: Seq,
    /// The fencing token under which it was written.
    pub term: Term,
    /// The takeover record whose permit it was written under; `None` for a takeover itself.
    pub takeover: Option<Digest>,
    /// Who wrote it.
    pub node: WriterNode,
    /// Which process.
    pub instance: InstanceId,
    /// When, by the writer's clock.
    pub time: Timestamp,
    /// When, by the store's clock as the writer last saw it.
    pub store_time: Option<Timestamp>,
    /// The slot it is for.
    pub slot: Option<Timestamp>,
    /// The slot that was committed last before it.
    pub last_slot: Option<Timestamp>,
    /// The schedule that the slot is of.
    pub schedule: Option<ScheduleId>,
    /// The record before.
    pub prev: Option<Digest>,
    /// What happened.
    pub body: RecordBody,
    /// The state before this record, where [`is_checkpoint`].
    pub state: Option<JournalState>,
    /// The generation of the repository key that its MAC is made with.
    pub generation: KeyGeneration,
}

/// What a record says happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordBody {
    /// The node became the writer of the role.
    Takeover(TakeoverBody),
    /// A backup was committed.
    Snapshot(SnapshotBody),
    /// A guarded command begins for a slot.
    Begin(BeginBody),
    /// It has ended. With a good end the slot is committed.
    End(EndBody),
    /// The node that writes this exists twice, as a process of it has found out. Written without a permit.
    Clone(CloneBody),
    /// An operator said that nobody runs the role. Written without a permit, as every operator's act.
    Pause(PauseBody),
    /// An operator ended that.
    Resume,
    /// An operator said that what is dated beyond this record was dated by a wrong clock.
    Amend(AmendBody),
    /// Snapshots are forgotten, and what nothing needs any more is condemned: nothing may refer to it from here on.
    Prune(PruneBody),
    /// What some prunes condemned is deleted.
    Swept(SweepBody),
    /// From here on everything is written under a new generation of the repository key.
    Rotate(RotateBody),
    /// A kind that this version does not know: it reads on, and does not append.
    Unknown {
        /// Its name.
        kind: String,
        /// Its content.
        body: serde_json::Value,
    },
}

impl RecordBody {
    /// What a repair says of the journal before it.
    pub fn as_repair(&self) -> Option<&TakeoverBody> {
        match self {
            RecordBody::Takeover(takeover) if takeover.why == TakeoverReason::Repair => Some(takeover),
            _ => None,
        }
    }

    /// Whether a person did it.
    pub fn is_by_operator(&self) -> bool {
        match self {
            RecordBody::Pause(_) | RecordBody::Resume | RecordBody::Amend(_) | RecordBody::Rotate(_) => true,
            RecordBody::Takeover(takeover) => takeover.why.is_by_operator(),
            _ => false,
        }
    }

    /// Its kind's name and its content, as they stand in the record.
    pub fn to_json(&self) -> (&str, serde_json::Value) {
        let json = |value: serde_json::Result<serde_json::Value>| value.expect("plain data becomes JSON");
        match self {
            RecordBody::Takeover(body) => ("takeover", json(serde_json::to_value(body))),
            RecordBody::Snapshot(body) => ("snapshot", json(serde_json::to_value(body))),
            RecordBody::Begin(body) => ("begin", json(serde_json::to_value(body))),
            RecordBody::End(body) => ("end", json(serde_json::to_value(body))),
            RecordBody::Clone(body) => ("clone", json(serde_json::to_value(body))),
            RecordBody::Pause(body) => ("pause", json(serde_json::to_value(body))),
            RecordBody::Resume => ("resume", serde_json::Value::Object(serde_json::Map::default())),
            RecordBody::Amend(body) => ("amend", json(serde_json::to_value(body))),
            RecordBody::Prune(body) => ("prune", json(serde_json::to_value(body))),
            RecordBody::Swept(body) => ("swept", json(serde_json::to_value(body))),
            RecordBody::Rotate(body) => ("rotate", json(serde_json::to_value(body))),
            RecordBody::Unknown { kind, body } => (kind.as_str(), body.clone()),
        }
    }
}

/// The body of a takeover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakeoverBody {
    /// Why.
    pub why: TakeoverReason,
    /// The etcd cluster that has the journal's head from here on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cluster: Option<ClusterId>,
    /// The operator wanted it although this node's probes did not say that it is active.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub forced: bool,
    /// Of a repair: numbers before it whose records are lost. Readers pass them over.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub void: Vec<Seq>,
    /// Of a repair: the newest records that some nodes saw, and that the store lost.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lost: Option<LostTail>,
}

impl TakeoverBody {
    /// One that leaves the journal where it is.
    pub fn new(why: TakeoverReason) -> Self {
        Self { why, cluster: None, forced: false, void: Vec::new(), lost: None }
    }
}

/// Why a node took a role over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TakeoverReason {
    /// Nobody had it before.
    First,
    /// Another node had it.
    Moved,
    /// This node had it, in a process or a boot that is over.
    Restart,
    /// A person gave it to this node.
    Operator,
    /// No eligible node did what was due, and this one stands in.
    Fallback,
    /// A person let the journal go on from the store's last record, because etcd no longer has its head.
    Adopt,
    /// A person let the journal go on although records of it are lost: what it carries as its state is what was left.
    Repair,
}

impl TakeoverReason {
    /// Whether a person did it.
    pub fn is_by_operator(self) -> bool {
        matches!(self, TakeoverReason::Operator | TakeoverReason::Adopt | TakeoverReason::Repair)
    }
}

/// The body of a guarded command's begin. Which command is not said: it may hold secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginBody {}

/// The body of a guarded command's end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EndBody {
    /// Its exit code; 128 and the number for a signal.
    pub exit: u8,
    /// It was ended because its node was no longer active, or its time was over.
    pub stopped: bool,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// The signal that ended it. Older versions did not say it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signal: Option<u8>,
    /// It was stopped because its time was over. Older versions did not say it.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub timed_out: bool,
}

impl EndBody {
    /// Whether it commits its slot.
    pub fn is_success(&self) -> bool {
        self.exit == 0 && !self.stopped
    }
}

/// The body of a clone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneBody {
    /// The process that wrote with this node's ID and is none of its own.
    pub other: InstanceId,
}

/// The body of a pause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseBody {
    /// Until when; `None`: until a resume.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub until: Option<Timestamp>,
    /// Why, in the operator's words.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
}

/// The body of an amendment: the record's own time is the present that it speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmendBody {}

/// The body of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotBody {
    /// The manifest.
    pub root: ChunkId,
    /// The index objects that this run wrote; with those of the records before they locate every chunk.
    pub indexes: Vec<IndexId>,
    /// Entries of the manifest.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// Bytes of those files, holes included.
    pub bytes: u64,
    /// What changed against the snapshot before.
    pub changes: ChangeCounts,
    /// BLAKE3 over the paths and kinds of what changed, keyed from the repository: runs that report the same set again and again
    /// show themselves.
    pub changed_set: ChunkId,
    /// What the run cost.
    pub cost: RunCost,
    /// The sources and dumps that held no file, the first of them in the order of their paths; `None`: an older version wrote it, and it is
    /// not known.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub empty: Option<Vec<SourceMark>>,
}

/// The body of a prune.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PruneBody {
    /// Snapshots that are no more.
    pub forgotten: Vec<Digest>,
    /// The index objects from here on. Those that were named before and are not among them are condemned.
    pub indexes: Vec<IndexId>,
    /// Packs that nothing refers to, now and for ever.
    pub packs: Vec<PackId>,
    /// Index objects that no record ever named.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub strays: Vec<IndexId>,
}

/// The body of a sweep.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SweepBody {
    /// The prunes whose condemned objects are gone.
    pub prunes: Vec<Seq>,
}

/// Counts of entries against the snapshot before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChangeCounts {
    /// Not there before.
    pub new: u64,
    /// Content or metadata differs.
    pub changed: u64,
    /// Equal.
    pub unchanged: u64,
    /// No longer there.
    pub removed: u64,
    /// Could not be read.
    pub unreadable: u64,
}

/// What a run cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct RunCost {
    /// Bytes read from files.
    pub read_bytes: u64,
    /// Bytes of new content, before compression.
    pub new_bytes: u64,
    /// Bytes sent to the store before this record.
    pub uploaded_bytes: u64,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
}

/// A record that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It cannot be read.
    #[error("cannot be read ({0})")]
    Damaged(String),
    /// It is newer than this program.
    #[error("has format version {0}, and this program reads version {VERSION}. Update runner on this node")]
    Newer(u32),
    /// Its MAC is made with a generation of the repository key that the reader has not.
    #[error("belongs to generation {0} of the repository key, which the key at hand does not give")]
    Rotated(KeyGeneration),
}

/// The JSON of a record. `kind` and `body` stay apart, so that an unknown kind can be read past.
#[derive(Serialize, Deserialize)]
struct RawRecord {
    v: u32,
    role: RoleName,
    repo: RepoId,
    seq: Seq,
    term: Term,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    takeover: Option<Digest>,
    node: WriterNode,
    instance: InstanceId,
    time: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    store_time: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    slot: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    last_slot: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    schedule: Option<ScheduleId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    prev: Option<Digest>,
    kind: String,
    body: serde_json::Value,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    state: Option<JournalState>,
}

/// The digest of a journal object: what the next record names as its predecessor.
pub fn digest(object: &[u8]) -> Digest {
    Digest(*blake3::hash(object).as_bytes())
}

impl Record {
    /// When it was written, by the store's clock where its writer saw that.
    pub fn written_at(&self) -> Timestamp {
        self.store_time.unwrap_or(self.time)
    }

    /// Whether it is the record with this number of the journal that these keys are for.
    pub fn is_at(&self, seq: Seq, keys: &DerivedKeys) -> bool {
        self.seq == seq && self.role == *keys.role() && self.repo == keys.repo()
    }

    /// The latest instant that readers take from it: its slot, or when it was written, by the store's clock where its writer saw that.
    pub fn latest_date(&self) -> Timestamp {
        let time = self.written_at();
        self.slot.map_or(time, |slot| slot.max(time))
    }

    /// The object, under these keys; they know the record's generation.
    pub fn encode(&self, keys: &DerivedKeys) -> Vec<u8> {
        mac_line::seal_by(&self.line(), keys, self.generation)
    }

    /// Lets the generation that a rotation begins vouch for its record.
    pub fn add_rotation_proof(&mut self, keys: &DerivedKeys) {
        // The line of any other record may be long, and is not needed.
        if !matches!(self.body, RecordBody::Rotate(_)) {
            return;
        }
        let line = self.line();
        if let RecordBody::Rotate(body) = &mut self.body {
            body.proof = rotation::prove(&line, body, keys).unwrap_or(body.proof);
        }
    }

    fn line(&self) -> Vec<u8> {
        let (kind, body) = self.body.to_json();
        let raw = RawRecord {
            v: VERSION,
            role: self.role.clone(),
            repo: self.repo,
            seq: self.seq,
            term: self.term,
            takeover: self.takeover,
            node: self.node.clone(),
            instance: self.instance,
            time: self.time,
            store_time: self.store_time,
            slot: self.slot,
            last_slot: self.last_slot,
            schedule: self.schedule,
            prev: self.prev,
            kind: kind.to_owned(),
            body,
            state: self.state.clone(),
        };
        serde_json::to_vec(&raw).expect("plain data becomes JSON")
    }

    /// From the object. With keys the MAC is checked; without, only the shape.
    pub fn decode(object: &[u8], keys: Option<&DerivedKeys>) -> Result<Self, RecordError> {
        let damaged = |e: &dyn std::fmt::Display| RecordError::Damaged(e.to_string());
        let (first, generation) = match keys {
            Some(keys) => mac_line::open_any(object, keys),
            None => mac_line::split(object).map(|(first, _, generation)| (first, generation)),
        }
        .map_err(|error| match error {
            MacLineError::Generation(generation) => RecordError::Rotated(generation),
            error => damaged(&error),
        })?;
        #[derive(Deserialize)]
        struct Version {
            v: u32,
        }
        let Version { v } = serde_json::from_slice(first).map_err(|e| damaged(&e))?;
        if v > VERSION {
            return Err(RecordError::Newer(v));
        }
        let raw: RawRecord = serde_json::from_slice(first).map_err(|e| damaged(&e))?;
        if !(Seq::FIRST..=Seq::MAX).contains(&raw.seq) {
            return Err(damaged(&"a number that no record has"));
        }
        let body = match raw.kind.as_str() {
            "takeover" => RecordBody::Takeover(serde_json::from_value(raw.body).map_err(|e| damaged(&e))?),
            "snapshot" => RecordBody::Snapshot(serde_json::from_value(raw.body).map_err(|e| damaged(&e))?),
            "begin" => RecordBody::Begin(serde_json::from_value(raw.body).map_err(|e| damaged(&e))?),
            "end" => RecordBody::End(serde_json::from_value(raw.body).map_err(|e| damaged(&e))?),
            "clone" => RecordBody::Clone(serde_json::from_value(raw.body).map_err(|e| damaged(&e))?),
            "pause" => RecordBody::Pause(serde_json::from_value(raw.body).map_err(|e| damaged(&e))?),
            "resume" => RecordBody::Resume,
            "amend" => RecordBody::Amend(serde_json::from_value(raw.body).map_err(|e| damaged(&e))?),
            "prune" => RecordBody::Prune(serde_json::from_value(raw.body).map_err(|e| damaged(&e))?),
            "swept" => RecordBody::Swept(serde_json::from_value(raw.body).map_err(|e| damaged(&e))?),
            "rotate" => RecordBody::Rotate(serde_json::from_value(raw.body).map_err(|e| damaged(&e))?),
            _ => RecordBody::Unknown { kind: raw.kind, body: raw.body },
        };
        if let (RecordBody::Rotate(body), Some(keys)) = (&body, keys)
            && rotation::prove(first, body, keys).is_some_and(|proof| proof != body.proof)
        {
            return Err(damaged(&"the generation of the repository key that it begins does not vouch for it"));
        }
        Ok(Record {
            generation,
            role: raw.role,
            repo: raw.repo,
            seq: raw.seq,
            term: raw.term,
            takeover: raw.takeover,
            node: raw.node,
            instance: raw.instance,
            time: raw.time,
            store_time: raw.store_time,
            slot: raw.slot,
            last_slot: raw.last_slot,
            schedule: raw.schedule,
            prev: raw.prev,
            body,
            state: raw.state,
        })
    }
}

#[cfg(test)]
mod tests;
