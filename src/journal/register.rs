//! A register that holds one value and is changed by compare-and-swap: what a journal needs of etcd where the store keeps no
//! conditions.
//!
//! Everything that an implementation promises: reads and swaps are linearizable, and a swap happens only while the value is, byte
//! for byte, the one that was expected. No value ever comes twice, so a swap that is sent again, or comes late, does nothing.

#[cfg(feature = "etcd")]
pub mod etcd;
pub mod memory;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::ids::{ClusterId, RepoId};

/// What a read found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterValue {
    /// The value; `None`: there has never been one, or it was lost.
    pub value: Option<Bytes>,
    /// Who answered.
    pub cluster: ClusterId,
}

/// What a swap came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CasOutcome {
    /// The value is the new one.
    Swapped,
    /// It was another than the expected one: this.
    Mismatch(Option<Bytes>),
    /// No answer: it may have happened, or happen still.
    Unknown {
        /// What came instead.
        why: String,
    },
}

/// Why a register did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// No answer.
    #[error("{0}")]
    Unreachable(String),
    /// It answered that it will not: nothing was changed.
    #[error("{0}")]
    Refused(String),
}

/// One value.
#[async_trait]
pub trait Register: Debug + Send + Sync {
    /// Reads it.
    async fn read(&self) -> Result<RegisterValue, RegisterError>;

    /// Puts `new` there if it still is `old` (`None`: if nothing is there). One request, never retried inside.
    ///
    /// # Errors
    /// Only for a definite refusal; everything that leaves doubt is [`CasOutcome::Unknown`].
    async fn compare_and_swap(&self, old: Option<&Bytes>, new: Bytes) -> Result<CasOutcome, RegisterError>;
}

/// Registers by name.
pub trait RegisterService: Debug + Send + Sync {
    /// The one of this name; nobody is asked yet.
    fn register(&self, name: &str) -> Arc<dyn Register>;
}

/// The name of the head of a repository's journal.
pub fn head_name(repo: RepoId) -> String {
    format!("{repo}/head")
}

/// Where the head is.
#[derive(Debug, Clone)]
pub struct EtcdHead {
    /// The register that has it.
    pub register: Arc<dyn Register>,
    /// The cluster that the repository was made with.
    pub cluster: ClusterId,
}

/// The largest record. Etcd takes requests of 1.5 MiB, and a small record must always fit in one with the largest before it.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// The most that a record and the one before it may have together.
const SWAP_BYTES_MAX: usize = RECORD_BYTES_MAX + (1 << 18);

/// Whether a register takes a record of so many bytes after one of so many.
pub(super) fn fits_register(before: usize, bytes: usize) -> bool {
    bytes <= RECORD_BYTES_MAX && before + bytes <= SWAP_BYTES_MAX
}
