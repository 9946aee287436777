//! `runner audit --bucket` and `--listing`: backups that another program made. Reads no config.

use std::fs::File;
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use crate::cli::args::verbs;
use crate::cli::command_error::{CommandError, ForeignListingError, UsageError};
use crate::cli::context::{CliSession, until_cancelled};
use crate::cli::exit::{self, ExitKind};
use crate::cli::progress::ProgressDisplay;
use crate::cli::render::foreign::{ForeignAuditResult, UnreadParts};
use crate::cli::{json, render, terminal};
use crate::config::{KeySource, StoreSettings, StoreUrl};
use crate::env::Env;
use crate::foreign;
use crate::foreign::bucket::{self, BucketError};
use crate::foreign::format::{ForeignListing, ListingError, read_listing};
use crate::foreign::options::ForeignAuditOptions;
use crate::foreign::pattern::KeyPattern;
use crate::job::node::progress::{JobPhase, JobProgress};

/// How much of a file is read at once.
const READ_BYTES: usize = 128 << 10;

/// Where the listing comes from.
#[derive(Debug)]
pub(crate) enum ListingSource {
    /// A bucket that is listed.
    Bucket(Box<StoreSettings>),
    /// A file; `-` is standard input.
    File(PathBuf),
}

impl ListingSource {
    /// The source that the command line names; `None`: it names none.
    pub(crate) fn of(args: &verbs::ForeignAuditArgs) -> Result<Option<Self>, UsageError> {
        if let Some(url) = &args.bucket {
            let refused = |e: crate::config::value::ValueError| UsageError {
                message: format!("--bucket: {}", e.what),
                hint: e.hint,
            };
            let url = bucket::parse_url(url).map_err(refused)?;
            let settings = StoreSettings {
                endpoint: args.endpoint.clone(),
                region: args.region.clone(),
                profile: args.profile.clone(),
                ..StoreSettings::new(url, KeySource::None)
            };
            return Ok(Some(Self::Bucket(Box::new(settings))));
        }
        Ok(args.listing.clone().map(Self::File))
    }

    fn name(&self) -> String {
        match self {
            Self::Bucket(settings) => settings.url.to_string(),
            Self::File(path) if is_standard_input(path) => "standard input".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// What the requests cost, before the first one.
    fn price(&self) -> Option<String> {
        let Self::Bucket(settings) = self else { return None };
        let StoreUrl::S3 { .. } = &settings.url else { return None };
        Some(format!(
            "{}: each request lists 1,000 objects or versions; nothing else is read. Amazon S3 charges US$ 0.005 for 1,000 such \
             requests, which list a million",
            settings.url
        ))
    }
}

fn is_standard_input(path: &Path) -> bool {
    path == Path::new("-")
}

async fn read(source: &ListingSource, env: &Env, progress: &Arc<JobProgress>) -> Result<ForeignListing, BucketError> {
    match source {
        ListingSource::Bucket(settings) => {
            let counters = Arc::clone(progress);
            let count = move |objects, bytes| {
                counters.files.store(objects, Relaxed);
                counters.bytes_read.store(bytes, Relaxed);
            };
            bucket::list(settings, env, Arc::new(count)).await
        }
        ListingSource::File(path) => {
            let path = path.clone();
            let read = env.blocking(move || read_file(&path)).await;
            Ok(read.unwrap_or_else(|| Err(io::Error::other("reading it panicked").into()))?)
        }
    }
}

fn read_file(path: &Path) -> Result<ForeignListing, ListingError> {
    if is_standard_input(path) {
        return read_listing(BufReader::with_capacity(READ_BYTES, io::stdin()));
    }
    read_listing(BufReader::with_capacity(READ_BYTES, File::open(path)?))
}

pub(crate) async fn run_foreign_audit(
    session: &mut CliSession,
    source: ListingSource,
    args: &verbs::AuditArgs,
) -> Result<ExitKind, CommandError> {
    let pattern = args.foreign.pattern.as_deref().map(KeyPattern::parse).transpose().map_err(|e| UsageError {
        message: format!("--pattern: {e}"),
        hint: "write the keys with placeholders for what varies: '{host}/{date}.tar.gz'.".to_owned(),
    })?;
    let name = source.name();
    if let Some(price) = source.price().filter(|_| !session.globals.quiet) {
        terminal::write_error(&terminal::error_page().wrap("", 2, &price));
    }
    let progress = Arc::new(JobProgress::default());
    progress.enter(JobPhase::List);
    let clock = Arc::clone(&session.env.clock);
    let display =
        ProgressDisplay::start("audit".to_owned(), Arc::clone(&progress), session.style, &session.bars, clock);
    let listed_at = matches!(source, ListingSource::Bucket(_)).then(|| session.env.clock.now().as_second());
    let reading = async {
        let read = read(&source, &session.env, &progress).await;
        read.map_err(|error| CommandError::from(ForeignListingError { source_name: name.clone(), error }))
    };
    let read = until_cancelled(&session.cancel, reading).await?;
    drop(display);
    let ForeignListing {
        listing, unread_lines, first_unread, unlisted_folders, unread_path_count, unread_paths, ..
    } = read;
    let options = ForeignAuditOptions { pattern, listed_at };
    let auditing = async {
        let audited = session.env.blocking(move || foreign::audit(&listing, &options)).await;
        audited.ok_or_else(|| CommandError::from(io::Error::other("the audit panicked")))
    };
    let audit = until_cancelled(&session.cancel, auditing).await?;
    let unread = UnreadParts {
        lines: unread_lines,
        first_line: first_unread,
        folders: unlisted_folders,
        path_count: unread_path_count,
        paths: unread_paths,
    };
    let result = ForeignAuditResult { source: name, audit, unread };
    let exit = exit::of_foreign_audit(&result);
    Ok(session.report_result(
        exit,
        || render::foreign::report(&result, args.calendar, terminal::output_page()),
        || json::foreign::report(&result),
    ))
}
