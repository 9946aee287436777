//! `runner restore`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::Value;

use crate::cli::args::verbs;
use crate::cli::command_error::{CommandError, UsageError};
use crate::cli::commands::repair::recovery_inputs;
use crate::cli::context::{CliSession, CommandContext, until_cancelled};
use crate::cli::exit::{self, ExitKind};
use crate::cli::{json, open, render, settings};
use crate::config::RoleSettings;
use crate::job::report::restored::RestoredSnapshot;
use crate::job::repository::journal_access::JournalAccess;
use crate::job::repository::known_repository::RepositoryLocation;
use crate::job::repository::read_only::{ReadOnlyRepository, snapshot_info};
use crate::job::restore::options::{OverwritePolicy, RestoreOptions};
use crate::job::restore::{self, RepositorySource};
use crate::job::{self, browse};
use crate::journal::state::Snapshot;
use crate::repo::entry::TreePath;
use crate::role::identity::find_state_dir;

/// Restores files from a snapshot.
pub(crate) async fn restore(
    context: &CommandContext,
    archive: &ReadOnlyRepository,
    snapshot: &Snapshot,
    args: &verbs::RestoreArgs,
) -> Result<RestoredSnapshot, CommandError> {
    let (progress, _display) = context.progress(&format!("restore {}", archive.role()));
    let source = RepositorySource::open(archive.clone(), snapshot.root).await?;
    let roots = source.roots().await?;
    let paths = browse::expand_to_roots(&args.paths, &roots);
    if paths.is_empty() {
        progress.total_bytes.store(snapshot.bytes, Ordering::Relaxed);
    }
    let overwrite = if args.trust_mtime { OverwritePolicy::IfChanged } else { args.overwrite.into() };
    let options = restore_options(args, roots, paths, overwrite);
    let entries = Box::new(source.entries(&options.paths));
    let report = restore::restore(Arc::new(source), entries, options, progress, &context.env).await?;
    let snapshot = snapshot_info(archive.role(), snapshot);
    Ok(RestoredSnapshot { snapshot, target: args.target.clone(), salvage: false, is_vouched_for: true, report })
}

/// Restores everything that is whole, whatever is lost, and names the rest.
pub(crate) async fn salvage(
    context: &CommandContext,
    role: &RoleSettings,
    args: &verbs::RestoreArgs,
) -> Result<RestoredSnapshot, CommandError> {
    let (progress, _display) = context.progress(&format!("restore {}", role.name));
    let state_dir = find_state_dir(context.state_dir.as_deref()).ok();
    let (place, journal_access) =
        (RepositoryLocation::new(&context.settings.store, &role.name), JournalAccess::connect(&context.settings));
    let step = recovery_inputs(context, role, &place, state_dir.as_deref(), &journal_access);
    let remains = Box::pin(job::repair::open_salvaged(open::store(context).await?, step)).await?;
    let archive = &remains.archive;
    let (snapshot, is_vouched_for) = open::select_salvaged_snapshot(context, &remains, &args.snapshot)?;
    let reader = remains.reader(is_vouched_for).await?;
    let source = RepositorySource::salvage(archive.clone(), snapshot.root, reader);
    // If the whole list of entries is lost, nothing is restored.
    let roots = source.roots().await.unwrap_or_else(|_| vec![TreePath::default()]);
    let paths = browse::expand_to_roots(&args.paths, &roots);
    let options = restore_options(args, roots, paths, args.overwrite.into());
    let entries = Box::new(source.entries(&options.paths));
    let mut report = restore::restore(Arc::new(source.clone()), entries, options, progress, &context.env).await?;
    report.add_lost(source.lost());
    let snapshot = snapshot_info(archive.role(), snapshot);
    Ok(RestoredSnapshot { snapshot, target: args.target.clone(), salvage: true, is_vouched_for, report })
}

fn restore_options(
    args: &verbs::RestoreArgs,
    roots: Vec<TreePath>,
    paths: Vec<TreePath>,
    overwrite: OverwritePolicy,
) -> RestoreOptions {
    RestoreOptions {
        target: args.target.clone().unwrap_or_else(|| PathBuf::from("/")),
        in_place: args.in_place,
        roots,
        paths,
        exclude: args.exclude.clone(),
        delete: args.delete,
        overwrite,
        dry_run: args.dry_run,
        numeric_ids: args.numeric_ids,
    }
}

pub(crate) async fn run_restore(session: &mut CliSession, args: &verbs::RestoreArgs) -> Result<ExitKind, CommandError> {
    if let Some(second) = &args.second {
        let (what, role) = (format!("restore takes one role, and no further argument {second:?}"), &args.role);
        let todo = format!("name the snapshot with --snapshot: runner restore {role} --snapshot {second} --target DIR");
        return Err(UsageError { message: what, hint: todo }.into());
    }
    let context = session.context(settings::for_role(&session.globals, &args.direct, &args.role)?);
    let role = settings::role(&context.settings, &args.role)?;
    // A file gets its name only when it is complete, so a restore may end anywhere.
    let (report, doubt) = Box::pin(until_cancelled(&context.cancel, async {
        if args.salvage {
            return Ok((Box::pin(salvage(&context, role, args)).await?, Value::Null));
        }
        let archive = open::read_only(&context, role).await?;
        let snapshot = open::select_snapshot(&context, &archive, &args.snapshot)?;
        let restored = Box::pin(restore(&context, &archive, snapshot, args)).await;
        open::note_reader_losses(&context, &archive).await;
        Ok((restored?, json::journal_doubt(archive.doubt())))
    }))
    .await?;
    let exit = exit::of_restore(&report);
    Ok(session.report_result(
        exit,
        || render::restored::report(&report, &context.view()),
        || json::restore(&report, &doubt),
    ))
}
