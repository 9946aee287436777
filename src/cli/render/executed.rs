//! `exec`: the messages beside the command's own output.

use super::{RenderContext, reason, run_reason};
use crate::ids::RoleName;
use crate::job::exec::{ExecOutcome, ExecStopCause, ProcessExit};

/// The message; `None` if the command ran to its end.
pub fn text(role: &RoleName, executed: &ExecOutcome, view: &RenderContext) -> Option<String> {
    let text = match executed {
        ExecOutcome::Ran { .. } => return None,
        ExecOutcome::Stopped { ended, cause, .. } => {
            let ended = match ended {
                ProcessExit::Exit(code) => format!("it ended with exit code {code}"),
                ProcessExit::Signal(signal) => format!("it was ended by signal {signal}"),
            };
            format!("the command was stopped, {ended}: {}", self::cause(cause))
        }
        ExecOutcome::Refused(refused) => {
            let why = refused.reason.as_ref().map(|why| run_reason::text(role, why, &view.zone));
            let why = why.unwrap_or_else(|| "not active here".to_owned());
            format!("not run: {why}")
        }
    };
    Some(view.page.wrap_advised(&format!("{role}: "), 2, &text))
}

/// Why a command was ended.
pub fn cause(cause: &ExecStopCause) -> String {
    match cause {
        ExecStopCause::LeaseLost(Some(by)) => format!("node {} has the lease now", by.label),
        ExecStopCause::LeaseLost(None) => "another node has the lease now".to_owned(),
        ExecStopCause::Expired => "the lease could not be renewed in time".to_owned(),
        ExecStopCause::NotEligible(evidence) => reason::not_eligible("not active here any more", evidence),
        ExecStopCause::Fenced(holder) => {
            format!("node {} took the role over with term {}", holder.node.name, holder.term)
        }
        ExecStopCause::TimedOut(timeout) => {
            format!("it took longer than --timeout {}", humantime::format_duration(*timeout))
        }
    }
}
