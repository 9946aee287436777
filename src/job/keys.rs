//! The keys of a repository: export the repository key, add and remove the slots that hold it.
//!
//! The invariant: a slot is removed only by a caller with a key that still opens the repository afterwards. Losing the
//! last key loses every backup.

pub mod rotate;

use std::io;
use std::path::{Path, PathBuf};

use crate::config::KeySource;
use crate::env::Env;
use crate::ids::{KeyGeneration, KeyId};
use crate::job::keys::rotate::plan::RotatePlanError;
use crate::job::operate::OperateError;
use crate::job::report::setup::{KeyChange, KeyReport, KeySlotInfo as SlotReport, KeySlotKind};
use crate::job::repository::init::error::InitError;
use crate::job::repository::init::new_object::put_new;
use crate::job::repository::init::write_key_file;
use crate::job::repository::open::{
    KeySlotList, KeySlotTrial, OpenError, Repository, SecretFileError, StoredKeySlot, list_key_slots, read_secret,
    slots_to_try,
};
use crate::job::repository::read_only::read_only_journal;
use crate::journal::error::{AppendError, JournalError};
use crate::repo::keyring::GENERATIONS_MAX;
use crate::repo::keyslot::{KeySlot, KeyWrapping, SlotSecret};
use crate::repo::object_keys;
use crate::store::{StoreError, StoreErrorKind};

/// Why keys were not changed.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The repository has no keys.
    #[error("the repository is not encrypted, so it has no keys")]
    NotEncrypted,
    /// The new or the given key file cannot be used.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// A file could not be written.
    #[error("{}: {error}", path.display())]
    File {
        /// Path of the file.
        path: PathBuf,
        /// Error of the operating system.
        error: io::Error,
    },
    /// A key from `key export` is the repository key itself.
    #[error("{} holds an exported repository key, which needs no slot", .0.display())]
    ExportedKey(PathBuf),
    /// The new secret opens the repository already.
    #[error("{} opens the repository already, by key {id}", path.display())]
    AlreadyThere {
        /// File with the secret.
        path: PathBuf,
        /// Slot that it opens.
        id: KeyId,
    },
    /// The repository has no such slot.
    #[error("the repository has no key {id}; it has {}", known.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
    NoSuchKey {
        /// ID that was asked for.
        id: KeyId,
        /// IDs of the existing slots.
        known: Vec<KeyId>,
    },
    /// The slot is the last one.
    #[error("key {0} is the last one: without it the backups would be lost")]
    Last(KeyId),
    /// The slot is the only one that the given key opens.
    #[error(
        "key {0} is the only one that the given key file or passphrase opens, so nothing shows that another one works"
    )]
    Own(KeyId),
    /// The store does not allow the slot to be deleted.
    #[error("the store does not allow key {id} to be deleted ({error}); as recommended, its policy protects keys")]
    Denied {
        /// ID of the slot.
        id: KeyId,
        /// The store's answer.
        error: StoreError,
    },
    /// The repository has a newer key, which the given one does not contain.
    #[error("the repository has generation {now} of its key, and the given key opens generation {given}")]
    Superseded {
        /// Newest generation, according to the journal.
        now: KeyGeneration,
        /// Newest generation in the given key.
        given: KeyGeneration,
    },
    /// Rotation: the request does not say what happens to some slot.
    #[error("{0}")]
    Plan(#[from] RotatePlanError),
    /// Rotation: the secret to be kept opens no slot.
    #[error("{} opens no key slot of the repository, so there is nothing to keep", .0.display())]
    OpensNothing(PathBuf),
    /// Rotation: another one came first.
    #[error(
        "another rotation came first: the repository has generation {0} of its key now, and the given key does not \
         open it"
    )]
    Overtaken(KeyGeneration),
    /// Rotation: an interrupted one left new slots that none of the given secrets opens.
    #[error(
        "the rotation to generation {} was interrupted or is still running, and none of the given keys opens what it \
         made: nothing is removed",
        .0.0
    )]
    NotAtHand(KeyGeneration),
    /// Slots that were not read or not tried may be in use.
    #[error("the repository has more key slots than are tried: {0} more, any of which may be in use")]
    TooManySlots(usize),
    /// The new secret opens the repository already.
    #[error("the new key opens the repository already: a holder of it could also read what is written from now on")]
    InUse,
    /// Rotation: the keyring is full.
    #[error("the repository key has had {GENERATIONS_MAX} generations, and no more fit into a key slot")]
    TooManyGenerations,
    /// Rotation: the new slot in the store differs from what was written.
    #[error("the store does not hold the new key {0} as it was written, so no old key is removed")]
    NotInPlace(KeyId),
    /// Rotation: this node may not have the role.
    #[error("{0}")]
    Operate(#[from] Box<OperateError>),
    /// Rotation: the journal cannot be read.
    #[error("{0}")]
    Journal(#[from] JournalError),
    /// Rotation: its record was not appended, or that is unknown.
    #[error("{0}")]
    Append(#[from] AppendError),
    /// A request to the store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The new slot was not written, or that is unknown.
    #[error("{0}")]
    Put(InitError),
}

/// The repository key as an exported secret, which opens this repository without any slot.
pub fn export(repository: &Repository) -> Result<SlotSecret, KeysError> {
    if !repository.is_encrypted() {
        return Err(KeysError::NotEncrypted);
    }
    Ok(SlotSecret::Exported(repository.format.repo, repository.keys.keyring().clone()))
}

/// [`export`] to a new file that only its owner can read.
pub async fn export_to(repository: &Repository, path: &Path) -> Result<KeyReport, KeysError> {
    let secret = export(repository)?;
    write_key_file(path, &secret).map_err(|error| KeysError::File { path: path.to_owned(), error })?;
    report(repository, KeyChange::Exported(path.to_owned())).await
}

/// Adds a slot for the secret that `new` names. A missing key file is created.
pub async fn add(repository: &Repository, new: &KeySource, env: &Env) -> Result<KeyReport, KeysError> {
    if !repository.is_encrypted() {
        return Err(KeysError::NotEncrypted);
    }
    let first = repository.slot.as_slice();
    let KeySlotList { found, skipped: passed_over } =
        slots_to_try(repository.store.as_ref(), repository.role(), first).await?;
    // A slot beyond those that are read would never be tried.
    if passed_over > 0 {
        return Err(KeysError::TooManySlots(passed_over));
    }
    // A slot made from an old key would not open what is written now. What slots say about their generation proves
    // nothing; the journal does.
    match read_only_journal(repository, env).read(None).await {
        Err(JournalError::Rotated { generation, given, .. }) => {
            return Err(KeysError::Superseded { now: generation, given });
        }
        read => read?,
    };
    let (secret, path) = secret_or_new(new, env)?;
    let mut trial = KeySlotTrial::default();
    for found in found {
        if opens(&found, &secret, repository, &mut trial).await {
            return Err(KeysError::AlreadyThere { path, id: found.id });
        }
    }
    trial.complete()?;
    let slot = KeySlot::wrap(&secret, repository.keys.keyring(), repository.format.repo, env);
    let slot = slot.ok_or(KeysError::ExportedKey(path))?;
    let id = slot.id();
    let key = object_keys::key(repository.role(), id);
    put_new(repository.store.as_ref(), &key, slot.encode()).await.map_err(KeysError::Put)?;
    report(repository, KeyChange::Added(id)).await
}

/// Removes a slot. `given` is the source that opened the repository for this command; it must open another slot, too.
pub async fn remove(repository: &Repository, id: KeyId, given: &KeySource) -> Result<KeyReport, KeysError> {
    let Some((secret, _)) = read_secret(given)? else { return Err(KeysError::NotEncrypted) };
    let first = repository.slot.as_slice();
    let KeySlotList { found, skipped: passed_over } =
        slots_to_try(repository.store.as_ref(), repository.role(), first).await?;
    // The slot may be among those that were not read.
    if passed_over == 0 && !found.iter().any(|found| found.id == id) {
        return Err(KeysError::NoSuchKey { id, known: found.into_iter().map(|found| found.id).collect() });
    }
    let others: Vec<StoredKeySlot> = found.into_iter().filter(|found| found.id != id).collect();
    if others.is_empty() {
        return Err(KeysError::Last(id));
    }
    let (mut trial, mut shown) = (KeySlotTrial::default(), matches!(secret, SlotSecret::Exported(..)));
    for other in &others {
        // The slot that opened the repository for this command has been tried already.
        shown = shown || repository.slot == Some(other.id) || opens(other, &secret, repository, &mut trial).await;
    }
    if !shown {
        trial.complete()?;
        return Err(KeysError::Own(id));
    }
    // An interrupted rotation may have left a copy.
    let role = repository.role();
    match repository.store.delete(&[object_keys::key(role, id), object_keys::staged_key(role, id)]).await {
        Err(error) if error.kind == StoreErrorKind::Denied => return Err(KeysError::Denied { id, error }),
        result => result?,
    }
    report(repository, KeyChange::Removed(id)).await
}

impl KeySlotTrial {
    /// Checks that every slot was tried.
    ///
    /// # Errors
    /// Some slots were not tried; the error says how many.
    pub(in crate::job) fn complete(&self) -> Result<(), KeysError> {
        if self.untried > 0 { Err(KeysError::TooManySlots(self.untried)) } else { Ok(()) }
    }
}

/// Whether the secret unwraps the key of this repository from the slot.
pub(in crate::job) async fn opens(
    found: &StoredKeySlot,
    secret: &SlotSecret,
    repository: &Repository,
    trial: &mut KeySlotTrial,
) -> bool {
    let Ok(slot) = &found.slot else { return false };
    let opened = trial.unwrap(slot, secret, repository.format.repo).await;
    opened.is_some_and(|opened| opened.is_ok_and(|keyring| keyring == *repository.keys.keyring()))
}

pub(in crate::job) fn secret_or_new(new: &KeySource, env: &Env) -> Result<(SlotSecret, PathBuf), KeysError> {
    match (new, read_secret(new)) {
        (_, Ok(Some((secret, path)))) => Ok((secret, path.to_owned())),
        (_, Ok(None)) => Err(KeysError::NotEncrypted),
        (KeySource::KeyFile(path), Err(OpenError::Secret { error: SecretFileError::Io(e), .. }))
            if e.kind() == io::ErrorKind::NotFound =>
        {
            let secret = SlotSecret::generate(env);
            write_key_file(path, &secret).map_err(|error| KeysError::File { path: path.clone(), error })?;
            Ok((secret, path.clone()))
        }
        (_, Err(e)) => Err(e.into()),
    }
}

/// Lists the slots, and which one opened the repository for this command.
pub async fn list(repository: &Repository) -> Result<KeyReport, KeysError> {
    if !repository.is_encrypted() {
        return Err(KeysError::NotEncrypted);
    }
    report(repository, KeyChange::None).await
}

pub(in crate::job) async fn report(repository: &Repository, change: KeyChange) -> Result<KeyReport, KeysError> {
    let read = |found: StoredKeySlot| {
        let generation = found.generation();
        let StoredKeySlot { id, written, slot } = found;
        let (kind, problem) = match slot.map(|slot| slot.kind) {
            Ok(KeyWrapping::KeyFile) => (KeySlotKind::KeyFile, None),
            Ok(KeyWrapping::Passphrase { .. }) => (KeySlotKind::Passphrase, None),
            Err(error) => (KeySlotKind::Unreadable, Some(error.to_string())),
        };
        SlotReport { id, generation, kind, written, opened: repository.slot == Some(id), problem }
    };
    let KeySlotList { found, skipped: passed_over } =
        list_key_slots(repository.store.as_ref(), repository.role()).await?;
    let slots = found.into_iter().map(read).collect();
    let generation = repository.keys.generation();
    Ok(KeyReport { role: repository.role().clone(), change, generation, slots, passed_over })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Arc;

    use super::*;
    use crate::job::testing::JobFixture;
    use crate::store::SizeLimit;
    use crate::store::counting::CountingStore;

    async fn opened(rig: &JobFixture, key: &KeySource) -> Result<Repository, OpenError> {
        Repository::open(rig.store.clone(), &rig.role.name, key).await
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn every_added_key_opens_until_it_is_removed() {
        let rig = JobFixture::new().await;
        let first = rig.role.key.clone();
        let second = KeySource::KeyFile(rig.dir.path().join("second"));
        let phrase = KeySource::PassphraseFile(rig.dir.path().join("phrase"));
        std::fs::write(rig.dir.path().join("phrase"), "correct horse\n").unwrap();
        assert!(opened(&rig, &phrase).await.is_err());

        let added = add(&rig.repository, &second, &rig.env).await.unwrap();
        let KeyChange::Added(second_id) = added.change else { panic!("{added:?}") };
        assert_eq!(added.slots.len(), 2);
        assert_eq!(std::fs::metadata(rig.dir.path().join("second")).unwrap().permissions().mode() & 0o777, 0o600);
        let added = add(&rig.repository, &phrase, &rig.env).await.unwrap();
        assert_eq!(added.slots.iter().filter(|s| s.kind == KeySlotKind::Passphrase).count(), 1);
        for key in [&first, &second, &phrase] {
            opened(&rig, key).await.unwrap();
        }
        let again = add(&rig.repository, &second, &rig.env).await;
        assert!(matches!(again, Err(KeysError::AlreadyThere { id, .. }) if id == second_id));

        let removed = remove(&rig.repository, second_id, &first).await.unwrap();
        assert_eq!((removed.change, removed.slots.len()), (KeyChange::Removed(second_id), 2));
        assert!(matches!(opened(&rig, &second).await, Err(OpenError::WrongSecret { .. })));
        opened(&rig, &phrase).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_slot_that_is_remembered_saves_looking_for_it_and_no_more() {
        let rig = JobFixture::new().await;
        let first = rig.role.key.clone();
        let own = rig.repository.slot.unwrap();
        let second = KeySource::KeyFile(rig.dir.path().join("second"));
        let KeyChange::Added(other) = add(&rig.repository, &second, &rig.env).await.unwrap().change else {
            panic!("not added")
        };
        let open = async |remembered| {
            let (store, counters) = CountingStore::new(rig.store.clone());
            let opened = Repository::open_by(Arc::new(store), &rig.role.name, &first, |_| remembered).await;
            (opened.map(|repository| repository.slot), counters.snapshot().requests())
        };
        assert!(matches!(open(Some(own)).await, (Ok(Some(slot)), 2) if slot == own), "format and slot");
        for remembered in [Some(other), Some(KeyId([9; 8])), None] {
            assert!(matches!(open(remembered).await, (Ok(Some(slot)), 3..) if slot == own));
        }
        remove(&rig.repository, own, &second).await.unwrap();
        assert!(matches!(open(Some(own)).await, (Err(OpenError::WrongSecret { .. }), _)), "it was removed");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn the_last_key_and_the_callers_own_key_are_not_removed() {
        let rig = JobFixture::new().await;
        let first = rig.role.key.clone();
        let own = list_key_slots(rig.store.as_ref(), &rig.role.name).await.unwrap().found[0].id;
        assert!(matches!(remove(&rig.repository, own, &first).await, Err(KeysError::Last(id)) if id == own));
        let unknown = KeyId([9; 8]);
        let refused = remove(&rig.repository, unknown, &first).await;
        assert!(matches!(refused, Err(KeysError::NoSuchKey { known, .. }) if known == [own]));
        let second = KeySource::KeyFile(rig.dir.path().join("second"));
        add(&rig.repository, &second, &rig.env).await.unwrap();
        assert!(matches!(remove(&rig.repository, own, &first).await, Err(KeysError::Own(id)) if id == own));
        opened(&rig, &first).await.unwrap();
        remove(&rig.repository, own, &second).await.unwrap();
        opened(&rig, &second).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_exported_key_opens_without_any_slot() {
        let rig = JobFixture::new().await;
        let path = rig.dir.path().join("exported");
        export_to(&rig.repository, &path).await.unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let exported = KeySource::KeyFile(path.clone());
        let added = add(&rig.repository, &exported, &rig.env).await;
        assert!(matches!(added, Err(KeysError::ExportedKey(p)) if p == path));
        let again = export_to(&rig.repository, &path).await;
        assert!(matches!(again, Err(KeysError::File { error, .. }) if error.kind() == io::ErrorKind::AlreadyExists));
        for StoredKeySlot { id, .. } in list_key_slots(rig.store.as_ref(), &rig.role.name).await.unwrap().found {
            rig.memory.tamper(&object_keys::key(&rig.role.name, id), None);
        }
        assert!(opened(&rig, &rig.role.key).await.is_err());
        assert_eq!(opened(&rig, &exported).await.unwrap().format.repo, rig.repository.format.repo);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_store_that_protects_keys_is_named_as_the_reason() {
        let rig = JobFixture::new().await;
        let second = KeySource::KeyFile(rig.dir.path().join("second"));
        add(&rig.repository, &second, &rig.env).await.unwrap();
        let own = list_key_slots(rig.store.as_ref(), &rig.role.name).await.unwrap().found;
        let protected = Repository { store: Arc::new(Protected(rig.memory.clone())), ..rig.repository.clone() };
        for StoredKeySlot { id, .. } in own {
            for key in [&rig.role.key, &second] {
                let refused = remove(&protected, id, key).await;
                assert!(matches!(refused, Err(KeysError::Denied { .. } | KeysError::Own(_))), "{refused:?}");
            }
        }
        assert_eq!(list_key_slots(rig.store.as_ref(), &rig.role.name).await.unwrap().found.len(), 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn foreign_slots_neither_keep_out_nor_cost_without_end() {
        let rig = JobFixture::new().await;
        let own = list_key_slots(rig.store.as_ref(), &rig.role.name).await.unwrap().found[0].id;
        for n in 0..100 {
            let slot = KeySlot::wrap(
                &SlotSecret::generate(&rig.env),
                rig.repository.keys.keyring(),
                rig.repository.format.repo,
                &rig.env,
            );
            let slot = slot.unwrap().encode();
            let id = KeyId(blake3::hash(&slot).as_bytes()[..KeyId::LEN].try_into().unwrap());
            rig.memory.tamper(&object_keys::key(&rig.role.name, id), Some(slot.into()));
            rig.memory
                .tamper(&format!("{}strange-{n}", object_keys::keys_prefix(&rig.role.name)), Some(Vec::new().into()));
        }
        let KeySlotList { found, skipped: passed_over } =
            list_key_slots(rig.store.as_ref(), &rig.role.name).await.unwrap();
        assert_eq!((found.len(), passed_over, found[0].id), (64, 37, own), "the oldest first");
        let listed = list(&opened(&rig, &rig.role.key).await.unwrap()).await.unwrap();
        assert_eq!(listed.slots.iter().filter(|slot| slot.opened).map(|slot| slot.id).collect::<Vec<_>>(), [own]);

        // The remaining work of the command is not exceeded.
        let secret = SlotSecret::parse_passphrase(b"correct horse").unwrap();
        let slot = KeySlot::wrap(&secret, rig.repository.keys.keyring(), rig.repository.format.repo, &rig.env).unwrap();
        let (mut trial, mut tried) = (KeySlotTrial::with_work_kib(slot.kind.cost_kib() * 2), 0);
        for _ in 0..4 {
            tried += usize::from(trial.unwrap(&slot, &secret, rig.repository.format.repo).await.is_some());
        }
        assert_eq!((tried, trial.untried), (2, 2));
    }

    #[tokio::test]
    async fn a_key_that_everybody_can_change_opens_nothing() {
        let rig = JobFixture::new().await;
        let KeySource::KeyFile(path) = &rig.role.key else { panic!("a key file") };
        let set = |mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        set(0o606);
        let refused = opened(&rig, &rig.role.key).await;
        assert!(
            matches!(&refused, Err(OpenError::Secret { error: SecretFileError::Exposed(found), .. }) if found.is_refused()),
            "{refused:?}"
        );
        set(0o604);
        opened(&rig, &rig.role.key).await.unwrap();
    }

    /// A bucket whose policy denies deletes.
    #[derive(Debug)]
    struct Protected(crate::store::memory::MemoryStore);

    #[async_trait::async_trait]
    impl crate::store::Store for Protected {
        fn describe(&self) -> String {
            self.0.describe()
        }
        fn capabilities(&self) -> crate::store::StoreCapabilities {
            self.0.capabilities()
        }
        async fn put(&self, key: &str, body: bytes::Bytes) -> Result<(), StoreError> {
            self.0.put(key, body).await
        }
        async fn put_if_absent(&self, key: &str, body: bytes::Bytes) -> Result<crate::store::PutOutcome, StoreError> {
            self.0.put_if_absent(key, body).await
        }
        async fn put_if_absent_paused(
            &self,
            key: &str,
            body: bytes::Bytes,
            hold: crate::store::PutPause,
        ) -> Result<crate::store::PutOutcome, StoreError> {
            self.0.put_if_absent_paused(key, body, hold).await
        }
        async fn replace(
            &self,
            key: &str,
            body: bytes::Bytes,
            expected: &crate::store::ObjectVersion,
        ) -> Result<crate::store::ReplaceOutcome, StoreError> {
            self.0.replace(key, body, expected).await
        }
        async fn get(&self, key: &str, limit: SizeLimit) -> Result<bytes::Bytes, StoreError> {
            self.0.get(key, limit).await
        }
        async fn get_versioned(
            &self,
            key: &str,
            limit: SizeLimit,
        ) -> Result<(bytes::Bytes, crate::store::ObjectVersion), StoreError> {
            self.0.get_versioned(key, limit).await
        }
        async fn get_range(&self, key: &str, range: std::ops::Range<u64>) -> Result<bytes::Bytes, StoreError> {
            self.0.get_range(key, range).await
        }
        async fn list(
            &self,
            prefix: &str,
            after: Option<&str>,
            limit: usize,
        ) -> Result<crate::store::ListPage, StoreError> {
            self.0.list(prefix, after, limit).await
        }
        async fn delete(&self, keys: &[String]) -> Result<(), StoreError> {
            Err(StoreError::new(StoreErrorKind::Denied, "memory:", keys.first().map(String::as_str), "policy"))
        }
        fn clock_offset(&self) -> Option<jiff::SignedDuration> {
            self.0.clock_offset()
        }
    }
}
