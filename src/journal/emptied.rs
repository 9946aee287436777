//! Tells a journal that lost every record from a new one.
//!
//! The invariant behind it: a takeover is in the journal before its node writes anything else. So an index object that
//! the key opens proves that there were records; without the key none can be made.

use crate::ids::Seq;
use crate::repo::crypto::DerivedKeys;
use crate::repo::index::decode_index;
use crate::repo::object_keys;
use crate::store::{LIST_PAGE_MAX, SizeLimit, Store, StoreError};

/// Index objects that are read until one opens. Objects that other programs put beside them do not open.
const WITNESSES_MAX: usize = 16;

/// Whether a journal that shows no records had some.
///
/// # Errors
/// The store does not answer.
pub(crate) async fn is_emptied(store: &dyn Store, keys: &DerivedKeys) -> Result<bool, StoreError> {
    let role = keys.role();
    let page = store.list(&object_keys::index_prefix(role), None, LIST_PAGE_MAX).await?;
    let objects =
        page.objects.iter().filter_map(|object| Some((object_keys::parse_index(role, &object.key)?, &object.key)));
    for (id, key) in objects.take(WITNESSES_MAX) {
        let opens = match store.get(key, SizeLimit::INDEX).await {
            Ok(object) => decode_index(keys, id, &object).is_ok(),
            Err(error) if error.is_not_found() || error.concerns_one_object() => false,
            Err(error) => return Err(error),
        };
        if opens {
            // A node may have started the journal since it was listed.
            return match store.get(&object_keys::record(role, Seq::FIRST), SizeLimit::RECORD).await {
                Err(error) if error.is_not_found() => Ok(true),
                Err(error) if !error.concerns_one_object() => Err(error),
                _ => Ok(false),
            };
        }
    }
    Ok(false)
}
