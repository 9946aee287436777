//! Which repository this node knows in which store: a store that shows none where there was one is not mounted, was emptied or is
//! another one, and a second repository there would be a second history. One that shows another repository is another disk or bucket,
//! or somebody began a new history; an operator says which.
//!
//! It is a file for each role and store in the state directory. Losing it loses the warning, nothing else.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::StoreSettings;
use crate::env::Env;
use crate::ids::{RepoId, RoleName};
use crate::job::repository::{OpenError, Repository};

/// Below the state directory.
const DIR: &str = "stores";

/// How much of the digest of store and role names a file, in hexadecimal digits.
const NAME_LEN: usize = 32;

/// A role in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    store: String,
    /// The server, where the store's URL does not name it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    endpoint: Option<String>,
    role: RoleName,
}

/// What is remembered of one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    #[serde(flatten)]
    place: Place,
    repository: RepoId,
}

impl Place {
    /// Where `role` is by these settings.
    pub fn new(settings: &StoreSettings, role: &RoleName) -> Self {
        Self { store: settings.url.to_string(), endpoint: settings.endpoint.clone(), role: role.clone() }
    }

    /// The store, in the config's words.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// The role.
    pub fn role(&self) -> &RoleName {
        &self.role
    }

    fn file(&self, state_dir: &Path) -> PathBuf {
        let parts = [self.store.as_str(), self.endpoint.as_deref().unwrap_or_default(), self.role.as_str()];
        let name = blake3::hash(parts.join("\0").as_bytes()).to_hex();
        state_dir.join(DIR).join(&name[..NAME_LEN])
    }

    /// The repository that this node knows there; `None`: it knows none, or remembers nothing.
    pub fn recall(&self, env: &Env, state_dir: Option<&Path>) -> Option<RepoId> {
        let bytes = env.files.read(&self.file(state_dir?)).ok()?;
        let known: Known = serde_json::from_slice(&bytes).ok()?;
        (known.place == *self).then_some(known.repository)
    }

    /// Remembers the repository that is there, where this node knows none.
    ///
    /// # Errors
    /// It knows another one.
    pub fn remember(&self, env: &Env, state_dir: &Path, repository: &Repository) -> Result<(), OpenError> {
        if let Some(known) = self.another(env, Some(state_dir), repository) {
            let (role, store, found) = (self.role.clone(), self.store.clone(), repository.keys.repo());
            return Err(OpenError::Another { role, store, known, found });
        }
        self.accept(env, state_dir, repository);
        Ok(())
    }

    /// The repository that this node knows there, if it is another one.
    pub fn another(&self, env: &Env, state_dir: Option<&Path>, repository: &Repository) -> Option<RepoId> {
        self.recall(env, state_dir).filter(|known| *known != repository.keys.repo())
    }

    /// Remembers the repository that is there, whatever was there before. Makes no state directory: whose it is to be is settled by
    /// the first that needs one.
    pub fn accept(&self, env: &Env, state_dir: &Path, repository: &Repository) {
        let id = repository.keys.repo();
        if self.recall(env, Some(state_dir)) == Some(id) {
            return;
        }
        if let Err(error) = self.write(env, state_dir, id) {
            tracing::warn!("which repository is in {} is not remembered: {error}", self.store);
        }
    }

    fn write(&self, env: &Env, state_dir: &Path, repository: RepoId) -> io::Result<()> {
        env.files.make_dir(&state_dir.join(DIR))?;
        let mut line = serde_json::to_vec(&Known { place: self.clone(), repository })?;
        line.push(b'\n');
        env.files.replace(&self.file(state_dir), &line)
    }

    /// That the repository is gone, where this node knows one.
    pub fn explain(&self, env: &Env, state_dir: Option<&Path>, error: OpenError) -> OpenError {
        match (error, self.recall(env, state_dir)) {
            (OpenError::NoRepository { role, store }, Some(repository)) => OpenError::Gone { role, store, repository },
            (error, _) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KeySource, StoreUrl};
    use crate::job::testing::Rig;

    fn place(url: &str, endpoint: Option<&str>, role: &str) -> Place {
        let url = StoreUrl::Dir(url.into());
        let endpoint = endpoint.map(str::to_owned);
        Place::new(&StoreSettings { endpoint, ..StoreSettings::new(url, KeySource::None) }, &role.parse().unwrap())
    }

    #[tokio::test]
    async fn a_repository_is_known_by_store_server_and_role() {
        let rig = Rig::new().await;
        let (env, state_dir) = (&rig.env, rig.state_dir());
        let here = place("/b", None, "app");
        assert_eq!(here.recall(env, Some(&state_dir)), None);
        here.remember(env, &state_dir, &rig.repository).unwrap();
        let id = rig.repository.keys.repo();
        assert_eq!(here.recall(env, Some(&state_dir)), Some(id));
        for other in [place("/c", None, "app"), place("/b", Some("https://s3"), "app"), place("/b", None, "db")] {
            assert_eq!(other.recall(env, Some(&state_dir)), None);
        }
        let none = || OpenError::NoRepository { role: rig.role.name.clone(), store: "file:///b".to_owned() };
        assert!(
            matches!(here.explain(env, Some(&state_dir), none()), OpenError::Gone { repository, .. } if repository == id)
        );
        assert!(matches!(here.explain(env, None, none()), OpenError::NoRepository { .. }), "who remembers nothing");

        let again = Rig::new().await;
        let refused = here.remember(env, &state_dir, &again.repository);
        assert!(matches!(refused, Err(OpenError::Another { known, .. }) if known == id), "{refused:?}");
        assert_eq!(here.recall(env, Some(&state_dir)), Some(id), "until an operator accepts it");
        here.accept(env, &state_dir, &again.repository);
        here.remember(env, &state_dir, &again.repository).unwrap();
        assert_eq!(here.recall(env, Some(&state_dir)), Some(again.repository.keys.repo()));
        std::fs::write(here.file(&state_dir), "{").unwrap();
        assert_eq!(here.recall(env, Some(&state_dir)), None, "a damaged memory is none");
    }
}
