//! The seam to the jobs: one function a verb. Each turns arguments into the job's request and gives its report back.

use std::io::{self, Write};

use super::args::verbs;
use super::error::Error;
use super::render::journal::JournalLine;
use super::run::Context;
use crate::config::RoleSettings;
use crate::job::local::Local;
use crate::job::report::RoleReport;
use crate::job::report::inside::{DiffLine, Found};
use crate::job::report::restored::Restored;
use crate::job::report::setup::{InitRole, KeyReport};
use crate::job::report::snapshot::SnapshotInfo;
use crate::job::report::verified::VerifyReport;
use crate::job::report::whoami::{State, WhoamiReport};
use crate::job::verify;
use crate::repo::entry::Entry;
use crate::store;

/// A verb whose job is not there.
#[derive(Debug, thiserror::Error)]
#[error("not wired")]
struct NotWired;

/// What a listing does with each item. An error ends the listing.
pub type Each<'a, T> = &'a mut (dyn FnMut(&T) -> io::Result<()> + Send);

/// Creates one role's repository, or finds it.
pub async fn init(_context: &Context, _role: &RoleSettings) -> Result<InitRole, Error> {
    Err(NotWired.into())
}

/// Backs one role up.
pub async fn backup(_context: &Context, _role: &RoleSettings, _args: &verbs::Backup) -> Result<RoleReport, Error> {
    Err(NotWired.into())
}

/// A role's snapshots, oldest first.
pub async fn snapshots(_context: &Context, _role: &RoleSettings) -> Result<Vec<SnapshotInfo>, Error> {
    Err(NotWired.into())
}

/// Which snapshot a selector means.
pub async fn select(_context: &Context, _role: &RoleSettings, _selector: &str) -> Result<SnapshotInfo, Error> {
    Err(NotWired.into())
}

/// The entries of a snapshot.
pub async fn ls(
    _context: &Context,
    _role: &RoleSettings,
    _snapshot: &SnapshotInfo,
    _args: &verbs::Ls,
    _each: Each<'_, Entry>,
) -> Result<(), Error> {
    Err(NotWired.into())
}

/// One file's content.
pub async fn cat(
    _context: &Context,
    _role: &RoleSettings,
    _snapshot: &SnapshotInfo,
    _args: &verbs::Cat,
    _out: &mut (dyn Write + Send),
) -> Result<(), Error> {
    Err(NotWired.into())
}

/// The entries that match a pattern, in one snapshot or (`None`) in all.
pub async fn find(
    _context: &Context,
    _role: &RoleSettings,
    _snapshot: Option<&SnapshotInfo>,
    _args: &verbs::Find,
    _each: Each<'_, Found>,
) -> Result<(), Error> {
    Err(NotWired.into())
}

/// The differences between two snapshots.
pub async fn diff(
    _context: &Context,
    _role: &RoleSettings,
    _between: [&SnapshotInfo; 2],
    _args: &verbs::Diff,
    _each: Each<'_, DiffLine>,
) -> Result<(), Error> {
    Err(NotWired.into())
}

/// Writes files back.
pub async fn restore(
    _context: &Context,
    _role: &RoleSettings,
    _snapshot: &SnapshotInfo,
    _args: &verbs::Restore,
) -> Result<Restored, Error> {
    Err(NotWired.into())
}

/// Checks a repository.
pub async fn verify(context: &Context, role: &RoleSettings, args: &verbs::Verify) -> Result<VerifyReport, Error> {
    let store = store::connect(&context.settings.store, &context.env).await?;
    let (progress, _display) = context.progress(&format!("verify {}", role.name));
    let remembered = |repo| Local::peek(&context.state_dir, repo).load().view;
    let percent = args.read_data.unwrap_or(0);
    Ok(verify::verify(store, &role.name, &role.key, percent, &remembered, &progress, &context.env).await?)
}

/// Who this node is, and where it stands for these roles.
pub async fn whoami(_context: &Context, _roles: &[&RoleSettings]) -> Result<WhoamiReport, Error> {
    Err(NotWired.into())
}

/// Whether this node is active for a role: probes alone, so that a script gets its answer without the store.
pub async fn is_active(_context: &Context, _role: &RoleSettings) -> Result<State, Error> {
    Err(NotWired.into())
}

/// Changes the keys of a repository.
pub async fn key(_context: &Context, _role: &RoleSettings, _args: &verbs::Key) -> Result<KeyReport, Error> {
    Err(NotWired.into())
}

/// The newest `last` records, oldest first.
pub async fn journal(_context: &Context, _role: &RoleSettings, _last: u64) -> Result<Vec<JournalLine>, Error> {
    Err(NotWired.into())
}
