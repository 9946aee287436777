//! `config init`, `config check`, `config show` and `config schema`.

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::args::verbs;
use super::exit::ExitKind;
use super::{host_check, json, render, settings, systemd as units, terminal};
use crate::cli::command_error::{CommandError, UsageError};
use crate::cli::context::CliSession;
use crate::cli::systemd::missing_parent;
use crate::config::{json_schema, starter, systemd};
use crate::job::report::ADVICE;
use crate::role::identity;

pub(super) fn config(session: &mut CliSession, args: &verbs::ConfigCommand) -> Result<ExitKind, CommandError> {
    match args {
        verbs::ConfigCommand::Init(args) => {
            let sources = args.source.iter().map(std::path::absolute).collect::<Result<Vec<_>, _>>()?;
            for (source, target) in sources.iter().filter_map(|source| Some((source, source.read_link().ok()?))) {
                tracing::warn!(
                    "{} is a symbolic link to {}: a run refuses a link as a source. {ADVICE}name its target as the \
                     source",
                    source.display(),
                    target.display()
                );
            }
            let text = starter(&sources, &settings::store_url(&args.store)?);
            match &args.file {
                None => session.out.print(&text)?,
                Some(file) => {
                    create(file, &text)?;
                    session.out.print(&render::config::written(file, terminal::output_page()))?;
                }
            }
        }
        verbs::ConfigCommand::Check => {
            let mut settings = settings::from_file(&session.globals)?;
            settings.warnings.extend(units::unwritable_stores(&settings, Path::new("/")));
            let links = settings::symlinked_sources(&settings);
            let node = identity::peek_identity(session.globals.state_dir.as_deref(), session.globals.node.as_deref()).1;
            let missing = host_check::host_problems(&settings, &node);
            session.report(
                || render::config::checked(&settings, &links, &missing, terminal::output_page()),
                || json::config(&settings, &links, &missing, false),
            )?;
        }
        verbs::ConfigCommand::Show(verbs::ConfigShowArgs { systemd: Some(dir) }) => {
            let settings = settings::from_file(&session.globals)?;
            let text = systemd::drop_in(&settings, &units::environment(&session.globals)?);
            match dir {
                None => session.out.print(&text)?,
                Some(dir) => {
                    let files = units::write(dir, &text)?;
                    session.out.print(&render::config::drop_ins(&files, terminal::output_page()))?;
                }
            }
        }
        verbs::ConfigCommand::Show(_) => {
            let settings = settings::from_file(&session.globals)?;
            session.report(|| settings.render(), || json::config(&settings, &[], &[], true))?;
        }
        // The schema is JSON by its nature, with --json or without.
        verbs::ConfigCommand::Schema => session.out.document(&format!("{:#}\n", json_schema()))?,
    }
    Ok(ExitKind::Done)
}

/// Writes a new file. It contains no secrets, so everyone may read it.
fn create(file: &Path, text: &str) -> Result<(), CommandError> {
    let mut opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(file).map_err(|e| {
        match e.kind() {
            io::ErrorKind::AlreadyExists => CommandError::from(UsageError {
                message: format!("{} exists already", file.display()),
                hint: "name another file, or move that one away.".to_owned(),
            }),
            io::ErrorKind::NotFound => missing_parent(file),
            _ => unwritable(file, &e),
        }
    })?;
    Ok(opened.write_all(text.as_bytes())?)
}

fn unwritable(path: &Path, error: &io::Error) -> CommandError {
    UsageError {
        message: format!("{} cannot be made ({error})", path.display()),
        hint: "name a file where this user may write, or run it as root (sudo).".to_owned(),
    }
    .into()
}
