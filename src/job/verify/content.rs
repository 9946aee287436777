//! Checks the content of packs: header, trailer against the index, every frame's MAC, every chunk's keyed hash.
//!
//! The expected content of a pack is read from the index objects again, one after another: the index in memory keeps
//! only one pack for each chunk.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::pin::pin;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::damage_log::DamageLog;
use super::inventory;
use crate::env::Env;
use crate::ids::{ChunkId, IndexId, PackId};
use crate::job::node::progress::JobProgress;
use crate::job::report::verified::DamageKind;
use crate::job::repository::open::Repository;
use crate::job::verify::error::{VerifyError, object_trouble};
use crate::repo::crypto::DerivedKeys;
use crate::repo::index::ChunkIndex;
use crate::repo::object_keys;
use crate::repo::pack::{self, ChunkEntry, FOOTER_LEN, FrameEntry, PackError, PackTable, open_frame};
use crate::store::{LargeReadLock, Store, StoreError, StoreErrorKind};

/// Packs that are fetched or checked at the same time: about 20 MiB each.
const PACKS_AT_ONCE: usize = 4;

/// A defect of a pack.
#[derive(Debug, Clone, PartialEq, Eq)]
enum PackDefect {
    /// The whole pack is unusable.
    Whole(String),
    /// Header or trailer are damaged; the frames can still be read.
    Framing(String),
    /// A frame is damaged.
    Frame(u32, String),
    /// A chunk of an intact frame does not match its ID.
    Chunk(ChunkId, String),
}

/// Reads `percent` of the packs. A defect of content that was stored again in another pack is not damage.
pub(super) async fn check(
    repository: &Repository,
    (indexes, index): (&[IndexId], &ChunkIndex),
    packs: &HashMap<PackId, u64>,
    percent: u8,
    progress: &JobProgress,
    env: &Env,
    found: &mut DamageLog,
) -> Result<(), VerifyError> {
    let chosen = sample_packs(packs, percent, env.random_bytes());
    let total = chosen.iter().filter_map(|id| packs.get(id)).sum();
    progress.total_bytes.store(total, std::sync::atomic::Ordering::Relaxed);
    let mut left = chosen;
    let turn = LargeReadLock::default();
    let tables = stream::iter(indexes.to_vec())
        .then(|id| inventory::load(repository, id, &turn))
        // The damage of an index object was recorded when it was read first.
        .map_ok(|tables| stream::iter(tables.unwrap_or_default()).map(Ok::<_, VerifyError>))
        .try_flatten()
        .try_filter(|table| std::future::ready(left.remove(&table.id)));
    let results = tables
        .map_ok(|table| async move {
            let id = table.id;
            Ok((id, read(repository, table, index, progress).await?))
        })
        .try_buffer_unordered(PACKS_AT_ONCE);
    let mut results = pin!(results);
    while let Some((id, troubles)) = results.try_next().await? {
        for trouble in troubles {
            let (PackDefect::Whole(what)
            | PackDefect::Framing(what)
            | PackDefect::Frame(_, what)
            | PackDefect::Chunk(_, what)) = &trouble;
            let number = found.damage(DamageKind::Pack, object_keys::pack(repository.role(), id), what);
            found.losses.add_damaged(id);
            match trouble {
                PackDefect::Whole(_) => found.lose_pack(id, number),
                PackDefect::Framing(_) => {}
                PackDefect::Frame(frame, _) => found.lose_frame(id, frame, number),
                PackDefect::Chunk(chunk, _) => found.lose_chunk(chunk, number),
            }
        }
    }
    Ok(())
}

/// Chooses `percent` of the packs at random, at least one: by the rank of a keyed hash of their IDs.
fn sample_packs(packs: &HashMap<PackId, u64>, percent: u8, seed: [u8; 32]) -> HashSet<PackId> {
    let count = (packs.len() * usize::from(percent)).div_ceil(100);
    let rank = |id: &PackId| *blake3::keyed_hash(&seed, &id.0).as_bytes();
    let mut ranked: Vec<_> = packs.keys().map(|id| (rank(id), *id)).collect();
    ranked.sort_unstable();
    ranked.into_iter().take(count).map(|(_, id)| id).collect()
}

async fn read(
    repository: &Repository,
    table: PackTable,
    index: &ChunkIndex,
    progress: &JobProgress,
) -> Result<Vec<PackDefect>, VerifyError> {
    let len = table.object_len();
    // One byte more than expected shows a pack that is too long.
    let object = match repository.store.get_range(&object_keys::pack(repository.role(), table.id), 0..len + 1).await {
        Ok(object) => object,
        Err(error)
            if error.is_not_an_object()
                || matches!(
                    error.kind,
                    StoreErrorKind::NotFound | StoreErrorKind::DiskFault | StoreErrorKind::Other
                ) =>
        {
            return Ok(vec![PackDefect::Whole(object_trouble(error)?)]);
        }
        Err(error) => return Err(error.into()),
    };
    JobProgress::add(&progress.bytes_fetched, object.len() as u64);
    JobProgress::add(&progress.bytes_read, len);
    let keys = repository.keys.clone();
    let checking = tokio::task::spawn_blocking(move || (inspect(&keys, &table, &object), table));
    let (mut troubles, table) = checking.await.map_err(|e| VerifyError::Broken(e.to_string()))?;
    let has = |frame: u32, chunk: &ChunkEntry| {
        index.find(&chunk.id).is_some_and(|(place, _)| (place.pack, place.frame) == (table.id, frame))
    };
    let in_use = |(number, frame): (u32, &FrameEntry)| frame.chunks.iter().any(|chunk| has(number, chunk));
    troubles.retain(|trouble| match trouble {
        PackDefect::Whole(_) | PackDefect::Framing(_) => (0..).zip(&table.frames).any(in_use),
        PackDefect::Frame(number, _) => {
            table.frames.get(*number as usize).is_some_and(|frame| in_use((*number, frame)))
        }
        PackDefect::Chunk(chunk, _) => index.find(chunk).is_some_and(|(place, _)| place.pack == table.id),
    });
    Ok(troubles)
}

/// The unusable frames of a defective pack; `None`: the pack is sound.
///
/// # Errors
/// An error of the store that does not concern this pack.
pub(in crate::job) async fn lost_frames(
    store: &dyn Store,
    keys: &DerivedKeys,
    table: &PackTable,
) -> Result<Option<BTreeSet<u32>>, StoreError> {
    let all = || (0..table.frames.len() as u32).collect::<BTreeSet<u32>>();
    let object = match store.get_range(&object_keys::pack(keys.role(), table.id), 0..table.object_len() + 1).await {
        Ok(object) => object,
        Err(error)
            if error.is_not_an_object()
                || matches!(error.kind, StoreErrorKind::NotFound | StoreErrorKind::DiskFault) =>
        {
            return Ok(Some(all()));
        }
        Err(error) => return Err(error),
    };
    let troubles = inspect(keys, table, &object);
    let has = |frame: &FrameEntry, chunk: &ChunkId| frame.chunks.iter().any(|c| c.id == *chunk);
    let frames = |trouble: &PackDefect| -> Vec<u32> {
        match trouble {
            PackDefect::Whole(_) => all().into_iter().collect(),
            PackDefect::Framing(_) => Vec::new(),
            PackDefect::Frame(frame, _) => vec![*frame],
            PackDefect::Chunk(chunk, _) => {
                (0..).zip(&table.frames).filter(|(_, frame)| has(frame, chunk)).map(|(number, _)| number).collect()
            }
        }
    };
    Ok((!troubles.is_empty()).then(|| troubles.iter().flat_map(frames).collect()))
}

/// Compares a pack with what the index says of it. Pure.
fn inspect(keys: &DerivedKeys, table: &PackTable, object: &Bytes) -> Vec<PackDefect> {
    let mut troubles = Vec::new();
    let around = |error: PackError| PackDefect::Framing(error.to_string());
    match pack::open_header(keys, object) {
        Ok(salt) if salt == table.salt => {}
        Ok(_) => troubles.push(PackDefect::Framing("its salt differs from the one in the index".to_owned())),
        Err(error) => troubles.push(around(error)),
    }
    match trailer_matches(keys, table, object) {
        Ok(true) => {}
        Ok(false) => troubles.push(PackDefect::Framing("its trailer does not match the index".to_owned())),
        Err(error) => troubles.push(around(error)),
    }
    if object.len() as u64 > table.object_len() {
        troubles.push(PackDefect::Framing("has bytes after its end".to_owned()));
    }
    let key = keys.object_sealer(table.id.0, table.salt);
    for (number, (offset, frame)) in (0..).zip(table.offsets().zip(&table.frames)) {
        let range =
            usize::try_from(offset).ok().and_then(|start| Some(start..start.checked_add(frame.stored_len as usize)?));
        let Some(sealed) = range.and_then(|range| object.get(range)) else {
            troubles.push(PackDefect::Frame(number, format!("frame {number} is cut off")));
            continue;
        };
        match open_frame(&key, number, sealed, frame.compressed, frame.raw_len() as usize) {
            Err(error) => troubles.push(PackDefect::Frame(number, error.to_string())),
            Ok(content) => {
                let mut rest = &content[..];
                for chunk in &frame.chunks {
                    // The frame has the length that the chunks add up to.
                    let (bytes, after) = rest.split_at(chunk.len as usize);
                    rest = after;
                    if keys.chunk_id(bytes) != chunk.id {
                        let what =
                            format!("frame {number} has content that does not match the name of chunk {}", chunk.id);
                        troubles.push(PackDefect::Chunk(chunk.id, what));
                    }
                }
            }
        }
    }
    troubles
}

/// Whether the pack's own table equals the index's.
fn trailer_matches(keys: &DerivedKeys, table: &PackTable, object: &[u8]) -> Result<bool, PackError> {
    let short = || PackError::Shape("it is cut off");
    let end = object.len().checked_sub(FOOTER_LEN).ok_or_else(short)?;
    let len = pack::trailer_len(&object[end..])?;
    let start = end.checked_sub(len).ok_or_else(short)?;
    Ok(pack::open_trailer(keys, table.id, table.salt, &object[start..end])? == *table)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::crypto::Cipher;
    use crate::repo::crypto::tests::keys;
    use crate::repo::pack::{FrameCompressor, PackBuilder};

    /// A pack of two frames. If `wrong`, the second chunk of the first frame does not match the ID in the table.
    fn pack(wrong: bool) -> (DerivedKeys, PackTable, Bytes) {
        let keys = keys(Cipher::Aes256GcmSiv);
        let mut pack = PackBuilder::new(&keys, PackId([5; 16]), [6; 32]);
        let chunk = |text: &str| ChunkEntry { id: keys.chunk_id(text.as_bytes()), len: text.len() as u32 };
        let second = if wrong { chunk("TWO") } else { chunk("two") };
        pack.push(FrameCompressor::default().pack(b"onetwo", vec![chunk("one"), second]));
        pack.push(FrameCompressor::default().pack(b"three", vec![chunk("three")]));
        let (object, table) = pack.finish();
        (keys, table, object)
    }

    #[test]
    fn a_writers_mistake_is_seen_though_every_seal_is_right() {
        let (keys, table, object) = pack(false);
        assert_eq!(inspect(&keys, &table, &object), []);
        let mut other = table.clone();
        other.frames[1].chunks[0].id = keys.chunk_id(b"four");
        let troubles = inspect(&keys, &other, &object);
        assert!(
            matches!(&troubles[..], [PackDefect::Framing(_), PackDefect::Chunk(id, _)] if *id == keys.chunk_id(b"four"))
        );
        let (keys, table, object) = pack(true);
        let troubles = inspect(&keys, &table, &object);
        assert!(matches!(&troubles[..], [PackDefect::Chunk(id, _)] if *id == keys.chunk_id(b"TWO")), "{troubles:?}");
    }

    #[test]
    fn what_is_around_the_frames_costs_no_frame() {
        let (keys, table, object) = pack(false);
        let longer = Bytes::from([&object[..], b"!"].concat());
        assert!(inspect(&keys, &table, &longer).iter().all(|t| matches!(t, PackDefect::Framing(_))));
        let cut = object.slice(..object.len() - 1);
        assert!(inspect(&keys, &table, &cut).iter().all(|t| matches!(t, PackDefect::Framing(_))));
        let no_second = object.slice(..50);
        let frames: Vec<PackDefect> =
            inspect(&keys, &table, &no_second).into_iter().filter(|t| !matches!(t, PackDefect::Framing(_))).collect();
        assert!(matches!(&frames[..], [PackDefect::Frame(0, _), PackDefect::Frame(1, _)]), "{frames:?}");
    }

    #[test]
    fn a_percentage_is_rounded_up_and_chosen_by_chance() {
        let packs: HashMap<PackId, u64> = (0..30).map(|n| (PackId([n; 16]), 1)).collect();
        let some = sample_packs(&packs, 10, [1; 32]);
        assert_eq!(some.len(), 3);
        assert_ne!(some, sample_packs(&packs, 10, [2; 32]));
        assert_eq!(sample_packs(&packs, 100, [1; 32]).len(), 30);
        assert_eq!(sample_packs(&packs, 1, [1; 32]).len(), 1);
        assert!(sample_packs(&HashMap::new(), 50, [1; 32]).is_empty());
    }
}
