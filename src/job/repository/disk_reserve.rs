//! Space that is kept back in a store on a disk, so that a prune can write its records when the disk is full.
//!
//! A prune writes before it deletes: a takeover, a new index, the record that condemns. On a full disk it could write
//! none of these, and so free nothing. The reserve is one object that holds nothing. A prune that finds no space
//! deletes it, and puts it back when it is done. In between it does not repack, because that would need more space than
//! the reserve gives.

use bytes::Bytes;

use crate::env::Env;
use crate::ids::RoleName;
use crate::repo::object_keys;
use crate::store::{Store, StoreError, StoreErrorKind};

/// Size of the reserve. An index object of this size names the content of about 100 GB in files of middling size; the
/// records of a prune take at most a tenth of it.
const RESERVE_BYTES: usize = 4 << 20;

/// If the reserve does not fit, half of it is tried, down to this size: space for the records alone.
const RESERVE_BYTES_MIN: usize = 256 << 10;

/// A prune that can write this much at once goes on without the reserve.
const PROBE_BYTES: usize = 1 << 20;

/// Puts the reserve into a store on a disk, if it is missing or too small. Failure is no error: the next write reports
/// a full store.
pub(crate) async fn ensure_reserve(store: &dyn Store, role: &RoleName, env: &Env) {
    if !store.capabilities().has_finite_space {
        return;
    }
    let key = object_keys::reserve(role);
    let there = match store.list(&key, None, 1).await {
        Ok(page) => page.objects.first().filter(|object| object.key == key).map_or(0, |object| object.size),
        Err(error) => return tracing::debug!(%error, "the reserve cannot be read"),
    };
    let mut size = RESERVE_BYTES;
    while size >= RESERVE_BYTES_MIN && there < size as u64 {
        match store.put(&key, reserve_content(size, env)).await {
            Ok(()) => return,
            Err(error) if error.kind == StoreErrorKind::NoSpace => size /= 2,
            Err(error) => return tracing::debug!(%error, "the reserve cannot be written"),
        }
    }
}

/// Checks whether a store on a disk is full, and deletes the reserve if it is. Returns whether the store is full.
///
/// # Errors
/// Another failure of the store leaves it unknown.
pub(crate) async fn release_if_full(store: &dyn Store, role: &RoleName, env: &Env) -> Result<bool, StoreError> {
    if !store.capabilities().has_finite_space {
        return Ok(false);
    }
    let probe = object_keys::room_probe(role);
    match store.put(&probe, reserve_content(PROBE_BYTES, env)).await {
        Ok(()) => {
            store.delete(&[probe]).await?;
            Ok(false)
        }
        Err(error) if error.kind == StoreErrorKind::NoSpace => {
            tracing::info!("the store is full: its reserve is used");
            store.delete(&[object_keys::reserve(role)]).await?;
            Ok(true)
        }
        Err(error) => Err(error),
    }
}

/// Random bytes, which no file system can compress.
fn reserve_content(size: usize, env: &Env) -> Bytes {
    let mut bytes = vec![0; size];
    env.random.fill(&mut bytes);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::dir::DirStore;

    #[tokio::test]
    async fn the_reserve_is_there_once_and_whole() {
        let (dir, env, role) = (tempfile::tempdir().unwrap(), Env::host(), "app".parse().unwrap());
        let store = DirStore::open(dir.path(), &env).unwrap();
        let size = || std::fs::metadata(dir.path().join("app/live/reserve")).map(|meta| meta.len()).ok();
        ensure_reserve(&store, &role, &env).await;
        assert_eq!(size(), Some(RESERVE_BYTES as u64));
        let first = std::fs::read(dir.path().join("app/live/reserve")).unwrap();
        ensure_reserve(&store, &role, &env).await;
        assert_eq!(std::fs::read(dir.path().join("app/live/reserve")).unwrap(), first, "what is there stays");
        std::fs::write(dir.path().join("app/live/reserve"), &first[..RESERVE_BYTES_MIN]).unwrap();
        ensure_reserve(&store, &role, &env).await;
        assert_eq!(size(), Some(RESERVE_BYTES as u64), "a reserve that a full store made smaller grows again");
        assert!(!release_if_full(&store, &role, &env).await.unwrap());
        assert_eq!(size(), Some(RESERVE_BYTES as u64), "there is room");
        assert!(!dir.path().join("app/live/room").exists());
    }

    #[tokio::test]
    async fn a_bucket_needs_none() {
        let (env, role) = (Env::host(), "app".parse().unwrap());
        let store = crate::store::memory::MemoryStore::new(&env);
        ensure_reserve(&store, &role, &env).await;
        assert!(!release_if_full(&store, &role, &env).await.unwrap());
        assert!(store.objects().is_empty());
    }
}
