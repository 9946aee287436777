//! From the settings to a store, and to a repository that is only read.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::error::Error;
use super::render;
use super::run::CommandContext;
use crate::config::{RoleSettings, StoreUrl};
use crate::ids::Digest;
use crate::job::browse::select::{SelectError, is_id, select, whole_id};
use crate::job::browse::{JournalEndLookup, ReadOnlyRepository};
use crate::job::node::known_repository::RepositoryLocation;
use crate::job::node::local_state::LocalState;
use crate::job::repair::SalvagedRepository;
use crate::job::repository::loss_notes;
use crate::job::repository::open::Repository;
use crate::journal::state::Snapshot;
use crate::outage;
use crate::repo::loss::PackLosses;
use crate::role::identity::{self, find_state_dir};
use crate::store::{self, Store, StoreError, StoreErrorKind};

/// The store of the settings.
pub async fn store(context: &CommandContext) -> Result<Arc<dyn Store>, Error> {
    Ok(store::connect(&context.settings.store, &context.env).await?)
}

/// That the store did not answer within so long.
pub fn timeout_error(context: &CommandContext, patience: Duration) -> StoreError {
    let store = context.settings.store.url.to_string();
    StoreError::new(StoreErrorKind::Unreachable, &store, None, outage::no_answer_text(patience, None))
}

/// Says what follows for these roles where the store keeps versions of what is deleted.
pub async fn warn_of_versioning(context: &CommandContext, store: &dyn Store, roles: &[&RoleSettings]) {
    let StoreUrl::S3 { prefix, .. } = &context.settings.store.url else { return };
    let prefix = match prefix.trim_matches('/') {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    };
    if let Some(words) = render::versioning::warning(&store.versioning().await, roles, &prefix) {
        tracing::warn!("{words}");
    }
}

/// A role's repository, unlocked with the role's key.
pub async fn repository(context: &CommandContext, role: &RoleSettings) -> Result<Repository, Error> {
    let state_dir = state_dir(context);
    let slot = LocalState::last_key_slot_of(&context.env, state_dir.as_deref());
    let opened = Repository::open_by(store(context).await?, &role.name, &role.key, slot).await;
    let place = RepositoryLocation::new(&context.settings.store, &role.name);
    Ok(opened.map_err(|error| place.refine_error(&context.env, state_dir.as_deref(), error))?)
}

/// The snapshot that a selector means.
///
/// # Errors
/// None or several, or the newest ones of a journal that is damaged, or of a store that was rolled back: there may be newer ones, or
/// were, so which one is meant must be said by its ID.
pub fn select_snapshot<'a>(
    context: &CommandContext,
    archive: &'a ReadOnlyRepository,
    selector: &str,
) -> Result<&'a Snapshot, Error> {
    if !is_id(selector) {
        require_complete_journal(archive)?;
    }
    Ok(select(archive.snapshots(), selector, &context.settings.timezone, context.env.clock.now())?)
}

/// The snapshot that a selector means among what is left, and whether the journal vouches for it. One that it does not vouch for is meant by
/// its whole ID alone: who can make one up can make up one whose ID starts as another does.
///
/// # Errors
/// It means none or several of them, or nothing at all.
pub fn select_salvaged_snapshot<'a>(
    context: &CommandContext,
    remains: &'a SalvagedRepository,
    selector: &str,
) -> Result<(&'a Snapshot, bool), Error> {
    let error = match select_snapshot(context, &remains.archive, selector) {
        Ok(snapshot) => return Ok((snapshot, true)),
        Err(error) if matches!(error.downcast_ref(), Some(SelectError::Syntax(_) | SelectError::Ambiguous { .. })) => {
            return Err(error);
        }
        Err(error) => error,
    };
    let Some(newest) = remains.unvouched.last() else { return Err(error) };
    let Some(id) = whole_id(selector) else {
        return Err(UnvouchedError { count: remains.unvouched.len(), newest: newest.id }.into());
    };
    remains.unvouched.iter().find(|snapshot| snapshot.id == id).map(|snapshot| (snapshot, false)).ok_or(error)
}

/// Nothing vouches for the snapshots that are left.
#[derive(Debug, thiserror::Error)]
#[error(
    "the journal vouches for no such snapshot. {count} more are told of by records of before a rotation of the repository key, which no record \
     after it follows: a former holder of the key can have made them up. The newest of them has the ID {newest}"
)]
pub struct UnvouchedError {
    /// How many there are.
    count: usize,
    /// The newest of them.
    newest: Digest,
}

/// That the archive shows the journal as it is, to its end.
///
/// # Errors
/// It shows what is left of it.
pub fn require_complete_journal(archive: &ReadOnlyRepository) -> Result<(), Error> {
    archive.doubt().map_or(Ok(()), |why| Err(why.clone().into()))
}

/// A role's snapshots, to look inside. Makes nothing in the state directory.
pub async fn read_only(context: &CommandContext, role: &RoleSettings) -> Result<ReadOnlyRepository, Error> {
    read(context, role, JournalEndLookup::Probe).await
}

/// The same with a request less on a node that knew the journal before, only to be shown.
pub async fn read_only_from_listing(
    context: &CommandContext,
    role: &RoleSettings,
) -> Result<ReadOnlyRepository, Error> {
    read(context, role, JournalEndLookup::ListOnly).await
}

async fn read(
    context: &CommandContext,
    role: &RoleSettings,
    reading: JournalEndLookup,
) -> Result<ReadOnlyRepository, Error> {
    let repository = repository(context, role).await?;
    let archive = ReadOnlyRepository::read(repository, &context.env, state_dir(context).as_deref(), reading).await?;
    if let Some(why) = &archive.rolled_back {
        tracing::warn!("{why}; showing what is there");
    }
    if let Some(why) = &archive.damaged {
        tracing::warn!("{why}; showing what is before it");
    }
    Ok(archive)
}

/// Tells the next run what was met of losses while an archive was read.
pub async fn note_reader_losses(context: &CommandContext, archive: &ReadOnlyRepository) {
    note_losses(context, &archive.repository, &archive.losses_met().await).await;
}

/// Tells the next run of these losses.
pub async fn note_losses(context: &CommandContext, repository: &Repository, met: &PackLosses) {
    let state_dir = state_dir(context);
    let (_, label) = identity::peek_identity(state_dir.as_deref(), context.node.as_deref());
    let local = state_dir.map(|dir| LocalState::peek(&context.env, &dir, repository.keys.repo()));
    loss_notes::note_losses(repository, local.as_ref(), &context.env, &label, met).await;
}

/// Somebody who has no place for a state has none.
fn state_dir(context: &CommandContext) -> Option<PathBuf> {
    find_state_dir(context.state_dir.as_deref()).ok()
}
