//! `runner pause`, `resume`, `takeover`, and the acts on the journal.

use std::sync::Arc;
use std::time::Duration;

use crate::cli::command_error::CommandError;
use crate::cli::context::{CliSession, CommandContext, node_context};
use crate::cli::exit::ExitKind;
use crate::cli::{json, open, render, settings};
use crate::config::RoleSettings;
use crate::daemon::client::DaemonClient;
use crate::ids::RoleName;
use crate::job::admission::guard;
use crate::job::node::context::NodeContext;
use crate::job::operate::adopt::adopt;
use crate::job::operate::{self, OperateReport, OperatorContext, RoleChange};
use crate::job::repository::known_repository;
use crate::job::repository::open::OpenError;

/// An operator's act on a role.
#[derive(Debug)]
pub(crate) enum OperateAction {
    /// Moves the role to this node.
    Takeover {
        /// Even if this node's probes do not say that it is active.
        force: bool,
    },
    /// Pauses the role.
    Pause {
        /// Duration of the pause; `None`: until a resume.
        lasts: Option<Duration>,
        /// The operator's reason.
        why: Option<String>,
    },
    /// Ends a pause.
    Resume,
    /// Makes the store's last record the head of the journal.
    Adopt,
    /// Takes back dates that lie in the future.
    Amend {
        /// Even if this node's clock is more likely to be the wrong one.
        force: bool,
    },
}

/// Performs an operator's act.
pub(crate) async fn operate(
    context: &CommandContext,
    role: &RoleSettings,
    act: &OperateAction,
) -> Result<OperateReport, CommandError> {
    let node_context = node_context(context, Arc::default()).await?;
    let opened = open::repository(context, role);
    let silent = || OpenError::Store(open::timeout_error(context, operate::PATIENCE));
    let repository = context.env.timeout(operate::PATIENCE, opened).await.unwrap_or_else(|| Err(silent().into()))?;
    known_repository::slot_plan(&context.settings, role, &context.env, &node_context.state_dir)?;
    let assessment = match act {
        OperateAction::Takeover { .. } => guard::run_probes(&node_context, role, None).await,
        _ => None,
    };
    let NodeContext { node, instance, state_dir, leases: sessions, .. } = node_context;
    let journal_access = sessions.journal_access().clone();
    let operator = OperatorContext { node, instance, env: &context.env, state_dir: Some(&state_dir), journal_access };
    let work = async {
        Ok::<OperateReport, CommandError>(match act {
            OperateAction::Takeover { force } => {
                operator.take_over(&repository, role, assessment.as_ref(), *force).await?
            }
            OperateAction::Pause { lasts, why } => {
                let until = lasts.map(|lasts| context.env.clock.now().checked_add(lasts)).transpose()?;
                operator.pause(&repository, until, why.clone()).await?
            }
            OperateAction::Resume => operator.resume(&repository).await?,
            OperateAction::Adopt => adopt(&operator, &repository).await?,
            OperateAction::Amend { force } => operator.amend(&repository, *force).await?,
        })
    };
    let acted = operate::with_timeout(
        &context.env,
        operate::PATIENCE,
        || repository.store.last_attempt_error(),
        Box::pin(work),
    )
    .await?;
    // The act is in the journal already; the daemon of this node only learns about it sooner.
    if let Ok(Some(daemon)) = DaemonClient::find(&context.runtime_dir()).await {
        daemon.notify_appended(&role.name).await;
    }
    Ok(acted)
}

pub(crate) async fn run_operate(
    session: &mut CliSession,
    role: &RoleName,
    act: &OperateAction,
) -> Result<ExitKind, CommandError> {
    let context = session.context(settings::from_file(&session.globals)?);
    let settings = settings::role(&context.settings, role)?;
    // Not interruptible: the result of an operator's act must be reported.
    let acted = operate(&context, settings, act).await?;
    let undone = matches!(acted.change, RoleChange::ClockOff { .. } | RoleChange::OwnClockSuspect(_));
    let exit = if undone { ExitKind::Unknown } else { ExitKind::Done };
    Ok(session.report_result(
        exit,
        || render::operated::report(&acted, &context.view()),
        || json::operate_report(&acted),
    ))
}
