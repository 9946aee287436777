//! The most bytes that an object of each kind may have: docs/FORMAT.md, section 11.
//!
//! A user with write access to the store chooses the size of its objects. So every read names its limit, which is
//! checked before anything is allocated: [`Store::get`](super::Store::get) takes a [`SizeLimit`], and there is no call
//! without one.

use super::{StoreError, StoreErrorKind};

/// The kind of object that is read, and the most bytes that one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeLimit {
    kind: &'static str,
    bytes: u64,
}

/// The most bytes that one [`Store::get_range`](super::Store::get_range) returns: the largest frame of the format, with
/// its tag.
pub const RANGE_BYTES_MAX: u64 = (1 << 30) + 16;

impl SizeLimit {
    /// `<role>/format`.
    pub const FORMAT: Self = Self::new("a format", 64 << 10);
    /// `<role>/keys/…`.
    pub const KEY_SLOT: Self = Self::new("a key slot", 16 << 10);
    /// `<role>/journal/…`. The growing part of a record is the state: about 300 bytes for a snapshot, 35 for a
    /// condemned pack.
    pub const RECORD: Self = Self::new("a journal record", 64 << 20);
    /// The limit for a journal record that is read concurrently with others.
    pub const RECORD_AHEAD: Self = Self::new("a journal record that is read ahead", 1 << 20);
    /// `<role>/index/…`. A writer ends one at about 10 MiB.
    pub const INDEX: Self = Self::new("an index object", 64 << 20);
    /// The limit for an index object that is read concurrently with others.
    pub const INDEX_AHEAD: Self = Self::new("an index object that is read ahead", 12 << 20);
    /// `<role>/live/…` and the probe objects of the proof.
    pub const LIVE: Self = Self::new("an object below live/", 64 << 10);
    /// An object that is replaced in place; no writer expects larger content.
    pub(in crate::store) const REPLACED: Self = Self::new("an object that is replaced", 1 << 20);

    /// The limit of a kind of object; `kind` includes the article.
    pub const fn new(kind: &'static str, bytes: u64) -> Self {
        Self { kind, bytes }
    }

    /// The limit for a range of at most `bytes` bytes.
    pub(in crate::store) const fn range(bytes: u64) -> Self {
        Self::new("what was asked for", if bytes < RANGE_BYTES_MAX { bytes } else { RANGE_BYTES_MAX })
    }

    /// The limit in bytes.
    pub const fn bytes(self) -> u64 {
        self.bytes
    }

    /// Fails if an object of `size` bytes exceeds the limit.
    ///
    /// # Errors
    /// [`StoreErrorKind::TooLarge`].
    pub fn check(self, store: &str, key: &str, size: u64) -> Result<(), StoreError> {
        if size <= self.bytes { Ok(()) } else { Err(self.exceeded(store, key, Some(size))) }
    }

    /// The error for a larger object; `size` is `None` if reading stopped before its end.
    pub fn exceeded(self, store: &str, key: &str, size: Option<u64>) -> StoreError {
        let size = size.map_or_else(|| "it goes on after that".to_owned(), |size| format!("it has {size}"));
        let detail = format!("{} has at most {} bytes, and {size}", self.kind, self.bytes);
        StoreError::new(StoreErrorKind::TooLarge, store, Some(key), detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_byte_that_fits_is_the_limits() {
        let limit = SizeLimit::new("a thing", 10);
        limit.check("s", "k", 10).unwrap();
        let error = limit.check("s", "k", 11).unwrap_err();
        assert_eq!((error.kind, error.key.as_deref()), (StoreErrorKind::TooLarge, Some("k")));
        assert!(error.to_string().contains("a thing has at most 10 bytes, and it has 11"), "{error}");
        assert!(limit.exceeded("s", "k", None).to_string().contains("goes on"));
    }
}
