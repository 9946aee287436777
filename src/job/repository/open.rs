//! Opening a role's repository: find `format`, unlock the key, check that both belong together.

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
use crate::job::node::local_state::LocalState;
use crate::journal::record::{Record, RecordBody};
use crate::repo::crypto::{Cipher, DerivedKeys};
use crate::repo::format::{FormatError, RepositoryFormat};
use crate::repo::keyring::Keyring;
use crate::repo::keyslot::{KeySlot, KeySlotError, KeyWrapping, SlotSecret, SlotSecretError};
use crate::repo::object_keys;
use crate::store::{ObjectMeta, SizeLimit, Store, StoreError, list_filtered};

/// A role's repository, unlocked.
#[derive(Debug, Clone)]
pub struct Repository {
    /// Where it is.
    pub store: Arc<dyn Store>,
    /// What it is.
    pub format: RepositoryFormat,
    /// Its keys.
    pub keys: DerivedKeys,
    /// The key slot that gave them.
    pub slot: Option<KeyId>,
    /// That slot as it is stored.
    pub slot_object: Option<Vec<u8>>,
}

/// Why a repository cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nothing is there.
    #[error("there is no repository for role {role} in {store}")]
    NoRepository {
        /// Which role.
        role: RoleName,
        /// Where.
        store: String,
    },
    /// Nothing is there, where this node knows a repository.
    #[error("there is no repository for role {role} in {store}, and this node knows one there ({repository})")]
    Gone {
        /// Which role.
        role: RoleName,
        /// Where.
        store: String,
        /// Its ID.
        repository: RepoId,
    },
    /// Another one is there than this node knows.
    #[error("{store} holds repository {found} of role {role}, and this node knows another one there ({known})")]
    Another {
        /// Which role.
        role: RoleName,
        /// Where.
        store: String,
        /// The one that is known.
        known: RepoId,
        /// The one that is there.
        found: RepoId,
    },
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The `format` object.
    #[error("the repository of role {role} cannot be used: {error}")]
    Format {
        /// Which role.
        role: RoleName,
        /// Why.
        error: FormatError,
    },
    /// The key or passphrase file.
    #[error("{}: {error}", path.display())]
    Secret {
        /// Which file.
        path: PathBuf,
        /// Whether a person writes it: `init` makes key files alone.
        is_passphrase: bool,
        /// Why.
        error: SecretFileError,
    },
    /// No slot opens with it.
    #[error(
        "the key or passphrase in {} does not open the repository of role {role} ({} tried{})",
        path.display(),
        if slots.len() == 1 { "1 key slot".to_owned() } else { format!("{} key slots", slots.len()) },
        if *untried > 0 { format!(", {untried} more not: there are too many") } else { String::new() }
    )]
    WrongSecret {
        /// Which role.
        role: RoleName,
        /// Which file.
        path: PathBuf,
        /// What each slot said.
        slots: Vec<(KeyId, KeySlotError)>,
        /// Slots that were not tried, since there are too many, or trying them all would take too long.
        untried: usize,
    },
    /// The store shows no slot at all.
    #[error("the repository of role {role} is encrypted, and {store} shows none of its key slots")]
    NoKeySlots {
        /// Which role.
        role: RoleName,
        /// Where.
        store: String,
    },
    /// A key is configured, and the repository is not encrypted.
    #[error("the repository of role {role} is not encrypted, although a key is configured")]
    NotEncrypted {
        /// Which role.
        role: RoleName,
    },
    /// The repository is encrypted, and no key is configured.
    #[error("the repository of role {role} is encrypted, and no key is configured")]
    KeyNeeded {
        /// Which role.
        role: RoleName,
    },
}

/// Why a key or passphrase file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SecretFileError {
    /// It cannot be read.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// Nothing came of it.
    #[error("it could not be read within {}", humantime::format_duration(*.0))]
    Silent(Duration),
    /// It holds something else.
    #[error("{0}")]
    Content(#[from] SlotSecretError),
    /// Everybody can put another one in its place.
    #[error("it is not used, since other users of this host can change what is in it: {0}")]
    Exposed(FileExposure),
}

/// A file with a key or a passphrase, unless others can change it.
fn read_secret_file(path: &Path, patience: Duration) -> Result<Vec<u8>, SecretFileError> {
    match access::refusal(path) {
        Some(exposure) => Err(SecretFileError::Exposed(exposure)),
        None => with_unlock_step(UnlockStep::Read, || read_in_time(path, patience)),
    }
}

/// The longest key or passphrase file that is read.
const SECRET_FILE_MAX: u64 = 64 << 10;

/// How long it is waited for. It may be a FIFO, into which a person's password manager writes, or be on a server that hangs.
const SECRET_PATIENCE: Duration = Duration::from_mins(1);

/// So many files that do not answer are waited for at a time; each keeps its thread.
const SECRETS_WAITING: usize = 32;

/// Reads a file that may never have anything to read.
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
        // Whoever waited may have gone.
        let _ = tell.send(file::read(&from, SECRET_FILE_MAX));
        WAITING.fetch_sub(1, Ordering::Relaxed);
    });
    if let Err(error) = reading {
        WAITING.fetch_sub(1, Ordering::Relaxed);
        return Err(error.into());
    }
    let wait = || told.recv_timeout(patience);
    // Others of the runtime's few threads go on with what this one had to do.
    let came = match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(wait),
        _ => wait(),
    };
    came.map_or_else(|_| silent(), |read| Ok(read?))
}

/// The secret that a key source names; `None` for no encryption.
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
    /// Opens the repository of `role` with what `key` names.
    pub async fn open(store: Arc<dyn Store>, role: &RoleName, key: &KeySource) -> Result<Self, OpenError> {
        Self::open_by(store, role, key, |_| None).await
    }

    /// The same by somebody who may remember which slot it was: the others are looked at only if that one is of no use.
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

    /// The same, and `deriving` says while the key is read, or derived from a passphrase: that is work of this machine, not of the store.
    pub(crate) async fn open_watched(
        store: Arc<dyn Store>,
        role: &RoleName,
        key: &KeySource,
        remembered: impl FnOnce(RepoId) -> Option<KeyId>,
        deriving: &UnlockProgress,
    ) -> Result<Self, OpenError> {
        DERIVING.scope(Arc::clone(deriving), Self::open_by(store, role, key, remembered)).await
    }

    /// The same by this `format`.
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

    /// Lets this node remember what leads into it.
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

/// One key slot of a role as it stands in the store.
#[derive(Debug, Clone)]
pub struct StoredKeySlot {
    /// Its name.
    pub id: KeyId,
    /// When it was written, by the store's clock.
    pub written: Timestamp,
    /// What it holds, or why that cannot be told.
    pub slot: Result<KeySlot, KeySlotError>,
}

impl StoredKeySlot {
    /// The newest generation of the repository key that it gives, as it says: only to one that opens may this be believed.
    pub fn generation(&self) -> KeyGeneration {
        self.slot.as_ref().map_or(KeyGeneration::FIRST, |slot| slot.generation)
    }

    /// Its place among those that are tried, the lowest first: one of `first`, then one that asks for what this program asks for. What
    /// others put there uses up the work that is allowed.
    fn place(&self, first: &[KeyId]) -> (bool, bool) {
        (!first.contains(&self.id), !self.slot.as_ref().is_ok_and(|slot| slot.kind.is_default()))
    }
}

/// The key slots of a role.
#[derive(Debug, Clone, Default)]
pub struct KeySlotList {
    /// The oldest first: whoever fills a store with slots comes after those who made the repository.
    pub found: Vec<StoredKeySlot>,
    /// So many more were not looked at.
    pub skipped: usize,
}

/// The most key slots that are read.
const SLOTS_MAX: usize = 64;

/// The most names below `keys/` that are looked at to find the oldest.
const SLOT_NAMES_MAX: usize = 10_000;

/// The most copies of rotations that are asked which slots those made.
const COPIES_ASKED_MAX: usize = 4;

/// The key slots of a role, readable or not, the oldest [`SLOTS_MAX`] of them.
pub async fn list_key_slots(store: &dyn Store, role: &RoleName) -> Result<KeySlotList, StoreError> {
    let (mut named, _) = slot_names(store, role).await?;
    let passed_over = named.split_off(named.len().min(SLOTS_MAX)).len();
    Ok(KeySlotList { found: read_slots(store, role, named).await?, skipped: passed_over })
}

/// The same in the order in which they are to be tried: those in `first`, which are not passed over, and, where there are more than are
/// looked at, those of the newest rotations.
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

/// The names of slots, the oldest first, and whether there are more than can all be tried by a passphrase.
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

/// The slots that the newest rotations made, as the copies of their records say. No key has shown yet that these are genuine, so such a slot
/// is tried before others and not believed more.
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

/// What trying slots may cost one command: memory times passes, in KiB. Twenty of this program's own passphrase slots, a few seconds.
const SLOT_WORK_KIB_MAX: u64 = 4 << 20;

/// What is done for a key, which says nothing of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum UnlockStep {
    /// The key or passphrase file is read.
    Read,
    /// A key is derived from a passphrase.
    Derive,
}

/// What of it is done at the moment.
pub(crate) type UnlockProgress = Arc<watch::Sender<Option<UnlockStep>>>;

/// Tells whoever listens that this is done meanwhile.
fn with_unlock_step<T>(work: UnlockStep, does: impl FnOnce() -> T) -> T {
    let tell = |work| DERIVING.try_with(|deriving| deriving.send_replace(work));
    let _ = tell(Some(work));
    let done = does();
    let _ = tell(None);
    done
}

tokio::task_local! {
    /// Who is told of it, if anybody.
    static DERIVING: UnlockProgress;
}

/// Tries slots, and does no more than so much work in all.
#[derive(Debug)]
pub struct KeySlotTrial {
    left_kib: u64,
    /// Slots that were not tried any more.
    pub untried: usize,
}

impl Default for KeySlotTrial {
    fn default() -> Self {
        Self { left_kib: SLOT_WORK_KIB_MAX, untried: 0 }
    }
}

impl KeySlotTrial {
    /// With less work, or more.
    #[cfg(test)]
    pub(crate) fn with_work_kib(left_kib: u64) -> Self {
        Self { left_kib, ..Self::default() }
    }

    /// What the slot gives out for `secret`; `None`: it was not tried. What takes its time does so on a thread that may block.
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

/// One of them, if it is there.
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

/// Tries the slot that is remembered, and then every one. One that opens but gives a key that `format` does not know is left from an
/// `init` that lost a race.
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
    // There is one from the first moment on: the listing lacks them, or they were removed. The given secret was not even tried.
    if found.is_empty() {
        return Err(OpenError::NoKeySlots { role: format.role.clone(), store: store.describe() });
    }
    let mut best: Option<(DerivedKeys, Option<KeySlot>)> = None;
    for found in found {
        // An older slot that could not be deleted gives less than a newer one.
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
