//! Opening a role's repository: find `format`, unlock the key, check that the two belong together.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use jiff::Timestamp;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::watch;

use crate::config::KeySource;
use crate::file;
use crate::file::access::{self, FileExposure};
use crate::ids::{KeyGeneration, KeyId, RepoId, RoleName};
use crate::job::local_state::LocalState;
use crate::journal::body::RecordBody;
use crate::journal::record::Record;
use crate::repo::crypto::{Cipher, DerivedKeys};
use crate::repo::format::{FormatError, RepositoryFormat};
use crate::repo::keyring::Keyring;
use crate::repo::keyslot::{KeySlot, KeySlotError, KeyWrapping, SlotSecret, SlotSecretError};
use crate::repo::object_keys;
use crate::store::{ObjectMeta, SizeLimit, Store, StoreError, list_filtered};

/// A role's repository, unlocked.
#[derive(Debug, Clone)]
pub struct Repository {
    /// Store that holds it.
    pub store: Arc<dyn Store>,
    /// Its `format`.
    pub format: RepositoryFormat,
    /// Its keys.
    pub keys: DerivedKeys,
    /// ID of the key slot that was used.
    pub slot: Option<KeyId>,
    /// That slot, as stored.
    pub slot_object: Option<Vec<u8>>,
}

/// Why a repository cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The store has no repository of this role.
    #[error("there is no repository for role {role} in {store}")]
    NoRepository {
        /// Role of the missing repository.
        role: RoleName,
        /// Store that was searched.
        store: String,
    },
    /// The store has no repository of this role, although this node knows one there.
    #[error("there is no repository for role {role} in {store}, and this node knows one there ({repository})")]
    Gone {
        /// Role of the missing repository.
        role: RoleName,
        /// Store that was searched.
        store: String,
        /// ID of the known repository.
        repository: RepoId,
    },
    /// The store has another repository than this node knows there.
    #[error("{store} holds repository {found} of role {role}, and this node knows another one there ({known})")]
    Another {
        /// Role of both repositories.
        role: RoleName,
        /// Store that was opened.
        store: String,
        /// ID of the known repository.
        known: RepoId,
        /// ID of the repository that is there.
        found: RepoId,
    },
    /// A request to the store failed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The `format` object cannot be used.
    #[error("the repository of role {role} cannot be used: {error}")]
    Format {
        /// Role of the repository.
        role: RoleName,
        /// What is wrong with the object.
        error: FormatError,
    },
    /// The key or passphrase file cannot be used.
    #[error("{}: {error}", path.display())]
    Secret {
        /// Path of the file.
        path: PathBuf,
        /// Whether the file holds a passphrase, which a person writes: `init` creates key files only.
        is_passphrase: bool,
        /// What is wrong with the file.
        error: SecretFileError,
    },
    /// The secret opens none of the slots.
    #[error(
        "the key or passphrase in {} does not open the repository of role {role} ({} tried{})",
        path.display(),
        if slots.len() == 1 { "1 key slot".to_owned() } else { format!("{} key slots", slots.len()) },
        if *untried > 0 { format!(", {untried} more not: there are too many") } else { String::new() }
    )]
    WrongSecret {
        /// Role of the repository.
        role: RoleName,
        /// File with the secret.
        path: PathBuf,
        /// Result of each slot that was tried.
        slots: Vec<(KeyId, KeySlotError)>,
        /// Number of slots that were not tried, because there are too many, or trying all would take too long.
        untried: usize,
    },
    /// The store shows no key slot at all.
    #[error("the repository of role {role} is encrypted, and {store} shows none of its key slots")]
    NoKeySlots {
        /// Role of the repository.
        role: RoleName,
        /// Store that was listed.
        store: String,
    },
    /// A key is configured, and the repository is not encrypted.
    #[error("the repository of role {role} is not encrypted, although a key is configured")]
    NotEncrypted {
        /// Role of the repository.
        role: RoleName,
    },
    /// The repository is encrypted, and no key is configured.
    #[error("the repository of role {role} is encrypted, and no key is configured")]
    KeyNeeded {
        /// Role of the repository.
        role: RoleName,
    },
}

/// Why a key or passphrase file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// The file cannot be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Reading the file did not end in time.
    #[error("it could not be read within {}", humantime::format_duration(*.0))]
    Silent(Duration),
    /// The file holds something else.
    #[error("{0}")]
    Content(#[from] SlotSecretError),
    /// Other users can replace the file or its content.
    #[error("it is not used, since other users of this host can change what is in it: {0}")]
    Exposed(FileExposure),
}

/// Reads a file with a key or a passphrase, unless other users can change it.
fn read_secret_file(path: &Path, patience: Duration) -> Result<Vec<u8>, SecretFileError> {
    match access::refusal(path) {
        Some(exposure) => Err(SecretFileError::Exposed(exposure)),
        None => with_unlock_step(UnlockStep::Read, || read_in_time(path, patience)),
    }
}

/// Maximum size of a key or passphrase file.
const SECRET_FILE_MAX: u64 = 64 << 10;

/// Maximum time to read it. It may be a FIFO that a person's password manager writes to, or lie on a server that hangs.
const SECRET_PATIENCE: Duration = Duration::from_mins(1);

/// Maximum number of files that are being read at a time; each occupies a thread.
const SECRETS_WAITING: usize = 32;

/// Reads a file whose read may never return.
fn read_in_time(path: &Path, patience: Duration) -> Result<Vec<u8>, SecretFileError> {
    static WAITING: AtomicUsize = AtomicUsize::new(0);
    let silent = || Err(SecretFileError::Silent(patience));
    if WAITING.fetch_add(1, Ordering::Relaxed) >= SECRETS_WAITING {
        WAITING.fetch_sub(1, Ordering::Relaxed);
        return silent();
    }
    let (tell, told) = mpsc::channel();
    let from = path.to_owned();
    let reading = thread::Builder::new().name("secret".to_owned()).spawn(move || {
        // The receiver may have given up.
        let _ = tell.send(file::read(&from, SECRET_FILE_MAX));
        WAITING.fetch_sub(1, Ordering::Relaxed);
    });
    if let Err(error) = reading {
        WAITING.fetch_sub(1, Ordering::Relaxed);
        return Err(error.into());
    }
    let wait = || told.recv_timeout(patience);
    // On a multi-threaded runtime, other worker threads take over this thread's tasks.
    let came = match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait),
        _ => wait(),
    };
    came.map_or_else(|_| silent(), |read| Ok(read?))
}

/// The secret that a key source names; `None` if there is no encryption.
pub fn read_secret(source: &KeySource) -> Result<Option<(SlotSecret, &Path)>, OpenError> {
    let (path, secret) = match source {
        KeySource::None => return Ok(None),
        KeySource::KeyFile(path) => {
            let text = read_secret_file(path, SECRET_PATIENCE);
            let secret = text.and_then(|t| Ok(SlotSecret::parse_key_file(&String::from_utf8_lossy(&t))?));
            (path, secret)
        }
        KeySource::PassphraseFile(path) => {
            let bytes = read_secret_file(path, SECRET_PATIENCE);
            (path, bytes.and_then(|b| Ok(SlotSecret::parse_passphrase(&b)?)))
        }
    };
    match secret {
        Ok(secret) => Ok(Some((secret, path))),
        Err(error) => {
            let is_passphrase = matches!(source, KeySource::PassphraseFile(_));
            Err(OpenError::Secret { path: path.clone(), is_passphrase, error })
        }
    }
}

impl Repository {
    /// Opens the repository of `role` with the secret that `key` names.
    pub async fn open(store: Arc<dyn Store>, role: &RoleName, key: &KeySource) -> Result<Self, OpenError> {
        Self::open_by(store, role, key, |_| None).await
    }

    /// The same with the ID of the slot that was used last, if `remembered` has it: the others are read only if that
    /// slot does not open.
    pub async fn open_by(
        store: Arc<dyn Store>,
        role: &RoleName,
        key: &KeySource,
        remembered: impl FnOnce(RepoId) -> Option<KeyId>,
    ) -> Result<Self, OpenError> {
        let object = match store.get(&object_keys::format(role), SizeLimit::FORMAT).await {
            Ok(object) => object,
            Err(e) if e.is_not_found() => {
                return Err(OpenError::NoRepository { role: role.clone(), store: store.describe() });
            }
            Err(e) => return Err(e.into()),
        };
        Self::open_object(store, &object, role, key, remembered).await
    }

    /// The same; `deriving` tells when the key file is read or a key is derived from a passphrase: that is work of this
    /// machine, not of the store.
    pub(crate) async fn open_watched(
        store: Arc<dyn Store>,
        role: &RoleName,
        key: &KeySource,
        remembered: impl FnOnce(RepoId) -> Option<KeyId>,
        deriving: &UnlockProgress,
    ) -> Result<Self, OpenError> {
        DERIVING.scope(Arc::clone(deriving), Self::open_by(store, role, key, remembered)).await
    }

    /// The same with this `format` object.
    pub(crate) async fn open_object(
        store: Arc<dyn Store>,
        object: &[u8],
        role: &RoleName,
        key: &KeySource,
        remembered: impl FnOnce(RepoId) -> Option<KeyId>,
    ) -> Result<Self, OpenError> {
        let bad = |error| OpenError::Format { role: role.clone(), error };
        let format = RepositoryFormat::parse(object, role).map_err(bad)?;
        let (keys, slot) = match (format.plaintext_key(), read_secret(key)?) {
            (Some(_), Some(_)) => return Err(OpenError::NotEncrypted { role: role.clone() }),
            (None, None) => return Err(OpenError::KeyNeeded { role: role.clone() }),
            (Some(master), None) => {
                let keys = format.derive_keys(master);
                RepositoryFormat::verify(object, &keys).map_err(bad)?;
                (keys, None)
            }
            (None, Some((secret, path))) => {
                let remembered = remembered(format.repo);
                Box::pin(unlock(store.as_ref(), object, &format, (&secret, path), remembered)).await?
            }
        };
        let (slot, slot_object) = slot.map(|slot| (slot.id(), slot.encode())).unzip();
        Ok(Self { store, format, keys, slot, slot_object })
    }

    /// Remembers on this node what is needed to unlock the repository.
    pub(crate) fn save_unlock_objects(&self, local: &LocalState) -> std::io::Result<()> {
        local.save_unlock_objects(&self.format.encode(&self.keys), self.slot_object.as_deref())
    }

    /// The role it belongs to.
    pub fn role(&self) -> &RoleName {
        &self.format.role
    }

    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.format.cipher != Cipher::None
    }
}

/// A key slot of a role, as stored.
#[derive(Debug, Clone)]
pub struct StoredKeySlot {
    /// ID of the slot.
    pub id: KeyId,
    /// When it was written, by the store's clock.
    pub written: Timestamp,
    /// Its content, or why it cannot be read.
    pub slot: Result<KeySlot, KeySlotError>,
}

impl StoredKeySlot {
    /// The newest generation of the repository key that the slot claims to hold. Only a slot that opens may be
    /// believed.
    pub fn generation(&self) -> KeyGeneration {
        self.slot.as_ref().map_or(KeyGeneration::FIRST, |slot| slot.generation)
    }

    /// Rank in the order of trying, the lowest first: slots in `first`, then slots with this program's own cost. Slots
    /// that others plant use up the allowed work.
    fn place(&self, first: &[KeyId]) -> (bool, bool) {
        (!first.contains(&self.id), !self.slot.as_ref().is_ok_and(|slot| slot.kind.is_default()))
    }
}

/// The key slots of a role.
#[derive(Debug, Clone, Default)]
pub struct KeySlotList {
    /// Oldest first: slots that fill up a store come after those of the people who made the repository.
    pub found: Vec<StoredKeySlot>,
    /// Number of further slots that were not read.
    pub skipped: usize,
}

/// Maximum number of key slots that are read.
const SLOTS_MAX: usize = 64;

/// Maximum number of names below `keys/` that are listed to find the oldest.
const SLOT_NAMES_MAX: usize = 10_000;

/// Maximum number of copies of rotation records that are read for the slots that they made.
const COPIES_ASKED_MAX: usize = 4;

/// The key slots of a role, readable or not, the oldest `SLOTS_MAX` of them.
pub async fn list_key_slots(store: &dyn Store, role: &RoleName) -> Result<KeySlotList, StoreError> {
    let (mut named, _) = slot_names(store, role).await?;
    let passed_over = named.split_off(named.len().min(SLOTS_MAX)).len();
    Ok(KeySlotList { found: read_slots(store, role, named).await?, skipped: passed_over })
}

/// The same in the order of trying. The slots in `first` are never skipped. If there are more slots than are tried,
/// those of the newest rotations come first as well.
pub(in crate::job) async fn slots_to_try(
    store: &dyn Store,
    role: &RoleName,
    first: &[KeyId],
) -> Result<KeySlotList, StoreError> {
    let (mut named, is_crowded) = slot_names(store, role).await?;
    let mut first = first.to_vec();
    if is_crowded {
        first.extend(made_by_rotations(store, role).await?);
        named.sort_by_key(|(_, id)| !first.contains(id));
    }
    let passed_over = named.split_off(named.len().min(SLOTS_MAX)).len();
    let mut found = read_slots(store, role, named).await?;
    found.sort_by_key(|found| found.place(&first));
    Ok(KeySlotList { found, skipped: passed_over })
}

/// The names of slots, oldest first, and whether there are more than a passphrase can be tried on.
async fn slot_names(store: &dyn Store, role: &RoleName) -> Result<(Vec<(Timestamp, KeyId)>, bool), StoreError> {
    let prefix = object_keys::keys_prefix(role);
    let named = |object: ObjectMeta| Some((object.modified, object.key.strip_prefix(&prefix)?.parse::<KeyId>().ok()?));
    let mut named = list_filtered(store, &prefix, SLOT_NAMES_MAX, named).await?.found;
    named.sort();
    let is_crowded = named.len() as u64 > SLOT_WORK_KIB_MAX / KeyWrapping::PASSPHRASE.cost_kib();
    Ok((named, is_crowded))
}

async fn read_slots(
    store: &dyn Store,
    role: &RoleName,
    named: Vec<(Timestamp, KeyId)>,
) -> Result<Vec<StoredKeySlot>, StoreError> {
    let mut found = Vec::with_capacity(named.len());
    for (written, id) in named {
        found.extend(read_key_slot(store, role, id).await?.map(|slot| StoredKeySlot { id, written, slot }));
    }
    Ok(found)
}

/// The slots that the newest rotations made, according to the copies of their records. No key has verified these yet,
/// so such a slot is tried earlier, but not trusted more.
async fn made_by_rotations(store: &dyn Store, role: &RoleName) -> Result<Vec<KeyId>, StoreError> {
    let copy = |object: ObjectMeta| object_keys::parse_rotation(role, &object.key);
    let mut copies = list_filtered(store, &object_keys::rotations_prefix(role), SLOT_NAMES_MAX, copy).await?.found;
    copies.sort_unstable();
    let mut made = Vec::new();
    for seq in copies.into_iter().rev().take(COPIES_ASKED_MAX) {
        let object = match store.get(&object_keys::rotation(role, seq), SizeLimit::RECORD_AHEAD).await {
            Ok(object) => object,
            Err(error) if error.is_not_found() || error.concerns_one_object() => continue,
            Err(error) => return Err(error),
        };
        if let Ok(Record { body: RecordBody::Rotate(body), .. }) = Record::decode(&object, None) {
            made.extend(body.slots.into_iter().take(SLOTS_MAX / COPIES_ASKED_MAX));
        }
    }
    Ok(made)
}

/// Maximum work for trying slots per command: memory times passes, in KiB. Twenty of this program's own passphrase
/// slots, a few seconds.
const SLOT_WORK_KIB_MAX: u64 = 4 << 20;

/// A step of unlocking that takes time on this machine and says nothing about the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnlockStep {
    /// The key or passphrase file is read.
    Read,
    /// A key is derived from a passphrase.
    Derive,
}

/// The step in progress, if any.
pub(crate) type UnlockProgress = Arc<watch::Sender<Option<UnlockStep>>>;

/// Publishes the step while `does` runs.
fn with_unlock_step<T>(work: UnlockStep, does: impl FnOnce() -> T) -> T {
    let tell = |work| DERIVING.try_with(|deriving| deriving.send_replace(work));
    let _ = tell(Some(work));
    let done = does();
    let _ = tell(None);
    done
}

tokio::task_local! {
    /// Receives the step in progress, if the caller wants to know it.
    static DERIVING: UnlockProgress;
}

/// Tries slots within a total limit of work.
#[derive(Debug)]
pub struct KeySlotTrial {
    left_kib: u64,
    /// Number of slots that were not tried, because the limit was reached.
    pub untried: usize,
}

impl Default for KeySlotTrial {
    fn default() -> Self {
        Self { left_kib: SLOT_WORK_KIB_MAX, untried: 0 }
    }
}

impl KeySlotTrial {
    /// With another limit.
    #[cfg(test)]
    pub(crate) fn with_work_kib(left_kib: u64) -> Self {
        Self { left_kib, ..Self::default() }
    }

    /// Unwraps the key in the slot with `secret`; `None`: the slot was not tried. A derivation that takes long runs on
    /// a blocking thread.
    pub async fn unwrap(
        &mut self,
        slot: &KeySlot,
        secret: &SlotSecret,
        repo: RepoId,
    ) -> Option<Result<Keyring, KeySlotError>> {
        let is_phrase = matches!((secret, &slot.kind), (SlotSecret::Passphrase(_), KeyWrapping::Passphrase { .. }));
        if !is_phrase {
            return Some(slot.unwrap(secret, repo));
        }
        let Some(left) = self.left_kib.checked_sub(slot.kind.cost_kib()) else {
            self.untried += 1;
            return None;
        };
        self.left_kib = left;
        let (slot, secret) = (slot.clone(), secret.clone());
        let tell = |work| DERIVING.try_with(|deriving| deriving.send_replace(work));
        let _ = tell(Some(UnlockStep::Derive));
        let tried = tokio::task::spawn_blocking(move || slot.unwrap(&secret, repo)).await;
        let _ = tell(None);
        Some(tried.unwrap_or(Err(KeySlotError::WrongSecret)))
    }
}

/// Reads one slot, if it is there.
async fn read_key_slot(
    store: &dyn Store,
    role: &RoleName,
    id: KeyId,
) -> Result<Option<Result<KeySlot, KeySlotError>>, StoreError> {
    match store.get(&object_keys::key(role, id), SizeLimit::KEY_SLOT).await {
        Ok(bytes) => Ok(Some(KeySlot::open(id, &bytes))),
        Err(e) if e.is_not_found() => Ok(None),
        Err(e) if e.is_not_an_object() => Ok(Some(Err(KeySlotError::Damaged(format!("{}: {}", e.kind, e.detail))))),
        Err(e) => Err(e),
    }
}

/// Tries the remembered slot, and then every other. A slot that opens but holds a key that `format` does not confirm is
/// left from an `init` that lost a race.
async fn unlock(
    store: &dyn Store,
    object: &[u8],
    format: &RepositoryFormat,
    (secret, path): (&SlotSecret, &Path),
    remembered: Option<KeyId>,
) -> Result<(DerivedKeys, Option<KeySlot>), OpenError> {
    let verified = |keyring: Keyring| {
        let keys = format.derive_keys(keyring);
        RepositoryFormat::verify(object, &keys).is_ok().then_some(keys)
    };
    let wrong = |slots, untried| {
        let (role, path) = (format.role.clone(), path.to_owned());
        OpenError::WrongSecret { role, path, slots, untried }
    };
    if let SlotSecret::Exported(repo, master) = secret {
        let keys = (*repo == format.repo).then(|| verified(master.clone())).flatten();
        return keys.map(|keys| (keys, None)).ok_or_else(|| wrong(Vec::new(), 0));
    }
    let mut trial = KeySlotTrial::default();
    if let Some(id) = remembered
        && let Some(Ok(slot)) = read_key_slot(store, &format.role, id).await?
        && let Some(Ok(master)) = trial.unwrap(&slot, secret, format.repo).await
        && let Some(keys) = verified(master)
    {
        return Ok((keys, Some(slot)));
    }
    let mut refused = Vec::new();
    let mut opened = false;
    let KeySlotList { found, skipped: passed_over } = slots_to_try(store, &format.role, &[]).await?;
    // A repository has a slot from its creation on: the listing lacks it, or it was removed. The given secret was not
    // even tried.
    if found.is_empty() {
        return Err(OpenError::NoKeySlots { role: format.role.clone(), store: store.describe() });
    }
    let mut best: Option<(DerivedKeys, Option<KeySlot>)> = None;
    for found in found {
        // An older slot that could not be deleted holds fewer generations than a newer one.
        if best.as_ref().is_some_and(|(keys, _)| found.generation() <= keys.generation()) {
            continue;
        }
        let StoredKeySlot { id, slot, .. } = found;
        let tried = match slot {
            Ok(slot) => trial.unwrap(&slot, secret, format.repo).await.map(|tried| tried.map(|master| (master, slot))),
            Err(error) => Some(Err(error)),
        };
        match tried {
            Some(Ok((master, slot))) => match verified(master) {
                Some(keys) => best = Some((keys, Some(slot))),
                None => opened = true,
            },
            Some(Err(error)) => refused.push((id, error)),
            None => {}
        }
    }
    if let Some(best) = best {
        return Ok(best);
    }
    if opened {
        return Err(OpenError::Format { role: format.role.clone(), error: FormatError::Forged });
    }
    Err(wrong(refused, passed_over + trial.untried))
}

#[cfg(test)]
mod tests;
