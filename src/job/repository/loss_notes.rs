//! Notes on losses, left by readers for the next run: one in this node's state directory, and one object below `live/`
//! for the other nodes.
//!
//! A note is only a hint. A run that reads it compares the index with the store and reads the packs that it calls
//! damaged; only the result counts. A forged or oversized note is ignored. Each object is handled once, so one that is
//! replayed, or that this node may not overwrite, costs nothing more.

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::env::Env;
use crate::ids::Digest;
use crate::job::local_state::LocalState;
use crate::job::repository::open::Repository;
use crate::repo::crypto::DerivedKeys;
use crate::repo::loss::{LOST_NAMED_MAX, PackLosses};
use crate::repo::{mac_line, object_keys};
use crate::store::{SizeLimit, Store, StoreError};

/// The version of the object.
const VERSION: u32 = 1;

/// Maximum length of a kept label, in characters.
const LABEL_MAX: usize = 64;

/// A note on losses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossNote {
    loss: u32,
    /// When it was written, by the writer's clock.
    pub time: Timestamp,
    /// The label of the node that wrote it.
    pub node: String,
    /// Losses that a reader met and that no run has examined yet.
    pub met: PackLosses,
    /// Losses that the last run could not heal.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub remains: Option<UnhealedLosses>,
}

/// Losses that could not be stored again, because their source is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnhealedLosses {
    /// Packs of which something is lost: no run relies on their content.
    pub lost: PackLosses,
    /// There are more of them than are named.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub more: bool,
    /// Number of files of snapshots that need them, as far as it is known.
    pub files: u64,
}

impl LossNote {
    /// Whether the note reports no problem: a loss that no snapshot needs does no harm.
    pub fn is_empty(&self) -> bool {
        self.met.is_empty() && self.remains.as_ref().is_none_or(|remains| remains.files == 0)
    }

    fn is_bounded(&self) -> bool {
        let remains = self.remains.as_ref().map(|remains| &remains.lost);
        let all = [&self.met].into_iter().chain(remains).flat_map(|losses| [&losses.missing, &losses.damaged]);
        self.node.chars().count() <= LABEL_MAX && all.map(BTreeSet::len).max() <= Some(LOST_NAMED_MAX)
    }

    fn new(time: Timestamp, node: &str, met: PackLosses, remains: Option<UnhealedLosses>) -> Self {
        let node = node.chars().take(LABEL_MAX).collect();
        Self { loss: VERSION, time, node, met, remains }
    }

    fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok().filter(Self::is_understood)
    }

    fn is_understood(&self) -> bool {
        self.loss == VERSION && self.is_bounded()
    }
}

/// The notes that a run found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LossNotes {
    /// This node's own note.
    own: Option<LossNote>,
    /// The note in the store.
    stored: Option<LossNote>,
    /// Digest of the object with that note.
    object_digest: Option<Digest>,
}

impl LossNotes {
    /// Losses to examine; `None`: all have been examined before. `answered` is the object that was handled last.
    pub(crate) fn unhandled(&self, answered: Option<Digest>) -> Option<PackLosses> {
        let told = self.stored.as_ref().filter(|_| self.object_digest != answered);
        let mut met = PackLosses::default();
        self.own.iter().chain(told).for_each(|note| met.add(&note.met));
        (!met.is_empty()).then_some(met)
    }

    /// Losses that have been examined, and are still there.
    pub(crate) fn still_lost(&self) -> PackLosses {
        let mut known = PackLosses::default();
        self.remains().for_each(|remains| known.add(&remains.lost));
        known
    }

    /// The number of packs in which something is still lost, and the number of files of snapshots that need it; `None`:
    /// no file does.
    pub(crate) fn remaining(&self) -> Option<(u64, u64)> {
        let files = self.remains().map(|remains| remains.files).max().filter(|files| *files > 0)?;
        Some((self.still_lost().packs(), files))
    }

    /// Whether more packs are lost than are named.
    pub(crate) fn has_more(&self) -> bool {
        self.remains().any(|remains| remains.more)
    }

    fn remains(&self) -> impl Iterator<Item = &UnhealedLosses> {
        self.own.iter().chain(&self.stored).filter_map(|note| note.remains.as_ref())
    }

    /// Digest of the note in the store, which the result of this run answers.
    pub(crate) fn object(&self) -> Option<Digest> {
        self.object_digest
    }

    /// The newest note that reports a problem.
    pub fn newest(self) -> Option<LossNote> {
        let notes = [self.own, self.stored].into_iter().flatten().filter(|note| !note.is_empty());
        notes.max_by_key(|note| note.time)
    }
}

/// Why the notes cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LossNoteError {
    /// A request to the store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// This node's own note cannot be read.
    #[error("{0}")]
    File(#[from] io::Error),
}

/// The newest note, for a command that only reads: this node's and, if `is_told`, the one in the store.
///
/// # Errors
/// A note cannot be read.
pub async fn read_newest_note(
    store: &dyn Store,
    keys: &DerivedKeys,
    local: Option<&LocalState>,
    is_told: bool,
) -> Result<Option<LossNote>, LossNoteError> {
    let told = if is_told { fetch(store, keys).await? } else { None };
    let own = own(local)?;
    Ok(LossNotes { own, stored: told.and_then(|(note, _)| note), object_digest: None }.newest())
}

/// This node's own note, if this version understands it.
fn own(local: Option<&LocalState>) -> io::Result<Option<LossNote>> {
    let Some(local) = local else { return Ok(None) };
    Ok(local.loss_note()?.filter(LossNote::is_understood))
}

/// The note in the store, and the digest of its object.
async fn fetch(store: &dyn Store, keys: &DerivedKeys) -> Result<Option<(Option<LossNote>, Digest)>, StoreError> {
    let object = match store.get(&object_keys::loss(keys.role()), SizeLimit::LIVE).await {
        Ok(object) => object,
        Err(error) if error.is_not_found() || error.is_not_an_object() => return Ok(None),
        Err(error) => return Err(error),
    };
    let note = mac_line::open(&object, keys).ok().and_then(LossNote::parse);
    Ok(Some((note, Digest(*blake3::hash(&object).as_bytes()))))
}

/// The notes here and in the store. A store that does not answer counts as one without a note: nothing rests on it.
pub async fn read_notes(store: &dyn Store, keys: &DerivedKeys, local: Option<&LocalState>) -> LossNotes {
    let told = fetch(store, keys).await.unwrap_or_else(|error| {
        tracing::debug!("the losses that other nodes noted: {error}");
        None
    });
    let (told, object) = told.map_or((None, None), |(note, digest)| (note, Some(digest)));
    let own = own(local).unwrap_or_else(|error| {
        tracing::warn!("the losses that this node noted cannot be read; the next comparison finds them again: {error}");
        None
    });
    LossNotes { own, stored: told, object_digest: object }
}

/// Notes for the next run, here and on other nodes, what was `met`. A note that cannot be written costs at most a day:
/// the next comparison finds the loss.
pub async fn note_losses(repository: &Repository, local: Option<&LocalState>, env: &Env, node: &str, met: &PackLosses) {
    if met.is_empty() {
        return;
    }
    let (store, keys) = (repository.store.as_ref(), &repository.keys);
    let noted_losses = read_notes(store, keys, local).await;
    let mut all = met.clone();
    let notes = [noted_losses.own.as_ref(), noted_losses.stored.as_ref()];
    notes.iter().flatten().for_each(|note| all.add(&note.met));
    let remains = notes.iter().flatten().find_map(|note| note.remains.clone());
    let note = LossNote::new(env.clock.now(), node, all, remains);
    write(repository, local, &note).await;
}

/// Replaces the notes that this run has handled, `noted_losses`, by what it could not heal.
pub(crate) async fn record_unhealed(
    repository: &Repository,
    local: &LocalState,
    env: &Env,
    node: &str,
    noted_losses: &LossNotes,
    remains: Option<UnhealedLosses>,
) {
    let is_news = |note: &Option<LossNote>| match note {
        Some(note) => !note.met.is_empty() || note.remains != remains,
        None => remains.is_some(),
    };
    let (is_news_here, is_news_there) = (is_news(&noted_losses.own), is_news(&noted_losses.stored));
    let note = LossNote::new(env.clock.now(), node, PackLosses::default(), remains);
    if is_news_here {
        let text = note.remains.is_some().then(|| serde_json::to_vec(&note).unwrap_or_default());
        local.save_loss_note(text.as_deref());
    }
    if !is_news_there {
        return;
    }
    // A note that was written in the meantime stays for the next run.
    match fetch(repository.store.as_ref(), &repository.keys).await {
        Ok(now) if now.as_ref().map(|(_, digest)| *digest) == noted_losses.object_digest => {
            put(repository, &note).await;
        }
        Ok(_) => {}
        Err(error) => tracing::debug!("the note on losses: {error}"),
    }
}

async fn write(repository: &Repository, local: Option<&LocalState>, note: &LossNote) {
    if let Some(local) = local {
        local.save_loss_note(Some(&serde_json::to_vec(note).unwrap_or_default()));
    }
    put(repository, note).await;
}

async fn put(repository: &Repository, note: &LossNote) {
    let object = mac_line::seal(&serde_json::to_vec(note).unwrap_or_default(), &repository.keys);
    let key = object_keys::loss(repository.role());
    if let Err(error) = repository.store.put(&key, Bytes::from(object)).await {
        tracing::debug!("the loss cannot be published to the other nodes: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::PackId;
    use crate::job::testing::JobFixture;

    fn met(pack: u8) -> PackLosses {
        PackLosses { missing: [PackId([pack; 16])].into(), ..PackLosses::default() }
    }

    async fn noted_losses(rig: &JobFixture, local: Option<&LocalState>) -> LossNotes {
        read_notes(rig.store.as_ref(), &rig.repository.keys, local).await
    }

    #[tokio::test]
    async fn what_is_met_is_told_here_and_elsewhere_until_a_run_has_looked() {
        let rig = JobFixture::new().await;
        let at =
            |name: &str| LocalState::open(&rig.env, &rig.dir.path().join(name), rig.repository.keys.repo()).unwrap();
        let (here, there) = (at("here"), at("there"));
        assert_eq!(noted_losses(&rig, Some(&here)).await, LossNotes::default());
        note_losses(&rig.repository, Some(&here), &rig.env, "east", &PackLosses::default()).await;
        assert!(!rig.memory.objects().contains_key("app/live/loss"), "an empty note is not published");

        note_losses(&rig.repository, Some(&here), &rig.env, "east", &met(1)).await;
        note_losses(&rig.repository, None, &rig.env, "restorer", &met(2)).await;
        let mut both = met(1);
        both.add(&met(2));
        let told = noted_losses(&rig, Some(&there)).await;
        assert_eq!(told.unhandled(None), Some(both));
        assert_eq!(told.unhandled(told.object()), None, "it is answered once");
        assert_eq!(
            noted_losses(&rig, Some(&here)).await.unhandled(told.object()),
            Some(met(1)),
            "this node's own counts until it is"
        );

        let remains = Some(UnhealedLosses { lost: met(1), more: false, files: 3 });
        record_unhealed(
            &rig.repository,
            &here,
            &rig.env,
            "east",
            &noted_losses(&rig, Some(&here)).await,
            remains.clone(),
        )
        .await;
        let left = noted_losses(&rig, Some(&there)).await;
        assert_eq!((left.unhandled(None), left.still_lost()), (None, met(1)));
        assert_eq!(left.newest().and_then(|note| note.remains), remains);
        record_unhealed(&rig.repository, &here, &rig.env, "east", &noted_losses(&rig, Some(&here)).await, None).await;
        assert_eq!(noted_losses(&rig, Some(&here)).await.newest(), None);
        assert!(own(Some(&here)).unwrap().is_none());
    }

    #[tokio::test]
    async fn what_is_met_while_a_run_looks_is_for_the_next() {
        let rig = JobFixture::new().await;
        let local = LocalState::open(&rig.env, &rig.state_dir(), rig.repository.keys.repo()).unwrap();
        note_losses(&rig.repository, None, &rig.env, "west", &met(1)).await;
        let before = noted_losses(&rig, Some(&local)).await;
        note_losses(&rig.repository, None, &rig.env, "west", &met(2)).await;
        record_unhealed(&rig.repository, &local, &rig.env, "east", &before, None).await;
        assert!(noted_losses(&rig, Some(&local)).await.unhandled(before.object()).is_some());
    }

    #[tokio::test]
    async fn what_is_forged_or_too_large_is_no_note() {
        let rig = JobFixture::new().await;
        let note = LossNote::new(rig.env.clock.now(), "x", met(1), None);
        let text = serde_json::to_vec(&note).unwrap();
        let sealed = mac_line::seal(&text, &rig.repository.keys);
        let mut large = serde_json::to_value(&note).unwrap();
        large["met"]["missing"] = (0..2000u32).map(|n| format!("{n:032x}")).collect::<Vec<_>>().into();
        let large = mac_line::seal(&serde_json::to_vec(&large).unwrap(), &rig.repository.keys);
        let mut forged = sealed.clone();
        forged[20] ^= 1;
        for (object, is_note) in
            [(sealed, true), (forged, false), (text, false), (large, false), (vec![b'x'; 1 << 20], false)]
        {
            rig.store.put("app/live/loss", Bytes::from(object)).await.unwrap();
            assert_eq!(noted_losses(&rig, None).await.unhandled(None).is_some(), is_note);
        }
    }
}
