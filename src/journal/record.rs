//! One record: an act of a node on its role, readable with `jq`, chained to the record before, and authenticated by a
//! MAC.
//!
//! A record has no file names and no content: every process that can list the store may read it.
//!
//! Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{Digest, InstanceId, KeyGeneration, RepoId, RoleName, ScheduleId, Seq, Term};
use crate::journal::body::{RecordBody, WriterNode};
use crate::journal::repair_history::RepairEntry;
use crate::journal::rotation;
use crate::journal::state::{CommandEnd, JournalState};
use crate::repo::crypto::DerivedKeys;
use crate::repo::mac_line::{self, MacLineError};

/// The record version that this program writes, and the newest that it reads.
pub const VERSION: u32 = 1;

/// Every record whose number is a multiple of this carries the whole state before it, unless etcd would refuse the
/// record.
pub const CHECKPOINT_EVERY: u64 = 64;

/// Only records whose number is a multiple of this carry a state.
pub const CHECKPOINT_STEP: u64 = 8;

/// The most bytes of a state at other multiples of [`CHECKPOINT_STEP`], for each record that it saves reading. Records
/// are never deleted, so small states are repeated often and large ones rarely.
const CHECKPOINT_BYTES: u64 = 16 << 10;

/// Whether record `seq` carries the `state` before it.
pub fn is_checkpoint(seq: Seq, state: &JournalState) -> bool {
    let saved = 1 << seq.0.trailing_zeros().min(CHECKPOINT_EVERY.trailing_zeros());
    let fits = || serde_json::to_vec(state).is_ok_and(|state| state.len() as u64 <= saved * CHECKPOINT_BYTES);
    saved == CHECKPOINT_EVERY || saved >= CHECKPOINT_STEP && fits()
}

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// The role.
    pub role: RoleName,
    /// The repository.
    pub repo: RepoId,
    /// Its number.
    pub seq: Seq,
    /// The fencing token under which it was written.
    pub term: Term,
    /// The takeover record whose permit it was written under; `None` for a takeover itself.
    pub takeover: Option<Digest>,
    /// The node that wrote it.
    pub node: WriterNode,
    /// The process that wrote it.
    pub instance: InstanceId,
    /// When it was written, by the writer's clock.
    pub time: Timestamp,
    /// When it was written, by the store's clock as the writer last saw it.
    pub store_time: Option<Timestamp>,
    /// The slot it is for.
    pub slot: Option<Timestamp>,
    /// The slot that was committed last before it.
    pub last_slot: Option<Timestamp>,
    /// The schedule that the slot belongs to.
    pub schedule: Option<ScheduleId>,
    /// The digest of the record before.
    pub prev: Option<Digest>,
    /// What happened.
    pub body: RecordBody,
    /// The state before this record, where [`is_checkpoint`].
    pub state: Option<JournalState>,
    /// The generation of the repository key that its MAC is made with.
    pub generation: KeyGeneration,
}

/// Why a record cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It cannot be read.
    #[error("cannot be read ({0})")]
    Damaged(String),
    /// It is newer than this program.
    #[error("has format version {0}, and this program reads version {VERSION}. Update runner on this node")]
    Newer(u32),
    /// Its MAC is made with a generation of the repository key that the reader does not have.
    #[error("belongs to generation {0} of the repository key, which the given key does not have")]
    Rotated(KeyGeneration),
}

/// The JSON of a record. `kind` and `body` are separate, so that a reader can pass over an unknown kind.
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
    /// When the record was written, by the store's clock if the writer saw it.
    pub fn written_at(&self) -> Timestamp {
        self.store_time.unwrap_or(self.time)
    }

    /// How the guarded command for a slot ended, if the record is such an end.
    pub fn command_end(&self) -> Option<CommandEnd> {
        let RecordBody::End(end) = &self.body else { return None };
        let (seq, node, time) = (self.seq, self.node.clone(), self.written_at());
        Some(CommandEnd { seq, node, time, slot: self.slot?, end: end.clone() })
    }

    /// What the record says is lost, if it is a repair.
    pub(super) fn repair_entry(&self) -> Option<RepairEntry> {
        let repair = self.body.as_repair()?;
        Some(RepairEntry { seq: self.seq, term: self.term, void: repair.void.clone(), lost: repair.lost })
    }

    /// Whether the record has this number, and belongs to the journal of these keys.
    pub fn is_at(&self, seq: Seq, keys: &DerivedKeys) -> bool {
        self.seq == seq && self.role == *keys.role() && self.repo == keys.repo()
    }

    /// The latest date that readers take from the record: its slot, or when it was written.
    pub fn latest_date(&self) -> Timestamp {
        let time = self.written_at();
        self.slot.map_or(time, |slot| slot.max(time))
    }

    /// Encodes the object under these keys, which must know the record's generation.
    pub fn encode(&self, keys: &DerivedKeys) -> Vec<u8> {
        mac_line::seal_by(&self.line(), keys, self.generation)
    }

    /// Adds the proof of a rotation: the MAC of the generation that it begins.
    pub fn add_rotation_proof(&mut self, keys: &DerivedKeys) {
        // Encoding another record is not needed, and may be slow.
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

    /// Decodes the object. With keys the MAC is checked; without, only the shape.
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
