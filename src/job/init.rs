//! `init`: makes a role's repository, or finds that it is there. Safe to repeat, on one node or on all at once.
//!
//! `format` is written last and only if absent: before it is there nothing reads the prefix as a repository, so an `init` that
//! was cut short is simply done again. A prefix that holds anything else is refused: a second repository over the remains of a
//! first would make both unreadable.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use crate::config::{JournalPlace, KeySource};
use crate::env::Env;
use crate::ids::{RepoId, RoleName};
use crate::job::report::setup::InitRole;
use crate::job::repository::{OpenError, Repository, SecretFileError, read_secret};
use crate::repo::crypto::{Cipher, Keys, RepositoryKey};
use crate::repo::format::{self, ChunkerParams, Format, JournalHome};
use crate::repo::keyslot::{KeySlot, Secret};
use crate::repo::names;
use crate::store::proof::{self, ProofFailure};
use crate::store::{PutOutcome, Store, StoreError};

/// How often a put of unknown outcome is looked at again before `init` gives up.
const PUT_ATTEMPTS: u32 = 5;

/// Why `init` did not make a repository.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// What is there cannot be opened.
    #[error("{0}")]
    Open(#[from] OpenError),
    /// The store.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// Something else is there.
    #[error("{store} holds {key}, but no repository: refusing to make one over it")]
    NotEmpty {
        /// Where.
        store: String,
        /// The first thing that was found.
        key: String,
    },
    /// The store cannot hold a journal.
    #[error("{store} cannot hold a journal: {failure}")]
    Proof {
        /// Where.
        store: String,
        /// How it failed.
        failure: ProofFailure,
    },
    /// Etcd.
    #[error("a journal in etcd is not part of this version")]
    JournalInEtcd,
    /// The key file could not be made.
    #[error("{}: {error}", path.display())]
    KeyFile {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A key from `key export` opens one repository and can make none.
    #[error("{} holds the exported key of one repository; making a new one takes a key file or a passphrase", .0.display())]
    ExportedKey(PathBuf),
    /// It may be there or not.
    #[error("whether {key} was written cannot be told: {why}")]
    Unknown {
        /// Which object.
        key: String,
        /// What came instead of an answer.
        why: String,
    },
}

/// Makes the repository of `role`, or opens the one that is there.
pub async fn init(
    store: Arc<dyn Store>,
    role: &RoleName,
    key: &KeySource,
    journal: JournalPlace,
    env: &Env,
) -> Result<(Repository, InitRole), InitError> {
    let mut report = InitRole {
        role: role.clone(),
        store: store.describe(),
        repository: RepoId([0; RepoId::LEN]),
        created: false,
        journal: JournalPlace::Bucket,
        proof_rounds: 0,
        key: key.clone(),
        key_file_created: false,
    };
    match Repository::open(store.clone(), role, key).await {
        Ok(repository) => {
            report.repository = repository.format.repo;
            return Ok((repository, report));
        }
        Err(OpenError::NoRepository { .. }) => {}
        Err(e) => return Err(e.into()),
    }
    if journal == JournalPlace::Etcd {
        return Err(InitError::JournalInEtcd);
    }
    refuse_remains(store.as_ref(), role).await?;
    proof::prove(store.as_ref(), &names::probe(role), env)
        .await
        .map_err(|failure| InitError::Proof { store: store.describe(), failure })?;
    report.proof_rounds = proof::ROUNDS as u32;

    let (secret, created) = make_secret(key, env)?;
    report.key_file_created = created;
    let master = RepositoryKey::new(env.random_bytes());
    let repo = RepoId(env.random_bytes());
    let cipher = if secret.is_some() { Cipher::Aes256GcmSiv } else { Cipher::None };
    let keys = Keys::new(cipher, repo, role.clone(), master.clone());
    if let Some(secret) = &secret {
        let Some(slot) = KeySlot::wrap(secret, &master, repo, env) else {
            let (KeySource::KeyFile(path) | KeySource::PassphraseFile(path)) = key else {
                unreachable!("a secret comes from a file")
            };
            return Err(InitError::ExportedKey(path.clone()));
        };
        put_new(store.as_ref(), &names::key(role, slot.id()), slot.encode()).await?;
    }
    let format = Format {
        v: format::VERSION,
        role: role.clone(),
        repo,
        created: env.clock.now(),
        cipher,
        journal: JournalHome::Bucket,
        chunker: ChunkerParams::default(),
        clear_key: secret.is_none().then(|| hex::encode(&master.0[..])),
    };
    // Of two nodes that do this at once one wins; both end up with the winner's repository.
    report.created = put_new(store.as_ref(), &names::format(role), format.encode(&keys)).await?;
    let repository = Repository::open(store, role, key).await?;
    report.repository = repository.format.repo;
    Ok((repository, report))
}

/// Key slots and probes without a `format` are an `init` that was cut short; anything else is somebody's data.
async fn refuse_remains(store: &dyn Store, role: &RoleName) -> Result<(), InitError> {
    let own = [names::keys_prefix(role), names::live_prefix(role)];
    for object in crate::store::list_all(store, &names::role_prefix(role)).await? {
        if !own.iter().any(|prefix| object.key.starts_with(prefix)) {
            return Err(InitError::NotEmpty { store: store.describe(), key: object.key });
        }
    }
    Ok(())
}

/// Puts an object that nobody else writes the same way. True: it is ours; false: another one is there.
pub(in crate::job) async fn put_new(store: &dyn Store, key: &str, object: Vec<u8>) -> Result<bool, InitError> {
    let object = Bytes::from(object);
    let mut last = String::new();
    for _ in 0..PUT_ATTEMPTS {
        match store.put_if_absent(key, object.clone()).await? {
            PutOutcome::Created => return Ok(true),
            PutOutcome::Exists => return Ok(store.get(key).await? == object),
            PutOutcome::Unknown { why } => last = why,
        }
        match store.get(key).await {
            Ok(there) => return Ok(there == object),
            Err(e) if e.is_not_found() => {}
            Err(e) => last = e.to_string(),
        }
    }
    Err(InitError::Unknown { key: key.to_owned(), why: last })
}

/// The configured secret. A key file that is missing is made, since nothing was encrypted with it yet; true if it was.
fn make_secret(key: &KeySource, env: &Env) -> Result<(Option<Secret>, bool), InitError> {
    match (key, read_secret(key)) {
        (_, Ok(secret)) => Ok((secret.map(|(secret, _)| secret), false)),
        (KeySource::KeyFile(path), Err(OpenError::Secret { error: SecretFileError::Io(e), .. }))
            if e.kind() == std::io::ErrorKind::NotFound =>
        {
            let secret = Secret::generate(env);
            write_key_file(path, &secret).map_err(|error| InitError::KeyFile { path: path.clone(), error })?;
            Ok((Some(secret), true))
        }
        (_, Err(e)) => Err(e.into()),
    }
}

/// Writes a key file that nobody else can read, and that a crash cannot lose once something was encrypted with it.
pub fn write_key_file(path: &Path, secret: &Secret) -> std::io::Result<()> {
    let text = secret.to_text().ok_or_else(|| std::io::Error::other("a passphrase has no key file"))?;
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o755).create(parent)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::File::open(parent)?.sync_all()
}
