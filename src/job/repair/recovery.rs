//! Opens a repository whose `format` or key slot is lost.
//!
//! The invariant: the result is never weaker than the lost object. A `format` is either this node's copy with a MAC
//! that fits the key, or rebuilt from a key that opens a slot and fits the MAC of a record; a rebuilt one is always
//! encrypted. This module writes nothing.

use std::cmp::Reverse;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::config::{JournalPlacement, KeySource};
use crate::env::Env;
use crate::ids::{KeyId, RepoId, RoleName, Seq};
use crate::job::local_state::LocalState;
use crate::job::repair::error::RepairError;

use crate::job::report::repaired::FormatSource;
use crate::job::repository::journal_access::JournalAccess;
use crate::job::repository::known_repository::RepositoryLocation;
use crate::job::repository::open::{
    KeySlotList, KeySlotTrial, OpenError, Repository, StoredKeySlot, read_secret, slots_to_try,
};
use crate::journal::record::Record;
use crate::journal::register;
use crate::repo::crypto::{Cipher, DerivedKeys};
use crate::repo::format::{self, ChunkerParams, FormatError, JournalLocation, RepositoryFormat};
use crate::repo::keyring::Keyring;
use crate::repo::keyslot::{KeySlot, SlotSecret};
use crate::repo::object_keys;
use crate::store::{LIST_PAGE_MAX, SizeLimit, Store};

/// Records that are read to identify the repository. One readable record is enough.
const SAMPLES: usize = 16;

/// The location of the repository, and what this node has to open it.
#[derive(Debug, Clone, Copy)]
pub struct RecoveryInputs<'a> {
    /// The role to open.
    pub role: &'a RoleName,
    /// The source of its key.
    pub key: &'a KeySource,
    /// The location under which this node remembers the repository.
    pub place: &'a RepositoryLocation,
    /// This node's state directory.
    pub state_dir: Option<&'a Path>,
    /// Access to the journals' heads.
    pub journal_access: &'a JournalAccess,
    /// Clock and randomness.
    pub env: &'a Env,
}

/// A repository that was opened despite losses.
#[derive(Debug)]
pub struct RecoveredRepository {
    /// The opened repository.
    pub repository: Repository,
    /// `Some` if its `format` has to be written: what is wrong with the stored one, and the origin of the new one.
    pub format: Option<(String, FormatSource)>,
    /// The key slot that this node remembers and the store lacks.
    pub slot: Option<(KeyId, Bytes)>,
}

/// Opens the repository from what is left of `format` and key slots.
///
/// # Errors
/// The repository cannot be opened; the error says why.
pub async fn open_damaged(store: Arc<dyn Store>, step: RecoveryInputs<'_>) -> Result<RecoveredRepository, RepairError> {
    let key = object_keys::format(step.role);
    let object = match store.get(&key, SizeLimit::FORMAT).await {
        Ok(object) => Ok(object),
        Err(error) if error.is_not_found() => Err("is missing".to_owned()),
        Err(error) if error.concerns_one_object() => Err(format!("cannot be read ({})", error.detail)),
        Err(error) => return Err(error.into()),
    };
    let (what, error) = match object {
        Ok(object) => match step.open(&store, &object).await {
            Ok((repository, slot)) => return Ok(RecoveredRepository { repository, format: None, slot }),
            Err(error) => match replaced(&error) {
                Some(what) => (what, error),
                None => return Err(error.into()),
            },
        },
        Err(what) => {
            let store = store.describe();
            (what, OpenError::NoRepository { role: step.role.clone(), store })
        }
    };
    match step.rebuild(&store).await? {
        Some((object, source)) => {
            let (repository, slot) = step.open(&store, &object).await?;
            Ok(RecoveredRepository { repository, format: Some((what, source)), slot })
        }
        None => Err(error.into()),
    }
}

/// What is wrong with a `format` that may have been replaced since it was written.
fn replaced(error: &OpenError) -> Option<String> {
    match error {
        OpenError::Format { error: error @ (FormatError::Damaged(_) | FormatError::Forged), .. } => {
            Some(error.to_string())
        }
        OpenError::Format { error: error @ FormatError::OtherRole { .. }, .. } => Some(error.to_string()),
        OpenError::NotEncrypted { .. } => Some("says that the repository is not encrypted".to_owned()),
        OpenError::WrongSecret { .. } => Some("is of a repository that the key does not open".to_owned()),
        _ => None,
    }
}

impl RecoveryInputs<'_> {
    fn local(&self, repo: RepoId) -> Option<LocalState> {
        Some(LocalState::peek(self.env, self.state_dir?, repo))
    }

    /// Opens the repository by this `format`. If no slot of the store opens it, the remembered slot is used.
    async fn open(
        &self,
        store: &Arc<dyn Store>,
        object: &[u8],
    ) -> Result<(Repository, Option<(KeyId, Bytes)>), OpenError> {
        let slot = |repo| self.local(repo)?.last_key_slot();
        let opened = Repository::open_object(Arc::clone(store), object, self.role, self.key, slot).await;
        let error = match opened {
            Ok(repository) => return Ok((repository, None)),
            Err(error @ (OpenError::WrongSecret { .. } | OpenError::NoKeySlots { .. })) => error,
            Err(error) => return Err(error),
        };
        let bad = |error| OpenError::Format { role: self.role.clone(), error };
        let format = RepositoryFormat::parse(object, self.role).map_err(bad)?;
        let Some((id, bytes, master)) = self.remembered(format.repo)? else { return Err(error) };
        let keys = format.derive_keys(master);
        RepositoryFormat::verify(object, &keys).map_err(bad)?;
        let slot_object = Some(bytes.to_vec());
        let repository = Repository { store: Arc::clone(store), format, keys, slot: Some(id), slot_object };
        Ok((repository, Some((id, bytes))))
    }

    /// The slot of this repository that this node remembers, if the key opens it.
    fn remembered(&self, repo: RepoId) -> Result<Option<(KeyId, Bytes, Keyring)>, OpenError> {
        let Some(bytes) = self.local(repo).and_then(|local| local.slot_object()) else { return Ok(None) };
        let Some((secret, _)) = read_secret(self.key)? else { return Ok(None) };
        let Ok(slot) = KeySlot::decode(&bytes) else { return Ok(None) };
        let master = slot.unwrap(&secret, repo).ok();
        Ok(master.map(|master| (slot.id(), Bytes::from(slot.encode()), master)))
    }

    /// Rebuilds `format`; `None`: nothing says what it contained.
    async fn rebuild(&self, store: &Arc<dyn Store>) -> Result<Option<(Bytes, FormatSource)>, RepairError> {
        let secret = read_secret(self.key)?.map(|(secret, _)| secret);
        let samples = self.samples(store.as_ref()).await?;
        let mut repos: Vec<RepoId> =
            self.place.load_repository_id_or_warn(self.env, self.state_dir).into_iter().collect();
        for object in &samples {
            let own = Record::decode(object, None).ok().filter(|record| record.role == *self.role);
            repos.extend(own.map(|record| record.repo));
        }
        let (mut seen, mut trial) = (Vec::new(), KeySlotTrial::default());
        let KeySlotList { found, skipped: passed_over } = slots_to_try(store.as_ref(), self.role, &[]).await?;
        for repo in repos {
            if seen.contains(&repo) {
                continue;
            }
            seen.push(repo);
            if let Some(object) = self.local(repo).and_then(|local| local.format())
                && let Ok(format) = RepositoryFormat::parse(&object, self.role)
                && format.repo == repo
                // The config decides about encryption, not the remembered copy.
                && (format.cipher != Cipher::None) == secret.is_some()
                && self.open(store, &object).await.is_ok()
            {
                return Ok(Some((Bytes::from(object), FormatSource::Memory)));
            }
            let Some(secret) = &secret else { continue };
            for master in self.opened_keys(&found, &mut trial, secret, repo).await? {
                let keys = DerivedKeys::new(Cipher::Aes256GcmSiv, repo, self.role.clone(), master);
                let first = samples.iter().find_map(|object| Record::decode(object, Some(&keys)).ok());
                if let Some(record) = first {
                    let created = record.written_at();
                    let object = self.make(repo, created, &keys).await?;
                    return Ok(Some((object, FormatSource::Journal)));
                }
            }
        }
        match passed_over + trial.untried {
            0 => Ok(None),
            untried => Err(RepairError::UntriedSlots { role: self.role.clone(), untried }),
        }
    }

    /// The first few objects of the journal that may be read at once, since all of them are held in memory.
    async fn samples(&self, store: &dyn Store) -> Result<Vec<Bytes>, RepairError> {
        let page = store.list(&object_keys::journal_prefix(self.role), None, LIST_PAGE_MAX).await?;
        let records: Vec<Seq> = page
            .objects
            .iter()
            .filter_map(|object| object_keys::parse_record(self.role, &object.key))
            .take(SAMPLES)
            .collect();
        let mut samples = Vec::new();
        for seq in records {
            match store.get(&object_keys::record(self.role, seq), SizeLimit::RECORD_AHEAD).await {
                Ok(object) => samples.push(object),
                Err(error) if error.is_not_found() || error.concerns_one_object() => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(samples)
    }

    /// The keys that the secret opens in these slots, as far as they belong to that repository.
    async fn opened_keys(
        &self,
        found: &[StoredKeySlot],
        trial: &mut KeySlotTrial,
        secret: &SlotSecret,
        repo: RepoId,
    ) -> Result<Vec<Keyring>, RepairError> {
        if let SlotSecret::Exported(of, keyring) = secret {
            return Ok(if *of == repo { vec![keyring.clone()] } else { Vec::new() });
        }
        let mut masters = Vec::new();
        for slot in found.iter().filter_map(|found| found.slot.as_ref().ok()) {
            masters.extend(trial.unwrap(slot, secret, repo).await.and_then(Result::ok));
        }
        masters.extend(self.remembered(repo)?.map(|(.., master)| master));
        // A key of an older generation derives fewer keys, so newer ones come first.
        masters.sort_by_key(|master| Reverse(master.generation()));
        Ok(masters)
    }

    async fn make(&self, repo: RepoId, created: Timestamp, keys: &DerivedKeys) -> Result<Bytes, RepairError> {
        let register = self.journal_access.register(&register::head_name(repo));
        let reading = match &register {
            Some(register) => Some(register.read().await?),
            None => None,
        };
        let journal = match reading {
            Some(reading) if reading.value.is_some() => JournalLocation::Etcd { cluster: reading.cluster },
            _ if self.journal_access.said() == JournalPlacement::Etcd => {
                return Err(RepairError::NoHead(self.role.clone()));
            }
            _ => JournalLocation::Bucket,
        };
        let (role, chunker) = (self.role.clone(), ChunkerParams::default());
        let cipher = Cipher::Aes256GcmSiv;
        let format =
            RepositoryFormat { v: format::VERSION, role, repo, created, cipher, journal, chunker, clear_key: None };
        Ok(Bytes::from(format.encode(keys)))
    }
}
