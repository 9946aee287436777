//! Compares the index with the store: lists the packs, and examines each pack whose size differs or that is not listed.

use std::collections::{BTreeSet, HashMap, HashSet};

use futures_util::{Stream, StreamExt, TryStreamExt, stream};

use crate::ids::PackId;
use crate::job::backup::lost_content::{self, LostContent, PackListing};
use crate::job::error::BackupError;
use crate::job::verify::content;
use crate::repo::crypto::DerivedKeys;
use crate::repo::index::ChunkIndex;
use crate::repo::loss::PackLosses;
use crate::repo::object_keys;
use crate::repo::pack::PackTable;
use crate::repo::reader::RepositoryReadError;
use crate::store::{ObjectMeta, Store, StoreError, StoreErrorKind, list_filtered};

/// Packs that are examined at the same time.
const LOOKS: usize = 8;

/// Packs that are read at the same time because a note calls them damaged: about 20 MiB each.
const READS: usize = 2;

/// Every pack that the store lists, with its size.
///
/// # Errors
/// An error of the store, or an incomplete listing.
pub(super) async fn list_packs(store: &dyn Store, keys: &DerivedKeys) -> Result<HashMap<PackId, u64>, StoreError> {
    let role = keys.role();
    let pack = |object: ObjectMeta| Some((object_keys::parse_pack(role, &object.key)?, object.size));
    Ok(list_filtered(store, &object_keys::packs_prefix(role), usize::MAX, pack).await?.found.into_iter().collect())
}

/// Builds the index of those `tables` whose content is in the store, and determines what is lost. Packs that a note
/// calls damaged are read.
pub(super) async fn compare(
    store: &dyn Store,
    keys: &DerivedKeys,
    tables: impl Stream<Item = Result<Vec<PackTable>, RepositoryReadError>> + Send,
    listed: &HashMap<PackId, u64>,
    noted: &PackLosses,
) -> Result<(ChunkIndex, LostContent), BackupError> {
    let (mut index, mut lost) = (ChunkIndex::default(), LostContent::default());
    let (mut missing, mut damaged) = (Vec::new(), Vec::new());
    let mut tables = std::pin::pin!(tables);
    while let Some(tables) = tables.try_next().await? {
        for table in tables {
            match lost_content::check_listing(table.object_len(), listed.get(&table.id).copied()) {
                PackListing::Whole if noted.damaged.contains(&table.id) => damaged.push(table),
                PackListing::Whole => index.add(&table),
                PackListing::WrongSize(size) => missing.push((table, size)),
                PackListing::Missing => missing.push((table, 0)),
            }
        }
    }
    let read: HashSet<PackId> = damaged.iter().map(|table| table.id).collect();
    let looks = stream::iter(missing).map(|(table, size)| async move {
        let troubled = check_pack(store, keys, &table, size).await?;
        Ok::<_, StoreError>((table, troubled))
    });
    let reads = stream::iter(damaged).map(|table| async move {
        let troubled = content::lost_frames(store, keys, &table).await?;
        Ok::<_, StoreError>((table, troubled))
    });
    let mut answers = std::pin::pin!(looks.buffered(LOOKS).chain(reads.buffered(READS)));
    while let Some((table, troubled)) = answers.try_next().await? {
        match troubled {
            Some(frames) => {
                lost.add_damaged_pack(&mut index, &table, &frames);
                lost.damaged.extend(Some(table.id).filter(|id| read.contains(id)));
            }
            None => index.add(&table),
        }
    }
    index.sort();
    lost.drop_recovered(&index);
    Ok((index, lost))
}

/// The frames that a defective pack lacks; `None`: the pack is complete. A listing may lag, so the object itself is
/// asked for its last byte.
async fn check_pack(
    store: &dyn Store,
    keys: &DerivedKeys,
    table: &PackTable,
    size: u64,
) -> Result<Option<BTreeSet<u32>>, StoreError> {
    let end = table.object_len();
    match store.get_range(&object_keys::pack(keys.role(), table.id), end - 1..end + 1).await {
        Ok(bytes) if bytes.len() == 1 => Ok(None),
        Ok(bytes) => Ok(Some(lost_content::truncated_frames(table, if bytes.is_empty() { size } else { end }))),
        Err(error) if error.is_not_found() || error.is_not_an_object() => {
            Ok(Some(lost_content::truncated_frames(table, 0)))
        }
        // A bad sector under the end of the object.
        Err(error) if error.kind == StoreErrorKind::DiskFault => Ok(Some(lost_content::truncated_frames(table, 0))),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
