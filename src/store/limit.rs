//! The most bytes that an object of each kind may have: docs/FORMAT.md, section 11.
//!
//! Whoever may write to the store chooses the size of what is in it. So every read names its limit, which is held before
//! anything is allocated: [`Store::get`](super::Store::get) takes a [`SizeLimit`], and there is no call without one.

use super::{StoreError, StoreErrorKind};

/// What kind of object is read, and the most bytes that one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeLimit {
    kind: &'static str,
    bytes: u64,
}

/// The most bytes that one [`Store::get_range`](super::Store::get_range) gives: the largest frame of the format, with its tag.
pub const RANGE_BYTES_MAX: u64 = (1 << 30) + 16;

impl SizeLimit {
    /// `<role>/format`.
    pub const FORMAT: Self = Self::new("a format", 64 << 10);
    /// `<role>/keys/…`.
    pub const KEY_SLOT: Self = Self::new("a key slot", 16 << 10);
    /// `<role>/journal/…`. What grows in it is the state: 300 bytes or so for a snapshot, 35 for a condemned pack.
    pub const RECORD: Self = Self::new("a journal record", 64 << 20);
    /// The same while others are read at the same time.
    pub const RECORD_AHEAD: Self = Self::new("a journal record that is read ahead", 1 << 20);
    /// `<role>/index/…`. A writer ends one at about 10 MiB.
    pub const INDEX: Self = Self::new("an index object", 64 << 20);
    /// The same while others are read at the same time.
    pub const INDEX_AHEAD: Self = Self::new("an index object that is read ahead", 12 << 20);
    /// `<role>/live/…` and what the proof puts there.
    pub const LIVE: Self = Self::new("an object below live/", 64 << 10);
    /// What is replaced in place; larger content than this is not what its writer expects.
    pub(in crate::store) const REPLACED: Self = Self::new("an object that is replaced", 1 << 20);

    /// The limit of a kind of object, named with its article.
    pub const fn new(kind: &'static str, bytes: u64) -> Self {
        Self { kind, bytes }
    }

    /// A part of an object of so many bytes, or fewer.
    pub(in crate::store) const fn range(bytes: u64) -> Self {
        Self::new("what was asked for", if bytes < RANGE_BYTES_MAX { bytes } else { RANGE_BYTES_MAX })
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.bytes
    }

    /// Refuses an object of `size` bytes that is larger.
    ///
    /// # Errors
    /// [`StoreErrorKind::TooLarge`].
    pub fn check(self, store: &str, key: &str, size: u64) -> Result<(), StoreError> {
        if size <= self.bytes { Ok(()) } else { Err(self.exceeded(store, key, Some(size))) }
    }

    /// The error of an object that is larger; `None`: the end of it was not awaited.
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
