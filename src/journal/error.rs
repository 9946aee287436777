//! Why a journal cannot be read, or not be appended to.

use crate::config::{ConfigLocation, JournalPlacement};
use crate::ids::{ClusterId, Digest, KeyGeneration, RoleName, Seq};
use crate::journal::record::RecordError;
use crate::journal::register::RegisterError;
use crate::journal::state::RoleHolder;
use crate::journal::view::{FoldError, JournalView};
use crate::store::StoreError;

/// So much of a digest names a record to people, as the start of a snapshot's ID does.
const SEEN_SHOWN: usize = 8;

/// Why a journal cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// The store.
    #[error("the journal cannot be read: {0}")]
    Store(#[from] StoreError),
    /// One record.
    #[error("journal record {seq} {error}")]
    Record {
        /// Its number.
        seq: Seq,
        /// What is wrong with it.
        error: RecordError,
    },
    /// A record that does not follow.
    #[error("journal record {seq} {error}")]
    Fold {
        /// Its number.
        seq: Seq,
        /// Why it does not follow.
        error: FoldError,
    },
    /// A number below the head that is empty.
    #[error("journal record {0} is missing, although what came after it is there")]
    Hole(Seq),
    /// The store no longer holds what this node has seen in it.
    #[error("{}", rolled_back_text(*seq, *seen, instead))]
    RolledBack {
        /// The number of the record that was seen.
        seq: Seq,
        /// What it was.
        seen: Digest,
        /// What the store has there.
        instead: RecordReplacement,
    },
    /// A record that cannot be used, after records that a holder of an older key may have written.
    #[error(
        "{0}. What is before it was written under an older generation of the repository key, and nothing shows that it is what was written \
         then: a holder of that key can have put other records there"
    )]
    Unvouched(Box<JournalError>),
    /// The journal goes on under a generation of the repository key that these keys do not give.
    #[error(
        "from journal record {seq} on, generation {generation} of the repository key counts, and the key at hand gives generation {given}: \
         `runner key rotate` made a new key"
    )]
    Rotated {
        /// The first record of it.
        seq: Seq,
        /// The generation that counts from there on.
        generation: KeyGeneration,
        /// What the key gives.
        given: KeyGeneration,
    },
    /// The key proves that there was a rotation of which the journal knows nothing.
    #[error(
        "the key at hand gives generation {given} of the repository key, and the journal knows generation {now} only: the store was rolled \
         back, or its newest records were removed"
    )]
    OlderThanKey {
        /// What the journal knows.
        now: KeyGeneration,
        /// What the key gives.
        given: KeyGeneration,
    },
    /// This process cannot write to where the journal is.
    #[error(transparent)]
    Seat(#[from] EtcdHeadError),
    /// The register that has the journal's head.
    #[error("the head of the journal cannot be read: {0}")]
    Register(#[from] RegisterError),
    /// The head and the store do not fit together.
    #[error("nothing is written to this journal: {0}")]
    HeadConflict(HeadConflict),
}

/// What a store has in place of a record that this node has seen there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordReplacement {
    /// Nothing.
    Nothing,
    /// Another record.
    Another,
    /// Something that cannot be read as a record.
    Damaged(RecordError),
}

fn rolled_back_text(seq: Seq, seen: Digest, instead: &RecordReplacement) -> String {
    let seen = &seen.to_string()[..SEEN_SHOWN];
    match instead {
        RecordReplacement::Nothing => format!(
            "the store does not have journal record {seq}, which this node has seen ({seen}): it is an older copy of the store, or was rolled \
             back, or its newest records were removed"
        ),
        RecordReplacement::Another => format!(
            "the store has another journal record {seq} than this node has seen ({seen}): it is another copy of the store, or was rolled \
             back and written to since"
        ),
        RecordReplacement::Damaged(error) => {
            format!("journal record {seq} {error}, and this node has seen it whole ({seen})")
        }
    }
}

impl JournalError {
    /// Whether the store lost what this node has seen in it.
    pub fn is_rolled_back(&self) -> bool {
        matches!(self, JournalError::RolledBack { .. })
    }

    /// Record `seq` cannot be used by keys that give generation `given`.
    pub(super) fn from_record_error(seq: Seq, error: RecordError, given: KeyGeneration) -> Self {
        match error {
            RecordError::Rotated(generation) => JournalError::Rotated { seq, generation, given },
            error => JournalError::Record { seq, error },
        }
    }

    /// The record that cannot be used, if that is what it is about.
    pub fn unusable_record(&self) -> Option<Seq> {
        match self {
            JournalError::Record { seq, .. }
            | JournalError::Fold { seq, .. }
            | JournalError::Rotated { seq, .. }
            | JournalError::Hole(seq) => Some(*seq),
            JournalError::Store(_)
            | JournalError::OlderThanKey { .. }
            | JournalError::RolledBack { .. }
            | JournalError::Unvouched(_)
            | JournalError::Seat(_)
            | JournalError::Register(_)
            | JournalError::HeadConflict(_) => None,
        }
    }
}

/// Why a record was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A newer takeover exists. Nothing was committed, and nothing ever will be under this permit.
    #[error("fenced: node {} took the role over with term {}", .0.node.name, .0.term)]
    Fenced(Box<RoleHolder>),
    /// Something else was appended meanwhile, and the permit still holds: decide again on this view.
    #[error("the journal moved on meanwhile")]
    Moved(Box<JournalView>),
    /// It may be in the journal, or get there still. Nothing may be cleaned up.
    #[error("whether journal record {seq} was written cannot be told: {why}")]
    Unknown {
        /// The number that it would have had.
        seq: Seq,
        /// What came instead of an answer.
        why: String,
    },
    /// The lease is over, or could not be renewed in time. Nothing was written.
    #[error("the lease ran out before the record was written")]
    Expired,
    /// The journal has records of a newer version.
    #[error("the journal has records of a kind that this version does not know ({0}). Update runner on this node")]
    NotUnderstood(String),
    /// The journal cannot be read.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// The store refused.
    #[error("journal record {seq} was not written: {error}")]
    Store {
        /// The number that it would have had.
        seq: Seq,
        /// The store's answer.
        error: StoreError,
    },
    /// No reader would take it, or etcd would not, or nothing after it.
    #[error("journal record {seq} was not written: with {bytes} bytes it is too large for this journal")]
    TooLarge {
        /// The number that it would have had.
        seq: Seq,
        /// Its length.
        bytes: usize,
    },
    /// The register refused.
    #[error("journal record {seq} was not written: {error}")]
    Register {
        /// The number that it would have had.
        seq: Seq,
        /// The register's answer.
        error: RegisterError,
    },
}

/// Why nothing is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadConflict {
    /// The register is empty.
    #[error("etcd has no head of this journal")]
    NoHead,
    /// The store has records after the head.
    #[error("etcd says that the newest record is {head}, and the store has record {store}")]
    Behind {
        /// The head; 0: a journal without records.
        head: Seq,
        /// The store's last one.
        store: Seq,
    },
    /// The head does not go on from the store's last record, or is another one of its number.
    #[error("record {0} in etcd is not the one that the store has, or does not continue it")]
    Other(Seq),
    /// The head is none.
    #[error("what etcd has as the head of this journal {0}")]
    Damaged(RecordError),
    /// The head is in another cluster.
    #[error("the journal belongs to the etcd cluster {own}, and cluster {found} answers")]
    Cluster {
        /// The journal's.
        own: ClusterId,
        /// Who answers.
        found: ClusterId,
    },
}

/// Why this process cannot write to where a journal is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EtcdHeadError {
    /// The journal is in etcd, and none is configured.
    #[error("the journal of role {role} is in etcd, and no etcd is configured")]
    NoEtcd {
        /// Which.
        role: RoleName,
    },
    /// The config says otherwise.
    #[error(
        "{at}: store.journal: is {:?}, and the journal of role {role} is in {}: that was settled by init",
        if *said == JournalPlacement::Etcd { "etcd" } else { "bucket" },
        if *said == JournalPlacement::Etcd { "the store" } else { "etcd" }
    )]
    Disagrees {
        /// Which.
        role: RoleName,
        /// What the config says.
        said: JournalPlacement,
        /// Where it says so.
        at: ConfigLocation,
    },
}
