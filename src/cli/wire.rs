//! The seam to the jobs: one function a verb. Each turns arguments into the job's request and gives its report back.

#![allow(clippy::unused_async, reason = "the jobs that are awaited here are still being merged")]

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::args::verbs;
use super::error::{Error, Interrupted, UsageError};
use super::render::journal::JournalLine;
use super::run::Context;
use super::{open, render};
use crate::config::RoleSettings;
use crate::job;
use crate::job::backup::{BackupError, Runner};
use crate::job::guard::{self, GuardError};
use crate::job::inside::{self, Archive};
use crate::job::local::Local;
use crate::job::report::RoleReport;
use crate::job::report::inside::{DiffLine, Found};
use crate::job::report::restored::Restored;
use crate::job::report::setup::{InitRole, KeyReport};
use crate::job::report::snapshot::SnapshotInfo;
use crate::job::report::verified::VerifyReport;
use crate::job::report::whoami::{State, WhoamiReport};
use crate::job::restore::{self, RepositorySource, RestoreOptions};
use crate::job::verify;
use crate::journal::record::NodeRef;
use crate::journal::state::Snapshot;
use crate::repo::entry::Entry;
use crate::role::identity::{Node, Origin, find_state_dir, open_state_dir};

/// A verb whose job is not there.
#[derive(Debug, thiserror::Error)]
#[error("not wired")]
struct NotWired;

/// What a listing does with each item. An error ends the listing.
pub type Each<'a, T> = &'a mut (dyn FnMut(&T) -> io::Result<()> + Send);

/// Creates one role's repository, or finds it.
pub async fn init(context: &Context, role: &RoleSettings) -> Result<InitRole, Error> {
    let settings = &context.settings.store;
    let store = crate::store::create(settings, &context.env).await?;
    let (_, report) = job::init::init(store, &role.name, &role.key, settings.journal, &context.env).await?;
    Ok(report)
}

/// Backs one role up, if this node is active for it.
pub async fn backup(context: &Context, role: &RoleSettings, args: &verbs::Backup) -> Result<RoleReport, Error> {
    let state_dir = open_state_dir(context.state_dir.as_deref())?;
    let node = Node::open(&state_dir, context.node.as_deref(), &context.env)?;
    if let Origin::OtherMachine { was } = node.origin {
        tracing::warn!(
            "the state directory is of another machine (node {was}); this one is node {} from now on",
            node.id
        );
    }
    let (progress, display) = context.progress(role.name.as_str());
    let runner = Runner {
        env: context.env.clone(),
        node: NodeRef { id: node.id, name: node.label },
        instance: node.instance,
        state_dir,
        cancel: context.cancel.clone(),
        progress,
    };
    let store = crate::store::connect(&context.settings.store, &context.env).await?;
    let request = guard::Request { scheduled: args.scheduled, rehash: args.rehash };
    let done = Box::pin(guard::backup(&runner, &context.settings, role, store, request)).await;
    drop(display);
    match done {
        Ok((report, reason)) => Ok(RoleReport { reason: reason.map(|r| render::reason::text(&r)), ..report }),
        Err(GuardError::Backup(BackupError::Interrupted)) => Err(Interrupted.into()),
        Err(GuardError::NoSchedule { role }) => Err(UsageError {
            what: format!("role {role} has no schedule"),
            todo: format!("set schedule or every in [role.{role}], or leave --scheduled out."),
        }
        .into()),
        Err(error) => Err(error.into()),
    }
}

/// A role's snapshots, oldest first.
pub async fn snapshots(context: &Context, role: &RoleSettings) -> Result<Vec<SnapshotInfo>, Error> {
    let archive = open::archive(context, role).await?;
    Ok(archive.snapshots().iter().map(|snapshot| inside::info(archive.role(), snapshot)).collect())
}

/// The entries of a snapshot.
pub async fn ls(
    _archive: &Archive,
    _snapshot: &Snapshot,
    _args: &verbs::Ls,
    _each: Each<'_, Entry>,
) -> Result<(), Error> {
    Err(NotWired.into())
}

/// One file's content.
pub async fn cat(
    _archive: &Archive,
    _snapshot: &Snapshot,
    _args: &verbs::Cat,
    _out: &mut (dyn Write + Send),
) -> Result<(), Error> {
    Err(NotWired.into())
}

/// The entries that match a pattern, in one snapshot or (`None`) in all.
pub async fn find(
    _archive: &Archive,
    _snapshot: Option<&Snapshot>,
    _args: &verbs::Find,
    _each: Each<'_, Found>,
) -> Result<(), Error> {
    Err(NotWired.into())
}

/// The differences between two snapshots.
pub async fn diff(
    _archive: &Archive,
    _between: [&Snapshot; 2],
    _args: &verbs::Diff,
    _each: Each<'_, DiffLine>,
) -> Result<(), Error> {
    Err(NotWired.into())
}

/// Writes files back.
pub async fn restore(
    context: &Context,
    archive: &Archive,
    snapshot: &Snapshot,
    args: &verbs::Restore,
) -> Result<Restored, Error> {
    let (progress, _display) = context.progress(&format!("restore {}", archive.role()));
    let source = RepositorySource::open(archive.clone(), snapshot.root).await?;
    let roots = source.roots().await?;
    let paths = inside::expand(&args.paths, &roots);
    if paths.is_empty() {
        progress.total_bytes.store(snapshot.bytes, Ordering::Relaxed);
    }
    let options = RestoreOptions {
        target: args.target.clone().unwrap_or_else(|| PathBuf::from("/")),
        in_place: args.in_place,
        roots,
        paths,
        exclude: args.exclude.clone(),
        delete: args.delete,
        overwrite: args.overwrite.into(),
        dry_run: args.dry_run,
        numeric_ids: args.numeric_ids,
    };
    let entries = Box::new(source.entries(&options.paths));
    let report = restore::restore(Arc::new(source), entries, options, progress, &context.env).await?;
    Ok(Restored { snapshot: inside::info(archive.role(), snapshot), target: args.target.clone(), report })
}

/// Checks a repository.
pub async fn verify(context: &Context, role: &RoleSettings, args: &verbs::Verify) -> Result<VerifyReport, Error> {
    let store = crate::store::connect(&context.settings.store, &context.env).await?;
    let (progress, _display) = context.progress(&format!("verify {}", role.name));
    // A host that has nothing but the bucket and the key remembers nothing.
    let state_dir = find_state_dir(context.state_dir.as_deref()).ok();
    let remembered = move |repo| Local::peek(state_dir.as_ref()?, repo).load().view;
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
