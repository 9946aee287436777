//! The repository that this node knows in each store. A store that shows none where there was one is not mounted, was
//! emptied or is another store; a second repository there would begin a second history. A store that shows another
//! repository is another disk or bucket, or a person began a new history; an operator says which.
//!
//! This module also keeps the time since when this node knows a role's schedule: no slot is owed from before its
//! schedule was in force, and no other date is reliable. A config is rewritten at each deployment, and may be dated
//! ahead.
//!
//! Each role and store has a file for either in the state directory. Losing them loses the warning, and makes slots
//! owed since the last commit; nothing else.

use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::value::ValueError;
use crate::config::{RoleSettings, Settings, StoreSettings};
use crate::env::Env;
use crate::ids::{RepoId, RoleName, ScheduleId};
use crate::job::repository::open::{OpenError, Repository};
use crate::role::slot::SlotSchedule;

/// Directory of the known repositories, below the state directory.
const DIR: &str = "stores";

/// Directory of the known schedules, below the state directory.
const SCHEDULES_DIR: &str = "schedules";

/// Number of schedules of a role that are remembered: those that were first seen most recently.
const SCHEDULES_KEPT: usize = 32;

/// Length of a file name in hexadecimal digits: the start of the digest of store and role.
const NAME_LEN: usize = 32;

/// A role in a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryLocation {
    store: String,
    /// The server, if the store's URL does not name it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    endpoint: Option<String>,
    role: RoleName,
}

/// Contents of a file in [`DIR`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KnownRepository {
    #[serde(flatten)]
    place: RepositoryLocation,
    repository: RepoId,
}

/// Contents of a file in [`SCHEDULES_DIR`]: the schedules of a role that this node has seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct KnownSchedules {
    #[serde(flatten)]
    place: RepositoryLocation,
    /// In the order in which they were first seen.
    seen: Vec<ScheduleFirstSeen>,
}

/// When this node first saw a schedule, by its own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct ScheduleFirstSeen {
    schedule: ScheduleId,
    since: Timestamp,
}

/// The role's slot schedule. This node remembers it from now on.
///
/// # Errors
/// As [`SlotSchedule::new`].
pub fn slot_plan(
    settings: &Settings,
    role: &RoleSettings,
    env: &Env,
    state_dir: &Path,
) -> Result<Option<SlotSchedule>, ValueError> {
    let plan = SlotSchedule::new(role, &settings.timezone)?;
    let place = RepositoryLocation::new(&settings.store, &role.name);
    Ok(plan.map(|plan| {
        let since = place.note_schedule(env, state_dir, plan.id());
        plan.with_first_seen(Some(since))
    }))
}

/// The same for a command that only reads: it notes nothing.
///
/// # Errors
/// As [`SlotSchedule::new`].
pub fn recalled_slot_plan(
    settings: &Settings,
    role: &RoleSettings,
    env: &Env,
    state_dir: Option<&Path>,
) -> Result<Option<SlotSchedule>, ValueError> {
    let plan = SlotSchedule::new(role, &settings.timezone)?;
    let place = RepositoryLocation::new(&settings.store, &role.name);
    Ok(plan.map(|plan| {
        let since = state_dir.and_then(|dir| place.schedule_seen_at(env, dir, plan.id()));
        plan.with_first_seen(since)
    }))
}

impl RepositoryLocation {
    /// The location of `role` according to these settings.
    pub fn new(settings: &StoreSettings, role: &RoleName) -> Self {
        Self { store: settings.url.to_string(), endpoint: settings.endpoint.clone(), role: role.clone() }
    }

    /// The store's URL, as in the config.
    pub fn store(&self) -> &str {
        &self.store
    }

    /// The role whose repository this is.
    pub fn role(&self) -> &RoleName {
        &self.role
    }

    fn file(&self, state_dir: &Path) -> PathBuf {
        state_dir.join(DIR).join(self.file_name())
    }

    fn schedules_file(&self, state_dir: &Path) -> PathBuf {
        state_dir.join(SCHEDULES_DIR).join(self.file_name())
    }

    fn file_name(&self) -> String {
        let parts = [self.store.as_str(), self.endpoint.as_deref().unwrap_or_default(), self.role.as_str()];
        blake3::hash(parts.join("\0").as_bytes()).to_hex()[..NAME_LEN].to_owned()
    }

    fn schedules(&self, env: &Env, state_dir: &Path) -> Vec<ScheduleFirstSeen> {
        let bytes = env.files.read(&self.schedules_file(state_dir)).unwrap_or_default();
        let known: Option<KnownSchedules> = serde_json::from_slice(&bytes).ok();
        known.filter(|known| known.place == *self).map(|known| known.seen).unwrap_or_default()
    }

    /// When this node first saw this schedule of the role, if it remembers.
    fn schedule_seen_at(&self, env: &Env, state_dir: &Path, schedule: ScheduleId) -> Option<Timestamp> {
        self.schedules(env, state_dir).iter().find(|seen| seen.schedule == schedule).map(|seen| seen.since)
    }

    /// Notes the schedule, and returns when it was first seen: now at the latest, which corrects a date from a clock
    /// that was ahead.
    fn note_schedule(&self, env: &Env, state_dir: &Path, schedule: ScheduleId) -> Timestamp {
        let (now, mut seen) = (env.clock.now(), self.schedules(env, state_dir));
        match seen.iter_mut().find(|seen| seen.schedule == schedule) {
            Some(known) if known.since <= now => return known.since,
            Some(known) => known.since = now,
            None => seen.push(ScheduleFirstSeen { schedule, since: now }),
        }
        seen.drain(..seen.len().saturating_sub(SCHEDULES_KEPT));
        let write = || {
            env.files.make_dir(&state_dir.join(SCHEDULES_DIR))?;
            let mut line = serde_json::to_vec(&KnownSchedules { place: self.clone(), seen: seen.clone() })?;
            line.push(b'\n');
            env.files.replace(&self.schedules_file(state_dir), &line)
        };
        let written: io::Result<()> = write();
        if let Err(error) = written {
            tracing::warn!("the start of the schedule of role {} cannot be saved: {error}", self.role);
        }
        now
    }

    /// The repository that this node knows there; `None`: it knows none, or has no state directory.
    ///
    /// # Errors
    /// The file cannot be read, or is damaged.
    pub fn load_repository_id(&self, env: &Env, state_dir: Option<&Path>) -> io::Result<Option<RepoId>> {
        let Some(state_dir) = state_dir else { return Ok(None) };
        let known: Option<KnownRepository> = env
            .read_json(&self.file(state_dir))
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.file(state_dir).display())))?;
        Ok(known.filter(|known| known.place == *self).map(|known| known.repository))
    }

    /// The same for a caller that goes on if the file cannot be read: a warning is logged, and the repository is
    /// remembered anew.
    pub fn load_repository_id_or_warn(&self, env: &Env, state_dir: Option<&Path>) -> Option<RepoId> {
        self.load_repository_id(env, state_dir).unwrap_or_else(|error| {
            tracing::warn!("this node's note on the repository in {} cannot be read: {error}", self.store);
            None
        })
    }

    /// Remembers the repository that is there, if this node knows none.
    ///
    /// # Errors
    /// This node knows another repository there.
    pub fn remember(&self, env: &Env, state_dir: &Path, repository: &Repository) -> Result<(), OpenError> {
        if let Some(known) = self.differing_repository(env, Some(state_dir), repository) {
            let (role, store, found) = (self.role.clone(), self.store.clone(), repository.keys.repo());
            return Err(OpenError::Another { role, store, known, found });
        }
        self.accept(env, state_dir, repository);
        Ok(())
    }

    /// The repository that this node knows there, if it differs from `repository`.
    pub fn differing_repository(&self, env: &Env, state_dir: Option<&Path>, repository: &Repository) -> Option<RepoId> {
        self.load_repository_id_or_warn(env, state_dir).filter(|known| *known != repository.keys.repo())
    }

    /// Remembers the repository that is there, whatever was there before. Creates no state directory: the first command
    /// that needs one settles its owner.
    pub fn accept(&self, env: &Env, state_dir: &Path, repository: &Repository) {
        let id = repository.keys.repo();
        if self.load_repository_id(env, Some(state_dir)).is_ok_and(|known| known == Some(id)) {
            return;
        }
        if let Err(error) = self.write(env, state_dir, id) {
            tracing::warn!("the note on the repository in {} cannot be saved: {error}", self.store);
        }
    }

    fn write(&self, env: &Env, state_dir: &Path, repository: RepoId) -> io::Result<()> {
        env.files.make_dir(&state_dir.join(DIR))?;
        let mut line = serde_json::to_vec(&KnownRepository { place: self.clone(), repository })?;
        line.push(b'\n');
        env.files.replace(&self.file(state_dir), &line)
    }

    /// Replaces "no repository" by "the repository is gone", if this node knows one there.
    pub fn refine_error(&self, env: &Env, state_dir: Option<&Path>, error: OpenError) -> OpenError {
        match (error, self.load_repository_id_or_warn(env, state_dir)) {
            (OpenError::NoRepository { role, store }, Some(repository)) => OpenError::Gone { role, store, repository },
            (error, _) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{KeySource, StoreUrl};
    use crate::job::testing::JobFixture;

    fn place(url: &str, endpoint: Option<&str>, role: &str) -> RepositoryLocation {
        let url = StoreUrl::Dir(url.into());
        let endpoint = endpoint.map(str::to_owned);
        RepositoryLocation::new(
            &StoreSettings { endpoint, ..StoreSettings::new(url, KeySource::None) },
            &role.parse().unwrap(),
        )
    }

    #[tokio::test]
    async fn a_repository_is_known_by_store_server_and_role() {
        let rig = JobFixture::new().await;
        let (env, state_dir) = (&rig.env, rig.state_dir());
        let here = place("/b", None, "app");
        assert_eq!(here.load_repository_id(env, Some(&state_dir)).unwrap(), None);
        here.remember(env, &state_dir, &rig.repository).unwrap();
        let id = rig.repository.keys.repo();
        assert_eq!(here.load_repository_id(env, Some(&state_dir)).unwrap(), Some(id));
        for other in [place("/c", None, "app"), place("/b", Some("https://s3"), "app"), place("/b", None, "db")] {
            assert_eq!(other.load_repository_id(env, Some(&state_dir)).unwrap(), None);
        }
        let none = || OpenError::NoRepository { role: rig.role.name.clone(), store: "file:///b".to_owned() };
        assert!(
            matches!(here.refine_error(env, Some(&state_dir), none()), OpenError::Gone { repository, .. } if repository == id)
        );
        assert!(
            matches!(here.refine_error(env, None, none()), OpenError::NoRepository { .. }),
            "a node without a memory"
        );

        let again = JobFixture::new().await;
        let refused = here.remember(env, &state_dir, &again.repository);
        assert!(matches!(refused, Err(OpenError::Another { known, .. }) if known == id), "{refused:?}");
        assert_eq!(here.load_repository_id(env, Some(&state_dir)).unwrap(), Some(id), "until an operator accepts it");
        here.accept(env, &state_dir, &again.repository);
        here.remember(env, &state_dir, &again.repository).unwrap();
        assert_eq!(here.load_repository_id(env, Some(&state_dir)).unwrap(), Some(again.repository.keys.repo()));
        std::fs::write(here.file(&state_dir), "{").unwrap();
        assert!(here.load_repository_id(env, Some(&state_dir)).is_err(), "a damaged memory does not count as none");
    }

    #[test]
    fn when_a_schedule_was_seen_first_does_not_move() {
        let (dir, env) = (tempfile::tempdir().unwrap(), Env::host());
        let (app, mail) = (place("/srv/a", None, "app"), place("/srv/a", None, "mail"));
        let (old, new) = (ScheduleId([1; 8]), ScheduleId([2; 8]));
        assert_eq!(app.schedule_seen_at(&env, dir.path(), old), None);
        let first = app.note_schedule(&env, dir.path(), old);
        app.note_schedule(&env, dir.path(), new);
        assert_eq!(app.note_schedule(&env, dir.path(), old), first, "whatever came between");
        assert_eq!(
            (app.schedule_seen_at(&env, dir.path(), old), mail.schedule_seen_at(&env, dir.path(), old)),
            (Some(first), None)
        );

        // Written while the clock was ahead.
        let ahead = first + jiff::SignedDuration::from_hours(9000);
        let seen = vec![ScheduleFirstSeen { schedule: old, since: ahead }];
        let bytes = serde_json::to_vec(&KnownSchedules { place: app.clone(), seen }).unwrap();
        std::fs::write(app.schedules_file(dir.path()), bytes).unwrap();
        let now = app.note_schedule(&env, dir.path(), old);
        assert!(now < ahead && app.schedule_seen_at(&env, dir.path(), old) == Some(now));

        for n in 0..=SCHEDULES_KEPT as u8 {
            app.note_schedule(&env, dir.path(), ScheduleId([100 + n; 8]));
        }
        assert_eq!(app.schedules(&env, dir.path()).len(), SCHEDULES_KEPT);
        assert_eq!(app.schedule_seen_at(&env, dir.path(), old), None, "the one that was seen first goes first");
    }
}
