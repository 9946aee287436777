//! From the settings to a store, and to a repository that is opened read only.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::render;
use crate::cli::command_error::{CommandError, UnvouchedError};
use crate::cli::context::CommandContext;
use crate::config::{RoleSettings, StoreUrl};
use crate::job::browse::select::{SelectError, is_id, select, whole_id};
use crate::job::local_state::LocalState;
use crate::job::repair::SalvagedRepository;
use crate::job::repository::known_repository::RepositoryLocation;
use crate::job::repository::loss_notes;
use crate::job::repository::open::Repository;
use crate::job::repository::read_only::{JournalEndLookup, ReadOnlyRepository};
use crate::journal::error::JournalError;
use crate::journal::state::Snapshot;
use crate::outage;
use crate::repo::loss::PackLosses;
use crate::role::identity::{self, find_state_dir};
use crate::store::{self, Store, StoreError, StoreErrorKind};

/// Connects to the store of the settings.
pub async fn store(context: &CommandContext) -> Result<Arc<dyn Store>, CommandError> {
    Ok(store::connect(&context.settings.store, &context.env).await?)
}

/// The error of a store that did not answer within `patience`.
pub fn timeout_error(context: &CommandContext, patience: Duration) -> StoreError {
    let store = context.settings.store.url.to_string();
    StoreError::new(StoreErrorKind::Unreachable, &store, None, outage::no_answer_text(patience, None))
}

/// Warns what follows for these roles if the store keeps versions of deleted objects.
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
pub async fn repository(context: &CommandContext, role: &RoleSettings) -> Result<Repository, CommandError> {
    let state_dir = state_dir(context);
    let slot = LocalState::last_key_slot_of(&context.env, state_dir.as_deref());
    let opened = Repository::open_by(store(context).await?, &role.name, &role.key, slot).await;
    let place = RepositoryLocation::new(&context.settings.store, &role.name);
    Ok(opened.map_err(|error| place.refine_error(&context.env, state_dir.as_deref(), error))?)
}

/// The snapshot that a selector names.
///
/// # Errors
/// The selector names none or several. If the journal is damaged or the store was rolled back, there may be newer
/// snapshots, so a relative selector is refused and an ID is required.
pub fn select_snapshot<'a>(
    context: &CommandContext,
    archive: &'a ReadOnlyRepository,
    selector: &str,
) -> Result<&'a Snapshot, CommandError> {
    match selector_doubt(archive, selector) {
        Some(why) => Err(why.clone().into()),
        None => Ok(select_in(context, archive, selector)?),
    }
}

/// Why this selector may name another snapshot than is meant. An ID names the same one in every part of a journal.
fn selector_doubt<'a>(archive: &'a ReadOnlyRepository, selector: &str) -> Option<&'a JournalError> {
    archive.doubt().filter(|_| !is_id(selector))
}

fn select_in<'a>(
    context: &CommandContext,
    archive: &'a ReadOnlyRepository,
    selector: &str,
) -> Result<&'a Snapshot, SelectError> {
    select(archive.snapshots(), selector, &context.settings.timezone, context.env.clock.now())
}

/// The snapshot that a selector names among those that are left, and whether the journal vouches for it. A snapshot
/// that it does not vouch for must be named by its whole ID: an attacker can forge one whose ID starts as another does.
///
/// # Errors
/// The selector names none or several of them, or is invalid.
pub fn select_salvaged_snapshot<'a>(
    context: &CommandContext,
    remains: &'a SalvagedRepository,
    selector: &str,
) -> Result<(&'a Snapshot, bool), CommandError> {
    let error = match selector_doubt(&remains.archive, selector) {
        Some(why) => why.clone().into(),
        None => match select_in(context, &remains.archive, selector) {
            Ok(snapshot) => return Ok((snapshot, true)),
            Err(error @ (SelectError::Syntax(_) | SelectError::Ambiguous { .. })) => return Err(error.into()),
            Err(error) => CommandError::from(error),
        },
    };
    let Some(newest) = remains.unvouched.last() else { return Err(error) };
    let Some(id) = whole_id(selector) else {
        return Err(UnvouchedError { count: remains.unvouched.len(), newest: newest.id }.into());
    };
    remains.unvouched.iter().find(|snapshot| snapshot.id == id).map(|snapshot| (snapshot, false)).ok_or(error)
}

/// Checks that the archive shows the whole journal.
///
/// # Errors
/// It shows only what is left of it.
pub fn require_complete_journal(archive: &ReadOnlyRepository) -> Result<(), CommandError> {
    archive.doubt().map_or(Ok(()), |why| Err(why.clone().into()))
}

/// A role's repository, opened read only. Creates nothing in the state directory.
pub async fn read_only(context: &CommandContext, role: &RoleSettings) -> Result<ReadOnlyRepository, CommandError> {
    read(context, role, JournalEndLookup::Probe).await
}

/// The same with one request less on a node that has read the journal before; only for display.
pub async fn read_only_from_listing(
    context: &CommandContext,
    role: &RoleSettings,
) -> Result<ReadOnlyRepository, CommandError> {
    read(context, role, JournalEndLookup::ListOnly).await
}

async fn read(
    context: &CommandContext,
    role: &RoleSettings,
    reading: JournalEndLookup,
) -> Result<ReadOnlyRepository, CommandError> {
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

/// Notes for the next run which losses the readers of an archive met.
pub async fn note_reader_losses(context: &CommandContext, archive: &ReadOnlyRepository) {
    note_losses(context, &archive.repository, &archive.losses_met().await).await;
}

/// Notes these losses for the next run.
pub async fn note_losses(context: &CommandContext, repository: &Repository, met: &PackLosses) {
    let state_dir = state_dir(context);
    let (_, label) = identity::peek_identity(state_dir.as_deref(), context.node.as_deref());
    let local = state_dir.map(|dir| LocalState::peek(&context.env, &dir, repository.keys.repo()));
    loss_notes::note_losses(repository, local.as_ref(), &context.env, &label, met).await;
}

/// Without a place for a state directory there is none.
fn state_dir(context: &CommandContext) -> Option<PathBuf> {
    find_state_dir(context.state_dir.as_deref()).ok()
}
