//! `runner journal show`.

use crate::cli::args::verbs;
use crate::cli::command_error::CommandError;
use crate::cli::context::{CliSession, until_cancelled};
use crate::cli::exit::ExitKind;
use crate::cli::{json, open, render, settings};
use crate::job::repository::read_only::{JournalEntry, ReadOnlyRepository};

/// The entries at the newest `last` numbers of the journal, oldest first.
pub(crate) async fn journal(archive: &ReadOnlyRepository, last: u64) -> Result<Vec<JournalEntry>, CommandError> {
    Ok(archive.records(last).await?)
}

pub(crate) async fn run_journal(
    session: &mut CliSession,
    args: &verbs::JournalShowArgs,
) -> Result<ExitKind, CommandError> {
    let context = session.context(settings::for_role(&session.globals, &args.direct, &args.role)?);
    let role = settings::role(&context.settings, &args.role)?;
    let (archive, lines) = until_cancelled(&context.cancel, async {
        let archive = open::read_only(&context, role).await?;
        let lines = journal(&archive, args.last).await?;
        Ok((archive, lines))
    })
    .await?;
    session.report(
        || render::journal::lines(&lines, &context.view()),
        || json::journal(&role.name, &lines, &json::journal_doubt(archive.doubt())),
    )?;
    open::require_complete_journal(&archive)?;
    let lost = lines.into_iter().find_map(|line| match line {
        JournalEntry::Lost { error, .. } => Some(error),
        _ => None,
    });
    lost.map_or(Ok(ExitKind::Done), |error| Err(error.into()))
}
