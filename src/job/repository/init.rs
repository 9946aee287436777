//! `init`: creates a role's repository, or finds that it exists. Safe to repeat, on one node or on all at once.
//!
//! `format` is written last and only if absent: before it is there nothing reads the prefix as a repository, so an
//! interrupted `init` is simply run again. A prefix that holds anything else is refused: a second repository over the
//! remains of a first would make both unreadable. In a store that ignores conditions, etcd chooses one of the `format`
//! objects that are put at the same time.

mod claim;
pub mod error;
pub(crate) mod new_object;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::config::{JournalPlacement, KeySource};
use crate::env::Env;
use crate::file;
use crate::ids::{RepoId, RoleName, Seq};
use crate::job::report::setup::InitRoleReport;
use crate::job::repository::disk_reserve;
use crate::job::repository::init::error::InitError;
use crate::job::repository::init::new_object::put_new;
use crate::job::repository::journal_access::JournalAccess;
use crate::job::repository::known_repository::RepositoryLocation;
use crate::job::repository::open::{OpenError, Repository, SecretFileError, read_secret};
use crate::journal::error::EtcdHeadError;
use crate::repo::crypto::{Cipher, DerivedKeys};
use crate::repo::format::{self, ChunkerParams, JournalLocation, RepositoryFormat};
use crate::repo::keyring::{Keyring, RepositoryKey};
use crate::repo::keyslot::{KeySlot, SlotSecret};
use crate::repo::object_keys;
use crate::store::{ObjectMeta, SizeLimit, Store, list_filtered, proof};

/// Refuses to create a repository where this node knows one that is missing now: the file system is not mounted, or the
/// store was emptied. `store` is `None` if it is a directory that does not exist.
///
/// # Errors
/// The known repository is gone, or the store does not answer.
pub async fn refuse_gone(
    store: Option<&dyn Store>,
    place: &RepositoryLocation,
    state_dir: Option<&Path>,
    env: &Env,
) -> Result<(), InitError> {
    let known = place.load_repository_id(env, state_dir);
    let known = known.map_err(|error| InitError::Unread { store: place.store().to_owned(), error })?;
    let Some(repository) = known else { return Ok(()) };
    if let Some(store) = store {
        match store.get(&object_keys::format(place.role()), SizeLimit::FORMAT).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error.into()),
        }
        // If something is left of the repository, that is reported instead.
        refuse_remains(store, place.role()).await?;
    }
    Err(InitError::Gone { store: place.store().to_owned(), role: place.role().clone(), repository })
}

/// Creates the repository of `role`, or opens the existing one.
pub async fn init(
    store: Arc<dyn Store>,
    role: &RoleName,
    key: &KeySource,
    journal_access: &JournalAccess,
    env: &Env,
) -> Result<(Repository, InitRoleReport), InitError> {
    let mut report = InitRoleReport {
        role: role.clone(),
        store: store.describe(),
        repository: RepoId([0; RepoId::LEN]),
        created: false,
        journal: JournalPlacement::Bucket,
        proof_rounds: 0,
        key: key.clone(),
        key_file_created: false,
        shared: false,
    };
    match Repository::open(store.clone(), role, key).await {
        Ok(repository) => return existing_repository(repository, report, journal_access),
        Err(OpenError::NoRepository { .. }) => {}
        Err(e) => return Err(e.into()),
    }
    if let Err(error) = refuse_remains(store.as_ref(), role).await {
        // Another node may have created it at the same moment.
        let repository = Repository::open(store, role, key).await;
        return repository
            .map_err(|_| error)
            .and_then(|repository| existing_repository(repository, report, journal_access));
    }
    let journal = choose_journal_home(store.as_ref(), role, journal_access, env).await?;
    if journal == JournalLocation::Bucket {
        report.proof_rounds = proof::ROUNDS as u32;
    }

    let (secret, created) = make_secret(key, env)?;
    report.key_file_created = created;
    let keyring = Keyring::from(RepositoryKey::new(env.random_bytes()));
    let repo = RepoId(env.random_bytes());
    let cipher = if secret.is_some() { Cipher::Aes256GcmSiv } else { Cipher::None };
    let keys = DerivedKeys::new(cipher, repo, role.clone(), keyring.clone());
    if let Some(secret) = &secret {
        let Some(slot) = KeySlot::wrap(secret, &keyring, repo, env) else {
            let (KeySource::KeyFile(path) | KeySource::PassphraseFile(path)) = key else {
                unreachable!("a secret comes from a file")
            };
            return Err(InitError::ExportedKey(path.clone()));
        };
        put_new(store.as_ref(), &object_keys::key(role, slot.id()), slot.encode()).await?;
    }
    let format = RepositoryFormat {
        v: format::VERSION,
        role: role.clone(),
        repo,
        created: store_time(store.as_ref(), env.clock.now()),
        cipher,
        journal,
        chunker: ChunkerParams::default(),
        clear_key: secret.is_none().then(|| hex::encode(&keyring.first().0[..])),
    };
    // If two nodes do this at once, one wins and both end up with the winner's repository.
    let object = format.encode(&keys);
    report.created = match journal {
        JournalLocation::Bucket => put_new(store.as_ref(), &object_keys::format(role), object).await?,
        JournalLocation::Etcd { .. } => {
            claim::put_chosen(store.as_ref(), role, journal_access, Bytes::from(object)).await?
        }
    };
    let repository = Repository::open(store, role, key).await?;
    disk_reserve::ensure_reserve(repository.store.as_ref(), role, env).await;
    existing_repository(repository, report, journal_access)
}

/// The store's time, as far as it is known: slots are owed from then on.
fn store_time(store: &dyn Store, now: Timestamp) -> Timestamp {
    store.clock_offset().and_then(|offset| now.checked_add(offset).ok()).unwrap_or(now)
}

/// The existing repository, if its journal is where the config wants it.
fn existing_repository(
    repository: Repository,
    report: InitRoleReport,
    journal_access: &JournalAccess,
) -> Result<(Repository, InitRoleReport), InitError> {
    journal_access.check_placement(&repository)?;
    let report =
        InitRoleReport { repository: repository.format.repo, journal: place(repository.format.journal), ..report };
    Ok((repository, report))
}

/// The location of a journal, in the config's words.
fn place(home: JournalLocation) -> JournalPlacement {
    match home {
        JournalLocation::Bucket => JournalPlacement::Bucket,
        JournalLocation::Etcd { .. } => JournalPlacement::Etcd,
    }
}

/// Decides where the journal lives. This is done once, because `format` records it.
async fn choose_journal_home(
    store: &dyn Store,
    role: &RoleName,
    journal_access: &JournalAccess,
    env: &Env,
) -> Result<JournalLocation, InitError> {
    let claim = journal_access.creation_register(role);
    if journal_access.said() != JournalPlacement::Etcd {
        let failure = match proof::prove(store, &object_keys::probe(role), env).await {
            Ok(()) => return Ok(JournalLocation::Bucket),
            Err(failure) => failure.into_definite()?,
        };
        if !failure.is_certain() {
            return Err(InitError::Unproved { store: store.describe(), failure });
        }
        if journal_access.said() == JournalPlacement::Bucket || claim.is_none() {
            return Err(InitError::Proof { store: store.describe(), failure });
        }
        tracing::info!("{} cannot hold a journal ({failure}): it goes to etcd", store.describe());
    }
    let claim = claim.ok_or_else(|| EtcdHeadError::NoEtcd { role: role.clone() })?;
    Ok(JournalLocation::Etcd { cluster: claim.read().await?.cluster })
}

/// Key slots and probes without a `format` are left from an interrupted `init`; anything else is a person's data.
async fn refuse_remains(store: &dyn Store, role: &RoleName) -> Result<(), InitError> {
    let own = [object_keys::keys_prefix(role), object_keys::live_prefix(role)];
    let not_empty = |key| InitError::NotEmpty { store: store.describe(), key };
    let foreign = |object: ObjectMeta| (!own.iter().any(|prefix| object.key.starts_with(prefix))).then_some(object.key);
    if let Some(key) = list_filtered(store, &object_keys::role_prefix(role), 1, foreign).await?.found.pop() {
        return Err(not_empty(key));
    }
    // A listing may be incomplete. A journal begins with this record, and never loses it.
    let first = object_keys::record(role, Seq(1));
    match store.get(&first, SizeLimit::RECORD).await {
        Ok(_) => Err(not_empty(first)),
        Err(e) if e.is_not_found() => Ok(()),
        Err(e) => Err(e.into()),
    }
}

/// The configured secret. A missing key file is created, since nothing has been encrypted with it yet. Also returns
/// whether it was created.
fn make_secret(key: &KeySource, env: &Env) -> Result<(Option<SlotSecret>, bool), InitError> {
    match (key, read_secret(key)) {
        (_, Ok(secret)) => Ok((secret.map(|(secret, _)| secret), false)),
        (KeySource::KeyFile(path), Err(OpenError::Secret { error: SecretFileError::Io(e), .. }))
            if e.kind() == std::io::ErrorKind::NotFound =>
        {
            let secret = SlotSecret::generate(env);
            write_key_file(path, &secret).map_err(|error| InitError::KeyFile { path: path.clone(), error })?;
            Ok((Some(secret), true))
        }
        (_, Err(e)) => Err(e.into()),
    }
}

/// Writes a key file that only its owner can read, durably, so that a crash cannot lose it once something was encrypted
/// with it.
pub fn write_key_file(path: &Path, secret: &SlotSecret) -> std::io::Result<()> {
    let text = secret.to_key_file_text().ok_or_else(|| std::io::Error::other("a passphrase has no key file"))?;
    let parent = file::parent(path);
    // A missing directory may be a typing error, or a disk that is not mounted.
    if !parent.try_exists()? {
        let why = format!("there is no directory {}", parent.display());
        return Err(std::io::Error::new(std::io::ErrorKind::NotFound, why));
    }
    file::create(path, text.as_bytes())
}
