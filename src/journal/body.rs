//! What a record says happened: the kinds of records and their bodies, as they are stored. Pure.
//!
//! No body names a file or holds content: a record may be read by every process that can list the store.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{ChunkId, ClusterId, Digest, IndexId, InstanceId, NodeId, PackId, Seq, SourceMark};
use crate::journal::rotation::RotateBody;

/// The node that wrote a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriterNode {
    /// Its random ID.
    pub id: NodeId,
    /// Its label: the hostname, or what `--node` said. Never a key.
    pub name: String,
}

/// The end of a journal that a store lost, as a node remembers it. Its numbers are used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostTail {
    /// The first lost number.
    pub from: Seq,
    /// The last lost number.
    pub to: Seq,
    /// The digest of the record with the last lost number.
    pub digest: Digest,
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
    /// The command has ended. A successful end commits the slot.
    End(EndBody),
    /// The node that writes this exists twice, as one of its processes found out. Needs no permit.
    Clone(CloneBody),
    /// An operator said that no node runs the role. Needs no permit, like every operator's act.
    Pause(PauseBody),
    /// An operator ended the pause.
    Resume,
    /// An operator said that all dates after this record come from a wrong clock.
    Amend(AmendBody),
    /// Snapshots are forgotten, and objects that nothing needs any more are condemned: no record refers to them from
    /// here on.
    Prune(PruneBody),
    /// The objects that some prunes condemned are deleted.
    Swept(SweepBody),
    /// From here on all records are written under a new generation of the repository key.
    Rotate(RotateBody),
    /// A kind that this version does not know: a reader passes over it, and does not append.
    Unknown {
        /// Its name.
        kind: String,
        /// Its content.
        body: serde_json::Value,
    },
}

impl RecordBody {
    /// The takeover of a repair, if the record is one.
    pub fn as_repair(&self) -> Option<&TakeoverBody> {
        match self {
            RecordBody::Takeover(takeover) if takeover.why == TakeoverReason::Repair => Some(takeover),
            _ => None,
        }
    }

    /// Whether an operator did it.
    pub fn is_by_operator(&self) -> bool {
        match self {
            RecordBody::Pause(_) | RecordBody::Resume | RecordBody::Amend(_) | RecordBody::Rotate(_) => true,
            RecordBody::Takeover(takeover) => takeover.why.is_by_operator(),
            _ => false,
        }
    }

    /// The kind's name and the body, as they are stored.
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
    /// The reason for the takeover.
    pub why: TakeoverReason,
    /// The etcd cluster that has the journal's head from here on.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cluster: Option<ClusterId>,
    /// The operator forced it although this node's probes did not say that it is active.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub forced: bool,
    /// For a repair: numbers before it whose records are lost. Readers pass over them.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub void: Vec<Seq>,
    /// For a repair: the newest records that some nodes saw, and that the store lost.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub lost: Option<LostTail>,
}

impl TakeoverBody {
    /// A takeover that changes nothing else in the journal.
    pub fn new(why: TakeoverReason) -> Self {
        Self { why, cluster: None, forced: false, void: Vec::new(), lost: None }
    }
}

/// Why a node took a role over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TakeoverReason {
    /// No node had the role before.
    First,
    /// Another node had the role.
    Moved,
    /// This node had the role, in a process or a boot that is over.
    Restart,
    /// An operator gave the role to this node.
    Operator,
    /// No eligible node did the due work, and this node works as a fallback.
    Fallback,
    /// An operator let the journal continue from the store's last record, because etcd no longer has its head.
    Adopt,
    /// An operator let the journal continue although records are lost. The state that the record carries is what was
    /// left.
    Repair,
}

impl TakeoverReason {
    /// Whether an operator did it.
    pub fn is_by_operator(self) -> bool {
        matches!(self, TakeoverReason::Operator | TakeoverReason::Adopt | TakeoverReason::Repair)
    }
}

/// The body of a guarded command's begin. The command itself is not stored: it may hold secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeginBody {}

/// The body of a guarded command's end.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct EndBody {
    /// Its exit code; 128 and the number for a signal.
    pub exit: u8,
    /// The command was ended because its node was no longer active, or its time was over.
    pub stopped: bool,
    /// The duration in milliseconds.
    pub duration_ms: u64,
    /// The signal that ended it. Older versions did not store it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signal: Option<u8>,
    /// The command was stopped because its time was over. Older versions did not store it.
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
    /// A process that wrote with this node's ID and is not a process of this node.
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

/// The body of an amendment: the record's own time is the present that it refers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AmendBody {}

/// The body of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotBody {
    /// The manifest.
    pub root: ChunkId,
    /// The index objects that this run wrote. Together with those of the records before, they locate every chunk.
    pub indexes: Vec<IndexId>,
    /// Entries of the manifest.
    pub entries: u64,
    /// Regular files among them.
    pub files: u64,
    /// Bytes of those files, holes included.
    pub bytes: u64,
    /// What changed against the snapshot before.
    pub changes: ChangeCounts,
    /// BLAKE3 over the paths and kinds of what changed, keyed from the repository. An equal value in successive runs
    /// shows that the same set changed again.
    pub changed_set: ChunkId,
    /// What the run cost.
    pub cost: RunCost,
    /// The sources and dumps that held no file, the first of them in the order of their paths; `None`: unknown, because
    /// an older version wrote the record.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub empty: Option<Vec<SourceMark>>,
}

/// The body of a prune.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PruneBody {
    /// The forgotten snapshots.
    pub forgotten: Vec<Digest>,
    /// The index objects from here on. Those that were named before and are not listed here are condemned.
    pub indexes: Vec<IndexId>,
    /// Packs that no record refers to, now and in the future.
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
    /// Entries that were not there before.
    pub new: u64,
    /// Entries whose content or metadata differs.
    pub changed: u64,
    /// Equal.
    pub unchanged: u64,
    /// Entries that are no longer there.
    pub removed: u64,
    /// Entries that could not be read.
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
    /// The duration in milliseconds.
    pub duration_ms: u64,
}
