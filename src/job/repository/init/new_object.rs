//! Writing an object of a new repository, once.

use bytes::Bytes;

use crate::job::repository::init::error::InitError;
use crate::store::{PutOutcome, SizeLimit, Store, put_idempotent};

/// Size limit for reading back what [`put_new`] wrote: formats and key slots.
const PUT_NEW_MAX: SizeLimit = SizeLimit::FORMAT;

/// Number of attempts of a put with unknown outcome before `init` gives up.
pub(crate) const PUT_ATTEMPTS: u32 = 5;

/// Puts an object whose content no other process writes. Returns whether the stored object is this one; otherwise
/// another one is there.
pub(crate) async fn put_new(store: &dyn Store, key: &str, object: Vec<u8>) -> Result<bool, InitError> {
    let object = Bytes::from(object);
    let mut last = String::new();
    for _ in 0..PUT_ATTEMPTS {
        match put_idempotent(store, key, object.clone()).await {
            Ok(PutOutcome::Created) => return Ok(true),
            Ok(PutOutcome::Exists) => return Ok(store.get(key, PUT_NEW_MAX).await? == object),
            Ok(PutOutcome::Unknown { why }) => last = why,
            Err(error) if last.is_empty() => return Err(error.into()),
            // A refusal says nothing about an earlier put that may still be in flight.
            Err(error) => last = error.to_string(),
        }
        match store.get(key, PUT_NEW_MAX).await {
            Ok(there) => return Ok(there == object),
            Err(e) if e.is_not_found() => {}
            Err(e) => last = e.to_string(),
        }
    }
    Err(InitError::Unknown { key: key.to_owned(), why: last })
}
