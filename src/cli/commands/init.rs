//! `runner init`.

use crate::cli::args::verbs;
use crate::cli::command_error::CommandError;
use crate::cli::context::{CliSession, CommandContext, warn_of_exposures};
use crate::cli::exit::ExitKind;
use crate::cli::{json, open, render, settings, terminal};
use crate::config::{RoleSettings, StoreUrl};
use crate::ids::NodeId;
use crate::job;
use crate::job::admission::lease;
use crate::job::report::setup::{InitReport, InitRoleReport};
use crate::job::repository::journal_access::JournalAccess;
use crate::job::repository::known_repository::RepositoryLocation;
use crate::role::identity::{self, find_state_dir, open_state_dir};
use crate::store::StoreErrorKind;

/// Creates one role's repository, or finds it. `new` also allows it where this node knows one that is gone, or another
/// one than is there.
pub(crate) async fn init(
    context: &CommandContext,
    role: &RoleSettings,
    new: bool,
) -> Result<InitRoleReport, CommandError> {
    let (settings, env) = (&context.settings.store, &context.env);
    let place = RepositoryLocation::new(settings, &role.name);
    let state_dir = find_state_dir(context.state_dir.as_deref()).ok().filter(|dir| dir.is_dir());
    if !new {
        let refuse = |store| job::repository::init::refuse_gone(store, &place, state_dir.as_deref(), env);
        match crate::store::connect(settings, env).await {
            Ok(store) => refuse(Some(store.as_ref())).await?,
            Err(error) if error.kind == StoreErrorKind::NoSuchStore => refuse(None).await?,
            Err(error) => return Err(error.into()),
        }
    }
    let store = crate::store::create(settings, env).await?;
    let journal_access = JournalAccess::connect(&context.settings);
    let (repository, report) =
        job::repository::init::init(store, &role.name, &role.key, &journal_access, &context.env).await?;
    lease::prove_lease_store(role, &repository, &context.env).await?;
    if let Some(state_dir) = &state_dir {
        if new {
            place.accept(env, state_dir, &repository);
        } else {
            place.remember(env, state_dir, &repository)?;
        }
    }
    Ok(InitRoleReport { shared: matches!(settings.url, StoreUrl::S3 { .. }), ..report })
}

/// Gives this node a new identity.
pub(crate) fn new_identity(context: &CommandContext) -> Result<NodeId, CommandError> {
    let state_dir = open_state_dir(context.state_dir.as_deref())?;
    Ok(identity::renew_identity(&state_dir, &context.env)?)
}

pub(crate) async fn run_init(session: &mut CliSession, args: &verbs::InitArgs) -> Result<ExitKind, CommandError> {
    let context = session.context(settings::from_file(&session.globals)?);
    warn_of_exposures(&context.settings);
    let mut report = InitReport { roles: Vec::new(), new_identity: None };
    if args.new_identity {
        report.new_identity = Some(new_identity(&context)?);
    }
    let asked = settings::roles(&context.settings, &args.roles)?;
    for &role in &asked {
        match init(&context, role, args.new).await {
            Ok(done) => report.roles.push(done),
            Err(error) => {
                // The key of a repository that was created must be copied: print this before the error.
                if !session.globals.json && !report.roles.is_empty() {
                    session.out.print(&render::setup::init(&report, terminal::output_page()))?;
                }
                return Err(error);
            }
        }
    }
    // A created key is printed before anything else can fail.
    let exit = session.report_result(
        ExitKind::Done,
        || render::setup::init(&report, terminal::output_page()),
        || json::init(&report),
    );
    match open::store(&context).await {
        Ok(store) => open::warn_of_versioning(&context, store.as_ref(), &asked).await,
        Err(error) => tracing::warn!("it cannot be asked whether the bucket keeps versions: {error}"),
    }
    Ok(exit)
}
