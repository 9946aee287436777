//! Where a role's journal is written: in its store, or with its head in etcd. `init` settles it. Readers do not need
//! this module.

use std::sync::Arc;

use crate::config::{ConfigLocation, JournalPlacement, Settings};
use crate::env::Env;
use crate::ids::{InstanceId, RoleName};
use crate::job::repository::open::Repository;
use crate::journal::body::WriterNode;
use crate::journal::error::{EtcdHeadError, JournalError};
use crate::journal::reader::Journal;
#[cfg(feature = "etcd")]
use crate::journal::register::etcd::EtcdRegisters;
use crate::journal::register::{self, EtcdHead, Register, RegisterService};
use crate::repo::format::JournalLocation;

/// Access to the places where this process can write journals. Clones share the same state.
#[derive(Debug, Clone, Default)]
pub struct JournalAccess {
    registers: Option<Arc<dyn RegisterService>>,
    /// The journal placement in the config, and its position there.
    placement: Option<(JournalPlacement, ConfigLocation)>,
    /// Identifies the store, for two stores that share an etcd.
    store: String,
}

impl JournalAccess {
    /// Access according to `settings`, with these registers.
    pub fn new(settings: &Settings, registers: Option<Arc<dyn RegisterService>>) -> Self {
        let (store, at) = (&settings.store, settings.journal_at.clone());
        let name = format!("{} {}", store.url, store.endpoint.as_deref().unwrap_or_default());
        Self { registers, placement: Some((store.journal, at)), store: name }
    }

    /// Access according to `settings`, with a connection to etcd of its own.
    #[cfg(feature = "etcd")]
    pub fn connect(settings: &Settings) -> Self {
        let registers =
            settings.etcd.clone().map(|etcd| -> Arc<dyn RegisterService> { Arc::new(EtcdRegisters::open(etcd)) });
        Self::new(settings, registers)
    }

    /// Access to journals in stores only: this program was built without etcd.
    #[cfg(not(feature = "etcd"))]
    pub fn connect(settings: &Settings) -> Self {
        Self::new(settings, None)
    }

    /// Access to journals in stores, and in these registers.
    pub fn with(registers: Arc<dyn RegisterService>) -> Self {
        Self { registers: Some(registers), ..Self::default() }
    }

    /// The journal placement in the config.
    pub fn said(&self) -> JournalPlacement {
        self.placement.as_ref().map_or(JournalPlacement::Auto, |(said, _)| *said)
    }

    /// Sets the placement, for tests.
    #[cfg(test)]
    pub(crate) fn with_placement(self, said: JournalPlacement) -> Self {
        Self { placement: Some((said, ConfigLocation::nowhere())), ..self }
    }

    /// The register that chooses the repository of a role while it is created.
    pub fn creation_register(&self, role: &RoleName) -> Option<Arc<dyn Register>> {
        let store = blake3::hash(self.store.as_bytes());
        self.register(&format!("init/{role}/{}", hex::encode(&store.as_bytes()[..8])))
    }

    /// The register of this name, if etcd is configured.
    pub fn register(&self, name: &str) -> Option<Arc<dyn Register>> {
        self.registers.as_ref().map(|registers| registers.register(name))
    }

    /// The journal of a repository, for writing.
    ///
    /// # Errors
    /// The config names another placement, or has no access to the journal's place. No request is made.
    pub fn journal(
        &self,
        repository: &Repository,
        env: &Env,
        node: &WriterNode,
        instance: InstanceId,
    ) -> Result<Journal, JournalError> {
        self.check_placement(repository)?;
        let (store, keys) = (repository.store.clone(), repository.keys.clone());
        let journal = Journal::new(store, keys, env.clone(), node.clone(), instance).created(repository.format.created);
        let JournalLocation::Etcd { cluster: home } = repository.format.journal else { return Ok(journal) };
        let role = || repository.role().clone();
        let register = self.register(&register::head_name(repository.keys.repo()));
        let register = register.ok_or_else(|| EtcdHeadError::NoEtcd { role: role() })?;
        Ok(journal.with_etcd_head(EtcdHead { register, cluster: home }))
    }

    /// Refuses a config that names another place for the journal than `format` does.
    ///
    /// # Errors
    /// The two differ.
    pub fn check_placement(&self, repository: &Repository) -> Result<(), EtcdHeadError> {
        let Some((said, at)) = &self.placement else { return Ok(()) };
        let so = match (said, repository.format.journal) {
            (JournalPlacement::Auto, _) => true,
            (JournalPlacement::Bucket, home) => home == JournalLocation::Bucket,
            (JournalPlacement::Etcd, home) => home != JournalLocation::Bucket,
        };
        if so {
            return Ok(());
        }
        Err(EtcdHeadError::Disagrees { role: repository.role().clone(), said: *said, at: at.clone() })
    }
}

#[cfg(test)]
mod tests;
