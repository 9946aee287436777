//! Warnings for inputs that could not be read. Such an input counts as unknown, never as absent.

use std::fmt::Display;
use std::io;
use std::path::Path;
use std::time::Duration;

use crate::env::Env;
use crate::job::node::run_failure_file::RunFailureFile;
use crate::job::report::whoami::{RoleWarning, UnreadableInput};
use crate::job::repository::known_repository::RepositoryLocation;
use crate::outage::no_answer_text;
use crate::role::identity;
use crate::store::Store;

/// Reads an input from `store` within the time limit; `None` and a warning if it is unknown.
pub(super) async fn in_time<T, E: Display>(
    what: UnreadableInput,
    store: &dyn Store,
    asked: impl Future<Output = Result<T, E>>,
) -> (Option<T>, Option<RoleWarning>) {
    let unread = |why, harmless| Some(RoleWarning::Unread { what, why, harmless });
    match tokio::time::timeout(PART_PATIENCE, asked).await {
        Ok(Ok(found)) => (Some(found), None),
        Ok(Err(error)) => (None, unread(error.to_string(), false)),
        Err(_) => (None, unread(no_answer_text(PART_PATIENCE, store.last_attempt_error().as_deref()), true)),
    }
}

/// The warning that a file of this node cannot be read. A file of another user says nothing about the node.
pub(super) fn unread_file(what: UnreadableInput, error: &io::Error) -> RoleWarning {
    RoleWarning::Unread { what, why: error.to_string(), harmless: error.kind() == io::ErrorKind::PermissionDenied }
}

/// Warnings for unreadable files in the state directory, except the saved view of the journal.
pub(super) fn unread_local_files(env: &Env, state_dir: &Path, place: &RepositoryLocation) -> Vec<RoleWarning> {
    let identity = identity::identity_read_error(state_dir).map(|error| unread_file(UnreadableInput::Identity, &error));
    let last_run = RunFailureFile::at(env, state_dir, place.role()).try_load().err();
    let last_run = last_run.map(|error| unread_file(UnreadableInput::LastRun, &error));
    let repository = place
        .load_repository_id(env, Some(state_dir))
        .err()
        .map(|error| unread_file(UnreadableInput::Repository, &error));
    [identity, last_run, repository].into_iter().flatten().collect()
}

/// Longest wait for each additional input: if one does not come, the report on this node is still complete.
pub(crate) const PART_PATIENCE: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests;
