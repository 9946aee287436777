//! What readers found missing or damaged in the store. The list is a hint: the next run checks for itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};

use crate::ids::{PackId, RoleName};
use crate::repo::object_keys;
use crate::repo::reader::RepositoryReadError;
use crate::store::StoreErrorKind;

/// The most packs of a kind that are recorded by name. Even one makes a run compare all packs.
pub const LOST_NAMED_MAX: usize = 256;

/// Packs that a reader could not read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackLosses {
    /// Packs that are missing or too short, which a listing shows.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub missing: BTreeSet<PackId>,
    /// Packs that exist with damaged content, which only reading them shows.
    #[serde(skip_serializing_if = "BTreeSet::is_empty", default)]
    pub damaged: BTreeSet<PackId>,
}

impl PackLosses {
    /// The loss that an error reports about a pack of `role`; empty if the error is about the store, or about no pack.
    pub fn from_error(error: &RepositoryReadError, role: &RoleName) -> Self {
        let mut losses = Self::default();
        match error {
            RepositoryReadError::Store(error) => {
                let Some(pack) = error.key.as_deref().and_then(|key| object_keys::parse_pack(role, key)) else {
                    return losses;
                };
                match error.kind {
                    // A listing shows the size and type of the object.
                    _ if error.is_not_found() || error.is_not_an_object() => losses.add_missing(pack),
                    StoreErrorKind::DiskFault => losses.add_damaged(pack),
                    _ => {}
                }
            }
            RepositoryReadError::Pack { pack, .. } | RepositoryReadError::Content { pack, .. } => {
                losses.add_damaged(*pack);
            }
            RepositoryReadError::Index { .. }
            | RepositoryReadError::Missing(_)
            | RepositoryReadError::Manifest { .. } => {}
        }
        losses
    }

    /// Whether no pack is recorded.
    pub fn is_empty(&self) -> bool {
        self.missing.is_empty() && self.damaged.is_empty()
    }

    /// Number of packs recorded.
    pub fn packs(&self) -> u64 {
        self.missing.union(&self.damaged).count() as u64
    }

    /// Records that this pack, or a part of it, is missing.
    pub fn add_missing(&mut self, pack: PackId) {
        if self.missing.len() < LOST_NAMED_MAX {
            self.missing.insert(pack);
        }
    }

    /// Records that this pack has damaged content.
    pub fn add_damaged(&mut self, pack: PackId) {
        if self.damaged.len() < LOST_NAMED_MAX {
            self.damaged.insert(pack);
        }
    }

    /// Records all packs of `others`.
    pub fn add(&mut self, others: &Self) {
        others.missing.iter().for_each(|pack| self.add_missing(*pack));
        others.damaged.iter().for_each(|pack| self.add_damaged(*pack));
    }

    /// Keeps only the packs for which `passes` is true.
    pub fn retain(&mut self, passes: impl Fn(&PackId) -> bool) {
        self.missing.retain(&passes);
        self.damaged.retain(&passes);
    }
}

/// The losses that several readers share. Clones are handles on the same list.
#[derive(Debug, Clone, Default)]
pub struct LossLog(Arc<Mutex<PackLosses>>);

impl LossLog {
    fn losses(&self) -> MutexGuard<'_, PackLosses> {
        self.0.lock()
    }

    /// Records the loss that this error reports about a pack.
    pub fn record(&self, error: &RepositoryReadError, role: &RoleName) {
        let losses = PackLosses::from_error(error, role);
        if !losses.is_empty() {
            self.losses().add(&losses);
        }
    }

    /// The losses recorded so far.
    pub fn snapshot(&self) -> PackLosses {
        self.losses().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ChunkId;
    use crate::repo::pack::PackError;
    use crate::store::StoreError;

    #[test]
    fn what_a_reader_meets_is_kept_by_pack_and_bounded() {
        let (role, log): (RoleName, _) = ("app".parse().unwrap(), LossLog::default());
        let [gone, broken] = [1, 2].map(|n| PackId([n; 16]));
        let store = |kind, key: &str| RepositoryReadError::Store(StoreError::new(kind, "here", Some(key), ""));
        log.record(&store(StoreErrorKind::NotFound, &object_keys::pack(&role, gone)), &role);
        log.record(&RepositoryReadError::Pack { pack: broken, error: PackError::Content { frame: 1 } }, &role);
        log.record(&RepositoryReadError::Content { chunk: ChunkId([9; 32]), pack: broken }, &role);
        let sector = PackId([3; 16]);
        log.record(&store(StoreErrorKind::DiskFault, &object_keys::pack(&role, sector)), &role);
        log.record(&store(StoreErrorKind::TooLarge, &object_keys::pack(&role, gone)), &role);
        let met = PackLosses { missing: [gone].into(), damaged: [broken, sector].into() };
        for nothing in [
            store(StoreErrorKind::NotFound, "app/index/x"),
            store(StoreErrorKind::Unreachable, &object_keys::pack(&role, broken)),
            RepositoryReadError::Missing(ChunkId([9; 32])),
        ] {
            log.record(&nothing, &role);
            assert_eq!(log.snapshot(), met, "{nothing}");
        }
        assert_eq!(met.packs(), 3);
        let mut many = PackLosses::default();
        (0..1000u32).for_each(|n| many.add_missing(PackId([n.to_be_bytes(); 4].concat().try_into().unwrap())));
        assert_eq!(many.packs(), LOST_NAMED_MAX as u64);
    }
}
