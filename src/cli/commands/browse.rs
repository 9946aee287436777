//! `runner snapshots`, `ls`, `cat`, `find` and `diff`.

use std::io::Write;

use serde_json::{Value, json};

use crate::cli::args::verbs;
use crate::cli::command_error::CommandError;
use crate::cli::context::{CliSession, CommandContext, until_cancelled};
use crate::cli::exit::ExitKind;
use crate::cli::output::ListOutput;
use crate::cli::{json, open, render, settings};
use crate::config::RoleSettings;
use crate::job::browse;
use crate::job::browse::error::ItemCallback;
use crate::job::report::browse::{DiffCounts, DiffLine, FindMatch};
use crate::job::report::snapshot::SnapshotInfo;
use crate::job::repository::read_only::{ReadOnlyRepository, snapshot_info};
use crate::journal::state::Snapshot;
use crate::repo::entry::ManifestEntry;

/// An archive's snapshots, oldest first.
pub(crate) fn snapshots(archive: &ReadOnlyRepository) -> Vec<SnapshotInfo> {
    archive.snapshots().iter().map(|snapshot| snapshot_info(archive.role(), snapshot)).collect()
}

/// The entries of a snapshot.
pub(crate) async fn ls(
    archive: &ReadOnlyRepository,
    snapshot: &Snapshot,
    args: &verbs::LsArgs,
    each: ItemCallback<'_, ManifestEntry>,
) -> Result<(), CommandError> {
    let reader = archive.reader().await?;
    let path = args.below()?;
    Ok(browse::ls(&reader, snapshot.root, &path, args.recursive, each).await?)
}

/// One file's content.
pub(crate) async fn cat(
    archive: &ReadOnlyRepository,
    snapshot: &Snapshot,
    args: &verbs::CatArgs,
    out: &mut (dyn Write + Send),
) -> Result<(), CommandError> {
    Ok(browse::cat(&archive.reader().await?, snapshot.root, &args.path, out).await?)
}

/// The entries that match a pattern, in one snapshot or (`None`) in all.
pub(crate) async fn find(
    archive: &ReadOnlyRepository,
    snapshot: Option<&Snapshot>,
    args: &verbs::FindArgs,
    each: ItemCallback<'_, FindMatch>,
) -> Result<(), CommandError> {
    let snapshots = snapshot.map_or(archive.snapshots(), std::slice::from_ref);
    Ok(browse::find(&archive.reader().await?, snapshots, &args.pattern, each).await?)
}

/// The differences between two snapshots.
pub(crate) async fn diff(
    archive: &ReadOnlyRepository,
    between: [&Snapshot; 2],
    args: &verbs::DiffArgs,
    each: ItemCallback<'_, DiffLine>,
) -> Result<(), CommandError> {
    let path = args.path.clone().unwrap_or_default();
    Ok(browse::diff(&archive.reader().await?, between.map(|s| s.root), &path, each).await?)
}

/// The value of `--snapshot` of `find` that means all snapshots.
pub(crate) const ALL: &str = "all";

pub(crate) async fn run_snapshots(
    session: &mut CliSession,
    args: &verbs::SnapshotsArgs,
) -> Result<ExitKind, CommandError> {
    let context = session.context(settings::for_role(&session.globals, &args.direct, &args.role)?);
    let role = settings::role(&context.settings, &args.role)?;
    let archive = until_cancelled(&context.cancel, open::read_only_from_listing(&context, role)).await?;
    let list = snapshots(&archive);
    session.report(
        || render::snapshots::list(&list, archive.doubt().is_some(), &context.view()),
        || json::snapshots(&list, &json::journal_doubt(archive.doubt())),
    )?;
    // A snapshot can be chosen from what is left, by ID; the list is incomplete.
    open::require_complete_journal(&archive)?;
    Ok(ExitKind::Done)
}

/// The fields before a list from inside a snapshot.
pub(crate) fn heading(role: &RoleSettings, snapshot: Option<&Snapshot>, archive: &ReadOnlyRepository) -> Value {
    json!({ "role": role.name, "snapshot": snapshot.map(|s| s.id), "doubt": json::journal_doubt(archive.doubt()) })
}

/// Opens the role's archive for `read`, which shows content of snapshots, and notes afterwards which losses it met. An
/// interrupt ends both.
async fn browse_archive(
    context: &CommandContext,
    role: &RoleSettings,
    read: impl AsyncFnOnce(&ReadOnlyRepository) -> Result<(), CommandError>,
) -> Result<ExitKind, CommandError> {
    Box::pin(until_cancelled(&context.cancel, async {
        let archive = open::read_only(context, role).await?;
        let result = read(&archive).await;
        open::note_reader_losses(context, &archive).await;
        result
    }))
    .await?;
    Ok(ExitKind::Done)
}

pub(crate) async fn run_ls(session: &mut CliSession, args: &verbs::LsArgs) -> Result<ExitKind, CommandError> {
    let context = session.context(settings::for_role(&session.globals, &args.direct, &args.role)?);
    let (role, view) = (settings::role(&context.settings, &args.role)?, context.view());
    browse_archive(&context, role, async |archive| {
        let snapshot = open::select_snapshot(&context, archive, args.selector())?;
        let head = heading(role, Some(snapshot), archive);
        let mut list = ListOutput::open(&mut session.out, session.globals.json, &head, "entries")?;
        let mut each = |e: &_| list.item(|| render::browse::entry(e, args.long, &view), || json::entry(e));
        ls(archive, snapshot, args, &mut each).await?;
        Ok(list.finish("", &json!({}))?)
    })
    .await
}

pub(crate) async fn run_cat(session: &mut CliSession, args: &verbs::CatArgs) -> Result<ExitKind, CommandError> {
    let context = session.context(settings::for_role(&session.globals, &args.direct, &args.role)?);
    let role = settings::role(&context.settings, &args.role)?;
    browse_archive(&context, role, async |archive| {
        let snapshot = open::select_snapshot(&context, archive, &args.snapshot)?;
        cat(archive, snapshot, args, &mut session.out).await?;
        Ok(session.out.print("")?)
    })
    .await
}

pub(crate) async fn run_find(session: &mut CliSession, args: &verbs::FindArgs) -> Result<ExitKind, CommandError> {
    let context = session.context(settings::for_role(&session.globals, &args.direct, &args.role)?);
    let (role, view) = (settings::role(&context.settings, &args.role)?, context.view());
    browse_archive(&context, role, async |archive| {
        let snapshot =
            if args.snapshot == ALL { None } else { Some(open::select_snapshot(&context, archive, &args.snapshot)?) };
        let head = heading(role, snapshot, archive);
        let mut list = ListOutput::open(&mut session.out, session.globals.json, &head, "entries")?;
        let mut each = |hit: &_| list.item(|| render::browse::found_entry(hit, args.long, &view), || json::found(hit));
        find(archive, snapshot, args, &mut each).await?;
        list.finish("", &json!({}))?;
        // The search covered what is left; the rest may have had matches.
        if snapshot.is_none() { open::require_complete_journal(archive) } else { Ok(()) }
    })
    .await
}

pub(crate) async fn run_diff(session: &mut CliSession, args: &verbs::DiffArgs) -> Result<ExitKind, CommandError> {
    let context = session.context(settings::for_role(&session.globals, &args.direct, &args.role)?);
    let role = settings::role(&context.settings, &args.role)?;
    browse_archive(&context, role, async |archive| {
        let before = open::select_snapshot(&context, archive, &args.before)?;
        let after = open::select_snapshot(&context, archive, &args.after)?;
        let head = json!({
            "role": role.name, "before": before.id, "after": after.id, "doubt": json::journal_doubt(archive.doubt()),
        });
        let mut counts = DiffCounts::default();
        let mut list = ListOutput::open(&mut session.out, session.globals.json, &head, "changes")?;
        let mut each = |line: &DiffLine| {
            counts.add(line.change);
            list.item(|| render::browse::diff(line), || json::diff(line))
        };
        diff(archive, [before, after], args, &mut each).await?;
        Ok(list.finish(&render::browse::diff_total(&counts), &json::diff_total(&counts))?)
    })
    .await
}
