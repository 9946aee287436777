//! `key rotate`: a new repository key for everything written from now on.
//!
//! The order of the writes keeps the repository open at every moment: a takeover, so that no other writer appends in
//! between; the new slots under staging keys, where no reader looks; the record, which alone decides; the slots in
//! their final place, from which they are read back; and only then the old slots are deleted. A rotation interrupted
//! before its record changed nothing; one interrupted after it is finished by the next `key rotate`: the record names
//! the slots, and their names are their digests. Finishing needs a secret that opens one of the new slots, because it
//! deletes the old ones, which may be the only ones that still open.

pub mod plan;

use std::iter;
use std::path::PathBuf;

use self::plan::{KeySlotOpener, KeySlotState};
use crate::config::{KeySource, RoleSettings};
use crate::ids::{KeyGeneration, KeyId, Mac, Seq};
use crate::job::keys::{self, KeysError};
use crate::job::operate::{ATTEMPTS, OperatorContext, require_eligible};
use crate::job::report::setup::{KeyChange, KeyReport, KeyRotation};
use crate::job::repository::init::new_object::put_new;
use crate::job::repository::open::{KeySlotList, KeySlotTrial, Repository, list_key_slots, read_secret};
use crate::journal::body::{RecordBody, TakeoverBody, TakeoverReason};
use crate::journal::error::{AppendError, JournalError};
use crate::journal::permit::Permit;
use crate::journal::reader::Journal;
use crate::journal::rotation::RotateBody;
use crate::journal::view::JournalView;
use crate::repo::keyring::{Keyring, RepositoryKey};
use crate::repo::keyslot::{KeySlot, SlotSecret};
use crate::repo::object_keys;
use crate::role::election;
use crate::role::probe::ProbeAssessment;
use crate::store::{ObjectMeta, SizeLimit, Store, StoreError, StoreErrorKind, list_filtered};

/// The most staged slots that are read.
const STAGED_MAX: usize = 1024;

/// Inputs of a rotation.
#[derive(Debug, Clone)]
pub struct RotateRequest<'a> {
    /// The key that opened the repository for this command.
    pub current: &'a KeySource,
    /// A further key that opens the repository after the rotation. A missing key file is created.
    pub new: Option<KeySource>,
    /// Keys that still open the repository after the rotation.
    pub keep: Vec<KeySource>,
    /// Slots that are removed.
    pub drop: Vec<KeyId>,
    /// Reports what would be done, and changes nothing.
    pub dry_run: bool,
}

/// The node that rotates the key, and whether it may hold the role.
#[derive(Debug)]
pub struct KeyRotator<'a> {
    /// The node and its access to the journal.
    pub operator: OperatorContext<'a>,
    /// The role's settings.
    pub role: &'a RoleSettings,
    /// The answers of the probes.
    pub assessment: Option<&'a ProbeAssessment>,
    /// Rotates even if the probes do not say that this node is active.
    pub force: bool,
}

/// Gives the repository a new key, or finishes an interrupted rotation.
///
/// # Errors
/// Before the record is appended nothing is changed. If the result of the append is unknown, the next rotation finds
/// out.
pub async fn rotate(
    repository: &Repository,
    by: &KeyRotator<'_>,
    ask: &RotateRequest<'_>,
) -> Result<KeyReport, KeysError> {
    if !repository.is_encrypted() {
        return Err(KeysError::NotEncrypted);
    }
    match Box::pin(attempt(repository, by, ask)).await {
        Err(error) if may_be_late(&error) => match is_overtaken(repository, by).await {
            Some(generation) => Err(KeysError::Overtaken(generation)),
            None => Err(error),
        },
        done => done,
    }
}

/// Whether an earlier rotation by another node may be the cause: this one would not have read its slots and its record
/// yet.
fn may_be_late(error: &KeysError) -> bool {
    matches!(
        error,
        KeysError::Plan(_)
            | KeysError::OpensNothing(_)
            | KeysError::InUse
            | KeysError::TooManySlots(_)
            | KeysError::NotInPlace(_)
            | KeysError::Journal(_)
            | KeysError::Append(AppendError::Journal(_) | AppendError::Moved(_))
    )
}

/// The generation of another node's rotation, if the key that opened a slot of the store a moment ago is no longer the
/// newest.
async fn is_overtaken(repository: &Repository, by: &KeyRotator<'_>) -> Option<KeyGeneration> {
    repository.slot?;
    let (journal, _) = by.operator.journal(repository).ok()?;
    match journal.read(None).await {
        Err(JournalError::Rotated { generation, .. }) => Some(generation),
        _ => None,
    }
}

async fn attempt(
    repository: &Repository,
    by: &KeyRotator<'_>,
    ask: &RotateRequest<'_>,
) -> Result<KeyReport, KeysError> {
    let (journal, known) = by.operator.journal(repository)?;
    let (read, rotated) = match journal.read(known.as_ref()).await {
        Ok(view) => (Ok(view.clone()), view.state.rotated.map(|rotated| rotated.seq)),
        Err(JournalError::Rotated { seq, generation, given }) => {
            (Err(JournalError::Rotated { seq, generation, given }), seq.0.checked_sub(1).map(Seq))
        }
        Err(error) => return Err(error.into()),
    };
    let staged = staged(repository).await?;
    if let Some(seq) = rotated
        && let Some(body) = unfinished(repository, &journal, seq, &staged, read.is_err()).await?
    {
        return finish(repository, (&journal, seq), &body, ask).await;
    }
    let view = read?;
    let (kept, removed) = choose(repository, ask).await?;
    let generation = view.generation().next();
    if ask.dry_run {
        let rotation = KeyRotation { dry_run: true, removed, ..KeyRotation::of(generation) };
        return keys::report(repository, KeyChange::Rotated(rotation)).await;
    }
    let forced = require_eligible(by.role, &by.operator.node.name, by.assessment, by.force).map_err(Box::new)?;
    let next = RepositoryKey::new(by.operator.env.random_bytes());
    let next = repository.keys.with_staged_key(next).ok_or(KeysError::TooManyGenerations)?;
    let (mut secrets, created) = (kept, new_secret(ask, by)?);
    let created_file = created.as_ref().and_then(|(_, file)| file.clone());
    secrets.extend(created.map(|(secret, _)| secret));

    let (permit, view) = take_over(&journal, by, view, forced).await?;
    let made = stage(repository, next.keyring(), &secrets, by).await?;
    let ids: Vec<KeyId> = made.iter().map(KeySlot::id).collect();
    let rotating = Repository { keys: next, ..repository.clone() };
    let (journal, _) = by.operator.journal(&rotating)?;
    let body = RotateBody { generation, slots: ids.clone(), proof: Mac([0; Mac::LEN]) };
    match append(&journal, &permit, view, &body).await {
        Ok(seq) => journal.save_rotation_copy(seq).await?,
        Err(error) => {
            // If the record may be in the journal, it needs the staged slots.
            if !matches!(error, AppendError::Unknown { .. }) {
                delete(repository.store.as_ref(), ids.iter().map(|id| object_keys::staged_key(repository.role(), *id)))
                    .await?;
            }
            return Err(error.into());
        }
    }
    // Slots that other nodes staged before this takeover are obsolete.
    let leftover = staged.iter().chain(&ids).copied().collect::<Vec<_>>();
    let left = settle(repository, &made, &removed, &leftover).await?;
    let rotation = KeyRotation {
        written: ids,
        removed: removed.into_iter().filter(|id| !left.contains(id)).collect(),
        left,
        created_file,
        ..KeyRotation::of(generation)
    };
    keys::report(&rotated_now(&rotating), KeyChange::Rotated(rotation)).await
}

/// The repository with its new key.
fn rotated_now(rotating: &Repository) -> Repository {
    let keys = rotating.format.derive_keys(rotating.keys.keyring().clone());
    Repository { keys, slot: None, slot_object: None, ..rotating.clone() }
}

/// The IDs of the staged slots.
async fn staged(repository: &Repository) -> Result<Vec<KeyId>, StoreError> {
    let prefix = object_keys::staged_keys_prefix(repository.role());
    let id = |object: ObjectMeta| object.key.strip_prefix(&prefix)?.parse().ok();
    Ok(list_filtered(repository.store.as_ref(), &prefix, STAGED_MAX, id).await?.found)
}

/// The newest rotation, if some of its staged slots are not in their final place. `behind` (the caller's key is older):
/// also if all are, because old slots may be left.
async fn unfinished(
    repository: &Repository,
    journal: &Journal,
    seq: Seq,
    staged: &[KeyId],
    behind: bool,
) -> Result<Option<RotateBody>, KeysError> {
    if staged.is_empty() {
        return Ok(None);
    }
    // An older key cannot read the journal after the rotation.
    let record = match journal.read_record(seq).await {
        Ok(record) => record.map(|(record, _)| record.body),
        Err(JournalError::Rotated { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let Some(RecordBody::Rotate(body)) = record else { return Ok(None) };
    let mut of_it = body.slots.iter().filter(|id| staged.contains(id));
    if behind {
        return Ok(of_it.next().is_some().then_some(body));
    }
    for id in of_it {
        match repository.store.get(&object_keys::key(repository.role(), *id), SizeLimit::KEY_SLOT).await {
            Err(error) if error.is_not_found() => return Ok(Some(body)),
            Err(error) if !error.concerns_one_object() => return Err(error.into()),
            _ => {}
        }
    }
    Ok(None)
}

/// Moves the slots of a recorded rotation to their final place, and removes the slots of older generations.
async fn finish(
    repository: &Repository,
    (journal, seq): (&Journal, Seq),
    body: &RotateBody,
    ask: &RotateRequest<'_>,
) -> Result<KeyReport, KeysError> {
    let dry_run = ask.dry_run;
    let (store, role) = (repository.store.as_ref(), repository.role());
    let mut made = Vec::new();
    for id in &body.slots {
        match store.get(&object_keys::staged_key(role, *id), SizeLimit::KEY_SLOT).await {
            Ok(object) => made.extend(KeySlot::open(*id, &object).ok()),
            Err(error) if error.concerns_one_object() => {}
            Err(error) => return Err(error.into()),
        }
    }
    let found = list_key_slots(store, role).await?.found;
    let is_there = |id: &KeyId| made.iter().any(|slot| slot.id() == *id) || found.iter().any(|found| found.id == *id);
    let there =
        found.iter().filter(|found| body.slots.contains(&found.id)).filter_map(|found| found.slot.as_ref().ok());
    if !is_at_hand(repository, made.iter().chain(there), body.generation, ask).await? {
        return Err(KeysError::NotAtHand(body.generation));
    }
    // If a new slot is lost, its secret opens only the old slot, and only what was written before, so the old slots
    // stay.
    let is_whole = body.slots.iter().all(is_there);
    let older = found.iter().filter(|found| found.slot.as_ref().is_ok_and(|slot| slot.generation < body.generation));
    let removed: Vec<KeyId> = older.filter(|_| is_whole).map(|found| found.id).collect();
    let mut rotation = KeyRotation { finished: true, dry_run, ..KeyRotation::of(body.generation) };
    if !dry_run {
        journal.save_rotation_copy(seq).await?;
        rotation.left = settle(repository, &made, &removed, &body.slots).await?;
        rotation.written = made.iter().map(KeySlot::id).collect();
    }
    rotation.removed = removed.into_iter().filter(|id| !rotation.left.contains(id)).collect();
    keys::report(repository, KeyChange::Rotated(rotation)).await
}

/// Whether one of the given secrets opens one of these slots.
async fn is_at_hand(
    repository: &Repository,
    slots: impl Iterator<Item = &KeySlot>,
    generation: KeyGeneration,
    ask: &RotateRequest<'_>,
) -> Result<bool, KeysError> {
    let mut secrets = Vec::new();
    for source in iter::once(ask.current).chain(&ask.new).chain(&ask.keep) {
        secrets.extend(present(source)?);
    }
    let repo = repository.format.repo;
    // An exported key is the repository key itself.
    let gives = |secret: &SlotSecret| matches!(secret, SlotSecret::Exported(of, keyring) if *of == repo && keyring.generation() >= generation);
    if secrets.iter().any(gives) {
        return Ok(true);
    }
    let mut trial = KeySlotTrial::default();
    for slot in slots {
        for secret in &secrets {
            if matches!(trial.unwrap(slot, secret, repository.format.repo).await, Some(Ok(_))) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// The secrets that open the repository after the rotation, and the slots to remove.
async fn choose(repository: &Repository, ask: &RotateRequest<'_>) -> Result<(Vec<SlotSecret>, Vec<KeyId>), KeysError> {
    let KeySlotList { found, skipped: passed_over } =
        list_key_slots(repository.store.as_ref(), repository.role()).await?;
    if passed_over > 0 {
        return Err(KeysError::TooManySlots(passed_over));
    }
    let mut openers = vec![KeySlotOpener::Unknown; found.len()];
    let mut kept = Vec::new();
    let given = read_secret(ask.current)?.map(|(secret, path)| (secret, path.to_owned(), KeySlotOpener::Given));
    let mut asked: Vec<(SlotSecret, PathBuf, KeySlotOpener)> = given.into_iter().collect();
    for source in &ask.keep {
        let (secret, path) = read_secret(source)?.ok_or(KeysError::NotEncrypted)?;
        asked.push((secret, path.to_owned(), KeySlotOpener::Kept));
    }
    for (secret, path, opener) in asked {
        let mut trial = KeySlotTrial::default();
        let mut opened = false;
        for (found, of) in found.iter().zip(&mut openers) {
            if keys::opens(found, &secret, repository, &mut trial).await {
                (*of, opened) = (opener, true);
            }
        }
        trial.complete()?;
        match opener {
            KeySlotOpener::Kept if !opened => return Err(KeysError::OpensNothing(path)),
            KeySlotOpener::Kept => kept.push(secret),
            KeySlotOpener::Given | KeySlotOpener::Unknown => {}
        }
    }
    let seen: Vec<KeySlotState> = found
        .iter()
        .zip(openers)
        .map(|(found, opener)| {
            let generation = found.slot.as_ref().ok().map(|slot| slot.generation);
            KeySlotState { id: found.id, generation, opener }
        })
        .collect();
    let removed = plan::plan(&seen, repository.keys.generation(), &ask.drop, ask.new.is_some())?;
    if let Some(secret) = ask.new.as_ref().map(present).transpose()?.flatten() {
        let mut trial = KeySlotTrial::default();
        for found in &found {
            if keys::opens(found, &secret, repository, &mut trial).await {
                return Err(KeysError::InUse);
            }
        }
        trial.complete()?;
    }
    Ok((kept, removed))
}

/// The secret of an existing key. A missing key file is created later, and opens nothing yet.
fn present(source: &KeySource) -> Result<Option<SlotSecret>, KeysError> {
    match source {
        KeySource::KeyFile(path) if !path.exists() => Ok(None),
        source => Ok(read_secret(source)?.map(|(secret, _)| secret)),
    }
}

/// The new secret, and its file if it was created.
fn new_secret(
    ask: &RotateRequest<'_>,
    by: &KeyRotator<'_>,
) -> Result<Option<(SlotSecret, Option<PathBuf>)>, KeysError> {
    let Some(new) = &ask.new else { return Ok(None) };
    let missing = matches!(new, KeySource::KeyFile(path) if !path.exists());
    let (secret, path) = keys::secret_or_new(new, by.operator.env)?;
    if matches!(secret, SlotSecret::Exported(..)) {
        return Err(KeysError::ExportedKey(path));
    }
    Ok(Some((secret, missing.then_some(path))))
}

async fn take_over(
    journal: &Journal,
    by: &KeyRotator<'_>,
    mut view: JournalView,
    forced: bool,
) -> Result<(Permit, JournalView), AppendError> {
    let takeover = TakeoverBody { forced, ..TakeoverBody::new(TakeoverReason::Operator) };
    for _ in 0..ATTEMPTS {
        match journal.take_over_as(&view, &election::operator_candidacy(by.role), takeover.clone()).await {
            Err(AppendError::Moved(now)) => view = *now,
            result => return result,
        }
    }
    Err(AppendError::Moved(Box::new(view)))
}

/// Appends the record, and returns its number.
async fn append(
    journal: &Journal,
    permit: &Permit,
    mut view: JournalView,
    body: &RotateBody,
) -> Result<Seq, AppendError> {
    for _ in 0..ATTEMPTS {
        match journal.append(permit, &view, RecordBody::Rotate(body.clone()), None).await {
            Err(AppendError::Moved(now)) => view = *now,
            result => return result.map(|view| view.head.map_or(Seq(0), |head| head.seq)),
        }
    }
    Err(AppendError::Moved(Box::new(view)))
}

/// Wraps the new key for each secret, and writes the slots under staging keys.
async fn stage(
    repository: &Repository,
    keyring: &Keyring,
    secrets: &[SlotSecret],
    by: &KeyRotator<'_>,
) -> Result<Vec<KeySlot>, KeysError> {
    let mut made = Vec::new();
    for secret in secrets {
        let slot = KeySlot::wrap(secret, keyring, repository.format.repo, by.operator.env);
        let slot = slot.ok_or(KeysError::NotEncrypted)?;
        let key = object_keys::staged_key(repository.role(), slot.id());
        put_new(repository.store.as_ref(), &key, slot.encode()).await.map_err(KeysError::Put)?;
        made.push(slot);
    }
    Ok(made)
}

/// Writes `made` to the final place and verifies it, then deletes the slots `removed` and `staged`. Returns the slots
/// that the store did not delete.
async fn settle(
    repository: &Repository,
    made: &[KeySlot],
    removed: &[KeyId],
    staged: &[KeyId],
) -> Result<Vec<KeyId>, KeysError> {
    let (store, role) = (repository.store.as_ref(), repository.role());
    for slot in made {
        let (id, object) = (slot.id(), slot.encode());
        let key = object_keys::key(role, id);
        put_new(store, &key, object.clone()).await.map_err(KeysError::Put)?;
        if store.get(&key, SizeLimit::KEY_SLOT).await? != object {
            return Err(KeysError::NotInPlace(id));
        }
    }
    let removable: Vec<KeyId> = removed.iter().copied().filter(|id| made.iter().all(|slot| slot.id() != *id)).collect();
    let keys = removable.iter().map(|id| object_keys::key(role, *id));
    let left = if delete(store, keys).await? { Vec::new() } else { removable };
    delete(store, staged.iter().map(|id| object_keys::staged_key(role, *id))).await?;
    Ok(left)
}

/// `false`: the store does not allow deletes.
async fn delete(store: &dyn Store, keys: impl Iterator<Item = String>) -> Result<bool, StoreError> {
    let keys: Vec<String> = keys.collect();
    if keys.is_empty() {
        return Ok(true);
    }
    match store.delete(&keys).await {
        Err(error) if error.kind == StoreErrorKind::Denied => Ok(false),
        result => result.map(|()| true),
    }
}

#[cfg(test)]
mod tests;
