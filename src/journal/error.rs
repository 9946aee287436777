//! Why a journal cannot be read, or not be appended to.

use crate::config::{ConfigLocation, JournalPlacement};
use crate::ids::{ClusterId, Digest, KeyGeneration, RoleName, Seq};
use crate::journal::record::RecordError;
use crate::journal::register::RegisterError;
use crate::journal::state::RoleHolder;
use crate::journal::view::{FoldError, JournalView};
use crate::store::StoreError;

/// Number of digits of a digest that are shown to people, as for the ID of a snapshot.
const SEEN_SHOWN: usize = 8;

/// Why a journal cannot be read.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JournalError {
    /// The store failed.
    #[error("the journal cannot be read: {0}")]
    Store(#[from] StoreError),
    /// A record cannot be used.
    #[error("journal record {seq} {error}")]
    Record {
        /// Its number.
        seq: Seq,
        /// What is wrong with it.
        error: RecordError,
    },
    /// A record does not follow the one before.
    #[error("journal record {seq} {error}")]
    Fold {
        /// Its number.
        seq: Seq,
        /// Why it does not follow.
        error: FoldError,
    },
    /// A number before the head is empty.
    #[error("journal record {0} is missing, although later records are there")]
    Hole(Seq),
    /// The store no longer has a record that this node has seen.
    #[error("{}", rolled_back_text(*seq, *seen, instead))]
    RolledBack {
        /// The number of the record.
        seq: Seq,
        /// Its digest.
        seen: Digest,
        /// What the store has instead.
        instead: RecordReplacement,
    },
    /// A record cannot be used, after records that a holder of an older key may have written.
    #[error(
        "{0}. The records before it were written under an older generation of the repository key, and nothing proves that \
         they are unchanged: a holder of that key can have put other records there"
    )]
    Unverified(Box<JournalError>),
    /// The journal continues under a generation of the repository key that these keys do not give.
    #[error(
        "from journal record {seq} on, generation {generation} of the repository key is in use, and the given key has \
         generation {given}: `runner key rotate` made a new key"
    )]
    Rotated {
        /// The first record of that generation.
        seq: Seq,
        /// That generation.
        generation: KeyGeneration,
        /// The generation that the key gives.
        given: KeyGeneration,
    },
    /// The key proves a rotation that the journal does not have.
    #[error(
        "the given key has generation {given} of the repository key, and the journal has only generation {now}: the store \
         was rolled back, or its newest records were removed"
    )]
    OlderThanKey {
        /// The generation of the journal.
        now: KeyGeneration,
        /// The generation that the key gives.
        given: KeyGeneration,
    },
    /// This process cannot write to the place of the journal.
    #[error(transparent)]
    EtcdHead(#[from] EtcdHeadError),
    /// The register failed that has the journal's head.
    #[error("the head of the journal cannot be read: {0}")]
    Register(#[from] RegisterError),
    /// The head and the store contradict each other.
    #[error("nothing is written to this journal: {0}")]
    HeadConflict(HeadConflict),
}

/// What a store has in place of a record that this node has seen there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordReplacement {
    /// No object.
    Nothing,
    /// Another record.
    Another,
    /// An object that cannot be read as a record.
    Damaged(RecordError),
}

fn rolled_back_text(seq: Seq, seen: Digest, instead: &RecordReplacement) -> String {
    let seen = &seen.to_string()[..SEEN_SHOWN];
    match instead {
        RecordReplacement::Nothing => format!(
            "the store does not have journal record {seq}, which this node has seen ({seen}): it is an older copy of the \
             store, or was rolled back, or its newest records were removed"
        ),
        RecordReplacement::Another => format!(
            "the store has another journal record {seq} than this node has seen ({seen}): it is another copy of the \
             store, or was rolled back and written to since"
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

    /// The error that record `seq` cannot be used by keys that give generation `given`.
    pub(super) fn from_record_error(seq: Seq, error: RecordError, given: KeyGeneration) -> Self {
        match error {
            RecordError::Rotated(generation) => JournalError::Rotated { seq, generation, given },
            error => JournalError::Record { seq, error },
        }
    }

    /// The record that cannot be used, if the error is about one.
    pub fn unusable_record(&self) -> Option<Seq> {
        match self {
            JournalError::Record { seq, .. }
            | JournalError::Fold { seq, .. }
            | JournalError::Rotated { seq, .. }
            | JournalError::Hole(seq) => Some(*seq),
            JournalError::Store(_)
            | JournalError::OlderThanKey { .. }
            | JournalError::RolledBack { .. }
            | JournalError::Unverified(_)
            | JournalError::EtcdHead(_)
            | JournalError::Register(_)
            | JournalError::HeadConflict(_) => None,
        }
    }
}

/// Why a record was not appended.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A newer takeover exists. Nothing was committed, and nothing will be under this permit.
    #[error("fenced: node {} took the role over with term {}", .0.node.name, .0.term)]
    Fenced(Box<RoleHolder>),
    /// Another record was appended meanwhile, and the permit is still valid: the caller decides again on this view.
    #[error("the journal moved on meanwhile")]
    Moved(Box<JournalView>),
    /// The record may be in the journal, or may still get there. Nothing may be cleaned up.
    #[error("it is unknown whether journal record {seq} was written: {why}")]
    Unknown {
        /// The number that the record would have had.
        seq: Seq,
        /// What came instead of an answer.
        why: String,
    },
    /// The lease expired before the record was sent. Nothing was written.
    #[error("the lease ran out before the record was written")]
    Expired,
    /// The journal has records of a newer version.
    #[error("the journal has records of a kind that this version does not know ({0}). Update runner on this node")]
    NotUnderstood(String),
    /// The journal cannot be read.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// The store refused the record.
    #[error("journal record {seq} was not written: {error}")]
    Store {
        /// The number that the record would have had.
        seq: Seq,
        /// The store's answer.
        error: StoreError,
    },
    /// The record is too large for readers or for etcd, or leaves no space in etcd for the next one.
    #[error("journal record {seq} was not written: with {bytes} bytes it is too large for this journal")]
    TooLarge {
        /// The number that the record would have had.
        seq: Seq,
        /// Its length in bytes.
        bytes: usize,
    },
    /// The register refused the record.
    #[error("journal record {seq} was not written: {error}")]
    Register {
        /// The number that the record would have had.
        seq: Seq,
        /// The register's answer.
        error: RegisterError,
    },
}

/// The conflict between the head in a register and the store, for which nothing is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeadConflict {
    /// The register is empty.
    #[error("etcd has no head of this journal")]
    NoHead,
    /// The store has records after the head.
    #[error("the newest record in etcd is {head}, and the store has record {store}")]
    Behind {
        /// The head; 0: a journal without records.
        head: Seq,
        /// The store's last one.
        store: Seq,
    },
    /// The head does not continue the store's last record, or is another record of its number.
    #[error("record {0} in etcd is not the one that the store has, or does not continue it")]
    Other(Seq),
    /// The head is not a record.
    #[error("the head of this journal in etcd {0}")]
    Damaged(RecordError),
    /// The head is in another cluster.
    #[error("the journal belongs to the etcd cluster {own}, and cluster {found} answers")]
    Cluster {
        /// The cluster of the journal.
        own: ClusterId,
        /// The cluster that answers.
        found: ClusterId,
    },
}

/// Why this process cannot write to the place of a journal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EtcdHeadError {
    /// The journal is in etcd, and none is configured.
    #[error("the journal of role {role} is in etcd, and no etcd is configured")]
    NoEtcd {
        /// The role.
        role: RoleName,
    },
    /// The config names another place.
    #[error(
        "{at}: store.journal: is {:?}, and the journal of role {role} is in {}: that was settled by init",
        if *said == JournalPlacement::Etcd { "etcd" } else { "bucket" },
        if *said == JournalPlacement::Etcd { "the store" } else { "etcd" }
    )]
    Disagrees {
        /// The role.
        role: RoleName,
        /// The place in the config.
        said: JournalPlacement,
        /// The position in the config.
        at: ConfigLocation,
    },
}
