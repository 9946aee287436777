//! Index objects that the store has lost while this node has a copy: they are put back, unchanged.

use std::collections::HashSet;

use bytes::Bytes;

use crate::ids::IndexId;
use crate::repo::crypto::DerivedKeys;
use crate::repo::index::decode_index;
use crate::repo::object_keys;
use crate::repo::reader::IndexCache;
use crate::store::{SizeLimit, Store, StoreError, list_filtered, put_idempotent};

/// The IDs of `named` that a complete listing does not show, and that are missing when requested one by one.
pub(super) async fn missing(
    store: &dyn Store,
    keys: &DerivedKeys,
    named: &[IndexId],
) -> Result<Vec<IndexId>, StoreError> {
    let role = keys.role();
    let all: HashSet<&IndexId> = named.iter().collect();
    let is_named = |id: &IndexId| all.contains(id);
    let pick = |key: &str| object_keys::parse_index(role, key).filter(is_named);
    let shown =
        list_filtered(store, &object_keys::index_prefix(role), usize::MAX, |object| pick(&object.key)).await?.found;
    let shown: HashSet<IndexId> = shown.into_iter().collect();
    let mut missing = Vec::new();
    for id in named.iter().filter(|id| !shown.contains(id)) {
        match store.get(&object_keys::index(role, *id), SizeLimit::INDEX).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => missing.push(*id),
            // Something else is there: a repair replaces it.
            Err(error) if error.is_not_an_object() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(missing)
}

/// Puts back each missing object of which this node has a sound copy. Without the others the index cannot be loaded,
/// and loading reports that.
pub(super) async fn put_back(
    store: &dyn Store,
    keys: &DerivedKeys,
    missing: &[IndexId],
    index_cache: &IndexCache,
) -> Result<(), StoreError> {
    for id in missing {
        let Some(copy) = index_cache.get(*id).await.filter(|copy| decode_index(keys, *id, copy).is_ok()) else {
            continue;
        };
        let key = object_keys::index(keys.role(), *id);
        put_idempotent(store, &key, Bytes::from(copy)).await?;
        tracing::warn!(
            "the store had lost {key}: it is written again from this node's copy. hint: find out what happened to it"
        );
    }
    Ok(())
}
