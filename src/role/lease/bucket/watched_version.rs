//! An object of the lease that is watched: what was found, and since when it has not changed.

use std::time::Duration;

use crate::ids::InstanceId;
use crate::store::{ObjectVersion, SizeLimit, Store, StoreError};

/// The longest lease that is respected: a longer one in the object is damage, and would lock all processes out.
pub(crate) const TTL_MAX: Duration = Duration::from_hours(1);

/// An object as it was found: its version, and what could be read of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundObject<V, P> {
    pub(super) version: V,
    pub(super) content: Option<P>,
}

/// The process that wrote a record.
pub(crate) trait HasInstance {
    fn instance(&self) -> InstanceId;
}

/// A version that is being watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WatchedVersion<V> {
    pub(super) version: V,
    /// The boot time when this version was first known to be there.
    pub(super) since: Duration,
    /// Whether another version of the same holder was there before: the holder lives.
    pub(super) renewed: bool,
    instance: Option<InstanceId>,
}

/// Whether this version has been there for as long as the lease lasts.
pub(super) fn has_expired<V: Eq>(
    version: &V,
    watched: Option<&WatchedVersion<V>>,
    ttl: Duration,
    asked: Duration,
) -> bool {
    watched.is_some_and(|watched| watched.version == *version && asked.saturating_sub(watched.since) >= ttl)
}

/// Continues the watch: `seen` is the boot time by which the answer was there.
pub(crate) fn observe_version<V: Clone + Eq, P: HasInstance>(
    before: Option<WatchedVersion<V>>,
    found: Option<&FoundObject<V, P>>,
    seen: Duration,
) -> Option<WatchedVersion<V>> {
    let found = found?;
    let instance = found.content.as_ref().map(HasInstance::instance);
    match before {
        Some(before) if before.version == found.version => Some(before),
        before => {
            let renewed = before.is_some_and(|before| instance.is_some() && before.instance == instance);
            Some(WatchedVersion { version: found.version.clone(), since: seen, renewed, instance })
        }
    }
}

/// Reads an object. One that does not have the format, because of its size for example, counts as one that cannot be
/// read, if the store can replace it: it keeps other processes out for no longer than a lease that is not renewed.
pub(super) async fn find<P>(
    store: &dyn Store,
    key: &str,
    parse: impl FnOnce(&[u8]) -> Option<P>,
) -> Result<Option<FoundObject<ObjectVersion, P>>, StoreError> {
    match store.get_versioned(key, SizeLimit::LIVE).await {
        Ok((bytes, version)) => Ok(Some(FoundObject { version, content: parse(&bytes) })),
        Err(e) if e.is_not_found() => Ok(None),
        Err(StoreError { version: Some(version), .. }) => Ok(Some(FoundObject { version: *version, content: None })),
        Err(e) => Err(e),
    }
}
