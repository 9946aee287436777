//! The contract of a store: whole objects under keys, with conditional writes.

use std::fmt::Debug;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

use crate::store::error::{StoreError, StoreErrorKind};
use crate::store::limit::SizeLimit;
use crate::store::object_version::ObjectVersion;

/// The outcome of a conditional put. There is no fourth outcome: a definite refusal (no permission, no such bucket, no
/// space) is a [`StoreError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object did not exist and now holds exactly our bytes.
    Created,
    /// The key was occupied; nothing was written. The existing object may come from our own earlier put: read it back
    /// and compare.
    Exists,
    /// No answer, or an ambiguous one (timeout, 409, 5xx). The put may still be in flight and take effect later.
    Unknown {
        /// What was received instead of a clear answer.
        why: String,
    },
}

/// The outcome of a [`Store::replace`]. As with [`PutOutcome`], a definite refusal is a [`StoreError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplaceOutcome {
    /// The object had the expected version and now holds exactly our bytes, under this version.
    Replaced(ObjectVersion),
    /// The object has other content or is gone; nothing was written. The change may come from our own earlier
    /// `replace`: read it back and compare.
    Changed,
    /// No answer, or an ambiguous one. The request may still be in flight and take effect later, as long as the object
    /// still has the expected version.
    Unknown {
        /// What was received instead of a clear answer.
        why: String,
    },
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The whole key, relative to the store's root.
    pub key: String,
    /// Size in bytes.
    pub size: u64,
    /// When it was last written, by the store's clock.
    pub modified: Timestamp,
}

/// One page of a listing, in ascending byte order of the keys.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListPage {
    /// The objects.
    pub objects: Vec<ObjectMeta>,
    /// More objects follow after the last of these.
    pub truncated: bool,
}

/// The most objects one [`Store::list`] returns; S3's own limit.
pub const LIST_PAGE_MAX: usize = 1000;

/// The most keys one [`Store::delete`] takes; S3's own limit.
pub const DELETE_BATCH_MAX: usize = 1000;

/// The capabilities of a backend. A call to an unsupported one is an error, never a silent fallback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreCapabilities {
    /// The backend claims to support conditional puts; the proof checks the claim.
    pub put_if_absent: bool,
    /// The backend claims to support [`Store::replace`]; the proof checks that too.
    pub replace: bool,
    /// The capacity is limited by a disk that may be full.
    pub has_finite_space: bool,
}

/// What a store keeps of objects that are overwritten or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Versioning {
    /// Nothing is kept: a deleted object is gone.
    None,
    /// A version of each object is kept, until a rule of the bucket removes it.
    Kept {
        /// Whether the versions are locked.
        lock: ObjectLock,
    },
    /// These credentials may not read the setting.
    Denied {
        /// The store's error message.
        why: String,
    },
    /// The store's answer does not say. Most stores without this setting keep nothing.
    Unknown {
        /// What the store answered instead.
        why: String,
    },
}

/// Whether versions are locked against deletion by every user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectLock {
    /// Versions are not locked unless a put asks for it.
    None,
    /// Each version is locked for a default time.
    ByDefault {
        /// The time as text, for example `30 days`.
        time: String,
    },
    /// These credentials may not read the setting.
    Denied {
        /// The store's error message.
        why: String,
    },
}

/// Pauses a conditional put in the middle, see [`Store::put_if_absent_paused`].
#[derive(Debug)]
pub struct PutPause {
    started: oneshot::Sender<()>,
    release: oneshot::Receiver<()>,
}

/// The caller's end of a [`PutPause`].
#[derive(Debug)]
pub struct PutPauseHandle {
    /// Resolves when the put has begun and is paused; fails when the put ended without a pause.
    pub started: oneshot::Receiver<()>,
    /// Resumes the put; dropping it does the same.
    pub release: oneshot::Sender<()>,
}

impl PutPause {
    /// Makes both ends.
    pub fn new() -> (PutPause, PutPauseHandle) {
        let (started_tx, started_rx) = oneshot::channel();
        let (release_tx, release_rx) = oneshot::channel();
        (
            PutPause { started: started_tx, release: release_rx },
            PutPauseHandle { started: started_rx, release: release_tx },
        )
    }

    /// Reports that the put has begun; the returned receiver resolves when the put may go on.
    pub fn begin(self) -> oneshot::Receiver<()> {
        // If the receiver is gone, the put is not observed, but still paused.
        let _ = self.started.send(());
        self.release
    }
}

/// An object store.
///
/// [`key::check`](super::key::check) defines the valid keys; they are relative to the root that the URL names.
/// Idempotent calls retry inside with backoff and jitter; `put_if_absent` and `replace` send exactly one request.
#[async_trait]
pub trait Store: Debug + Send + Sync {
    /// The URL as the operator would write it, without secrets.
    fn describe(&self) -> String;

    /// The capabilities of this backend.
    fn capabilities(&self) -> StoreCapabilities;

    /// Writes a whole object, replacing what is there. When it returns the object is durable.
    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError>;

    /// Writes a whole object if the key is free. One request, never retried inside.
    ///
    /// # Errors
    /// Only for a definite refusal; every ambiguous answer is [`PutOutcome::Unknown`].
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError>;

    /// [`Store::put_if_absent`] by a slow writer: the put begins, and waits until `hold` is released before the object
    /// can be complete. Only the proof needs it: a store that checks the condition before the body has arrived, and not
    /// again after, lets such a writer overwrite an object.
    ///
    /// # Errors
    /// As for [`Store::put_if_absent`].
    async fn put_if_absent_paused(&self, key: &str, body: Bytes, hold: PutPause) -> Result<PutOutcome, StoreError>;

    /// Replaces the object if it still has the version `expected`. One request, never retried inside. It never creates
    /// an object: the first content is written by [`Store::put_if_absent`].
    ///
    /// # Errors
    /// Only for a definite refusal; every ambiguous answer is [`ReplaceOutcome::Unknown`].
    async fn replace(&self, key: &str, body: Bytes, expected: &ObjectVersion) -> Result<ReplaceOutcome, StoreError>;

    /// Reads a whole object. Never holds more than `limit`, whatever size the object has or the server claims.
    ///
    /// # Errors
    /// [`StoreErrorKind::TooLarge`] if the object has more than `limit`; a retry does not help.
    async fn get(&self, key: &str, limit: SizeLimit) -> Result<Bytes, StoreError>;

    /// Reads a whole object with its version.
    ///
    /// # Errors
    /// As for [`Store::get`], and [`StoreErrorKind::Unsupported`] if the store has no versions. If something that is
    /// not an object has the key, and the store can replace it, the error carries its version: [`StoreError::version`].
    async fn get_versioned(&self, key: &str, limit: SizeLimit) -> Result<(Bytes, ObjectVersion), StoreError>;

    /// Reads `range` of an object; fewer bytes than asked for only at the object's end. A range that starts at or after
    /// the end gives no bytes.
    ///
    /// # Errors
    /// [`StoreErrorKind::TooLarge`] if the range is longer than [`RANGE_BYTES_MAX`](super::RANGE_BYTES_MAX),
    /// or the store returns more than was asked for.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// The objects whose key starts with `prefix` and is greater than `after`, at most `limit` (and never more than
    /// [`LIST_PAGE_MAX`]; 0 counts as 1). On some stores a listing may be stale, so callers treat it as a hint.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError>;

    /// Deletes the objects that exist among `keys`, at most [`DELETE_BATCH_MAX`]; a missing one is no error.
    ///
    /// # Errors
    /// The first refusal. Some of the other objects may have been deleted.
    async fn delete(&self, keys: &[String]) -> Result<(), StoreError>;

    /// The store that this wrapper forwards its calls to; `None` for a backend. A default method forwards to it.
    fn inner(&self) -> Option<&dyn Store> {
        None
    }

    /// Measures the store's time if its normal answers do not carry it; [`Store::clock_offset`] returns it afterwards.
    /// Only for callers with write permission, because it may take a write.
    async fn measure_clock_offset(&self) {
        if let Some(beneath) = self.inner() {
            beneath.measure_clock_offset().await;
        }
    }

    /// What the store keeps of objects that are overwritten or deleted.
    async fn versioning(&self) -> Versioning {
        match self.inner() {
            Some(beneath) => beneath.versioning().await,
            None => Versioning::None,
        }
    }

    /// Makes the next call read credentials and certificates from disk again, if the store uses any.
    fn reload_credentials(&self) {
        if let Some(beneath) = self.inner() {
            beneath.reload_credentials();
        }
    }

    /// The error of the last attempt of any call, if the store retries by itself and no attempt since has had an
    /// answer. A caller that hits its deadline reports it as the cause.
    fn last_attempt_error(&self) -> Option<String> {
        self.inner().and_then(Store::last_attempt_error)
    }

    /// The store's clock minus this host's, as of the last answer that carried the store's time; `None` before the
    /// first.
    fn clock_offset(&self) -> Option<SignedDuration>;
}

/// The error for a listing that claims further objects and does not return them. An object missing in it may exist.
pub fn incomplete_listing_error(store: &dyn Store, prefix: &str) -> StoreError {
    let detail = "the listing stopped before its end, so missing objects may exist";
    StoreError::new(StoreErrorKind::Unreachable, &store.describe(), Some(prefix), detail)
}
