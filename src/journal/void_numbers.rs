//! Finds all repairs of a journal, and so which of its numbers are void. [`RepairHistory`] judges them.
//!
//! A state has only the newest repairs; each of their records has those before it.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::ids::{KeyGeneration, Seq};
use crate::journal::body::RecordBody;
use crate::journal::record::Record;
use crate::journal::repair_history::RepairHistory;
use crate::journal::view::JournalView;
use crate::repo::crypto::DerivedKeys;
use crate::repo::object_keys;
use crate::store::{LargeReadLock, SizeLimit, Store, StoreError, get_with_large_read_lock};

/// The most records that one repair calls lost. A store that lost more is another one, or an old copy.
pub const VOID_MAX: usize = 1024;

/// Records fetched at once.
const READ_AHEAD: usize = 8;

/// How far before its end a journal is searched for a state: one comes every 64 records, and so many numbers may be
/// void before it.
const SEARCH_MAX: u64 = 2 * VOID_MAX as u64;

/// The most bytes of objects that are kept for a reader that continues. Larger ones are read again.
const KEPT_BYTES_MAX: usize = 16 << 20;

/// Small objects that were read during the search, by their numbers.
#[derive(Debug, Default)]
pub(crate) struct FetchedRecords {
    objects: BTreeMap<Seq, Bytes>,
    bytes: usize,
}

impl FetchedRecords {
    fn keep(&mut self, seq: Seq, object: Bytes) {
        if object.len() <= KEPT_BYTES_MAX - self.bytes {
            self.bytes += object.len();
            self.objects.insert(seq, object);
        }
    }

    /// The object with this number, if it was kept.
    pub(crate) fn get(&self, seq: Seq) -> Option<&Bytes> {
        self.objects.get(&seq)
    }
}

/// The record with this number if it is a usable one of this journal, and its object if that is small. Large ones are
/// read one after the other, under `large_read_lock`.
async fn get_usable(
    store: &dyn Store,
    keys: &DerivedKeys,
    seq: Seq,
    large_read_lock: &LargeReadLock,
) -> Result<(Option<Record>, Option<Bytes>), StoreError> {
    let (key, limits) = (object_keys::record(keys.role(), seq), (SizeLimit::RECORD_AHEAD, SizeLimit::RECORD));
    let (object, guard) = match get_with_large_read_lock(store, &key, limits, large_read_lock).await {
        Ok(read) => read,
        Err(error) if error.is_not_found() || error.concerns_one_object() => return Ok((None, None)),
        Err(error) => return Err(error),
    };
    let record = Record::decode(&object, Some(keys)).ok().filter(|record| record.is_at(seq, keys));
    Ok((record, guard.is_none().then_some(object)))
}

/// The repairs of a journal up to record `head`, found in every record that can be read from there down to the newest
/// one that carries a state, or to record `floor`; and the objects that were read.
///
/// # Errors
/// The store does not answer.
pub(crate) async fn repairs_to(
    store: &dyn Store,
    keys: &DerivedKeys,
    floor: Seq,
    head: Seq,
) -> Result<(RepairHistory, FetchedRecords), StoreError> {
    let (mut repairs, mut fetched, mut now) = (RepairHistory::default(), FetchedRecords::default(), keys.generation());
    let large_read_lock = &LargeReadLock::default();
    let floor = floor.0.max(1).max(head.0.saturating_sub(SEARCH_MAX));
    let mut records = stream::iter((floor..=head.0).rev().map(Seq))
        .map(|seq| async move { Ok::<_, StoreError>((seq, get_usable(store, keys, seq, large_read_lock).await?)) })
        .buffered(READ_AHEAD);
    while let Some((seq, (record, object))) = records.try_next().await? {
        if let Some(object) = object {
            fetched.keep(seq, object);
        }
        let Some(record) = record.filter(|record| is_of_generation(record, now)) else { continue };
        now = record.generation;
        if let Some(repair) = record.repair_entry() {
            repairs.add_older(repair);
        }
        if let Some(state) = &record.state {
            let more = repairs.add_remembered(&state.repaired);
            drop(records);
            complete_history(store, keys, &mut repairs, more).await?;
            return Ok((repairs, fetched));
        }
    }
    Ok((repairs, fetched))
}

/// Whether a record is of this generation or begins it. A holder of an older key can write records of an older
/// generation.
fn is_of_generation(record: &Record, now: KeyGeneration) -> bool {
    let begins = |body: &RecordBody| matches!(body, RecordBody::Rotate(rotate) if rotate.generation == now);
    record.generation == now || record.generation < now && begins(&record.body)
}

/// Adds the repairs that the oldest known ones remember.
async fn complete_history(
    store: &dyn Store,
    keys: &DerivedKeys,
    repairs: &mut RepairHistory,
    mut more: bool,
) -> Result<(), StoreError> {
    while let Some(oldest) = repairs.oldest().filter(|_| more) {
        let (record, _) = get_usable(store, keys, oldest, &LargeReadLock::default()).await?;
        let state = record.filter(|record| record.body.as_repair().is_some()).and_then(|record| record.state);
        more = state.is_some_and(|state| repairs.add_remembered(&state.repaired));
    }
    Ok(())
}

/// All repairs of the journal that `view` shows. While they are few, no request is needed.
///
/// # Errors
/// The store does not answer.
pub(super) async fn repairs_of(
    store: &dyn Store,
    keys: &DerivedKeys,
    view: &JournalView,
) -> Result<RepairHistory, StoreError> {
    let mut repairs = RepairHistory::default();
    let more = repairs.add_remembered(&view.state.repaired);
    complete_history(store, keys, &mut repairs, more).await?;
    Ok(repairs)
}

/// Whether a repair that is not far after this number called it void.
///
/// # Errors
/// The store does not answer.
pub(super) async fn is_void_below(
    store: &dyn Store,
    keys: &DerivedKeys,
    seq: Seq,
    head: Seq,
) -> Result<bool, StoreError> {
    if head.0.saturating_sub(seq.0) > SEARCH_MAX {
        return Ok(false);
    }
    let (repairs, _) = repairs_to(store, keys, seq, head).await?;
    Ok(repairs.is_void(seq))
}

/// The view before the repair at which a reader continues that cannot use record `unusable`.
///
/// # Errors
/// The store does not answer.
pub(super) async fn view_at_next_repair(
    store: &dyn Store,
    keys: &DerivedKeys,
    unusable: Seq,
    head: Seq,
) -> Result<Option<JournalView>, StoreError> {
    let (repairs, _) = repairs_to(store, keys, unusable, head).await?;
    let Some(seq) = repairs.resume_point(unusable) else { return Ok(None) };
    let (record, _) = get_usable(store, keys, seq, &LargeReadLock::default()).await?;
    Ok(record.filter(|record| record.body.as_repair().is_some()).as_ref().and_then(JournalView::before_checkpoint))
}

#[cfg(test)]
mod tests;
