//! The version of an object, by which a conditional write names what it replaces.

use std::fmt::Debug;

/// Identifies one content of an object as its store sees it (an ETag, a hash): equal versions mean equal content.
/// Opaque.
///
/// If the same content is written again, it has the same version again. A caller that must know that nothing happened
/// in between writes content that never repeats (a counter, a random number).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectVersion(pub(super) String);

impl ObjectVersion {
    /// The version in the backend's notation.
    pub(in crate::store) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A version for backends that have none of their own: the hash of the content.
    pub(in crate::store) fn of_content(body: &[u8]) -> Self {
        Self::new(blake3::hash(body).to_hex().as_str())
    }

    /// A version that every backend accepts as well formed, also as an ETag, and that no content has.
    pub(in crate::store) fn matching_nothing() -> Self {
        Self::new("\"00000000000000000000000000000000\"")
    }
}
