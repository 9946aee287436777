//! A register holds one value that is changed by compare-and-swap. A journal whose store ignores conditions needs one,
//! in etcd.
//!
//! An implementation promises: reads and swaps are linearizable, and a swap happens only while the value equals the
//! expected one, byte for byte. No value occurs twice, so a swap that is sent again, or is late, does nothing.

#[cfg(feature = "etcd")]
pub mod etcd;
pub mod memory;

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::ids::{ClusterId, RepoId};

/// Result of a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisterValue {
    /// The value; `None`: there has never been one, or it was lost.
    pub value: Option<Bytes>,
    /// The cluster that answered.
    pub cluster: ClusterId,
}

/// Result of a swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CasOutcome {
    /// The register has the new value.
    Swapped,
    /// The register had this value instead of the expected one.
    Mismatch(Option<Bytes>),
    /// No answer: the swap may have happened, or may still happen.
    Unknown {
        /// What came instead of an answer.
        why: String,
    },
}

/// Why a register did not do a read or a swap.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RegisterError {
    /// No answer.
    #[error("{0}")]
    Unreachable(String),
    /// A definite refusal: nothing was changed.
    #[error("{0}")]
    Refused(String),
}

/// A register: one value.
#[async_trait]
pub trait Register: Debug + Send + Sync {
    /// Reads the value.
    async fn read(&self) -> Result<RegisterValue, RegisterError>;

    /// Replaces `old` (`None`: no value) by `new`. One request, never retried inside.
    ///
    /// # Errors
    /// Only for a definite refusal; all else that leaves doubt is [`CasOutcome::Unknown`].
    async fn compare_and_swap(&self, old: Option<&Bytes>, new: Bytes) -> Result<CasOutcome, RegisterError>;
}

/// Registers by name.
pub trait RegisterService: Debug + Send + Sync {
    /// The register of this name. This sends no request.
    fn register(&self, name: &str) -> Arc<dyn Register>;
}

/// The name of the head of a repository's journal.
pub fn head_name(repo: RepoId) -> String {
    format!("{repo}/head")
}

/// The register that has a journal's head.
#[derive(Debug, Clone)]
pub struct EtcdHead {
    /// The register.
    pub register: Arc<dyn Register>,
    /// The etcd cluster that the repository was created with.
    pub cluster: ClusterId,
}

/// The largest record in bytes. Etcd takes requests of 1.5 MiB, and a small record must always fit into one together
/// with the largest before it.
const RECORD_BYTES_MAX: usize = 1 << 20;

/// The most bytes of a record and the one before it together.
const SWAP_BYTES_MAX: usize = RECORD_BYTES_MAX + (1 << 18);

/// Whether a register takes a record of `bytes` bytes after one of `before` bytes.
pub(super) fn fits_register(before: usize, bytes: usize) -> bool {
    bytes <= RECORD_BYTES_MAX && before + bytes <= SWAP_BYTES_MAX
}
